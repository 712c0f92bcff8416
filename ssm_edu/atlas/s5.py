"""S5: one multi-input, multi-output system, diagonal, with one state for all channels. Time-invariant, but scanned.

    h_t = Ā h_{t−1} + B̄ x_t,   y_t = 2 Re C h_t + D ⊙ x_t        Ā = exp(ΔΛ), B̄ = Λ⁻¹ (Ā − 1) B, row by row

Every state has a step size Δ of its own. Source: S5, eq. 2 and §3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Complex, Float
from numpy.typing import ArrayLike

from ssm_edu.atlas._checks import check_sequence, check_state, check_token, sized
from ssm_edu.atlas._common import AffineScan, Array, Card, Sequence, Token, linear
from ssm_edu.discretize import discretize_diagonal
from ssm_edu.hippo import dplr_legs

State = Complex[np.ndarray, " n"]


@dataclass(frozen=True)
class Parameters:
    """Of each conjugate pair of states the one with Im Λ > 0."""

    delta: Float[np.ndarray, " n"]
    Lambda: Complex[np.ndarray, " n"]
    B: Complex[np.ndarray, "n width"]
    C: Complex[np.ndarray, "width n"]
    D: Float[np.ndarray, " width"]

    @cached_property
    def discrete(self) -> tuple[Array, Array]:
        """Ā (n,) and B̄ (n, width), by zero-order hold."""
        A_bar, B_bar, *_ = discretize_diagonal(self.Lambda[:, None], self.B, self.delta[:, None], "zoh")
        return A_bar[:, 0], B_bar


@sized
def init(rng: np.random.Generator, *, width: int = 4, state: int = 8) -> Parameters:
    """Λ from the normal part of HiPPO-LegS; B and C real and normal before its change of basis V.

    `state` counts conjugate pairs. Source: S5, §3.2.
    """
    Lambda, _, _, _, V = dplr_legs(2 * state)
    B = (V.conj().T @ linear(rng, 2 * state, width))[state:]
    C = (linear(rng, width, 2 * state) @ V)[:, state:]
    return Parameters(10 ** rng.uniform(-3, -1, state), Lambda[state:], B, C, rng.standard_normal(width))


def parallel(params: Parameters, x: ArrayLike) -> Sequence:
    """y (length, width) of x (length, width), by Blelloch's scan (S5, §2.2)."""
    return as_affine_scan(params, x).outputs("blelloch")


def first_state(params: Parameters) -> State:
    """h_0 = 0."""
    return np.zeros_like(params.Lambda)


def step(params: Parameters, state: State, x_t: ArrayLike) -> tuple[Token, State]:
    """y_t and h_t from h_{t−1} and x_t (width,)."""
    check_state(state, first_state(params))
    x_t = check_token(x_t, len(params.D))
    A_bar, B_bar = params.discrete
    h = A_bar * state + B_bar @ x_t
    return 2 * (params.C @ h).real + params.D * x_t, h


def as_affine_scan(params: Parameters, x: ArrayLike) -> AffineScan:
    """a_t = Ā for all t, b_t = B̄ x_t: (n, length)."""
    x = check_sequence(x, len(params.D))
    A_bar, B_bar = params.discrete
    b = B_bar @ x.T
    a = np.broadcast_to(A_bar[:, None], b.shape)
    return AffineScan(a, b, lambda h: 2 * (params.C @ h).real.T + params.D * x)


CARD = Card(
    name="S5",
    paper="S5",
    year=2022,
    state_size=lambda *, state, **_: 2 * state,
    # Ā h 6 and its sum 2 for each state; a complex by a real matrix 4, two complex ones 8; 2 Re, D x and the sum
    flops=lambda *, width, state, **_: state * (8 + 12 * width) + 3 * width,
    memory=lambda *, width, state, **_: state * (5 + 4 * width) + width,
    time_invariant=True,
    input_dependent_decay=False,
    parallel_form="parallel scan, one state for all channels",
    complexity="L",
)
