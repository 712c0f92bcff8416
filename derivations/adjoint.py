# %% [markdown]
# # The adjoint of the selective scan
#
# To train a selective scan one needs the gradient of a loss $\ell$ by every input. Automatic differentiation can find
# it, but a kernel has to have it written out. The forward scan is, for each channel and each state,
#
# $$h_t = \bar A_t h_{t-1} + \bar B_t u_t,\qquad y_t = \textstyle\sum_n C_t h_t + D u_t,$$
#
# and everything below rests on one observation: the backward pass is **another scan of the same kind, run backwards**.
# It carries $g_t = \partial\ell/\partial h_t$ from right to left, where the forward scan carries $h_t$ from left to
# right.

# %%
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import mpmath as mp
import numpy as np
import sympy as sp
from hypothesis import strategies as st

from ssm_edu import bounds
from ssm_edu.discretize import METHODS
from ssm_edu.ledger import Work, claim, run_as_script
from ssm_edu.selective import selective_scan, selective_scan_backward
from ssm_edu.selective.problem import DISCRETIZATIONS, make_problem

L = 3
z, Delta, a = sp.symbols("z Delta a")


def in_time(name: str, real: bool = False) -> list[sp.Symbol]:
    """x_1, …, x_L, with a place 0 that is never read, so that indices are as on paper."""
    return list(sp.symbols(f"{name}_0:{L + 1}", real=real or None))


# %% [markdown]
# ## Unroll it and look
#
# Three steps are few enough to write out. Call $w_t = \partial\ell/\partial y_t$, so that near the present point
# $\ell = \sum_t w_t y_t$, and $b_t = \bar B_t u_t$. A change of $h_t$ is seen by $y_t$, with weight $C_t$, and by
# $h_{t+1}$, with weight $\bar A_{t+1}$, and by nothing else:
#
# $$g_t = C_t w_t + \bar A_{t+1}\, g_{t+1}.$$
#
# The decay stands at $t+1$, not at $t$: it is the decay that $h_t$ suffers on its way into the next state.


# %%
@claim(
    "ADJ-1",
    r"g_t = C_t w_t + \bar A_{t+1} g_{t+1},\quad \partial\ell/\partial b_t = g_t,\quad "
    r"\partial\ell/\partial\bar A_t = g_t h_{t-1},\quad \partial\ell/\partial h_0 = \bar A_1 g_1",
    source="Mamba, eq. 2a",
    method="symbolic",
    declared="proved",
)
def unrolled(work: Work) -> None:
    """The gradient of three unrolled steps obeys a backward recurrence"""
    A_bar, b, C, w, h0 = *(in_time(name) for name in ("Abar", "b", "C", "w")), sp.Symbol("h_0")
    h = [h0]
    for t in range(1, L + 1):
        h.append(A_bar[t] * h[t - 1] + b[t])
    loss = sum(w[t] * C[t] * h[t] for t in range(1, L + 1))
    work.show("the loss, unrolled", sp.expand(loss))
    carried: Any = 0
    for t in range(L, 0, -1):
        g = C[t] * w[t] + carried
        work.equal(sp.diff(loss, b[t]), g, f"g at t = {t}")
        work.equal(sp.diff(loss, A_bar[t]), g * h[t - 1])
        work.equal(sp.diff(loss, C[t]), w[t] * h[t])
        carried = A_bar[t] * g
    work.equal(sp.diff(loss, h0), carried, "what is left over is the gradient of the initial state")
    work.summary("length 3, all symbols free")


# %% [markdown]
# ## Why it holds for every length: the Lagrangian
#
# Treat the recurrence as a constraint on $h_1, \dots, h_L$, with a multiplier $g_t$ for each step:
#
# $$\Lambda = \sum_t w_t C_t h_t + g_t\left(\bar A_t h_{t-1} + b_t - h_t\right).$$
#
# Where the constraints hold, $\Lambda = \ell$ whatever the multipliers, so we may choose them such that
# $\partial\Lambda/\partial h_k = 0$. Then only the explicit dependence on $b$, $\bar A$ and $C$ is left. For any
# $k$ the state $h_k$ stands in two terms of the sum, $t = k$ and $t = k+1$.


# %%
@claim(
    "ADJ-2",
    r"\frac{\partial\Lambda}{\partial h_k} = 0 \iff g_k = C_k w_k + \bar A_{k+1} g_{k+1}\ \text{ for every } k",
    source="Mamba, eq. 2a",
    method="symbolic",
    declared="proved",
)
def lagrangian(work: Work) -> None:
    """The multipliers that make the Lagrangian stationary are the adjoint states"""
    k, m = sp.Symbol("k", integer=True), sp.Symbol("m", integer=True, nonnegative=True)
    h, g, A_bar, b, C, w = (sp.IndexedBase(name) for name in ("h", "g", "Abar", "b", "C", "w"))

    def term(t: Any) -> Any:
        return w[t] * C[t] * h[t] + g[t] * (A_bar[t] * h[t - 1] + b[t] - h[t])

    work.equal(sp.diff(term(k - 1 - m), h[k]), 0, "an earlier step does not see h_k")
    work.equal(sp.diff(term(k + 2 + m), h[k]), 0, "nor does a step after the next")
    slope = sp.diff(term(k) + term(k + 1), h[k])
    work.show("what is left of ∂Λ/∂h_k", slope)
    [stationary] = sp.solve(slope, g[k])
    work.equal(stationary, C[k] * w[k] + A_bar[k + 1] * g[k + 1], "stationarity")
    work.equal(sp.diff(term(k), b[k]), g[k], "the explicit slopes: by b_k")
    work.equal(sp.diff(term(k), A_bar[k]), g[k] * h[k - 1], "by Ā_k")
    work.summary("any length, any k")


