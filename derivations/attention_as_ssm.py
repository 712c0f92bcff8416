# %% [markdown]
# # Attention as a state space model
#
# Article 2 lists, among the “structures that can be seen as SSMs”, linear attention, RetNet and RWKV. In each of them
# a token writes a key and a value, a later one reads with a query, and between the two time passes. Put a matrix where
# an SSM has its state,
# $$S_t = \mathrm{diag}(a_t)\,S_{t-1} + k_t^\top v_t,\qquad y_t = q_t S_t,$$
# and all of them are this recurrence: $B$ is the key, $C$ the query, $u$ the value, and $\bar A = a_t$ is what tells
# the models apart. It is 1 in linear attention, a constant in RetNet and RWKV-4, and set by the input in GLA, RWKV-6,
# HGRN and Mamba. RWKV-7 alone needs more than a diagonal. The code is in `ssm_edu/atlas/`, a file for each model.

# %%
from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp

from ssm_edu.atlas import _wkv
from ssm_edu.atlas._heads import decayed_scores, decays
from ssm_edu.ledger import Work, claim, run_as_script
from ssm_edu.scan import SCANS
from ssm_edu.scan import combine as affine_combine
from ssm_edu.selective import selective_scan

U = np.finfo(float).eps / 2
LENGTH = 5


def tokens(letters: str, length: int = LENGTH, **assumptions: Any) -> list[Any]:
    """Symbols q1 … qL, k1 … kL, …, a list for each letter; of one letter, its list."""
    lists = [list(sp.symbols(f"{letter}1:{length + 1}", **assumptions)) for letter in letters.split()]
    return lists if len(lists) > 1 else lists[0]


def recurrence(a: list[Any], k: list[Any], v: list[Any]) -> list[Any]:
    """S_t = a_t S_{t−1} + k_t v_t for one key and one value: every entry of the matrix S does this."""
    states, S = [], sp.Integer(0)
    for a_t, k_t, v_t in zip(a, k, v, strict=True):
        S = a_t * S + k_t * v_t
        states.append(S)
    return states


def gamma(n: Any) -> Any:
    """γ_n = nu/(1 − nu): what n roundings can do to a product, relatively."""
    return n * U / (1 - n * U)


# %% [markdown]
# ## Linear attention: an SSM that never forgets
#
# $y_t = \sum_{i\le t}(q_t\cdot k_i)\,v_i$, with features $q=\phi(\cdot)$, $k=\phi(\cdot)$, sums over the past for every
# token. The query stands outside of the sum: $q_t\sum_{i\le t}k_i^\top v_i$. What remains inside is a running sum.
# Each entry of it is the product of one entry of $k$ and one of $v$, and $y$ sums over keys: one key and one value,
# as below, stand for all.


# %%
@claim(
    "ATT-1",
    r"\sum_{i\le t}(q_t k_i)\,v_i=q_tS_t,\quad S_t=1\cdot S_{t-1}+k_tv_t",
    source="Linear attention, §3.4 (eq. 18 to 20); Article 2, on architectures that are SSMs; Mamba, §2",
    method="symbolic",
    declared="proved",
)
def linear_attention(work: Work) -> None:
    """Linear attention is a recurrence with Ā = 1"""
    q_new, k_new, v_new, S = sp.symbols("q_{t+1} k_{t+1} v_{t+1} S_t")
    work.equal(q_new * S + (q_new * k_new) * v_new, q_new * (S + k_new * v_new), "induction: one token more")
    q, k, v = tokens("q k v")
    states = recurrence([1] * LENGTH, k, v)
    quadratic = [sum(q[t] * k[i] * v[i] for i in range(t + 1)) for t in range(LENGTH)]
    work.equal(sp.Matrix(quadratic), sp.Matrix([q_t * S for q_t, S in zip(q, states, strict=True)]).expand())
    work.summary(f"the induction step, and lengths 1 to {LENGTH} written out")


@claim(
    "ATT-2",
    r"y_t=\frac{q_t\sum_{i\le t}k_iv_i}{q_t\sum_{i\le t}k_i\cdot 1}:\ "
    r"\text{the normaliser is a channel whose input is }1",
    source="Linear attention, §3.4 (eq. 19)",
    method="symbolic",
    declared="proved",
)
def normaliser(work: Work) -> None:
    """The normaliser is one channel more"""
    q, k = tokens("q k", positive=True)
    v = tokens("v")
    values, ones = recurrence([1] * LENGTH, k, v), recurrence([1] * LENGTH, k, [1] * LENGTH)
    for t in range(LENGTH):
        weights = [q[t] * k[i] / sum(q[t] * k[j] for j in range(t + 1)) for i in range(t + 1)]
        work.equal(sum(w * x for w, x in zip(weights, v, strict=False)), q[t] * values[t] / (q[t] * ones[t]))
        work.equal(sum(weights), 1)
    work.show("the last output of two channels, the second one fed with 1", values[-1] / ones[-1])
    work.summary(f"{LENGTH} tokens written out, all symbols free")


# %% [markdown]
# Why “degenerate”? Take an SSM by zero-order hold and let its $A$ go to 0. The state no longer decays, and the input is
# written with weight $\Delta$, by the hold and by the released code alike. So linear attention is what the selective
# scan computes for $A = 0$ and $\Delta = 1$: the state without dynamics, the selection without $\Delta$.


# %%
@claim(
    "ATT-3",
    r"\lim_{A\to0}e^{\Delta A}=1,\quad\lim_{A\to0}\frac{e^{\Delta A}-1}{A}B=\Delta B",
    source="Mamba, §2 and eq. 4; Article 2, on architectures that are SSMs",
    method="symbolic",
    declared="proved",
)
def degenerate(work: Work) -> None:
    """Linear attention is the SSM with A = 0"""
    A, B = sp.symbols("A B")
    delta = sp.Symbol("Delta", positive=True)
    work.equal(sp.limit(sp.exp(delta * A), A, 0), 1, "the decay")
    work.equal(sp.limit((sp.exp(delta * A) - 1) / A, A, 0) * B, delta * B, "the input weight under the hold")


