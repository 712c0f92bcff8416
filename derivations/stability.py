# %% [markdown]
# # What a large Δ forgets, and what it writes
#
# Both articles say that a large $\Delta$ makes the state forget. Under $\bar A = e^{\Delta a}$ it does, and at
# the same moment it writes something in. Under another rule it may do neither: the rules are those of
# `discretisation_error.py`, for one entry $a = \sigma + i\omega$ of a diagonal $A$, with $\sigma < 0$.

# %%
from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp

from ssm_edu.derivations import load
from ssm_edu.discretize import METHODS
from ssm_edu.ledger import Work, claim, run_as_script

ORDERS = load("discretisation_error")
RULES, z = ORDERS.RULES, ORDERS.z
EXPONENTIAL = ("zoh", "mamba", "foh", "exponential_trapezoidal")

Delta, T, s = sp.symbols("Delta T s", positive=True)
a, sigma = sp.symbols("a sigma", negative=True)
rate, omega, b, h, x, x_prev = sp.symbols("sigma omega b h x x_prev", real=True)  # `rate`: σ of either sign


def at(name: str, entry: Any = a) -> tuple[Any, Any, Any]:
    """Ā, β and β_prev of a rule at Δ·entry."""
    alpha, p, q = (f.subs(z, Delta * entry) for f in RULES[name])
    return alpha, Delta * p, Delta * q


def modulus2(w: Any) -> Any:
    """|w|² of an expression in real symbols."""
    above, below = (sp.expand(part * sp.conjugate(part)) for part in sp.fraction(sp.together(w)))
    return above / below


# %% [markdown]
# ## The exponential forgets
#
# Four rules share $\bar A = e^{\Delta a}$: ZOH, Mamba's, FOH and Mamba-3's. What remains of the state after a step
# depends on $\Delta\sigma$ alone; $\omega$ only turns it.


# %%
@claim(
    "STAB-1",
    r"\sigma < 0: \quad |e^{\Delta a}| = e^{\Delta\sigma} \text{ decreases in } \Delta, \text{ from } 1 \text{ to } 0",
    source="Article 1, §1.2; Article 2; Mamba, §3.5.2",
    method="symbolic",
    declared="proved",
)
def exponential_forgets(work: Work) -> None:
    """A large Δ forgets, the larger the faster"""
    kept = sp.exp(Delta * sigma)
    for name in EXPONENTIAL:
        work.equal(sp.Abs(at(name, sigma + sp.I * omega)[0]), kept, f"{name}: what remains of the state")
    work.true(sp.diff(kept, Delta).is_negative, "its derivative by Δ, σe^{Δσ}, is negative")
    work.equal(sp.limit(kept, Delta, 0, "+"), 1, "a small Δ keeps everything")
    work.equal(sp.limit(kept, Delta, sp.oo), 0, "a large one nothing")


@claim(
    "STAB-2",
    r"|e^{\Delta a}| < 1 \iff \operatorname{Re} a < 0 \qquad (\Delta > 0,\ a \in \mathbb{C})",
    source="S4D; Hairer 1996",
    method="symbolic",
    declared="proved",
)
def exponential_is_stable(work: Work) -> None:
    """The exponential rules are stable exactly where the equation is"""
    exponent = sp.log(sp.Abs(sp.exp(Delta * (rate + sp.I * omega))))
    work.equal(exponent, Delta * rate, "log|Ā|, for a σ of either sign")
    for assumption in ("negative", "zero", "positive"):
        sign = getattr(Delta * sp.Symbol("sigma", **{assumption: True}), f"is_{assumption}")
        work.true(sign, f"σ is {assumption}: so is log|Ā|")


