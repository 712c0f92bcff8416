"""The conformance kit passes what is right, catches what is wrong, and says so in a form that can be pasted."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from ssm_edu import bounds, scan, selective_scan, selective_step
from ssm_edu.commands.check import check_command
from ssm_edu.selective.problem import make_problem
from ssm_edu.testing import (
    FEATURES,
    PROPERTIES,
    Arguments,
    Failure,
    Recipe,
    Report,
    Result,
    check,
    conformance_tests,
    frameworks,
    make_implementation,
    problem_from,
    problems,
    replay,
    runner,
    strategies,
)
from ssm_edu.testing.frameworks import Framework, get_framework
from ssm_edu.testing.implementation import assert_close
from ssm_edu.testing.recipes import features_of, fitted, rounded
from ssm_edu.testing.report import NOT_TRIED
from tests.mutants import CORRECT, MUTANTS, DecayOfTheSameStep, Kernel, Reference, TailDropped
from tests.problems import NIGHTLY

ROOT = Path(__file__).parent.parent
forward, backward = Reference.forward, Reference.backward

app = typer.Typer()
app.command()(check_command)
cli = CliRunner()


@pytest.fixture
def short_shrinking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SHRINK_SECONDS", 0.1)


# A few examples beside the corners keep them all in the time of one check with the default number.
@pytest.mark.usefixtures("no_type_checks")
@pytest.mark.parametrize("kind", CORRECT, ids=lambda kind: kind.__name__)
def test_passes_correct_scans_however_they_round(kind: type[Kernel]) -> None:
    report = check(kind.forward, kind.backward, max_examples=8)
    assert report.ok, str(report)
    assert [r.name for r in report.results] == list(PROPERTIES)
    assert not any(r.status == "skipped" for r in report.results)


@pytest.mark.usefixtures("no_type_checks")
@pytest.mark.parametrize(("dtype", "examples"), [("float16", 5), ("float64", 5), ("float32", 8)])
def test_passes_the_reference(dtype: str, examples: int) -> None:
    examples = runner.MAX_EXAMPLES if NIGHTLY else examples
    report = check(forward, backward, step=selective_step, dtype=dtype, max_examples=examples)
    assert report.ok, str(report)


class Narrow(np.ndarray):
    """Stands for an array of bfloat16: its numbers, in float32."""


class Bfloat16(Framework):
    """A framework with bfloat16, made of NumPy's arrays."""

    def from_numpy(self, array: np.ndarray, dtype: str) -> Any:
        return array.view(Narrow) if dtype == "bfloat16" else array

    def to_numpy(self, name: str, value: Any) -> tuple[np.ndarray, str]:
        return value.view(np.ndarray), "bfloat16" if isinstance(value, Narrow) else value.dtype.name


@pytest.mark.usefixtures("no_type_checks")
def test_bfloat16_outputs_may_be_off_by_their_last_rounding_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def narrow(array: np.ndarray) -> np.ndarray:
        return rounded(array, Recipe(dtype="bfloat16")).view(Narrow)

    def scan(*args: Any, off: float = 0.0, **kwargs: Any) -> Any:
        both = kwargs.pop("return_last_state", False)
        y, last = forward(*(x.view(np.ndarray) for x in args), **kwargs, return_last_state=True)
        y = narrow(y * np.float32(1 + off))
        return (y, last) if both else y

    def gradients(grad_y: Any, *args: Any, **kwargs: Any) -> Any:
        found = backward(grad_y, *args, **kwargs)._asdict()
        given = dict(zip(("u", "delta", "A", "B", "C"), args, strict=True)) | kwargs
        return {n: narrow(g) if isinstance(given.get(n), Narrow) else g for n, g in found.items() if g is not None}

    monkeypatch.setattr(runner, "get_framework", lambda *_: Bfloat16("numpy", np, None))
    report = check(scan, gradients, dtype="bfloat16", without={"strided"}, max_examples=3)
    assert report.ok, str(report)
    assert not check(partial(scan, off=2**-7), dtype="bfloat16", properties=["equals the oracle"]).ok


@pytest.mark.usefixtures("no_type_checks", "short_shrinking")
@pytest.mark.parametrize("kind", MUTANTS, ids=lambda kind: kind.__name__)
def test_catches_the_mutant_by_the_property_it_breaks(kind: type[Kernel]) -> None:
    [result] = check(kind.forward, kind.backward, properties=[MUTANTS[kind]]).results
    assert result.status == "failed"
    assert "dtype" not in result.message or kind.__name__ == "ReturnsDouble"


