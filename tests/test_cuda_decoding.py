"""The kernel of one step, for decoding, against the oracle's scan of one step."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import kernel_runs

if kernel_runs.NEITHER:
    pytest.skip(kernel_runs.NEITHER, allow_module_level=True)

from ssm_kernels import decoding
from ssm_kernels.decoding import Operand, Sizes

from ssm_edu import bounds
from ssm_edu.gpu import runtime
from ssm_edu.selective import reference
from tests.kernel_runs import in_the_simulator, running
from tests.production_runs import Buffer, Device, edited, is_noticed, problem_of

DTYPES = ("float64", "float32", "bfloat16", "float16")
OPTIONAL = ("D", "z", "delta_bias")


def spread(array, between):
    """Rows, one for each batch entry, with NaN after each: how they lie in a larger array."""
    rows = array.reshape(len(array), -1)
    return np.concatenate([rows, np.full((len(rows), between), np.nan, rows.dtype)], axis=1)


def stepped(problem, dtype, between=0, schedule=None, kernels=decoding, state_dtype=None):
    """(y, the last state) of a problem of one step, the state in a dtype of its own if one is named."""
    device, operands = Device(dtype), {}
    groups = {}
    for name in ("u", "delta", "z", "B", "C"):
        array = getattr(problem, name)
        if array is not None:
            array = array[..., 0]
            groups[name] = array.shape[1]
            laid_out = spread(array, between)
            held = np.dtype(array.dtype).name
            held = dtype if held == np.dtype(problem.u.dtype).name else held
            buffer = Buffer(laid_out.shape, held)
            runtime.upload(laid_out, held, buffer.address)
            operands[name] = Operand(buffer.address, held, laid_out.shape[1], problem.state)
            device.kept.append(buffer)
    for name in ("A", "D", "delta_bias"):
        array = getattr(problem, name)
        if array is not None:
            buffer = Buffer(array.shape, array.dtype.name)
            runtime.upload(array, array.dtype.name, buffer.address)
            operands[name] = Operand(buffer.address, array.dtype.name)
            device.kept.append(buffer)
    start = problem.initial_state
    held = state_dtype or start.dtype.name
    h = Buffer(start.shape, held)
    runtime.upload(start, held, h.address)
    operands["h"] = Operand(h.address, held)
    y = Buffer(problem.u.shape[:2], dtype)
    sizes = Sizes(problem.batch, problem.dim, problem.state, groups["B"], groups["C"])
    with running(schedule):
        kernels.step(sizes, operands, y.address, problem.delta_softplus, stream=0)
    return y.read(), h.read()


def one_step(dtype, **options):
    options = {"delta_shift": -1} | options
    return problem_of(dtype, length=1, initial_state=True, **options)


def ratios(problem, dtype, found):
    """Errors over their bounds."""
    arithmetic = bounds.FLOAT64 if dtype == "float64" else bounds.FLOAT32_APPROX
    y, last = found
    exact_y, exact_last = reference.selective_scan(problem)
    allowed_y, allowed_last = bounds.forward(problem, arithmetic, "any", stored=dtype)
    for value, exact, allowed in ((y, exact_y[..., 0], allowed_y[..., 0]), (last, exact_last, allowed_last)):
        assert np.isfinite(allowed).all()
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.where(value == exact, 0, np.abs(value - exact) / allowed)
        yield np.nan_to_num(ratio, nan=np.inf).max(initial=0)


CASES = {
    "float32": ("float32", {}),
    "bfloat16, groups": ("bfloat16", {"batch": 3, "dim": 6, "groups_B": 2, "groups_C": 3, "state": 16}),
    "float16, rows apart": ("float16", {"batch": 2, "between": 5}),
    "float64": ("float64", {"batch": 2, "dim": 70, "state": 1}),
    "complex": ("float32", {"is_complex": True, "batch": 2}),
    "complex, real C": ("float32", {"is_complex": True, "real_C": True}),
    "nothing optional": (
        "float32",
        dict.fromkeys(("D", "z", "delta_bias", "delta_softplus"), False) | {"delta_shift": 0, "between": 3},
    ),
    "300 states": ("float32", {"state": 300, "dim": 2}),
}


def worst(case, **more):
    dtype, options = case
    options = dict(options)
    between = options.pop("between", 0)
    problem = one_step(dtype, **options)
    return max(ratios(problem, dtype, stepped(problem, dtype, between, **more)))


@pytest.mark.parametrize("name", CASES)
def test_a_step_is_inside_the_bounds(name):
    """ROUND-4, ROUND-7 at a length of one."""
    assert worst(CASES[name]) <= 1


@in_the_simulator
@given(
    dtype=st.sampled_from(DTYPES),
    batch=st.integers(1, 3),
    group=st.sampled_from([1, 2, 3]),
    state=st.integers(1, 9),
    is_complex=st.booleans(),
    between=st.integers(0, 3),
    options=st.fixed_dictionaries({name: st.booleans() for name in OPTIONAL}),
    seed=st.integers(0, 2**32 - 1),
    schedule=st.randoms(use_true_random=False),
)
def test_a_step_under_any_schedule(dtype, batch, group, state, is_complex, between, options, seed, schedule):
    given_ = options | {"batch": batch, "dim": 6, "groups_B": group, "state": state, "seed": seed}
    case = dtype, given_ | {"is_complex": is_complex, "between": between}
    assert worst(case, schedule=schedule) <= 1


def test_a_state_of_a_dtype_of_its_own():
    """It is rounded when it is stored, and y is made of what it was before."""
    problem = one_step("bfloat16", dim=5, batch=2)
    rounded = replace(problem, initial_state=Device("bfloat16").buffer("u", problem.initial_state).read())
    narrow_y, narrow = stepped(rounded, "bfloat16", state_dtype="bfloat16")
    wide_y, wide = stepped(rounded, "bfloat16")
    np.testing.assert_array_equal(narrow_y, wide_y)
    assert np.abs(narrow - wide).max() <= 2**-8 * np.abs(wide).max()
    assert not np.array_equal(narrow, wide)


@pytest.mark.parametrize("delta", [0.0, 1e4, math.nan])
def test_steps_of_no_length_of_much_too_great_a_length_and_of_none(delta):
    problem = one_step("float32", delta_softplus=False, delta_bias=False, D=False, z=False, delta_shift=0)
    problem = replace(problem, delta=np.full_like(problem.delta, delta))
    y, last = stepped(problem, "float32")
    exact_y, exact_last = reference.selective_scan(problem)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(exact_y[..., 0]))
    if delta == 0:
        np.testing.assert_array_equal(last, problem.initial_state)
    elif delta > 0:
        np.testing.assert_allclose(last, exact_last, rtol=1e-6)  # ΔBu alone: two roundings of float32


MUTANTS = {
    "the state is not left in place": ("store_h(h_, i * state + n, h)", "pass", "float32"),
    "the state of another channel": ("load_h(h_, i * state + n)", "load_h(h_, d * state + n)", "bfloat16, groups"),
    "another group's B": ("b * row_B + d // per_group_B * group_B", "b * row_B", "bfloat16, groups"),
    "rows without what lies between": ("load_u(u_, b * row_u + d)", "load_u(u_, b * dim + d)", "float16, rows apart"),
    "no gate": ("y = y * (gate * sigmoid(gate))", "pass", "float32"),
    "half of a complex y": ("TWO * re(read_out)", "re(read_out)", "complex"),
    "channels beyond the last block's": ("(-(-sizes.batch * sizes.dim // THREADS), 1, 1)", "(1, 1, 1)", "float64"),
    "the bias after softplus": (
        "if options & SOFTPLUS:\n            delta = softplus(delta)",
        "if options & SOFTPLUS:\n            delta = softplus(delta) + softplus(ZERO)",
        "float32",
    ),
}


@in_the_simulator
@pytest.mark.parametrize("fault", MUTANTS)
def test_a_wrong_step_is_noticed(fault):
    old, new, case = MUTANTS[fault]
    mutant = edited(decoding, old, new)
    assert is_noticed(lambda: worst(CASES[case], kernels=SimpleNamespace(step=mutant.step)))
