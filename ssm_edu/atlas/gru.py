"""GRU: one gate moves the state towards a candidate, another says how much of the state the candidate sees.

    r = σ(W_r x_t + U_r h_{t−1} + b_r)                 eq. 5
    z = σ(W_z x_t + U_z h_{t−1} + b_z)                 eq. 6
    h_t = z ⊙ h_{t−1} + (1 − z) ⊙ n                    eq. 7
    n = tanh(W_n x_t + U_n (r ⊙ h_{t−1}) + b_n)        eq. 8, where n is written h̃

The biases, which the paper leaves out, are usual. The step is affine in the state exactly if U_z and U_n are not
there (GATE-8); yet scans solve it, a few for a whole text (GATE-13). Source: Cho 2014, §2.3.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ssm_edu.atlas._checks import check_sequence, check_state, check_token, sized
from ssm_edu.atlas._common import AffineScan, Card, Sequence, Token, linear
from ssm_edu.selective.reference import sigmoid

NOT_A_SCAN = "the state enters the sigmoid of its own gate and the tanh of its own candidate"


class Parameters(NamedTuple):
    """For r, z, n in this order."""

    W: Float[np.ndarray, "3 width width"]
    U: Float[np.ndarray, "3 width width"]
    b: Float[np.ndarray, "3 width"]


@sized
def init(rng: np.random.Generator, *, width: int = 4) -> Parameters:
    """Weights of size 1, biases that are standard normal."""
    return Parameters(linear(rng, 3, width, width), linear(rng, 3, width, width), rng.standard_normal((3, width)))


def update(params: Parameters, h: Token, W_x: Float[np.ndarray, "3 width"]) -> Token:
    """h_t from h_{t−1} and W x_t."""
    r_x, z_x, n_x = W_x + params.b
    U_r, U_z, U_n = params.U
    r, z = sigmoid(r_x + U_r @ h), sigmoid(z_x + U_z @ h)
    n = np.tanh(n_x + U_n @ (r * h))
    return z * h + (1 - z) * n


def parallel(params: Parameters, x: ArrayLike) -> Sequence:
    """y (length, width) of x (length, width): W x for all tokens at once; the rest waits for the step before."""
    x = check_sequence(x, params.b.shape[-1])
    W_x = np.einsum("kmn,tn->tkm", params.W, x)
    h, y = first_state(params), np.empty_like(x)
    for t in range(len(x)):
        y[t] = h = update(params, h, W_x[t])
    return y


def first_state(params: Parameters) -> Token:
    """h_0 = 0."""
    return np.zeros(params.b.shape[-1])


def step(params: Parameters, state: Token, x_t: ArrayLike) -> tuple[Token, Token]:
    """h_t twice, as output and as state, from h_{t−1} and x_t (width,)."""
    check_state(state, first_state(params))
    h = update(params, state, params.W @ check_token(x_t, len(state)))
    return h, h


def without_feedback(params: Parameters, x: ArrayLike) -> AffineScan:
    """The scan that is left without U: a_t = z_t, b_t = (1 − z_t) ⊙ n_t, (width, length)."""
    x = check_sequence(x, params.b.shape[-1])
    _, z_x, n_x = np.moveaxis(np.einsum("kmn,tn->tkm", params.W, x) + params.b, 1, 0)
    z, n = sigmoid(z_x), np.tanh(n_x)
    return AffineScan(z.T, ((1 - z) * n).T, lambda h: h.T)


def counterexample() -> tuple[Parameters, Token, Token, Token]:
    """One unit, a token, and two states that the token leaves alone, but not their mean (GATE-10)."""
    zero, U = np.zeros((3, 1, 1)), np.zeros((3, 1, 1))
    U[2] = 6.0  # h ↦ (h + tanh(3h + ¼))/2, steep between two places of rest
    params, token = Parameters(zero, U, np.array([[0.0], [0.0], [0.25]])), np.zeros(1)
    low, high = np.array([-1.0]), np.array([1.0])
    for _ in range(200):
        low, high = step(params, low, token)[1], step(params, high, token)[1]
    return params, token, low, high


CARD = Card(
    name="GRU",
    paper="Cho 2014",
    year=2014,
    state_size=lambda *, width, **_: width,
    # six matrices and their sums, two each for r, z, n; two σ of 3, a tanh, r ⊙ h and the weighted mean of 4
    flops=lambda *, width, **_: 12 * width**2 + 18 * width,
    memory=lambda *, width, **_: 6 * width**2 + 4 * width,
    time_invariant=False,
    input_dependent_decay=True,
    parallel_form="none in time: inputs at once, then token by token",
    complexity="L",
)
