"""The Transformer++ layer: RMSNorm before each half, attention with rotary positions, and a SwiGLU for an MLP.

    x ← x + Attention(RMSNorm(x)),  q and k turned by R_t       y = x + SwiGLU(RMSNorm(x))

    RMSNorm(x) = g ⊙ x/√(mean(x²) + ε)                          Zhang & Sennrich 2019, eq. 4
    (R_t q)·(R_s k) = q·R_{s−t} k,  R_t = rotations by tθ_i     Su 2021, §3.2; θ_i = 10000^{−2i/d}
    SwiGLU(x) = W_down (silu(W_gate x) ⊙ W_up x)                Shazeer 2020, eq. 6

What Mamba's comparison calls Transformer++ is this layer as in LLaMA. Its cache holds turned keys, so a key is
turned once, and the cache's length is the position. Sources: Touvron 2023, §2.2; Article 2.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ssm_edu.atlas import attention
from ssm_edu.atlas._checks import check_sequence, check_state, check_token, sized
from ssm_edu.atlas._common import Card, Sequence, Token, linear
from ssm_edu.atlas.attention import NOT_A_SCAN as NOT_A_SCAN
from ssm_edu.atlas.attention import Cache, Heads
from ssm_edu.selective.reference import silu

Vector: TypeAlias = Float[np.ndarray, " width"]
EPSILON = 1e-6


class Parameters(NamedTuple):
    """One layer; the two g are the scales of the norms."""

    attention: attention.Parameters
    g_attention: Vector
    g_mlp: Vector
    W_gate: Float[np.ndarray, "hidden width"]
    W_up: Float[np.ndarray, "hidden width"]
    W_down: Float[np.ndarray, "width hidden"]


@sized
def init(rng: np.random.Generator, *, width: int = 4, heads: int = 2, pair: int = 1, hidden: int = 8) -> Parameters:
    """`pair` pairs of numbers in each head's q, k and v; `hidden` is 8/3 of the width in LLaMA."""
    attends = attention.init(rng, width=width, heads=heads, size=2 * pair)
    g_attention, g_mlp = 1 + 0.1 * rng.standard_normal((2, width))
    gate, up, down = linear(rng, hidden, width), linear(rng, hidden, width), linear(rng, width, hidden)
    return Parameters(attends, g_attention, g_mlp, gate, up, down)


def rms_norm(x: Sequence, g: Vector) -> Sequence:
    """g ⊙ x/√(mean(x²) + ε)."""
    return x / np.sqrt((x * x).sum(axis=-1, keepdims=True) / x.shape[-1] + EPSILON) * g


def rotate(x: Heads, positions: Float[np.ndarray, " length"]) -> Heads:
    """R_t x_t: the pair (x_{2i}, x_{2i+1}) turned by tθ_i, so that scores see t − s alone (COST-12)."""
    pairs = x.shape[-1] // 2
    angle = positions[:, None] * 10000.0 ** (-np.arange(pairs) / pairs)
    cos, sin, even, odd = np.cos(angle), np.sin(angle), x[..., ::2], x[..., 1::2]
    return np.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(x.shape)


def swiglu(params: Parameters, x: Sequence) -> Sequence:
    """W_down (silu(W_gate x) ⊙ W_up x) for each token."""
    return (silu(x @ params.W_gate.T) * (x @ params.W_up.T)) @ params.W_down.T


def layer(params: Parameters, state: Cache, x: Sequence) -> tuple[Sequence, Cache]:
    """The outputs for the tokens that follow those of the cache, and the longer cache."""
    q, k, v = attention.project(params.attention, rms_norm(x, params.g_attention))
    positions = np.arange(len(x), dtype=float) + state.k.shape[1]
    state = attention.extended(state, rotate(k, positions), v)
    x = x + attention.output(params.attention, attention.attend(rotate(q, positions), state.k, state.v))
    return x + swiglu(params, rms_norm(x, params.g_mlp)), state


def parallel(params: Parameters, x: ArrayLike) -> Sequence:
    """y (length, width) of x (length, width): all pairs of tokens, masked; the rest token by token."""
    return layer(params, first_state(params), check_sequence(x, len(params.g_mlp)))[0]


def first_state(params: Parameters) -> Cache:
    """No keys and no values."""
    return attention.first_state(params.attention)


def step(params: Parameters, state: Cache, x_t: ArrayLike) -> tuple[Token, Cache]:
    """y_t and the longer cache, from the cache and x_t (width,)."""
    check_state(state, first_state(params), grows=True)
    y, state = layer(params, state, check_token(x_t, len(params.g_mlp))[None])
    return y[0], state


def counterexample(states: int) -> tuple[Parameters, Float[np.ndarray, "n n 4"], Float[np.ndarray, "n 4"]]:
    """`attention.counterexample` with an idle MLP. The norm would undo the radius of the circle, so q and k get it.

    A token is turned back by its position beforehand. A query's own channel 2 is 0, so the residual adds nothing.
    """
    heads, pasts, queries = attention.counterexample(states)
    n, width = queries.shape
    radius = np.hypot(*queries[0, :2])
    heads = heads._replace(W_q=radius * heads.W_q, W_k=radius * heads.W_k)
    pasts[..., :2] = rotate(pasts[..., :2] / radius, -np.arange(n, dtype=float))
    queries[:, :2] = rotate(queries[None, :, :2] / radius, np.full(n, -float(n)))[0]
    one, idle = np.full(width, np.sqrt(0.5)), np.zeros((1, width))  # the tokens now have norm √2, mean square ½
    return Parameters(heads, one, one, idle, idle, idle.T), pasts, queries


CARD = Card(
    name="Transformer++",
    paper="Touvron 2023",
    year=2023,
    state_size=lambda *, heads, pair, length, **_: 4 * heads * pair * length,
    # attention; turning q and k, 6 a pair; the SwiGLU's matrices and 5; two norms of 4 + 3 and two sums
    flops=lambda *, width, heads, pair, hidden, length, **_: (
        attention.CARD.flops(width=width, heads=heads, size=2 * pair, length=length)
        + 12 * heads * pair
        + hidden * (6 * width + 5)
        + 10 * width
        + 6
    ),
    memory=lambda *, width, heads, pair, hidden, length, **_: (
        8 * width * heads * pair + 3 * width * hidden + 2 * width + 4 * heads * pair * length
    ),
    time_invariant=False,
    input_dependent_decay=False,
    parallel_form="all pairs of tokens, masked",
    complexity="L²",
)
