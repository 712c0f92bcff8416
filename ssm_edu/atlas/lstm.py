"""LSTM: gates and candidate read the output of the step before, through matrices.

    i, f, o = σ(W x_t + U h_{t−1} + b),  g = tanh(W x_t + U h_{t−1} + b)
    c_t = f ⊙ c_{t−1} + i ⊙ g,  h_t = o ⊙ tanh(c_t)

Each of i, f, g, o has its own W, U and b. The step is affine in the state exactly if none of U_i, U_f, U_g is there
(GATE-7), and an LSTM with one unit can keep a bit and repair it (GATE-11), which no affine recurrence can in any
coordinates (GATE-10). Source: Hochreiter & Schmidhuber 1997; the forget gate: Gers 2000.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ssm_edu.atlas._checks import check_sequence, check_state, check_token, sized
from ssm_edu.atlas._common import AffineScan, Card, Sequence, Token, linear
from ssm_edu.selective.reference import sigmoid

NOT_A_SCAN = "what the step before put out enters the sigmoids and the tanh of the next"


class Parameters(NamedTuple):
    """For i, f, g, o in this order."""

    W: Float[np.ndarray, "4 width width"]
    U: Float[np.ndarray, "4 width width"]
    b: Float[np.ndarray, "4 width"]


class State(NamedTuple):
    """The output and the cell."""

    h: Float[np.ndarray, " width"]
    c: Float[np.ndarray, " width"]


@sized
def init(rng: np.random.Generator, *, width: int = 4) -> Parameters:
    """Weights of size 1, biases that are standard normal."""
    return Parameters(linear(rng, 4, width, width), linear(rng, 4, width, width), rng.standard_normal((4, width)))


def gates(pre: Float[np.ndarray, "*length 4 width"]) -> tuple[Float[np.ndarray, "*length width"], ...]:
    """i, f, g and o from what enters them."""
    i, f, g, o = (pre[..., k, :] for k in range(4))
    return sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)


def update(params: Parameters, state: State, W_x: Float[np.ndarray, "4 width"]) -> State:
    """The state after a token, from W x_t."""
    i, f, g, o = gates(W_x + params.U @ state.h + params.b)
    c = f * state.c + i * g
    return State(o * np.tanh(c), c)


def parallel(params: Parameters, x: ArrayLike) -> Sequence:
    """y (length, width) of x (length, width): W x for all tokens at once; the rest waits for the step before."""
    x = check_sequence(x, params.b.shape[-1])
    W_x = np.einsum("kmn,tn->tkm", params.W, x)
    state, y = first_state(params), np.empty_like(x)
    for t in range(len(x)):
        state = update(params, state, W_x[t])
        y[t] = state.h
    return y


def first_state(params: Parameters) -> State:
    """h_0 = c_0 = 0."""
    width = params.b.shape[-1]
    return State(np.zeros(width), np.zeros(width))


def step(params: Parameters, state: State, x_t: ArrayLike) -> tuple[Token, State]:
    """h_t and the state, from the state before and x_t (width,)."""
    check_state(state, first_state(params))
    state = update(params, state, params.W @ check_token(x_t, len(state.c)))
    return state.h, state


def without_feedback(params: Parameters, x: ArrayLike) -> AffineScan:
    """The scan that is left without U: a_t = f_t, b_t = i_t ⊙ g_t, (width, length), with every tanh in its place."""
    x = check_sequence(x, params.b.shape[-1])
    i, f, g, o = gates(np.einsum("kmn,tn->tkm", params.W, x) + params.b)
    return AffineScan(f.T, (i * g).T, lambda c: o * np.tanh(c.T))


def counterexample() -> tuple[Parameters, Token, State, State]:
    """One unit, a token, and two states that the token leaves alone, but not their mean.

    An affine map that fixes two points fixes the line through them (GATE-10).
    """
    zero, U = np.zeros((4, 1, 1)), np.zeros((4, 1, 1))
    U[2] = 6.0  # c ↦ (c + tanh(3 tanh c + ¼))/2, steep between two places of rest
    params, token = Parameters(zero, U, np.array([[0.0], [0.0], [0.25], [0.0]])), np.zeros(1)
    low, high = (State(np.array([c / 2]), np.array([c])) for c in (-1.0, 1.0))
    for _ in range(200):
        low, high = step(params, low, token)[1], step(params, high, token)[1]
    return params, token, low, high


CARD = Card(
    name="LSTM",
    paper="Hochreiter & Schmidhuber 1997",
    year=1997,
    state_size=lambda *, width, **_: 2 * width,
    # eight matrices and their sums, two a gate; three σ of 3 and two tanh; four for c and h
    flops=lambda *, width, **_: 16 * width**2 + 23 * width,
    memory=lambda *, width, **_: 8 * width**2 + 6 * width,
    time_invariant=False,
    input_dependent_decay=True,
    parallel_form="none in time: inputs at once, then token by token",
    complexity="L",
)
