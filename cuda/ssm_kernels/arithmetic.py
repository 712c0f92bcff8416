"""The formulas of a kernel's inner loops as device functions, for one precision, real or complex.

In float32 eˣ is `ex2.approx` of x·log₂e, two instructions; in float64 it is libdevice's. A complex eᶻ turns by its
fraction of a turn, so no angle is large. None loses small results: softplus goes by log(1 + w) = w·p(w), φ₁ by its
series near 0 (claims PHI-1 and PHI-3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from math import factorial
from typing import Any, no_type_check

import numpy as np

from ssm_kernels._target import SIMULATED, jit, types
from ssm_kernels.intrinsics import exp2, reciprocal

Device = Any  # a device function


@no_type_check
def inline(function: Any) -> Device:
    return jit(device=True, forceinline=True)(function)


if SIMULATED:
    exp64 = np.exp  # Python's raises where it overflows
else:

    @inline
    def exp64(x: Any) -> Any:
        return math.exp(x)


# beyond it φ₁(z) = (eᶻ − 1)/z loses at most two bits
EDGE = 0.7


@dataclass(frozen=True)
class Arithmetic:
    """Device functions of real x, and of z real or complex.

    Attributes:
        real, number: the NumPy types of real numbers and of states.
        real_type, number_type: Numba's.
        softplus, sigmoid: of x. softplus_and_slope: both, by one exponential.
        prepared: a → what `decay` takes for it.
        decay: (Δ, prepared a) → e^{Δa}.
        exp: eᶻ.
        zoh: z → (eᶻ, φ₁(z)). zoh_slopes: (z, eᶻ, φ₁) → α′, p′ and (zp)′.
        bilinear: z → ((1 + z/2)p, p), p = 1/(1 − z/2). bilinear_slopes: (z, α, p) → α′, p′ and (zp)′.
        conj, re: of z.
    """

    real: Any
    number: Any
    real_type: Any
    number_type: Any
    softplus: Device
    sigmoid: Device
    softplus_and_slope: Device
    prepared: Device
    decay: Device
    exp: Device
    zoh: Device
    zoh_slopes: Device
    bilinear: Device
    bilinear_slopes: Device
    conj: Device
    re: Device


def log1p_coefficients(degree: int) -> list[float]:
    """Of the polynomial that meets log(1 + w)/w at the Chebyshev points of [0, 1], constant first."""
    series = np.polynomial.Chebyshev.interpolate(lambda w: np.log1p(w) / w, degree, domain=[0, 1])
    return [float(c) for c in series.convert(kind=np.polynomial.Polynomial).coef]


@no_type_check
def polynomial(coefficients: list[float], real: Any) -> Device:
    """Horner's rule, constant coefficient first."""
    terms = tuple(real(c) for c in coefficients[::-1])
    count = len(terms)

    @inline
    def evaluate(x):
        total = terms[0]
        for k in range(1, count):
            total = total * x + terms[k]
        return total

    return evaluate