# %% [markdown]
# ## All the way to the inputs
#
# A rule of discretisation is a pair of functions of $z = \Delta a$: $\bar A = \alpha(z)$ and
# $\bar B = \Delta\,p(z)\,B$. Before it stands $\Delta = \operatorname{softplus}(\delta + \text{bias})$, behind it the
# skip and the gate. We leave $\alpha$, $p$, softplus and silu as functions of which SymPy knows nothing but the names
# of their derivatives: what it then proves holds for every rule at once. We write $\nabla_x$ for
# $\partial\ell/\partial x$ and $e_t = w_t\operatorname{silu}(z_t)$ for what arrives behind the gate. Any length and any
# number of states come by the Lagrangian once more; three steps are written out beside it.


# %%
def known_by_slope(name: str) -> Any:
    """A function f of which only f′, another unknown function, is known."""
    slope = sp.Function(name + "'")
    return type(name, (sp.Function,), {"fdiff": lambda self, argindex=1: slope(self.args[0])}), slope


alpha, dalpha = known_by_slope("alpha")
p, dp = known_by_slope("p")
softplus, dsoftplus = known_by_slope("softplus")
silu, dsilu = known_by_slope("silu")


def by_the_lagrangian(work: Work) -> None:
    """The gradients are the explicit slopes of Λ (ADJ-2), to which each step and each state adds a term of its own."""
    t, n = sp.symbols("t n", integer=True)
    m = sp.Symbol("m", integer=True, positive=True)
    u, step, gate, w, A, B, C, h, g = (
        sp.IndexedBase(name) for name in ("u", "Delta", "z", "w", "a", "B", "C", "h", "g")
    )
    D, delta, bias, last = sp.symbols("D delta_t bias v_n")

    def term(t: Any) -> Any:
        x = step[t] * A[n]
        moved = alpha(x) * h[t - 1, n] + step[t] * p(x) * B[t, n] * u[t]
        return w[t] * silu(gate[t]) * C[t, n] * h[t, n] + g[t, n] * (moved - h[t, n])

    skip = w[t] * silu(gate[t]) * D * u[t]
    work.show("the term of step t and state n", term(t))
    for symbol in (u[t], step[t], gate[t], B[t, n], C[t, n]):
        work.equal(sp.diff(term(t - m), symbol), 0)
        work.equal(sp.diff(term(t + m), symbol), 0)
    work.show("has all of u_t, Δ_t, z_t, B_t and C_t there is, but for the skip", skip)

    e, x = w[t] * silu(gate[t]), step[t] * A[n]
    carried, written = dalpha(x) * g[t, n] * h[t - 1, n], g[t, n] * B[t, n] * u[t]
    stationary = C[t, n] * e - g[t, n]
    later = alpha(step[t + 1] * A[n]) * g[t + 1, n]
    work.equal(sp.diff(term(t) + term(t + 1), h[t, n]), stationary + later, "by h_t, zero for the right g;")
    work.equal(sp.diff(term(t) + last * h[t, n], h[t, n]), stationary + last, "at t = L with the last state's gradient")
    for symbol, slope, text in (
        (u[t], step[t] * p(x) * g[t, n] * B[t, n], "u_t"),
        (step[t], A[n] * carried + (p(x) + x * dp(x)) * written, "Δ_t"),
        (A[n], step[t] * carried + step[t] ** 2 * dp(x) * written, "a, summed over t"),
        (B[t, n], g[t, n] * step[t] * p(x) * u[t], "B_t"),
        (C[t, n], e * h[t, n], "C_t"),
        (gate[t], w[t] * C[t, n] * h[t, n] * dsilu(gate[t]), "z_t"),
        (h[t - 1, n], alpha(x) * g[t, n], "h_0, at t = 1"),
    ):
        work.equal(sp.diff(term(t), symbol), slope, f"the slope by {text}")
    for symbol, slope in ((u[t], D * e), (D, e * u[t]), (gate[t], w[t] * D * u[t] * dsilu(gate[t]))):
        work.equal(sp.diff(skip, symbol), slope)
    for symbol in (delta, bias):
        work.equal(sp.diff(softplus(delta + bias), symbol), dsoftplus(delta + bias), "and Δ_t has this slope")


