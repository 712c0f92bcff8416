"""Linear attention, RetNet, GLA, HGRN and RWKV-4, -6 and -7; and that the checks, and the claims on them, can fail.

What the heads of these models put out may pass a norm, which makes an error up to 316 times as large (`normalise`).
The tolerance of `common` is kept all the same: at length 17 and with keys of 4, such an output is a sum of 68
products, which 10³ roundings of 1.1e-16 put wrong by 1.1e-13 at the most, and 316 times that is 3.5e-11.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssm_edu import selective_scan
from ssm_edu.atlas import _wkv, gla, hgrn, linear_attention, retnet, rwkv4, rwkv6, rwkv7
from ssm_edu.atlas._heads import decayed_scores, decays, normalise
from ssm_edu.derivations import load
from ssm_edu.lti import convolve, kernel, recurrence
from ssm_edu.scan import SCANS
from tests.atlas.common import (
    TOLERANCE,
    assert_close,
    check_bad_input,
    check_card,
    check_causality,
    check_complexity,
    check_forms_agree,
    check_inputs_unchanged,
    check_model,
    draw,
    layer_norm,
    lengths,
    run_steps,
    seeds,
    sigma,
    silu,
    tampered,
)

derivation = load("attention_as_ssm")
few, widths, sizes = st.integers(1, 3), st.integers(1, 6), st.integers(2, 4)
rwkv_sizes = st.builds(lambda heads, size, rank: {"width": heads * size, "heads": heads, "rank": rank}, few, sizes, few)
SIZES = {
    linear_attention: st.fixed_dictionaries({"width": widths, "key": widths}),
    retnet: st.fixed_dictionaries({"width": widths, "heads": few, "pair": few, "value": sizes}),
    gla: st.fixed_dictionaries({"width": widths, "heads": few, "key": few, "value": sizes, "rank": few}),
    hgrn: st.fixed_dictionaries({"width": widths, "hidden": widths}),
    rwkv4: st.fixed_dictionaries({"width": widths}),
    rwkv6: rwkv_sizes,
    rwkv7: rwkv_sizes,
}
MODELS = pytest.mark.parametrize("model", SIZES, ids=lambda model: model.__name__.rpartition(".")[2])


@pytest.mark.usefixtures("no_type_checks")
@MODELS
@given(data=st.data(), seed=seeds, length=lengths)
def test_all_forms_agree_and_no_output_sees_the_future(model: Any, data: Any, seed: int, length: int) -> None:
    """ATT-1, ATT-2, ATT-7, ATT-11, ATT-16, ATT-23, ATT-25 and ATT-26, on the models as they are."""
    check_model(model, seed, length, **data.draw(SIZES[model]))


@MODELS
def test_bad_input_is_refused_by_name(model: Any) -> None:
    check_bad_input(model)


@pytest.mark.usefixtures("no_type_checks")
@MODELS
@given(data=st.data(), length=st.integers(2, 9))
def test_the_card_is_what_a_step_keeps_and_computes(model: Any, data: Any, length: int) -> None:
    check_card(model, length, **data.draw(SIZES[model]))


@MODELS
def test_parallel_costs_what_the_card_says(model: Any) -> None:
    check_complexity(model)


@given(st.integers(1, 40), seeds, st.floats(-3, 4))
def test_decays_are_products(length: int, seed: int, scale: float) -> None:
    """ATT-12, ATT-13: by multiplication; the error of an exponent is below the bound of ATT-13."""
    log_a = -(10**scale) * np.random.default_rng(seed).exponential(size=(length, 2))
    D, product = decays(log_a), np.zeros((length, length, 2))
    for i in range(length):
        product[i:, i] = np.cumprod(np.concatenate([np.ones((1, 2)), np.exp(log_a[i + 1 :])]), axis=0)
    u = np.finfo(float).eps / 2
    total = np.abs(log_a).sum(axis=0)
    relative = np.expm1(2 * (length + 1) * u * total + 4 * (length + 1) * u)
    # products that underflow do so at once in one form, bit by bit in the other
    assert np.all(abs(D - product) <= relative * product + length * np.finfo(float).tiny)
    assert np.all((D >= 0) & (D <= 1))


def test_a_decay_may_be_0_or_1() -> None:
    a = np.array([[1.0], [0.0], [1.0], [0.5]])
    with np.errstate(divide="ignore"):
        found = decays(np.log(a))[..., 0]
    np.testing.assert_array_equal(found, [[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 0.5, 0.5, 1]])


def test_a_strong_decay_does_not_hide_the_later_ones() -> None:
    """ATT-13: as it does in differences of sums from the start."""
    log_a = np.array([0, -1e16, -0.5, -0.25])
    total = np.cumsum(log_a)
    assert decays(log_a)[3, 1] == pytest.approx(np.exp(-0.75), rel=1e-15)
    assert np.exp(total[3] - total[1]) == 1


# Linear attention and RetNet


@given(seeds, lengths, few, few, sizes)
def test_retnet_by_loops(seed: int, length: int, heads: int, pair: int, value: int) -> None:
    """Eq. 5 and 8, with pairs of real numbers, which are turned, for the complex ones."""
    params, x = draw(retnet, seed, length, heads=heads, pair=pair, value=value)
    q, k = ((x @ W).reshape(length, heads, pair, 2) for W in (params.W_Q, params.W_K))
    v, o = (x @ params.W_V).reshape(length, heads, value), np.zeros((length, heads, value))
    for h in range(heads):
        for n in range(length):
            for m in range(n + 1):
                for i, a in enumerate(params.A[h]):
                    angle = (n - m) * np.angle(a)
                    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
                    o[n, h] += abs(a) ** (n - m) * (turn @ q[n, h, i] @ k[m, h, i]) * v[m, h]
            o[n, h] = layer_norm(o[n, h])
    z = x @ params.W_G
    assert_close(retnet.parallel(params, x), (silu(z) * o.reshape(length, -1)) @ params.W_O, "by loops")


@given(seeds, lengths, widths)
def test_the_selective_scan_without_decay_is_linear_attention(seed: int, length: int, width: int) -> None:
    """ATT-3, ATT-4: with the normaliser as one channel more."""
    params, x = draw(linear_attention, seed, length, width=width)
    q, k, v = linear_attention.project(params, x)
    ones = np.ones((1, width + 1, length))
    sums = selective_scan(v.T[None], ones, np.zeros((width + 1, 3)), k.T[None], q.T[None], backend="reference")
    assert_close(linear_attention.ratio(sums[0].T), linear_attention.parallel(params, x), "selective scan")


@given(seeds, lengths, widths)
def test_linear_attention_by_loops(seed: int, length: int, key: int) -> None:
    """Eq. 7 to 9."""
    params, x = draw(linear_attention, seed, length, key=key)
    q, k = (np.where(z > 0, z + 1, np.exp(z)) for z in (x @ params.W_Q, x @ params.W_K))
    y = np.empty_like(x)
    for i in range(length):
        weights = np.array([q[i] @ k[j] for j in range(i + 1)])
        y[i] = weights / weights.sum() @ (x[: i + 1] @ params.W_V)
    assert_close(linear_attention.parallel(params, x), y, "by loops")


def test_weights_that_underflow_are_refused() -> None:
    """φ(−1000) is 0 in floating point, and the mean of no values is no number."""
    params, x = draw(linear_attention, 0, 5)
    for run in (linear_attention.parallel, lambda params, x: linear_attention.as_affine_scan(params, x).outputs()):
        with pytest.raises(
            ValueError, match=r"x makes a sum of weights φ\(q\)·φ\(k\) of 0; expected 4\.5\d*e-277 or more"
        ):
            run(params, 1e4 * x)
    state = linear_attention.first_state(params)
    dark = replace(params, W_K=np.full_like(params.W_K, -1.0))
    with pytest.raises(ValueError, match=r"x makes a sum of weights"):
        linear_attention.step(dark, state, [400.0] * 4)
    # e^−600 a weight is far above what is lost
    faint = 150.0 * np.ones((5, 4))
    assert_close(run_steps(linear_attention, dark, faint)[0], linear_attention.parallel(dark, faint), "faint weights")


@given(seeds, st.integers(1, 6))
def test_features_have_the_rank_that_softmax_has_not(seed: int, key: int) -> None:
    """ATT-5, ATT-6."""
    params, x = draw(linear_attention, seed, 12, width=8, key=key)
    q, k, _ = linear_attention.project(params, x)
    assert np.linalg.matrix_rank(q @ k.T) <= key
    points = np.linspace(-2, 2, 8)
    assert np.linalg.matrix_rank(np.exp(np.outer(points, points))) == 8


@given(seeds, lengths, st.integers(1, 20), few)
def test_retention_by_chunks(seed: int, length: int, chunk: int, heads: int) -> None:
    """ATT-8."""
    params, x = draw(retnet, seed, length, heads=heads)
    assert_close(retnet.chunkwise(params, x, chunk), retnet.parallel(params, x), f"chunks of {chunk}")


def test_a_chunk_must_be_positive() -> None:
    params, x = draw(retnet, 0, 3)
    with pytest.raises(ValueError, match="chunk is 0, expected an integer of at least 1"):
        retnet.chunkwise(params, x, 0)


@given(seeds, lengths)
def test_retention_with_constant_queries_is_a_convolution(seed: int, length: int) -> None:
    """ATT-9, ATT-10: o = Re K * v with S4's kernel; x itself goes in to the third power."""
    rng = np.random.default_rng(seed)
    A = retnet.init(rng).A[0]
    q, k = (rng.standard_normal(A.size) + 1j * rng.standard_normal(A.size) for _ in range(2))
    v = rng.standard_normal(length)
    s, o = np.zeros(A.size, complex), np.empty(length)
    for n in range(length):
        s = A * s + np.conj(k) * v[n]
        o[n] = (q @ s).real
    assert_close(convolve(kernel(A, np.conj(k), q, length).real, v), o, "by convolution")


