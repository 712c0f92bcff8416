"""The production kernels by walking: inside the oracle's bounds, where it goes, and wrong ones noticed."""

from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import kernel_runs

if kernel_runs.NEITHER:
    pytest.skip(kernel_runs.NEITHER, allow_module_level=True)

from ssm_kernels import choosing, description, scan, segments, sums
from ssm_kernels.intrinsics import ITEMSIZE
from ssm_kernels.walking import (
    adjoint,
    carry,
    chunks,
    forward,
    helped,
    helping,
    launching,
    middles,
    parts,
    summary,
    teams,
)

import ssm_edu
from ssm_edu import bounds
from ssm_edu.selective import reference
from ssm_edu.selective.problem import make_problem
from ssm_edu.selective.reference import Gradients
from ssm_edu.testing.simulator import simulated
from tests.kernel_runs import SIMULATED, in_the_simulator, running
from tests.problems import random_arguments
from tests.production_runs import cotangents, edited, is_noticed, launched, problem_of, ratios

# in the simulator one warp stands for the four of a block
WALKING_WARPS = 1 if SIMULATED else parts.WARPS
WALKING = {"batch": 1, "length": 4, "state": 16, "delta_shift": -1}
NOTHING = dict.fromkeys(("D", "z", "delta_bias", "delta_softplus", "initial_state"), False) | {"delta_shift": 0}


# the teams as they are, in smaller blocks
SMALL = {
    "narrow" if team.narrow else team.held: replace(team, warps=2 if team.held == 8 else 1, blocks=None)
    for team in teams.TEAMS
}