@claim(
    "ADJ-3",
    r"\nabla_{u_t} = \sum_n g_t\bar B_t + D e_t,\quad "
    r"\nabla_{\Delta_t} = \sum_n a\,\alpha' g_t h_{t-1} + (p + zp')\,g_t B_t u_t,\quad "
    r"\nabla_a = \sum_t \Delta_t\alpha' g_t h_{t-1} + \Delta_t^2 p'\,g_t B_t u_t",
    source="Mamba, Algorithm 2 and eq. 2",
    method="symbolic",
    declared="proved",
)
def gradients_of_all_inputs(work: Work) -> None:
    """The gradients of u, Δ, A, B, C, D, z and the bias, for any rule"""
    by_the_lagrangian(work)
    for N in (1, 2):
        times, states = range(1, L + 1), range(N)
        u, delta, gate, w = (in_time(name) for name in ("u", "delta", "z", "w"))
        A = sp.symbols(f"a_0:{N}")
        B, C = ([sp.symbols(f"{name}_{t}_0:{N}") for t in range(L + 1)] for name in ("B", "C"))
        h0, last = sp.symbols(f"h_0:{N}"), sp.symbols(f"v_0:{N}")
        D, bias = sp.symbols("D bias")

        step = [softplus(delta[t] + bias) for t in range(L + 1)]
        h = [list(h0)]
        for t in times:
            decay = [alpha(step[t] * A[n]) for n in states]
            weight = [step[t] * p(step[t] * A[n]) for n in states]
            h.append([decay[n] * h[t - 1][n] + weight[n] * B[t][n] * u[t] for n in states])
        s = [sum(C[t][n] * h[t][n] for n in states) + D * u[t] for t in range(L + 1)]
        loss = sum(w[t] * s[t] * silu(gate[t]) for t in times) + sum(last[n] * h[L][n] for n in states)

        carried = list(last)
        dA, dD, dbias = [sp.Integer(0)] * N, sp.Integer(0), sp.Integer(0)
        for t in reversed(times):
            e, x = w[t] * silu(gate[t]), [step[t] * A[n] for n in states]
            g = [C[t][n] * e + carried[n] for n in states]
            dstep = sum(
                A[n] * dalpha(x[n]) * g[n] * h[t - 1][n] + (p(x[n]) + x[n] * dp(x[n])) * g[n] * B[t][n] * u[t]
                for n in states
            )
            ddelta = dsoftplus(delta[t] + bias) * dstep
            du = sum(g[n] * step[t] * p(x[n]) * B[t][n] for n in states) + D * e
            work.equal(sp.diff(loss, u[t]), du)
            work.equal(sp.diff(loss, delta[t]), ddelta)
            work.equal(sp.diff(loss, gate[t]), w[t] * s[t] * dsilu(gate[t]))
            for n in states:
                work.equal(sp.diff(loss, B[t][n]), g[n] * step[t] * p(x[n]) * u[t])
                work.equal(sp.diff(loss, C[t][n]), e * h[t][n])
                dA[n] += step[t] * dalpha(x[n]) * g[n] * h[t - 1][n] + step[t] ** 2 * dp(x[n]) * g[n] * B[t][n] * u[t]
                carried[n] = alpha(x[n]) * g[n]
            dD, dbias = dD + e * u[t], dbias + ddelta
        work.equal(sp.diff(loss, D), dD)
        work.equal(sp.diff(loss, bias), dbias)
        for n in states:
            work.equal(sp.diff(loss, A[n]), dA[n])
            work.equal(sp.diff(loss, h0[n]), carried[n])
    x = sp.Symbol("x", real=True)
    sigma = 1 / (1 + sp.exp(-x))
    work.equal(sp.diff(sp.log(1 + sp.exp(x)), x), sigma, "softplus′ is the sigmoid")
    work.equal(sp.diff(x * sigma, x), sigma * (1 + x * sigma.subs(x, -x)), "silu′ = σ(x)(1 + x σ(−x))")
    work.summary("any α and p, any length and number of states; length 3 with 1 and 2 states written out")


# %% [markdown]
# ## The slopes of the rules
#
# What is left to know are the slopes of $\alpha$ and of $\Delta p(\Delta a)$. One of them has a hidden simplicity. Hold
# $u = 1$ and wait: the true state settles at $-B/a$. A rule whose own fixed point $\bar B/(1-\bar A)$ is the same has
# $z\,p(z) = \alpha(z) - 1$, and therefore
#
# $$\frac{\partial}{\partial\Delta}\,\Delta\,p(\Delta a) = \alpha'(\Delta a).$$
#
# Every one-tap rule but Mamba's keeps the steady state. Mamba's $\bar B = \Delta B$ gives it up; its slope is $1$.

# %%
e_z = sp.exp(z)
phi_1 = (e_z - 1) / z
phi_2 = (phi_1 - 1) / z
dphi_1 = (e_z - phi_1) / z
half = sp.Rational(1, 2)