@no_type_check
@cache
def arithmetic(precision: str, is_complex: bool) -> Arithmetic:
    """For `float32` or `float64`."""
    single = precision == "float32"
    real = np.float32 if single else np.float64
    zero, one, half = real(0), real(1), real(0.5)
    log2_e, edge = real(math.log2(math.e)), real(EDGE)
    # the first terms left out are below half an ulp for |z| ≤ EDGE
    terms = 10 if single else 18
    phi1_near = polynomial([1 / factorial(k + 1) for k in range(terms)], real)
    dphi1_near = polynomial([(k + 1) / factorial(k + 2) for k in range(terms)], real)

    if single:
        log1p_quotient = polynomial(log1p_coefficients(9), real)

        @inline
        def real_exp(x):
            return exp2(x * log2_e)

        @inline
        def log1p(w):
            return w * log1p_quotient(w)

        @inline
        def inverse(x):
            return reciprocal(x)

        @inline
        def real_prepared(a):
            return a * log2_e

        @inline
        def real_decay(delta, a):
            return exp2(delta * a)
    else:

        @inline
        def real_exp(x):
            return real(exp64(x))

        @inline
        def log1p(w):
            return real(math.log1p(w))

        @inline
        def inverse(x):
            return one / x

        @inline
        def real_prepared(a):
            return a

        @inline
        def real_decay(delta, a):
            return real(exp64(delta * a))

    @inline
    def softplus(x):
        """log(1 + eˣ) = max(x, 0) + log(1 + e^{−|x|}), for every x."""
        return max(x, zero) + log1p(real_exp(-abs(x)))

    @inline
    def sigmoid(x):
        return inverse(one + real_exp(-x))

    @inline
    def softplus_and_slope(x):
        w = real_exp(-abs(x))
        p = inverse(one + w)
        return max(x, zero) + log1p(w), p if x >= zero else w * p

    if is_complex:
        number = complex_functions(real, real_exp, inverse, phi1_near, dphi1_near)
    else:

        @inline
        def real_zoh(z):
            e = real_exp(z)
            near = abs(z) < edge
            return e, phi1_near(z if near else zero) if near else (e - one) * inverse(one if near else z)

        @inline
        def real_dphi1(z, e, p):
            near = abs(z) < edge
            return dphi1_near(z if near else zero) if near else (e - p) * inverse(one if near else z)

        @inline
        def real_inverse(z):
            return one / z

        @inline
        def itself(z):
            return z

        number = {
            "number": real,
            "prepared": real_prepared,
            "decay": real_decay,
            "exp": real_exp,
            "zoh": real_zoh,
            "dphi1": real_dphi1,
            "quotient": real_inverse,
            "conj": itself,
            "re": itself,
        }

    quotient, dphi1, unit = number.pop("quotient"), number.pop("dphi1"), number["number"](1)

    @inline
    def zoh_slopes(z, e, p):
        return e, dphi1(z, e, p), e

    @inline
    def bilinear(z):
        p = quotient(unit - half * z)
        return (unit + half * z) * p, p

    @inline
    def bilinear_slopes(z, alpha, p):
        square = p * p
        return square, half * square, square

    types_of = {np.float32: types.float32, np.float64: types.float64}
    types_of |= {np.complex64: types.complex64, np.complex128: types.complex128}
    return Arithmetic(
        real=real,
        real_type=types_of[real],
        number_type=types_of[number["number"]],
        softplus=softplus,
        sigmoid=sigmoid,
        softplus_and_slope=softplus_and_slope,
        zoh_slopes=zoh_slopes,
        bilinear=bilinear,
        bilinear_slopes=bilinear_slopes,
        **number,
    )


@no_type_check
def complex_functions(real: Any, real_exp: Device, inverse: Device, phi1_near: Device, dphi1_near: Device) -> Any:
    """The complex half of :func:`arithmetic`."""
    number = np.complex64 if real is np.float32 else np.complex128
    one, half, quarter = real(1), real(0.5), real(0.25)
    turn, per_turn, four, edge = real(2 * math.pi), real(0.5 / math.pi), real(4), real(EDGE)
    terms = 6 if real is np.float32 else 9  # |x| ≤ π/4
    sine = polynomial([(-1) ** k / factorial(2 * k + 1) for k in range(terms)], real)
    cosine = polynomial([(-1) ** k / factorial(2 * k) for k in range(terms + 1)], real)
    origin, unit = number(0), number(1)

    @inline
    def cis(turns):
        """cos and sin of 2π·turns, by the nearest quarter turn."""
        fraction = turns - math.floor(turns + half)
        quarters = math.floor(four * fraction + half)
        x = turn * real(fraction - quarter * quarters)
        s, c = x * sine(x * x), cosine(x * x)
        if quarters == 1:
            return -s, c
        if quarters == -1:
            return s, -c
        if quarters == 0:
            return c, s
        return -c, -s

    @inline
    def prepared(a):
        return number(complex(a.real, a.imag * per_turn))

    @inline
    def decay(delta, a):
        size = real_exp(delta * a.real)
        c, s = cis(delta * a.imag)
        return number(complex(size * c, size * s))

    @inline
    def exp(z):
        size = real_exp(z.real)
        c, s = cis(z.imag * per_turn)
        return number(complex(size * c, size * s))

    @inline
    def quotient(z):
        """1/z, scaled by the larger part so that |z|² neither overflows nor vanishes."""
        scale = max(abs(z.real), abs(z.imag))
        re, im = z.real / scale, z.imag / scale
        size = one / ((re * re + im * im) * scale)
        return number(complex(re * size, -im * size))

    @inline
    def zoh(z):
        e = exp(z)
        near = abs(z.real) + abs(z.imag) < edge
        inside = z if near else origin
        return e, phi1_near(inside) if near else (e - unit) * quotient(unit if near else z)

    @inline
    def dphi1(z, e, p):
        near = abs(z.real) + abs(z.imag) < edge
        inside = z if near else origin
        return dphi1_near(inside) if near else (e - p) * quotient(unit if near else z)

    @inline
    def conj(z):
        return number(complex(z.real, -z.imag))

    @inline
    def re(z):
        return z.real

    return {
        "number": number,
        "prepared": prepared,
        "decay": decay,
        "exp": exp,
        "zoh": zoh,
        "dphi1": dphi1,
        "quotient": quotient,
        "conj": conj,
        "re": re,
    }
