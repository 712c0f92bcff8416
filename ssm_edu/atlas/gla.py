"""GLA, gated linear attention: every key's entry in the state is forgotten at a rate of its own, set by the input.

    α_t = σ(x_t W_α1 W_α2 + b_α)^{1/τ}                     τ = 16: close to 1 at first
    S_t = diag(α_t) S_{t−1} + k_tᵀ v_t,  o_t = q_t S_t     the recurrence
    O = (((Q ⊙ B)(K / B)ᵀ) ⊙ M) V,  B_t = α_1 ⋯ α_t        the parallel form, where M is the causal mask
    y_t = (swish(x_t W_r + b_r) ⊙ LayerNorm(o_t)) W_O

K / B overflows; as the paper does, `parallel` takes B_t / B_i from logarithms (ATT-11 to ATT-13). With a head for
each channel and α = exp(ΔA), this is S6 (ATT-14, ATT-15). Source: GLA, §4.1 (both forms) and §4.4 (the layer).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ssm_edu.atlas._checks import check_sequence, check_state, check_token, sized
from ssm_edu.atlas._common import AffineScan, Card, Reals, Sequence, Token, linear
from ssm_edu.atlas._heads import decayed_scores, merge, normalise, split
from ssm_edu.selective.reference import silu

State = Float[np.ndarray, "heads key value"]
TAU = 16


@dataclass(frozen=True)
class Parameters:
    """W_Q, W_K and W_α2 have heads·key columns, W_V and W_r heads·value."""

    W_Q: Float[np.ndarray, "width keys"]
    W_K: Float[np.ndarray, "width keys"]
    W_V: Float[np.ndarray, "width values"]
    W_alpha1: Float[np.ndarray, "width rank"]
    W_alpha2: Float[np.ndarray, "rank keys"]
    b_alpha: Float[np.ndarray, "heads key"]
    W_r: Float[np.ndarray, "width values"]
    b_r: Float[np.ndarray, " values"]
    W_O: Float[np.ndarray, "values width"]


@sized
def init(
    rng: np.random.Generator, *, width: int = 4, heads: int = 2, key: int = 2, value: int = 3, rank: int = 2
) -> Parameters:
    """`key` and `value` are sizes per head, `rank` is that of the map to α."""
    keys, values = heads * key, heads * value
    W_Q, W_K, W_V, W_alpha1 = (linear(rng, out, width).T for out in (keys, keys, values, rank))
    b_alpha, W_r, b_r = rng.standard_normal((heads, key)), linear(rng, values, width).T, rng.standard_normal(values)
    W_alpha2, W_O = linear(rng, keys, rank).T, linear(rng, width, values).T
    return Parameters(W_Q, W_K, W_V, W_alpha1, W_alpha2, b_alpha, W_r, b_r, W_O)


def project(params: Parameters, x: Reals) -> tuple[Reals, Reals, Reals]:
    """q and k (..., heads, key), v (..., heads, value)."""
    heads = len(params.b_alpha)
    return split(x @ params.W_Q, heads), split(x @ params.W_K, heads), split(x @ params.W_V, heads)


def log_alpha(params: Parameters, x: Reals) -> Reals:
    """log σ(z)^{1/τ} = −softplus(−z)/τ, (..., heads, key)."""
    z = split(x @ params.W_alpha1 @ params.W_alpha2, len(params.b_alpha)) + params.b_alpha
    return -np.logaddexp(0, -z) / TAU


def output(params: Parameters, x: Reals, o: Float[np.ndarray, "*length heads value"]) -> Reals:
    """(swish(x W_r + b_r) ⊙ LayerNorm(o)) W_O, the norm over each head."""
    return (silu(x @ params.W_r + params.b_r) * merge(normalise(o))) @ params.W_O


def parallel(params: Parameters, x: ArrayLike) -> Sequence:
    """P V for each head, P_ti = Σ_n q_tn k_in B_tn / B_in for i ≤ t."""
    x = check_sequence(x, len(params.W_V))
    q, k, v = project(params, x)
    P = decayed_scores(q, k, log_alpha(params, x))
    return output(params, x, np.einsum("hti,ihv->thv", P, v))


def first_state(params: Parameters) -> State:
    """S_0 = 0."""
    heads, key = params.b_alpha.shape
    return np.zeros((heads, key, len(params.W_O) // heads))


def step(params: Parameters, state: State, x_t: ArrayLike) -> tuple[Token, State]:
    """y_t and S_t."""
    check_state(state, first_state(params))
    x_t = check_token(x_t, len(params.W_V))
    q, k, v = project(params, x_t)
    S = np.exp(log_alpha(params, x_t))[..., None] * state + k[..., None] * v[:, None, :]
    return output(params, x_t, np.einsum("hn,hnv->hv", q, S)), S


def as_affine_scan(params: Parameters, x: ArrayLike) -> AffineScan:
    """a_t = α_t for every value, b_t = k_tᵀ v_t: (heads, key, value, length)."""
    x = check_sequence(x, len(params.W_V))
    q, k, v = project(params, x)
    b = np.einsum("thn,thv->hnvt", k, v)
    alpha = np.exp(np.moveaxis(log_alpha(params, x), 0, -1))[:, :, None]
    a = np.broadcast_to(alpha, b.shape)
    return AffineScan(a, b, lambda S: output(params, x, np.einsum("thn,hnvt->thv", q, S)))


CARD = Card(
    name="GLA",
    paper="GLA",
    year=2023,
    state_size=lambda *, heads, key, value, **_: heads * key * value,
    # maps; α; the new S, 3, and what is read of it, 2; the norm and the gate
    flops=lambda *, width, heads, key, value, rank, **_: (
        2 * width * heads * (2 * key + 3 * value)
        + 2 * rank * (width + heads * key)
        + heads * (4 * key + 5 * key * value + 11 * value + 4)
    ),
    memory=lambda *, width, heads, key, value, rank, **_: (
        width * heads * (2 * key + 3 * value) + rank * (width + heads * key) + heads * (key + value + key * value)
    ),
    time_invariant=False,
    input_dependent_decay=True,
    parallel_form="masked product, decays from sums of logarithms",
    complexity="L²",
)
