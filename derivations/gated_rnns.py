# %% [markdown]
# # Gates: which recurrent networks are scans
#
# Article 1 sets Mamba against the LSTM and the GRU: their gates are dynamic, too, but cannot be trained in parallel,
# and what saves Mamba is a linear recurrence, without nonlinearities such as $\tanh$. Article 2 counts QRNN and SRU
# among the relatives of state space models. Where does the line run between the four? It is the line of SCAN-23:
# what counts is not *whether* there is a gate or a $\tanh$, but what it *reads*.
#
# To see it, one channel is enough: the state is a number, and so is the token.

# %%
from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp

from ssm_edu import selective_scan
from ssm_edu.atlas import AffineScan, gru, lstm, qrnn
from ssm_edu.atlas._common import shift
from ssm_edu.derivations import load
from ssm_edu.ledger import Work, claim, run_as_script
from ssm_edu.scan import combine
from ssm_edu.selective.reference import sigmoid

U = 2.0**-53

c, h, x, r = sp.symbols("c h x r", real=True)


def sigma(value: Any) -> Any:
    """The logistic function, in symbols."""
    return 1 / (1 + sp.exp(-value))


def logit(value: Any) -> Any:
    """Its inverse."""
    return sp.log(value / (1 - value))


# %% [markdown]
# ## QRNN
#
# A QRNN computes a candidate $z_t$ and its gates from the tokens alone, by convolutions. What is left to do in
# sequence is called pooling, and comes in three kinds:
#
# $$\text{f: } h_t = f_t h_{t-1} + (1-f_t)z_t, \qquad \text{fo: } c_t = f_t c_{t-1} + (1-f_t)z_t,\ h_t = o_t c_t,
# \qquad \text{ifo: } c_t = f_t c_{t-1} + i_t z_t,\ h_t = o_t c_t.$$
#
# In each, $f_t$, $i_t$ and $z_t$ are known before the recurrence starts, so a step is a pair $(a_t, b_t)$.


# %%
@claim(
    "GATE-1",
    r"\text{f, fo}: (a_t, b_t) = (f_t,\ (1 - f_t)z_t);\quad \text{ifo}: (f_t,\ i_t z_t);\quad"
    r" c_3 \text{ from } c_0 \text{ is } (a_3, b_3)\circ(a_2, b_2)\circ(a_1, b_1)",
    source="QRNN, eq. 3 to 5; Article 2",
    method="symbolic",
    declared="proved",
)
def pooling_is_a_scan(work: Work) -> None:
    """All three poolings of a QRNN are affine scans"""
    F, Z, W = (sp.symbols(f"{letter}_1:4", real=True) for letter in "fzi")
    for name, writes in (("f and fo", [(1 - f) * z for f, z in zip(F, Z, strict=True)]), ("ifo", [*map(sp.Mul, W, Z)])):
        state: Any = c
        product: Any = (1, 0)
        for pair in zip(F, writes, strict=True):
            state = pair[0] * state + pair[1]
            product = combine(pair, product)
        work.equal(state, product[0] * c + product[1], f"{name}: three steps, and the product of three pairs")


# %% [markdown]
# Theorem 1 of the Mamba paper (SEL-1) makes a gate of $\Delta$. Read backwards, it makes a state space model of every
# QRNN: $\Delta = -\log f$.


# %%
@claim(
    "GATE-2",
    r"f = \sigma(r),\ a = -1,\ b = 1,\ \Delta = \operatorname{softplus}(-r): \quad \Delta = -\log f,\quad"
    r" \bar A = f,\ \bar B = 1 - f \text{ by zero-order hold}",
    source="Mamba, Theorem 1; QRNN, eq. 3",
    method="symbolic",
    declared="proved",
)
def forget_gate_is_a_step_size(work: Work) -> None:
    """Every forget gate is a step size, and f-pooling a state space model"""
    delta, forget = sp.log(1 + sp.exp(-r)), sigma(r)
    work.equal(sp.exp(-delta), forget, "exp(−Δ) is f, so Δ = −log f")
    A_bar, B_bar = load("selectivity").maps("zoh", delta, -1)
    work.equal(A_bar, forget, "Ā")
    work.equal(B_bar, 1 - forget, "B̄")


