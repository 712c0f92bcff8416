# %% [markdown]
# # How wrong is a discretisation?
#
# Two questions. Mamba's text derives $\bar B = \Delta\,\varphi_1(\Delta A)B$, the zero-order hold (ZOH), and its
# released code computes $\bar B = \Delta B$: by how much do they differ? And how fast does the error of each rule
# shrink with $\Delta$?
#
# A rule, for one entry $a$ of a diagonal $A$, is three functions of $z = \Delta a$:
# $h_t = \alpha(z)\,h_{t-1} + \Delta\,p(z)\,b\,x_t + \Delta\,q(z)\,b\,x_{t-1}$.

# %%
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy as sp

from ssm_edu.discretize import METHODS, Method, discretize_diagonal
from ssm_edu.ledger import Work, claim, run_as_script

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Delta, s, eps = sp.symbols("Delta s epsilon", positive=True)
a = sp.Symbol("a", negative=True)
z, tau, b, h0, lam = sp.symbols("z tau b h_0 lambda", real=True)
x0, x1, x2, x3, x_prev = sp.symbols("x_0 x_1 x_2 x_3 x_prev", real=True)


def phi1(z: Any) -> Any:
    return (sp.exp(z) - 1) / z


def phi2(z: Any) -> Any:
    return (phi1(z) - 1) / z


one, none, half = sp.Integer(1), sp.Integer(0), sp.Rational(1, 2)
RULES: dict[str, tuple[Any, Any, Any]] = {  # α, p, q
    "zoh": (sp.exp(z), phi1(z), none),
    "euler": (1 + z, one, none),
    "backward_euler": (1 / (1 - z), 1 / (1 - z), none),
    "bilinear": ((1 + z / 2) / (1 - z / 2), 1 / (1 - z / 2), none),
    "mamba": (sp.exp(z), one, none),
    "foh": (sp.exp(z), phi2(z), phi1(z) - phi2(z)),
    "exponential_trapezoidal": (sp.exp(z), half, half * sp.exp(z)),
}


# %% [markdown]
# ## $\Delta B$ in place of $\bar B$
#
# Article 1, §1.2 says that for a very small $\Delta$ the first Taylor term dominates, so that
# $\bar B \approx \Delta B$. As a limit that is true. But $\Delta$ and $a$ enter the ratio as a product only: what
# must be small is $|\Delta a|$, and $\Delta = 0.01$ is small beside $a = -1$, not beside $a = -1000$.


# %%
@claim(
    "ERR-1",
    r"\frac{\bar B_{\mathrm{zoh}}}{\Delta B} = \varphi_1(\Delta a) \to 1 \text{ as } \Delta a \to 0",
    source="Article 1, §1.2; Mamba, eq. 4",
    method="symbolic",
    declared="proved",
)
def ratio_is_phi1(work: Work) -> None:
    """ΔB is B̄ to first order, in the product Δa"""
    held = sp.integrate(sp.exp((Delta - tau) * a) * b, (tau, 0, Delta))
    ratio = sp.simplify(held / (Delta * b))
    work.equal(ratio, phi1(Delta * a), "the ratio is φ₁(Δa)")
    c = sp.Symbol("c", positive=True)
    work.equal(ratio.subs({Delta: c * Delta, a: a / c}, simultaneous=True), ratio, "it depends on the product alone")
    work.equal(sp.limit(ratio, Delta, 0, "+"), 1, "and tends to 1 as Δ → 0, for a given a")
    work.equal(sp.limit(ratio, a, -sp.oo), 0, "but to 0 as a → −∞, however small Δ is")


# %% [markdown]
# With respect to the true $\bar B$, the relative error of $\Delta B$ is $1/\varphi_1(z) - 1 = z/(e^z-1) - 1$, which
# generates the Bernoulli numbers; with respect to $\Delta B$ itself it is $1 - \varphi_1(z)$. Both start with $-z/2$.


