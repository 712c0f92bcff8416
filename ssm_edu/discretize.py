"""From h'(t) = A h(t) + B x(t) to h_t = Ā h_{t−1} + B̄ x_t: every rule, for a dense A and for a diagonal one.

A rule for a diagonal A is two functions of z = Δa: Ā = α(z) and B̄ = Δ p(z) B. The two-tap rules also weigh the
previous input: h_t = Ā h_{t−1} + Δ p(z) B x_t + Δ q(z) B x_{t−1}.

| rule                    | α(z)              | p(z)        | q(z)            | order, smooth x | x constant |
|-------------------------|-------------------|-------------|-----------------|---|-------|
| zoh                     | eᶻ                | φ₁(z)       |                 | 1 | exact |
| euler                   | 1 + z             | 1           |                 | 1 | 1     |
| backward_euler          | 1/(1 − z)         | 1/(1 − z)   |                 | 1 | 1     |
| bilinear                | (1 + z/2)/(1 − z/2) | 1/(1 − z/2) |               | 1 | 2     |
| mamba                   | eᶻ                | 1           |                 | 1 | 1     |
| foh                     | eᶻ                | φ₂(z)       | φ₁(z) − φ₂(z)   | 2 | exact |
| exponential_trapezoidal | eᶻ                | λ           | (1 − λ) eᶻ      | 2 at λ = ½ | 2 |

Claims ZOH-*, ERR-*, STAB-*. Sources: Mamba, eq. 4; S4, eq. 3; Mamba-3 (exponential-trapezoidal rule).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ssm_edu.arrays import INEXACT, REAL, check_finite, numbers
from ssm_edu.phi import Array, d2phi1, dphi1, dphi2, phi1, phi2

Function = Callable[[Array], Array]


class OneTap(NamedTuple):
    """h_t = A_bar h_{t−1} + B_bar x_t."""

    A_bar: Array
    B_bar: Array


class TwoTap(NamedTuple):
    """h_t = A_bar h_{t−1} + B_bar x_t + B_bar_prev x_{t−1}."""

    A_bar: Array
    B_bar: Array
    B_bar_prev: Array


class Partials(NamedTuple):
    """Derivatives of Ā, β (B̄ = β B) and, for the two-tap rules, β_prev by Δ and by a."""

    dA_bar_ddelta: Array
    dA_bar_da: Array
    dbeta_ddelta: Array
    dbeta_da: Array
    dbeta_prev_ddelta: Array | None = None
    dbeta_prev_da: Array | None = None


@dataclass(frozen=True)
class Method:
    """A discretisation rule for a diagonal A, as functions of z = Δa and their derivatives by z.

    `dzp` is (z p)′ = p + z p′, which is ∂β/∂Δ: written out for each rule, because the sum cancels (for `zoh` it is
    eᶻ, the difference of two terms near 1/z). `q`, `dq` and `dzq` are the same for x_{t−1}.

    `order` is the order of accuracy for a smooth input sampled at the end of each step, `order_held` for an input
    that is constant from the previous sample on (infinite: exact; claims ERR-9 to ERR-14). `beta_limit` is lim a·β as
    z → −∞, for the rules whose β stops depending on Δ there.
    """

    name: str
    order: int
    order_held: float
    alpha: Function
    dalpha: Function
    p: Function
    dp: Function
    dzp: Function
    q: Function | None = None
    dq: Function | None = None
    dzq: Function | None = None
    beta_limit: float | None = None

    def A_bar(self, delta: Array, a: Array) -> Array:
        """Ā = α(Δa)."""
        return self.alpha(delta * a)

    def beta(self, delta: Array, a: Array) -> Array:
        """β = Δ p(Δa), where B̄ = β B."""
        return self._weight(self.p, delta, a, delta * a)

    def beta_prev(self, delta: Array, a: Array) -> Array:
        """Δ q(Δa), the weight of B x_{t−1}; zero for a one-tap rule."""
        z = delta * a
        return np.zeros_like(z) if self.q is None else delta * self.q(z)

    def _weight(self, p: Function, delta: Array, a: Array, z: Array) -> Array:
        beta = _times(p(z), delta)
        if self.beta_limit is None or np.isfinite(_largest(delta) * _largest(a)):
            return beta
        # Δa overflowed though Δ and a are finite, so p(z) underflowed: β is at its limit.
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(np.isinf(z) & (np.real(z) < 0), self.beta_limit / a, beta)

    def partials(self, delta: Array, a: Array) -> Partials:
        """The four partial derivatives (six for a two-tap rule), by ∂z/∂Δ = a and ∂z/∂a = Δ (claim ADJ-5)."""
        z = delta * a
        dalpha, delta_squared = self.dalpha(z), delta * delta
        one = Partials(a * dalpha, delta * dalpha, self.dzp(z), delta_squared * self.dp(z))
        if self.dq is None or self.dzq is None:
            return one
        return Partials(*one[:4], self.dzq(z), delta_squared * self.dq(z))


def _largest(x: Array) -> Array:
    return np.max(np.abs(x), initial=0)


def _times(fresh: Array, factor: Array) -> Array:
    """fresh · factor, into fresh's memory where it fits."""
    fits = np.broadcast_shapes(fresh.shape, factor.shape) == fresh.shape
    if fits and np.result_type(fresh, factor) == fresh.dtype:
        return np.multiply(fresh, factor, out=np.asarray(fresh))
    return fresh * factor


