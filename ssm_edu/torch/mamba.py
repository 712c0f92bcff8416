"""The Mamba block for PyTorch, its parameters named and initialised as `mamba_ssm`'s `Mamba` has them.

    u, z = W_in x,   u ← silu(conv(u)),   Δ, B, C from u,   y = W_out (scan(u, Δ, A, B, C, D) ⊙ silu(z))

:mod:`ssm_edu.atlas.mamba` is the same block in NumPy; :func:`to_atlas` and :meth:`Mamba.from_atlas` carry weights there
and back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssm_edu.arrays import positive_integer
from ssm_edu.atlas import mamba as atlas_mamba
from ssm_edu.torch import weights
from ssm_edu.torch.arguments import check_dtype, check_shape, check_tensors, precision
from ssm_edu.torch.convolution import causal_conv1d_fn, causal_conv1d_update
from ssm_edu.torch.decoding import selective_state_update
from ssm_edu.torch.scan import selective_scan_fn

Block = TypeVar("Block", bound="Mamba")


@dataclass
class MambaCache:
    """What a block keeps of all the tokens it has met: its size does not depend on how many there were.

    Attributes:
        recent: (batch, inner, d_conv), the latest inputs of the convolution, oldest first.
        h: (batch, inner, d_state), the state of the scan.
    """

    recent: Tensor
    h: Tensor


class Selected(NamedTuple):
    """The scan's arguments that the input selects: Δ before bias and softplus, B and C."""

    delta: Tensor
    B: Tensor
    C: Tensor