def test_every_property_catches_some_mutant() -> None:
    assert len(MUTANTS) >= 25
    assert set(MUTANTS.values()) == set(PROPERTIES)


def test_approximate_functions_pass_only_where_they_are_allowed() -> None:
    class CancellingSoftplus(Kernel):
        def soft(self, x: Any) -> Any:
            return np.where(x > 20, x, np.log(1 + np.exp(np.minimum(x, 20))))

    strict = check(CancellingSoftplus.forward, properties=["tiny steps"])
    loose = check(CancellingSoftplus.forward, properties=["tiny steps"], arithmetic=bounds.FLOAT32_APPROX)
    assert not strict.ok
    assert loose.ok, str(loose)


class PartsApart(Kernel):
    """Positive and negative terms in two sums, whose exponentials are off by 4 units: 6 are allowed."""

    def decay(self) -> Any:
        return np.exp(self.ζ.astype(np.float64))

    def states(self, a: Any, b: Any, h: Any) -> Any:
        off, zero = 4 * bounds.FLOAT32.format.unit_roundoff, np.float64(0)
        positive = super().states(a * (1 + off), np.maximum(b, zero), np.maximum(h, zero))
        return positive + super().states(a * (1 - off), np.minimum(b, zero), np.minimum(h, zero))


REAL_MAMBA = {"complex", "zoh", "bilinear"}


@pytest.mark.usefixtures("no_type_checks", "short_shrinking")
def test_sums_that_cancel_pass_as_any_scan_and_fail_as_a_sequential_one() -> None:
    """Its error follows the scan of magnitudes, ROUND-10, and not the states, ROUND-7."""
    options: dict[str, Any] = {"without": REAL_MAMBA, "properties": ["equals the oracle", "long sequences"]}
    report = check(PartsApart.forward, algorithm="any", **options)
    assert report.ok, str(report)
    result = check(PartsApart.forward, algorithm="sequential", **options).failures[0]
    names = {"forward": PartsApart.forward}
    with pytest.raises(Failure):
        exec(result.counterexample, names)
    exec(result.counterexample.replace("algorithm='sequential'", "algorithm='any'"), names)


class LargeChunks(Kernel):
    chunk = 512

    def states(self, a: Any, b: Any, h: Any) -> Any:
        return scan.chunked(a, b, self.chunk, h)


@pytest.mark.usefixtures("no_type_checks")
def test_a_chunked_scan_passes_as_one() -> None:
    some = ["equals the oracle", "long sequences", "gradients equal the oracle's", "gradients of long sequences"]
    options: dict[str, Any] = {"algorithm": "chunked", "chunk": LargeChunks.chunk, "properties": some}
    report = check(LargeChunks.forward, LargeChunks.backward, max_examples=3, **options)
    assert report.ok, str(report)


BRACKETINGS: dict[str, dict[str, Any]] = {
    "nothing said": {},
    "tree": {"algorithm": "tree"},
    "sequential": {"algorithm": "sequential"},
    "any": {"algorithm": "any"},
    "chunks of 64": {"algorithm": "chunked", "chunk": 64},
    "chunks of 512": {"algorithm": "chunked", "chunk": 512},
}


def test_the_algorithm_reaches_the_bounds() -> None:
    problem = problem_from(seed=0, shape=(1, 1, 1, 1025), steps="initial", values="normal")
    grad_y, found = np.ones_like(problem["u"]), {}
    for name, bracketing in BRACKETINGS.items():
        implementation = make_implementation(forward, backward, **bracketing)
        options = {"stored": "float32", "algorithm": "tree"} | bracketing
        found[name] = implementation.scan_tolerance(problem)["y"]
        np.testing.assert_array_equal(found[name], bounds.forward(make_problem(**problem), **options).y)
        back = bounds.backward(make_problem(**problem), grad_y, **options)
        np.testing.assert_array_equal(implementation.gradients_tolerance(problem, grad_y)["gradient of u"], back.u)
    different = {bound.tobytes() for bound in found.values()}
    assert len(different) == len(BRACKETINGS) - 1
    np.testing.assert_array_equal(found["nothing said"], found["tree"])
    assert found["chunks of 512"].max() > found["chunks of 64"].max() > found["tree"].max()


