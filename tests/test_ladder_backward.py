"""The backward ladder: inside the oracle's bounds, the same in every order, as costly as it says.

Where Numba was imported without the simulator, the kernels run on the GPU.
"""

import math
import re
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

from ssm_kernels import backward, description, ladder
from ssm_kernels.backward.rungs import Gradients, sum_maps
from ssm_kernels.unseen import UNSEEN
from ssm_kernels.walking import launching

from ssm_edu import bounds
from ssm_edu.selective import reference
from ssm_edu.selective.problem import make_problem
from ssm_edu.testing.simulator import KernelError
from tests.counting import counting
from tests.kernel_runs import SIMULATED, in_the_simulator, running
from tests.problems import random_arguments

ALL = {name: import_module(f"ssm_kernels.backward.{name}") for name in backward.RUNGS}
PRODUCTION, WALKING = ALL["rung7_production"], ALL["rung8_walking"]
RUNGS = {name: module for name, module in ALL.items() if module not in (PRODUCTION, WALKING)}
each_rung = pytest.mark.parametrize("name", ALL)
each_rung_of_its_own = pytest.mark.parametrize("name", RUNGS)

# the same kernels with blocks and tiles that a simulator can fill, and their chunk
SMALL = {
    "rung3_shared_tiles": ((1,), None),
    "rung4_block_scan": ((2, 8), 8),
    "rung5_warp_shuffles": ((2, 2), 64),
    "rung6_chunked": ((2, 2), 64),
}


def small(name, module):
    """The launcher of the rung, or of another module made from its source, and the chunk of its scans."""
    if name not in SMALL or not SIMULATED:
        return module.RUNG.launch, module.RUNG.chunk
    sizes, chunk = SMALL[name]
    return module.launcher(module.runner(*sizes)), chunk


def problem_of(shape, seed=0, delta_scale=1, delta_shift=0, z_scale=1):
    """The oracle's problem, and the launchers' inputs; shifted by −4, Δ is about 0.02, and states last long."""
    batch, dim, length, state = shape
    kwargs = random_arguments(
        seed, batch=batch, dim=dim, length=length, state=state, dtype="float32", initial_state=False
    )
    kwargs["delta"] = np.float32(delta_scale) * kwargs["delta"] + np.float32(delta_shift)
    kwargs["z"] *= np.float32(z_scale)
    arrays = {name: value for name, value in kwargs.items() if isinstance(value, np.ndarray)}
    grad_y = np.random.default_rng([seed, 1]).standard_normal((batch, dim, length), np.float32)
    return make_problem(**kwargs), {"grad_y": grad_y} | arrays | {name: arrays[name][:, 0].copy() for name in "BC"}


def gradients(launch, arrays, schedule=None):
    grads = [kernel_runs.Output(arrays[name]) for name in Gradients._fields]
    before = {name: array.copy() for name, array in arrays.items()}
    copies = {name: kernel_runs.device_copy(array) for name, array in arrays.items()}
    with running(schedule):
        launch(**copies, grads=Gradients(*[output.argument for output in grads]))
    kernel_runs.assert_unchanged(arrays, copies, before)
    return Gradients(*[output.read() for output in grads])


def worst_ratio(launch, shape, schedule=None, chunk=None, **drawn):
    """The largest error / bound over all gradients, inf where one is NaN."""
    problem, arrays = problem_of(shape, **drawn)
    if launch in (PRODUCTION.RUNG.launch, WALKING.RUNG.launch):
        bound = bounds.backward(problem, arrays["grad_y"], arithmetic=bounds.FLOAT32_APPROX, algorithm="any")
    else:
        algorithm = {"algorithm": "sequential"} if chunk is None else {"algorithm": "chunked", "chunk": chunk}
        bound = bounds.backward(problem, arrays["grad_y"], arithmetic=bounds.FLOAT32, **algorithm)
    expected = reference.selective_scan_backward(problem, arrays["grad_y"])
    found = gradients(launch, arrays, schedule)
    worst = 0.0
    for name in Gradients._fields:
        radius = getattr(bound, name)
        assert np.isfinite(radius).all()
        error = np.abs(getattr(found, name).reshape(radius.shape) - getattr(expected, name))
        ratio = np.divide(error, radius, out=np.zeros_like(error), where=error != 0)
        worst = max(worst, np.nan_to_num(ratio, nan=np.inf).max())
    return worst


@pytest.fixture(autouse=True)
def scratch_is_poisoned(monkeypatch):
    def poisoned(shape, dtype, stream=0):
        return cuda.to_device(np.full(shape, np.nan, dtype))

    monkeypatch.setattr(cuda, "device_array", poisoned)


