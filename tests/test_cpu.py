"""The Numba backend: inside the rounding bounds of the oracle, whatever the options, the shape and the threads."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ssm_edu
from ssm_edu import bounds
from ssm_edu.selective import cpu, reference
from ssm_edu.selective.cpu import layout, threads
from ssm_edu.selective.problem import make_problem
from tests.problems import random_arguments

# each rule, each precision, each way of giving B and C; few enough kernels to compile in a test run
KINDS = {
    "mamba, float32": {"dtype": "float32"},
    "zoh, float32, constant B": {"dtype": "float32", "discretization": "zoh", "groups_B": None},
    "bilinear, float64, constant C": {"discretization": "bilinear", "groups_C": None},
    "mamba, float64, constant B and C": {"groups_B": None, "groups_C": None},
    "zoh, complex": {"discretization": "zoh", "is_complex": True},
    "bilinear, complex64": {"discretization": "bilinear", "is_complex": True, "dtype": "float32"},
}


def cotangents(problem, seed=0):
    rng = np.random.default_rng(seed)
    last = rng.normal(size=(problem.batch, problem.dim, problem.state))
    if problem.is_complex:
        last = last + 1j * rng.normal(size=last.shape)
    return rng.normal(size=problem.u.shape).astype(problem.u.dtype), last.astype(problem.A.dtype)


def worst_ratio(problem, chunks=None, scan=cpu.selective_scan, adjoint=cpu.selective_scan_backward):
    """The largest error / bound over y, the last state and every gradient; inf where a shape is wrong."""
    algorithm = "sequential" if chunks is None else "any"
    grad_y, grad_last = cotangents(problem)
    found = [
        *scan(problem, chunks=chunks),
        *adjoint(problem, grad_y, grad_last, chunks=chunks),
    ]
    exact = [*reference.selective_scan(problem), *reference.selective_scan_backward(problem, grad_y, grad_last)]
    allowed = [
        *bounds.forward(problem, algorithm=algorithm),
        *bounds.backward(problem, grad_y, grad_last, algorithm=algorithm),
    ]
    worst = 0.0
    for value, expected, bound in zip(found, exact, allowed, strict=True):
        if expected is None:
            assert value is None
            continue
        if value.shape != expected.shape:
            return np.inf
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(value == expected, 0, np.abs(value - expected) / bound)
        worst = max(worst, np.nan_to_num(ratio, nan=np.inf).max(initial=0))
    return worst


@pytest.mark.usefixtures("no_type_checks")
@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_inside_the_bounds_of_the_oracle(kind, data):
    """ADJ-1 to ADJ-9, ROUND-4: forward, last state and every gradient."""
    dim = data.draw(st.sampled_from([4, 1, 6, 35]))
    divisors = st.sampled_from([g for g in (1, 2, 3, 35) if dim % g == 0])
    options = {name: data.draw(st.booleans()) for name in ("D", "z", "delta_bias", "delta_softplus", "initial_state")}
    arguments = random_arguments(
        data.draw(st.integers(0, 2**32 - 1)),
        **{
            "batch": data.draw(st.integers(1, 2)),
            "dim": dim,
            "length": data.draw(st.sampled_from([1, 2, 31, 64, 65, 131])),
            "state": data.draw(st.sampled_from([1, 2, 5, 17])),
            "groups_B": data.draw(divisors),
            "groups_C": data.draw(divisors),
            "packed": data.draw(st.booleans()),
            "complex_maps": data.draw(st.booleans()),
        }
        | options
        | KINDS[kind],
    )
    chunks = data.draw(st.sampled_from([None, 2, 3]))
    assert worst_ratio(make_problem(**arguments), chunks) <= 1


def test_the_check_fails_a_wrong_scan():
    problem = make_problem(**random_arguments(1, dim=6, length=70, dtype="float32"))
    assert 0 < worst_ratio(problem) <= 1

    def late(problem, chunks=None):
        y, last = cpu.selective_scan(problem, chunks=chunks)
        return np.roll(y, 1, axis=2), last

    def tail_dropped(problem, chunks=None):
        y, last = cpu.selective_scan(problem, chunks=chunks)
        y[..., 64:] = 0
        return y, last

    def without_last(problem, grad_y, grad_last, chunks=None):
        return cpu.selective_scan_backward(problem, grad_y, None, chunks=chunks)

    assert worst_ratio(problem, scan=late) > 1
    assert worst_ratio(problem, scan=tail_dropped) > 1
    assert worst_ratio(problem, adjoint=without_last) > 1


@pytest.mark.parametrize("delta", [0.0, 1e4, 1e30, -3.0])
@pytest.mark.parametrize("rule", ["mamba", "zoh"])
def test_extreme_steps(delta, rule):
    """Δ = 0 holds the state, a huge one forgets it (ZOH-17); a negative one grows."""
    arguments = random_arguments(
        2, length=9, dtype="float32", discretization=rule, delta_softplus=False, delta_bias=False, z=False
    )
    arguments["delta"] = np.full_like(arguments["delta"], delta)
    problem = make_problem(**arguments)
    assert np.isfinite([b.max() for b in bounds.forward(problem)]).all()  # the bounds say something here
    assert worst_ratio(problem) <= 1
    _, last = cpu.selective_scan(problem)
    if delta == 0:
        np.testing.assert_array_equal(last, arguments["initial_state"])
    if delta >= 1e4 and rule == "zoh":
        forgotten = cpu.selective_scan(make_problem(**arguments | {"initial_state": 0 * arguments["initial_state"]}))[1]
        np.testing.assert_array_equal(last, forgotten)


@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
def test_the_gradient_of_a_survives_steps_up_to_where_it_is_said_to(rule):
    arguments = random_arguments(13, dtype="float32", discretization=rule, delta_softplus=False, delta_bias=False)
    for step, survives in ((2e20, True), (1e24, False)):
        arguments["delta"] = np.full_like(arguments["delta"], step)
        problem = make_problem(**arguments)
        found, exact = (
            backend.selective_scan_backward(problem, cotangents(problem)[0]).A for backend in (cpu, reference)
        )
        assert np.allclose(found, exact, rtol=1e-3, atol=0) == survives  # float32's 6e-8, and sums that cancel


@pytest.mark.parametrize("state", [1, 300])
def test_one_state_and_three_hundred(state):
    problem = make_problem(**random_arguments(3, length=67, state=state, dtype="float32"))
    assert worst_ratio(problem) <= 1


@pytest.mark.parametrize("batch", [3, 32])
def test_what_an_unused_lane_holds_stays_out_of_the_sums(batch, monkeypatch):
    """35 channels are lanes of 18 and of 17; one thread works on both, and with batch 32 one team has both."""
    monkeypatch.setattr(threads, "cores", lambda: 1)
    problem = make_problem(**random_arguments(11, batch=batch, dim=35, length=3, dtype="float32"))
    assert worst_ratio(problem) <= 1


def test_nan_stays_in_its_channel_and_after_its_time():
    arguments = random_arguments(4, batch=2, dim=35, length=100, dtype="float32")
    clean = ssm_edu.selective_scan(**arguments, backend="numba")
    arguments["u"][1, 7, 50] = np.nan
    y = ssm_edu.selective_scan(**arguments, backend="numba")
    expected = np.zeros(y.shape, bool)
    expected[1, 7, 50:] = True
    np.testing.assert_array_equal(np.isnan(y), expected)
    np.testing.assert_array_equal(y[~expected], clean[~expected])


def test_nan_and_inf_do_not_cross_the_border_of_a_sequence():
    arguments = random_arguments(5, batch=1, dim=3, length=200, dtype="float32")
    arguments["seq_idx"] = (np.arange(200) >= 130).astype(np.int32)[None]
    clean = {chunks: cpu.selective_scan(make_problem(**arguments), chunks=chunks)[0] for chunks in (None, 3)}
    arguments["u"][..., 129] = np.inf
    for chunks in (None, 3):
        y, last = cpu.selective_scan(make_problem(**arguments), chunks=chunks)
        np.testing.assert_array_equal(y[..., 130:], clean[chunks][..., 130:])
        assert np.isfinite(last).all()


def growth(dtype):
    """Over the first 200 steps the state could grow beyond the format, but it is 0; so is the gradient after them."""
    arguments = random_arguments(12, batch=1, dim=2, length=400, dtype=dtype, z=False, delta_bias=False)
    arguments |= {"delta_softplus": False, "initial_state": None, "A": -np.ones_like(arguments["A"])}
    arguments["delta"] = np.full_like(arguments["delta"], 0.1)
    arguments["delta"][..., :200] = {"float32": -2, "float64": -16}[dtype]  # e^{64·2}, e^{64·16} in a chunk
    arguments["u"][..., :200] = 0
    grad_y = np.zeros_like(arguments["u"])
    grad_y[..., 330:] = 1
    arguments["seq_idx"] = (np.arange(400) >= 250).astype(np.int32)[None]  # no gradient comes back to the growth
    return arguments, grad_y


def decay_and_growth(dtype):
    """A large state decays by more than the format's range below 1, and grows again."""
    arguments, grad_y = growth(dtype)
    large, rate = {"float32": (1e6, 2.5), "float64": (1e60, 19)}[dtype]
    arguments["delta"][...] = 0
    arguments["delta"][..., :40], arguments["delta"][..., 40:80] = rate, -rate
    arguments["u"][...], grad_y[...] = 0, 0
    arguments["seq_idx"] = None
    arguments["initial_state"] = np.full((1, 2, 3), large, dtype)
    return arguments, grad_y


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", [growth, decay_and_growth])
@pytest.mark.parametrize("many", [1, 16])
def test_a_decay_outside_the_format_is_no_matter_of_cores(case, dtype, many, monkeypatch):
    monkeypatch.setattr(cpu, "cores", lambda: many)
    arguments, grad_y = case(dtype)
    problem = make_problem(**arguments)
    assert (len(cpu.turn(problem, None).chunks) > 2) == (many > 1)
    found = [*cpu.selective_scan(problem), *cpu.selective_scan_backward(problem, grad_y)]
    exact = [*reference.selective_scan(problem), *reference.selective_scan_backward(problem, grad_y)]
    for value, expected in zip(found, exact, strict=True):
        if expected is not None:
            assert np.isfinite(expected).all()
            # 80 factors e^{−ΔA}, each rounded, and as many steps of sums: far from what a lost state would change
            close = 1e3 * np.finfo(dtype).eps * np.abs(expected).max()
            np.testing.assert_allclose(value, expected, rtol=0, atol=close)


