"""Numbers with the rounding errors that they may carry: running error analysis as an arithmetic.

Beside every value x stands a radius r: whatever an implementation computed lies within r of x. Each operation passes
radii on and adds its own rounding, fl(a∘b) = (a∘b)(1 + δ), |δ| ≤ u (ROUND-1). γ_k = ku/(1 − ku) bounds k roundings in
a row (ROUND-2); sums and products are taken in the worst order (ROUND-4). A radius is inf where none can be given: a
value is not finite, or exceeds the format's range, or something on the way to it may.

Source: Higham 2002, ch. 3 and 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Inexact

from ssm_edu.phi import d2phi1, dphi1, phi1
from ssm_edu.selective.reference import sigmoid

if TYPE_CHECKING:
    Array = np.ndarray
    Real = np.ndarray
    Mask = np.ndarray
else:  # NumPy's operators turn 0-d arrays into scalars
    Array = Inexact[np.ndarray | np.generic, "..."]
    Real = Float[np.ndarray | np.generic, "..."]
    Mask = Bool[np.ndarray, "..."]

# In units of u. A product: Brent, Percival & Zimmermann 2007, theorem 1. A quotient: √2 γ₄, Higham 2002, lemma 3.5;
# Smith's scaling has 4 + √2 to first order, which is less.
COMPLEX_PRODUCT, COMPLEX_QUOTIENT = sqrt(5), 4 * sqrt(2)


@dataclass(frozen=True)
class Format:
    """A floating-point format: unit roundoff, smallest normal and largest number."""

    unit_roundoff: float
    smallest: float
    largest: float


FORMATS = {
    name: Format(float(info.eps) / 2, float(info.smallest_normal), float(info.max))
    for name, info in ((name, np.finfo(name)) for name in ("float16", "float32", "float64"))
} | {"bfloat16": Format(2.0**-8, 2.0**-126, 2.0**128 * (1 - 2.0**-8))}


@dataclass(frozen=True)
class Arithmetic:
    """What is asked of an implementation's operations, in units of `format.unit_roundoff`; an ulp is up to 2 of them.

    + and × round once, a fused multiply-add too; whatever lies below the normal numbers may be flushed to zero.

    Attributes:
        division: relative error of a quotient; 1 is IEEE.
        elementary: relative error of exp, exp2, expm1 and log1p. 3 ulp: NumPy's vectorised exp has 2.52, the others,
            CUDA's and the C library's, 2 at most.
        trigonometric: error of sin and cos; 2 ulp, as CUDA's.
        base_2: relative error of the argument of exp: log₂e is rounded, and its product with the argument.
        softplus: absolute error of log(1 + eˣ) beside those. None is asked for: log1p has none.
    """

    format: Format
    division: float = 1
    elementary: float = 6
    trigonometric: float = 4
    base_2: float = 2
    softplus: float = 0


FLOAT32 = Arithmetic(FORMATS["float32"])
FLOAT64 = Arithmetic(FORMATS["float64"])
# CUDA's fast functions: a quotient has 2 ulp, __expf 2 + ⌊1.173 |x|⌋, __cosf 2^−21.19 absolute in each part and for
# |x| ≤ π alone, and __logf 2^−21.41 absolute near 1, the sum 1 + eˣ having been rounded before.
FLOAT32_APPROX = Arithmetic(
    FORMATS["float32"],
    division=4,
    trigonometric=sqrt(2) * 2 ** (24 - 21.19),
    base_2=2.4,
    softplus=1 + 2 ** (24 - 21.41),
)


@dataclass(frozen=True, eq=False)
class Ball:
    """Exact values, and radii within which every implementation that keeps to `rules` stays."""

    value: Array
    radius: Real
    rules: Arithmetic

    @property
    def largest(self) -> Real:
        return np.abs(self.value) + self.radius

    @property
    def is_complex(self) -> bool:
        return np.iscomplexobj(self.value)

    @property
    def real(self) -> Ball:
        return Ball(self.value.real, self.radius, self.rules)

    def conj(self) -> Ball:
        return Ball(np.conj(self.value), self.radius, self.rules)

    def scaled(self, factor: float) -> Ball:
        """Times a power of two, exactly."""
        return Ball(factor * self.value, abs(factor) * self.radius, self.rules)

    def where(self, condition: Mask) -> Ball:
        """Exactly zero elsewhere."""
        return Ball(np.where(condition, self.value, 0), np.where(condition, self.radius, 0.0), self.rules)


def gamma(k: float | Real, rules: Arithmetic) -> Real:
    """γ_k = ku/(1 − ku), inf from ku = 1 on (ROUND-2).

    u has float64's added, so that the bounds hold from one rounded result to another, the oracle (ROUND-3).
    """
    ku = np.asarray(k * (rules.format.unit_roundoff + FORMATS["float64"].unit_roundoff), np.float64)
    return np.where(ku < 1, ku / (1 - ku), np.inf)


def within(radius: Real, reach: Real, rules: Arithmetic) -> Real:
    """The radius, inf unless `reach` is in the format's range."""
    return np.where(reach <= rules.format.largest, radius, np.inf)


