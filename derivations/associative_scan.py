# %% [markdown]
# # The associative scan
#
# $h_t = a_t h_{t-1} + b_t$ looks hopelessly sequential: each state waits for the one before it. Article 1, §4
# says why it is not. The step is *linear* in $h$, steps compose to steps, composition is associative, and a product
# of associative factors may be bracketed as one likes, in parallel. This is the whole argument, made to run.

# %%
from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import sympy as sp

from ssm_edu.derivations import load
from ssm_edu.ledger import Work, claim, run_as_script
from ssm_edu.scan import (
    IDENTITY,
    SCANS,
    Scan,
    chunked_by,
    combine,
    decay_combine,
    prefixes,
    rounding_bound,
    sequential,
)

ORDERS = load("discretisation_error")
positive_from_zero = ORDERS.positive_from_zero
h = sp.Symbol("h")
a1, a2, a3, b1, b2, b3 = sp.symbols("a1:4 b1:4")


def after(step: tuple[Any, Any], state: Any) -> Any:
    """The state after a step (a, b): a·state + b."""
    return step[0] * state + step[1]


# %% [markdown]
# ## The monoid of affine maps
#
# Write the step $h \mapsto a h + b$ as the pair $(a, b)$. First step 1, then step 2:
# $$a_2(a_1 h + b_1) + b_2 = (a_2 a_1)\,h + (a_2 b_1 + b_2),$$
# a step again. So pairs multiply: $(a_2, b_2)\circ(a_1, b_1) = (a_2 a_1,\ a_2 b_1 + b_2)$. In the code this is
# `combine(second, first)`: what acts first stands on the right, as with matrices.


# %%
@claim(
    "SCAN-1",
    r"a_2(a_1h+b_1)+b_2=a\,h+b\ \text{ with }\ (a,b)=(a_2,b_2)\circ(a_1,b_1)=(a_2a_1,\,a_2b_1+b_2)",
    source="Blelloch 1990; Martin & Cundy 2018",
    method="symbolic",
    declared="proved",
)
def composition(work: Work) -> None:
    """Two steps are one step"""
    both = combine((a2, b2), (a1, b1))
    work.show("the pair of step 2 after step 1", sp.Matrix([both]))
    work.equal(after((a2, b2), after((a1, b1), h)), after(both, h), "applied one after the other, and at once")


@claim(
    "SCAN-2",
    r"(x_3\circ x_2)\circ x_1=x_3\circ(x_2\circ x_1)",
    source="Blelloch 1990; Article 1, §4",
    method="symbolic",
    declared="proved",
)
def associativity(work: Work) -> None:
    """Composition of steps is associative"""
    x1, x2, x3 = (a1, b1), (a2, b2), (a3, b3)
    left, right = combine(combine(x3, x2), x1), combine(x3, combine(x2, x1))
    work.equal(left[0], right[0], "the factors")
    work.equal(left[1], right[1], "the offsets")


@claim(
    "SCAN-3",
    r"(x_3\circ x_2)\circ x_1=x_3\circ(x_2\circ x_1)\ \text{ for matrices } a_i \text{ and vectors } b_i",
    source="S5; Blelloch 1990",
    method="symbolic",
    declared="proved",
)
def associativity_of_matrices(work: Work) -> None:
    """It stays associative for matrices, which do not commute"""

    def step(k: int) -> tuple[sp.Matrix, sp.Matrix]:
        return sp.Matrix(2, 2, sp.symbols(f"p{k} q{k} r{k} s{k}")), sp.Matrix(sp.symbols(f"v{k} w{k}"))

    def product(second: Any, first: Any) -> tuple[Any, Any]:
        return second[0] @ first[0], second[0] @ first[1] + second[1]

    x1, x2, x3 = step(1), step(2), step(3)
    left, right = product(product(x3, x2), x1), product(x3, product(x2, x1))
    work.equal(left[0].expand(), right[0].expand())
    work.equal(left[1].expand(), right[1].expand(), "2×2 matrices: the offsets")
    n = [sp.symbols(f"A{k} B{k}", commutative=False) for k in (1, 2, 3)]
    left, right = combine(combine(n[2], n[1]), n[0]), combine(n[2], combine(n[1], n[0]))
    work.equal(left[0], right[0])
    work.equal(left[1], right[1], "any ring, no two of whose elements need commute")


