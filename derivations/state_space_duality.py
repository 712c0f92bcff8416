# %% [markdown]
# # State space duality: a scan is a matrix, and sometimes that matrix is attention
#
# A scan maps the sequence $x$ to the sequence $y$, and for given decays it does so linearly. So it *is* a matrix
# $M$, of one row and one column for each token, and lower triangular, for it looks at no future. Attention is a
# lower triangular matrix as well. This page asks when the two are the same one. The answer: with one decay for all
# states of a head (Mamba-2) they are; with a decay for each state (Mamba's S6) they are not.

# %%
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import sympy as sp

from ssm_edu import selective_scan
from ssm_edu.atlas import hyena, mamba2, s6
from ssm_edu.ledger import Work, claim, run_as_script

U = np.finfo(float).eps / 2
T = 5  # tokens in the symbolic claims

# %% [markdown]
# ## One state
#
# $h_t = a_t h_{t-1} + x_t$ unrolls to $h_t = \sum_{s\le t} a_t a_{t-1}\cdots a_{s+1}\, x_s$. The products fill a
# matrix, which Mamba-2 calls $L$.


# %%
def decay_matrix(a: Sequence[Any]) -> sp.Matrix:
    """L_ts = a_t … a_{s+1} for s ≤ t, else 0; the first decay is not used."""
    return sp.Matrix(len(a), len(a), lambda t, s: sp.prod(a[s + 1 : t + 1]) if s <= t else 0)


def scan(a: Sequence[Any], b: Sequence[Any]) -> sp.Matrix:
    """The states of h_t = a_t h_{t−1} + b_t from zero."""
    h, states = sp.Integer(0), []
    for a_t, b_t in zip(a, b, strict=True):
        h = a_t * h + b_t
        states.append(h)
    return sp.Matrix(states)


decays, inputs = sp.symbols(f"a_1:{T + 1}"), sp.symbols(f"x_1:{T + 1}")


@claim(
    "SSD-1",
    r"h_t = a_t h_{t-1} + x_t \iff h = Lx,\quad L_{ts} = a_t a_{t-1}\cdots a_{s+1} \ (s \le t),\ 0 \ (s > t)",
    source="Mamba-2, §3 (1-semiseparable matrices)",
    method="symbolic",
    declared="proved",
)
def scan_is_a_matrix(work: Work) -> None:
    """The scan of one state is a product with a matrix"""
    L = decay_matrix(decays)
    work.show("L", L)
    work.equal(L * sp.Matrix(inputs), scan(decays, inputs))
    work.summary(f"{T} steps, all decays and inputs free")


# %% [markdown]
# $L$ has $T(T+1)/2$ entries and only $T-1$ numbers in it. What holds it together is rank: a block that lies on or
# below the diagonal is a column times a row, because what the past can tell the future passes through one number.
# With $N$ states it passes through $N$ numbers.


# %%
def state_space_matrix(A: Sequence[Sequence[Any]], B: Sequence[Sequence[Any]], C: Sequence[Sequence[Any]]) -> sp.Matrix:
    """M_ts = Σ_n C_tn (a_tn … a_{s+1,n}) B_sn: what maps x to y."""
    per_state = [
        sp.diag(*[row[n] for row in C]) * decay_matrix([row[n] for row in A]) * sp.diag(*[row[n] for row in B])
        for n in range(len(A[0]))
    ]
    return sum(per_state, sp.zeros(len(A), len(A)))


def table(name: str, states: int, length: int = T) -> list[list[Any]]:
    """Symbols, a row for each time."""
    return [[sp.Symbol(f"{name}_{t}{n}") for n in range(1, states + 1)] for t in range(1, length + 1)]


