# %% [markdown]
# # Where A and Δ come from
#
# A state of $N$ numbers is to remember the whole past of a signal $f$ on $[0,t]$. HiPPO's answer: keep the
# coefficients of its best approximation by polynomials of degree below $N$. They obey a linear differential equation,
# and its matrix is where S4 starts. S4 makes that matrix almost diagonal, S4D makes it diagonal, and Mamba keeps the
# real diagonal $-1,\dots,-N$. This script walks that road, and then to the step sizes $\Delta$ that Mamba starts with.

# %%
from __future__ import annotations

from math import comb

import numpy as np
import sympy as sp

from ssm_edu.hippo import dplr_legs, legs, mamba_A, mamba_delta_bias, nplr_legs, s4d_inv, s4d_lin, softplus_inverse
from ssm_edu.ledger import Work, claim, run_as_script

UNIT = 2.0**-53  # the unit roundoff of float64

# %% [markdown]
# ## LegS: a memory that rescales itself
#
# On $[0,t]$ the scaled Legendre polynomials $g_n(x/t)$, $g_n(s)=\sqrt{2n+1}\,P_n(2s-1)$, are orthonormal under the
# measure $dx/t$. So the coefficients are $c_n(t)=\frac1t\int_0^tf(x)\,g_n(x/t)\,dx$, and by Leibniz' rule
# $$\dot c_n=\underbrace{\tfrac1tg_n(1)\,f(t)}_{\text{what comes in}}
#   +\int_0^tf(x)\,\tfrac{\partial}{\partial t}\Big[\tfrac1tg_n(x/t)\Big]dx.$$
# The derivative in the integral is again a polynomial of degree $n$ in $x/t$, hence a combination of $g_0,\dots,g_n$
# whose coefficients are row $n$ of $A$. That row can only reach down: **A is lower triangular because differentiating a
# polynomial never raises its degree.**


# %%
def g(n: int, s: sp.Expr) -> sp.Expr:
    return sp.sqrt(2 * n + 1) * sp.legendre(n, 2 * s - 1)


def legs_symbolic(N: int) -> tuple[sp.Matrix, sp.Matrix]:
    def entry(i: int, k: int) -> sp.Expr:
        return -sp.sqrt(2 * i + 1) * sp.sqrt(2 * k + 1) if i > k else -sp.Integer(i + 1) if i == k else sp.Integer(0)

    return sp.Matrix(N, N, entry), sp.Matrix(N, 1, lambda i, _: sp.sqrt(2 * i + 1))


@claim(
    "HIPPO-1",
    r"\dot c=\tfrac1t(A\,c+B\,f),\quad A_{nk}=-\sqrt{(2n+1)(2k+1)}\;(n>k),\;A_{nn}=-(n+1),\;B_n=\sqrt{2n+1}",
    source="HiPPO, Theorem 2 (LegS, there with the opposite sign of A)",
    method="symbolic",
    declared="proved",
)
def legs_from_projection(work: Work) -> None:
    """LegS is what Legendre coefficients obey, for any f"""
    N = 6
    x, t = sp.symbols("x t", positive=True)
    A, B = legs_symbolic(N)
    for n in range(N):
        work.equal(g(n, sp.Integer(1)), B[n])
        moved = sp.diff(g(n, x / t) / t, t)
        work.equal(moved, sum(A[n, k] * g(k, x / t) / t**2 for k in range(n + 1)))
    work.show("the derivative in the integral, n = 2", sp.factor(sp.diff(g(2, x / t) / t, t)))
    work.show("A for N = 4", A[:4, :4])
    work.summary(f"all rows up to n = {N - 1}, as identities of the integrand, so for every f")


