"""The state space models of the atlas; what the atlas's own checks catch; the table.

Of these models S4 alone divides by something small: its kernel by 1 − |Ā|ᴸ, which at Δ = 1e-3 and L = 1 is
1 − exp(−Δ/2) = 5e-4, for the slowest part of LegS (claim HIPPO-4). That is a factor of 2000, and a state of at most
8 numbers in one channel leaves it room: fewer than 10³ roundings in place of the 10⁶ of the tolerance.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import ssm_edu
from ssm_edu import lti
from ssm_edu.atlas import AffineScan, h3, hyena, mamba, mamba2, mamba3, models, s4, s4d, s5, s6
from ssm_edu.atlas._checks import check_sequence, check_state, check_token
from ssm_edu.atlas._common import linear, matrix_combine, shift
from ssm_edu.cli import app
from ssm_edu.derivations import load
from ssm_edu.discretize import discretize
from ssm_edu.hippo import dplr_legs
from ssm_edu.ledger import claims_of
from ssm_edu.scan import SCANS
from tests.atlas.common import (
    assert_close,
    check_bad_input,
    check_card,
    check_causality,
    check_complexity,
    check_forms_agree,
    check_inputs_unchanged,
    check_model,
    check_scan_is_one,
    counted,
    counting,
    default_sizes,
    draw,
    lengths,
    numbers_in,
    run_steps,
    seeds,
    tampered,
)

MODELS = (s4, s4d, s5, s6, mamba, mamba2, mamba3, h3, hyena)
OTHER_SIZES = {
    s4: {"width": 3, "state": 5},
    s4d: {"width": 3, "state": 5},
    s5: {"width": 3, "state": 5},
    s6: {"width": 3, "state": 5, "rank": 1},
    mamba: {"width": 3, "state": 5, "rank": 1, "expand": 3, "taps": 2},
    mamba2: {"width": 12, "state": 5, "heads": 3},
    mamba3: {"width": 12, "state": 5, "heads": 3},
    h3: {"width": 3, "state": 5, "taps": 2},
    hyena: {"width": 3, "taps": 2, "hidden": 5, "horizon": 300},
}
every_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__.rpartition(".")[2])
every_size = pytest.mark.parametrize("other", [False, True], ids=["default sizes", "other sizes"])


@pytest.mark.usefixtures("no_type_checks")
@every_model
@given(seed=seeds, length=lengths, other=st.booleans())
def test_all_forms_agree_and_none_looks_ahead(model, seed, length, other):
    check_model(model, seed, length, **(OTHER_SIZES[model] if other else {}))


@every_model
@every_size
def test_the_card_says_what_is_kept_and_computed(model, other):
    for length in (2, 11):
        check_card(model, length, **(OTHER_SIZES[model] if other else {}))


@every_model
def test_the_work_of_the_parallel_form_grows_as_the_card_says(model):
    check_complexity(model)


@every_model
def test_bad_input_is_refused_by_name(model):
    check_bad_input(model)


@every_model
def test_one_channel_and_one_state(model):
    smallest = {name: 1 for name in default_sizes(model) if name != "horizon"}
    check_model(model, 0, 6, **smallest)


def test_heads_that_do_not_divide_the_width_are_refused():
    for model in (mamba2, mamba3):
        with pytest.raises(ValueError, match="heads must divide width; found 2 heads and width 5"):
            model.init(np.random.default_rng(0), width=5, heads=2)


@given(seed=seeds)
def test_selective_models_start_as_the_papers_say(seed):
    """Mamba, §3.6: A = −(1 … n), D = 1, Δ from 1e-3 to 1e-1; Mamba-2 and 3: −A from 1 to 16."""
    rng = np.random.default_rng(seed)
    first = s6.init(rng, width=5, state=3)
    np.testing.assert_array_equal(first.A, np.tile([-1.0, -2.0, -3.0], (5, 1)))
    heads = [model.init(rng, width=500, heads=500) for model in (mamba2, mamba3)]
    for params in (first, mamba.init(rng).ssm, *heads):
        assert (params.D == 1).all()
        delta = np.logaddexp(0, params.delta_bias)
        assert ((delta >= 1e-3 * (1 - 1e-12)) & (delta <= 0.1 * (1 + 1e-12))).all()
    for params in heads:
        assert ((params.A <= -1) & (params.A >= -16)).all()
        assert params.A.min() < -15  # of 500 heads: fails once in (15/14)^500 = 10¹⁵ draws


@given(seed=seeds)
def test_time_invariant_models_start_as_real_systems(seed):
    """S4's C is real before the change of basis; S5 keeps one state of each pair; Δ is from 1e-3 to 1e-1."""
    rng = np.random.default_rng(seed)
    params, V = s4.init(rng, state=6), dplr_legs(6).V
    assert np.abs((params.C @ V.conj().T).imag).max() <= 1e-13
    assert (s5.init(rng).Lambda.imag > 0).all()
    for model in (s4, s4d, s5):
        delta = model.init(rng).delta
        assert ((delta >= 1e-3) & (delta <= 0.1)).all()