def test_retention_is_cubic_before_its_norm() -> None:
    """ATT-9."""
    params, x = draw(retnet, 0, 5)

    def o(x: Any) -> Any:
        q, k, v = retnet.project(params, x)
        return np.einsum("hk,nhk,nhv->hv", q[-1], np.conj(k), v).real

    np.testing.assert_allclose(o(2 * x), 8 * o(x), rtol=1e-12)


# GLA and HGRN, and Mamba


@given(seeds, lengths, few, few, sizes)
def test_gla_by_loops(seed: int, length: int, heads: int, key: int, value: int) -> None:
    params, x = draw(gla, seed, length, heads=heads, key=key, value=value)
    o = np.empty((length, heads * value))
    for head in range(heads):
        keys, values = slice(head * key, (head + 1) * key), slice(head * value, (head + 1) * value)
        S = np.zeros((key, value))
        for t in range(length):
            alpha = sigma(x[t] @ params.W_alpha1 @ params.W_alpha2[:, keys] + params.b_alpha[head]) ** (1 / 16)
            S = alpha[:, None] * S + np.outer(x[t] @ params.W_K[:, keys], x[t] @ params.W_V[:, values])
            o[t, values] = layer_norm(x[t] @ params.W_Q[:, keys] @ S)
    r = x @ params.W_r + params.b_r
    assert_close(gla.parallel(params, x), (silu(r) * o) @ params.W_O, "by loops")