def _constant(value: float) -> Function:
    return lambda z: np.full_like(z, value)


def _bilinear_alpha(z: Array) -> Array:
    far = np.abs(z) > 2
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1 / np.where(far, z, 2)
        return np.where(far, (inverse + 0.5) / (inverse - 0.5), (1 + 0.5 * z) / (1 - 0.5 * z))


def exponential_trapezoidal(lam: float = 0.5) -> Method:
    """Mamba-3's rule h_t = α h_{t−1} + (1−λ)Δ α B_{t−1} x_{t−1} + λΔ B_t x_t, α = e^{Δa}.

    λ = 1 is the rule `mamba`, λ = ½ the trapezoidal rule on e^{(Δ−τ)a} B x(τ) and of second order.

    Raises:
        ValueError: lam outside [0, 1].
    """
    if not 0 <= lam <= 1:
        raise ValueError(f"lam must lie in [0, 1]; found {lam!r}")

    return Method(
        "exponential_trapezoidal",
        order=2 if lam == 0.5 else 1,
        order_held=2 if lam == 0.5 else 1,
        alpha=np.exp,
        dalpha=np.exp,
        p=_constant(lam),
        dp=_constant(0),
        dzp=_constant(lam),
        q=lambda z: (1 - lam) * np.exp(z),
        dq=lambda z: (1 - lam) * np.exp(z),
        dzq=lambda z: (1 - lam) * (1 + z) * np.exp(z),
    )


_RULES = (
    Method("zoh", 1, np.inf, np.exp, np.exp, phi1, dphi1, dzp=np.exp, beta_limit=-1),
    Method("euler", 1, 1, lambda z: 1 + z, _constant(1), _constant(1), _constant(0), dzp=_constant(1)),
    Method(
        "backward_euler",
        order=1,
        order_held=1,
        alpha=lambda z: 1 / (1 - z),
        dalpha=lambda z: (1 - z) ** -2,
        p=lambda z: 1 / (1 - z),
        dp=lambda z: (1 - z) ** -2,
        dzp=lambda z: (1 - z) ** -2,
        beta_limit=-1,
    ),
    Method(
        "bilinear",
        order=1,
        order_held=2,
        alpha=_bilinear_alpha,
        dalpha=lambda z: (1 - 0.5 * z) ** -2,
        p=lambda z: 1 / (1 - 0.5 * z),
        dp=lambda z: 0.5 * (1 - 0.5 * z) ** -2,
        dzp=lambda z: (1 - 0.5 * z) ** -2,
        beta_limit=-2,
    ),
    Method("mamba", 1, 1, np.exp, np.exp, _constant(1), _constant(0), dzp=_constant(1)),
    Method(
        "foh",
        order=2,
        order_held=np.inf,
        alpha=np.exp,
        dalpha=np.exp,
        p=phi2,
        dp=dphi2,
        dzp=dphi1,
        q=dphi1,
        dq=d2phi1,
        dzq=lambda z: np.exp(z) - dphi1(z),
        beta_limit=-1,
    ),
    exponential_trapezoidal(),
)
METHODS: dict[str, Method] = {rule.name: rule for rule in _RULES}