# %%
@claim(
    "ERR-2",
    r"\tfrac{1}{\varphi_1(z)} - 1 = -\tfrac{z}{2} + \tfrac{z^2}{12} - \tfrac{z^4}{720} + O(z^6), \qquad"
    r" 1 - \varphi_1(z) = -\tfrac{z}{2} - \tfrac{z^2}{6} - \tfrac{z^3}{24} + O(z^4)",
    source="Mamba, eq. 4",
    method="symbolic",
    declared="proved",
)
def relative_error_series(work: Work) -> None:
    """The relative error of ΔB begins with −Δa/2"""
    error = z / (sp.exp(z) - 1) - 1
    work.equal(1 / phi1(z) - 1, error, "the relative error of ΔB")
    work.equal(sp.series(error, z, 0, 6).removeO(), -z / 2 + z**2 / 12 - z**4 / 720, "its series")
    other = -z / 2 - z**2 / 6 - z**3 / 24
    work.equal(sp.series(1 - phi1(z), z, 0, 4).removeO(), other, "relative to ΔB instead")


# %% [markdown]
# A series says nothing about $z = -1.6$. These bounds hold for every $s = -z > 0$. Each proof is the same step
# repeated: a function that is zero at zero and has a positive derivative is positive.


# %%
def positive_from_zero(work: Work, f: Any, known: Any = one) -> Any:
    """f, a function of s > 0, which is positive: f(0) = 0, and f′ is a positive multiple of `known`, shown positive."""
    work.equal(f.subs(s, 0), 0)
    multiple = sp.simplify(sp.diff(f, s) / known)
    work.show("positive, since it is zero at 0 and its derivative is positive", f)
    work.true(multiple > 0, witness=f"the derivative has the factor {multiple}")
    return f


@claim(
    "ERR-3",
    r"\tfrac{s}{2} < \tfrac{1}{\varphi_1(-s)} - 1 < \tfrac{s}{2} + \tfrac{s^2}{12}, \qquad"
    r" \tfrac{s}{2} - \tfrac{s^2}{6} < 1 - \varphi_1(-s) < \tfrac{s}{2} \qquad (s > 0)",
    source="Mamba, eq. 4",
    method="symbolic",
    declared="proved",
)
def relative_error_bounds(work: Work) -> None:
    """The relative error of ΔB is |Δa|/2, from both sides"""
    error = s / (1 - sp.exp(-s)) - 1
    work.equal(1 / phi1(-s) - 1, error, "with s = −z, the relative error")
    x = s / 2
    low = positive_from_zero(work, x * sp.cosh(x) - sp.sinh(x))
    high = positive_from_zero(work, (1 + x**2 / 3) * sp.sinh(x) - x * sp.cosh(x), low)
    work.equal(error - s / 2, low / sp.sinh(x), "its distance from the lower bound")
    work.equal(s / 2 + s**2 / 12 - error, high / sp.sinh(x), "and from the upper bound")

    e = sp.exp(-s)
    first = positive_from_zero(work, s - 1 + e, positive_from_zero(work, 1 - e))
    second = positive_from_zero(work, s**2 / 2 - s + 1 - e, first)
    third = positive_from_zero(work, s**3 / 6 - s**2 / 2 + s - 1 + e, second)
    other = 1 - phi1(-s)
    work.equal(s / 2 - other, second / s, "1 − φ₁ stays below s/2")
    work.equal(other - (s / 2 - s**2 / 6), third / s, "and above s/2 − s²/6")


