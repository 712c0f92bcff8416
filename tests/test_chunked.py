"""The scan by chunks stays within the rounding bounds of the oracle, and wrong ones do not."""

from __future__ import annotations

import inspect
import tracemalloc
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssm_edu import bounds
from ssm_edu.selective import chunked, reference
from ssm_edu.selective.problem import Problem, make_problem
from tests.problems import GRID_LENGTHS, GRID_TOLERANCES, arguments, grid_arguments, random_arguments

DISCRETIZATIONS = ("mamba", "zoh", "bilinear")


def cotangents(problem: Problem, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (problem.batch, problem.dim, problem.state)
    last = rng.normal(size=shape) + (1j * rng.normal(size=shape) if problem.is_complex else 0)
    return rng.normal(size=problem.u.shape).astype(problem.u.dtype), last.astype(problem.A.dtype)


def assert_within(found: Any, expected: Any, bound: Any, name: str) -> None:
    assert (found is None) == (expected is None), name
    if found is not None:
        assert found.shape == expected.shape, name
        assert np.isfinite(bound).all(), name
        worst = np.max(np.abs(found - expected) - bound, initial=0)
        assert (np.abs(found - expected) <= bound).all(), f"{name}: {worst:.2g} beyond its bound"


def check_forward(module: Any, problem: Problem, chunk: int) -> None:
    stored = problem.A.real.dtype.name
    expected = bounds.forward(problem, algorithm="chunked", chunk=chunk, stored=stored)
    for name, *values in zip(
        ("y", "last_state"),
        module.selective_scan(problem, chunk),
        reference.selective_scan(problem),
        expected,
        strict=True,
    ):
        assert_within(*values, name)


def check_backward(module: Any, problem: Problem, chunk: int) -> None:
    grads, stored = cotangents(problem), problem.A.real.dtype.name
    expected = bounds.backward(problem, *grads, algorithm="chunked", chunk=chunk, stored=stored)
    found = module.selective_scan_backward(problem, *grads, chunk)
    exact = reference.selective_scan_backward(problem, *grads)
    for name, bound in expected._asdict().items():
        assert_within(getattr(found, name), getattr(exact, name), bound, name)


@pytest.mark.usefixtures("no_type_checks")
@given(arguments(max_length=23), st.integers(1, 26), st.sampled_from(["float64", "float32"]))
def test_agrees_with_the_oracle_within_its_bounds(kwargs: dict[str, Any], chunk: int, dtype: str) -> None:
    """ADJ-9, SCAN-15: any chunk, any option, forward and backward."""
    problem = make_problem(**in_dtype(kwargs, dtype))
    check_forward(chunked, problem, chunk)
    check_backward(chunked, problem, chunk)


def in_dtype(kwargs: dict[str, Any], dtype: str) -> dict[str, Any]:
    if dtype == "float64":
        return kwargs
    narrow = {np.dtype(np.float64): np.float32, np.dtype(np.complex128): np.complex64}
    return {k: v.astype(narrow.get(v.dtype, v.dtype)) if isinstance(v, np.ndarray) else v for k, v in kwargs.items()}


@pytest.mark.usefixtures("no_type_checks")
@pytest.mark.parametrize("discretization", DISCRETIZATIONS)
@pytest.mark.parametrize("length", [1, 2, 13])
def test_every_chunk_from_one_to_beyond_the_length(length: int, discretization: str) -> None:
    kwargs = random_arguments(
        length, length=length, groups_B=2, groups_C=None, packed=True, is_complex=True, discretization=discretization
    )
    problem = make_problem(**kwargs)
    for chunk in range(1, length + 4):
        check_forward(chunked, problem, chunk)
        if chunk % 3 == 1:
            check_backward(chunked, problem, chunk)


@pytest.mark.parametrize("dtype", GRID_TOLERANCES)
@pytest.mark.parametrize("length", [length for length in GRID_LENGTHS if length <= 512])
def test_single_precision_meets_the_grid(length: int, dtype: str) -> None:
    kwargs = grid_arguments(length, dtype=dtype, is_complex=length % 3 == 0, groups=2)
    problem = make_problem(**kwargs)
    y, last = chunked.selective_scan(problem)
    assert (y.dtype, last.dtype) == (np.float32, problem.A.dtype)
    rtol, atol = GRID_TOLERANCES[dtype]
    exact, exact_last = reference.selective_scan(problem)
    np.testing.assert_allclose(y.astype(dtype), exact, rtol=rtol, atol=atol)
    np.testing.assert_allclose(last, exact_last, rtol=rtol, atol=atol)


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_results_have_the_precision_of_the_problem(dtype: str, is_complex: bool) -> None:
    problem = make_problem(**random_arguments(3, dtype=dtype, is_complex=is_complex, complex_maps=False))
    real, states = problem.A.real.dtype, problem.A.dtype
    y, last = chunked.selective_scan(problem, chunk=2)
    assert (y.dtype, last.dtype) == (real, states)
    for name, gradient in chunked.selective_scan_backward(problem, *cotangents(problem), chunk=2)._asdict().items():
        assert gradient.dtype == (states if name in ("A", "initial_state") else real), name


def divide(A: Any, delta: Any, b: Any) -> np.ndarray:
    """The states by cumprod, divide, cumsum, multiply."""
    P = np.exp(A[..., None] * np.cumsum(delta, axis=-1)[:, :, None])
    return P * np.cumsum(b / P, axis=-1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("discretization", DISCRETIZATIONS)
def test_strong_decay_and_strong_decay_after_a_pause(discretization: str, dtype: str) -> None:
    """SCAN-17, SCAN-19: where a cumulative product is 0 and a quotient by it NaN."""
    kwargs = random_arguments(
        5, length=40, delta_softplus=False, delta_bias=False, initial_state=True, discretization=discretization
    )
    for scale in (1e2, 1e4):
        kwargs["delta"] = kwargs["delta"] * scale
        kwargs["delta"][..., ::5] = 1e-3
        problem = make_problem(**in_dtype(kwargs, dtype))
        check_forward(chunked, problem, 16)
        check_backward(chunked, problem, 16)
    with np.errstate(all="ignore"):
        assert np.isnan(divide(kwargs["A"], kwargs["delta"], np.ones((2, 4, 3, 40)))).any()


@pytest.mark.parametrize("discretization", DISCRETIZATIONS)
def test_nan_crosses_no_sequence_border_and_goes_not_back_in_time(discretization: str) -> None:
    kwargs = random_arguments(1, length=12, discretization=discretization)
    kwargs["seq_idx"] = np.repeat([[0, 1, 2]], 2, axis=0).repeat(4, axis=1)
    for name in ("u", "delta", "initial_state"):
        at = (1, 2, 0) if name == "initial_state" else (1, 2, 5)
        spoilt = kwargs | {name: kwargs[name].copy(), "delta_softplus": False}
        spoilt[name][at] = np.nan
        t = np.arange(12)
        reached = t < 4 if name == "initial_state" else (t >= 5) & (t < 8)
        for chunk in (1, 3, 5, 12):
            y, last = chunked.selective_scan(make_problem(**spoilt), chunk)
            assert np.isfinite(y[1, 2, ~reached]).all()
            assert np.isfinite(np.delete(y, 2, axis=1)).all()
            assert np.isfinite(last).all()
            assert not np.isfinite(y[1, 2, at[2]])


@pytest.mark.parametrize("sizes", [{"batch": 0}, {"dim": 0}, {"length": 0}, {"state": 0}])
def test_empty_axes(sizes: dict[str, int]) -> None:
    problem = make_problem(**random_arguments(5, **sizes))
    grads = cotangents(problem)
    found, expected = (
        [*module.selective_scan(problem), *module.selective_scan_backward(problem, *grads)]
        for module in (chunked, reference)
    )
    for ours, exact in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, exact, rtol=1e-14)


@pytest.mark.usefixtures("no_type_checks")
def test_memory_is_that_of_a_chunk_and_the_borders() -> None:
    batch, dim, state, length = 1, 16, 16, 2048
    problem = make_problem(**random_arguments(1, batch=batch, dim=dim, state=state, length=length))

    def peak(module: ModuleType, chunk: int) -> int:
        module.selective_scan_backward(problem, problem.u, chunk=chunk)  # what a process's first call sets up
        tracemalloc.start()
        module.selective_scan_backward(problem, problem.u, chunk=chunk)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    # du, dΔ and dz, and dB and dC, which are state/dim of them; some 22 arrays of a chunk's states; the border states
    allowed = 8 * batch * dim * (length * (4 + 2 * state / dim) + 24 * state * 64 + state * length // 64)
    whole_chunks_kept = mutant(("borders[-1])[..., -1].copy()", "borders[-1])[..., -1]"))
    assert peak(chunked, 64) < allowed < peak(chunked, length)
    assert peak(whole_chunks_kept, 64) > allowed


@pytest.mark.parametrize(
    ("chunk", "error", "message"),
    [
        (0, ValueError, "chunk is 0, expected an integer of at least 1"),
        (-3, ValueError, "chunk is -3"),
        (2.0, TypeError, r"chunk is 2\.0, expected an integer"),
        (True, TypeError, "chunk is True, expected an integer"),
    ],
)
def test_bad_chunks_are_refused(chunk: Any, error: type[Exception], message: str) -> None:
    problem, plain = make_problem(**random_arguments(0)), mutant()
    with pytest.raises(error, match=message):
        plain.selective_scan(problem, chunk)
    with pytest.raises(error, match=message):
        plain.selective_scan_backward(problem, problem.u, chunk=chunk)


def mutant(*changes: tuple[str, str]) -> ModuleType:
    """The module with pieces of its source replaced, each of which must stand there exactly once."""
    source = inspect.getsource(chunked)
    for old, new in changes:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    module = ModuleType("mutant")
    exec(compile(source, "mutant", "exec"), module.__dict__)
    return module


WRONG_FORWARD = {
    "state lost at a border": ("border = h[..., -1]", "border = 0 * h[..., -1]"),
    "border not decayed": ("decay(x) * start[..., None]", "start[..., None]"),
    "decay of the earlier run": ("decay(x2) * b1", "decay(x1) * b1"),
    "step sizes not added up": ("else x2 + x1", "else x2"),
    "bilinear decays not multiplied": ("x2 * x1 if bilinear", "x2 if bilinear"),
    "sequence border forgotten inside a run": ("keep2 & keep1", "keep2"),
    "sequence border forgotten": ("np.where(keep2, decay(x2) * b1, 0)", "decay(x2) * b1"),
    "initial state lost": ("if p.initial_state is None else p.initial_state", ""),
}
WRONG_BACKWARD = {
    "decay from t instead of t + 1": ("c.delta[..., :0:-1]", "c.delta[..., -2::-1]"),
    "sequence border from t": ("c.keep[..., :0:-1]", "c.keep[..., -2::-1]"),
    "decay not conjugated": ("np.conj(p.A), keep", "p.A, keep"),
    "C not conjugated": ("(np.conj(c.C) * e)", "(c.C * e)"),
    "nothing carried between chunks": ("g[..., 0], 0)", "0 * g[..., 0], 0)"),
    "carried on undecayed": ("np.conj(rule.A_bar(c.delta[..., 0], p.A)) * g", "g"),
    "h_t for h_{t−1}": ("[border[..., None], h[..., :-1]], axis=-1)", "[h], axis=-1)"),
    "softplus′ of Δ": ("-np.expm1(-c.delta[:, :, 0])", "1 / (1 + np.exp(-c.delta[:, :, 0]))"),
    "only the last chunk of dA": ("dA += (np", "dA[:] = (np"),
}


@pytest.mark.parametrize("wrong", WRONG_FORWARD | WRONG_BACKWARD)
def test_a_wrong_scan_by_chunks_fails_the_check(wrong: str) -> None:
    """SEL-1 is softplus′ = 1 − e^{−Δ}."""
    is_bilinear = "bilinear" in wrong
    kwargs = random_arguments(6, length=11, is_complex=True, discretization="bilinear" if is_bilinear else "zoh")
    kwargs["seq_idx"] = np.repeat([[0] * 6 + [1] * 5], 2, axis=0)
    problem = make_problem(**kwargs)
    check, changes = (check_forward, WRONG_FORWARD) if wrong in WRONG_FORWARD else (check_backward, WRONG_BACKWARD)
    check(mutant(), problem, 4)
    with pytest.raises(AssertionError):
        check(mutant(changes[wrong]), problem, 4)
