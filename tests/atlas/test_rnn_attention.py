"""QRNN, SRU, LSTM, GRU, softmax attention and the Transformer++ layer."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssm_edu import selective_scan
from ssm_edu.atlas import attention, gru, lstm, mamba, qrnn, sru, transformer
from ssm_edu.derivations import load
from ssm_edu.scan import SCANS, prefixes
from ssm_edu.selective.reference import sigmoid
from tests.atlas.common import (
    TOLERANCE,
    assert_close,
    check_bad_input,
    check_card,
    check_causality,
    check_complexity,
    check_forms_agree,
    check_model,
    draw,
    lengths,
    numbers_in,
    run_steps,
    seeds,
    tampered,
)

GATES, COSTS = load("gated_rnns"), load("complexity")

widths, few = st.integers(1, 6), st.integers(1, 3)
SIZES = {
    qrnn: {"width": widths, "window": few},
    sru: {"width": widths},
    lstm: {"width": widths},
    gru: {"width": widths},
    attention: {"width": widths, "heads": few, "size": few},
    transformer: {"width": widths, "heads": few, "pair": few, "hidden": widths},
}
MODELS = pytest.mark.parametrize("model", SIZES, ids=lambda model: model.__name__.rpartition(".")[2])
RECURRENT = pytest.mark.parametrize("model", [lstm, gru], ids=["lstm", "gru"])
ATTENTIVE = pytest.mark.parametrize("model", [attention, transformer], ids=["attention", "transformer"])


@pytest.mark.usefixtures("no_type_checks")
@MODELS
@given(data=st.data(), seed=seeds, length=lengths)
def test_all_forms_agree_and_no_output_sees_the_future(model, data, seed, length):
    """GATE-1, GATE-5."""
    check_model(model, seed, length, **data.draw(st.fixed_dictionaries(SIZES[model])))


@MODELS
def test_bad_input_is_refused_by_name(model):
    check_bad_input(model)


@pytest.mark.usefixtures("no_type_checks")
@MODELS
@given(data=st.data(), length=st.integers(2, 9))
def test_the_card_is_what_a_step_keeps_and_computes(model, data, length):
    """COST-3, COST-5."""
    check_card(model, length, **data.draw(st.fixed_dictionaries(SIZES[model])))


@MODELS
def test_parallel_costs_what_the_card_says(model):
    """COST-5."""
    check_complexity(model)


# The models by other roads


@given(seeds, lengths, widths, few)
def test_a_qrnn_by_loops(seed, length, width, window):
    params, x = draw(qrnn, seed, length, width=width, window=window)
    c, y = np.zeros(width), np.empty_like(x)
    for t in range(length):
        pre = [sum(W[window - 1 - k] @ x[t - k] for k in range(min(window, t + 1))) for W in params]
        z, f, o = np.tanh(pre[0]), 1 / (1 + np.exp(-pre[1])), 1 / (1 + np.exp(-pre[2]))
        c = f * c + (1 - f) * z
        y[t] = o * c
    assert_close(qrnn.parallel(params, x), y, "by loops")


@given(seeds, lengths, widths)
def test_an_sru_that_reads_its_cell_still_steps_but_is_no_scan(seed, length, width):
    """GATE-4, GATE-5."""
    params, x = draw(sru, seed, length, width=width)
    params = params._replace(v_f=np.random.default_rng(seed).standard_normal(width))
    assert_close(run_steps(sru, params, x)[0], sru.parallel(params, x), "v_f ≠ 0")
    with pytest.raises(ValueError, match="v_f must be 0 for an affine scan"):
        sru.as_affine_scan(params, x)


@RECURRENT
@given(seed=seeds, length=lengths, width=widths)
def test_without_feedback_an_lstm_and_a_gru_are_scans(model, seed, length, width):
    """GATE-7, GATE-8: no U, and the gates and every tanh stay."""
    params, x = draw(model, seed, length, width=width)
    silent = params._replace(U=np.zeros_like(params.U))
    assert_close(model.without_feedback(params, x).outputs(), model.parallel(silent, x), "U = 0")


@RECURRENT
def test_a_unit_with_feedback_keeps_a_bit(model):
    """GATE-9, GATE-10, GATE-11: two states stay, their mean does not; under an affine map it would."""
    params, token, low, high = model.counterexample()

    def moved(state):
        return max(np.abs(np.subtract(model.step(params, state, token)[1], state)).max(), 0.0)

    assert moved(low) <= 4 * np.finfo(float).eps
    assert moved(high) <= 4 * np.finfo(float).eps
    mean = type(low)(*np.add(low, high) / 2) if isinstance(low, tuple) else (low + high) / 2
    assert moved(mean) > 0.05
    assert not hasattr(model, "as_affine_scan")
    assert model.NOT_A_SCAN


def answers(model, states):
    params, pasts, queries = model.counterexample(states)
    return np.array([[model.parallel(params, [*past, query])[-1, 2] for query in queries] for past in pasts])


@ATTENTIVE
@pytest.mark.parametrize("states", [1, 2, 5, 12])
def test_attention_answers_with_a_rank_that_no_scan_of_so_many_states_has(model, states):
    """COST-8, COST-9, COST-10: the matrix of answers is diagonally dominant, so it has full rank."""
    matrix = answers(model, states)
    size = np.abs(matrix)
    assert matrix.shape == (states + 2, states + 2)
    assert (2 * np.diag(size) > size.sum(axis=0) + 0.1).all()
    assert not hasattr(model, "as_affine_scan")
    assert model.NOT_A_SCAN
    with pytest.raises(ValueError, match="states is 0, expected an integer of at least 1"):
        model.counterexample(0)


@given(seeds, st.integers(1, 4), st.integers(0, 1000))
def test_scores_of_turned_vectors_see_the_distance_alone(seed, pair, by):
    """COST-12."""
    q, k = np.random.default_rng(seed).standard_normal((2, 1, 5, 2 * pair))
    t = np.arange(5.0)

    def scores(start):
        return transformer.rotate(q, t + start)[0] @ transformer.rotate(k, t + start)[0].T

    # an angle of up to 10³ is good to its rounding, 10³ units of 1.1e-16, and so are sine and cosine
    assert np.abs(scores(by) - scores(0)).max() <= 8 * pair * 1005 * 2**-53 * np.abs(q).max() * np.abs(k).max()
    complexes = (k[..., ::2] + 1j * k[..., 1::2]) * np.exp(1j * t[:, None] * 10000.0 ** (-np.arange(pair) / pair))
    turned = transformer.rotate(k, t)
    assert_close(turned[..., ::2], complexes.real, "as complex numbers")
    assert_close(turned[..., 1::2], complexes.imag, "as complex numbers")


def test_the_norm_forgets_the_scale_and_the_layer_is_attention_where_the_rest_is_idle():
    params, x = draw(transformer, 0, 6)
    # ε is 1e-6 of a mean square near 1, and matters less the larger x is
    norm = transformer.rms_norm(x, params.g_mlp)
    np.testing.assert_allclose(transformer.rms_norm(1e3 * x, params.g_mlp), norm, rtol=1e-4)
    np.testing.assert_allclose(((norm / params.g_mlp) ** 2).mean(axis=-1), 1, rtol=1e-4)
    idle = params._replace(W_down=0 * params.W_down)
    first = x[:1]  # at position 0 nothing is turned
    expected = first + attention.parallel(params.attention, transformer.rms_norm(first, params.g_attention))
    assert_close(transformer.parallel(idle, first), expected, "an idle MLP")


def test_large_scores_do_not_overflow():
    params, x = draw(attention, 0, 5)
    y = attention.parallel(params, 1e4 * x)
    assert np.isfinite(y).all()
    assert_close(run_steps(attention, params, 1e4 * x)[0], y, "with scores near 10⁸")


# The checks, failed once each


def other_gate_order(params, state, x_t):
    return lstm.step(params._replace(W=params.W[[1, 0, 2, 3]]), state, x_t)


def reset_after_the_product(params, state, x_t):
    r, z, n = params.W @ x_t + params.b
    u_r, u_z, u_n = params.U @ state
    h = sigmoid(z + u_z) * state + (1 - sigmoid(z + u_z)) * np.tanh(n + sigmoid(r + u_r) * u_n)
    return h, h


def position_not_counted(params, state, x_t):
    y, last = transformer.layer(params, transformer.first_state(params), x_t[None])
    return y[0], attention.extended(state, *last)


def gates_swapped(params, x):
    affine = qrnn.as_affine_scan(params, x)
    return replace(affine, a=1 - affine.a)


def highway_backwards(params, x):
    affine = sru.as_affine_scan(params, x)
    return replace(affine, read_out=lambda c: affine.read_out(c[:, ::-1]))


@pytest.mark.parametrize(
    "wrong",
    [
        tampered(qrnn, as_affine_scan=gates_swapped),
        tampered(qrnn, step=lambda p, s, x: qrnn.step(p, s._replace(recent=0 * s.recent), x)),
        tampered(sru, as_affine_scan=highway_backwards),
        tampered(lstm, step=other_gate_order),
        tampered(gru, step=reset_after_the_product),
        tampered(attention, step=lambda p, s, x: (attention.step(p, s, x)[0], s)),
        tampered(transformer, step=position_not_counted),
    ],
    ids=[
        "gates swapped",
        "window lost",
        "highway backwards",
        "gate order",
        "reset after",
        "cache not kept",
        "position lost",
    ],
)
def test_a_wrong_form_is_found(wrong):
    with pytest.raises(AssertionError, match="they differ by"):
        check_forms_agree(wrong, 0, 5)


def test_attention_without_a_mask_is_found():
    def unmasked(params, x):
        q, k, v = attention.project(params, x)
        weights = attention.softmax(np.einsum("hts,hus->htu", q, k) / np.sqrt(q.shape[-1]))
        return attention.output(params, weights @ v)

    with pytest.raises(AssertionError, match="parallel before t"):
        check_causality(tampered(attention, parallel=unmasked), 1, 9)


@MODELS
@pytest.mark.parametrize("formula", ["state_size", "memory", "flops"])
def test_a_card_that_is_off_by_one_is_found(model, formula):
    card = replace(model.CARD, **{formula: lambda **sizes: getattr(model.CARD, formula)(**sizes) + 1})
    with pytest.raises(AssertionError, match=formula):
        check_card(tampered(model, CARD=card), 5)


def test_what_grows_otherwise_than_the_card_says_is_found():
    with pytest.raises(AssertionError):
        check_complexity(tampered(attention, CARD=replace(attention.CARD, complexity="L")))


# Against torch, where there is one


def test_lstm_against_torch():
    torch = pytest.importorskip("torch")
    params, x = draw(lstm, 3, 17, width=5)
    other = torch.nn.LSTM(5, 5, dtype=torch.float64)
    order = [0, 1, 2, 3]  # i, f, g, o there as here
    y = of_torch(torch, other, params, order, x)
    assert_close(lstm.parallel(params, x), y, "torch")
    assert np.abs(of_torch(torch, other, params, [1, 0, 2, 3], x) - y).max() > 1e6 * TOLERANCE


def test_gru_against_torch():
    """torch resets after the product, U_n h: the same for a diagonal U_n, and for no other."""
    torch = pytest.importorskip("torch")
    params, x = draw(gru, 3, 17, width=5)
    other = torch.nn.GRU(5, 5, dtype=torch.float64)
    diagonal = params._replace(U=np.stack([*params.U[:2], np.diag(np.diag(params.U[2]))]))
    assert_close(gru.parallel(diagonal, x), of_torch(torch, other, diagonal, [0, 1, 2], x), "torch")
    difference = gru.parallel(params, x) - of_torch(torch, other, params, [0, 1, 2], x)
    assert np.abs(difference).max() > 1e6 * TOLERANCE


def of_torch(torch, module, params, order, x):
    with torch.no_grad():
        for name, value in (("weight_ih_l0", params.W), ("weight_hh_l0", params.U), ("bias_ih_l0", params.b)):
            flat = value[order].reshape(-1, *value.shape[2:])
            getattr(module, name).copy_(torch.from_numpy(flat))
        module.bias_hh_l0.zero_()
        return module(torch.from_numpy(x))[0].numpy()


def test_attention_against_torch():
    torch = pytest.importorskip("torch")
    params, x = draw(attention, 3, 17, width=6, heads=2, size=3)
    q, k, v = (torch.from_numpy(part) for part in attention.project(params, x))
    heads = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).numpy()
    assert_close(attention.attend(q.numpy(), k.numpy(), v.numpy()), heads, "scaled_dot_product_attention")
    other = torch.nn.MultiheadAttention(6, 2, bias=False, dtype=torch.float64)
    with torch.no_grad():
        other.in_proj_weight.copy_(torch.from_numpy(np.concatenate([W.reshape(6, 6) for W in params[:3]])))
        other.out_proj.weight.copy_(torch.from_numpy(np.concatenate(params.W_o, axis=1)))
        mask = torch.nn.Transformer.generate_square_subsequent_mask(17, dtype=torch.float64)
        tokens = torch.from_numpy(x)
        y = other(tokens, tokens, tokens, attn_mask=mask, need_weights=False)[0].numpy()
    assert_close(attention.parallel(params, x), y, "MultiheadAttention")


def test_the_halves_of_the_layer_against_torch():
    torch = pytest.importorskip("torch")
    params, x = draw(transformer, 3, 7, width=6, hidden=16)
    tokens, g = torch.from_numpy(x), torch.from_numpy(params.g_mlp)
    norm = torch.nn.functional.rms_norm(tokens, (6,), g, transformer.EPSILON)
    assert_close(transformer.rms_norm(x, params.g_mlp), norm.numpy(), "rms_norm")
    gate, up, down = (torch.from_numpy(W) for W in params[3:])
    mlp = (torch.nn.functional.silu(tokens @ gate.T) * (tokens @ up.T)) @ down.T
    assert_close(transformer.swiglu(params, x), mlp.numpy(), "SwiGLU")


# The derivations


def test_a_cache_grows_by_a_key_and_a_value_and_a_state_by_nothing():
    """COST-3."""
    for model in SIZES:
        params, x = draw(model, 0, 40)
        kept = [numbers_in(run_steps(model, params, x[:length])[1]) for length in (1, 20, 40)]
        key_and_value = 2 * 4 if model in (attention, transformer) else 0
        assert list(np.diff(kept)) == [19 * key_and_value, 20 * key_and_value]


def test_the_released_rule_runs_no_qrnn():
    """GATE-2, GATE-3: B̄ = 1 − f is the hold's; ΔB is −log f, and more."""
    params, x = draw(qrnn, 0, 12)
    z, f, o = qrnn.gates(params, qrnn.windows(params, x))
    logit, one = np.log(f) - np.log1p(-f), np.ones((4, 1))
    y = {
        rule: selective_scan(
            *(z.T[None], -logit.T[None], -one, np.ones((1, 4, 1, 12)), o.T[None, :, None]),
            delta_softplus=True,
            discretization=rule,
            backend="reference",
        )[0].T
        for rule in ("zoh", "mamba")
    }
    assert_close(y["zoh"], qrnn.parallel(params, x), "by the selective scan")
    assert np.abs(y["mamba"] - y["zoh"]).max() > 0.01