# name: α, p, q and α′, p′, q′ as the library has them
RULES: dict[str, tuple[tuple[Any, Any, Any], tuple[Any, Any, Any]]] = {
    "zoh": ((e_z, phi_1, 0), (e_z, dphi_1, 0)),
    "euler": ((1 + z, sp.Integer(1), 0), (sp.Integer(1), sp.Integer(0), 0)),
    "backward_euler": ((1 / (1 - z), 1 / (1 - z), 0), ((1 - z) ** -2, (1 - z) ** -2, 0)),
    "bilinear": (
        ((1 + z / 2) / (1 - z / 2), 1 / (1 - z / 2), 0),
        ((1 - z / 2) ** -2, half * (1 - z / 2) ** -2, 0),
    ),
    "mamba": ((e_z, sp.Integer(1), 0), (e_z, sp.Integer(0), 0)),
    "foh": ((e_z, phi_2, phi_1 - phi_2), (e_z, (dphi_1 - phi_2) / z, (e_z - 2 * dphi_1) / z)),
    "exponential_trapezoidal": ((e_z, half, half * e_z), (e_z, sp.Integer(0), half * e_z)),
}


@claim(
    "ADJ-4",
    r"z\,p(z) = \alpha(z) - 1 \;\Rightarrow\; \partial_\Delta\left(\Delta\,p(\Delta a)\right) = \alpha'(\Delta a)",
    source="Mamba, eq. 4; S4, eq. 3",
    method="symbolic",
    declared="proved",
)
def slope_of_the_input_weight(work: Work) -> None:
    """A rule that keeps the steady state needs only α′"""
    keepers = [name for name, ((_, _, q), _) in RULES.items() if q == 0 and name != "mamba"]
    for name in keepers:
        (rule_alpha, rule_p, _), (rule_dalpha, _, _) = RULES[name]
        work.equal(z * rule_p, rule_alpha - 1, f"{name}: z p = α − 1")
        weight = Delta * rule_p.subs(z, Delta * a)
        work.equal(sp.diff(weight, Delta), rule_dalpha.subs(z, Delta * a), f"{name}: so its slope is α′")
    (mamba_alpha, mamba_p, _), _ = RULES["mamba"]
    work.equal(sp.diff(Delta * mamba_p, Delta), 1, "mamba: p = 1, so its slope is 1, where α′ is not")
    work.equal(sp.limit((z * mamba_p - (mamba_alpha - 1)) / z**2, z, 0), -half, "for z p is not α − 1")
    work.summary(", ".join(keepers))


@claim(
    "ADJ-5",
    r"\partial_\Delta\alpha = a\alpha',\quad \partial_a\alpha = \Delta\alpha',\quad "
    r"\partial_\Delta(\Delta p) = p + zp',\quad \partial_a(\Delta p) = \Delta^2p'",
    source="Mamba, eq. 4; Mamba-3, exponential-trapezoidal rule; S4, eq. 3",
    method="symbolic",
    declared="proved",
)
def partials_of_every_rule(work: Work) -> None:
    """The partial derivatives of every rule, by Δ and by a"""
    work.true(set(RULES) == set(METHODS), "no rule of the library is left out")
    for name, (functions, slopes) in RULES.items():
        for letter, f, df in zip("αpq", functions, slopes, strict=True):
            work.equal(sp.diff(f, z), df, f"{name}: {letter}′")
        f, df = (expr.subs(z, Delta * a) for expr in (functions[0], slopes[0]))
        work.equal(sp.diff(f, Delta), a * df)
        work.equal(sp.diff(f, a), Delta * df)
        for f, df in zip(functions[1:], slopes[1:], strict=True):
            f, df = (sp.sympify(expr).subs(z, Delta * a) for expr in (f, df))
            work.equal(sp.diff(Delta * f, Delta), f + Delta * a * df)
            work.equal(sp.diff(Delta * f, a), Delta**2 * df)
    work.summary(f"{len(RULES)} rules, any z ≠ 0")


# %% [markdown]
# ## Complex states
#
# A complex $a$ stands for a pair $a, a^*$, with the states, $B$ and $C$ of its partner conjugate as well, so that the
# pair adds $Ch + C^*h^* = 2\operatorname{Re}Ch$ to $y$. Of the gradient by a complex number, meaning
# $\partial\ell/\partial\operatorname{Re} + i\,\partial\ell/\partial\operatorname{Im}$, one thing is to be remembered: a
# holomorphic factor goes back **conjugated**.


