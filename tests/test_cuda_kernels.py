"""The production CUDA kernels: inside the oracle's bounds, whatever the options and, in the simulator, the schedule.

There an example is a launch of slow Python, so most run on variants with few warps, few steps a lane and few states at
a time, which are the same code; some run on what a shape is given on a GPU. Where Numba was imported without the
simulator, all of them run on the GPU.
"""

import types
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from math import lcm, prod
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from numba import cuda

from tests import kernel_runs

if kernel_runs.NEITHER:
    pytest.skip(kernel_runs.NEITHER, allow_module_level=True)

from ssm_kernels import catalogue, choosing, scan, sums, variant
from ssm_kernels.backward import production as backward
from ssm_kernels.backward import quads
from ssm_kernels.choosing import SHARED_BYTES
from ssm_kernels.forward import production as forward
from ssm_kernels.intrinsics import ITEMSIZE

import ssm_edu
from ssm_edu import bounds
from ssm_edu.gpu import runtime
from ssm_edu.gpu.plan import plan
from ssm_edu.selective import reference
from ssm_edu.selective.problem import DISCRETIZATIONS, make_problem
from ssm_edu.selective.reference import Gradients
from ssm_edu.testing.simulator import KernelError
from tests.kernel_runs import SIMULATED, in_the_simulator, running
from tests.problems import random_arguments

NARROW = ("u", "delta", "z", "grad_y")


def as_bfloat16(arguments):
    """The arguments of a bfloat16 scan, their inputs rounded, in float32: NumPy has no bfloat16."""

    def rounded(array):
        buffer = Device("bfloat16").buffer("u", array)
        return buffer.read()

    def is_narrow(name, value):
        return name in NARROW or (name in "BC" and value.ndim == 4 and value.dtype == np.float32)

    return {name: rounded(value) if is_narrow(name, value) else value for name, value in arguments.items()}


class Buffer:
    """An array where the kernels find it, NaN until it is written; `address` is what they take for it."""

    def __init__(self, shape, dtype):
        self.shape, self.dtype = shape, dtype
        bits = np.dtype(runtime.BITS.get(dtype, dtype))
        self.array = np.full(prod(shape) * bits.itemsize, 0xFF, np.uint8).view(bits)
        if not SIMULATED:
            self.array = cuda.to_device(self.array)
        self.address = self.array if SIMULATED else runtime.address(self.array)

    def read(self):
        return runtime.download(self.shape, self.dtype, self.address)


class Device:
    """Buffers as the door makes them."""

    def __init__(self, dtype):
        self.dtype, self.kept = dtype, []

    def name_of(self, name, array):
        narrow = name in NARROW or (name in ("B", "C") and array.ndim == 4)
        return "bfloat16" if self.dtype == "bfloat16" and narrow and array.dtype == np.float32 else array.dtype.name

    def buffer(self, name, array):
        array = array.astype(np.int32) if name == "seq_idx" else array
        buffer = Buffer(array.shape, self.name_of(name, array))
        runtime.upload(array, buffer.dtype, buffer.address)
        return buffer

    def allocate(self, shape, dtype):
        self.kept.append(Buffer(shape, dtype))
        return self.kept[-1].address


