# %% [markdown]
# # Two articles, statement by statement
#
# Two study notes in Chinese led to this project. Article 1 derives the zero-order hold, explains the selective scan and
# gives a block in code; Article 2 walks through the Mamba paper. This page takes them at their word: every statement
# that can be checked is either settled by a claim of another page or checked here. At the end stands the table:
# where it is said, what, which claim decides it, and how.
#
# First, what no other page has looked at.

# %%
from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import sympy as sp

from ssm_edu.atlas import gru, h3, hyena, lstm, mamba, s4, s4d, s5, s6, transformer
from ssm_edu.atlas import mamba_block_specific as block
from ssm_edu.derivations import load, select
from ssm_edu.ledger import Claim, Work, claim, run_as_script
from ssm_edu.selective.reference import sigmoid, silu

U = 2.0**-53

D, L, N = sp.symbols("D L N", positive=True, integer=True)
taps, rank, expand = sp.symbols("k R E", positive=True)
Delta, a = sp.Symbol("Delta", positive=True), sp.Symbol("a", negative=True)

WIDTH, STATE = 512, 16  # the sizes that Article 1's code gives as examples
MAMBA = {"width": D, "expand": 2, "taps": 4, "state": STATE, "rank": D / 16}  # as released

# %% [markdown]
# ## The solution formula, for matrices
#
# Article 2 proves $x(t) = e^{At}x(0) + \int_0^t e^{A(t-\tau)}Bu(\tau)\,d\tau$ with the factor $e^{-At}$. (It says that
# $e^{-At}x(t)$ is *integrated*; it is its *derivative* that is.) ZOH-1 does this for numbers. For matrices two facts
# are needed: how $e^{-tA}$ is differentiated, though matrices do not commute, and that $e^{tA}$ is its inverse.


# %%
@claim(
    "ART-1",
    r"\frac{d}{dt}\left(e^{-tA}x\right) = e^{-tA}\left(\dot x - Ax\right) = e^{-tA}Bu,\quad e^{tA}e^{-tA} = I"
    r"\quad\text{for every square matrix}",
    source="Article 2, proof of the discretisation; Article 1, §1.2",
    method="symbolic",
    declared="proved",
)
def integrating_factor(work: Work) -> None:
    """The integrating factor of Article 2's proof, for any matrix"""
    A, x, slope = sp.symbols("A x xdot", commutative=False)
    t, k = sp.Symbol("t", real=True), sp.Symbol("k", integer=True, positive=True)
    coefficient = (-t) ** k / sp.factorial(k)
    before = (-t) ** (k - 1) / sp.factorial(k - 1)
    work.equal(sp.gammasimp(sp.diff(coefficient, t) + before), 0, "the derivative of e^{−tA}'s k-th coefficient, k ≥ 1")
    product = before * A ** (k - 1) * slope - before * A**k * x
    factored = before * A ** (k - 1) * (slope - A * x)
    work.equal(sp.expand(product), sp.expand(factored), "so each term has the factor x' − Ax on its right")
    for order in range(1, 9):
        terms = [t**j / sp.factorial(j) * (-t) ** (order - j) / sp.factorial(order - j) for j in range(order + 1)]
        work.equal(sum(terms), 0, f"(t − t)^{order}/{order}!, the coefficient of e^{{tA}}e^{{−tA}} at A^{order}")
    work.summary("every coefficient of the derivative; the inverse to order 8, by the binomial theorem beyond")


# %% [markdown]
# ## Two sentences of one article
#
# Article 1, §1.2 says that the larger $\Delta$, the larger the weight of the present input. That is so. But then §2.2,
# where $\Delta$ grows on *noise* so that the noise be not remembered, gives the noise the largest weight of all: the
# two sentences do not go together, and SEL-10 and SEL-11 show which of them falls.


# %%
@claim(
    "ART-2",
    r"\frac{\partial\bar B}{\partial\Delta} = e^{\Delta a}\,b \text{ (zoh)},\ b \text{ (mamba)}:\quad"
    r" |\bar B| \text{ grows with } \Delta,\ \text{while } \bar A = e^{\Delta a} \text{ falls}",
    source="Article 1, §1.2",
    method="symbolic",
    declared="proved",
)
def input_weight_grows(work: Work) -> None:
    """The larger Δ, the larger the weight of the present input"""
    for name, slope in (("zoh", sp.exp(Delta * a)), ("mamba", sp.Integer(1))):
        A_bar, beta = load("selectivity").maps(name, Delta, a)
        work.equal(sp.diff(beta, Delta), slope, f"{name}: the slope of B̄/b")
        work.true(slope.is_positive, "is positive")
        work.true(sp.diff(A_bar, Delta).is_negative, "and that of Ā negative")


# %% [markdown]
# ## Constant and selected parameters
#
# Both articles set S4, whose $\Delta, A, B$ stay as training left them, against Mamba. The models of the atlas show it
# as what it is: the first three have one map for all times and inputs.


