"""The selective scan, its adjoint and its single step, on any backend."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from ssm_edu.arrays import AnyArrayLike, on_device
from ssm_edu.selective.problem import check_flag, make_problem, read_cotangents
from ssm_edu.selective.reference import Gradients
from ssm_edu.selective.step import selective_step

__all__ = ["BACKENDS", "Gradients", "selective_scan", "selective_scan_backward", "selective_step"]

# Each module offers selective_scan(problem) -> (y, last_state) and
# selective_scan_backward(problem, grad_y, grad_last_state) -> Gradients, with B and C in Problem's normal form.
BACKENDS = {
    "reference": "ssm_edu.selective.reference",
    "numba": "ssm_edu.selective.cpu",
    "cuda": "ssm_edu.gpu",
}
REQUIRED = ("u", "delta", "A", "B", "C", "grad_y")


@np.errstate(over="ignore", invalid="ignore")  # a float16 output may overflow to inf
def selective_scan(
    u: AnyArrayLike,
    delta: AnyArrayLike,
    A: AnyArrayLike,
    B: AnyArrayLike,
    C: AnyArrayLike,
    D: AnyArrayLike | None = None,
    z: AnyArrayLike | None = None,
    delta_bias: AnyArrayLike | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    *,
    initial_state: AnyArrayLike | None = None,
    seq_idx: AnyArrayLike | None = None,
    discretization: str = "mamba",
    backend: str = "auto",
) -> Any:
    """The selective scan: h_t = Ā_t h_{t−1} + B̄_t u_t, y_t = (Σ_n C_t h_t + D u_t) · silu(z_t).

    The positional part is that of `mamba_ssm`'s `selective_scan_fn`. For a complex A, y_t has 2 Re Σ_n C_t h_t.

    Args:
        u: (batch, dim, length), float16, bfloat16, float32 or float64; the dtypes of all others follow from it, as
            said in :mod:`ssm_edu.selective.problem`. Integers and lists are read as float64. The arrays are all
            on the host, or all on one CUDA device: see :mod:`ssm_edu.gpu`.
        delta: (batch, dim, length), the step size Δ before bias and softplus. A negative Δ is growth, not an error. An
            infinite Δ gives NaN or the limit, as rule and backend have it.
        A: (dim, state), the diagonal of the state matrix, real or complex.
        B: (dim, state), (batch, state, length) or (batch, group, state, length); complex only beside a complex A.
            Channel d takes group d // (dim // group). C likewise.
        D: (dim,), the skip.
        z: (batch, dim, length), the gate.
        delta_bias: (dim,), added to delta before softplus.
        delta_softplus: whether Δ = softplus(delta + delta_bias).
        return_last_state: whether to return (y, last_state).
        initial_state: (batch, dim, state), the state before t = 0. Absent is zero, and stays so where Ā_0 overflows.
        seq_idx: (batch, length), integers; the state does not flow from t − 1 to t where they differ.
        discretization: `mamba` (Ā = exp(ΔA), B̄ = ΔB), `zoh` (B̄ = (ΔA)⁻¹(exp(ΔA) − 1)ΔB) or `bilinear`.
        backend: `reference`, `numba`, `cuda`, or `auto`: `cuda` for arrays on a device, else the fastest CPU one.

    Returns:
        y (batch, dim, length) in u's dtype; with `return_last_state`, (y, last_state), the latter
        (batch, dim, state) in A's dtype. NumPy's arrays, or the arrays of u's library on u's device.

    Where growth (Re ΔA > 0) over a stretch of time overflows the format, the `cuda` backend, which scans such stretches
    side by side, may give NaN where the recurrence is finite, as when the state is 0 there.

    Raises:
        TypeError: an argument's dtype is not the one that u's asks for, or is no number; some arguments are on a
            device and some are not.
        ValueError: a shape that does not fit, groups that do not divide dim, a non-finite A, D or delta_bias, an
            integer past 2⁵³, an unknown discretization or backend; arguments on different devices.
        ImportError, RuntimeError: what the backend needs is not here.

    Source: Mamba, eq. 2 and Algorithm 2.
    """
    check_flag("return_last_state", return_last_state)
    arrays: dict[str, Any] = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z, "delta_bias": delta_bias}
    arrays |= {"initial_state": initial_state, "seq_idx": seq_idx}
    if are_on_device(arrays, backend):
        from ssm_edu import gpu

        outputs = gpu.scan_device_arrays(given(arrays), delta_softplus, discretization, return_last_state)
        return outputs if return_last_state else outputs[0]
    module = backend_module(backend)
    problem = make_problem(**arrays, delta_softplus=delta_softplus, discretization=discretization)
    y, last_state = module.selective_scan(problem)
    y = y.astype(problem.u.dtype, copy=False)
    return (y, last_state.astype(problem.A.dtype, copy=False)) if return_last_state else y


@np.errstate(over="ignore", invalid="ignore")
def selective_scan_backward(
    grad_y: AnyArrayLike,
    u: AnyArrayLike,
    delta: AnyArrayLike,
    A: AnyArrayLike,
    B: AnyArrayLike,
    C: AnyArrayLike,
    D: AnyArrayLike | None = None,
    z: AnyArrayLike | None = None,
    delta_bias: AnyArrayLike | None = None,
    delta_softplus: bool = False,
    *,
    grad_last_state: AnyArrayLike | None = None,
    initial_state: AnyArrayLike | None = None,
    seq_idx: AnyArrayLike | None = None,
    discretization: str = "mamba",
    backend: str = "auto",
) -> Gradients:
    """The adjoint of :func:`selective_scan`: from the gradients of y and of the last state to those of every input.

    Args:
        grad_y: (batch, dim, length), in u's dtype.
        grad_last_state: (batch, dim, state), in A's dtype; zero if absent.
        u: and every other argument as in :func:`selective_scan`.

    Returns:
        :class:`Gradients`, each in the shape and dtype of its input, None where that was absent. The gradient by a
        complex number is ∂ℓ/∂Re + i ∂ℓ/∂Im, PyTorch's convention, and `grad_last_state` is read so.

    By zoh and bilinear a part of A's gradient has the factor (ΔA)⁻². Past |ΔA| = 1e22 in float32, and past 1e154 in
    float64, it leaves the format, and that part is 0 or NaN.

    Raises:
        TypeError, ValueError, ImportError, RuntimeError: as :func:`selective_scan`.

    Claims ADJ-1 to ADJ-8. Source: Mamba, §3.3.2.
    """
    arrays: dict[str, Any] = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z, "delta_bias": delta_bias}
    arrays |= {"initial_state": initial_state, "seq_idx": seq_idx}
    cotangents: dict[str, Any] = {"grad_y": grad_y, "grad_last_state": grad_last_state}
    if are_on_device(arrays | cotangents, backend):
        from ssm_edu import gpu

        return gpu.differentiate_device_arrays(given(arrays | cotangents), delta_softplus, discretization)
    module = backend_module(backend)
    problem = make_problem(**arrays, delta_softplus=delta_softplus, discretization=discretization)
    found = module.selective_scan_backward(problem, *read_cotangents(problem, **cotangents))
    found = found._replace(B=found.B.reshape(np.shape(B)), C=found.C.reshape(np.shape(C)))
    return Gradients(*[_as_input(getattr(problem, name), gradient) for name, gradient in found._asdict().items()])


def _as_input(array: np.ndarray | None, gradient: np.ndarray | None) -> Any:
    return None if array is None or gradient is None else gradient.astype(array.dtype, copy=False)


def given(arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: array for name, array in arrays.items() if array is not None}


def are_on_device(arrays: dict[str, Any], backend: str) -> bool:
    """Whether the arrays lie on a CUDA device, all of them.

    Raises:
        TypeError: some do and some do not, or the backend runs on the CPU. ValueError: an unknown backend.
    """
    there = [name for name, array in arrays.items() if on_device(array)]
    if not there:
        return False
    check_backend(backend)
    if backend not in ("auto", "cuda"):
        raise TypeError(f"{there[0]} is on a CUDA device, which backend {backend!r} does not read; expected 'cuda'")
    for name, array in arrays.items():
        if name not in there and (array is not None or name in REQUIRED):
            found = f"a {type(array).__name__} that is not on a device"
            raise TypeError(f"{name} is {found}, expected a device array, as {there[0]} is")
    return True


def check_backend(backend: Any) -> None:
    if not isinstance(backend, str) or backend not in ("auto", *BACKENDS):
        raise ValueError(f"backend is {backend!r:.40}, expected one of auto, {', '.join(BACKENDS)}")


def backend_module(backend: str) -> ModuleType:
    """The module of a backend; `auto` is Numba where it can be imported."""
    check_backend(backend)
    if backend == "auto":
        try:
            return import_module(BACKENDS["numba"])
        except ImportError:
            return import_module(BACKENDS["reference"])
    try:
        return import_module(BACKENDS[backend])
    except ImportError as error:
        raise ImportError(f"backend {backend!r} cannot be imported: {error}; 'auto' takes one that can") from error