@contextmanager
def by_walking(chunk=16, warps=WALKING_WARPS, team=None, whole_back=False):
    """Both directions go by walking, in blocks of so many warps and chunks of so many steps, or not at all.

    The way forward has a team, or chunks; the way back has chunks, or one.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "WARPS", warps)
        cut = lambda one, room: one.length if whole_back and room != chunks.FORTH else chunk  # noqa: E731
        patch.setattr(launching, "chunk_for", cut)
        patch.setattr(launching, "team_for", lambda one: team)
        patch.setattr(launching, "band_for", lambda one: None)
        for name in ("forward", "backward"):
            patch.setattr(segments, name, lambda *arguments: pytest.fail("it went by segments"))
        yield


def walking_problem(dtype, blocks=1, warps=WALKING_WARPS, held=None, saving=False, carried=False, **options):
    return problem_of(dtype, dim=blocks * parts.channels(warps), **WALKING | options)


def walking_ratios(case, schedule=0, with_last=True):
    """:func:`ratios` by walking: of a dtype, a chunk and options, of which the states `held` by a lane say the team.

    A team walks forward alone, unless the way back takes states that it saves. Saved states are for one chunk, and come
    from a team, unless they are saved "in chunks". Many chunks are carried over by a launch, here those that are
    `carried`.
    """
    dtype, chunk, options = case
    saving = options.get("saving", False)
    team = SMALL[options.get("held") or 4] if saving is True or options.get("held") else None
    problem = walking_problem(dtype, **options)
    grad_y, grad_last = cotangents(problem, dtype)
    grad_last = grad_last if with_last else None
    forth = team is not None and not saving
    whole, warps = saving is True, options.get("warps", WALKING_WARPS)
    with by_walking(chunk, warps, team, whole), pytest.MonkeyPatch.context() as patch:
        if forth:
            patch.setattr(launching, "backward", lambda *_: None)
        if options.get("carried"):
            patch.setattr(carry, "MOST_BY_THEMSELVES", 1)
        found = launched(scan, problem, dtype, grad_y, grad_last, schedule, saving=bool(saving))
    found = ratios(problem, dtype, found, grad_y, grad_last)
    return {name: found[name] for name in ("y", "last_state")} if forth else found


WORD = ("float32", 16, {"state": 8})
CHUNKS = ("float32", 16, {"length": 20})
MORE_CHUNKS = ("float32", 16, {"length": 52})
CARRIED = ("float32", 16, {"length": 36, "carried": True})
TILES = ("float16", 48, {"length": 40, "state": 12})
TWO_WARPS = ("float32", 16, {"warps": 2})
LONG_CHUNKS = ("float32", 32, {"length": 36, "batch": 2, "state": 8})
GROUPS = ("float32", 16, {"blocks": 2, "groups_B": 2, "batch": 2})
GROUPS_IN_CHUNKS = ("float32", 16, {"blocks": 2, "groups_B": 2, "length": 20})
HELPED = ("float32", 48, {"length": 40, "held": 4, "state": 12})
TWO_TILES = ("bfloat16", 48, {"length": 72, "held": 2, "batch": 2})
ALONE = ("float32", 16, {"length": 20, "held": 1})
HELPED_GROUPS = ("float32", 16, {"blocks": 2, "groups_B": 2, "batch": 2, "held": 2, "length": 8})
BLOCK = ("float32", 48, {"length": 36, "warps": 2} | NOTHING)
SAVING = {"saving": True}
SAVED = ("float32", 48, {"length": 36} | SAVING)
SAVED_BY_TWO = ("float16", 32, {"length": 40, "held": 2} | SAVING)
SAVED_MIDDLES = ("float16", 80, {"length": 72, "state": 12} | SAVING)
MIDDLES_OF_GROUPS = ("float16", 48, {"length": 24, "blocks": 2, "groups_B": 2, "batch": 2} | SAVING)
SAVED_IN_CHUNKS = ("float32", 32, {"length": 72, "state": 12, "saving": "in chunks"})
NOTHING_COMES_BACK = ("float32", 48, {"length": 20} | SAVING)
MIDDLES_OF_TWO_WARPS = ("bfloat16", 64, {"length": 56, "warps": 2} | NOTHING | SAVING)
WALKING_CASES = {
    "a word": WORD,
    "two chunks": CHUNKS,
    "four chunks": MORE_CHUNKS,
    "chunks carried over by a launch": CARRIED,
    "chunks of a batch from saved states, carried over by a launch": (
        "float32",
        16,
        {"length": 36, "batch": 2, "saving": "in chunks", "carried": True, "state": 12},
    ),
    "a chunk of a tile and a quarter": TILES,
    "two warps, nothing optional": BLOCK,
    "chunks of a batch": LONG_CHUNKS,
    "two warps": TWO_WARPS,
    "two blocks share C": GROUPS,
    "bfloat16, batch": ("bfloat16", 16, {"length": 8, "batch": 2}),
    "four warps": ("float32", 16, {"warps": 4}),
    "helped": HELPED,
    "helped, two tiles of a batch": TWO_TILES,
    "helped, a state a lane": ALONE,
    "helped, two tiles of a state a lane": ("float16", 16, {"length": 88, "held": 1, "state": 12} | NOTHING),
    "helped, half of the states a lane": ("float16", 16, {"length": 40, "held": 8, "state": 12, "warps": 2} | NOTHING),
    "helped, 8 states": ("bfloat16", 16, {"length": 24, "held": 2, "state": 8}),
    "helped, groups": HELPED_GROUPS,
    "helped, 16-bit numbers": ("float16", 16, {"length": 88, "held": "narrow", "state": 12}),
    "saved states": SAVED,
    "saved states, two tiles": SAVED_BY_TWO,
    "saved states, middles": SAVED_MIDDLES,
    "saved states, middles of two warps": MIDDLES_OF_TWO_WARPS,
    "saved states, middles of two blocks and groups": MIDDLES_OF_GROUPS,
    "saved states, nothing comes back": NOTHING_COMES_BACK,
    "saved states in chunks": SAVED_IN_CHUNKS,
    "saved states in chunks of blocks, groups and a batch": (
        "float32",
        32,
        {"length": 36, "blocks": 2, "groups_B": 2, "batch": 2, "saving": "in chunks"},
    ),
    "saved states in chunks, nothing comes back": ("float32", 48, {"length": 52, "saving": "in chunks"} | NOTHING),
    "saved states by a team, taken in chunks": ("float32", 16, {"length": 40, "held": 1, "saving": "in chunks"}),
    "saved states by halves": ("bfloat16", 48, {"length": 48, "warps": 2, "held": 8} | NOTHING | SAVING),
    "saved states by one": ("float32", 48, {"length": 40, "state": 12, "held": 1} | SAVING),
}


@pytest.mark.parametrize("name", WALKING_CASES)
def test_walking_is_inside_the_bounds(name):
    """Chunks and the sums over lanes add up in some order: ADJ-1 to ADJ-12, ROUND-4, ROUND-7, SCAN-15."""
    assert max(walking_ratios(WALKING_CASES[name], with_last="nothing" not in name).values()) <= 1


@settings(max_examples=max(1, settings.default.max_examples // 30))  # as above
@given(
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    words=st.sampled_from([1, 3, 5]),
    chunk=st.sampled_from([16, 32]),
    state=st.sampled_from([8, 12, 16]),
    held=st.sampled_from([None, 1, 2, 4]),
    options=st.fixed_dictionaries({name: st.booleans() for name in ("D", "z", "delta_bias", "initial_state")}),
    delta_softplus=st.booleans(),
    scale=st.sampled_from([1, 8]),
    seed=st.integers(0, 2**32 - 1),
    with_last=st.booleans(),
    saving=st.sampled_from([False, True, "in chunks"]),
    schedule=st.randoms(use_true_random=False),
)
def test_walking_under_any_schedule(
    dtype, words, chunk, state, held, options, delta_softplus, scale, seed, with_last, saving, schedule
):  # fmt: skip
    length = words * 16 // ITEMSIZE[dtype]
    options = options | {"delta_softplus": delta_softplus, "delta_scale": scale, "seed": seed, "held": held}
    options |= {"saving": saving if dtype == "float32" else bool(saving)}
    options |= {} if delta_softplus else {"delta_shift": 0}
    case = dtype, chunk, options | {"length": min(length, 24), "state": state}
    assert max(walking_ratios(case, schedule, with_last).values()) <= 1


def test_states_are_saved_where_the_way_back_is_faster_with_them(monkeypatch):
    """In no more memory than y takes, up to the last tile's; of 16-bit numbers only where it has one chunk."""
    monkeypatch.setattr(description, "processors", lambda: 132)
    for dtype, dim, length, saves in (
        ("float32", 1536, 2048, True),
        ("bfloat16", 1536, 2048, False),
        ("float32", 2048, 2048, True),
        ("bfloat16", 2048, 2048, True),
        ("float16", 2048, 2056, True),
        ("float32", 640, 2048, True),
        ("bfloat16", 640, 2048, False),
    ):
        sizes = SimpleNamespace(batch=8, dim=dim, length=length, state=16, dtype=dtype)
        shape = launching.saved_shape(sizes)
        assert (shape is not None) == saves
        tile = 8 * dim * 32 * ITEMSIZE[dtype]
        assert not saves or 4 * np.prod(shape) <= 8 * dim * length * ITEMSIZE[dtype] + tile