class Mamba(nn.Module):
    """Expansion, causal depthwise convolution, selective scan, SiLU gate, projection back.

    Args:
        d_model: the width of a token.
        d_state: states of a channel.
        d_conv: taps of the convolution.
        expand: inner channels for each of d_model.
        dt_rank: the rank of Δ's projection; `auto` is ⌈d_model / 16⌉.
        conv_bias: whether the convolution has a bias.
        bias: whether in_proj and out_proj have one.
        dt_min: and dt_max, between which Δ starts, log-uniformly (claim HIPPO-16).
        dt_floor: the least Δ to start with.
        device: and dtype, of the parameters. Beside a float16 or bfloat16 dtype A_log and D are float32.

    Raises:
        TypeError, ValueError: a size that is no positive integer; not 0 < dt_min ≤ dt_max, or dt_floor ≤ 0.

    Source: Mamba, §3.4 and §3.6.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | Literal["auto"] = "auto",
        *,
        conv_bias: bool = True,
        bias: bool = False,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        dt_floor: float = 1e-4,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.d_model = positive_integer("d_model", d_model)
        self.d_state = positive_integer("d_state", d_state)
        self.d_conv = positive_integer("d_conv", d_conv)
        self.d_inner = positive_integer("expand", expand) * d_model
        self.dt_rank = math.ceil(d_model / 16) if dt_rank == "auto" else positive_integer("dt_rank", dt_rank)
        if not 0 < dt_min <= dt_max < math.inf or not dt_floor > 0:
            raise ValueError(
                f"dt_min, dt_max and dt_floor are {dt_min}, {dt_max} and {dt_floor}, "
                "expected 0 < dt_min ≤ dt_max < ∞ and 0 < dt_floor"
            )
        kind = {"device": device, "dtype": dtype}
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=bias, **kind)
        self.conv1d = nn.Conv1d(
            self.d_inner, self.d_inner, d_conv, groups=self.d_inner, padding=d_conv - 1, bias=conv_bias, **kind
        )
        self.x_proj = nn.Linear(self.d_inner, self.dt_rank + 2 * d_state, bias=False, **kind)
        self.dt_proj = nn.Linear(self.dt_rank, self.d_inner, **kind)
        wide = {"device": device, "dtype": precision(self.dt_proj.weight.dtype)}
        self.A_log = nn.Parameter(torch.arange(1, d_state + 1, **wide).log().repeat(self.d_inner, 1))
        self.D = nn.Parameter(torch.ones(self.d_inner, **wide))
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias, **kind)
        self._initialise_delta(dt_min, dt_max, dt_floor)

    @torch.no_grad()
    def _initialise_delta(self, dt_min: float, dt_max: float, dt_floor: float) -> None:
        """Weights uniform within ±rank^(−½); a bias whose softplus is log-uniform (claim HIPPO-17)."""
        nn.init.uniform_(self.dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
        span = torch.rand_like(self.D) * (math.log(dt_max) - math.log(dt_min))
        delta = torch.exp(span + math.log(dt_min)).clamp(min=dt_floor)
        self.dt_proj.bias.copy_(delta + torch.log(-torch.expm1(-delta)))

    @property
    def A(self) -> Tensor:
        """(inner, d_state), negative."""
        return -torch.exp(self.A_log.to(precision(self.A_log.dtype)))

    def before_the_scan(self, x: Tensor, cache: MambaCache | None = None) -> tuple[Tensor, Tensor]:
        """u, convolved, and z, (batch, inner, length) each, of x (batch, length, d_model). It writes cache.recent."""
        u, z = self.in_proj(x).transpose(1, 2).chunk(2, dim=1)
        weight, before = self.conv1d.weight.squeeze(1), None
        if cache is not None:
            before = cache.recent[..., 1:]
            cache.recent = torch.cat([cache.recent, u], dim=-1)[..., -self.d_conv :]
        return causal_conv1d_fn(u, weight, self.conv1d.bias, initial_states=before, activation="silu"), z

    def select(self, u: Tensor) -> Selected:
        """Δ (batch, inner, length), B and C (batch, d_state, length). Source: Mamba, Algorithm 2."""
        projected = self.x_proj(u.transpose(1, 2))
        factor, B, C = projected.split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        delta = functional.linear(factor, self.dt_proj.weight)
        return Selected(delta.transpose(1, 2), B.transpose(1, 2), C.transpose(1, 2))

    def forward(self, x: Tensor, cache: MambaCache | None = None) -> Tensor:
        """y of x, both (batch, length, d_model); with a cache, from where that stands, and on it goes in place.

        A text may so be read in pieces, in the memory of one of them.

        Raises:
            TypeError: x is no tensor, or has not the parameters' dtype.
            ValueError: x or the cache has another shape.
        """
        self._check_tokens("x", x, "batch, length")
        self._check_cache(cache, len(x))
        u, z = self.before_the_scan(x, cache)
        delta, B, C = self.select(u)
        y, h = selective_scan_fn(
            *(u, delta, self.A, B, C, self.D.to(precision(self.D.dtype))),
            z=z,
            delta_bias=self._delta_bias,
            delta_softplus=True,
            return_last_state=True,
            initial_state=None if cache is None else cache.h,
        )
        if cache is not None:
            cache.h = h
        return self.out_proj(y.transpose(1, 2))

    def step(self, x_t: Tensor, cache: MambaCache) -> Tensor:
        """y_t of x_t, both (batch, d_model), from the cache, whose tensors are overwritten.

        Autograd does not record it: :meth:`forward` of one token and a cache is recorded.

        Raises:
            TypeError: x_t is no tensor, or has not the parameters' dtype.
            ValueError: x_t or the cache has another shape.
        """
        self._check_tokens("x_t", x_t, "batch")
        self._check_cache(cache, len(x_t))
        u, z = self.in_proj(x_t).chunk(2, dim=1)
        weight = self.conv1d.weight.squeeze(1)
        u = causal_conv1d_update(u, cache.recent, weight, self.conv1d.bias, activation="silu")
        delta, B, C = (M[..., 0] for M in self.select(u[..., None]))
        bias = self._delta_bias
        y = selective_state_update(cache.h, u, delta, self.A, B, C, self.D, z=z, dt_bias=bias, dt_softplus=True)
        return self.out_proj(y)

    def first_cache(self, batch: int) -> MambaCache:
        """Both zero, beside the parameters."""
        recent = self.in_proj.weight.new_zeros(batch, self.d_inner, self.d_conv)
        return MambaCache(recent, self.A.new_zeros(batch, self.d_inner, self.d_state).detach())

    @property
    def _delta_bias(self) -> Tensor:
        return self.dt_proj.bias.to(precision(self.dt_proj.bias.dtype))

    def _check_tokens(self, name: str, x: Tensor, axes: str) -> None:
        weight = self.in_proj.weight
        check_tensors(name, {name: x, "in_proj.weight": weight}, required="in_proj.weight")
        if x.ndim != len(axes.split()) + 1 or x.shape[-1] != self.d_model:
            raise ValueError(f"{name} has shape {tuple(x.shape)}, expected ({axes}, d_model = {self.d_model})")
        if weight.is_floating_point():  # which a quantised one is not
            check_dtype(name, x, weight.dtype, "as in_proj.weight has")

    def _check_cache(self, cache: MambaCache | None, batch: int) -> None:
        if cache is None:
            return
        sizes = {"batch": batch, "inner": self.d_inner, "d_conv": self.d_conv, "d_state": self.d_state}
        check_shape("cache.recent", cache.recent, "batch inner d_conv", sizes)
        check_shape("cache.h", cache.h, "batch inner d_state", sizes)

    @classmethod
    def from_state_dict(cls: type[Block], state_dict: Mapping[str, Tensor], prefix: str = "") -> Block:
        """The block whose parameters stand under `prefix`, its sizes read off their shapes.

        `mamba_ssm` and Hugging Face's transformers name them alike: in a whole model the prefix of the first block is
        `backbone.layers.0.mixer.`

        Raises:
            ValueError: a parameter is absent, or one too many is there.
        """
        own = weights.under(prefix, state_dict)
        block = cls(**weights.options(own))
        try:
            block.load_state_dict(own)
        except RuntimeError as error:
            raise ValueError(f"state_dict under {prefix!r} is no Mamba block's: {error}") from error
        return block

    @classmethod
    def from_atlas(cls: type[Block], params: atlas_mamba.Parameters) -> Block:
        """The block of NumPy's parameters, in float64 on the CPU."""
        return cls.from_state_dict(weights.from_atlas(params))


def to_atlas(block: Mamba) -> atlas_mamba.Parameters:
    """NumPy's parameters of a block, in float64.

    Raises:
        ValueError: in_proj and out_proj have biases, which the block in the atlas lacks.
    """
    return weights.to_atlas(block.state_dict())
