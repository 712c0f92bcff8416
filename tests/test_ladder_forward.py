"""The forward ladder: inside the oracle's bounds, in the simulator under drawn schedules, and as costly as it says.

Where Numba was imported without the simulator, the kernels run on the GPU.
"""

import math
import subprocess
import sys
import types
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import cuda

from tests import kernel_runs

if kernel_runs.NEITHER:
    pytest.skip(kernel_runs.NEITHER, allow_module_level=True)

from ssm_kernels import description, forward, ladder

from ssm_edu import bounds
from ssm_edu.selective import reference
from ssm_edu.selective.problem import make_problem
from ssm_edu.testing.simulator import KernelError
from tests.counting import counting
from tests.kernel_runs import SIMULATED, in_the_simulator, running
from tests.problems import random_arguments

ALL = {name: import_module(f"ssm_kernels.forward.{name}") for name in forward.RUNGS}
PRODUCTION, WALKING = ALL["rung7_production"], ALL["rung8_walking"]
RUNGS = {name: module for name, module in ALL.items() if module not in (PRODUCTION, WALKING)}
each_rung = pytest.mark.parametrize("module", ALL.values(), ids=ALL)
each_counted_rung = pytest.mark.parametrize(
    "module", (RUNGS | {"rung8_walking": WALKING}).values(), ids=[*RUNGS, "rung8_walking"]
)


def problem_of(shape, seed=0, delta_scale=1, z_scale=1):
    """The oracle's problem and the launchers' arguments."""
    batch, dim, length, state = shape
    kwargs = random_arguments(
        seed, batch=batch, dim=dim, length=length, state=state, dtype="float32", initial_state=False
    )
    kwargs["delta"] *= np.float32(delta_scale)
    kwargs["z"] *= np.float32(z_scale)
    arrays = {name: value for name, value in kwargs.items() if isinstance(value, np.ndarray)}
    return make_problem(**kwargs), arrays | {name: arrays[name][:, 0].copy() for name in "BC"}


def scanned(launch, arrays, schedule=None):
    y = kernel_runs.Output(arrays["u"])
    before = {name: array.copy() for name, array in arrays.items()}
    copies = {name: kernel_runs.device_copy(array) for name, array in arrays.items()}
    with running(schedule):
        launch(**copies, y=y.argument)
    kernel_runs.assert_unchanged(arrays, copies, before)
    return y.read()


def worst_ratio(launch, shape, schedule=None, chunk=None, **drawn):
    """The largest error / bound over y, inf where y is NaN."""
    problem, arrays = problem_of(shape, **drawn)
    if launch in (PRODUCTION.launch, WALKING.launch):
        bound = bounds.forward(problem, bounds.FLOAT32_APPROX, "any").y
    else:
        algorithm = {"algorithm": "sequential"} if chunk is None else {"algorithm": "chunked", "chunk": chunk}
        bound = bounds.forward(problem, bounds.FLOAT32, **algorithm).y
    assert np.isfinite(bound).all()
    error = np.abs(scanned(launch, arrays, schedule) - reference.selective_scan(problem)[0])
    return np.nan_to_num(np.divide(error, bound, out=np.zeros_like(error), where=error != 0), nan=np.inf).max()


@pytest.fixture(autouse=True)
def scratch_is_poisoned(monkeypatch):
    def poisoned(shape, dtype, stream=0):
        return cuda.to_device(np.full(shape, np.nan, dtype))

    monkeypatch.setattr(cuda, "device_array", poisoned)