def launched(kernels, problem, dtype, grad_y, grad_last, schedule=None, both=True):
    """(y, last state, *gradients) from the kernels; without `both` no y and no last state."""
    device = Device(dtype)
    arrays = {name: value for name, value in vars(problem).items() if isinstance(value, np.ndarray)}
    described = tuple((name, array.shape, device.name_of(name, array)) for name, array in arrays.items())
    fields = plan(problem.delta_softplus, problem.discretization, described).fields
    inputs = {name: device.buffer(name, array) for name, array in arrays.items()}
    optional = dict.fromkeys(("D", "z", "delta_bias", "initial_state", "seq_idx"))
    given_ = kernels.Scan(**fields, **(optional | {name: buffer.address for name, buffer in inputs.items()}))
    states = (problem.batch, problem.dim, problem.state)
    targets = {"y": problem.u, "last_state": np.empty(states, problem.A.dtype)}
    targets |= {name: arrays[name] for name in Gradients._fields if name in arrays}
    out = {
        name: Buffer(array.shape, device.name_of("u" if name == "y" else name, array))
        for name, array in targets.items()
    }
    before = {name: buffer.read() for name, buffer in inputs.items()}
    addresses = {name: buffer.address for name, buffer in out.items()}
    grads = Gradients(*[addresses.get(name) for name in Gradients._fields])
    arriving = [device.buffer("grad_y", grad_y), None if grad_last is None else device.buffer("h", grad_last)]
    cotangents = [None if buffer is None else buffer.address for buffer in arriving]
    with running(schedule):
        if both:
            kernels.forward(given_, addresses["y"], addresses["last_state"], stream=0, allocate=device.allocate)
        kernels.backward(given_, *cotangents, grads, stream=0, allocate=device.allocate)
    for name, buffer in inputs.items():
        np.testing.assert_array_equal(buffer.read(), before[name])
    found = [out[name].read() if name in out else None for name in Gradients._fields]
    return [*(out[name].read() if both else None for name in ("y", "last_state")), *found]


@contextmanager
def of_variant(**options):
    """Launches take this variant, where the shape asks for another."""
    choose = scan.choose
    sizes = {name: options[name] for name in ("segments", "items", "warps", "block") if name in options}

    def chosen(*arguments):
        v = choose(*arguments)
        return replace(v, **options | {"aligned": v.aligned and options.get("aligned", True)})

    def fitted(v, shared_bytes, *capability):
        v = replace(v, **sizes)
        if shared_bytes(v) > SHARED_BYTES:
            reject()
        return v

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "choose", chosen)
        if sizes:
            patch.setattr(choosing, "fitted", fitted)
        yield


# A launch costs some milliseconds for each of blocks · warps · tiles · states · items
MOST_WORK = 40
WIDTH = {"float32": 4, "float16": 8, "bfloat16": 8, "float64": 2}


def problem_of(dtype, seed=0, *, delta_scale=1, delta_shift=0, z_scale=1, real_C=False, **options):
    """A problem in its dtype, bfloat16 in float32; shifted by −4, Δ is about 0.02, and states last long."""
    wide = "float32" if dtype == "bfloat16" else dtype
    arguments = random_arguments(seed, dtype=wide, **options)
    arguments["delta"] = (delta_scale * arguments["delta"] + delta_shift).astype(wide)
    if "z" in arguments:
        arguments["z"] = (z_scale * arguments["z"]).astype(wide)
    if real_C and np.iscomplexobj(arguments["C"]):
        C = arguments["C"].real
        arguments["C"] = C.astype(wide) if C.ndim == 4 else C
    return make_problem(**as_bfloat16(arguments) if dtype == "bfloat16" else arguments)


def cotangents(problem, dtype, seed=0):
    rng = np.random.default_rng([seed, 1])
    last = rng.normal(size=(problem.batch, problem.dim, problem.state))
    if problem.is_complex:
        last = last + 1j * rng.normal(size=last.shape)
    grad_y = {"grad_y": rng.normal(size=problem.u.shape).astype(problem.u.dtype)}
    return (as_bfloat16(grad_y) if dtype == "bfloat16" else grad_y)["grad_y"], last.astype(problem.A.dtype)


OUTPUTS = ("y", "last_state", *Gradients._fields)


def ratios(problem, dtype, found, grad_y, grad_last):
    """The largest error / bound of each output; inf where one is NaN, or there and should not be."""
    exact = [*reference.selective_scan(problem), *reference.selective_scan_backward(problem, grad_y, grad_last)]
    arithmetic = bounds.FLOAT64 if dtype == "float64" else bounds.FLOAT32_APPROX
    allowed = [
        *bounds.forward(problem, arithmetic, "any", stored=dtype),
        *bounds.backward(problem, grad_y, grad_last, arithmetic, "any", stored=dtype),
    ]
    worst = {}
    for name, value, expected, bound in zip(OUTPUTS, found, exact, allowed, strict=True):
        if expected is None or value is None:
            worst[name] = 0 if value is expected else np.inf
            continue
        assert np.isfinite(bound).all(), name  # else the bounds say nothing
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.where(value == expected, 0, np.abs(value - expected) / bound)
        worst[name] = np.nan_to_num(ratio, nan=np.inf).max(initial=0)
    return worst