@claim(
    "ATT-4",
    r"\text{selective\_scan}(u=v,\ \Delta=1,\ A=0,\ B=k,\ C=q)=\mathrm{tril}(QK^\top)V",
    source="Mamba, §2; Linear attention, §3.3",
    method="property",
    declared="verified",
)
def selective_scan_with_no_decay(work: Work) -> None:
    """The library's selective scan computes linear attention"""
    from hypothesis import strategies as st

    def check(case: tuple[int, int, int, str]) -> None:
        length, key, seed, rule = case
        rng = np.random.default_rng(seed)
        q, k, v = (rng.standard_normal((length, n)) for n in (key, key, 3))
        B, C, ones = k.T[None], q.T[None], np.ones((1, 3, length))
        found = selective_scan(v.T[None], ones, np.zeros((3, key)), B, C, discretization=rule, backend="reference")
        size = np.tril(abs(q) @ abs(k).T) @ abs(v)
        # on either side a term meets two products, and the additions over keys and over time
        work.within(abs(found[0].T - np.tril(q @ k.T) @ v), 2 * gamma(length + key + 8) * size, rule)

    rules = st.sampled_from(["mamba", "zoh"])
    work.forall(st.tuples(st.integers(1, 17), st.integers(1, 6), st.integers(0, 2**32 - 1), rules), check, 60)


# %% [markdown]
# Article 2 calls linear attention an approximation of self-attention. How good can it be? Softmax weighs with
# $e^{q\cdot k}$. If that were $\phi(q)\cdot\psi(k)$ with $N$ features, a matrix of its values would have rank $N$ at
# most. Already for numbers $q$ and $k$ its rank has no bound: no running sum of a fixed size is read as softmax is.


# %%
def features(N: int) -> tuple[sp.Matrix, sp.Matrix]:
    """The Gram matrix of N+1 queries and keys with any N features, and that of e^{qk} for q, k = 0 … N."""
    phi = sp.Matrix(N + 1, N, lambda i, n: sp.Symbol(f"f{i}{n}"))
    psi = sp.Matrix(N, N + 1, lambda n, j: sp.Symbol(f"g{n}{j}"))
    return phi * psi, sp.Matrix(N + 1, N + 1, lambda i, j: sp.exp(i * j))


@claim(
    "ATT-5",
    r"\exists\,\phi,\psi:\mathbb R\to\mathbb R^2:\quad e^{qk}=\phi(q)\cdot\psi(k)",
    source="Article 2, on architectures that are SSMs (“an approximation of self-attention”)",
    method="symbolic",
    declared="refuted",
    corrected_by="ATT-6",
)
def softmax_by_features(work: Work) -> None:
    """“A feature map turns softmax attention into linear attention”"""
    gram, softmax = features(2)
    with work.premise():
        work.equal(gram.det(), 0, "with two features, three queries and keys")
    work.equal(softmax.det(), gram.det().expand(), "so, were it equal, the determinant of the exponentials")


@claim(
    "ATT-6",
    r"\det\big[\phi(q_i)\cdot\psi(k_j)\big]_{i,j\le N}=0\ne\det\big[e^{ij}\big]_{i,j\le N}=\prod_{i<j}(e^j-e^i)",
    source="Linear attention, §3.2.1 (on the kernel's feature map); Mamba, §3.1 (on the size of a state)",
    method="symbolic",
    declared="proved",
)
def no_features_for_softmax(work: Work) -> None:
    """No finite feature map makes softmax attention linear"""
    for N in range(1, 4):
        gram, softmax = features(N)
        work.equal(gram.det(method="berkowitz").expand(), 0)
        vandermonde = sp.prod(sp.exp(j) - sp.exp(i) for i in range(N + 1) for j in range(i + 1, N + 1))
        work.equal(softmax.det(method="berkowitz").expand(), vandermonde.expand())
        work.true(all((sp.exp(j) - sp.exp(i)).is_positive for i in range(N + 1) for j in range(i + 1, N + 1)))
    x = sp.Symbol("x", positive=True)
    work.show("the exponentials are powers: a Vandermonde matrix", sp.Matrix(3, 3, lambda i, j: (x**i) ** j))
    work.summary("any N = 1 to 3 features, N + 1 queries and keys")


# %% [markdown]
# ## RetNet: a decay that is constant, and complex
#
# RetNet turns $q_n$ and $k_m$ by their positions, $e^{in\theta}$ and $e^{im\theta}$, and fades their product by
# $\gamma^{n-m}$. Both depend on $n-m$ alone, so they are powers of one complex number $A=\gamma e^{i\theta}$.