# %%
def affine_maps(model: Any, params: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scan = model.as_affine_scan(params, x)
    return scan.a, scan.b


@claim(
    "ART-3",
    r"\text{S4, S4D, S5}: \bar A_t = \bar A,\ \bar B_t = \bar B \text{ for all } t \text{ and } x;\qquad"
    r"\text{S6, the Mamba block, Article 1's block}: \bar A_t \text{ varies with } x_t",
    source="Article 1, §2.1 and §3; Article 2, on LTI and on S6; Mamba, §2",
    method="measured",
    declared="verified",
)
def constant_and_selected(work: Work) -> None:
    """S4 applies the same maps at every step; Mamba does not"""
    width, length = 4, 9
    rng = np.random.default_rng(0)
    x, other = rng.standard_normal((2, length, width))
    pulse = rng.standard_normal(width)
    early, late = np.zeros((2, length, width))
    early[2], late[7] = pulse, pulse
    for model in (s4, s4d, s5):
        params = model.init(rng, width=width)
        decay = affine_maps(model, params, x)[0]
        work.true(bool((decay == decay[..., :1]).all()), witness=f"{model.CARD.name}: Ā changes with t")
        work.true(np.array_equal(decay, affine_maps(model, params, other)[0]), witness=f"{model.CARD.name}: with x")
        here, there = affine_maps(model, params, early)[1][..., 2], affine_maps(model, params, late)[1][..., 7]
        # the same products, in sums of `width` terms that a library may order as it likes
        work.within(np.abs(here - there), 4 * width * U * np.abs(here).max(), f"{model.CARD.name}: B̄x at two times")
    for model in (s6, mamba, block):
        params = model.init(rng, width=width)
        decay = affine_maps(model, params, x)[0]
        work.true(bool((decay != np.roll(decay, 1, axis=-1)).all()), witness=f"{model.CARD.name}: Ā is constant")
    work.summary("3 models with constant maps, 3 with selected ones")


# %% [markdown]
# ## What the parameters are functions of
#
# Article 1, §2.2: $(\Delta_t, B_t, C_t) = \mathrm{Linear}(x_t)$, "a set of its own for every token". Its code in §3
# differs in one place, and must: a linear $\Delta$ would be negative for $x$ or for $-x$, and $\bar A = e^{\Delta a}$
# greater than 1.

# %%
d, w, bias = sp.symbols("d w b", real=True)


def softplus(value: Any) -> Any:
    return sp.log(1 + sp.exp(value))


@claim(
    "ART-4",
    r"\Delta_t \text{ is a linear function of } x_t:\quad \frac{\partial^2\Delta_t}{\partial d_t^2} = 0",
    source="Article 1, §2.2, beside the code of §3",
    method="symbolic",
    declared="refuted",
    corrected_by="ART-5",
)
def delta_is_linear(work: Work) -> None:
    """“(Δ, B, C) = Linear(x)”"""
    work.equal(sp.diff(softplus(w * d + bias), d, 2), 0, "the curvature of Δ by what the linear layer gives")


def near_linear_values(params: block.Parameters, x: np.ndarray) -> dict[str, np.ndarray]:
    """B_t, C_t, and softplus⁻¹(Δ_t) = Δ + log(1 − e^{−Δ})."""
    delta, B, C = block.select(params, block.project(params, x)[0])
    return {"B": B, "C": C, "softplus⁻¹(Δ)": delta + np.log(-np.expm1(-delta))}


@claim(
    "ART-5",
    r"B_t,\ C_t \text{ and } \operatorname{softplus}^{-1}(\Delta_t) = w_\Delta d_t + b_\Delta \text{ are affine in }"
    r" x_t,\ \Delta_t > 0,\ \text{and } w_\Delta d_t \text{ has rank } 1 \text{ over tokens and channels}",
    source="Article 1, §3",
    method="property",
    declared="verified",
)
def linear_but_for_softplus(work: Work) -> None:
    """Article 1's Δ is softplus of one number a token, spread over the channels"""
    from hypothesis import strategies as st

    def check(drawn: tuple[int, int, int]) -> None:
        seed, width, state = drawn
        rng = np.random.default_rng(seed)
        params = block.init(rng, width=width, state=state)
        x, v = rng.standard_normal((2, 5, width))
        forward, middle, back = (near_linear_values(params, x + sign * v) for sign in (1, 0, -1))
        # two matrices, of width + 1 terms a sum, and for Δ the way through softplus and back; |x ± v| ≤ |x| + |v|
        x_in = (np.abs(x) + np.abs(v)) @ np.abs(params.W_in[:width]).T + np.abs(params.b_in[:width])
        size = (x_in @ np.abs(params.W_x).T + np.abs(params.b_x)).max() + 1
        for name, value in middle.items():
            off = 4 * (2 * width + 16) * U * size
            work.within(np.abs(forward[name] + back[name] - 2 * value), off, f"{name}: the second difference")
        delta = block.select(params, block.project(params, x)[0]).delta
        work.true(bool((delta > 0).all()), witness=f"Δ = {delta.min()}")
        spread = middle["softplus⁻¹(Δ)"] - params.b_delta
        work.within(
            np.abs(spread * params.w_delta[0] - spread[:, :1] * params.w_delta), off, "one number for all channels"
        )

    sizes = (st.integers(1, 8), st.integers(1, 4))
    work.forall(st.tuples(st.integers(0, 2**32 - 1), *sizes), check, examples=40)


# %% [markdown]
# And *of its own*? The token enters $B_t$, $C_t$ and $\Delta_t$ through the $2N + 1$ outputs of one matrix. With the
# article's $D = 512$ and $N = 16$ these are 33 numbers of 512: tokens that differ in the other directions are treated
# alike. (A network above may still tell them apart, by what is written: $x_t$ itself.)


# %%
def unseen_directions(params: block.Parameters) -> np.ndarray:
    """Orthonormal rows that span what W_x W_in maps to nothing."""
    width = len(params.D)
    matrix = params.W_x @ params.W_in[:width]
    _, values, rows = np.linalg.svd(matrix)
    return rows[np.sum(values > 100 * width * U * values[0]) :]


def selected_apart(params: block.Parameters, x: np.ndarray, v: np.ndarray) -> tuple[float, float]:
    """By how much (Δ, B, C) differ for the tokens x and x + v, and by how much rounding could make them."""
    one, other = (block.select(params, block.project(params, token)[0]) for token in (x, x + v))
    difference = max(float(np.abs(p - q).max()) for p, q in zip(one, other, strict=True))
    width = len(x)
    # ‖·‖₂ of both factors bounds what each rounds; the SVD's rows are orthonormal and unseen to some width·u
    size = np.linalg.norm(params.W_x) * (np.linalg.norm(params.W_in) * np.linalg.norm([x, x + v]) + 1) + 1
    return difference, float(8 * width * U * size)


@claim(
    "ART-6",
    r"x \ne x' \implies (\Delta, B, C)(x) \ne (\Delta, B, C)(x') \quad (D = 512,\ N = 16)",
    source="Article 1, §2.2 and §3",
    method="numeric",
    declared="refuted",
    corrected_by="ART-7",
)
def parameters_of_its_own(work: Work) -> None:
    """“For every token a unique set of discretised parameters”"""
    rng = np.random.default_rng(0)
    params = block.init(rng, width=WIDTH, state=STATE)
    directions = unseen_directions(params)
    x, v = rng.standard_normal(WIDTH), rng.standard_normal(len(directions)) @ directions
    with work.premise():
        work.true(np.linalg.norm(v) > np.linalg.norm(x) / 2, witness="the tokens hardly differ")
    difference, rounding = selected_apart(params, x, v)
    apart = np.linalg.norm(v) / np.linalg.norm(x)
    work.true(
        difference > rounding,
        witness=f"two tokens differ by {apart:.0%} of their size, their parameters by {difference:.1e}",
    )


@claim(
    "ART-7",
    r"(\Delta, B, C)(x) = (\Delta, B, C)(x + v) \text{ for all } v \text{ of a space of dimension} \ge D - (2N + 1)",
    source="Article 1, §3, derived here",
    method="property",
    declared="verified",
)
def seen_through_few_numbers(work: Work) -> None:
    """A token selects through 2N + 1 numbers"""
    from hypothesis import strategies as st

    def check(drawn: tuple[int, int, int]) -> None:
        seed, width, state = drawn
        rng = np.random.default_rng(seed)
        params = block.init(rng, width=width, state=state)
        directions = unseen_directions(params)
        work.true(len(directions) >= width - (2 * state + 1), witness=f"{len(directions)} directions")
        for v in directions:
            work.within(*selected_apart(params, rng.standard_normal(width), v), f"width {width}, {state} states")

    work.forall(st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 3)), check, examples=30)


