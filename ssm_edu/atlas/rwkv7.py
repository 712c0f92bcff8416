"""RWKV-7, Goose: a state that is not only faded and added to, but corrected: a transition that is no diagonal matrix.

    S_t = S_{t−1} (diag(w_t) − κ̂_tᵀ (a_t ⊙ κ̂_t)) + v_tᵀ k̃_t,  o_t = S_t r_t

κ̂ = κ/‖κ‖ is the key to be removed, a its rate (1 replaces, 0 leaves), k̃ the key to be written; per token, with
x^□ = x_t + μ_□ ⊙ (x_{t−1} − x_t) and lora(x) = λ + f(x A) B,

    r, k, v = x^□ W_□,  w = exp(−e^{−1/2} σ(lora_d)),  a = σ(lora_a),  g = σ(x^g A_g) B_g
    κ = k ⊙ ξ,  k̃ = k ⊙ (1 + (a − 1) ⊙ α),  y_t = (g ⊙ (LayerNorm(o_t) + (r · (ρ ⊙ k̃)) v)) W_o

This is the first layer, with no other's values to mix in; the norm has no learned scale. The transitions do not
commute, so in no basis is this a diagonal scan; it is one of matrices (ATT-24, ATT-25). In parallel: with what is
removed, u_t = S_{t−1} κ̂_t, as unknowns, a triangular system (ATT-26). Source: RWKV-7, on the time mixer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ssm_edu.atlas._checks import check_sequence, check_state, check_token, sized
from ssm_edu.atlas._common import AffineScan, Card, Reals, Sequence, Token, linear, shift
from ssm_edu.atlas._heads import decayed_scores, heads_of, merge, normalise, split
from ssm_edu.selective.reference import sigmoid


@dataclass(frozen=True)
class Parameters:
    """mu of r, k, v, d, a, g; W of r, k, v, o; A and B of d, a, g, lam of d, a."""

    mu: Float[np.ndarray, "6 width"]
    W: Float[np.ndarray, "4 width width"]
    lam: Float[np.ndarray, "2 width"]
    A: Float[np.ndarray, "3 width rank"]
    B: Float[np.ndarray, "3 rank width"]
    xi: Float[np.ndarray, "heads size"]
    alpha: Float[np.ndarray, "heads size"]
    rho: Float[np.ndarray, "heads size"]


class State(NamedTuple):
    """The token before, for the token shift, and Sᵀ: (heads, key, value)."""

    x: Token
    S: Float[np.ndarray, "heads size size"]


class Projections(NamedTuple):
    """All (..., heads, size) but g (..., width): k is k̃, kappa κ̂, and removed a ⊙ κ̂."""

    r: Reals
    k: Reals
    v: Reals
    log_w: Reals
    kappa: Reals
    removed: Reals
    g: Reals


@sized
def init(rng: np.random.Generator, *, width: int = 6, heads: int = 2, rank: int = 2) -> Parameters:
    """Normal weights, uniform μ and α; `width` is a multiple of `heads`."""
    size = heads_of(width, heads)
    mu, W, lam = rng.random((6, width)), linear(rng, 4, width, width), rng.standard_normal((2, width))
    A, B = linear(rng, 3, rank, width).swapaxes(1, 2), linear(rng, 3, width, rank).swapaxes(1, 2)
    alpha, (xi, rho) = rng.random((heads, size)), rng.standard_normal((2, heads, size))
    return Parameters(mu, W, lam, A, B, xi, alpha, rho)


def project(params: Parameters, x: Reals, before: Reals) -> Projections:
    """What the recurrence takes of each token and the one before; κ̂ = 0 where κ is, as in the released code."""
    change = before - x
    mixed = [x + mu * change for mu in params.mu]
    r, k, v = (split(one @ W, len(params.xi)) for one, W in zip(mixed[:3], params.W[:3], strict=True))
    d, a, g = (one @ A for one, A in zip(mixed[3:], params.A, strict=True))
    log_w = split(-np.exp(-0.5) * sigmoid(params.lam[0] + np.tanh(d) @ params.B[0]), len(params.xi))
    a = split(sigmoid(params.lam[1] + a @ params.B[1]), len(params.xi))
    kappa = k * params.xi
    kappa = kappa / np.maximum(np.sqrt((kappa * kappa).sum(axis=-1, keepdims=True)), 1e-12)
    return Projections(r, k * (1 + (a - 1) * params.alpha), v, log_w, kappa, a * kappa, sigmoid(g) @ params.B[2])


def output(params: Parameters, p: Projections, o: Float[np.ndarray, "*length heads size"]) -> Reals:
    """(g ⊙ (LayerNorm(o) + (r · (ρ ⊙ k̃)) v)) W_o, with the ε of the released code."""
    bonus = (p.r * params.rho * p.k).sum(axis=-1, keepdims=True) * p.v
    return (p.g * merge(normalise(o, 64e-5) + bonus)) @ params.W[3]


def parallel(params: Parameters, x: ArrayLike) -> Sequence:
    """(I + N) u = P v by substitution for what is removed; then o from all that was written, v, and removed, u."""
    x = check_sequence(x, params.mu.shape[1])
    p = project(params, x, shift(x, 1))
    late = p.kappa * np.exp(-p.log_w)  # κ̂_t meets the state before it fades: at most e^0.61
    N, P = (np.tril(decayed_scores(late, k, p.log_w), -1) for k in (p.removed, p.k))
    v = p.v.swapaxes(0, 1)
    u = P @ v
    for t in range(len(x)):
        u[:, t] -= (N[:, t, None, :t] @ u[:, :t])[:, 0]
    o = decayed_scores(p.r, p.k, p.log_w) @ v - decayed_scores(p.r, p.removed, p.log_w) @ u
    return output(params, p, o.swapaxes(0, 1))


def first_state(params: Parameters) -> State:
    """x_0 = 0 and S_0 = 0."""
    return State(np.zeros(params.xi.size), np.zeros((*params.xi.shape, params.xi.shape[1])))


def step(params: Parameters, state: State, x_t: ArrayLike) -> tuple[Token, State]:
    """y_t and the state: S κ̂ is what is removed, so that no matrix of transition is formed."""
    check_state(state, first_state(params))
    x_t = check_token(x_t, params.mu.shape[1])
    p = project(params, x_t, state.x)
    u = np.einsum("hn,hnv->hv", p.kappa, state.S)
    S = np.exp(p.log_w)[..., None] * state.S - p.removed[..., None] * u[:, None, :] + p.k[..., None] * p.v[:, None, :]
    return output(params, p, np.einsum("hn,hnv->hv", p.r, S)), State(x_t, S)


def transitions(p: Projections) -> Float[np.ndarray, "*length heads size size"]:
    """diag(w) − (a ⊙ κ̂)ᵀ κ̂, by which Sᵀ is multiplied on its left."""
    return np.eye(p.k.shape[-1]) * np.exp(p.log_w)[..., None] - p.removed[..., None] * p.kappa[..., None, :]


def as_affine_scan(params: Parameters, x: ArrayLike) -> AffineScan:
    """A_t = diag(w_t) − (a_t ⊙ κ̂_t)ᵀ κ̂_t, b_t = k̃_tᵀ v_t: (heads, size, size, length), a scan of matrices."""
    x = check_sequence(x, params.mu.shape[1])
    p = project(params, x, shift(x, 1))
    a, b = np.moveaxis(transitions(p), 0, -1), np.einsum("thn,thv->hnvt", p.k, p.v)
    return AffineScan(a, b, lambda S: output(params, p, np.einsum("thn,hnvt->thv", p.r, S)), dense=True)


CARD = Card(
    name="RWKV-7",
    paper="RWKV-7",
    year=2025,
    state_size=lambda *, width, heads, **_: width + width * width / heads,
    # token shift and gates; maps; S κ̂, the new S and S r; the norm of each head
    flops=lambda *, width, heads, rank, **_: (
        43 * width + 4 * rank + 12 * width * rank + 8 * width**2 + 9 * width * width / heads + 5 * heads
    ),
    memory=lambda *, width, heads, rank, **_: 12 * width + 6 * width * rank + 4 * width**2 + width * width / heads,
    time_invariant=False,
    input_dependent_decay=True,
    parallel_form="masked products and a triangular solve",
    complexity="L²",
)