# %%
@claim(
    "ATT-7",
    r"\sum_{m\le n}\gamma^{n-m}(q_ne^{in\theta})\overline{(k_me^{im\theta})}\,v_m=q_ns_n,\quad "
    r"s_n=\gamma e^{i\theta}s_{n-1}+\bar k_nv_n",
    source="RetNet, §2.1 (eq. 1 to 6); Article 2, on architectures that are SSMs",
    method="symbolic",
    declared="proved",
)
def retention(work: Work) -> None:
    """RetNet's parallel form is a recurrence with a complex decay"""
    theta, n, m = sp.symbols("theta n m", real=True)
    decay = sp.Symbol("gamma", positive=True)
    A = decay * sp.exp(sp.I * theta)
    turned = decay ** (n - m) * sp.exp(sp.I * n * theta) * sp.conjugate(sp.exp(sp.I * m * theta))
    again = turned.subs(n, n + 1)
    work.equal(sp.powsimp(turned.subs(n, m)), 1, "the weight of a token in its own output")
    work.equal(sp.simplify(again / turned), A, "and from one output to the next it is multiplied by")
    q, k, v = tokens("q k v")
    states = recurrence([A] * LENGTH, [sp.conjugate(x) for x in k], v)
    parallel = [
        sum(turned.subs({n: i, m: j}) * q[i] * sp.conjugate(k[j]) * v[j] for j in range(i + 1)) for i in range(LENGTH)
    ]
    work.equal(sp.Matrix(parallel).expand(), sp.Matrix([x * s for x, s in zip(q, states, strict=True)]).expand())
    work.summary(f"the induction step, and lengths 1 to {LENGTH} written out")


@claim(
    "ATT-8",
    r"o_{c+j}=\sum_{c<m\le c+j}q_{c+j}A^{c+j-m}\bar k_mv_m+q_{c+j}A^{j}s_c,\quad "
    r"s_{c+b}=A^bs_c+\sum_{c<m\le c+b}A^{c+b-m}\bar k_mv_m",
    source="RetNet, §2.1 (eq. 7)",
    method="symbolic",
    declared="proved",
)
def chunkwise(work: Work) -> None:
    """Chunks: parallel inside, recurrent between"""
    A, length = sp.Symbol("A"), 6
    q, k, v = tokens("q k v", length)
    whole = recurrence([A] * length, k, v)
    for b in (1, 2, 3, 4, 6):
        s, outputs = sp.Integer(0), []
        for c in range(0, length, b):
            chunk = range(c, min(c + b, length))
            for n in chunk:
                inside = sum(q[n] * A ** (n - m) * k[m] * v[m] for m in chunk if m <= n)
                outputs.append(inside + q[n] * A ** (n - c + 1) * s)
            s = A ** len(chunk) * s + sum(A ** (chunk[-1] - m) * k[m] * v[m] for m in chunk)
        expected = [q_n * s_n for q_n, s_n in zip(q, whole, strict=True)]
        work.equal(sp.Matrix(outputs).expand(), sp.Matrix(expected).expand())
    work.summary(f"chunks of 1, 2, 3, 4 and 6 of {length} tokens, a ragged last one among them")


# %% [markdown]
# Is RetNet time-invariant, then, as S4 is? Its decay is. But key, value and query are three linear maps of one input,
# multiplied: double the input, and the output (before its norm) grows eightfold. Only for fixed queries and keys is
# it linear in the values; and only for constant ones a convolution, whose kernel is S4D's.


# %%
@claim(
    "ATT-9",
    r"\text{retention is linear in } x:\quad o(2x)=2\,o(x)",
    source="Article 2, on architectures that are SSMs (“a simpler SSM”, where SSM is read as LTI)",
    method="symbolic",
    declared="refuted",
    corrected_by="ATT-10",
)
def retention_is_linear(work: Work) -> None:
    """“A constant decay makes an LTI system”"""
    A, w_q, w_k, w_v = sp.symbols("A w_q w_k w_v")
    x = tokens("x", 2)

    def o(x: list[Any]) -> Any:
        return w_q * x[-1] * recurrence([A] * 2, [w_k * x_n for x_n in x], [w_v * x_n for x_n in x])[-1]

    work.show("the output", o(x).factor())
    with work.premise():
        work.equal(o([2 * x_n for x_n in x]), 8 * o(x).expand(), "of twice the input")
    work.equal(o([2 * x_n for x_n in x]), 2 * o(x))


@claim(
    "ATT-10",
    r"q_n=q,\ k_n=k:\quad o_n=\sum_mK_{n-m}v_m,\ K_j=q\,e^{j\Delta a}\,\bar k,\quad "
    r"a=\frac{\ln\gamma+i\theta}{\Delta}",
    source="RetNet, §2.1; S4D, §3",
    method="symbolic",
    declared="proved",
)
def retention_as_s4d(work: Work) -> None:
    """With constant queries and keys it is S4D"""
    q, k = sp.symbols("q k")
    theta = sp.Symbol("theta", real=True)
    decay, delta = sp.symbols("gamma Delta", positive=True)
    a = (sp.log(decay) + sp.I * theta) / delta
    A = decay * sp.exp(sp.I * theta)
    work.equal(sp.exp(sp.expand(delta * a)), A, "S4D's decay by zero-order hold, for any Delta")
    v = tokens("v")
    states = recurrence([A] * LENGTH, [sp.conjugate(k)] * LENGTH, v)
    kernel = [q * A**j * sp.conjugate(k) for j in range(LENGTH)]
    for n in range(LENGTH):
        work.equal(sum(kernel[n - m] * v[m] for m in range(n + 1)), sp.expand(q * states[n]))
    work.summary(f"{LENGTH} tokens written out, all symbols free")


# %% [markdown]
# ## GLA: a decay of its own for every key
#
# Now $\alpha_t$ depends on the input and on the key. The product of decays from $i$ to $t$ is a quotient $B_t/B_i$ of
# running products, so the quadratic form is a matrix product again: of $Q\odot B$ with $K/B$. In exact arithmetic. In
# floating point $B$ vanishes after some thousand tokens; sums of logarithms do not, if each is summed for itself.


