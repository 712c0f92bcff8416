"""The way forward with time abreast: inside the oracle's bounds, where it goes, and wrong ones noticed."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import kernel_runs

if kernel_runs.NEITHER:
    pytest.skip(kernel_runs.NEITHER, allow_module_level=True)

from ssm_kernels import choosing, intrinsics, scan, segments
from ssm_kernels.intrinsics import ITEMSIZE
from ssm_kernels.walking import abreast, bands, launching, parts

from ssm_edu.selective import reference
from tests.kernel_runs import SIMULATED, in_the_simulator
from tests.production_runs import cotangents, edited, is_noticed, launched, problem_of, ratios

# in the simulator smaller blocks, of shorter tiles, stand for those there are
BANDS = {
    "two": bands.Band(2, 2, items=8) if SIMULATED else bands.WIDEST,
    "four": bands.Band(4, 4, items=8) if SIMULATED else bands.BANDS[0],
    "six": bands.Band(6, 2, items=8) if SIMULATED else bands.WIDEST,
    "long": bands.Band(2, 2) if SIMULATED else bands.WIDEST,
}
SHIFTED = {"delta_shift": -1}
NOTHING = dict.fromkeys(("D", "z", "delta_bias", "delta_softplus", "initial_state"), False)


@contextmanager
def all_abreast(band, early=False):
    """Every scan goes forward by such a band, and none goes back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launching, "serve", lambda *_: True)
        patch.setattr(launching, "band_for", lambda _: band)
        patch.setattr(launching, "backward", lambda *_: None)
        patch.setattr(segments, "forward", lambda *_: pytest.fail("it went by segments"))
        patch.setattr(intrinsics, "GATHER_EARLY", early)
        yield


def problem_abreast(dtype, length, band="two", blocks=1, **options):
    return problem_of(dtype, dim=blocks * BANDS[band].channels, length=length, **{"batch": 1, "state": 16} | options)


def y_and_last(problem, dtype, band="two", early=False, schedule=0):
    with all_abreast(BANDS[band], early):
        found = launched(scan, problem, dtype, *cotangents(problem, dtype), schedule)
    return found[:2]


def worst_of(case, early=False, schedule=0):
    """The larger of the two errors over their bounds: of a dtype, a length and options."""
    dtype, length, options = case
    band = options.get("band", "two")
    problem = problem_abreast(dtype, length, **options)
    found = [*y_and_last(problem, dtype, band, early, schedule), *[None] * 9]
    found = ratios(problem, dtype, found, *cotangents(problem, dtype))
    return max(found["y"], found["last_state"])


WORD = ("float32", 4, SHIFTED)
TILES = ("float32", 516, SHIFTED | {"state": 12})
NARROW = ("bfloat16", 808, SHIFTED | {"state": 8})
LONG = ("bfloat16", 520, SHIFTED | {"state": 8, "band": "long"})
SIX = ("float32", 516, SHIFTED | {"band": "six", "state": 16})
NARROW_SIX = ("bfloat16", 776, SHIFTED | {"band": "six", "state": 12})
GROUPS = ("float32", 260, SHIFTED | {"blocks": 2, "groups_B": 2, "batch": 2, "state": 8})
FOUR = ("float32", 268, SHIFTED | {"band": "four"})
CASES = {
    "a word": WORD,
    "two tiles and a word": TILES,
    "one tile": ("float32", 256, SHIFTED),
    "16-bit numbers": NARROW,
    "a word of 16-bit numbers": ("float16", 8, SHIFTED),
    "16-bit numbers, two tiles, 16 states": ("float16", 264, SHIFTED),
    "16-bit numbers, sixteen steps a lane": LONG,
    "six channels": SIX,
    "six channels, 16-bit numbers": NARROW_SIX,
    "two blocks share C, of a batch": GROUPS,
    "16-bit numbers in groups": ("bfloat16", 16, SHIFTED | {"blocks": 2, "groups_B": 2, "groups_C": 2, "batch": 2}),
    "four states together": FOUR,
    "four states of 16-bit numbers together": ("bfloat16", 520, SHIFTED | {"band": "four", "state": 8}),
    "nothing optional": ("float32", 300, NOTHING),
    "nothing optional, 16-bit numbers": ("float16", 296, NOTHING | {"state": 12}),
}


