"""Recurrence, kernel and convolution compute one function; the Cauchy kernel is that kernel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssm_edu.derivations import load
from ssm_edu.discretize import discretize, discretize_diagonal
from ssm_edu.hippo import dplr_legs, legs
from ssm_edu.lti import convolve, kernel, kernel_dplr, recurrence

bounds = load("convolution")
seeds = st.integers(0, 2**32 - 1)


def normal(rng, *shape, complex_values=False):
    values = rng.standard_normal(shape)
    return values + 1j * rng.standard_normal(shape) if complex_values else values


@st.composite
def systems(draw):
    """A stable Ā, dense or diagonal, whose absolute values are stable too; B̄, C, x, and perhaps B̄_prev."""
    n, length, complex_values = draw(st.integers(1, 6)), draw(st.integers(1, 130)), draw(st.booleans())
    rng = np.random.default_rng(draw(seeds))
    dense = draw(st.booleans())
    A_bar = normal(rng, *((n, n) if dense else (n,)), complex_values=complex_values)
    A_bar *= draw(st.sampled_from([1.0, 0.9, 0.0])) / np.abs(A_bar).sum(axis=-1).max()
    B_bar, C, B_bar_prev = normal(rng, 3, n, complex_values=complex_values)
    x = normal(rng, length, complex_values=draw(st.booleans()))
    return A_bar, B_bar, C, x, B_bar_prev if draw(st.booleans()) else None


def disagreement(system, y):
    """|y − recurrence| in units of the bound that recurrence, kernel and FFT together must keep."""
    A_bar, B_bar, C, x, B_bar_prev = system
    K = kernel(A_bar, B_bar, C, x.size, B_bar_prev=B_bar_prev)
    bound = bounds.fft_rounding(K, x) + bounds.recurrence_rounding(A_bar, B_bar, C, x, B_bar_prev)
    error = np.abs(y - recurrence(A_bar, B_bar, C, x, B_bar_prev=B_bar_prev))
    return np.max(np.where(bound > 0, error / np.where(bound > 0, bound, 1), np.where(error > 0, np.inf, 0)))


@given(systems())
def test_recurrence_is_convolution(system):
    """CONV-1, CONV-2, CONV-5: every length, real and complex, dense and diagonal, one tap and two."""
    A_bar, B_bar, C, x, B_bar_prev = system
    K = kernel(A_bar, B_bar, C, x.size, B_bar_prev=B_bar_prev)
    assert disagreement(system, convolve(K, x)) <= 1


def example_system(length=64, n=4):
    rng = np.random.default_rng(0)
    A_bar = normal(rng, n, n, complex_values=True)
    A_bar /= np.abs(A_bar).sum(axis=-1).max()
    return A_bar, *normal(rng, 2, n, complex_values=True), normal(rng, length), None


def test_the_comparison_catches_wrong_convolutions():
    """CONV-3 and CONV-4: without padding the end wraps round; a late kernel and a conjugated one fail as well."""
    system = A_bar, B_bar, C, x, _ = example_system()
    K = kernel(A_bar, B_bar, C, x.size)
    circular = np.fft.ifft(np.fft.fft(K) * np.fft.fft(x))
    assert disagreement(system, convolve(K, x)) <= 1
    assert disagreement(system, circular) > 1e6
    assert disagreement(system, convolve(np.roll(K, 1), x)) > 1e6
    assert disagreement(system, convolve(kernel(A_bar, B_bar, C.conj(), x.size), x)) > 1e6


def test_integers_are_exact():
    """A hand-written loop in Python integers, and the kernel as powers."""
    A, B, C = [[1, 2], [0, -1]], [1, 3], [2, -1]
    x = [3, -1, 4, 1, -5, 9]
    h, expected = [0, 0], []
    for u in x:
        h = [A[i][0] * h[0] + A[i][1] * h[1] + B[i] * u for i in range(2)]
        expected.append(C[0] * h[0] + C[1] * h[1])
    assert recurrence(A, B, C, x).tolist() == expected
    K = kernel(A, B, C, 6)
    assert K.dtype == np.float64
    assert K.tolist() == [float(np.array(C) @ np.linalg.matrix_power(A, t) @ B) for t in range(6)]
    assert np.convolve(K, x)[:6].tolist() == expected


@given(seeds, st.integers(1, 40), st.integers(1, 40))
def test_a_sequence_can_be_split(seed, prompt, rest):
    """CONV-8, also for a two-tap rule: bit for bit, for it is the same arithmetic."""
    rng = np.random.default_rng(seed)
    taps = discretize_diagonal(-np.arange(1.0, 5), normal(rng, 4), 0.1, "foh")
    C, x = normal(rng, 4), normal(rng, 2, 3, prompt + rest)
    whole, last = recurrence(*taps[:2], C, x, B_bar_prev=taps[2], return_last_state=True)
    first, h = recurrence(*taps[:2], C, x[..., :prompt], B_bar_prev=taps[2], return_last_state=True)
    then, h = recurrence(
        *taps[:2],
        C,
        x[..., prompt:],
        B_bar_prev=taps[2],
        initial_state=h,
        previous_input=x[..., prompt - 1],
        return_last_state=True,
    )
    np.testing.assert_array_equal(h, last)
    # y = C h may be summed in another order by another shape of matrix product
    scale = 8 * np.finfo(float).eps * (np.abs(C).sum() * np.abs(last).max() + np.abs(whole).max() + np.abs(x).max())
    np.testing.assert_allclose(np.concatenate([first, then], axis=-1), whole, rtol=0, atol=scale)


def test_batches_are_independent():
    A_bar, B_bar, C, _, _ = example_system()
    x = normal(np.random.default_rng(1), 2, 3, 50)
    K = kernel(A_bar, B_bar, C, 50)
    y, h = recurrence(A_bar, B_bar, C, x, return_last_state=True)
    assert y.shape == x.shape
    assert h.shape == (2, 3, 4)
    bound = bounds.fft_rounding(K, x) + bounds.recurrence_rounding(A_bar, B_bar, C, x)
    assert (np.abs(convolve(K, x) - y) <= bound).all()
    kernels = np.stack([K, 2 * K])[:, None]
    np.testing.assert_array_equal(convolve(kernels, x)[1, 2], convolve(2 * K, x[1, 2]))


def test_a_dense_diagonal_is_a_diagonal():
    _, B_bar, C, x, _ = example_system()
    a = np.array([0.9, -0.5, 0.3 + 0.4j, 0.0])
    rounding = bounds.recurrence_rounding(a, B_bar, C, x)
    assert (np.abs(recurrence(a, B_bar, C, x) - recurrence(np.diag(a), B_bar, C, x)) <= rounding).all()
    impulse = np.eye(1, 64)[0]
    rounding = bounds.recurrence_rounding(a, B_bar, C, impulse)
    assert (np.abs(kernel(a, B_bar, C, 64) - kernel(np.diag(a), B_bar, C, 64)) <= rounding).all()


def test_time_varying_parameters_leave_a_semiseparable_matrix():
    """CONV-6 and CONV-7, in numbers: unequal diagonals, and blocks of rank n."""
    rng = np.random.default_rng(0)
    n, length = 2, 8
    A, B, C = rng.uniform(0.5, 1, (length, n)), *normal(rng, 2, length, n)
    M = np.zeros((length, length))
    for s in range(length):
        h = B[s]
        for t in range(s, length):
            h = A[t] * h if t > s else h
            M[t, s] = C[t] @ h
    assert np.ptp(np.diagonal(M, -1)) > 0.1
    assert all(np.linalg.matrix_rank(M[k:, : k + 1]) <= n for k in range(length))
    assert np.linalg.matrix_rank(M) == length


@pytest.mark.parametrize("length", [1, 2, 3, 31, 64, 127, 1000])
@pytest.mark.parametrize("n", [1, 2, 16])
def test_cauchy_kernel_of_legs(n, length):
    """CONV-9, CONV-10, CONV-11: −1 is a root of unity for even lengths."""
    C, delta = np.cos(np.arange(n)), 0.01
    A_bar, B_bar = discretize(*legs(n), delta, "bilinear")
    system = dplr_legs(n)
    arguments = (*system[:4], C @ system.V, delta, length)
    K = kernel_dplr(*arguments)
    assert K.shape == (length,)
    expected = kernel(A_bar, B_bar, C, length)
    bound = bounds.dplr_rounding(*arguments)
    assert np.abs(K - expected).max() <= bound
    assert bound < 1e-5 * np.abs(expected).max()


@st.composite
def dplr_systems(draw):
    """Dissipative: ‖P‖‖Q‖ is at most half of the least |Re Λ|."""
    n, length = draw(st.integers(1, 6)), draw(st.integers(1, 80))
    rng = np.random.default_rng(draw(seeds))
    Lambda = -rng.uniform(0.5, 3, n) + 1j * rng.uniform(-20, 20, n)
    P, Q, B, C = normal(rng, 4, n, complex_values=True)
    P, Q = (v / (2 * np.linalg.norm(v)) for v in (P, Q))
    return Lambda, P, Q, B, C, draw(st.sampled_from([1e-3, 0.1, 1.0, 10.0])), length


@given(dplr_systems())
def test_cauchy_kernel_is_the_kernel(system):
    """CONV-11 for P ≠ Q, complex throughout; the formula fails when Q is not conjugated or C not corrected."""
    Lambda, P, Q, B, C, delta, length = system
    A_bar, B_bar = discretize(np.diag(Lambda) - np.outer(P, Q.conj()), B, delta, "bilinear")
    K = kernel(A_bar, B_bar, C, length)
    assert np.abs(kernel_dplr(*system) - K).max() <= bounds.dplr_rounding(*system)


def test_the_cauchy_bound_catches_wrong_kernels():
    rng = np.random.default_rng(0)
    Lambda = -0.5 + 1j * np.array([1.0, -2.0, 3.0])
    P, Q, B, C = normal(rng, 4, 3, complex_values=True)
    P, Q = P / (2 * np.linalg.norm(P)), Q / (2 * np.linalg.norm(Q))
    bound = bounds.dplr_rounding(Lambda, P, Q, B, C, 0.1, 16)

    def dense(A, C):
        return kernel(*discretize(A, B, 0.1, "bilinear"), C, 16)

    K = kernel_dplr(Lambda, P, Q, B, C, 0.1, 16)
    A = np.diag(Lambda) - np.outer(P, Q.conj())
    A_bar = discretize(A, B, 0.1, "bilinear").A_bar
    assert np.abs(K - dense(A, C)).max() <= bound
    for wrong in (
        dense(np.diag(Lambda) - np.outer(P, Q), C),
        dense(np.diag(Lambda) + np.outer(P, Q.conj()), C),
        dense(A, C.conj()),
        dense(A, C @ (np.eye(3) - np.linalg.matrix_power(A_bar, 16))),
        kernel(*discretize(A, B, 0.1, "zoh"), C, 16),
    ):
        assert np.abs(K - wrong).max() > 1e6 * bound


def test_inputs_are_left_alone():
    system = example_system()[:4]
    copies = [a.copy() for a in system]
    recurrence(*system, initial_state=(h := np.ones(4)))
    convolve(kernel(*system[:3], 64), system[3])
    for now, before in zip((*system, h), (*copies, np.ones(4)), strict=True):
        np.testing.assert_array_equal(now, before)


GOOD = {"A_bar": [0.5, 0.2], "B_bar": [1.0, 2.0], "C": [1.0, 1.0], "x": [1.0, 2.0, 3.0]}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"A_bar": np.ones((2, 3))}, ValueError, r"A_bar must have shape \(n, n\).*found \(2, 3\)"),
        ({"A_bar": np.ones((2, 2, 2))}, ValueError, "A_bar must have shape"),
        ({"A_bar": []}, ValueError, "A_bar must have shape"),
        ({"A_bar": [np.nan, 0.0]}, ValueError, "A_bar must be finite; found nan"),
        ({"A_bar": [True, False]}, TypeError, "A_bar must hold numbers.*found dtype bool"),
        ({"B_bar": [1.0]}, ValueError, r"B_bar must have shape \(2,\); found \(1,\)"),
        ({"C": [[1.0, 1.0]]}, ValueError, r"C must have shape \(2,\); found \(1, 2\)"),
        ({"C": ["a", "b"]}, TypeError, "C must hold numbers"),
        ({"x": 1.0}, ValueError, r"x must have shape \(..., length ≥ 1\); found \(\)"),
        ({"x": np.ones((2, 0))}, ValueError, "x must have shape"),
        ({"x": [1.0, np.inf]}, ValueError, "x must be finite; found inf"),
        ({"B_bar_prev": [1.0]}, ValueError, "B_bar_prev must have shape"),
        ({"initial_state": [1.0, 2.0, 3.0]}, ValueError, r"initial_state must broadcast to shape \(2,\); found \(3,\)"),
        ({"previous_input": 1.0}, ValueError, "previous_input belongs to a two-tap rule"),
        ({"previous_input": [1.0, 2.0], "B_bar_prev": [1.0, 1.0]}, ValueError, "previous_input must broadcast"),
    ],
)
def test_recurrence_refuses(change, error, message):
    recurrence(**GOOD)
    with pytest.raises(error, match=message):
        recurrence(**{**GOOD, **change})


@pytest.mark.parametrize(("length", "error"), [(0, ValueError), (-3, ValueError), (True, TypeError), (2.0, TypeError)])
def test_kernel_refuses_a_length(length, error):
    with pytest.raises(error, match="length"):
        kernel([0.5], [1.0], [1.0], length)


@pytest.mark.parametrize(
    ("K", "x", "error", "message"),
    [
        ([1.0], [1.0, 2.0], ValueError, "K and x must have one length; found 1 and 2"),
        (np.ones((2, 4)), np.ones((3, 4)), ValueError, "K and x must broadcast"),
        ([1.0, np.nan], [1.0, 2.0], ValueError, "K must be finite"),
        ([None, 1.0], [1.0, 2.0], TypeError, "K"),
    ],
)
def test_convolve_refuses(K, x, error, message):
    with pytest.raises(error, match=message):
        convolve(K, x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Lambda": [0.0, -1.0]}, "Lambda must have negative real parts"),
        ({"P": [1.0]}, r"P must have shape \(2,\); found \(1,\)"),
        ({"delta": 0.0}, "delta must be a positive real number"),
        ({"delta": 1j}, "delta must be a positive real number"),
        ({"length": 0}, "length is 0, expected an integer of at least 1"),
        # A = diag(Λ) − P Q* has the eigenvalue 0, then 1: K̂ has a pole at a root of unity, then K grows
        ({"P": [1.0, 0.0], "Q": [-1.0, 0.0]}, "must decay"),
        ({"P": [1.0, 0.0], "Q": [-2.0, 0.0]}, "must decay"),
        ({"Lambda": [-1e-12, -1.0], "P": [0.0, 0.0]}, "must decay"),
    ],
)
def test_kernel_dplr_refuses(change, message):
    good = {
        "Lambda": [-1.0, -2.0],
        "P": [1.0, 1.0],
        "Q": [1.0, 1.0],
        "B": [1, 1],
        "C": [1, 1],
        "delta": 0.1,
        "length": 4,
    }
    kernel_dplr(**good)
    with pytest.raises(ValueError, match=message):
        kernel_dplr(**{**good, **change})