@given(seeds, lengths, widths)
def test_hgrn_by_loops(seed: int, length: int, hidden: int) -> None:
    params, x = draw(hgrn, seed, length, hidden=hidden)
    h, y = np.zeros(hidden, complex), np.empty_like(x)
    for t in range(length):
        mu, real, imaginary = (x[t] @ W + b for W, b in zip(params.W, params.b, strict=True))
        lam = params.gamma + (1 - params.gamma) * sigma(mu)
        h = lam * np.exp(1j * params.theta) * h
        h += (1 - lam) * (silu(real) + 1j * silu(imaginary))
        gated = sigma(x[t] @ params.W_g + params.b_g) * np.concatenate([h.real, h.imag])
        y[t] = layer_norm(gated) @ params.W_o + params.b_o
    assert_close(hgrn.parallel(params, x), y, "by loops")


def test_retnets_heads_forget_at_rates_that_halve() -> None:
    """Eq. 8: γ = 1 − 2^{−5−h}; and θ from 1 to 10⁻⁴ in each head."""
    A = retnet.init(np.random.default_rng(0), heads=3, pair=3).A
    np.testing.assert_allclose(1 - np.abs(A), np.tile([[1 / 32], [1 / 64], [1 / 128]], 3), rtol=1e-13)
    np.testing.assert_allclose(np.angle(A), np.tile([1, 1e-2, 1e-4], (3, 1)), rtol=1e-11)