@pytest.mark.parametrize("early", [False, True] if SIMULATED else [False])
@pytest.mark.parametrize("name", CASES)
def test_time_abreast_is_inside_the_bounds(name, early):
    """What segments leave adds up in some order: ROUND-4, ROUND-7, SCAN-15."""
    assert worst_of(CASES[name], early) <= 1


@settings(max_examples=max(1, settings.default.max_examples // 15))  # each launches a kernel
@given(
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    words=st.integers(1, 40) | st.sampled_from([64, 65, 67]),
    state=st.sampled_from([8, 12, 16]),
    band=st.sampled_from(["two", "four"]),
    options=st.fixed_dictionaries({name: st.booleans() for name in ("D", "z", "delta_bias", "initial_state")}),
    delta_softplus=st.booleans(),
    scale=st.sampled_from([1, 8]),
    seed=st.integers(0, 2**32 - 1),
    early=st.booleans(),
    schedule=st.randoms(use_true_random=False),
)
def test_time_abreast_under_any_schedule(
    dtype, words, state, band, options, delta_softplus, scale, seed, early, schedule
):  # fmt: skip
    options = options | {"delta_softplus": delta_softplus, "delta_scale": scale, "seed": seed, "state": state}
    options |= SHIFTED if delta_softplus else {}
    case = dtype, words * 16 // ITEMSIZE[dtype], options | {"band": band}
    assert worst_of(case, early, schedule) <= 1


def test_steps_of_no_length_and_of_much_too_great_a_length():
    problem = problem_abreast("float32", 268, **NOTHING | {"initial_state": True})
    delta = problem.delta.copy()
    delta[:, ::3], delta[:, 1::3] = 0, 1e4
    problem = replace(problem, delta=delta)
    found = [*y_and_last(problem, "float32"), *[None] * 9]
    found = ratios(problem, "float32", found, *cotangents(problem, "float32"))
    assert max(found["y"], found["last_state"]) <= 1


def test_nan_stays_where_it_belongs():
    """In its channel, or, of a map, in its state and all channels, from its step on."""
    problem = problem_abreast("float32", 268, **SHIFTED)
    u, B = problem.u.copy(), problem.B.copy()
    u[0, 1, 133] = B[0, 0, 3, 259] = np.nan
    problem = replace(problem, u=u, B=B)
    found, exact = y_and_last(problem, "float32"), reference.selective_scan(problem)
    for x, expected in zip(found, exact, strict=True):
        np.testing.assert_array_equal(np.isnan(x), np.isnan(expected))
        assert np.isnan(expected).any()
        assert np.isfinite(expected).any()


def forgotten(kind=abreast):
    """The last state where log₂e takes A beyond float32, and Δ is 0 from the first tile's end on."""
    problem = problem_abreast("float32", 260, **NOTHING)
    A, delta = problem.A.copy(), problem.delta.copy()
    A[:, 3], delta[..., 8:] = np.finfo(np.float32).min, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choosing, "abreast", kind)
        return y_and_last(replace(problem, A=A, delta=delta), "float32")[1]


def test_a_decay_beyond_float32_over_no_time():
    assert np.isfinite(forgotten()).all()


def test_bands_have_lanes_and_room():
    for band in [*bands.BANDS, BANDS["two"], BANDS["four"], BANDS["six"]]:
        for dtype in ("float32", "bfloat16"):
            assert band.shared_bytes(dtype) <= 227 * 1024
            of_row = band.tile * ITEMSIZE[dtype] // 16
            assert of_row & of_row - 1 == 0
            assert band.copiers(dtype) % of_row == 0
        assert 32 % band.together == 0
        assert parts.STATES % max(band.together, 4) == 0


# The checks fail wrong kernels

SYNC = "            cuda.syncwarp()\n"
MUTANTS = {
    "nobody waits for what all have put": ("            gather(shared,", "            (shared,", TILES),
    "nobody waits for maps that were opened": ("            gather(shared,", "            (shared,", NARROW),
    "what is copied has not come": ("gathering(band.threads, not NARROW)", "gathering(band.threads, False)", TILES),
    "one buffer of maps": ("other = int_t(BUFFER - buffer)", "other = buffer", TILES),
    "one buffer of opened maps": ("other = int_t(BUFFER - buffer)", "other = buffer", NARROW),
    "rows taken before they are there": (
        "            wait_async_but_last()\n            cuda.syncwarp()\n            take",
        "            take",
        TILES,
    ),
    "rows of another lane taken before they are there": (
        "last()\n            cuda.syncwarp()\n            take",
        "last()\n            take",
        TILES,
    ),
    "rows replaced while they are read": (SYNC + "            bias, skip", "            bias, skip", TILES),
    "ends read before they are there": (
        "ends, e, x)\n                    cuda.syncwarp()",
        "ends, e, x)",
        WORD,
    ),
    "first states read before they are there": (
        "                    cuda.syncwarp()\n                    if QUAD",
        "                    if QUAD",
        WORD,
    ),
    "the gate before it is there": (
        "wait_async_but_last()\n            cuda.syncwarp()\n            if options",
        "if options",
        WORD,
    ),
    "the gate replaced while it is read": (
        "                cuda.syncwarp()\n            if NARROW:\n                own",
        "            if NARROW:\n                own",
        LONG,
    ),
    "y read before it is there": (
        "                cuda.syncwarp()\n                for j in unroll(WORDS):\n                    if step",
        "                for j in unroll(WORDS):\n                    if step",
        TILES,
    ),
    "steps beyond the end": ("if own_left < ITEMS", "if False", WORD),
    "steps of the lane's first word alone": (
        "int_t(left - lane * ITEMS)\n            wait",
        "left\n            wait",
        WORD,
    ),
    "y beyond the end": ("if step + j * LINE < left", "if True", WORD),
    "16-bit y beyond the end": ("if j * WIDTH < own_left", "if True", NARROW),
    "rows beyond the end": ("at + (t if t < left else 0), WIDTH if t < left else 0)", "at + t, WIDTH)", WORD),
    "maps beyond the end": ("WIDTH if of_copy < length else 0", "WIDTH", WORD),
    "maps of later tiles beyond the end": ("WIDTH if int_t(t_ahead", "WIDTH if True or int_t(t_ahead", TILES),
    "16-bit maps of the tile after": ("2 * TILE if NARROW", "TILE if NARROW", NARROW),
    "a segment begins like the last one's end": ("h = begin if first else sent", "h = sent", TILES),
    "a segment begins with nothing": ("h = begin if first else sent", "h = ZERO", WORD),
    "a tile begins with nothing": (
        "if first:\n                        shared",
        "if False:\n                        shared",
        TILES,
    ),
    "half of the segments": ("for k in unroll(LEVELS)", "for k in unroll(LEVELS - 1)", TILES),
    "decays of one segment": ("if k < LEVELS - 1:", "if False:", TILES),
    "the decay of a lane's last segment": ("pairs[2 * k + 1] *= pairs[2 * k - 1]", "pass", TILES),
    "the segments of a lane from its first one's": ("h, cuda.fma(pairs[1], h, pairs[0])))", "h, h))", TILES),
    "four segments of a lane": ("cuda.fma(pairs[5], h, pairs[4])", "cuda.fma(pairs[3], h, pairs[2])", FOUR),
    "the states of the lanes after": (
        "before = of_state == int_t(0), int_t(lane - of_state",
        "before = of_state == int_t(0), int_t(lane",
        FOUR,
    ),
    "ΣΔ of a step less": ("exp2(total * a)", "exp2((total - dt[0]) * a)", TILES),
    "an exponential of the step before": ("exp2(dt[4 * j + k] * a)", "exp2(dt[max(4 * j + k - 1, 0)] * a)", WORD),
    "the exponentials of the first states kept": (
        "] = alpha\n                    x[w * ITEMS + 4 * j + k] = x_i\n                    left",
        "] += ZERO\n                    x[w * ITEMS + 4 * j + k] = x_i\n                    left",
        FOUR,
    ),
    "B of the same states": ("(TOGETHER + w) * PLANE)", "w * PLANE)", FOUR),
    "A of the same states": ("both_walks(shared, at_held + TOGETHER", "both_walks(shared, at_held", FOUR),
    "both walks to the end": ("int_t(n + AT_ONCE) < int_t(state)", "n >= 0", FOUR),
    "ends of another lane": ("later * 32 + (lane * 4 ^ later * 16)", "later * 32 + (lane * 4 ^ later * 8)", FOUR),
    "ends in another place": ("(of_state * 4 ^ 16) + 32)", "of_state * 4 + 32)", FOUR),
    "rows that are not there": ("if UNEVEN else own < ROWS", "if UNEVEN and False else own < ROWS", NARROW_SIX),
    "rows of others' states": ("int_t((n >> 2) * COPIED) if UNEVEN else n", "n", NARROW_SIX),
    "the first states twice": ("at_map + half * TOGETHER * PLANE", "at_map", WORD),
    "C of the same states": ("read(shared, at[j] + MAP + w * PLANE)", "read(shared, at[j] + MAP)", WORD),
    "the first state left out": ("if options & STARTS", "if False", WORD),
    "the bias left out": ("dt[i] += bias", "pass", WORD),
    "softplus left out": ("if options & SOFTPLUS", "if False", WORD),
    "the skip left out": ("s[i] = skip * s[i]", "s[i] = ZERO * s[i]", WORD),
    "the gate left out": ("s[i] *= du[i] * sigmoid(du[i])", "pass", WORD),
    "the gate of the tile before": ("z, at + TILE, left - TILE, step", "z, at, left, step", TILES),
    "words of another lane": (
        "int_t(mail_u + (lane ^ lane >> 3 & WORD_MASK) * WIDTH)",
        "int_t(mail_u + lane * WIDTH)",
        TILES,
    ),
    "words of maps in another place": ("(word ^ word >> 3 & WORD_MASK) * WIDTH)", "word * WIDTH)", TILES),
    "opened words in another place": ("(word >> WORD_BITS) * 4", "(word >> WORD_BITS) * 8", NARROW),
    "B's groups for C": (
        "row_C = (b * (dim // per_group_C) + d0 // per_group_C)",
        "row_C = (b * (dim // per_group_B) + d0 // per_group_B)",
        GROUPS,
    ),
    "the first block's maps": ("d0 // per_group_B", "0 // per_group_B", GROUPS),
    "A of the first block": ("load_real(A, d * state", "load_real(A, warp * state", GROUPS),
}


@pytest.fixture
def fresh_kernels():
    for kernels in (choosing.walking_abreast_kernel, abreast.kernel):
        kernels.cache_clear()
    yield
    for kernels in (choosing.walking_abreast_kernel, abreast.kernel):
        kernels.cache_clear()


@in_the_simulator
@pytest.mark.parametrize("fault", MUTANTS)
@pytest.mark.usefixtures("fresh_kernels")
def test_a_wrong_kernel_is_noticed(fault, monkeypatch):
    old, new, case = MUTANTS[fault]
    monkeypatch.setattr(choosing, "abreast", edited(abreast, old, new))
    assert any(is_noticed(lambda early=early: worst_of(case, early)) for early in (False, True))


@in_the_simulator
@pytest.mark.usefixtures("fresh_kernels")
def test_a_decay_of_minus_infinity_times_zero_is_noticed():
    assert np.isnan(forgotten(edited(abreast, "LEAST if a < LEAST else a", "a"))).any()