@claim(
    "HIPPO-2",
    r"\operatorname{spec}A=\{-1,\dots,-N\}=\operatorname{diag}A",
    source="HiPPO, Theorem 2; S4D (S4D-Real); Mamba, §3.6",
    method="symbolic",
    declared="proved",
)
def triangular(work: Work) -> None:
    """LegS has the eigenvalues −1 … −N: its diagonal, which is S4D-Real"""
    lam = sp.Symbol("lambda")
    A, _ = legs_symbolic(5)
    work.equal(A.charpoly(lam).as_expr(), sp.prod(lam + k for k in range(1, 6)), "characteristic polynomial, N = 5")
    work.true(A.is_lower, "A is lower triangular, so that det(λ − A) is the product along the diagonal for every N")
    work.summary("N = 5; any N by the triangle")


# %% [markdown]
# Does the equation really carry the projection? Integrate it from $t=0.2$ to $t=2$, and compare with coefficients
# computed from scratch, by quadrature over the whole past. In $\log t$ the equation is $dc/d\log t=Ac+Bf$ with
# $A+A^T<0$ (HIPPO-13), so that errors once made do not grow, and the final one is at most the sum of the solver's
# tolerances.


# %%
@claim(
    "HIPPO-3",
    r"c(t)=\tfrac1t\int_0^tf(x)\,g(x/t)\,dx\ \text{ solves }\ \dot c=\tfrac1t(Ac+Bf)",
    source="HiPPO, Theorem 2",
    method="numeric",
    declared="verified",
)
def memory(work: Work) -> None:
    """The state is the projection of the past"""
    from scipy.integrate import solve_ivp

    N, start, end, rtol, atol = 8, 0.2, 2.0, 1e-10, 1e-12
    A, B = legs(N)
    nodes, weights = np.polynomial.legendre.leggauss(40)

    def f(x: np.ndarray) -> np.ndarray:
        return np.sin(5 * x) + np.exp(-x)

    def projection(t: float) -> np.ndarray:
        basis = np.polynomial.legendre.legvander(nodes, N - 1) * B
        return (weights / 2 * f(t * (nodes + 1) / 2)) @ basis

    path = solve_ivp(
        lambda t, c: (A @ c + B * f(t)) / t, (start, end), projection(start), method="DOP853", rtol=rtol, atol=atol
    )
    steps, size = len(path.t), np.abs(path.y).max()
    error = np.linalg.norm(path.y[:, -1] - projection(end))
    work.within(error, np.sqrt(N) * steps * (rtol * size + atol))
    work.summary(f"{N} coefficients of sin 5x + e⁻ˣ after {steps} adaptive steps, against quadrature")


# %% [markdown]
# ## Normal plus low rank
#
# Diagonalising $A$ itself is hopeless (HIPPO-15). But add $PP^T$ with $P_n=\sqrt{n+\frac12}$: half of each entry below
# the diagonal moves above it with the opposite sign, and what is left is $-\frac12$ and a skew-symmetric $S$. That is
# normal: it has an orthonormal eigenbasis, and all its eigenvalues are $-\frac12+i\omega$.


# %%
@claim(
    "HIPPO-4",
    r"A+PP^T=-\tfrac12I+S,\quad S^T=-S,\quad P_n=\sqrt{n+\tfrac12}",
    source="S4, Theorem 1 and Appendix C.1",
    method="symbolic",
    declared="proved",
)
def normal_plus_low_rank(work: Work) -> None:
    """LegS is −½, a skew matrix and a rank-one term"""
    i, k = sp.symbols("i k", integer=True, nonnegative=True)
    half = sp.Rational(1, 2)
    below = -sp.sqrt(2 * i + 1) * sp.sqrt(2 * k + 1)
    rank_one = sp.sqrt(i + half) * sp.sqrt(k + half)
    work.show("an entry of A below the diagonal", below)
    work.show("an entry of P Pᵀ", rank_one)
    work.equal(below + rank_one, -rank_one, "i > k: the entry below and the one above are opposite")
    work.equal(-(i + 1) + (i + half), -half, "i = k")

    A, B = legs_symbolic(5)
    P = B / sp.sqrt(2)
    normal = A + P * P.T
    work.equal(normal + normal.T, -sp.eye(5))
    work.equal(normal * normal.T, normal.T * normal)
    work.summary("the entries for general i and k, and the matrices for N = 5")