def worst_ratio(case, schedule=0, with_last=True, kernels=scan):
    """The largest of :func:`ratios` of a case: its variant, dtype and problem."""
    variant, dtype, options = case
    problem = problem_of(dtype, **options)
    grad_y, grad_last = cotangents(problem, dtype)
    grad_last = grad_last if with_last else None
    with of_variant(**variant):
        found = launched(kernels, problem, dtype, grad_y, grad_last, schedule)
    return max(ratios(problem, dtype, found, grad_y, grad_last).values())


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


def small(segments=4, items=4, warps=1, block=2, **more):
    return {"segments": segments, "items": items, "warps": warps, "block": block} | more


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


# The adjoint by quads of lanes

# in the simulator one warp stands for the four of a block
QUAD_WARPS = 1 if SIMULATED else quads.WARPS
QUADS = {"batch": 1, "length": 4, "state": 16, "delta_shift": -1}
NOTHING = dict.fromkeys(("D", "z", "delta_bias", "delta_softplus", "initial_state"), False) | {"delta_shift": 0}


@contextmanager
def by_quads(chunk=16, warps=QUAD_WARPS):
    """The adjoint goes by quads, in blocks of so many warps and chunks of so many steps, or not at all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan.quads, "WARPS", warps)
        patch.setattr(scan, "chunk_of", lambda *sizes: chunk)
        patch.setattr(scan, "backward_by_segments", lambda *arguments: pytest.fail("it went by segments"))
        yield


def quad_problem(dtype, blocks=1, warps=QUAD_WARPS, **options):
    return problem_of(dtype, dim=blocks * quads.channels(warps), **QUADS | options)


def quad_ratios(case, schedule=0, with_last=True):
    """:func:`ratios` of the gradients by quads: of a dtype, a chunk and options."""
    dtype, chunk, options = case
    warps = options.get("warps", QUAD_WARPS)
    problem = quad_problem(dtype, **options)
    grad_y, grad_last = cotangents(problem, dtype)
    grad_last = grad_last if with_last else None
    with by_quads(chunk, warps):
        found = launched(scan, problem, dtype, grad_y, grad_last, schedule, both=False)
    worst = ratios(problem, dtype, found, grad_y, grad_last)
    return {name: worst[name] for name in Gradients._fields}


WORD = ("float32", 16, {"state": 8})
CHUNKS = ("float32", 16, {"length": 20})
TILES = ("float16", 32, {"length": 24, "state": 12})
BLOCK = ("float32", 32, {"length": 20, "warps": 2} | NOTHING)
QUAD_CASES = {
    "a word": WORD,
    "two chunks": CHUNKS,
    "a chunk of one and a half tiles": TILES,
    "two warps, nothing optional": BLOCK,
    "three chunks": ("float32", 16, {"length": 36, "state": 8}),
    "two blocks share C": ("float32", 16, {"blocks": 2, "groups_B": 2}),
    "bfloat16, batch": ("bfloat16", 16, {"length": 8, "batch": 2}),
    "four warps": ("float32", 16, {"warps": 4}),
}


@pytest.mark.parametrize("name", QUAD_CASES)
def test_quads_are_inside_the_bounds(name):
    """Chunks and the sums over quads add up in some order: ADJ-1 to ADJ-12, ROUND-4, ROUND-7, SCAN-15."""
    assert max(quad_ratios(QUAD_CASES[name], with_last="nothing" not in name).values()) <= 1


@settings(max_examples=max(1, settings.default.max_examples // 30))  # as above
@given(
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    words=st.sampled_from([1, 3, 5]),
    chunk=st.sampled_from([16, 32]),
    state=st.sampled_from([8, 12, 16]),
    options=st.fixed_dictionaries({name: st.booleans() for name in ("D", "z", "delta_bias", "initial_state")}),
    delta_softplus=st.booleans(),
    scale=st.sampled_from([1, 8]),
    seed=st.integers(0, 2**32 - 1),
    with_last=st.booleans(),
    schedule=st.randoms(use_true_random=False),
)
def test_quads_under_any_schedule(
    dtype, words, chunk, state, options, delta_softplus, scale, seed, with_last, schedule
):  # fmt: skip
    length = words * 16 // ITEMSIZE[dtype]
    options = options | {"delta_softplus": delta_softplus, "delta_scale": scale, "seed": seed}
    options |= {} if delta_softplus else {"delta_shift": 0}
    case = dtype, chunk, options | {"length": min(length, 24), "state": state}
    assert max(quad_ratios(case, schedule, with_last).values()) <= 1


def test_quads_with_steps_of_no_length_and_of_much_too_great_a_length():
    problem = quad_problem("float32", **NOTHING | {"initial_state": True, "length": 20})
    delta = problem.delta.copy()
    delta[:, ::3], delta[:, 1::3] = 0, 1e4
    problem = replace(problem, delta=delta)
    grad_y, grad_last = cotangents(problem, "float32")
    with by_quads():
        found = launched(scan, problem, "float32", grad_y, grad_last, both=False)
    worst = ratios(problem, "float32", found, grad_y, grad_last)
    assert max(worst[name] for name in Gradients._fields) <= 1


NAN = [
    {"u": (0, 2, 5), "delta": (0, 9, 19)},
    {"B": (0, 0, 3, 18), "grad_y": (0, 4, 17)},
]


@pytest.mark.parametrize("places", NAN, ids=" and ".join)
def test_nan_stays_where_it_belongs_by_quads(places):
    """It goes on to later chunks, and back to earlier ones.

    The oracle has NaN in A's gradient even where only the last u or B is: it multiplies it by ∂B̄/∂A, which is 0. The
    quads have it there unless the sequence ends with a tile.
    """
    problem = quad_problem("float32", length=20)
    grad_y, grad_last = cotangents(problem, "float32")
    arrays = {"u": problem.u, "delta": problem.delta, "B": problem.B, "grad_y": grad_y}
    arrays = {name: array.copy() for name, array in arrays.items()}
    for name, index in places.items():
        arrays[name][index] = np.nan
    grad_y = arrays.pop("grad_y")
    problem = replace(problem, **arrays)
    with by_quads():
        found = launched(scan, problem, "float32", grad_y, grad_last, both=False)[2:]
    exact = reference.selective_scan_backward(problem, grad_y, grad_last)
    for field, x, expected in zip(Gradients._fields, found, exact, strict=True):
        np.testing.assert_array_equal(np.isnan(x), np.isnan(expected), err_msg=field)
    for kind in (np.isnan, np.isfinite):
        assert any(kind(x).any() for x in exact)


GOES = {"batch": 1, "dim": 128, "length": 8, "state": 16, "dtype": "float32"}
BY_QUADS = {
    "as it is": {},
    "float16": {"dtype": "float16"},
    "8 states": {"state": 8},
    "12 states": {"state": 12},
    "two groups": {"dim": 256, "groups_B": 2, "groups_C": 2},
    "unequal groups": {"dim": 256, "groups_B": 2},
    "nothing optional": dict.fromkeys(("D", "z", "delta_bias", "delta_softplus", "initial_state"), False),
}
BY_SEGMENTS = {
    "complex": {"is_complex": True},
    "complex, real maps": {"is_complex": True, "complex_maps": False},
    "float64": {"dtype": "float64"},
    "zoh": {"discretization": "zoh"},
    "bilinear": {"discretization": "bilinear"},
    "packed": {"packed": True},
    "constant B": {"groups_B": None},
    "constant C": {"groups_C": None},
    "rows of 24 bytes": {"length": 6},
    "16-bit rows of 24 bytes": {"length": 12, "dtype": "float16"},
    "less than a block": {"dim": 96},
    "a block and a half": {"dim": 192},
    "groups of half a block": {"groups_B": 2},
    "4 states": {"state": 4},
    "9 states": {"state": 9},
    "20 states": {"state": 20},
    "many channels": {"batch": 65, "length": 4},
}


def routed(arguments):
    """By which of the two the door goes, and what it gives it; nothing is launched."""
    taken = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("quads", "segments"):
            patch.setattr(scan, f"backward_by_{name}", lambda *given_, name=name: taken.append((name, *given_[:2])))
        ssm_edu.selective_scan_backward(np.ones_like(arguments["u"]), **arguments, backend="cuda")
    [found] = taken
    return found


@in_the_simulator
@pytest.mark.parametrize("name", BY_QUADS | BY_SEGMENTS)
def test_which_adjoints_go_by_quads(name):
    by, *_ = routed(random_arguments(0, **GOES | (BY_QUADS | BY_SEGMENTS)[name]))
    assert by == ("quads" if name in BY_QUADS else "segments")


@in_the_simulator
def test_bfloat16_goes_by_quads():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    arguments = random_arguments(0, **GOES)
    narrow = {name: arguments[name].astype(bfloat16) for name in ("u", "delta", "z", "B", "C")}
    assert routed(arguments | narrow)[0] == "quads"


@in_the_simulator
def test_where_quads_do_not_go(monkeypatch):
    """Not to what begins between 16-byte boundaries, nor before Hopper."""
    _, one, v = routed(random_arguments(0, **GOES))
    for name in ("u", "delta", "z", "A", "B", "C"):
        for address, goes in ((1 << 20, True), ((1 << 20) + 4, False)):
            moved = replace(one, **{name: address})
            assert scan.goes_by_quads(moved, scan.variant_of(moved)) == goes, name
    monkeypatch.setattr(scan, "compute_capability", lambda device: (8, 9))
    assert not scan.goes_by_quads(one, v)


def test_by_quads_through_the_door():
    arguments = random_arguments(3, batch=1, dim=quads.channels(QUAD_WARPS), length=8, state=8, dtype="float32")
    problem = make_problem(**arguments)
    grad_y, grad_last = cotangents(problem, "float32")
    with by_quads(), running(1):
        gradients = ssm_edu.selective_scan_backward(grad_y, **arguments, grad_last_state=grad_last, backend="cuda")
    worst = ratios(problem, "float32", [None, None, *gradients], grad_y, grad_last)
    assert max(worst[name] for name in Gradients._fields) <= 1


@settings(max_examples=4 * settings.default.max_examples)  # nothing is launched
@given(warps=st.integers(1, 4096), length=st.integers(1, 1 << 20), room=st.sampled_from([1, 8, 132 * 8]))
def test_chunks_are_tiles_and_as_many_as_a_grid_holds(warps, length, room):
    chunk = scan.chunk_of(warps, length, room)
    assert chunk > 0
    assert chunk % quads.TILE == 0
    assert -(-length // chunk) <= min(4 * room, 65535)


# Which variant a shape is given


def shared_bytes(v, state, kind):
    states = choosing.rounded_states(state)
    if kind == "backward":
        return choosing.backward_scan.shared_bytes(v, states)
    return choosing.forward_scan.shared_bytes(v, states, kind == "borders")


def kernels_of(batch, dim, length, state, dtype, is_complex, discretization, maps, packed, aligned):
    """The variants of the three launches, by kind. Making them a kernel checks what they assume of one another."""
    constant_B, constant_C, complex_B, complex_C = maps
    v = scan.choose(
        batch, dim, length, state, dtype, is_complex, discretization, constant_B, constant_C,
        complex_B and is_complex, complex_C and is_complex, packed, aligned, 132,
    )  # fmt: skip
    back, _ = choosing.backward_kernel(v, state, choosing.HOPPER)
    return {
        "forward": choosing.forward_kernel(v, state, False)[0],
        "backward": back,
        "borders": choosing.forward_kernel(back, state, True)[0],
    }


@settings(max_examples=4 * settings.default.max_examples)  # nothing is launched
@given(
    batch=st.sampled_from([1, 2, 64]),
    dim=st.sampled_from([1, 5, 256, 768, 2560, 8192]),
    length=st.sampled_from([1, 3, 17, 100, 2048, 1 << 20]) | st.integers(1, 4096),
    state=st.sampled_from([1, 16, 17, 64, 65, 128, 256]) | st.integers(1, 256),
    dtype=st.sampled_from(sorted(WIDTH)),
    is_complex=st.booleans(),
    discretization=st.sampled_from(DISCRETIZATIONS),
    maps=st.tuples(*[st.booleans()] * 4),
    packed=st.booleans(),
    aligned=st.booleans(),
)
def test_every_shape_has_a_variant(**shape):
    """It fits into shared memory, its warps are whole, forward and backward agree on the tile, and lanes have work."""
    length, dtype, state = shape["length"], shape["dtype"], shape["state"]
    found = kernels_of(**shape)
    for kind, v in found.items():
        assert shared_bytes(v, state, kind) <= SHARED_BYTES, kind
        assert v.channels * v.segments == 32, kind
        assert v.items * ITEMSIZE[dtype] % 16 == 0, kind
        assert state % v.together == 0, kind
        fewer = replace(v, segments=max(v.segments // 2, 1), warps=1, block=max(2, v.together))
        idle = kind != "borders" and v.segments > 1 and fewer.tile >= length
        assert not idle or shared_bytes(fewer, state, kind) > SHARED_BYTES, f"{kind}: half of the lanes have no step"
    assert found["borders"].tile == found["backward"].tile


def test_the_catalogue_names_what_a_launch_compiles():
    """One of each dtype and rule."""
    found = list(catalogue.variants())
    assert len({one.name for one in found}) == len(found)
    for words in (WIDTH, DISCRETIZATIONS[1:], ("complex64", "complex128", "packed", "constant", "not aligned", "256")):
        for word in words:
            assert any(word in one.name for one in found), word


@pytest.mark.parametrize("capability", [(8, 0), (9, 0), (10, 0), (12, 0)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("channels", [16384, 4096, 1024])
def test_every_row_of_the_table_is_in_the_catalogue(channels, dtype, capability):
    """As a plain scan of this many channels is given it; of the adjoint's blocks of states there is not each size."""

    def form(kind, v):
        block = v.block if kind == "forward" else None
        return kind, ITEMSIZE[v.dtype], v.segments, v.items, v.warps, v.together, v.ahead, block

    known = {
        form(kind, v) for kind, v, one in catalogue.entries() if v is not None and one.since <= capability < one.until
    }
    v = scan.choose(**catalogue.ORDINARY | {"batch": 1, "dim": channels, "dtype": dtype})
    assert form("forward", choosing.forward_kernel(v, 16, False, capability)[0]) in known
    assert form("backward", choosing.backward_kernel(v, 16, capability)[0]) in known