@claim(
    "ERR-4",
    r"|\Delta a| \le 2\varepsilon(1 - \tfrac{\varepsilon}{3}) \;\Rightarrow\;"
    r" \left|\frac{\Delta B}{\bar B_{\mathrm{zoh}}} - 1\right| < \varepsilon \;\Rightarrow\;"
    r" |\Delta a| < 2\varepsilon \qquad (a < 0,\; 0 < \varepsilon < 3)",
    source="Article 1, §1.2",
    method="symbolic",
    declared="proved",
)
def how_small(work: Work) -> None:
    """What “small” means: |Δa| below twice the error allowed"""
    error = s / (1 - sp.exp(-s)) - 1
    rise = positive_from_zero(work, 1 - sp.exp(-s) - s * sp.exp(-s))
    work.equal(sp.diff(error, s), rise / (1 - sp.exp(-s)) ** 2, "so the error grows with s: look at the two ends")
    work.equal((s / 2).subs(s, 2 * eps), eps, "at s = 2ε the lower bound of ERR-3 is ε already")
    room = sp.factor(eps - (s / 2 + s**2 / 12).subs(s, 2 * eps * (1 - eps / 3)))
    work.equal(room, eps**3 * (6 - eps) / 27, "at s = 2ε(1 − ε/3) the upper bound leaves room")
    e = sp.Symbol("epsilon", real=True)
    where = sp.solve_univariate_inequality(room.subs(eps, e) > 0, e, relational=False)
    work.true(where == sp.Interval.open(0, 6), "which is positive for 0 < ε < 6")


# %% [markdown]
# Mamba starts from $a = -1, \dots, -16$ and from $\Delta$ log-uniform in $[10^{-3}, 10^{-1}]$. All those
# $\Delta$ look small. $|\Delta a|$ reaches 1.6.

# %%
STATES = np.arange(1.0, 17.0)
STEP_RANGE = (1e-3, 1e-1)


def held_over_used(step: Any, a: Any) -> Any:
    """B̄_zoh / ΔB, as the two rules compute it."""
    return discretize_diagonal(a, 1.0, step, "zoh")[1] / discretize_diagonal(a, 1.0, step, "mamba")[1]


def relative_error(step: Any, a: Any) -> Any:
    """ΔB / B̄_zoh − 1."""
    return 1 / held_over_used(step, a) - 1


@claim(
    "ERR-5",
    r"\text{At Mamba's initialisation } \left|\Delta B / \bar B_{\mathrm{zoh}} - 1\right| \le 0.05",
    source="Article 1, §1.2; Mamba, §3.6",
    method="numeric",
    declared="refuted",
    corrected_by="ERR-6",
)
def small_at_initialisation(work: Work) -> None:
    """“Mamba's Δ is small enough for ΔB”"""
    steps = np.geomspace(*STEP_RANGE, 9)[:, None]
    worst = np.abs(relative_error(steps, -STATES)).max()
    work.within(worst, 0.05, "the worst of a = −1…−16, Δ = 1e-3…0.1", steps.size * STATES.size)


@claim(
    "ERR-6",
    r"\varphi_1(\Delta a) = 0.9995 \text{ at } (10^{-3}, -1),\; 0.952 \text{ at } (0.1, -1),\; 0.499 \text{ at }"
    r" (0.1, -16); \text{ the error of } \Delta B \text{ exceeds } 5\,\%"
    r" \text{ for } 42\,\% \text{ of the initial pairs } (\Delta, a)",
    source="Mamba, §3.6",
    method="numeric",
    declared="verified",
)
def true_at_initialisation(work: Work) -> None:
    """At Mamba's initialisation ΔB is up to twice B̄"""
    corners = {("0.001", -1): (0.9995, 4), ("0.1", -1): (0.952, 3), ("0.1", -16): (0.499, 3)}
    for (step, entry), (stated, digits) in corners.items():
        exact = sp.N(phi1(sp.Rational(step) * entry), 50)
        work.within(abs(exact - sp.Rational(str(stated))), 0.5 * 10**-digits, "the stated digits")
        # rounding Δ and Δa moves φ₁ by 2u at most, since |zφ₁′/φ₁| ≤ 1; expm1 (2u), a quotient, a product and the
        # final quotient follow
        computed = sp.Float(float(held_over_used(float(step), float(entry))), 50)
        work.within(abs(exact - computed), 7 * 2.0**-53, "the rules in float64")

    from scipy.optimize import brentq

    threshold = brentq(lambda product: relative_error(product, -1.0) - 0.05, 0.01, 1.0, xtol=1e-12)
    low, high = STEP_RANGE
    share = np.clip(np.log(high * STATES / threshold) / np.log(high / low), 0, 1).mean()
    work.within(abs(share - 0.42), 0.005, "the stated share")
    work.summary(
        f"three corners to the digits stated; over 5 % where |Δa| > {threshold:.4f}, in {share:.1%} of the pairs"
    )