@given(seeds, lengths, few, widths)
def test_mamba_is_gla_with_a_head_for_each_channel(seed: int, length: int, dim: int, state: int) -> None:
    """ATT-14, ATT-15; and its logarithms of decays have rank 1, where GLA's have the rank they like."""
    rng = np.random.default_rng(seed)
    u, B, C = (rng.standard_normal((length, n)) for n in (dim, state, state))
    delta, A = rng.exponential(size=(length, dim)), -rng.exponential(size=(dim, state))
    log_a = delta[:, :, None] * A
    scores = decayed_scores(np.repeat(C[:, None], dim, axis=1), delta[:, :, None] * B[:, None], log_a)
    y = selective_scan(u.T[None], delta.T[None], A, B.T[None], C.T[None], backend="reference")[0].T
    assert_close(np.einsum("hti,ih->th", scores, u), y, "selective scan")
    assert np.linalg.matrix_rank(log_a[:, 0]) == 1
    params, x = draw(gla, seed, 17, width=6, key=2)
    assert np.linalg.matrix_rank(gla.log_alpha(params, x)[:, 0]) == 2


@given(seeds, lengths, widths)
def test_hgrn_is_a_zero_order_hold(seed: int, length: int, hidden: int) -> None:
    """ATT-27, ATT-28: without the turn, the selective scan with A = −1, B = C = 1, and Δ = −log λ ≤ −log γ."""
    params, x = draw(hgrn, seed, length, hidden=hidden)
    params = replace(params, theta=np.zeros(hidden))
    a, b = hgrn.gates(params, x)
    delta, ones = -np.log(a.real), np.ones((1, 1, length))
    assert np.all(delta <= -np.log(params.gamma) * (1 + 1e-14))
    c = b.real / (1 - a.real)
    y = selective_scan(
        c.T[None], delta.T[None], -np.ones((hidden, 1)), ones, ones, discretization="zoh", backend="reference"
    )
    states = hgrn.as_affine_scan(params, x).states()
    assert_close(y[0], states.real, "selective scan")
    # the state stays in the range of what was written
    assert np.all(abs(states.real) <= abs(c).max(axis=0)[:, None] * (1 + 1e-13))


@given(seeds, st.integers(1, 6), widths)
def test_lower_bounds_rise_from_0_and_stay_below_1(seed: int, layers: int, hidden: int) -> None:
    """ATT-28."""
    gamma = hgrn.lower_bounds(np.random.default_rng(seed).standard_normal((layers, hidden)))
    assert np.all(gamma[0] == 0)
    assert np.all(np.diff(gamma, axis=0) > 0)
    assert np.all(gamma < 1)


# RWKV


def wkv_inputs(seed: int, length: int, size: float) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    k, v = size * rng.uniform(-1, 1, (length, 2)), rng.standard_normal((length, 2))
    return rng.exponential(size=2), rng.standard_normal(2), k, v


@given(seeds, lengths, st.floats(-1, 6), st.sampled_from(list(SCANS)))
def test_the_stable_form_scans(seed: int, length: int, scale: float, scan: str) -> None:
    """ATT-18, ATT-19, ATT-21, ATT-22: against a softmax, with keys up to 10⁶; and a mean stays among its values."""
    w, u, k, v = wkv_inputs(seed, length, 10**scale)
    found, expected = _wkv.wkv_scan(w, u, k, v, scan), _wkv.wkv_attention(w, u, k, v)
    assert np.all(abs(found - expected) <= 2 * derivation.wkv_bound(w, u, k, v))
    running = [extreme.accumulate(v) for extreme in (np.minimum, np.maximum)]
    assert np.all((running[0] - 1e-12 <= found) & (found <= running[1] + 1e-12))


@given(seeds, lengths, st.floats(-100, 100))
def test_wkv_does_not_see_a_shift_of_the_keys(seed: int, length: int, shift: float) -> None:
    """ATT-18."""
    w, u, k, v = wkv_inputs(seed, length, 1.0)
    assert_close(_wkv.wkv_attention(w, u, k + shift, v), _wkv.wkv_attention(w, u, k, v), "shifted")


