"""`mamba_ssm`'s `mamba_inner_fn`: Mamba's block between its two outer projections, and the second of these."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from ssm_edu.torch.arguments import precision
from ssm_edu.torch.convolution import causal_conv1d_fn
from ssm_edu.torch.scan import selective_scan_fn


def mamba_inner_fn(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    A: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
    checkpoint_lvl: int = 1,
    b_rms_weight: Tensor | None = None,
    c_rms_weight: Tensor | None = None,
    dt_rms_weight: Tensor | None = None,
    b_c_dt_rms_eps: float = 1e-6,
) -> Tensor:
    """Convolution, the projections to Δ, B and C, the scan, and the output projection.

    Args:
        xz: (batch, 2·dim, length), the input of the convolution and the gate.
        conv1d_weight: (dim, 1, width). conv1d_bias (dim,).
        x_proj_weight: (rank + 2·state, dim), to a factor of Δ, to B and to C; each state has two of them, interleaved,
            if A is complex.
        delta_proj_weight: (dim, rank).
        out_proj_weight: (out, dim). out_proj_bias (out,).
        A: (dim, state).
        B: and C, as in :func:`selective_scan_fn`, in place of the projected ones.
        D: (dim,). delta_bias likewise.
        B_proj_bias: (state,), added to the projected B. C_proj_bias likewise.
        checkpoint_lvl: 0 or 1: what `mamba_ssm` computes again rather than keeps; it changes nothing here.
        b_rms_weight: (state,), the weights of an RMS norm of B over the state. c_rms_weight likewise, and
            dt_rms_weight (dim,) of Δ over the channels, after its projection.

    Returns:
        (batch, length, out).

    Raises:
        TypeError, ValueError: as :func:`selective_scan_fn`.

    Source: Mamba, §3.4 and Figure 3.
    """
    if checkpoint_lvl not in (0, 1):
        raise ValueError(f"checkpoint_lvl is {checkpoint_lvl!r}, expected 0 or 1")
    x, z = xz.chunk(2, dim=1)
    x = causal_conv1d_fn(x, conv1d_weight.squeeze(1), conv1d_bias, activation="silu")
    rank, state = delta_proj_weight.shape[1], A.shape[1] * (2 if A.is_complex() else 1)
    projected = functional.linear(x.transpose(1, 2), x_proj_weight)
    factor, projected_B, projected_C = projected.split([rank, state, state], dim=-1)
    delta = _normed(functional.linear(factor, delta_proj_weight), dt_rms_weight, b_c_dt_rms_eps).transpose(1, 2)
    if B is None:
        B = _map(projected_B, B_proj_bias, b_rms_weight, b_c_dt_rms_eps, A.is_complex())
    if C is None:
        C = _map(projected_C, C_proj_bias, c_rms_weight, b_c_dt_rms_eps, A.is_complex())
    y = selective_scan_fn(x, delta, A, B, C, D, z=z, delta_bias=delta_bias, delta_softplus=delta_softplus)
    bias = None if out_proj_bias is None else out_proj_bias.to(out_proj_weight.dtype)
    return functional.linear(y.transpose(1, 2), out_proj_weight, bias)


def _map(M: Tensor, bias: Tensor | None, rms_weight: Tensor | None, eps: float, is_complex: bool) -> Tensor:
    """(batch, length, state) to (batch, state, length), pairs of numbers to interleaved ones."""
    M = _normed(M if bias is None else M + bias.to(M.dtype), rms_weight, eps)
    if not is_complex:
        return M.transpose(1, 2)
    return M.unflatten(-1, (-1, 2)).movedim(1, 2).flatten(-2)


def _normed(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """RMS norm over the last axis, in the precision of the scan."""
    if weight is None:
        return x
    real = precision(x.dtype)
    return functional.rms_norm(x.to(real), weight.shape, weight.to(real), eps).to(x.dtype)
