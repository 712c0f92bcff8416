"""RetNet: linear attention that forgets at a constant rate γ, another for each head, and turns as it forgets.

    recurrent  s_n = A s_{n−1} + k̄_n v_nᵀ,  o_n = Re q_n s_n,  A = γ e^{iθ}                            (eq. 1 to 4)
    parallel   Q = q ⊙ Θ,  K = k ⊙ Θ,  Θ_n = e^{inθ};  o = (Re(QK*) ⊙ D) v,  D_nm = γ^{n−m} for m ≤ n  (eq. 5)
    chunkwise  parallel inside a chunk, recurrent from chunk to chunk                                   (eq. 7)

    γ = 1 − 2^{−5−h} for head h;  y = (swish(x W_G) ⊙ GroupNorm(o)) W_O                                 (eq. 8)

Complex numbers stand for pairs of real ones, so that to turn by nθ is a product. The state matrix is diagonal and
constant in time, as S4D's is; B = k̄_n and C = q_n come from the input. Claims ATT-7 to ATT-10.
Source: RetNet, §2.1 and §2.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex, Float
from numpy.typing import ArrayLike

from ssm_edu.arrays import positive_integer
from ssm_edu.atlas._checks import check_sequence, check_state, check_token, sized
from ssm_edu.atlas._common import AffineScan, Array, Card, Reals, Sequence, Token, linear
from ssm_edu.atlas._heads import merge, normalise, split
from ssm_edu.selective.reference import silu

State = Complex[np.ndarray, "heads pair value"]


@dataclass(frozen=True)
class Parameters:
    """W_Q and W_K have 2·heads·pair columns, real and imaginary parts in turn; W_V and W_G heads·value."""

    W_Q: Float[np.ndarray, "width keys"]
    W_K: Float[np.ndarray, "width keys"]
    W_V: Float[np.ndarray, "width values"]
    W_G: Float[np.ndarray, "width values"]
    W_O: Float[np.ndarray, "values width"]
    A: Complex[np.ndarray, "heads pair"]


@sized
def init(rng: np.random.Generator, *, width: int = 4, heads: int = 2, pair: int = 2, value: int = 3) -> Parameters:
    """`pair` complex numbers in a head's q and k, `value` real ones in its v; θ from 1 to 10⁻⁴."""
    keys, values = 2 * heads * pair, heads * value
    W_Q, W_K, W_V, W_G = (linear(rng, out, width).T for out in (keys, keys, values, values))
    gamma, theta = 1 - 2.0 ** (-5 - np.arange(heads)), np.logspace(0, -4, pair)
    return Parameters(W_Q, W_K, W_V, W_G, linear(rng, width, values).T, gamma[:, None] * np.exp(1j * theta))


def project(params: Parameters, x: Reals) -> tuple[Array, Array, Reals]:
    """q and k, complex (..., heads, pair), and v (..., heads, value)."""
    q, k, v = (split(x @ W, len(params.A)) for W in (params.W_Q, params.W_K, params.W_V))
    return q.view(complex), k.view(complex), v


def output(params: Parameters, x: Reals, o: Float[np.ndarray, "*length heads value"]) -> Reals:
    """(swish(x W_G) ⊙ GroupNorm(o)) W_O."""
    return (silu(x @ params.W_G) * merge(normalise(o))) @ params.W_O


def parallel(params: Parameters, x: ArrayLike) -> Sequence:
    """o = (Re(QK*) ⊙ D) v for each head, with the positions turned into q and k."""
    x = check_sequence(x, len(params.W_V))
    q, k, v = project(params, x)
    n = np.arange(len(x))
    gamma, Theta = np.abs(params.A[:, 0]), np.exp(1j * n[:, None, None] * np.angle(params.A))
    scores = np.einsum("nhk,mhk->hnm", q * Theta, np.conj(k * Theta)).real
    D = np.tril(gamma[:, None, None] ** np.maximum(n[:, None] - n, 0))
    return output(params, x, np.einsum("hnm,mhv->nhv", scores * D, v))


def chunkwise(params: Parameters, x: ArrayLike, chunk: int) -> Sequence:
    """`parallel` for one chunk after the other; what was before comes in as A^{j+1} s, with j = 0 … in the chunk."""
    x, chunk = check_sequence(x, len(params.W_V)), positive_integer("chunk", chunk)
    q, k, v = project(params, x)
    o, s = np.empty(v.shape), first_state(params)
    for start in range(0, len(x), chunk):
        now = slice(start, start + chunk)
        q_i, k_i, v_i = q[now], np.conj(k[now]), v[now]
        j = np.arange(len(v_i))
        powers = params.A ** np.arange(len(j) + 1)[:, None, None]
        between = powers[np.maximum(j[:, None] - j, 0)]
        scores = np.tril(np.einsum("jhk,jmhk,mhk->hjm", q_i, between, k_i))
        inside, before = np.einsum("hjm,mhv->jhv", scores, v_i), np.einsum("jhk,hkv->jhv", q_i * powers[1:], s)
        o[now] = (inside + before).real
        s = powers[-1][..., None] * s + np.einsum("mhk,mhv->hkv", powers[-2::-1] * k_i, v_i)
    return output(params, x, o)


def first_state(params: Parameters) -> State:
    """s_0 = 0."""
    heads, pair = params.A.shape
    return np.zeros((heads, pair, len(params.W_O) // heads), complex)


def step(params: Parameters, state: State, x_t: ArrayLike) -> tuple[Token, State]:
    """y_n and s_n."""
    check_state(state, first_state(params))
    x_t = check_token(x_t, len(params.W_V))
    q, k, v = project(params, x_t)
    s = params.A[..., None] * state + np.conj(k)[..., None] * v[:, None, :]
    return output(params, x_t, np.einsum("hk,hkv->hv", q, s).real), s


def as_affine_scan(params: Parameters, x: ArrayLike) -> AffineScan:
    """a = γ e^{iθ} for all n, b_n = k̄_n v_nᵀ: (heads, pair, value, length)."""
    x = check_sequence(x, len(params.W_V))
    q, k, v = project(params, x)
    b = np.einsum("thk,thv->hkvt", np.conj(k), v)
    a = np.broadcast_to(params.A[..., None, None], b.shape)
    return AffineScan(a, b, lambda s: output(params, x, np.einsum("thk,hkvt->thv", q, s).real))


CARD = Card(
    name="RetNet",
    paper="RetNet",
    year=2023,
    state_size=lambda *, heads, pair, value, **_: 2 * heads * pair * value,
    # maps; A s 6, k̄ v 2, their sum 2, and q s 8; the norm and the gate
    flops=lambda *, width, heads, pair, value, **_: (
        heads * (width * (8 * pair + 6 * value) + 18 * pair * value + 10 * value + 4)
    ),
    memory=lambda *, width, heads, pair, value, **_: (
        width * heads * (4 * pair + 3 * value) + 2 * heads * pair + 2 * heads * pair * value
    ),
    time_invariant=False,
    input_dependent_decay=False,
    parallel_form="masked product (QK* ⊙ D) V, also by chunks",
    complexity="L²",
)