@claim(
    "GATE-3",
    r"\text{selective\_scan}(u = z,\ \Delta = \operatorname{softplus}(-r),\ A = -1,\ B = 1,\ C = o),\ \text{zoh},"
    r"\ \text{is a QRNN with fo-pooling}",
    source="Mamba, Theorem 1; QRNN, eq. 4",
    method="property",
    declared="verified",
)
def selective_scan_runs_a_qrnn(work: Work) -> None:
    """The selective scan runs a QRNN"""
    from hypothesis import strategies as st

    def check(drawn: tuple[int, int, int, int]) -> None:
        seed, length, width, window = drawn
        rng = np.random.default_rng(seed)
        params, tokens = qrnn.init(rng, width=width, window=window), rng.standard_normal((length, width))
        z, f, o = qrnn.gates(params, qrnn.windows(params, tokens))
        logit = np.log(f) - np.log1p(-f)
        one = np.ones((width, 1))
        B, C = np.ones((1, width, 1, length)), o.T[None, :, None]  # a group a channel
        y = selective_scan(
            z.T[None], -logit.T[None], -one, B, C, delta_softplus=True, discretization="zoh", backend="reference"
        )[0].T
        # A step costs f some ten roundings by either road, one of them relative to the logit, |log f| + |log(1 − f)|;
        # the cell is a mean of |z| ≤ 1, and errors of f in its steps add up.
        size = 10 + np.abs(np.log(f)) + np.abs(np.log1p(-f))
        work.within(np.abs(y - qrnn.parallel(params, tokens)), 2 * U * np.cumsum(size, axis=0), f"window {window}")

    sizes = (st.integers(1, 17), st.integers(1, 4), st.integers(1, 3))
    work.forall(st.tuples(st.integers(0, 2**32 - 1), *sizes), check, examples=40)


# %% [markdown]
# ## SRU
#
# An SRU drops the convolution and adds a highway: with $\tilde x = Wx$ and, in the published version, gates that
# also read the cell,
#
# $$f = \sigma(p + v_f c_{t-1}),\quad r = \sigma(q + v_r c_{t-1}),\quad
# c_t = f c_{t-1} + (1-f)\tilde x_t,\quad h_t = r c_t + (1-r)x_t.$$
#
# The Mamba paper's appendix says of QRNN and SRU that they are gated recurrences without nonlinearities in time. Take
# the second derivative of $c_t$ by $c_{t-1}$, and see.

# %%
p, q, x_tilde, v_f, v_r = sp.symbols("p q xtilde v_f v_r", real=True)
forget, reset = sigma(p + v_f * c), sigma(q + v_r * c)
cell = forget * c + (1 - forget) * x_tilde
highway = reset * cell + (1 - reset) * x


@claim(
    "GATE-4",
    r"\frac{\partial^2 c_t}{\partial c_{t-1}^2} = 0 \text{ in an SRU}",
    source="Mamba, Appendix B; SRU, eq. 1 and 2",
    method="symbolic",
    declared="refuted",
    corrected_by="GATE-5",
)
def sru_is_without_nonlinearity(work: Work) -> None:
    """“An SRU has no nonlinearity in time”"""
    work.equal(sp.diff(cell, c, 2), 0, "the curvature of a step")


@claim(
    "GATE-5",
    r"c_{t-1} \mapsto c_t \text{ is affine for all inputs} \iff v_f = 0;\quad v_r \text{ bends only what is read out}",
    source="SRU, eq. 1 to 4",
    method="symbolic",
    declared="proved",
)
def sru_is_a_scan_unless_it_peeps(work: Work) -> None:
    """An SRU is an affine scan if its forget gate does not read the cell; its reset gate may"""
    bend = sp.diff(cell, c, 2)
    open_gate = sigma(p + v_f * x_tilde)
    work.equal(bend.subs(c, x_tilde), 2 * v_f * open_gate * (1 - open_gate), "the curvature where the cell is x̃")
    work.true(sp.simplify(open_gate * (1 - open_gate)).is_positive, "which vanishes for v_f = 0 alone")
    work.equal(bend.subs(v_f, 0), 0, "and there is none at all then")
    work.equal(sp.diff(cell, v_r), 0, "the reset gate is not in the recurrence")
    work.true(highway.has(v_r), "but in h_t, which c_{t−1} and c_t give without looking further back")


