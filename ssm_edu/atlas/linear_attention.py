"""Linear attention: softmax's exponential replaced by a product φ(q)·φ(k), which a recurrence can carry.

    quadratic  y_i = Σ_{j≤i} (φ(q_i)·φ(k_j)) v_j / Σ_{j≤i} φ(q_i)·φ(k_j)                             (eq. 8, 9)
    recurrent  s_i = s_{i−1} + φ(k_i) v_iᵀ,  z_i = z_{i−1} + φ(k_i),  y_i = φ(q_i)ᵀs_i / φ(q_i)·z_i  (eq. 18 to 20)

A degenerate SSM: its A is 0, so Ā = 1 and nothing is ever forgotten, while B = φ(k_i) and C = φ(q_i) depend on the
input. The normaliser is one channel more, whose input is always 1. Eq. 20's residual and MLP are left out.
Claims ATT-1 to ATT-6.
Source: Linear attention, §3; Mamba, §2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ssm_edu.atlas._checks import check_sequence, check_state, check_token, sized
from ssm_edu.atlas._common import AffineScan, Card, Reals, Sequence, Token, linear

State = Float[np.ndarray, "key sums"]
LEAST = np.finfo(float).tiny / np.finfo(float).eps ** 2  # what underflows is below the rounding of such a sum


@dataclass(frozen=True)
class Parameters:
    """One head, with values as wide as the input."""

    W_Q: Float[np.ndarray, "width key"]
    W_K: Float[np.ndarray, "width key"]
    W_V: Float[np.ndarray, "width width"]


@sized
def init(rng: np.random.Generator, *, width: int = 4, key: int = 3) -> Parameters:
    """Normal weights; `key` is the size of q and k."""
    W_Q, W_K, W_V = (linear(rng, out, width).T for out in (key, key, width))
    return Parameters(W_Q, W_K, W_V)


def phi(x: Reals) -> Reals:
    """elu(x) + 1 (eq. 7): positive, and so is every denominator, as long as nothing underflows."""
    return np.exp(np.minimum(x, 0)) + np.maximum(x, 0)


def project(params: Parameters, x: Reals) -> tuple[Reals, Reals, Reals]:
    """φ(q), φ(k), and the values with a 1 beside them for the normaliser."""
    v = x @ params.W_V
    return phi(x @ params.W_Q), phi(x @ params.W_K), np.concatenate([v, np.ones_like(v[..., :1])], axis=-1)


def ratio(sums: Float[np.ndarray, "*length sums"]) -> Float[np.ndarray, "*length sums-1"]:
    """The weighted sums of values over the sum of weights.

    Raises:
        ValueError: a sum of weights near the smallest float, for elu(x) + 1 = e^x underflows from x = −745 on.
    """
    if (least := sums[..., -1].min()) < LEAST:
        raise ValueError(f"x makes a sum of weights φ(q)·φ(k) of {least:.3g}; expected {LEAST:.3g} or more")
    return sums[..., :-1] / sums[..., -1:]


def parallel(params: Parameters, x: ArrayLike) -> Sequence:
    """(φ(Q)φ(K)ᵀ ⊙ M) [V, 1], with M the causal mask, and the last column under the others."""
    q, k, v = project(params, check_sequence(x, len(params.W_V)))
    return ratio(np.tril(q @ k.T) @ v)


def first_state(params: Parameters) -> State:
    """[s_0, z_0] = 0."""
    width, key = params.W_K.shape
    return np.zeros((key, width + 1))


def step(params: Parameters, state: State, x_t: ArrayLike) -> tuple[Token, State]:
    """y_i and [s_i, z_i]."""
    check_state(state, first_state(params))
    q, k, v = project(params, check_token(x_t, len(params.W_V)))
    s = state + k[:, None] * v
    return ratio(q @ s), s


def as_affine_scan(params: Parameters, x: ArrayLike) -> AffineScan:
    """a = 1, b_i = φ(k_i) [v_i, 1]: (key, width + 1, length)."""
    q, k, v = project(params, check_sequence(x, len(params.W_V)))
    b = np.einsum("tk,tv->kvt", k, v)
    return AffineScan(np.ones_like(b), b, lambda s: ratio(np.einsum("tk,kvt->tv", q, s)))


CARD = Card(
    name="Linear attention",
    paper="Linear attention",
    year=2020,
    state_size=lambda *, width, key, **_: key * (width + 1),
    # projections; φ twice, an exponential and a sum; the write, 2; the read, 2; the ratio
    flops=lambda *, width, key, **_: 2 * width * (2 * key + width) + 4 * key + 4 * key * (width + 1) + width,
    memory=lambda *, width, key, **_: width * (2 * key + width) + key * (width + 1),
    time_invariant=False,
    input_dependent_decay=False,
    parallel_form="masked product of φ(Q)φ(K)ᵀ with V",
    complexity="L²",
)
