"""exp, φ₁, softplus and σ that LLVM can vectorise: no branch, no call, real float32 or float64.

`math.exp` is a library call, one number at a time, and a scan is nothing but exponentials. Here eˣ is 2ⁿ·(1 + r φ₁(r))
with x = n ln 2 + r, |r| ≤ ln 2/2, and φ₁(r) a polynomial; the same polynomial gives φ₁(x) without cancellation (claim
PHI-3). Each function is also defined for complex arguments, in plain scalar code. Errors: tests/test_vector_math.py.

(`no_type_check` keeps a run-time type checker from wrapping what Numba has to compile.)
"""

from __future__ import annotations

import cmath
from collections.abc import Callable
from math import factorial
from typing import Any, no_type_check

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload, register_jitable

FLAGS = {"contract"}  # a·b + c may be one rounding; nothing else is let loose, NaN and inf least of all
INLINE = {"fastmath": FLAGS, "forceinline": True}

# φ₁(r) = Σ rᵏ/(k+1)! on |r| ≤ 0.35: the first term left out is below half an ulp
PHI1 = {32: [1 / factorial(k + 1) for k in range(8)], 64: [1 / factorial(k + 1) for k in range(14)]}
DPHI1 = {32: [(k + 1) / factorial(k + 2) for k in range(8)], 64: [(k + 1) / factorial(k + 2) for k in range(14)]}
# log(1 + w) = 2s·Σ s²ᵏ/(2k+1), s = w/(2 + w) ≤ 1/3 for w ≤ 1
ATANH = {32: [1 / (2 * k + 1) for k in range(8)], 64: [1 / (2 * k + 1) for k in range(17)]}
LOG2_E = 1.4426950408889634
LN2 = {32: (0.693359375, -2.1219444005469057e-4), 64: (0.693145751953125, 1.4286068203094172e-6)}
# adding 1.5·2^mantissa to a number leaves its nearest integer in the low bits
MAGIC = {32: 1.5 * 2**23, 64: 1.5 * 2**52}
# eˣ is 0 below and inf above: clamping there keeps 2ⁿ within two representable factors
RANGE = {32: (-104.0, 89.0), 64: (-746.0, 710.0)}


def _width(x: Any) -> int | None:
    return x.bitwidth if isinstance(x, types.Float) else None