# What the atlas is compared with: the parts of the library that derive from the same equations in another way


@given(seed=seeds, length=lengths)
def test_s4_is_the_dense_bilinear_recurrence(seed, length):
    params, x = draw(s4, seed, length)
    for d in range(x.shape[1]):
        A = np.diag(params.Lambda[d]) - np.outer(params.P[d], params.Q[d].conj())
        A_bar, B_bar, *_ = discretize(A, params.B[d], params.delta[d], "bilinear")
        y = lti.recurrence(A_bar, B_bar, params.C[d], x[:, d]).real + params.D[d] * x[:, d]
        assert_close(s4.parallel(params, x)[:, d], y, "S4")


@given(seed=seeds, length=lengths)
def test_s4d_and_s5_are_dense_zero_order_hold_systems(seed, length):
    params, x = draw(s4d, seed, length)
    for d in range(x.shape[1]):
        A_bar, B_bar, *_ = discretize(np.diag(params.A[d]), params.B[d], params.delta[d], "zoh")
        y = 2 * lti.recurrence(A_bar, B_bar, params.C[d], x[:, d]).real + params.D[d] * x[:, d]
        assert_close(s4d.parallel(params, x)[:, d], y, "S4D")

    params, x = draw(s5, seed, length)
    expected, h = params.D * x, np.zeros(len(params.Lambda), complex)
    A_bar = np.exp(params.delta * params.Lambda)
    for t in range(length):
        h = A_bar * h + (A_bar - 1) / params.Lambda * (params.B @ x[t])
        expected[t] += 2 * (params.C @ h).real
    assert_close(s5.parallel(params, x), expected, "S5")


@given(seed=seeds, length=lengths)
def test_s5s_output_is_that_of_the_whole_real_system(seed, length):
    """Of each conjugate pair one state is kept: with both of them, y is real without a 2 Re (claim HIPPO-5)."""
    params, x = draw(s5, seed, length)
    both = replace(
        params,
        delta=np.tile(params.delta, 2),
        Lambda=np.concatenate([params.Lambda, params.Lambda.conj()]),
        B=np.concatenate([params.B, params.B.conj()]),
        C=np.concatenate([params.C, params.C.conj()], axis=1) / 2,
    )
    assert_close(s5.parallel(both, x), s5.parallel(params, x), "both of each pair")


@given(seed=seeds, length=lengths)
def test_s6_is_the_selective_scan(seed, length):
    """SSD-13 reads its matrix off the same three selected arrays."""
    params, x = draw(s6, seed, length)
    delta, B, C = s6.select(params, x)
    y = ssm_edu.selective_scan(x.T[None], delta.T[None], params.A, B.T[None], C.T[None], params.D, backend="reference")
    assert_close(s6.parallel(params, x), y[0].T, "S6")