# %% [markdown]
# Is $\Delta B$ then a re-parametrisation, with the learned $B$ absorbing the factor? With a constant $\Delta$ it is:
# put $\varphi_1(\Delta a)B$ in place of $B$. Mamba's $\Delta_t$ varies, and no factor serves two different steps.


# %%
@claim(
    "ERR-7",
    r"\exists\,\kappa(a)\ \forall \Delta:\ \Delta\,\kappa\,B = \bar B_{\mathrm{zoh}}",
    source="Mamba, §3.2",
    method="symbolic",
    declared="refuted",
    corrected_by="ERR-8",
)
def absorbed_by_b(work: Work) -> None:
    """“A learned B absorbs the difference”"""
    work.equal(sp.diff(phi1(Delta * a), Delta), 0, "a factor κ(a) for all Δ means that φ₁(Δa) does not vary with Δ")


@claim(
    "ERR-8",
    r"\varphi_1' > 0 \text{ on } \mathbb{R}, \text{ so } \Delta\kappa B = \bar B_{\mathrm{zoh}} \text{ holds at one }"
    r" \Delta \text{ (with } \kappa = \varphi_1(\Delta a)\text{) and fails at every other}",
    source="Mamba, §3.2",
    method="symbolic",
    declared="proved",
)
def absorbed_at_one_step_size(work: Work) -> None:
    """B absorbs the difference for one Δ, hence for S4's constant Δ, and for no other"""
    work.equal(Delta * phi1(Delta * a) * b, (sp.exp(Delta * a) - 1) / a * b, "exact for κ = φ₁(Δa)")
    numerator = sp.simplify(sp.diff(phi1(z), z) * z**2)
    work.equal(sp.diff(phi1(z), z), numerator / z**2, "φ₁′ has the sign of its numerator")
    positive_from_zero(work, numerator.subs(z, s))
    positive_from_zero(work, numerator.subs(z, -s))
    work.equal(sp.limit(sp.diff(phi1(z), z), z, 0), half, "and at 0 the derivative is ½")


# %% [markdown]
# ## Orders
#
# Let $x(\tau) = x_0 + x_1\tau + x_2\tau^2/2 + x_3\tau^3/6$ in a step, sampled at its end: $x_t = x(\Delta)$,
# $x_{t-1} = x(0)$. The equation $h' = ah + bx$ itself gives every derivative of the exact solution, so its Taylor
# series needs no integral. The rule minus that series is the local error; when it starts at $\Delta^{p+1}$, and the
# rule is stable, the error over a fixed time is $O(\Delta^p)$.

# %%
SMOOTH = (x0, x1, x2, x3)
HELD = (x0, 0, 0, 0)
DEGREE = 4


def exact_series(x: tuple[Any, ...]) -> Any:
    """The exact solution after Δ, to Δ⁴."""
    derivative, total = h0, h0
    for k in range(DEGREE):
        derivative = sp.expand(a * derivative + b * x[k])
        total += derivative * Delta ** (k + 1) / sp.factorial(k + 1)
    return total


def local_error(rule: tuple[Any, ...], x: tuple[Any, ...]) -> tuple[int, Any]:
    """(k, c) where the rule's error in one step from h₀ is cΔᵏ + …, up to Δ⁴."""
    alpha, p, q = (sp.series(f, z, 0, DEGREE + 1).removeO().subs(z, Delta * a) for f in rule)
    end = sum(x[k] * Delta**k / sp.factorial(k) for k in range(DEGREE))
    error = sp.expand(alpha * h0 + Delta * b * (p * end + q * x[0]) - exact_series(x))
    for k in range(DEGREE + 1):
        if (c := error.coeff(Delta, k)) != 0:
            return k, sp.factor(c)
    raise ValueError(f"no error up to Δ^{DEGREE}")