@no_type_check
def _polynomial(coefficients: dict[int, list[float]]) -> Any:
    """Horner's rule as straight-line code, so that the loop around it can be vectorised."""

    @intrinsic
    def evaluate(typingctx: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            (value,) = arguments
            constants = [ir.Constant(value.type, c) for c in coefficients[x.bitwidth]]
            result = constants[-1]
            for constant in constants[-2::-1]:
                product = builder.fmul(result, value, flags=("contract",))
                result = builder.fadd(product, constant, flags=("contract",))
            return result

        return x(x), codegen

    return evaluate


_phi1_near, _dphi1_near, _atanh_series = _polynomial(PHI1), _polynomial(DPHI1), _polynomial(ATANH)


@no_type_check
@intrinsic
def _times_power_of_two(typingctx: Any, x: Any, shifted: Any) -> Any:
    """x·2ⁿ, where `shifted` is MAGIC + n: in two factors, so that subnormal results come out right."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, float_n = arguments
        mantissa = 23 if x.bitwidth == 32 else 52
        integer = ir.IntType(x.bitwidth)
        bias = ir.Constant(integer, 127 if x.bitwidth == 32 else 1023)
        zero = builder.bitcast(ir.Constant(value.type, MAGIC[x.bitwidth]), integer)
        n = builder.sub(builder.bitcast(float_n, integer), zero)
        half = builder.ashr(n, ir.Constant(integer, 1))
        for power in (half, builder.sub(n, half)):
            bits = builder.shl(builder.add(power, bias), ir.Constant(integer, mantissa))
            value = builder.fmul(value, builder.bitcast(bits, value.type))
        return value

    return x(x, shifted), codegen


def _constants(width: int) -> tuple[Any, ...]:
    real: Callable[[float], Any] = np.float32 if width == 32 else np.float64
    return tuple(real(c) for c in (LOG2_E, MAGIC[width], *LN2[width], *RANGE[width], 0, 1, 2))


def exp(x: Any) -> Any: ...
def exp_phi1(x: Any) -> Any: ...
def dphi1(x: Any, exp_x: Any, phi1_x: Any) -> Any: ...
def softplus(x: Any) -> Any: ...
def sigmoid(x: Any) -> Any: ...
def conj(x: Any) -> Any: ...


@no_type_check
@overload(exp, jit_options=INLINE)
def _exp(x: Any) -> Any:
    """eˣ."""
    if isinstance(x, types.Complex):
        return _complex_exp
    if _width(x) is None:
        return None
    log2_e, magic, ln2_high, ln2_low, lowest, highest, _, one, _ = _constants(x.bitwidth)

    def implementation(x: Any) -> Any:
        x = lowest if x < lowest else x  # in this order NaN stays NaN
        x = highest if x > highest else x
        shifted = x * log2_e + magic
        n = shifted - magic
        r = (x - n * ln2_high) - n * ln2_low
        return _times_power_of_two(one + r * _phi1_near(r), shifted)

    return implementation


@no_type_check
@overload(exp_phi1, jit_options=INLINE)
def _exp_phi1(x: Any) -> Any:
    """(eˣ, φ₁(x)): the polynomial itself where x = r, else (eˣ − 1)/x, which loses two bits at most."""
    if isinstance(x, types.Complex):
        return _complex_exp_phi1
    if _width(x) is None:
        return None
    log2_e, magic, ln2_high, ln2_low, lowest, highest, zero, one, _ = _constants(x.bitwidth)

    def implementation(x: Any) -> Any:
        y = lowest if x < lowest else x
        y = highest if y > highest else y
        shifted = y * log2_e + magic
        n = shifted - magic
        r = (y - n * ln2_high) - n * ln2_low
        phi = _phi1_near(r)
        e = _times_power_of_two(one + r * phi, shifted)
        near = n == zero
        return e, phi if near else (e - one) / (one if near else x)

    return implementation


@no_type_check
@overload(dphi1, jit_options=INLINE)
def _dphi1(x: Any, exp_x: Any, phi1_x: Any) -> Any:
    """φ₁′(x) = (eˣ − φ₁(x))/x, near 0 its power series (claims PHI-2 and PHI-3)."""
    if isinstance(x, types.Complex):
        return _complex_dphi1
    if _width(x) is None:
        return None
    *_, one, _ = _constants(x.bitwidth)
    edge = type(one)(0.35)

    def implementation(x: Any, exp_x: Any, phi1_x: Any) -> Any:
        near = abs(x) < edge
        inside = x if near else edge
        return _dphi1_near(inside) if near else (exp_x - phi1_x) / (one if near else x)

    return implementation


@no_type_check
@register_jitable
def _itself(x: Any) -> Any:
    return x


@no_type_check
@register_jitable
def _complex_conj(x: Any) -> Any:
    return x.conjugate()


@no_type_check
@register_jitable
def _complex_exp(x: Any) -> Any:
    return cmath.exp(x)


@no_type_check
@register_jitable
def _complex_exp_phi1(x: Any) -> Any:
    e = cmath.exp(x)
    if abs(x) > 0.5:
        return e, (e - 1) / x
    term = x * 0 + 1
    total = term
    for k in range(2, 20):
        term = term * x / k
        total = total + term
    return e, total


@no_type_check
@register_jitable
def _complex_dphi1(x: Any, exp_x: Any, phi1_x: Any) -> Any:
    if abs(x) > 0.5:
        return (exp_x - phi1_x) / x
    term = x * 0 + 1
    total = term / 2
    for k in range(1, 20):
        term = term * x / k
        total = total + term / (k + 2)
    return total


@no_type_check
@overload(softplus, jit_options=INLINE)
def _softplus(x: Any) -> Any:
    """log(1 + eˣ) = max(x, 0) + log(1 + e^{−|x|}), for every x."""
    if _width(x) is None:
        return None
    *_, zero, _, two = _constants(x.bitwidth)

    def implementation(x: Any) -> Any:
        w = exp(-abs(x))
        s = w / (two + w)
        return (zero if x < zero else x) + two * s * _atanh_series(s * s)

    return implementation


@no_type_check
@overload(sigmoid, jit_options=INLINE)
def _sigmoid(x: Any) -> Any:
    """1/(1 + e⁻ˣ), to full relative accuracy in both tails."""
    if _width(x) is None:
        return None
    *_, zero, one, _ = _constants(x.bitwidth)

    def implementation(x: Any) -> Any:
        w = exp(-abs(x))
        return (w if x < zero else one) / (one + w)

    return implementation


@no_type_check
@overload(conj)
def _conj(x: Any) -> Any:
    return _complex_conj if isinstance(x, types.Complex) else _itself
