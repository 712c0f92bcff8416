"""The `cuda` backend: the one door to the kernels in `ssm_kernels`.

NumPy arrays are copied to the current device once, and the results back. Arrays that lie on a device stay there: they
are read where they are, the kernels go on the caller's stream, nothing waits for them, and the results are of u's
library.

| u | stream | results |
|---|---|---|
| PyTorch | `torch.cuda.current_stream()` | PyTorch |
| CuPy | `cupy.cuda.get_current_stream()` | CuPy |
| JAX | the legacy default stream, ordered with JAX's own by DLPack | JAX |
| Numba, or others by DLPack or the CUDA array interface | the array's own, else the legacy default | Numba |

Other arguments may come from other libraries; each is ordered before the kernels as its protocol says. Of device arrays
shapes, dtypes and devices are checked, never values, which would make the host wait: a NaN in A comes out as NaN.
Integers are not converted on a device, except seq_idx. Arrays that are not C-contiguous are made so by PyTorch and CuPy
and refused from the others. Nothing is recorded for gradients: PyTorch's tensors that require some are refused, unless
recording is off.

With NUMBA_ENABLE_CUDASIM=1 the kernels run in :mod:`ssm_edu.testing.simulator`, in the schedule of the `simulated()`
that is around the call, if one is, on NumPy's arrays and on what the simulator's `cuda.to_device` gives.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ssm_edu.gpu import runtime
from ssm_edu.gpu.host import Host
from ssm_edu.gpu.libraries import Library, View, library_of, read
from ssm_edu.gpu.plan import Described, Plan, plan
from ssm_edu.selective import reference
from ssm_edu.selective.problem import Problem, check_options, make_problem
from ssm_edu.selective.reference import Array, Gradients

Views = dict[str, View]
OPTIONAL = dict.fromkeys(("D", "z", "delta_bias", "initial_state", "seq_idx"))


def selective_scan(problem: Problem) -> tuple[Array, Array]:
    """y and the last state of NumPy's arrays.

    Raises:
        ImportError, RuntimeError: what the kernels need is not here.
    """
    if problem.u.size == 0 or problem.state == 0:
        return reference.selective_scan(problem)
    y, last, _ = _forward(*_read_problem(problem), True)
    return y, last


def selective_scan_backward(problem: Problem, grad_y: Array, grad_last_state: Array | None = None) -> Gradients:
    """The adjoint of NumPy's arrays, B and C in the normal form of :class:`Problem`. Raises as the scan."""
    if problem.u.size == 0 or problem.state == 0:
        return reference.selective_scan_backward(problem, grad_y, grad_last_state)
    return _backward(*_read_problem(problem, grad_y=grad_y, grad_last_state=grad_last_state))


def scan_device_arrays(
    arrays: dict[str, Any], delta_softplus: bool, discretization: str, return_last_state: bool
) -> tuple[Any, Any]:
    """y, and the last state or None, of device arrays by argument name, None left out.

    Raises:
        TypeError, ValueError: as :func:`ssm_edu.selective_scan`, except for values.
        ImportError, RuntimeError: what the kernels need is not here.
    """
    y, last, _ = _forward(*_read_arrays(arrays, delta_softplus, discretization), return_last_state)
    return y, last


def scan_saving_states(arrays: dict[str, Any], delta_softplus: bool, discretization: str) -> tuple[Any, Any, Any]:
    """y, the last state, and the states that make the gradients faster, or None where they do not.

    In memory these take no more than y, up to the last 16 or 32 steps'. Raises as :func:`scan_device_arrays`.
    """
    return _forward(*_read_arrays(arrays, delta_softplus, discretization), True, saving=True)


def saves_states(delta_softplus: bool, discretization: str, arguments: Described) -> bool:
    """Whether :func:`scan_saving_states` saves any, of arguments that begin at 16-byte boundaries.

    Raises:
        TypeError, ValueError: as :func:`ssm_edu.selective_scan`, except for values.
        ImportError, RuntimeError: what the kernels need is not here.
    """
    p, kernels = plan(delta_softplus, discretization, arguments), runtime.kernels()
    scan = kernels.Scan(**p.fields, **(OPTIONAL | dict.fromkeys((name for name, *_ in arguments), 0)))
    return not p.is_empty and kernels.saved_shape(scan) is not None


def differentiate_device_arrays(
    arrays: dict[str, Any], delta_softplus: bool, discretization: str, saved: Any = None
) -> Gradients:
    """The gradients; `arrays` has grad_y, and may have grad_last_state.

    `saved` is what :func:`scan_saving_states` gave of the same arrays, or None. Raises as :func:`scan_device_arrays`.
    """
    library, views, p = _read_arrays(arrays, delta_softplus, discretization)
    if saved is None:
        return _backward(library, views, p)
    view = _view("saved", saved, library, library.stream(arrays["u"]))
    _check_device("saved", view, views["u"].device)
    return _backward(library, views, p, view)


def _read_problem(problem: Problem, **cotangents: Array | None) -> tuple[Library, Views, Plan]:
    host = Host()
    given = {name: value for name, value in vars(problem).items() if isinstance(value, np.ndarray)}
    given |= {name: value for name, value in cotangents.items() if value is not None}
    views = {name: host.view(name, array, 0) for name, array in given.items()}
    return host, views, _plan(problem.delta_softplus, problem.discretization, views)