@claim(
    "STAB-3",
    r"A = -1,\ \Delta = 10: \quad \bar A = e^{-10} = 4.5 \cdot 10^{-5}",
    source="Article 1, §2.2",
    method="numeric",
    declared="verified",
)
def article_example(work: Work) -> None:
    """The article's example: Δ from 0.1 to 10"""
    exact = sp.exp(-10)
    work.within(abs(sp.N(exact, 50) - sp.Rational("4.5e-5")), sp.Rational("0.05e-5"), "the stated digits")
    # −10 is exact, and an exponential in float64 is good to two units of 2⁻⁵³
    for name in EXPONENTIAL:
        computed = float(METHODS[name].A_bar(np.asarray(10.0), np.asarray(-1.0)))
        work.within(abs(sp.Float(computed, 50) - sp.N(exact, 50)), float(exact) * 2 * 2.0**-53, name)


# %% [markdown]
# How long is the memory? Over several steps the exponents add: what counts is the time $\sum\Delta_t$ that has
# passed, and not the number of tokens.


# %%
@claim(
    "STAB-4",
    r"\prod_t e^{\Delta_t a} = e^{a\sum_t\Delta_t}: \text{ half is left after } \tfrac{\ln 2}{\Delta|a|} \text{ steps,}"
    r"\ \tfrac1e \text{ after } \tfrac{1}{\Delta|a|}:"
    r" \text{ between } \tfrac58 \text{ and } 1000 \text{ at Mamba's initialisation}",
    source="Mamba, §3.6; Article 2",
    method="symbolic",
    declared="proved",
)
def memory(work: Work) -> None:
    """Half-life and time constant"""
    work.equal(sp.exp(a * T) * sp.exp(Delta * a), sp.exp(a * (T + Delta)), "one more step after the time T")
    constant = 1 / (Delta * sp.Abs(a))
    work.equal(sp.exp(Delta * a) ** (sp.log(2) * constant), sp.Rational(1, 2), "the half-life")
    work.equal(sp.exp(Delta * a) ** constant, sp.exp(-1), "the time constant")
    work.equal(constant.subs({Delta: sp.Rational("1e-3"), a: -1}), 1000, "the longest at first, in steps")
    work.equal(constant.subs({Delta: sp.Rational("0.1"), a: -16}), sp.Rational(5, 8), "and the shortest")


@claim(
    "STAB-5",
    r"\Delta \to 0: \quad \bar A \to 1, \quad \bar B \to 0, \text{ with every rule}",
    source="Article 2; Mamba, §3.5.2",
    method="symbolic",
    declared="proved",
)
def small_step_holds(work: Work) -> None:
    """A small Δ keeps the state and ignores the input"""
    for name in RULES:
        limits = [sp.limit(f, Delta, 0, "+") for f in at(name)]
        work.equal(sp.Matrix(limits), sp.Matrix([1, 0, 0]), f"{name}: Ā, β and β_prev")


# %% [markdown]
# ## Euler's does not forget
#
# $\bar A = 1 + \Delta a$ leaves the unit disc at $\Delta|a| = 2$: then the state flips its sign and grows.


# %%
@claim(
    "STAB-6",
    r"a < 0: \quad |1 + \Delta a| < 1 \iff \Delta|a| < 2",
    source="Hairer 1996",
    method="symbolic",
    declared="proved",
)
def euler_real(work: Work) -> None:
    """Euler's rule is stable for Δ|a| < 2 only"""
    product = sp.Symbol("s", real=True)
    work.equal(at("euler")[0], (1 - product).subs(product, -Delta * a), "with s = Δ|a|, Ā is 1 − s")
    stable = sp.solve_univariate_inequality(sp.Abs(1 - product) < 1, product, relational=False)
    work.true(stable == sp.Interval.open(0, 2), "|1 − s| < 1 exactly for 0 < s < 2")
    work.true(sp.limit(at("euler")[0], Delta, sp.oo) == -sp.oo, "and a large Δ multiplies the state without bound")


