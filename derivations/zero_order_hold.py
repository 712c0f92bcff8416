# %% [markdown]
# # Zero-order hold
#
# A state space model is a linear differential equation that an input drives, like a damped spring that a force pushes:
#
# $$h'(t) = A\,h(t) + B\,x(t).$$
#
# A computer sees samples $x_1, x_2, \dots$, one every $\Delta$ of time. **Zero-order hold** (ZOH) assumes that the
# input stays constant between samples. Under that assumption the equation can be solved exactly, and the solution is
# a recurrence:
#
# $$h_t = \bar A\,h_{t-1} + \bar B\,x_t,\qquad \bar A = e^{\Delta A},\qquad
#   \bar B = (\Delta A)^{-1}\left(e^{\Delta A}-I\right)\Delta B.$$
#
# This page proves both formulas, first for a number $A$, then for every kind of matrix; then it asks what a computer
# makes of them.

# %%
import mpmath as mp
import numpy as np
import sympy as sp
from hypothesis import strategies as st

from ssm_edu.discretize import discretize, discretize_diagonal
from ssm_edu.ledger import Work, claim, run_as_script

t, tau, u, Delta = sp.symbols("t tau u Delta", positive=True)
a, b, h0, x0 = sp.symbols("a b h_0 x_0", nonzero=True)

# %% [markdown]
# ## Variation of constants
#
# Bring $ah$ to the left and multiply by $e^{-ta}$: the left-hand side becomes a derivative,
# $\frac{d}{dt}\left(e^{-ta}h\right) = e^{-ta}\,b\,x(t)$. Integrate from $0$ to $t$ and multiply by $e^{ta}$:
#
# $$h(t) = e^{ta}h(0) + \int_0^t e^{(t-\tau)a}\,b\,x(\tau)\,d\tau.$$


# %%
@claim(
    "ZOH-1",
    r"h(t) = e^{ta}h(0) + \int_0^t e^{(t-\tau)a}\,b\,x(\tau)\,d\tau \ \text{ solves }\ h' = ah + bx",
    source="Article 1, §1.2; Article 2, proof of the discretisation",
    method="symbolic",
    declared="proved",
)
def variation_of_constants(work: Work) -> None:
    """Variation of constants solves h' = ah + bx"""
    x = sp.Function("x")
    # e^{ta} does not depend on τ and stands before the integral
    h = sp.exp(t * a) * (h0 + sp.Integral(sp.exp(-tau * a) * b * x(tau), (tau, 0, t)))
    work.show("the candidate solution", h)
    work.equal(h.diff(t), a * h + b * x(t), "its derivative is a h + b x")
    work.equal(h.subs(t, 0).doit(), h0, "and it starts at h(0)")
    work.summary("any input x(t), any a, b, h(0)")


# %% [markdown]
# ## Hold the input, and the integral can be done
#
# With $x(\tau) = x_0$ constant, substitute $u = t - \tau$. What is left is $\int_0^\Delta e^{ua}\,du$.


# %%
@claim(
    "ZOH-2",
    r"\int_0^\Delta e^{ua}\,du = a^{-1}\left(e^{\Delta a} - 1\right)",
    source="Article 1, §1.2",
    method="symbolic",
    declared="proved",
)
def integral_of_the_exponential(work: Work) -> None:
    """The integral of the exponential, for a number"""
    integral = sp.integrate(sp.exp(u * a), (u, 0, Delta))
    work.equal(integral, (sp.exp(Delta * a) - 1) / a, "the integral")
    work.summary("any a ≠ 0")