@claim(
    "HIPPO-5",
    r"A=V(\Lambda-PP^*)V^*,\quad V^*V=I,\quad\operatorname{Re}\Lambda=-\tfrac12",
    source="S4, Theorem 1",
    method="numeric",
    declared="verified",
)
def diagonal_plus_low_rank(work: Work) -> None:
    """In the eigenbasis of −iS, LegS is diagonal plus rank one"""
    for N in (1, 2, 5, 16, 64):
        A, P, B = nplr_legs(N)
        Lambda, P_eigen, Q_eigen, B_eigen, V = dplr_legs(N)
        work.true(bool(np.all(Lambda.real == -0.5)), witness=f"N = {N}: a real part is not −½")
        # LAPACK's Hermitian solver is backward stable: V is orthonormal, and V Λ V* is S, to a small multiple of N u
        rounding = 8 * N * UNIT
        work.within(np.linalg.norm(V.conj().T @ V - np.eye(N), 2), rounding, f"V*V, N = {N}")
        again = V @ (np.diag(Lambda) - np.outer(P_eigen, Q_eigen.conj())) @ V.conj().T
        work.within(np.linalg.norm(again - A, 2), rounding * (np.linalg.norm(A, 2) + P @ P), f"A, N = {N}")
        work.within(np.linalg.norm(V @ B_eigen - B), rounding * np.linalg.norm(B), f"B, N = {N}")
    work.summary("N = 1, 2, 5, 16, 64")


# %% [markdown]
# ## The frequencies of LegS, exactly
#
# What are the $\omega$? Two facts about the same triangle give them. By HIPPO-4, $x-S+PP^T=(x-\frac12)-A$ is lower
# triangular with the diagonal $x+k+\frac12$; transposed and with $x\to-x$, $x-S-PP^T$ is upper triangular with the
# diagonal $x-k-\frac12$. And a determinant is affine along a rank-one term, so that $\det(x-S)$ is the mean of the two:
# $$\det(xI-S)=\tfrac12\Big[\prod_{k<N}(x+k+\tfrac12)+\prod_{k<N}(x-k-\tfrac12)\Big].$$
# At $x=i\omega$ both products have one modulus and opposite phases, and they cancel where
# $$\sum_{k<N}\arctan\frac{\omega}{k+\frac12}=\pi\Big(m-\frac{N-1}2\Big),\qquad m=0,\dots,N-1.$$
# The left side rises from $-N\pi/2$ to $N\pi/2$: one root for each $m$.


# %%
def skew_symbolic(N: int) -> tuple[sp.Matrix, sp.Matrix]:
    A, B = legs_symbolic(N)
    P = B / sp.sqrt(2)
    return A + P * P.T + sp.eye(N) / 2, P


@claim(
    "HIPPO-6",
    r"\det(xI-S)=\tfrac12\Big[\prod_{k<N}(x+k+\tfrac12)+\prod_{k<N}(x-k-\tfrac12)\Big]",
    source="S4, Theorem 1 (the normal part of LegS), derived here",
    method="symbolic",
    declared="proved",
)
def characteristic_polynomial(work: Work) -> None:
    """The characteristic polynomial of LegS's skew part"""
    x, half = sp.Symbol("x"), sp.Rational(1, 2)
    X = sp.Matrix(3, 3, sp.symbols("x_0:9"))
    p = sp.Matrix(sp.symbols("p_0:3"))
    work.equal(((X + p * p.T).det() + (X - p * p.T).det()) / 2, X.det())
    work.show("a determinant is affine along a rank-one term (checked for a general 3×3 matrix)")
    for N in range(1, 6):
        S, P = skew_symbolic(N)
        plus, minus = x * sp.eye(N) - S + P * P.T, x * sp.eye(N) - S - P * P.T
        work.true(plus.applyfunc(sp.expand).is_lower and minus.applyfunc(sp.expand).is_upper)
        work.equal(sp.Matrix(plus.diagonal()), sp.Matrix([[x + k + half for k in range(N)]]))
        work.equal(sp.Matrix(minus.diagonal()), sp.Matrix([[x - k - half for k in range(N)]]))
        mean = (sp.prod(x + k + half for k in range(N)) + sp.prod(x - k - half for k in range(N))) / 2
        scale = sp.diag(*P)
        work.equal((scale.inv() * S * scale).applyfunc(sp.expand).charpoly(x).as_expr(), mean)
    work.show("for N = 5", sp.expand(mean))
    work.summary("N = 1 to 5, with the two triangles and the rank-one mean that carry it to any N")