# %% [markdown]
# ## Article 1's code
#
# Its comments give the shape of every array. Here is the code again, in NumPy, with a batch. That it computes the
# released rule, not the hold of §1.2, is SEL-25 and SEL-26; that its $A$ does not start where Mamba's does, HIPPO-18.


# %%
def article_forward(params: block.Parameters, x: np.ndarray) -> dict[str, np.ndarray]:
    """Every array that the forward pass names, x (batch, length, width)."""
    n = params.A_log.shape[1]
    x_and_res = x @ params.W_in.T + params.b_in
    x_in, res = np.split(x_and_res, 2, axis=-1)
    ssm_params = x_in @ params.W_x.T + params.b_x
    B_t, C_t, scalar = ssm_params[:, :, :n], ssm_params[:, :, n : 2 * n], ssm_params[:, :, 2 * n :]
    dt_t = np.logaddexp(0, scalar * params.w_delta + params.b_delta)
    dA = np.exp(np.einsum("bld,dn->bldn", dt_t, -np.exp(params.A_log)))
    dB = np.einsum("bld,bln->bldn", dt_t, B_t)
    h, ys = np.zeros((len(x), *params.A_log.shape)), []
    for t in range(x.shape[1]):
        h = dA[:, t] * h + dB[:, t] * x_in[:, t, :, None]
        ys.append(np.einsum("bdn,bn->bd", h, C_t[:, t]))
    y = np.stack(ys, axis=1)
    names = ["x_and_res", "x_in", "res", "ssm_params", "B_t", "C_t", "scalar", "dt_t", "dA", "dB", "h", "y"]
    arrays = (x_and_res, x_in, res, ssm_params, B_t, C_t, scalar, dt_t, dA, dB, h, y)
    return {**dict(zip(names, arrays, strict=True)), "output": (y + x_in * params.D) * silu(res)}


COMMENTS = {  # as the comments of the code have them, b for its B
    "x_and_res": "b L 2D",
    "x_in": "b L D",
    "res": "b L D",
    "ssm_params": "b L 2N+1",
    "B_t": "b L N",
    "C_t": "b L N",
    "scalar": "b L 1",
    "dt_t": "b L D",
    "dA": "b L D N",
    "dB": "b L D N",
    "h": "b D N",
    "y": "b L D",
}


@claim(
    "ART-8",
    r"\text{every array has the shape that the comments give: } \Delta\ [B, L, D],\ \bar A \text{ and } \bar B\ "
    r"[B, L, D, N],\ h\ [B, D, N],\ \dots; \text{ and the atlas has this block}",
    source="Article 1, §3",
    method="measured",
    declared="verified",
)
def shapes_of_the_code(work: Work) -> None:
    """The shapes in the comments of Article 1's code"""
    for batch, length, width, state in ((2, 5, 3, 4), (1, 1, 6, 2), (3, 4, 5, 7)):
        rng = np.random.default_rng(length)
        params = block.init(rng, width=width, state=state)
        x = rng.standard_normal((batch, length, width))
        arrays = article_forward(params, x)
        sizes = {"b": batch, "L": length, "D": width, "2D": 2 * width, "N": state, "2N+1": 2 * state + 1, "1": 1}
        for name, comment in COMMENTS.items():
            expected = tuple(sizes[letter] for letter in comment.split())
            work.true(arrays[name].shape == expected, witness=f"{name}: {arrays[name].shape}, not {expected}")
        rates = np.log(arrays["dA"])
        work.true(len(np.unique(rates)) == rates.size, witness="two channels or states decay alike")
        x_in, res, C = (np.abs(arrays[name]) for name in ("x_in", "res", "C_t"))
        size = np.cumsum(np.abs(arrays["dB"]) * x_in[..., None], axis=1)  # |h|, as decays are below 1
        terms = (np.einsum("bldn,bln->bld", size, C) + x_in) * (res + 1)
        # the same roundings in another order: those of a step's sums, width and state terms, add up over the steps
        bound = 4 * (4 * length + 4 * (width + state) + 16) * U * (1 + terms.max())
        for one, output in zip(x, arrays["output"], strict=True):
            work.within(np.abs(block.parallel(params, one) - output), bound, "the atlas and this code")
    work.summary(f"{len(COMMENTS)} arrays, 3 sets of sizes")


# %% [markdown]
# How large is it? Mamba's block has $3ED^2$ numbers in its projections. Article 1's has no projection at the end and no
# expansion, so $2D^2$.


# %%
def size_of(params: Any) -> int:
    """How many real numbers the arrays of a dataclass hold, however nested; a complex one is two."""
    values = [getattr(params, one.name) for one in fields(params)]
    return sum((v.size * (1 + np.iscomplexobj(v))) if isinstance(v, np.ndarray) else size_of(v) for v in values)


@claim(
    "ART-9",
    r"\text{MambaBlockSpecific has } 2D^2 + 3DN + 6D + 2N + 1 \text{ parameters}",
    source="Article 1, §3",
    method="symbolic",
    declared="proved",
)
def parameters_of_the_code(work: Work) -> None:
    """The parameters of Article 1's block"""
    linear = {"in_proj": (D, 2 * D), "x_proj": (D, 2 * N + 1), "dt_proj": (1, D)}
    count = sum((inputs + 1) * outputs for inputs, outputs in linear.values()) + D * N + D
    work.show("three linear layers with their biases, A_log and D", sp.expand(count))
    work.equal(count, 2 * D**2 + 3 * D * N + 6 * D + 2 * N + 1)
    work.equal(load("complexity").numbers_of(block.CARD, width=D, state=N), count, "the atlas's card")
    found = size_of(block.init(np.random.default_rng(0), width=WIDTH, state=STATE))
    work.true(found == count.subs({D: WIDTH, N: STATE}), witness=f"the arrays hold {found}")
    work.summary(f"any D and N; {found} for D = {WIDTH}, N = {STATE}, counted in the arrays")


# %% [markdown]
# The code calls one half of the first projection `res`, and its last lines "residual connection and output". A residual
# connection hands $x$ on whatever the layer does. This one does not: with all weights at zero nothing comes out. `res`
# is the gate, and what is added, $D \odot x_{in}$, is the skip of the state space model, inside the gate.


# %%
def changed(params: block.Parameters, *names: str) -> block.Parameters:
    """The parameters with zeros under these names."""
    return replace(params, **{name: np.zeros_like(getattr(params, name)) for name in names})


@claim(
    "ART-10",
    r"\text{with every weight and bias at } 0,\ y = x",
    source="Article 1, §3 (the comment “residual connection”)",
    method="numeric",
    declared="refuted",
    corrected_by="ART-11",
)
def residual_connection(work: Work) -> None:
    """“Residual connection and output”"""
    rng = np.random.default_rng(0)
    params = changed(block.init(rng), "W_in", "b_in", "W_x", "b_x", "w_delta", "b_delta")
    x = rng.standard_normal((7, len(params.D)))
    y = block.parallel(params, x)
    work.within(np.abs(y - x), 0, f"with zero weights the largest output is {np.abs(y).max():g}")


