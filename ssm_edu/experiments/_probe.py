"""The scans of a model, watched: what each is given at each token, and the logits with Δ set by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ssm_edu.experiments._layers import Model
from ssm_edu.torch import selective_scan_fn

Change = Callable[[Tensor], Tensor]


class Seen(NamedTuple):
    """What a layer's scan is given: u and Δ (batch, inner, length), B (batch, state, length), A (inner, state)."""

    u: Tensor
    delta: Tensor
    B: Tensor
    A: Tensor


def watched(
    model: Model, tokens: Tensor, change: Change = lambda delta: delta, only: int | None = None
) -> tuple[Tensor, list[Seen]]:
    """The model's logits, and what the scan of each layer meets, with Δ changed in one layer (from 1), or in all."""
    x, seen = model.embedding(tokens), []
    for layer, (norm, mixer) in enumerate(zip(model.norms, model.mixers, strict=True), start=1):
        u, z = mixer.before_the_scan(norm(x))
        raw, B, C = mixer.select(u)
        delta = functional.softplus(raw + mixer.dt_proj.bias[:, None])
        if only in (None, layer):
            delta = change(delta)
        seen.append(Seen(u, delta, B, mixer.A))
        y = selective_scan_fn(u, delta, mixer.A, B, C, mixer.D, z=z)
        x = x + mixer.out_proj(y.transpose(1, 2))
    return model.head(model.norm(x)), seen


def setting(place: Tensor, value: float) -> Change:
    """Δ with this value at the marked places (batch, length)."""
    return lambda delta: delta.masked_fill(place[:, None], value)


def sampled(place: Tensor, most: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows and columns of at most so many of the marked places (batch, length)."""
    found = place.nonzero()
    chosen = torch.randperm(len(found), generator=rng, device=rng.device)[:most]
    return found[chosen, 0], found[chosen, 1]


def quantities(seen: Seen, places: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """At these places Δ (tokens, channels); exp(ΔA), the decay, and |B̄u|, what is written, of all states in a row."""
    text, time = places
    u, delta, B = seen.u[text, :, time], seen.delta[text, :, time], seen.B[text, :, time]
    decay = torch.exp(delta[..., None] * seen.A)
    written = ((delta * u)[..., None] * B[:, None]).abs()
    return {"delta": delta, "decay": decay.flatten(1), "written": written.flatten(1)}