# The checks fail wrong kernels

PLAIN = (small(), "float32", {"batch": 1, "dim": 4, "length": 20})
BATCH = (small(), "float32", {"batch": 2, "dim": 2, "length": 20, "state": 2})
PACKED = (small(), "float32", {"batch": 1, "dim": 4, "length": 20, "packed": True})
COMPLEX = (small(), "float32", {"batch": 1, "dim": 4, "length": 20, "is_complex": True})
BILINEAR = (small(), "float32", {"batch": 1, "dim": 4, "length": 20, "discretization": "bilinear"})
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
    "a block left out": (sums, "range(1, rows)", "range(2, rows)", BATCH),
    "every step cuts": (variant, "seq_idx[at + i] != seq_idx[at + i - 1]", "seq_idx[at + i] != seq_idx[at]", PACKED),
    "copies past the end": (variant, "valid = min(max(left - t, 0), wide)", "valid = wide", PLAIN),
}


QUAD_MUTANTS = {
    "no barrier behind what the summary stages": (
        "tid, words)\n            cuda.syncthreads()\n            if t0 + TILE",
        "tid, words)\n            if t0 + TILE",
        CHUNKS,
    ),
    "no barrier behind what is staged": (
        "put_maps(shared, 0, tid, words)\n            cuda.syncthreads()",
        "put_maps(shared, 0, tid, words)",
        CHUNKS,
    ),
    "no barrier before the slots are read": (
        "cuda.syncthreads()\n\n                for nth",
        "for nth",
        WORD,
    ),
    "no barrier after the slots are read": ("cuda.syncthreads()  # the slots", "pass  # the slots", WORD),
    "rows replaced while they are read": ("            cuda.syncwarp()\n", "", TILES),
    "one buffer of maps": ("buffer = 1 - buffer", "buffer = 0", BLOCK),
    "y of another channel": ("2 * (quarter & 1) + (quarter >> 1)", "quarter", WORD),
    "the first half first": ("half = 1 - turn", "half = turn", WORD),
    "the states that chunks begin with do not add up": ("h = P[w] * h + x[w]", "h = x[w]", CHUNKS),
    "no state before the chunk": ("h_tile[4 * k + j] += exp2(", "h_tile[4 * k + j] += ZERO * exp2(", WORD),
    "ΣΔ of half of the steps": (
        "                total += cuda.shfl_xor_sync(FULL, total, 2)\n                if quarter",
        "                if quarter",
        TILES,
    ),
    "what comes back to chunks does not add up": ("g = P[w] * g + x[w]", "g = x[w]", CHUNKS),
    "nothing comes back to the chunk": ("8 * state, mine, g)", "8 * state, False, g)", WORD),
    "half of the quads": (
        "for m in unroll(4):\n                            four(shared, at_sum",
        "for m in unroll(2):\n                            four(shared, at_sum",
        WORD,
    ),
    "every second quad twice": ("+ 4 * parity * 4", "", WORD),
    "one warp of the block": ("for w in unroll(warps)", "for w in unroll(1)", ("float32", 16, {"warps": 2})),
    "one turn of the sums": ("for nth in unroll(TURNS)", "for nth in unroll(1)", WORD),
    "the sums of the other lane": ("n_sum + 2 * parity) * length", "n_sum + 2 - 2 * parity) * length", WORD),
    "Δ beyond the end": ("if not there:", "if False:", WORD),
    "sums beyond the end": ("if t_out < length and", "if", WORD),
    "the bias beyond the end": ("grad if there2 else ZERO", "grad", WORD),
    "the skip left out": ("s2[i] * dt2[i] + skip[k] * error", "s2[i] * dt2[i]", WORD),
}


