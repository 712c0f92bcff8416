"""QRNN: convolutions give the gates of all tokens at once, and a recurrence without weights is what is left.

    Z = tanh(W_z ∗ X),  F = σ(W_f ∗ X),  O = σ(W_o ∗ X)          eq. 1; each output looks back `window` tokens
    c_t = f_t ⊙ c_{t−1} + (1 − f_t) ⊙ z_t,  h_t = o_t ⊙ c_t      eq. 4, fo-pooling

The tanh stands before the recurrence, not in it, so c is an affine scan (GATE-1): the selective scan with one state
a channel, A = −1 and Δ = −log f under zero-order hold (GATE-2, GATE-3). Source: QRNN, §2.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ssm_edu.atlas._checks import check_sequence, check_state, check_token, sized
from ssm_edu.atlas._common import AffineScan, Card, Sequence, Token, linear
from ssm_edu.selective.reference import sigmoid

Bank: TypeAlias = Float[np.ndarray, "window width width"]


class Parameters(NamedTuple):
    """The three filter banks; the last tap meets the present token."""

    W_z: Bank
    W_f: Bank
    W_o: Bank


class State(NamedTuple):
    """The cell, and the tokens that the next window covers too."""

    c: Float[np.ndarray, " width"]
    recent: Float[np.ndarray, "window-1 width"]


@sized
def init(rng: np.random.Generator, *, width: int = 4, window: int = 2) -> Parameters:
    """Filters of variance 1/(width · window)."""
    return Parameters(*linear(rng, 3, window, width, width) / np.sqrt(window))


def gates(
    params: Parameters, windows: Float[np.ndarray, "*length window width"]
) -> tuple[Float[np.ndarray, "*length width"], ...]:
    """z, f and o. Eq. 1."""
    z, f, o = (np.einsum("...kn,kmn->...m", windows, W) for W in params)
    return np.tanh(z), sigmoid(f), sigmoid(o)


def windows(params: Parameters, x: Sequence) -> Float[np.ndarray, "length window width"]:
    """x_{t−window+1} … x_t for each t, zeros before the beginning."""
    recent = first_state(params).recent
    view = np.lib.stride_tricks.sliding_window_view(np.concatenate([recent, x]), len(recent) + 1, axis=0)
    return view.swapaxes(1, 2)


def parallel(params: Parameters, x: ArrayLike) -> Sequence:
    """y (length, width) of x (length, width): the convolutions, then a parallel scan."""
    return as_affine_scan(params, x).outputs()


def first_state(params: Parameters) -> State:
    """c_0 = 0, after zeros."""
    window, width, _ = params.W_z.shape
    return State(np.zeros(width), np.zeros((window - 1, width)))


def step(params: Parameters, state: State, x_t: ArrayLike) -> tuple[Token, State]:
    """h_t and the state, from the state before and x_t (width,)."""
    check_state(state, first_state(params))
    x_t = check_token(x_t, len(state.c))
    window = np.concatenate([state.recent, x_t[None]])
    z, f, o = gates(params, window)
    c = f * state.c + (1 - f) * z
    return o * c, State(c, window[1:])


def as_affine_scan(params: Parameters, x: ArrayLike) -> AffineScan:
    """a_t = f_t, b_t = (1 − f_t) ⊙ z_t: (width, length)."""
    x = check_sequence(x, params.W_z.shape[-1])
    z, f, o = gates(params, windows(params, x))
    return AffineScan(f.T, ((1 - f) * z).T, lambda c: o * c.T)


CARD = Card(
    name="QRNN",
    paper="QRNN",
    year=2016,
    state_size=lambda *, width, window, **_: width * window,
    # three filter banks; tanh 1, two σ of 3, and five for pooling and output
    flops=lambda *, width, window, **_: 6 * window * width**2 + 12 * width,
    memory=lambda *, width, window, **_: 3 * window * width**2 + window * width,
    time_invariant=False,
    input_dependent_decay=True,
    parallel_form="convolutions for the gates, then a scan",
    complexity="L",
)