def test_a_failure_is_shrunk_and_its_code_fails_again() -> None:
    [result] = check(TailDropped.forward, properties=["equals the oracle"]).results
    # Nothing is dropped up to 32.
    assert "shape=(1, 1, 1, 33))" in result.counterexample
    names = {"forward": TailDropped.forward}
    with pytest.raises(Failure, match="y\\[0, 0, 32\\] is 0"):
        exec(result.counterexample, names)
    exec(result.counterexample, {"forward": Kernel.forward})


def test_a_failure_of_the_adjoint_can_be_replayed() -> None:
    [result] = check(DecayOfTheSameStep.forward, DecayOfTheSameStep.backward, properties=["adjoint identity"]).results
    names = {"forward": Kernel.forward, "backward": DecayOfTheSameStep.backward}
    with pytest.raises(Failure, match="they differ by"):
        exec(result.counterexample, names)


def test_always_the_same_problems() -> None:
    seen: list[list[str]] = []
    for _ in range(2):
        tried: list[str] = []

        def recording(*args: Any, tried: list[str] = tried, **kwargs: Any) -> Any:
            tried.append(repr(args[0].tobytes()))
            return forward(*args, **kwargs)

        check(recording, properties=["rows of a batch"])
        seen.append(tried)
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda y, h: y, "forward returned a ndarray, expected (y, last_state)"),
        (lambda y, h: (y[..., :1], h), "y has shape"),
        (lambda y, h: (y.astype(np.float64), h), "y has dtype float64, expected float32"),
        (lambda y, h: (y, h.astype(np.complex128)), "last_state has dtype complex128"),
        (lambda y, h: (y.tolist(), h), "y is a list, expected a numpy.ndarray"),
        (lambda y, h: (None, h), "y is a NoneType, expected a numpy.ndarray"),
        (lambda y, h: 1 / 0, "forward raised ZeroDivisionError: division by zero"),
        (lambda y, h: sys.exit(0), "forward raised SystemExit: 0 ("),
        (lambda y, h: sys.exit(), "forward raised SystemExit ("),
    ],
)
def test_wrong_outputs_are_failures_with_a_message(wrong: Callable[..., Any], message: str) -> None:
    report = check(lambda *a, **kw: wrong(*forward(*a, **kw)), properties=["equals the oracle"])
    assert message in report.results[0].message
    assert "problem_from(seed=0, shape=(1, 1, 1, " in report.results[0].counterexample


def test_what_stops_a_user_stops_the_check() -> None:
    def interrupted(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(interrupted, max_examples=1)


def test_a_message_says_where_in_the_scan_and_never_where_in_the_kit(monkeypatch: pytest.MonkeyPatch) -> None:
    def divides(*args: Any, **kwargs: Any) -> Any:
        return 1 / 0

    def message(scan: Callable[..., Any]) -> str:
        return check(scan, properties=["equals the oracle"]).results[0].message

    line = divides.__code__.co_firstlineno + 1
    for folder, file in ((ROOT, "tests/test_conformance.py"), (ROOT / "docs", __file__)):
        monkeypatch.chdir(folder)
        assert message(divides).endswith(f"division by zero ({file}:{line})")
    said = message(lambda *, u, **kwargs: u)
    assert said.endswith("takes 0 positional arguments but 5 were given")


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (lambda g: g, ""),
        (lambda g: g._asdict(), ""),
        (tuple, ""),
        (lambda g: tuple(g)[:3], "backward returned a tuple of 3, expected fields or keys u, delta"),
        (lambda g: g._replace(A=None), "backward returned no gradient of A"),
        (lambda g: g._replace(delta=g.delta.T), "gradient of delta has shape"),
        (lambda g: 1 / 0, "backward raised ZeroDivisionError"),
    ],
)
def test_forms_of_gradients(form: Callable[..., Any], message: str) -> None:
    report = check(forward, lambda *a, **kw: form(backward(*a, **kw)), properties=["gradients add up"], max_examples=5)
    assert report.ok == (not message)
    assert message in report.results[0].message


def bare_scan(u: Any, delta: Any, A: Any, B: Any, C: Any) -> Any:
    return forward(u, delta, A, B, C)


BARE = {"variable_B", "variable_C", "mamba", "deterministic"}


@pytest.mark.usefixtures("no_type_checks")
def test_an_implementation_is_asked_for_nothing_that_it_lacks() -> None:
    report = check(bare_scan, features=BARE, max_examples=3)
    assert report.ok, str(report)
    skipped = {r.name: r.message for r in report.results if r.status == "skipped"}
    assert skipped["splits anywhere"] == "without initial_state, last_state"
    assert skipped["packed equals separate"] == "without seq_idx"
    assert skipped["adjoint identity"] == "no backward given"
    assert "equals the oracle" not in skipped
    assert "– packed equals separate" in str(report)