LENGTHS = (1, 2, 7, 31, 32, 33, 127, 128, 129, 257)
# blocks · states · tiles of the block scans, whose simulation costs most: each some 10 ms
SHAPES = [
    (batch, dim, length, state)
    for batch, dim in ((1, 1), (2, 1), (2, 3), (1, 5))
    for length in LENGTHS
    for state in (1, 3, 16)
    if batch * dim * state * -(-length // 128) <= 16
]
MORE_SHAPES = {
    "rung1_thread_per_state": [(1, 130, 2, 1), (1, 1, 3, 64), (2, 9, 2, 16)],
    "rung2_registers": [(1, 65, 2, 3), (1, 1, 3, 64)],
    "rung3_shared_tiles": [(1, 63, 31, 1), (1, 65, 33, 1), (1, 2, 33, 64)],
    "rung5_warp_shuffles": [(1, 1, length, 1) for length in (511, 512, 513, 1031)],
    "rung6_chunks": [(1, 2, 255, 3), (1, 2, 256, 3), (1, 1, 769, 2), (1, 65, 33, 1), (2, 1, 257, 16), (1, 1, 3, 64)],
    "rung7_production": [(1, 1, 1, 1), (2, 5, 31, 3), (1, 2, 513, 1)]
    + ([] if SIMULATED else [(2, 256, 200, 16), (8, 528, 70, 3)]),
    # blocks of 64 channels; beside them what is left to rung 7
    "rung8_walking": [(1, 64, 20, 8), (1, 2, 33, 3)] + ([] if SIMULATED else [(2, 256, 2000, 16), (8, 512, 72, 12)]),
}


# of the last two, tests/test_cuda_{kernels,walking}.py draw schedules, in blocks and tiles that a simulator can fill
@pytest.mark.parametrize("module", (RUNGS if SIMULATED else ALL).values(), ids=RUNGS if SIMULATED else ALL)
@settings(max_examples=max(1, settings.default.max_examples // 3))  # each example is a launch of slow Python
@given(data=st.data())
def test_inside_the_bounds_of_the_oracle_under_any_schedule(module, data):
    """ROUND-7, ROUND-10; the block scans SCAN-11, SCAN-12, the chunks SCAN-13 and SCAN-15."""
    name = module.__name__.rpartition(".")[2]
    ratio = worst_ratio(
        module.launch,
        data.draw(st.sampled_from(SHAPES + MORE_SHAPES.get(name, []))),
        data.draw(st.randoms(use_true_random=False)),
        module.RUNG.chunk,
        seed=data.draw(st.integers(0, 2**32 - 1)),
        delta_scale=data.draw(st.sampled_from([1, 30])),
        z_scale=data.draw(st.sampled_from([1, 100])),
    )
    assert ratio <= 1


@pytest.mark.parametrize("name", MORE_SHAPES)
def test_at_the_edges_of_tiles(name):
    module = ALL[name]
    for shape in MORE_SHAPES[name]:
        assert worst_ratio(module.launch, shape, 0, module.RUNG.chunk) <= 1, shape


@each_rung
def test_nan_stays_in_its_channel_and_after_its_time(module):
    _, arrays = problem_of((2, 3, 140, 2) if module is not PRODUCTION else (2, 3, 140, 1))
    arrays["u"][1, 1, 50] = np.nan
    expected = np.zeros(arrays["u"].shape, bool)
    expected[1, 1, 50:] = True
    np.testing.assert_array_equal(np.isnan(scanned(module.launch, arrays)), expected)


# one line of a rung changed, and a shape that shows it
MUTANTS = {
    "a state too few read": ("rung0_materialised", "range(state)", "range(state - 1)", (1, 1, 2, 2)),
    "the step before decays": ("rung0_materialised", "A_bar[b, d, t, n] * h_t", "A_bar[b, d, t - 1, n] * h_t", None),
    "no barrier after the sum": (
        "rung1_thread_per_state",
        "silu(z[b, d, t])\n            cuda.syncthreads()",
        "silu(z[b, d, t])",
        (1, 1, 2, 2),
    ),
    "no bias": ("rung2_registers", " + delta_bias[d]", "", None),
    "a gate late by one": ("rung3_shared_tiles", "z[b, d0 + r, t0 + k]", "z[b, d0 + r, max(t0 + k - 1, 0)]", None),
    "a tail dropped": ("rung3_shared_tiles", "range(0, length, TILE)", "range(0, length - TILE + 1, TILE)", None),
    "a tile past the end": ("rung3_shared_tiles", "min(TILE, length - t0)", "TILE", (1, 2, 7, 1)),
    "no barrier behind the copy": (
        "rung3_shared_tiles",
        "copy(tile_C, state, C, b, 0, t0)\n            cuda.syncthreads()",
        "copy(tile_C, state, C, b, 0, t0)",
        (1, 2, 3, 1),
    ),
    "one buffer": ("rung4a_hillis_steele", "buffer = 1 - buffer", "pass", None),
    "a carry of one state": ("rung4a_hillis_steele", "a_t * carry[n]", "a_t * carry[0]", (1, 1, 129, 2)),
    "a tile's carry unguarded": ("rung4a_hillis_steele", "cuda.syncthreads()  # the", "pass  # the", (1, 1, 129, 1)),
    "the wrong order": (
        "rung4b_blelloch",
        "tree_a[right], tree_b[right], tree_a[left], tree_b[left])",
        "tree_a[left], tree_b[left], tree_a[right], tree_b[right])",
        None,
    ),
    "no carry": ("rung4b_blelloch", "tree_b[ROOT] = h\n", "tree_b[ROOT] = float32(0)\n", (1, 1, 129, 1)),
    "leaves read too early": ("rung4b_blelloch", "= h\n                cuda.syncthreads()", "= h", None),
    "lane 0 composes": ("rung5_warp_shuffles", "if lane >= reach", "if lane >= 0", None),
    "one buffer of totals": ("rung5_warp_shuffles", "buffer = n % 2", "buffer = 0", (1, 1, 1, 2)),
    "a warp's own total": ("rung5_warp_shuffles", "if w < warp", "if w <= warp", None),
    "the decay of one tile": ("rung6_chunks", "total += delta_t", "total = delta_t", (1, 1, 513, 1)),
    "a chunk's own summary": ("rung6_chunks", "h_chunk[b, chunk, n, d] = h\n        h", "h", (1, 1, 257, 1)),
}


def edited(module, old, new):
    source = Path(module.__file__).read_text()
    assert source.count(old) >= 1
    mutant = types.ModuleType(module.__name__)
    exec(compile(source.replace(old, new), module.__file__, "exec"), mutant.__dict__)
    return mutant


@in_the_simulator
@pytest.mark.parametrize("fault", MUTANTS)
def test_a_wrong_rung_is_noticed(fault):
    name, old, new, shape = MUTANTS[fault]
    module, shape = RUNGS[name], shape or (1, 2, 35, 2)
    assert worst_ratio(module.launch, shape, 0, module.RUNG.chunk) <= 1
    try:
        ratio = worst_ratio(edited(module, old, new).launch, shape, 0, module.RUNG.chunk)
    except KernelError:
        return
    assert ratio > 1


@pytest.fixture
def counts():
    with counting() as done:
        yield done


FULL = {
    "rung0_materialised": (2, 3, 5, 2),
    "rung1_thread_per_state": (2, 3, 5, 2),
    "rung2_registers": (2, 3, 5, 2),
    "rung3_shared_tiles": (1, 64, 32, 2),
    "rung4a_hillis_steele": (1, 2, 256, 2),
    "rung4b_blelloch": (1, 2, 256, 2),
    "rung5_warp_shuffles": (1, 1, 1024, 2),
    "rung6_chunks": (1, 64, 256, 1),
    "rung8_walking": (1, 64, 32, 16),
}


@in_the_simulator
@each_counted_rung
def test_a_rung_costs_what_it_says(module, counts):
    """Counted in the simulator, on sizes that fill the tiles."""
    shape = FULL[module.__name__.rpartition(".")[2]]
    _, arrays = problem_of(shape)
    scanned(module.launch, arrays)
    assert set(counts) == {"bytes", "exponentials", "flops"}
    for name, count in counts.items():
        assert getattr(module.RUNG, name)(*shape) == pytest.approx(count, rel=1e-12), name
    for other in RUNGS.values():
        if other.RUNG.number != module.RUNG.number:  # no two rungs cost the same
            assert any(getattr(other.RUNG, name)(*shape) != pytest.approx(counts[name], rel=1e-12) for name in counts)


@in_the_simulator
def test_production_costs_what_it_says(counts, monkeypatch):
    """Of the variant for many channels, one block of it: the lanes at the ends of a tile do some hundredths less."""
    many, state = (8, 2048, 2048), 16
    v, choose = PRODUCTION.variant(*many, state), description.choose
    monkeypatch.setattr(description, "choose", lambda batch, dim, length, *rest: choose(*many, *rest))
    shape = (1, v.channels * v.warps, v.tile, state)
    _, arrays = problem_of(shape)
    scanned(PRODUCTION.launch, arrays)
    for name, rel in (("bytes", 1e-12), ("exponentials", 1e-12), ("flops", 0.002)):
        said = getattr(PRODUCTION.RUNG, name)(*many, state) / math.prod(many)
        assert said == pytest.approx(counts[name] / math.prod(shape[:3]), rel=rel), name


def test_the_ladder_is_in_order_and_imports_numba_late():
    assert [module.RUNG for module in ALL.values()] == ladder.FORWARD
    assert [module.RUNG.number for module in ALL.values()] == [name.removeprefix("rung").split("_")[0] for name in ALL]
    check = "import sys; from ssm_kernels import ladder; sys.exit('numba' in sys.modules)"
    path = Path(ladder.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", check], cwd=path, check=False).returncode == 0
    with pytest.raises(AttributeError, match="SIDEWAYS"):
        _ = ladder.SIDEWAYS


BAD = {
    "too few axes": ("u", (2, 3), r"u has shape \(2, 3\), expected \(batch, dim, length\)"),
    "no time": ("u", (2, 3, 0), r"u has shape \(2, 3, 0\).* none of them 0"),
    "another length": ("z", (2, 3, 4), r"z has shape \(2, 3, 4\), expected \(batch=2, dim=3, length=5\)"),
    "groups": ("B", (2, 1, 2, 5), r"B has shape .* expected \(batch=2, state=2, length=5\)"),
    "a column": ("D", (3, 1), r"D has shape \(3, 1\), expected \(dim=3\)"),
    "an output too short": ("y", (2, 3, 4), "y has shape"),
}


@each_rung
@pytest.mark.parametrize("case", BAD)
def test_a_shape_that_does_not_fit_is_refused_before_a_launch(module, case):
    name, shape, message = BAD[case]
    _, arrays = problem_of((2, 3, 5, 2))
    arrays["y"] = np.empty_like(arrays["u"])
    with pytest.raises(ValueError, match=message):
        module.launch(**arrays | {name: np.zeros(shape, np.float32)})


@each_rung
def test_too_many_states_and_other_dtypes_are_refused(module):
    _, arrays = problem_of((1, 1, 2, ladder.MAX_STATE + 1))
    with pytest.raises(ValueError, match=rf"A has {ladder.MAX_STATE + 1} states, expected at most {ladder.MAX_STATE}"):
        module.launch(**arrays, y=np.empty_like(arrays["u"]))
    _, arrays = problem_of((1, 1, 2, 1))
    for wrong, found in ((arrays["u"].astype(float), "float64"), (arrays["u"] > 0, "bool"), ([[[1.0]]], "list")):
        with pytest.raises(TypeError, match=f"u is of {found}, expected an array of float32"):
            module.launch(**arrays | {"u": wrong}, y=np.empty_like(arrays["u"]))