# %% [markdown]
# ## LSTM
#
# $$f, i, o = \sigma(\cdot + U_{f,i,o} h_{t-1}), \quad g = \tanh(\cdot + U_g h_{t-1}), \quad
# c_t = f c_{t-1} + i g, \quad h_t = o\tanh c_t.$$
#
# The dots stand for what the token gives. Article 1's sentence suggests that the $\tanh$ is to blame. So leave it out.

# %%
i, f, g = sp.symbols("i f g", real=True)
U_f, U_i, U_g = sp.symbols("U_f U_i U_g", real=True)


@claim(
    "GATE-6",
    r"c_t = \sigma(f + U_f h)\,c + \sigma(i + U_i h)\,(g + U_g h),\ \text{an LSTM without } \tanh,"
    r"\ \text{is affine in its state } (c, h)",
    source="Article 1, §4, read as a statement about tanh alone",
    method="symbolic",
    declared="refuted",
    corrected_by="GATE-7",
)
def without_tanh_it_is_linear(work: Work) -> None:
    """“Without tanh an LSTM is a linear recurrence”"""
    without = sigma(f + U_f * h) * c + sigma(i + U_i * h) * (g + U_g * h)
    work.equal(sp.diff(without, c, h), 0, "how the state's two parts meet")


@claim(
    "GATE-7",
    r"c_t = \sigma(f + U_f h)\,c + \sigma(i + U_i h)\tanh(g + U_g h) \text{ is affine in } (c, h)"
    r" \text{ for all } f, i, g \iff U_f = U_i = U_g = 0;\ \text{then it is ifo-pooling}",
    source="Hochreiter & Schmidhuber 1997; Gers 2000; QRNN, eq. 5",
    method="symbolic",
    declared="proved",
)
def lstm_is_a_scan_iff_it_does_not_hear_itself(work: Work) -> None:
    """An LSTM's step is affine exactly if neither gates nor candidate read the state"""
    step = sigma(f + U_f * h) * c + sigma(i + U_i * h) * sp.tanh(g + U_g * h)
    work.equal(sp.diff(step, c, h).subs(h, 0), U_f * sigma(f) * (1 - sigma(f)), "c meets h, unless U_f = 0")
    s, T = sp.symbols("s T", real=True)
    bend = sp.diff(step.subs(U_f, 0), h, 2).subs(h, 0).subs({i: logit(s), g: sp.atanh(T)})
    polynomial = sp.Poly(sp.simplify(bend), s, T)
    work.show("the curvature by h at h = 0, with s = σ(i) and T = tanh g", polynomial.as_expr())
    work.equal(polynomial.coeff_monomial(s**3 * T), 2 * U_i**2, "for all s and T it vanishes only if U_i = 0")
    work.equal(polynomial.coeff_monomial(s * T**3), 2 * U_g**2, "and U_g = 0")
    silent = {U_f: 0, U_i: 0, U_g: 0}
    work.equal(
        step.subs(silent), sigma(f) * c + sigma(i) * sp.tanh(g), "then a = f and b = i·g, numbers before the scan"
    )


