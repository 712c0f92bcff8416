"""The discretisation rules, dense and diagonal."""

import mpmath as mp
import numpy as np
import pytest
import scipy.signal
from hypothesis import given
from hypothesis import strategies as st

from ssm_edu import METHODS, discretize, discretize_diagonal
from ssm_edu.derivations import load
from ssm_edu.discretize import exponential_trapezoidal
from tests.problems import NIGHTLY

zoh = load("zero_order_hold")
ONE_TAP = [name for name, rule in METHODS.items() if rule.q is None]


# --- dense ---------------------------------------------------------------------------------------


@given(zoh.systems(size=5))
def test_dense_against_50_digits(system):
    """ZOH-13, ZOH-7, ZOH-9: every kind of matrix, within 1e-13 of the exact maps times the condition number."""
    A, B, delta = system
    maps = discretize(A, B, delta)
    errors = zoh.relative_errors(A, B, delta, maps.A_bar, maps.B_bar)
    assert (errors <= 1e-13 * zoh.condition(A, B, delta)).all()


@pytest.mark.parametrize(("n", "decay"), [(4, 0.5), (5, 0.1), (5, 0.2)])
def test_long_steps_of_triangular_matrices(n, decay):
    """ZOH-13, ten times as close, for Jordan blocks of norm 700, where `expm` by itself was seen to miss that."""
    A, B = -decay * np.eye(n) + np.eye(n, k=1), np.ones((n, 1))
    A *= 700 / np.linalg.norm(A, 1)
    maps = discretize(A, B, 1.0)
    assert (zoh.relative_errors(A, B, 1.0, maps.A_bar, maps.B_bar) <= 1e-14 * zoh.condition(A, B, 1.0)).all()


def test_a_large_entry_beside_a_small_exponential_costs_nothing():
    """A rotation by 1 in odd units, and a free mass: the norm of ΔA is 1e10, its eigenvalues have size 1 and 0."""
    rotation = discretize([[0, 1e-10], [-1e10, 0]], [0, 1], 1.0)
    cos, sin = np.cos(1), np.sin(1)
    np.testing.assert_allclose(rotation.A_bar, [[cos, 1e-10 * sin], [-1e10 * sin, cos]], rtol=1e-14)
    np.testing.assert_allclose(rotation.B_bar, [1e-10 * (1 - cos), sin], rtol=1e-14)
    mass = discretize([[0, 1e10], [0, 0]], [1, 0], 1.0)
    np.testing.assert_array_equal(mass.A_bar, [[1, 1e10], [0, 1]])
    np.testing.assert_array_equal(mass.B_bar, [1, 0])


def test_the_dense_check_fails_a_wrong_map():
    A, B = np.array([[-1.0, 0.5], [0.0, -2.0]]), np.ones((2, 1))
    right, wrong = discretize(A, B, 0.1), discretize(A, B, 0.1, "mamba")
    bound = 1e-13 * zoh.condition(A, B, 0.1)
    assert (zoh.relative_errors(A, B, 0.1, right.A_bar, right.B_bar) <= bound).all()
    assert zoh.relative_errors(A, B, 0.1, wrong.A_bar, wrong.B_bar)[1] > bound


def test_damped_spring_against_its_closed_form():
    """ZOH-1, ZOH-5, ZOH-10."""
    sigma, omega, delta = 0.3, 2.0, 0.7
    A = [[0, 1], [-(sigma**2 + omega**2), -2 * sigma]]
    s, c = np.sin(omega * delta), np.cos(omega * delta)
    expected = np.exp(-sigma * delta) * np.array(
        [[c + sigma / omega * s, s / omega], [-(sigma**2 + omega**2) / omega * s, c - sigma / omega * s]]
    )
    maps = discretize(A, [0.0, 1.0], delta)
    np.testing.assert_allclose(maps.A_bar, expected, rtol=1e-14)
    np.testing.assert_allclose(maps.B_bar, np.linalg.solve(A, (expected - np.eye(2)) @ [0, 1]), rtol=1e-13)


