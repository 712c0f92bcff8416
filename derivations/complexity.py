# %% [markdown]
# # What a token costs
#
# Article 1, §4 weighs Mamba against the Transformer: attention must store $L \times L$ interactions and a growing
# cache; Mamba keeps a state of $D \times N$ numbers, so memory and computation of inference stay constant, for a
# thousand tokens as for a hundred thousand. Which of this holds, and must attention's memory grow?
#
# Each model of the atlas carries a card with formulas for the numbers that a step keeps and the operations it takes,
# and tests count both while a step runs. So here they may be summed, compared and solved.

# %%
from __future__ import annotations

import tracemalloc
from inspect import signature
from math import comb, factorial
from typing import Any

import numpy as np
import sympy as sp

from ssm_edu.atlas import AffineScan, attention, mamba, models, s6, transformer
from ssm_edu.ledger import Work, claim, run_as_script
from ssm_edu.scan import SCANS, Elements, combine, prefixes

U = 2.0**-53

D, H, L, N = sp.symbols("D H L N", positive=True, integer=True)
t = sp.Symbol("t", nonnegative=True, integer=True)
taps, rank = sp.symbols("k R", positive=True)

HEADS = {"width": D, "heads": H, "size": D / H}
LAYER = {"width": D, "heads": H, "pair": D / H / 2, "hidden": D * sp.Rational(8, 3)}
BLOCK = {"width": D, "expand": 2, "taps": taps, "state": N, "rank": rank}

# %% [markdown]
# ## Parameters
#
# Article 2: a Mamba block has $3ED^2$ parameters in its projections, $2ED^2$ on the way in and $ED^2$ on the way out.
# With $E = 2$, two blocks match the $12D^2$ of attention and MLP.


# %%
def numbers_of(card: Any, length: Any = 0, **sizes: Any) -> Any:
    """The parameters of a model: what decoding holds, without the state."""
    return sp.expand(card.memory(length=length, **sizes) - card.state_size(length=length, **sizes))


@claim(
    "COST-1",
    r"\text{In } D^2: \text{ a Mamba block } 3E, \text{ so } 12 \text{ for two with } E = 2;\quad"
    r" \text{attention } 4, \text{ SwiGLU of } \tfrac83 D\ 8, \text{ together } 12",
    source="Article 2; Mamba, §3.4",
    method="symbolic",
    declared="proved",
)
def two_blocks_match_a_layer(work: Work) -> None:
    """Two Mamba blocks have the parameters of one Transformer layer"""
    E = sp.Symbol("E", positive=True)
    block = numbers_of(mamba.CARD, **{**BLOCK, "expand": E})
    work.show("a Mamba block", sp.collect(block, D))
    work.equal(sp.Poly(block, D).coeff_monomial(D**2), 3 * E, "its matrices")
    work.equal(
        sp.Poly(block.subs({E: 2, rank: D / 16}), D).coeff_monomial(D**2), 6 + sp.Rational(1, 4), "Δ of rank D/16"
    )
    work.equal(numbers_of(attention.CARD, **HEADS), 4 * D**2, "attention")
    layer = numbers_of(transformer.CARD, **LAYER)
    work.equal(sp.Poly(layer, D).coeff_monomial(D**2), 12, "a Transformer++ layer")
    work.equal(2 * sp.Poly(block.subs(E, 2), D).coeff_monomial(D**2), 12, "two Mamba blocks, low-rank Δ aside")


# %% [markdown]
# ## Training
#
# Causal attention does, for all tokens together, what decoding does one by one. So the work on a text is the sum of
# its steps, and where the quadratic part overtakes the matrices is an equation.