@claim(
    "ART-11",
    r"y = \left(Ch + D \odot x_{in}\right) \odot \mathrm{silu}(res):\quad C = 0 \Rightarrow y = D \odot x_{in} \odot"
    r" \mathrm{silu}(res),\qquad res = 0 \Rightarrow y = 0",
    source="Article 1, §3; Mamba, §3.4",
    method="property",
    declared="verified",
)
def skip_inside_the_gate(work: Work) -> None:
    """Article 1's block has a skip inside a gate"""
    from hypothesis import strategies as st

    def check(drawn: tuple[int, int, int]) -> None:
        seed, length, width = drawn
        rng = np.random.default_rng(seed)
        params, x = block.init(rng, width=width), rng.standard_normal((length, width))
        x_in, res = block.project(params, x)
        expected = params.D * x_in * silu(res)
        silent = changed(params, "W_x", "b_x")
        # two products, and a silu that may round its argument's sign away from one call to the other
        work.within(np.abs(block.parallel(silent, x) - expected), 8 * U * np.abs(expected), "B = C = 0")
        closed = replace(
            params, W_in=params.W_in * (np.arange(2 * width) < width)[:, None], b_in=np.repeat([1.0, 0.0], width)
        )
        work.within(np.abs(block.parallel(closed, x)), 0, "res = 0")

    sizes = (st.integers(1, 9), st.integers(1, 5))
    work.forall(st.tuples(st.integers(0, 2**32 - 1), *sizes), check, examples=30)


# %% [markdown]
# ## Cheaper than an LSTM
#
# "Similar to an LSTM's forget gate and input gate, but computed more efficiently", says Article 1, §2.2. In operations
# a token this is so, though by less than one might think: an LSTM of width $D$ takes $16D^2$ and more, the released
# block $12.5D^2$, Article 1's $4D^2$. (A GRU takes $12D^2$: less than the released block.) What a scan gains in *depth*
# is another matter, and the larger one: SCAN-12.


# %%
@claim(
    "ART-12",
    r"\text{operations a token, } N = 16:\ \text{LSTM} > \text{Mamba block for } D \ge 128,\quad \text{LSTM} >"
    r" \text{Article 1's block for } D \ge 32;\quad \text{in } D^2:\ 16,\ \tfrac{25}2,\ 4",
    source="Article 1, §2.2",
    method="symbolic",
    declared="proved",
)
def cheaper_than_an_lstm(work: Work) -> None:
    """A token costs an LSTM more than a Mamba block of its width"""
    steps = {
        "LSTM": lstm.CARD.flops(width=D),
        "Mamba block": mamba.CARD.flops(**MAMBA),
        "Article 1's block": block.CARD.flops(width=D, state=STATE),
        "GRU": gru.CARD.flops(width=D),
    }
    squares = {name: sp.Poly(step, D).coeff_monomial(D**2) for name, step in steps.items()}
    expected = {"LSTM": 16, "Mamba block": sp.Rational(25, 2), "Article 1's block": 4, "GRU": 12}
    for name, step in steps.items():
        work.show(f"{name}: operations a token", sp.expand(step))
        work.equal(squares[name], expected[name], f"{name}: in D²")
    beyond = sp.Symbol("e", nonnegative=True)
    for name, least in (("Mamba block", 128), ("Article 1's block", 32)):
        saved = sp.expand((steps["LSTM"] - steps[name]).subs(D, least + beyond))
        work.true(saved.is_positive, f"the LSTM's are more than the {name}'s for D = {least} + e, e ≥ 0")
    work.true(squares["GRU"] < squares["Mamba block"], "but a wide GRU's are fewer than a Mamba block's")


# %% [markdown]
# ## What decoding keeps
#
# "Only a fixed state of $D \times N$" (Article 1, §4) is right of its own block and of the scan. The released block
# runs its scan on $ED$ channels, and keeps what its short convolution looks back on: two and a half times as much. The
# conclusion stands, it is of one size for a thousand tokens and for a hundred thousand (COST-3, COST-5).


# %%
@claim(
    "ART-13",
    r"\text{The Mamba block of width } D \text{ keeps } D \cdot N \text{ numbers}",
    source="Article 1, §4, read as a statement about the released block",
    method="symbolic",
    declared="refuted",
    corrected_by="ART-14",
)
def only_the_state(work: Work) -> None:
    """“Mamba only needs to keep a state of D × N”"""
    work.equal(mamba.CARD.state_size(width=D, state=N, expand=2, taps=4), D * N, "the card of the Mamba block")


@claim(
    "ART-14",
    r"\text{The Mamba block keeps } ED(N + k) \text{ numbers: } \tfrac52 DN \text{ for } E = 2,\ N = 16,\ k = 4;\quad"
    r" \text{Article 1's } DN",
    source="Mamba, §3.4; Article 1, §3",
    method="symbolic",
    declared="proved",
)
def state_and_taps(work: Work) -> None:
    """What the two blocks keep between tokens"""
    kept = mamba.CARD.state_size(width=D, state=N, expand=expand, taps=taps)
    work.equal(kept, expand * D * (N + taps), "the Mamba block")
    work.equal(kept.subs({expand: 2, N: 16, taps: 4}) / (16 * D), sp.Rational(5, 2), "over D·N, as released")
    work.equal(block.CARD.state_size(width=D, state=N), D * N, "Article 1's block")


# %% [markdown]
# ## Relatives
#
# Article 2 describes H3 as an SSM between two gates, with a local convolution before it that is a *shift SSM*, and
# Hyena as H3 with other kernels. Both can be run.


# %%
@claim(
    "ART-15",
    r"h_t = Sh_{t-1} + e_1k_t,\ S \text{ with ones below the diagonal}:\quad CS^te_1 = C_t \ (t < m),\ 0 \ (t \ge m)",
    source="Article 2, on architectures that are SSMs; H3, §3",
    method="symbolic",
    declared="proved",
)
def shift_is_a_convolution(work: Work) -> None:
    """H3's local convolution is a state space model that shifts"""
    for m in (1, 2, 3, 4, 5):
        C = sp.Matrix(1, m, sp.symbols(f"C_0:{m}"))
        S = sp.Matrix(m, m, lambda i, j: int(i == j + 1))
        first = sp.Matrix(m, 1, lambda i, j: int(i == 0))
        kernel = [(C * S**t * first)[0] for t in range(2 * m)]
        work.equal(sp.Matrix(kernel), sp.Matrix([*C, *[0] * m]), f"the kernel of {m} states")
    work.summary("1 to 5 taps, all of them free")