def through_the_state(
    A: list[list[Any]], B: list[list[Any]], C: list[list[Any]], j: int
) -> tuple[sp.Matrix, sp.Matrix]:
    """What the state after token j makes of outputs j … T, and what tokens 1 … j make of it."""
    states = len(A[0])

    def decayed(after: int, until: int, n: int) -> Any:
        return sp.prod(A[r][n] for r in range(after + 1, until + 1))

    from_state = sp.Matrix(T - j, states, lambda t, n: C[j + t][n] * decayed(j, j + t, n))
    return from_state, sp.Matrix(states, j + 1, lambda n, s: B[s][n] * decayed(s, j, n))


@claim(
    "SSD-2",
    r"M_{ts} = C_t^\top A_t \cdots A_{s+1} B_s,\ A_t \text{ diagonal, } N \text{ states}:"
    r"\quad \operatorname{rank} M_{j:,\,:j+1} \le N \text{ for every } j",
    source="Mamba-2, §3 (semiseparable matrices)",
    method="symbolic",
    declared="proved",
)
def rank_below_the_diagonal(work: Work) -> None:
    """With N states, every block on or below the diagonal has rank at most N"""
    for states in (1, 2, 3):
        A, B, C = (table(name, states) for name in "aBc")
        M = state_space_matrix(A, B, C)
        if states == 1:
            work.show("one state: the block that begins in the second row", M[1:, :2])
        for j in range(T):
            from_state, to_state = through_the_state(A, B, C, j)
            work.equal(M[j:, : j + 1], from_state * to_state)
    work.summary(f"1, 2 and 3 states, {T} steps, every block as a product through the state")