@claim(
    "ZOH-3",
    r"\bar A = e^{\Delta a},\quad \bar B = (\Delta a)^{-1}\left(e^{\Delta a}-1\right)\Delta b",
    source="Mamba, eq. 4; Article 1, §1.2",
    method="symbolic",
    declared="proved",
)
def one_step_of_a_scalar_system(work: Work) -> None:
    """Ā and B̄ for a number A"""
    A_bar = sp.exp(Delta * a)
    B_bar = (sp.exp(Delta * a) - 1) / (Delta * a) * Delta * b
    step = sp.exp(Delta * a) * h0 + sp.integrate(sp.exp((Delta - tau) * a) * b * x0, (tau, 0, Delta))
    work.equal(step, A_bar * h0 + B_bar * x0, "the solution at Δ, with x held at x₀")
    h = sp.Function("h")
    solved = sp.dsolve(h(t).diff(t) - a * h(t) - b * x0, h(t), ics={h(0): h0}).rhs.subs(t, Delta)
    work.equal(solved, A_bar * h0 + B_bar * x0, "SymPy's own solution of the differential equation agrees")


# %% [markdown]
# ## Matrices
#
# Mamba's $A$ is diagonal: every state is a scalar system of its own, so nothing new has to be proved. But the formulas
# hold for every square matrix. $E(\Delta) = e^{\Delta A}$ is the only function with $E' = AE$ and $E(0) = I$, and its
# integral $F$ the only one with $F' = E$ and $F(0) = 0$. So it is enough to check two derivatives.


# %%
def _is_exponential_and_integral(work: Work, A: sp.Matrix, E: sp.Matrix, F: sp.Matrix) -> None:
    zero = sp.zeros(*A.shape)
    work.show("e^{ΔA} =", E)
    work.equal(E.diff(Delta), A * E, "E′ = A E")
    work.equal(E.applyfunc(lambda e: sp.limit(e, Delta, 0)), sp.eye(A.shape[0]), "E(0) = I")
    work.equal(F.diff(Delta), E, "F = A⁻¹(E − I) has F′ = E")
    work.equal(F.applyfunc(lambda e: sp.limit(e, Delta, 0)), zero, "F(0) = 0, so F is the integral of e^{uA}")


@claim(
    "ZOH-4",
    r"A = \mathrm{diag}(a_n):\quad \bar A = \mathrm{diag}(e^{\Delta a_n}),\quad"
    r" \bar B_n = \frac{e^{\Delta a_n}-1}{a_n}b_n",
    source="Mamba, §2 and eq. 4",
    method="symbolic",
    declared="proved",
)
def diagonal_matrices(work: Work) -> None:
    """Ā and B̄ for a diagonal A, entry by entry"""
    # diag(Z, z): any diagonal matrix Z, and one entry more
    (Z, V, E_Z), z, v = sp.symbols("Z V E", commutative=False), sp.Symbol("z", nonzero=True), sp.Symbol("v")
    k = sp.Symbol("k", integer=True, positive=True)
    M, power = sp.diag(Z, z), sp.diag(Z**k, z**k)
    work.equal(M, power.subs(k, 1), "induction: the k-th power of diag(Z, z), for k = 1")
    work.equal((M * power).applyfunc(sp.powsimp), power.subs(k, k + 1).applyfunc(sp.powsimp), "and from k to k + 1")
    work.show("so e^{diag(Z, z)} = diag(E, e^z) with E = e^Z, term by term, and the new entry gets the map of a number")
    B_bar = sp.diag(Z**-1, 1 / z) * (sp.diag(E_Z, sp.exp(z)) - sp.eye(2)) * sp.Matrix([V, v])
    work.equal(B_bar, sp.Matrix([Z**-1 * (E_Z - 1) * V, (sp.exp(z) - 1) / z * v]))
    entries = sp.symbols("a_1:4", nonzero=True)
    A = sp.diag(*entries)
    E = sp.diag(*(sp.exp(Delta * e) for e in entries))
    _is_exponential_and_integral(work, A, E, A.inv() * (E - sp.eye(3)))
    weights = sp.Matrix(sp.symbols("b_1:4"))
    by_entry = sp.Matrix([(sp.exp(Delta * e) - 1) / e * w for e, w in zip(entries, weights, strict=True)])
    work.equal((Delta * A).inv() * (E - sp.eye(3)) * Delta * weights, by_entry, "three entries, written out")
    work.summary("the induction step from n entries to n + 1, and three entries written out")