def test_walking_with_steps_of_no_length_and_of_much_too_great_a_length():
    problem = walking_problem("float32", **NOTHING | {"initial_state": True, "length": 20})
    delta = problem.delta.copy()
    delta[:, ::3], delta[:, 1::3] = 0, 1e4
    problem = replace(problem, delta=delta)
    grad_y, grad_last = cotangents(problem, "float32")
    with by_walking():
        found = launched(scan, problem, "float32", grad_y, grad_last)
    assert max(ratios(problem, "float32", found, grad_y, grad_last).values()) <= 1


NAN = [
    {"u": (0, 2, 5), "delta": (0, 9, 19)},
    {"B": (0, 0, 3, 18), "grad_y": (0, 4, 17)},
]


@pytest.mark.parametrize("places", NAN, ids=" and ".join)
def test_nan_stays_where_it_belongs_by_walking(places):
    """It goes on to later chunks, and back to earlier ones.

    The oracle has NaN in A's gradient even where only the last u or B is: it multiplies it by ∂B̄/∂A, which is 0.
    """
    problem = walking_problem("float32", length=20)
    grad_y, grad_last = cotangents(problem, "float32")
    arrays = {"u": problem.u, "delta": problem.delta, "B": problem.B, "grad_y": grad_y}
    arrays = {name: array.copy() for name, array in arrays.items()}
    for name, index in places.items():
        arrays[name][index] = np.nan
    grad_y = arrays.pop("grad_y")
    problem = replace(problem, **arrays)
    with by_walking():
        found = launched(scan, problem, "float32", grad_y, grad_last)
    exact = *reference.selective_scan(problem), *reference.selective_scan_backward(problem, grad_y, grad_last)
    for field, x, expected in zip(("y", "last_state", *Gradients._fields), found, exact, strict=True):
        np.testing.assert_array_equal(np.isnan(x), np.isnan(expected), err_msg=field)
    for kind in (np.isnan, np.isfinite):
        assert any(kind(x).any() for x in exact)


GOES = {"batch": 1, "dim": 64, "length": 8, "state": 16, "dtype": "float32"}
BY_WALKING = {
    "as it is": {},
    "float16": {"dtype": "float16"},
    "8 states": {"state": 8},
    "12 states": {"state": 12},
    "two groups": {"dim": 128, "groups_B": 2, "groups_C": 2},
    "unequal groups": {"dim": 128, "groups_B": 2},
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
    "less than a block": {"dim": 48},
    "a block and a half": {"dim": 96},
    "groups of half a block": {"groups_B": 2},
    "4 states": {"state": 4},
    "9 states": {"state": 9},
    "20 states": {"state": 20},
}


def routed(arguments):
    """By which of the two the door goes both ways, and what it gives it; nothing is launched."""
    taken = []
    with pytest.MonkeyPatch.context() as patch:
        for name, module in (("walking", launching), ("segments", segments)):
            for way in ("forward", "backward"):
                patch.setattr(module, way, lambda *given_, name=name: taken.append((name, *given_[:2])))
        ssm_edu.selective_scan(**arguments, backend="cuda")
        ssm_edu.selective_scan_backward(np.ones_like(arguments["u"]), **arguments, backend="cuda")
    forth, back = taken
    assert forth[0] == back[0]
    return back


@in_the_simulator
@pytest.mark.parametrize("name", BY_WALKING | BY_SEGMENTS)
def test_which_scans_go_by_walking(name):
    by, *_ = routed(random_arguments(0, **GOES | (BY_WALKING | BY_SEGMENTS)[name]))
    assert by == ("walking" if name in BY_WALKING else "segments")


EVEN, ODD = 1 << 20, (1 << 20) + 4  # of addresses, those at 16-byte boundaries and others


@in_the_simulator
@pytest.mark.parametrize(
    ("saved", "comes_back", "taken"), [(EVEN, None, EVEN), (EVEN, EVEN, EVEN), (ODD, None, None), (EVEN, ODD, None)]
)
def test_saved_states_are_taken_where_they_and_what_comes_back_begin_at_16_bytes(saved, comes_back, taken):
    """Else the scan still goes by walking, without them."""
    _, one, _ = routed(random_arguments(0, **GOES))
    one = replace(one, **dict.fromkeys(("u", "delta", "A", "B", "C", "z", "initial_state"), EVEN))
    grads = SimpleNamespace(u=EVEN, delta=EVEN, z=EVEN)
    with mock.patch.object(launching, "backward") as back:
        scan.backward(one, EVEN, comes_back, grads, stream=0, allocate=None, saved=saved)
    assert back.call_args.args[-1] == taken