@claim(
    "SSD-3",
    r"\text{for distinct decays } a_n \text{ and } B = C = 1: \quad \det (M_{N+i,\,j})_{i,j<N}"
    r" = \pm \prod_n a_n \prod_{m<n} (a_m - a_n)^2 \ne 0",
    source="Mamba-2, §3, derived here",
    method="symbolic",
    declared="proved",
)
def rank_is_reached(work: Work) -> None:
    """The rank N is reached: fewer states will not do"""
    for states in (1, 2, 3):
        a = sp.symbols(f"a_1:{states + 1}")
        # between s = j and t = N + i lie N + i − j steps
        block = sp.Matrix(states, states, lambda i, j, a=a, N=states: sum(x ** (N + i - j) for x in a))
        vandermonde = sp.prod(a[m] - a[n] for n in range(states) for m in range(n))
        sign = (-1) ** (states * (states - 1) // 2)
        work.equal(sp.factor(block.det()), sign * sp.prod(a) * vandermonde**2, f"N = {states}")
    work.summary("1, 2 and 3 states, all decays free")


# %% [markdown]
# The same structure makes the product with $L$ cheap. Its inverse has two diagonals, so $h = Lx$ is the solution of
# $L^{-1}h = x$, by substitution, in $T$ steps: which is the scan again.


# %%
@claim(
    "SSD-4",
    r"(L^{-1})_{tt} = 1,\quad (L^{-1})_{t,t-1} = -a_t,\quad 0 \text{ elsewhere}",
    source="Mamba-2, §3, derived here",
    method="symbolic",
    declared="proved",
)
def inverse_is_bidiagonal(work: Work) -> None:
    """The inverse of L has two diagonals"""
    bidiagonal = sp.eye(T) - sp.Matrix(T, T, lambda t, s: decays[t] if s == t - 1 else 0)
    work.show("L⁻¹", bidiagonal)
    work.equal(bidiagonal * decay_matrix(decays), sp.eye(T))
    work.summary(f"{T} steps, all decays free")


# %% [markdown]
# ## One decay for all states: attention
#
# Now let $x_t$ be written into $N$ states by $B_t$ and read by $C_t$, and let all of them decay by *the same number*
# $a_t$. Then the decay leaves the sum over the states, and what stays in the sum is a product of $C_t$ and $B_s$:
#
# $$M = L \circ (C B^\top),\qquad Y = M X.$$
#
# With $Q$ for $C$, $K$ for $B$, $V$ for $X$, that is attention, with the decay $L$ in place of the causal mask and
# without the softmax. All decays 1, and it is linear attention.


# %%
@claim(
    "SSD-5",
    r"h_t = a_t h_{t-1} + B_t x_t,\ y_t = C_t^\top h_t,\ a_t \in \mathbb R \quad\iff\quad y = (L \circ C B^\top)\,x",
    source="Mamba-2, §5 (state space duality)",
    method="symbolic",
    declared="proved",
)
def duality(work: Work) -> None:
    """A scan with one decay for all states is masked attention"""
    for states in (1, 2, 3):
        B, C = table("B", states), table("C", states)
        dual = decay_matrix(decays).multiply_elementwise(sp.Matrix(C) * sp.Matrix(B).T) * sp.Matrix(inputs)
        columns = [scan(decays, [B[t][n] * inputs[t] for t in range(T)]) for n in range(states)]
        recurrent = sp.Matrix([sum(C[t][n] * columns[n][t] for n in range(states)) for t in range(T)])
        work.equal(recurrent, dual)
    work.summary(f"1, 2 and 3 states, {T} steps, everything free")


# %% [markdown]
# ## A decay for each state: not attention
#
# In S6 state $n$ of channel $d$ decays by $e^{\Delta_{t,d} A_{d,n}}$. One could hope for another mask. But a mask
# multiplies $C_t^\top B_s$, and where that is zero the scan still transports something.


# %%
def two_states() -> tuple[Any, Any, Any, Any, Any]:
    a_1, a_2 = sp.symbols("a_1 a_2", positive=True)
    B, C = sp.Matrix(sp.symbols("B_1 B_2")), sp.Matrix(sp.symbols("C_1 C_2"))
    return a_1, a_2, B, C, C[0] * a_1 * B[0] + C[1] * a_2 * B[1]


@claim(
    "SSD-6",
    r"\text{for every selective scan there is a mask } m, \text{ a function of the decays, with }"
    r" M_{ts} = m_{ts}\, C_t^\top B_s",
    source="Mamba-2, §5, where it is claimed of one decay a head alone",
    method="symbolic",
    declared="refuted",
    corrected_by="SSD-7",
)
def one_mask_for_s6(work: Work) -> None:
    """“S6, too, is attention with a mask”"""
    _, _, B, C, entry = two_states()
    mask = (entry / C.dot(B)).subs({C[0]: 1, C[1]: 0})
    work.show("what the mask has to be, from C = (1, 0)", mask)
    work.equal(entry, mask * C.dot(B), "the same mask for any other C")


@claim(
    "SSD-7",
    r"M = \sum_n L^{(n)} \circ (C_{:n} B_{:n}^\top): \ N \text{ masks for a channel};"
    r"\qquad \text{one is enough for all } B, C \iff a^{(1)} = \dots = a^{(N)}",
    source="Mamba-2, §5, derived here",
    method="symbolic",
    declared="proved",
)
def a_mask_for_each_state(work: Work) -> None:
    """S6 takes one mask for every state of every channel, and none of its own will do"""
    for states in (1, 2, 3):
        A, B, C = (table(name, states) for name in "aBC")
        masks = [decay_matrix([row[n] for row in A]) for n in range(states)]
        outer = [sp.Matrix([row[n] for row in C]) * sp.Matrix([row[n] for row in B]).T for n in range(states)]
        total = sum((m.multiply_elementwise(o) for m, o in zip(masks, outer, strict=True)), sp.zeros(T, T))
        work.equal(state_space_matrix(A, B, C), total)

    a_1, a_2, B, C, entry = two_states()
    m = sp.Symbol("m")
    equations = [sp.expand(entry - m * C.dot(B)).coeff(C[n] * B[n]) for n in range(2)]
    work.show("entry = m CᵀB for all B and C: its coefficients", sp.Matrix(equations))
    work.equal(sp.Matrix(equations), sp.Matrix([a_1 - m, a_2 - m]), "vanish where")
    work.true(sp.linsolve(equations, m) == sp.EmptySet, "no m for two different decays")
    work.true(sp.linsolve([e.subs(a_2, a_1) for e in equations], m) == sp.FiniteSet((a_1,)), "one for equal ones")

    crossed = {C[0]: 1, C[1]: 1, B[0]: 1, B[1]: -1}
    work.equal(C.dot(B).subs(crossed), 0)
    work.equal(entry.subs(crossed), a_1 - a_2)
    work.show(
        "at C = (1, 1), B = (1, −1) CᵀB = 0: no mask whatever gives what the scan transports", entry.subs(crossed)
    )
    work.summary(f"1, 2 and 3 states, {T} steps, everything free; for “one is enough” two states, hence more")


# %% [markdown]
# So a head of Mamba-2 has one mask where a channel of Mamba has 16, and there is nothing to make a matrix product
# of. That is what Mamba-2 paid for its speed: it gave up the decay that differs from state to state.
#
# ## The blocks
#
# The quadratic form costs $O(T^2)$; the recurrence is linear but is no matrix product. Cut $M$ into blocks of $Q$
# tokens. On the diagonal, use the quadratic form. Below it every block has rank $N$ (SSD-2): take the chunk into its
# last state, the state from chunk to chunk, and from there to the outputs.


# %%
@claim(
    "SSD-8",
    r"\begin{pmatrix} M_{11} & 0 \\ M_{21} & M_{22} \end{pmatrix},\quad"
    r" M_{21} = (\text{decay from the border} \circ C)\,(\text{decay to the border} \circ B)^\top",
    source="Mamba-2, §6 (the algorithm by blocks)",
    method="symbolic",
    declared="proved",
)
def blocks(work: Work) -> None:
    """The block below the diagonal passes through the state at the border"""
    states = 2
    B, C = sp.Matrix(table("B", states)), sp.Matrix(table("C", states))
    M = decay_matrix(decays).multiply_elementwise(C * B.T)
    for border in range(1, T):
        from_border = sp.diag(*[sp.prod(decays[border : t + 1]) for t in range(border, T)])
        to_border = sp.diag(*[sp.prod(decays[s + 1 : border]) for s in range(border)])
        work.equal(M[border:, :border], from_border * C[border:, :] * B[:border, :].T * to_border)
    work.summary(f"{states} states, {T} steps, a border at every place")


@claim(
    "SSD-9",
    r"\text{recurrent} = \text{quadratic} = \text{in chunks of } Q, \text{ for all } Q",
    source="Mamba-2, §6 (the algorithm by blocks)",
    method="property",
    declared="verified",
)
def three_forms_agree(work: Work) -> None:
    """The three forms of Mamba-2 agree"""
    from hypothesis import strategies as st

    def check(drawn: tuple[int, int, int]) -> None:
        seed, length, chunk = drawn
        rng = np.random.default_rng(seed)
        params = mamba2.init(rng, width=4, state=3, heads=2)
        x = rng.standard_normal((length, 4))
        quadratic = mamba2.parallel(params, x)
        log_a, X, B, C, Dx = mamba2.select(params, x)
        size = np.abs(mamba2.decay_mask(log_a) * (np.abs(C) @ np.abs(B).T))
        terms = (np.einsum("hts,shp->thp", size, np.abs(X)) + np.abs(Dx)).reshape(quadratic.shape)
        # A term takes some 3 roundings a step of its decay, and as many for each of state and sum; and a sum S of
        # logarithms that ends up in an exponent moves it by its own rounding, up to the length times u|S|.
        bound = 2 * (3 * length + 3 * 3 + 16 + length * np.abs(log_a).sum(axis=0).max()) * U * terms
        recurrent = mamba2.as_affine_scan(params, x).outputs("sequential")
        work.within(np.abs(recurrent - quadratic), bound, "recurrent and quadratic")
        work.within(np.abs(mamba2.chunked(params, x, chunk) - quadratic), bound, "chunked and quadratic")

    work.forall(st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 24), st.integers(1, 30)), check, examples=60)