@claim(
    "STAB-7",
    r"|1 + \Delta a|^2 - 1 = \Delta(2\sigma + \Delta|a|^2): \text{ stable } \iff \Delta < -2\sigma/|a|^2,"
    r" \text{ and for } \sigma = 0 \text{ at no } \Delta",
    source="Hairer 1996",
    method="symbolic",
    declared="proved",
)
def euler_complex(work: Work) -> None:
    """For a complex a, Euler's limit is a disc; an undamped oscillation always grows"""
    growth = modulus2(at("euler", rate + sp.I * omega)[0]) - 1
    work.equal(growth, Delta * (2 * rate + Delta * (rate**2 + omega**2)), "|Ā|² − 1, negative where stable")
    limit = -2 * rate / (rate**2 + omega**2)
    work.equal(growth, Delta * (rate**2 + omega**2) * (Delta - limit), "its sign is that of Δ + 2σ/|a|²")
    turn = sp.Symbol("omega", nonzero=True, real=True)
    work.true(growth.subs({rate: 0, omega: turn}).is_positive, "at σ = 0 it is (Δω)² > 0")


# %% [markdown]
# ## Stable is not yet forgetful
#
# Two more rules are stable on the whole left half-plane (A-stable). Backward Euler forgets as well, though as
# $1/\Delta$ and not exponentially. The bilinear rule, S4's, does not: at $\Delta|a| = 2$ it forgets all, and beyond
# that it remembers again, with the sign flipped at every step. It rings. (It is not L-stable.)


# %%
@claim(
    "STAB-8",
    r"\text{Backward Euler: } \sigma < 0 \text{ gives } |\bar A| < 1, \text{ decreasing in } \Delta,"
    r" \text{ and } \Delta|a||\bar A| \to 1",
    source="Hairer 1996",
    method="symbolic",
    declared="proved",
)
def backward_euler_forgets(work: Work) -> None:
    """Backward Euler is stable and forgets, slowly"""
    size2 = sigma**2 + omega**2
    inverse = 1 / modulus2(at("backward_euler", sigma + sp.I * omega)[0])
    work.equal(inverse, 1 + Delta * (-2 * sigma + Delta * size2), "1/|Ā|²")
    work.true((-2 * sigma + Delta * size2).is_positive, "which is above 1")
    work.true(sp.expand(sp.diff(inverse, Delta)).is_positive, "grows with Δ")
    work.equal(sp.limit(inverse / (Delta**2 * size2), Delta, sp.oo), 1, "and is (Δ|a|)² in the end")


@claim(
    "STAB-9",
    r"\text{Bilinear: } 1 - |\bar A|^2 = \frac{-2\Delta\sigma}{|1 - \Delta a/2|^2}:"
    r" \quad |\bar A| < 1 \iff \operatorname{Re} a < 0",
    source="S4, eq. 3; Hairer 1996",
    method="symbolic",
    declared="proved",
)
def bilinear_is_stable(work: Work) -> None:
    """The bilinear rule is stable exactly where the equation is"""
    entry = rate + sp.I * omega
    below = (1 - Delta * rate / 2) ** 2 + (Delta * omega / 2) ** 2
    work.equal(modulus2(1 - Delta * entry / 2), below, "|1 − Δa/2|², positive unless Δa = 2")
    work.equal(1 - modulus2(at("bilinear", entry)[0]), -2 * Delta * rate / below, "1 − |Ā|² has the sign of −σ")


@claim(
    "STAB-10",
    r"\text{With every rule that is stable for all } \Delta,\ |\bar A| \to 0 \text{ as } \Delta \to \infty",
    source="Article 1, §1.2; S4, eq. 3",
    method="symbolic",
    declared="refuted",
    corrected_by="STAB-11",
)
def stable_rules_forget(work: Work) -> None:
    """“A large Δ forgets, with every stable rule”"""
    for name in (*EXPONENTIAL, "backward_euler", "bilinear"):
        work.equal(sp.Abs(sp.limit(at(name)[0], Delta, sp.oo)), 0, f"{name}: lim |Ā|")