@claim(
    "ZOH-5",
    r"e^{\Delta A} = e^{s\Delta}\left(\cosh(q\Delta)\,I + \tfrac{\sinh q\Delta}{q}(A - sI)\right),\quad"
    r" \int_0^\Delta e^{uA}du = A^{-1}(e^{\Delta A}-I)\quad (2\times2)",
    source="Article 1, §1.2; Higham 2008, ch. 1",
    method="symbolic",
    declared="proved",
)
def general_two_by_two(work: Work) -> None:
    """A general 2×2 matrix, with four symbols"""
    s, p, q, c = sp.symbols("s p q c", nonzero=True)
    # s is half the trace, and q² = p² + c·(the other corner) the discriminant: any a, b, c, d is such an (s, p, q, c)
    A = sp.Matrix([[s + p, (q**2 - p**2) / c], [c, s - p]])
    E = sp.exp(s * Delta) * (sp.cosh(q * Delta) * sp.eye(2) + sp.sinh(q * Delta) / q * (A - s * sp.eye(2)))
    E = E.applyfunc(lambda e: sp.expand(e.rewrite(sp.exp)))
    F = A.inv().applyfunc(sp.simplify) * (E - sp.eye(2))
    _is_exponential_and_integral(work, A, E, F)
    work.summary("all 2×2 matrices with det A ≠ 0, q ≠ 0 and a corner ≠ 0")


@claim(
    "ZOH-6",
    r"J = \lambda I + N,\ N^n = 0:\quad e^{\Delta J} = e^{\lambda\Delta}\sum_{k<n} \frac{(\Delta N)^k}{k!},\quad"
    r" \int_0^\Delta e^{uJ}du = J^{-1}(e^{\Delta J} - I)",
    source="Higham 2008, §1.2",
    method="symbolic",
    declared="proved",
)
def jordan_blocks(work: Work) -> None:
    """Defective matrices: Jordan blocks of any size"""
    lam, k, N_ = sp.Symbol("lambda", nonzero=True), sp.Symbol("k", integer=True, positive=True), sp.Symbol("N")
    # Only powers of N occur, which commute: a symbol may stand for it. The terms before k lack rest(k) of E′ = JE.
    term, before = (sp.exp(lam * Delta) * (Delta * N_) ** j / sp.factorial(j) for j in (k, k - 1))
    first, rest = sp.exp(lam * Delta), N_ * before
    work.equal(
        (lam + N_) * first - first.diff(Delta), rest.subs(k, 1), "induction: what the term k = 0 lacks of E′ = JE"
    )
    work.equal(
        (lam + N_) * term - term.diff(Delta),
        N_ * term - rest,
        "the next term makes up for it, and lacks N times itself",
    )
    work.equal(term.subs(Delta, 0), 0, "it adds nothing at Δ = 0, and with N^n = 0 the last lacks nothing")
    for n in (2, 3, 4):
        N = sp.Matrix(n, n, lambda i, j: int(j == i + 1))
        J = lam * sp.eye(n) + N
        series = sum((Delta**k * N**k / sp.factorial(k) for k in range(n)), sp.zeros(n, n))
        E = sp.exp(lam * Delta) * series
        _is_exponential_and_integral(work, J, E, J.inv() * (E - sp.eye(n)))
    work.summary("the induction step, for any n and N^n = 0, and blocks of size 2, 3 and 4")