# %%
@claim(
    "ATT-11",
    r"\sum_{i\le t}(q_tB_t)\frac{k_i}{B_i}v_i=q_tS_t,\quad B_t=\alpha_t\cdots\alpha_1,\quad S_t=\alpha_tS_{t-1}+k_tv_t",
    source="GLA, §4 (the recurrent and the parallel form)",
    method="symbolic",
    declared="proved",
)
def gated_linear_attention(work: Work) -> None:
    """GLA is a masked matrix product"""
    alpha = tokens("alpha", positive=True)
    q, k, v = tokens("q k v")
    states, B = recurrence(alpha, k, v), [sp.prod(alpha[: t + 1]) for t in range(LENGTH)]
    for t in range(LENGTH):
        work.equal(sum(q[t] * B[t] * k[i] / B[i] * v[i] for i in range(t + 1)), sp.expand(q[t] * states[t]))
    a_new, k_i, v_i, B_t, B_i = sp.symbols("alpha_{t+1} k_i v_i B_t B_i", positive=True)
    work.equal((a_new * B_t) / B_i * k_i * v_i, a_new * (B_t / B_i * k_i * v_i), "induction: what is kept of each term")
    work.show("the last weight of the first value", q[-1] * B[-1] * k[0] / B[0])
    work.summary(f"the induction step, and {LENGTH} tokens written out")


@claim(
    "ATT-12",
    r"\mathrm{fl}\Big((q_tB_t)\sum_{i\le t}\frac{k_iv_i}{B_i}\Big)\approx q_tS_t\ \text{ in single precision}",
    source="GLA, §4 (which warns of it)",
    method="numeric",
    declared="refuted",
    corrected_by="ATT-13",
)
def quotient_in_floating_point(work: Work) -> None:
    """“Divide the keys by the running product”"""
    length = 4096
    alpha = np.full(length, 0.5 ** (1 / 16), np.float32)  # σ(0)^{1/16}: GLA's gate when it has learnt nothing
    with np.errstate(all="ignore"):
        B = np.cumprod(alpha)
        divided = B * np.cumsum(1 / B)
    states = SCANS["sequential"].function(alpha, np.ones(length, np.float32))
    rate = np.float64(alpha[0])
    exact = (1 - rate ** np.arange(1, length + 1)) / (1 - rate)
    # the recurrence makes two errors a step, which fade as the state does: 2u of a state below 1/(1 − α), for ever
    bound = 2 * np.finfo(np.float32).eps / (1 - rate) ** 2
    with work.premise():
        work.within(abs(states - exact), bound, "the recurrence")
    first = int(np.argmin(np.isfinite(divided)))
    work.within(abs(divided - exact), bound, f"the quotient, no longer finite from token {first} on")


@claim(
    "ATT-13",
    r"D_{ti}=\exp\sum_{i<j\le t}\log\alpha_j\in[0,1],\quad|\hat D-D|\le\gamma_{L+1}/e+4u",
    source="GLA, §4 (its parallel form in log space); Higham 2002, §3.1",
    method="numeric",
    declared="verified",
)
def decays_in_log_space(work: Work) -> None:
    """Sums of logarithms, a sum for each segment, neither overflow nor lose a decay"""
    import mpmath

    rng, length = np.random.default_rng(0), 40
    # a sum S of one sign is wrong by γS at most, and S e^{−S} ≤ 1/e; the exponential adds 2u, and `exact` is rounded
    bound = gamma(length + 1) / np.e + 4 * U
    for size in (1e-3, 1.0, 30.0, 1e12):
        log_alpha = -rng.exponential(size=length)
        log_alpha[3] *= size
        D = decays(log_alpha)
        work.true(bool(np.all((D >= 0) & (D <= 1))), witness=f"a decay outside [0, 1] beside one of {size:g}")
        with mpmath.workdps(50):
            exact = [
                [float(mpmath.exp(mpmath.fsum(log_alpha[i + 1 : t + 1]))) if i <= t else 0.0 for i in range(length)]
                for t in range(length)
            ]
        work.within(abs(D - exact), bound, f"one decay {size:g} times the others")


# %% [markdown]
# And Mamba? Its S6 has a decay $\exp(\Delta_{t}A_{n})$ for channel and state: for one channel it is GLA with a single
# value and $\alpha_{t,n}=\exp(\Delta_tA_n)$, $k_{t,n}=\Delta_tB_{t,n}$. The converse fails: one $\Delta$ moves all
# $\log\alpha_n$ along one line, while GLA sets each on its own. In return GLA's head shares its decays between values.


# %%
@claim(
    "ATT-14",
    r"\forall\alpha_1,\alpha_2\in(0,1)^2\ \exists A,\Delta:\ \alpha_{t,n}=\exp(\Delta_tA_n)",
    source="GLA, §4; Mamba, §3.2",
    method="symbolic",
    declared="refuted",
    corrected_by="ATT-15",
)
def one_step_size_for_all(work: Work) -> None:
    """“Mamba's Δ can set every decay”"""
    d1, d2 = sp.symbols("Delta1:3", positive=True)
    A1, A2 = sp.symbols("A1:3", negative=True)
    with work.premise():
        work.equal(sp.Matrix([[d1 * A1, d1 * A2], [d2 * A1, d2 * A2]]).det(), 0, "S6's logarithms have rank 1")
    rates = sp.Matrix(2, 2, [-x for x in sp.symbols("r11 r12 r21 r22", positive=True)])
    work.equal(rates.det(), 0, "GLA's, of two tokens and two keys")


