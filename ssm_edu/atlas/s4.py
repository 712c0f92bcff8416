"""S4: a state matrix that is diagonal plus low rank, A = Λ − P Q*, discretised by the bilinear rule. Time-invariant.

    h_t = Ā h_{t−1} + B̄ x_t,   y_t = Re C h_t + D x_t        Ā = (I − Δ/2 A)⁻¹ (I + Δ/2 A)

Both factors of Ā are themselves diagonal plus rank one, so a step costs O(n), not O(n²); the kernel of the
convolution comes from its generating function. Source: S4, eq. 3 (recurrence), eq. 4 and 5 (convolution), Theorems 2
and 3 (the cost of both), Appendix C.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Complex, Float
from numpy.typing import ArrayLike

from ssm_edu.atlas._checks import check_sequence, check_state, check_token, sized
from ssm_edu.atlas._common import AffineScan, Card, Sequence, Token
from ssm_edu.discretize import discretize
from ssm_edu.hippo import dplr_legs
from ssm_edu.lti import convolve, kernel_dplr

State = Complex[np.ndarray, "width n"]


@dataclass(frozen=True)
class Parameters:
    """One system for each channel, in the eigenbasis of the normal part of its state matrix."""

    delta: Float[np.ndarray, " width"]
    Lambda: Complex[np.ndarray, "width n"]
    P: Complex[np.ndarray, "width n"]
    Q: Complex[np.ndarray, "width n"]
    B: Complex[np.ndarray, "width n"]
    C: Complex[np.ndarray, "width n"]
    D: Float[np.ndarray, " width"]

    @cached_property
    def factors(self) -> tuple[State, State, State, State]:
        """Of (I + Δ/2 A) and (I − Δ/2 A)⁻¹: the diagonals, Δ/2 P, and the inverse's column (claim CONV-9).

        With E = (I − Δ/2 Λ)⁻¹, Sherman and Morrison give (I − Δ/2 A)⁻¹ v = E v − w (Q* E v),
        w = E Δ/2 P / (1 + Q* E Δ/2 P).
        """
        half = self.delta[:, None] / 2
        forward, E, halfP = 1 + half * self.Lambda, 1 / (1 - half * self.Lambda), half * self.P
        w = E * halfP / (1 + (self.Q.conj() * E * halfP).sum(axis=-1, keepdims=True))
        return forward, E, halfP, w


@sized
def init(rng: np.random.Generator, *, width: int = 4, state: int = 8) -> Parameters:
    """HiPPO-LegS in every channel, C normal (and real before the change of basis), Δ log-uniform in [1e-3, 1e-1]."""
    Lambda, P, Q, B, V = dplr_legs(state)
    C = rng.standard_normal((width, state)) @ V / np.sqrt(state)
    delta = 10 ** rng.uniform(-3, -1, width)
    Lambda, P, Q, B = (np.tile(v, (width, 1)) for v in (Lambda, P, Q, B))
    return Parameters(delta, Lambda, P, Q, B, C, rng.standard_normal(width))


def parallel(params: Parameters, x: ArrayLike) -> Sequence:
    """y (length, width) of x (length, width): the kernel by S4, Theorem 3, then an FFT (claims CONV-9, CONV-10)."""
    x = check_sequence(x, len(params.D))
    systems = zip(params.Lambda, params.P, params.Q, params.B, params.C, params.delta, strict=True)
    K = np.array([kernel_dplr(Lambda, P, Q, B, C, delta, len(x)).real for Lambda, P, Q, B, C, delta in systems])
    return convolve(K, x.T).T + params.D * x


def first_state(params: Parameters) -> State:
    """h_0 = 0."""
    return np.zeros_like(params.B)


def step(params: Parameters, state: State, x_t: ArrayLike) -> tuple[Token, State]:
    """h_t = (I − Δ/2 A)⁻¹ ((I + Δ/2 A) h_{t−1} + Δ B x_t), in O(n). Source: S4, Appendix C.2."""
    check_state(state, first_state(params))
    x_t = check_token(x_t, len(params.D))
    forward, E, halfP, w = params.factors
    Q_star = params.Q.conj()
    v = forward * state - halfP * dot(Q_star, state) + params.B * (params.delta * x_t)[:, None]
    Ev = E * v
    h = Ev - w * dot(Q_star, Ev)
    return dot(params.C, h)[:, 0].real + params.D * x_t, h


def dot(u: State, v: State) -> Complex[np.ndarray, "width 1"]:
    """Σ_n u_n v_n."""
    return (u * v).sum(axis=-1, keepdims=True)


def as_affine_scan(params: Parameters, x: ArrayLike) -> AffineScan:
    """a_t = Ā, a full matrix for each channel: (width, n, n, length).

    A diagonal one exists, but the eigenvectors of LegS have a condition number that grows exponentially in n
    (claim HIPPO-15).
    """
    x = check_sequence(x, len(params.D))
    A = [
        np.diag(Lambda) - np.outer(P, Q.conj()) for Lambda, P, Q in zip(params.Lambda, params.P, params.Q, strict=True)
    ]
    maps = [discretize(M, B, delta, "bilinear") for M, B, delta in zip(A, params.B, params.delta, strict=True)]
    A_bar, B_bar = np.array([one.A_bar for one in maps]), np.array([one.B_bar for one in maps])
    a = np.broadcast_to(A_bar[..., None], (*A_bar.shape, len(x)))
    b = B_bar[:, :, None, None] * x.T[:, None, None]
    return AffineScan(a, b, lambda h: np.einsum("dn,dnmt->td", params.C, h).real + params.D * x, dense=True)


CARD = Card(
    name="S4",
    paper="S4",
    year=2021,
    state_size=lambda *, width, state, **_: 2 * width * state,
    # three inner products of 8, four products of 6, one of 2 with a real number, and three sums of 2
    flops=lambda *, width, state, **_: width * (56 * state + 3),
    memory=lambda *, width, state, **_: width * (12 * state + 2),
    time_invariant=True,
    input_dependent_decay=False,
    parallel_form="convolution with a kernel from Cauchy products, by FFT",
    complexity="L log L",
)