# around the windows of 16 steps, and the small tiles of 8 and 64
LENGTHS = (1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 67)
SHAPES = [
    (batch, dim, length, state)
    for batch, dim in ((1, 1), (2, 1), (1, 3), (2, 3), (1, 5))
    for length in LENGTHS
    for state in (1, 3, 16)
    if batch * dim * state * length <= 200
]
# production tiles ± 1 and dims that leave lanes idle; each costs about half a second
EDGES = {
    "rung0_materialised": [(1, 33, 3, 3)],
    "rung1_thread_per_state": [(1, 130, 2, 1), (1, 1, 3, 64), (2, 9, 2, 16)],
    "rung2_checkpoints": [(1, 65, 17, 2), (1, 1, 3, 64)],
    "rung3_shared_tiles": [(1, 65, 17, 1), (2, 63, 15, 1)],
    "rung4_block_scan": [(1, 9, 127, 1), (1, 1, 129, 1)],
    "rung5_warp_shuffles": [(1, 9, 3, 1), (1, 1, 255, 1), (1, 1, 257, 1)],
    "rung6_chunked": [(1, 9, 3, 1), (1, 1, 513, 1)],
    "rung7_production": [(2, 2, 1, 1), (1, 3, 67, 2)] + ([] if SIMULATED else [(2, 256, 200, 16), (8, 528, 70, 3)]),
    # blocks of 64 channels; beside them what is left to rung 7
    "rung8_walking": [(1, 64, 20, 8), (1, 3, 17, 2)] + ([] if SIMULATED else [(2, 256, 2000, 16), (8, 512, 72, 12)]),
}


