"""S4's two faces of a linear time-invariant SSM: a recurrence to infer with, a convolution to train with.

    recurrence   h_t = Ā h_{t−1} + B̄ x_t,  y_t = C h_t
    convolution  y_t = Σ_{s≤t} K_{t−s} x_s,  K_t = C Āᵗ B̄

One input, one output, n states. Nothing is conjugated unless a formula writes a star: y_t = Σ_i C_i h_{t,i} also
where C is complex, and a model that stores one of each conjugate pair takes 2·Re of y. Claims CONV-1 … CONV-11.
Sources: Mamba, eq. 2 and 3; Article 2, eq. 2 and 3; S4, §2 and Appendix C.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, overload

import numpy as np
from jaxtyping import Complex, Inexact
from numpy.typing import ArrayLike

from ssm_edu.arrays import INEXACT, check_finite, numbers, positive_integer
from ssm_edu.discretize import discretize

Array: TypeAlias = Inexact[np.ndarray, "..."]
Signal: TypeAlias = Inexact[np.ndarray, "*batch length"]
State: TypeAlias = Inexact[np.ndarray, "*batch n"]


def _numbers(name: str, value: ArrayLike) -> Array:
    array = numbers(name, value, ("float16", *INEXACT))
    check_finite(name, array)
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _vector(name: str, value: ArrayLike, n: int | None = None) -> Inexact[np.ndarray, " n"]:
    array = _numbers(name, value)
    if array.ndim != 1 or array.size == 0 or n not in (None, array.size):
        raise ValueError(f"{name} must have shape ({'n ≥ 1' if n is None else n},); found {array.shape}")
    return array


def _signal(name: str, value: ArrayLike) -> Signal:
    array = _numbers(name, value)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise ValueError(f"{name} must have shape (..., length ≥ 1); found {array.shape}")
    return array


def _state_matrix(A_bar: ArrayLike) -> Array:
    array = _numbers("A_bar", A_bar)
    if array.ndim not in (1, 2) or array.size == 0 or len(set(array.shape)) > 1:
        raise ValueError(f"A_bar must have shape (n, n), or (n,) for a diagonal; found {array.shape}")
    return array


@overload
def recurrence(
    A_bar: ArrayLike,
    B_bar: ArrayLike,
    C: ArrayLike,
    x: ArrayLike,
    *,
    B_bar_prev: ArrayLike | None = ...,
    initial_state: ArrayLike | None = ...,
    previous_input: ArrayLike | None = ...,
    return_last_state: Literal[False] = ...,
) -> Signal: ...


@overload
def recurrence(
    A_bar: ArrayLike,
    B_bar: ArrayLike,
    C: ArrayLike,
    x: ArrayLike,
    *,
    B_bar_prev: ArrayLike | None = ...,
    initial_state: ArrayLike | None = ...,
    previous_input: ArrayLike | None = ...,
    return_last_state: Literal[True],
) -> tuple[Signal, State]: ...


def recurrence(
    A_bar: ArrayLike,
    B_bar: ArrayLike,
    C: ArrayLike,
    x: ArrayLike,
    *,
    B_bar_prev: ArrayLike | None = None,
    initial_state: ArrayLike | None = None,
    previous_input: ArrayLike | None = None,
    return_last_state: bool = False,
) -> Signal | tuple[Signal, State]:
    """h_t = Ā h_{t−1} + B̄ x_t (+ B̄_prev x_{t−1}), y_t = C h_t, one step after the other.

    Args:
        A_bar: (n, n), or (n,) for a diagonal; real or complex, as all that follow.
        B_bar, C: (n,).
        x: (..., length).
        B_bar_prev: (n,), for the two-tap rules.
        initial_state: (..., n), h_{−1}; zero if not given.
        previous_input: (...), x_{−1} of a two-tap rule; zero if not given.
        return_last_state: also return h of shape (..., n) after the last step.

    Returns:
        y of the shape of x, or (y, last_state). To go on, pass last_state as `initial_state` and, for a two-tap
        rule, x[..., −1] as `previous_input` (claim CONV-8).

    Raises:
        ValueError: a shape other than these, a length of 0, or a number that is not finite.
        TypeError: an argument that holds no numbers.

    Source: Mamba, eq. 2; Article 2, eq. 2.
    """
    A_bar = _state_matrix(A_bar)
    n = len(A_bar)
    B_bar, C, x = _vector("B_bar", B_bar, n), _vector("C", C, n), _signal("x", x)
    batch = x.shape[:-1]
    drive = x[..., None] * B_bar
    if B_bar_prev is not None:
        first = _broadcast("previous_input", 0.0 if previous_input is None else previous_input, batch)
        delayed = np.concatenate([first[..., None], x[..., :-1]], axis=-1)
        drive = drive + delayed[..., None] * _vector("B_bar_prev", B_bar_prev, n)
    elif previous_input is not None:
        raise ValueError("previous_input belongs to a two-tap rule: give B_bar_prev too")
    h = _broadcast("initial_state", np.zeros(n) if initial_state is None else initial_state, (*batch, n))
    states = np.empty(drive.shape, np.result_type(A_bar, drive, h))
    for t in range(x.shape[-1]):
        h = (h * A_bar if A_bar.ndim == 1 else h @ A_bar.T) + drive[..., t, :]
        states[..., t, :] = h
    y = states @ C
    return (y, h) if return_last_state else y


def _broadcast(name: str, value: ArrayLike, shape: tuple[int, ...]) -> Array:
    array = _numbers(name, value)
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(f"{name} must broadcast to shape {shape}; found {array.shape}") from None


def _krylov(A_bar: Array, b: Inexact[np.ndarray, " n"], length: int) -> Inexact[np.ndarray, "n length"]:
    """(b, Āb, …, Ā^{length−1}b): Vandermonde for a diagonal, else doubling, [X, Ā^{2ᵏ}X] with 2ᵏ columns in X."""
    if A_bar.ndim == 1:
        return b[:, None] * np.vander(A_bar, length, increasing=True)
    X, power = b[:, None], A_bar
    for k in range((length - 1).bit_length()):
        if k:
            power = power @ power
        X = np.hstack([X, power @ X])
    return X[:, :length]


def kernel(
    A_bar: ArrayLike, B_bar: ArrayLike, C: ArrayLike, length: int, *, B_bar_prev: ArrayLike | None = None
) -> Inexact[np.ndarray, " length"]:
    """K = (C B̄, C Ā B̄, …, C Ā^{L−1} B̄), in O(log L) matrix products; the shapes are those of :func:`recurrence`.

    A two-tap rule adds C Āᵗ B̄_prev to K_{t+1} (claims CONV-1 and CONV-2).

    Raises:
        ValueError: a shape other than these, a length below 1, or a number that is not finite.
        TypeError: an argument that holds no numbers, or a length that is no integer.

    Source: Mamba, eq. 3a; Article 2, eq. 3.
    """
    A_bar, length = _state_matrix(A_bar), positive_integer("length", length)
    n = len(A_bar)
    B_bar, C = _vector("B_bar", B_bar, n), _vector("C", C, n)
    K = C @ _krylov(A_bar, B_bar, length)
    if B_bar_prev is not None:
        late = C @ _krylov(A_bar, _vector("B_bar_prev", B_bar_prev, n), length)
        K = K + np.concatenate([[0], late[:-1]])
    return K


def convolve(K: ArrayLike, x: ArrayLike) -> Signal:
    """y_t = Σ_{s≤t} K_{t−s} x_s by the FFT, in O(L log L).

    Padding to at least 2L − 1 keeps the end of x from wrapping round (claims CONV-3 and CONV-4); the power of two
    is the case for which the rounding error is bounded (claim CONV-5).

    Args:
        K: (..., length), real or complex.
        x: (..., length), real or complex; the leading axes broadcast.

    Raises:
        ValueError: lengths that differ, leading axes that do not broadcast, or a number that is not finite.
        TypeError: an argument that holds no numbers.

    Source: Mamba, eq. 3b; Article 2, eq. 3.
    """
    K, x = _signal("K", K), _signal("x", x)
    length = x.shape[-1]
    if K.shape[-1] != length:
        raise ValueError(f"K and x must have one length; found {K.shape[-1]} and {length}")
    try:
        np.broadcast_shapes(K.shape, x.shape)
    except ValueError:
        raise ValueError(f"K and x must broadcast; found shapes {K.shape} and {x.shape}") from None
    size = 1 << (2 * length - 2).bit_length()
    if np.iscomplexobj(K) or np.iscomplexobj(x):
        y: Array = np.fft.ifft(np.fft.fft(K, size) * np.fft.fft(x, size))
    else:
        y = np.fft.irfft(np.fft.rfft(K, size) * np.fft.rfft(x, size), size)
    return y[..., :length]


def kernel_dplr(
    Lambda: ArrayLike, P: ArrayLike, Q: ArrayLike, B: ArrayLike, C: ArrayLike, delta: ArrayLike, length: int
) -> Complex[np.ndarray, " length"]:
    """The kernel of A = diag(Λ) − P Q*, discretised by the bilinear rule, from its generating function.

    K̂(z) = Σ_{t<L} K_t zᵗ = C̃ (I − Āz)⁻¹ B̄ with C̃ = C (I − Ā^L), at z = e^{−iθ}, θ = 2πj/L. There
    (I − Āz)⁻¹ B̄ = Δ e^{iθ/2} (2i sin(θ/2) − Δ cos(θ/2) A)⁻¹ B: nothing divides by 1 + z, so an even L, whose
    roots of unity contain −1, is no special case (claims CONV-9 and CONV-10). The inverse is a diagonal one and a
    rank-one correction: four Cauchy products.

    Args:
        Lambda, P, Q, B, C: (n,), real or complex. Q* is the conjugate transpose of Q; C is a row and not conjugated.
        delta: (), step size Δ > 0.
        length: L ≥ 1.

    Returns:
        K, complex; for a real system in a complex basis its imaginary part is rounding error. The error is
        relative to the size of K as a whole, not entry by entry.

    Raises:
        ValueError: a shape other than these; a delta that is not positive; a number that is not finite; a Λ without
            negative real part; or an A whose modes do not decay: 1 − ρ^L < 1e-8 would leave less than half of
            the digits.
        TypeError: an argument that holds no numbers, or a length that is no integer.

    Source: S4, Theorem 3 and Appendix C.3.
    """
    Lambda = _vector("Lambda", Lambda)
    P, Q, B, C = (_vector(name, v, len(Lambda)) for name, v in (("P", P), ("Q", Q), ("B", B), ("C", C)))
    length = positive_integer("length", length)
    if Lambda.real.max() >= 0:
        raise ValueError(f"Lambda must have negative real parts; found {Lambda[Lambda.real.argmax()]}")
    step_size = _numbers("delta", delta)
    if step_size.ndim != 0 or np.iscomplexobj(step_size) or step_size <= 0:
        raise ValueError(f"delta must be a positive real number; found {delta!r}")
    delta = float(step_size)
    Q_star = Q.conj()
    A_bar = discretize(np.diag(Lambda) - np.outer(P, Q_star), B, delta, "bilinear").A_bar
    _check_decay(np.concatenate([np.linalg.eigvals(A_bar), (2 + delta * Lambda) / (2 - delta * Lambda)]), length)

    C_tilde = C - C @ np.linalg.matrix_power(A_bar, length)
    half = np.pi * np.arange(length) / length
    step = delta * np.cos(half)
    inverse = 1 / (2j * np.sin(half)[:, None] - step[:, None] * Lambda)
    (CB, CP), (QB, QP) = np.einsum("in,ln,jn->ijl", [C_tilde, Q_star], inverse, [B, P])
    return np.fft.ifft(delta * np.exp(1j * half) * (CB - step * CP * QB / (1 + step * QP)))


def _check_decay(modes: Array, length: int) -> None:
    slowest = np.abs(modes).max()
    if slowest >= 1 or 1 - slowest**length < 1e-8:
        raise ValueError(
            "the modes of diag(Lambda) and of diag(Lambda) − P Q* must decay over the length: expected a discrete "
            f"modulus below 1, found {slowest:.17g}; use discretize and kernel instead"
        )