@given(seed=seeds, length=lengths)
def test_mamba_2_is_a_selective_scan_with_one_decay_a_head(seed, length):
    """SSD-5"""
    params, x = draw(mamba2, seed, length)
    heads, width = len(params.A), x.shape[1]
    delta = np.logaddexp(0, x @ params.W_delta.T + params.delta_bias)
    spread = np.repeat(np.arange(heads), width // heads)
    A = np.tile(params.A[spread, None], (1, len(params.W_B)))
    B, C = x @ params.W_B.T, x @ params.W_C.T
    y = ssm_edu.selective_scan(
        x.T[None], delta[:, spread].T[None], A, B.T[None], C.T[None], params.D[spread], backend="reference"
    )
    assert_close(mamba2.parallel(params, x), y[0].T, "Mamba-2")


@given(seed=seeds, length=lengths, chunk=st.integers(1, 20))
def test_mamba_2_in_chunks(seed, length, chunk):
    """SSD-8, SSD-9, SSD-10"""
    params, x = draw(mamba2, seed, length)
    assert_close(mamba2.chunked(params, x, chunk), mamba2.parallel(params, x), f"chunks of {chunk}")


def test_a_chunk_may_be_longer_than_the_sequence():
    params, x = draw(mamba2, 0, 5)
    assert_close(mamba2.chunked(params, x, 10**12), mamba2.parallel(params, x), "one chunk")


@pytest.mark.parametrize("first", [1e2, 1e8, 1e16])
def test_one_long_step_does_not_blur_the_later_tokens(first):
    """SSD-12: token by token, relative to each output; in differences of sums from the start, all digits go."""

    def agree(found, expected):
        assert (np.abs(found - expected).max(axis=1) <= 1e-13 * np.abs(expected).max(axis=1)).all()

    for model in (mamba2, mamba3):
        params, x = draw(model, 0, 9)
        x[0] = first * params.W_delta.sum(axis=0)
        y = model.parallel(params, x)
        agree(run_steps(model, params, x)[0], y)
        agree(model.as_affine_scan(params, x).outputs("sequential"), y)
        if model is mamba2:
            for chunk in (4, 9):
                agree(model.chunked(params, x, chunk), y)


def test_chunks_are_cheaper_than_the_quadratic_form_in_long_sequences():
    params, x = draw(mamba2, 0, 512)
    work = []
    for run in (mamba2.parallel, lambda p, x: mamba2.chunked(p, x, 16)):
        with counting() as counter:
            run(counted(params), x)
        work.append(counter.flops)
    assert work[1] < work[0] / 4
    with pytest.raises(ValueError, match="chunk is 0, expected an integer of at least 1"):
        mamba2.chunked(params, x, 0)


@given(seed=seeds, length=lengths)
def test_mamba_3_without_its_second_tap_and_its_angles_is_mamba_2(seed, length):
    """SSD-16, SSD-17: λ = 1 leaves one tap, θ = 0 a real decay."""
    params, x = draw(mamba3, seed, length)
    real = replace(params, W_B=params.W_B.real + 0j, W_C=params.W_C.real + 0j, W_theta=0 * params.W_theta)
    s = mamba3.select(real, x)
    log_a = s.log_a[..., 0].real
    attention = mamba2.decay_mask(log_a) * (s.C @ s.B.T).real
    one_tap = np.einsum("hts,sh,shp->thp", attention, s.now, s.X).reshape(x.shape)
    before = np.concatenate([np.zeros_like(s.X[:1]), s.X[:-1]])
    B_before = np.concatenate([np.zeros_like(s.B[:1]), s.B[:-1]])
    shifted = mamba2.decay_mask(log_a) * (s.C @ B_before.T).real
    second = np.einsum("hts,sh,shp->thp", shifted, s.before * np.exp(log_a), before).reshape(x.shape)
    skip = np.repeat(params.D, x.shape[1] // len(params.D)) * x
    assert_close(mamba3.parallel(real, x), one_tap + second + skip, "Mamba-3 as two scans of Mamba-2")


@given(seed=seeds, length=lengths, heads=st.integers(1, 3))
def test_mamba_3_by_loops(seed, length, heads):
    params, x = draw(mamba3, seed, length, width=2 * heads, heads=heads)
    y = np.empty_like(x)
    for j in range(heads):
        own, h = slice(2 * j, 2 * j + 2), np.zeros((2, len(params.W_B)), complex)
        for t in range(length):
            delta = np.log1p(np.exp(params.W_delta[j] @ x[t] + params.delta_bias[j]))
            lam = 1 / (1 + np.exp(-params.W_lambda[j] @ x[t]))
            a = np.exp(delta * (params.A[j] + 1j * (params.W_theta @ x[t])))
            h = a * h + lam * delta * np.outer(x[t, own], params.W_B @ x[t])
            if t:
                h += (1 - lam) * delta * a * np.outer(x[t - 1, own], params.W_B @ x[t - 1])
            y[t, own] = (h @ (params.W_C @ x[t])).real + params.D[j] * x[t, own]
    assert_close(mamba3.parallel(params, x), y, "by loops")


def test_mamba_3s_decay_turns_the_state():
    """A real decay cannot change the sign of what is left of a token; a rotation by π does."""
    params = mamba3.init(np.random.default_rng(0), width=2, state=1, heads=1)
    x = np.array([[1.0, 0.0], [0.0, 1.0]])
    delta = mamba3.select(params, x).log_a[1, 0, 0].real / params.A[0]
    for angle in (0.0, np.pi):
        turned = replace(params, W_theta=np.array([[0.0, angle / delta]]))
        a = mamba3.as_affine_scan(turned, x).a[0, 0, 0, 1]
        np.testing.assert_allclose(a, np.exp(delta * params.A[0]) * np.cos(angle), atol=1e-12)


@given(seed=seeds, length=lengths)
def test_h3s_short_convolution_is_a_shift_system(seed, length):
    params, x = draw(h3, seed, length)
    taps = params.shift_C.shape[1]
    down, first = np.eye(taps, k=-1), np.eye(taps)[0]
    expected = [lti.recurrence(down, first, params.shift_C[d], x[:, d]) for d in range(x.shape[1])]
    assert_close(h3.shift_ssm(params, x), np.array(expected).T, "the shift system")


@given(seed=seeds, length=lengths)
def test_the_mamba_block_is_made_of_the_librarys_scan(seed, length):
    params, x = draw(mamba, seed, length)
    s, gate = mamba.before_the_scan(params, x)
    delta, B, C = s6.select(params.ssm, s)
    z = np.split(x @ params.W_in.T, 2, axis=1)[1]
    y = ssm_edu.selective_scan(
        *(s.T[None], delta.T[None], params.ssm.A, B.T[None], C.T[None], params.ssm.D, z.T[None]), backend="reference"
    )
    assert_close(mamba.parallel(params, x), y[0].T @ params.W_out.T, "the block")
    assert gate.shape == s.shape


def test_hyenas_filters_take_more_states_than_any_small_number():
    """SSD-18, SSD-19; and the check fails a filter that is that of few states."""
    params = hyena.init(np.random.default_rng(0), horizon=64)
    for state in (1, 3, 8):
        distance, rounding = hyena.counterexample(params, state)
        assert (distance > 1e6 * rounding).all()
    t = np.arange(64)
    three = sum(weight * decay**t for weight, decay in ((1.0, 0.9), (-2.0, 0.5), (0.3, -0.7)))
    small = replace(params, filters=np.broadcast_to(three, params.filters.shape))
    assert (np.greater(*hyena.counterexample(small, 2))).all()
    assert (np.less(*hyena.counterexample(small, 3))).all()
    assert "state that grows" in hyena.NOT_A_SCAN
    with pytest.raises(ValueError, match="state must be at most 31"):
        hyena.counterexample(params, 32)
    with pytest.raises(TypeError, match="state is True"):
        hyena.counterexample(params, True)


@given(seed=seeds)
def test_hyenas_windows_fade_slowly_in_the_first_channel_and_fast_in_the_last(seed):
    """By e⁻⁴ and by e⁻⁴⁰ over the horizon; the network behind them varies, but hardly by e¹²."""
    filters = np.abs(hyena.init(np.random.default_rng(seed), width=3).filters)
    fade = np.log(filters[..., -32:].max(axis=-1) / filters[..., :32].max(axis=-1))
    assert (np.abs(fade - [-4, -22, -40]) < 12).all()


def test_hyena_has_a_horizon():
    params, x = draw(hyena, 0, 9, horizon=8)
    with pytest.raises(ValueError, match="x must have at most 8 tokens, the horizon of these filters; found 9"):
        hyena.parallel(params, x)
    state = run_steps(hyena, params, x[:8])[1]
    with pytest.raises(ValueError, match="at most 8 tokens"):
        hyena.step(params, state, x[8])


# The derivation


def test_the_matrices_of_the_derivation_are_the_models():
    """SSD-1, SSD-2, SSD-3, SSD-4: rank below the diagonal, by the matrix of one channel of S6 and its inverse."""
    duality = load("state_space_duality")
    params, x = draw(s6, 0, 12, width=2, state=3)
    M = duality.attention_matrices(*(s6.select(params, x).delta, params.A), *s6.select(params, x)[1:])
    assert all(np.linalg.matrix_rank(M[d, j:, : j + 1]) <= 3 for d in range(2) for j in range(12))
    assert np.linalg.matrix_rank(M[0, 6:, :7]) == 3
    # the strictly upper triangle is no such block: a matrix that is not semiseparable has more
    full = np.tril(np.random.default_rng(0).standard_normal((12, 12)))
    assert np.linalg.matrix_rank(full[6:, :7]) == 6
    log_a = -np.random.default_rng(1).random((12, 1))
    inverse = np.linalg.inv(mamba2.decay_mask(log_a)[0])
    np.testing.assert_allclose(inverse, np.eye(12) - np.diag(np.exp(log_a[1:, 0]), -1), atol=1e-13)


def test_a_quotient_of_products_is_no_mask_where_they_underflow():
    """SSD-11, SSD-12"""
    log_a = np.full((2000, 1), -1.0)
    mask = mamba2.decay_mask(log_a)[0]
    assert np.isfinite(mask).all()
    np.testing.assert_allclose(mask[-1, -2], np.exp(-1.0), rtol=1e-12)
    product = np.cumprod(np.exp(log_a))
    assert product[-1] == 0


def test_the_claim_refutes_a_mask_of_differences(monkeypatch):
    """SSD-12"""

    def differences(log_a):
        total = np.cumsum(log_a, axis=0).T
        return np.tril(np.exp(np.minimum(total[:, :, None] - total[:, None], 0)))

    assert verdicts(["SSD-12"]) == {"SSD-12": "verified"}
    monkeypatch.setattr(mamba2, "decay_mask", differences)
    assert verdicts(["SSD-12"]) == {"SSD-12": "refuted"}


def test_rows_of_s6_are_no_weights_and_those_of_a_gate_are():
    """SSD-6, SSD-7, SSD-14, SSD-15: the gate of Theorem 1 by zero-order hold, A = −1, B = C = 1."""
    duality = load("state_space_duality")
    delta = np.random.default_rng(0).random((9, 1)) * 3
    gate = -np.expm1(-delta)
    rows = duality.attention_matrices(delta, np.array([[-1.0]]), gate / delta, np.ones_like(delta))[0]
    assert (rows >= 0).all()
    np.testing.assert_allclose(rows.sum(axis=1), 1 - np.cumprod(1 - gate[:, 0]), rtol=1e-13)


def verdicts(ids):
    claims = {one.id: one for one in claims_of(vars(load("state_space_duality")))}
    return {id: claims[id].check().verdict for id in ids}


def test_the_claims_refute_a_mask_that_is_off_by_one(monkeypatch):
    """a_t … a_s in place of a_t … a_{s+1}: SSD-1, SSD-2, SSD-4, SSD-5, SSD-8, SSD-15, SSD-16, SSD-17."""
    import sympy as sp

    def off_by_one(a):
        return sp.Matrix(len(a), len(a), lambda t, s: sp.prod(a[s : t + 1]) if s <= t else 0)

    monkeypatch.setattr(load("state_space_duality"), "decay_matrix", off_by_one)
    ids = [f"SSD-{k}" for k in (1, 2, 4, 5, 8, 15, 16, 17)]
    assert verdicts(ids) == dict.fromkeys(ids, "refuted")


def test_the_claims_refute_wrong_numerics(monkeypatch):
    """A mask without its decay (SSD-9, SSD-12), a matrix without its Δ (SSD-13), a filter of two states (SSD-19)."""
    duality = load("state_space_duality")
    monkeypatch.setattr(mamba2, "decay_mask", lambda log_a: np.tri(len(log_a)) * np.ones((log_a.shape[1], 1, 1)))
    right = duality.attention_matrices
    monkeypatch.setattr(duality, "attention_matrices", lambda delta, A, B, C: right(delta, A, B, C) / delta.mean())
    t = np.arange(64)
    two = np.broadcast_to(0.9**t - 0.5**t, (2, 4, 64))
    real = hyena.init
    monkeypatch.setattr(hyena, "init", lambda *args, **sizes: replace(real(*args, **sizes), filters=two))
    ids = [f"SSD-{k}" for k in (9, 12, 13, 19)]
    assert verdicts(ids) == dict.fromkeys(ids, "refuted")


# The shared pieces


@given(seed=seeds, length=lengths, m=st.integers(1, 3))
def test_a_dense_scan_by_every_scan_is_the_loop(seed, length, m):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, 3, 3, length)) / 2, rng.standard_normal((2, 3, m, length))
    h, states = np.zeros((2, 3, m)), np.empty(b.shape)
    for t in range(length):
        h = a[..., t] @ h + b[..., t]
        states[..., t] = h
    affine = AffineScan(a, b, lambda h: h[0, 0].T, dense=True)
    shared = AffineScan(a[0], b, lambda h: h[0, 0].T, dense=True)
    for scan in SCANS:
        assert_close(affine.states(scan), states, scan)
        assert_close(affine.outputs(scan), states[0, 0].T, scan)
        assert_close(shared.states(scan)[0], states[0], "a map that broadcasts")


