"""Hyena: H3's gates around long convolutions whose filters are a network's function of the position.

    v, x¹, x² = short convolutions of W x,   z¹ = v,   zⁿ⁺¹ = xⁿ ⊙ (hⁿ ∗ zⁿ + Dⁿ zⁿ),   y = W_O z³
    hⁿ_t = window_t · FFN(features(t))

Training is a convolution by FFT. Decoding is not a recurrence of fixed size: see `counterexample`.
Source: Hyena, Definition 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ssm_edu.arrays import positive_integer
from ssm_edu.atlas._checks import check_sequence, check_state, check_token, sized
from ssm_edu.atlas._common import Array, Card, Sequence, Token, linear, tapped
from ssm_edu.lti import convolve

ORDER = 2
NOT_A_SCAN = "its filters' Hankel matrices have full rank, so a recurrence needs a state that grows with the length"


@dataclass(frozen=True)
class Parameters:
    """The filters are kept as evaluated, for sequences up to their length, the horizon."""

    W: Float[np.ndarray, "three_widths width"]
    short: Float[np.ndarray, "three_widths taps"]
    filters: Float[np.ndarray, "order width horizon"]
    D: Float[np.ndarray, "order width"]
    W_O: Float[np.ndarray, "width width"]


class State(NamedTuple):
    """The projections that the short convolution looks back on, and zⁿ of all tokens so far."""

    recent: Float[np.ndarray, "taps three_widths"]
    past: Float[np.ndarray, "order length width"]


@sized
def init(rng: np.random.Generator, *, width: int = 4, taps: int = 3, hidden: int = 8, horizon: int = 256) -> Parameters:
    """Weights of size 1; windows whose decay over the horizon goes from e⁻⁴ to e⁻⁴⁰ across the channels."""
    return Parameters(
        W=linear(rng, (ORDER + 1) * width, width),
        short=linear(rng, (ORDER + 1) * width, taps),
        filters=np.array([implicit_filter(rng, width, hidden, horizon) for _ in range(ORDER)]),
        D=rng.standard_normal((ORDER, width)),
        W_O=linear(rng, width, width),
    )


def implicit_filter(rng: np.random.Generator, width: int, hidden: int, horizon: int) -> Array:
    """h_t = e^{−rate·t} FFN(features(t)), (width, horizon); sines as activation, norm near 1. Source: Hyena, §3.3."""
    t, rates = np.arange(horizon), np.linspace(4, 40, width) / horizon
    angles = 2 * np.pi * np.outer(np.arange(1, hidden + 1), t / horizon)
    features = np.concatenate([t[None] / horizon, np.cos(angles), np.sin(angles)])
    first = linear(rng, hidden, len(features)) * np.sqrt(len(features))
    ffn = linear(rng, width, hidden) @ np.sin(10 * first @ features)
    return np.exp(-np.outer(rates, t)) * ffn * np.sqrt(rates)[:, None]


def parallel(params: Parameters, x: ArrayLike) -> Sequence:
    """y (length, width) of x (length, width), by FFT.

    Raises:
        ValueError: more tokens than the horizon.
    """
    x = check_sequence(x, len(params.W_O))
    z, *gates = np.split(tapped(x @ params.W.T, params.short), ORDER + 1, axis=1)
    for h, D, gate in zip(within_horizon(params, len(x)), params.D, gates, strict=True):
        z = gate * (convolve(h, z.T).T + D * z)
    return z @ params.W_O.T


def within_horizon(params: Parameters, length: int) -> Float[np.ndarray, "order width length"]:
    """The filters for this many tokens."""
    horizon = params.filters.shape[-1]
    if length > horizon:
        raise ValueError(f"x must have at most {horizon} tokens, the horizon of these filters; found {length}")
    return params.filters[..., :length]


def first_state(params: Parameters) -> State:
    """No tokens."""
    return State(np.zeros(params.short.T.shape), np.zeros((ORDER, 0, len(params.W_O))))


def step(params: Parameters, state: State, x_t: ArrayLike) -> tuple[Token, State]:
    """y_t from all tokens so far: the work and the state grow with their number."""
    check_state(state, first_state(params), grows=True)
    u = params.W @ check_token(x_t, len(params.W_O))
    filters = within_horizon(params, state.past.shape[1] + 1)
    recent = np.concatenate([u[None], state.recent[:-1]])
    z, *gates = np.split((params.short.T * recent).sum(axis=0), ORDER + 1)
    past = []
    for h, D, gate, before in zip(filters, params.D, gates, state.past, strict=True):
        past.append(np.concatenate([before, z[None]]))
        z = gate * (np.einsum("dt,td->d", h[:, ::-1], past[-1]) + D * z)
    return params.W_O @ z, State(recent, np.array(past))


def counterexample(params: Parameters, state: int) -> tuple[Float[np.ndarray, " width"], Float[np.ndarray, " width"]]:
    """How far each filter is from those of all n-state systems, and how far rounding alone could make it seem.

    A kernel K_t = C Āᵗ B̄ of n states has a Hankel matrix K_{i+j} of rank at most n. So ‖Hankel(h) − Hankel(K)‖ is
    at least the (n + 1)-th singular value of Hankel(h), which is returned for the filters of order 1: where it
    exceeds the second number, no n-state recurrence has this filter (claims SSD-18, SSD-19).

    Raises:
        ValueError: a state that the horizon cannot tell apart: 2n + 1 values are needed.
        TypeError: a state that is no integer.
    """
    n, (values, rounding) = positive_integer("state", state), hankel_values(params.filters[0])
    if n >= values.shape[1]:
        raise ValueError(f"state must be at most {values.shape[1] - 1} for these filters; found {n}")
    return values[:, n], rounding


def hankel_values(h: Float[np.ndarray, "width length"]) -> tuple[Array, Array]:
    """The singular values (width, m) of h_{i+j}, and the backward error of the SVD: 10 m ε σ₁ for m rows."""
    rows = (h.shape[1] + 1) // 2
    index = np.add.outer(np.arange(rows), np.arange(h.shape[1] + 1 - rows))
    values = np.linalg.svd(h[:, index], compute_uv=False)
    return values, 10 * rows * np.finfo(float).eps * values[:, 0]


CARD = Card(
    name="Hyena",
    paper="Hyena",
    year=2023,
    state_size=lambda *, width, taps, length, **_: ORDER * width * length + (ORDER + 1) * width * taps,
    # W and W_O; the taps of three projections; for each order the convolution, D z, its sum and the gate
    flops=lambda *, width, taps, length, **_: (
        2 * (ORDER + 2) * width**2 + 2 * (ORDER + 1) * width * taps + ORDER * width * (2 * (length + 1) + 3)
    ),
    memory=lambda *, width, taps, horizon, length, **_: (
        (ORDER + 2) * width**2 + ORDER * width * (horizon + 1 + length) + 2 * (ORDER + 1) * width * taps
    ),
    time_invariant=False,
    input_dependent_decay=False,
    parallel_form="long convolutions with gates between them, by FFT",
    complexity="L log L",
)