def resolve(method: str | Method) -> Method:
    """The rule of that name.

    Raises:
        ValueError: no such rule.
        TypeError: neither a name nor a Method.
    """
    if isinstance(method, Method):
        return method
    if not isinstance(method, str):
        raise TypeError(f"method must be a name or a Method; found {type(method).__name__}")
    if method not in METHODS:
        close = get_close_matches(method, METHODS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown method {method!r}: expected one of {', '.join(METHODS)}{hint}")
    return METHODS[method]


def _numbers(real: tuple[str, ...] = ("delta",), **named: ArrayLike) -> list[Array]:
    """The arguments as finite float or complex arrays of one precision.

    Integers become floats; a Python number adapts to the precision of the arrays beside it, as in NumPy.
    """
    arrays = {}
    for name, value in named.items():
        arrays[name] = numbers(name, value, REAL if name in real else INEXACT)
        check_finite(name, arrays[name])
    sized = [a.dtype for n, a in arrays.items() if not isinstance(named[n], (int, float, complex))]
    single = bool(sized) and all(np.finfo(dtype).bits == 32 for dtype in sized)
    kind = {"f": "f4", "c": "c8"} if single else {"f": "f8", "c": "c16"}
    return [array.astype(kind[array.dtype.kind], copy=False) for array in arrays.values()]


def _check_step_size(delta: Array) -> None:
    if (delta < 0).any():
        raise ValueError(f"delta, a step size, must not be negative; found {delta.min()}")


def discretize_diagonal(a: ArrayLike, b: ArrayLike, delta: ArrayLike, method: str | Method = "zoh") -> OneTap | TwoTap:
    """Discretise h' = a h + b x elementwise, for a diagonal state matrix.

    Args:
        a: diagonal of the state matrix (1/time), real or complex.
        b: input map, real or complex.
        delta: step size (time), real, not negative. The three broadcast; float32 stays float32.
        method: a name in :data:`METHODS`, or a :class:`Method`.

    Returns:
        `(A_bar, B_bar)`; for the two-tap rules `foh` and `exponential_trapezoidal`, `(A_bar, B_bar, B_bar_prev)`
        with h_t = Ā h_{t−1} + B̄ x_t + B̄_prev x_{t−1}. No cancellation near Δa = 0; 1 and 0 at Δ = 0;
        0 and −b/a (`zoh`) as Δa → −∞; inf where the result overflows and at a rule's pole (claims ZOH-*, PHI-*).

    Raises:
        ValueError: a negative delta, anything not finite, shapes that do not broadcast, an unknown method.
        TypeError: an argument that holds no numbers, or a complex delta.

    Source: Mamba, eq. 4; Article 1, §1.2.
    """
    rule = resolve(method)
    a, b, delta = _numbers(a=a, b=b, delta=delta)
    _check_step_size(delta)
    try:
        np.broadcast_shapes(a.shape, b.shape, delta.shape)
    except ValueError:
        raise ValueError(
            f"a, b and delta must broadcast; found shapes {a.shape}, {b.shape} and {delta.shape}"
        ) from None
    with np.errstate(all="ignore"):  # inf is the answer where the result overflows, and at a pole
        z = delta * a
        A_bar = rule.alpha(z)
        B_bar = _times(rule._weight(rule.p, delta, a, z), b)
        if rule.q is None:
            return OneTap(np.asarray(A_bar), np.asarray(B_bar))
        B_bar_prev = rule.beta_prev(delta, a) * b
        return TwoTap(np.asarray(A_bar), np.asarray(B_bar), np.asarray(B_bar_prev))


def _block_exponential(Z: Array, W: Array, order: int) -> list[Array]:
    """[e^Z, φ₁(Z) W, …, φ_order(Z) W], read off one exponential of a block matrix; Z may be singular.

    SciPy halves a matrix until its norm is near 4. There its Padé quotient still loses up to e⁴ roundings at negative
    eigenvalues, and for triangular matrices its squarings lose more. So it gets eigenvalues of at most ½, and the
    squarings from there are plain products: over 30 000 matrices of norm up to 700 the worst error fell from 4·10⁻¹³
    to 4·10⁻¹⁵ times the condition number. Eigenvalues say how often to halve, and not a norm, because a large entry
    beside a small exponential (a rotation in odd units) would be halved, and squared back, at a loss. Claims ZOH-8,
    ZOH-13. Source: Van Loan 1978.
    """
    from scipy.linalg import expm

    n, m = W.shape
    # e is linear in W: a power of two brings it to norm ≤ 1, so that a large B costs no extra squarings
    norm = np.abs(W).sum(axis=0).max(initial=0.0)
    scale = 2.0 ** np.ceil(np.log2(norm)) if norm > 0 else 1.0
    block = np.zeros((n + order * m, n + order * m), np.result_type(Z, W))
    block[:n, :n] = Z
    block[:n, n : n + m] = W / scale
    for k in range(order - 1):
        block[n + k * m : n + (k + 1) * m, n + (k + 1) * m : n + (k + 2) * m] = np.eye(m)
    halvings = max(0, 1 + int(np.frexp(np.abs(np.linalg.eigvals(Z)).max(initial=0.0))[1]))
    power = expm(np.ldexp(1.0, -halvings) * block)
    for _ in range(halvings):
        power = power @ power
    return [power[:n, :n]] + [scale * power[:n, n + k * m : n + (k + 1) * m] for k in range(order)]


def _implicit(Z: Array, W: Array, share: float, name: str) -> tuple[Array, Array]:
    """(I − share·Z)⁻¹ [I + (1 − share) Z, W]."""
    identity = np.eye(len(Z))
    try:
        solved = np.linalg.solve(identity - share * Z, np.hstack([identity + (1 - share) * Z, W]))
    except np.linalg.LinAlgError:
        raise ValueError(
            f"{name} needs I − {share:g}ΔA to be invertible; ΔA has the eigenvalue {1 / share:g}"
        ) from None
    return solved[:, : len(Z)], solved[:, len(Z) :]


def _dense(rule: Method, Z: Array, W: Array) -> tuple[Array, ...]:
    """The rule at Z = ΔA, W = ΔB, matrices."""
    match rule.name:
        case "zoh":
            return tuple(_block_exponential(Z, W, 1))
        case "foh":
            A_bar, phi1_W, phi2_W = _block_exponential(Z, W, 2)
            return A_bar, phi2_W, phi1_W - phi2_W
        case "euler":
            return np.eye(len(Z)) + Z, W
        case "backward_euler":
            return _implicit(Z, W, 1.0, rule.name)
        case "bilinear":
            return _implicit(Z, W, 0.5, rule.name)
        case "mamba":
            return _block_exponential(Z, W, 1)[0], W
        case "exponential_trapezoidal":
            A_bar = _block_exponential(Z, W, 1)[0]
            lam = float(rule.p(np.zeros(())))
            return A_bar, lam * W, (1 - lam) * (A_bar @ W)
        case _:
            raise ValueError(f"{rule.name!r} is known for a diagonal A only; use discretize_diagonal")


def discretize(A: ArrayLike, B: ArrayLike, delta: ArrayLike, method: str | Method = "zoh") -> OneTap | TwoTap:
    """Discretise h' = A h + B x for a dense state matrix: singular, defective, non-normal or complex, any.

    Args:
        A: (n, n) state matrix (1/time).
        B: (n, m) or (n,) input map.
        delta: () step size (time), real, not negative.
        method: a name in :data:`METHODS`.

    Returns:
        `(A_bar, B_bar)` of shapes (n, n) and B's; for `foh` and `exponential_trapezoidal`
        `(A_bar, B_bar, B_bar_prev)`, as :func:`discretize_diagonal`. float32 in, float32 out; the arithmetic is
        in double precision. `zoh` is Ā = exp(ΔA), B̄ = (ΔA)⁻¹(exp(ΔA) − I)ΔB, continued to a singular A.

    Raises:
        ValueError: a non-square A, a B with other than n rows, a delta that is negative or no scalar, anything not
            finite, an unknown method, an implicit rule at a pole, or a result that overflows.
        TypeError: an argument that holds no numbers, or a complex delta.

    Source: Mamba, eq. 4; Article 1, §1.2; Van Loan 1978.
    """
    rule = resolve(method)
    A, B, delta = _numbers(A=A, B=B, delta=delta)
    if A.ndim != 2 or A.shape[0] != A.shape[1]:
        raise ValueError(f"A must be a square matrix; found shape {A.shape}")
    if B.ndim not in (1, 2) or len(B) != len(A):
        raise ValueError(f"B must have as many rows as A: expected ({len(A)},) or ({len(A)}, m); found {B.shape}")
    if delta.ndim != 0:
        raise ValueError(f"delta must be a scalar for a dense A; found shape {delta.shape}")
    _check_step_size(delta)
    wide = [np.asarray(M, np.result_type(M, np.float64)) for M in (A, B if B.ndim == 2 else B[:, None])]
    out = np.result_type(A, B)
    with np.errstate(over="ignore", invalid="ignore"):
        Z, W = (float(delta) * M for M in wide)
        if not (np.isfinite(Z).all() and np.isfinite(W).all()):
            raise ValueError("delta · A or delta · B overflows float64")
        maps = [M.astype(out) for M in _dense(rule, Z, W)]
    if not all(np.isfinite(M).all() for M in maps):
        raise ValueError(f"the discretised matrices overflow {out}: delta · A has too large an eigenvalue")
    A_bar, *weights = maps
    weights = [M.reshape(B.shape) for M in weights]
    return OneTap(A_bar, *weights) if len(weights) == 1 else TwoTap(A_bar, *weights)