def test_matrix_combine_is_associative_and_does_first_things_first():
    """SCAN-1 and SCAN-2, for matrices."""
    rng = np.random.default_rng(0)
    x, y, z = ((rng.standard_normal((3, 3, 1)), rng.standard_normal((3, 2, 1))) for _ in range(3))
    left, right = matrix_combine(matrix_combine(z, y), x), matrix_combine(z, matrix_combine(y, x))
    for one, other in zip(left, right, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    swapped = matrix_combine(x, y)
    assert not np.allclose(matrix_combine(y, x)[1], swapped[1])


def test_weights_have_variance_one_over_inputs():
    W = linear(np.random.default_rng(0), 2, 500, 400)
    # the mean of 4·10⁵ squares, of relative standard deviation √(2/4·10⁵) = 0.002
    assert (W**2).mean() * 400 == pytest.approx(1, abs=0.01)


def test_shift_and_the_checks_of_input():
    x = np.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(shift(x, 1), [[0, 0], [0, 1], [2, 3]])
    np.testing.assert_array_equal(shift(x, 0), x)
    np.testing.assert_array_equal(shift(x, 3), 0 * x)
    np.testing.assert_array_equal(shift(x, 5), 0 * x)
    assert check_sequence([[1, 2]], 2).dtype == np.float64
    assert check_sequence(x.astype(np.float32), 2).dtype == np.float64
    assert check_token([1, 2], 2).dtype == np.float64
    with pytest.raises(ValueError, match="x is not a rectangular array"):
        check_sequence([[1, 2], [3]], 2)
    with pytest.raises(TypeError, match="x is a masked array"):
        check_sequence(np.ma.masked_array(x, x > 2), 2)
    with pytest.raises(ValueError, match="no scan named 'blellock'; did you mean 'blelloch'"):
        AffineScan(x.T, x.T, lambda h: h.T).states("blellock")


def test_a_state_is_what_the_first_one_is():
    Pair = namedtuple("Pair", ["a", "b"])
    first = Pair(np.zeros((2, 0)), np.zeros(3, complex))
    check_state(Pair(np.zeros((2, 0)), np.zeros(3)), first)
    check_state(Pair(np.zeros((2, 7), int), np.zeros(3, np.complex64)), first, grows=True)
    for state, error, message in (
        ((first.a, first.b), TypeError, r"state must be a Pair of 2; found tuple of 2"),
        (None, TypeError, "state must be a Pair of 2; found NoneType"),
        (first._replace(a=[[], []]), TypeError, r"state\.a must be an array of float64; found list"),
        (first._replace(a=first.a + 1j), TypeError, r"state\.a must be an array of float64; found dtype complex128"),
        (first._replace(a=first.a > 0), TypeError, r"state\.a must be an array of float64; found dtype bool"),
        (first._replace(a=np.zeros((2, 1))), ValueError, r"state\.a must have shape \(2, 0\); found \(2, 1\)"),
        (first._replace(b=np.zeros((1, 3))), ValueError, r"state\.b must have shape \(3\); found \(1, 3\)"),
    ):
        with pytest.raises(error, match=message):
            check_state(state, first)
    with pytest.raises(ValueError, match=r"state\.a must have shape \(2, any\); found \(3, 1\)"):
        check_state(first._replace(a=np.zeros((3, 1))), first, grows=True)
    cache = Pair(np.zeros((2, 0)), np.zeros((0, 2)))
    with pytest.raises(ValueError, match=r"state must hold one number of tokens throughout; found \[3, 4\]"):
        check_state(Pair(np.zeros((2, 3)), np.zeros((4, 2))), cache, grows=True)


# The checks themselves: each fails a model that is wrong in the one way that it is for


def test_the_check_of_forms_fails_a_step_that_forgets_the_skip():
    def step(params, state, x_t):
        y, h = s4d.step(params, state, x_t)
        return y - params.D * x_t, h

    with pytest.raises(AssertionError, match="steps and parallel"):
        check_forms_agree(tampered(s4d, step=step), 0, 5)


def test_the_check_of_forms_fails_a_decay_off_by_one():
    def as_affine_scan(params, x):
        affine = s6.as_affine_scan(params, x)
        return replace(affine, a=np.roll(affine.a, 1, axis=-1))

    with pytest.raises(AssertionError, match="affine scan and parallel"):
        check_forms_agree(tampered(s6, as_affine_scan=as_affine_scan), 0, 5)


def test_the_check_of_scans_fails_a_state_that_was_run_beforehand():
    def as_affine_scan(params, x):
        affine = s6.as_affine_scan(params, x)
        return replace(affine, a=np.zeros_like(affine.a), b=affine.states())

    cheat = tampered(s6, as_affine_scan=as_affine_scan)
    check_forms_agree(cheat, 0, 17)
    with pytest.raises(AssertionError, match="b_t at t"):
        check_scan_is_one(cheat, 0, 17)


def test_the_check_of_scans_fails_a_read_out_that_mixes_states():
    def as_affine_scan(params, x):
        affine = s6.as_affine_scan(params, x)
        return replace(affine, read_out=lambda h: affine.read_out(np.cumsum(h, axis=-1)))

    with pytest.raises(AssertionError, match="y_t at t"):
        check_scan_is_one(tampered(s6, as_affine_scan=as_affine_scan), 0, 17)


def test_the_check_of_causality_fails_a_circular_convolution():
    """An FFT of the sequence's own length wraps its end round to the beginning (CONV-3, CONV-4)."""

    def parallel(params, x):
        K = s4d.kernel(params, len(x))
        return np.fft.irfft(np.fft.rfft(K) * np.fft.rfft(x.T), len(x)).T + params.D * x

    with pytest.raises(AssertionError, match="parallel before t"):
        check_causality(tampered(s4d, parallel=parallel), 0, 8)


def test_the_check_of_inputs_fails_a_step_in_place():
    def step(params, state, x_t):
        y, h = s4d.step(params, state, x_t)
        state[...] = h
        return y, state

    with pytest.raises(AssertionError):
        check_inputs_unchanged(tampered(s4d, step=step), 0, 5)


def test_the_check_of_bad_input_fails_a_model_that_takes_anything():
    unchecked = tampered(s4d, parallel=lambda params, x: s4d.parallel(params, np.nan_to_num(x)))
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        check_bad_input(unchecked)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"state_size": lambda *, width, **_: width}, "state_size"),
        ({"memory": lambda *, width, state, **_: 8 * width * state}, "memory"),
        ({"flops": lambda *, width, state, **_: 18 * width * state}, "flops"),
        ({"time_invariant": False}, "time_invariant"),
        ({"input_dependent_decay": True}, "input_dependent_decay"),
    ],
)
def test_the_check_of_the_card_fails_a_wrong_entry(wrong, what):
    with pytest.raises(AssertionError, match=what):
        check_card(tampered(s4d, CARD=replace(s4d.CARD, **wrong)), 5)