# %%
@claim(
    "COST-2",
    r"\sum_{t<L} \text{flops}(t) = L(8D^2 + D) + 2(D + H)L(L + 1);\quad \text{its second part is the larger from } L/D"
    r" \to 4 \text{ on; for the whole layer, from } L/D \to 12",
    source="Vaswani 2017, §4; Article 1, §4",
    method="symbolic",
    declared="proved",
)
def quadratic_from_four_widths_on(work: Work) -> None:
    """Attention is quadratic in the text, and notices it from some four widths on"""
    for name, card, sizes, ratio in (
        ("attention", attention.CARD, HEADS, 4),
        ("the layer", transformer.CARD, LAYER, 12),
    ):
        step = sp.expand(card.flops(length=t, **sizes))
        grows = sp.expand(step.coeff(t, 1) * (t + 1))
        total = sp.summation(step, (t, 0, L - 1))
        pairs = sp.summation(grows, (t, 0, L - 1))
        work.show(f"{name}: a step after t tokens", step)
        work.equal(pairs, 2 * (D + H) * L * (L + 1), f"{name}: all pairs of tokens, of L tokens")
        linear = sp.factor(sp.expand(total - pairs) / L)
        work.true(not linear.has(L), f"{name}: the rest is L times what does not grow")
        if card is attention.CARD:
            work.equal(linear, 8 * D**2 + D, "the projections")
        [even] = sp.solve(2 * (D + H) * (L + 1) - linear, L)
        work.equal(sp.limit(even / D, D, sp.oo), ratio, f"{name}: L/D where both parts cost the same, for a large D")


# %% [markdown]
# ## Decoding
#
# Now one token after $t$ others. Run every model of the atlas, and count what it keeps.


# %%
def sizes_of(model: Any) -> dict[str, Any]:
    """The sizes that a model's `init` takes, at their defaults."""
    return {name: p.default for name, p in signature(model.init).parameters.items() if name != "rng"}


def numbers_in(state: Any) -> int:
    """Real numbers in an array, or in a structure of arrays."""
    if isinstance(state, np.ndarray):
        return state.size * (2 if np.iscomplexobj(state) else 1)
    parts = state if isinstance(state, tuple) else vars(state).values()
    return sum(numbers_in(part) for part in parts)


GROW = {"attention", "transformer", "hyena"}


@claim(
    "COST-3",
    r"\text{What decoding keeps is of one size after any number of tokens, } D \times N \text{ for S6; except for}"
    r" \text{ softmax attention and Hyena}",
    source="Article 1, §4",
    method="measured",
    declared="verified",
)
def states_are_of_one_size(work: Work) -> None:
    """A recurrence keeps as much after many tokens as after one"""
    for name, model in models().items():
        rng = np.random.default_rng(0)
        params, sizes = model.init(rng), sizes_of(model)
        state, kept = model.first_state(params), []
        for x_t in rng.standard_normal((12, sizes["width"])):
            state = model.step(params, state, x_t)[1]
            kept.append(numbers_in(state))
        expected = [model.CARD.state_size(length=length, **sizes) for length in range(1, 13)]
        work.true(kept == expected, witness=f"{name} keeps {kept}, its card says {expected}")
        work.true((len(set(kept)) > 1) == (name in GROW), witness=f"{name} keeps {kept} numbers")
    width, state = 5, 7
    found = numbers_in(s6.first_state(s6.init(np.random.default_rng(0), width=width, state=state)))
    work.true(found == width * state, witness=f"S6 keeps {found} numbers")
    work.summary(f"{len(models())} models, 12 tokens each; all but {len(GROW)} keep one size")


@claim(
    "COST-4",
    r"\text{A layer's cache after } L \text{ tokens, } 2DL, \text{ is as large as the states of two Mamba blocks at }"
    r" L = 2(N + k),\ \text{whatever } D;\ \text{40 tokens for } N = 16,\ k = 4",
    source="Article 1, §4; Mamba, §3.4",
    method="symbolic",
    declared="proved",
)
def cache_overtakes_the_state(work: Work) -> None:
    """A Transformer's cache is the larger from some forty tokens on"""
    cache = transformer.CARD.state_size(length=L, **LAYER)
    work.equal(cache, 2 * D * L, "the cache of one layer")
    states = 2 * mamba.CARD.state_size(length=L, **BLOCK)
    work.equal(states, 4 * D * (N + taps), "two blocks, E = 2: N states, and k inputs of the short convolution")
    [even] = sp.solve(cache - states, L)
    work.equal(even, 2 * (N + taps), "they are even at")
    work.equal(even.subs({N: 16, taps: 4}), 40, "with the paper's N and k")


