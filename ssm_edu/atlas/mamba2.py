"""Mamba-2, state space duality: one decay for a whole head makes the scan a masked attention, and back.

    recurrent   h_t = a_t h_{t−1} + Δ_t x_t B_tᵀ,  y_t = h_t C_t + D x_t,  a_t = exp(Δ_t A) a number
    quadratic   Y = (L ∘ C Bᵀ) (Δ X),  L_ts = a_t … a_{s+1} for s ≤ t, else 0
    chunked     the quadratic form inside chunks, the recurrent one between them: matrix products, linear in length

Claims SSD-5, SSD-8 to SSD-10. Source: Mamba-2, §3 (duality), §6 (the algorithm by blocks).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ssm_edu.arrays import positive_integer
from ssm_edu.atlas._checks import check_sequence, check_state, check_token, sized
from ssm_edu.atlas._common import AffineScan, Card, Sequence, Token, linear
from ssm_edu.atlas._heads import decays, heads_of, merge
from ssm_edu.hippo import mamba_delta_bias
from ssm_edu.scan import sequential

State = Float[np.ndarray, "heads head_width n"]


@dataclass(frozen=True)
class Parameters:
    """width = heads · head_width; all heads share B and C (one group)."""

    A: Float[np.ndarray, " heads"]
    D: Float[np.ndarray, " heads"]
    W_B: Float[np.ndarray, "n width"]
    W_C: Float[np.ndarray, "n width"]
    W_delta: Float[np.ndarray, "heads width"]
    delta_bias: Float[np.ndarray, " heads"]


class Selected(NamedTuple):
    """log a = ΔA and ΔX by head; B and C; X by head. For one token or, with a leading axis, for all."""

    log_a: Float[np.ndarray, "*length heads"]
    delta_x: Float[np.ndarray, "*length heads head_width"]
    B: Float[np.ndarray, "*length n"]
    C: Float[np.ndarray, "*length n"]
    Dx: Float[np.ndarray, "*length heads head_width"]


@sized
def init(rng: np.random.Generator, *, width: int = 6, state: int = 8, heads: int = 2) -> Parameters:
    """−A uniform in [1, 16], D = 1, Δ near log-uniform in [1e-3, 1e-1], as released.

    Raises:
        ValueError: heads do not divide the width.
    """
    heads_of(width, heads)
    return Parameters(
        A=-rng.uniform(1, 16, heads),
        D=np.ones(heads),
        W_B=linear(rng, state, width),
        W_C=linear(rng, state, width),
        W_delta=linear(rng, heads, width),
        delta_bias=mamba_delta_bias(heads, rng=rng),
    )


def select(params: Parameters, x: Float[np.ndarray, "*length width"]) -> Selected:
    """What the recurrence and its dual are made of."""
    delta = np.logaddexp(0, x @ params.W_delta.T + params.delta_bias)
    X = x.reshape(*x.shape[:-1], len(params.A), -1)
    Dx = params.D[:, None] * X
    return Selected(delta * params.A, delta[..., None] * X, x @ params.W_B.T, x @ params.W_C.T, Dx)


def decay_mask(log_a: Float[np.ndarray, "length heads"]) -> Float[np.ndarray, "heads length length"]:
    """L_ts = a_t … a_{s+1} for s ≤ t, else 0 (claim SSD-1), each by its own sum of logarithms (claim SSD-12)."""
    return np.moveaxis(decays(log_a), -1, 0)


def parallel(params: Parameters, x: ArrayLike) -> Sequence:
    """y (length, width) of x (length, width), by the quadratic form: attention with the mask L and no softmax."""
    return attend(select(params, check_sequence(x, params.W_B.shape[1])))


def attend(selected: Selected) -> Sequence:
    """Y = (L ∘ C Bᵀ) (Δ X) + D X."""
    log_a, X, B, C, Dx = selected
    return merge(np.einsum("hts,shp->thp", decay_mask(log_a) * (C @ B.T), X) + Dx)


def chunked(params: Parameters, x: ArrayLike, chunk: int) -> Sequence:
    """`parallel` in linear time: quadratic inside chunks, a recurrence of the chunks' states between them.

    Source: Mamba-2, §6 and Listing 1.
    """
    x = check_sequence(x, params.W_B.shape[1])
    length = len(x)
    chunk = min(positive_integer("chunk", chunk), length)
    padded = np.concatenate([x, np.zeros((-length % chunk, x.shape[1]))])
    log_a, X, B, C, Dx = (part.reshape(-1, chunk, *part.shape[1:]) for part in select(params, padded))
    from_the_start = np.exp(np.cumsum(log_a, axis=1))
    mask = np.array([decay_mask(one) for one in log_a])
    diagonal = np.einsum("chts,ctn,csn,cshp->cthp", mask, C, B, X, optimize=True)
    ends = np.einsum("chs,cshp,csn->hpnc", mask[:, :, -1], X, B, optimize=True)
    states = sequential(from_the_start[:, -1].T[:, None, None], ends)
    before = np.concatenate([np.zeros_like(ends[..., :1]), states[..., :-1]], axis=-1)
    carried = np.einsum("cth,ctn,hpnc->cthp", from_the_start, C, before, optimize=True)
    return merge((diagonal + carried + Dx).reshape(-1, *X.shape[2:]))[:length]


def first_state(params: Parameters) -> State:
    """h_0 = 0."""
    heads, (n, width) = len(params.A), params.W_B.shape
    return np.zeros((heads, width // heads, n))


def step(params: Parameters, state: State, x_t: ArrayLike) -> tuple[Token, State]:
    """y_t and h_t from h_{t−1} and x_t (width,)."""
    check_state(state, first_state(params))
    log_a, X, B, C, Dx = select(params, check_token(x_t, params.W_B.shape[1]))
    h = np.exp(log_a)[:, None, None] * state + X[..., None] * B
    return (h @ C + Dx).ravel(), h


def as_affine_scan(params: Parameters, x: ArrayLike) -> AffineScan:
    """a_t = exp(Δ_t A), one number a head, b_t = Δ_t x_t B_tᵀ: (heads, head_width, n, length)."""
    log_a, X, B, C, Dx = select(params, check_sequence(x, params.W_B.shape[1]))
    b = np.einsum("thp,tn->hpnt", X, B)
    return AffineScan(np.exp(log_a).T[:, None, None], b, lambda h: merge(np.einsum("tn,hpnt->thp", C, h) + Dx))


CARD = Card(
    name="Mamba-2 (SSD)",
    paper="Mamba-2",
    year=2024,
    state_size=lambda *, width, state, **_: width * state,
    # W_B, W_C: 4 a state; a h, xB, the sum, C h: 5; W_Δ: 2 a head; Δx, Dx, the sum; bias, softplus, ΔA, exp
    flops=lambda *, width, state, heads, **_: width * (9 * state + 2 * heads + 3) + 4 * heads,
    memory=lambda *, width, state, heads, **_: width * (3 * state + heads) + 3 * heads,
    time_invariant=False,
    input_dependent_decay=True,
    parallel_form="masked attention without softmax, or blocks of it",
    complexity="L²",
)
