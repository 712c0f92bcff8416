"""What the attention-like models share: heads, their normalisation, and attention through a decay."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ssm_edu.atlas._common import Array, Reals


def heads_of(width: int, heads: int) -> int:
    """The size of a head.

    Raises:
        ValueError: heads does not divide width.
    """
    if width % heads:
        raise ValueError(f"heads must divide width; found {heads} heads and width {width}")
    return width // heads


def split(x: Array, heads: int) -> Array:
    """(..., heads·size) → (..., heads, size)."""
    return x.reshape(*x.shape[:-1], heads, -1)


def merge(x: Array) -> Array:
    """(..., heads, size) → (..., heads·size)."""
    return x.reshape(*x.shape[:-2], -1)


def normalise(x: Reals, epsilon: float = 1e-5) -> Reals:
    """LayerNorm over the last axis without learned scale: (x − mean)/√(variance + ε); over heads it is GroupNorm.

    A small change of x comes out at most 1/√ε = 316 times as large. The learned scale is left out: but for RWKV-7's,
    the matrix that follows absorbs it.
    """
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + epsilon)


def decays(log_a: Float[np.ndarray, "length ..."]) -> Float[np.ndarray, "length length ..."]:
    """D_ti = a_t a_{t−1} ⋯ a_{i+1} for i ≤ t, else 0, where 0 ≤ a ≤ 1.

    The logarithms of each segment are summed for themselves: quotients of products overflow (ATT-12), and differences
    of sums from the start lose, after one strong decay, all later ones (ATT-13).
    """
    time = [1] * (log_a.ndim - 1)
    t, i = np.arange(len(log_a)).reshape(-1, 1, *time), np.arange(len(log_a)).reshape(-1, *time)
    segments = np.cumsum(np.where(t > i, log_a[:, None], 0), axis=0)
    return np.where(t >= i, np.exp(segments), 0)


def decayed_scores(
    q: Float[np.ndarray, "length heads key"],
    k: Float[np.ndarray, "length heads key"],
    log_a: Float[np.ndarray, "length heads key"],
) -> Float[np.ndarray, "heads length length"]:
    """P_ti = Σ_n q_tn k_in a_tn ⋯ a_{i+1,n} for i ≤ t.

    The weight of v_i in o_t = q_t S_t, where S_t = diag(a_t) S_{t−1} + k_tᵀ v_t (ATT-11).
    """
    return np.einsum("thn,tihn,ihn->hti", q, decays(log_a), k)
