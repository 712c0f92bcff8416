"""Who is timed on a GPU: our backend, every rung of the ladder, and `mamba_ssm`'s extension."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from ssm_edu import bounds
from ssm_edu import gpu as door
from ssm_edu.bench.cases import IN_TIME, Case
from ssm_edu.bench.competitors import INPUTS
from ssm_edu.bench.contestants import Contestant, Outputs, present
from ssm_edu.bench.device.gpu import Gpu
from ssm_edu.bench.results import OURS, SAVING, THEIRS
from ssm_edu.selective import selective_scan, selective_scan_backward
from ssm_edu.selective.problem import Problem
from ssm_edu.selective.reference import Gradients

EXTENSION = "selective_scan_cuda"
ARRAYS = frozenset(INPUTS)


def bracketing(case: Case) -> Callable[[Problem], dict[str, Any]]:
    """Any order of the scan, and the GPU's fast functions where the arithmetic is float32."""
    arithmetic = bounds.FLOAT64 if case.dtype == "float64" else bounds.FLOAT32_APPROX
    return lambda problem: {"algorithm": "any", "arithmetic": arithmetic, "stored": case.stored}


def pair(
    name: str,
    case: Case,
    forward: Callable[[Case], Callable[[], Any]],
    backward: Callable[[Case], Callable[[], Any]],
    outputs: Callable[[Any], Outputs],
    gradients: Callable[[Any], Outputs],
    reason: str | None = None,
    *,
    ours: bool,
) -> tuple[Contestant, Contestant]:
    """A scan and its adjoint, to be judged on that case."""
    options: dict[str, Any] = {"bracketing": bracketing(case), "ours": ours}
    options["available"] = present if reason is None else lambda: reason
    return (
        Contestant(name, "forward", forward, outputs, **options),
        Contestant(name, "backward", backward, gradients, **options),
    )


def uploaded(gpu: Gpu, case: Case) -> dict[str, Any]:
    """A copy of the arguments on the GPU, by name."""
    stored = dict.fromkeys(IN_TIME, case.stored)
    return {
        name: gpu.upload(value, stored.get(name)) if name in ARRAYS else value for name, value in case.arguments.items()
    }


def ours(gpu: Gpu, case: Case, backend: str = "cuda") -> tuple[Contestant, Contestant]:
    """:func:`ssm_edu.selective_scan` as a caller meets it, arrays on the GPU."""
    reason = None
    if case.stored is not None and gpu.torch is None:
        reason = f"{case.stored} arrays need torch, which is not installed or does not see the GPU"

    def forward(case: Case) -> Callable[[], Any]:
        return partial(selective_scan, **uploaded(gpu, case), return_last_state=True, backend=backend)

    def backward(case: Case) -> Callable[[], Any]:
        grad_y = gpu.upload(case.grad_y, case.stored)
        return partial(selective_scan_backward, grad_y, **uploaded(gpu, case), backend=backend)

    def outputs(result: Any) -> Outputs:
        return {"y": gpu.download(result[0]), "last_state": gpu.download(result[1])}

    return pair(OURS, case, forward, backward, outputs, partial(downloaded_gradients, gpu), reason, ours=True)


def saving(gpu: Gpu, case: Case) -> tuple[Contestant, ...]:
    """As autograd calls ours, where there are states to save; else nobody."""
    if not saves(case):
        return ()

    def scan(case: Case) -> Callable[[], Any]:
        arrays, softplus, rule = split(uploaded(gpu, case))
        return partial(door.scan_saving_states, arrays, softplus, rule)

    def backward(case: Case) -> Callable[[], Any]:
        arrays, softplus, rule = split(uploaded(gpu, case))
        _, _, saved = door.scan_saving_states(arrays, softplus, rule)
        arrays["grad_y"] = gpu.upload(case.grad_y, case.stored)
        return partial(door.differentiate_device_arrays, arrays, softplus, rule, saved)

    def outputs(result: Any) -> Outputs:
        return {"y": gpu.download(result[0]), "last_state": gpu.download(result[1])}

    return pair(SAVING, case, scan, backward, outputs, partial(downloaded_gradients, gpu), ours=True)


def split(arguments: dict[str, Any]) -> tuple[dict[str, Any], bool, str]:
    """The arrays, delta_softplus and the rule."""
    arrays = {name: value for name, value in arguments.items() if name in ARRAYS}
    return arrays, arguments["delta_softplus"], arguments["discretization"]


