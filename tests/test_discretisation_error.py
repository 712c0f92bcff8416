"""The error and the stability of the discretisation rules, and that the checks on them can fail."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssm_edu import METHODS, discretize_diagonal
from ssm_edu.derivations import load
from ssm_edu.discretize import exponential_trapezoidal
from ssm_edu.ledger import Refuted, Undecided, Work
from ssm_edu.phi import dphi1, phi1, phi2

error = load("discretisation_error")
stability = load("stability")
U = 2.0**-53

ZOH, FOH, BILINEAR = METHODS["zoh"], METHODS["foh"], METHODS["bilinear"]
one_percent_off = replace(ZOH, p=lambda z: 1.01 * phi1(z))
inconsistent = replace(ZOH, p=lambda z: 1.5 * phi1(z))
first_order_foh = replace(FOH, p=lambda z: phi2(z) + 0.5 * z)


@pytest.mark.parametrize(
    ("wrong", "held", "order"),
    [(inconsistent, False, 0), (inconsistent, True, 0), (first_order_foh, False, 1), (ZOH, False, 1)],
)
def test_a_wrong_weight_lowers_the_measured_order(wrong, held, order):
    """ERR-16, ERR-17: the slope tells a consistent rule from one that is not, and order 1 from order 2."""
    assert error.measured_order(wrong, held) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize(
    ("derivation", "function", "wrong"),
    [
        (error, "table_is_the_code", one_percent_off),  # ERR-9
        (error, "orders_smooth", replace(BILINEAR, order=2)),  # ERR-10
        (error, "orders_held", replace(BILINEAR, order_held=1)),  # ERR-11
        (error, "orders_held", replace(FOH, order_held=2)),
        (error, "measured_orders_smooth", first_order_foh),  # ERR-16
        (error, "measured_orders_smooth", one_percent_off),
        (error, "measured_orders_held", one_percent_off),  # ERR-17
        (stability, "input_weights", replace(BILINEAR, beta_limit=-1)),  # STAB-13
        (stability, "article_example", replace(ZOH, alpha=lambda z: 1 + z)),  # STAB-3
        (stability, "code_in_left_half_plane", replace(BILINEAR, alpha=lambda z: 1 + z)),  # STAB-16
        (stability, "code_in_left_half_plane", replace(METHODS["euler"], alpha=np.exp)),
    ],
)
def test_a_wrong_rule_is_refuted(monkeypatch, derivation, function, wrong):
    claim = getattr(derivation, function)
    assert claim.declared != "refuted"
    monkeypatch.setattr(derivation, "METHODS", METHODS | {wrong.name: wrong})
    assert claim.check().verdict == "refuted"


@pytest.mark.parametrize("wrong", [lambda s: 1 + s, lambda s: s - s**2, lambda s: -s])
def test_the_proof_of_a_sign_fails_what_it_does_not_cover(wrong):
    """ERR-3: not zero at zero, a derivative of both signs, a negative one."""
    with pytest.raises((Refuted, Undecided)):
        error.positive_from_zero(Work("symbolic"), wrong(error.s))


@given(st.floats(1e-6, 1e3), st.floats(1e-3, 1e3))
def test_relative_error_of_the_released_rule(product, entry):
    """ERR-1, ERR-2, ERR-3: a function of Δa alone, between s/2 and s/2 + s²/12."""
    found = error.relative_error(product / entry, -entry)
    rounding = 16 * U * (1 + product)
    assert product / 2 - rounding <= found <= product / 2 + product**2 / 12 + rounding
    assert abs(found - error.relative_error(product, -1.0)) <= rounding


@given(st.floats(1e-4, 2.9))
def test_what_small_means(allowed):
    """ERR-4: the error stays below ε up to |Δa| = 2ε(1 − ε/3), and not up to 2ε."""
    assert (
        error.relative_error(2 * allowed * (1 - allowed / 3), -1.0) < allowed < error.relative_error(2 * allowed, -1.0)
    )


def test_the_released_rule_at_mambas_initialisation():
    """ERR-5, ERR-6: not a small error."""
    assert error.relative_error(0.1, -16.0) > 1


def test_one_factor_serves_one_step_size():
    """ERR-7, ERR-8."""
    steps = np.linspace(0.05, 5, 100)
    factor = phi1(np.asarray(-0.05))
    absorbed = discretize_diagonal(-1.0, factor, steps, "mamba").B_bar
    wrong = np.abs(absorbed / discretize_diagonal(-1.0, 1.0, steps, "zoh").B_bar - 1)
    assert wrong[0] <= 4 * U
    assert (np.diff(wrong) > 0).all()


def test_first_order_hold_on_lines_and_on_jumps():
    """ERR-12, ERR-13, ERR-14: h' = −h + t from 0 is t − 1 + e⁻ᵗ; a jump costs Δφ₁′(Δa)."""
    delta = 0.25
    t = delta * np.arange(33)
    A_bar, B_bar, B_bar_prev = discretize_diagonal(-1.0, 1.0, delta, "foh")
    h = np.zeros_like(t)
    for k in range(1, len(t)):
        h[k] = A_bar * h[k - 1] + B_bar * t[k] + B_bar_prev * t[k - 1]
    # |h| and |x| are at most 8, and a step that rounds them five times is damped by the next ones: Σ e^{−Δk} < 5
    assert np.abs(h - (t + np.expm1(-t))).max() <= 5 * 5 * 8 * U

    before, now = 3.0, 1.0
    exact = -np.expm1(-delta) * now
    cost = delta * dphi1(np.asarray(-delta)) * (before - now)
    assert B_bar * now + B_bar_prev * before - exact == pytest.approx(cost, abs=8 * U)