@claim(
    "COST-5",
    r"\frac{\partial}{\partial t}\,\text{flops of a step after } t \text{ tokens} = 0 \text{ for every model of the"
    r" atlas, except } 4(D + H) \text{ for attention, and for Hyena; so to decode } L \text{ tokens costs } \Theta(L),"
    r"\ \text{or } \Theta(L^2)",
    source="Article 1, §4",
    method="symbolic",
    declared="proved",
)
def steps_of_one_cost(work: Work) -> None:
    """A step of a recurrence costs the same after many tokens; the text still costs its length"""
    for name, model in models().items():
        step = sp.expand(model.CARD.flops(length=t, **{size: sp.Symbol(size) for size in sizes_of(model)}))
        slope = sp.diff(step, t)
        total = sp.Poly(sp.summation(step, (t, 0, L - 1)), L)
        work.true((slope == 0) == (name not in GROW), f"{name}: {'grows by ' + str(slope) if slope else 'constant'}")
        work.true(total.degree() == (2 if name in GROW else 1))
    for card, sizes in ((attention.CARD, HEADS), (transformer.CARD, LAYER)):
        work.equal(sp.diff(sp.expand(card.flops(length=t, **sizes)), t), 4 * (D + H), card.name)
    work.summary(f"{len(models())} cards, all sizes free")


# %% [markdown]
# ## The $L \times L$ matrix
#
# Must attention store it? Take one query, with scores $s_i$ against keys whose values are $v_i$. Carry three things:
# the largest score so far $m$, the sum of weights $Z = \sum e^{s_i - m}$, and $o = \sum e^{s_i - m} v_i$. Two such
# triples, of two ranges of keys, make a third,
#
# $$m = \max(m_1, m_2),\quad Z = e^{m_1 - m}Z_1 + e^{m_2 - m}Z_2,\quad o = e^{m_1 - m}o_1 + e^{m_2 - m}o_2,$$
#
# associatively. So for *one query* softmax attention is a scan over the keys, and no score need be kept.


# %%
def merge(second: Elements, first: Elements) -> Elements:
    """The triple of two ranges of keys: m and Z (..., length), o (size, ..., length)."""
    m = np.maximum(first[0], second[0])
    w1, w2 = np.exp(first[0] - m), np.exp(second[0] - m)
    return m, w1 * first[1] + w2 * second[1], w1 * first[2] + w2 * second[2]