@claim(
    "STAB-11",
    r"\text{Bilinear, } a < 0: \ \bar A \text{ falls from } 1, \text{ through } 0 \text{ at } \Delta|a| = 2,"
    r" \text{ towards } -1: \text{ beyond } 2, \ |\bar A| \text{ grows again}",
    source="S4, eq. 3; Hairer 1996",
    method="symbolic",
    declared="proved",
)
def bilinear_rings(work: Work) -> None:
    """The bilinear rule rings where the others forget"""
    A_bar = (1 - s / 2) / (1 + s / 2)
    work.equal(at("bilinear")[0], A_bar.subs(s, -Delta * a), "with s = Δ|a|")
    work.equal(sp.diff(A_bar, s), -1 / (1 + s / 2) ** 2, "Ā falls all the way")
    work.equal(A_bar.subs(s, 0), 1, "from 1")
    work.equal(A_bar.subs(s, 2), 0, "through 0 at s = 2")
    work.equal(sp.limit(A_bar, s, sp.oo), -1, "to −1")


# %% [markdown]
# ## What is written instead
#
# Under an input held at $x$ the equation comes to rest at $-bx/a$. After a long step there, that is the state, whatever
# it was: a large $\Delta$ resets the state *and writes the present input in*. One number does both, and only a small
# $B_t$ can part them: a token that is noise, and makes $\Delta_t$ large to clear the past, is itself kept.


# %%
@claim(
    "STAB-12",
    r"\Delta \to \infty: \quad h_t \to -\tfrac{b}{a}\,x_t \text{ for zoh, foh and backward Euler,}"
    r" \text{ whatever } h_{t-1} \text{ and } x_{t-1}",
    source="Article 2; Mamba, §3.5.2",
    method="symbolic",
    declared="proved",
)
def large_step_writes(work: Work) -> None:
    """A large Δ writes the present input's equilibrium into the state"""
    work.equal(sp.solve(a * h + b * x, h)[0], -b * x / a, "where the equation rests")
    for name in ("zoh", "foh", "backward_euler"):
        A_bar, beta, beta_prev = at(name)
        step = sp.expand(A_bar * h + beta * b * x + beta_prev * b * x_prev)
        work.equal(sp.limit(step, Delta, sp.oo), -b * x / a, f"{name}: the step's limit")


@claim(
    "STAB-13",
    r"\Delta \to \infty: \quad \beta \to -\tfrac1a \text{ (zoh, foh, backward Euler)},\ -\tfrac2a \text{ (bilinear)},"
    r"\ \infty \text{ (Euler, Mamba, Mamba-3)}; \quad \beta_{\mathrm{prev}} \to 0",
    source="Mamba, eq. 4; S4, eq. 3; Mamba-3",
    method="symbolic",
    declared="proved",
)
def input_weights(work: Work) -> None:
    """The input weights at a large Δ, which are Method.beta_limit"""
    for name, rule in METHODS.items():
        _, beta, beta_prev = at(name)
        limit = sp.limit(beta, Delta, sp.oo)
        if rule.beta_limit is None:
            work.true(limit == sp.oo, f"{name}: β grows without bound", f"lim β = {limit}")
        else:
            work.equal(limit, sp.Rational(rule.beta_limit) / a, f"{name}: lim β")
        work.equal(sp.limit(beta_prev, Delta, sp.oo), 0)


@claim(
    "STAB-14",
    r"\text{With } \bar B = \Delta B, \text{ a constant input } x \text{ brings the state to rest at } -\tfrac{b}{a}x",
    source="Article 1, §1.2; Article 1, §3",
    method="symbolic",
    declared="refuted",
    corrected_by="STAB-15",
)
def mamba_rests_at_equilibrium(work: Work) -> None:
    """“ΔB also writes the equilibrium in”"""
    A_bar, beta, _ = at("mamba")
    work.equal(beta * b * x / (1 - A_bar), -b * x / a, "where h = Āh + B̄x rests, and where the equation does")