@given(seeds, lengths)
def test_wkv_is_the_ratio_of_two_ssms(seed: int, length: int) -> None:
    """ATT-16, ATT-17: by S4's recurrence and by its convolution, with D = e^u."""
    w, u, k, v = wkv_inputs(seed, length, 1.0)
    expected = _wkv.wkv_attention(w, u, k, v)
    assert_close(_wkv.wkv_naive(w, u, k, v), expected, "the naive form")
    for d in range(2):
        sums = []
        for g in (np.exp(k[:, d]) * v[:, d], np.exp(k[:, d])):
            late = np.concatenate([[0], g[:-1]])
            past = recurrence(np.exp(-w[d : d + 1]), [1], [1], late)
            K = kernel(np.exp(-w[d : d + 1]), [1], [1], length)
            assert_close(convolve(K, late), past, "by convolution")
            sums.append(past + np.exp(u[d]) * g)
        assert_close(sums[0] / sums[1], expected[:, d], "the ratio")


def test_the_naive_form_overflows_where_the_stable_one_holds() -> None:
    """ATT-20, ATT-21."""
    w, u, k, v = wkv_inputs(0, 9, 1.0)
    k[4] += 800
    with np.errstate(all="ignore"):
        assert np.isnan(_wkv.wkv_naive(w, u, k, v)[4]).all()
    assert_close(_wkv.wkv_scan(w, u, k, v)[4], v[4], "a key that outweighs all others")
    params, x = draw(rwkv4, 0, 9)
    with pytest.raises(ValueError, match=r"x makes a key k or k \+ u of size 1\d\d\d.*; expected at most 600"):
        rwkv4.as_affine_scan(replace(params, u=params.u + 1000), x)
    # at the limit, many loud tokens still fit below the largest float
    still = replace(params, W=params.W * np.array([1.0, 0.0, 1e6])[:, None, None], u=0 * params.u + 599)
    assert_close(rwkv4.as_affine_scan(still, x).outputs(), rwkv4.parallel(still, x), "e^599 as it is")
    loud = replace(params, W=params.W * np.array([1.0, 1e3, 1.0])[:, None, None])
    assert_close(run_steps(rwkv4, loud, x)[0], rwkv4.parallel(loud, x), "steps with keys of 1000")


# Other people's implementations, where they are installed


def test_wkv_is_torch_attention_without_a_query() -> None:
    """ATT-18: `scaled_dot_product_attention` with q = 0, and the exponents of each channel for its mask."""
    torch = pytest.importorskip("torch")
    w, u, k, v = wkv_inputs(0, 17, 3.0)
    t = np.arange(17)
    lag = (t[:, None] - t)[..., None]
    mask = np.where(lag > 0, k - (lag - 1) * w, np.where(lag == 0, k + u, -np.inf))
    nothing = torch.zeros(2, 17, 1, dtype=torch.float64)
    values, mask = torch.from_numpy(v.T[..., None].copy()), torch.from_numpy(np.moveaxis(mask, -1, 0).copy())
    found = torch.nn.functional.scaled_dot_product_attention(nothing, nothing, values, attn_mask=mask)
    assert_close(found[..., 0].numpy().T, _wkv.wkv_attention(w, u, k, v), "torch")


def test_rwkv4_is_the_layer_of_transformers() -> None:
    torch = pytest.importorskip("torch")
    modeling = pytest.importorskip("transformers.models.rwkv.modeling_rwkv")
    params, x = draw(rwkv4, 0, 17, width=8)
    config = modeling.RwkvConfig(vocab_size=2, hidden_size=8, attention_hidden_size=8, num_hidden_layers=1)
    layer = modeling.RwkvSelfAttention(config)
    weights = {
        "time_decay": np.log(params.w),
        "time_first": params.u,
        **{
            f"time_mix_{name}": mu[None, None]
            for name, mu in zip(("receptance", "key", "value"), params.mu, strict=True)
        },
        **{f"{name}.weight": W.T for name, W in zip(("receptance", "key", "value"), params.W, strict=True)},
        "output.weight": params.W_o.T,
    }
    layer.load_state_dict({name: torch.tensor(value, dtype=torch.float32) for name, value in weights.items()})
    with torch.no_grad():
        found, _ = layer(torch.tensor(x[None], dtype=torch.float32))
    # it computes in single precision: some 10² roundings of 6e-8 of numbers of size 1
    np.testing.assert_allclose(found[0].numpy(), rwkv4.parallel(params, x), atol=1e-5)