def test_mamba3_is_second_order_near_one_half_only():
    """ERR-15."""
    for lam in (0.0, 0.4, 1.0):
        rule = exponential_trapezoidal(lam)
        assert error.measured_order(rule) == pytest.approx(rule.order, abs=0.1)
        assert rule.order == 1
    errors = [error.global_error(exponential_trapezoidal(0.5 + step), step) for step in error.STEPS]
    assert np.polyfit(np.log(error.STEPS), np.log(errors), 1)[0] == pytest.approx(2, abs=0.1)


def kept(method, delta, a=-1.0):
    return discretize_diagonal(a, 1.0, delta, method).A_bar


def test_what_the_rules_keep_of_the_state():
    """STAB-1, STAB-2, STAB-6, STAB-7, STAB-8, STAB-9, STAB-10, STAB-11: how |Ā| goes with Δ, real and complex."""
    deltas = np.geomspace(1e-3, 1e3, 200)
    for method in (*stability.EXPONENTIAL, "backward_euler"):
        for a in (-1.0, -1 + 3j):
            assert (np.diff(np.abs(kept(method, deltas, a))) <= 0).all()
    assert np.abs(kept("zoh", 1e3)) == 0
    assert (np.abs(kept("zoh", deltas[:100], 1e-2 + 1j)) > 1).all()
    assert 0.999 < abs(kept("backward_euler", 1e3)) * 1e3 < 1
    assert kept("bilinear", 2.0) == 0
    assert kept("bilinear", 1e3) < -0.99
    assert abs(kept("euler", 1.99)) < 1 < abs(kept("euler", 2.01))
    assert abs(kept("euler", 0.19, -1 + 3j)) < 1 < abs(kept("euler", 0.21, -1 + 3j))
    assert abs(kept("euler", 1e-3, 1j)) > 1


def test_memory_and_small_steps():
    """STAB-4, STAB-5: half is left after ln 2 / Δ|a| steps, and all of it after a step of zero."""
    delta, entry = np.log(2) / 64, -1.0
    assert kept("zoh", delta, entry) ** 64 == pytest.approx(0.5, abs=64 * 4 * U)
    for method in METHODS:
        A_bar, *weights = discretize_diagonal(entry, 1.0, 0.0, method)
        assert A_bar == 1
        assert not np.any(weights)


@pytest.mark.parametrize("delta", [0.1, 1.0, 10.0])
def test_where_a_constant_input_leads(delta):
    """STAB-12, STAB-14, STAB-15: to −b/a for the rules that hold the input, elsewhere with ΔB and with Mamba-3."""
    a, b = -1.5, 2.0
    z = delta * a
    beyond = {"mamba": z / np.expm1(z), "exponential_trapezoidal": z / 2 / np.tanh(z / 2)}
    for method in METHODS.keys() - {"euler"}:
        A_bar, *weights = (float(m) for m in discretize_diagonal(a, b, delta, method))
        h = 7.0
        for _ in range(500):
            h = A_bar * h + sum(weights)
        # 500 steps leave at most 7·e^{−75} of the start; what each step rounds, 1/(1 − |Ā|) ≤ 8 times
        assert h == pytest.approx(-b / a * beyond.get(method, 1), rel=8 * 8 * U)


def test_error_figure_draws():
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = error.error_figure()
    FigureCanvasAgg(figure).draw()
    left, right = figure.axes
    assert set(error.STYLES) == set(METHODS)
    assert len(left.texts) == len(METHODS)
    for axes in (left, right):
        assert axes.get_xlabel()
        assert axes.get_title(loc="left")
        assert all(np.isfinite(line.get_xydata()).all() for line in axes.lines)