def test_free_mass_and_jordan_block():
    """ZOH-6, ZOH-8: no inverse of A is needed."""
    maps = discretize([[0, 1], [0, 0]], [0, 1], 0.5)
    np.testing.assert_allclose(maps.A_bar, [[1, 0.5], [0, 1]], rtol=1e-15)
    np.testing.assert_allclose(maps.B_bar, [0.125, 0.5], rtol=1e-15)
    jordan = discretize([[-2.0, 1], [0, -2]], [0, 1], 0.5)
    np.testing.assert_allclose(jordan.A_bar, np.exp(-1) * np.array([[1, 0.5], [0, 1]]), rtol=1e-15)


@given(st.floats(0, 3), st.floats(0, 3), st.integers(0, 2**32 - 1))
def test_splitting_a_held_step(first, second, seed):
    """ZOH-11; and ZOH-12: the rule B̄ = ΔB does not have it."""
    rng = np.random.default_rng(seed)
    A, B = -np.eye(3) + 0.3 * rng.standard_normal((3, 3)), rng.standard_normal(3)
    one, two, whole = (discretize(A, B, d) for d in (first, second, first + second))
    np.testing.assert_allclose(whole.A_bar, two.A_bar @ one.A_bar, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(whole.B_bar, two.A_bar @ one.B_bar + two.B_bar, rtol=1e-12, atol=1e-12)
    if min(first, second) > 0.1:
        rule = [discretize(-1.0 * np.eye(1), [1.0], d, "mamba").B_bar for d in (first, second, first + second)]
        assert abs(np.exp(-second) * rule[0] + rule[1] - rule[2]) > 1e-3


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_a_subnormal_product_is_no_nan(dtype):
    """Dividing by a subnormal complex number overflows on its way, and φ₁ is a quotient (PHI-1)."""
    tiny = np.finfo(dtype).smallest_normal
    for z in (tiny * np.geomspace(1e-6, 4, 50) * np.exp(1j * np.linspace(0, 6, 50))).astype(dtype):
        np.testing.assert_allclose(discretize_diagonal(z, dtype(1), 1).B_bar, 1, rtol=np.finfo(dtype).eps)


@pytest.mark.parametrize("name", ["zoh", "foh", "mamba", "euler"])
def test_what_overflows_is_infinite(name):
    maps = discretize_diagonal(np.float32(1e30), np.float32(1e20), np.float32(1e30), name)
    assert all(np.isposinf(M) for M in maps)


@pytest.mark.parametrize("name", METHODS)
@given(seed=st.integers(0, 2**32 - 1), delta=st.floats(0, 2))
def test_dense_rule_on_a_diagonal_matrix_is_the_diagonal_rule(name, seed, delta):
    """ZOH-4."""
    rng = np.random.default_rng(seed)
    a, b = -rng.exponential(size=4), rng.standard_normal(4)
    dense, diagonal = discretize(np.diag(a), b, delta, name), discretize_diagonal(a, b, delta, name)
    for left, right in zip(dense, (np.diag(diagonal[0]), *diagonal[1:]), strict=True):
        # the dense exponential is accurate norm-wise; its condition number here is at most ‖ΔA‖ < 30
        assert np.linalg.norm(left - right) <= 1e-14 * 30 * (np.linalg.norm(right) + 1e-300)


@pytest.mark.parametrize(("ours", "scipys"), [("zoh", "zoh"), ("euler", "euler"), ("backward_euler", "backward_diff")])
def test_dense_against_scipy_signal(ours, scipys):
    """ZOH-14."""
    rng = np.random.default_rng(1)
    A, B = rng.standard_normal((5, 5)), rng.standard_normal((5, 2))
    A_bar, B_bar, *_ = scipy.signal.cont2discrete((A, B, np.eye(5), np.zeros((5, 2))), 0.2, method=scipys)
    maps = discretize(A, B, 0.2, ours)
    np.testing.assert_allclose(maps.A_bar, A_bar, rtol=1e-11)
    np.testing.assert_allclose(maps.B_bar, B_bar, rtol=1e-11)


def test_dense_first_order_hold_against_scipy():
    """SciPy's hold changes the state to v = h − Γ₁x, which moves both taps into one: B̄_v = Ā Γ₁ + Γ₀."""
    rng = np.random.default_rng(2)
    A, B = rng.standard_normal((4, 4)), rng.standard_normal((4, 1))
    A_bar, B_v, _, D_v, _ = scipy.signal.cont2discrete((A, B, np.eye(4), np.zeros((4, 1))), 0.3, method="foh")
    maps = discretize(A, B, 0.3, "foh")
    np.testing.assert_allclose(maps.A_bar, A_bar, rtol=1e-12)
    np.testing.assert_allclose(maps.B_bar, D_v, rtol=1e-11)
    np.testing.assert_allclose(maps.A_bar @ maps.B_bar + maps.B_bar_prev, B_v, rtol=1e-11)


def test_dense_precision_follows_the_input():
    A, B = np.eye(2, dtype=np.float32), np.ones(2, np.float32)
    assert {m.dtype for m in discretize(A, B, 0.1)} == {np.dtype("f4")}
    assert discretize(A.astype(np.complex64), B, 0.1).B_bar.dtype == np.complex64
    assert discretize(np.eye(2, dtype=int), [1, 1], 1).A_bar.dtype == np.float64


# --- diagonal ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_diagonal_zoh_is_accurate_everywhere(dtype):
    """ZOH-15: 10⁵ cases from |Δa| = 1e-12 to overflow, error at most 4 + |Δa| ulp."""
    a, delta = zoh.diagonal_cases(dtype, 100_000, seed=1)
    maps = discretize_diagonal(a, dtype(1), delta)
    assert maps.A_bar.dtype == maps.B_bar.dtype == dtype
    errors = zoh.ulp_errors(a, delta, maps.A_bar, maps.B_bar)
    assert (errors <= 4 + np.abs(np.float64(a) * delta)).all()


def test_the_formula_as_printed_fails_that_check():
    """ZOH-16."""
    a, delta = zoh.diagonal_cases(np.float32, 1000)
    z = (delta * a)[np.abs(delta * a) < 1]
    d = delta[np.abs(delta * a) < 1]
    printed = (np.exp(z) - np.float32(1)) / z * d
    a_near = a[np.abs(delta * a) < 1]
    errors = zoh.ulp_errors(a_near, d, np.exp(z), printed)
    assert errors[0].max() <= 5
    assert errors[1].max() > 1e6


@pytest.mark.parametrize("dtype", [np.complex128, np.complex64])
def test_diagonal_zoh_is_accurate_for_complex_a(dtype):
    """Norm-wise within 8 + 2|Δa| ulp, from |Δa| = 1e-12 to overflow, 0.1 rad away from the imaginary axis.

    10⁵ cases nightly, else a fifth of them: 50 digits of complex numbers are slow.

    On the axis φ₁ has zeros, at 2πik, where no relative bound can hold: rounding Δa moves the zero."""
    rng = np.random.default_rng(0)
    info, real = np.finfo(dtype), np.finfo(dtype).dtype.type
    size = np.geomspace(1e-12, 2 * np.log(float(info.max)), 100_000 if NIGHTLY else 20_000)
    delta = (10 ** rng.uniform(-4, 2, size.size)).astype(real)
    off_axis = rng.uniform(-np.pi / 2 + 0.1, np.pi / 2 - 0.1, size.size)
    a = (rng.choice([-1, 1], size.size) * size * np.exp(1j * off_axis) / delta).astype(dtype)
    maps = discretize_diagonal(a, dtype(1), delta)
    assert maps.A_bar.dtype == maps.B_bar.dtype == dtype
    eps, tiny, largest = float(info.eps), float(info.tiny), float(info.max)
    with mp.workdps(50):
        for A_bar, B_bar, a_n, d in zip(maps.A_bar, maps.B_bar, a.tolist(), delta.tolist(), strict=True):
            a_exact = mp.mpmathify(a_n)
            z = a_exact * d
            growth = mp.exp(z)
            if abs(growth) > largest:
                continue
            for got, exact in ((A_bar, growth), (B_bar, mp.expm1(z) / a_exact)):
                error = abs(mp.mpmathify(complex(got)) - exact) / max(abs(exact), tiny) / eps
                assert error <= 8 + 2 * abs(z)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_a_zero_step_holds_the_state_exactly(name, dtype):
    """ZOH-17."""
    a = np.array([-1e30, -16, -1e-30, 0], dtype)
    maps = discretize_diagonal(a, dtype(3), np.zeros(4, np.finfo(dtype).dtype), name)
    assert (maps.A_bar == 1).all()
    assert all((weight == 0).all() for weight in maps[1:])


@pytest.mark.parametrize(("name", "limit"), [("zoh", -1), ("backward_euler", -1), ("bilinear", -2), ("foh", -1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_huge_step_lands_on_the_limit(name, limit, dtype):
    """ZOH-17: also where Δa itself overflows. `beta_limit` is what a·B̄ tends to."""
    assert METHODS[name].beta_limit == limit
    big = float(np.finfo(dtype).max) / 4
    for a, delta in [(-1e6, 1e6), (-1e30, 1e20), (-big, big), (-1.0, big)]:
        B_bar = discretize_diagonal(dtype(a), dtype(5), dtype(delta), name).B_bar
        assert B_bar == pytest.approx(5 * limit / a, rel=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_partial_derivatives_against_the_complex_step(name):
    """Im f(x + ih)/h is the derivative to rounding: every rule is analytic in z = Δa. PHI-1, PHI-2."""
    rule, h = METHODS[name], 1e-30
    rng = np.random.default_rng(0)
    a = -(10 ** rng.uniform(-6, 1.5, 500))
    delta = 10 ** rng.uniform(-4, 0.5, 500)
    partials = rule.partials(delta, a)
    for function, by_delta, by_a in [
        (rule.A_bar, partials.dA_bar_ddelta, partials.dA_bar_da),
        (rule.beta, partials.dbeta_ddelta, partials.dbeta_da),
        (rule.beta_prev, partials.dbeta_prev_ddelta, partials.dbeta_prev_da),
    ]:
        if by_delta is None:
            assert rule.q is None
            continue
        # eᶻ carries the rounding of z, and φ's derivatives cost up to 16 ulp (PHI-4). Where p + z p′ cancels, so does
        # the complex quotient: it is held against its own terms, and the exact slope is proved by claim ADJ-5.
        value = np.abs(function(delta, a))
        for got, exact, terms in [
            (by_delta, np.imag(function(delta + 1j * h, a.astype(complex))) / h, value / delta),
            (by_a, np.imag(function(delta.astype(complex), a + 1j * h)) / h, value / np.abs(a)),
        ]:
            tolerance = (32 + 2 * np.abs(delta * a)) * np.finfo(float).eps
            assert (np.abs(got - exact) <= tolerance * (np.abs(exact) + terms)).all()


def test_series_coefficients_reach_float64_at_the_edge_of_the_disc():
    """PHI-3: the series and the closed form meet at |z| = 1."""
    from ssm_edu import phi

    inside, outside = np.nextafter(1.0, 0), 1.0
    for name in ("phi2", "dphi1", "dphi2", "d2phi1"):
        f = getattr(phi, name)
        for sign in (-1, 1):
            left, right = f(np.array([sign * inside, sign * outside]))
            assert left == pytest.approx(right, rel=16 * np.finfo(float).eps)


@given(
    a=st.lists(st.floats(-1e3, 0), min_size=1, max_size=4),
    delta=st.floats(0, 10),
    lam=st.floats(0, 1),
)
def test_exponential_trapezoidal_is_mambas_rule_at_one(a, delta, lam):
    maps = discretize_diagonal(a, 2.0, delta, exponential_trapezoidal(1.0))
    mamba = discretize_diagonal(a, 2.0, delta, "mamba")
    np.testing.assert_array_equal(maps.B_bar, mamba.B_bar)
    assert not maps.B_bar_prev.any()
    mixed = discretize_diagonal(a, 2.0, delta, exponential_trapezoidal(lam))
    # atol: a subnormal λ has no relative accuracy
    np.testing.assert_allclose(mixed.B_bar, 2 * lam * delta, atol=1e-307)
    np.testing.assert_allclose(mixed.B_bar_prev, 2 * (1 - lam) * delta * np.exp(np.array(a) * delta), 1e-13, 1e-300)


def test_scalars_lists_broadcasting_and_precision():
    """ZOH-2, ZOH-3."""
    maps = discretize_diagonal(-1, 1, 0.1)
    assert maps.A_bar == pytest.approx(np.exp(-0.1), rel=1e-15)
    assert maps.B_bar == pytest.approx(1 - np.exp(-0.1), rel=1e-15)
    assert isinstance(maps.A_bar, np.ndarray)
    assert maps.A_bar.shape == ()
    maps = discretize_diagonal(-np.ones((3, 4)), np.ones((2, 1, 4)), np.ones((2, 3, 1)))
    assert (maps.A_bar.shape, maps.B_bar.shape) == ((2, 3, 4), (2, 3, 4))
    single = discretize_diagonal(np.float32([-1, -2]), 1, 0.1)
    assert (single.A_bar.dtype, single.B_bar.dtype) == (np.float32, np.float32)
    assert discretize_diagonal(np.float32([-1]), np.float64([1]), 0.1).A_bar.dtype == np.float64
    assert discretize_diagonal(np.complex64([-1]), 1, 0.1).B_bar.dtype == np.complex64


def test_inputs_are_left_alone():
    a, b, delta = -np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 3))
    for name in METHODS:
        discretize_diagonal(a, b, delta, name)
    assert (a == -1).all()
    assert (b == 1).all()
    assert (delta == 1).all()


def test_empty_arrays_give_empty_maps():
    assert discretize_diagonal(np.zeros((0, 4)), np.ones(4), 0.1).B_bar.shape == (0, 4)
    assert discretize_diagonal([], [], 0.1).A_bar.shape == (0,)
    for name in METHODS:
        maps = discretize(np.zeros((0, 0)), np.zeros((0, 2)), 0.1, name)
        assert [m.shape for m in maps] == [(0, 0)] + [(0, 2)] * (len(maps) - 1)


# --- wrong input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.ones((2, 3)), np.ones(2), 0.1), ValueError, r"A must be a square matrix; found shape \(2, 3\)"),
        ((np.ones(2), np.ones(2), 0.1), ValueError, r"A must be a square matrix; found shape \(2,\)"),
        ((np.eye(2), np.ones(3), 0.1), ValueError, r"B must have as many rows as A: expected \(2,\).*found \(3,\)"),
        ((np.eye(2), np.ones(2), [0.1, 0.2]), ValueError, r"delta must be a scalar.*found shape \(2,\)"),
        ((np.eye(2), np.ones(2), -0.1), ValueError, "delta, a step size, must not be negative; found -0.1"),
        ((np.eye(2), np.ones(2), np.nan), ValueError, "delta must be finite; found nan"),
        ((np.full((2, 2), np.inf), np.ones(2), 0.1), ValueError, "A must be finite; found inf"),
        ((np.eye(2), np.ones(2), 0.1j), TypeError, "delta must hold numbers.*found dtype complex128"),
        ((np.eye(2, dtype=bool), np.ones(2), 0.1), TypeError, "A must hold numbers.*found dtype bool"),
        (([["a"]], [1.0], 0.1), TypeError, "A must hold numbers"),
        ((np.eye(2), np.ones(2), 1e4), ValueError, "overflow"),
        ((np.eye(2) * 1e300, np.ones(2), 1e10), ValueError, "overflows"),
        ((np.eye(2), np.ones(2), 0.1, "zho"), ValueError, "unknown method 'zho'.*did you mean 'zoh'"),
        ((np.eye(2), np.ones(2), 1.0, "backward_euler"), ValueError, "backward_euler needs I − 1ΔA to be invertible"),
        ((np.eye(2), np.ones(2), 2.0, "bilinear"), ValueError, "bilinear needs I − 0.5ΔA to be invertible"),
    ],
)
def test_dense_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        discretize(*arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((-1.0, 1.0, -0.1), ValueError, "delta, a step size, must not be negative; found -0.1"),
        ((-1.0, 1.0, np.inf), ValueError, "delta must be finite; found inf"),
        (([-1.0, np.nan], 1.0, 0.1), ValueError, "a must be finite; found nan"),
        ((np.ones(2), np.ones(3), 0.1), ValueError, r"must broadcast; found shapes \(2,\), \(3,\) and \(\)"),
        ((np.ones(2), np.ones(2), 1j), TypeError, "delta must hold numbers"),
        ((np.ones(2, np.float16), np.ones(2), 0.1), TypeError, "a must hold numbers.*found dtype float16"),
        ((-1.0, 1.0, 0.1, "rk4"), ValueError, "unknown method 'rk4': expected one of zoh"),
    ],
)
def test_diagonal_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        discretize_diagonal(*arguments)


def test_lambda_outside_its_range_is_refused():
    with pytest.raises(ValueError, match=r"lam must lie in \[0, 1\]; found 1.5"):
        exponential_trapezoidal(1.5)
