"""Mamba-3's recurrence: two taps, weighed by the input, and a complex decay, which is a rotation chosen by it.

    h_t = a_t h_{t−1} + (1 − λ_t) Δ_t a_t B_{t−1} x_{t−1} + λ_t Δ_t B_t x_t,   y_t = Re C_tᵀ h_t + D x_t
    a_t = exp(Δ_t (A + iθ_t)),   λ_t = σ(W_λ x_t),   θ_t = W_θ x_t

λ = 1 is the rule of Mamba and Mamba-2, λ = ½ the trapezoid. A and Δ are one number a head, θ one a state. Since
|a_t| is the same for all states of a head, the rotations can be moved into B and C, and what is left is Mamba-2's
mask times a second one for the two taps:

    Y = (L ∘ T ∘ Re C̃ B̃ᵀ) X + D X,   T_ts = λ_s Δ_s + [s < t] (1 − λ_{s+1}) Δ_{s+1}
    C̃_t = C_t e^{iΦ_t},   B̃_s = B_s e^{−iΦ_s},   Φ_t = Σ_{r≤t} Δ_r θ_r

which is a rotary embedding whose angles the input chooses (claims SSD-16, SSD-17). Source: Mamba-3, the sections on
the exponential-trapezoidal rule and on the complex state; its single-input, single-output form, without the norms
and biases of B and C.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Complex, Float
from numpy.typing import ArrayLike

from ssm_edu.atlas._checks import check_sequence, check_state, check_token, sized
from ssm_edu.atlas._common import AffineScan, Card, Sequence, Token, linear, shift
from ssm_edu.atlas._heads import heads_of, merge, split
from ssm_edu.atlas.mamba2 import decay_mask
from ssm_edu.hippo import mamba_delta_bias
from ssm_edu.selective.reference import sigmoid


@dataclass(frozen=True)
class Parameters:
    """width = heads · head_width; B, C and θ have n complex states, which all heads share."""

    A: Float[np.ndarray, " heads"]
    D: Float[np.ndarray, " heads"]
    W_B: Complex[np.ndarray, "n width"]
    W_C: Complex[np.ndarray, "n width"]
    W_theta: Float[np.ndarray, "n width"]
    W_lambda: Float[np.ndarray, "heads width"]
    W_delta: Float[np.ndarray, "heads width"]
    delta_bias: Float[np.ndarray, " heads"]


class State(NamedTuple):
    """h_t, and B_t x_t for the second tap."""

    h: Complex[np.ndarray, "heads head_width n"]
    Bx: Complex[np.ndarray, "heads head_width n"]


class Selected(NamedTuple):
    """log a = Δ(A + iθ), the weights λΔ and (1 − λ)Δ of the taps, B, C, and X by head; with a leading axis for all."""

    log_a: Complex[np.ndarray, "*length heads n"]
    now: Float[np.ndarray, "*length heads"]
    before: Float[np.ndarray, "*length heads"]
    B: Complex[np.ndarray, "*length n"]
    C: Complex[np.ndarray, "*length n"]
    X: Float[np.ndarray, "*length heads head_width"]


@sized
def init(rng: np.random.Generator, *, width: int = 6, state: int = 4, heads: int = 2) -> Parameters:
    """As Mamba-2. `state` counts complex states.

    Raises:
        ValueError: heads do not divide the width.
    """
    heads_of(width, heads)
    return Parameters(
        A=-rng.uniform(1, 16, heads),
        D=np.ones(heads),
        W_B=(linear(rng, state, width) + 1j * linear(rng, state, width)) / np.sqrt(2),
        W_C=(linear(rng, state, width) + 1j * linear(rng, state, width)) / np.sqrt(2),
        W_theta=np.pi * linear(rng, state, width),
        W_lambda=linear(rng, heads, width),
        W_delta=linear(rng, heads, width),
        delta_bias=mamba_delta_bias(heads, rng=rng),
    )


def select(params: Parameters, x: Float[np.ndarray, "*length width"]) -> Selected:
    """What the recurrence and its dual are made of."""
    delta = np.logaddexp(0, x @ params.W_delta.T + params.delta_bias)
    lam, theta = sigmoid(x @ params.W_lambda.T), x @ params.W_theta.T
    log_a = delta[..., None] * (params.A[:, None] + 1j * theta[..., None, :])
    return Selected(log_a, lam * delta, (1 - lam) * delta, x @ params.W_B.T, x @ params.W_C.T, split(x, len(params.A)))


def parallel(params: Parameters, x: ArrayLike) -> Sequence:
    """y (length, width) of x (length, width), by the quadratic form of Mamba-2, with rotated B and C."""
    s = select(params, check_sequence(x, params.W_B.shape[1]))
    turn = np.cumprod(np.exp(1j * s.log_a.imag), axis=0)  # a sum of angles would lose the small ones
    scores = np.einsum("thn,shn->hts", s.C[:, None] * turn, s.B[:, None] * turn.conj()).real
    second = np.append(s.before[1:], np.zeros((1, len(params.A))), axis=0)
    taps = s.now.T[:, None] + np.tri(len(turn), k=-1) * second.T[:, None]
    mask = decay_mask(s.log_a[..., 0].real)
    return merge(np.einsum("hts,shp->thp", mask * taps * scores, s.X) + params.D[:, None] * s.X)


def first_state(params: Parameters) -> State:
    """h_0 = 0, and no token before the first."""
    heads, (n, width) = len(params.A), params.W_B.shape
    zero = np.zeros((heads, width // heads, n), complex)
    return State(zero, zero)


def step(params: Parameters, state: State, x_t: ArrayLike) -> tuple[Token, State]:
    """y_t and the next state from the last one and x_t (width,)."""
    check_state(state, first_state(params))
    s = select(params, check_token(x_t, params.W_B.shape[1]))
    Bx = s.X[..., None] * s.B
    h = np.exp(s.log_a)[:, None] * (state.h + s.before[:, None, None] * state.Bx) + s.now[:, None, None] * Bx
    return ((h @ s.C).real + params.D[:, None] * s.X).ravel(), State(h, Bx)


def as_affine_scan(params: Parameters, x: ArrayLike) -> AffineScan:
    """a_t is complex; b_t has both taps, of which the second looks at x_{t−1}: (heads, head_width, n, length)."""
    s = select(params, check_sequence(x, params.W_B.shape[1]))
    a = np.exp(s.log_a)[:, :, None]
    Bx = s.X[..., None] * s.B[:, None, None]
    b = s.before[..., None, None] * a * shift(Bx, 1) + s.now[..., None, None] * Bx
    a, b = np.moveaxis(a, 0, -1), np.moveaxis(b, 0, -1)
    return AffineScan(a, b, lambda h: merge(np.einsum("tn,hpnt->thp", s.C, h).real + params.D[:, None] * s.X))


CARD = Card(
    name="Mamba-3",
    paper="Mamba-3",
    year=2026,
    state_size=lambda *, width, state, **_: 4 * width * state,
    # W_B, W_C 8 a state, W_θ 2; xB, its weights and sums 2 each, a h 6, C h 8; W_λ, W_Δ 4 a head; Dx, the sum;
    # softplus, σ and the weights for each head; iθ, and A + iθ, times Δ, exp
    flops=lambda *, width, state, heads, **_: (
        width * (34 * state + 4 * heads + 2) + 8 * heads + 2 * state + 9 * heads * state
    ),
    memory=lambda *, width, state, heads, **_: width * (9 * state + 2 * heads) + 3 * heads,
    time_invariant=False,
    input_dependent_decay=True,
    parallel_form="masked attention without softmax, by rotated B and C",
    complexity="L²",
)
