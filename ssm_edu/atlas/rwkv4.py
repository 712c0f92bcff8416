"""RWKV-4: for each channel, a weighted mean of the values so far, with weights that the keys set and time lowers.

    wkv_t = (Σ_{i<t} e^{−(t−1−i)w + k_i} v_i + e^{u + k_t} v_t) / (Σ_{i<t} e^{−(t−1−i)w + k_i} + e^{u + k_t})
    r, k, v = (μ ⊙ x_t + (1 − μ) ⊙ x_{t−1}) W,  y_t = (σ(r_t) ⊙ wkv_t) W_o

Numerator and denominator are two SSMs with one decay, e^{−w} (ATT-16, ATT-17); wkv is their ratio (ATT-18). Its
stable form, which steps, is in `_wkv.py`.
Source: RWKV-4, §3.1, on the token shift, the WKV operator and output gating; on the time-mixing block as an RNN cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ssm_edu.atlas._checks import check_sequence, check_state, check_token, sized
from ssm_edu.atlas._common import AffineScan, Card, Reals, Sequence, Token, linear, shift
from ssm_edu.atlas._wkv import Sums, add, read, wkv_attention
from ssm_edu.selective.reference import sigmoid


@dataclass(frozen=True)
class Parameters:
    """mu and W of r, k and v in this order; w > 0."""

    mu: Float[np.ndarray, "3 width"]
    W: Float[np.ndarray, "3 width width"]
    w: Float[np.ndarray, " width"]
    u: Float[np.ndarray, " width"]
    W_o: Float[np.ndarray, "width width"]


class State(NamedTuple):
    """The token before, for the token shift, and the sums."""

    x: Token
    sums: Sums


@sized
def init(rng: np.random.Generator, *, width: int = 4) -> Parameters:
    """Normal weights and u, log-normal w, uniform μ."""
    mu, W, W_o = rng.random((3, width)), linear(rng, 3, width, width), linear(rng, width, width)
    return Parameters(mu, W, np.exp(rng.standard_normal(width)), rng.standard_normal(width), W_o)


def project(params: Parameters, x: Reals, before: Reals) -> tuple[Reals, Reals, Reals]:
    """r, k and v, (..., width), of each token and the one before."""
    r, k, v = ((mu * x + (1 - mu) * before) @ W for mu, W in zip(params.mu, params.W, strict=True))
    return r, k, v


def output(params: Parameters, r: Reals, wkv: Reals) -> Reals:
    """(σ(r) ⊙ wkv) W_o."""
    return (sigmoid(r) * wkv) @ params.W_o


def parallel(params: Parameters, x: ArrayLike) -> Sequence:
    """By `wkv_attention`."""
    x = check_sequence(x, len(params.w))
    r, k, v = project(params, x, shift(x, 1))
    return output(params, r, wkv_attention(params.w, params.u, k, v))


def first_state(params: Parameters) -> State:
    """Empty sums, at an exponent below all others."""
    zero = np.zeros_like(params.w)
    return State(zero, (np.full_like(zero, -np.inf), zero, zero))


def step(params: Parameters, state: State, x_t: ArrayLike) -> tuple[Token, State]:
    """y_t and the state, in the stable form: no exponential of a positive number."""
    check_state(state, first_state(params))
    x_t = check_token(x_t, len(params.w))
    r, k, v = project(params, x_t, state.x)
    p, a, b = state.sums
    sums = add((p - params.w, a, b), (k, v, np.ones_like(v)))
    return output(params, r, read(state.sums, params.u, k, v)), State(x_t, sums)


def as_affine_scan(params: Parameters, x: ArrayLike) -> AffineScan:
    """The two SSMs as they stand: a = e^{−w}, b_t = e^k [v, 1] of the token before, which t reads: (2, width, length).

    Raises:
        ValueError: a key beyond ±600, for sums of e^k v may then overflow or vanish; the other forms take it.
    """
    x = check_sequence(x, len(params.w))
    r, k, v = project(params, x, shift(x, 1))
    if (largest := np.abs([k, k + params.u]).max()) > 600:
        raise ValueError(
            f"x makes a key k or k + u of size {largest:.4g}; expected at most 600, for e^k is used as it is"
        )
    written, now = np.exp(k), np.exp(k + params.u)
    b = shift(np.stack([written * v, written], axis=1), 1)
    a = np.broadcast_to(np.exp(-params.w)[:, None], (2, *x.T.shape))
    return AffineScan(a, b.T.swapaxes(0, 1), lambda h: output(params, r, (h[0].T + now * v) / (h[1].T + now)))


CARD = Card(
    name="RWKV-4",
    paper="RWKV-4",
    year=2023,
    state_size=lambda *, width, **_: 4 * width,
    # four maps; token shift 12, two sums of sums 20, exponents 2, ratio 1, gate 4
    flops=lambda *, width, **_: 8 * width**2 + 39 * width,
    memory=lambda *, width, **_: 4 * width**2 + 9 * width,
    time_invariant=False,
    input_dependent_decay=False,
    parallel_form="softmax over the past for each channel",
    complexity="L²",
)