def rounded(
    value: Array, spread: Real, roundings: float | Real, rules: Arithmetic, underflow: float | Real = 1
) -> Ball:
    """The ball of a result whose operands alone would put it within `spread` of its value."""
    radius = spread + gamma(roundings, rules) * (np.abs(value) + spread) + underflow * flushed(value, rules)
    return Ball(value, within(radius, np.abs(value) + radius, rules), rules)


def flushed(value: Array, rules: Arithmetic) -> float:
    """What underflow takes from one result: of a complex product, four products and two sums (ROUND-6)."""
    return (6 if np.iscomplexobj(value) else 1) * rules.format.smallest


def exact(array: Array, rules: Arithmetic) -> Ball:
    """An input, which is exact unless it is subnormal and flushed."""
    size = np.abs(array)
    return Ball(array, np.where(size < rules.format.smallest, size, 0.0), rules)


def product(*factors: Ball) -> Ball:
    """A product in any order. What underflows on the way may be multiplied by all that is large (ROUND-6, ROUND-11)."""
    value, size, spread, detour = (np.asarray(x) for x in (1.0, 1.0, 0.0, 1.0))
    roundings, rules, seen_complex = 0.0, factors[0].rules, False
    for k, factor in enumerate(factors):
        spread = spread * factor.largest + size * factor.radius
        value, size = value * factor.value, size * np.abs(factor.value)
        detour = detour * np.maximum(factor.largest, 1)
        roundings += min(k, COMPLEX_PRODUCT if seen_complex and factor.is_complex else 1)
        seen_complex |= factor.is_complex
    return rounded(value, spread, roundings, rules, len(factors) * within(detour, detour, rules))


def total(*terms: Ball, axis: int | tuple[int, ...], start: Ball | None = None) -> Ball:
    """The sum of all the terms over the axes, and of `start`, in any order: γ_{n−1} Σ|terms| (ROUND-4)."""
    rules = terms[0].rules
    shape = np.broadcast_shapes(*(term.value.shape for term in terms))
    axes = (axis,) if isinstance(axis, int) else axis
    zero = Ball(np.zeros(()), np.zeros(()), rules) if start is None else start
    value, radius, size = zero.value, zero.radius, zero.largest
    for term in terms:
        value = value + np.broadcast_to(term.value, shape).sum(axis=axes)
        radius = radius + np.broadcast_to(term.radius, shape).sum(axis=axes)
        size = size + np.broadcast_to(term.largest, shape).sum(axis=axes)
    count = len(terms) * int(np.prod([shape[a] for a in axes])) + (start is not None)
    radius = radius + gamma(max(count - 1, 0), rules) * size + count * flushed(value, rules)
    return Ball(value, within(radius, size, rules), rules)


def argument(x: Ball, error: float) -> Real:
    """The radius of an x that is put into eˣ; a relative error of eˣ is a shift of x."""
    return x.radius + gamma(x.rules.base_2, x.rules) * x.largest + gamma(error, x.rules)