@claim(
    "SSD-10",
    r"\text{multiplications a token and a head of width } P: \ f(Q) = Q(N + P) + 2NP + \tfrac{NP}{Q},"
    r"\quad \min \text{ at } Q = \sqrt{\tfrac{NP}{N + P}};\quad f = 4N^2 + N \text{ at } Q = N = P",
    source="Mamba-2, §6, derived here",
    method="symbolic",
    declared="proved",
)
def cost_of_chunks(work: Work) -> None:
    """In chunks the work is linear in the length, and nearly all of it matrix products"""
    Q, N, P = sp.symbols("Q N P", positive=True)
    # a chunk: C Bᵀ and its product with X on the diagonal; into the last state; that state's decay; and out of it
    chunk = Q * Q * N + Q * Q * P + Q * N * P + N * P + Q * N * P
    token = sp.expand(chunk / Q)
    work.equal(token, Q * (N + P) + 2 * N * P + N * P / Q, "a token's share")
    [best] = sp.solve(sp.diff(token, Q), Q)
    work.equal(best, sp.sqrt(N * P / (N + P)), "the chunk of least work")
    work.true(sp.diff(token, Q, 2).is_positive, "a minimum")
    work.equal(token.subs({Q: N, P: N}), 4 * N**2 + N, "at Q = N = P, against 3N² of the recurrence (a h, x B, C h)")