def phase(omega: np.ndarray, N: int) -> np.ndarray:
    return np.arctan(omega[:, None] / (np.arange(N) + 0.5)).sum(axis=1)


def density(omega: np.ndarray, N: int) -> np.ndarray:
    """dphase/dω, π times the number of frequencies per unit of ω."""
    a = np.arange(N) + 0.5
    return (a / (a**2 + omega[:, None] ** 2)).sum(axis=1)


@claim(
    "HIPPO-7",
    r"\sum_{k<N}\arctan\frac{\omega_m}{k+\frac12}=\pi\Big(m-\frac{N-1}2\Big)",
    source="S4, Theorem 1 (the normal part of LegS), derived here",
    method="numeric",
    declared="verified",
)
def phase_equation(work: Work) -> None:
    """The frequencies of LegS solve a phase equation"""
    for N in (1, 2, 7, 64, 256):
        omega = dplr_legs(N).Lambda.imag
        target = np.pi * (np.arange(N) - (N - 1) / 2)
        # an eigenvalue is off by at most ~N u ‖S‖, and N arctangents of at most π/2 are summed
        rounding = 8 * N * UNIT * (density(omega, N) * np.abs(omega).max() + N * np.pi / 2)
        work.within(np.abs(phase(omega, N) - target), rounding, f"N = {N}")
    spacings = (f"{np.pi / density(np.zeros(1), N)[0]:.3f} for N = {N}" for N in (16, 64, 256))
    work.show(f"the spacing at ω = 0 is π/Σ(k+½)⁻¹: {', '.join(spacings)}")
    work.summary("all frequencies for N = 1, 2, 7, 64, 256")


# %% [markdown]
# So the frequencies lie densest at 0, $\pi/\sum(k+\frac12)^{-1}\approx\pi/\log(7.1N)$ apart, and ever wider above.
# S4D-Lin, $-\frac12+i\pi k$, shares the real part with LegS and nothing else: its grid is even.


# %%
@claim(
    "HIPPO-8",
    r"\omega_{m+1}-\omega_m=\pi",
    source="S4D (S4D-Lin), read as an approximation of LegS",
    method="numeric",
    declared="refuted",
    corrected_by="HIPPO-7",
)
def evenly_spaced(work: Work) -> None:
    """LegS's frequencies are those of S4D-Lin, π apart"""
    N = 64
    omega = np.sort(dplr_legs(N).Lambda.imag)
    rounding = 8 * N * UNIT * np.abs(omega).max()
    work.within(np.abs(np.diff(omega) - np.diff(s4d_lin(2).imag)), rounding, f"N = {N}")


# %% [markdown]
# At the top, turn the arctangents round: $\sum_k\arctan\frac{k+1/2}{\omega}=\frac\pi2(2j+1)$ for the $j$-th frequency
# from above. With $x-\frac{x^3}3\le\arctan x\le x$, $\sum(k+\frac12)=\frac{N^2}2$ and
# $\sum(k+\frac12)^3\le\frac{N^4}4$, it follows that
# $$1-\frac{N^2}{6\,\omega_j^2}\;\le\;\omega_j\Big/\frac{N^2}{\pi(2j+1)}\;\le\;1.$$
# S4D-Inv, $\omega_j=\frac N\pi\big(\frac N{2j+1}-1\big)$, has this leading term, and ends near 0.