@pytest.mark.usefixtures("no_type_checks")
def test_a_scan_whose_maps_must_share_their_groups() -> None:
    def forward(u: Any, delta: Any, A: Any, B: Any, C: Any, **options: Any) -> Any:
        if (B.shape[1] if B.ndim == 4 else 1) != (C.shape[1] if C.ndim == 4 else 1):
            raise ValueError("B and C have different numbers of groups")
        return Reference().forward(u, delta, A, B, C, **options)

    some = ["equals the oracle", "groups are copies", "constant maps"]
    assert not check(forward, properties=some).ok
    report = check(forward, without={"unequal_groups"}, properties=some)
    assert report.ok, str(report)
    assert {result.status for result in report.results} == {"passed"}


def declared(message: str) -> set[str]:
    return set(message.rpartition("--without ")[2].split(","))


@pytest.mark.usefixtures("no_type_checks")
def test_an_unknown_argument_comes_with_all_there_is_to_declare() -> None:
    result = check(bare_scan, max_examples=1).failures[0]
    assert "unexpected keyword argument 'return_last_state'" in result.message
    lacks = {"last_state", "initial_state", "seq_idx", "zoh", "bilinear", "softplus", "delta_bias", "D", "z"}
    assert declared(result.message) == lacks

    def adjoint(grad_y: Any, u: Any, delta: Any, A: Any, B: Any, C: Any, **options: Any) -> Any:
        return backward(grad_y, u, delta, A, B, C, **options)

    some = {"groups", "complex", "constant_B", "constant_C", "unequal_groups"}
    [result] = check(bare_scan, adjoint, max_examples=1, without=some, properties=["equals the oracle"]).failures
    assert declared(result.message) == lacks | some
    report = check(bare_scan, without=declared(result.message), max_examples=1)
    assert report.ok, str(report)


@pytest.mark.usefixtures("no_type_checks")
def test_an_unknown_argument_of_the_adjoint_or_behind_a_wrapper_is_named_too() -> None:
    def adjoint(grad_y: Any, u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any = None, z: Any = None) -> Any:
        return backward(grad_y, u, delta, A, B, C, D, z)

    report = check(forward, adjoint, max_examples=1)
    lacks = {"grad_last_state", "initial_state", "seq_idx", "zoh", "bilinear", "softplus", "delta_bias"}
    assert declared(report.failures[0].message) == lacks
    report = check(lambda *args, **kwargs: bare_scan(*args, **kwargs), max_examples=1)
    assert declared(report.failures[0].message) == {"last_state"}


@pytest.mark.parametrize(
    "scan",
    [
        bare_scan,
        lambda *args, **kwargs: None,
        lambda *args, **kwargs: [x.tolist() for x in forward(*args, **kwargs)],
        lambda *args, **kwargs: tuple(x.astype(np.float64) for x in forward(*args, **kwargs)),
        lambda *args, **kwargs: tuple(x[..., :1, :0] for x in forward(*args, **kwargs)),
        lambda u, delta: u,
    ],
)
def test_nothing_is_tried_after_a_failure_of_form(scan: Callable[..., Any]) -> None:
    report = check(scan)
    assert [r.name for r in report.results] == list(PROPERTIES)
    assert [r.status for r in report.results] == ["failed"] + ["skipped"] * (len(PROPERTIES) - 1)
    assert {r.message for r in report.results[1:]} == {NOT_TRIED}


def test_after_a_failure_in_numbers_the_others_are_tried() -> None:
    some = {"equals the oracle", "causality", "y alone"}
    report = check(lambda *args, **kwargs: 1 / 0, properties=some, max_examples=1)
    assert [r.status for r in report.results] == ["failed"] * 3


def test_without_takes_features_away() -> None:
    lacking = FEATURES - {"complex", "seq_idx", "bilinear"}
    some = {"complex A", "packed equals separate", "superposition"}
    one = check(forward, without={"complex", "seq_idx", "bilinear"}, properties=some, max_examples=1)
    other = check(forward, features=lacking, properties=some, max_examples=1)
    for report in (one, other):
        assert [r.status for r in report.results] == ["skipped", "passed", "skipped"]


@given(st.sampled_from(sorted(FEATURES)), problems(max_length=5))
def test_a_fitted_problem_uses_only_the_features(feature: str, problem: Arguments) -> None:
    features = FEATURES - {feature}
    assert features_of(fitted(problem.recipe, features)) <= features