@claim("SCAN-4", r"(1,0)\circ x=x=x\circ(1,0)", source="Blelloch 1990", method="symbolic", declared="proved")
def identity(work: Work) -> None:
    """The step that changes nothing"""
    x = (a1, b1)
    for product in (combine(IDENTITY, x), combine(x, IDENTITY)):
        work.equal(sp.nsimplify(product[0]), a1)
        work.equal(sp.nsimplify(product[1]), b1)


# %% [markdown]
# Associative is not commutative. Decay, then write, is not write, then decay. When do two steps commute? Where
# $a \ne 1$, a step has the fixed point $b/(1-a)$, and the answer is: when they have the same one.


# %%
@claim(
    "SCAN-5",
    r"x_2\circ x_1=x_1\circ x_2",
    source="Blelloch 1990 (a common belief, where it asks for associativity alone)",
    method="symbolic",
    declared="refuted",
    corrected_by="SCAN-6",
)
def commutativity(work: Work) -> None:
    """“The order does not matter”"""
    work.equal(combine((a2, b2), (a1, b1))[1], combine((a1, b1), (a2, b2))[1], "the offsets, both ways round")


@claim(
    "SCAN-6",
    r"x_2\circ x_1=x_1\circ x_2\iff(a_2-1)\,b_1=(a_1-1)\,b_2",
    source="Blelloch 1990",
    method="symbolic",
    declared="proved",
)
def commuting_steps(work: Work) -> None:
    """Steps commute when they share a fixed point"""
    one, other = combine((a2, b2), (a1, b1)), combine((a1, b1), (a2, b2))
    work.equal(one[0], other[0], "the factors always agree")
    work.equal(one[1] - other[1], (a2 - 1) * b1 - (a1 - 1) * b2, "the offsets differ by")
    fixed = b1 / (1 - a1)
    work.equal(after((a1, b1), fixed), fixed, "the fixed point")
    work.equal(combine((a1, b1), (a2, fixed * (1 - a2)))[1], combine((a2, fixed * (1 - a2)), (a1, b1))[1])


@claim(
    "SCAN-7",
    r"x^{-1}=(1/a,\,-b/a)\ \text{ if } a\neq0;\quad(a_2,b_2)\circ(0,b)=(0,\cdot)\neq(1,0)",
    source="Blelloch 1990",
    method="symbolic",
    declared="proved",
)
def inverses(work: Work) -> None:
    """A step can be undone unless it forgets everything"""
    inverse = (1 / a1, -b1 / a1)
    for product in (combine(inverse, (a1, b1)), combine((a1, b1), inverse)):
        work.equal(product[0], 1)
        work.equal(product[1], 0)
    work.equal(combine((a2, b2), (0, b1))[0], 0, "whatever follows a step with a = 0, the factor stays 0")


# %% [markdown]
# ## Prefix products are the states
#
# Let $x_t = (a_t, b_t)$. The recurrence asks for the products $x_t\circ\dots\circ x_1$ for *every* $t$: a scan. The
# initial state comes in as the constant map $(0, h_0)$, which forgets whatever was there before.


# %%
def symbolic_steps(length: int) -> tuple[np.ndarray, np.ndarray]:
    names = [sp.symbols(f"{letter}1:{length + 1}") for letter in "ab"]
    return np.array(names[0], dtype=object), np.array(names[1], dtype=object)


@claim(
    "SCAN-8",
    r"x_t\circ\dots\circ x_1\circ(0,h_0)=(0,h_t),\quad "
    r"h_t=\sum_{s\le t}\Big(\prod_{r=s+1}^{t}a_r\Big)b_s+\prod_{r=1}^{t}a_r\,h_0",
    source="Blelloch 1990; Mamba, §3.3.2",
    method="symbolic",
    declared="proved",
)
def prefixes_are_states(work: Work) -> None:
    """The prefix products are the states"""
    a_t, b_t, before, P = sp.symbols("a_t b_t h_{t-1} P")
    step = combine((a_t, b_t), (P, before))
    work.equal(step[1], a_t * before + b_t, "induction: one more factor is one more step")
    work.equal(combine((a_t, b_t), (0, before))[0], 0, "after a constant map, a constant map")
    for length in range(1, 7):
        a, b = symbolic_steps(length)
        start = combine((a[:1], b[:1]), (np.array([0]), np.array([h])))
        elements = tuple(np.concatenate([first, rest]) for first, rest in zip(start, (a[1:], b[1:]), strict=True))
        unrolled = [
            sum(sp.prod(a[s + 1 : t + 1]) * b[s] for s in range(t + 1)) + sp.prod(a[: t + 1]) * h for t in range(length)
        ]
        for scan in (*SCANS.values(), chunked_by(2), chunked_by(3)):
            states = prefixes(scan.rounds(length), elements, combine)[1]
            work.equal(sp.Matrix(states).expand(), sp.Matrix(unrolled).expand())
    work.summary("the induction step, and every scan on symbols for lengths 1 to 6")