@claim(
    "STAB-15",
    r"\text{A constant input brings zoh, foh, both Eulers and bilinear to rest at } h^* = -\tfrac{b}{a}x"
    r" \text{ for every } \Delta, \text{ Mamba's rule at } \tfrac{1}{\varphi_1(z)}\,h^*,"
    r" \text{ Mamba-3's at } \tfrac z2 \coth\tfrac z2 \; h^*",
    source="Mamba, eq. 4; Mamba-3; Article 1, §3",
    method="symbolic",
    declared="proved",
)
def rest(work: Work) -> None:
    """Where each rule comes to rest: ΔB beyond the equilibrium, in proportion to Δ"""
    product = Delta * a
    factors = {
        "mamba": product / (sp.exp(product) - 1),
        "exponential_trapezoidal": product / 2 * sp.coth(product / 2),
    }
    for name in RULES:
        A_bar, beta, beta_prev = at(name)
        factor = factors.get(name, sp.Integer(1))
        work.equal((beta + beta_prev) * b * x / (1 - A_bar), -b * x / a * factor, f"{name}: rests at")
    far = {name: sp.limit(f.rewrite(sp.exp) / -product, Delta, sp.oo) for name, f in factors.items()}
    work.equal(far["mamba"], 1, "Mamba's factor is Δ|a| in the end")
    work.equal(far["exponential_trapezoidal"], sp.Rational(1, 2), "Mamba-3's is half of that")
    small = sp.series((z / 2) * sp.coth(z / 2), z, 0, 4).removeO()
    work.equal(small, 1 + z**2 / 12, "at a small Δa it is of second order, where Mamba's is 1 − Δa/2 (ERR-2)")


# %% [markdown]
# ## The code, at points that Hypothesis draws


# %%
def check_left_half_plane(work: Work, sample: tuple[float, float, float]) -> None:
    delta, real, imag = (np.asarray(v) for v in sample)
    entry = -real + 1j * imag
    kept = {name: float(abs(rule.A_bar(delta, entry))) for name, rule in METHODS.items()}
    # a product, two sums and a quotient of complex numbers, a few units of 2⁻⁵³ each
    for name in METHODS.keys() - {"euler"}:
        work.within(kept[name], 1 + 16 * 2.0**-53, name)
    product = delta * entry
    far = abs(product)
    # exact: |Ā + 1| = |4/(2 − z)| and |Ā| = 1/|1 − z|; on the left half-plane |2 − z| and |1 − z| are at least |z|
    bilinear = METHODS["bilinear"].A_bar(delta, entry)
    work.within(abs(bilinear + 1), 4 / far + 16 * 2.0**-53, "bilinear tends to −1")
    work.within(kept["backward_euler"], (1 + 16 * 2.0**-53) / far, "backward Euler tends to 0")
    limit = 2 * real / abs(entry) ** 2
    # where |Δa| is least, 2e-6, a hundredth of the step still moves |Ā| by 2e-14, a hundred times its rounding
    inside, outside = (abs(METHODS["euler"].A_bar(limit * part, entry)) for part in (0.99, 1.01))
    work.true(inside < 1 < outside, witness=f"Euler: |Ā| is {inside} below its limit and {outside} above")


@claim(
    "STAB-16",
    r"\text{METHODS at } \sigma < 0: \ |\bar A| \le 1 \text{ but for Euler, whose limit is } \Delta = -2\sigma/|a|^2;"
    r"\ |\bar A + 1| \le \tfrac{4}{|\Delta a|} \text{ (bilinear)},"
    r"\ |\bar A| \le \tfrac{1}{|\Delta a|} \text{ (backward Euler)}",
    source="S4, eq. 3; Hairer 1996",
    method="property",
    declared="verified",
)
def code_in_left_half_plane(work: Work) -> None:
    """The rules as they run, on the left half-plane"""
    from hypothesis import strategies as st

    sample = st.tuples(st.floats(1e-6, 1e6), st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
    work.forall(sample, lambda value: check_left_half_plane(work, value))


# %%
if __name__ == "__main__":
    run_as_script(globals())