@in_the_simulator
@pytest.mark.usefixtures("fresh_kernels")
@pytest.mark.parametrize("begin", ["begin", "ZERO"])
def test_middles_of_several_chunks_of_time(begin, monkeypatch):
    """And one in which each begins like the first is noticed."""
    mutant = edited(middles, "begin // WHOLE * a_border", f"int({begin}) // WHOLE * a_border")
    monkeypatch.setattr(choosing, "middles", mutant)
    for module in (mutant, middles):
        monkeypatch.setattr(module, "CHUNK", 32)
    right = max(walking_ratios(("float16", 80, {"length": 72} | SAVING)).values()) <= 1
    assert right == (begin == "begin")


@in_the_simulator
@pytest.mark.usefixtures("fresh_kernels")
def test_a_way_back_that_spoils_what_was_saved_is_noticed(monkeypatch):
    spoilt = "store_states(saved, at_border, 4, some, all_, h)\n            buffer = 1 - buffer"
    monkeypatch.setattr(choosing, "middles", edited(middles, "buffer = 1 - buffer", spoilt))
    with pytest.raises(AssertionError, match="Arrays are not equal"):
        walking_ratios(SAVED_MIDDLES)


@in_the_simulator
def test_middles_take_bs_groups(monkeypatch):
    """B's and C's may differ."""
    launches = []
    kernel = SimpleNamespace(compiled=lambda: lambda *launch: launches.append(launch[-1]))
    monkeypatch.setattr(launching, "walking_middles_kernel", lambda *_: kernel)
    case = ("float16", 48, {"length": 24, "blocks": 2, "groups_B": 2} | SAVING)
    with pytest.raises(AssertionError):  # nothing has filled the borders
        assert max(walking_ratios(case).values()) <= 1
    ((*_, per_group),) = launches
    assert per_group == parts.channels(WALKING_WARPS)


@in_the_simulator
def test_bfloat16_goes_by_walking():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    arguments = random_arguments(0, **GOES)
    narrow = {name: arguments[name].astype(bfloat16) for name in ("u", "delta", "z", "B", "C")}
    assert routed(arguments | narrow)[0] == "walking"


@in_the_simulator
def test_where_walking_does_not_go(monkeypatch):
    """Not to what begins between 16-byte boundaries, nor before Hopper."""
    _, one, v = routed(random_arguments(0, **GOES))
    for name in ("u", "delta", "z", "A", "B", "C", "initial_state"):
        for address, goes in ((1 << 20, True), ((1 << 20) + 4, False)):
            moved = replace(one, **{name: address})
            assert launching.serve(moved, description.variant_of(moved)) == goes, name
    for capability, back in (((9, 0), True), ((11, 0), True), ((12, 0), False)):
        monkeypatch.setattr(description, "capability", lambda capability=capability: capability)
        assert launching.serve(one, v)
        assert launching.serve_back(one, v) == back
        assert scan.saved_shape(one) is None or back
    monkeypatch.setattr(description, "capability", lambda: (8, 9))
    assert not launching.serve(one, v)


