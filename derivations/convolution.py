# %% [markdown]
# # One linear system, two programs
#
# After discretisation an S4 layer is
# $$h_t = \bar A h_{t-1} + \bar B x_t, \qquad y_t = C h_t,$$
# with the same $\bar A, \bar B, C$ at every step. Read as it stands it is a recurrent network: one step needs the
# step before. Unrolled it is a convolution with a kernel known in advance, so all outputs can be had at once.
# This script derives the second from the first, runs it through the FFT, and shows what breaks when, as in Mamba,
# the parameters vary with time.

# %%
from __future__ import annotations

import numpy as np
import sympy as sp

from ssm_edu.discretize import discretize
from ssm_edu.hippo import dplr_legs, legs
from ssm_edu.ledger import Work, claim, run_as_script
from ssm_edu.lti import convolve, kernel, kernel_dplr, recurrence

UNIT = 2.0**-53  # the unit roundoff of float64

# %% [markdown]
# ## Unrolling
#
# From $h_{-1}=0$: $h_0 = \bar B x_0$, $h_1 = \bar A\bar B x_0 + \bar B x_1$, and each further step multiplies what
# is there by $\bar A$ once more. An input that entered $t-s$ steps ago carries $\bar A^{t-s}$.


# %%
def matrix(name: str, rows: int, columns: int) -> sp.Matrix:
    return sp.Matrix(rows, columns, lambda i, j: sp.Symbol(f"{name}_{i}{j}"))


@claim(
    "CONV-1",
    r"y_t = \sum_{s\le t} K_{t-s}\,x_s,\qquad K_t = C\bar A^t\bar B",
    source="Mamba, eq. 2 and 3; Article 2, eq. 2 and 3",
    method="symbolic",
    declared="proved",
)
def unrolled(work: Work) -> None:
    """A recurrence with constant parameters is a convolution"""
    A, B, C = matrix("a", 2, 2), matrix("b", 2, 1), matrix("c", 1, 2)
    x = sp.symbols("x_0:4")
    h = sp.zeros(2, 1)
    for t in range(4):
        h = A * h + B * x[t]
        y = (C * h)[0]
        work.equal(y, sum((C * A ** (t - s) * B)[0] * x[s] for s in range(t + 1)))
    work.show("two states, four steps: every step agrees; y_1 is", (C * (A * B * x[0] + B * x[1]))[0])

    n, gap = sp.symbols("n k", integer=True, positive=True)
    M = sp.MatrixSymbol("Abar", n, n)
    work.true(
        M * M ** (gap - 1) == M**gap and sp.Identity(n) == M**0,
        "n states, from step t−1 to t: Ā·Ā^(t−1−s) = Ā^(t−s) for each s < t, and x_t enters with Ā⁰ = I",
    )
    work.summary("two general states for four steps, and the induction step for any number of states")


# %% [markdown]
# The two-tap rules (first-order hold, the exponential trapezoid of Mamba-3) feed the previous input in as well. That
# is a second kernel, one step late.


# %%
@claim(
    "CONV-2",
    r"h_t=\bar Ah_{t-1}+\bar Bx_t+\bar B'x_{t-1}\;\Rightarrow\;K_0=C\bar B,\; K_t=C\bar A^{t-1}(\bar A\bar B+\bar B')",
    source="Mamba-3, exponential-trapezoidal discretisation, with constant parameters",
    method="symbolic",
    declared="proved",
)
def two_taps(work: Work) -> None:
    """The kernel of a two-tap rule"""
    a, b, b_prev, c = sp.symbols("a b b' c")
    x = sp.symbols("x_0:6")
    h = sp.Integer(0)
    for t in range(6):
        h = a * h + b * x[t] + (b_prev * x[t - 1] if t else 0)
        K = [c * b] + [c * a**k * b + c * a ** (k - 1) * b_prev for k in range(1, t + 1)]
        work.equal(c * h, sum(K[t - s] * x[s] for s in range(t + 1)))
    work.show("the kernel's entry K_3", K[3])
    work.summary("a general state for six steps; more states and steps as in CONV-1, by linearity")