def test_the_check_of_complexity_fails_a_wrong_one():
    for model, wrong in ((s4d, "L"), (s6, "L log L"), (s6, "L²"), (mamba2, "L")):
        with pytest.raises(AssertionError):
            check_complexity(tampered(model, CARD=replace(model.CARD, complexity=wrong)))


def test_what_is_counted():
    x, A = counted(np.ones(3)), counted(np.ones((2, 3)))
    z = x + 1j * x
    for compute, expected in (
        (lambda: x + 1, 3),
        (lambda: np.exp(x) * x, 6),
        (lambda: A @ x, 12),
        (lambda: np.einsum("ij,j->i", A, x), 12),
        (lambda: np.einsum("i,j->ij", x, x), 9),
        (lambda: x.sum(), 3),
        (lambda: np.sum(A, axis=0), 6),
        (lambda: z * z, 18),
        (lambda: z * 2.0, 6),
        (lambda: z + x, 6),
        (lambda: np.maximum(x, 0), 0),
        (lambda: -x, 0),
        (lambda: np.where(x > 0, x, -x), 0),
        (lambda: np.concatenate([x, x])[::2], 0),
        (lambda: np.cumsum(x), 3),
    ):
        with counting() as counter:
            compute()
        assert counter.flops == expected
    with counting() as counter:
        np.fft.rfft(x)
    assert counter.ffts == 1


