"""The oracle's forward scan against dense matrices, a float32 loop and its own symmetries."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import expm

from ssm_edu.selective import selective_scan, selective_step
from tests.problems import GRID_LENGTHS, GRID_TOLERANCES, arguments, grid, grid_arguments, random_arguments

IN_TIME = ("u", "delta", "z", "seq_idx")
OPTIONAL = ("D", "z", "delta_bias", "initial_state", "seq_idx")


def scan(**kwargs: Any) -> tuple[np.ndarray, np.ndarray]:
    return selective_scan(**kwargs, return_last_state=True, backend="reference")


def assert_same(found: np.ndarray, expected: np.ndarray, ulps: float = 64) -> None:
    """Equal but for rounding: a few units of the largest value, for sums in another order."""
    assert found.shape == expected.shape
    scale = np.abs(expected).max(initial=1.0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=ulps * np.finfo(float).eps * scale)


def in_time(kwargs: dict[str, Any], window: slice) -> dict[str, Any]:
    """The scan of a window of time, from the same initial state."""
    cut = {name: value[..., window] for name, value in kwargs.items() if name in IN_TIME}
    maps = {name: kwargs[name][..., window] for name in ("B", "C") if kwargs[name].ndim == 4}
    return kwargs | cut | maps


def per_channel(M: np.ndarray, b: int, d: int, t: int, dim: int) -> np.ndarray:
    return M[d] if M.ndim == 2 else M[b, d // (dim // M.shape[1]), :, t]


def dense_maps(kwargs: dict[str, Any], b: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Ā_t (length, state, state) and B̄_t (length, state) by matrix functions, for one channel."""
    u, A, dim = kwargs["u"], kwargs["A"], kwargs["u"].shape[1]
    state = A.shape[1]
    A_bars, B_bars = [], []
    for t in range(u.shape[2]):
        delta = kwargs["delta"][b, d, t] + (kwargs["delta_bias"][d] if "delta_bias" in kwargs else 0)
        delta = np.log1p(np.exp(delta)) if kwargs["delta_softplus"] else delta
        B_t = per_channel(kwargs["B"], b, d, t, dim)
        Z = delta * np.diag(A[d])
        if kwargs["discretization"] == "bilinear":
            half = np.eye(state) - Z / 2
            A_bars.append(np.linalg.solve(half, np.eye(state) + Z / 2))
            B_bars.append(np.linalg.solve(half, delta * B_t))
        else:
            block = np.block([[Z, delta * B_t[:, None]], [np.zeros((1, state + 1))]])
            both = expm(block)
            A_bars.append(both[:state, :state])
            B_bars.append(both[:state, state] if kwargs["discretization"] == "zoh" else delta * B_t)
    return np.array(A_bars), np.array(B_bars)


def dense_scan(kwargs: dict[str, Any]) -> np.ndarray:
    """y = (M u + K h₀ + D u) silu(z), with the lower-triangular M_ts = C_t Ā_t … Ā_{s+1} B̄_s written out."""
    u = kwargs["u"]
    batch, dim, length = u.shape
    y = np.empty(u.shape)
    for b in range(batch):
        for d in range(dim):
            A_bar, B_bar = dense_maps(kwargs, b, d)
            idx = kwargs["seq_idx"][b] if "seq_idx" in kwargs else np.zeros(length)
            M = np.zeros((length, length), A_bar.dtype)
            free = np.zeros(length, A_bar.dtype)
            for t in range(length):
                row = per_channel(kwargs["C"], b, d, t, dim)
                for s in range(t, -1, -1):
                    M[t, s] = row @ B_bar[s]
                    row = row @ A_bar[s]
                    if s > 0 and idx[s] != idx[s - 1]:
                        break
                else:
                    free[t] = row @ kwargs["initial_state"][b, d] if "initial_state" in kwargs else 0
            twice = 2 if np.iscomplexobj(kwargs["A"]) else 1
            y[b, d] = twice * (M @ u[b, d] + free).real
    y += kwargs["D"][:, None] * u if "D" in kwargs else 0
    return y * (kwargs["z"] / (1 + np.exp(-kwargs["z"])) if "z" in kwargs else 1)