# %% [markdown]
# ## Through the Fourier transform
#
# A DFT of length $n$ turns products of spectra into *circular* convolutions: index $t-s$ is taken modulo $n$. With
# $n = L$ the end of the input wraps round and reaches the first outputs, that is, the future leaks into the past.


# %%
def dft_product(K: list[sp.Symbol], x: list[sp.Symbol], n: int) -> list[sp.Expr]:
    """IDFT_n(DFT_n(K) · DFT_n(x)), exactly."""

    def dft(v: list[sp.Expr], sign: int) -> list[sp.Expr]:
        root = sp.exp(sign * 2 * sp.pi * sp.I / n)
        return [sum((v[s] * root ** (j * s) for s in range(len(v))), sp.Integer(0)) for j in range(n)]

    spectrum = [k * u for k, u in zip(dft(K, -1), dft(x, -1), strict=True)]
    return [sp.expand(y / n) for y in dft(spectrum, +1)]


def causal(K: list[sp.Symbol], x: list[sp.Symbol], t: int) -> sp.Expr:
    return sum((K[t - s] * x[s] for s in range(t + 1)), sp.Integer(0))


@claim(
    "CONV-3",
    r"y = \mathrm{IDFT}_L\big(\mathrm{DFT}_L(K)\cdot\mathrm{DFT}_L(x)\big)",
    source="Article 2, eq. 3, and training through the FFT, taken at its word: nothing is said of padding",
    method="symbolic",
    declared="refuted",
    corrected_by="CONV-4",
)
def without_padding(work: Work) -> None:
    """A DFT as long as the sequence computes the causal convolution"""
    K, x = list(sp.symbols("K_0:2")), list(sp.symbols("x_0:2"))
    y = dft_product(K, x, 2)
    work.show("with L = 2, y_0 =", y[0])
    work.equal(y[0], causal(K, x, 0))


@claim(
    "CONV-4",
    r"y_t = \mathrm{IDFT}_n\big(\mathrm{DFT}_n(K)\cdot\mathrm{DFT}_n(x)\big)_t,\quad t<L,\quad n\ge 2L-1",
    source="Mamba, eq. 3b; Article 2, eq. 3",
    method="symbolic",
    declared="proved",
)
def with_padding(work: Work) -> None:
    """Zeros up to twice the length keep the convolution causal"""
    for length, n in ((1, 1), (2, 4), (3, 6)):
        K, x = list(sp.symbols(f"K_0:{length}")), list(sp.symbols(f"x_0:{length}"))
        y = dft_product(K, x, n)
        for t in range(length):
            work.equal(y[t], causal(K, x, t))
    L, extra, wraps, t = sp.symbols("L e w t", integer=True, nonnegative=True)
    n = 2 * L - 1 + extra
    largest_index_sum = 2 * L - 2
    work.show("any L: a pair (r, s) reaches output t if r + s = t + w·n; the largest r + s there is", largest_index_sum)
    work.true(
        ((t + (1 + wraps) * n) - largest_index_sum).subs(L, L + 1).expand().is_positive,
        "and t + w·n exceeds it for every w ≥ 1, so that only r + s = t is left",
    )
    work.summary("lengths 1, 2, 3 with general entries, and the index argument for every length")