def test_numbers_in_a_tree():
    tree = SimpleNamespace()
    tree.params = s4d.init(np.random.default_rng(0), width=2, state=3)
    assert numbers_in(tree.params) == 2 + 3 * 2 * 2 * 3 + 2
    assert numbers_in((np.ones(3), [np.ones(2, complex)], {"t": 5}, None)) == 8


# The registry and the table


def test_every_model_has_the_interface_and_its_own_name():
    atlas = models()
    assert {model.__name__.rpartition(".")[2] for model in MODELS} <= set(atlas)
    for name, module in atlas.items():
        wanted = {"init", "parallel", "first_state", "step", "CARD"}
        assert wanted <= set(vars(module)), name
        if hasattr(module, "as_affine_scan"):
            assert not hasattr(module, "NOT_A_SCAN"), name
        else:
            assert module.NOT_A_SCAN, name
            assert callable(module.counterexample), name
    names = [module.CARD.name for module in atlas.values()]
    assert len(set(names)) == len(names)
    years = [module.CARD.year for module in atlas.values()]
    assert years == sorted(years)


def test_the_atlas_loads_numpy_and_nothing_heavier():
    code = "import sys; from ssm_edu.atlas import models; models()"
    code += "; print([m for m in ('scipy', 'sympy', 'numba', 'torch', 'hypothesis') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_table_is_made_from_the_cards(tmp_path):
    path = tmp_path / "atlas.json"
    result = CliRunner().invoke(app, ["atlas", "--json", str(path)])
    assert result.exit_code == 0, result.output
    rows = json.loads(path.read_text("utf-8"))
    assert list(rows) == list(models())
    assert rows["s6"]["state_size"] == "DN"
    assert rows["s6"]["flops"] == "11DN + 4DR + 5D"
    assert rows["s6"]["affine_scan"]
    assert not rows["hyena"]["affine_scan"]
    said = " ".join(result.output.split())
    for row in rows.values():
        assert row["name"] in said
        assert row["affine_scan"] == (row["not_a_scan"] is None)
        assert row["affine_scan"] or f"{row['name']} is no affine scan: {row['not_a_scan']}" in said


