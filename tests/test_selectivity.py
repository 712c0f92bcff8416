"""What selection does, by the library's numbers, and that the derivation's checks can fail."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssm_edu import discretize_diagonal, selective_scan
from ssm_edu.derivations import load
from ssm_edu.selective import selective_scan_backward, selective_step

derivation = load("selectivity")
U = 2.0**-53
ZOH, MAMBA = (derivation.RULES[name] for name in ("zoh", "mamba"))


def sigmoid(s: float) -> float:
    return float(1 / (1 + np.exp(-s)))


def last_state(u: Any, delta: Any, B: Any, entry: float = -1.0, method: str = "zoh", **options: Any) -> Any:
    """The state of one channel after the last token."""
    u, delta, B = np.broadcast_arrays(*(np.asarray(v, float) for v in (u, delta, B)))
    inputs = (u[None, None], delta[None, None], [[entry]], B[None, None], B[None, None])
    options |= {"discretization": method, "backend": "reference"}
    return selective_scan(*inputs, return_last_state=True, **options)[1].item()


@given(st.floats(-30, 30), st.integers(1, 16))
def test_one_logit_is_the_gate_of_every_state(s: float, n: int) -> None:
    """SEL-1, SEL-2: Ā = (1 − σ(s))ⁿ and B̄ = (1 − (1 − σ(s))ⁿ)/n."""
    A_bar, B_bar = discretize_diagonal(-float(n), 1.0, np.logaddexp(0, s), "zoh")
    # Δ is good to 4u, and a relative error of Δ shifts Ā by nΔ of it
    rounding = (8 + 8 * n * np.logaddexp(0, s)) * U
    assert A_bar == pytest.approx(sigmoid(-s) ** n, rel=rounding + 8 * n * U)
    assert B_bar == pytest.approx((1 - sigmoid(-s) ** n) / n, abs=rounding + 8 * n * U)


@given(st.floats(-30, 30))
def test_the_released_rule_writes_more_than_the_gate(s: float) -> None:
    """SEL-3, SEL-4, SEL-6, SEL-7: B̄ = softplus(s) > σ(s), and the weights add up to more than 1."""
    A_bar, B_bar = discretize_diagonal(-1.0, 1.0, np.logaddexp(0, s), "mamba")
    assert A_bar == pytest.approx(sigmoid(-s), rel=8 * U * (1 + abs(s)))
    excess = B_bar - sigmoid(s)
    if s < -5:  # E²/2 − 2E³/3 + …; σ and softplus lose 4u of E each
        assert excess == pytest.approx(np.exp(2 * s) / 2, rel=2 * np.exp(s), abs=16 * U * np.exp(s))
    elif s > 5:
        assert excess == pytest.approx(s - 1, abs=3 * np.exp(-s))
    if s > -15:
        assert excess > 0
        assert A_bar + B_bar > 1


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 50)), min_size=1, max_size=20))
def test_the_hold_stays_in_the_range_of_its_inputs(steps: list[tuple[float, float]]) -> None:
    """SEL-5: for all Δ_t, |h| ≤ max |bu/a|."""
    u, delta = np.transpose(steps)
    largest = np.abs(u).max() / 2
    assert abs(last_state(u, delta, 1.0, entry=-2.0)) <= largest * (1 + 8 * len(u) * U)


def test_the_released_rule_leaves_it() -> None:
    """SEL-7."""
    assert last_state([1.0] * 5, [1.0, 1.0, 1.0, 1.0, 50.0], 1.0, entry=-2.0, method="mamba") > 49


def test_the_ends_of_the_gate() -> None:
    """SEL-8: closed to eˢ; open until e^{as} is left, having written −b/a under the hold and sb under ΔB."""
    for method, written in (("zoh", 0.5), ("mamba", 30.0)):
        options: dict[str, Any] = {"entry": -2.0, "method": method, "delta_softplus": True}
        for u, h0, s, expected in (
            (1.0, 0.0, -30.0, np.exp(-30.0)),
            (0.0, 1.0, 30.0, np.exp(-60.0)),
            (1.0, 0.0, 30.0, written),
        ):
            found = last_state([u], [s], [1.0], initial_state=[[[h0]]], **options)
            assert found == pytest.approx(expected, rel=1e-12)  # 1e-13 is e^{−30}, the next term


@pytest.mark.parametrize("method", ["zoh", "mamba"])
def test_what_the_last_state_holds_of_each_token(method: str) -> None:
    """SEL-9, SEL-10, SEL-11, SEL-12, SEL-13, SEL-16: noise is written by a large Δ, cut out by a small one or B = 0."""
    one = np.ones(4)

    def weights(noise_step: float, noise_map: float = 1.0) -> np.ndarray:
        delta, B = (np.array([1.0, noise, noise, 1.0]) for noise in (noise_step, noise_map))
        found = np.array([last_state(unit, delta, B, method=method) for unit in np.eye(4)])
        np.testing.assert_allclose(found, derivation.sensitivities(method, delta, B), rtol=32 * U)
        return found

    large, small, blocked = weights(40.0), weights(0.0), weights(40.0, 0.0)
    equilibrium = 1.0 if method == "zoh" else 40.0
    assert large[2] == pytest.approx(equilibrium * np.exp(-1), rel=1e-14)
    assert max(large[:2]) < 1e-15
    assert not small[1:3].any()
    pair = [last_state(unit, one[:2], one[:2], method=method) for unit in np.eye(2)]
    assert small[[0, 3]] == pytest.approx(pair, rel=4 * U)
    assert not blocked[1:3].any()
    assert blocked[0] < 1e-30


@given(st.floats(1e-6, 5), st.floats(1e-3, 1e3), st.floats(0.1, 10))
def test_the_price_of_a_write(delta: float, b: float, rate: float) -> None:
    """SEL-14, SEL-15: what is forgotten is |a|B̄/B, never nothing; and B̄ tends to ΔB."""
    A_bar, B_bar = discretize_diagonal(-rate, b, delta, "zoh")
    assert 1 - A_bar == pytest.approx(rate * B_bar / b, abs=8 * U)
    assert A_bar < 1
    assert abs(B_bar / (delta * b) - 1) <= delta * rate / 2 + 8 * U


def test_b_c_and_a_as_gates() -> None:
    """SEL-17, SEL-18, SEL-19."""
    u, delta = np.array([[[1.0, 2.0, 3.0]]]), np.full((1, 1, 3), 0.7)
    A, M = np.array([[-1.0, -2.0]]), np.ones((1, 2, 3))
    closed = M.copy()
    closed[..., 1] = 0
    run: dict[str, Any] = {"backend": "reference", "return_last_state": True, "discretization": "zoh"}
    changed = u + [[[0.0, 9.0, 0.0]]]
    assert np.array_equal(
        selective_scan(changed, delta, A, closed, M, **run)[1], selective_scan(u, delta, A, closed, M, **run)[1]
    )
    y, h = selective_scan(u, delta, A, M, closed, **run)
    assert y[0, 0, 1] == 0
    assert np.array_equal(h, selective_scan(u, delta, A, M, M, **run)[1])

    factor = 4.0  # a power of two, so that nothing is rounded
    for method in ("mamba", "zoh", "bilinear"):
        run["discretization"] = method
        by_A = selective_scan(u, delta, factor * A, M, M, **run)
        by_delta = selective_scan(u, factor * delta, A, M / factor, M, **run)
        assert all(np.array_equal(*pair) for pair in zip(by_A, by_delta, strict=True))
    # a factor for each state asks one Δ to be two numbers
    wanted = np.exp(0.7 * np.array([-1.0, -6.0]))
    assert np.ptp(np.log(wanted) / A[0]) > 1


@given(st.integers(2, 6), st.integers(0, 3))
def test_the_best_kernel_for_selective_copying_takes_the_mean(places: int, more: int) -> None:
    """SEL-20, SEL-21: least squares over all places leaves 1 − 1/m, and one place alone nothing."""
    T = places + more
    layouts = np.eye(T)[:places]

    def best_error(layouts: np.ndarray) -> float:
        # with white tokens the error of K against a layout is |K − e_p|²
        kernel = np.linalg.lstsq(np.tile(np.eye(T), (len(layouts), 1)), layouts.ravel(), rcond=None)[0]
        return float(np.mean(((layouts - kernel) ** 2).sum(axis=1)))

    assert best_error(layouts) == pytest.approx(1 - 1 / places, abs=64 * T * U)
    assert best_error(layouts[:1]) <= 64 * T * U


def test_the_scan_recalls_what_no_kernel_can() -> None:
    """SEL-22, SEL-23: two sequences that differ only in where the noise stands; with distinct states alone."""
    values = np.array([0.3, -0.8])
    found = [derivation.recall(values, gaps, np.random.default_rng(1), False)[0] for gaps in ([0, 5], [3, 1])]
    # κ is 13 and four steps round it
    np.testing.assert_allclose(found, [values, values], atol=100 * 13 * U)
    assert np.linalg.matrix_rank([[0.25, 0.5], [0.25, 0.5]]) == 1  # two equal entries of A


def test_the_state_is_all_that_decoding_keeps() -> None:
    """SEL-24."""
    h = np.zeros((1, 3, 4))
    for u in np.random.default_rng(0).normal(size=(50, 1, 3)):
        _, h = selective_step(h, u, 0.1 * np.ones((1, 3)), -np.ones((3, 4)), np.ones((1, 4)), np.ones((1, 4)))
        assert h.size == 3 * 4


def test_the_articles_code_is_the_released_rule() -> None:
    """SEL-25, SEL-26: one token, by hand: y = (CΔBx + Dx) silu(res)."""
    one = np.ones((1, 1, 1))
    y = derivation.article_scan(2 * one, 3 * one, 0.5 * one, -one[0], 5 * one, 7 * one, np.ones(1)).item()
    by_hand = {"mamba": 0.5, "zoh": -np.expm1(-0.5)}
    gate = 3 / (1 + np.exp(-3))
    assert y == pytest.approx((7 * by_hand["mamba"] * 5 * 2 + 2) * gate, rel=8 * U)
    assert abs(y / ((7 * by_hand["zoh"] * 5 * 2 + 2) * gate) - 1) > 0.1


def test_a_large_step_resets_by_overwriting() -> None:
    """SEL-27: the boundary token's own Δ is spent, where seq_idx leaves it."""
    by_step = last_state([7.0, 1.0], [1.0, 50.0], 1.0)
    by_index = last_state([7.0, 1.0], [1.0, 0.1], 1.0, seq_idx=[[0, 1]])
    assert by_step == pytest.approx(1, abs=8 * U)
    assert by_index == last_state([1.0], [0.1], [1.0])


