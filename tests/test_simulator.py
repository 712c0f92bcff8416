"""The simulator: every broken kernel fails with its message, every correct one passes under drawn schedules."""

import doctest
import gc
import math
import os
import random
import re
import subprocess
import sys
import time

import numba
import numpy as np
import pytest
from hypothesis import example, find, given, settings
from hypothesis import strategies as st
from numba import cuda, float32, int32, uint8

if not cuda.jit.__module__.startswith("numba.cuda.simulator"):
    pytest.skip("Numba was imported without NUMBA_ENABLE_CUDASIM=1", allow_module_level=True)

import ssm_edu.testing.simulator as simulator
from ssm_edu.testing.simulator import BarrierError, KernelError, OutOfBounds, RaceError, UninitialisedRead, simulated
from ssm_edu.testing.simulator.warp import DOWN, IDX, UP, XOR, exchange, lanes_of, shuffle_source
from tests.simulated_kernels import BROKEN, CORRECT, FULL, raised, ran

schedules = st.randoms(use_true_random=False)
kernels = {name: kernel for name, kernel, *_ in BROKEN + CORRECT}


def launch_broken(case, **options):
    _, kernel, _, _, blocks, threads, arrays = case
    with simulated(**options):
        kernel[blocks, threads](*(np.ones(n, dtype) for n, dtype in arrays))


def launch_correct(case, schedule, seed=0, **options):
    _, kernel, blocks, threads, dynamic, make = case
    arguments, (position, expected) = make(np.random.default_rng(seed))
    with simulated(schedule, **options):
        kernel[blocks, threads, 0, dynamic](*arguments)
    np.testing.assert_array_equal(arguments[position], expected)


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case[0])
def test_a_broken_kernel_fails_with_a_message_to_act_on(case):
    _, _, error, patterns, *_ = case
    with pytest.raises(error) as caught:
        launch_broken(case)
    for pattern in patterns:
        assert re.search(pattern, str(caught.value))


@pytest.mark.parametrize("case", [case for case in BROKEN if case[5] > 1], ids=lambda case: case[0])
def test_a_broken_kernel_fails_in_every_order(case):
    for schedule in range(5):
        with pytest.raises(KernelError):
            launch_broken(case, schedule=schedule)


@pytest.mark.parametrize("case", CORRECT, ids=lambda case: case[0])
def test_a_correct_kernel_passes(case):
    launch_correct(case, None)
    for schedule in range(5):
        launch_correct(case, schedule)


@given(st.sampled_from(CORRECT), schedules, st.integers(0, 9))
def test_a_correct_kernel_passes_under_any_schedule(case, schedule, seed):
    launch_correct(case, schedule, seed)


@cuda.jit
def shift_without_barrier(x, y):
    s = cuda.shared.array(8, float32)
    i = cuda.threadIdx.x
    s[i] = 0
    cuda.syncthreads()
    s[i] = x[i]
    y[i] = s[i - 1] if i else 0


class Draws:
    def __init__(self, source):
        self.source, self.drawn = source, []

    def randrange(self, n):
        self.drawn.append(self.source.randrange(n))
        return self.drawn[-1]


def test_without_the_race_detector_a_drawn_schedule_still_shows_a_missing_barrier():
    """Thread order hides it. Hypothesis shrinks to: any order before the barrier, the reversed order behind it."""
    x = np.arange(1, 9, dtype=np.float32)
    failing = []

    def wrong(schedule):
        draws, y = Draws(schedule), np.empty_like(x)
        ran(shift_without_barrier, x, y, threads=8, schedule=draws, races=False)
        if np.array_equal(y, np.arange(8)):
            return False
        failing.append(draws.drawn)
        return True

    find(schedules, wrong, settings=settings(database=None, derandomize=True))
    assert failing[-1] == [0, 1]
    ran(shift_without_barrier, x, np.empty_like(x), threads=8, races=False)
    raised(RaceError, shift_without_barrier, x, np.empty_like(x), threads=8)


@cuda.jit
def who_was_first(order):
    i = cuda.threadIdx.x
    order[cuda.atomic.add(order, 32, 1)] = i


def first_come(schedule):
    order = np.zeros(33, np.int32)
    ran(who_was_first, order, schedule=schedule)
    return list(order[:32])


