"""LegS and its forms against computations of their own; Mamba's start; bad sizes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssm_edu.hippo import (
    dplr_legs,
    legs,
    mamba_A,
    mamba_delta_bias,
    nplr_legs,
    s4d_inv,
    s4d_lin,
    s4d_real,
    softplus_inverse,
)

UNIT = 2.0**-53
sizes = st.integers(1, 40)


def legs_by_differentiation(n):
    """Row i: −g_i(s) − s g_i'(s), expanded in g_0 … g_i by numpy's Legendre series (HIPPO-1)."""
    from numpy.polynomial import legendre

    A = np.zeros((n, n))
    for i in range(n):
        P_i = np.eye(1, n, i)[0]
        slope = legendre.legder(P_i)
        s_slope = legendre.legadd(legendre.legmulx(slope), slope)
        row = legendre.legsub(-P_i, s_slope)
        A[i, : len(row)] = row[:n]
    norm = np.sqrt(2 * np.arange(n) + 1)
    return norm[:, None] * A / norm


@given(sizes)
def test_legs_is_differentiation(n):
    """HIPPO-1; a sign or a missing normalisation fails."""
    A, B = legs(n)
    expected = legs_by_differentiation(n)
    # the series coefficients are sums of at most n integers below n²
    rounding = 4 * n * UNIT * np.abs(A).max()
    assert np.abs(A - expected).max() <= rounding
    assert np.abs(A + expected).max() > rounding
    if n > 1:
        assert np.abs(A / B[:, None] * B - expected).max() > rounding
    np.testing.assert_array_equal(B, np.sqrt(2 * np.arange(n) + 1))


def test_legs_remembers_a_polynomial():
    """HIPPO-1 and HIPPO-3: for f = xᵐ the coefficients are tᵐ c(1), so that m c = A c + B."""
    n = 8
    A, B = legs(n)
    nodes, weights = np.polynomial.legendre.leggauss(n + 4)
    basis = np.polynomial.legendre.legvander(nodes, n - 1) * B
    for m in range(n):
        c = (weights / 2 * ((nodes + 1) / 2) ** m) @ basis
        # the quadrature is exact; nodes, weights and n + 4 terms of size below max B each round by a few u
        rounding = 8 * (n + 4) * UNIT * np.abs(A).sum(axis=1).max() * B.max()
        np.testing.assert_allclose(m * c, A @ c + B, rtol=0, atol=rounding)
        assert np.abs(m * c - (-A @ c + B)).max() > 0.1


@given(sizes)
def test_normal_plus_low_rank(n):
    """HIPPO-2, HIPPO-4, HIPPO-13: the diagonal, the skew part, and a negative symmetric part."""
    A, P, B = nplr_legs(n)
    np.testing.assert_array_equal(np.diag(A), s4d_real(n))
    normal = A + np.outer(P, P)
    rounding = 4 * UNIT * np.abs(A).max()
    assert np.abs(normal + normal.T + np.eye(n)).max() <= 2 * rounding
    assert np.linalg.eigvalsh(A + A.T).max() <= -1 + n * rounding * 4
    v = (-1.0) ** np.arange(n) * B
    assert np.abs(A @ v + v).max() <= n**2 * rounding
    if n > 1:
        assert np.abs(A - np.outer(P, P) + (A - np.outer(P, P)).T + np.eye(n)).max() > 1


@given(sizes)
def test_diagonal_plus_low_rank(n):
    """HIPPO-5, HIPPO-6 and HIPPO-7; A is rebuilt with Q conjugated, and not without."""
    A, B = legs(n)
    Lambda, P, Q, B_eigen, V = dplr_legs(n)
    assert (Lambda.real == -0.5).all()
    rounding = 16 * n * UNIT * np.linalg.norm(A, 2)
    rebuilt = V @ (np.diag(Lambda) - np.outer(P, Q.conj())) @ V.conj().T
    assert np.linalg.norm(rebuilt - A, 2) <= rounding
    np.testing.assert_allclose(V @ B_eigen, B, rtol=0, atol=rounding)
    if n > 1:
        unconjugated = V @ (np.diag(Lambda) - np.outer(P, Q)) @ V.conj().T
        assert np.linalg.norm(unconjugated - A, 2) > 0.01
    omega = Lambda.imag
    slope = ((np.arange(n) + 0.5) / ((np.arange(n) + 0.5) ** 2 + omega[:, None] ** 2)).sum(axis=1)
    angles = np.arctan(omega[:, None] / (np.arange(n) + 0.5)).sum(axis=1)
    # an eigenvalue is off by ~n u ‖S‖, and n arctangents below π/2 are summed
    slack = 16 * n * UNIT * (slope * np.abs(omega).max() + n * np.pi / 2)
    assert (np.abs(angles - np.pi * (np.arange(n) - (n - 1) / 2)) <= slack).all()


def test_s4d_diagonals_beside_legs():
    """HIPPO-8, HIPPO-9, HIPPO-10, HIPPO-11: S4D-Inv is near LegS's frequencies, S4D-Lin is not."""
    omega = np.sort(dplr_legs(64).Lambda.imag)[::-1][:32]
    np.testing.assert_allclose(s4d_inv(32).imag, omega, rtol=0.25)
    assert np.abs(np.sort(s4d_lin(32).imag)[::-1] / omega - 1).max() > 0.9
    assert omega[0] == pytest.approx(64**2 / np.pi, rel=64**2 / (6 * omega[0] ** 2))
    assert (s4d_lin(5) == [-0.5 + 1j * np.pi * k for k in range(5)]).all()
    assert (s4d_inv(3).real == -0.5).all()


