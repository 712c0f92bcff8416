"""The φ functions of exponential integrators, φ₁(z) = (eᶻ − 1)/z and its kin, without cancellation.

    φ₁(z) = ∫₀¹ e^{sz} ds,   φ₂(z) = ∫₀¹ (1−s) e^{sz} ds,   φ₁′(z) = ∫₀¹ s e^{sz} ds

Elementwise on float32, float64, complex64 and complex128 arrays, dtype kept. The closed forms subtract nearly
equal numbers near z = 0, so inside the unit disc all but φ₁ are summed as power series. Claims PHI-1 to PHI-4.

Source: Hochbruck & Ostermann 2010, §2.1.
"""

from __future__ import annotations

from collections.abc import Callable
from math import factorial
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Inexact

if TYPE_CHECKING:
    Array = np.ndarray
else:  # NumPy's operators turn 0-d arrays into scalars
    Array = Inexact[np.ndarray | np.generic, "..."]

# The first term left out, z¹⁹/20! at most, is below half an ulp of float64 on the unit disc.
TERMS = range(19)


def phi1(z: Array) -> Array:
    """φ₁(z) = (eᶻ − 1)/z, with φ₁(0) = 1."""
    with np.errstate(over="ignore"):
        result = np.asarray(np.expm1(z))
    # a complex division by a subnormal number overflows on its way; φ₁ is 1 there to the last digit
    vanishing = np.abs(z) < np.finfo(z.dtype).smallest_normal
    divisor = z
    if z.dtype.kind == "c":  # nor may it overflow on its way by a large one, where eᶻ is nearly too large itself
        scale = np.where(np.abs(z) > 1, z.real.dtype.type(0.25), z.real.dtype.type(1))
        result, divisor = np.asarray(result * scale), z * scale
    np.divide(result, divisor, out=result, where=~vanishing & (z != np.inf))
    if np.any(vanishing):
        result[vanishing] = 1
    return result


def _series_inside(
    coefficients: list[float],
) -> Callable[[Callable[[Array], Array]], Callable[[Array], Array]]:
    """Take the power series for |z| < 1 and the decorated closed form elsewhere."""

    def decorate(closed: Callable[[Array], Array]) -> Callable[[Array], Array]:
        def evaluate(z: Array) -> Array:
            inside = np.abs(z) < 1
            result = np.full_like(z, coefficients[-1])
            small = np.where(inside, z, 0)
            for c in coefficients[-2::-1]:
                result = result * small + c
            if not inside.all():
                far = np.where(inside, 2, z).astype(z.dtype)
                with np.errstate(over="ignore", invalid="ignore"):
                    growth, value = np.exp(far), closed(far)
                    # where eᶻ overflows, so do all of these
                    result = np.where(inside, result, np.where(np.isinf(growth), growth, value))
            return result

        evaluate.__doc__ = closed.__doc__
        evaluate.__name__ = closed.__name__
        return evaluate

    return decorate


@_series_inside([1 / factorial(k + 2) for k in TERMS])
def phi2(z: Array) -> Array:
    """φ₂(z) = (φ₁(z) − 1)/z, with φ₂(0) = 1/2."""
    return (phi1(z) - 1) / z


@_series_inside([(k + 1) / factorial(k + 2) for k in TERMS])
def dphi1(z: Array) -> Array:
    """φ₁′(z) = (eᶻ − φ₁(z))/z = φ₁(z) − φ₂(z), with φ₁′(0) = 1/2."""
    return (np.exp(z) - phi1(z)) / z


@_series_inside([(k + 1) / factorial(k + 3) for k in TERMS])
def dphi2(z: Array) -> Array:
    """φ₂′(z) = (φ₁′(z) − φ₂(z))/z, with φ₂′(0) = 1/6."""
    return (dphi1(z) - phi2(z)) / z


@_series_inside([(k + 1) * (k + 2) / factorial(k + 3) for k in TERMS])
def d2phi1(z: Array) -> Array:
    """φ₁″(z) = (eᶻ − 2φ₁′(z))/z, with φ₁″(0) = 1/3."""
    return (np.exp(z) - 2 * dphi1(z)) / z