def h3_as_hyena(params: h3.Parameters, horizon: int) -> hyena.Parameters:
    """Hyena with one filter that does nothing and one that is H3's diagonal system."""
    width, taps = params.shift_C.shape
    through = np.tile(np.arange(taps) == 0, (width, 1)).astype(float)
    kernel = s4d.kernel(params.diagonal, horizon)
    return hyena.Parameters(
        W=np.concatenate([params.W_V, params.W_K, params.W_Q]),
        short=np.concatenate([through, params.shift_C, through]),
        filters=np.stack([np.zeros_like(kernel), kernel]),
        D=np.stack([np.ones(width), params.diagonal.D]),
        W_O=params.W_O,
    )


@claim(
    "ART-16",
    r"\text{Hyena with the filters } \delta \text{ and } K_{\text{S4D}} \text{ is H3}:\quad y = W_O\big(q \odot"
    r" \text{SSM}(\text{shift}(k) \odot v)\big)",
    source="Article 2, on architectures that are SSMs; Hyena, §3; H3, §3",
    method="property",
    declared="verified",
)
def hyena_is_h3(work: Work) -> None:
    """Hyena has H3's architecture, with other kernels"""
    from hypothesis import strategies as st

    def check(drawn: tuple[int, int, int]) -> None:
        seed, length, width = drawn
        rng = np.random.default_rng(seed)
        params, x = h3.init(rng, width=width), rng.standard_normal((length, width))
        small = h3_as_hyena(params, length + 3)
        difference = np.abs(hyena.parallel(small, x) - h3.parallel(params, x))
        q, k, v = (np.abs(x) @ np.abs(W).T for W in (params.W_Q, params.W_K, params.W_V))
        taps = np.abs(params.shift_C).sum()
        z, K = k.max() * taps * v.max(), small.filters[1]
        # A convolution by FFT of length ≤ 4L errs by 8u log₂ 4L · 3‖K‖‖z‖ or less (CONV-5); before and after it
        # stand sums of width and of taps terms.
        sizes = np.linalg.norm(K, axis=1).max() * z * np.sqrt(length) + np.abs(params.diagonal.D).max() * z
        roundings = 2 * (24 * np.log2(4 * length + 4) + 4 * width + 16) * (1 + np.sqrt(length))
        work.within(difference, roundings * U * sizes * q.max() * np.abs(params.W_O).sum(axis=1).max(), "H3 by Hyena")

    sizes = (st.integers(1, 17), st.integers(1, 5))
    work.forall(st.tuples(st.integers(0, 2**32 - 1), *sizes), check, examples=30)


# %% [markdown]
# ## What is not written down
#
# Article 2 on the scan: $\bar A$ and $\bar B$ are formed on the fly, not stored, and $\bar B$ is an outer product. How
# much does that save? With variable $B$ the two maps hold $2BLDN$ numbers, what they are made from far fewer. The
# scan itself does a product and a sum for every pair of numbers, and so, had it to fetch them from memory, would be
# waiting for memory on any machine that does more than two operations while it moves three numbers.


# %%
@claim(
    "ART-17",
    r"\frac{2BLDN}{BLD + BLN + DN} \to 2N \ (D, L \to \infty);\quad \text{a scan of stored maps}:\ 2"
    r" \text{ operations for } 3 \text{ numbers read or written}",
    source="Article 2, on the parallel scan; Mamba, §3.3.2",
    method="symbolic",
    declared="proved",
)
def on_the_fly(work: Work) -> None:
    """Stored, Ā and B̄ hold 2N times what they are made from"""
    batch, step, kept, write = sp.symbols("B Abar h w", positive=True)
    maps, sources = 2 * batch * L * D * N, batch * L * D + batch * L * N + D * N
    work.show("numbers in Ā and B̄, over those in Δ, B and A", maps / sources)
    work.equal(sp.limit(sp.limit(maps / sources, D, sp.oo), L, sp.oo), 2 * N, "for a wide model and a long text")
    outer = batch * L * D + batch * L * N
    work.equal(sp.limit(batch * L * D * N / outer, D, sp.oo), N, "B̄ itself, over the Δ and B whose product it is")
    h = step * kept + write
    work.equal(sp.count_ops(h), 2, "operations of a step of one state")
    work.true(len(h.free_symbols - {kept}) + 1 == 3, "Ā_t and B̄_t x_t are read and h_t is written")


# %% [markdown]
# ## The block
#
# "Most of the parameters, $3ED^2$, are in the projections; those of the SSM are far fewer." The squares are COST-1. As
# $\Delta$'s rank grows with the width (the released $R = D/16$), "far fewer" has a limit.


# %%
@claim(
    "ART-18",
    r"\frac{\text{parameters of S6}}{3ED^2} = \frac{3N + 2R + 2}{3D},\ \text{for } R = \tfrac{D}{16}:\ \tfrac1{24} +"
    r" \frac{3N + 2}{3D};\quad \text{for } N = 16 \text{ below } \tfrac1{10} \text{ from } D = 288 \text{ on}",
    source="Article 2; Mamba, §3.4",
    method="symbolic",
    declared="proved",
)
def the_ssm_is_small(work: Work) -> None:
    """The SSM has a twenty-fourth of the projections' parameters, and a little"""
    sizes = {"width": expand * D, "state": N, "rank": rank}
    ssm = s6.CARD.memory(**sizes) - s6.CARD.state_size(**sizes)
    share = sp.simplify(ssm / (3 * expand * D**2))
    work.equal(share, (3 * N + 2 * rank + 2) / (3 * D), "S6 over the projections, whatever E")
    released = share.subs(rank, D / 16)
    work.equal(released, sp.Rational(1, 24) + (3 * N + 2) / (3 * D), "with Δ of rank D/16")
    work.equal(sp.limit(released, D, sp.oo), sp.Rational(1, 24), "in the limit of a wide model")
    beyond = sp.Symbol("e", nonnegative=True)
    spare = sp.together(sp.Rational(1, 10) - released.subs({N: STATE, D: 288 + beyond}))
    work.true(spare.is_positive, "with 16 states less than a tenth for D = 288 + e, e ≥ 0")
    for width in (2, 5):
        params = mamba.init(np.random.default_rng(0), width=width, expand=3)
        held = params.W_in.size + params.W_out.size
        work.true(held == 3 * 3 * width**2, f"arrays of the projections, D = {width}, E = 3: {held}")
        named = mamba.CARD.memory(width=width, expand=3, taps=4, state=8, rank=2)
        state = mamba.CARD.state_size(width=width, expand=3, taps=4, state=8)
        work.true(size_of(params) == named - state, "and all arrays hold what the card says")


# %% [markdown]
# "It combines the H3 block with a gated MLP: against H3, an activation takes the place of the first gate; against the
# MLP, there is an SSM in the main branch; with SiLU the gated MLP is SwiGLU." Take the SSM and the convolution out of
# the Mamba block. What remains is SwiGLU with one factor more, $\sigma(u)$, and that factor is the activation which
# stands for H3's gate: $\mathrm{silu}(u) = u\,\sigma(u)$.