# %% [markdown]
# ## How to compute the mask
#
# $L_{ts} = P_t / P_s$ with $P_t = a_1 \cdots a_t$: one cumulative product, and all is there. On paper. Differences
# $S_t - S_s$ of cumulative sums of logarithms do not underflow, but once $S$ has swallowed a decay of $e^{-10^{16}}$,
# which one long step makes, they have no digits left for the later ones. So each entry gets a sum of its own.


# %%
def exact_mask(log_a: np.ndarray) -> np.ndarray:
    """exp of the sums of logarithms, to 50 digits, rounded."""
    import mpmath

    with mpmath.workdps(50):
        logs = [mpmath.mpf(float(v)) for v in log_a]
        return np.array(
            [
                [float(mpmath.exp(mpmath.fsum(logs[s + 1 : t + 1]))) if s <= t else 0.0 for s in range(len(logs))]
                for t in range(len(logs))
            ]
        )


def mask_cases() -> list[np.ndarray]:
    """Logarithms of decays: slow, strong, so strong that their product underflows half-way; and one stronger by far."""
    rng = np.random.default_rng(0)
    cases = [-rate * rng.random(24) for rate in (0.1, 2.0, 120.0, 2.0)]
    cases[-1][3] = -1e16
    return cases


def mask_bound(log_a: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """A sum S of up to T numbers of one sign errs by γ_T|S| < 2Tu|S|; an exponential by 2u, or underflows."""
    tiny = np.finfo(float).tiny
    S = np.log(np.maximum(exact, tiny))
    return np.expm1(2 * len(log_a) * U * np.abs(S) + 4 * U) * exact + tiny


@claim(
    "SSD-11",
    r"\text{in double precision } L_{ts} = P_t / P_s,\ P_t = a_1 \cdots a_t",
    source="Mamba-2, §6, on the stable segment sum",
    method="numeric",
    declared="refuted",
    corrected_by="SSD-12",
)
def mask_by_quotients(work: Work) -> None:
    """“The mask is a quotient of cumulative products”"""
    for log_a in mask_cases():
        exact = exact_mask(log_a)
        product = np.cumprod(np.exp(log_a))
        with np.errstate(all="ignore"):
            mask = np.tril(product[:, None] / product)
        lost = f"{np.isnan(mask).sum()} of {mask.size} entries are 0/0: P underflows where Σ log a = {log_a.sum():.0f}"
        work.true(not np.isnan(mask).any(), witness=lost)
        work.within(np.abs(mask - exact), mask_bound(log_a, exact), f"Σ log a = {log_a.sum():.0f}")


@claim(
    "SSD-12",
    r"L_{ts} = \exp(\log a_{s+1} + \dots + \log a_t), \text{ a sum for each entry}: \quad"
    r" |\hat L - L| \le \big(e^{2Tu |\log L| + 4u} - 1\big)\,L \ (+ \text{ what underflows})",
    source="Mamba-2, §6, on the stable segment sum",
    method="numeric",
    declared="verified",
)
def mask_by_sums(work: Work) -> None:
    """The mask by sums of logarithms is accurate, whatever underflows and however strong one decay is"""
    for log_a in mask_cases():
        exact = exact_mask(log_a)
        mask = mamba2.decay_mask(log_a[:, None])[0]
        work.within(np.abs(mask - exact), mask_bound(log_a, exact), f"Σ log a = {log_a.sum():.0f}")


# %% [markdown]
# ## Mamba's attention matrix
#
# That S6 is no masked attention does not mean that it has no matrix. For the input that it was given, each channel
# of a selective scan is $y = M(x)\,x$, with $M(x)_{ts} = \sum_n C_{t,n}\, e^{A_n(\Delta_{s+1} + \dots + \Delta_t)}\,
# \Delta_s B_{s,n}$: how much of token $s$ is left in output $t$. People plot it as they plot attention maps.


# %%
def attention_matrices(delta: np.ndarray, A: np.ndarray, B: np.ndarray, C: np.ndarray) -> np.ndarray:
    """M (dim, length, length) from delta (length, dim), A (dim, n), B and C (length, n)."""
    length = len(delta)
    total = np.cumsum(delta, axis=0)
    M = np.zeros((len(A), length, length))
    for t in range(length):
        for s in range(t + 1):
            left = np.exp(A * (total[t] - total[s])[:, None])
            M[:, t, s] = (C[t] * left * B[s]).sum(axis=1) * delta[s]
    return M


@claim(
    "SSD-13",
    r"y = M(x)\,x + D x,\quad M(x)_{ts} = \sum_n C_{t,n}\, e^{A_n (\Delta_{s+1} + \dots + \Delta_t)}\,"
    r" \Delta_s B_{s,n}",
    source="Mamba, §3.2; Mamba-2, §2 (structured matrices)",
    method="property",
    declared="verified",
)
def mambas_attention(work: Work) -> None:
    """The selective scan is an attention matrix made from its input"""
    from hypothesis import strategies as st

    def check(drawn: tuple[int, int]) -> None:
        seed, length = drawn
        rng = np.random.default_rng(seed)
        params = s6.init(rng, width=3, state=4)
        x = rng.standard_normal((length, 3))
        delta, B, C = s6.select(params, x)
        M = attention_matrices(delta, params.A, B, C)
        y = selective_scan(*(x.T[None], delta.T[None], params.A, B.T[None], C.T[None], params.D), backend="reference")[
            0
        ]
        size = attention_matrices(delta, params.A, np.abs(B), np.abs(C))
        terms = np.einsum("dts,sd->dt", size, np.abs(x)) + np.abs(params.D * x).T
        # 4 roundings a step, the sums over states and steps, and the exponents, whose sums are off by length·u
        bound = 2 * (6 * length + 4 + 8 + length * np.abs(params.A).max() * delta.sum(axis=0).max()) * U * terms
        work.within(np.abs(np.einsum("dts,sd->dt", M, x) + params.D[:, None] * x.T - y), bound, "M(x) x + D x")

    work.forall(st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 12)), check, examples=40)