def test_schedules_are_deterministic_and_differ():
    assert first_come(None) == list(range(32))
    assert first_come(5) == first_come(5) == first_come(random.Random(5)) == first_come(np.int64(5))
    assert first_come(5) != first_come(6)
    assert sorted(first_come(5)) == list(range(32))


@given(st.integers(0, 31), st.integers(0, 31), st.sampled_from([1, 2, 4, 8, 16, 32]))
def test_shuffles_read_the_lanes_that_cuda_documents(lane, operand, width):
    """CUDA C++ Programming Guide, Warp Shuffle Functions, with the clamp that PTX encodes a width in."""
    segment, place = lane - lane % width, lane % width
    clamp = (32 - width) << 8
    own = lane, False
    assert shuffle_source(IDX, lane, operand, clamp | 31) == (segment + operand % width, True)
    assert shuffle_source(UP, lane, operand, clamp) == ((lane - operand, True) if place >= operand else own)
    below = place + operand < width
    assert shuffle_source(DOWN, lane, operand, clamp | 31) == ((lane + operand, True) if below else own)
    # an earlier segment may be read, a later one not
    earlier = lane ^ operand < segment + width
    assert shuffle_source(XOR, lane, operand, clamp | 31) == ((lane ^ operand, True) if earlier else own)


@given(st.dictionaries(st.integers(0, 31), st.sampled_from([0, 1, 7]), min_size=1))
def test_votes_and_matches(values):
    lane = min(values)
    chosen = [one for one in values if values[one]]
    assert lanes_of(exchange("ballot_sync", lane, values)) == sorted(chosen)
    assert exchange("all_sync", lane, values) == all(values.values())
    assert exchange("any_sync", lane, values) == any(values.values())
    assert exchange("eq_sync", lane, values) == (len(chosen) in (0, len(values)))
    same = sorted(one for one in values if values[one] == values[lane])
    assert lanes_of(exchange("match_any_sync", lane, values)) == same
    mask, agreed = exchange("match_all_sync", lane, values)
    assert agreed == (len(same) == len(values))
    assert lanes_of(mask) == (same if agreed else [])


@cuda.jit
def every_intrinsic(x, y):
    i = cuda.laneid
    y[0, i] = cuda.shfl_sync(FULL, x[i], 40)
    y[1, i] = cuda.shfl_up_sync(-1, x[i], 3)
    y[2, i] = cuda.shfl_down_sync(FULL, x[i], 3)
    y[3, i] = cuda.shfl_xor_sync(FULL, x[i], 5)
    y[4, i], inside = cuda.shfl_sync_intrinsic(FULL, 1, x[i], 1, (32 - 8) << 8)
    y[5, i] = inside
    y[6, i] = cuda.vote_sync_intrinsic(FULL, 3, x[i] > 3)[0]
    y[7, i] = cuda.vote_sync_intrinsic(FULL, 1, x[i] > 3)[1]
    y[8, i] = cuda.match_any_sync(FULL, i % 4)
    y[9, i], agreed = cuda.match_all_sync(FULL, 1)
    y[10, i] = agreed
    y[11, i] = cuda.lanemask_lt()
    if i % 2:
        y[12, i] = cuda.activemask()
    else:
        y[12, i] = cuda.activemask()
    cuda.nanosleep(10)
    y[13, i] = cuda.eq_sync(FULL, 0) + 10 * cuda.any_sync(FULL, i == 3)


@pytest.mark.parametrize("schedule", [None, 0, 1])
def test_intrinsics_as_a_kernel_calls_them(schedule):
    lane = np.arange(32)
    y = np.zeros((14, 32), np.int64)
    ran(every_intrinsic, lane, y, schedule=schedule)
    odd, even = 0xAAAAAAAA, 0x55555555
    rows = [8, np.maximum(lane - 3, lane * (lane < 3)), np.where(lane < 29, lane + 3, lane), lane ^ 5]
    rows += [np.where(lane % 8, lane - 1, lane), lane % 8 > 0, 0xFFFFFFF0, 1]
    rows += [0x11111111 << (lane % 4), FULL, 1, (1 << lane) - 1, np.where(lane % 2, odd, even), 11]
    for k, row in enumerate(rows):
        np.testing.assert_array_equal(y[k], np.broadcast_to(row, 32), err_msg=f"row {k}")


