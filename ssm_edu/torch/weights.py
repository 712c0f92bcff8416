"""The weights of a Mamba block in others' layouts.

`mamba_ssm`, Hugging Face's transformers and :class:`ssm_edu.torch.Mamba` have one layout, in PyTorch's `state_dict`.
:mod:`ssm_edu.atlas.mamba` has the same numbers in NumPy, with one projection cut into three, the taps in reverse, and A
for log(−A).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssm_edu.atlas import mamba as atlas_mamba
from ssm_edu.atlas import s6


def under(prefix: str, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those whose names begin with the prefix, without it.

    Raises:
        ValueError: one that a block cannot be built without is not there.
    """
    own = {name.removeprefix(prefix): x for name, x in state_dict.items() if name.startswith(prefix)}
    missing = {"in_proj.weight", "conv1d.weight", "dt_proj.weight", "A_log"} - own.keys()
    if missing:
        raise ValueError(f"state_dict has no {', '.join(prefix + name for name in sorted(missing))}")
    return own


def options(own: Mapping[str, Tensor]) -> dict[str, Any]:
    """What a block with these parameters is built with, read off their shapes."""
    two_inner, d_model = own["in_proj.weight"].shape
    rank_to_inner = own["dt_proj.weight"]
    return {
        "d_model": d_model,
        "d_state": own["A_log"].shape[1],
        "d_conv": own["conv1d.weight"].shape[-1],
        "expand": two_inner // (2 * d_model),
        "dt_rank": rank_to_inner.shape[1],
        "conv_bias": "conv1d.bias" in own,
        "bias": "in_proj.bias" in own,
        "device": rank_to_inner.device,
        "dtype": rank_to_inner.dtype,
    }


def from_atlas(params: atlas_mamba.Parameters) -> dict[str, Tensor]:
    """NumPy's parameters as a state_dict, in float64 on the CPU."""
    ssm = params.ssm
    arrays = {
        "in_proj.weight": params.W_in,
        "conv1d.weight": params.conv[:, None, ::-1],
        "conv1d.bias": params.conv_bias,
        "x_proj.weight": np.concatenate([ssm.W_down, ssm.W_B, ssm.W_C]),
        "dt_proj.weight": ssm.W_up,
        "dt_proj.bias": ssm.delta_bias,
        "A_log": np.log(-ssm.A),
        "D": ssm.D,
        "out_proj.weight": params.W_out,
    }
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


def to_atlas(state_dict: Mapping[str, Tensor]) -> atlas_mamba.Parameters:
    """A block's state_dict as NumPy's parameters, in float64.

    Raises:
        ValueError: in_proj and out_proj have biases, which the block in the atlas lacks.
    """
    if "in_proj.bias" in state_dict:
        raise ValueError("block has biases in in_proj and out_proj, expected one built with bias=False")
    own = {name: x.detach().double().cpu() for name, x in state_dict.items()}
    rank, d_state = own["dt_proj.weight"].shape[1], own["A_log"].shape[1]
    W_down, W_B, W_C = own["x_proj.weight"].split([rank, d_state, d_state])
    return atlas_mamba.Parameters(
        W_in=own["in_proj.weight"].numpy(),
        conv=own["conv1d.weight"][:, 0].flip(-1).numpy(),
        conv_bias=own.get("conv1d.bias", torch.zeros_like(own["D"])).numpy(),
        ssm=s6.Parameters(
            A=-own["A_log"].exp().numpy(),
            D=own["D"].numpy(),
            W_B=W_B.numpy(),
            W_C=W_C.numpy(),
            W_down=W_down.numpy(),
            W_up=own["dt_proj.weight"].numpy(),
            delta_bias=own["dt_proj.bias"].numpy(),
        ),
        W_out=own["out_proj.weight"].numpy(),
    )