@claim(
    "SSD-14",
    r"M(x)_{ts} \ge 0 \text{ and } \sum_s M(x)_{ts} = 1: \text{ the rows are weights, as those of softmax attention}",
    source="Mamba-2, §5, as pictures of such matrices are often read",
    method="numeric",
    declared="refuted",
    corrected_by="SSD-15",
)
def rows_are_weights(work: Work) -> None:
    """“Each row of Mamba's attention matrix is a set of weights”"""
    rng = np.random.default_rng(0)
    params = s6.init(rng, width=3, state=4)
    delta, B, C = s6.select(params, rng.standard_normal((8, 3)))
    M = attention_matrices(delta, params.A, B, C)
    work.within(-M, 0, "no entry is negative")
    work.within(np.abs(M.sum(axis=2) - 1), 1e-12, "the rows sum to 1")


@claim(
    "SSD-15",
    r"N = 1,\ A = -1,\ B = C = 1, \text{ zero-order hold}: \quad M_{ts} = g_s \prod_{r=s+1}^t (1 - g_r) \ge 0,"
    r"\quad \sum_{s \le t} M_{ts} = 1 - \prod_{r \le t} (1 - g_r) < 1",
    source="Mamba, Theorem 1",
    method="symbolic",
    declared="proved",
)
def rows_of_a_gate(work: Work) -> None:
    """The rows of Theorem 1's gate are weights, and what they lack to 1 is on the state before the first token"""
    odds = sp.symbols(f"w_1:{T + 1}", positive=True)  # g = w/(1 + w) runs over (0, 1)
    gates = [w / (1 + w) for w in odds]
    M = decay_matrix([1 - g for g in gates]) * sp.diag(*gates)
    for t in range(T):
        left = sp.prod(1 - g for g in gates[: t + 1])
        work.equal(sum(M[t, :]), 1 - left)
        work.true(sp.simplify(left).is_positive)
        for s in range(t + 1):
            work.true(sp.simplify(M[t, s]).is_positive)
    g = sp.symbols(f"g_1:{T + 1}")
    work.show("the weights in the last output", (decay_matrix([1 - x for x in g]) * sp.diag(*g))[T - 1, :].T)
    work.summary(f"{T} steps, all gates in (0, 1)")


