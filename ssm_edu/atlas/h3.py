"""H3: two time-invariant systems with a gate after each. The first remembers single tokens, the second sums them up.

    y = W_O (q ⊙ SSM_diag(SSM_shift(k) ⊙ v)),   q, k, v = W_Q x, W_K x, W_V x

The shift system's state is the last m values of k, so what it computes is a short convolution; the diagonal one
is S4D's. Only gates multiply what depends on the input: the decay does not depend on it. Each channel is a head.
Source: H3, §3, on the H3 layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Complex, Float
from numpy.typing import ArrayLike

from ssm_edu.atlas import s4d
from ssm_edu.atlas._checks import check_sequence, check_state, check_token, sized
from ssm_edu.atlas._common import AffineScan, Card, Sequence, Token, linear, tapped


@dataclass(frozen=True)
class Parameters:
    """`shift_C` is the shift system's output map: its row d meets k_t, k_{t−1}, …, k_{t−m+1} of channel d."""

    W_Q: Float[np.ndarray, "width width"]
    W_K: Float[np.ndarray, "width width"]
    W_V: Float[np.ndarray, "width width"]
    W_O: Float[np.ndarray, "width width"]
    shift_C: Float[np.ndarray, "width m"]
    diagonal: s4d.Parameters


class State(NamedTuple):
    """Of the shift system, newest first, and of the diagonal one."""

    recent: Float[np.ndarray, "width m"]
    h: Complex[np.ndarray, "width n"]


@sized
def init(rng: np.random.Generator, *, width: int = 4, state: int = 8, taps: int = 4) -> Parameters:
    """`state` counts conjugate pairs of the diagonal system, `taps` the states of the shift system."""
    W_Q, W_K, W_V, W_O = linear(rng, 4, width, width)
    return Parameters(W_Q, W_K, W_V, W_O, linear(rng, width, taps), s4d.init(rng, width=width, state=state))


def shift_ssm(params: Parameters, k: Sequence) -> Sequence:
    """Σ_j C_j k_{t−j}: what h_t = S h_{t−1} + e_1 k_t, with ones below the diagonal of S, gives at C h_t."""
    return tapped(k, params.shift_C)


def parallel(params: Parameters, x: ArrayLike) -> Sequence:
    """y (length, width) of x (length, width): both systems as convolutions, the long one by FFT."""
    x = check_sequence(x, len(params.W_Q))
    q, k, v = x @ params.W_Q.T, x @ params.W_K.T, x @ params.W_V.T
    return (q * s4d.parallel(params.diagonal, shift_ssm(params, k) * v)) @ params.W_O.T


def first_state(params: Parameters) -> State:
    """Both zero."""
    return State(np.zeros_like(params.shift_C), s4d.first_state(params.diagonal))


def step(params: Parameters, state: State, x_t: ArrayLike) -> tuple[Token, State]:
    """y_t and the next state from the last one and x_t (width,)."""
    check_state(state, first_state(params))
    x_t = check_token(x_t, len(params.W_Q))
    q, k, v = params.W_Q @ x_t, params.W_K @ x_t, params.W_V @ x_t
    recent = np.concatenate([k[:, None], state.recent[:, :-1]], axis=1)
    y, h = s4d.step(params.diagonal, state.h, (params.shift_C * recent).sum(axis=1) * v)
    return params.W_O @ (q * y), State(recent, h)


def as_affine_scan(params: Parameters, x: ArrayLike) -> AffineScan:
    """The diagonal system's scan, (width, n, length): Ā is constant, and the first gate is in b."""
    x = check_sequence(x, len(params.W_Q))
    q, k, v = x @ params.W_Q.T, x @ params.W_K.T, x @ params.W_V.T
    inner = s4d.as_affine_scan(params.diagonal, shift_ssm(params, k) * v)
    return AffineScan(inner.a, inner.b, lambda h: (q * inner.read_out(h)) @ params.W_O.T)


CARD = Card(
    name="H3",
    paper="H3",
    year=2022,
    state_size=lambda *, width, taps, **sizes: width * taps + s4d.CARD.state_size(width=width, **sizes),
    # four projections, the taps, two gates
    flops=lambda *, width, taps, **sizes: 8 * width**2 + width * (2 * taps + 2) + s4d.CARD.flops(width=width, **sizes),
    memory=lambda *, width, taps, **sizes: 4 * width**2 + 2 * width * taps + s4d.CARD.memory(width=width, **sizes),
    time_invariant=False,
    input_dependent_decay=False,
    parallel_form="a short and a long convolution with a gate after each, by FFT",
    complexity="L log L",
)
