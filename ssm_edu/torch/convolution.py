"""`causal_conv1d`'s functions, which Mamba's blocks call before the scan, in PyTorch's own operations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ssm_edu.torch.arguments import check_floating, check_shape, check_tensors, check_writable, dtype_name, unrecorded

ACTIVATIONS = (None, "silu", "swish")


def causal_conv1d_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    seq_idx: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    final_states_out: Tensor | None = None,
    activation: str | None = None,
) -> Any:
    """y_t = f(Σ_k w_k x_{t − width + 1 + k} + bias), each channel by itself; f is the activation.

    Args:
        x: (batch, dim, length).
        weight: (dim, width).
        bias: (dim,).
        seq_idx: (batch, length), integers; nothing flows between positions where they differ, and y is f's value at
            0 where they are negative.
        initial_states: (batch, dim, width − 1), the inputs before t = 0; zero if absent. Not beside seq_idx.
        return_final_states: whether to return (y, final_states), the last width − 1 inputs. Not beside seq_idx.
        final_states_out: (batch, dim, width − 1), where to write these, if anywhere.
        activation: `silu`, `swish` (the same) or None.

    Returns:
        y (batch, dim, length) in x's dtype.

    Raises:
        TypeError: an argument is no tensor, or of a wrong kind of dtype.
        ValueError: a shape that does not fit, another device than x's, seq_idx beside states, final_states_out without
            return_final_states, or one that cannot be written in place.
    """
    others = {"bias": bias, "initial_states": initial_states, "final_states_out": final_states_out}
    _check(x, weight, others | {"seq_idx": seq_idx}, activation)
    if x.ndim != 3:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (batch, dim, length)")
    width = weight.shape[1]
    sizes = {"batch": x.shape[0], "dim": x.shape[1], "length": x.shape[2], "before": width - 1}
    check_shape("initial_states", initial_states, "batch dim before", sizes)
    check_shape("final_states_out", final_states_out, "batch dim before", sizes)
    if final_states_out is not None:
        if not return_final_states:
            raise ValueError("final_states_out is given, expected return_final_states=True beside it")
        check_writable("final_states_out", final_states_out)
    check_shape("seq_idx", seq_idx, "batch length", sizes)
    if seq_idx is not None:
        if initial_states is not None or return_final_states:
            raise ValueError("seq_idx is given beside initial or final states, expected one of the two")
        if seq_idx.is_floating_point() or seq_idx.is_complex() or seq_idx.dtype == torch.bool:
            raise TypeError(f"seq_idx has dtype {dtype_name(seq_idx)}, expected an integer dtype")
    before = x.new_zeros((x.shape[0], x.shape[1], width - 1)) if initial_states is None else initial_states
    padded = torch.cat([before.to(x.dtype), x], dim=-1)
    y = _convolved(padded, weight, bias) if seq_idx is None else _packed(padded, weight, bias, seq_idx)
    y = _activated(y, activation).to(x.dtype)
    if not return_final_states:
        return y
    final = padded[..., padded.shape[-1] - width + 1 :]
    if final_states_out is not None:
        return y, final_states_out.copy_(final)
    return y, final.clone()


@unrecorded
def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    cache_seqlens: Tensor | None = None,
    conv_state_indices: Tensor | None = None,
) -> Tensor:
    """:func:`causal_conv1d_fn` of what comes next, from the latest inputs, which are shifted in place.

    Autograd does not record it: no gradient flows through the step, and conv_state holds on to no earlier one.

    Args:
        x: (batch, dim) or (batch, dim, length).
        conv_state: (batch, dim, memory), the latest inputs, at least width − 1. It is written in place.
        weight: (dim, width).
        bias: (dim,).
        activation: `silu`, `swish` (the same) or None.

    Returns:
        y in x's shape and dtype.

    Raises:
        TypeError, ValueError: as :func:`causal_conv1d_fn`.
        NotImplementedError: cache_seqlens or conv_state_indices is given; torch.func asks for a gradient.
    """
    for name, value in (("cache_seqlens", cache_seqlens), ("conv_state_indices", conv_state_indices)):
        if value is not None:
            raise NotImplementedError(f"{name} is not supported; expected None")
    _check(x, weight, {"conv_state": conv_state, "bias": bias}, activation)
    if x.ndim not in (2, 3):
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (batch, dim) or (batch, dim, length)")
    memory = conv_state.shape[-1] if conv_state.ndim else 0
    sizes = {"batch": x.shape[0], "dim": x.shape[1], "memory": memory}
    check_shape("conv_state", conv_state, "batch dim memory", sizes)
    check_writable("conv_state", conv_state)
    if memory < weight.shape[1] - 1:
        raise ValueError(f"conv_state holds {memory} inputs, expected at least width − 1 = {weight.shape[1] - 1}")
    fresh = x[..., None] if x.ndim == 2 else x
    padded = torch.cat([conv_state.to(x.dtype), fresh], dim=-1)
    conv_state.copy_(padded[..., padded.shape[-1] - memory :])
    latest = padded[..., padded.shape[-1] - fresh.shape[-1] - weight.shape[1] + 1 :]
    return _activated(_convolved(latest, weight, bias), activation).to(x.dtype).reshape(x.shape)


def _convolved(padded: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    wide = torch.promote_types(padded.dtype, weight.dtype)
    fresh = padded[..., weight.shape[1] - 1 :]
    if fresh.numel() == 0:  # of no input there is no output, and conv1d refuses
        return (fresh * weight[:, :1] + (0 if bias is None else bias[:, None])).to(wide)
    with torch.autocast(padded.device.type, enabled=False):
        return functional.conv1d(
            padded.to(wide), weight.to(wide)[:, None], None if bias is None else bias.to(wide), groups=len(weight)
        )


def _packed(padded: Tensor, weight: Tensor, bias: Tensor | None, seq_idx: Tensor) -> Tensor:
    wide, width, length = torch.promote_types(padded.dtype, weight.dtype), weight.shape[1], seq_idx.shape[1]
    places = functional.pad(seq_idx.long(), (width - 1, 0))  # with anything: what stands there is 0
    y = padded.new_zeros((), dtype=wide) if bias is None else bias.to(wide)[:, None]
    for k in range(width):
        flows = places[:, k : k + length] == places[:, width - 1 :]
        y = y + torch.where(flows[:, None], padded[..., k : k + length].to(wide) * weight[:, k, None].to(wide), 0)
    return torch.where(places[:, None, width - 1 :] < 0, 0, y) if seq_idx.dtype.is_signed else y


def _activated(y: Tensor, activation: str | None) -> Tensor:
    return y if activation is None else functional.silu(y)


def _check(x: Tensor, weight: Tensor, others: dict[str, Tensor | None], activation: str | None) -> None:
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}, expected None, 'silu' or 'swish'")
    check_tensors("x", {"x": x, "weight": weight} | others, required="weight conv_state")
    check_floating({"x": x, "weight": weight} | {n: t for n, t in others.items() if n != "seq_idx"})
    if weight.ndim != 2 or weight.shape[0] != (x.shape[1] if x.ndim > 1 else -1) or weight.shape[1] == 0:
        raise ValueError(f"weight has shape {tuple(weight.shape)} beside x's {tuple(x.shape)}, expected (dim, width)")
    check_shape("bias", others["bias"], "dim", {"dim": weight.shape[0]})