@given(problems(max_length=9))
def test_a_problem_is_rebuilt_from_what_it_prints(problem: Arguments) -> None:
    again = eval(repr(problem), {"problem_from": problem_from})
    assert again.recipe == problem.recipe
    for name, value in problem.items():
        np.testing.assert_array_equal(again[name], value)
    selective_scan(**problem, backend="reference")


@given(problems(max_length=9))
def test_simpler_recipes_are_valid_and_other(problem: Arguments) -> None:
    for recipe in strategies.simpler(problem.recipe):
        assert recipe != problem.recipe
        problem_from(**vars(recipe))


def test_problems_reach_where_scans_fail() -> None:
    """Strong decay to −1e4, Δ = ±0, every rule, subnormal numbers: all within a few hundred problems."""
    seen: dict[str, float] = {"decay": 0, "zero": 0, "negative zero": 0, "subnormal": 0}
    rules = set()
    for seed, steps, values in product(range(3), ("strong", "zeros", "tails"), ("subnormal", "decades")):
        problem = problem_from(seed, (2, 4, 16, 33), steps=steps, values=values, discretization="zoh")
        delta, u = problem["delta"], problem["u"]
        seen["decay"] = min(seen["decay"], (delta[:, :, None] * problem["A"][:, :, None]).min())
        seen["zero"] += (delta == 0).sum()
        seen["negative zero"] += ((delta == 0) & np.signbit(delta)).sum()
        seen["subnormal"] += ((u != 0) & (np.abs(u) < np.finfo(np.float32).smallest_normal)).sum()
        rules.add(problem["discretization"])
    assert seen["decay"] < -5e3
    assert min(seen["zero"], seen["negative zero"], seen["subnormal"]) > 0


@given(st.integers(0, 50))
def test_sequences_are_numbered_in_every_way_that_differs(seed: int) -> None:
    ids = {
        kind: problem_from(seed, (4, 1, 1, 12), sequences=5, ids=kind)["seq_idx"]
        for kind in ("rising", "falling", "returning", "large")
    }
    borders = np.diff(ids["rising"], axis=1) > 0
    assert {array.dtype.name for array in ids.values()} == {"int32"}
    np.testing.assert_array_equal(np.diff(ids["falling"], axis=1) < 0, borders)
    np.testing.assert_array_equal(np.diff(ids["large"], axis=1) > 0, borders)
    assert ids["falling"].min() < 0
    assert set(ids["returning"].ravel()) == {-1, 1}
    assert not (np.diff(ids["returning"], axis=1) != 0)[~borders].any()


def test_a_positive_A_grows_within_bounds() -> None:
    for seed, length, values in product(range(5), (1, 7, 100), ("simple", "normal", "decades")):
        problem = problem_from(seed, (2, 3, 4, length), steps="unstable", values=values, delta_softplus=seed % 2 == 1)
        delta = problem["delta"].astype(np.float64)
        step = np.logaddexp(0, delta) if seed % 2 else delta
        assert problem["A"].min() >= 0
        assert problem["A"].max() > 0
        assert 0 < (step.sum(axis=2).max() * problem["A"].max()) <= 3 * (1 + 1e-5)


def test_a_scan_of_few_states_says_so() -> None:
    def few(u: Any, delta: Any, A: Any, *args: Any, **kwargs: Any) -> Any:
        if A.shape[1] > 256:
            raise ValueError("too many states")
        return forward(u, delta, A, *args, **kwargs)

    some = ["equals the oracle", "order of states"]
    failure = check(few, properties=some, max_examples=1).failures[0]
    assert "shape=(1, 1, 257, 1)" in failure.counterexample
    assert failure.message.endswith("; a scan of at most 256 states is checked --without many_states")
    report = check(few, properties=some, max_examples=1, without={"many_states"})
    assert report.ok, str(report)


def test_bfloat16_values_are_the_nearest() -> None:
    recipe = Recipe(dtype="bfloat16")
    x = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-7, 3.14159265, 1e-40])
    # Ties go to the even neighbour; π is 0x4049 with eight significant bits.
    expected = [1.0, 1.0, 1 + 2**-6, -1 - 2**-7, 3.140625]
    np.testing.assert_array_equal(rounded(x, recipe)[:5], np.array(expected, np.float32))
    assert not (rounded(x, recipe).view(np.uint32) & 0xFFFF).any()