@claim(
    "ZOH-7",
    r"A\int_0^\Delta e^{uA}\,du = e^{\Delta A} - I \quad\text{for every square matrix}",
    source="Article 1, §1.2",
    method="symbolic",
    declared="proved",
)
def any_matrix_coefficient_by_coefficient(work: Work) -> None:
    """Any square matrix, as a power series"""
    A = sp.Symbol("A", commutative=False)
    k = sp.Symbol("k", integer=True, positive=True)
    term = A ** (k - 1) * u ** (k - 1) / sp.factorial(k - 1)
    work.show("the (k−1)-st term of e^{uA}", term)
    integrated = A ** (k - 1) / sp.factorial(k - 1) * sp.integrate(u ** (k - 1), (u, 0, Delta))
    work.equal(
        (A * integrated).subs(sp.factorial(k - 1), sp.factorial(k) / k),
        A**k * Delta**k / sp.factorial(k),
        "its integral times A is the k-th term of e^{ΔA}, for every k ≥ 1",
    )
    work.summary("every coefficient; A needs no inverse")


# %% [markdown]
# ## When A has no inverse
#
# The formula divides by $A$; the integral does not. As $a \to 0$ the state only adds up its input, and $\bar B \to
# \Delta b$. For a singular matrix, Van Loan's trick reads both maps off one exponential:
#
# $$\exp\begin{pmatrix}\Delta A & \Delta B\\ 0 & 0\end{pmatrix} = \begin{pmatrix}\bar A & \bar B\\ 0 & I\end{pmatrix}.$$


# %%
@claim(
    "ZOH-8",
    r"\lim_{a\to 0}\, (\Delta a)^{-1}\left(e^{\Delta a}-1\right)\Delta b = \Delta b",
    source="Article 1, §1.2",
    method="symbolic",
    declared="proved",
)
def limit_of_a_vanishing(work: Work) -> None:
    """A → 0: the state adds up Δ b x"""
    B_bar = (sp.exp(Delta * a) - 1) / (Delta * a) * Delta * b
    work.show("B̄ as a series in a", sp.series(B_bar, a, 0, 3))
    work.equal(sp.limit(B_bar, a, 0), Delta * b, "its limit")
    work.equal(sp.limit(sp.exp(Delta * a), a, 0), 1, "and Ā → 1")


@claim(
    "ZOH-9",
    r"\exp\begin{pmatrix}\Delta A & \Delta B\\ 0 & 0\end{pmatrix} ="
    r" \begin{pmatrix}e^{\Delta A} & \varphi_1(\Delta A)\,\Delta B\\ 0 & I\end{pmatrix}",
    source="Van Loan 1978, theorem 1",
    method="symbolic",
    declared="proved",
)
def block_exponential(work: Work) -> None:
    """Singular A: both maps from one exponential"""
    Z, W = sp.symbols("Z W", commutative=False)
    k = sp.Symbol("k", integer=True, positive=True)
    M = sp.Matrix([[Z, W], [0, 0]])
    power = sp.Matrix([[Z**k, Z ** (k - 1) * W], [0, 0]])
    work.show("the k-th power of the block matrix M, with Z = ΔA, W = ΔB", power)
    work.equal(M, power.subs(k, 1), "it holds for k = 1")
    work.equal((M * power).applyfunc(sp.powsimp), power.subs(k, k + 1).applyfunc(sp.powsimp), "and M Mᵏ = Mᵏ⁺¹")
    work.show("so the corner of Σ Mᵏ/k! is Σ Zᵏ⁻¹W/k! = φ₁(Z) W, with no inverse in it")
    # the integrator chain: position and velocity of a free mass
    A, B = sp.Matrix([[0, 1], [0, 0]]), sp.Matrix([0, 1])
    block = sp.Matrix(sp.BlockMatrix([[Delta * A, Delta * B], [sp.zeros(1, 2), sp.zeros(1, 1)]]))
    E = block.exp()
    work.equal(E[:2, :2], sp.Matrix([[1, Delta], [0, 1]]), "a free mass: Ā")
    integral = ((u * A).exp() * B).applyfunc(lambda e: sp.integrate(e, (u, 0, Delta)))
    work.equal(E[:2, 2], integral, "a free mass: B̄ is the integral of e^{uA}B")