# %% [markdown]
# ## Mamba-3: two taps and a rotation
#
# Mamba-3 writes the token before as well: $h_t = a_t h_{t-1} + \beta_t a_t B_{t-1} x_{t-1} + \gamma_t B_t x_t$, with
# $\gamma = \lambda\Delta$ and $\beta = (1-\lambda)\Delta$. The mask of SSD-5 gets a second factor, and that is all.


# %%
@claim(
    "SSD-16",
    r"h_t = a_t h_{t-1} + \beta_t a_t b_{t-1} + \gamma_t b_t \iff h = (L \circ T)\,b,\quad"
    r" T_{ts} = \gamma_s + [s < t]\,\beta_{s+1}",
    source="Mamba-3, on the exponential-trapezoidal rule as a mask",
    method="symbolic",
    declared="proved",
)
def two_taps(work: Work) -> None:
    """Mamba-3's second tap is a factor of the mask"""
    beta, gamma = sp.symbols(f"beta_1:{T + 1}"), sp.symbols(f"gamma_1:{T + 1}")
    before = (sp.Integer(0), *inputs[:-1])
    drive = [beta[t] * decays[t] * before[t] + gamma[t] * inputs[t] for t in range(T)]
    taps = sp.Matrix(T, T, lambda t, s: gamma[s] + (beta[s + 1] if s < t else 0))
    work.show(
        "T, on and below the diagonal", taps.multiply_elementwise(sp.Matrix(T, T, lambda t, s: 1 if s <= t else 0))
    )
    work.equal(scan(decays, drive), decay_matrix(decays).multiply_elementwise(taps) * sp.Matrix(inputs))
    work.summary(f"{T} steps, everything free")


# %% [markdown]
# Its decay is complex, with an angle for each state: a state may turn as well as fade. All states fade alike, so the
# one real mask stays, and the angles go to $B$ and $C$: a rotary embedding whose angles depend on the input.