# %%
@claim(
    "ART-19",
    r"\text{SSM and convolution} = 1:\quad \text{block}(x) = W_{out}\big(u \odot \sigma(u) \odot \mathrm{silu}(z)\big);"
    r"\qquad \text{SwiGLU}(x) = W_{out}\big(u \odot \mathrm{silu}(z)\big)",
    source="Article 2, on the simplified block; Mamba, §3.4; Shazeer 2020",
    method="property",
    declared="verified",
)
def gated_mlp(work: Work) -> None:
    """Without its SSM the block is a gated MLP, and with SiLU that is SwiGLU"""
    from hypothesis import strategies as st

    def check(drawn: tuple[int, int, int]) -> None:
        seed, length, width = drawn
        rng = np.random.default_rng(seed)
        params, x = mamba.init(rng, width=width), rng.standard_normal((length, width))
        W_u, W_z = np.split(params.W_in, 2)
        ssm = replace(params.ssm, W_C=0 * params.ssm.W_C)
        one_tap = np.tile(np.arange(params.conv.shape[1]) == 0, (len(W_u), 1)).astype(float)
        bare = replace(params, conv=one_tap, conv_bias=0 * params.conv_bias, ssm=ssm)
        u, z = x @ W_u.T, x @ W_z.T
        # sums of width, then of 2·width terms, and five functions and products between them
        sizes = (np.abs(x) @ np.abs(W_u).T) * (1 + np.abs(x) @ np.abs(W_z).T) @ np.abs(params.W_out).T
        bound = 4 * (4 * width + 16) * U * sizes * (1 + np.abs(z).max() + np.abs(u).max())
        expected = (u * sigmoid(u) * silu(z)) @ params.W_out.T
        work.within(np.abs(mamba.parallel(bare, x) - expected), bound, "the block")
        layer = transformer.init(rng, width=width)._replace(W_gate=W_z, W_up=W_u, W_down=params.W_out)
        work.within(np.abs(transformer.swiglu(layer, x) - (u * silu(z)) @ params.W_out.T), bound, "SwiGLU")

    sizes = (st.integers(1, 9), st.integers(1, 5))
    work.forall(st.tuples(st.integers(0, 2**32 - 1), *sizes), check, examples=30)


# %% [markdown]
# ## What the state may do
#
# Article 2 closes its section on parameters: the SSM adjusts how it updates its state by the content in hand *and by
# the context already in the hidden state*. Of one layer the second half does not hold. $\Delta_t$, $B_t$ and $C_t$ are
# functions of $x_t$ alone: a difference in the state goes through the step multiplied by the same $\bar A_t$, whatever
# the state holds. And they must be, or it would be no scan (SCAN-23). Context does come in through the input, in a
# layer above another.


# %%
def carried(seed: int, width: int, state: int) -> tuple[np.ndarray, ...]:
    """What a step of S6 makes of a difference v, added to two states; Āv; and what rounding may change in them."""
    rng = np.random.default_rng(seed)
    params, x_t = s6.init(rng, width=width, state=state), rng.standard_normal(width)
    states, v = 3 * rng.standard_normal((2, width, state)), rng.standard_normal((width, state))
    one, other = (s6.step(params, h + v, x_t)[1] - s6.step(params, h, x_t)[1] for h in states)
    delta, B, _ = s6.select(params, x_t)
    written = np.abs(delta * x_t)[:, None] * np.abs(B)
    # h, h + v and two products and sums, then a difference: each a rounding of numbers below |h| + |v| + |B̄x|
    rounding = 16 * U * (np.abs(states).max(axis=0) + np.abs(v) + written)
    return one, other, np.exp(delta[:, None] * params.A) * v, rounding


@claim(
    "ART-20",
    r"\text{Within a layer, how the state is updated depends on what it holds}:\ h_t(h + v) - h_t(h)"
    r" \text{ depends on } h",
    source="Article 2, on the influence of the parameters",
    method="numeric",
    declared="refuted",
    corrected_by="ART-21",
)
def update_depends_on_the_state(work: Work) -> None:
    """“…and by the context already encoded in the hidden state”"""
    one, other, _, rounding = carried(0, 4, 8)
    difference = np.abs(one - other)
    work.true(
        bool((difference > rounding).any()), witness=f"for two states it differs by {difference.max():.1e}: rounding"
    )


@claim(
    "ART-21",
    r"h_t(h + v) - h_t(h) = \bar A_t v,\quad \bar A_t = \exp(\Delta(x_t)A),\ \text{whatever } h",
    source="Mamba, eq. 2 and Algorithm 2; Article 2, on the influence of the parameters",
    method="property",
    declared="verified",
)
def update_depends_on_the_token(work: Work) -> None:
    """A layer's update depends on its token alone"""
    from hypothesis import strategies as st

    def check(drawn: tuple[int, int, int]) -> None:
        one, other, decayed, rounding = carried(*drawn)
        for found in (one, other):
            work.within(np.abs(found - decayed), rounding, "the difference after the step")

    sizes = (st.integers(1, 5), st.integers(1, 6))
    work.forall(st.tuples(st.integers(0, 2**32 - 1), *sizes), check, examples=40)


# %% [markdown]
# ## The table
#
# A row for each statement: where it stands, what it says in a few words, the verdict, the claims that come to it. A
# statement is *proved* or *verified* if its claims are; it is *refuted* if one of them is, and then the claim that
# corrects it says what holds instead. Some statements are denials: they say that something is not so, and rest on a
# claim that fails, marked ¬. What cannot be settled here is *open*, and the line below says why.


# %%
@dataclass(frozen=True)
class Row:
    """A statement of an article. `by` are the claims that state it, `denies` refuted ones whose failure it states."""

    place: str
    quote: str
    verdict: str
    by: tuple[str, ...] = ()
    denies: tuple[str, ...] = ()
    note: str = ""

    @property
    def ids(self) -> list[str]:
        return [*self.by, *self.denies]