def test_the_transient_is_slower_than_the_eigenvalues():
    """HIPPO-12 and HIPPO-14; and eigenvectors are no way round (HIPPO-15)."""
    from scipy.linalg import expm

    A = legs(16).A
    rounding = 8 * 16 * UNIT * (1 + np.linalg.norm(A, 2))
    assert np.exp(-1) * 1.6 < np.linalg.norm(expm(A), 2) <= np.exp(-0.5) * (1 + rounding)
    _, vectors = np.linalg.eig(legs(10).A)
    assert np.linalg.cond(vectors) > 1e6


@given(st.floats(1e-300, 700))
def test_softplus_undoes_its_inverse(delta):
    """HIPPO-16, HIPPO-17: a bias off by u|bias| moves Δ by (1 − e^{−Δ}) times as much."""
    bias = softplus_inverse(delta)
    back = np.logaddexp(0, bias)
    slope = -np.expm1(-delta)
    assert abs(back - delta) <= 8 * UNIT * (slope * (1 + delta + abs(np.log(slope))) + delta)


def test_the_naive_inverse_of_softplus_fails():
    delta = np.array([1e-17])
    with np.errstate(divide="ignore"):
        assert np.isinf(np.log(np.exp(delta) - 1)).all()
    np.testing.assert_allclose(softplus_inverse(delta), np.log(delta), rtol=4 * UNIT)


def test_mamba_start():
    """HIPPO-19; article 1's half-normal A starts elsewhere (HIPPO-18)."""
    A = mamba_A(3, 16)
    np.testing.assert_array_equal(A, [-np.arange(1.0, 17)] * 3)
    half_normal = np.abs(np.random.default_rng(0).standard_normal(4096))
    assert (-A >= 1).all()
    assert (half_normal < 1).mean() > 0.6

    delta = np.logaddexp(0, mamba_delta_bias(20_000, rng=1))
    slack = 1 + 64 * UNIT
    assert 1e-3 / slack <= delta.min() < 1.01e-3
    assert 0.99e-1 < delta.max() <= 1e-1 * slack
    deciles = np.quantile(np.log10(delta), [0.25, 0.5, 0.75])
    # a quantile of 20 000 uniform draws on [−3, −1] has a standard deviation below 2·½/√20000
    np.testing.assert_allclose(deciles, [-2.5, -2, -1.5], atol=5 * 2 * 0.5 / np.sqrt(20_000))


def test_mamba_delta_bias_is_seeded_and_floored():
    np.testing.assert_array_equal(mamba_delta_bias(5, rng=3), mamba_delta_bias(5, rng=np.random.default_rng(3)))
    assert (mamba_delta_bias(5, rng=3) != mamba_delta_bias(5, rng=4)).any()
    floored = mamba_delta_bias(50, delta_min=1e-6, delta_max=1e-5, delta_floor=1e-4, rng=0)
    np.testing.assert_array_equal(floored, np.full(50, softplus_inverse(1e-4)))


@pytest.mark.parametrize("make", [legs, nplr_legs, dplr_legs, s4d_real, s4d_lin, s4d_inv])
@pytest.mark.parametrize(
    ("n", "error"), [(0, ValueError), (-1, ValueError), (True, TypeError), (2.0, TypeError), ("3", TypeError)]
)
def test_bad_sizes(make, n, error):
    with pytest.raises(error):
        make(n)


def test_bad_arguments():
    with pytest.raises(ValueError, match="dim is 0, expected an integer of at least 1"):
        mamba_delta_bias(0)
    with pytest.raises(ValueError, match="0 < delta_min ≤ delta_max"):
        mamba_delta_bias(4, delta_min=0.1, delta_max=0.01)
    with pytest.raises(ValueError, match="0 < delta_min ≤ delta_max"):
        mamba_delta_bias(4, delta_min=0.0)
    with pytest.raises(ValueError, match="delta_floor must be positive"):
        mamba_delta_bias(4, delta_floor=0.0)
    # past the run-time type checks of the test run, which a user's process has not
    unchecked = getattr(mamba_delta_bias, "__wrapped__", mamba_delta_bias)
    with pytest.raises(TypeError, match="delta_min must hold numbers"):
        unchecked(4, delta_min=None)
    with pytest.raises(ValueError, match="delta_max must be a number"):
        unchecked(4, delta_max=[0.1, 0.2])
    with pytest.raises(ValueError, match="state is 0, expected an integer of at least 1"):
        mamba_A(3, 0)
    with pytest.raises(TypeError, match="n is True, expected an integer"):
        legs(True)
    with pytest.raises(ValueError, match=r"delta must be positive; found 0\.0"):
        softplus_inverse([1.0, 0.0])
    with pytest.raises(TypeError, match=r"delta must hold numbers.*found dtype complex128"):
        softplus_inverse(1j)