# of the last two, tests/test_cuda_{kernels,walking}.py draw schedules, in blocks and tiles that a simulator can fill
@pytest.mark.parametrize("name", RUNGS if SIMULATED else ALL)
@settings(max_examples=max(1, settings.default.max_examples // 6))  # each example is a launch of slow Python
@given(data=st.data())
def test_inside_the_bounds_of_the_oracle_under_any_schedule(name, data):
    """ADJ-1, ADJ-3, ADJ-9, ADJ-12, ROUND-7, ROUND-10; the block scans SCAN-11 and SCAN-24, the chunks SCAN-15."""
    launch, chunk = small(name, ALL[name])
    ratio = worst_ratio(
        launch,
        data.draw(st.sampled_from(SHAPES)),
        data.draw(st.randoms(use_true_random=False)),
        chunk,
        seed=data.draw(st.integers(0, 2**32 - 1)),
        delta_scale=data.draw(st.sampled_from([1, 30])),
        delta_shift=data.draw(st.sampled_from([-4, 0])),
        z_scale=data.draw(st.sampled_from([1, 100])),
    )
    assert ratio <= 1


@each_rung
def test_at_the_edges_of_tiles(name):
    rung = ALL[name].RUNG
    for shape in EDGES[name]:
        assert worst_ratio(rung.launch, shape, 0, rung.chunk, delta_shift=-4) <= 1, shape


@each_rung
def test_two_runs_agree_in_every_bit(name):
    """Sums over channels, batch and time have one order, whatever the order of threads and blocks."""
    launch, _ = small(name, ALL[name])
    shapes = {"rung6_chunked": (1, 3, 67, 1), "rung7_production": (2, 2, 5, 1), "rung8_walking": (1, 64, 20, 8)}
    _, arrays = problem_of(shapes.get(name, (2, 3, 19, 1)))
    first = gradients(launch, arrays)
    for schedule in (1, 2):
        for one, other in zip(first, gradients(launch, arrays, schedule), strict=True):
            np.testing.assert_array_equal(one.view(np.uint32), other.view(np.uint32))


@each_rung
def test_nan_stays_in_its_channel(name):
    launch, _ = small(name, ALL[name])
    _, arrays = problem_of((2, 3, 9, 1))
    arrays["u"][1, 1, 7] = np.nan
    found = gradients(launch, arrays)
    later = np.zeros(arrays["u"].shape, bool)
    later[1, 1, 7:] = True
    np.testing.assert_array_equal(np.isnan(found.z), later)
    assert np.isfinite(found.u).all()  # the adjoint does not read u
    for gradient in (found.A, found.D, found.delta_bias):
        assert np.isfinite(gradient[[0, 2]]).all()
        assert np.isnan(gradient[1]).all()


# one line of a rung changed, and a shape that shows it
MUTANTS = {
    "decay from t instead of t + 1": ("rung0_materialised", "step[b, d, t + 1] * A", "step[b, d, t] * A", None),
    "h in place of h before": (
        "rung0_materialised",
        "A[d, n] * A_bar * h_before",
        "A[d, n] * A_bar * h[b, d, t, n]",
        None,
    ),
    "a channel too few": ("rung0_materialised", "for d in range(dim)", "for d in range(dim - 1)", None),
    "one row of the batch": ("rung0_materialised", "for b in range(batch)", "for b in range(1)", (2, 1, 3, 1)),
    "a decay too late": ("rung1_thread_per_state", "carried = A_bar * g", "carried = g", None),
    "no barrier before the sum": (
        "rung1_thread_per_state",
        "            cuda.syncthreads()\n            if n == 0",
        "            if n == 0",
        None,
    ),
    "no barrier behind the sum": (
        "rung1_thread_per_state",
        "                dbias += ddelta_t\n            cuda.syncthreads()",
        "                dbias += ddelta_t",
        None,
    ),
    "idle lanes write": ("rung1_thread_per_state", "if n == 0 and live", "if n == 0", (1, 130, 1, 1)),
    "carry forgotten": (
        "rung2_checkpoints",
        "r_at[b, k + 1, n, d] if k < last else ZERO\n            dA",
        "ZERO\n            dA",
        None,
    ),
    "carry forgotten by the owner of dB": (
        "rung2_checkpoints",
        "r_at[b, k + 1, n, d] if k < last else ZERO\n        for",
        "ZERO\n        for",
        None,
    ),
    "a checkpoint late by a window": (
        "rung2_checkpoints",
        "h = h_at[b, k, n, d]\n            for",
        "h = h_at[b, max(k - 1, 0), n, d]\n            for",
        None,
    ),
    "a tail dropped": (
        "rung2_checkpoints",
        "last = (length - 1) // WINDOW\n    for k",
        "last = length // WINDOW - 1\n    for k",
        None,
    ),
    "dA of the first window alone": ("rung3_shared_tiles", "(A_parts[b, d, n] if k < last else ZERO)", "ZERO", None),
    "columns read too early": (
        "rung3_shared_tiles",
        "                cuda.syncwarp()\n                column",
        "                column",
        None,
    ),
    "columns overwritten": ("rung3_shared_tiles", "= column\n                cuda.syncwarp()", "= column", None),
    "a tile past the end": (
        "rung3_shared_tiles",
        "inside = first + c < dim and t < length\n                steps[c, j]",
        "inside = first + c < dim\n                steps[c, j]",
        None,
    ),
    "the bias read too early": (
        "rung3_shared_tiles",
        "            cuda.syncthreads()\n            for j in range(WINDOW)",
        "            for j in range(WINDOW)",
        None,
    ),
    "a hop too few": ("rung4_block_scan", "while hop < tile:", "while hop < tile // 2:", None),
    "a round without its barrier": (
        "rung4_block_scan",
        "            cuda.syncthreads()\n            hop *= 2",
        "            hop *= 2",
        None,
    ),
    "both scans from the left": ("rung4_block_scan", "scan(tile - 1 - own,", "scan(own,", None),
    "inclusive where exclusive": (
        "rung4_block_scan",
        "g = C_t * e_[c, own] + r_after",
        "g = C_t * e_[c, own] + r",
        None,
    ),
    "rows summed too early": (
        "rung4_block_scan",
        '"""\n        cuda.syncthreads()\n        c = own',
        '"""\n        c = own',
        None,
    ),
    "a lane late": ("rung5_warp_shuffles", "if lane >= hop", "if lane > hop", (1, 1, 67, 1)),
    "a carry in every lane": (
        "rung5_warp_shuffles",
        "r = behind if lane == WARP - 1 else ZERO",
        "r = behind",
        (1, 1, 67, 1),
    ),
    "terms overwritten": ("rung5_warp_shuffles", "= dC_t\n            cuda.syncthreads()", "= dC_t", (1, 2, 3, 2)),
    "an idle warp's dA": (
        "rung5_warp_shuffles",
        "if lane == 0 and live:\n                A_parts",
        "if lane == 0:\n                A_parts",
        (1, 3, 3, 1),
    ),
    "a chunk decays by one step": ("rung6_chunked", "steps += step_[j]", "steps = step_[j]", (1, 1, 130, 1)),
    "a chunk's h forgotten": (
        "rung6_chunked",
        "            h_at[b, k, d, n] = h\n        r",
        "        r",
        (1, 1, 130, 1),
    ),
    "r from the left": (
        "rung6_chunked",
        "for k in range(chunks - 1, -1, -1)",
        "for k in range(chunks)",
        (1, 1, 130, 1),
    ),
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
    shape = shape or (1, 3, 19, 2)
    launch, chunk = small(name, RUNGS[name])
    assert worst_ratio(launch, shape, 0, chunk, delta_shift=-4) <= 1
    wrong, _ = small(name, edited(RUNGS[name], old, new))
    try:
        ratio = worst_ratio(wrong, shape, 0, chunk, delta_shift=-4)
    except KernelError:
        return
    assert ratio > 1


@pytest.fixture
def counts():
    with counting() as done:
        yield done


# (batch, dim, ·, state) and a tile: dims and lengths fill blocks and tiles of the small kernels
FULL = {
    "rung0_materialised": ((2, 3, 3), 3),
    "rung1_thread_per_state": ((1, 4, 32), 2),
    "rung2_checkpoints": ((2, 3, 3), 16),
    "rung3_shared_tiles": ((1, 32, 2), 16),
    "rung4_block_scan": ((2, 4, 3), 8),
    "rung5_warp_shuffles": ((1, 4, 2), 64),
    "rung6_chunked": ((1, 4, 2), 64),
}


@in_the_simulator
@each_rung_of_its_own
def test_a_rung_costs_what_it_says(name, counts):
    """What one more tile of the length costs, counted in the simulator."""
    (batch, dim, state), tile = FULL[name]
    module = RUNGS[name]
    launch, _ = small(name, module)
    said = module.costs_of(*SMALL[name][0]) if name in SMALL else {what: getattr(module.RUNG, what) for what in COSTS}
    found = []
    for tiles in (2, 3):
        counts.clear()
        _, arrays = problem_of((batch, dim, tiles * tile, state))
        gradients(launch, arrays)
        found.append(dict(counts))
    for what in COSTS:
        assert found[1][what] - found[0][what] == pytest.approx(said[what](batch, dim, tile, state), rel=1e-12), what


@in_the_simulator
def test_production_costs_what_it_says(counts, monkeypatch):
    """Of the variant for many channels, a tile of one block: the lanes at its ends do some hundredths less."""
    many, state, choose = (8, 2048, 2048), 4, description.choose
    v = PRODUCTION.variant(*many, state)
    monkeypatch.setattr(description, "choose", lambda batch, dim, length, *rest: choose(*many, *rest))
    shape = (1, v.channels * v.warps, v.tile, state)
    _, arrays = problem_of(shape)
    gradients(PRODUCTION.RUNG.launch, arrays)
    # the totals of dB and dC are written once, and added up from four parts: more, the fewer channels there are
    of_totals = 2 * state * (1 / shape[1] - 1 / many[1])
    for what, rel, more in (
        ("bytes", 1e-12, 4 * of_totals),
        ("exponentials", 1e-12, 0),
        ("flops", 0.01, 3 * of_totals),
    ):
        said = getattr(PRODUCTION.RUNG, what)(*many, state) / math.prod(many)
        assert said + more == pytest.approx(counts[what] / math.prod(shape[:3]), rel=rel), what


@in_the_simulator
def test_walking_costs_what_it_says(counts):
    """One more tile of a block; the slope of softplus takes a product more where its argument is negative."""
    (batch, dim, state), tile, found = (1, 64, 16), 32, []
    for length in (tile // 8, tile // 8 + tile):
        counts.clear()
        _, arrays = problem_of((batch, dim, length, state))
        gradients(WALKING.RUNG.launch, arrays)
        found.append(dict(counts))
    for what, off in (("bytes", 0), ("exponentials", 0), ("flops", 0.5)):
        said = getattr(WALKING.RUNG, what)(batch, dim, tile, state)
        assert found[1][what] - found[0][what] == pytest.approx(said, rel=1e-12, abs=off * batch * dim * tile), what


COSTS = ("bytes", "exponentials", "flops")
HEADERS = re.compile(r"bytes (4 \([^)]*\)).*? exponentials ([^,;]+)[,;].*?FLOPs (.+?)(?:[.,;]| with) ")


@each_rung_of_its_own
def test_a_header_says_what_its_rung_counts(name):
    module = RUNGS[name]
    constants = vars(module)
    known = {"dim": 640, "N": 16, "W": constants.get("WINDOW")}
    if "TILE" in constants:
        T = module.TILE
        known |= {"T": T, "K": module.CHANNELS, "S": 3 * (math.log2(T) - 1 + 1 / T) + 2}
    elif "ITEMS" in constants:
        T = 32 * module.ITEMS
        known |= {"T": T, "I": module.ITEMS, "W": module.WARPS, "S": 3 * 129 / T}
    elif "WARPS" in constants:
        known["K"] = 32 * module.WARPS
    formulas = HEADERS.search(" ".join(module.__doc__.split())).groups()
    for what, formula in zip(COSTS, formulas, strict=True):
        product = re.sub(r"(?<=\d)(?=[A-Z])|(?<=[A-Z\d]) (?=\()", "*", formula)
        counted = getattr(module.RUNG, what)(1, known["dim"], 1, known["N"]) / known["dim"]
        assert eval(product, known) == pytest.approx(counted, rel=1e-12), what


@in_the_simulator
@each_rung
def test_a_rung_takes_the_memory_that_the_table_says(name, monkeypatch):
    """ADJ-9: from rung 2 on, states are kept at the borders of windows alone."""
    batch, dim, length, state = 8, 2048, 2**20, 16
    floats = 0

    def device_array(shape, dtype):
        nonlocal floats
        floats += math.prod(shape)
        return np.broadcast_to(np.float32(0), shape)

    monkeypatch.setattr(cuda, "device_array", device_array)
    monkeypatch.setattr(type(sum_maps), "__getitem__", lambda kernel, configuration: lambda *arguments: None)
    monkeypatch.setattr(UNSEEN, "end", lambda: None)  # nothing runs, and so nothing waits
    monkeypatch.setattr(launching, "chunk_for", lambda scan, room: scan.length)
    module = ALL[name]
    _, arrays = problem_of((1, 1, 1, 1))
    sizes = {"batch": batch, "dim": dim, "length": length, "state": state}

    def like(field):
        axes = ladder.AXES["y" if field == "grad_y" else field]
        return np.broadcast_to(np.float32(0), [sizes[axis] for axis in axes])

    module.RUNG.launch(**{field: like(field) for field in arrays}, grads=Gradients(*map(like, Gradients._fields)))
    row = next(line for line in backward.__doc__.splitlines() if line.startswith(f"| {module.RUNG.number} |"))
    known = vars(module) | {"state": state}
    if module is PRODUCTION:
        v = module.variant(batch, dim, length, state)
        known |= {"channels": v.channels * v.warps, "tile": v.tile}
    elif "ITEMS" in known:
        known["tile"] = module.WARP * module.ITEMS
    elif "WARPS" in known:
        known["channels"] = module.WARP * module.WARPS
    said = eval(row.split("|")[-2].replace("·", "*"), known)
    # what has no axis of time is a millionth of the rest
    assert floats / (batch * dim * length) == pytest.approx(said, rel=1e-4)
    assert module.RUNG.number < "2" or said < state / 2


def test_the_ladder_is_in_order():
    assert [module.RUNG for module in ALL.values()] == ladder.BACKWARD
    assert [module.RUNG.number for module in ALL.values()] == [name.removeprefix("rung").split("_")[0] for name in ALL]


BAD = {
    "too few axes": ("u", (2, 3), r"u has shape \(2, 3\), expected \(batch=2, dim=3, length=5\)"),
    "another length": ("z", (2, 3, 4), r"z has shape \(2, 3, 4\), expected \(batch=2, dim=3, length=5\)"),
    "groups": ("B", (2, 1, 2, 5), r"B has shape .* expected \(batch=2, state=2, length=5\)"),
    "a column": ("D", (3, 1), r"D has shape \(3, 1\), expected \(dim=3\)"),
}


@each_rung
def test_arrays_that_do_not_fit_are_refused_before_a_launch(name):
    launch = ALL[name].RUNG.launch
    _, arrays = problem_of((2, 3, 5, 2))
    grads = Gradients(*(np.empty_like(arrays[field]) for field in Gradients._fields))
    for field, shape, message in BAD.values():
        with pytest.raises(ValueError, match=message):
            launch(**arrays | {field: np.zeros(shape, np.float32)}, grads=grads)
    with pytest.raises(ValueError, match=r"grad_delta has shape \(2, 3, 4\), expected \(batch=2, dim=3, length=5\)"):
        launch(**arrays, grads=grads._replace(delta=grads.delta[..., :4]))
    with pytest.raises(TypeError, match="grad_C is of float64, expected an array of float32"):
        launch(**arrays, grads=grads._replace(C=grads.C.astype(float)))
    _, arrays = problem_of((1, 1, 2, ladder.MAX_STATE + 1))
    grads = Gradients(*(np.empty_like(arrays[field]) for field in Gradients._fields))
    with pytest.raises(ValueError, match=f"A has {ladder.MAX_STATE + 1} states, expected at most {ladder.MAX_STATE}"):
        launch(**arrays, grads=grads)
