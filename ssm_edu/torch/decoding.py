"""`mamba_ssm`'s `selective_state_update`: one step of the selective scan, for decoding."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ssm_edu.selective.problem import check_flag
from ssm_edu.torch import device_step
from ssm_edu.torch.arguments import (
    check_floating,
    check_shape,
    check_tensors,
    check_writable,
    dtype_name,
    precision,
    precision_of,
    unrecorded,
)


@unrecorded
def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    state_batch_indices: Tensor | None = None,
) -> Tensor:
    """y_t, and the state h_{t−1} overwritten by h_t = exp(ΔA) h_{t−1} + Δ B_t x_t.

    Autograd does not record it, as it does not record mamba_ssm's: no gradient flows through the step, and the state
    holds on to no earlier one. :func:`selective_scan_fn` of length 1 with an initial_state is recorded.

    Computed in float32 (float64 for a float64 x) whatever the dtypes, and rounded to those of the state and of x. On a
    GPU by one kernel, where Numba has a compiler for it and nothing is traced; elsewhere by PyTorch's operators.
    Mamba-2's channels come in heads: then dim is (head, channel) everywhere below.

    Args:
        state: (batch, dim, state), complex if A is. It is written in place.
        x: (batch, dim). dt and z likewise; dt is the step size Δ before bias and softplus.
        A: (dim, state).
        B: (batch, state) or (batch, group, state), each group for dim // group channels, with heads for so many
            heads. C likewise.
        D: (dim,). dt_bias likewise.
        dt_softplus: whether Δ = softplus(dt + dt_bias).

    Returns:
        y_t (batch, dim), for a complex A 2 Re Σ_n C_t h_t + D x_t, in x's dtype.

    Raises:
        TypeError: an argument is no tensor, or holds no floating-point numbers.
        ValueError: a shape that does not fit, groups that do not divide the channels, another device than state's, a
            state that cannot be written in place.
        NotImplementedError: state_batch_indices is given; torch.func asks for a gradient.

    Source: Mamba, eq. 2a and 2b.
    """
    check_flag("dt_softplus", dt_softplus)
    if state_batch_indices is not None:
        raise NotImplementedError("state_batch_indices is not supported; expected None")
    optional = {name: t for name, t in (("D", D), ("z", z), ("dt_bias", dt_bias)) if t is not None}
    tensors = {"x": x, "dt": dt, "A": A, "B": B, "C": C} | optional
    _check(state, tensors)
    if device_step.serves(state, tensors):
        return device_step.step(state, tensors, dt_softplus)

    real = precision(x.dtype)
    wide = {name: t.to(precision_of(t, real)) for name, t in tensors.items()}
    u, delta = wide["x"], wide["dt"] + wide.get("dt_bias", 0)
    if dt_softplus:
        delta = torch.logaddexp(delta, torch.zeros_like(delta))
    B_t, C_t = (_per_channel(wide[name], state) for name in ("B", "C"))
    h = torch.exp(delta[..., None] * wide["A"]) * state + (delta * u)[..., None] * B_t
    state.copy_(h)
    y = (h * C_t).sum(-1)
    if y.is_complex():
        y = 2 * y.real
    if D is not None:
        y = y + wide["D"] * u
    if z is not None:
        y = y * functional.silu(wide["z"])
    return y.to(x.dtype)


def _per_channel(M: Tensor, state: Tensor) -> Tensor:
    """(batch, group, state) to what multiplies a state."""
    groups = M[:, None] if M.ndim == 2 else M
    if groups.shape[1] > 1:
        groups = groups.repeat_interleave(state.shape[1] // groups.shape[1], dim=1)
    return groups if state.ndim == 3 else groups[:, :, None]


def _check(state: Tensor, tensors: dict[str, Tensor]) -> None:
    check_tensors("state", {"state": state} | tensors, required="x dt A B C")
    check_floating({"state": state} | tensors, may_be_complex="state A B C")
    check_writable("state", state)
    is_complex = tensors["A"].is_complex()
    if state.is_complex() != is_complex:
        raise TypeError(f"state has dtype {dtype_name(state)}, expected a complex one where A has one, and only there")
    if state.ndim not in (3, 4):
        raise ValueError(
            f"state has shape {tuple(state.shape)}, expected (batch, dim, state) or (batch, head, channel, state)"
        )
    dim = "dim" if state.ndim == 3 else "head channel"
    sizes = dict(zip(("batch", *dim.split(), "state"), state.shape, strict=True))
    layouts = {"A": f"{dim} state", "D": dim, "dt_bias": dim}
    for name, tensor in tensors.items():
        if name not in ("B", "C"):
            check_shape(name, tensor, layouts.get(name, f"batch {dim}"), sizes)
            continue
        if tensor.is_complex() and not is_complex:
            raise TypeError(f"{name} has dtype {dtype_name(tensor)}, expected a real one, as A has")
        if tensor.ndim == 3 and (tensor.shape[1] == 0 or state.shape[1] % tensor.shape[1]):
            raise ValueError(f"{name} has {tensor.shape[1]} groups, expected a divisor of {state.shape[1]}")
        if tensor.ndim == 3:
            check_shape(name, tensor, "batch group state", sizes | {"group": tensor.shape[1]})
        else:
            check_shape(name, tensor, "batch state", sizes)