@claim(
    "ATT-15",
    r"\text{S6}=\text{GLA with a head for each channel},\ \alpha=\exp(\Delta A),\ k=\Delta B,\ v=u,\ q=C",
    source="GLA, §4; Mamba, §3.2 and Algorithm 2",
    method="property",
    declared="verified",
)
def s6_is_gla(work: Work) -> None:
    """Mamba's selective scan by GLA's masked product"""
    from hypothesis import strategies as st

    def check(case: tuple[int, int, int]) -> None:
        length, state, seed = case
        rng = np.random.default_rng(seed)
        u, B, C = (rng.standard_normal((length, n)) for n in (3, state, state))
        delta, A = rng.exponential(size=(length, 3)), -rng.exponential(size=(3, state))
        k, q = delta[:, :, None] * B[:, None], np.broadcast_to(C[:, None], (length, 3, state))
        log_a = delta[:, :, None] * A
        found = np.einsum("hti,ih->th", decayed_scores(q, k, log_a), u)
        channels, steps, writes, reads = (x.T[None] for x in (u, delta, B, C))
        expected = selective_scan(channels, steps, A, writes, reads, backend="reference")[0].T
        # a weight's exponent is wrong by γ of the sum it comes from (ATT-13); its products and sums are 2(t + n) more
        relative = np.expm1(4 * gamma(length + 2) * abs(log_a).sum(axis=0).max()) + 2 * gamma(2 * length + state + 8)
        size = np.einsum("hti,ih->th", decayed_scores(abs(q), abs(k), log_a), abs(u))
        work.within(abs(found - expected), relative * size, f"length {length}")

    work.forall(st.tuples(st.integers(1, 17), st.integers(1, 6), st.integers(0, 2**32 - 1)), check, 60)


# %% [markdown]
# ## RWKV-4: a ratio of two SSMs
#
# Article 2 says of RWKV's WKV: LTI recurrences, and a ratio of two SSMs. Both hold, with a distinction: the two sums
# are time-invariant in what is fed to them, $e^{k}v$ and $e^{k}$; their ratio is not linear, and exactly because it is
# a ratio it has a property worth having: it is a weighted mean.


# %%
w, u_bonus, shift_by = sp.symbols("w u c", real=True)


def wkv_terms(k: list[Any], t: int) -> list[Any]:
    """The exponents with which tokens 0 … t enter wkv_t (t from 0)."""
    return [-(t - 1 - i) * w + k[i] for i in range(t)] + [u_bonus + k[t]]


@claim(
    "ATT-16",
    r"\mathrm{wkv}_t=\frac{a_{t-1}+e^{u+k_t}v_t}{b_{t-1}+e^{u+k_t}},\quad "
    r"a_t=e^{-w}a_{t-1}+e^{k_t}v_t,\quad b_t=e^{-w}b_{t-1}+e^{k_t}",
    source="RWKV-4, on the WKV operator; Article 2, on architectures that are SSMs; Mamba, §2",
    method="symbolic",
    declared="proved",
)
def wkv_is_a_ratio(work: Work) -> None:
    """WKV is the ratio of two SSMs"""
    k, v = tokens("k v", real=True)
    fade, keys = [sp.exp(-w)] * LENGTH, [sp.exp(x) for x in k]
    a, b = recurrence(fade, keys, v), recurrence(fade, keys, [1] * LENGTH)
    for t in range(LENGTH):
        weights = [sp.exp(x) for x in wkv_terms(k, t)]
        for total, before, x in ((sum(e * y for e, y in zip(weights, v, strict=False)), a, v[t]), (sum(weights), b, 1)):
            work.equal(total, sp.expand((before[t - 1] if t else 0) + sp.exp(u_bonus + k[t]) * x))
    t, i, k_i = sp.symbols("t i k_i", real=True)
    term = sp.exp(-(t - 1 - i) * w + k_i)
    work.equal(term.subs(t, t + 1), sp.exp(-w) * term, "induction: from one output to the next, a term fades by")
    work.equal(term.subs(t, i + 1), sp.exp(k_i), "starting, one token later, from")
    work.summary(f"the induction step, and {LENGTH} tokens written out")


@claim(
    "ATT-17",
    r"a_{t-1}+e^{u+k_t}v_t=\sum_{i\le t}K_{t-i}\,e^{k_i}v_i,\quad K_0=e^u,\ K_j=1\cdot(e^{-w})^{j-1}\cdot1",
    source="Mamba, §2 (“LTI recurrences”); RWKV-4, on the WKV operator; Article 2, eq. 3",
    method="symbolic",
    declared="proved",
)
def wkv_sums_are_convolutions(work: Work) -> None:
    """Each of the two is time-invariant: D = e^u, and an S4 whose state is a number"""
    g = tokens("g")
    states = recurrence([sp.exp(-w)] * LENGTH, [1] * LENGTH, g)
    kernel = [sp.exp(u_bonus)] + [sp.exp(-w) ** (j - 1) for j in range(1, LENGTH)]
    for t in range(LENGTH):
        convolution = sum(kernel[t - i] * g[i] for i in range(t + 1))
        work.equal(convolution, sp.expand((states[t - 1] if t else 0) + sp.exp(u_bonus) * g[t]))
    work.show("the kernel", sp.Matrix([kernel]))
    work.summary(f"{LENGTH} tokens written out, all symbols free")


@claim(
    "ATT-18",
    r"\mathrm{wkv}_t=\sum_ip_iv_i,\ p_i>0,\ \sum_ip_i=1,\quad \mathrm{wkv}(k+c)=\mathrm{wkv}(k)",
    source="RWKV-4, on the WKV operator",
    method="symbolic",
    declared="proved",
)
def wkv_is_a_mean(work: Work) -> None:
    """The ratio is a weighted mean, and blind to a shift of the keys"""
    k = tokens("k", real=True)
    for t in range(4):
        weights = [sp.exp(x) for x in wkv_terms(k, t)]
        shifted = [sp.exp(x) for x in wkv_terms([x + shift_by for x in k], t)]
        shares = [x / sum(weights) for x in weights]
        work.equal(sum(shares), 1)
        work.true(all(share.is_positive for share in shares))
        for x, y in zip(weights, shifted, strict=True):
            work.equal(sp.powsimp(x * sp.exp(shift_by)), sp.powsimp(y))
    work.show("a shift multiplies numerator and denominator by", sp.exp(shift_by))
    work.summary("1 to 4 tokens written out, all symbols free")