def test_a_comparison_fails_nan_and_what_is_outside_and_passes_an_overflow() -> None:
    def compare(found: float, expected: float, bound: float) -> None:
        assert_close({"y": np.float32([found])}, {"y": np.array([expected])}, {"y": np.array([bound])})

    compare(1.0, 1.1, 0.2)
    compare(np.inf, 1e39, np.inf)
    for found, expected, bound in ((1.0, 1.3, 0.2), (np.nan, 1.0, 0.2), (np.inf, 1.0, 0.2), (0.0, 1e-20, 0.0)):
        with pytest.raises(Failure, match="expected"):
            compare(found, expected, bound)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"framework": "nunpy"}, ValueError, "framework is 'nunpy', expected one of numpy, torch"),
        ({"dtype": "float8"}, ValueError, "dtype is 'float8', expected one of float16"),
        ({"device": "cuda:0"}, ValueError, "numpy has only the CPU"),
        ({"without": {"colour"}}, ValueError, "unknown feature colour"),
        ({"without": "complex"}, TypeError, "without is the string 'complex', expected a set of names"),
        ({"features": {"z"}}, ValueError, "features has none of constant_B, variable_B"),
        ({"properties": ["beauty"]}, ValueError, "unknown property beauty"),
        ({"algorithm": "blelloch"}, ValueError, "algorithm is 'blelloch', expected one of sequential, chunked, tree"),
        ({"algorithm": "chunked"}, ValueError, "chunk is None, expected the steps in a chunk"),
        ({"algorithm": "chunked", "chunk": 0}, ValueError, "chunk is 0, expected an integer of at least 1"),
        ({"algorithm": "chunked", "chunk": True}, TypeError, "chunk is True, expected an integer"),
        ({"chunk": 64}, ValueError, "chunk is 64, expected None, as algorithm is 'tree'"),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check(forward, **options)


def test_numpy_has_no_bfloat16_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frameworks, "_numpy_has", lambda dtype: False)  # ml_dtypes may be imported by now
    with pytest.raises(ValueError, match="dtype is 'bfloat16', which numpy has not before ml_dtypes is imported"):
        check(forward, dtype="bfloat16")


def test_what_cannot_be_called_is_named() -> None:
    # Past the run-time type checks of the test run, which a user's process has not.
    make = getattr(make_implementation, "__wrapped__", make_implementation)
    with pytest.raises(TypeError, match="backward is 3, expected a function"):
        make(forward, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (1, 3, 1, 1), "groups_B": 2}, "groups_B is 2, expected a divisor of dim = 3"),
        ({"shape": (1, 1, 1)}, "shape is"),
        ({"steps": "small"}, "steps is 'small', expected one of plain"),
        ({"ids": "odd"}, "ids is 'odd', expected one of rising"),
        ({"discretization": "foh"}, "discretization is 'foh'"),
    ],
)
def test_wrong_recipes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        problem_from(**options)


@pytest.mark.parametrize("name", ["torch", "cupy", "jax"])
def test_a_missing_framework_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=f"framework '{name}' cannot be imported"):
        get_framework(name, "float32", None)


@pytest.mark.parametrize(("name", "dtype"), [("torch", "bfloat16"), ("torch", "float32"), ("jax", "bfloat16")])
def test_arrays_go_to_a_framework_and_back(name: str, dtype: str) -> None:
    pytest.importorskip(name)
    framework = get_framework(name, dtype, "cpu")
    array = problem_from(0, (1, 2, 1, 5), dtype=dtype)["u"]
    back, found = framework.to_numpy("u", framework.from_numpy(array, dtype))
    assert found == dtype
    np.testing.assert_array_equal(back, array)


def test_replay_of_an_unknown_property() -> None:
    with pytest.raises(ValueError, match="unknown property beauty"):
        replay("beauty", problem_from(), forward)


def test_results_come_one_by_one() -> None:
    seen: list[Result] = []
    report = check(forward, max_examples=1, properties=["causality", "y alone"], on_result=seen.append)
    assert report.results == seen