def test_linear_attention_is_torch_elu_and_cumsum() -> None:
    """ATT-1, ATT-2."""
    torch = pytest.importorskip("torch")
    params, x = draw(linear_attention, 0, 17, width=8)
    q, k = (torch.nn.functional.elu(torch.from_numpy(x @ W)) + 1 for W in (params.W_Q, params.W_K))
    s = torch.cumsum(k[:, :, None] * torch.from_numpy(x @ params.W_V)[:, None], dim=0)
    found = torch.einsum("tk,tkv->tv", q, s) / (q * torch.cumsum(k, dim=0)).sum(dim=-1, keepdim=True)
    assert_close(found.numpy(), linear_attention.parallel(params, x), "torch")


@given(seeds, st.integers(1, 3), st.integers(2, 5))
def test_a_goose_replaces_what_it_stored(seed: int, heads: int, size: int) -> None:
    """ATT-24, ATT-25: with w = a = 1 and k̃ = κ̂, what is read at the key is the last value written there."""
    rng = np.random.default_rng(seed)
    kappa, v, S = (rng.standard_normal((heads, *shape)) for shape in ((size,), (size,), (size, size)))
    kappa /= np.sqrt((kappa**2).sum(axis=-1, keepdims=True))
    nothing, one = np.zeros_like(kappa), np.ones(heads * size)
    p = rwkv7.Projections(r=kappa, k=kappa, v=v, log_w=nothing, kappa=kappa, removed=kappa, g=one)
    after = rwkv7.transitions(p) @ S + kappa[..., None] * v[:, None, :]
    assert_close(np.einsum("hn,hnv->hv", kappa, after), v, "read at the key")
    other = rng.standard_normal((heads, size))
    other -= (other * kappa).sum(axis=-1, keepdims=True) * kappa
    assert_close(np.einsum("hn,hnv->hv", other, after), np.einsum("hn,hnv->hv", other, S), "read across")


def test_a_goose_removes_along_a_unit_vector_however_small_the_key() -> None:
    params, x = draw(rwkv7, 0, 9)
    for size in (1.0, 1e-9):
        kappa = rwkv7.project(params, size * x, 0 * x).kappa
        np.testing.assert_allclose((kappa**2).sum(axis=-1), 1, rtol=1e-13)
    assert np.all(rwkv7.project(params, 0 * x, 0 * x).kappa == 0)


def test_transitions_of_a_goose_do_not_commute() -> None:
    """ATT-24."""
    params, x = draw(rwkv7, 0, 2, heads=1)
    one, other = rwkv7.transitions(rwkv7.project(params, x, 0 * x))[:, 0]
    assert abs(one @ other - other @ one).max() > 0.01


def test_heads_must_divide_the_width() -> None:
    for model in (rwkv6, rwkv7):
        with pytest.raises(ValueError, match="heads must divide width; found 4 heads and width 6"):
            model.init(np.random.default_rng(0), width=6, heads=4)


def test_the_norm_stretches_by_316_at_most() -> None:
    tiny = 1e-12 * np.random.default_rng(0).standard_normal((100, 3))
    assert abs(normalise(tiny)).max() <= 1e-5**-0.5 * 2 * abs(tiny).max()
    assert normalise(np.array([[1.0, 2.0, 3.0]])) == pytest.approx(np.array([[-1, 0, 1]]) * 1.5**0.5, rel=1e-5)


# The checks on models that are wrong


def without_decay(params: Any, state: Any, x_t: Any) -> Any:
    return retnet.step(replace(params, A=params.A / abs(params.A)), state, x_t)


def without_mask(params: Any, x: Any) -> Any:
    q, k, v = linear_attention.project(params, x)
    return linear_attention.ratio(q @ k.T @ v)


def early(module: Any) -> Any:
    """The affine scan with what each token writes moved to the token before."""

    def as_affine_scan(params: Any, x: Any) -> Any:
        affine = module.as_affine_scan(params, x)
        return replace(affine, b=np.roll(affine.b, -1, axis=-1))

    return as_affine_scan


def in_place(params: Any, state: Any, x_t: Any) -> Any:
    y, s = gla.step(params, state, x_t)
    state[...] = s
    return y, state


def nearly(params: Any, state: Any, x_t: Any) -> Any:
    y, S = rwkv7.step(params, state, x_t)
    return y * (1 + 100 * TOLERANCE), S


