"""The production adjoint by quads of lanes: inside the oracle's bounds, where it goes, and wrong ones noticed."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import kernel_runs

if kernel_runs.NEITHER:
    pytest.skip(kernel_runs.NEITHER, allow_module_level=True)

from ssm_kernels import choosing, scan
from ssm_kernels.backward.quads import adjoint, carry, parts, summary
from ssm_kernels.intrinsics import ITEMSIZE

import ssm_edu
from ssm_edu.selective import reference
from ssm_edu.selective.problem import make_problem
from ssm_edu.selective.reference import Gradients
from tests.kernel_runs import SIMULATED, in_the_simulator, running
from tests.problems import random_arguments
from tests.production_runs import cotangents, edited, is_noticed, launched, problem_of, ratios

# in the simulator one warp stands for the four of a block
QUAD_WARPS = 1 if SIMULATED else parts.WARPS
QUADS = {"batch": 1, "length": 4, "state": 16, "delta_shift": -1}
NOTHING = dict.fromkeys(("D", "z", "delta_bias", "delta_softplus", "initial_state"), False) | {"delta_shift": 0}


@contextmanager
def by_quads(chunk=16, warps=QUAD_WARPS):
    """The adjoint goes by quads, in blocks of so many warps and chunks of so many steps, or not at all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "WARPS", warps)
        patch.setattr(scan, "chunk_of", lambda *sizes: chunk)
        patch.setattr(scan, "backward_by_segments", lambda *arguments: pytest.fail("it went by segments"))
        yield


def quad_problem(dtype, blocks=1, warps=QUAD_WARPS, **options):
    return problem_of(dtype, dim=blocks * parts.channels(warps), **QUADS | options)


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
    arguments = random_arguments(3, batch=1, dim=parts.channels(QUAD_WARPS), length=8, state=8, dtype="float32")
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
    assert chunk % parts.TILE == 0
    assert -(-length // chunk) <= min(4 * room, 65535)


# The checks fail wrong kernels

QUAD_MUTANTS = {
    "no barrier behind what the summary stages": (
        summary,
        "tid, words)\n            cuda.syncthreads()\n            if t0 + TILE",
        "tid, words)\n            if t0 + TILE",
        CHUNKS,
    ),
    "no barrier behind what is staged": (
        adjoint,
        "put_maps(shared, 0, tid, words)\n            cuda.syncthreads()",
        "put_maps(shared, 0, tid, words)",
        CHUNKS,
    ),
    "no barrier before the slots are read": (
        adjoint,
        "cuda.syncthreads()\n                sum_channels",
        "sum_channels",
        WORD,
    ),
    "no barrier after the slots are read": (adjoint, "cuda.syncthreads()  # the slots", "pass  # the slots", WORD),
    "rows replaced while they are read": (summary, "            cuda.syncwarp()\n", "", TILES),
    "one buffer of maps": (summary, "buffer = 1 - buffer", "buffer = 0", BLOCK),
    "y of another channel": (adjoint, "2 * (quarter & 1) + (quarter >> 1)", "quarter", WORD),
    "the first half first": (adjoint, "half = 1 - turn", "half = turn", WORD),
    "the states that chunks begin with do not add up": (carry, "h = P[w] * h + x[w]", "h = x[w]", CHUNKS),
    "no state before the chunk": (adjoint, "h_tile[4 * k + j] += exp2(", "h_tile[4 * k + j] += ZERO * exp2(", WORD),
    "sums of half of a quad": (parts, "return x + cuda.shfl_xor_sync(FULL, x, 2)", "return x", TILES),
    "what comes back to chunks does not add up": (carry, "g = P[w] * g + x[w]", "g = x[w]", CHUNKS),
    "nothing comes back to the chunk": (adjoint, "8 * state, mine, g)", "8 * state, False, g)", WORD),
    "half of the quads": (
        adjoint,
        "for m in unroll(4):\n                    four(shared, at + w",
        "for m in unroll(2):\n                    four(shared, at + w",
        WORD,
    ),
    "every second quad twice": (adjoint, "+ 4 * parity * 4", "", WORD),
    "one warp of the block": (adjoint, "for w in unroll(warps)", "for w in unroll(1)", ("float32", 16, {"warps": 2})),
    "one turn of the sums": (adjoint, "for turn in unroll(TURNS)", "for turn in unroll(1)", WORD),
    "the sums of the other lane": (adjoint, "(row + n + 2 * parity)", "(row + n + 2 - 2 * parity)", WORD),
    "Δ beyond the end": (parts, "if not there:", "if False:", WORD),
    "sums beyond the end": (adjoint, "if t < length and n", "if n", WORD),
    "the bias beyond the end": (adjoint, "grad if there2 else ZERO", "grad", WORD),
    "the skip left out": (adjoint, "s2[i] * dt2[i] + skip[k] * error", "s2[i] * dt2[i]", WORD),
    "∂A of the step's own state": (adjoint, "kept = g[4 * k + j] * h_before", "kept = g[4 * k + j] * h", WORD),
}


@pytest.fixture
def fresh_kernels():
    def clear():
        for kernels in (choosing.quad_kernels, choosing.carry_kernel, summary.kernel, adjoint.kernel):
            kernels.cache_clear()

    clear()
    yield
    clear()


@in_the_simulator
@pytest.mark.parametrize("fault", QUAD_MUTANTS)
@pytest.mark.usefixtures("fresh_kernels")
def test_a_wrong_kernel_is_noticed(fault, monkeypatch):
    module, old, new, case = QUAD_MUTANTS[fault]
    mutant = edited(module, old, new)
    if module is parts:
        for user in (summary, adjoint):
            monkeypatch.setattr(user, "parts", mutant.parts)
    else:
        monkeypatch.setattr(choosing, module.__name__.rpartition(".")[2], mutant)
    assert is_noticed(lambda: max(quad_ratios(case).values()))