@cuda.jit
def every_atomic(x):
    for k in range(13):
        if cuda.threadIdx.x == 0:
            x[k] = 6
    cuda.syncthreads()
    cuda.atomic.add(x, 0, 1)
    cuda.atomic.sub(x, 1, 1)
    cuda.atomic.and_(x, 2, 3)
    cuda.atomic.or_(x, 3, 1)
    cuda.atomic.xor(x, 4, 5)
    cuda.atomic.inc(x, 5, 6)
    cuda.atomic.dec(x, 6, 9)
    cuda.atomic.exch(x, 7, 2)
    cuda.atomic.max(x, 8, 9)
    cuda.atomic.min(x, 9, 3)
    cuda.atomic.cas(x, 10, 6, 8)
    cuda.atomic.compare_and_swap(x[11:12], 6, 4)
    cuda.atomic.nanmax(x, 12, 7)


def test_atomics_do_as_numba_does():
    x = np.zeros(13, np.int32)
    ran(every_atomic, x, threads=2)
    assert list(x) == [8, 4, 2, 7, 6, 1, 4, 2, 9, 3, 8, 4, 7]


@cuda.jit
def copy_through_shared(x, y):
    s = cuda.shared.array(4, int32)
    f = cuda.local.array(2, float32)
    y[0], y[1] = s[0], f[0]


def test_unwritten_memory_is_poisoned():
    y = np.zeros(2)
    ran(copy_through_shared, y, y, threads=1, uninitialised="poison")
    assert y[0] == np.frombuffer(b"\xa5" * 4, np.int32)[0]
    assert np.isnan(y[1])
    assert "[0] of shared array `s`" in raised(UninitialisedRead, copy_through_shared, y, y, threads=1)


@cuda.jit
def write_half(y):
    if cuda.threadIdx.x % 2:
        y[cuda.threadIdx.x] = 1


def test_outputs_begin_as_poison_where_they_are_passed_as_out():
    y = np.zeros(4, np.float32)
    ran(write_half, cuda.Out(y), threads=4)
    np.testing.assert_array_equal(y, [np.nan, 1, np.nan, 1])
    assert "argument `x`" in raised(UninitialisedRead, kernels["reduction"], cuda.Out(np.ones(32, np.float32)), y)


def test_device_arrays_are_used_in_place_and_races_between_their_views_are_seen():
    device = cuda.to_device(np.arange(33, dtype=np.float32))

    @cuda.jit
    def shift(x, y):
        y[cuda.threadIdx.x] = x[cuda.threadIdx.x]

    ran(shift, device[:32], device[:32])
    assert "of argument `x` (32,)" in raised(RaceError, shift, device[:32], device[1:])


@cuda.jit
def write_bytes_of_a_word(x):
    s = cuda.shared.array(4, int32)
    b = s.view(uint8)
    i = cuda.threadIdx.x
    if i == 0:
        s[0] = 1
    if i == 1:
        b[x[0]] = 2


def test_races_are_seen_between_elements_of_different_sizes():
    assert "[3] of shared array `s` (16,) uint8" in raised(RaceError, write_bytes_of_a_word, np.array([3]))
    ran(write_bytes_of_a_word, np.array([4]))


@cuda.jit
def exchange_by_halves(x, y):
    s = cuda.shared.array(32, float32)
    i = cuda.threadIdx.x
    s[i] = x[i]
    cuda.syncwarp(0xFFFF if i < 16 else 0xFFFF0000)
    if i in (0, 16):
        cuda.syncwarp(0x10001)
        y[i] = s[31 - i]


def watched(kernel, *arguments, **options):
    events = []
    ran(kernel, *arguments, watch=events.append, **options)
    return events


@cuda.jit
def swap_by_barrier_and_shuffle(x, y):
    s = cuda.shared.array(2, float32)
    i = cuda.threadIdx.x
    s[i] = x[i]
    cuda.syncthreads()
    y[i] = s[1 - i] + cuda.shfl_xor_sync(3, 10.0 * i, 1)


class Reversing:
    """Every order is the reverse of the threads'."""

    def randrange(self, n):
        return 1