TABLE_TEXT = """
Article 1, abstract
- Mamba is a popular architecture of 2024 | open
  an opinion
- by Δ it forgets and remembers as an LSTM's gates do | proved | SEL-1 SEL-17 GATE-2
Article 1, §1.1
- h′ = Ah + Bx; A is the free motion, as of a damped spring | proved | ZOH-1 ZOH-10
Article 1, §1.2
- h(t+Δ) = e^{ΔA}h(t) + ∫ e^{(t+Δ−τ)A}Bx(τ)dτ | proved | ZOH-1 ART-1
- ∫ e^{uA}du from 0 to Δ is A⁻¹(e^{ΔA} − I) | proved | ZOH-2 ZOH-5 ZOH-6 ZOH-7
  for an invertible A; for any other ZOH-9
- Ā = exp(ΔA) | proved | ZOH-3 ZOH-4
- the larger Δ, the more violently Ā changes; for negative A it tends to 0 | proved | STAB-1
  read as its distance from 1; its slope falls, as Ā does
- A is negative for stability | proved | STAB-2
- the larger Δ, the faster history is forgotten | proved | STAB-1 STAB-4
- B̄ = (ΔA)⁻¹(exp(ΔA) − I)·ΔB | proved | ZOH-3 ZOH-4
- for a very small Δ the first Taylor term dominates: B̄ ≈ ΔB | proved | ERR-1 ERR-2 ERR-4
  small means Δ|A|, and at Mamba's initialisation it is not: ERR-6
- the larger Δ, the larger the weight of the present input | proved | ART-2 STAB-12
Article 1, §2.1
- in S4, Δ, A and B are static parameters | verified | ART-3
- one and the same filter for all data | proved | CONV-1
- [useful, noise, noise, useful]: an LTI system cannot cut noise nor stress what is useful | proved | SEL-20 SEL-21
Article 1, §2.2
- (Δ_t, B_t, C_t) = Linear(x_t) | refuted | ART-4
- a unique set of discretised parameters for every token | refuted | ART-6
- Δ from 0.1 to 10: Ā = exp(−10) ≈ 0 | verified | STAB-3
  for A = −1 and Δ = 10
- on noise Δ grows: h_t = 0·h_{t−1} + …, history is cleared | proved | SEL-11
- on noise Δ grows: the noise is not remembered for long | refuted | SEL-10
- on a key signal Δ shrinks: Ā ≈ 1 | proved | STAB-5
- on a key signal B grows: B̄ is large | proved | SEL-15
  as large as ΔB: B must grow as 1/Δ, or B̄ vanishes
- history kept without loss, the input strongly written | refuted | SEL-14
- so it works as an LSTM's forget gate and input gate | proved | SEL-17 GATE-2
- but is computed more efficiently | proved | ART-12
  in operations a token; a GRU's are fewer than the released block's
Article 1, §3
- the shapes in the comments: [B, L, D, N] for dA and dB, [B, D, N] for h, … | verified | ART-8
- x_proj has N + N + 1 outputs, d_model·2 those of in_proj | proved | ART-9
- a scalar Δ is projected back to D features | verified | ART-5
- what sets Mamba apart from S4: parameters vary with t | verified | ART-3
- exp(ΔA) is the rate at which memory decays, one for each channel | verified | STAB-4 ART-8
- the code computes the discretised B̄, that of §1.2, as Δ·B | refuted | SEL-25
- h_t = Ā_t h_{t−1} + B̄_t x_t, y_t = C_t h_t | verified | SEL-26
- the hidden state is tiny beside a Transformer's KV cache | verified | COST-4 SEL-24
  from a few dozen tokens on
- the serial loop may be replaced by parallel prefix sums | verified | SCAN-8 SCAN-9 SCAN-20
  what the CUDA kernel of others does is theirs to say
- residual connection and output | refuted | ART-10
Article 1, §4
- RNNs (LSTM, GRU) cannot be trained in parallel | refuted | GATE-12
  by one cheap scan they cannot: GATE-7, GATE-8
- without tanh the recurrence is associative, so prefix scans apply | proved | SCAN-2 SCAN-3 SCAN-21 GATE-7 ¬SCAN-22
- its depth is therefore no longer the length | verified | SCAN-11 SCAN-12
  implied by “parallel training”
- training as extremely fast as a Transformer's | open
  a time on hardware and at sizes that the article does not name
- attention must store an L × L matrix of interactions | refuted | COST-6
- the KV cache takes a lot of memory in inference | verified | COST-3 COST-4 COST-11
- Mamba keeps only a fixed state of D × N (its scan, and the article's code) | verified | SEL-24 ART-14
- Mamba keeps only a fixed state of D × N (the released block) | refuted | ART-13
- memory and computation of inference are the same at 1k and at 100k | verified | COST-3 COST-5
  for a token; a text still costs its length
Article 1, summary
- Mamba is the culmination of SSMs, has limits and is innovative | open
  an opinion; limits in numbers are COST-9 and GATE-10
Article 2, authors
- who they are, and their posts | open
  biography
Article 2, SSM
- S4 is given by (Δ, A, B, C), in two stages | proved | ZOH-3 ZOH-4 CONV-1
Article 2, proof
- x(t) = e^{At}x(0) + ∫ e^{A(t−τ)}Bu(τ)dτ by the factor e^{−At} | proved | ZOH-1 ART-1
  e^{−At}x(t) is differentiated; the text says integrated
Article 2, SSM
- computed as a linear recurrence or as a global convolution | verified | CONV-1 CONV-8
- convolution to train, recurrence to infer | verified | CONV-8 CONV-4
Article 2, LTI
- S4's parameters are the same at all time steps | verified | ART-3
- LTI is the foundation of recurrence and convolution | proved | CONV-1 ¬CONV-6
  of the convolution; a recurrence needs none: CONV-7, SCAN-8
- all structured SSMs so far are LTI, RetNet counted among them | refuted | ATT-9
  S4, S4D and S5 are (ART-3)
- LTI is a simple and powerful framework | open
  an opinion
- because of efficiency limits | open
  history: why others built what they built
- LTI models have fundamental limits on some data | proved | SEL-20 SEL-21
Article 2, relatives
- linear attention is an approximation of self-attention | verified | COST-13 ¬ATT-5
- and a degenerate linear SSM | proved | ATT-1 ATT-3
- H3 is an SSM between two gates | verified | ART-16
- H3 has a local convolution before its main SSM, a shift-SSM | proved | ART-15
- Hyena is H3 with an MLP's global convolution for the S4 layer | verified | ART-16 SSD-19
- RetNet has a simpler SSM, and another parallel path, by a kind of attention | proved | ATT-7 ATT-8 ATT-10
- RetNet has one gate more | open
  a choice of design; the atlas has the layer
- RWKV's WKV is LTI recurrences, a ratio of two SSMs | proved | ATT-16 ATT-17
- QRNN is an SSM | verified | GATE-1 GATE-2 GATE-3
- SRU is an SSM | refuted | GATE-4
  as published, with a forget gate that reads the cell
- S5 is an SSM | verified | ART-3
Article 2, S6
- constant Ā, B̄ cannot select from the context | proved | SEL-20 CONV-1
- a global convolution copies, but not selectively with varying gaps | proved | SEL-20 SEL-21
- an efficient model has a small state, an effective one all the context | verified | COST-11
- Mamba is like a summary that drops the more, the longer it gets | open
  a simile; in bits: COST-11
- the model becomes time-varying | verified | ART-3
- so it cannot be trained by FFT | proved | CONV-7 ¬CONV-6
- a parallel scan can train it | verified | SCAN-2 SCAN-9 SCAN-24 ADJ-8
- a memory-bound operator; Ā, B̄ on the fly, by an outer product, save reads and writes | proved | ART-17
  bound by memory on any machine that does more than 2 operations while it moves 3 numbers
- which improves the wall time | open
  a time on hardware that the article does not name; `ssm-edu bench` measures yours
Article 2, the block
- H3 with an activation for its first gate, an MLP with an SSM in the main branch | verified | ART-19
- 3ED² parameters in projections, 2ED² in and ED² out | proved | COST-1 ART-18
- those of the SSM (Δ, B, C, A) are far fewer | proved | ART-18
- two blocks with E = 2 match the 12D² of attention and MLP | proved | COST-1
- SiLU makes the gated MLP SwiGLU | verified | ART-19
- norms and residual connections between blocks, an optional LayerNorm as in RetNet; E = 2 | open
  choices of design and their motives
Article 2, Δ
- Δ sets how much of x_t and how much of the state counts | proved | SEL-5 SEL-8
- Δ is what the gate g_t is in Theorem 1, more generally | proved | SEL-1 SEL-2
  under zero-order hold; with the released B̄ = ΔB it does not hold: SEL-3
- a large Δ resets the state and attends to the input | proved | STAB-12 SEL-8
- a small Δ keeps the state and ignores the input | proved | STAB-5 SEL-12
- Δ is how long the input acts on a continuous system | proved | ZOH-11
Article 2, A
- A acts through Ā = exp(ΔA), so that a selective Δ makes the whole model selective | proved | SEL-12 SEL-18
- Δ is what improves performance | open
  an ablation of trained models
Article 2, B and C
- B decides whether x_t enters h_t, C what of h_t becomes y_t | proved | SEL-17
- selective B and C allow finer control: context is filtered into the state | verified | SEL-16 SEL-23
- the update adjusts to the context already in the hidden state | refuted | ART-20
Article 2, results
- Transformer++ is the one with RoPE and SwiGLU | open
  a name; the atlas has this layer
- RWKV and others match the Transformer, Mamba alone Transformer++ | open
  perplexities of large trained models
"""