RATE = a * h0 + b * x0  # h′ at the start of the step
LEADING_SMOOTH = {
    "zoh": b * x1 / 2,
    "euler": (b * x1 - a * RATE) / 2,
    "backward_euler": (b * x1 + a * RATE) / 2,
    "bilinear": b * x1 / 2,
    "mamba": b * (x1 - a * x0) / 2,
    "foh": b * x2 / 12,
    "exponential_trapezoidal": b * (x2 - 2 * a * x1 + a**2 * x0) / 12,
}
LEADING_HELD = {
    "euler": -a * RATE / 2,
    "backward_euler": a * RATE / 2,
    "bilinear": a**2 * RATE / 12,
    "mamba": -a * b * x0 / 2,
    "exponential_trapezoidal": a**2 * b * x0 / 12,
}


def check_leading(work: Work, leading: dict[str, Any], x: tuple[Any, ...], orders: dict[str, float]) -> None:
    for name, coefficient in leading.items():
        power, found = local_error(RULES[name], x)
        work.equal(found, coefficient, f"{name}: the coefficient of Δ^{power}")
        work.true(power == orders[name] + 1, f"{name}: order {power - 1}", f"Method.order says {orders[name]}")


@claim(
    "ERR-9",
    r"\alpha, p, q \text{ of every rule in METHODS are those of the table above}",
    source="Mamba, eq. 4; S4, eq. 3; Mamba-3",
    method="numeric",
    declared="verified",
)
def table_is_the_code(work: Work) -> None:
    """The rules derived here are the ones that run"""
    work.true(set(RULES) == set(METHODS), witness="the table and METHODS name different rules")
    for point in (-16.0, -1.6, -0.1, -1e-3, 0.75, -0.5 + 2j, -3 - 0.25j):
        exactly = sp.Rational(point.real) + sp.I * sp.Rational(point.imag)
        for name, rule in METHODS.items():
            used = (rule.alpha, rule.p, rule.q or np.zeros_like)
            for symbol, formula, function in zip("αpq", RULES[name], used, strict=True):
                exact = complex(sp.N(formula.subs(z, exactly), 50))
                # six roundings or so, none of them amplified more than fourfold at these points
                error = abs(complex(function(np.asarray(point))) - exact)
                work.within(error, 6 * 4 * 2.0**-53 * abs(exact), f"{name}, {symbol} at z = {point}")


@claim(
    "ERR-10",
    r"\text{For a smooth input the local errors are } c\,\Delta^{p+1} \text{ with the coefficients above:}"
    r" p = 2 \text{ for foh and Mamba-3 at } \lambda = \tfrac12,\ p = 1 \text{ for all others, zoh included}",
    source="Mamba-3; Hochbruck & Ostermann 2010",
    method="symbolic",
    declared="proved",
)
def orders_smooth(work: Work) -> None:
    """Local errors for a smooth input"""
    check_leading(work, LEADING_SMOOTH, SMOOTH, {m.name: m.order for m in METHODS.values()})
    work.true(set(LEADING_SMOOTH) == set(METHODS), witness="a rule has no coefficient")


# %% [markdown]
# For a smooth input the zero-order hold is of first order only: it is exact for the wrong input. It shares its
# coefficient $bx_1/2$ with the bilinear rule, and $\Delta B$ has $b(x_1 - ax_0)/2$. On inputs that really are
# constant, the ranks change.


# %%
@claim(
    "ERR-11",
    r"\text{For } x_{t-1} = x_t = x: \text{ zoh and foh are exact, bilinear and Mamba-3 at } \lambda = \tfrac12"
    r" \text{ of order 2, the others of order 1}",
    source="Article 1, §1.2; S4, eq. 3; Mamba-3",
    method="symbolic",
    declared="proved",
)
def orders_held(work: Work) -> None:
    """Local errors for a constant input"""
    orders = {m.name: m.order_held for m in METHODS.values()}
    check_leading(work, LEADING_HELD, HELD, orders)
    exact = sp.integrate(sp.exp((Delta - tau) * a), (tau, 0, Delta))
    for name in METHODS.keys() - LEADING_HELD.keys():
        alpha, p, q = (f.subs(z, Delta * a) for f in RULES[name])
        work.equal(alpha, sp.exp(Delta * a))
        work.equal(Delta * (p + q), exact, f"{name}: exact")
        work.true(orders[name] == sp.oo, witness=f"Method.order_held of {name} is {orders[name]}")