# %% [markdown]
# ## What being exact buys
#
# Article 1's picture is a spring: position and velocity, with damping. Its $\bar A$ is the damped oscillation itself.
# And because ZOH is exact for a held input, a step of $\Delta_1 + \Delta_2$ is the same as two steps with the same $x$.


# %%
@claim(
    "ZOH-10",
    r"A = \begin{pmatrix}0 & 1\\ -(\sigma^2+\omega^2) & -2\sigma\end{pmatrix}:\quad \bar A_{11} ="
    r" e^{-\sigma\Delta}\left(\cos\omega\Delta + \tfrac{\sigma}{\omega}\sin\omega\Delta\right)",
    source="Article 1, §1.1",
    method="symbolic",
    declared="proved",
)
def damped_spring(work: Work) -> None:
    """The damped spring: Ā is its free oscillation"""
    sigma, omega = sp.symbols("sigma omega", positive=True)
    A = sp.Matrix([[0, 1], [-(sigma**2 + omega**2), -2 * sigma]])
    s, c = sp.sin(omega * Delta), sp.cos(omega * Delta)
    E = sp.exp(-sigma * Delta) * sp.Matrix(
        [[c + sigma / omega * s, s / omega], [-(sigma**2 + omega**2) / omega * s, c - sigma / omega * s]]
    )
    _is_exponential_and_integral(work, A, E, A.inv() * (E - sp.eye(2)))
    rest = A.inv() * -sp.Matrix([0, 1])
    work.equal(sp.limit(E[0, 0], Delta, sp.oo), 0, "a long step forgets where the spring was")
    work.equal(rest[0], 1 / (sigma**2 + omega**2), "and under a unit force it comes to rest at 1/stiffness")


@claim(
    "ZOH-11",
    r"\bar A(\Delta_1{+}\Delta_2) = \bar A(\Delta_2)\bar A(\Delta_1),\quad"
    r" \bar B(\Delta_1{+}\Delta_2) = \bar A(\Delta_2)\bar B(\Delta_1) + \bar B(\Delta_2)",
    source="Mamba, eq. 4",
    method="symbolic",
    declared="proved",
)
def splitting_a_step(work: Work) -> None:
    """One long step is two short ones with the same input"""
    d1, d2 = sp.symbols("Delta_1 Delta_2", positive=True)

    def A_bar(d: sp.Expr) -> sp.Expr:
        return sp.exp(d * a)

    def B_bar(d: sp.Expr) -> sp.Expr:
        return (sp.exp(d * a) - 1) / a * b

    work.equal(A_bar(d1 + d2), A_bar(d2) * A_bar(d1), "the decay")
    work.equal(B_bar(d1 + d2), A_bar(d2) * B_bar(d1) + B_bar(d2), "the input")


@claim(
    "ZOH-12",
    r"\bar A = e^{\Delta a},\ \bar B = \Delta b:\quad \bar B(\Delta_1{+}\Delta_2) ="
    r" \bar A(\Delta_2)\bar B(\Delta_1) + \bar B(\Delta_2)",
    source="Article 1, §3 (the code's B̄ = ΔB)",
    method="symbolic",
    declared="refuted",
    corrected_by="ZOH-11",
)
def splitting_a_step_of_the_released_rule(work: Work) -> None:
    """With B̄ = ΔB, a long step is two short ones"""
    d1, d2 = sp.symbols("Delta_1 Delta_2", positive=True)
    work.equal((d1 + d2) * b, sp.exp(d2 * a) * d1 * b + d2 * b, "one step of Δ₁ + Δ₂ against two")


# %% [markdown]
# ## In floating point: matrices
#
# `ssm_edu.discretize` computes Van Loan's exponential in float64. How wrong can it be? The problem itself sets the
# scale: a relative change of $2^{-53}$ in the matrix $M$ moves $e^M$ by up to $\kappa(M)\,2^{-53}$, where $\kappa$ is
# the condition number of the exponential. So errors are asked to stay below $10^{-13}\kappa$, by `mpmath` at 50
# digits, for matrices of every kind: singular, defective, non-normal, rotating, complex.