def test_one_line_in_a_test_file(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "from ssm_edu.testing import conformance_tests\n"
        "from tests.mutants import GroupsInterleaved as mine\n"
        "test_right = conformance_tests(mine.forward, without={'groups'}, max_examples=3)\n"
        "test_wrong = conformance_tests(mine.forward, properties=['groups are copies'])\n"
        "test_absent = conformance_tests(mine.forward, framework='no_such_framework', properties=['causality'])\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={"PYTHONPATH": paths}, timeout=120)
    assert run.returncode == 1
    assert "groups are copies: channels that share a B or C" in run.stdout
    assert "problem_from(seed=0, shape=(1, 4, 1, 1), groups_B=2, groups_C=2)" in run.stdout
    assert "framework is 'no_such_framework'" in run.stdout
    assert "2 failed" in run.stdout
    assert "test_right[a huge step forgets]" not in run.stdout


def test_the_helper_makes_a_test_of_each_property() -> None:
    made = conformance_tests(forward, properties=["causality", "y alone"], max_examples=1)
    [mark] = made.pytestmark  # type: ignore[attr-defined]
    assert list(mark.args[1]) == ["y alone", "causality"]
    made("causality")


@pytest.mark.usefixtures("no_type_checks", "short_shrinking")
def test_the_helper_passes_the_algorithm_on() -> None:
    options: dict[str, Any] = {"without": REAL_MAMBA, "properties": ["long sequences"]}
    conformance_tests(PartsApart.forward, algorithm="any", **options)("long sequences")
    with pytest.raises(pytest.fail.Exception, match="algorithm='sequential'"):
        conformance_tests(PartsApart.forward, algorithm="sequential", **options)("long sequences")


@pytest.fixture
def my_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_kernel", raising=False)
    Path("my_kernel.py").write_text(
        "import sys\n"
        "from ssm_edu import selective_step as step\n"
        "from tests.mutants import GroupsInterleaved as Wrong, Kernel\n"
        "right, right_backward, wrong, number = Kernel.forward, Kernel.backward, Wrong.forward, 3\n"
        "forward = wrong\n"
        "def leaves(*args, **kwargs): sys.exit(0)\n"
        "def bare(u, delta, A, B, C): return u\n"
        "def talks(*args, **kwargs):\n"
        "    print('hello')\n"
        "    return right(*args, **kwargs)\n"
    )
    Path("my_broken_kernel.py").write_text("import no_such_module\n")
    Path("my_leaving_kernel.py").write_text("raise SystemExit(0)\n")


@pytest.mark.usefixtures("my_kernel", "no_type_checks")
def test_the_command_passes_a_kernel_of_the_current_folder() -> None:
    result = cli.invoke(app, ["my_kernel:right", "--without", "complex, seq_idx", "--max-examples", "2"])
    assert result.exit_code == 0, result.output
    assert "causality" in result.output
    assert "without seq_idx" in " ".join(result.output.split())
    assert f"{len(PROPERTIES)} properties:" in result.output


@pytest.mark.usefixtures("my_kernel")
@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ([], {"algorithm": inspect.signature(check).parameters["algorithm"].default, "chunk": None}),
        (["--algorithm", "any"], {"algorithm": "any", "chunk": None}),
        (["--algorithm", "chunked", "--chunk", "512"], {"algorithm": "chunked", "chunk": 512}),
    ],
)
def test_the_command_passes_the_algorithm_on(
    arguments: list[str], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def recording(*args: Any, **kwargs: Any) -> Report:
        seen.update(kwargs)
        return Report([])

    monkeypatch.setattr(runner, "check", recording)
    assert cli.invoke(app, ["my_kernel:right", *arguments]).exit_code == 0
    assert {name: seen[name] for name in options} == options


@pytest.mark.usefixtures("my_kernel", "no_type_checks")
def test_the_command_prints_a_counterexample() -> None:
    result = cli.invoke(app, ["my_kernel:wrong", "--max-examples", "3"])
    assert result.exit_code == 1
    assert "problem = problem_from(seed=0, shape=(1, 4, 1, 1), groups_B=2, groups_C=2)" in result.output
    assert "replay('groups are copies', problem, forward)" in result.output


def first_counterexample(output: str) -> str:
    lines = output.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("from "))
    return "\n".join(lines[start : start + lines[start:].index("")])