@claim(
    "ERR-12",
    r"\int_0^\Delta e^{(\Delta-\tau)a}\, b\,(x_{t-1} + \tfrac{\tau}{\Delta}(x_t - x_{t-1}))\,d\tau"
    r" = \Delta\varphi_2\, b\, x_t + \Delta(\varphi_1 - \varphi_2)\, b\, x_{t-1}",
    source="Franklin 1998; Hochbruck & Ostermann 2010",
    method="symbolic",
    declared="proved",
)
def foh_exact_for_lines(work: Work) -> None:
    """The first-order hold is exact for an input that is linear in each step"""
    line = x_prev + tau / Delta * (x0 - x_prev)
    exact = sp.integrate(sp.expand(sp.exp((Delta - tau) * a) * b * line), (tau, 0, Delta))
    _, p, q = (f.subs(z, Delta * a) for f in RULES["foh"])
    work.equal(Delta * b * (p * x0 + q * x_prev), exact, "the rule is the integral")


# %% [markdown]
# Constant *in each step* is less than constant: tokens jump at every step. A rule with one tap sees $x_t$ alone. The
# first-order hold draws a line from $x_{t-1}$ to $x_t$ and is wrong by the first power of $\Delta$ at each jump.


# %%
def error_at_a_jump(work: Work) -> Any:
    """One step of foh from zero, where the input is x₀ in the step and was x_prev before it, minus the exact step."""
    _, p, q = (f.subs(z, Delta * a) for f in RULES["foh"])
    exact = b * x0 * sp.integrate(sp.exp((Delta - tau) * a), (tau, 0, Delta))
    return sp.simplify(Delta * b * (p * x0 + q * x_prev) - exact)


@claim(
    "ERR-13",
    r"\text{The first-order hold is exact for every input that is constant in each step}",
    source="Franklin 1998",
    method="symbolic",
    declared="refuted",
    corrected_by="ERR-14",
)
def foh_exact_for_steps(work: Work) -> None:
    """“A hold of higher order is at least as good”"""
    work.equal(error_at_a_jump(work), 0, "no error at a jump")


@claim(
    "ERR-14",
    r"\text{At a jump the error of foh is } \Delta\varphi_1'(\Delta a)\, b\, (x_{t-1} - x_t)"
    r" = \tfrac{\Delta}{2}\, b\, (x_{t-1} - x_t) + O(\Delta^2)",
    source="Franklin 1998",
    method="symbolic",
    declared="proved",
)
def foh_at_a_jump(work: Work) -> None:
    """What a jump costs the first-order hold"""
    slope = sp.diff(phi1(z), z).subs(z, Delta * a)
    work.equal(error_at_a_jump(work), Delta * slope * b * (x_prev - x0), "the error at a jump")
    work.equal(sp.limit(slope, Delta, 0, "+"), half, "whose factor tends to ½")


@claim(
    "ERR-15",
    r"\text{The local error of Mamba-3's rule is } (\lambda - \tfrac12)\, b\,(x_1 - a x_0)\,\Delta^2 + O(\Delta^3):"
    r" \text{ second order if and only if } \lambda = \tfrac12 + O(\Delta); \lambda = 1 \text{ is Mamba's rule}",
    source="Mamba-3",
    method="symbolic",
    declared="proved",
)
def mamba3_weights(work: Work) -> None:
    """Mamba-3's λ: only ½ + O(Δ) gives second order"""
    rule = (sp.exp(z), lam, (1 - lam) * sp.exp(z))
    power, coefficient = local_error(rule, SMOOTH)
    work.true(power == 2, "for a general λ the local error starts at Δ²")
    work.equal(coefficient, (lam - half) * b * (x1 - a * x0), "with this coefficient")
    work.equal(sp.Matrix(rule).subs(lam, 1), sp.Matrix(RULES["mamba"]), "λ = 1 is Mamba's rule")
    c = sp.Symbol("c", real=True)
    near = tuple(f.subs(lam, half + c * z / a) for f in rule)
    work.true(local_error(near, SMOOTH)[0] == 3, "λ = ½ + cΔ is enough for Δ³")