def twice_the_decay(u: Any, delta: Any, A: Any, *rest: Any, **options: Any) -> Any:
    return selective_scan(u, delta, 2 * np.asarray(A), *rest, **options)


def twice_the_decay_backward(grad_y: Any, u: Any, delta: Any, A: Any, *rest: Any, **options: Any) -> Any:
    return selective_scan_backward(grad_y, u, delta, 2 * np.asarray(A), *rest, **options)


def without_seq_idx(*inputs: Any, seq_idx: Any = None, **options: Any) -> Any:
    return selective_scan(*inputs, **options)


def with_a_memory_of_its_own(*inputs: Any, calls: Any = count()) -> Any:  # noqa: B008
    y, h = selective_step(*inputs)
    return y + 1e-9 * next(calls), h


@pytest.mark.parametrize(
    ("claim", "name", "wrong"),
    [
        ("sensitivities_are_products", "selective_scan", twice_the_decay),  # SEL-9
        ("sensitivities_are_products", "selective_scan_backward", twice_the_decay_backward),
        ("four_tokens", "ARTICLE", derivation.PAPER),  # SEL-13
        ("four_tokens", "PAPER", derivation.ARTICLE),
        ("no_kernel_selects", "combinations", lambda places, two: [(0, 0)]),  # SEL-20
        ("scan_recalls", "selective_scan", twice_the_decay),  # SEL-23
        ("size_of_the_state", "selective_step", with_a_memory_of_its_own),  # SEL-24
        ("article_code_is_mamba", "selective_scan", twice_the_decay),  # SEL-26
        ("reset_at_a_boundary", "selective_scan", without_seq_idx),  # SEL-27
    ],
)
def test_a_wrong_scan_is_refuted(monkeypatch: pytest.MonkeyPatch, claim: str, name: str, wrong: Any) -> None:
    one = getattr(derivation, claim)
    assert one.declared != "refuted"
    monkeypatch.setattr(derivation, name, wrong)
    assert one.check().verdict == "refuted"