@pytest.mark.usefixtures("my_kernel")
@pytest.mark.parametrize(
    ("arguments", "imports"),
    [
        (["my_kernel:wrong"], "from my_kernel import wrong as forward\n"),
        (["my_kernel:forward"], "from my_kernel import forward\n"),
        (["my_kernel:Wrong.forward"], "from my_kernel import Wrong\nforward = Wrong.forward\n"),
        (
            ["my_kernel:wrong", "--backward", "my_kernel:right_backward", "--step", "my_kernel:step"],
            "from my_kernel import wrong as forward\nfrom my_kernel import right_backward as backward\n"
            "from my_kernel import step\n",
        ),
        (["my_kernel:wrong", "--fast-math"], "from my_kernel import wrong as forward\nfrom ssm_edu import bounds\n"),
        (["my_kernel:wrong", "--algorithm", "any"], "from my_kernel import wrong as forward\n"),
    ],
)
def test_a_printed_counterexample_fails_where_it_is_pasted(
    arguments: list[str], imports: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "check", partial(check, properties=["groups are copies"]))
    code = first_counterexample(cli.invoke(app, [*arguments, "--max-examples", "3"]).output)
    assert code.startswith(imports)
    assert ("arithmetic=bounds.FLOAT32_APPROX" in code) == ("--fast-math" in arguments)
    with pytest.raises(Failure, match="one group a channel"):
        exec(code, {})


def test_arithmetic_of_ones_own_is_named_in_the_replay() -> None:
    own = bounds.Arithmetic(bounds.FLOAT32.format, elementary=9)
    [failure] = check(TailDropped.forward, properties=["equals the oracle"], arithmetic=own).failures
    assert failure.counterexample.endswith("forward, arithmetic=arithmetic)")
    with pytest.raises(Failure, match="is 0, expected"):
        exec(failure.counterexample, {"forward": TailDropped.forward, "arithmetic": own})


@pytest.mark.usefixtures("my_kernel", "no_type_checks")
def test_a_kernel_that_exits_fails_the_command() -> None:
    result = cli.invoke(app, ["my_kernel:leaves", "--max-examples", "1"])
    assert result.exit_code == 1
    assert "forward raised SystemExit: 0 (my_kernel.py:" in result.output


@pytest.mark.usefixtures("my_kernel", "no_type_checks")
def test_what_a_kernel_prints_stays_out_of_the_table() -> None:
    result = cli.invoke(app, ["my_kernel:talks", "--max-examples", "1"])
    assert result.exit_code == 0, result.output
    assert result.output.count("hello") == 1
    assert "What the functions print is not shown; it begins with 'hello'" in result.output
    assert "not shown" not in cli.invoke(app, ["my_kernel:right", "--max-examples", "1"]).output


@pytest.mark.usefixtures("my_kernel")
def test_the_command_stops_after_a_failure_of_form() -> None:
    result = cli.invoke(app, ["my_kernel:bare"])
    assert result.exit_code == 1
    words = " ".join(result.output.split())
    assert f"– {len(PROPERTIES) - 1} others {NOT_TRIED}" in words
    assert words.count("unexpected keyword argument") == 2


def test_bits_that_differ_are_shown_as_numbers() -> None:
    calls = [0]

    def varies(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        y, last = forward(*args, **kwargs)
        return np.nextafter(y, np.float32(np.inf if calls[0] % 2 else -np.inf)), last

    [failure] = check(varies, properties=["determinism"]).failures
    found = re.fullmatch(r"y\[0, 0, 0\] is (\S+) and then (\S+)", failure.message)
    assert found
    assert np.float32(found[1]) != np.float32(found[2])
    assert max(map(len, found.groups())) <= len("-0.12345678e-01")


@pytest.mark.usefixtures("my_kernel")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["my_kernel"], "'my_kernel' is not of the form MODULE:FUNCTION"),
        (["my_kernal:right"], "my_kernal cannot be imported: ModuleNotFoundError: No module named 'my_kernal'"),
        (
            ["my_broken_kernel:scan"],
            "my_broken_kernel cannot be imported: ModuleNotFoundError: No module",
        ),
        (["my_leaving_kernel:scan"], "my_leaving_kernel cannot be imported: SystemExit: 0"),
        (["my_kernel:rihgt"], "my_kernel has no 'rihgt'; did you mean 'right'?"),
        (["my_kernel:number"], "my_kernel:number is 3, expected a function"),
        (["my_kernel:right", "--without", "colour"], "unknown feature colour"),
        (["my_kernel:right", "--dtype", "int8"], "dtype is 'int8'"),
        (["my_kernel:right", "--framework", "tensorflow"], "framework is 'tensorflow'"),
        (["my_kernel:right", "--algorithm", "blelloch"], "algorithm is 'blelloch', expected one of sequential"),
        (["my_kernel:right", "--algorithm", "chunked"], "chunk is None, expected the steps in a chunk"),
        (["my_kernel:right", "--chunk", "64"], "chunk is 64, expected None"),
    ],
)
def test_usage_errors_exit_with_2(arguments: list[str], message: str) -> None:
    result = cli.invoke(app, arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