# %% [markdown]
# ### In floating point
#
# An FFT of length $n=2^k$ commits a relative error of at most $\varepsilon=k\,\eta$ in the 2-norm,
# $\eta \approx u + 4\sqrt2\,u < 8u$ with $u=2^{-53}$ (Higham 2002, Theorem 24.2). Two of them go in:
# $\|\delta\hat K\|_2\|\hat x\|_2/n \le \varepsilon\|K\|_2\|x\|_2$, and the same with the roles exchanged. One goes out:
# $\varepsilon\|y\|_2$, where $\|y\|_2\le\min(\|K\|_1\|x\|_2,\|K\|_2\|x\|_1)$ by Young. The products between them add
# $2\sqrt2\,u\|K\|_2\|x\|_2$. The error is relative to the *whole* of $y$: small outputs beside large ones get no more
# absolute digits, where a recurrence keeps their relative ones.
#
# The recurrence and the kernel multiply and add along the paths $C\bar A^{t-s}\bar B x_s$. Each step of a path is an
# inner product of $n$ terms and costs a factor $1\pm 2(n+2)u$ (the 2 covers complex arithmetic), so each lies within
# $2(n+2)(L+2)u$ times *the same recurrence run on absolute values*.


# %%
def fft_rounding(K: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Bound on the error of each entry of convolve(K, x), over the last axis."""

    def norm(v: np.ndarray, order: int) -> np.ndarray:
        return np.linalg.norm(v, order, axis=-1, keepdims=True)

    epsilon = 8 * UNIT * (2 * x.shape[-1] - 2).bit_length()
    out = np.minimum(norm(K, 1) * norm(x, 2), norm(K, 2) * norm(x, 1))
    return (2 * epsilon + 3 * UNIT) * norm(K, 2) * norm(x, 2) + epsilon * out


def recurrence_rounding(
    A_bar: np.ndarray, B_bar: np.ndarray, C: np.ndarray, x: np.ndarray, B_bar_prev: np.ndarray | None = None
) -> np.ndarray:
    """Bound on the error of recurrence(...), and on that of an exact convolution with a computed kernel, added."""
    previous = None if B_bar_prev is None else np.abs(B_bar_prev)
    magnitude = recurrence(np.abs(A_bar), np.abs(B_bar), np.abs(C), np.abs(x), B_bar_prev=previous)
    return 4 * (len(C) + 2) * (x.shape[-1] + 2) * UNIT * magnitude


@claim(
    "CONV-5",
    r"|\mathrm{conv}(K,x)-\mathrm{rec}(x)|_\infty\le 8u\log_2 n\,\big(2\|K\|_2\|x\|_2+\|K\|_1\|x\|_2\big)+\gamma\,|y|",
    source="Higham 2002, Theorem 24.2; Mamba, eq. 3",
    method="numeric",
    declared="verified",
)
def fft_agrees(work: Work) -> None:
    """Recurrence and FFT agree within the rounding bound, to length 16384"""
    rng = np.random.default_rng(0)
    for length in (1, 2, 31, 1000, 4097, 16384):
        a = -np.arange(1.0, 17) + (1j * np.pi * np.arange(16) if length % 2 else 0)
        A_bar = np.exp(1e-3 * a)
        B_bar, C, x = (A_bar - 1) / a, rng.standard_normal(16), rng.standard_normal(length)
        K = kernel(A_bar, B_bar, C, length)
        error = np.abs(convolve(K, x) - recurrence(A_bar, B_bar, C, x))
        work.within(error, fft_rounding(K, x) + recurrence_rounding(A_bar, B_bar, C, x), f"length {length}")
    work.summary("16 states, real and complex, lengths 1, 2, 31, 1000, 4097 and 16384")


# %% [markdown]
# ## When the parameters vary with time
#
# A convolution treats all times alike: what $x_s$ does to $y_t$ depends on $t-s$ only. Mamba makes $\Delta_t, B_t, C_t$
# functions of the input, and that is over.


# %%
def time_varying(states: int, length: int) -> tuple[list[sp.Matrix], list[sp.Matrix], list[sp.Matrix]]:
    """General Ā_t, B̄_t and C_t."""
    A = [matrix(f"a{t}", states, states) for t in range(length)]
    B = [matrix(f"b{t}", states, 1) for t in range(length)]
    C = [matrix(f"c{t}", 1, states) for t in range(length)]
    return A, B, C


def transition(A: list[sp.Matrix], s: int, t: int) -> sp.Matrix:
    """Ā_t ⋯ Ā_{s+1}, what carries a state from time s to time t."""
    product = sp.eye(A[0].rows)
    for r in range(s + 1, t + 1):
        product = A[r] * product
    return product


def input_output_matrix(A: list[sp.Matrix], B: list[sp.Matrix], C: list[sp.Matrix]) -> sp.Matrix:
    """M with y = M x."""
    return sp.Matrix(len(A), len(A), lambda t, s: (C[t] * transition(A, s, t) * B[s])[0] if s <= t else 0)


@claim(
    "CONV-6",
    r"h_t=\bar A_th_{t-1}+\bar B_tx_t,\;y_t=C_th_t\;\Rightarrow\;y=K*x\text{ for some }K",
    source="Article 2, on the S6 layer: the belief that it warns against",
    method="symbolic",
    declared="refuted",
    corrected_by="CONV-7",
)
def time_varying_is_a_convolution(work: Work) -> None:
    """A time-varying recurrence is a convolution"""
    M = input_output_matrix(*time_varying(1, 3))
    work.show("y = M x with M =", M)
    work.equal(M[1, 0], M[2, 1], "a convolution has equal entries along each diagonal")


# %% [markdown]
# What is left is a lower-triangular matrix of a special kind. What passes from times up to $k$ to times from $k$ on
# passes through the state $h_k$, so the block of $M$ with rows $\ge k$ and columns $\le k$ has at most the rank $n$ of
# the state: $M$ is *semiseparable*. A scan exploits that, where the FFT exploited equal diagonals.


# %%
@claim(
    "CONV-7",
    r"y_t=\sum_{s\le t}C_t\Big(\prod_{r=s+1}^{t}\bar A_r\Big)\bar B_sx_s,\quad\operatorname{rank}M_{\ge k,\le k}\le n",
    source="Mamba-2, semiseparable matrices; Article 2, on the S6 layer",
    method="symbolic",
    declared="proved",
)
def semiseparable(work: Work) -> None:
    """A time-varying recurrence is a product with a semiseparable matrix"""
    length = 4
    x = sp.Matrix(sp.symbols(f"x_0:{length}"))
    for states in (1, 2):
        A, B, C = time_varying(states, length)
        M = input_output_matrix(A, B, C)
        h = sp.zeros(states, 1)
        for t in range(length):
            h = A[t] * h + B[t] * x[t]
            work.equal((C[t] * h)[0], (M * x)[t])
        for k in range(length):
            left = sp.Matrix.vstack(*[C[t] * transition(A, k, t) for t in range(k, length)])
            right = sp.Matrix.hstack(*[transition(A, s, k) * B[s] for s in range(k + 1)])
            if (states, k) == (1, 2):
                work.show("one state: the block from time 2 on is the product of", left)
                work.show("and", right)
            work.equal(M[k:, : k + 1], left * right)
    work.summary("one and two general states, four steps: the sum, and every block's factors through the state")


# %% [markdown]
# ## Train by convolution, infer by recurrence
#
# For constant parameters the two programs compute one function, so a model can be trained with the first and run with
# the second. The two also hand over to each other: read a prompt by convolution, take from it the state
# $h_{T-1} = \sum_{s<T}\bar A^{T-1-s}\bar B x_s$, and go on step by step.


# %%
@claim(
    "CONV-8",
    r"\mathrm{conv}(K,x)_{t\ge T}=\mathrm{rec}\big(x_{\ge T};\,h_{T-1}=\sum_{s<T}\bar A^{T-1-s}\bar Bx_s\big)",
    source="Article 2, eq. 2 and 3: convolution in training, recurrence in inference; Mamba, §2",
    method="property",
    declared="verified",
)
def train_and_infer(work: Work) -> None:
    """Convolution and recurrence are one function, and one can take over from the other"""
    from hypothesis import strategies as st

    def check(case: tuple[int, int, int, int]) -> None:
        states, prompt, rest, seed = case
        rng = np.random.default_rng(seed)
        A_bar = rng.standard_normal((states, states))
        A_bar /= np.abs(A_bar).sum(axis=1).max()
        B_bar, C = rng.standard_normal((2, states))
        x = rng.standard_normal(prompt + rest)
        K = kernel(A_bar, B_bar, C, x.size)
        bound = fft_rounding(K, x) + recurrence_rounding(A_bar, B_bar, C, x)
        y = convolve(K, x)
        paths = np.stack([kernel(A_bar, B_bar, row, prompt) for row in np.eye(states)])
        h = paths[:, ::-1] @ x[:prompt]
        work.within(np.abs(y[prompt:] - recurrence(A_bar, B_bar, C, x[prompt:], initial_state=h)), bound[prompt:])

    sizes = st.integers(1, 60)
    work.forall(st.tuples(st.integers(1, 6), sizes, sizes, st.integers(0, 2**32 - 1)), check)
    work.summary("200 systems of 1 to 6 states, prompts and continuations of 1 to 60 steps")


# %% [markdown]
# ## S4's kernel without powers of Ā
#
# A dense $\bar A$ makes the kernel dear. S4 reaches it by its *generating function* $\hat K(z)=\sum_{t<L}K_tz^t$, whose
# values at the $L$-th roots of unity are the DFT of $K$. Three steps:
#
# 1. A truncated geometric series: $\sum_{t<L}\bar A^tz^t\,(I-\bar Az) = I-\bar A^Lz^L$, and $z^L=1$. So
#    $\hat K(z)=\tilde C(I-\bar Az)^{-1}\bar B$ with $\tilde C=C(I-\bar A^L)$.
# 2. With the bilinear rule, $\bar A=M^{-1}(I+\tfrac\Delta2A)$ and $\bar B=M^{-1}\Delta B$ with $M=I-\tfrac\Delta2A$,
#    the resolvent of $\bar A$ is one of $A$: $M(I-\bar Az)=(1-z)I-\tfrac\Delta2(1+z)A$.
# 3. At $z=e^{-i\theta}$ both coefficients share a phase: $1-z=2i\sin\tfrac\theta2\,e^{-i\theta/2}$ and
#    $1+z=2\cos\tfrac\theta2\,e^{-i\theta/2}$. Neither loses digits near $\theta=0$.
#
# S4 writes $\hat K(z)=\frac2{1+z}\tilde C\big(\frac2\Delta\frac{1-z}{1+z}-A\big)^{-1}B$. That is the same where
# $z\ne-1$; but $-1$ is a root of unity whenever $L$ is even, and there this form reads $\infty\cdot0$. Undivided,
# nothing is special about it.


# %%
@claim(
    "CONV-9",
    r"\hat K(e^{-i\theta})=\Delta e^{i\theta/2}\,\tilde C\big(2i\sin\tfrac\theta2-\Delta\cos\tfrac\theta2A\big)^{-1}B",
    source="S4, Appendix C.3 (generating function and bilinear transform)",
    method="symbolic",
    declared="proved",
)
def generating_function(work: Work) -> None:
    """The generating function of the kernel is a resolvent of A"""
    z, a, delta, theta = sp.symbols("z a Delta theta", real=True)
    L = sp.symbols("L", integer=True, positive=True)
    # every matrix of the induction is a power of Ā, and these commute: a symbol stands for Ā
    for length in (1, 2):
        series = sum(a**t * z**t for t in range(length))
        work.equal(series * (1 - a * z), 1 - a**length * z**length, f"step 1 for L = {length}")
    work.equal((1 - z**L * a**L) + z**L * a**L * (1 - z * a), 1 - z ** (L + 1) * a ** (L + 1), "and from L to L + 1")

    A, I2 = matrix("a", 2, 2), sp.eye(2)
    M, N = I2 - delta / 2 * A, I2 + delta / 2 * A
    resolvent = (1 - z) * I2 - delta / 2 * (1 + z) * A
    work.equal(M * (I2 - M.inv() * N * z), resolvent)
    work.show("step 2, for a general 2×2 A: M (I − Āz) =", resolvent)

    root, phase = sp.exp(-sp.I * theta), sp.exp(-sp.I * theta / 2)
    work.equal(1 - root, 2 * sp.I * sp.sin(theta / 2) * phase, "step 3")
    work.equal(1 + root, 2 * sp.cos(theta / 2) * phase)

    s4 = 2 / (1 + z) / (2 / delta * (1 - z) / (1 + z) - a)
    ours = delta / ((1 - z) - delta / 2 * (1 + z) * a)
    work.equal(s4, ours, "S4's form and the undivided one")
    work.true(s4.subs(z, -1) is sp.nan or s4.subs(z, -1).has(sp.zoo), "at z = −1 S4's form is undefined")
    work.equal(sp.limit(s4, z, -1), ours.subs(z, -1), "where its limit is the undivided form's value")
    work.summary("the telescoping sum for any L, the resolvent for a general 2×2 A, the half-angle forms, and z = −1")


# %% [markdown]
# For $A=\Lambda-PQ^*$ the matrix to invert is a diagonal, $D=2i\sin\frac\theta2-\Delta\cos\frac\theta2\Lambda$, plus
# $w\,PQ^*$ with $w=\Delta\cos\frac\theta2$. Woodbury's identity leaves four sums $\sum_ix_iy_i/D_i$, each a product
# with a Cauchy matrix.


# %%
@claim(
    "CONV-10",
    r"(D+wPQ^*)^{-1}=D^{-1}-\frac{w\,D^{-1}PQ^*D^{-1}}{1+w\,Q^*D^{-1}P}",
    source="S4, Appendix C.3 (Woodbury identity and Cauchy kernel)",
    method="symbolic",
    declared="proved",
)
def woodbury(work: Work) -> None:
    """A diagonal matrix plus rank one is inverted by Cauchy sums"""
    w = sp.Symbol("w")
    for n in (1, 2, 3):
        D_inv = sp.diag(*[1 / d for d in sp.symbols(f"d_0:{n}")])
        P, Q_star = matrix("p", n, 1), matrix("q", 1, n)
        left = D_inv.inv() + w * P * Q_star
        inverse = D_inv - w * D_inv * P * Q_star * D_inv / (1 + w * (Q_star * D_inv * P)[0])
        work.equal(left * inverse, sp.eye(n))

    g = sp.Symbol("g")  # Q* D⁻¹ P, a number
    coefficient = w - w / (1 + w * g) - w * g * w / (1 + w * g)
    work.show("any n: multiplied out, the identity is left, and P Q* D⁻¹ with the coefficient", coefficient)
    work.equal(coefficient, 0)
    work.summary("general D, P, Q* for n = 1, 2, 3, and the coefficient of P Q* D⁻¹ for any n")


# %% [markdown]
# ### In floating point
#
# Let $A$ be dissipative, $\operatorname{Re}v^*Av<0$, as $\Lambda-PQ^*$ is when $\operatorname{Re}\Lambda<0$ and
# either $Q=P$ or $\|P\|\|Q\|<\min|\operatorname{Re}\Lambda|$. Then $\|\bar A\|_2\le1$, and $\bar A^L$ is off by at most
# $L$ times what $\bar A$ is off by, $\sim n\|M\|u$ (an eigenbasis computed for $A$ adds as much), and what a product
# rounds by, $\sim n^2u$. That reaches $\hat K$ through the resolvent. Each Cauchy sum rounds by $\sim nu$ times the sum
# of its absolute values, and $1/D_i$ by $u$ times $(2\sin\frac\theta2+w|\Lambda_i|)/|D_i|$, for its two terms may
# cancel; to first order these pass through Woodbury's quotient. The inverse FFT averages:
# $|\delta K_t|\le\frac1L\sum_j|\delta\hat K_j|$.


# %%
def dplr_rounding(
    Lambda: np.ndarray, P: np.ndarray, Q: np.ndarray, B: np.ndarray, C: np.ndarray, delta: float, length: int
) -> float:
    """For a dissipative A: a bound on the entries of kernel_dplr(...) − kernel(...) of the dense system."""
    n, norm, Q_star = len(Lambda), np.linalg.norm, Q.conj()
    A = np.diag(Lambda) - np.outer(P, Q_star)
    C_tilde = C - C @ np.linalg.matrix_power(discretize(A, B, delta, "bilinear").A_bar, length)
    half = np.pi * np.arange(length)[:, None] / length
    w = delta * np.cos(half)
    inverse = 1 / (2j * np.sin(half) - w * Lambda)
    weight = (2 * np.sin(half) + np.abs(w * Lambda)) * np.abs(inverse) ** 2
    w = w[:, 0]

    def cauchy(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A Cauchy sum at every root of unity, and its rounding error in units of `sums`."""
        return inverse @ (left * right), weight @ np.abs(left * right)

    (CB, dCB), (CP, dCP), (QB, dQB), (QP, dQP) = (cauchy(x, y) for x in (C_tilde, Q_star) for y in (B, P))
    gain = w / (1 + w * QP)
    correction = gain * CP * QB
    dcorrection = np.abs(gain) * (dCP * np.abs(QB) + np.abs(CP) * dQB + np.abs(correction) * dQP)
    resolvent = norm(inverse * B - (gain * QB)[:, None] * inverse * P, axis=1)

    # a prime length's FFT is three FFTs of up to 4 L
    sums = 8 * (n + 4 + 3 * (length.bit_length() + 2)) * UNIT
    power = 8 * length * (n**2 + n * norm(np.eye(n) - delta / 2 * A, 2)) * UNIT
    of_sums = sums * np.mean(dCB + dcorrection + np.abs(CB) + np.abs(correction))
    return float(delta * (of_sums + power * norm(C) * (np.mean(resolvent) + norm(B))))


@claim(
    "CONV-11",
    r"K=\mathrm{IDFT}_L\big(\hat K(e^{-2\pi ij/L})\big)_{j<L}",
    source="S4, Theorem 3 and Appendix C.3",
    method="numeric",
    declared="verified",
)
def cauchy_kernel(work: Work) -> None:
    """The Cauchy kernel is the kernel, for LegS and any length"""
    rng = np.random.default_rng(0)
    for n, length, delta in (
        (1, 1, 0.1),
        (2, 2, 0.1),
        (16, 31, 0.1),
        (16, 64, 1e-3),
        (64, 127, 1e-2),
        (64, 1024, 1e-3),
    ):
        C = rng.standard_normal(n)
        A_bar, B_bar = discretize(*legs(n), delta, "bilinear")[:2]
        Lambda, P, Q, B, V = dplr_legs(n)
        K = kernel(A_bar, B_bar, C, length)
        bound = dplr_rounding(Lambda, P, Q, B, C @ V, delta, length)
        case = f"n = {n}, length {length}"
        work.within(np.abs(kernel_dplr(Lambda, P, Q, B, C @ V, delta, length) - K), bound, case)
        work.true(bound < 1e-5 * np.abs(K).max(), witness=f"{case}: a bound as large as the kernel says nothing")
    work.summary("LegS with 1 to 64 states, Δ from 1e-3 to 0.1, lengths 1, 2, 31, 64, 127, 1024")


# %%
if __name__ == "__main__":
    run_as_script(globals())