@pytest.mark.parametrize(
    ("check", "model", "functions"),
    [
        (check_forms_agree, retnet, {"step": without_decay}),
        (check_forms_agree, rwkv7, {"step": nearly}),
        (check_forms_agree, hgrn, {"as_affine_scan": early(hgrn)}),
        (check_forms_agree, rwkv6, {"as_affine_scan": early(rwkv6)}),
        (check_causality, linear_attention, {"parallel": without_mask}),
        (check_causality, gla, {"as_affine_scan": early(gla)}),
        (check_inputs_unchanged, gla, {"step": in_place}),
    ],
)
def test_the_checks_fail_wrong_models(check: Any, model: Any, functions: Any) -> None:
    check(model, 0, 9)
    with pytest.raises(AssertionError):
        check(tampered(model, **functions), 0, 9)


@MODELS
@pytest.mark.parametrize("formula", ["state_size", "flops", "memory"])
def test_the_check_of_cards_fails_a_wrong_formula(model: Any, formula: str) -> None:
    right = getattr(model.CARD, formula)
    wrong = replace(model.CARD, **{formula: lambda **sizes: right(**sizes) + 1})
    with pytest.raises(AssertionError, match=formula):
        check_card(tampered(model, CARD=wrong), 5)


@MODELS
@pytest.mark.parametrize("fact", ["time_invariant", "input_dependent_decay"])
def test_the_check_of_cards_fails_a_wrong_fact(model: Any, fact: str) -> None:
    wrong = replace(model.CARD, **{fact: not getattr(model.CARD, fact)})
    with pytest.raises(AssertionError, match=fact):
        check_card(tampered(model, CARD=wrong), 5)


# The claims on what is wrong


def doubled_states(a: Any, k: Any, v: Any) -> Any:
    return [2 * S for S in derivation_recurrence(a, k, v)]


def off_by_one(log_a: Any) -> Any:
    return decays(np.roll(log_a, 1, axis=0))


def doubled(*args: Any, **options: Any) -> Any:
    return 2 * selective_scan(*args, **options)


derivation_recurrence = derivation.recurrence


@pytest.mark.parametrize(
    ("claim", "name", "wrong"),
    [
        ("linear_attention", "recurrence", doubled_states),  # ATT-1
        ("normaliser", "recurrence", lambda a, k, v: derivation_recurrence(a, k, [x + 1 for x in v])),  # ATT-2
        ("selective_scan_with_no_decay", "selective_scan", doubled),  # ATT-4
        ("retention", "recurrence", doubled_states),  # ATT-7
        ("chunkwise", "recurrence", doubled_states),  # ATT-8
        ("retention_as_s4d", "recurrence", doubled_states),  # ATT-10
        ("gated_linear_attention", "recurrence", doubled_states),  # ATT-11
        ("decays_in_log_space", "decays", off_by_one),  # ATT-13
        ("s6_is_gla", "decayed_scores", lambda q, k, log_a: decayed_scores(q, k, 0.5 * log_a)),  # ATT-15
        ("wkv_is_a_ratio", "wkv_terms", lambda k, t: k[: t + 1]),  # ATT-16
        ("wkv_sums_are_convolutions", "recurrence", lambda a, k, v: derivation_recurrence([2] * 5, k, v)),  # ATT-17
        ("wkv_is_a_mean", "wkv_terms", lambda k, t: [2 * x for x in k[: t + 1]]),  # ATT-18
        ("stable_scan", "affine_combine", lambda second, first: (second[0] * first[0], second[1])),  # ATT-22
        ("finch", "recurrence", lambda a, k, v: derivation_recurrence(a[::-1], k, v)),  # ATT-23
    ],
)
def test_a_wrong_formula_is_refuted(monkeypatch: pytest.MonkeyPatch, claim: str, name: str, wrong: Any) -> None:
    one = getattr(derivation, claim)
    assert one.declared != "refuted"
    monkeypatch.setattr(derivation, name, wrong)
    assert one.check().verdict == "refuted"


def test_a_wrong_wkv_is_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    """ATT-21."""
    wkv_scan = _wkv.wkv_scan
    monkeypatch.setattr(_wkv, "wkv_scan", lambda w, u, k, v, scan: wkv_scan(w, 0 * u, k, v, scan))
    assert derivation.stable_wkv.check().verdict == "refuted"