# %% [markdown]
# The keys are exponents, and nothing bounds them. So the code keeps $a=e^pa'$ and $b=e^pb'$ with one exponent $p$. Any
# $p$ is right; the largest exponent so far makes every exponential one of a number that is not positive. It is
# the online softmax of attention kernels, for a softmax that fades.


# %%
@claim(
    "ATT-19",
    r"e^{p'}\big(e^{p-w-p'}a'+e^{k-p'}v\big)=e^{-w}(e^pa')+e^kv\ \ \forall p';\quad p'=\max(p-w,k)\ge p-w,\,k",
    source="RWKV-4, on the time-mixing block as an RNN cell",
    method="symbolic",
    declared="proved",
)
def stable_form(work: Work) -> None:
    """Any shared exponent will do; the largest is safe"""
    p, p_new, k, v, a = sp.symbols("p p' k v a'", real=True)
    new = sp.exp(p - w - p_new) * a + sp.exp(k - p_new) * v
    work.equal(sp.expand(sp.exp(p_new) * new), sp.exp(-w) * (sp.exp(p) * a) + sp.exp(k) * v, "what is written")
    q = sp.Symbol("q", real=True)
    now = [sp.exp(p - q) * x + sp.exp(u_bonus + k - q) * y for x, y in ((a, v), (sp.Symbol("b'"), 1))]
    plain = [sp.exp(p) * x + sp.exp(u_bonus + k) * y for x, y in ((a, v), (sp.Symbol("b'"), 1))]
    work.equal(now[0] * plain[1], now[1] * plain[0], "what is read, crosswise")
    gap = sp.Symbol("d", nonnegative=True)
    largest = p + gap
    work.equal(p - largest, -gap, "if the largest is d ≥ 0 larger, the exponents are 0 and")
    work.true((-gap).is_nonpositive)


KEYS = 800.0


