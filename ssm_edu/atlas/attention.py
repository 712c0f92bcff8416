"""Causal softmax attention: every token looks back at all tokens, so decoding keeps the keys and values of all.

    y_t = Σ_{s≤t} softmax_s(q_t·k_s/√d) v_s      for each head, and W_o over the heads

Without the softmax the sum over s could be taken before q_t is known, Σ v_s k_sᵀ, a state of fixed size: linear
attention. With it none exists, neither as an affine scan (COST-8 to COST-10) nor as any machine with a fixed number
of bits (COST-11). Source: Vaswani 2017, eq. 1 and §3.2.2.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ssm_edu.arrays import positive_integer
from ssm_edu.atlas._checks import check_sequence, check_state, check_token, sized
from ssm_edu.atlas._common import Card, Sequence, Token, linear

NOT_A_SCAN = "its state, the cache of keys and values, grows by a key and a value with every token"

Heads: TypeAlias = Float[np.ndarray, "heads length size"]
Maps: TypeAlias = Float[np.ndarray, "heads size width"]


class Parameters(NamedTuple):
    W_q: Maps
    W_k: Maps
    W_v: Maps
    W_o: Float[np.ndarray, "heads width size"]


class Cache(NamedTuple):
    """The keys and values of all tokens so far."""

    k: Heads
    v: Heads


@sized
def init(rng: np.random.Generator, *, width: int = 4, heads: int = 2, size: int = 2) -> Parameters:
    """`size` numbers in each head's q, k and v."""
    W_q, W_k, W_v = linear(rng, 3, heads, size, width)
    return Parameters(W_q, W_k, W_v, linear(rng, heads, width, size) / np.sqrt(heads))


def project(params: Parameters, x: Sequence) -> tuple[Heads, Heads, Heads]:
    """q, k and v."""
    q, k, v = (np.einsum("hsw,tw->hts", W, x) for W in params[:3])
    return q, k, v


def softmax(scores: Float[np.ndarray, "*rows keys"]) -> Float[np.ndarray, "*rows keys"]:
    """Over the last axis; less the largest, so that nothing overflows."""
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def attend(q: Float[np.ndarray, "heads queries size"], k: Heads, v: Heads) -> Float[np.ndarray, "heads queries size"]:
    """softmax(q kᵀ/√d) v, the last query at the last key, those before it further back. Vaswani 2017, eq. 1."""
    queries, keys = q.shape[1], k.shape[1]
    scores = np.einsum("hts,hus->htu", q / np.sqrt(q.shape[-1]), k)
    seen = np.tri(queries, keys, keys - queries, dtype=bool)
    return np.einsum("htu,hus->hts", softmax(np.where(seen, scores, -np.inf)), v)


def output(params: Parameters, heads: Heads) -> Sequence:
    """W_o over all heads: (length, width)."""
    return np.einsum("hts,hws->tw", heads, params.W_o)


def extended(cache: Cache, k: Heads, v: Heads) -> Cache:
    """The cache with more keys and values at its end."""
    return Cache(np.concatenate([cache.k, k], axis=1), np.concatenate([cache.v, v], axis=1))


def parallel(params: Parameters, x: ArrayLike) -> Sequence:
    """y (length, width) of x (length, width): all queries against all keys, with a mask."""
    return output(params, attend(*project(params, check_sequence(x, params.W_q.shape[-1]))))


def first_state(params: Parameters) -> Cache:
    """No keys and no values."""
    heads, size, _ = params.W_q.shape
    return Cache(np.zeros((heads, 0, size)), np.zeros((heads, 0, size)))


def step(params: Parameters, state: Cache, x_t: ArrayLike) -> tuple[Token, Cache]:
    """y_t and the longer cache, from the cache and x_t (width,)."""
    check_state(state, first_state(params), grows=True)
    q, k, v = project(params, check_token(x_t, params.W_q.shape[-1])[None])
    state = extended(state, k, v)
    return output(params, attend(q, state.k, state.v))[0], state


def counterexample(states: int) -> tuple[Parameters, Float[np.ndarray, "n n 4"], Float[np.ndarray, "n 4"]]:
    """n = states + 2 pasts of n tokens and n queries of one layer, whose answers in channel 2 have rank n (COST-10).

    No affine scan with this many states does that: it answers c_query·h_past + d_query, of rank at most states + 1
    (COST-8). Past i stores a one at the i-th of n places on a circle, query j asks for place j; all other places
    together weigh less than half as much (COST-11). The layer is the same for every n.
    """
    n = positive_integer("states", states) + 2
    angle, values = 2 * np.pi * np.arange(n) / n, np.eye(n)[..., None]
    radius = np.sqrt(np.sqrt(2) * np.log(2 * n) / (1 - np.cos(angle[1])))
    places = radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    pasts = np.concatenate([np.broadcast_to(places, (n, n, 2)), values, 1 - values], axis=-1)
    queries = np.concatenate([places, np.zeros((n, 1)), np.ones((n, 1))], axis=-1)
    look, read = np.eye(2, 4)[None], np.eye(2, 4, 2)[None]
    return Parameters(look, look, read * [[1], [0]], read.swapaxes(1, 2) * [1, 0]), pasts, queries


CARD = Card(
    name="Softmax attention",
    paper="Vaswani 2017",
    year=2017,
    state_size=lambda *, heads, size, length, **_: 2 * heads * size * length,
    # four projections, q/√d; then for each key its score, four for the softmax of each head, and its value
    flops=lambda *, width, heads, size, length, **_: heads * (8 * width * size + size + (4 * size + 4) * (length + 1)),
    memory=lambda *, width, heads, size, length, **_: 4 * width * heads * size + 2 * heads * size * length,
    time_invariant=False,
    input_dependent_decay=False,
    parallel_form="all pairs of tokens, masked",
    complexity="L²",
)