def test_a_watcher_is_told_all_that_happens_in_the_order_in_which_it_does():
    x, y = np.array([5, 7], np.float32), np.zeros(2, np.float32)
    events = watched(swap_by_barrier_and_shuffle, x, y, threads=2)
    seen = [(e.thread, e.phase, e.kind, e.name, e.index, e.value) for e in events]
    s, shuffle = "shared array `s`", "shfl_xor_sync"
    assert seen[:3] == [
        (0, 0, "read", "argument `x`", (0,), 5),
        (0, 0, "write", s, (0,), 5),
        (0, 0, "arrive", "syncthreads", (), None),
    ]
    assert seen[6:8] == [(i, 1, "leave", "syncthreads", (), None) for i in (0, 1)]
    assert seen[8:10] == [(0, 1, "read", s, (1,), 7), (0, 1, "arrive", shuffle, (), 0)]
    assert [e for e in seen if e[2:4] == ("leave", shuffle)] == [
        (i, 1, "leave", shuffle, (), 10 - 10 * i) for i in (0, 1)
    ]
    assert [e.source for e in events if e.source is not None] == [1, 0]
    assert [e.thread for e in events if e.kind == "return"] == [0, 1]
    writes = [e for e in events if e.kind == "write"]
    assert [e.text for e in writes] == ["s[i] = x[i]"] * 2 + [
        "y[i] = s[1 - i] + cuda.shfl_xor_sync(3, 10.0 * i, 1)"
    ] * 2
    assert writes[2].line - writes[0].line == 2
    assert [e.value for e in writes] == [5, 7, 17, 5] == [5, 7, *y]
    other = watched(swap_by_barrier_and_shuffle, x, y, threads=2, schedule=Draws(Reversing()))
    assert [e.thread for e in other[:6]] == [1] * 3 + [0] * 3


def test_a_watcher_is_told_of_atomics_and_blocks_and_of_unwatched_memory():
    counts = np.zeros(33, np.int32)
    events = []
    with simulated(watch=events.append, races=False, uninitialised="poison"):
        who_was_first[2, 2](counts)
    updates = [(e.block, e.thread, e.index, e.value) for e in events if e.kind == "update"]
    assert updates == [((b, 0, 0), i, (32,), 2 * b + i) for b in (0, 1) for i in (0, 1)]


def test_a_race_says_which_two_accesses_and_the_second_is_the_last_event():
    events, x = [], np.ones(8, np.float32)
    with pytest.raises(RaceError) as caught, simulated(watch=events.append):
        shift_without_barrier[1, 8](x, np.empty_like(x))
    race, last = caught.value, events[-1]
    assert (race.second.block, race.second.thread, race.second.line) == (last.block, last.thread, last.line)
    assert race.first.file == race.second.file == __file__
    (first,) = [e for e in events if (e.thread, e.line, e.name) == (race.first.thread, race.first.line, last.name)]
    assert (first.kind, last.kind) == ("write", "read")
    assert (first.index, first.phase, first.thread != last.thread) == (last.index, last.phase, True)
    assert f":{first.line} `{first.text}`" in str(race)


def test_syncwarp_orders_only_its_lanes_and_what_they_had_synchronised_with():
    """Lanes 15 and 31 come to know of each other only through lanes 0 and 16."""
    x, y = np.arange(32, dtype=np.float32), np.zeros(32, np.float32)
    ran(exchange_by_halves, x, y)
    assert (y[0], y[16]) == (31, 15)
    case = next(case for case in BROKEN if case[0] == "a_shuffle_taken_for_a_memory_barrier")
    with pytest.raises(RaceError):
        launch_broken(case)


@cuda.jit
def last_block_done_without_a_fence(x, partial, done, y):
    if cuda.threadIdx.x == 0:
        partial[cuda.blockIdx.x] = x[cuda.blockIdx.x]
        if cuda.atomic.add(done, 0, 1) == cuda.gridDim.x - 1:
            y[0] = partial[0] + partial[1]


def test_blocks_are_ordered_by_a_fence_and_an_atomic_only():
    arguments = np.ones(2, np.float32), np.ones(2, np.float32), np.zeros(1, np.int32), np.ones(1, np.float32)
    with pytest.raises(RaceError, match=r"argument `partial`.*no fence and atomic between"), simulated():
        last_block_done_without_a_fence[2, 32](*arguments)


