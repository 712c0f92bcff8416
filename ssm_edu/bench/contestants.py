"""Who takes part: the implementations of this package, and what any other must offer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from ssm_edu.bench.cases import Case
from ssm_edu.selective import chunked, selective_scan, selective_scan_backward
from ssm_edu.selective.problem import Problem, make_problem
from ssm_edu.selective.reference import Gradients

Outputs = dict[str, np.ndarray]
DIRECTIONS = ("forward", "backward")


def present() -> str | None:
    return None


def sequential(problem: Problem) -> dict[str, Any]:
    return {"algorithm": "sequential"}


@dataclass(frozen=True)
class Contestant:
    """A selective scan, or its adjoint.

    Attributes:
        name: in the table.
        direction: `forward` or `backward`.
        prepare: from a case to the function that is timed; what it does itself is not.
        outputs: from that function's result to `y` (and perhaps `last_state`) or to `gradient of u` and so on, in the
            shapes of the oracle; None for a yardstick, which computes something else than a scan.
        available: why it cannot run here, or None.
        bracketing: the `algorithm`, and perhaps `chunk`, by which :mod:`ssm_edu.bounds` judges it on a problem.
        ours: whether being wrong is this package's fault.
    """

    name: str
    direction: str
    prepare: Callable[[Case], Callable[[], Any]]
    outputs: Callable[[Any], Outputs] | None
    available: Callable[[], str | None] = present
    bracketing: Callable[[Problem], dict[str, Any]] = sequential
    ours: bool = False


def scan_outputs(result: tuple[np.ndarray, np.ndarray]) -> Outputs:
    return {"y": result[0], "last_state": result[1]}


def gradient_outputs(gradients: Gradients | Outputs) -> Outputs:
    named = gradients._asdict() if isinstance(gradients, Gradients) else gradients
    return {f"gradient of {name}": value for name, value in named.items() if value is not None}


def backend(name: str, **options: Any) -> tuple[Contestant, Contestant]:
    """A backend of :func:`ssm_edu.selective_scan`, forward and backward, as a caller meets it: checks included."""

    def forward(case: Case) -> Callable[[], Any]:
        return partial(selective_scan, **case.arguments, return_last_state=True, backend=name)

    def backward(case: Case) -> Callable[[], Any]:
        return partial(selective_scan_backward, case.grad_y, **case.arguments, backend=name)

    return (
        Contestant(name, "forward", forward, scan_outputs, ours=True, **options),
        Contestant(name, "backward", backward, gradient_outputs, ours=True, **options),
    )


def by_chunks(chunk: int = 64) -> tuple[Contestant, Contestant]:
    """:mod:`ssm_edu.selective.chunked`, which is no backend: it computes in the problem's precision."""

    def forward(case: Case) -> Callable[[], Any]:
        def call() -> Any:
            y, last_state = chunked.selective_scan(make_problem(**case.arguments), chunk)
            return y.astype(case.dtype, copy=False), last_state

        return call

    def backward(case: Case) -> Callable[[], Any]:
        def call() -> Outputs:
            found = chunked.selective_scan_backward(make_problem(**case.arguments), case.grad_y, chunk=chunk)
            return {name: g.astype(case.arguments[name].dtype) for name, g in found._asdict().items() if g is not None}

        return call

    def bracketing(problem: Problem) -> dict[str, Any]:
        return {"algorithm": "chunked", "chunk": chunk}

    return (
        Contestant("chunked", "forward", forward, scan_outputs, bracketing=bracketing, ours=True),
        Contestant("chunked", "backward", backward, gradient_outputs, bracketing=bracketing, ours=True),
    )


def needs(*packages: str) -> Callable[[], str | None]:
    """Available where these can be imported."""

    def available() -> str | None:
        missing = [package for package in packages if find_spec(package) is None]
        return f"{' and '.join(missing)} not installed" if missing else None

    return available


def numba_bracketing(problem: Problem) -> dict[str, Any]:
    """Step by step, unless there are so many cores that time is cut into chunks."""
    from ssm_edu.selective.cpu import turn

    borders = turn(problem, None).chunks
    if len(borders) == 2:
        return {"algorithm": "sequential"}
    return {"algorithm": "chunked", "chunk": int(borders[1] - borders[0])}


BUILT_IN = (
    *backend("numba", available=needs("numba"), bracketing=numba_bracketing),
    *by_chunks(),
    *backend("reference"),
)