@in_the_simulator
@pytest.mark.parametrize(
    "ways", [summary.Ways(back=True), summary.Ways(), summary.Ways(forth=False, back=True)], ids=str
)
def test_a_summary_of_more_than_one_tile(ways):
    """From zero, over one chunk: its last state, and what comes back to its first where nothing comes to its last.

    If it is not walked through for its states, it is the second chunk.
    """
    length, flat, chunk = 52, np.ravel, 64
    before = 0 if ways.forth else chunk
    p = walking_problem("float32", warps=1, length=before + length)
    A = p.A.copy()
    A[:, 3] = np.finfo(np.float32).min  # times log₂e that is beyond float32
    p = replace(p, A=A, initial_state=np.zeros_like(p.initial_state))
    grad_y, _ = cotangents(p, "float32")
    ends, backs, totals = (np.full((2, n), np.nan, np.float32) for n in (256, 256, 16))
    kernel = choosing.walking_summary_kernel("float32", ways, 1).compiled()
    given = [flat(x) for x in (p.u, p.delta, p.A, p.B, p.C, p.z, p.delta_bias, grad_y, p.u, p.u)]
    sizes = (description.options_of(p, False), 1, 16, before + length, 16, 16, 16, chunk)
    with simulated(0):
        kernel((1, 1, 1), (ways.team(1).threads, 1, 1), 0, (*given, flat(ends), flat(backs), flat(totals), *sizes))
    ends, backs, totals = (x[before // chunk] for x in (ends, backs, totals))
    rows = {name: getattr(p, name)[..., before:] for name in ("u", "delta", "B", "C", "z")}
    p, grad_y = replace(p, **rows), grad_y[..., before:]
    last, grad = reference.selective_scan(p)[1], reference.selective_scan_backward(p, grad_y, None).initial_state
    rounding = {"arithmetic": bounds.FLOAT32_APPROX, "algorithm": "any", "stored": "float32"}
    last_bound = bounds.forward(p, **rounding).last_state
    grad_bound = bounds.backward(p, grad_y, None, **rounding).initial_state
    for asked, found, right, bound in (
        (ways.forth, ends, last, last_bound),
        (ways.back, backs, grad, grad_bound),
    ):
        assert (abs(found.reshape(right.shape) - right) <= bound).all() if asked else np.isnan(found).all()
    # a sum of what is not negative rounds once a term, and each term is off by as much again
    exact = np.logaddexp(0, p.delta[0].astype(float) + p.delta_bias[:, None]).sum(1)
    np.testing.assert_allclose(totals, exact, rtol=length * 2**-23)


@in_the_simulator
@pytest.mark.parametrize("alone", [False, True], ids=["both ways", "back alone"])
def test_a_carry_over_more_chunks_than_it_reads_at_a_time(alone):
    chunks, batch, dim, state = carry.AHEAD + 3, 2, 3, 8
    random = np.random.default_rng(0)
    A = -random.uniform(0.2, 2, (dim, state)).astype(np.float32)
    start, arriving = random.normal(size=(2, batch, dim, state)).astype(np.float32)
    ends, backs = random.normal(size=(2, chunks, batch, dim, state)).astype(np.float32)
    totals = random.uniform(0, 1, (chunks, batch, dim)).astype(np.float32)
    x = A * totals[..., None].astype(float)

    def carried(first, added, order):
        """What enters each chunk, and its error at most: x rounds thrice, e^x is within 4 units, the sum rounds."""
        unit, state, error, found = 2.0**-24, first.astype(float), 0.0, []
        for m in order:
            found.append((m, state, error))
            off = (3 * abs(x[m]) + 4) * unit
            error = np.exp(x[m]) * (error + off * abs(state)) * (1 + off)
            state = np.exp(x[m]) * state + added[m]
            error = error + unit * (abs(state) + error)
        found.sort(key=lambda entry: entry[0])
        return np.stack([h for _, h, _ in found]), np.stack([np.broadcast_to(e, first.shape) for *_, e in found])

    expected = carried(start, ends, range(chunks)), carried(arriving, backs, range(chunks - 1, -1, -1))
    found = ends.ravel(), backs.ravel()
    first_way, ways = (1, 1) if alone else (0, 2)
    sizes = 1, 1, first_way, chunks, batch, dim, state
    given = (A.ravel(), start.ravel(), arriving.ravel(), *found, totals.ravel(), *sizes)
    with simulated(0):
        choosing.walking_carry_kernel().compiled()((1, ways, 1), (carry.THREADS, 1, 1), 0, given)
    for one, (right, bound) in list(zip(found, expected, strict=True))[first_way:]:
        assert (abs(one.reshape(right.shape) - right) <= bound).all()


def test_lanes_without_states_stay_finite_where_time_is_beyond_float32():
    """With 8 states half of the adjoint's lanes have none: 0 · e^{0 · ∞} there is nobody's gradient."""
    problem = walking_problem("float32", **NOTHING | {"length": 36, "state": 8})
    delta, u = problem.delta.copy(), problem.u.copy()
    delta[:, 5, 3:6], u[:, 5, 3:6] = 2e38, 0
    problem = replace(problem, delta=delta, u=u)
    grad_y, grad_last = cotangents(problem, "float32")
    with by_walking(48), np.errstate(over="ignore"):
        found = launched(scan, problem, "float32", grad_y, grad_last)
    expected = reference.selective_scan_backward(problem, grad_y, grad_last)
    assert np.isfinite(expected.delta[:, :, 16:]).all()
    assert np.isfinite(found[3].reshape(expected.delta.shape)[:, :, 16:]).all()


def last_state_off(held):
    """How far it is off by such a team, where A is −∞ and so a state but for its last step is forgotten."""
    problem = walking_problem("float32", blocks=2 if held == 8 else 1, **NOTHING | {"length": 20})
    A = problem.A.copy()
    A[:, 3] = -np.inf
    problem = replace(problem, A=A)
    with by_walking(team=SMALL[held]), mock.patch.object(launching, "backward"):
        found = launched(scan, problem, "float32", *cotangents(problem, "float32"))[1]
    exact = reference.selective_scan(problem)[1]
    return abs(found.reshape(exact.shape) / exact - 1)[..., 3].max()


@pytest.mark.parametrize("held", SMALL)
def test_what_lies_beyond_the_end_leaves_states_as_they_are(held):
    """Steps there are walked, with Δ = 0, and change nothing: Δu·B is left, two roundings away."""
    assert last_state_off(held) < 2.01 * 2**-24


@in_the_simulator
@pytest.mark.usefixtures("fresh_kernels")
def test_a_decay_of_minus_infinity_times_zero_is_noticed(monkeypatch):
    monkeypatch.setattr(choosing, "helped", edited(helped, "if a[j] < LEAST", "if False"))
    assert np.isnan(last_state_off(1))


def gradients_where_a_state_is_forgotten(decay):
    """Back over four chunks, by blocks that read two at a time."""
    problem = walking_problem("float32", length=52)
    A = problem.A.copy()
    A[:, 3] = decay
    with by_walking():
        found = launched(scan, replace(problem, A=A), "float32", *cotangents(problem, "float32"))
    return dict(zip(Gradients._fields, found[2:], strict=True))


def same_gradients():
    """Whether an A that log₂e takes beyond float32 gives what another one does by which nothing is left."""
    beyond, far = map(gradients_where_a_state_is_forgotten, (np.finfo(np.float32).min, -1e30))
    return all(np.array_equal(beyond[name], far[name]) for name in ("u", "B", "C", "D", "z"))


def test_a_state_that_is_forgotten_at_once_leaves_the_others_alone():
    assert same_gradients()


@in_the_simulator
@pytest.mark.usefixtures("fresh_kernels")
def test_a_chunk_that_is_not_there_times_infinity_is_noticed(monkeypatch):
    monkeypatch.setattr(adjoint, "parts", edited(parts, "LEAST if a[i] < LEAST else a[i]", "a[i]").parts)
    assert not same_gradients()


def test_by_walking_through_the_door():
    arguments = random_arguments(3, batch=1, dim=parts.channels(WALKING_WARPS), length=8, state=8, dtype="float32")
    problem = make_problem(**arguments)
    grad_y, grad_last = cotangents(problem, "float32")
    with by_walking(), running(1):
        y_and_last = ssm_edu.selective_scan(**arguments, return_last_state=True, backend="cuda")
        gradients = ssm_edu.selective_scan_backward(grad_y, **arguments, grad_last_state=grad_last, backend="cuda")
    assert max(ratios(problem, "float32", [*y_and_last, *gradients], grad_y, grad_last).values()) <= 1


def test_teams_have_lanes_and_room():
    for team in [*teams.TEAMS, *SMALL.values()]:
        assert team.across % team.held == 0
        assert parts.channels(parts.WARPS) % team.of_block == 0
        assert team.turns * team.across == team.of_block
        assert team.map_turns * team.across == parts.STATES
        assert team.steps % teams.GROUP == 0
        assert team.shared_bytes <= 99 * 1024


# The checks fail wrong kernels

STAGED = "tid, words)\n            cuda.syncthreads()"
ALL_THERE = "if there:\n                put", "if True:\n                put"
NO_BACKS = "if BACK:\n                write", "if False:\n                write"
WAIT = "        wait_for_launches()\n"
STARTS = "        read_states(starts, at_start, 4, some and started, all_ and started, h)\n"
WALKING_MUTANTS = {
    "forward: no barrier behind what is staged": (forward, STAGED, "tid, words)", CHUNKS),
    "forward: one buffer of maps": (forward, "buffer = 1 - buffer", "buffer = 0", BLOCK),
    "forward: y read while it is added up": (forward, "            cuda.syncwarp()\n", "", WORD),
    "forward: a chunk begins with nothing": (forward, "started = options & STARTS != 0", "started = False", CHUNKS),
    "forward: each chunk begins like the first": (forward, "((part * batch + b)", "(b", CHUNKS),
    "forward: the last state of the first chunk": (forward, "if end == length", "if part == 0", CHUNKS),
    "forward: the gate left out": (forward, "gate(ys, x)", "pass", WORD),
    "summary: nobody waits for anybody": (summary, "                meet()\n", "", CHUNKS),
    "summary: one tile of shared memory": (summary, "int_t(OTHER_TILE - at)", "at", TILES),
    "summary: ΣΔ of half of the lanes": (summary, "total += cuda.shfl_xor_sync(FULL, total, 2)", "pass", TILES),
    "summary: a chunk of which nothing comes back": (summary, *NO_BACKS, CHUNKS),
    "summary: nothing comes back past saved states": (summary, *NO_BACKS, SAVED_IN_CHUNKS),
    "summary: the gate left out": (summary, "x[i] = x[i] * (z[i]", "x[i] = x[i] * (ONE if True else z[i]", CHUNKS),
    "summary: the states of another lane": (summary, "states = HELD * share", "states = HELD * (share ^ 1)", CHUNKS),
    "summary: states of the lane before": (summary, "n // HELD * SKEW", "0", CHUNKS),
    "summary: rows beyond the end": (summary, "min(t0 + TILE + step, last_four)", "t0 + TILE + step", CHUNKS),
    "summary: B's groups for C": (
        summary,
        "map_C = (entry * (dim // per_group_C)",
        "map_C = map_B + 0 * (",
        GROUPS_IN_CHUNKS,
    ),
    "summary: the first chunk in the place of the second": (summary, "0 if FORTH else 1", "0", SAVED_IN_CHUNKS),
    "carry: nobody waits for the chunks": (carry, WAIT, "", CHUNKS),
    "forward: nobody waits for the first states": (forward, WAIT, "", CHUNKS),
    "forward: the first states read before they are there": (forward, WAIT + STARTS, STARTS + WAIT, CHUNKS),
    "adjoint: nobody waits for what comes back": (adjoint, WAIT, "", CHUNKS),
    "adjoint: chunks do not add up": (adjoint, "exp2(dt[2 * k + i] * a[n]) * h[n] + x[8", "x[8", MORE_CHUNKS),
    "adjoint: two chunks of more": (adjoint, "range(0, chunks, CHUNKS)", "range(0, min(chunks, 2), 2)", MORE_CHUNKS),
    "adjoint: ΣΔ of the other channel": (adjoint, "load_real(totals, from_ + other_total)", "dt[2 * k]", MORE_CHUNKS),
    "adjoint: the last chunk comes back to all": (adjoint, "last - part, to_other", "1, to_other", MORE_CHUNKS),
    "adjoint: all chunks before each": (adjoint, "a_tile, part, to_other", "a_tile, last, to_other", MORE_CHUNKS),
    "adjoint: middles read before they are there": (adjoint, WAIT, "", SAVED_MIDDLES),
    "sums: nobody waits for the shares": (sums, "wait_for_launches()", "pass", WORD),
    "carry: chunks do not add up": (carry, "h = exp2(a * dt[w]) * h + x[w]", "h = x[w]", CHUNKS),
    "carry: back as forth": (carry, "if cuda.blockIdx.y + first_way == 1", "if False", CARRIED),
    "carry: the first state comes back to the last chunk": (carry, "backs, arriving", "backs, start", CARRIED),
    "adjoint: no barrier behind what is staged": (adjoint, STAGED, "tid, words)", CHUNKS),
    "adjoint: no barrier before shares are added up": (
        adjoint,
        "cuda.syncthreads()\n                pending",
        "pending",
        WORD,
    ),
    "adjoint: one buffer of shares": (adjoint, "buffer = BUFFER - buffer", "pass", BLOCK),
    "adjoint: rows of another lane taken before they are there": (
        adjoint,
        "cuda.syncwarp()  # what",
        "pass  # what",
        TILES,
    ),
    "adjoint: rows put where another lane's are": (parts, "channel >> 1 & 2", "0", TILES),
    "adjoint: the first four steps first": (adjoint, "q = fours - 1 - turn", "q = turn", CHUNKS),
    "adjoint: no state before the chunk": (adjoint, "h[j] += exp2(", "h[j] += ZERO * exp2(", CHUNKS),
    "adjoint: nothing comes back to the chunk": (
        adjoint,
        "to_other, mine, mine, g)",
        "to_other, False, False, g)",
        CARRIED,
    ),
    "adjoint: half of the quads": (adjoint, "word[j] + word[4 + j]", "word[j]", WORD),
    "adjoint: one warp of the block": (adjoint, "ZERO if first else sums", "ZERO if True else sums", TWO_WARPS),
    "adjoint: one turn of the sums": (adjoint, "for turn in unroll(SUM_TURNS)", "for turn in unroll(1)", WORD),
    "adjoint: the share of the other lane": (adjoint, "kept_1 if odd else kept_0", "kept_0 if odd else kept_1", WORD),
    "adjoint: steps beyond the end": (adjoint, "min(FOURS, (end - t0) >> 2)", "FOURS", WORD),
    "adjoint: ∂D beyond the end": (adjoint, "es[m] * us[m] if there else ZERO", "es[m] * us[m]", WORD),
    "adjoint: sums beyond the end": (adjoint, "if t0 + TILE > end", "if False", WORD),
    "adjoint: the skip left out": (adjoint, "s8[m] * dt[m] + skip[i] * es[m]", "s8[m] * dt[m]", WORD),
    "adjoint: ∂A of the step's own state": (adjoint, "back = g[n] * h[i]", "back = g[n] * h[i + 8]", WORD),
    "adjoint: what leaves the last chunk": (adjoint, "if part == 0", "if end == length", CHUNKS),
    "summary: ΣΔ beyond the end": (summary, "dt[i] if there else ZERO", "dt[i]", CHUNKS),
    "summary: a second border like the first": (summary, "(other_half if later else ZERO)", "ZERO", LONG_CHUNKS),
    "summary: the border before": (summary, "begin // BORDER * a_border", "0", CHUNKS),
    "forward: each chunk's states saved like the first's": (
        forward,
        "(t0 + border) // every",
        "(t0 - begin + border) // every",
        SAVED_IN_CHUNKS,
    ),
    "forward: y beyond the end": (forward, "if there:", "if True:", WORD),
    "forward: steps beyond the end": (forward, "steps = min(TILE, end - t0)", "steps = TILE", CHUNKS),
    "forward: rows beyond the end": (forward, "min(begin + step, last_four)", "begin + step", WORD),
    "helped: nobody waits for anybody": (helped, "                meet()\n", "", HELPED),
    "helped: one tile of shared memory": (helped, "int_t(2 * first + OTHER_TILE - to)", "to", TWO_TILES),
    "helped: the step of another lane": (helped, "share & 1 == 1", "share & 1 == 0", HELPED),
    "helped: half of the states": (helped, "kept + cuda.shfl_xor_sync(FULL, sent, OF_WARP << level)", "kept", HELPED),
    "helped: states of the lane before": (helped, "row // HELD * SKEW", "0", TWO_TILES),
    "helped: the skip of the next tile's u": (helped, "at_y, us_of_this, zs", "at_y, us_of_next, zs", TWO_TILES),
    "helped: the gate of the tile before": (helped, "min(t + TILE, last_four)", "min(t, last_four)", TWO_TILES),
    "helped: the gate left out": (helped, "out[j] *= z", "out[j] *= ZERO + 1 if True else z", HELPED),
    "helped: steps beyond the end": (helped, *ALL_THERE, HELPED),
    "helped: y beyond the end": (
        helped,
        "if there:\n            for i in unroll(TURNS):\n                four",
        "if True:\n            for i in unroll(TURNS):\n                four",
        HELPED,
    ),
    "helped: rows beyond the end": (helped, "min(types.int64(step), last_four)", "types.int64(step)", ALONE),
    "helped: rows of the tile after beyond the end": (helped, "min(TILE + step, last_four)", "TILE + step", HELPED),
    "helped: B's groups for C": (
        helped,
        "map_C = (entry * (dim // per_group_C)",
        "map_C = map_B + 0 * (",
        HELPED_GROUPS,
    ),
    "helped: the first state left out": (helped, "if options & STARTS", "if False", HELPED),
    "helped: the four steps before": (helped, "at + 4 * q + 4, at_B", "at + 4 * q, at_B", ALONE),
    "helping: states that are not there": (
        helping,
        "if first + k < state:\n                if Q",
        "if True:\n                if Q",
        HELPED,
    ),
    "helped: the states of another lane": (helped, "states = HELD * share", "states = HELD * (share ^ 1)", HELPED),
    "helped: states saved from each tile's first step on": (helped, "(length - left + s", "(s", SAVED_BY_TWO),
    "helped: every state saved": (helped, "s + GROUP * g) % every == 0", "s + GROUP * g) % every >= 0", SAVED_BY_TWO),
    "parts: maps beyond the end": (parts, "min(t0 + 4 * (item & WORD), last)", "t0 + 4 * (item & WORD)", WORD),
    "parts: the halves of a word the wrong way round": (
        parts,
        "out[PACKED * i + j] = numbers[j]",
        "out[PACKED * i + j] = numbers[PACKED - 1 - j]",
        TILES,
    ),
    "adjoint: the slope of softplus left out": (
        adjoint,
        "dt[i], raw[i] = softplus_and_slope(raw[i])",
        "dt[i], raw[i] = softplus_and_slope(raw[i])[0], ONE",
        WORD,
    ),
    "parts: the steps of the other lane": (parts, "to = at + (2 if odd", "to = at + (0 if odd", WORD),
    "middles: the first block's channels": (middles, "map_row(b, d0, dim", "map_row(b, 0, dim", MIDDLES_OF_GROUPS),
    "adjoint: what comes back to the last step left out": (adjoint, "options & RETURNS != 0", "False", SAVED),
    "middles: no barrier behind what is staged": (middles, STAGED, "tid, words)", SAVED_MIDDLES),
    "middles: one buffer of maps": (middles, "buffer = 1 - buffer", "buffer = 0", MIDDLES_OF_TWO_WARPS),
    "middles: rows replaced while they are read": (middles, "            cuda.syncwarp()\n", "", SAVED_MIDDLES),
    "middles: the next tile from the last one's state": (middles, "h[i] = following[i]", "pass", SAVED_MIDDLES),
    "middles: a state beyond the end": (middles, "if t0 + HALF < end", "if True", SAVED_MIDDLES),
    "middles: no state of the middle": (middles, "(t0 // HALF + 1) * a_border", "t0 // HALF * a_border", SAVED_MIDDLES),
    "adjoint: the other channel's sums": (adjoint, "upper = quarter >> 1", "upper = quarter & 1", WORD),
    "adjoint: rows taken before they are there": (adjoint, "wait_async()\n", "pass\n", WORD),
    "adjoint: the rows of the tile before last": (adjoint, "row + t0 - TILE", "row + t0 - 2 * TILE", LONG_CHUNKS),
    "adjoint: the states of the tile before last": (adjoint, "channel -= a_tile", "channel -= 2 * a_tile", LONG_CHUNKS),
    "adjoint: the last four steps' shares left out": (
        adjoint,
        "exchange(tid, sums, shares)\n        write_shares(shares, tid, pending",
        "exchange(tid, sums, shares)\n        write_shares(shares, tid, -1",
        WORD,
    ),
    "adjoint: shares of the four steps before": (adjoint, "pending = t0 + 4 * q", "pending = t0 + 4 * q + 4", WORD),
    "adjoint: shares added to what lay there": (adjoint, "(ZERO, ZERO, ZERO, ZERO)", "(h[0], h[1], h[2], h[3])", WORD),
    "adjoint: channels of the upper rows among the lower": (adjoint, "upper * SKEW", "0", WORD),
}


@pytest.fixture
def fresh_kernels():
    def clear():
        for kernels in (
            choosing.walking_forward_kernel,
            choosing.walking_helped_kernel,
            choosing.walking_summary_kernel,
            choosing.walking_carry_kernel,
            choosing.walking_middles_kernel,
            choosing.walking_adjoint_kernel,
            choosing.sum_kernel,
            *(module.kernel for module in (forward, helped, summary, carry, middles, adjoint, sums)),
        ):
            kernels.cache_clear()

    clear()
    yield
    clear()


@in_the_simulator
@pytest.mark.parametrize("fault", WALKING_MUTANTS)
@pytest.mark.usefixtures("fresh_kernels")
def test_a_wrong_kernel_is_noticed(fault, monkeypatch):
    module, old, new, case = WALKING_MUTANTS[fault]
    mutant = edited(module, old, new)
    if module is parts:
        for user in (forward, middles, adjoint):
            monkeypatch.setattr(user, "parts", mutant.parts)
        for user in (forward, adjoint):
            monkeypatch.setattr(user, "folding", mutant.folding)
    elif module is helping:
        for user in (helped, summary):
            monkeypatch.setattr(user, "helping", mutant.helping)
    else:
        monkeypatch.setattr(
            choosing, "walking_forward" if module is forward else module.__name__.rpartition(".")[2], mutant
        )
    assert is_noticed(lambda: max(walking_ratios(case).values()))
