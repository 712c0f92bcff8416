"""`mamba_ssm`'s `mamba_inner_fn`: Mamba's block between its two outer projections, and the second of these."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional

from ssm_edu.torch.arguments import check_dtype, check_floating, check_shape, check_tensors, precision
from ssm_edu.torch.convolution import causal_conv1d_fn
from ssm_edu.torch.scan import selective_scan_fn

# The inputs that the scan does not check, and their axes. A map is B or C: a state of it, or two if A is complex.
LAYOUTS = {
    "conv1d_weight": "dim 1 width",
    "conv1d_bias": "dim",
    "x_proj_weight": "rows dim",
    "delta_proj_weight": "dim rank",
    "out_proj_weight": "out dim",
    "out_proj_bias": "out",
    "A": "dim state",
    "B_proj_bias": "map",
    "C_proj_bias": "map",
    "b_rms_weight": "map",
    "c_rms_weight": "map",
    "dt_rms_weight": "dim",
}
REQUIRED = "conv1d_weight x_proj_weight delta_proj_weight out_proj_weight A"


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
            if A is complex. The rows to a B or C that is given may be absent.
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
        TypeError, ValueError, NotImplementedError: as :func:`selective_scan_fn`.

    Source: Mamba, §3.4 and Figure 3.
    """
    if checkpoint_lvl not in (0, 1):
        raise ValueError(f"checkpoint_lvl is {checkpoint_lvl!r}, expected 0 or 1")
    inputs = (
        *(conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, out_proj_weight, out_proj_bias, A),
        *(B_proj_bias, C_proj_bias, b_rms_weight, c_rms_weight, dt_rms_weight),
    )
    sizes = _checked_sizes(xz, dict(zip(LAYOUTS, inputs, strict=True)), projected=(B is None) + (C is None))
    x, z = xz.chunk(2, dim=1)
    x = causal_conv1d_fn(x, conv1d_weight.squeeze(1), conv1d_bias, activation="silu")
    rank, size = sizes["rank"], sizes["map"]
    projected = functional.linear(x.transpose(1, 2), x_proj_weight)
    factor = projected[..., :rank]
    delta = _normed(functional.linear(factor, delta_proj_weight), dt_rms_weight, b_c_dt_rms_eps).transpose(1, 2)
    if B is None:
        B = _map(projected[..., rank : rank + size], B_proj_bias, b_rms_weight, b_c_dt_rms_eps, A.is_complex())
    if C is None:
        C = _map(projected[..., sizes["rows"] - size :], C_proj_bias, c_rms_weight, b_c_dt_rms_eps, A.is_complex())
    y = selective_scan_fn(x, delta, A, B, C, D, z=z, delta_bias=delta_bias, delta_softplus=delta_softplus)
    bias = None if out_proj_bias is None else out_proj_bias.to(out_proj_weight.dtype)
    return functional.linear(y.transpose(1, 2), out_proj_weight, bias)


def _checked_sizes(xz: Tensor, inputs: dict[str, Any], projected: int) -> dict[str, int]:
    """The sizes of the axes, once these inputs fit each other, with so many of B and C projected."""
    check_tensors("xz", {"xz": xz} | inputs, required=REQUIRED)
    check_floating({"xz": xz} | inputs, may_be_complex="A")
    if xz.ndim != 3 or xz.shape[1] % 2:
        raise ValueError(f"xz has shape {tuple(xz.shape)}, expected (batch, 2·dim, length)")
    sizes = {"dim": xz.shape[1] // 2, "1": 1}
    for name in REQUIRED.split():
        x, axes = inputs[name], LAYOUTS[name].split()
        if x.ndim != len(axes):
            raise ValueError(f"{name} has shape {tuple(x.shape)}, expected ({', '.join(axes)})")
        sizes = dict(zip(axes, x.shape, strict=True)) | sizes
    sizes["map"] = sizes["state"] * (2 if inputs["A"].is_complex() else 1)
    if sizes["rows"] != sizes["rank"] + projected * sizes["map"]:
        sizes["rows"] = sizes["rank"] + 2 * sizes["map"]
    for name, x in inputs.items():
        check_shape(name, x, LAYOUTS[name], sizes)
    for name in ("x_proj_weight", "delta_proj_weight", "out_proj_weight"):
        check_dtype(name, inputs[name], xz.dtype, "as xz has")
    return sizes


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