# %%
@claim(
    "ADJ-6",
    r"y = 2\operatorname{Re}\,Ch \;\Rightarrow\; g_t = 2C_t^* w_t + \bar A_{t+1}^* g_{t+1},\quad "
    r"\nabla_{C_t} = 2h_t^* w_t,\quad \nabla_a = \sum_t (\Delta_t\bar A_t)^*\, g_t h_{t-1}^*",
    source="S4D, §3; Mamba, §3.6",
    method="symbolic",
    declared="proved",
)
def complex_states(work: Work) -> None:
    """The factor 2 and the conjugates of a complex scan"""

    def cartesian(name: str) -> Any:
        return sum(
            unit * part for unit, part in zip((1, sp.I), sp.symbols(f"{name}^r {name}^i", real=True), strict=True)
        )

    def gradient(real_valued: Any, by: Any) -> Any:
        re, im = sp.symbols([str(s) for s in (sp.re(by), sp.im(by))], real=True)
        return sp.diff(real_valued, re) + sp.I * sp.diff(real_valued, im)

    def agree(left: Any, right: Any, text: str = "") -> None:
        work.equal(sp.expand_complex(left), sp.expand_complex(right))
        if text:
            work.show(text)

    u, step, w = (in_time(name, real=True) for name in ("u", "Delta", "w"))
    lam, h0, last = (cartesian(name) for name in ("a", "h", "v"))
    B, C = ([cartesian(f"{name}_{t}") for t in range(3)] for name in ("B", "C"))
    h = [h0]
    for t in (1, 2):
        h.append(sp.exp(step[t] * lam) * h[t - 1] + step[t] * B[t] * u[t])
    agree(C[1] * h[1] + sp.conjugate(C[1]) * sp.conjugate(h[1]), 2 * sp.re(sp.expand_complex(C[1] * h[1])), "a pair")

    loss = sum(w[t] * 2 * sp.re(sp.expand_complex(C[t] * h[t])) for t in (1, 2))
    loss += sp.re(sp.expand_complex(sp.conjugate(last) * h[2]))
    carried, da = last, sp.Integer(0)
    for t in (2, 1):
        decay = sp.exp(step[t] * lam)
        g = 2 * sp.conjugate(C[t]) * w[t] + carried
        agree(gradient(loss, C[t]), 2 * sp.conjugate(h[t]) * w[t], f"the gradient of C at t = {t}")
        agree(gradient(loss, B[t]), g * step[t] * u[t], f"of B at t = {t}")
        agree(sp.diff(loss, u[t]), sp.re(sp.expand_complex(g * sp.conjugate(step[t] * B[t]))))
        dstep = sp.conjugate(lam * decay * h[t - 1]) * g + sp.conjugate(B[t] * u[t]) * g
        agree(sp.diff(loss, step[t]), sp.re(sp.expand_complex(dstep)), f"of Δ at t = {t}, a real part")
        da += sp.conjugate(step[t] * decay * h[t - 1]) * g
        carried = sp.conjugate(decay) * g
    agree(gradient(loss, lam), da, "of a, over all t")
    agree(gradient(loss, h0), carried, "of the initial state")
    work.summary("length 2, Mamba's rule, all real and imaginary parts free")


# %% [markdown]
# ## From symbols to floating point
#
# The library's slopes are NumPy functions, some of them power series near $z = 0$, where the closed forms cancel. We
# hold them against the symbolic slopes, evaluated with so many digits that 50 are left after their cancellation.

# %%
EPS = float(np.finfo(np.float64).eps)
POINTS = [-40.0, -6.5, -1.25, -0.99, -0.3, -1e-3, -1e-9, 0.4, 1.5, -0.5 + 2j, -3 - 1j, 1e-6j]


@claim(
    "ADJ-7",
    r"|\hat\alpha' - \alpha'| \le 32\,\varepsilon\,|\alpha'|,\quad |\hat p' - p'| \le 32\,\varepsilon\,|p'|,\quad"
    r" |\widehat{(zp)'} - (zp)'| \le 32\,\varepsilon\,|(zp)'|",
    source="Higham 2002, §1.7",
    method="numeric",
    declared="verified",
)
def slopes_in_floating_point(work: Work) -> None:
    """The library's slopes against 50 digits"""
    # Each is some ten operations on numbers of one size: the closed forms are used for |z| ≥ 1 alone, where
    # their subtractions lose no more than two bits.
    for name, (functions, slopes) in RULES.items():
        method = METHODS[name]
        by_delta = [sp.simplify(f + z * df) for f, df in zip(functions[1:], slopes[1:], strict=True)]
        for function, slope in (
            (method.dalpha, slopes[0]),
            (method.dp, slopes[1]),
            (method.dq, slopes[2]),
            (method.dzp, by_delta[0]),
            (method.dzq, by_delta[1]),
        ):
            if function is None:
                continue
            exact_slope = sp.lambdify(z, slope, "mpmath")
            for point in POINTS:
                with mp.workdps(80):  # at |z| = 1e-9 the closed forms lose 27 of these digits
                    exact = complex(exact_slope(mp.mpmathify(point)))
                found = complex(function(np.array([point]))[0])
                work.within(abs(found - exact), 32 * EPS * abs(exact), f"{name} at z = {point}")
    work.summary(f"{len(RULES)} rules at {len(POINTS)} points, complex ones among them")


# %% [markdown]
# A whole gradient is checked without a single difference. Move all inputs at once, in a direction $v$, and carry beside
# each number its derivative: $(x, \dot x)(y, \dot y) = (xy,\ \dot x y + x \dot y)$ and
# $f(x, \dot x) = (f(x),\ f'(x)\,\dot x)$. What comes out beside $y$ is $Jv$. The adjoint must satisfy
# $\langle g, Jv\rangle = \langle J^\top g, v\rangle$, for complex numbers with
# $\langle g, v\rangle = \operatorname{Re}\sum g^* v$, whichever options the scan is given.