# %% [markdown]
# ## The same orders, measured
#
# Nothing symbolic now: `METHODS` as it runs, on $h' = ah + x$ with $a = -2$ and $x = \sin 3t$, or $x = 1$, from
# $h(0) = 1$ to $t = 2$, with steps $2^{-3}$ to $2^{-9}$. The order is the slope of the error on logarithmic axes.

# %%
STEPS = 2.0 ** -np.arange(3, 10)
DECAY, FREQUENCY, HORIZON, START = -2.0, 3.0, 2.0, 1.0


def solution(t: Any, held: bool) -> Any:
    """h(t), and the input x(t), of the test problem."""
    if held:
        return START * np.exp(DECAY * t) + np.expm1(DECAY * t) / DECAY, np.ones_like(t)
    wave = (np.exp(1j * FREQUENCY * t) - np.exp(DECAY * t)) / (1j * FREQUENCY - DECAY)
    return START * np.exp(DECAY * t) + wave.imag, np.sin(FREQUENCY * t)


def global_error(rule: Method, step: float, held: bool = False) -> float:
    """The largest error of the rule at a step's end, up to the horizon."""
    t = step * np.arange(round(HORIZON / step) + 1)
    exact, x = solution(t, held)
    delta, entry = np.asarray(step), np.asarray(DECAY)
    A_bar, B_bar, B_bar_prev = (float(f(delta, entry)) for f in (rule.A_bar, rule.beta, rule.beta_prev))
    h, worst = START, 0.0
    for k in range(1, len(t)):
        h = A_bar * h + B_bar * x[k] + B_bar_prev * x[k - 1]
        worst = max(worst, abs(h - exact[k]))
    return worst


def measured_order(rule: Method, held: bool = False) -> float:
    """The least-squares slope of log(error) against log(Δ)."""
    errors = [global_error(rule, step, held) for step in STEPS]
    return float(np.polyfit(np.log(STEPS), np.log(errors), 1)[0])


@claim(
    "ERR-16",
    r"\text{The measured slope on a smooth input is Method.order, to } 0.1",
    source="Mamba-3; Hochbruck & Ostermann 2010",
    method="measured",
    declared="verified",
)
def measured_orders_smooth(work: Work) -> None:
    """Measured orders for a smooth input"""
    # an error Δᵖ(1 + |a|Δ) has the least-squares slope p + 0.05 on these steps; a wrong order is off by 1
    slopes = {name: measured_order(rule) for name, rule in METHODS.items()}
    for name, slope in slopes.items():
        work.within(abs(slope - METHODS[name].order), 0.1, name)
    work.summary("slopes: " + ", ".join(f"{name} {slope:.3f}" for name, slope in slopes.items()))


@claim(
    "ERR-17",
    r"\text{The measured slope on a constant input is Method.order\_held, to } 0.1;"
    r" \text{ the exact rules err by rounding alone}",
    source="Article 1, §1.2; S4, eq. 3; Mamba-3",
    method="measured",
    declared="verified",
)
def measured_orders_held(work: Work) -> None:
    """Measured orders for a constant input"""
    found = []
    for rule in METHODS.values():
        if np.isfinite(rule.order_held):
            slope = measured_order(rule, held=True)
            work.within(abs(slope - rule.order_held), 0.1, rule.name)
            found.append(f"{rule.name} {slope:.3f}")
            continue
        # |h|, |x| ≤ 1: a step rounds its maps and its sums by 8u at most, and steps that decay do not amplify it
        bounds = 8 * 2.0**-53 * HORIZON / STEPS
        work.within([global_error(rule, step, held=True) for step in STEPS], bounds, rule.name)
        found.append(f"{rule.name} exact")
    work.summary("slopes: " + ", ".join(found))