def edited(module, old, new):
    source = Path(module.__file__).read_text()
    assert old in source
    mutant = types.ModuleType(module.__name__)
    exec(compile(source.replace(old, new), module.__file__, "exec"), mutant.__dict__)
    return mutant


@pytest.fixture
def fresh_kernels():
    def clear():
        for name in ("forward_kernel", "backward_kernel", "sum_kernel", "quad_kernels", "carry_kernel"):
            getattr(choosing, name).cache_clear()
        for production in (forward, backward):
            production.kernel.cache_clear()

    clear()
    yield
    clear()


@pytest.mark.parametrize("case", [PLAIN, BATCH, PACKED, COMPLEX, BILINEAR, WARPS, LONG])
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
    try:
        ratio = worst_ratio(case)
    except KernelError:
        return
    assert ratio > 1


@in_the_simulator
@pytest.mark.parametrize("fault", QUAD_MUTANTS)
@pytest.mark.usefixtures("fresh_kernels")
def test_a_wrong_kernel_by_quads_is_noticed(fault, monkeypatch):
    old, new, case = QUAD_MUTANTS[fault]
    mutant = edited(quads, old, new)
    for module in (scan, choosing):
        monkeypatch.setattr(module, "quads", mutant)
    try:
        ratio = max(quad_ratios(case).values())
    except KernelError:
        return
    assert ratio > 1
