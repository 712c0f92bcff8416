"""S6: the selective scan. Δ, B and C are functions of the input, so nothing is time-invariant.

    h_t = exp(Δ_t A) ⊙ h_{t−1} + Δ_t B_t x_t,   y_t = C_t h_t + D x_t
    B_t = W_B x_t,   C_t = W_C x_t,   Δ_t = softplus(W_Δ x_t + bias),  W_Δ of low rank

The state of a channel has n entries, each with its own decay. Source: Mamba, Algorithm 2 and §3.6; B̄ = ΔB as
released.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ssm_edu.atlas._checks import check_sequence, check_state, check_token, sized
from ssm_edu.atlas._common import AffineScan, Array, Card, Sequence, Token, linear
from ssm_edu.hippo import mamba_A, mamba_delta_bias

State = Float[np.ndarray, "width n"]


@dataclass(frozen=True)
class Parameters:
    A: Float[np.ndarray, "width n"]
    D: Float[np.ndarray, " width"]
    W_B: Float[np.ndarray, "n width"]
    W_C: Float[np.ndarray, "n width"]
    W_down: Float[np.ndarray, "rank width"]
    W_up: Float[np.ndarray, "width rank"]
    delta_bias: Float[np.ndarray, " width"]


class Selected(NamedTuple):
    """What the input selects, for one token or, with a leading axis, for all."""

    delta: Array
    B: Array
    C: Array


@sized
def init(rng: np.random.Generator, *, width: int = 4, state: int = 8, rank: int = 2) -> Parameters:
    """A = −(1 … n), D = 1, Δ near log-uniform in [1e-3, 1e-1]. Source: Mamba, §3.6."""
    return Parameters(
        A=mamba_A(width, state),
        D=np.ones(width),
        W_B=linear(rng, state, width),
        W_C=linear(rng, state, width),
        W_down=linear(rng, rank, width),
        W_up=linear(rng, width, rank),
        delta_bias=mamba_delta_bias(width, rng=rng),
    )


def select(params: Parameters, x: Float[np.ndarray, "*length width"]) -> Selected:
    """Δ (…, width), B and C (…, n). Source: Mamba, Algorithm 2, lines 2 to 4."""
    delta = np.logaddexp(0, x @ params.W_down.T @ params.W_up.T + params.delta_bias)
    return Selected(delta, x @ params.W_B.T, x @ params.W_C.T)


def parallel(params: Parameters, x: ArrayLike) -> Sequence:
    """y (length, width) of x (length, width), by Blelloch's scan."""
    return as_affine_scan(params, x).outputs("blelloch")


def first_state(params: Parameters) -> State:
    """h_0 = 0."""
    return np.zeros_like(params.A)


def step(params: Parameters, state: State, x_t: ArrayLike) -> tuple[Token, State]:
    """y_t and h_t from h_{t−1} and x_t (width,). Source: Mamba, eq. 2."""
    check_state(state, first_state(params))
    x_t = check_token(x_t, len(params.D))
    delta, B, C = select(params, x_t)
    h = np.exp(delta[:, None] * params.A) * state + (delta * x_t)[:, None] * B
    return h @ C + params.D * x_t, h


def as_affine_scan(params: Parameters, x: ArrayLike) -> AffineScan:
    """a_t = exp(Δ_t A), b_t = Δ_t B_t x_t: (width, n, length). This a_t rules out attention (claims SSD-6, SSD-7)."""
    x = check_sequence(x, len(params.D))
    delta, B, C = select(params, x)
    a = np.exp(np.einsum("td,dn->dnt", delta, params.A))
    b = np.einsum("td,tn->dnt", delta * x, B)
    return AffineScan(a, b, lambda h: np.einsum("tn,dnt->td", C, h) + params.D * x)


CARD = Card(
    name="Mamba (S6)",
    paper="Mamba",
    year=2023,
    state_size=lambda *, width, state, **_: width * state,
    # W_B, W_C: 4 a state; ΔA, exp, · h, ΔxB, the sum, C h: 7; W_Δ: 4 a rank; bias, softplus, Δx, Dx, the sum
    flops=lambda *, width, state, rank, **_: width * (11 * state + 4 * rank + 5),
    memory=lambda *, width, state, rank, **_: width * (4 * state + 2 * rank + 2),
    time_invariant=False,
    input_dependent_decay=True,
    parallel_form="parallel scan",
    complexity="L",
)
