"""S4D: a diagonal state matrix, time-invariant. One input and n conjugate pairs of states for each channel.

    h_t = Ā h_{t−1} + B̄ x_t,   y_t = 2 Re Σ_n C_n h_{t,n} + D x_t        Ā = exp(ΔA), B̄ = (Ā − 1) A⁻¹ B

The convolution's kernel is a Vandermonde product, K_t = 2 Re Σ_n C_n B̄_n Ā_nᵗ. Source: S4D, §3; its §4 for A.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Complex, Float
from numpy.typing import ArrayLike

from ssm_edu.atlas._checks import check_sequence, check_state, check_token, sized
from ssm_edu.atlas._common import AffineScan, Array, Card, Sequence, Token
from ssm_edu.discretize import discretize_diagonal
from ssm_edu.hippo import s4d_lin
from ssm_edu.lti import convolve

State = Complex[np.ndarray, "width n"]


@dataclass(frozen=True)
class Parameters:
    """One system for each channel; of each conjugate pair the entry with Im A ≥ 0."""

    delta: Float[np.ndarray, " width"]
    A: Complex[np.ndarray, "width n"]
    B: Complex[np.ndarray, "width n"]
    C: Complex[np.ndarray, "width n"]
    D: Float[np.ndarray, " width"]

    @cached_property
    def discrete(self) -> tuple[Array, Array]:
        """Ā and B̄, by zero-order hold."""
        A_bar, B_bar, *_ = discretize_diagonal(self.A, self.B, self.delta[:, None], "zoh")
        return A_bar, B_bar


@sized
def init(rng: np.random.Generator, *, width: int = 4, state: int = 8) -> Parameters:
    """S4D-Lin, B = 1, C normal, Δ log-uniform in [1e-3, 1e-1]. `state` counts conjugate pairs."""
    A = np.tile(s4d_lin(state), (width, 1))
    C = (rng.standard_normal(A.shape) + 1j * rng.standard_normal(A.shape)) / np.sqrt(2)
    return Parameters(10 ** rng.uniform(-3, -1, width), A, np.ones_like(A), C, rng.standard_normal(width))


def kernel(params: Parameters, length: int) -> Float[np.ndarray, "width length"]:
    """K_t = 2 Re Σ_n C_n B̄_n Ā_nᵗ for t < length. Source: S4D, §3 (the Vandermonde kernel)."""
    A_bar, B_bar = params.discrete
    powers = A_bar[..., None] ** np.arange(length)
    return 2 * ((params.C * B_bar)[:, None, :] @ powers)[:, 0].real


def parallel(params: Parameters, x: ArrayLike) -> Sequence:
    """y (length, width) of x (length, width), by FFT."""
    x = check_sequence(x, len(params.D))
    return convolve(kernel(params, len(x)), x.T).T + params.D * x


def first_state(params: Parameters) -> State:
    """h_0 = 0."""
    return np.zeros_like(params.A)


def step(params: Parameters, state: State, x_t: ArrayLike) -> tuple[Token, State]:
    """y_t and h_t from h_{t−1} and x_t (width,)."""
    check_state(state, first_state(params))
    x_t = check_token(x_t, len(params.D))
    A_bar, B_bar = params.discrete
    h = A_bar * state + B_bar * x_t[:, None]
    return 2 * (params.C * h).sum(axis=-1).real + params.D * x_t, h


def as_affine_scan(params: Parameters, x: ArrayLike) -> AffineScan:
    """a_t = Ā for all t, b_t = B̄ x_t: (width, n, length)."""
    x = check_sequence(x, len(params.D))
    A_bar, B_bar = params.discrete
    b = B_bar[..., None] * x.T[:, None]
    a = np.broadcast_to(A_bar[..., None], b.shape)
    return AffineScan(a, b, lambda h: 2 * np.einsum("dn,dnt->td", params.C, h).real + params.D * x)


CARD = Card(
    name="S4D",
    paper="S4D",
    year=2022,
    state_size=lambda *, width, state, **_: 2 * width * state,
    # Āh 6, B̄x 2, their sum 2, C h 6, its sum 2 for each pair; 2 Re, D x and the sum for each channel
    flops=lambda *, width, state, **_: width * (18 * state + 3),
    memory=lambda *, width, state, **_: width * (8 * state + 2),
    time_invariant=True,
    input_dependent_decay=False,
    parallel_form="convolution with a Vandermonde kernel, by FFT",
    complexity="L log L",
)