def test_no_two_sizes_of_a_model_share_a_symbol():
    from ssm_edu.commands.atlas import SYMBOLS

    assert len(set(SYMBOLS.values())) == len(SYMBOLS)


def test_the_table_with_numbers(tmp_path):
    path = tmp_path / "atlas.json"
    result = CliRunner().invoke(app, ["atlas", "s6", "hyena", "--length", "100", "--json", str(path)])
    assert result.exit_code == 0, result.output
    rows = json.loads(path.read_text("utf-8"))
    assert list(rows) == ["hyena", "s6"]
    for name, model in (("s6", s6), ("hyena", hyena)):
        sizes = default_sizes(model)
        assert rows[name]["state_size"] == model.CARD.state_size(length=100, **sizes)
        assert rows[name]["flops"] == model.CARD.flops(length=100, **sizes)
    assert "S4D" not in result.output


def test_an_unknown_model_is_a_usage_error():
    result = CliRunner().invoke(app, ["atlas", "s7"])
    assert result.exit_code == 2
    assert "no model named 's7'; the models are" in result.stderr


@settings(max_examples=10)  # the models, not the cases, are what differs
@given(seed=seeds)
def test_ten_tokens_one_by_one_or_in_two_goes(seed):
    """What `step` keeps is all that it needs: the state after 5 tokens goes on as if nothing had been cut."""
    for model in MODELS:
        params, x = draw(model, seed, 10)
        whole, _ = run_steps(model, params, x)
        state = run_steps(model, params, x[:5])[1]
        resumed = SimpleNamespace(first_state=lambda params, state=state: state, step=model.step)
        assert_close(run_steps(resumed, params, x[5:])[0], whole[5:], model.__name__)


def test_what_a_step_does_is_counted_or_refused():
    def step(params, state, x_t):
        y, h = s4d.step(params, state, x_t)
        return y + 0 * np.tensordot(h, h).real, h

    with pytest.raises(NotImplementedError, match=r"np\.tensordot is not counted"):
        check_card(tampered(s4d, step=step), 5)