def single_precision_scan(kwargs: dict[str, Any]) -> np.ndarray:
    """Mamba's rule as a loop of float32 operations; no code of the package."""
    single = {k: v.astype(np.result_type(v, np.float32)) for k, v in kwargs.items() if isinstance(v, np.ndarray)}
    u, delta, A = single["u"], single["delta"], single["A"]
    batch, dim, length = u.shape
    delta = delta + (single["delta_bias"][:, None] if "delta_bias" in single else np.float32(0))
    delta = np.log1p(np.exp(delta)) if kwargs["delta_softplus"] else delta
    B, C = (
        np.broadcast_to(M[None, :, :, None], (batch, *M.shape, length))
        if M.ndim == 2
        else M.repeat(dim // M.shape[1], 1)
        for M in (single["B"], single["C"])
    )
    h = np.zeros((batch, dim, A.shape[1]), A.dtype)
    y = np.empty(u.shape, np.float32)
    for t in range(length):
        step = delta[..., t, None]
        h = np.exp(step * A) * h + step * B[..., t] * u[..., t, None]
        y[..., t] = (C[..., t] * h).sum(-1).real * np.float32(2 if np.iscomplexobj(A) else 1)
    y += single["D"][:, None] * u if "D" in single else np.float32(0)
    y = y * (single["z"] / (1 + np.exp(-single["z"])) if "z" in single else np.float32(1))
    assert y.dtype == np.float32
    return y.astype(kwargs["u"].dtype)


@given(arguments(max_length=5))
def test_equals_the_dense_lower_triangular_matrix(kwargs: dict[str, Any]) -> None:
    # expm is accurate to some hundred units of roundoff times the norm of its argument, here at most 10
    assert_same(scan(**kwargs)[0], dense_scan(kwargs), ulps=2000)


@given(grid(max_length=372))
def test_float32_loop_meets_the_grid(kwargs: dict[str, Any]) -> None:
    rtol, atol = GRID_TOLERANCES[kwargs["u"].dtype.name]
    np.testing.assert_allclose(single_precision_scan(kwargs), scan(**kwargs)[0], rtol=rtol, atol=atol)


@pytest.mark.usefixtures("no_type_checks")
@pytest.mark.parametrize("length", GRID_LENGTHS)
def test_float32_loop_meets_every_length_of_the_grid(length: int) -> None:
    kwargs = grid_arguments(length, is_complex=length % 3 == 0, groups=2)
    rtol, atol = GRID_TOLERANCES["float32"]
    np.testing.assert_allclose(single_precision_scan(kwargs), scan(**kwargs)[0], rtol=rtol, atol=atol)


@given(arguments(), st.integers(0, 7))
def test_splits_at_any_time_with_the_state_carried_over(kwargs: dict[str, Any], at: int) -> None:
    y, last = scan(**kwargs)
    at = min(at, y.shape[2])
    if "seq_idx" in kwargs:
        # A sequence boundary at the cut itself is not seen by either half.
        kwargs["seq_idx"][:, at:] = kwargs["seq_idx"][:, at - 1 : at] if at else kwargs["seq_idx"][:, :1]
        y, last = scan(**kwargs)
    y_1, middle = scan(**in_time(kwargs, slice(0, at)))
    y_2, end = scan(**in_time(kwargs, slice(at, None)) | {"initial_state": middle})
    assert np.array_equal(np.concatenate([y_1, y_2], axis=2), y)
    assert np.array_equal(end, last)


@given(arguments(packed=False))
def test_step_equals_scan(kwargs: dict[str, Any]) -> None:
    y, last = scan(**kwargs)
    h = kwargs.get("initial_state", np.zeros_like(last))
    batch = len(h)
    fixed = {name: kwargs.get(name) for name in ("A", "D", "delta_bias", "delta_softplus", "discretization")}
    for t in range(y.shape[2]):
        B_t, C_t = (
            np.broadcast_to(M, (batch, *M.shape)) if M.ndim == 2 else M[..., t] for M in (kwargs["B"], kwargs["C"])
        )
        before = h.copy()
        z_t = kwargs["z"][..., t] if "z" in kwargs else None
        y_t, after = selective_step(h, kwargs["u"][..., t], kwargs["delta"][..., t], B_t=B_t, C_t=C_t, z_t=z_t, **fixed)
        assert np.array_equal(h, before)
        assert_same(y_t, y[..., t])
        h = after
    assert_same(h, last)


@given(arguments(packed=True, initial_state=False))
def test_packed_equals_separate(kwargs: dict[str, Any]) -> None:
    y, last = scan(**kwargs)
    idx = kwargs.pop("seq_idx")
    for b in range(len(y)):
        one = {k: v[b : b + 1] if isinstance(v, np.ndarray) and v.ndim > 2 else v for k, v in kwargs.items()}
        edges = [0, *np.flatnonzero(np.diff(idx[b])) + 1, y.shape[2]]
        for start, stop in pairwise(edges):
            y_1, last_1 = scan(**in_time(one, slice(start, stop)))
            assert np.array_equal(y_1[0], y[b, :, start:stop])
        assert np.array_equal(last_1[0], last[b])


@given(arguments(groups_B=1, groups_C=1))
def test_one_group_equals_its_copies_and_no_group_axis(kwargs: dict[str, Any]) -> None:
    y, last = scan(**kwargs)
    dim = kwargs["u"].shape[1]
    for form in (lambda M: M.repeat(dim, axis=1), lambda M: M[:, 0]):
        y_1, last_1 = scan(**kwargs | {name: form(kwargs[name]) for name in ("B", "C")})
        assert np.array_equal(y_1, y)
        assert np.array_equal(last_1, last)


@given(arguments(groups_B=None, groups_C=None))
def test_constant_maps_equal_the_same_maps_at_every_time(kwargs: dict[str, Any]) -> None:
    batch, dim, length = kwargs["u"].shape
    shape = (batch, dim, kwargs["A"].shape[1], length)
    maps = {name: np.broadcast_to(kwargs[name][None, :, :, None], shape) for name in ("B", "C")}
    for found, expected in zip(scan(**kwargs | maps), scan(**kwargs), strict=True):
        assert np.array_equal(found, expected)


@given(arguments(packed=False, delta_bias=False, delta_softplus=False, initial_state=True))
def test_zero_step_holds_the_state_and_a_huge_one_forgets_it(kwargs: dict[str, Any]) -> None:
    held = scan(**kwargs | {"delta": np.zeros_like(kwargs["delta"])})[1]
    assert np.array_equal(held, kwargs["initial_state"])
    # |A| ≥ 0.2, so that exp(−1e4 · 0.2) is 0; the bilinear Ā tends to −1 instead: there the state rings
    huge = kwargs | {"delta": np.full_like(kwargs["delta"], 1e4)}
    with_state, without = scan(**huge)[1], scan(**huge | {"initial_state": None})[1]
    forgets = np.array_equal(with_state, without)
    assert forgets == (kwargs["discretization"] != "bilinear")


@given(arguments(z=False), st.integers(0, 6))
def test_causal_and_linear_in_u(kwargs: dict[str, Any], at: int) -> None:
    y = scan(**kwargs)[0]
    later = kwargs["u"].copy()
    later[..., at:] += 1
    assert np.array_equal(scan(**kwargs | {"u": later})[0][..., :at], y[..., :at])
    kwargs = kwargs | {"initial_state": None}
    u, v = kwargs["u"], np.roll(kwargs["u"], 1)
    together = scan(**kwargs | {"u": 2 * u - 3 * v})[0]
    assert_same(together, 2 * scan(**kwargs)[0] - 3 * scan(**kwargs | {"u": v})[0], ulps=512)


@pytest.mark.parametrize("discretization", ["mamba", "zoh", "bilinear"])
@pytest.mark.parametrize("name", ["u", "delta", "B", "C", "z", "initial_state"])
def test_nan_reaches_exactly_what_depends_on_it(name: str, discretization: str) -> None:
    kwargs = random_arguments(1, dim=4, length=9, groups_B=2, groups_C=2, packed=True, discretization=discretization)
    kwargs["seq_idx"][:] = [0, 0, 0, 0, 0, 0, 1, 1, 1]
    batch, dim, length = kwargs["u"].shape
    b, d, n, t = np.ix_(range(batch), range(dim), range(3), range(length))
    row, last = (b == 1) & (d == 2), (b == 1) & (d == 2) & (n < 0)
    group = (b == 1) & (d >= 2)
    where, reaches = {
        "u": ((1, 2, 3), row & (t >= 3) & (t < 6)),
        "delta": ((1, 2, 3), row & (t >= 3) & (t < 6)),
        "z": ((1, 2, 3), row & (t == 3)),
        "B": ((1, 1, 0, 3), group & (t >= 3) & (t < 6)),
        "C": ((1, 1, 0, 3), group & (t == 3)),
        "initial_state": ((1, 2, 0), row & (t < 6)),
    }[name]
    kwargs[name] = kwargs[name].copy()
    kwargs[name][where] = np.nan
    y, last = scan(**kwargs)
    assert np.array_equal(np.isnan(y), reaches[:, :, 0] if reaches.shape[2] == 1 else reaches.any(2))
    assert not np.isnan(last).any()


@pytest.mark.parametrize("discretization", ["mamba", "zoh", "bilinear"])
def test_nan_in_the_last_step_reaches_the_last_state(discretization: str) -> None:
    kwargs = random_arguments(1, initial_state=False, length=1, discretization=discretization)
    kwargs["delta"][1, 2, 0] = np.nan
    y, last = scan(**kwargs)
    assert np.isnan(y[1, 2, 0])
    assert np.isnan(last[1, 2]).all()
    assert np.isnan(y).sum() == 1
    assert np.isnan(last).sum() == last.shape[2]


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("sizes", [{"length": 1}, {"length": 127}, {"state": 1}, {"state": 300}, {"dim": 1}])
def test_odd_sizes_equal_the_dense_matrix(sizes: dict[str, int], is_complex: bool) -> None:
    small = {"batch": 1, "dim": 2, "length": 2, "state": 2} | sizes
    kwargs = random_arguments(3, is_complex=is_complex, **small)
    assert_same(scan(**kwargs)[0], dense_scan(kwargs), ulps=2000)


@pytest.mark.parametrize("sizes", [{"batch": 0}, {"dim": 0}, {"length": 0}, {"state": 0}])
def test_empty_axes(sizes: dict[str, int]) -> None:
    kwargs = random_arguments(5, **sizes)
    y, last = scan(**kwargs)
    u, z = kwargs["u"], kwargs["z"]
    assert y.shape == u.shape
    if "length" in sizes:
        assert np.array_equal(last, kwargs["initial_state"])
        assert not scan(**kwargs | {"initial_state": None})[1].any()
    if "state" in sizes:
        np.testing.assert_allclose(y, kwargs["D"][:, None] * u * z / (1 + np.exp(-z)), rtol=1e-14)


def test_overflow_gives_inf_without_a_warning() -> None:
    kwargs = random_arguments(7, delta_softplus=False, delta_bias=False, initial_state=False, length=3)
    kwargs["delta"][..., 1] = -1e4
    y, _ = scan(**kwargs)
    assert np.isfinite(y[..., 0]).all()
    assert not np.isfinite(y[..., 1:]).any()
    kwargs["delta"][..., 0], kwargs["delta"][..., 1] = -1e4, 0.1
    assert np.isfinite(scan(**kwargs)[0]).all()


def test_softplus_is_exact_in_both_tails() -> None:
    kwargs = random_arguments(
        9, delta_bias=False, initial_state=False, length=2, batch=1, dim=1, state=1, z=False, D=False
    )
    kwargs["delta"][0, 0] = [-700.0, 1e4]
    kwargs["A"][:] = -1e-5
    y, _ = scan(**kwargs)
    u, B, C = kwargs["u"][0, 0], kwargs["B"][0, 0, 0], kwargs["C"][0, 0, 0]
    small = np.exp(-700.0)
    expected = [C[0] * small * B[0] * u[0], C[1] * 1e4 * B[1] * u[1]]
    np.testing.assert_allclose(y[0, 0], expected, rtol=1e-14)


def test_the_comparison_fails_a_scan_that_decays_twice() -> None:
    kwargs = random_arguments(11)
    with pytest.raises(AssertionError):
        assert_same(scan(**kwargs | {"A": 2 * kwargs["A"]})[0], dense_scan(kwargs), ulps=2000)
