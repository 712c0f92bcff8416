"""`mamba_ssm`'s `selective_scan_fn`."""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
from torch import Tensor

from ssm_edu.selective.problem import ARGUMENTS, check_flag, check_options
from ssm_edu.torch.arguments import check_tensors, dtype_name, is_autocast, precision, precision_of
from ssm_edu.torch.operators import ARRAYS, Scan, is_transformed, saves, scan


def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    *,
    initial_state: Tensor | None = None,
    seq_idx: Tensor | None = None,
    discretization: str = "mamba",
) -> Any:
    """The selective scan, differentiable by every floating argument, through y and through the last state.

    The dtypes follow from u's as in :mod:`ssm_edu.selective.problem`. Under autocast they are brought there: u, delta,
    z, B and C to the widest of their dtypes, as autocast does where an operator takes several tensors, and the
    parameters to float32. torch.func's grad, vjp, jacrev and vmap take it, outside of torch.compile. There is no second
    derivative and no forward-mode one.

    Args:
        u: (batch, dim, length), float16, bfloat16, float32 or float64, on the CPU or on a CUDA device; all others are
            beside it.
        delta: (batch, dim, length), the step size Δ before bias and softplus.
        A: (dim, state), real or complex.
        B: (dim, state), (batch, state, length) or (batch, group, state, length). Beside a complex A, one that varies
            in time may be complex, or of u's dtype with (re, im) interleaved in a last axis of 2·length. C likewise.
        D: (dim,), the skip.
        z: (batch, dim, length), the gate.
        delta_bias: (dim,), added to delta before softplus.
        delta_softplus: whether Δ = softplus(delta + delta_bias).
        return_last_state: whether to return (y, last_state).
        initial_state: (batch, dim, state), the state before t = 0.
        seq_idx: (batch, length), integers; the state does not flow from t − 1 to t where they differ.
        discretization: `mamba`, `zoh` or `bilinear`.

    Returns:
        y (batch, dim, length) in u's dtype; with `return_last_state`, (y, last_state), the latter (batch, dim, state)
        in A's dtype.

    Raises:
        TypeError: an argument is no tensor, or has not the dtype that u's asks for.
        ValueError: a shape that does not fit, another device than u's, an unknown discretization; on the CPU, a
            non-finite A, D or delta_bias.
        ImportError, RuntimeError: what a CUDA device needs is not here.
        NotImplementedError: the gradient of a gradient; a forward-mode derivative.

    Claims ADJ-1 to ADJ-8. Source: Mamba, eq. 2 and Algorithm 2.
    """
    check_options(delta_softplus, discretization)
    check_flag("return_last_state", return_last_state)
    given = (u, delta, A, B, C, D, z, delta_bias, initial_state, seq_idx)
    arrays: dict[str, Any] = dict(zip(ARRAYS, given, strict=True))
    check_tensors("u", arrays, required="delta A B C")
    if is_autocast(u):
        arrays = _brought_together(arrays)
    if A.is_complex():
        for name in ("B", "C"):
            arrays[name] = _paired(name, arrays[name], arrays["u"])
    transformed = is_transformed()
    recorded, saving = Scan.apply if transformed else scan, not transformed and saves(arrays)
    y, last_state, _ = recorded(*arrays.values(), bool(delta_softplus), discretization, saving)
    return (y, last_state) if return_last_state else y


def _brought_together(arrays: dict[str, Any]) -> dict[str, Any]:
    """Autocast's rule: the inputs in the widest of their dtypes, the parameters in its precision."""
    inputs = {name for name, x in arrays.items() if x is not None and _is_input(name, x)}
    widest = reduce(torch.promote_types, [arrays[name].dtype for name in sorted(inputs)])
    real = precision(widest)
    found = dict(arrays)
    for name, x in arrays.items():
        if name in inputs:
            found[name] = x.to(widest)
        elif x is not None and name != "seq_idx":
            found[name] = x.to(precision_of(x, real))
    return found


def _is_input(name: str, x: Tensor) -> bool:
    kind = ARGUMENTS[name][0]
    return kind == "input" or (kind == "map" and x.ndim > 2 and not x.is_complex())


def _paired(name: str, M: Tensor, u: Tensor) -> Tensor:
    """A map beside a complex A, its interleaved numbers as complex ones."""
    if u.ndim != 3 or M.ndim <= 2 or M.is_complex() or M.shape[-1] == u.shape[-1]:
        return M
    if M.dtype != u.dtype:
        raise TypeError(f"{name} has dtype {dtype_name(M)}, expected {dtype_name(u)}, as u has, or a complex one")
    if M.shape[-1] != 2 * u.shape[-1]:
        raise ValueError(
            f"{name} has shape {tuple(M.shape)} beside u's {tuple(u.shape)}, expected a last axis of length, or, as A "
            "is complex, of 2·length with (re, im) interleaved"
        )
    pairs = M.to(precision(u.dtype)).unflatten(-1, (u.shape[-1], 2))
    return torch.complex(pairs[..., 0], pairs[..., 1])