ACTORS = (0, 1, 2, 32)  # three lanes of one warp, one of another
NOTHING, READ, WRITE, UPDATE, SYNCWARP, SYNCTHREADS = range(6)


@cuda.jit
def interpret(program):
    """Row by row, an operation and its operand for each actor; the other threads go along to the barriers."""
    s = cuda.shared.array(2, int32)
    i = cuda.threadIdx.x
    if i < 2:
        s[i] = 0
    cuda.syncthreads()
    actor = i if i < 3 else 3 if i == 32 else -1
    for row in range(len(program)):
        operation, operand = program[row, max(actor, 0), 0], program[row, max(actor, 0), 1]
        if operation == SYNCTHREADS:
            cuda.syncthreads()
        elif actor >= 0 and operation == READ:
            s[operand]
        elif actor >= 0 and operation == WRITE:
            s[operand] = row
        elif actor >= 0 and operation == UPDATE:
            cuda.atomic.add(s, operand, 1)
        elif actor >= 0 and operation == SYNCWARP:
            cuda.syncwarp(operand)


def races_by_vector_clocks(program):
    """Every pair of accesses compared: what the simulator must find, from far less."""
    clocks = np.zeros((4, 4), int)
    accesses = []
    for row in program:
        groups = {operand: [a for a in range(3) if operand >> a & 1] for op, operand in row if op == SYNCWARP}
        if row[0][0] == SYNCTHREADS:
            groups = {0: list(range(4))}
        for group in groups.values():
            clocks[group] = clocks[group].max(axis=0)
        for actor, (operation, operand) in enumerate(row):
            clocks[actor, actor] += 1
            if operation in (READ, WRITE, UPDATE):
                accesses.append((actor, operation, operand, clocks[actor].copy()))
    return any(
        e == f and a != b and {p, q} not in ({READ}, {UPDATE}) and now[a] < then[a] and then[b] < now[b]
        for k, (a, p, e, then) in enumerate(accesses)
        for b, q, f, now in accesses[:k]
    )


accesses = st.tuples(st.sampled_from([NOTHING, READ, WRITE, UPDATE]), st.integers(0, 1))
access_rows = st.tuples(accesses, accesses, accesses, accesses)
lanes = st.sampled_from([3, 5, 6, 7])


@st.composite
def syncwarp_rows(draw):
    mask, other = draw(lanes), draw(accesses)
    return (*((SYNCWARP, mask) if mask >> a & 1 else draw(accesses) for a in range(3)), other)


programs = st.lists(
    st.one_of(access_rows, access_rows, syncwarp_rows(), st.just(((SYNCTHREADS, 0),) * 4)), min_size=1, max_size=6
)


LANE_0_LAGS_BEHIND = [
    ((NOTHING, 0), (SYNCWARP, 6), (SYNCWARP, 6), (NOTHING, 0)),
    ((NOTHING, 0), (SYNCWARP, 6), (SYNCWARP, 6), (NOTHING, 0)),
    ((NOTHING, 0), (WRITE, 0), (NOTHING, 0), (NOTHING, 0)),
    ((SYNCWARP, 3), (SYNCWARP, 3), (NOTHING, 0), (NOTHING, 0)),
    ((READ, 0), (NOTHING, 0), (NOTHING, 0), (NOTHING, 0)),
]


@given(programs, schedules)
@example(LANE_0_LAGS_BEHIND, random.Random(0))
def test_the_race_detector_finds_a_race_exactly_where_there_is_one(program, schedule):
    table = np.array(program, np.int32)
    if races_by_vector_clocks(program):
        raised(RaceError, interpret, table, threads=33, schedule=schedule)
    else:
        ran(interpret, table, threads=33, schedule=schedule)


@cuda.jit
def atomics_on_fresh_memory(x):
    s = cuda.shared.array(1, int32)
    cuda.atomic.add(s, 0, 1)


@cuda.jit
def atomic_row(x):
    cuda.atomic.add(x, slice(None), 1)


@cuda.jit
def atomic_unknown(x):
    cuda.atomic.multiply(x, 0, 1)


