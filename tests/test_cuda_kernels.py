"""The production CUDA kernels: inside the oracle's bounds, whatever the options and, in the simulator, the schedule.

There an example is a launch of slow Python, so most run on variants with few warps, few steps a lane and few states at
a time, which are the same code; some run on what a shape is given on a GPU. Where Numba was imported without the
simulator, all of them run on the GPU.
"""

from dataclasses import replace
from itertools import product
from math import lcm

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import kernel_runs

if kernel_runs.NEITHER:
    pytest.skip(kernel_runs.NEITHER, allow_module_level=True)

from ssm_kernels import choosing, scan, sums, variant
from ssm_kernels.backward import production as backward
from ssm_kernels.forward import production as forward
from ssm_kernels.shares import add_up

import ssm_edu
from ssm_edu import bounds
from ssm_edu.gpu import runtime
from ssm_edu.selective import reference
from ssm_edu.selective.problem import DISCRETIZATIONS, make_problem
from tests.kernel_runs import SIMULATED, in_the_simulator, running
from tests.problems import random_arguments
from tests.production_runs import (
    OUTPUTS,
    WIDTH,
    Buffer,
    cotangents,
    edited,
    is_noticed,
    launched,
    of_variant,
    problem_of,
    ratios,
    small,
    worst_ratio,
)  # fmt: skip

# A launch costs some milliseconds for each of blocks · warps · tiles · states · items
MOST_WORK = 40


GROUPS = (1, 2, 3, None)


def divides(dim, *groups):
    return all(dim % (group or 1) == 0 for group in groups)