@claim(
    "GATE-8",
    r"h_t = zh + (1 - z)\tanh(n + U_n r h),\ z = \sigma(z_x + U_z h),\ r = \sigma(r_x + U_r h),\ \text{is affine in } h"
    r" \text{ for all inputs} \iff U_z = U_n = 0",
    source="Cho 2014, eq. 5 to 8; Martin & Cundy 2018",
    method="symbolic",
    declared="proved",
)
def gru_is_a_scan_iff_it_does_not_hear_itself(work: Work) -> None:
    """A GRU's step is affine exactly if neither update gate nor candidate read the state"""
    z_x, r_x, n_x, U_z, U_r, U_n = sp.symbols("z_x r_x n_x U_z U_r U_n", real=True)
    s, T, R = sp.symbols("s T R", real=True)
    z = sigma(z_x + U_z * h)
    step = z * h + (1 - z) * sp.tanh(n_x + U_n * sigma(r_x + U_r * h) * h)
    bend = sp.diff(step, h, 2).subs(h, 0).subs({z_x: logit(s), r_x: logit(R), n_x: sp.atanh(T)})
    polynomial = sp.Poly(sp.simplify(bend), s, T, R)
    work.show("the curvature at h = 0, with s = σ(z_x), R = σ(r_x), T = tanh n_x", polynomial.as_expr())
    work.equal(polynomial.coeff_monomial(s**3 * T), -2 * U_z**2, "for all s, T, R it vanishes only if U_z = 0")
    work.equal(polynomial.coeff_monomial(T**3 * R**2), 2 * U_n**2, "and U_n = 0")
    work.equal(step.subs({U_z: 0, U_n: 0}), sigma(z_x) * h + (1 - sigma(z_x)) * sp.tanh(n_x), "then U_r is idle")


# %% [markdown]
# So $\tanh$ is not the obstacle: it stands in the QRNN's candidate, and in the LSTM without feedback, and both are
# scans. What an LSTM has and no scan can have is *feedback through* a nonlinearity.
#
# ## One bit
#
# Could other coordinates help? Perhaps some function of the state, or many functions of it, evolve affinely. No, and
# the reason is what feedback is good for: a unit that hears itself loudly enough comes to rest in two places.


# %%
@claim(
    "GATE-9",
    r"h \mapsto zh + (1 - z)\tanh(uh),\ 0 < z < 1,\ u > 1:\ \text{it rests at } 0, h^*, -h^* \text{ and nowhere else};"
    r"\ 0 \text{ repels},\ \pm h^* \text{ attract}",
    source="Cho 2014; Hochreiter & Schmidhuber 1997",
    method="symbolic",
    declared="proved",
)
def a_unit_keeps_a_bit(work: Work) -> None:
    """A GRU with one unit, left alone, keeps a bit"""
    z, excess, y = (sp.Symbol(name, positive=True) for name in ("z", "epsilon", "y"))
    u = 1 + excess
    step = z * h + (1 - z) * sp.tanh(u * h)
    pull = sp.tanh(u * h) - h
    work.equal(step - h, (1 - z) * pull, "it rests where tanh(uh) = h")
    work.equal(pull.subs(h, -h), -pull, "an odd function: look at h > 0")
    work.equal(sp.diff(pull, h).subs(h, 0), excess, "it leaves 0 upwards, so 0 repels")
    bend = -2 * u**2 * sp.tanh(u * y) * (1 - sp.tanh(u * y) ** 2)
    work.equal(sp.diff(pull, h, 2).subs(h, y), bend, "its curvature")
    work.true(sp.tanh(u * y).is_positive, "is negative for h > 0: tanh is positive there,")
    work.equal(1 - sp.tanh(u * y) ** 2, (1 / sp.cosh(u * y) ** 2), "and below 1")
    work.equal(pull.subs(h, 1), sp.tanh(u) - 1, "and at h = 1 it is below 0 again")
    work.show(
        "A concave curve that leaves 0 upwards meets 0 once more, downwards: at h* < 1, where the step's slope"
        " lies between z and 1"
    )


# %% [markdown]
# No affine map does that. If it rests at two points, it rests on the whole line through them. And it treats all
# differences alike: the one between two stored bits, and the one that noise makes.


