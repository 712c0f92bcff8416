"""RWKV-6, Finch: GLA that reads before it writes, with a bonus for the present token.

    wkv_t = S_{t−1} + diag(u) k_tᵀ v_t,  S_t = diag(w_t) S_{t−1} + k_tᵀ v_t,  w_t = exp(−exp(d_t))
    lora(x) = λ + tanh(x A) B,  ddlerp(x, x′) = x + (x′ − x) ⊙ lora(x + (x′ − x) ⊙ μ_x)
    r, k, v, g = ddlerp(x_t, x_{t−1}) W,  d = lora_d(ddlerp(x_t, x_{t−1})), each with a lora of its own
    y_t = (silu(g_t) ⊙ LayerNorm(r_t wkv_t)) W_o

Here the LayerNorm of each head has no learned scale. Claim ATT-23.
Source: RWKV-6, on Finch's token shift and time mixing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ssm_edu.atlas._checks import check_sequence, check_state, check_token, sized
from ssm_edu.atlas._common import AffineScan, Card, Reals, Sequence, Token, linear, shift
from ssm_edu.atlas._heads import decayed_scores, heads_of, merge, normalise, split
from ssm_edu.selective.reference import silu


@dataclass(frozen=True)
class Parameters:
    """lam, A, B: the lora of the token shift of r, k, v, g, d and, last, lora_d itself; W of r, k, v, g, o."""

    mu_x: Float[np.ndarray, " width"]
    lam: Float[np.ndarray, "6 width"]
    A: Float[np.ndarray, "6 width rank"]
    B: Float[np.ndarray, "6 rank width"]
    W: Float[np.ndarray, "5 width width"]
    u: Float[np.ndarray, "heads size"]


class State(NamedTuple):
    """The token before, for the token shift, and S."""

    x: Token
    S: Float[np.ndarray, "heads size size"]


class Projections(NamedTuple):
    """All (..., heads, size) but g (..., width)."""

    r: Reals
    k: Reals
    v: Reals
    g: Reals
    log_w: Reals


@sized
def init(rng: np.random.Generator, *, width: int = 6, heads: int = 2, rank: int = 2) -> Parameters:
    """Normal weights, uniform μ; `width` is a multiple of `heads`."""
    mu_x, lam = rng.random(width), rng.standard_normal((6, width))
    u = rng.standard_normal((heads, heads_of(width, heads)))
    A, B = linear(rng, 6, rank, width).swapaxes(1, 2), linear(rng, 6, width, rank).swapaxes(1, 2)
    return Parameters(mu_x, lam, A, B, linear(rng, 5, width, width), u)


def lora(params: Parameters, which: int, x: Reals) -> Reals:
    """λ + tanh(x A) B."""
    return params.lam[which] + np.tanh(x @ params.A[which]) @ params.B[which]


def project(params: Parameters, x: Reals, before: Reals) -> Projections:
    """What the recurrence takes of each token and the one before."""
    heads, change = len(params.u), before - x
    guess = x + change * params.mu_x
    r, k, v, g, d = (x + change * lora(params, which, guess) for which in range(5))
    r, k, v, g = (mixed @ W for mixed, W in zip((r, k, v, g), params.W[:4], strict=True))
    log_w = -np.exp(lora(params, 5, d))
    return Projections(split(r, heads), split(k, heads), split(v, heads), g, split(log_w, heads))


def output(params: Parameters, g: Reals, o: Float[np.ndarray, "*length heads size"]) -> Reals:
    """(silu(g) ⊙ LayerNorm(o)) W_o, the norm over each head, with the ε of the released code."""
    return (silu(g) * merge(normalise(o, 64e-5))) @ params.W[4]


def bonus(params: Parameters, p: Projections) -> Reals:
    """r diag(u) kᵀ v."""
    return (p.r * params.u * p.k).sum(axis=-1, keepdims=True) * p.v


def parallel(params: Parameters, x: ArrayLike) -> Sequence:
    """GLA's masked product with keys, values and decays one token late, and the bonus."""
    x = check_sequence(x, params.u.size)
    p = project(params, x, shift(x, 1))
    scores = decayed_scores(p.r, shift(p.k, 1), shift(p.log_w, 1))
    return output(params, p.g, np.einsum("hti,ihv->thv", scores, shift(p.v, 1)) + bonus(params, p))


def first_state(params: Parameters) -> State:
    """x_0 = 0 and S_0 = 0."""
    heads, size = params.u.shape
    return State(np.zeros(heads * size), np.zeros((heads, size, size)))


def step(params: Parameters, state: State, x_t: ArrayLike) -> tuple[Token, State]:
    """y_t from S_{t−1}, and S_t."""
    check_state(state, first_state(params))
    x_t = check_token(x_t, params.u.size)
    p = project(params, x_t, state.x)
    o = np.einsum("hn,hnv->hv", p.r, state.S) + bonus(params, p)
    S = np.exp(p.log_w)[..., None] * state.S + p.k[..., None] * p.v[:, None, :]
    return output(params, p.g, o), State(x_t, S)


def as_affine_scan(params: Parameters, x: ArrayLike) -> AffineScan:
    """a = w and b = kᵀ v of the token before, which is what t reads: (heads, size, size, length)."""
    x = check_sequence(x, params.u.size)
    p = project(params, x, shift(x, 1))
    b = np.einsum("thn,thv->hnvt", shift(p.k, 1), shift(p.v, 1))
    a = np.broadcast_to(np.exp(np.moveaxis(shift(p.log_w, 1), 0, -1))[:, :, None], b.shape)

    def read_out(S: Float[np.ndarray, "heads size size length"]) -> Sequence:
        return output(params, p.g, np.einsum("thn,hnvt->thv", p.r, S) + bonus(params, p))

    return AffineScan(a, b, read_out)


CARD = Card(
    name="RWKV-6",
    paper="RWKV-6",
    year=2024,
    state_size=lambda *, width, heads, **_: width + width * width / heads,
    # token shift and gates; loras; maps; the new S and what is read; the norm of each head
    flops=lambda *, width, heads, rank, **_: (
        36 * width + 6 * rank + 24 * width * rank + 10 * width**2 + 5 * width * width / heads + 4 * heads
    ),
    memory=lambda *, width, heads, rank, **_: 9 * width + 12 * width * rank + 5 * width**2 + width * width / heads,
    time_invariant=False,
    input_dependent_decay=True,
    parallel_form="masked product, decays from sums of logarithms",
    complexity="L²",
)