@given(seeds)
def test_an_lstm_without_tanh_still_bends(seed):
    """GATE-6, GATE-7: the mean of two states does not go to the mean of where they go; without U it does."""
    rng = np.random.default_rng(seed)
    params = lstm.init(rng, width=2)

    def gap(params):
        def moved(h, c):
            i, f, g, _ = params.U @ h + params.b
            return sigmoid(f) * c + sigmoid(i) * g

        (h, c), (k, d) = ends
        return np.abs(moved((h + k) / 2, (c + d) / 2) - (moved(h, c) + moved(k, d)) / 2).max()

    ends = 3 * rng.standard_normal((2, 2, 2))
    assert gap(params) > 1e-8  # of some hundredths; zero for no drawn seed
    assert gap(params._replace(U=np.zeros_like(params.U))) <= 1e-14


@given(seeds, lengths, widths)
def test_the_tangents_of_a_gru_are_its_derivatives(seed, length, width):
    """GATE-13."""
    params, x = draw(gru, seed, length, width=width)
    h = np.random.default_rng(seed).uniform(-1, 1, x.shape)
    J = GATES.tangents(params, x, h).a[..., -1]
    before, W_x = np.concatenate([np.zeros((1, width)), h])[-2], params.W @ x[-1]
    for k, e in enumerate(np.eye(width)):
        step = 1e-5  # a central difference errs by step² and by u/step
        slope = (gru.update(params, before + step * e, W_x) - gru.update(params, before - step * e, W_x)) / (2 * step)
        assert np.abs(J[:, k] - slope).max() <= 1e-7 * (1 + np.abs(params.U).max() ** 3)