# %% [markdown]
# ## The picture

# %%
INK, MUTED = "#222222", "#6b6b6b"
STYLES = {  # Okabe and Ito's colours, which colour-blind readers tell apart
    "euler": ("Euler", "#E69F00"),
    "mamba": ("Mamba's ΔB", "#CC79A7"),
    "backward_euler": ("backward Euler", "#D55E00"),
    "zoh": ("ZOH", "#0072B2"),
    "bilinear": ("bilinear", "#56B4E9"),
    "exponential_trapezoidal": ("Mamba-3, λ = ½", "#009E73"),
    "foh": ("FOH", "#000000"),
}


def _label(axes: Axes, x: float, ends: list[tuple[float, str, str]], gap: float) -> None:
    """Label curves that end at (x, y) with (y, text, colour): the nearest heights at least `gap` decades apart."""
    from scipy.optimize import isotonic_regression

    ends = sorted(ends)
    room = gap * np.arange(len(ends))
    heights = 10 ** (isotonic_regression(np.log10([y for y, _, _ in ends]) - room).x + room)
    for (y, text, colour), height in zip(ends, heights, strict=True):
        leader = {"arrowstyle": "-", "color": colour, "lw": 1, "shrinkA": 1, "shrinkB": 1, "relpos": (0, 0.5)}
        axes.annotate(
            text,
            (x, y),
            (1.4 * x, float(height)),
            color=INK,
            fontsize=8.5,
            va="center",
            arrowprops=leader,
            annotation_clip=False,
        )


def _draw_orders(axes: Axes) -> None:
    ends = []
    for name, (label, colour) in STYLES.items():
        errors = [global_error(METHODS[name], step) for step in STEPS]
        axes.loglog(STEPS, errors, "o-", color=colour, lw=1.6, ms=3.5)
        ends.append((errors[0], f"{label}: {measured_order(METHODS[name]):.2f}", colour))
    _label(axes, STEPS[0], ends, gap=0.24)
    axes.set_xlabel("step size Δ")
    axes.set_title("Largest error on x = sin 3t, and its slope", loc="left", fontsize=10.5, color=INK)


def _draw_relative_error(axes: Axes) -> None:
    steps, ends = np.geomspace(*STEP_RANGE, 60), []
    blues = ("#7fb3d5", "#5499c7", "#2e7fb8", "#1a5c8f", "#0b3a60")
    for entry, colour in zip((-1, -2, -4, -8, -16), blues, strict=True):
        error = relative_error(steps, entry)
        axes.loglog(steps, error, color=colour, lw=1.8)
        ends.append((float(error[-1]), f"A = −{-entry}", colour))
    _label(axes, steps[-1], ends, gap=0.12)
    axes.axhline(0.05, color=MUTED, lw=0.9, ls=(0, (4, 3)))
    axes.text(steps[0], 0.054, "5 %", color=MUTED, fontsize=8.5, va="bottom")
    axes.set_xlabel("step size Δ, over Mamba's initial range")
    axes.set_title("Relative error of B̄ = ΔB against ZOH", loc="left", fontsize=10.5, color=INK)


def error_figure() -> Figure:
    """Left: each rule's global error against Δ. Right: the relative error of ΔB where Mamba starts."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.3), layout="constrained")
    panels: tuple[Callable[[Axes], None], ...] = (_draw_orders, _draw_relative_error)
    for axes, draw in zip(figure.subplots(1, 2), panels, strict=True):
        draw(axes)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(which="both", colors=MUTED, labelsize=8.5)
        axes.grid(True, which="major", color="#e6e6e6", lw=0.6)
        axes.set_axisbelow(True)
    return figure


# %%
if __name__ == "__main__":
    run_as_script(globals())