# %%
@claim(
    "GATE-10",
    r"F(h) = Ah + b,\ F(p) = p,\ F(q) = q \implies F(p + \lambda(q - p)) = p + \lambda(q - p);\quad"
    r" \text{one channel}: \frac{h_t'' - h_t}{h_t' - h_t} \text{ is constant in } t",
    source="Article 1, §4, derived here",
    method="symbolic",
    declared="proved",
)
def affine_maps_keep_no_bit(work: Work) -> None:
    """An affine step with two rest points has a line of them, and cannot tell a bit from noise"""
    n = 3
    A, b = sp.Matrix(n, n, sp.symbols(f"a_:{n * n}")), sp.Matrix(sp.symbols(f"b_:{n}"))
    p_, q_, lam = sp.Matrix(sp.symbols(f"p_:{n}")), sp.Matrix(sp.symbols(f"q_:{n}")), sp.Symbol("lambda")
    at_rest = (1 - lam) * (A * p_ + b - p_) + lam * (A * q_ + b - q_)
    point = p_ + lam * (q_ - p_)
    work.equal(
        (A * point + b - point).expand(), at_rest.expand(), "how far the step moves p + λ(q − p): 0 if p, q rest"
    )
    (first, bit, noisy), a_t, b_t = sp.symbols("h h' h''"), sp.Symbol("a_t"), sp.Symbol("b_t")
    after = [a_t * state + b_t for state in (first, bit, noisy)]
    ratio = (noisy - first) / (bit - first)
    work.equal((after[2] - after[0]) / (after[1] - after[0]), ratio, "after a step, and so after any number")
    work.summary(f"{n} states, everything free; one channel, one step, which is the induction step")


# %% [markdown]
# That settles the question of coordinates. Let $\varphi$ be continuous, with values in any $\mathbb R^m$, and
# $\varphi(\text{step}(h)) = F(\varphi(h))$ for an affine $F$. From each side of 0 the unit runs to $\pm h^*$, so $F^t$
# converges on all $\varphi(h)$, hence on the affine hull of these points, and its limit $P$ is affine, so continuous,
# there. Now $P\varphi(h)$ is $\varphi(h^*)$ for each $h > 0$ and $\varphi(-h^*)$ for each $h < 0$, so at 0 it is both:
# $\varphi$ confuses the two bits.


# %%
@claim(
    "GATE-11",
    r"|\varepsilon| \le \tfrac14:\ h_0 = h^* + \varepsilon \implies |h_t - h^*| \le (2/3)^t\,|\varepsilon|,"
    r"\ \text{at both rest points of one GRU, and so for the cell of one LSTM}",
    source="Hochreiter & Schmidhuber 1997; Cho 2014",
    method="property",
    declared="verified",
)
def feedback_repairs_a_bit(work: Work) -> None:
    """Feedback repairs a stored bit"""
    from hypothesis import strategies as st

    def check(noise: float) -> None:
        for model in (gru, lstm):
            params, token, *rests = model.counterexample()
            for rest in rests:
                state = rest + noise if model is gru else rest._replace(c=rest.c + noise)
                for t in range(1, 31):
                    state = model.step(params, state, token)[1]
                    error = np.max(np.abs(np.subtract(state, rest)))
                    # 30 U: some ten roundings a step, of numbers below 1, each shrunk by 2/3 from then on
                    work.within(error, (2 / 3) ** t * abs(noise) + 30 * U, model.CARD.name)

    work.forall(st.floats(-0.25, 0.25), check, examples=20)


# %% [markdown]
# ## In parallel after all
#
# Article 1, §4 says that LSTM and GRU cannot use a GPU to train in parallel. They are no scan, but a scan *solves*
# them. Guess all states at once; replace each step by its tangent at the guess, which is affine; run the scan; take its
# states for the next guess. This is Newton's method for the whole sequence (Lim 2024). Where the guess of $h_{t-1}$ is
# right already, the tangent passes through the right $h_t$: every round mends at least one token more, and near the
# solution many. For a GRU the tangents are matrices $J_t = \partial h_t/\partial h_{t-1}$.


# %%
def tangents(params: gru.Parameters, x: np.ndarray, h: np.ndarray) -> AffineScan:
    """The affine steps J (h_{t−1} − ĥ) + F(ĥ), for the guess h (length, width), whose ĥ is one step earlier."""
    before, (U_r, U_z, U_n) = shift(h, 1), params.U
    W_x = np.einsum("kmn,tn->tkm", params.W, x)
    r_x, z_x, n_x = np.moveaxis(W_x + params.b, 1, 0)
    r, z = sigmoid(r_x + before @ U_r.T), sigmoid(z_x + before @ U_z.T)
    n = np.tanh(n_x + (r * before) @ U_n.T)
    J = np.einsum("ti,ij->ijt", (before - n) * z * (1 - z), U_z)
    J += np.einsum("ti,ij,tj->ijt", (1 - z) * (1 - n**2), U_n, r)
    J += np.einsum("ti,ik,tk,kj->ijt", (1 - z) * (1 - n**2), U_n, before * r * (1 - r), U_r)
    J += np.einsum("ti,ij->ijt", z, np.eye(len(U_r)))
    moved = np.array([gru.update(params, *pair) for pair in zip(before, W_x, strict=True)])
    b = moved.T - np.einsum("ijt,tj->it", J, before)
    return AffineScan(J, b[:, None], lambda states: states[:, 0].T, dense=True)


