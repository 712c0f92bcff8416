"""The models of the experiments: layers of Mamba, with the selective scan or with a time-invariant one in its place."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ssm_edu.torch.mamba import Mamba, MambaCache, Selected


class TimeInvariantMamba(Mamba):
    """The Mamba block around S4D-Real: Δ, B and C are parameters, each channel its own, and all else is as it was.

    B starts at 1 and C at normal numbers. Source: S4D, §3 and §4; the pairing, Mamba, Table 1.
    """

    def __init__(self, d_model: int, **options: Any) -> None:
        super().__init__(d_model, **options)
        del self.x_proj
        self.dt_proj.weight = None  # Δ = softplus(bias)
        self.B = nn.Parameter(torch.ones_like(self.A_log))
        self.C = nn.Parameter(torch.randn_like(self.A_log))

    def select(self, u: Tensor) -> Selected:
        """Δ before its bias, (batch, inner, length), is 0 throughout; B and C are (inner, d_state)."""
        return Selected(torch.zeros_like(u), self.B, self.C)

    def step(self, x_t: Tensor, cache: MambaCache) -> Tensor:
        """By the forward: decoding's kernel has a B and a C for each text, not for each channel."""
        return self(x_t[:, None], cache)[:, 0]


LAYERS: dict[str, type[Mamba]] = {"S6": Mamba, "S4D": TimeInvariantMamba}


class Model(nn.Module):
    """Tokens to logits: an embedding, blocks of x + mixer(norm(x)), a norm and a linear layer.

    Args:
        kind: a key of `LAYERS`.
        vocabulary: how many tokens there are.
        width: d_model.
        layers: how many blocks.
        d_state: states of a channel.
    """

    def __init__(self, kind: str, *, vocabulary: int, width: int, layers: int, d_state: int = 16) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.norms = nn.ModuleList(nn.RMSNorm(width, eps=1e-5) for _ in range(layers))
        self.mixers = nn.ModuleList(LAYERS[kind](width, d_state=d_state) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.head = nn.Linear(width, vocabulary, bias=False)
        for mixer in self.mixers:  # so that the sum over layers does not grow with their number
            mixer.out_proj.weight.data /= math.sqrt(layers)

    def forward(self, tokens: Tensor, caches: list[MambaCache] | None = None) -> Tensor:
        """(batch, length) to (batch, length, vocabulary); with caches, from where they stand, and on they go."""
        return self.head(self.norm(self.states(tokens, caches)))

    def answer(self, tokens: Tensor, answers: int, caches: list[MambaCache] | None = None) -> Tensor:
        """The logits at the last `answers` tokens, (batch, answers, vocabulary)."""
        return self.head(self.norm(self.states(tokens, caches)[:, -answers:]))

    def states(self, tokens: Tensor, caches: list[MambaCache] | None = None) -> Tensor:
        """What the last norm meets, (batch, length, width)."""
        x = self.embedding(tokens)
        for layer, (norm, mixer) in enumerate(zip(self.norms, self.mixers, strict=True)):
            x = x + mixer(norm(x), None if caches is None else caches[layer])
        return x

    def first_caches(self, batch: int) -> list[MambaCache]:
        return [mixer.first_cache(batch) for mixer in self.mixers]