# %%
@claim(
    "SSD-17",
    r"a_{t,n} = r_t e^{i\theta_{t,n}}:\quad C_{t,n}\Big(\prod_{r=s+1}^{t} a_{r,n}\Big) B_{s,n}"
    r" = L_{ts}\,(C_{t,n} e^{i\Phi_{t,n}})(B_{s,n} e^{-i\Phi_{s,n}}),\quad \Phi_t = \theta_1 + \dots + \theta_t",
    source="Mamba-3, on the complex state as a rotary embedding",
    method="symbolic",
    declared="proved",
)
def rotations_move(work: Work) -> None:
    """A rotation of the state is a rotation of B and C"""
    moduli, angles = sp.symbols(f"r_1:{T + 1}", positive=True), sp.symbols(f"theta_1:{T + 1}", real=True)
    phase = [sum(angles[: t + 1]) for t in range(T)]
    turned = sp.Matrix(T, T, lambda t, s: sp.exp(sp.I * (phase[t] - phase[s])))
    complex_decays = [r * sp.exp(sp.I * theta) for r, theta in zip(moduli, angles, strict=True)]
    work.equal(decay_matrix(complex_decays), decay_matrix(moduli).multiply_elementwise(turned))
    work.summary(f"{T} steps, all moduli and angles free; B and C multiply both sides")


# %% [markdown]
# ## A convolution without a small state: Hyena
#
# For constant $a, B, C$ the matrix is $M_{ts} = K_{t-s}$, a convolution, and its blocks are Hankel matrices
# $K_{i+j}$: of rank at most $N$ when the kernel is that of $N$ states. Hyena takes any function of the position for
# a kernel. How far is it from every $N$-state system? The next singular value says (Eckart and Young).


# %%
@claim(
    "SSD-18",
    r"K_t = C^\top \mathrm{diag}(a)^t B,\ N \text{ states}: \quad \operatorname{rank}\,(K_{i+j})_{ij} \le N",
    source="S4, §2 (the convolution), derived here after Kronecker",
    method="symbolic",
    declared="proved",
)
def hankel_rank(work: Work) -> None:
    """The Hankel matrix of an N-state kernel has rank at most N"""
    for states in (1, 2, 3):
        a, weights = sp.symbols(f"a_1:{states + 1}"), sp.symbols(f"w_1:{states + 1}")  # w = C B
        size = states + 1
        hankel = sp.Matrix(
            size, size, lambda i, j, a=a, w=weights: sum(v * x ** (i + j) for x, v in zip(a, w, strict=True))
        )
        powers = sp.Matrix(size, states, lambda i, n, a=a: a[n] ** i)
        work.equal(hankel, powers * sp.diag(*weights) * powers.T)
        work.equal(hankel.det(), 0)
        if states == 1:
            work.show("one state", hankel)
    work.summary("1, 2 and 3 states, as a product through them, and by the determinant of the next size")


@claim(
    "SSD-19",
    r"\min_{K \text{ of } N \text{ states}} \lVert \mathrm{Hankel}(h) - \mathrm{Hankel}(K) \rVert_2 \ge \sigma_{N+1}"
    r" > 10^8 \text{ times its rounding error, for Hyena's filters } h \text{ and } N \le 8",
    source="Hyena, §3.3 (implicit filters), measured here",
    method="measured",
    declared="verified",
)
def hyena_is_no_scan(work: Work) -> None:
    """Hyena's filters are those of no small state"""
    nearest = np.inf
    for seed in range(4):
        params = hyena.init(np.random.default_rng(seed), width=4, horizon=64)
        values, rounding = hyena.hankel_values(params.filters[0])
        for state in (1, 2, 4, 8):
            distance = values[:, state]
            work.true((distance > 1e8 * rounding).all(), witness=f"{distance.min():.2g} with {state} states")
            nearest = min(nearest, (distance / values[:, 0]).min())
    work.summary(f"16 filters of 64 taps, up to 8 states; the nearest is {nearest:.1g} of the filter's norm away")


# %%
if __name__ == "__main__":
    run_as_script(globals())