def by_newton(params: gru.Parameters, x: np.ndarray, rounds: int) -> np.ndarray:
    """The states (length, width) after so many rounds, each of them a scan, from a guess of zeros."""
    h = np.zeros(x.shape)
    for _ in range(rounds):
        h = tangents(params, x, h).outputs()
    return h


def rounding_of(params: gru.Parameters, x: np.ndarray, h: np.ndarray) -> np.ndarray:
    """How far apart two evaluations may come out: what each step rounds, carried on by |J|."""
    affine, (length, width) = tangents(params, x, h), x.shape
    size = np.abs(affine.b) + np.abs(affine.a).sum(axis=1)[:, None]  # |h| ≤ 1
    size += (np.abs(params.W).sum() + np.abs(params.U).sum()) * max(1.0, np.abs(x).max())
    # Each step rounds a dozen functions and the sums of its products; a scan, two sums of width + 1 terms a combine.
    # Twice that for two evaluations, and twice for what is of second order.
    local = 4 * (12 + 4 * width + 2 * (width + 1) * length) * U * size
    return AffineScan(np.abs(affine.a), local, affine.read_out, dense=True).outputs("sequential")


@claim(
    "GATE-12",
    r"\text{A GRU needs } L \text{ rounds, one after the other, for } L = 256 \text{ tokens}",
    source="Article 1, §4",
    method="measured",
    declared="refuted",
    corrected_by="GATE-13",
)
def needs_as_many_rounds_as_tokens(work: Work) -> None:
    """“LSTM and GRU cannot be trained in parallel”"""
    rng, length = np.random.default_rng(0), 256
    params, x = gru.init(rng, width=3), rng.standard_normal((length, 3))
    expected = gru.parallel(params, x)
    bound = rounding_of(params, x, expected)
    errors = (np.abs(by_newton(params, x, rounds) - expected) for rounds in range(length + 1))
    rounds, error = next((k, error) for k, error in enumerate(errors) if (error <= bound).all())
    work.true(rounds >= length, witness=f"after {rounds} scans all {length} states are right to {error.max():.1e}")


@claim(
    "GATE-13",
    r"\text{Newton's method for a GRU: after } k \text{ scans } h_1, \dots, h_k \text{ are exact, whatever the guess}",
    source="Lim 2024; Cho 2014, eq. 5 to 8",
    method="property",
    declared="verified",
)
def newton_solves_the_sequence(work: Work) -> None:
    """A recurrence that is no scan is solved by scans: by a few, and certainly by L"""
    from hypothesis import strategies as st

    def check(drawn: tuple[int, int, int, int]) -> None:
        seed, length, rounds, width = drawn
        rng = np.random.default_rng(seed)
        params, x = gru.init(rng, width=width), rng.standard_normal((length, width))
        expected = gru.parallel(params, x)
        error = np.abs(by_newton(params, x, rounds) - expected)[:rounds]
        work.within(error, rounding_of(params, x, expected)[:rounds], f"the first {rounds} of {length}")

    sizes = (st.integers(1, 24), st.integers(1, 24), st.integers(1, 4))
    work.forall(st.tuples(st.integers(0, 2**32 - 1), *sizes), check, examples=40)


# %% [markdown]
# A product of such tangents costs the cube of the width, where Mamba's cost one multiplication an entry. So what Mamba
# gains by its affine recurrence is not that it can run in parallel at all, but that one cheap scan does what takes a
# GRU several dear ones. What it gives up is the bit.

# %%
if __name__ == "__main__":
    run_as_script(globals())