def streamed(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Causal attention of one head, (length, size) each: key after key for all queries, three numbers or so a query."""
    length = len(q)
    m, Z, o = np.full(length, -np.inf), np.zeros(length), np.zeros((v.shape[1], length))
    for s in range(length):
        score = q[s:] @ k[s] / np.sqrt(q.shape[1])
        new = score, np.ones(length - s), np.broadcast_to(v[s][:, None], (v.shape[1], length - s))
        m[s:], Z[s:], o[:, s:] = merge(new, (m[s:], Z[s:], o[:, s:]))
    return (o / Z).T


def peak_numbers(function: Any, *arguments: Any) -> float:
    """float64 numbers that a call holds at its worst, beyond its arguments."""
    function(*arguments)  # a first call may import or compile
    tracemalloc.start()
    try:
        function(*arguments)
        return tracemalloc.get_traced_memory()[1] / 8
    finally:
        tracemalloc.stop()


@claim(
    "COST-6",
    r"\text{Attention over } L = 512 \text{ tokens holds at least } L^2 \text{ numbers at once}",
    source="Article 1, §4",
    method="measured",
    declared="refuted",
    corrected_by="COST-7",
)
def attention_stores_a_square(work: Work) -> None:
    """“Attention must store an L × L matrix”"""
    length, size = 512, 4
    heads = np.random.default_rng(0).standard_normal((3, length, size))
    with work.premise():
        square = peak_numbers(attention.attend, *heads[:, None])
        work.true(square >= length**2, witness=f"even the masked form holds {square:.0f}")
    held = peak_numbers(streamed, *heads)
    work.true(held >= length**2, witness=f"{held / length:.0f}·L numbers do")


@claim(
    "COST-7",
    r"\text{For one query softmax attention is a scan of } (m, Z, o) \text{ over the keys, by any bracketing; so exact"
    r" attention needs } O(L) \text{ memory}",
    source="Rabe & Staats 2021; Vaswani 2017, eq. 1",
    method="property",
    declared="verified",
)
def attention_in_linear_memory(work: Work) -> None:
    """Exact attention in linear memory: for one query it is a scan"""
    from hypothesis import strategies as st

    def check(drawn: tuple[int, int, int, float]) -> None:
        seed, length, size, scale = drawn
        q, k, v = np.random.default_rng(seed).standard_normal((3, length, size))
        q = scale * q
        expected = attention.attend(q[None], k[None], v[None])[0]
        scores = k @ q[-1] / np.sqrt(size)
        # y is a mean of v. A score is off by (size + 3)u of its terms' sum, its weight by twice that and some four
        # roundings a combine, of which there are length.
        off = (size + 3) * (np.abs(q) @ np.abs(k).T).max() + 2 * np.abs(scores).max() + 4 * length + 8
        bound = 4 * U * off * np.abs(v).max()
        elements = (scores, np.ones(length), v.T)
        for scan in SCANS.values():
            _, Z, o = prefixes(scan.rounds(length), elements, merge)
            work.within(np.abs(o[:, -1] / Z[-1] - expected[-1]), bound, f"the last query, {scan.name}")
        work.within(np.abs(streamed(q, k, v) - expected), bound, "all queries")

    sizes = (st.integers(1, 17), st.integers(1, 4), st.sampled_from([0.0, 1.0, 30.0, 1e4]))
    work.forall(st.tuples(st.integers(0, 2**32 - 1), *sizes), check, examples=40)
    size, lengths = 4, (256, 512)
    held = [peak_numbers(streamed, *np.ones((3, length, size))) for length in lengths]
    # twice o, m, Z and their like, of size + 2 numbers a query, in the old triple, in the new one and on the way
    work.within(held, [8 * (size + 2) * length for length in lengths], "numbers held")


# %% [markdown]
# ## Must the cache grow?
#
# That scan runs over the keys *for one query*; the next token brings another query, and its scan starts from the first
# key again. Could some cleverer state of fixed size serve all queries to come? A matrix decides. Row $i$: a past.
# Column $j$: what may come after it. Entry: the output then.
#
# For an affine scan with $n$ numbers of state, the output is affine in the state before, whatever comes after.


# %%
@claim(
    "COST-8",
    r"y = c\,h_t + d,\ h_t = a_t h_{t-1} + b_t:\quad \text{the matrix (output after past } i \text{ and future } j)"
    r" \text{ has rank at most } n + 1",
    source="Mamba-2, semiseparable matrices, derived here",
    method="property",
    declared="verified",
)
def rank_of_a_scan(work: Work) -> None:
    """An affine scan with n states answers with a matrix of rank n + 1 at most"""
    from hypothesis import strategies as st

    h, c, d = sp.symbols("h c d")
    a, b = sp.symbols("a_1:4"), sp.symbols("b_1:4")
    product: Any = (1, 0)
    for step in zip(a, b, strict=True):
        product = combine(step, product)
    answer = sp.expand(c * (product[0] * h + product[1]) + d)
    work.equal(sp.diff(answer, h, 2), 0, "after three more tokens y is still affine in h, as after any number (SCAN-1)")
    for n in (1, 2):
        states, reads = (
            sp.Matrix(n + 2, n, lambda i, j: sp.Symbol(f"h_{i}{j}")),
            sp.Matrix(n, n + 2, lambda i, j: sp.Symbol(f"c_{i}{j}")),
        )
        offsets = sp.Matrix(1, n + 2, lambda i, j: sp.Symbol(f"d_{j}"))
        answers = states * reads + sp.ones(n + 2, 1) * offsets
        both = states.row_join(sp.ones(n + 2, 1)) * reads.col_join(offsets)
        work.equal(answers, both, f"n = {n}: the matrix factors through n + 1 dimensions")
        work.equal(answers.det(method="berkowitz").expand(), 0, "so n + 2 pasts and futures have determinant 0")

    def check(drawn: tuple[int, int, int]) -> None:
        seed, n, after = drawn
        rng = np.random.default_rng(seed)
        params = s6.init(rng, width=1, state=n)
        pasts, futures = rng.standard_normal((n + 2, 6, 1)), rng.standard_normal((n + 2, after, 1))
        answers = np.array([[s6.parallel(params, [*p, *f])[-1, 0] for f in futures] for p in pasts])
        # By Weyl a singular value moves by no more than the errors' norm. An entry is a sum of n terms that went
        # through 6 + after steps, of some ten roundings each; |h| ≤ Σ Δ|B||x|.
        tokens = np.concatenate([*pasts, *futures])
        delta, B, C = s6.select(params, tokens)
        steps, largest = 6 + after, np.abs(tokens).max()
        size = steps * delta.max() * np.abs(B).max() * largest * np.abs(C).max() * n + largest
        bound = (n + 2) * (10 * steps + 2 * n) * U * size
        work.within(np.linalg.svd(answers)[1][-1], bound, f"S6 with {n} states")

    work.forall(st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 4)), check, examples=30)
    work.summary("n = 1 and 2 in symbols, and S6 with up to 5 states")


# %% [markdown]
# For softmax attention take $m$ keys $k_1, \dots, k_m$, the same in each past. Past $i$ has the value 1 at key $i$ and
# 0 elsewhere; future $j$ is a query $j$, whose own value is 0. The answer is the weight that the query gives to key
# $i$, $e^{jk_i}/Z_j$: a Vandermonde matrix in $r_i = e^{k_i}$, with its rows scaled. The layer is one and the same for
# every $m$, with keys and queries of a single number.


# %%
@claim(
    "COST-9",
    r"\det\left(\frac{e^{jk_i}}{Z_j}\right)_{ji} = \prod_j \frac1{Z_j} \prod_i r_i \prod_{i<l}(r_l - r_i) \ne 0,"
    r"\ r_i = e^{k_i}:\ \text{softmax attention is no affine scan of any number of states}",
    source="Vaswani 2017, eq. 1, derived here",
    method="symbolic",
    declared="proved",
)
def rank_of_attention(work: Work) -> None:
    """Softmax attention answers with a matrix of any rank"""
    for m in (2, 3, 4):
        k = sp.symbols(f"k_1:{m + 1}", real=True)
        Z, r = sp.symbols(f"Z_1:{m + 1}", positive=True), sp.symbols(f"r_1:{m + 1}", positive=True)
        weights = sp.Matrix(m, m, lambda j, i, k=k, Z=Z: sp.exp((j + 1) * k[i]) / Z[j])
        in_r = weights.subs({k[i]: sp.log(r[i]) for i in range(m)})
        vandermonde = sp.prod(r) * sp.prod(r[n] - r[i] for n in range(m) for i in range(n)) / sp.prod(Z)
        work.equal(in_r.det(), vandermonde, f"m = {m}: zero only if two keys are the same")
    work.summary("2, 3 and 4 keys, all k and Z free; Vandermonde's determinant for any number")


@claim(
    "COST-10",
    r"\text{attention and the Transformer++ layer: for } n = 1, \dots, 12,\ n + 2 \text{ pasts and queries with a"
    r" diagonally dominant matrix of answers, so of rank } n + 2",
    source="Vaswani 2017, eq. 1; Touvron 2023",
    method="numeric",
    declared="verified",
)
def no_scan_of_so_many_states(work: Work) -> None:
    """Run: pasts and queries that no scan with n states can answer"""
    for model in (attention, transformer):
        for n in range(1, 13):
            params, pasts, queries = model.counterexample(n)
            answers = np.array([[model.parallel(params, [*p, q])[-1, 2] for q in queries] for p in pasts])
            size = np.abs(answers)
            diagonal = np.diag(size)
            # Dominant columns make a matrix regular (Levy–Desplanques). The places on the circle leave the others less
            # than half of the diagonal, 1/2 − 1/(2n + 4) of it; rounding and the norm's ε = 1e-6 take no thousandth.
            share = (size.sum(axis=0) - diagonal) / diagonal
            work.within(share, 0.501, f"{model.CARD.name}, n = {n}")


# %% [markdown]
# The rank speaks of affine scans. Of *any* machine, whatever it computes, a count of bits speaks: if $2^L$ pasts can
# all be told apart by what is asked later, the state has $L$ bits at least. Article 2 puts it in words: an efficient
# model has a small state, an effective one has all that is needed in it.


# %%
@claim(
    "COST-11",
    r"\text{One attention layer stores any } L \text{ bits in } L \text{ tokens and answers any query for one of them:}"
    r" \text{ no state of fewer than } L \text{ bits does}",
    source="Article 2; Vaswani 2017, eq. 1",
    method="property",
    declared="verified",
)
def bits_of_the_past(work: Work) -> None:
    """L tokens hold L bits, all of which attention can be asked for"""
    from hypothesis import strategies as st

    def check(bits: list[bool]) -> None:
        params, pasts, queries = attention.counterexample(len(bits) - 2)
        past = pasts[0].copy()
        past[:, 2], past[:, 3] = bits, ~np.array(bits)
        answers = np.array([attention.parallel(params, [*past, query])[-1, 2] for query in queries])
        # A query weighs its place w, itself w, the others less than w/2 together: 2/5 < w ≤ 1/2. A one answers w or
        # more, a zero less than w/2: thresholds 2/5 and 1/4, and rounding is far from either.
        work.within(np.where(bits, 1 - answers, answers), np.where(bits, 0.6, 0.25), f"{len(bits)} bits")

    work.forall(st.lists(st.booleans(), min_size=3, max_size=48), check, examples=30)


# %% [markdown]
# Positions add nothing to the cache. Rotary ones turn each key once, when it is stored, by an angle that its own
# position gives: what a query then sees of it depends on their distance alone.


# %%
@claim(
    "COST-12",
    r"(R_{t\theta}q)\cdot(R_{s\theta}k) = q\cdot R_{(s-t)\theta}k,\quad R_\alpha = \begin{pmatrix}\cos\alpha &"
    r" -\sin\alpha\\ \sin\alpha & \cos\alpha\end{pmatrix}",
    source="Su 2021, §3.2",
    method="symbolic",
    declared="proved",
)
def turned_once(work: Work) -> None:
    """A rotary position is stored with the key, once"""
    theta, here, there = sp.symbols("theta t s", real=True)
    q, k = sp.Matrix(sp.symbols("q_0:2", real=True)), sp.Matrix(sp.symbols("k_0:2", real=True))

    def turn(angle: Any) -> sp.Matrix:
        return sp.Matrix([[sp.cos(angle), -sp.sin(angle)], [sp.sin(angle), sp.cos(angle)]])

    seen = (turn(here * theta) * q).dot(turn(there * theta) * k)
    work.equal(sp.simplify(seen), sp.simplify(q.dot(turn((there - here) * theta) * k)), "one pair of numbers")


# %% [markdown]
# Nearly right is another matter. Expand $e^{q\cdot k}$ to degree $p$: each term is a product of a function of $q$ and
# one of $k$, so the sum is linear attention, a scan. Its state grows with the accuracy, not with the text, though fast:
# there are $\binom{d+p}{p}$ monomials.


# %%
def monomials(x: np.ndarray, degree: int) -> np.ndarray:
    """x^α/√α! for all |α| ≤ degree, (length, binomial(size + degree, degree)), so that φ(q)·φ(k) = Σ_m (q·k)^m/m!."""
    features = [(np.ones(len(x)), degree)]
    for column in x.T:
        features = [
            (one * column**power / np.sqrt(float(factorial(power))), left - power)
            for one, left in features
            for power in range(left + 1)
        ]
    return np.stack([one for one, _ in features], axis=1)


def as_linear_attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, degree: int) -> AffineScan:
    """Attention of one head with e^{q·k/√d} cut off after this degree: a = 1, b = φ(k) [v, 1]."""
    q, k = (monomials(x / x.shape[1] ** 0.25, degree) for x in (q, k))
    b = np.einsum("tk,tv->kvt", k, np.concatenate([v, np.ones((len(v), 1))], axis=1))

    def read_out(states: np.ndarray) -> np.ndarray:
        sums = np.einsum("tk,kvt->tv", q, states)
        return sums[:, :-1] / sums[:, -1:]

    return AffineScan(np.ones_like(b), b, read_out)


@claim(
    "COST-13",
    r"|q\cdot k|/\sqrt d \le R,\ \varepsilon = \frac{e^R R^{p+1}}{(p+1)!} < 1:\ \text{a scan of }"
    r" \tbinom{d+p}{p}(d_v + 1) \text{ numbers is within } \frac{2\varepsilon}{1 - \varepsilon}\max|v|"
    r" \text{ of softmax attention}",
    source="Mamba, §2 (linear attention as a degenerate SSM), and Taylor's theorem",
    method="property",
    declared="verified",
)
def nearly_a_scan(work: Work) -> None:
    """A scan comes as near to attention as one likes, at a price in its state"""
    from hypothesis import strategies as st

    def check(drawn: tuple[int, int, int, int]) -> None:
        seed, length, size, degree = drawn
        q, k, v = np.random.default_rng(seed).uniform(-1, 1, (3, length, size))
        scan = as_linear_attention(q, k, v, degree)
        work.true(scan.b[..., 0].size == comb(size + degree, degree) * (size + 1), witness="another size of state")
        R = np.abs(q @ k.T).max() / np.sqrt(size)
        epsilon = np.exp(R) * R ** (degree + 1) / factorial(degree + 1)
        if epsilon >= 1:
            return
        exact = attention.attend(q[None], k[None], v[None])[0]
        # 2ε/(1 − ε), and rounding: a mean of |v| ≤ 1 by weights from e^{−R} to e^R, each a sum of C(d+p, p) terms
        rounding = 8 * (length + comb(size + degree, degree)) * U * np.exp(2 * R) / (1 - epsilon)
        work.within(np.abs(scan.outputs() - exact), 2 * epsilon / (1 - epsilon) + rounding, f"degree {degree}")

    sizes = (st.integers(1, 12), st.integers(1, 3), st.integers(2, 9))
    work.forall(st.tuples(st.integers(0, 2**32 - 1), *sizes), check, examples=40)


# %% [markdown]
# So Article 1's comparison stands in the main. Mamba's state is of one size, and attention's cache grows, and *must*,
# for it can be asked for any of its past. The $L \times L$ matrix need not be stored, only computed. And what stays
# constant is the price of a token, not that of a text.

# %%
if __name__ == "__main__":
    run_as_script(globals())