# %%
@claim(
    "HIPPO-9",
    r"1-\frac{N^2}{6\,\omega_j^2}\le\omega_j\cdot\frac{\pi(2j+1)}{N^2}\le1",
    source="S4D (S4D-Inv and the asymptotics of LegS), derived here",
    method="numeric",
    declared="verified",
)
def highest_frequencies(work: Work) -> None:
    """The highest frequencies of LegS are N²/π divided by 1, 3, 5, …"""
    n, k = sp.Symbol("N", integer=True, positive=True), sp.Symbol("k", integer=True)
    middle = k + sp.Rational(1, 2)
    work.equal(sp.summation(middle, (k, 0, n - 1)), n**2 / 2)
    cubes = sp.Sum(middle**3, (k, 0, n - 1))
    work.equal(n**4 / 4 - cubes.doit(), n**2 / 8)
    work.show("this falls short of N⁴/4 by N²/8:", cubes)
    for N in (2, 8, 64, 256):
        omega = np.sort(dplr_legs(N).Lambda.imag)[::-1][: N // 2]
        ratio = omega * np.pi * (2 * np.arange(N // 2) + 1) / N**2
        rounding = 8 * N * UNIT * omega[0] / omega
        work.within(ratio, 1 + rounding, f"N = {N}, from above")
        work.within(1 - ratio, N**2 / (6 * omega**2) + rounding, f"N = {N}, from below")
    work.summary("the positive frequencies for N = 2, 8, 64, 256, and the two sums for every N")


@claim(
    "HIPPO-10",
    r"\Big|\tfrac N\pi\big(\tfrac N{2j+1}-1\big)-\omega_j\Big|\le\tfrac14\,\omega_j,\quad N=64",
    source="S4D (S4D-Inv)",
    method="measured",
    declared="verified",
)
def inverse_law(work: Work) -> None:
    """S4D-Inv is within a quarter of every frequency of LegS, at N = 64"""
    N = 64
    omega = np.sort(dplr_legs(N).Lambda.imag)[::-1][: N // 2]
    error = np.abs(s4d_inv(N // 2).imag - omega) / omega
    work.within(error, 0.25)
    work.summary(f"{N // 2} frequencies: relative error {error[0]:.3f} at the highest, {error.max():.3f} at most")


# %% [markdown]
# What S4D-Lin does stand for is a Fourier series: its modes $e^{-t/2}e^{i\pi kt}$ are, up to the decay, the orthogonal
# basis of the interval $[0,2]$.


# %%
@claim(
    "HIPPO-11",
    r"\int_0^2e^{t/2}K_k(t)\,\overline{e^{t/2}K_l(t)}\,dt=2\,\delta_{kl},\quad K_k(t)=e^{(-\frac12+i\pi k)t}",
    source="S4D (S4D-Lin)",
    method="symbolic",
    declared="proved",
)
def damped_fourier(work: Work) -> None:
    """S4D-Lin's modes are damped Fourier modes of period 2"""
    t = sp.Symbol("t", real=True)
    k, gap = sp.symbols("k d", integer=True, positive=True)

    def mode(j: sp.Expr) -> sp.Expr:
        return sp.exp(t / 2) * sp.exp((-sp.Rational(1, 2) + sp.I * sp.pi * j) * t)

    for j, value in ((k, sp.Integer(2)), (k + gap, sp.Integer(0))):
        product = sp.powsimp(sp.expand(mode(j) * sp.conjugate(mode(k))))
        work.equal(sp.integrate(sp.simplify(product), (t, 0, 2)), value)
    work.summary("general k and l = k, and general k ≠ l")


# %% [markdown]
# ## Eigenvalues do not tell the transient
#
# All eigenvalues of LegS are at most $-1$, so one expects $\|e^{tA}\|\le e^{-t}$. That holds for normal matrices.
# LegS is far from one: its eigenvector for $-1$ is $v_n=(-1)^n\sqrt{2n+1}$, of length $N$, while the left one is $e_0$,
# so the component along $v$ can be $N$ times as long as the vector that it is a component of. What does hold comes from
# the symmetric part, $A+A^T=-I-2PP^T$: $\frac d{dt}\|h\|^2=-\|h\|^2-2(P^Th)^2\le-\|h\|^2$.


# %%
@claim(
    "HIPPO-12",
    r"\|e^{tA}\|_2\le e^{-t}",
    source="HiPPO, Theorem 2, and the bound that the eigenvalues −1 … −N suggest",
    method="numeric",
    declared="refuted",
    corrected_by="HIPPO-13",
)
def eigenvalues_bound_the_transient(work: Work) -> None:
    """LegS decays as fast as its slowest eigenvalue"""
    from scipy.linalg import expm

    A, _ = legs(16)
    t = 1.0
    work.within(np.linalg.norm(expm(t * A), 2), np.exp(-t), f"N = 16, t = {t}")


@claim(
    "HIPPO-13",
    r"A+A^T=-I-2PP^T\;\Rightarrow\;\|e^{tA}\|_2\le e^{-t/2};\qquad Av=-v,\;\|v\|\,\|e_0\|/|v_0|=N",
    source="HiPPO, Theorem 2, derived here",
    method="symbolic",
    declared="proved",
)
def contraction(work: Work) -> None:
    """LegS is a contraction at rate ½, and its slowest mode is N-fold ill-conditioned"""
    i, k = sp.symbols("i k", integer=True, nonnegative=True)
    N = sp.Symbol("N", integer=True, positive=True)
    half = sp.Rational(1, 2)
    work.equal(-sp.sqrt(2 * i + 1) * sp.sqrt(2 * k + 1), -2 * sp.sqrt(i + half) * sp.sqrt(k + half), "i ≠ k")
    work.equal(-2 * (i + 1), -1 - 2 * (i + half), "i = k")

    def weighted_sum(n: sp.Expr) -> sp.Expr:
        return (-1) ** (n + 1) * n

    work.show("row i of A v needs the sum of (2k+1)(−1)ᵏ over k < i; by induction it is", weighted_sum(i))
    work.equal(weighted_sum(sp.Integer(0)), 0)
    work.equal(weighted_sum(i + 1) - weighted_sum(i), (2 * i + 1) * (-1) ** i)
    row = -sp.sqrt(2 * i + 1) * weighted_sum(i) - (i + 1) * (-1) ** i * sp.sqrt(2 * i + 1)
    work.equal(row, -((-1) ** i) * sp.sqrt(2 * i + 1), "(A v)_i = −v_i")
    square = sp.Sum(2 * i + 1, (i, 0, N - 1))
    work.show("‖v‖² = N² is", square)
    work.equal(square.doit(), N**2)
    work.summary("general entries, any N")


@claim(
    "HIPPO-14",
    r"1\le e^{t}\,\|e^{tA}\|_2\le N,\qquad e^{12}\,\|e^{12A}\|_2>0.99\,N,\qquad N\le32",
    source="HiPPO, Theorem 2, derived here",
    method="measured",
    declared="verified",
)
def transient(work: Work) -> None:
    """The transient of LegS, against its slowest eigenvalue"""
    from scipy.linalg import expm

    for N in (2, 8, 32):
        A, _ = legs(N)
        times = np.linspace(0, 12, 25)
        norms = np.array([np.linalg.norm(expm(t * A), 2) for t in times])
        # expm's scaling and squaring has a backward error of a few N u, and a contraction a condition of ~t‖A‖
        rounding = 8 * N * UNIT * (1 + times * np.linalg.norm(A, 2)) * np.exp(times)
        work.within(norms, np.exp(-times / 2) * (1 + rounding), f"N = {N}: the rate ½ of HIPPO-13")
        hump = norms * np.exp(times)
        work.within(1 - rounding, hump, f"N = {N}: never below e⁻ᵗ")
        work.within(hump, N + rounding, f"N = {N}: never above N e⁻ᵗ")
        work.within(0.99 * N, hump[-1], f"N = {N}: the limit")
        work.show(f"N = {N}: e^t‖exp(tA)‖ = {hump[2]:.3f} at t = 1 and {hump[-1]:.3f} at t = 12")
    work.summary("N = 2, 8, 32, 25 times in [0, 12]")


# %% [markdown]
# The eigenvectors together are worse. They are known in closed form, and their condition number, with each scaled to
# length 1, grows more than fivefold with every state: at $N=16$ all digits but a few are lost, at $N=64$ there is no
# eigenbasis in float64. Hence the detour over the normal part.


# %%
@claim(
    "HIPPO-15",
    r"AV=-V\operatorname{diag}(1,\dots,N),\;V_{ij}=(-1)^{i-j}\sqrt{2i+1}\tbinom{i+j}{i-j};\;\kappa(V_{N+1})>5\kappa(V_N)",
    source="S4, Lemma 3.2",
    method="measured",
    declared="verified",
)
def eigenvectors(work: Work) -> None:
    """The eigenvectors of LegS are exponentially ill-conditioned"""

    def exact(N: int) -> sp.Matrix:
        return sp.Matrix(N, N, lambda i, j: (-1) ** (i - j) * sp.sqrt(2 * i + 1) * comb(i + j, i - j) if i >= j else 0)

    A, _ = legs_symbolic(6)
    work.equal(A * exact(6), exact(6) * sp.diag(*range(-1, -7, -1)))
    conditions = []
    for N in range(4, 12):
        V = np.array(exact(N), dtype=float)
        conditions.append(np.linalg.cond(V / np.linalg.norm(V, axis=0)))
    growth = np.divide(conditions[1:], conditions[:-1])
    work.within(5, growth)
    work.summary(
        f"the vectors for N = 6; the condition number rises from {conditions[0]:.3g} at N = 4 to {conditions[-1]:.3g} "
        f"at N = 11, the last time {growth[-1]:.2f}-fold"
    )


# %% [markdown]
# ## Mamba's step sizes
#
# Mamba computes $\Delta=\operatorname{softplus}(\text{bias}+\dots)$ and wants to start with $\Delta$ log-uniform
# between $10^{-3}$ and $10^{-1}$. So the bias is the inverse of softplus, $\log(e^\Delta-1)$, written as
# $\Delta+\log(1-e^{-\Delta})$ with `expm1`: no cancellation for a small $\Delta$, no overflow for a large one.


# %%
@claim(
    "HIPPO-16",
    r"\operatorname{softplus}\big(\Delta+\log(1-e^{-\Delta})\big)=\Delta",
    source="Mamba, §3.6",
    method="symbolic",
    declared="proved",
)
def inverse_of_softplus(work: Work) -> None:
    """The bias that gives Δ"""
    delta = sp.Symbol("Delta", positive=True)
    bias = delta + sp.log(1 - sp.exp(-delta))
    inside = sp.expand(1 + sp.exp(delta) * (1 - sp.exp(-delta)))
    work.equal(sp.powsimp(sp.exp(bias)), sp.exp(delta) * (1 - sp.exp(-delta)), "e to the bias")
    work.show("so that softplus takes the logarithm of", inside)
    work.equal(sp.log(inside), delta)


@claim(
    "HIPPO-17",
    r"\big|\operatorname{fl}(\Delta+\log(-\operatorname{expm1}(-\Delta)))-\log(e^\Delta-1)\big|\le4u\,(1+\Delta+|\log(1-e^{-\Delta})|)",
    source="Mamba, §3.6",
    method="numeric",
    declared="verified",
)
def inverse_in_floating_point(work: Work) -> None:
    """The bias is accurate from 1e-300 to 700, against 50 digits"""
    import mpmath

    deltas = np.concatenate([np.logspace(-300, -5, 30), np.logspace(-4, np.log10(700), 40)])
    bias = softplus_inverse(deltas)
    with mpmath.workdps(50):
        exact = [mpmath.log(mpmath.expm1(mpmath.mpf(float(d)))) for d in deltas]
        error = np.array([float(abs(mpmath.mpf(float(b)) - e)) for b, e in zip(bias, exact, strict=True)])
    # expm1, log and the addition round by 1 to 2 u each: relative to log(1 − e^{−Δ}), to 1 (log's argument) and to Δ
    bound = 4 * UNIT * (1 + deltas + np.abs(np.log(-np.expm1(-deltas))))
    work.within(error, bound)
    work.summary(f"{deltas.size} step sizes")


# %% [markdown]
# ## Mamba's A
#
# Every channel starts with $A=-(1,\dots,N)$, the diagonal of LegS. Together with the step sizes that spreads the time
# constants $1/(\Delta n)$ over more than three decades. Article 1's code draws $A=-|\mathcal N(0,1)|$ instead.


# %%
@claim(
    "HIPPO-18",
    r"A_{\log}=\log|\mathcal N(0,1)|\;\Rightarrow\;P(-A<1)=0",
    source="Article 1, §3 (A_log in the code), set beside Mamba, §3.6",
    method="symbolic",
    declared="refuted",
    corrected_by="HIPPO-19",
)
def half_normal(work: Work) -> None:
    """Article 1's A starts where Mamba's does, with no mode slower than −1"""
    from sympy.stats import Normal, density

    a = sp.Symbol("a", real=True)
    pdf = density(Normal("xi", 0, 1))(a)
    slower = sp.integrate(pdf, (a, -1, 1))
    work.show("but the share of modes with 0 < −A < 1 is", slower)
    work.equal(slower, 0)


@claim(
    "HIPPO-19",
    r"A=-\exp(\log(1,\dots,N))=\operatorname{diag}(\text{LegS}),\quad\tfrac1{\Delta n}\in\big[\tfrac1{0.1N},1000\big]",
    source="Mamba, §3.6",
    method="numeric",
    declared="verified",
)
def mamba_start(work: Work) -> None:
    """Mamba starts from the diagonal of LegS, with time constants from 1/(0.1 N) to 1000 steps"""
    N, dim = 16, 4096
    A = mamba_A(dim, N)
    work.true(
        bool(np.array_equal(A, np.tile(np.diag(legs(N).A), (dim, 1)))), "every channel holds the diagonal of LegS"
    )
    # the code stores log(−A): log is off by u log n, which exp turns into a relative error
    stored = np.log(-A)
    work.within(np.abs(-np.exp(stored) - A), 2 * UNIT * (1 + stored) * -A)

    bias = mamba_delta_bias(dim, rng=0)
    delta = np.logaddexp(0, bias)
    # a bias near log Δ is off by ~u|bias|, and dΔ/dbias = 1 − e^{−Δ} < Δ makes that relative
    relative = 4 * UNIT * (2 + np.abs(bias))
    work.within(delta, 1e-1 * (1 + relative))
    work.within(1e-3 * (1 - relative), delta)
    # the log of a log-uniform Δ is uniform: its mean has the standard deviation width/√(12 dim)
    low, high = np.log([1e-3, 1e-1])
    work.within(abs(np.log(delta).mean() - (low + high) / 2), 5 * (high - low) / np.sqrt(12 * dim))
    times = 1 / (delta[:, None] * -A)
    work.summary(f"{dim} channels, seed 0: time constants from {times.min():.2f} to {times.max():.0f} steps")


# %%
if __name__ == "__main__":
    run_as_script(globals())