def rows_of(text: str) -> Iterator[Row]:
    """A line without indent is a place, "- statement | verdict | claims" a row, and an indented line its note."""
    place = ""
    lines = text.strip().splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("- "):
            quote, verdict, *ids = line[2:].split(" | ")
            names = " ".join(ids).split()
            stated = tuple(id for id in names if not id.startswith("¬"))
            denied = tuple(id[1:] for id in names if id.startswith("¬"))
            yield Row(place, quote, verdict, stated, denied, following.strip() if following[:1] == " " else "")
        elif not line.startswith(" "):
            place = line


TABLE = tuple(rows_of(TABLE_TEXT))

# Refuted claims that name an article as their source, though it does not say this: a reading, or what it warns of.
NOT_SAID = {
    "ZOH-12": "a property that the code's rule lacks; the article claims none for it",
    "ZOH-16": "the article prints the formula, not that it be evaluated so",
    "ERR-5": "the article says “for a very small Δ”, not that Mamba's is",
    "STAB-10": "the article speaks of the zero-order hold alone",
    "STAB-14": "the article's approximation, taken beyond small Δ",
    "CONV-3": "the article says “by FFT” and is silent on padding",
    "SEL-19": "the article says that a selective Δ makes the model selective, not that it covers every A_t",
    "HIPPO-18": "the article does not say that its initialisation is Mamba's",
    "GATE-6": "the article names tanh as an example of what is missing",
}


# %% [markdown]
# The table is checked like everything else: each claim exists, comes to the verdict that the row states, and no claim
# that refutes an article has been left out.


# %%
def verdict_of(row: Row, claims: Mapping[str, Claim]) -> str:
    """What the row's claims make of it."""
    stated, denied = ([claims[id] for id in ids] for ids in (row.by, row.denies))
    if any(one.declared == "refuted" for one in stated):
        return "refuted"
    if any(one.declared != "refuted" for one in denied):
        return "contradicted"
    decisive = any(one.declared == "verified" for one in stated)
    return "verified" if decisive or not stated else "proved"


def cites_an_article(one: Claim) -> bool:
    return any(source.strip().startswith("Article") for source in one.source.split(";"))


def mistakes(rows: tuple[Row, ...], not_said: Mapping[str, str], claims: Mapping[str, Claim]) -> Iterator[str]:
    """In words, each row that the ledger does not bear out, and each refutation of an article that no row has."""
    for row in rows:
        where = f"{row.place}, “{row.quote}”"
        if row.verdict == "open":
            if row.ids or not row.note:
                yield f"{where}: an open statement needs a reason and no claim"
            continue
        unknown = [id for id in row.ids if id not in claims]
        if unknown or not row.ids:
            yield f"{where}: no claim {', '.join(unknown) or 'is named'}"
        elif (found := verdict_of(row, claims)) != row.verdict:
            yield f"{where}: {row.verdict} in the table, {found} by {', '.join(row.ids)}"
    placed = {id for row in rows for id in row.ids}
    refuted = {id for id, one in claims.items() if one.declared == "refuted" and cites_an_article(one)}
    for id in sorted(refuted):
        if (id in placed) == (id in not_said):
            yield f"{id} refutes an article, and is in {'both' if id in placed else 'neither'} of table and NOT_SAID"
    yield from (f"{id} in NOT_SAID refutes no article" for id in not_said if id not in refuted)


def described(row: Row, claims: Mapping[str, Claim]) -> str:
    """The row as a line: what holds instead is the ledger's to say."""
    instead = {claims[id].corrected_by for id in row.by if claims[id].corrected_by}
    by = ", ".join([*row.by, *(f"{id} fails" for id in row.denies)])
    parts = (by, instead and f"instead: {', '.join(sorted(map(str, instead)))}", row.note)
    return f"{row.place}: “{row.quote}”: {row.verdict}. " + "; ".join(part for part in parts if part)


@claim(
    "ART-22",
    r"\text{each statement of the table has the verdict to which its claims come; no refutation of an article is}"
    r"\text{ missing}",
    source="Article 1; Article 2",
    method="measured",
    declared="verified",
)
def the_table(work: Work) -> None:
    """The two articles, statement by statement"""
    claims = {one.id: one for one in select([])}
    found = list(mistakes(TABLE, NOT_SAID, claims))
    work.true(not found, witness="; ".join(found))
    for row in TABLE:
        work.show(described(row, claims))
    counts = {verdict: sum(row.verdict == verdict for row in TABLE) for verdict in ("proved", "verified", "refuted")}
    settled = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    work.summary(f"{len(TABLE)} statements: {settled}, {len(TABLE) - sum(counts.values())} open")


# %%
if __name__ == "__main__":
    run_as_script(globals())