def saves(case: Case) -> bool:
    arrays, softplus, rule = split(case.arguments)
    stored = dict.fromkeys(IN_TIME, case.stored)
    told = tuple((name, array.shape, stored.get(name) or array.dtype.name) for name, array in arrays.items())
    try:
        return door.saves_states(softplus, rule, told)
    except (ImportError, RuntimeError):
        return False


def downloaded_gradients(gpu: Gpu, gradients: Any) -> Outputs:
    """Of any named tuple of gradients, those that are there."""
    named = gradients._asdict().items()
    return {f"gradient of {name}": gpu.download(value) for name, value in named if value is not None}


def mamba_ssm(gpu: Gpu, case: Case) -> tuple[Contestant, Contestant]:
    """The compiled functions themselves, without autograd around them."""
    reason = None
    if gpu.torch is None or find_spec(EXTENSION) is None:
        reason = f"its extension {EXTENSION} is not installed, or torch does not see the GPU"
    elif case.dtype == "float64" or case.discretization != "mamba" or case.state > 256:
        reason = "it has no float64, no rule but Mamba's and at most 256 states"

    def arguments(case: Case) -> list[Any]:
        on_gpu = uploaded(gpu, case)
        return [on_gpu[name] for name in INPUTS]

    def forward(case: Case) -> Callable[[], Any]:
        return partial(import_module(EXTENSION).fwd, *arguments(case), case.arguments["delta_softplus"])

    def backward(case: Case) -> Callable[[], Any]:
        """Its scan runs once beforehand, for the states at the borders of chunks."""
        given, softplus = arguments(case), case.arguments["delta_softplus"]
        grad_y, extension = gpu.upload(case.grad_y, case.stored), import_module(EXTENSION)
        out, borders, *_ = extension.fwd(*given, softplus)
        return partial(extension.bwd, *given, grad_y, borders, out, None, softplus, False)

    def outputs(result: Any) -> Outputs:
        return {"y": gpu.download(result[2])}

    def gradients(result: Any) -> Outputs:
        du, ddelta, dA, dB, dC, dD, dbias, dz = result
        in_order = Gradients(du, ddelta, dA, dB, dC, dD, dz, dbias, None)
        return downloaded_gradients(gpu, in_order)

    return pair(THEIRS, case, forward, backward, outputs, gradients, reason, ours=False)


def rungs(gpu: Gpu, case: Case) -> tuple[Contestant, ...]:
    """Each rung writes into arrays that begin as NaN: what it leaves out is seen."""
    ladder = import_module("ssm_kernels.ladder")

    def on_gpu(case: Case) -> dict[str, Any]:
        host = {name: case.arguments[name] for name in INPUTS}
        host |= {name: host[name][:, 0] for name in ("B", "C")}
        return {name: gpu.upload_to_numba(array) for name, array in host.items()}

    def unwritten(like: Any) -> Any:
        return gpu.upload_to_numba(np.full(like.shape, np.nan, np.float32))

    def forward(launch: Callable[..., None], case: Case) -> Callable[[], Any]:
        given = on_gpu(case)
        y = unwritten(given["u"])

        def call() -> Any:
            launch(**given, y=y)
            return y

        return call

    def backward(launch: Callable[..., None], case: Case) -> Callable[[], Any]:
        given, grad_y = on_gpu(case), gpu.upload_to_numba(case.grad_y)
        grads = import_module("ssm_kernels.backward.rungs").Gradients(
            **{name: unwritten(array) for name, array in given.items()}
        )

        def call() -> Any:
            launch(grad_y, **given, grads=grads)
            return grads

        return call

    def outputs(y: Any) -> Outputs:
        return {"y": gpu.download(y)}

    def gradients(found: Any) -> Outputs:
        named = downloaded_gradients(gpu, found)
        return named | {name: named[name][:, None] for name in ("gradient of B", "gradient of C")}

    def contestant(rung: Any, direction: str) -> Contestant:
        prepare, read = (forward, outputs) if direction == "forward" else (backward, gradients)
        options: dict[str, Any] = {"bracketing": bracketing(case), "ours": True}
        return Contestant(f"{rung.number} {rung.title}", direction, partial(prepare, rung.launch), read, **options)

    return (
        *(contestant(rung, "forward") for rung in ladder.FORWARD),
        *(contestant(rung, "backward") for rung in ladder.BACKWARD),
    )
