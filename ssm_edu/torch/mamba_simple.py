"""`mamba_ssm.modules.mamba_simple.Mamba`: our block built and called as theirs is."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from ssm_edu.torch import mamba


class Mamba(mamba.Mamba):
    """:class:`ssm_edu.torch.Mamba` with `mamba_ssm`'s constructor and its memory for decoding.

    Args:
        d_model: and the others, as there.
        dt_init: of Δ's projection, `random` is uniform within ±dt_scale · rank^(−½), `constant` that limit everywhere.
        dt_scale: see dt_init.
        dt_init_floor: the least Δ to start with.
        use_fast_path: changes nothing: there is one path.
        layer_idx: where the memory of this block stands in inference_params.

    Raises:
        TypeError, ValueError: as :class:`ssm_edu.torch.Mamba`; another dt_init; dt_scale ≤ 0.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | Literal["auto"] = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: str = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
        use_fast_path: bool = True,
        layer_idx: int | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if dt_init not in ("random", "constant"):
            raise ValueError(f"dt_init is {dt_init!r}, expected 'random' or 'constant'")
        if not dt_scale > 0:
            raise ValueError(f"dt_scale is {dt_scale}, expected a positive number")
        super().__init__(
            *(d_model, d_state, d_conv, expand, dt_rank),
            conv_bias=conv_bias,
            bias=bias,
            dt_min=dt_min,
            dt_max=dt_max,
            dt_floor=dt_init_floor,
            device=device,
            dtype=dtype,
        )
        limit = dt_scale * self.dt_rank**-0.5
        if dt_init == "constant":
            nn.init.constant_(self.dt_proj.weight, limit)
        else:
            nn.init.uniform_(self.dt_proj.weight, -limit, limit)
        # what training loops for mamba_ssm look for
        self.A_log._no_weight_decay = self.D._no_weight_decay = True
        self.dt_proj.bias._no_reinit = True
        self.expand, self.use_fast_path, self.layer_idx = expand, use_fast_path, layer_idx

    def forward(self, hidden_states: Tensor, inference_params: Any = None) -> Tensor:
        """y of hidden_states, both (batch, length, d_model).

        With inference_params, whose key_value_memory_dict keeps (conv_state, ssm_state) under layer_idx: from zero
        where its seqlen_offset is 0, else the step that follows on them.

        Raises:
            TypeError, ValueError: as :meth:`ssm_edu.torch.Mamba.forward`; no layer_idx; a step of more than one token.
        """
        self._check_tokens("hidden_states", hidden_states, "batch, length")
        if inference_params is None:
            return super().forward(hidden_states)
        conv_state, ssm_state = self._memory(inference_params, len(hidden_states))
        if inference_params.seqlen_offset > 0:
            return self.step(hidden_states, conv_state, ssm_state)[0]
        cache = self.first_cache(len(hidden_states))
        y = super().forward(hidden_states, cache)
        with torch.no_grad():
            conv_state.copy_(cache.recent)
            ssm_state.copy_(cache.h)
        return y

    def step(  # type: ignore[override]
        self, hidden_states: Tensor, conv_state: Tensor, ssm_state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """y of one token, both (batch, 1, d_model), and both states, written in place.

        conv_state is (batch, inner, d_conv), ssm_state (batch, inner, d_state). Autograd does not record it.

        Raises:
            TypeError, ValueError: as :meth:`ssm_edu.torch.Mamba.step`; more than one token.
        """
        self._check_tokens("hidden_states", hidden_states, "batch, length")
        if hidden_states.shape[1] != 1:
            raise ValueError(f"hidden_states has shape {tuple(hidden_states.shape)}, expected one token, a length of 1")
        y = super().step(hidden_states[:, 0], mamba.MambaCache(conv_state, ssm_state))
        return y[:, None], conv_state, ssm_state

    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: Any = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """conv_state and ssm_state, zero, in dtype or the parameters' own; no length makes them longer."""
        weight = self.conv1d.weight
        return (
            weight.new_zeros(batch_size, self.d_inner, self.d_conv, dtype=dtype),
            weight.new_zeros(batch_size, self.d_inner, self.d_state, dtype=dtype),
        )

    def _memory(self, inference_params: Any, batch: int) -> tuple[Tensor, Tensor]:
        if self.layer_idx is None:
            raise ValueError("layer_idx is None, expected an integer where inference_params are given")
        kept = inference_params.key_value_memory_dict
        if self.layer_idx not in kept:
            kept[self.layer_idx] = self.allocate_inference_cache(batch, 0)
        self._check_cache(mamba.MambaCache(*kept[self.layer_idx]), batch)
        return kept[self.layer_idx]