def test_newton_needs_few_rounds_and_a_wrong_slope_many():
    """GATE-12, GATE-13: with slopes of 0 every round mends about one token."""
    params, x = draw(gru, 1, 200, width=3)
    expected = gru.parallel(params, x)
    assert np.abs(GATES.by_newton(params, x, 8) - expected).max() <= TOLERANCE
    h = np.zeros_like(x)
    for _ in range(8):
        before = np.concatenate([np.zeros((1, 3)), h[:-1]])
        h = np.array(
            [gru.update(params, *pair) for pair in zip(before, np.einsum("kmn,tn->tkm", params.W, x), strict=True)]
        )
    assert np.abs(h - expected).max() > 1e6 * TOLERANCE


def test_the_sizes_at_which_things_are_even():
    """COST-1, COST-2, COST-4, COST-5, in numbers."""
    width, heads, state = 768, 12, 16
    layer = {"width": width, "heads": heads, "pair": width // heads // 2, "hidden": 8 * width // 3}
    block = {"width": width, "expand": 2, "taps": 4, "state": state, "rank": width // 16}
    blocks, one = 2 * COSTS.numbers_of(mamba.CARD, **block), COSTS.numbers_of(transformer.CARD, **layer)
    assert one == 12 * width**2 + 2 * width
    assert 12.5 < blocks / width**2 < 13  # ½ for the low-rank Δ; all else is of order D
    held = 2 * mamba.CARD.state_size(**block)
    assert [transformer.CARD.state_size(length=t, **layer) > held for t in (40, 41)] == [False, True]
    flops = [transformer.CARD.flops(length=t, **layer) for t in range(3)]
    assert flops[2] - flops[1] == flops[1] - flops[0] == 4 * (width + heads)


def test_what_stands_in_memory_is_seen():
    """COST-6."""
    assert COSTS.peak_numbers(lambda n: np.ones((n, n)).sum(), 300) >= 300**2


@given(seeds, st.integers(2, 17))
def test_a_merge_that_forgets_to_rescale_is_wrong(seed, length):
    """COST-7."""
    q, k, v = np.random.default_rng(seed).standard_normal((3, length, 2))
    elements = (k @ q[-1] / np.sqrt(2), np.ones(length), v.T)
    expected = attention.attend(q[None], k[None], v[None])[0, -1]

    def last(merge):
        _, Z, o = prefixes(SCANS["blelloch"].rounds(length), elements, merge)
        return o[:, -1] / Z[-1]

    def forgetful(second, first):
        return np.maximum(first[0], second[0]), first[1] + second[1], first[2] + second[2]

    assert np.abs(last(COSTS.merge) - expected).max() <= TOLERANCE
    assert np.abs(last(forgetful) - expected).max() > TOLERANCE


@given(st.lists(st.booleans(), min_size=3, max_size=24), st.data())
def test_one_bit_more_or_less_is_seen(bits, data):
    """COST-11: whichever bit is turned over, its query tells."""
    params, pasts, queries = attention.counterexample(len(bits) - 2)
    which = data.draw(st.integers(0, len(bits) - 1))
    answers = []
    for bit in (False, True):
        past = pasts[0].copy()
        past[:, 2] = bits
        past[which, 2] = bit
        answers.append(attention.parallel(params, [*past, queries[which]])[-1, 2])
    assert answers[1] - answers[0] > 0.4 - TOLERANCE


def test_linear_attention_nears_softmax_as_its_state_grows():
    """COST-13: and does not, where the monomials lack their factorials."""
    q, k, v = np.random.default_rng(0).uniform(-1, 1, (3, 9, 2))
    exact = attention.attend(q[None], k[None], v[None])[0]
    scans = [COSTS.as_linear_attention(q, k, v, degree) for degree in (1, 3, 5, 7)]
    errors = [np.abs(scan.outputs() - exact).max() for scan in scans]
    assert all(later < 0.1 * earlier for earlier, later in pairwise(errors))
    assert [scan.b[..., 0].size for scan in scans] == [3 * 3, 10 * 3, 21 * 3, 36 * 3]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(COSTS, "factorial", lambda n: 1)
        assert np.abs(COSTS.as_linear_attention(q, k, v, 7).outputs() - exact).max() > 1e3 * errors[-1]