def test_float16():
    arguments = random_arguments(6, length=80, dtype="float16")
    y = ssm_edu.selective_scan(**arguments, backend="numba")
    assert y.dtype == np.float16
    problem = make_problem(**arguments)
    exact, _ = reference.selective_scan(problem)
    assert (np.abs(y - exact) <= bounds.forward(problem).y).all()


@pytest.mark.parametrize("empty", [{"batch": 0}, {"length": 0}, {"state": 0}])
def test_empty_axes(empty):
    arguments = random_arguments(7, **empty)
    for backend in ("numba", "reference"):
        y, last = ssm_edu.selective_scan(**arguments, return_last_state=True, backend=backend)
        assert y.shape == arguments["u"].shape
        assert last.shape == arguments["initial_state"].shape
        gradients = ssm_edu.selective_scan_backward(np.zeros_like(arguments["u"]), **arguments, backend=backend)
        assert gradients.A.shape == arguments["A"].shape


def test_two_runs_and_any_number_of_threads_agree_to_the_bit(monkeypatch):
    problem = make_problem(**random_arguments(8, batch=2, dim=131, length=200, state=4, dtype="float32"))
    cotangent = cotangents(problem)
    many = cpu.selective_scan_backward(problem, *cotangent)
    again = cpu.selective_scan_backward(problem, *cotangent)
    monkeypatch.setattr(threads, "cores", lambda: 1)
    single = cpu.selective_scan_backward(problem, *cotangent)
    for left, middle, right in zip(many, again, single, strict=True):
        np.testing.assert_array_equal(left, middle)
        np.testing.assert_array_equal(left, right)


