"""Judge a contestant by the oracle, then take its time and its memory."""

from __future__ import annotations

import math
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

import numpy as np

from ssm_edu import bounds
from ssm_edu.bench.cases import Case
from ssm_edu.bench.contestants import Contestant, Outputs, gradient_outputs
from ssm_edu.selective import reference
from ssm_edu.selective.problem import Problem

# The bounds on gradients take some 270 bytes for each of batch · dim · length · state: 4 GB for so many.
LARGEST_CHECK = 2**24


@dataclass(frozen=True)
class Verdict:
    """How far a contestant is from the oracle.

    Attributes:
        ratio: the worst error in units of its bound, in `output`; inf for what is not finite, has no finite bound, or
            has not the shape of the oracle's.
        error: the worst absolute error, in `error_output`.
        steps: how many steps of y were checked.
        message: where and how it is wrong.
    """

    ratio: float
    output: str
    error: float
    error_output: str
    steps: int
    message: str = ""

    @property
    def ok(self) -> bool:
        return self.ratio <= 1


class Judge:
    """The exact outputs of a case, and the bounds on them.

    Where the bounds of a whole case are too large for memory, the first steps of y are checked and no others.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.steps = min(case.length, max(1, LARGEST_CHECK * case.length // case.elements))
        self._bounds: dict[tuple[Any, ...], Outputs] = {}

    def require_all_steps(self, why: str) -> None:
        """Raise a ValueError where only the first steps can be checked."""
        if self.steps < self.case.length:
            raise ValueError(
                f"batch · dim · length · state is {self.case.elements}, expected at most {LARGEST_CHECK}: {why}"
            )

    @cached_property
    def problem(self) -> Problem:
        return self.case.first_steps(self.steps)

    @property
    def grad_y(self) -> np.ndarray:
        return self.case.grad_y

    @cached_property
    def scan(self) -> Outputs:
        y, last_state = reference.selective_scan(self.problem)
        return {"y": y, "last_state": last_state} if self.steps == self.case.length else {"y": y}

    @cached_property
    def gradients(self) -> Outputs:
        self.require_all_steps("a gradient depends on all later steps")
        return gradient_outputs(reference.selective_scan_backward(self.problem, self.grad_y))

    def bounds(self, direction: str, bracketing: dict[str, Any]) -> Outputs:
        """By output (claims ROUND-7 to ROUND-13)."""
        key = (direction, *sorted(bracketing.items()))
        if key not in self._bounds:
            if direction == "forward":
                self._bounds[key] = bounds.forward(self.problem, **bracketing)._asdict()
            else:
                self._bounds[key] = gradient_outputs(bounds.backward(self.problem, self.grad_y, **bracketing))
        return self._bounds[key]

    def verdict(self, contestant: Contestant, found: Outputs) -> Verdict:
        """The worst of all outputs. Forward, a contestant may leave out the last state."""
        exact = self.scan if contestant.direction == "forward" else self.gradients
        wanted = {"y"} if contestant.direction == "forward" else set(exact)
        if missing := sorted(wanted - set(found)):
            return self.wrong(missing[0], f"{missing[0]} is missing")
        bound = self.bounds(contestant.direction, contestant.bracketing(self.case.problem))
        worst = Verdict(-1.0, "", -1.0, "", self.steps)
        for name in [name for name in exact if name in found]:
            array = found[name][..., : self.steps] if name == "y" else found[name]
            if array.shape != exact[name].shape or array.dtype.kind != exact[name].dtype.kind:
                expected = f"expected {exact[name].dtype.kind}{exact[name].shape}"
                return self.wrong(name, f"{name} is {array.dtype.kind}{array.shape}, {expected}")
            one = self._compared(name, array, exact[name], bound[name])
            largest = max(worst, one, key=lambda v: v.error)
            nearest = max(worst, one, key=lambda v: v.ratio)
            worst = Verdict(
                nearest.ratio, nearest.output, largest.error, largest.error_output, self.steps, nearest.message
            )
        return worst

    def _compared(self, name: str, found: np.ndarray, exact: np.ndarray, bound: np.ndarray) -> Verdict:
        with np.errstate(all="ignore"):
            error = np.abs(found.astype(exact.dtype) - exact)
            ratio = np.where(error == 0, 0.0, error / bound)
            ratio = np.where(np.isfinite(error) & np.isfinite(bound), ratio, np.inf)
        at = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
        place = f"{name}[{', '.join(str(int(i)) for i in at)}]"
        message = "" if ratio[at] <= 1 else f"{place} is {found[at]:.9g}, expected {exact[at]:.9g} ± {bound[at]:.2g}"
        largest = np.where(np.isfinite(error), error, np.inf).max()
        return Verdict(float(ratio[at]), name, float(largest), name, self.steps, message)

    def wrong(self, name: str, message: str) -> Verdict:
        return Verdict(math.inf, name, math.inf, name, self.steps, message)


@dataclass(frozen=True)
class Row:
    """What was found of a contestant on a case; `skipped` says why nothing was."""

    case: Case
    contestant: Contestant
    verdict: Verdict | None = None
    seconds: tuple[float, ...] = ()
    peak_bytes: int | None = None
    skipped: str | None = None

    @property
    def ok(self) -> bool:
        """Not outside its bound; a yardstick has none."""
        return self.verdict is None or self.verdict.ok

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def best(self) -> float:
        return min(self.seconds)

    @property
    def rate(self) -> float:
        """batch · dim · length · state in a second."""
        return self.case.elements / self.median

    @property
    def bandwidth(self) -> float | None:
        """Bytes in a second that must be moved; None for a yardstick."""
        if self.contestant.outputs is None:
            return None
        return self.case.bytes_moved(self.contestant.direction) / self.median

    def as_dict(self) -> dict[str, Any]:
        """For JSON, which has no infinity: null."""
        named: dict[str, Any] = {
            "name": self.contestant.name,
            "direction": self.contestant.direction,
            "ours": self.contestant.ours,
            "skipped": self.skipped,
        }
        if self.verdict is not None:
            v = self.verdict
            named |= {
                "ok": v.ok,
                "error_in_bounds": finite(v.ratio),
                "output": v.output,
                "error": finite(v.error),
                "error_output": v.error_output,
                "checked_steps": v.steps,
                "message": v.message,
            }
        if self.seconds:
            named |= {
                "median_seconds": self.median,
                "min_seconds": self.best,
                "runs": len(self.seconds),
                "exponentials_per_second": self.rate if self.case.discretization != "bilinear" else None,
                "bytes_per_second": self.bandwidth,
            }
        return named | ({} if self.peak_bytes is None else {"peak_bytes": self.peak_bytes})


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def measure(contestant: Contestant, judge: Judge, *, memory: bool = False) -> Row:
    """Judge a contestant, then time it, and with `memory` take its peak. The judged run warms it up.

    Whatever it raises is a wrong answer.

    Raises:
        ValueError: the case is too large for its gradients to be judged.
    """
    if (reason := contestant.available()) is not None:
        return Row(judge.case, contestant, skipped=reason)
    try:
        call = contestant.prepare(judge.case)
        found = None if contestant.outputs is None else contestant.outputs(call())
    except Exception as error:
        return Row(judge.case, contestant, judge.wrong("", f"raised {type(error).__name__}: {error}"))
    verdict = None if found is None else judge.verdict(contestant, found)
    del found
    return Row(judge.case, contestant, verdict, timed(call), peak_memory(call) if memory else None)


def timed(call: Callable[[], Any], *, runs: int = 7, seconds: float = 0.5, at_most: float = 10.0) -> tuple[float, ...]:
    """The times of single runs: at least so many, over at least so many seconds; 3 where these take `at_most`."""
    times: list[float] = []
    total = 0.0
    while (len(times) < runs or total < seconds) and (len(times) < 3 or total < at_most):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
        total += times[-1]
    return tuple(times)


def peak_memory(call: Callable[[], Any]) -> int:
    """How many bytes more there are during a call than before it, at most: NumPy's arrays, the results among them.

    tracemalloc counts what Python and NumPy allocate. What compiled code takes for itself it does not see: the `numba`
    backend's tiles and, in the adjoint, the states at their borders.
    """
    tracing = tracemalloc.is_tracing()
    if not tracing:
        tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        call()
        return max(0, tracemalloc.get_traced_memory()[1] - before)
    finally:
        if not tracing:
            tracemalloc.stop()