# %%
def _matrix(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    A = rng.standard_normal((n, n))
    match kind:
        case "singular":
            A[:, -1] = 0
        case "zero":
            A[:] = 0
        case "jordan":
            A = -abs(A[0, 0]) * np.eye(n) + np.eye(n, k=1)
        case "non-normal":
            A = np.triu(A, 1) * 8 - np.diag(np.arange(1.0, n + 1))
        case "rotation":
            A = A - A.T
        case "stable":
            A = -A @ A.T
        case "complex":
            A = A + 1j * rng.standard_normal((n, n))
    return A


KINDS = ("dense", "singular", "zero", "jordan", "non-normal", "rotation", "stable", "complex")


@st.composite
def systems(draw: st.DrawFn, size: int = 16, largest: float = 700.0) -> tuple[np.ndarray, np.ndarray, float]:
    """(A, B, Δ) of any kind, ‖ΔA‖ up to `largest` and ‖B‖ from 1e-6 to 1e6; at 700, e^{ΔA} nearly overflows."""
    n, m = draw(st.integers(1, size)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    A = _matrix(draw(st.sampled_from(KINDS)), n, rng)
    A = A / max(np.linalg.norm(A, 1), 1e-300)
    B = rng.standard_normal((n, m)) * 10.0 ** draw(st.integers(-6, 6))
    return A * draw(st.sampled_from([0.01, 1.0, 30.0, largest])), B, draw(st.sampled_from([0.0, 1e-3, 0.1, 1.0]))


def relative_errors(A: np.ndarray, B: np.ndarray, delta: float, A_bar: np.ndarray, B_bar: np.ndarray) -> np.ndarray:
    """‖Ā − exact‖/‖exact‖ and the same for B̄, Frobenius, against 50 digits."""
    n, m = B.shape
    with mp.workdps(50):
        block = mp.zeros(n + m, n + m)
        for i, j in np.ndindex(n, n):
            block[i, j] = mp.mpmathify(complex(A[i, j])) * mp.mpf(delta)
        for i, j in np.ndindex(n, m):
            block[i, n + j] = mp.mpf(float(B[i, j])) * mp.mpf(delta)
        exact = mp.expm(block)

        def error(got: np.ndarray, column: int) -> float:
            pairs = [(mp.mpmathify(complex(g)), exact[i, column + j]) for (i, j), g in np.ndenumerate(got)]
            size = mp.sqrt(mp.fsum(abs(e) ** 2 for _, e in pairs))
            gap = mp.sqrt(mp.fsum(abs(g - e) ** 2 for g, e in pairs))
            return float(gap / size) if size else float(gap)

        return np.array([error(A_bar, 0), error(B_bar, n)])


def condition(A: np.ndarray, B: np.ndarray, delta: float) -> float:
    """κ of the exponential at M = [[ΔA, ΔB/s], [0, 0]], with s the size of ΔB: scaling B changes no relative error.

    `expm_cond` squares the norms of e^M and of its derivative, which overflows, so it gets M − cI, for which both
    are e^c times smaller.
    """
    from scipy.linalg import expm_cond

    n, m = B.shape
    block = np.zeros((n + m, n + m), A.dtype)
    block[:n, :n] = A * delta
    block[:n, n:] = B / np.linalg.norm(B)
    growth = max(0.0, float(np.linalg.eigvals(block).real.max()))
    shifted = block - growth * np.eye(n + m)
    kappa = float(expm_cond(shifted) * np.linalg.norm(block) / np.linalg.norm(shifted))
    assert np.isfinite(kappa)
    return max(1.0, kappa)


@claim(
    "ZOH-13",
    r"\|\mathrm{fl}(\bar A)-\bar A\| \le 10^{-13}\kappa\,\|\bar A\|,\quad"
    r" \|\mathrm{fl}(\bar B)-\bar B\| \le 10^{-13}\kappa\,\|\bar B\|",
    source="Higham 2008, §10; Van Loan 1978",
    method="property",
    declared="verified",
)
def dense_against_mpmath(work: Work) -> None:
    """discretize against 50 digits, matrices up to 16×16 of every kind"""

    def check(system: tuple[np.ndarray, np.ndarray, float]) -> None:
        A, B, delta = system
        maps = discretize(A, B, delta)
        work.within(relative_errors(A, B, delta, maps.A_bar, maps.B_bar), 1e-13 * condition(A, B, delta), cases=1)

    work.forall(systems(), check, examples=30)


@claim(
    "ZOH-14",
    r"\bar A,\ \bar B \ \text{ agree with } \texttt{scipy.linalg.expm} \text{ and }"
    r" \texttt{scipy.signal.cont2discrete}",
    source="Mamba, eq. 4; Franklin 1998, §4.3",
    method="property",
    declared="verified",
)
def dense_against_scipy(work: Work) -> None:
    """discretize against SciPy's expm and cont2discrete, up to 16×16"""
    from scipy.linalg import expm
    from scipy.signal import cont2discrete

    def gap(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.linalg.norm(x - y)) / max(float(np.linalg.norm(y)), 1e-300)

    def check(system: tuple[np.ndarray, np.ndarray, float]) -> None:
        A, B, delta = system
        maps = discretize(A, B, delta)
        # expm is the less accurate of the two: up to e⁴ roundings in its Padé quotient, and more in its squarings
        bound = 1e-12 * condition(A, B, delta)
        work.within(gap(maps.A_bar, expm(delta * A)), bound, "Ā against expm")
        # cont2discrete exponentiates [[ΔA, ΔB], [0, 0]] as it stands: give it the scaled B that κ is about
        size = np.linalg.norm(B)
        _, B_bar, *_ = cont2discrete((A, B / size, np.eye(len(A)), np.zeros_like(B)), delta)
        work.within(gap(maps.B_bar, size * B_bar), bound, "B̄ against cont2discrete")

    work.forall(systems(largest=30.0), check, examples=100)


# %% [markdown]
# ## In floating point: Mamba's diagonal A
#
# Here everything is elementwise, so every digit can be asked for. The product $\Delta a$ is rounded once, which moves
# $e^{\Delta a}$ by $|\Delta a|$ units of relative error; all else should cost a few. The formula as it is printed does
# not manage this: near $\Delta a = 0$ it subtracts 1 from a number close to 1. In float32, at $|\Delta a| = 10^{-7}$,
# little of $\bar B$ is left. `expm1` computes $e^z - 1$ without the subtraction.


# %%
def ulp_errors(a_values: np.ndarray, delta: np.ndarray, A_bar: np.ndarray, B_bar: np.ndarray) -> np.ndarray:
    """Errors of Ā and B̄ (b = 1) in ulp against 50 digits, shape (2, cases).

    A result below the smallest normal number is measured in units of that number's ulp. Where e^{Δa} itself
    overflows, both must say so."""
    info = np.finfo(A_bar.dtype)
    largest, smallest, eps = float(info.max), float(info.tiny), float(info.eps)
    errors = np.zeros((2, a_values.size))
    with mp.workdps(50):
        for i, (a_n, d) in enumerate(zip(a_values.tolist(), delta.tolist(), strict=True)):
            z = mp.mpf(d) * a_n
            exact = mp.exp(z), mp.expm1(z) / a_n
            if exact[0] > largest:
                errors[:, i] = 0 if np.isinf([A_bar[i], B_bar[i]]).all() else np.inf
                continue
            for k, got in enumerate((A_bar[i], B_bar[i])):
                errors[k, i] = float(abs(mp.mpf(float(got)) - exact[k]) / max(abs(exact[k]), smallest) / eps)
    return errors


def diagonal_cases(dtype: type, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(a, Δ) with |Δa| log-spaced from 1e-12 to past overflow and underflow, either sign, Δ from 1e-4 to 1e2."""
    rng = np.random.default_rng(seed)
    top = 2 * np.log(float(np.finfo(dtype).max))
    size = np.geomspace(1e-12, top, count) * rng.choice([-1, 1], count)
    delta: np.ndarray = (10 ** rng.uniform(-4, 2, count)).astype(dtype)
    return (size / delta).astype(dtype), delta


@claim(
    "ZOH-15",
    r"|\mathrm{fl}(\bar A) - \bar A| \le (4 + |\Delta a|)\,\mathrm{ulp},\quad"
    r" |\mathrm{fl}(\bar B) - \bar B| \le (4 + |\Delta a|)\,\mathrm{ulp}",
    source="Higham 2002, §1.14.1; Hochbruck & Ostermann 2010, §2.1",
    method="numeric",
    declared="verified",
)
def diagonal_against_mpmath(work: Work) -> None:
    """discretize_diagonal against 50 digits, from |Δa| = 1e-12 to overflow"""
    for dtype in (np.float64, np.float32):
        a_values, delta = diagonal_cases(dtype, 4000)
        maps = discretize_diagonal(a_values, dtype(1), delta)
        errors = ulp_errors(a_values, delta, maps.A_bar, maps.B_bar)
        work.within(errors, 4 + np.abs(np.float64(a_values) * delta), f"ulp, {np.dtype(dtype)}")


@claim(
    "ZOH-16",
    r"\mathrm{fl}\left((\Delta a)^{-1}(e^{\Delta a}-1)\Delta\right)"
    r" \text{ has an error} \le (4+|\Delta a|)\,\mathrm{ulp}",
    source="Article 1, §1.2 (the formula as printed)",
    method="numeric",
    declared="refuted",
    corrected_by="ZOH-15",
)
def the_formula_as_printed(work: Work) -> None:
    """B̄ evaluated as it is printed is as accurate"""
    z = -np.geomspace(1e-7, 1, 50, dtype=np.float32)
    printed = (np.exp(z) - np.float32(1)) / z
    exact = np.expm1(z.astype(np.float64)) / z
    loss = np.abs(printed - exact) / exact
    for size in (1e-5, 1e-7):
        worst = loss[(np.abs(z) <= 1.5 * size)].max()
        work.show(f"float32, |Δa| about {size:g} and below: relative error up to {worst:.2g}")
    work.within(loss / np.finfo(np.float32).eps, 4 + np.abs(z), "ulp of float32")


@claim(
    "ZOH-17",
    r"\Delta = 0:\ \bar A = 1,\ \bar B = 0;\qquad \Delta a \to -\infty:\ \bar A = 0,\ \bar B = -b/a",
    source="Mamba, §3.5.2; Article 1, §1.2",
    method="numeric",
    declared="verified",
)
def the_two_ends(work: Work) -> None:
    """Δ = 0 holds the state; a huge Δ a lands on −b/a, without NaN"""
    for dtype in (np.float32, np.float64):
        a_values: np.ndarray = (-np.geomspace(1e-30, 1e30, 61)).astype(dtype)
        held = discretize_diagonal(a_values, dtype(3), dtype(0))
        work.within(np.abs([held.A_bar - 1, held.B_bar]), 0, "Δ = 0 is exact")
        # |Δa| from 10⁴ to beyond the largest float
        far = discretize_diagonal(a_values, dtype(3), (1e4 / np.abs(a_values.astype(float))).astype(dtype))
        work.within(np.abs(far.A_bar), 0, "Ā = 0")
        work.within(np.abs(far.B_bar * a_values / -3 - 1), 4 * np.finfo(dtype).eps, "B̄ = −b/a")
    beyond = discretize_diagonal(np.float32(-1e30), np.float32(3), np.float32(1e38))
    work.within(abs(beyond.B_bar / np.float32(3e-30) - 1), 4 * np.finfo(np.float32).eps, "Δa past the largest float32")


# %%
if __name__ == "__main__":
    run_as_script(globals())