# %%
@dataclass(frozen=True)
class Dual:
    """Numbers, and their derivatives in one direction."""

    value: Any
    slope: Any

    def __add__(self, other: Dual) -> Dual:
        return Dual(self.value + other.value, self.slope + other.slope)

    def __mul__(self, other: Dual) -> Dual:
        return Dual(self.value * other.value, self.slope * other.value + self.value * other.slope)

    def through(self, f: Callable[[Any], Any], df: Callable[[Any], Any]) -> Dual:
        return Dual(f(self.value), df(self.value) * self.slope)

    def under(self, linear: Callable[[Any], Any]) -> Dual:
        return Dual(linear(self.value), linear(self.slope))

    def at(self, t: int) -> Dual:
        """x_t of (batch, dim, length), for all states alike."""
        return self.under(lambda x: x[:, :, t, None])


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def dsigmoid(x: Any) -> Any:
    return sigmoid(x) * sigmoid(-x)


def scan_with_slopes(x: dict[str, Dual], rule: str, softplus: bool, seq_idx: Any) -> tuple[Dual, Dual]:
    """y and the last state. The slopes of α and p are the library's, which ADJ-5 and ADJ-7 are about."""
    method, (dim, length) = METHODS[rule], x["u"].value.shape[1:]

    def map_at(M: Any, t: int) -> Any:
        if M.ndim == 2:
            return M
        M = M[..., t] if M.ndim == 4 else M[:, None, :, t]
        return np.repeat(M, dim // M.shape[1], axis=1)

    delta = x["delta"]
    if "delta_bias" in x:
        delta = delta + x["delta_bias"].under(lambda b: b[:, None])
    if softplus:
        delta = delta.through(lambda s: np.log1p(np.exp(s)), sigmoid)
    zero = np.zeros((*x["u"].value.shape[:2], x["A"].value.shape[1]), x["A"].value.dtype)
    h, outputs, pair = x.get("initial_state", Dual(zero, zero)), [], Dual(2 if np.iscomplexobj(zero) else 1, 0.0)
    for t in range(length):
        x_A = delta.at(t) * x["A"]
        kept = 1.0 if t == 0 or seq_idx is None else (seq_idx[:, t] == seq_idx[:, t - 1])[:, None, None]
        B, C = (x[name].under(partial(map_at, t=t)) for name in "BC")
        carried = x_A.through(method.alpha, method.dalpha) * h * Dual(kept, 0.0)
        h = carried + delta.at(t) * x_A.through(method.p, method.dp) * B * x["u"].at(t)
        outputs.append(pair * (C * h).under(lambda terms: terms.sum(-1).real))
    y = Dual(*(np.stack(parts, -1) for parts in zip(*((s.value, s.slope) for s in outputs), strict=True)))
    if "D" in x:
        y = y + x["D"].under(lambda D: D[:, None]) * x["u"]
    return (y if "z" not in x else y * x["z"] * x["z"].through(sigmoid, dsigmoid)), h


def random_inputs(rng: np.random.Generator, length: int) -> dict[str, Any]:
    batch, dim, state = 2, 3, 4
    sizes: dict[str, tuple[int, ...]] = {
        "u": (batch, dim, length),
        "delta": (batch, dim, length),
        "A": (dim, state),
        "B": (batch, state, length),
    }
    sizes |= {"C": (batch, state, length), "D": (dim,), "z": (batch, dim, length), "delta_bias": (dim,)}
    inputs = {name: rng.normal(size=size) for name, size in sizes.items()}
    return inputs | {"A": -np.exp(inputs["A"])}


seeds = st.integers(0, 2**32 - 1)
MAPS = {"constant": (4, 3), "for all": (2, 3, -1), "by group": (2, 2, 3, -1)}  # shapes of B and C, of 2 × 4 × 3 states
options = st.fixed_dictionaries(
    {
        "rule": st.sampled_from(DISCRETIZATIONS),
        "softplus": st.booleans(),
        "is_complex": st.booleans(),
        "complex_maps": st.booleans(),
        "maps": st.tuples(*[st.sampled_from(sorted(MAPS))] * 2),
        "absent": st.sets(st.sampled_from(["D", "z", "delta_bias", "initial_state", "seq_idx", "grad_last_state"])),
    }
)


def random_scan(rng: np.random.Generator, length: int, drawn: dict[str, Any]) -> dict[str, Any]:
    """The arrays of a scan with these options; Δ > 0 also without softplus, and Re A < 0."""
    kinds = dict.fromkeys(("A", "initial_state", "grad_last_state"), drawn["is_complex"])
    kinds |= dict.fromkeys("BC", drawn["is_complex"] and drawn["complex_maps"])
    in_time, states = (2, 4, length), (2, 4, 3)
    shapes = {
        "u": in_time,
        "delta": in_time,
        "A": (4, 3),
        "D": (4,),
        "z": in_time,
        "delta_bias": (4,),
        "grad_y": in_time,
    }
    shapes |= {
        name: tuple(length if n < 0 else n for n in MAPS[kind]) for name, kind in zip("BC", drawn["maps"], strict=True)
    }
    shapes |= {"initial_state": states, "grad_last_state": states}
    inputs: dict[str, Any] = {
        name: rng.normal(size=shape) + (1j * rng.normal(size=shape) if kinds.get(name) else 0)
        for name, shape in shapes.items()
    }
    inputs["A"] = -np.exp(inputs["A"].real) + 1j * inputs["A"].imag if drawn["is_complex"] else -np.exp(inputs["A"])
    if not drawn["softplus"]:
        inputs["delta"], inputs["delta_bias"] = np.exp(inputs["delta"]), np.exp(inputs["delta_bias"])
    inputs["seq_idx"] = rng.integers(0, 2, (2, length))
    return {name: value for name, value in inputs.items() if name not in drawn["absent"]}


@claim(
    "ADJ-8",
    r"\langle g,\, Jv\rangle = \langle J^\top g,\, v\rangle",
    source="Higham 2002, §3.1",
    method="property",
    declared="verified",
)
def adjoint_identity(work: Work) -> None:
    """The library's adjoint is the transpose of the derivative, with every option"""

    def check(drawn: tuple[int, int, dict[str, Any]]) -> None:
        rng, length, chosen = np.random.default_rng(drawn[0]), drawn[1], drawn[2]
        inputs = random_scan(rng, length, chosen)
        g, g_last, seq_idx = inputs.pop("grad_y"), inputs.pop("grad_last_state", None), inputs.pop("seq_idx", None)
        v = {
            name: rng.normal(size=x.shape) + (1j * rng.normal(size=x.shape) if np.iscomplexobj(x) else 0)
            for name, x in inputs.items()
        }
        moved = {name: Dual(x, v[name]) for name, x in inputs.items()}
        y, last = scan_with_slopes(moved, chosen["rule"], chosen["softplus"], seq_idx)
        left = (g * y.slope).sum() + (0.0 if g_last is None else (np.conj(g_last) * last.slope).sum().real)

        how: dict[str, Any] = {
            "delta_softplus": chosen["softplus"],
            "seq_idx": seq_idx,
            "discretization": chosen["rule"],
        }
        found = selective_scan_backward(g, **inputs, **how, grad_last_state=g_last, backend="reference")._asdict()
        radii = bounds.backward(make_problem(**inputs, **how), g, g_last)._asdict()
        terms = np.concatenate([(np.conj(found[name]) * v[name]).real.ravel() for name in v])
        off = sum((radii[name].reshape(v[name].shape) * np.abs(v[name])).sum() for name in v)
        # Both sides are sums of the same products, in another order: each is as far from the truth as a gradient
        # may be (ROUND-12), and rounded in the last sum.
        work.within(abs(left - terms.sum()), 2 * (off + terms.size * EPS * np.abs(terms).sum()))

    work.forall(st.tuples(seeds, st.integers(1, 8), options), check, examples=150)
    work.summary(
        f"150 scans: {len(DISCRETIZATIONS)} rules, real and complex states and maps, constant, grouped and not; with"
        " and without softplus, D, z, bias, initial state, packed sequences and a gradient of the last state"
    )


# %% [markdown]
# ## Memory: keep the borders, recompute the rest
#
# The slopes need $h_{t-1}$ at every $t$: kept in full, the states are `state` times as large as $u$. But a state can
# be had again from an earlier one. Cut time into chunks of $K$ steps and keep only the states at their borders. The
# backward pass takes the chunks from last to first, recomputes the $K$ states of one, and hands $\bar A g$ at its left
# border to the chunk before. The state at the border and this gradient are all that two chunks say to each other.


# %%
@claim(
    "ADJ-9",
    r"\nabla\ell \text{ from the states at chunk borders} = \nabla\ell \text{ from all states}",
    source="Mamba, §3.3.2",
    method="property",
    declared="verified",
)
def chunks_exchange_two_numbers(work: Work) -> None:
    """The backward pass from border states alone"""

    def check(drawn: tuple[int, int, int]) -> None:
        seed, length, K = drawn
        rng = np.random.default_rng(seed)
        inputs = random_inputs(rng, length)
        how: dict[str, Any] = {"delta_softplus": True, "backend": "reference"}
        g = rng.normal(size=inputs["u"].shape)
        whole = selective_scan_backward(g, **inputs, **how)
        radii = bounds.backward(make_problem(**inputs, delta_softplus=True), g)

        def chunk(start: int) -> dict[str, Any]:
            return {n: x[..., start : start + K] if x.ndim == 3 else x for n, x in inputs.items()}

        starts = range(0, length, K)
        borders = [np.zeros((*g.shape[:2], inputs["A"].shape[1]))]
        for start in starts:
            run = selective_scan(**chunk(start), **how, initial_state=borders[-1], return_last_state=True)
            borders.append(run[1])
        carried: Any = np.zeros_like(borders[0])
        parts: list[Any] = []
        for start, border in reversed(list(zip(starts, borders[:-1], strict=True))):
            part = selective_scan_backward(
                g[..., start : start + K], **chunk(start), **how, initial_state=border, grad_last_state=carried
            )
            carried = part.initial_state
            parts.insert(0, part)
        for name in inputs:
            pieces = [getattr(part, name) for part in parts]
            found = np.concatenate(pieces, axis=-1) if pieces[0].ndim == 3 else sum(pieces)
            # In time the arithmetic is the same to the bit; the sums over time are taken in another order (ROUND-4).
            allowed = 0.0 if pieces[0].ndim == 3 else getattr(radii, name)
            work.within(np.abs(found - getattr(whole, name)), allowed, name)

    work.forall(st.tuples(seeds, st.integers(1, 10), st.integers(1, 5)), check, examples=15)


@claim(
    "ADJ-10",
    r"\min_K \left(\tfrac{L}{K} + K\right) = 2\sqrt L \ \text{ at } K = \sqrt L",
    source="Mamba, §3.3.2",
    method="symbolic",
    declared="proved",
)
def memory_of_checkpoints(work: Work) -> None:
    """States kept: one a border, and those of the chunk in hand"""
    K, length = sp.symbols("K L", positive=True)
    kept = length / K + K
    work.show("states kept at once", kept)
    [best] = sp.solve(sp.diff(kept, K), K)
    work.equal(best, sp.sqrt(length), "where the slope is zero")
    work.true(sp.diff(kept, K, 2).is_positive, "the curve is convex, so that is the minimum")
    work.equal(kept.subs(K, best), 2 * sp.sqrt(length), "its value")
    work.summary("any length")


# %% [markdown]
# ## Multiply, do not subtract
#
# A kernel that has $h_t$ at hand, but not $h_{t-1}$, may be tempted to form $\bar A_t h_{t-1}$ as
# $h_t - \bar B_t u_t$. On paper the two are the same. In float32, with unit roundoff $\mathrm u = 2^{-24}$, the sum
# $h_t$ was rounded to a multiple of its own last bit; under strong decay $\bar A_t h_{t-1}$ is smaller than that bit,
# and nothing of it is left.

# %%
U32 = float(np.finfo(np.float32).eps) / 2
DECAYS = np.arange(0.0, -20.5, -0.5)
# Where ΔA itself is exact, exp is good to some three units in the last place, 6 u, and the product to one u.
PRODUCT_BOUND = 8 * U32


def carried_part(decay: float, subtract: bool) -> np.ndarray:
    """Relative error of Ā h_{t−1} in float32, for 1000 standard normal h_{t−1} and B̄u and Δa = decay."""
    h, input_ = np.random.default_rng(0).normal(size=(2, 1000)).astype(np.float32)
    exact = np.exp(decay) * h.astype(np.float64)
    product = np.exp(np.float32(decay)) * h
    found = (product + input_) - input_ if subtract else product
    return np.abs(found - exact) / np.abs(exact)


@claim(
    "ADJ-11",
    r"h_t - \bar B_t u_t \text{ is as good as } \bar A_t h_{t-1} \text{ in float32}",
    source="Higham 2002, §1.7",
    method="measured",
    declared="refuted",
    corrected_by="ADJ-12",
)
def subtracting(work: Work) -> None:
    """Ā h by subtraction"""
    for decay in DECAYS:
        error = carried_part(float(decay), subtract=True)
        work.show(f"ΔA = {decay:g}: median relative error {np.median(error):.1e}")
    for decay in DECAYS[::-1]:
        work.within(
            np.median(carried_part(float(decay), subtract=True)),
            PRODUCT_BOUND,
            f"ΔA = {decay:g}, median of 1000 states",
        )


@claim(
    "ADJ-12",
    r"|\mathrm{fl}(\bar A_t h_{t-1}) - \bar A_t h_{t-1}| \le 8\mathrm u\,|\bar A_t h_{t-1}|"
    r"\ \text{ where } \Delta A \text{ is exact}",
    source="Higham 2002, §2.2",
    method="measured",
    declared="verified",
)
def multiplying(work: Work) -> None:
    """Ā h by multiplication"""
    for decay in DECAYS:
        work.within(carried_part(float(decay), subtract=False), PRODUCT_BOUND, f"ΔA = {decay:g}")


# %% [markdown]
# The slope of the input weight holds the same trap. By ADJ-5 it is $p + zp'$; for ZOH, where $p = \varphi_1$, that is
# $-\frac1z + \frac1z$ and a remainder $e^z$. ADJ-4 has the remainder alone.


# %%
@claim(
    "ADJ-13",
    r"\mathrm{fl}(p + zp') \text{ has ten correct digits, for ZOH}",
    source="Higham 2002, §1.7",
    method="numeric",
    declared="refuted",
    corrected_by="ADJ-4",
)
def slope_by_a_cancelling_sum(work: Work) -> None:
    """p + z p′ computed as it stands"""
    zoh = METHODS["zoh"]
    for point in DECAYS[1:]:
        x = np.array([point])
        found, exact = (zoh.p(x) + x * zoh.dp(x))[0], np.exp(point)
        work.within(abs(found - exact) / exact, 1e-10, f"z = {point:g}")


# %%
if __name__ == "__main__":
    run_as_script(globals())