def test_atomics_refuse_what_they_cannot_do():
    x = np.zeros(4, np.int32)
    assert "updates [0] of shared array `s`" in raised(UninitialisedRead, atomics_on_fresh_memory, x)
    assert "an atomic updates one element" in raised(TypeError, atomic_row, x)
    assert "no 'multiply' in the simulator" in raised(AttributeError, atomic_unknown, x)


TABLE = np.array([3.0, 4.0])


@cuda.jit
def other_arguments(pair, y):
    table = cuda.const.array_like(TABLE)
    y[0] = pair[0][0] + pair[1] + table[1]
    cuda.cg.this_grid().sync()
    y[1] = np.sum(pair[0]) + pair[0].nbytes + pair[0].transpose()[1] + pair[0].ravel()[1]


def test_tuples_constants_and_a_grid_of_one_block():
    y = np.zeros(2)
    ran(other_arguments, (np.array([1.0, 2.0]), 5), y, threads=1)
    assert list(y) == [10, 23]
    with pytest.raises(KernelError, match=r"grid.sync\(\) over \(2, 1, 1\) blocks"), simulated(races=False):
        other_arguments[2, 1]((np.ones(2), 5), y)


def test_options_that_allow_what_is_an_error():
    by_name = {case[0]: case for case in BROKEN}
    launch_broken(by_name["two_writers_of_one_value"], same_value_writes=True)
    launch_broken(by_name["negative_index"], wraparound=True)
    launch_broken(by_name["barrier_after_an_early_return"], early_exit=True)
    launch_broken(by_name["uninitialised_shared_read"], uninitialised="poison")
    launch_broken(by_name["hillis_steele_in_one_buffer"], races=False)
    with pytest.raises(OutOfBounds):
        launch_broken(by_name["unsigned_index_below_zero"], wraparound=True)
    with pytest.raises(simulator.WarpError, match="reads lane 8, which takes no part"):
        launch_broken(by_name["shuffle_from_exited_lanes"], early_exit=True)


@cuda.jit
def index_with(x, y):
    y[0] = x[x[0]]


@cuda.jit
def divide(x, y):
    y[0] = int(x[0]) // int(x[1])


def test_other_errors_say_which_thread():
    assert "an index is an integer" in raised(TypeError, index_with, np.zeros(2), np.zeros(2), threads=1)
    with pytest.raises(ZeroDivisionError) as caught, simulated():
        divide[1, 1](np.zeros(2), np.zeros(1))
    assert caught.value.__notes__ == ["in thread (0, 0, 0) of block (0, 0, 0)"]


def test_a_read_only_argument_cannot_be_written():
    x = np.ones(4, np.float32)
    x.setflags(write=False)
    with pytest.raises(ValueError, match="read-only"):
        ran(write_half, x, threads=4)
    assert x.sum() == 4


def test_numba_is_left_as_it_was_after_an_error_too():
    from numba.cuda.simulator.kernel import FakeCUDAKernel

    before = FakeCUDAKernel.__call__
    for _ in range(2):
        with pytest.raises(BarrierError), simulated():
            kernels["barrier_in_a_divergent_branch"][1, 64](np.ones(64), np.ones(64))
        assert FakeCUDAKernel.__call__ is before
        assert not hasattr(cuda, "threadIdx")
    x, y = np.ones(32, np.float32), np.zeros(32, np.float32)
    write_half[1, 4](y)
    assert y.sum() == 2
    with simulated(), pytest.raises(RuntimeError, match="already active"), simulated():
        pass
    ran(kernels["vote_based_compaction"], x, y)


def double(value):
    return 2 * value + 0 * numba.cuda.laneid


def test_kernels_reach_cuda_by_any_name_and_from_plain_functions():
    from numba import cuda as closed_over

    scan = sys.modules["tests.simulated_kernels"].warp_scan

    @closed_over.jit
    def kernel(x):
        x[closed_over.threadIdx.x] = double(scan(x[closed_over.threadIdx.x]))

    x = np.ones(32, np.float32)
    ran(kernel, x)
    np.testing.assert_array_equal(x, 2 * np.arange(1, 33))


@simulated(schedule=3)
def doubled_by_a_decorated_function():
    y = np.zeros(4, np.float32)
    write_half[1, 4](y)
    return y


def test_simulated_is_a_decorator_too():
    assert doubled_by_a_decorated_function().sum() == doubled_by_a_decorated_function().sum() == 2