def wkv_case(length: int, size: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """w, u, k and v of two channels, with keys of this size."""
    rng = np.random.default_rng(seed)
    k, v = size * rng.uniform(-1, 1, (length, 2)), rng.standard_normal((length, 2))
    k[length // 2] = size
    return rng.exponential(size=2), rng.standard_normal(2), k, v


def wkv_exact(w: np.ndarray, u: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """wkv to 50 digits."""
    import mpmath

    out = np.empty(v.shape)
    with mpmath.workdps(50):
        for t, d in np.ndindex(*v.shape):
            exponents = [mpmath.mpf(k[i, d]) - (t - 1 - i) * mpmath.mpf(w[d]) for i in range(t)]
            weights = [mpmath.exp(x) for x in [*exponents, mpmath.mpf(u[d]) + mpmath.mpf(k[t, d])]]
            out[t, d] = mpmath.fsum(x * y for x, y in zip(weights, v[: t + 1, d], strict=True)) / mpmath.fsum(weights)
    return out


def wkv_bound(w: np.ndarray, u: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """2η max|v|: the error of a mean whose weights are wrong by η.

    The numbers in an exponent are below M. A step adds a fade to an exponent and to a fade, and subtracts the new
    exponent: errors of uM, uM and 2uM. Its exponential (2u), a product and a sum add 4u to the weight's.
    """
    M = abs(k).max(axis=0) + abs(u) + len(k) * w
    return 2 * np.expm1(4 * (len(k) + 1) * U * (M + 1)) * abs(v).max(axis=0)


@claim(
    "ATT-20",
    r"\mathrm{fl}(a_{t-1}+e^{u+k_t}v_t)\,/\,\mathrm{fl}(b_{t-1}+e^{u+k_t})\approx\mathrm{wkv}_t\ "
    r"\text{ for } |k|\le800",
    source="RWKV-4, on the time-mixing block as an RNN cell (which avoids it)",
    method="numeric",
    declared="refuted",
    corrected_by="ATT-21",
)
def naive_wkv(work: Work) -> None:
    """“In double precision the plain recurrence will do”"""
    small = wkv_case(12, 1.0)
    with work.premise():
        work.within(abs(_wkv.wkv_naive(*small) - wkv_exact(*small)), wkv_bound(*small), "keys of size 1")
    large = wkv_case(12, KEYS)
    with np.errstate(all="ignore"):
        found = _wkv.wkv_naive(*large)
    work.within(abs(found - wkv_exact(*large)), wkv_bound(*large), f"keys of size {KEYS:g}")


@claim(
    "ATT-21",
    r"|\widehat{\mathrm{wkv}}_t-\mathrm{wkv}_t|\le2\eta\max|v|,\quad \eta=e^{4(L+1)u(M+1)}-1,\ M=\max|k|+|u|+Lw",
    source="RWKV-4, on the time-mixing block as an RNN cell; Higham 2002, §3.1",
    method="numeric",
    declared="verified",
)
def stable_wkv(work: Work) -> None:
    """The stable form, for keys of any size and by every scan"""
    for seed, size in enumerate((0.1, 1.0, 30.0, KEYS, 1e6)):
        case = wkv_case(12, size, seed)
        exact, bound = wkv_exact(*case), wkv_bound(*case)
        work.within(abs(_wkv.wkv_attention(*case) - exact), bound, f"a softmax, keys of size {size:g}")
        for scan in SCANS:
            work.within(abs(_wkv.wkv_scan(*case, scan) - exact), bound, f"{scan}, keys of size {size:g}")


@claim(
    "ATT-22",
    r"\varphi(x_2\bullet x_1)=\varphi(x_2)\circ\varphi(x_1),\quad \varphi(\ell,p,a)=(e^\ell,e^pa),\quad "
    r"x_2\bullet x_1=(\ell_2+\ell_1,\ p,\ e^{\ell_2+p_1-p}a_1+e^{p_2-p}a_2)\ \ \forall p",
    source="Blelloch 1990; RWKV-4, on the time-mixing block as an RNN cell",
    method="symbolic",
    declared="proved",
)
def stable_scan(work: Work) -> None:
    """The stable form is a scan: it stands for affine maps"""
    l1, l2, p1, p2, p, a1, a2 = sp.symbols("l1 l2 p1 p2 p a1 a2", real=True)
    product = (l2 + l1, p, sp.exp(l2 + p1 - p) * a1 + sp.exp(p2 - p) * a2)
    image = affine_combine((sp.exp(l2), sp.exp(p2) * a2), (sp.exp(l1), sp.exp(p1) * a1))
    work.equal(sp.exp(product[0]), image[0], "the fades")
    work.equal(sp.expand(sp.exp(p) * product[2]), image[1], "the sums, whatever p is")


# %% [markdown]
# ## RWKV-6 and RWKV-7
#
# RWKV-6 is GLA with a different order of things: a token reads *before* it writes, and sees itself through a bonus $u$.
# So it is GLA on keys, values and decays that are one token late, and a skip connection.


# %%
@claim(
    "ATT-23",
    r"r_t(S_{t-1}+uk_tv_t)=r_tG_t+r_tuk_tv_t,\quad G_t=w_{t-1}G_{t-1}+k_{t-1}v_{t-1}",
    source="RWKV-6, on Finch's time mixing",
    method="symbolic",
    declared="proved",
)
def finch(work: Work) -> None:
    """RWKV-6 is GLA, one token late, with a bonus"""
    fade, r, k, v = tokens("w r k v")
    S = [sp.Integer(0), *recurrence(fade, k, v)]
    late = recurrence([1, *fade[:-1]], [0, *k[:-1]], [0, *v[:-1]])
    for t in range(LENGTH):
        decayed = sum(r[t] * sp.prod(fade[i + 1 : t]) * k[i] * v[i] for i in range(t))
        work.equal(r[t] * (S[t] + u_bonus * k[t] * v[t]), sp.expand(r[t] * late[t] + r[t] * u_bonus * k[t] * v[t]))
        work.equal(sp.expand(r[t] * late[t]), decayed)
    work.show("the last sum over the past", late[-1].factor())
    work.summary(f"{LENGTH} tokens written out, all symbols free")


# %% [markdown]
# RWKV-7 also *removes*: it reads what the state holds for a key $\hat\kappa$, and takes a share $a$ of it away before
# it writes. Its transition is a diagonal matrix less one of rank one. No change of basis makes all of these diagonal:
# two such transitions do not commute, and matrices that are diagonal in one basis do.


# %%
def transition(index: int) -> sp.Matrix:
    """diag(w) − κ̂ᵀ(a ⊙ κ̂) of one token, for two keys."""
    fade, a, kappa = (sp.Matrix([sp.symbols(f"{name}{index}(1:3)")]) for name in ("w", "a", "kappa"))
    return sp.diag(*fade) - kappa.T * a.multiply_elementwise(kappa)


@claim(
    "ATT-24",
    r"M_1M_2=M_2M_1,\quad M_t=\mathrm{diag}(w_t)-\hat\kappa_t^\top(a_t\odot\hat\kappa_t)",
    source="RWKV-7, on the time mixer (against a diagonal scan in a fixed basis, which would have it so)",
    method="symbolic",
    declared="refuted",
    corrected_by="ATT-25",
)
def transitions_commute(work: Work) -> None:
    """“RWKV-7 is a diagonal scan in another basis”"""
    P, d = sp.Matrix(2, 2, sp.symbols("p q r s")), [sp.diag(*sp.symbols(f"d{i}(1:3)")) for i in (1, 2)]
    one, other = (P * x * P.adjugate() for x in d)
    with work.premise():
        work.show("matrices that one basis makes diagonal, such as this one, commute", one)
        work.equal((one * other - other * one).expand(), sp.zeros(2))
    work.equal((transition(1) * transition(2)).expand(), (transition(2) * transition(1)).expand())


@claim(
    "ATT-25",
    r"w=a=1,\ \tilde k=\hat\kappa,\ \|\hat\kappa\|=1:\quad S_t\hat\kappa=v_t,\quad "
    r"x\cdot\hat\kappa=0\Rightarrow S_tx=S_{t-1}x;\qquad "
    r"\text{always } S_t=S_{t-1}M_t+v_t^\top\tilde k_t,\ \text{a scan of matrices}",
    source="RWKV-7, on the generalised delta rule",
    method="symbolic",
    declared="proved",
)
def goose_replaces(work: Work) -> None:
    """A matrix scan, in which a write can replace what was stored"""
    angle, share = sp.symbols("phi a", real=True)
    kappa = sp.Matrix([[sp.cos(angle), sp.sin(angle)]])
    across = sp.Matrix([[-sp.sin(angle), sp.cos(angle)]])
    S, v = sp.Matrix(2, 2, sp.symbols("s11 s12 s21 s22")), sp.Matrix([sp.symbols("v1 v2")])
    after = S * (sp.eye(2) - kappa.T * kappa) + v.T * kappa
    work.equal(after * kappa.T, v.T, "read at the key: the new value and nothing else")
    work.equal(after * across.T, S * across.T, "read across it: as before")
    erase = sp.eye(2) - share * kappa.T * kappa
    work.equal(erase * kappa.T, (1 - share) * kappa.T, "for any a, what was stored at the key is kept to")
    work.equal(erase * across.T, across.T)
    M1, M2, b1, b2, S0 = sp.symbols("M1 M2 b1 b2 S0", commutative=False)
    work.equal(((S0 * M1 + b1) * M2 + b2).expand(), S0 * (M1 * M2) + (b1 * M2 + b2), "two tokens are one, in any ring")
    work.summary("two keys, two values, every unit vector κ̂, all else free; the scan in any ring")


@claim(
    "ATT-26",
    r"(I+N)u=Pv,\quad o=P'v-N'u,\qquad u_t=S_{t-1}\hat\kappa_t,\quad "
    r"\{P,N\}_{ti}=\hat\kappa_t\cdot w_{t-1}\cdots w_{i+1}\{\tilde k_i,\,a_i\hat\kappa_i\}\ (i<t),\quad "
    r"\{P',N'\}_{ti}=r_t\cdot w_t\cdots w_{i+1}\{\tilde k_i,\,a_i\hat\kappa_i\}\ (i\le t)",
    source="RWKV-7, on the time mixer",
    method="symbolic",
    declared="proved",
)
def goose_in_parallel(work: Work) -> None:
    """What is removed solves a triangular system, and the rest is GLA"""
    length, keys = 3, range(2)
    fade, r, k, a, kappa = (sp.Matrix(length, 2, tokens(name, 2 * length)) for name in ("w", "r", "k", "a", "kappa"))
    removed = a.multiply_elementwise(kappa)
    v = sp.Matrix(tokens("v", length))
    S, outputs = sp.zeros(1, 2), []
    for t in range(length):
        M = sp.diag(*fade[t, :]) - kappa[t, :].T * removed[t, :]
        S = S * M + v[t] * k[t, :]
        outputs.append((S * r[t, :].T)[0])

    def scores(q: sp.Matrix, written: sp.Matrix, late: int) -> sp.Matrix:
        """Σ_n q_tn w_{t−late,n} ⋯ w_{i+1,n} written_in for i ≤ t − late."""

        def entry(t: int, i: int) -> Any:
            between = range(i + 1, t + 1 - late)
            return sum(q[t, n] * sp.prod(fade[j, n] for j in between) * written[i, n] for n in keys)

        return sp.Matrix(length, length, lambda t, i: entry(t, i) if i <= t - late else 0)

    N = scores(kappa, removed, 1)
    work.show("the triangular matrix", sp.eye(length) + N)
    u = (sp.eye(length) + N).lower_triangular_solve(scores(kappa, k, 1) * v)
    parallel = scores(r, k, 0) * v - scores(r, removed, 0) * u
    work.equal(sp.Matrix(outputs).expand(), parallel.expand())
    work.summary(f"{length} tokens, two keys, one value, every entry a symbol")


# %% [markdown]
# ## HGRN: Theorem 1 once more
#
# HGRN keeps one number for each channel, fades it by $\lambda$, and writes with what is left, $1-\lambda$. That is
# Mamba's Theorem 1: zero-order hold of $A=-1$, $B=1$ makes $\bar A=e^{-\Delta}$ and $\bar B=1-e^{-\Delta}$, whose sum
# is 1. The lower bound $\gamma$ of a layer is a longest step. (HGRN also turns by a constant $\theta$, as RetNet does.)


# %%
@claim(
    "ATT-27",
    r"\Delta=\mathrm{softplus}(-z):\quad e^{-\Delta}=\sigma(z)=\lambda,\quad "
    r"\frac{e^{\Delta A}-1}{A}\Big|_{A=-1}=1-\lambda",
    source="HGRN, §3; Mamba, Theorem 1",
    method="symbolic",
    declared="proved",
)
def hgrn_is_theorem_one(work: Work) -> None:
    """HGRN's tied gates are a zero-order hold"""
    z = sp.Symbol("z", real=True)
    A = sp.Symbol("A", negative=True)
    delta = sp.log(1 + sp.exp(-z))
    hold = (sp.exp(delta * A) - 1) / A
    sigma = 1 / (1 + sp.exp(-z))
    work.equal(sp.exp(-delta), sigma, "the forget gate")
    work.equal(hold.subs(A, -1), 1 - sigma, "the input gate")
    lam = sp.Symbol("lambda", positive=True)
    step = -sp.log(lam)
    work.equal(sp.exp(-step), lam, "and any gate λ is a step Δ")
    work.equal((1 - sp.exp(-step)), 1 - lam)


@claim(
    "ATT-28",
    r"\lambda=\gamma+(1-\gamma)\mu>\gamma,\ \text{ so }\ \Delta=-\ln\lambda<-\ln\gamma;\quad "
    r"|h_{t-1}|,|c_t|\le m\Rightarrow|h_t|\le m",
    source="HGRN, §3 (the lower bound)",
    method="symbolic",
    declared="proved",
)
def longest_step(work: Work) -> None:
    """A lower bound of the gate is a longest step, and nothing grows"""
    z = sp.Symbol("z", real=True)
    g, m = sp.symbols("g m", positive=True)
    bound, mu = 1 / (1 + g), 1 / (1 + sp.exp(-z))  # every number in (0, 1) is 1/(1 + g)
    lam = bound + (1 - bound) * mu
    work.true(sp.factor(sp.simplify(lam - bound)).is_positive, "the gate lies above its bound")
    work.true(sp.factor(sp.simplify(1 - lam)).is_positive, "and below 1")
    size, written = sp.symbols("x y", nonnegative=True)  # m − |h| and m − |c|
    lam_ = 1 / (1 + g)
    slack = m - (lam_ * (m - size) + (1 - lam_) * (m - written))
    work.equal(slack, lam_ * size + (1 - lam_) * written, "what the triangle inequality leaves of m")
    work.true(sp.simplify(slack).is_nonnegative)


# %%
if __name__ == "__main__":
    run_as_script(globals())