def exp(z: Ball) -> Ball:
    """|e^{z+r} − eᶻ| ≤ e^{Re z}(e^{|r|} − 1) (ROUND-8)."""
    x, rules = z.value.real, z.rules
    r = argument(z, rules.elementary + (rules.trigonometric + 1 if z.is_complex else 0))
    return rounded(np.exp(z.value), np.where(r < 1, np.exp(x) * np.expm1(r), np.exp(x + r)), 0, rules)


def softplus(x: Ball) -> Ball:
    """log(1 + eˣ), whose slope is σ(x) (ROUND-9)."""
    rules, r = x.rules, argument(x, x.rules.elementary)
    spread = r * sigmoid(x.value + r) + gamma(rules.softplus, rules)
    return rounded(np.logaddexp(0, x.value), spread, rules.elementary + 1, rules)


def sigma(x: Ball, sign: int = 1) -> Ball:
    """σ(±x). Its slope σ(x)σ(−x) changes by a factor of eʳ at most over a distance r (ROUND-9)."""
    value, r = sign * x.value, argument(x, x.rules.elementary)
    s = sigmoid(value)
    near = r * np.exp(r) * s * sigmoid(-value)
    far = np.maximum(sigmoid(value + r) - s, s - sigmoid(value - r))
    return rounded(s, np.where(r < 1, near, far), 1 + x.rules.division, x.rules)


def dsilu(x: Ball) -> Ball:
    """σ(x)(1 + x σ(−x)); σ(−x) may be 1 − σ(x), and σ(x) multiplied in before or after the sum."""
    rules, s, other = x.rules, sigma(x), sigma(x, -1)
    other = Ball(other.value, np.maximum(other.radius, s.radius + gamma(1, rules)), rules)
    inner = product(x, other)
    return product(s, rounded(1 + inner.value, inner.radius + gamma(1, rules) * inner.largest, 1, rules))


def phi(z: Ball) -> tuple[Ball, Ball]:
    """φ₁ and φ₁′. At z their slopes are at most φ₁′ and φ₁″ at Re z, being ∫ sᵏ e^{sz} ds (ROUND-9).

    The closed forms (eᶻ − 1)/z and (eᶻ − φ₁)/z have the errors of their terms, over |z| or, in the unit disc, over 1,
    and overflow with eᶻ.
    """
    rules, x, r = z.rules, z.value.real, argument(z, 0)
    away, p = np.maximum(np.abs(z.value), 1), phi1(z.value)
    quotient = COMPLEX_QUOTIENT if z.is_complex else rules.division
    each = rules.elementary + quotient + 1
    p_size = (1 + np.exp(x)) / away if z.is_complex else p
    dp_size = (np.exp(x) + phi1(x)) / away
    p_spread, dp_spread = (
        within(spread, np.exp(x + r), rules)
        for spread in (
            r * dphi1(x + r) + gamma(each, rules) * p_size,
            r * d2phi1(x + r) + gamma(2 * each, rules) * dp_size,
        )
    )
    return rounded(p, p_spread, 0, rules), rounded(dphi1(z.value), dp_spread, 0, rules)


def bilinear(z: Ball) -> tuple[Ball, Ball]:
    """α = (1 + z/2)/(1 − z/2) and p = 1/(1 − z/2). As α = 2p − 1, its slope is twice that of p (ROUND-9).

    For a large z, α may be (1/z + ½)/(1/z − ½), where z is rounded once more.
    """
    rules, half, below = z.rules, z.scaled(0.5), 1 - z.value / 2
    size = np.abs(below)
    quotient = COMPLEX_QUOTIENT if z.is_complex else rules.division
    alpha_change = _change_of_reciprocal(size, half.radius + gamma(quotient, rules) * half.largest)
    roundings = gamma(quotient + 2, rules) * (1 + half.largest) * (1 / size + alpha_change)
    return (
        rounded(2 / below - 1, 2 * alpha_change + roundings, 0, rules),
        rounded(1 / below, _change_of_reciprocal(size, half.radius), quotient + 1, rules),
    )


def _change_of_reciprocal(size: Real, off: Real) -> Real:
    """The most by which 1/x differs from that of what is at most so far off an x of this size."""
    nearest = size - off
    return np.where(nearest > 0, off / (size * nearest), np.inf)
