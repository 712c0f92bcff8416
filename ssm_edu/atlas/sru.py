"""SRU: a gated recurrence without matrices in it, and a highway past it.

    f_t = σ(W_f x_t + v_f ⊙ c_{t−1} + b_f)             eq. 1
    c_t = f_t ⊙ c_{t−1} + (1 − f_t) ⊙ (W x_t)          eq. 2
    r_t = σ(W_r x_t + v_r ⊙ c_{t−1} + b_r)             eq. 3
    h_t = r_t ⊙ c_t + (1 − r_t) ⊙ x_t                  eq. 4

Where v_f = 0, as in the paper's first version and in `init`, the cell is an affine scan; v_r may be what it likes,
because r_t is only read out, from c_{t−1} and c_t (GATE-5). The published v_f ≠ 0 lets the forget gate read the state,
and no step is affine any more (GATE-4), though the channels still run side by side. Source: SRU, eq. 1 to 4.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ssm_edu.atlas._checks import check_sequence, check_state, check_token, sized
from ssm_edu.atlas._common import AffineScan, Card, Sequence, Token, linear, shift
from ssm_edu.selective.reference import sigmoid

Matrix: TypeAlias = Float[np.ndarray, "width width"]
Vector: TypeAlias = Float[np.ndarray, " width"]


class Parameters(NamedTuple):
    """Matrices meet the token, vectors the cell."""

    W: Matrix
    W_f: Matrix
    W_r: Matrix
    v_f: Vector
    v_r: Vector
    b_f: Vector
    b_r: Vector


@sized
def init(rng: np.random.Generator, *, width: int = 4) -> Parameters:
    """v_f = 0; the rest normal."""
    W, W_f, W_r = linear(rng, 3, width, width)
    v_r, b_f, b_r = rng.standard_normal((3, width))
    return Parameters(W, W_f, W_r, np.zeros(width), v_r, b_f, b_r)


def cell(params: Parameters, c: Token, x_tilde: Token, f_x: Token) -> Token:
    """c_t from c_{t−1}, W x_t and W_f x_t. Eq. 1 and 2."""
    f = sigmoid(f_x + params.v_f * c + params.b_f)
    return f * c + (1 - f) * x_tilde


def highway(
    params: Parameters,
    before: Float[np.ndarray, "*length width"],
    c: Float[np.ndarray, "*length width"],
    x: Float[np.ndarray, "*length width"],
    r_x: Float[np.ndarray, "*length width"],
) -> Float[np.ndarray, "*length width"]:
    """h_t from c_{t−1}, c_t, x_t and W_r x_t. Eq. 3 and 4."""
    r = sigmoid(r_x + params.v_r * before + params.b_r)
    return r * c + (1 - r) * x


def parallel(params: Parameters, x: ArrayLike) -> Sequence:
    """y (length, width) of x (length, width): three matrix products for all tokens, then channel by channel."""
    x = check_sequence(x, len(params.W))
    x_tilde, f_x, r_x = (x @ W.T for W in params[:3])
    c = np.empty_like(x)
    state = first_state(params)
    for t in range(len(x)):
        c[t] = state = cell(params, state, x_tilde[t], f_x[t])
    return highway(params, shift(c, 1), c, x, r_x)


def first_state(params: Parameters) -> Token:
    """c_0 = 0."""
    return np.zeros(len(params.W))


def step(params: Parameters, state: Token, x_t: ArrayLike) -> tuple[Token, Token]:
    """h_t and c_t, from c_{t−1} and x_t (width,)."""
    check_state(state, first_state(params))
    x_t = check_token(x_t, len(params.W))
    c = cell(params, state, params.W @ x_t, params.W_f @ x_t)
    return highway(params, state, c, x_t, params.W_r @ x_t), c


def as_affine_scan(params: Parameters, x: ArrayLike) -> AffineScan:
    """(c_t, c_{t−1}) = [[f_t, 0], [1, 0]] (c_{t−1}, c_{t−2}) + ((1 − f_t) ⊙ W x_t, 0): the reset gate reads both.

    a: (width, 2, 2, length), b: (width, 2, 1, length).

    Raises:
        ValueError: v_f ≠ 0.
    """
    if np.any(params.v_f):
        raise ValueError("v_f must be 0 for an affine scan; found a forget gate that reads the state")
    x = check_sequence(x, len(params.W))
    x_tilde, f_x, r_x = (x @ W.T for W in params[:3])
    f = sigmoid(f_x + params.b_f)
    a, b = np.zeros((x.shape[1], 2, 2, len(x))), np.zeros((x.shape[1], 2, 1, len(x)))
    a[:, 0, 0], a[:, 1, 0], b[:, 0, 0] = f.T, 1, ((1 - f) * x_tilde).T
    return AffineScan(a, b, lambda c: highway(params, c[:, 1, 0].T, c[:, 0, 0].T, x, r_x), dense=True)


CARD = Card(
    name="SRU",
    paper="SRU",
    year=2017,
    state_size=lambda *, width, **_: width,
    # three matrices; two gates of 3 sums and products and a σ of 3, and two weighted means of 4
    flops=lambda *, width, **_: 6 * width**2 + 20 * width,
    memory=lambda *, width, **_: 3 * width**2 + 5 * width,
    time_invariant=False,
    input_dependent_decay=True,
    parallel_form="matrix products, then channel by channel",
    complexity="L",
)
