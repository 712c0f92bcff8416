"""The WKV operator of RWKV-4 in four forms: as a softmax, as two plain SSMs, stable, and as a scan of the stable form.

Keys are exponents, so that the two SSMs overflow at k = 710. The stable form carries p, the largest exponent so far,
and a and b for the sums e^p a and e^p b; such triples compose, and scan in parallel as well (ATT-19 to ATT-22).
w and u are (width,), k and v (length, width). Source: RWKV-4, §3.1, on the WKV operator.
"""

from __future__ import annotations

import numpy as np

from ssm_edu.atlas._common import Reals, Sequence, Token, scan_named, shift
from ssm_edu.scan import Elements, prefixes

Sums = tuple[Reals, Reals, Reals]
"""(p, a, b) for the numerator e^p a and the denominator e^p b."""


def wkv_attention(w: Token, u: Token, k: Sequence, v: Sequence) -> Sequence:
    """wkv as it is defined: for each channel a softmax over the past, without a query."""
    t = np.arange(len(k))[:, None, None]
    i = t.swapaxes(0, 1)
    exponents = np.where(i < t, k - (t - 1 - i) * w, np.where(i == t, k + u, -np.inf))
    weights = np.exp(exponents - exponents.max(axis=1, keepdims=True))
    return np.einsum("tid,id->td", weights, v) / weights.sum(axis=1)


def wkv_naive(w: Token, u: Token, k: Sequence, v: Sequence) -> Sequence:
    """wkv by the two SSMs as they stand: NaN once a key exceeds 709 (ATT-16, ATT-20)."""
    wkv, numerator, denominator = np.empty(v.shape), np.zeros(len(w)), np.zeros(len(w))
    for t in range(len(k)):
        now = np.exp(u + k[t])
        wkv[t] = (numerator + now * v[t]) / (denominator + now)
        numerator = np.exp(-w) * numerator + np.exp(k[t]) * v[t]
        denominator = np.exp(-w) * denominator + np.exp(k[t])
    return wkv


def add(one: Sums, other: Sums) -> Sums:
    """The sum of both, on the larger of their exponents."""
    p1, a1, b1 = one
    p2, a2, b2 = other
    p = np.maximum(p1, p2)
    weight1, weight2 = np.exp(p1 - p), np.exp(p2 - p)
    return p, weight1 * a1 + weight2 * a2, weight1 * b1 + weight2 * b2


def read(sums: Sums, u: Token, k: Reals, v: Reals) -> Reals:
    """wkv_t from the sums before t: WKV reads before it writes, and gives the present token e^u of its weight."""
    _, a, b = add(sums, (u + k, v, np.ones_like(v)))
    return a / b


def combine(second: Elements, first: Elements) -> Elements:
    """(ℓ₂, s₂)∘(ℓ₁, s₁) = (ℓ₂ + ℓ₁, e^{ℓ₂} s₁ + s₂), for the map s ↦ e^ℓ s + s₁ of sums s (ATT-22)."""
    fade2, sums2 = second[0], (second[1], second[2], second[3])
    return fade2 + first[0], *add((fade2 + first[1], first[2], first[3]), sums2)


def wkv_scan(w: Token, u: Token, k: Sequence, v: Sequence, scan: str = "blelloch") -> Sequence:
    """wkv by a parallel scan of the stable form."""
    p, a, b = shift(k, 1), shift(v, 1), shift(np.ones_like(v), 1)
    p[0] = -np.inf
    steps = (np.broadcast_to(-w[:, None], k.T.shape), p.T, a.T, b.T)
    _, *sums = prefixes(scan_named(scan).rounds(len(k)), steps, combine)
    return read((sums[0].T, sums[1].T, sums[2].T), u, k, v)
