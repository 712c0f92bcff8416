"""The rounding-error bounds against implementations: right ones stay within them, wrong ones do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssm_edu import balls, bounds
from ssm_edu.derivations import load
from ssm_edu.discretize import METHODS
from ssm_edu.phi import dphi1, phi1
from ssm_edu.selective import reference
from ssm_edu.selective.problem import DISCRETIZATIONS, Problem, make_problem
from tests.problems import arguments, random_arguments

rounding = load("rounding_error")


def decades(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    return x * 10 ** rng.uniform(-6, 4, x.shape)


def special(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """Zeros of both signs, subnormal numbers, negated ones and large ones among the others."""
    return x * rng.choice([0, -0.0, 1e-40, -1, 1, 30], x.shape)


CHANGES = {
    "as it is": lambda rng, x: x,
    "strong": lambda rng, x: 30 * x,
    "of many sizes": decades,
    "special": special,
    "scaled": lambda rng, x: x * 2.0 ** rng.integers(-120, 40),
}


@st.composite
def wild(draw: st.DrawFn) -> dict[str, Any]:
    """Scans of every option, some of whose arrays are changed."""
    kwargs = draw(arguments(max_length=33, dtype="float32"))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    for name, value in kwargs.items():
        if isinstance(value, np.ndarray) and name != "seq_idx" and draw(st.booleans()):
            kwargs[name] = CHANGES[draw(st.sampled_from(sorted(CHANGES)))](rng, value).astype(value.dtype)
    return kwargs


def assert_within(found: dict[str, np.ndarray]) -> None:
    """Of the ratios error / bound none is above 1; NaN is where the bound is inf."""
    for name, ratio in found.items():
        assert not (ratio > 1).any(), f"{name} leaves its bounds"


@given(wild(), st.sampled_from(sorted(rounding.SCAN_FUNCTIONS)), st.booleans(), st.booleans())
def test_no_implementation_leaves_its_bounds(kwargs: dict[str, Any], scan: str, base_2: bool, backwards: bool) -> None:
    """ROUND-1, ROUND-2, ROUND-4, ROUND-7, ROUND-10, ROUND-12."""
    if scan == "sums of delta" and kwargs["discretization"] == "bilinear":
        scan = "chunked"
    assert_within(rounding.ratios(make_problem(**kwargs), scan=scan, base_2=base_2, backwards=backwards))


@pytest.mark.usefixtures("no_type_checks")
@pytest.mark.parametrize("discretization", DISCRETIZATIONS)
@pytest.mark.parametrize("is_complex", [False, True])
def test_every_bound_is_finite_and_tight(discretization: str, is_complex: bool) -> None:
    """ROUND-13, and ROUND-5 for the sums, which are taken short."""
    kinds = [(discretization, is_complex)]
    long, short = rounding.medians(32, 3, kinds), rounding.medians(2, 20, kinds)
    for name in (*rounding.ELEMENTWISE, *rounding.SUMS):
        median = long[name] if name in rounding.ELEMENTWISE else short[name]
        # complex moduli bound both parts of a number: half as tight
        assert median > rounding.TIGHTNESS / (2 if is_complex else 1), f"{name}: 1/{1 / median:.0f}"


@pytest.mark.parametrize("fault", sorted(rounding.FAULTS))
def test_a_wrong_implementation_leaves_its_bounds(fault: str) -> None:
    """ROUND-14."""
    assert rounding.noticed(fault) == np.inf
    right = rounding.draw_problem(0, 24, "zoh", False)
    assert_within(rounding.ratios(right))


@pytest.mark.parametrize("name", ["y", "last_state", *reference.Gradients._fields])
def test_each_bound_notices_an_error_of_one_in_ten_thousand(name: str) -> None:
    """ROUND-14, number by number: none of a length of 24 is as loose as 1e-4 of its size in the median."""
    problem = rounding.draw_problem(1, 24, "zoh", False)
    grads = rounding.cotangents(problem, np.random.default_rng(0))
    size, bound = (f(problem, *grads)[name] for f in (rounding.oracle, rounding.bounds_of))
    assert np.median(1e-4 * np.abs(size) / bound) > 1


def test_a_tolerance_picked_by_hand_is_wrong_both_ways() -> None:
    """ROUND-15, ROUND-16."""
    assert rounding.fixed_relative_tolerance.check().verdict == "refuted"
    problem = rounding.grid_problem(64)
    y, bound = reference.selective_scan(problem)[0], bounds.forward(problem).y
    assert (bound < 2e-3 + 6e-4 * np.abs(y)).all()


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double is no wider than double here")
@given(arguments(max_length=12, dtype="float64"))
def test_the_oracle_is_within_the_bounds_of_double_precision(kwargs: dict[str, Any]) -> None:
    """ROUND-3: the oracle against 64-bit significands; not for zoh, as the φ functions have no such precision."""
    problem = make_problem(**kwargs | {"discretization": "bilinear" if kwargs["discretization"] == "zoh" else "mamba"})
    grads = rounding.cotangents(problem, np.random.default_rng(0))
    wide = rounding.implementation(problem, *grads, dtype=np.longdouble)
    found, bound = rounding.oracle(problem, *grads), rounding.bounds_of(problem, *grads)
    for name, exact in wide.items():
        assert np.isfinite(bound[name]).all()
        assert (np.abs(found[name] - exact) <= bound[name]).all(), name


UNARY = {
    "exp": (balls.exp, np.exp),
    "softplus": (balls.softplus, lambda x: np.logaddexp(x.dtype.type(0), x)),
    "sigma": (balls.sigma, lambda x: 1 / (1 + np.exp(-x))),
    "dsilu": (balls.dsilu, lambda x: (s := 1 / (1 + np.exp(-x))) * (1 + x * (1 - s))),
    "phi1": (lambda z: balls.phi(z)[0], phi1),
    "dphi1": (lambda z: balls.phi(z)[1], dphi1),
    "alpha": (lambda z: balls.bilinear(z)[0], METHODS["bilinear"].alpha),
    "p": (lambda z: balls.bilinear(z)[1], METHODS["bilinear"].p),
}


@pytest.mark.parametrize("name", sorted(UNARY))
@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("shift", [0.0, 1e-6, 0.3])
def test_functions_of_a_ball(name: str, is_complex: bool, shift: float) -> None:
    """Single precision, at an argument that is off by a part of its radius, against double. ROUND-8, ROUND-9."""
    if is_complex and name in ("softplus", "sigma", "dsilu"):
        pytest.skip("real only")
    rng = np.random.default_rng(0)
    x = np.concatenate([[0, -0.0], rng.choice([-1, 1], 4000) * 10 ** rng.uniform(-9, 1.9, 4000)])
    if is_complex:
        x = x + 1j * rng.choice([-1, 1], x.size) * 10 ** rng.uniform(-9, 1, x.size)
    off = shift * np.exp(1j * np.pi * (rng.uniform(0, 2, x.size) if is_complex else rng.integers(0, 2, x.size)))
    given_x = (x * (1 + (off if is_complex else off.real))).astype(np.complex64 if is_complex else np.float32)
    ball, function = UNARY[name]
    with np.errstate(all="ignore"):
        exact = ball(balls.Ball(x, np.abs(given_x - x), balls.FLOAT32))
        found = function(given_x)
    assert np.isfinite(exact.radius).mean() > 0.9
    assert not (np.abs(found - exact.value) > exact.radius).any()


@given(wild(), st.sampled_from(bounds.ALGORITHMS))
def test_infinite_where_nothing_can_be_promised(kwargs: dict[str, Any], algorithm: str) -> None:
    problem = make_problem(**kwargs)
    grads = rounding.cotangents(problem, np.random.default_rng(0))
    bound = rounding.bounds_of(problem, *grads, algorithm)
    for name, value in rounding.oracle(problem, *grads).items():
        if value is not None:
            assert bound[name].shape == value.shape
            assert not np.isnan(bound[name]).any()
            assert np.isinf(bound[name][~(np.abs(value) <= balls.FORMATS["float32"].largest)]).all()


def small(**options: Any) -> dict[str, Any]:
    return random_arguments(3, dtype="float32") | options


def changed(kwargs: dict[str, Any], name: str, where: tuple[int, ...], value: float) -> Problem:
    array = kwargs[name].copy()
    array[where] = value
    return make_problem(**kwargs | {name: array})


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("algorithm", bounds.ALGORITHMS)
def test_what_is_not_finite_spoils_what_depends_on_it_alone(value: float, algorithm: str) -> None:
    kwargs = small(seq_idx=np.array([[0, 0, 0, 1, 1]] * 2))
    bound = bounds.forward(changed(kwargs, "u", (0, 1, 1), value), algorithm=algorithm)
    lost = np.zeros(bound.y.shape, bool)
    lost[0, 1, 1:3] = True
    assert np.array_equal(np.isinf(bound.y), lost)
    assert np.isfinite(bound.last_state).all()


def test_a_state_beyond_the_format_has_no_bound() -> None:
    kwargs = small(delta=np.full_like(small()["delta"], -100), delta_softplus=False, delta_bias=None)
    assert np.isfinite(reference.selective_scan(make_problem(**kwargs))[1]).any()
    assert np.isinf(bounds.forward(make_problem(**kwargs)).last_state).all()


def test_a_stored_result_is_rounded_once_more() -> None:
    problem = make_problem(**random_arguments(5, dtype="float16", length=40))
    grads = rounding.cotangents(problem, np.random.default_rng(0))
    found, exact = rounding.implementation(problem, *grads), rounding.oracle(problem, *grads)
    half, brain = (rounding.bounds_of(problem, *grads, stored=name) for name in (None, "bfloat16"))
    inputs = {"y", "u", "delta", "z", "B", "C"}
    for name, value in found.items():
        in_half = value.astype(np.float16) if name in inputs else value
        assert (np.abs(in_half - exact[name]) <= half[name]).all(), name
        assert (np.abs(rounding.bfloat16(value) - exact[name]) <= brain[name]).all() == (name in inputs), name
        assert (np.abs(in_half - exact[name]) > bounds_in_single(problem, grads)[name]).any() == (name in inputs), name


def bounds_in_single(problem: Problem, grads: tuple[Any, Any]) -> dict[str, Any]:
    return rounding.bounds_of(problem, *grads, stored="float32")


def test_bounds_are_ordered_as_what_they_admit() -> None:
    """ROUND-3, ROUND-10."""
    problem = make_problem(**random_arguments(7, dtype="float32", length=40))
    last = {name: bounds.forward(problem, algorithm=name, chunk=4).last_state for name in bounds.ALGORITHMS}
    assert (last["sequential"] < last["any"]).all()
    assert (last["tree"] <= last["any"]).all()
    assert (last["chunked"] <= last["any"]).all()
    assert (bounds.forward(problem).y < bounds.forward(problem, balls.FLOAT32_APPROX).y).all()
    assert (bounds.forward(problem, balls.FLOAT64, stored="float64").y < 2.0**-27 * bounds.forward(problem).y).all()


def test_a_softplus_without_log1p_is_admitted_by_the_fast_arithmetic_alone() -> None:
    x = np.linspace(-12, -8, 50, dtype=np.float32)
    error = np.abs(np.log(1 + np.exp(x)) - np.logaddexp(0, x.astype(np.float64)))
    radii = [
        balls.softplus(balls.exact(x.astype(np.float64), rules)).radius
        for rules in (balls.FLOAT32, balls.FLOAT32_APPROX)
    ]
    assert (error > radii[0]).any()
    assert (error <= radii[1]).all()


@pytest.mark.parametrize("empty", ["batch", "dim", "length", "state"])
@pytest.mark.parametrize("algorithm", bounds.ALGORITHMS)
def test_sizes_of_zero(empty: str, algorithm: str) -> None:
    problem = make_problem(**random_arguments(0, dtype="float32", groups_B=None, groups_C=None, **{empty: 0}))
    grads = rounding.cotangents(problem, np.random.default_rng(0))
    bound, expected = rounding.bounds_of(problem, *grads, algorithm), rounding.oracle(problem, *grads)
    assert {name: x.shape for name, x in bound.items()} == {name: x.shape for name, x in expected.items()}


def test_gradients_of_absent_inputs_are_absent() -> None:
    problem = make_problem(**random_arguments(0, D=False, z=False, delta_bias=False, initial_state=False))
    found = bounds.backward(problem, np.ones(problem.u.shape))
    assert [name for name, bound in found._asdict().items() if bound is None] == [
        "D",
        "z",
        "delta_bias",
        "initial_state",
    ]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"algorithm": "blelloch"}, ValueError, "algorithm is 'blelloch', expected one of sequential, chunked"),
        ({"algorithm": "chunked", "chunk": 0}, ValueError, "chunk is 0, expected an integer of at least 1"),
        ({"stored": "int8"}, ValueError, "stored is 'int8', expected one of"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    problem = make_problem(**small())
    with pytest.raises(error, match=message):
        bounds.forward(problem, **options)
    with pytest.raises(error, match=message):
        bounds.backward(problem, np.zeros_like(problem.u), **options)


def test_a_chunk_is_an_integer() -> None:
    with pytest.raises(TypeError, match=r"chunk is 2\.5, expected an integer"):
        bounds.most_additions.__wrapped__("chunked", 2.5, 8)


def test_a_gradient_that_does_not_fit_is_refused() -> None:
    problem = make_problem(**small())
    with pytest.raises(ValueError, match="grad_y has shape"):
        bounds.backward(problem, np.zeros((1, 1, 1), np.float32))
    with pytest.raises(TypeError, match="grad_y has dtype float64"):
        bounds.backward(problem, np.zeros(problem.u.shape))
