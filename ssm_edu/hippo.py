"""Where A and Δ start: HiPPO-LegS, its normal and diagonal forms, the S4D diagonals and Mamba's step sizes.

LegS keeps the coefficients c(t) of the past of f in scaled Legendre polynomials: dc/dt = (A c + B f)/t (claim
HIPPO-1). S4 drops the 1/t, adds a rank-one term that makes A normal, and works in its eigenbasis; Mamba keeps
the diagonal of A alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Complex, Float
from numpy.typing import ArrayLike

from ssm_edu.arrays import REAL, check_finite, numbers, positive_integer

Reals: TypeAlias = Float[np.ndarray, "..."]


class LegS(NamedTuple):
    """The state matrix and the input map of HiPPO-LegS."""

    A: Float[np.ndarray, "n n"]
    B: Float[np.ndarray, " n"]


class NPLR(NamedTuple):
    """Normal plus low rank: A = (normal) − P Pᵀ."""

    A: Float[np.ndarray, "n n"]
    P: Float[np.ndarray, " n"]
    B: Float[np.ndarray, " n"]


class DPLR(NamedTuple):
    """Diagonal plus low rank: A = V (diag(Lambda) − P Q*) V*, and B in the basis V; C goes there as C V."""

    Lambda: Complex[np.ndarray, " n"]
    P: Complex[np.ndarray, " n"]
    Q: Complex[np.ndarray, " n"]
    B: Complex[np.ndarray, " n"]
    V: Complex[np.ndarray, "n n"]


def legs(n: int) -> LegS:
    """A[i, k] = −√(2i+1)√(2k+1) below the diagonal, −(i+1) on it, 0 above; B[i] = √(2i+1).

    Claims HIPPO-1, HIPPO-2. Source: HiPPO, Theorem 2, with A negated as in S4, so that c' = (A c + B f)/t.

    Raises:
        ValueError: n < 1.
        TypeError: n is no integer.
    """
    i = np.arange(positive_integer("n", n))
    B = np.sqrt(2 * i + 1.0)
    return LegS(-np.tril(np.outer(B, B), -1) - np.diag(i + 1.0), B)


def nplr_legs(n: int) -> NPLR:
    """LegS with P[i] = √(i+½): A + P Pᵀ = −½ I + S is normal, for S is skew-symmetric (claim HIPPO-4).

    Source: S4, Theorem 1. Raises as :func:`legs`.
    """
    A, B = legs(n)
    return NPLR(A, B / np.sqrt(2), B)


def dplr_legs(n: int) -> DPLR:
    """LegS in the eigenbasis of its normal part: Lambda = −½ + iω with ω ascending, Q = P.

    V is unitary, for −iS is Hermitian; the eigenvectors of A itself have a condition number that grows
    exponentially in n (claims HIPPO-5, HIPPO-15). Source: S4, Theorem 1 and Lemma 3.2. Raises as :func:`legs`.
    """
    _, P, B = nplr_legs(n)
    S = np.triu(np.outer(P, P), 1) - np.tril(np.outer(P, P), -1)
    omega, V = np.linalg.eigh(-1j * S)
    P_eigen = V.conj().T @ P
    return DPLR(-0.5 + 1j * omega, P_eigen, P_eigen, V.conj().T @ B, V)


def s4d_real(n: int) -> Float[np.ndarray, " n"]:
    """−(k+1), the diagonal of LegS (claim HIPPO-2). Source: S4D. Raises as :func:`legs`."""
    return -(np.arange(positive_integer("n", n)) + 1.0)


def s4d_lin(n: int) -> Complex[np.ndarray, " n"]:
    """−½ + iπk, one of each of n conjugate pairs: damped Fourier modes (claim HIPPO-11).

    Source: S4D. Raises as :func:`legs`.
    """
    return -0.5 + 1j * np.pi * np.arange(positive_integer("n", n))


def s4d_inv(n: int) -> Complex[np.ndarray, " n"]:
    """−½ + i(N/π)(N/(2k+1) − 1) with N = 2n, one of each of n conjugate pairs.

    Close to the frequencies of LegS (claims HIPPO-9, HIPPO-10). Source: S4D. Raises as :func:`legs`.
    """
    N = 2 * positive_integer("n", n)
    return -0.5 + 1j * (N / np.pi) * (N / (2 * np.arange(n) + 1) - 1)


def softplus_inverse(delta: ArrayLike) -> Reals:
    """Δ + log(1 − e^{−Δ}), whose softplus is Δ (claims HIPPO-16, HIPPO-17), of the shape of delta.

    Raises:
        ValueError: a delta that is not positive and finite.
        TypeError: a delta that holds no real numbers.
    """
    values = numbers("delta", delta, ("float16", *REAL)).astype(np.float64)
    check_finite("delta", values)
    if not (values > 0).all():
        raise ValueError(f"delta must be positive; found {values.min()}")
    return np.asarray(values + np.log(-np.expm1(-values)))


def _number(name: str, value: Any) -> float:
    array = numbers(name, value, ("float16", *REAL))
    if array.ndim:
        raise ValueError(f"{name} must be a number; found shape {array.shape}")
    return float(array)


def mamba_delta_bias(
    dim: int,
    delta_min: float = 1e-3,
    delta_max: float = 1e-1,
    delta_floor: float = 1e-4,
    rng: np.random.Generator | int | None = None,
) -> Float[np.ndarray, " dim"]:
    """The bias before Mamba's softplus: Δ log-uniform in [delta_min, delta_max], at least delta_floor.

    Args:
        dim: number of channels.
        delta_min, delta_max, delta_floor: step sizes.
        rng: a generator, or a seed for one.

    Raises:
        ValueError: dim < 1, or not 0 < delta_min ≤ delta_max < ∞, or not 0 < delta_floor < ∞.
        TypeError: dim is no integer, or another argument no real number.

    Source: Mamba, §3.6.
    """
    dim = positive_integer("dim", dim)
    delta_min, delta_max, delta_floor = (
        _number(name, value)
        for name, value in (("delta_min", delta_min), ("delta_max", delta_max), ("delta_floor", delta_floor))
    )
    if not 0 < delta_min <= delta_max < np.inf:
        raise ValueError(f"expected 0 < delta_min ≤ delta_max < ∞; found delta_min {delta_min}, delta_max {delta_max}")
    if not 0 < delta_floor < np.inf:
        raise ValueError(f"delta_floor must be positive and finite; found {delta_floor}")
    log_delta = np.random.default_rng(rng).uniform(np.log(delta_min), np.log(delta_max), dim)
    return softplus_inverse(np.maximum(np.exp(log_delta), delta_floor))


def mamba_A(dim: int, state: int) -> Float[np.ndarray, "dim state"]:
    """−(1 … state) in every channel; the released code keeps its logarithm, log(−A) (claim HIPPO-19).

    Source: Mamba, §3.6 (S4D-Real).

    Raises:
        ValueError: dim or state < 1.
        TypeError: dim or state is no integer.
    """
    return np.tile(s4d_real(positive_integer("state", state)), (positive_integer("dim", dim), 1))