def _read_arrays(arrays: dict[str, Any], delta_softplus: bool, discretization: str) -> tuple[Library, Views, Plan]:
    check_options(delta_softplus, discretization)
    u = arrays["u"]
    library = library_of(u)
    stream = library.stream(u)
    views = {name: _view(name, array, library, stream) for name, array in arrays.items()}
    p = _plan(bool(delta_softplus), discretization, views)
    device = views["u"].device
    for name, view in views.items():
        _check_device(name, view, device)
    if "seq_idx" in views and views["seq_idx"].dtype != "int32":
        with runtime.current_device(device):
            relabelled = library_of(arrays["seq_idx"]).relabelled(arrays["seq_idx"])
            views["seq_idx"] = _view("seq_idx", relabelled, library, stream)
    return library, views, p


def _view(name: str, array: Any, library: Library, stream: int) -> View:
    return library.view(name, array, stream) if library_of(array) is library else read(name, array, stream)


def _check_device(name: str, view: View, device: int | None) -> None:
    if view.device != device:
        raise ValueError(f"{name} is on device {view.device}, expected {device}, where u is")


def _plan(delta_softplus: bool, discretization: str, views: Views) -> Plan:
    return plan(delta_softplus, discretization, tuple([(n, v.shape, v.dtype) for n, v in views.items()]))


def _kernels(u: View) -> Any:
    kernels = runtime.kernels()
    if runtime.is_simulated() and isinstance(u.buffer, int):
        raise RuntimeError("NUMBA_ENABLE_CUDASIM is set, and the simulator reads no array that lies on a GPU")
    return kernels


def _describe(kernels: Any, p: Plan, views: Views) -> Any:
    buffers = {name: view.buffer for name, view in views.items() if not name.startswith("grad_")}
    return kernels.Scan(**p.fields, **(OPTIONAL | buffers))


def _forward(
    library: Library, views: Views, p: Plan, return_last_state: bool, saving: bool = False
) -> tuple[Any, Any, Any]:
    u, saved = views["u"], None
    kernels = _kernels(u)
    with runtime.current_device(u.device), library.launch(views) as (stream, allocate):
        y, y_buffer = library.like(u, u)
        last, last_buffer = library.empty(*p.states, u) if return_last_state else (None, None)
        if p.is_empty:
            exact, exact_last = reference.selective_scan(_problem_on_host(views, p))
            runtime.upload(exact, u.dtype, y_buffer)
            if return_last_state:
                runtime.upload(exact_last, p.states[1], last_buffer)
        else:
            scan, saved_buffer = _describe(kernels, p, views), None
            if saving and (shape := kernels.saved_shape(scan)) is not None:
                saved, saved_buffer = library.empty(shape, "float32", u)
            kernels.forward(scan, y_buffer, last_buffer, stream=stream, allocate=allocate, saved=saved_buffer)
    results = (None if array is None else library.result(array) for array in (last, saved))
    return library.result(y), *results


def _backward(library: Library, views: Views, p: Plan, saved: View | None = None) -> Gradients:
    u = views["u"]
    kernels = _kernels(u)
    found: dict[str, Any] = dict.fromkeys(Gradients._fields)
    buffers: dict[str, Any] = dict(found)
    read_too = {} if saved is None else {"saved": saved}
    with runtime.current_device(u.device), library.launch(views | read_too) as (stream, allocate):
        for name in Gradients._fields:
            if name in views:
                found[name], buffers[name] = library.like(views[name], u)
        grad_last = views.get("grad_last_state")
        if p.is_empty:
            gradients = reference.selective_scan_backward(_problem_on_host(views, p), **_cotangents_on_host(views))
            for name, exact in gradients._asdict().items():
                if name in views:
                    runtime.upload(exact, views[name].dtype, buffers[name])
        else:
            scan = _describe(kernels, p, views)
            kernels.backward(
                scan,
                views["grad_y"].buffer,
                None if grad_last is None else grad_last.buffer,
                Gradients(**buffers),
                stream=stream,
                allocate=allocate,
                saved=None if saved is None else _saved_buffer(saved, kernels.saved_shape(scan)),
            )
    results = {name: library.result(array) for name, array in found.items() if array is not None}
    return Gradients(**found | results)


def _saved_buffer(saved: View, expected: tuple[int, ...] | None) -> Any:
    """None where the kernels have no use for it: arrays that were moved may begin elsewhere than at 16 bytes."""
    if expected is not None and (tuple(saved.shape), saved.dtype) != (expected, "float32"):
        raise ValueError(f"saved has shape {tuple(saved.shape)} and dtype {saved.dtype}, expected float32 {expected}")
    return None if expected is None else saved.buffer


def _problem_on_host(views: Views, p: Plan) -> Problem:
    """A scan without states or elements, which has nothing for a kernel to do; bfloat16 comes as float32."""
    arrays: dict[str, Any] = {n: runtime.download(*v[:3]) for n, v in views.items() if not n.startswith("grad_")}
    options = {name: p.fields[name] for name in ("delta_softplus", "discretization")}
    return make_problem(**arrays, **options)


def _cotangents_on_host(views: Views) -> dict[str, Any]:
    return {n: runtime.download(*v[:3]) for n, v in views.items() if n.startswith("grad_")}
