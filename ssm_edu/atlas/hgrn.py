"""HGRN: one complex number a channel, a forget gate with a lower bound, and an input gate that is what is left.

    μ_t = σ(x_t W_μ + b_μ),  λ_t = γ + (1 − γ) ⊙ μ_t                   γ rises from layer to layer
    c_t = silu(x_t W_cr + b_cr) + i silu(x_t W_ci + b_ci)
    h_t = λ_t e^{iθ} ⊙ h_{t−1} + (1 − λ_t) ⊙ c_t                       θ does not depend on the input
    y_t = LayerNorm(σ(x_t W_g + b_g) ⊙ [Re h_t, Im h_t]) W_o + b_o

The gates of Mamba's Theorem 1 (SEL-1): λ = exp(−Δ) and 1 − λ are what zero-order hold makes of A = −1, B = 1, and
the lower bound γ is a largest step, −log γ (ATT-27, ATT-28). Source: HGRN, §3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Complex, Float
from numpy.typing import ArrayLike

from ssm_edu.atlas._checks import check_sequence, check_state, check_token, sized
from ssm_edu.atlas._common import AffineScan, Array, Card, Reals, Sequence, Token, linear
from ssm_edu.atlas._heads import normalise
from ssm_edu.selective.reference import sigmoid, silu

State = Complex[np.ndarray, " hidden"]


@dataclass(frozen=True)
class Parameters:
    """W and b of μ, Re c and Im c in this order; g and o have their own, for they are twice as wide."""

    W: Float[np.ndarray, "3 width hidden"]
    b: Float[np.ndarray, "3 hidden"]
    gamma: Float[np.ndarray, " hidden"]
    theta: Float[np.ndarray, " hidden"]
    W_g: Float[np.ndarray, "width 2*hidden"]
    b_g: Float[np.ndarray, " 2*hidden"]
    W_o: Float[np.ndarray, "2*hidden width"]
    b_o: Float[np.ndarray, " width"]

    @cached_property
    def turn(self) -> State:
        """e^{iθ}."""
        return np.exp(1j * self.theta)


@sized
def init(rng: np.random.Generator, *, width: int = 4, hidden: int = 5) -> Parameters:
    """The second of three layers; θ from 1 to 10⁻⁴."""
    normal = rng.standard_normal
    gamma, theta = lower_bounds(normal((3, hidden)))[1], np.logspace(0, -4, hidden)
    W, W_g = linear(rng, 3, hidden, width).swapaxes(1, 2), linear(rng, 2 * hidden, width).T
    W_o = linear(rng, width, 2 * hidden).T
    return Parameters(W, normal((3, hidden)), gamma, theta, W_g, normal(2 * hidden), W_o, normal(width))


def lower_bounds(Gamma: Float[np.ndarray, "layers hidden"]) -> Float[np.ndarray, "layers hidden"]:
    """γ of every layer: a running sum of softmax over layers, from 0 in the first and below 1 in the last."""
    P = np.exp(Gamma - Gamma.max(axis=0))
    P = P / P.sum(axis=0)
    return np.cumsum(P, axis=0) - P[0]


def gates(params: Parameters, x: Reals) -> tuple[Array, Array]:
    """λ_t e^{iθ} and (1 − λ_t) c_t, (..., hidden)."""
    mu, real, imaginary = (x @ W + b for W, b in zip(params.W, params.b, strict=True))
    lam = params.gamma + (1 - params.gamma) * sigmoid(mu)
    # 1 − λ as a product: the difference would lose its digits near λ = 1
    written = (1 - params.gamma) * sigmoid(-mu)
    return lam * params.turn, written * silu(real) + 1j * (written * silu(imaginary))


def output(params: Parameters, x: Reals, h: Complex[np.ndarray, "*length hidden"]) -> Reals:
    """LayerNorm(σ(x W_g + b_g) ⊙ [Re h, Im h]) W_o + b_o."""
    parts = np.concatenate([h.real, h.imag], axis=-1)
    return normalise(sigmoid(x @ params.W_g + params.b_g) * parts) @ params.W_o + params.b_o


def parallel(params: Parameters, x: ArrayLike) -> Sequence:
    """By a parallel scan: the gates depend on x alone, not on h."""
    return as_affine_scan(params, x).outputs("blelloch")


def first_state(params: Parameters) -> State:
    """h_0 = 0."""
    return np.zeros(len(params.theta), complex)


def step(params: Parameters, state: State, x_t: ArrayLike) -> tuple[Token, State]:
    """y_t and h_t."""
    check_state(state, first_state(params))
    x_t = check_token(x_t, len(params.b_o))
    a, b = gates(params, x_t)
    h = a * state + b
    return output(params, x_t, h), h


def as_affine_scan(params: Parameters, x: ArrayLike) -> AffineScan:
    """a_t = λ_t e^{iθ}, b_t = (1 − λ_t) c_t: (hidden, length)."""
    x = check_sequence(x, len(params.b_o))
    a, b = gates(params, x)
    return AffineScan(a.T, b.T, lambda h: output(params, x, h.T))


CARD = Card(
    name="HGRN",
    paper="HGRN",
    year=2023,
    state_size=lambda *, hidden, **_: 2 * hidden,
    # maps to μ, c, g and o; gates, the recurrence (8 for a complex product and sum) and the norm
    flops=lambda *, width, hidden, **_: 14 * width * hidden + 58 * hidden + width + 4,
    memory=lambda *, width, hidden, **_: 7 * width * hidden + 7 * hidden + width + 2 * hidden,
    time_invariant=False,
    input_dependent_decay=True,
    parallel_form="scan of complex gates",
    complexity="L",
)