@cuda.jit
def much_shared_memory():
    a = cuda.shared.array(12000, float32)
    b = cuda.shared.array(300, float32)
    a[0] = b.size


def test_what_no_gpu_can_launch():
    message = raised(KernelError, much_shared_memory, threads=1)
    assert "49200 bytes of static shared memory" in message
    assert "`b = cuda.shared.array(300, float32)`" in message
    assert "2048 threads" in raised(KernelError, write_half, np.ones(4), threads=(64, 32))


@cuda.jit
def much_to_know(x, n):
    tile = cuda.shared.array(6400, float32)
    for i in range(cuda.threadIdx.x, n, 32):
        tile[i] = x[i]
        x[i] = tile[i]


@pytest.mark.parametrize(("blocks", "races", "most"), [(1, True, 3200), (100, False, 200)])
def test_a_launch_leaves_little_for_the_search_for_cycles(blocks, races, most):
    """Of 6400 elements an access each was known, and a table of readers; 100 blocks had 3200 threads."""
    x = np.zeros(6400)
    gc.collect()
    before = len(gc.get_objects())
    gc.disable()
    try:
        with simulated(races=races):
            much_to_know[blocks, 32](x, x.size // blocks)
        left = len(gc.get_objects()) - before
    finally:
        gc.enable()
    assert left < most


@pytest.mark.parametrize("schedule", ["random", True, 1.5])
def test_a_schedule_of_another_kind_is_refused(schedule):
    with pytest.raises(TypeError, match="schedule is"), simulated(schedule):
        pass


def test_another_word_for_uninitialised_is_refused():
    with pytest.raises(ValueError, match="uninitialised is 'ignore'"), simulated(uninitialised="ignore"):
        pass


def test_without_numbas_simulator_it_says_what_to_set():
    code = """
from ssm_edu.testing.simulator import simulated
try:
    with simulated(): pass
except RuntimeError as error:
    assert "NUMBA_ENABLE_CUDASIM=1" in str(error)
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"NUMBA_ENABLE_CUDASIM": "0"}, check=True)


def test_the_example_in_the_documentation():
    # IGNORE_EXCEPTION_DETAIL would let any message pass
    results = doctest.testmod(simulator, optionflags=doctest.ELLIPSIS)
    assert results.attempted > 5
    assert results.failed == 0


@cuda.jit
def block_scan(a, b, y):
    """h_t = a_t h_{t−1} + b_t: two elements a thread, then Hillis and Steele over the threads."""
    s = cuda.shared.array((2, 2, 32), float32)
    i = cuda.threadIdx.x
    a0, a1, b0, b1 = a[2 * i], a[2 * i + 1], b[2 * i], b[2 * i + 1]
    p = 0
    s[p, 0, i] = a1 * a0
    s[p, 1, i] = a1 * b0 + b1
    cuda.syncthreads()
    d = 1
    while d < 32:
        a_i, b_i = s[p, 0, i], s[p, 1, i]
        if i >= d:
            b_i += a_i * s[p, 1, i - d]
            a_i *= s[p, 0, i - d]
        p = 1 - p
        s[p, 0, i], s[p, 1, i] = a_i, b_i
        cuda.syncthreads()
        d *= 2
    h = a0 * (s[p, 1, i - 1] if i else 0) + b0
    y[2 * i] = h
    y[2 * i + 1] = a1 * h + b1


@pytest.mark.parametrize(("races", "milliseconds"), [(False, 15), (True, 50)])
def test_a_block_scan_is_quick(races, milliseconds):
    """The bound is several times what an idle core takes; one that is not has fifty tries."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(-1, 2, 64).astype(np.float32), rng.integers(-3, 4, 64).astype(np.float32)
    y = np.zeros(64, np.float32)
    seconds = math.inf
    for _ in range(50):
        start = time.perf_counter()
        ran(block_scan, a, b, y, races=races)
        seconds = min(seconds, time.perf_counter() - start)
        if seconds * 1e3 < milliseconds:
            break
    h, expected = 0.0, []
    for a_t, b_t in zip(a, b, strict=True):
        h = a_t * h + b_t
        expected.append(h)
    np.testing.assert_array_equal(y, expected)
    assert seconds * 1e3 < milliseconds