def work(variant, batch, dim, length, state, groups_B, groups_C):
    """What :data:`MOST_WORK` bounds."""
    spans = lcm(groups_B or 1, groups_C or 1)
    blocks = batch * spans * -(-(dim // spans) // (32 // variant["segments"] * variant["warps"]))
    tiles = -(-length // (variant["segments"] * variant["items"]))
    return blocks * variant["warps"] * tiles * state * variant["items"]


@st.composite
def cases(draw, dtype, is_complex):
    """A variant and a problem, within :data:`MOST_WORK`."""
    width = WIDTH[dtype]
    segments = draw(st.sampled_from([1, 2, 4, 8, 16, 32]))
    items = draw(st.sampled_from([width, 2 * width][: 1 if width == 8 else 2]))
    tile = segments * items
    row_words = tile * (16 if is_complex and dtype == "float64" else 8) // 16
    variant = {
        "segments": segments,
        "items": items,
        "warps": 2 if row_words > 32 else draw(st.sampled_from([1, 2])),
        "block": draw(st.sampled_from([2, 4, 16])),
        "together": draw(st.sampled_from([1, 2])),
        "ahead": draw(st.booleans()),
        "aligned": draw(st.booleans()),
    }
    around = [tile - 1, tile, tile + 1, tile + width, 2 * tile + width, 3 * tile, 2 * tile - 1]
    lengths = [1, 2, 7, 13, width, *[n for n in around if n > 0]]
    shapes = [
        shape
        for shape in product([1, 2], [6, 1, 4, 35], lengths, [3, 1, 16, 17], GROUPS, GROUPS)
        if divides(shape[1], *shape[4:]) and work(variant, *shape) <= MOST_WORK
    ]
    sizes = dict(
        zip(("batch", "dim", "length", "state", "groups_B", "groups_C"), draw(st.sampled_from(shapes)), strict=True)
    )
    names = ("D", "z", "delta_bias", "delta_softplus", "initial_state", "packed", "complex_maps", "real_C")
    options = {name: draw(st.booleans()) for name in names} | {
        "discretization": draw(st.sampled_from(DISCRETIZATIONS)),
        "delta_scale": draw(st.sampled_from([1, 8])),
        "delta_shift": draw(st.sampled_from([-4, 0])),
        "z_scale": draw(st.sampled_from([1, 30])),
        "seed": draw(st.integers(0, 2**32 - 1)),
    }
    if not options["delta_softplus"]:  # a negative step is growth, and beyond any format at some length
        options["delta_shift"] = 0
    return variant, dtype, sizes | options | {"is_complex": is_complex}


KINDS = [(dtype, is_complex) for dtype in WIDTH for is_complex in (False, True)]


@pytest.mark.parametrize(("dtype", "is_complex"), KINDS)
@settings(max_examples=max(1, settings.default.max_examples // 15))  # each example is three launches of slow Python
@given(data=st.data())
def test_inside_the_bounds_of_the_oracle_under_any_schedule(dtype, is_complex, data):
    """ADJ-1 to ADJ-12, ROUND-4, ROUND-7, ROUND-10, SCAN-15."""
    case = data.draw(cases(dtype, is_complex))
    schedule = data.draw(st.randoms(use_true_random=False))
    assert worst_ratio(case, schedule, data.draw(st.booleans())) <= 1


# Each option of the API, and each border, in at least one; what Hypothesis draws elsewhere may leave some out
CASES = {
    "constant maps, complex": (small(), "float32", {"groups_B": None, "groups_C": None, "is_complex": True}),
    "constant B, real in complex": (
        small(items=8),
        "bfloat16",
        {"groups_B": None, "is_complex": True, "complex_maps": False, "packed": True},
    ),
    "constant C, zoh": (small(2, 8), "float16", {"groups_C": None, "discretization": "zoh", "length": 24}),
    "complex B, real C, bilinear": (
        small(8, 2),
        "float64",
        {"is_complex": True, "real_C": True, "discretization": "bilinear", "length": 34},
    ),
    "complex zoh": (small(), "float32", {"is_complex": True, "discretization": "zoh", "length": 20, "packed": True}),
    "unequal groups": (small(16), "float32", {"batch": 1, "dim": 6, "groups_B": 2, "groups_C": 3, "state": 2}),
    "a group in several blocks": (small(16), "float32", {"batch": 1, "dim": 6, "groups_B": 2, "groups_C": 1}),
    "nothing optional": (
        small(),
        "float32",
        dict.fromkeys(("D", "z", "delta_bias", "delta_softplus", "initial_state"), False) | {"length": 36},
    ),
    "one step": (small(), "float32", {"length": 1}),
    "a prime": (small(8), "float32", {"length": 37, "batch": 1}),
    "a tile ends with the row": (small(2), "float32", {"length": 16}),
    "two states at a time": (small(32, 4, 1, 4, together=2), "float32", {"dim": 2, "batch": 1, "state": 6}),
    "no segments": (small(1), "float32", {"length": 8, "packed": True, "dim": 33, "batch": 1}),
    "65 states": (small(8, block=16), "float32", {"batch": 1, "dim": 3, "length": 28, "state": 65}),
    "two warps share a tile": (small(32, 4, 2), "float32", {"dim": 3, "batch": 1, "length": 132, "state": 2}),
    "float64, aligned": (small(4, 2, 2), "float64", {"length": 22, "packed": True}),
    "complex128": (small(4, 2), "float64", {"is_complex": True, "length": 10, "state": 5}),
    "many small blocks": (small(16, 4, 1), "float32", {"batch": 3, "dim": 5, "length": 20, "state": 1}),
}


@pytest.mark.parametrize("name", CASES)
def test_every_option(name):
    assert worst_ratio(CASES[name]) <= 1


# a row of the table in ssm_kernels/choosing.py each, and lengths that end within a tile
ROWS = {
    "many channels": ("float32", {"batch": 8, "dim": 528, "length": 70, "state": 3}),
    "fewer, bfloat16": ("bfloat16", {"batch": 4, "dim": 600, "length": 150, "state": 2}),
    "fewer than 16 warps": ("float32", {"batch": 3, "dim": 500, "length": 300, "state": 4}),
    "few, float16": ("float16", {"batch": 1, "dim": 9, "length": 1500, "state": 16}),
    "few, complex": ("float32", {"batch": 1, "dim": 5, "length": 777, "state": 17, "is_complex": True}),
    "over 64 states": ("float32", {"batch": 1, "dim": 5, "length": 260, "state": 256}),
    "over 64 states, complex128": ("float64", {"batch": 1, "dim": 3, "length": 90, "state": 200, "is_complex": True}),
    "128 channels": ("float32", {"batch": 2, "dim": 256, "length": 200, "state": 16, "groups_B": 2}),
    "128 channels, bfloat16": ("bfloat16", {"batch": 1, "dim": 128, "length": 1000, "state": 12}),
    "128 channels, float16": ("float16", {"batch": 1, "dim": 128, "length": 72, "state": 8, "z": False, "D": False}),
    "prime": ("bfloat16", {"batch": 2, "dim": 33, "length": 509, "state": 5, "packed": True}),
}
GPU_SIZED = {
    "float32": ("float32", {"batch": 1, "dim": 3, "length": 70, "state": 2}),
    "bfloat16, not aligned": ("bfloat16", {"batch": 1, "dim": 2, "length": 61, "state": 2}),
    "float64, packed": ("float64", {"batch": 1, "dim": 2, "length": 40, "state": 2, "packed": True}),
    "one step": ("float32", {"batch": 2, "dim": 40, "length": 1, "state": 3}),
} | ({} if SIMULATED else ROWS)


@pytest.mark.parametrize("name", GPU_SIZED)
def test_as_a_gpu_is_given_it(name):
    assert worst_ratio(({}, *GPU_SIZED[name])) <= 1


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_through_the_door(dtype):
    arguments = random_arguments(3, batch=1, dim=2, length=9, state=2, dtype=dtype)
    problem = make_problem(**arguments)
    grad_y, grad_last = cotangents(problem, dtype)
    with of_variant(**small(8, 8)), running(1):
        y, last = ssm_edu.selective_scan(**arguments, return_last_state=True, backend="cuda")
        gradients = ssm_edu.selective_scan_backward(grad_y, **arguments, grad_last_state=grad_last, backend="cuda")
    assert max(ratios(problem, dtype, [y, last, *gradients], grad_y, grad_last).values()) <= 1


def test_bfloat16_through_the_door():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    problem = problem_of("bfloat16", batch=1, dim=2, length=9, state=2)
    arrays = {name: value for name, value in vars(problem).items() if isinstance(value, np.ndarray)}
    narrow = {name: arrays[name].astype(bfloat16) for name in ("u", "delta", "z", "B", "C")}
    with of_variant(**small(8, 8)), running(1):
        y = ssm_edu.selective_scan(**arrays | narrow, delta_softplus=True, backend="cuda")
    assert y.dtype == bfloat16
    assert (np.abs(y - reference.selective_scan(problem)[0]) <= bounds.forward(problem, stored="bfloat16").y).all()


DETERMINISTIC = ("a group in several blocks", "complex zoh", "two warps share a tile", "constant maps, complex")


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_two_schedules_agree_in_every_bit(name):
    variant, dtype, options = CASES[name]
    problem = problem_of(dtype, **options | {"length": 20})
    given_ = cotangents(problem, dtype)
    with of_variant(**variant):
        first, second = (launched(scan, problem, dtype, *given_, schedule) for schedule in (None, 5))
    for name, left, right in zip(OUTPUTS, first, second, strict=True):
        np.testing.assert_array_equal(left, right, err_msg=name)


BAD_VALUES = [("u", np.nan), ("u", np.inf), ("delta", np.nan), ("delta", np.inf), ("z", np.nan), ("B", np.nan)]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("name", "value"), BAD_VALUES)
def test_nan_and_inf_stay_where_they_belong(name, value, packed):
    """Finite is what the oracle has finite, and it is as right as without."""
    options = {"batch": 1, "dim": 5, "length": 40, "state": 2, "delta_shift": -4}
    problem = problem_of("float32", **options)
    if packed:
        problem = replace(problem, seq_idx=(np.arange(40) >= 21).astype(np.int32)[None])
    array = getattr(problem, name).copy()
    array[(0, 2, 19) if name in ("u", "delta", "z") else (0, 0, 1, 19)] = value
    problem = replace(problem, **{name: array})
    grad_y, grad_last = cotangents(problem, "float32")
    with of_variant(**small()):
        found = launched(scan, problem, "float32", grad_y, grad_last)
    exact = [*reference.selective_scan(problem), *reference.selective_scan_backward(problem, grad_y, grad_last)]
    allowed = [
        *bounds.forward(problem, bounds.FLOAT32_APPROX, "any"),
        *bounds.backward(problem, grad_y, grad_last, bounds.FLOAT32_APPROX, "any"),
    ]
    assert not all(np.isfinite(x).all() for x in exact)
    assert any(np.isfinite(x).any() for x in exact)
    for output, x, expected, bound in zip(OUTPUTS, found, exact, allowed, strict=True):
        np.testing.assert_array_equal(np.isfinite(x), np.isfinite(expected), err_msg=output)
        known = np.isfinite(bound)
        assert (np.abs(x[known] - expected[known]) <= bound[known]).all(), output


# The checks fail wrong kernels

PLAIN = (small(), "float32", {"batch": 1, "dim": 4, "length": 20})
BATCH = (small(), "float32", {"batch": 2, "dim": 2, "length": 20, "state": 2})
PACKED = (small(), "float32", {"batch": 1, "dim": 4, "length": 20, "packed": True})
COMPLEX = (small(), "float32", {"batch": 1, "dim": 4, "length": 20, "is_complex": True})
BILINEAR = (small(), "float32", {"batch": 1, "dim": 4, "length": 20, "discretization": "bilinear"})
MANY = (small(), "float32", {"batch": 18, "dim": 2, "length": 4, "state": 2})
WARPS = (small(4, 4, 2), "float32", {"batch": 1, "dim": 9, "length": 20})
LONG = (small(4, 8), "float32", {"batch": 1, "dim": 8, "length": 36})

MUTANTS = {
    "no barrier behind what is staged": (
        forward,
        "count, tid)\n                cuda.syncthreads()",
        "count, tid)",
        PLAIN,
    ),
    "a state replaced while it is read": (forward, "cuda.syncwarp()  # all lanes", "pass  # all lanes", PLAIN),
    "a gate late by one": (forward, "gate[i] * sigmoid(gate[i])", "gate[max(i - 1, 0)] * sigmoid(gate[i])", PLAIN),
    "the carry of the lane before": (forward, "shuffle_up(ends[w], CHANNELS)", "shuffle_up(ends[w], 1)", PLAIN),
    "steps past the end": (forward, "if i >= left:", "if i > left:", PLAIN),
    "a sequence runs into the next": (forward, "h = NONE if bits >> i & 1 else alpha * h", "h = alpha * h", PACKED),
    "half of a conjugate pair": (forward, "TWO * re(c_i * h) if COMPLEX", "re(c_i * h) if COMPLEX", COMPLEX),
    "ΣΔ of another segment": (
        forward,
        "decays[w] = decay(total, a)",
        "decays[w] = decay(cuda.shfl_xor_sync(FULL, total, CHANNELS), a)",
        PLAIN,
    ),
    "the last step's decay for the segment's": (
        forward,
        "decays[w] = decays[w] * alpha",
        "decays[w] = alpha",
        BILINEAR,
    ),
    "the state of the first segment last": (forward, "if final:", "if first:", PLAIN),
    "no conjugate": (backward, "g = conj(alphas[i]) * g\n", "g = alphas[i] * g\n", COMPLEX),
    "one buffer of shares": (backward, "parity = n & 1", "parity = 0", WARPS),
    "no barrier behind the shares": (
        backward,
        "if VARIABLE_B or VARIABLE_C:\n                        cuda.syncthreads()",
        "if VARIABLE_B or VARIABLE_C:",
        WARPS,
    ),
    "a row of channels left out": (backward, "unroll(1, rows)", "unroll(2, rows)", LONG),
    "the skip left out": (backward, "q[i] += skip * es[i]", "pass", PLAIN),
    "g from the segment before": (backward, "shuffle_down(g, CHANNELS)", "shuffle_up(g, CHANNELS)", PLAIN),
    "dA of one tile": (backward, "held_dA[INDEX(held)] + sum_a", "sum_a", PLAIN),
    "gradients past the end": (backward, "r[i] if i < left else ZERO", "r[i]", PLAIN),
    "half of a conjugate pair's gradient": (backward, "es[i] = TWO * es[i]", "pass", COMPLEX),
    "a block left out": (sums, "first + r * WARPS < rows:", "first + r * WARPS < rows - 1:", BATCH),
    "a warp's rows left out": (sums, "unroll(1, WARPS)", "unroll(1, WARPS - 1)", MANY),
    "a batch of rows left out": (sums, "range(warp, rows, GROUP)", "range(warp, min(rows, GROUP), GROUP)", MANY),
    "every step cuts": (variant, "seq_idx[at + i] != seq_idx[at + i - 1]", "seq_idx[at + i] != seq_idx[at]", PACKED),
    "copies past the end": (variant, "valid = min(max(left - t, 0), wide)", "valid = wide", PLAIN),
}


@pytest.fixture
def fresh_kernels():
    def clear():
        for kernels in (choosing.forward_kernel, choosing.backward_kernel, choosing.sum_kernel):
            kernels.cache_clear()
        for production in (forward, backward):
            production.kernel.cache_clear()

    clear()
    yield
    clear()


SUM_SIZES = [(1, 1, 8), (1, 2, 12), (3, 9, 8), (2, 17, 516), (1, 10, 4), (2, 8, 1024)]  # outer, rows, size


@pytest.mark.parametrize("same", [0, 1, 4, 6])
@pytest.mark.parametrize(("dtype", "narrow"), [*product(["float32"], range(3)), ("float64", 0), ("complex64", 0)])
@pytest.mark.parametrize("aligned", [True, False])
def test_the_last_sums_of_any_number_of_arrays(dtype, narrow, same, aligned):
    """As many launches as it takes; a warp adds up every fourth row, in order, so it is the loop's to the bit."""
    random, pending, expected = np.random.default_rng(same), [], []
    for k, (outer, rows, size) in enumerate([*SUM_SIZES[:same], *SUM_SIZES[3 : 3 + narrow]]):
        size = size if aligned else size - 1
        total = dtype if k < same else "float16"
        shares = random.normal(size=(outer, rows, size)).astype(dtype)
        out = Buffer((outer, size), total)
        of = Buffer(shares.shape, dtype)
        runtime.upload(shares, dtype, of.address)
        pending.append((dtype, total, of.address, out.address, outer, rows, size))
        of_warps = np.zeros((sums.WARPS, outer, size), dtype)
        for r in range(rows):
            of_warps[r % sums.WARPS] += shares[:, r]
        one = of_warps[0]
        for other in of_warps[1:]:
            one = one + other
        expected.append((out, of, one.astype(total)))
    with running(0):
        add_up(pending, 0)
    for out, _, one in expected:
        np.testing.assert_array_equal(out.read(), one)


@pytest.mark.parametrize("case", [PLAIN, BATCH, PACKED, COMPLEX, BILINEAR, MANY, WARPS, LONG])
def test_what_the_mutants_are_made_of_is_right(case):
    assert worst_ratio(case) <= 1


@in_the_simulator
@pytest.mark.parametrize("fault", MUTANTS)
@pytest.mark.usefixtures("fresh_kernels")
def test_a_wrong_kernel_is_noticed(fault, monkeypatch):
    module, old, new, case = MUTANTS[fault]
    mutant = edited(module, old, new)
    if module is variant:
        for production in (forward, backward):
            for name in ("fresh_bits", "map_stager", "row_mail"):
                if hasattr(production, name):
                    monkeypatch.setattr(production, name, getattr(mutant, name))
    else:
        name = {forward: "forward_scan", backward: "backward_scan", sums: "sums"}[module]
        monkeypatch.setattr(choosing, name, mutant)
    assert is_noticed(lambda: worst_ratio(case))