# %% [markdown]
# ## A scan is a way of bracketing
#
# `ssm_edu.scan` writes a scan as a list of *rounds*; in each, some positions absorb earlier ones, all at once.
# A scan never looks at what it combines, so one instrumented monoid tells everything about it. Let an element be an
# interval $[s, e)$, two of which may be combined only if the first ends where the second begins. Intervals are the
# words $x_s\dots x_{e-1}$ of the free monoid: *a scan that is right on words is right in every monoid*. Let them also
# carry the longest chain of combines behind them, and count the combines as they happen.


# %%
def trace(scan: Scan, length: int) -> tuple[bool, int, int]:
    """Whether the scan yields all prefixes in order, the combines it takes, and the longest chain of them."""
    work, in_order = 0, True

    def join(second: Any, first: Any) -> tuple[Any, ...]:
        nonlocal work, in_order
        work += second[0].size
        in_order &= bool(np.all(first[1] == second[0]))
        return first[0], second[1], np.maximum(first[2], second[2]) + 1

    t = np.arange(length)
    start, end, depth = prefixes(scan.rounds(length), (t, t + 1, np.zeros_like(t)), join)
    in_order &= bool(np.all(start == 0) and np.all(end == t + 1))
    return in_order, work, int(depth.max(initial=0))


LENGTHS = range(257)


@claim(
    "SCAN-9",
    r"\text{every scan yields the words } x_t\cdots x_2x_1,\ t=1\dots L,\ \text{in the free monoid}",
    source="Blelloch 1990; Hillis & Steele 1986",
    method="measured",
    declared="verified",
)
def words(work: Work) -> None:
    """The scans are right in every monoid"""
    scans = (*SCANS.values(), *(chunked_by(chunk) for chunk in (1, 2, 7, 64, 300)))
    for scan in scans:
        for length in LENGTHS:
            work.true(trace(scan, length)[0], witness=f"{scan.name} fails at length {length}")
    work.summary(f"{len(scans)} scans on words, for all lengths from {LENGTHS[0]} to {LENGTHS[-1]}")


def costs_are_the_formulas(
    work: Work, scan: Scan, work_formula: Callable[[int], int], depth: Callable[[int], int]
) -> None:
    for L in LENGTHS[1:]:
        counted = trace(scan, L)[1:]
        work.true(counted == (work_formula(L), depth(L)), witness=f"length {L}: counted {counted}")
        work.true(counted == (scan.work(L), scan.depth(L)), witness=f"length {L}: the library says otherwise")


def log2(x: float) -> int:
    """⌊log₂ x⌋; for the small numbers here the double is exact at powers of two and far from them elsewhere."""
    return math.floor(math.log2(x))


# %% [markdown]
# One after the other costs the fewest combines, $L - 1$, in one long chain. Hillis and Steele's scan halves the
# distance that is left in every round: the chain is as short as can be, and nearly everybody works in every round.


# %%
@claim("SCAN-10", r"W(L)=D(L)=L-1", source="Blelloch 1990", method="measured", declared="verified")
def cost_of_sequential(work: Work) -> None:
    """Work and depth, one after the other"""
    costs_are_the_formulas(work, SCANS["sequential"], lambda L: L - 1, lambda L: L - 1)
    work.summary(f"counted for all lengths to {LENGTHS[-1]}")


@claim(
    "SCAN-11",
    r"W(L)=Lk-2^k+1,\quad D(L)=k=\lceil\log_2L\rceil",
    source="Hillis & Steele 1986",
    method="measured",
    declared="verified",
)
def cost_of_hillis_steele(work: Work) -> None:
    """Work and depth of Hillis and Steele's scan"""

    def k(L: int) -> int:
        return -log2(1 / L)

    costs_are_the_formulas(work, SCANS["hillis_steele"], lambda L: L * k(L) - 2 ** k(L) + 1, k)
    work.summary(f"counted for all lengths to {LENGTHS[-1]}")


# %% [markdown]
# Blelloch's scan climbs a binary tree, combining neighbours, then pairs, then fours ($\lfloor L/2\rfloor + \lfloor
# L/4\rfloor + \dots = L - s(L)$ combines, where $s$ counts the ones of $L$ in binary: Legendre's formula). On the way
# down each finished prefix completes a position half a block to its right ($L - \lfloor\log_2 L\rfloor - 1$ more).
# His own down-sweep is exclusive: it puts the identity at the root and swaps. The inclusive one needs no padding.