def test_from_many_threads_at_once():
    problem = make_problem(**random_arguments(9, dim=70, length=300, dtype="float32"))
    expected, _ = cpu.selective_scan(problem)
    with ThreadPoolExecutor(8) as pool:
        for y, _ in pool.map(lambda _: cpu.selective_scan(problem), range(32)):
            np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_that_are_read_only_or_lie_askew(kind):
    """The kernels are compiled for one type of each argument: every array that NumPy has must fit it."""

    def askew(x):
        bytes_ = np.empty(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
        bytes_[...] = x
        bytes_.flags.writeable = False
        return bytes_

    def reversed_in_memory(x):
        return x[..., ::-1].copy()[..., ::-1]

    problem = make_problem(**random_arguments(10, dim=6, length=70, **KINDS[kind]))
    gradient = cotangents(problem)[0]
    plain = [*cpu.selective_scan(problem), *cpu.selective_scan_backward(problem, gradient)]
    for turned in (askew, reversed_in_memory):
        arrays = {
            name: turned(value)
            for name in ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")
            if isinstance(value := getattr(problem, name), np.ndarray)
        }
        other = replace(problem, **arrays)
        assert not other.u.flags.aligned or not other.u.flags.c_contiguous
        found = [*cpu.selective_scan(other), *cpu.selective_scan_backward(other, turned(gradient))]
        for value, expected in zip(found, plain, strict=True):
            np.testing.assert_array_equal(value, expected)


def test_a_second_process_loads_what_the_first_compiled():
    code = (
        "import numpy as np; from ssm_edu.selective.cpu.kernels import RULES, forward_kernel; "
        "f = np.dtype(np.float32); print(sum(forward_kernel(RULES['mamba'], f, f).stats.cache_hits.values()))"
    )
    for _ in range(2):
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    assert run.stdout.strip() == "1"


@pytest.mark.skipif(sys.platform != "linux", reason="fork is the default on Linux alone")
def test_after_a_fork():
    code = """
import os, numpy as np, ssm_edu
u = np.ones((2, 64, 300), np.float32)
arguments = (u, u, -np.ones((64, 4), np.float32), np.ones((2, 4, 300), np.float32), np.ones((2, 4, 300), np.float32))
y = ssm_edu.selective_scan(*arguments, backend="numba")
child = os.fork()
if child == 0:
    os._exit(int(not np.array_equal(y, ssm_edu.selective_scan(*arguments, backend="numba"))))
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", code], check=True, timeout=100)


@given(dim=st.integers(1, 200), data=st.data())
def test_blocks_cover_every_channel_once_and_stay_in_their_groups(dim, data):
    divisors = st.sampled_from([g for g in range(1, dim + 1) if dim % g == 0])
    groups = data.draw(divisors), data.draw(divisors)
    arguments = random_arguments(0, batch=1, dim=dim, length=1, state=1, groups_B=groups[0], groups_C=groups[1])
    blocks = layout.Blocks.of(make_problem(**arguments))
    np.testing.assert_array_equal(np.concatenate([np.arange(a, b) for a, b in blocks.span]), np.arange(dim))
    for (a, b), group in zip(blocks.span, blocks.groups, strict=True):
        assert b - a <= blocks.lanes <= layout.LANES[8]
        for g, count in zip(group, groups, strict=True):
            assert {d // (dim // count) for d in range(a, b)} == {g}
    teams = blocks.teams(1)
    assert (teams[0], teams[-1]) == (0, len(blocks.span))
    for a, b in pairwise(teams):
        assert (blocks.groups[a:b] == blocks.groups[a]).all()


MEMORY = """
import re
import numpy as np
from ssm_edu.selective import cpu
from ssm_edu.selective.problem import make_problem

def backward(length):
    u, M = np.ones((1, 64, length), np.float32), np.ones((1, 16, length), np.float32)
    cpu.selective_scan_backward(make_problem(u, u, -np.ones((64, 16), np.float32), M, M), u)
    return u.nbytes, 1024 * int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])

_, before = backward(64)
size, after = backward(65536)
print((after - before) / size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_backward_memory_has_no_factor_of_state():
    """The process's own peak, so that what the kernels allocate counts: about 7 times what u takes, inputs, outputs and
    the shares of dB and dC included. Keeping the 16 states of each number of u would add 16."""
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True, timeout=100)
    assert 3 < float(run.stdout) < 12


def test_auto_is_numba_and_says_nothing_odd():
    code = (
        "import warnings; warnings.simplefilter('error'); import numpy as np, ssm_edu; from ssm_edu.selective import "
        "backend_module; u = np.ones((1, 2, 3)); print(backend_module('auto').__name__); "
        "ssm_edu.selective_scan(u, u, -np.ones((2, 1)), np.ones((2, 1)), np.ones((2, 1)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    assert run.stdout.split() == ["ssm_edu.selective.cpu"]
    assert run.stderr == ""