@pytest.mark.parametrize(
    ("claim", "name", "wrong"),
    [
        ("theorem_one", "zoh", MAMBA),  # SEL-1
        ("powers_of_a_gate", "zoh", MAMBA),  # SEL-2
        ("input_weight_of_the_code", "mamba", ZOH),  # SEL-4
        ("hold_is_convex", "zoh", MAMBA),  # SEL-5
        ("code_overshoots", "mamba", ZOH),  # SEL-7
        ("ends_of_the_gate", "zoh", (ZOH[0], 2 * ZOH[1], ZOH[2])),  # SEL-8
        ("large_step_on_noise", "zoh", (ZOH[0], 2 * ZOH[1], ZOH[2])),  # SEL-11
        ("large_step_on_noise", "mamba", ZOH),
        ("small_step_on_noise", "bilinear", (2 * ZOH[0], *ZOH[1:])),  # SEL-12
        ("price_of_a_write", "zoh", MAMBA),  # SEL-15
        ("closed_b_on_noise", "mamba", (2 * ZOH[0], *ZOH[1:])),  # SEL-16
        ("gates", "zoh", MAMBA),  # SEL-17
    ],
)
def test_a_wrong_rule_is_refuted(monkeypatch: pytest.MonkeyPatch, claim: str, name: str, wrong: Any) -> None:
    one = getattr(derivation, claim)
    assert one.declared != "refuted"
    monkeypatch.setitem(derivation.RULES, name, wrong)
    assert one.check().verdict == "refuted"


def test_four_tokens_figure_draws() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = derivation.four_tokens_figure()
    FigureCanvasAgg(figure).draw()
    assert [len(axes.patches) for axes in figure.axes] == [4, 4]