# %%
@claim(
    "SCAN-12",
    r"W(L)=2L-s(L)-\lfloor\log_2L\rfloor-1,\quad s(L)=\text{ones of } L \text{ in binary};\quad "
    r"D(L)=\lfloor\log_2(L+1)\rfloor+\lfloor\log_2\tfrac{L+1}{3}\rfloor",
    source="Blelloch 1990",
    method="measured",
    declared="verified",
)
def cost_of_blelloch(work: Work) -> None:
    """Work and depth of Blelloch's scan"""
    costs_are_the_formulas(
        work,
        SCANS["blelloch"],
        lambda L: 2 * L - bin(L).count("1") - log2(L) - 1,
        lambda L: log2(L + 1) + log2((L + 1) / 3),
    )
    work.summary(f"counted for all lengths to {LENGTHS[-1]}")


@claim(
    "SCAN-13",
    r"W(L)=2L-c-\lceil L/c\rceil,\quad D(L)=c+\lceil L/c\rceil-2\qquad(1\le c\le L)",
    source="Mamba, §3.3.2",
    method="measured",
    declared="verified",
)
def cost_of_chunked(work: Work) -> None:
    """Work and depth by chunks of c"""
    for chunk in (1, 2, 5, 16, 100, 1000):

        def parts(L: int, chunk: int = chunk) -> int:
            c = min(chunk, L)
            return c + -(-L // c)

        costs_are_the_formulas(work, chunked_by(chunk), lambda L: 2 * L - parts(L), lambda L: parts(L) - 2)
    work.summary(f"counted for all lengths to {LENGTHS[-1]}, six sizes of chunk")


@claim(
    "SCAN-14",
    r"c+L/c-2\ \ge\ 2\sqrt L-2,\ \text{ with equality at } c=\sqrt L",
    source="Mamba, §3.3.2",
    method="symbolic",
    declared="proved",
)
def best_chunk(work: Work) -> None:
    """The chunk of least depth"""
    c, L = sp.symbols("c L", positive=True)
    excess = (c + L / c - 2) - (2 * sp.sqrt(L) - 2)
    work.equal(excess, (sp.sqrt(c) - sp.sqrt(L / c)) ** 2, "the excess over the bound is a square")
    work.equal(excess.subs(c, sp.sqrt(L)), 0, "which is zero at the root of L")


# %% [markdown]
# ## Mamba's decay: scan $(\Sigma\Delta, b)$
#
# In Mamba $a_t = e^{\Delta_t A}$, where only $\Delta$ depends on time. Products of exponentials are exponentials of
# sums, so in place of $(\prod a, b)$ one may carry $(\sum\Delta, b)$, and take the exponential where it is applied.
# All states of a channel share one $\Sigma\Delta$; and a sum of step sizes does not underflow, as a product of decays
# does. Its exponential may, but from the sums one still has the decay between any two positions.


# %%
@claim(
    "SCAN-15",
    r"\varphi\big((s_2,b_2)\bullet(s_1,b_1)\big)=\varphi(s_2,b_2)\circ\varphi(s_1,b_1),\quad "
    r"\varphi(s,b)=(e^{As},b),\quad(s_2,b_2)\bullet(s_1,b_1)=(s_2+s_1,\,e^{As_2}b_1+b_2)",
    source="Mamba, §3.3.2; Article 1, §1.2",
    method="symbolic",
    declared="proved",
)
def homomorphism(work: Work) -> None:
    """The sum of step sizes stands for the product of decays"""
    A, s1, s2, s3 = sp.symbols("A s1:4")
    work.equal(sp.exp(A * s2) * sp.exp(A * s1), sp.exp(A * (s2 + s1)), "the factors")
    combine_decays = decay_combine(np.array([A]), np.frompyfunc(sp.exp, 1, 1))

    def product(second: Any, first: Any) -> tuple[Any, Any]:
        """The library's, of one channel with one state at one time."""
        total, offset = combine_decays(*((np.array([s]), np.array([[b]])) for s, b in (second, first)))
        return total.item(), offset.item()

    image = combine((sp.exp(A * s2), b2), (sp.exp(A * s1), b1))
    work.equal(product((s2, b2), (s1, b1))[0], s2 + s1, "the sums")
    work.equal(product((s2, b2), (s1, b1))[1], image[1], "the offsets")
    x1, x2, x3 = (s1, b1), (s2, b2), (s3, b3)
    left, right = product(product(x3, x2), x1), product(x3, product(x2, x1))
    work.equal(left[0], right[0])
    work.equal(left[1], right[1], "so the new product is associative as well")


@claim(
    "SCAN-16",
    r"|r|\le\varepsilon s,\ s=-\mathrm{Re}\,z\ge0,\ 0\le\varepsilon<1:\quad"
    r"|e^{z+r}-e^z|\le e^{-s}(e^{\varepsilon s}-1)\le\varepsilon s\,e^{-(1-\varepsilon)s}\le"
    r"\frac{\varepsilon}{e\,(1-\varepsilon)}",
    source="Higham 2002, §1.6",
    method="symbolic",
    declared="proved",
)
def error_of_the_decay(work: Work) -> None:
    """A relative error ε in ΣΔ moves the decay by at most ε/(e(1 − ε)), to first order ε/e"""
    s, x = sp.Symbol("s", nonnegative=True), ORDERS.s
    c, eps = sp.symbols("c epsilon", positive=True)
    work.show("|eʳ − 1| ≤ e^{|r|} − 1 and |eᶻ| = e⁻ˢ, so this is how far the decay moves (ROUND-8)")
    below = positive_from_zero(work, x - 1 + sp.exp(-x), positive_from_zero(work, 1 - sp.exp(-x)))
    grown, excess = sp.exp(eps * s), below.subs(x, eps * s)
    work.equal(eps * s * grown - (grown - 1), grown * excess, "so e^{εs} − 1 is below εs e^{εs} by a positive amount")
    error = s * sp.exp(-c * s)
    work.show("what is left is ε times this, with c = 1 − ε", error)
    work.equal(error.diff(s), (1 - c * s) * sp.exp(-c * s), "it rises until s = 1/c and falls from there")
    work.equal(error.subs(s, 1 / c), sp.exp(-1) / c, "where it is this")


# %% [markdown]
# Both in single precision, on step sizes as Mamba starts with, for its fastest state $A = -16$:


# %%
def mamba_steps(length: int, A: float = -16.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Δ log-uniform in [1e-3, 1e-1], the decays exp(ΔA), and normal inputs, in single precision."""
    rng = np.random.default_rng(0)
    delta = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), length)).astype(np.float32)
    return delta, np.exp(np.float32(A) * delta), rng.standard_normal(length).astype(np.float32)


def gamma(n: int) -> float:
    """n roundings of single precision: nu/(1 − nu)."""
    nu = n * 2.0**-24
    return nu / (1 - nu)


@claim(
    "SCAN-17",
    r"\prod_{t\le T}\mathrm{fl}(e^{\Delta_tA})\ \text{underflows to } 0,\ \text{where}\ S_T=\sum_{t\le T}\Delta_t\ "
    r"\text{and the decay}\ e^{A(S_t-S_s)}\ \text{are accurate}",
    source="Mamba, §3.3.2; Higham 2002, §4.2",
    method="measured",
    declared="verified",
)
def summaries(work: Work) -> None:
    """The product of decays is lost, the sum of steps is not"""
    A = -16.0
    delta, a, _ = mamba_steps(1024, A)
    product = np.multiply.accumulate(a)
    lost = int(np.argmax(product == 0))
    work.true(product[lost] == 0, witness="the product did not underflow")

    def add(second: Any, first: Any) -> tuple[Any]:
        return (second[0] + first[0],)

    (sums,) = prefixes(SCANS["blelloch"].rounds(len(delta)), (delta,), add)
    exact = np.cumsum(delta.astype(np.float64))
    error, bound = np.abs(sums - exact) / exact, gamma(SCANS["blelloch"].depth(len(delta)))
    work.within(error, bound + 1e-12, "ΣΔ, relative")  # 1e-12: more than 1024 roundings of the double sum
    s, t = lost, lost + 8
    between = np.exp(A * (sums[t].astype(float) - sums[s].astype(float)))
    truth = np.exp(A * (exact[t] - exact[s]))
    # an error e in the exponent changes the exponential by a factor of e^±e
    exponent = -A * (bound + 1e-12) * (exact[t] + exact[s])
    work.within(abs(between / truth - 1), np.expm1(exponent), "a decay between two sums")
    work.summary(
        f"in fp32 the product is 0 from step {lost + 1} of {len(a)} on; ΣΔ is right to {error.max():.1e} throughout, "
        f"and the decay over the 8 steps after that one to {abs(between / truth - 1):.1e}"
    )


# %% [markdown]
# ## Why not divide?
#
# With $P_t = a_t\cdots a_1$ one has $h_t = P_t\sum_{s\le t} b_s/P_s$: two library calls, `cumprod` and `cumsum`. They
# rest on inverses, where a scan rests on the product alone. With exact numbers and $a_t \ne 0$ it is right.


# %%
@claim(
    "SCAN-18",
    r"h_t=P_t\sum_{s\le t}b_s/P_s,\quad P_t=a_t\cdots a_1,\ a_t\neq0",
    source="Article 1, §1.2 (its solution formula, for discrete time)",
    method="symbolic",
    declared="proved",
)
def division(work: Work) -> None:
    """The integrating factor in discrete time"""
    a_t, b_t, P, total = sp.symbols("a_t b_t P_{t-1} Sigma", nonzero=True)
    before = P * total
    work.equal(a_t * P * (total + b_t / (a_t * P)), a_t * before + b_t, "induction: the step from t-1 to t")
    work.equal(a1 * (b1 / a1), b1, "and the first state")


@claim(
    "SCAN-19",
    r"\mathrm{fl}\Big(P_t\sum_{s\le t}b_s/P_s\Big)\approx h_t\ \text{ to the accuracy of a scan}",
    source="Higham 2002, §2.1 (a common shortcut, against the range of floating point)",
    method="numeric",
    declared="refuted",
    corrected_by="SCAN-20",
)
def division_in_floating_point(work: Work) -> None:
    """“cumprod, divide, cumsum, multiply”"""
    _, a, b = mamba_steps(1024)
    with np.errstate(all="ignore"):
        P = np.cumprod(a)
        states = P * np.cumsum(b / P)
    exact = sequential(a.astype(np.float64), b.astype(np.float64))
    finite = int(np.argmin(np.isfinite(states)))
    # The bound leaves underflow out. A factor that underflows moves a state by some 1e-45 of an earlier one.
    with work.premise():
        for scan in SCANS.values():
            work.within(abs(scan.function(a, b) - exact), rounding_bound(a, b), scan.name)
    work.within(abs(states - exact), rounding_bound(a, b), f"dividing, finite up to state {finite}")


# %% [markdown]
# What does a scan lose to rounding? A prefix is a binary tree over $t$ steps and $h_0$, so it has $t$ nodes, whatever
# the bracketing. The term $a_t\cdots a_{s+1}b_s$ is rounded at most once in a multiplication and once in an addition at
# each: $2t$ roundings. So every scan obeys one bound, and two scans differ by at most twice that. (Complex, a product
# counts for $\sqrt5$ roundings and a sum for one, together fewer than four.)


# %%
def exact_states(a: np.ndarray, b: np.ndarray) -> list[tuple[Fraction, Fraction]]:
    """The real and the imaginary parts of the states."""
    states, re, im = [], Fraction(0), Fraction(0)
    for a_t, b_t in zip(a.astype(complex).tolist(), b.astype(complex).tolist(), strict=True):
        p, q = Fraction(a_t.real), Fraction(a_t.imag)
        re, im = p * re - q * im + Fraction(b_t.real), p * im + q * re + Fraction(b_t.imag)
        states.append((re, im))
    return states


def bound_as_written(a: np.ndarray, b: np.ndarray, more: int = 0) -> np.ndarray:
    """γ_{k(t + more)} Σ_s |a_t…a_{s+1} b_s|, with k = 2, or 4 for complex numbers, and u of their dtype."""
    size_a, size_b = abs(a.astype(complex)), abs(b.astype(complex))
    sums = [sum(np.prod(size_a[s + 1 : t + 1]) * size_b[s] for s in range(t + 1)) for t in range(len(b))]
    nu = (4 if np.iscomplexobj(a) else 2) * np.arange(1 + more, len(b) + 1 + more) * np.finfo(a.dtype).eps / 2
    return nu / (1 - nu) * np.array(sums)


@claim(
    "SCAN-20",
    r"|\hat h_t-h_t|\le\gamma_{kt}\sum_{s\le t}|a_t\cdots a_{s+1}b_s|\ \text{ for every scan},\quad "
    r"\gamma_n=\frac{nu}{1-nu},\quad k=2,\ \text{for complex numbers } 4;\quad"
    r"\text{for } t\le48 \text{ the error is above 1/200 of it in the median}",
    source="Higham 2002, §3.1 and §3.6",
    method="property",
    declared="verified",
)
def rounding(work: Work) -> None:
    """Every bracketing obeys the same error bound"""
    from hypothesis import strategies as st

    ratios: list[float] = []

    def check(case: tuple[int, int, type]) -> None:
        length, seed, dtype = case
        rng = np.random.default_rng(seed)
        turn = np.exp(2j * np.pi * rng.random((2, length))) if np.dtype(dtype).kind == "c" else np.ones((2, 1))
        sign = rng.choice([-1.0, 1.0], length)  # |a| is between 1/64 and 1: no product of 48 of them underflows
        a = (sign * 2 ** rng.uniform(-6, 0, length) * turn[0]).astype(dtype)
        b = (rng.standard_normal(length) * turn[1]).astype(dtype)
        exact, bound = exact_states(a, b), bound_as_written(a, b)
        for scan in SCANS.values():
            found = scan.function(a, b).astype(complex).tolist()
            error = [
                abs(complex(Fraction(x.real) - re, Fraction(x.imag) - im))
                for x, (re, im) in zip(found, exact, strict=True)
            ]
            work.within(error, bound, scan.name)
            ratios.extend(error / bound)
        # The library's is that of a step more, to make up for its own roundings: up to 4t + 6 here, and as many there.
        room = 1 + (4 * np.arange(1, length + 1) + 12) * np.finfo(float).eps
        library, next_step = rounding_bound(a, b), bound_as_written(a, b, 1)
        work.true((bound * room <= library).all(), witness="rounding_bound falls below the formula")
        work.true((library <= next_step * room).all(), witness="rounding_bound exceeds the formula for a step more")

    dtypes = st.sampled_from([np.float32, np.float64, np.complex64, np.complex128])
    work.forall(st.tuples(st.integers(1, 48), st.integers(0, 2**32 - 1), dtypes), check, examples=60)
    work.true(np.median(ratios) > 1 / 200, witness=f"the median of error / bound is 1/{1 / np.median(ratios):.0f}")
    work.summary(f"all scans against exact rationals; the median of error / bound is 1/{1 / np.median(ratios):.0f}")


# %% [markdown]
# ## Why $\tanh$ breaks it
#
# Article 1, §4 credits the scan to a recurrence without $\tanh$. Composition of functions is *always* associative,
# that of RNN steps $h \mapsto \tanh(a h + b)$ too. What is lost is closure: two affine steps are an affine step, two
# numbers again. Two $\tanh$ steps are no $\tanh$ step: such a step is constant ($a = 0$) or comes as near to $-1$ and
# $1$ as one likes, and the composite does neither. So a pair no longer describes what several steps do.


# %%
@claim(
    "SCAN-21",
    r"h\mapsto\tanh(a_2\tanh(a_1h+b_1)+b_2)\ \text{ is no }\ h\mapsto\tanh(ah+b)",
    source="Article 1, §4; Martin & Cundy 2018",
    method="symbolic",
    declared="proved",
)
def tanh_is_not_closed(work: Work) -> None:
    """Two tanh steps are not a tanh step"""
    x, k, p, q = sp.symbols("x k p q", real=True)
    first, second, slope = sp.symbols("a1 a2 a", positive=True)
    step = sp.tanh(slope * x + k)
    for sign in (1, -1):
        work.equal(sp.limit(step, x, sign * sp.oo), sign)
    work.show("a step that is not constant comes as near as one likes to -1 and to 1", step)
    work.equal(sp.tanh(-slope * x + k), step.subs(x, -x), "a falling one too: it is a rising one, mirrored")
    both = sp.tanh(second * sp.tanh(first * x + p) + q)
    ends = [q + sign * second for sign in (1, -1)]
    for sign, end in zip((1, -1), ends, strict=True):
        work.equal(sp.limit(both, x, sign * sp.oo), sp.tanh(end).rewrite(sp.exp))
        for gap in (1 - sp.tanh(end), 1 + sp.tanh(end)):
            work.true(sp.simplify(gap.rewrite(sp.exp)).is_positive)
    work.show("two steps come to these limits, which lie strictly between", sp.Matrix([sp.tanh(end) for end in ends]))
    work.true((ends[0] - ends[1]).is_positive, "and differ, so the composite is not constant either")


@claim(
    "SCAN-22",
    r"h_t=\tanh(a_th_{t-1}+b_t)\ \text{ is a scan of }\ (a_2a_1,\ \tanh(a_2b_1+b_2))",
    source="Article 1, §4 (which rules it out)",
    method="numeric",
    declared="refuted",
    corrected_by="SCAN-8",
)
def tanh_scan(work: Work) -> None:
    """“An RNN with tanh can be evaluated by the same scan”"""

    def pretend(second: Any, first: Any) -> tuple[Any, Any]:
        return second[0] * first[0], np.tanh(second[0] * first[1] + second[1])

    rng = np.random.default_rng(0)
    a, b = rng.uniform(0.5, 1, 16), rng.standard_normal(16)
    b[0] = np.tanh(b[0])
    truth, state = [b[0]], b[0]
    for a_t, b_t in zip(a[1:], b[1:], strict=True):
        state = np.tanh(a_t * state + b_t)
        truth.append(state)
    # A rounding on the way is not amplified, since a and the slope of tanh are at most 1; 4 units a step
    # leave room for a tanh that is not correctly rounded.
    bound = 4 * len(a) * np.finfo(float).eps
    for scan in SCANS.values():
        states = prefixes(scan.rounds(len(a)), (a, b), pretend)[1]
        work.within(abs(states - truth), bound, f"tanh inside the product, {scan.name}")


# %% [markdown]
# Gates are not the obstacle; what they read is. A gate that looks at the input is a number by the time the scan
# runs, and the step is affine: Mamba. A gate that looks at the state, as in an LSTM or a GRU, bends the map.


# %%
@claim(
    "SCAN-23",
    r"f(h)=\sigma(wh+v)\,h+b\ \text{ is affine in } h\iff w=0",
    source="Article 1, §4; Martin & Cundy 2018",
    method="symbolic",
    declared="proved",
)
def gates(work: Work) -> None:
    """A gate may read the input, not the state"""
    x, v, w, b = sp.symbols("x v w b", real=True)
    sigma = 1 / (1 + sp.exp(-v))
    f = x / (1 + sp.exp(-(w * x + v))) + b
    bend = f.diff(x, 2)
    work.equal(bend.subs(w, 0), 0, "a gate that does not read the state leaves no curvature")
    work.equal(bend.subs(x, 0), 2 * w * sigma * (1 - sigma), "one that does has this at h = 0")
    work.true(sp.simplify(sigma * (1 - sigma)).is_positive, "which is zero only for w = 0")


# %% [markdown]
# ## Backwards
#
# The states depend linearly on $b$: $h = Mb$. A gradient runs through the transpose, $g = M^\top c$, and that is a scan
# from the other end, in which step $t$ uses the *next* factor: what leaves $t$ is multiplied by $a_{t+1}$ on its way.


# %%
@claim(
    "SCAN-24",
    r"g=M^\top c\iff g_t=c_t+a_{t+1}g_{t+1},\quad M_{ts}=\partial h_t/\partial b_s",
    source="Blelloch 1990; Martin & Cundy 2018",
    method="symbolic",
    declared="proved",
)
def transpose(work: Work) -> None:
    """The adjoint of a scan is a scan"""
    a_t, b_t, c_t, before, a_next, g_next = sp.symbols("a_t b_t c_t h_{t-1} a_{t+1} g_{t+1}")
    h_t, g_t = after((a_t, b_t), before), after((a_next, c_t), g_next)
    passed = [g_t * a_t * before, g_next * a_next * h_t]
    work.equal(c_t * h_t - g_t * b_t, passed[0] - passed[1], "any length: step t of ⟨c, h⟩ − ⟨g, b⟩ telescopes")
    work.equal(passed[0].subs(before, 0), 0, "nothing enters at the start, where h₀ = 0,")
    work.equal(passed[1].subs(g_next, 0), 0, "and nothing at the end: ⟨c, Mb⟩ = ⟨g, b⟩ for every b")
    length = 5
    a, b = symbolic_steps(length)
    c = sp.symbols(f"c1:{length + 1}")
    states = prefixes(SCANS["sequential"].rounds(length), (a, b), combine)[1]
    M = sp.Matrix(states).jacobian(list(b))
    work.show("M for five steps", M)
    # the reversed elements: (1, c_L), (a_L, c_{L-1}), …, (a_2, c_1)
    elements = np.array([sp.S.One, *a[:0:-1]], dtype=object), np.array(c[::-1], dtype=object)
    g = prefixes(SCANS["blelloch"].rounds(length), elements, combine)[1][::-1]
    work.equal((M.T * sp.Matrix(c)).expand(), sp.Matrix(g).expand(), "transposed, and scanned from the end")
    work.summary("the telescoping sum for every length, and the two scans on symbols for length 5")


# %%
if __name__ == "__main__":
    run_as_script(globals())
