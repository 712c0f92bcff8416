"""Kernels for the simulator's tests, broken ones, each with the error it must give, and correct ones; and launches."""

import numpy as np
import pytest
from numba import cuda, float32, float64, int32, uint32

from ssm_edu.testing.simulator import (
    BarrierError,
    Deadlock,
    OutOfBounds,
    RaceError,
    UninitialisedRead,
    WarpError,
    simulated,
)

FULL = 0xFFFFFFFF
N = 64
BROKEN = []


def raised(error, kernel, *arguments, threads=32, **options):
    with pytest.raises(error) as caught, simulated(**options):
        kernel[1, threads](*arguments)
    return str(caught.value)


def ran(kernel, *arguments, threads=32, **options):
    with simulated(**options):
        kernel[1, threads](*arguments)


def broken(error, *patterns, threads=N, arrays=((N, np.float32), (N, np.float32)), blocks=1):
    """Register a kernel with the error it gives, what the message says, and what it is launched with."""

    def register(function):
        BROKEN.append((function.__name__, cuda.jit(function), error, patterns, blocks, threads, arrays))
        return function

    return register


@broken(RaceError, r"\[\d+\] of shared array `s` \(64,\) float32", r"no barrier between", r"`s\[i\] \+= s\[i \+ d\]`")
def reduction_without_its_barrier(x, y):
    s = cuda.shared.array(N, float32)
    i = cuda.threadIdx.x
    s[i] = x[i]
    cuda.syncthreads()
    d = N // 2
    while d:
        if i < d:
            s[i] += s[i + d]
        d //= 2
    if i == 0:
        y[0] = s[0]


@broken(BarrierError, r"threads 0-31 at syncthreads\(\) at .*simulated_kernels.py:\d+", r"threads 32-63 returned")
def barrier_in_a_divergent_branch(x, y):
    i = cuda.threadIdx.x
    if i < 32:
        cuda.syncthreads()
    y[i] = x[i]


@broken(BarrierError, r"only part of block \(0, 0, 0\)", r"thread 63 returned")
def barrier_after_an_early_return(x, y):
    i = cuda.threadIdx.x
    if i >= 63:
        return
    y[i] = x[i]
    cuda.syncthreads()


@broken(BarrierError, r"different barriers", r"threads 0-31 at", r"threads 32-63 at")
def a_barrier_in_either_branch(x, y):
    i = cuda.threadIdx.x
    if i < 32:
        y[i] = x[i]
        cuda.syncthreads()
    else:
        cuda.syncthreads()
        y[i] = x[i]


@broken(BarrierError, r"threads 1-63 at syncthreads", r"thread 0 returned")
def one_barrier_too_few_in_a_loop(x, y):
    i = cuda.threadIdx.x
    for _ in range(3 if i else 2):
        cuda.syncthreads()


@broken(WarpError, r"\(lane 16\) calls shfl_up_sync with mask 0x0000ffff, in which its own lane is not", r"`y\[i\] =")
def shuffle_outside_its_mask(x, y):
    i = cuda.threadIdx.x
    y[i] = cuda.shfl_up_sync(0xFFFF, x[i], 1)


@broken(WarpError, r"\(lane 0\) reads lane 16, which takes no part", r"shfl_xor_sync\(mask 0x0000ffff\)")
def shuffle_from_a_lane_outside_the_mask(x, y):
    i = cuda.threadIdx.x
    if i < 16:
        y[i] = cuda.shfl_xor_sync(0xFFFF, x[i], 16)


@broken(WarpError, r"mask 0xffffffff names lanes 8-31, which have exited", r"threads 0-7 at shfl_down_sync", threads=32)
def shuffle_from_exited_lanes(x, y):
    i = cuda.threadIdx.x
    if i >= 8:
        return
    y[i] = cuda.shfl_down_sync(FULL, x[i], 8)


@broken(WarpError, r"names lanes 16-31, which do not take part", r"ballot_sync", r"all_sync", threads=32)
def different_votes_under_one_mask(x, y):
    i = cuda.threadIdx.x
    if i < 16:
        y[i] = cuda.ballot_sync(FULL, x[i] > 0)
    else:
        y[i] = cuda.all_sync(FULL, x[i] > 0)


@broken(WarpError, r"reads lane 24, which takes no part", threads=24)
def reduction_over_a_warp_that_is_not_full(x, y):
    value = x[cuda.threadIdx.x]
    value += cuda.shfl_down_sync(FULL, value, 16)
    y[cuda.threadIdx.x] = value


@broken(Deadlock, r"some threads wait for lanes that wait for the block", r"threads 0-15 at syncwarp", threads=32)
def deadlock_between_two_barriers(x, y):
    i = cuda.threadIdx.x
    if i < 16:
        cuda.syncwarp()
        cuda.syncthreads()
    else:
        cuda.syncthreads()
        cuda.syncwarp()


@broken(Deadlock, r"spin: they read and update what no longer changes", r"while cuda.atomic.cas", threads=4)
def a_lock_taken_twice(x, y):
    lock = cuda.shared.array(1, int32)
    if cuda.threadIdx.x == 0:
        lock[0] = 0
    cuda.syncthreads()
    while cuda.atomic.cas(lock, 0, 0, 1) != 0:
        pass


@broken(RaceError, r"writes \[0\] of argument `y`", r"`while y\[0\] == 1:`", threads=2)
def a_flag_without_atomics(x, y):
    if cuda.threadIdx.x == 0:
        while y[0] == 1:
            pass
    else:
        y[0] = 2


@broken(Deadlock, r"thread \(0, 0, 0\).* spin", r"`while y\[0\] == 1:`", threads=1)
def a_flag_that_nobody_sets(x, y):
    while y[0] == 1:
        pass


@broken(RaceError, r"of shared array `total`", r"`total\[0\] \+= x\[cuda.threadIdx.x\]`", threads=16)
def a_lock_given_back_without_a_fence(x, y):
    lock = cuda.shared.array(1, int32)
    total = cuda.shared.array(1, float32)
    if cuda.threadIdx.x == 0:
        lock[0] = 0
        total[0] = 0
    cuda.syncthreads()
    while cuda.atomic.cas(lock, 0, 0, 1) != 0:
        pass
    total[0] += x[cuda.threadIdx.x]
    cuda.atomic.exch(lock, 0, 0)


@broken(RaceError, r"shared array `s` \(2, 64\)", r"`s\[p, i\] = ", r"`value \+= s\[p, i - 1\]`")
def double_buffer_slip(x, y):
    """The new step is written into the buffer that the other threads still read."""
    s = cuda.shared.array((2, N), float32)
    i = cuda.threadIdx.x
    p = 0
    s[p, i] = x[i]
    cuda.syncthreads()
    for _ in range(3):
        value = s[p, i]
        if i:
            value += s[p, i - 1]
        s[p, i] = value
        p = 1 - p
        s[p, i] = value
        cuda.syncthreads()
    y[i] = s[p, i]


@broken(RaceError, r"shared array `s` \(64,\)", r"`s\[i\] \+= s\[i - d\]`.*`s\[i\] \+= s\[i - d\]`")
def hillis_steele_in_one_buffer(x, y):
    s = cuda.shared.array(N, float32)
    i = cuda.threadIdx.x
    s[i] = x[i]
    cuda.syncthreads()
    d = 1
    while d < N:
        if i >= d:
            s[i] += s[i - d]
        cuda.syncthreads()
        d *= 2
    y[i] = s[i]


@broken(RaceError, r"lane|thread \(\d+, 0, 0\)", r"`s\[i\] \+= s\[i \+ 1\]`", threads=32)
def warp_synchronous_reduction_without_syncwarp(x, y):
    s = cuda.shared.array(N, float32)
    i = cuda.threadIdx.x
    s[i] = x[i]
    s[i + 32] = 0
    cuda.syncwarp()
    if i < 16:
        s[i] += s[i + 16]
        s[i] += s[i + 8]
        s[i] += s[i + 4]
        s[i] += s[i + 2]
        s[i] += s[i + 1]
    if i == 0:
        y[0] = s[0]


@broken(RaceError, r"`s\[i\] = ", r"no barrier between", threads=32)
def a_shuffle_taken_for_a_memory_barrier(x, y):
    s = cuda.shared.array(32, float32)
    i = cuda.threadIdx.x
    s[i] = x[i]
    other = cuda.shfl_xor_sync(FULL, x[i], 1)
    y[i] = s[31 - i] + other


@broken(RaceError, r"writes \[0\] of shared array `flag`", r"same value: same_value_writes=True allows that")
def two_writers_of_one_value(x, y):
    flag = cuda.shared.array(1, int32)
    flag[0] = 1
    cuda.syncthreads()
    y[cuda.threadIdx.x] = flag[0]


@broken(RaceError, r"argument `y`", r"block \(1, 0, 0\)", r"no fence and atomic between", blocks=2)
def two_blocks_write_one_element(x, y):
    y[cuda.threadIdx.x] = x[cuda.threadIdx.x] + cuda.blockIdx.x


@broken(RaceError, r"updated atomically", r"argument `y`")
def a_plain_read_of_an_atomic_counter(x, y):
    cuda.atomic.add(y, 0, 1)
    y[cuda.threadIdx.x] = y[0]


@broken(OutOfBounds, r"\[60\] of argument `x` \(60,\) float32", r"`y\[i\] = x\[i\]`", arrays=((60, np.float32),) * 2)
def read_past_the_tail(x, y):
    i = cuda.threadIdx.x
    y[i] = x[i]


@broken(OutOfBounds, r"thread \(63, 0, 0\) of block \(0, 0, 0\)", r"\[64\] of shared array `s` \(64,\)")
def write_past_the_end(x, y):
    s = cuda.shared.array(N, float32)
    i = cuda.threadIdx.x
    s[i + 1] = x[i]


@broken(OutOfBounds, r"\[0, 3\] of local array `h` \(2, 3\) float64", r"`h\[0, k\] = 0.0`")
def past_the_end_of_a_local_array(x, y):
    h = cuda.local.array((2, 3), float64)
    for k in range(4):
        h[0, k] = 0.0


@broken(OutOfBounds, r"\[-1\] of argument `x`", r"negative index", r"wraparound=True")
def negative_index(x, y):
    i = cuda.threadIdx.x
    y[i] = x[i] - x[i - 1]


@broken(OutOfBounds, r"\[4294967295\] of argument `x`")
def unsigned_index_below_zero(x, y):
    i = uint32(cuda.threadIdx.x)
    y[i] = x[i] - x[uint32(i - uint32(1))]


@broken(OutOfBounds, r"dynamic shared array \(0,\) float32", r"fourth argument")
def dynamic_memory_never_asked_for(x, y):
    s = cuda.shared.array(0, float32)
    s[cuda.threadIdx.x] = x[cuda.threadIdx.x]


@broken(UninitialisedRead, r"reads \[63\] of shared array `s`", r"`y\[i\] = s\[i\]`")
def uninitialised_shared_read(x, y):
    s = cuda.shared.array(N, float32)
    i = cuda.threadIdx.x
    if i < 63:
        s[i] = x[i]
    cuda.syncthreads()
    y[i] = s[i]


@broken(UninitialisedRead, r"reads \[1\] of local array `h`")
def uninitialised_local_read(x, y):
    h = cuda.local.array(2, float32)
    h[0] = x[0]
    y[cuda.threadIdx.x] = h[0] + h[1]


CORRECT = []


def correct(blocks, threads, make, dynamic=0):
    """Register a kernel, its launch, and `make(rng) -> arguments, (position of the output, its value)`."""

    def register(function):
        CORRECT.append((function.__name__, cuda.jit(function), blocks, threads, dynamic, make))
        return function

    return register


def floats(rng, *shape):
    # small integers: sums of them are exact in any order
    return rng.integers(-9, 10, shape).astype(np.float32)


def summed(n, parts=1):
    def make(rng):
        x = floats(rng, n)
        return (x, np.full(parts, np.nan, np.float32)), (1, x.reshape(parts, -1).sum(1))

    return make


def scanned(n, exclusive=False):
    def make(rng):
        x = floats(rng, n)
        return (x, np.full(n, np.nan, np.float32)), (1, np.cumsum(x) - (x if exclusive else 0))

    return make


@correct(2, N, summed(2 * N, 2))
def reduction(x, y):
    s = cuda.shared.array(N, float32)
    i = cuda.threadIdx.x
    s[i] = x[cuda.grid(1)]
    cuda.syncthreads()
    d = N // 2
    while d:
        if i < d:
            s[i] += s[i + d]
        cuda.syncthreads()
        d //= 2
    if i == 0:
        y[cuda.blockIdx.x] = s[0]


@correct(1, 32, summed(32))
def warp_synchronous_reduction(x, y):
    s = cuda.shared.array(N, float32)
    i = cuda.threadIdx.x
    s[i] = x[i]
    s[i + 32] = 0
    cuda.syncwarp()
    d = 16
    while d:
        value = s[i] + s[i + d]
        cuda.syncwarp()
        s[i] = value
        cuda.syncwarp()
        d //= 2
    if i == 0:
        y[0] = s[0]


@correct(1, N, scanned(N))
def hillis_steele(x, y):
    s = cuda.shared.array((2, N), float32)
    i = cuda.threadIdx.x
    p = 0
    s[p, i] = x[i]
    cuda.syncthreads()
    d = 1
    while d < N:
        s[1 - p, i] = s[p, i] + (s[p, i - d] if i >= d else 0)
        cuda.syncthreads()
        p = 1 - p
        d *= 2
    y[i] = s[p, i]


@correct(1, N // 2, scanned(N, exclusive=True))
def blelloch(x, y):
    s = cuda.shared.array(N, float32)
    i = cuda.threadIdx.x
    s[2 * i] = x[2 * i]
    s[2 * i + 1] = x[2 * i + 1]
    d = 1
    while d < N:
        cuda.syncthreads()
        k = 2 * d * (i + 1) - 1
        if k < N:
            s[k] += s[k - d]
        d *= 2
    if i == 0:
        s[N - 1] = 0
    while d > 1:
        d //= 2
        cuda.syncthreads()
        k = 2 * d * (i + 1) - 1
        if k < N:
            left = s[k - d]
            s[k - d] = s[k]
            s[k] += left
    cuda.syncthreads()
    y[2 * i] = s[2 * i]
    y[2 * i + 1] = s[2 * i + 1]


@cuda.jit(device=True)
def warp_scan(value):
    lane = cuda.laneid
    d = 1
    while d < 32:
        below = cuda.shfl_up_sync(FULL, value, d)
        if lane >= d:
            value += below
        d *= 2
    return value


@correct(1, 4 * 32, scanned(4 * 32))
def warp_shuffle_scan(x, y):
    totals = cuda.shared.array(32, float32)
    i = cuda.threadIdx.x
    warp = i // cuda.warpsize
    value = warp_scan(x[i])
    if warp == 0:
        totals[i] = 0
    cuda.syncthreads()
    if cuda.laneid == 31:
        totals[warp] = value
    cuda.syncthreads()
    if warp == 0:
        totals[i] = warp_scan(totals[i])
    cuda.syncthreads()
    y[i] = value + (totals[warp - 1] if warp else 0)


def transposed(rng):
    x = floats(rng, 20, 12)
    return (x, np.full((12, 20), np.nan, np.float32)), (1, x.T)


@correct((2, 3), (8, 8), transposed)
def transpose(x, y):
    tile = cuda.shared.array((8, 9), float32)
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    row, column = cuda.blockIdx.y * 8 + ty, cuda.blockIdx.x * 8 + tx
    if row < x.shape[0] and column < x.shape[1]:
        tile[ty, tx] = x[row, column]
    cuda.syncthreads()
    row, column = cuda.blockIdx.x * 8 + ty, cuda.blockIdx.y * 8 + tx
    if row < y.shape[0] and column < y.shape[1]:
        y[row, column] = tile[tx, ty]


def counted(rng):
    x = rng.integers(0, 8, 150).astype(np.int32)
    return (x, np.zeros(8, np.int32)), (1, np.bincount(x, minlength=8))


@correct(2, 32, counted)
def histogram(x, counts):
    """A grid-stride loop too."""
    own = cuda.shared.array(8, int32)
    i = cuda.threadIdx.x
    if i < 8:
        own[i] = 0
    cuda.syncthreads()
    for k in range(cuda.grid(1), len(x), cuda.gridsize(1)):
        cuda.atomic.add(own, x[k], 1)
    cuda.syncthreads()
    if i < 8:
        cuda.atomic.add(counts, i, own[i])


def positive(rng):
    x = floats(rng, 32)
    kept = x[x > 0]
    return (x, np.full(32, -1, np.float32)), (1, np.concatenate([kept, np.full(32 - kept.size, -1)]))


@correct(1, 32, positive)
def vote_based_compaction(x, y):
    value = x[cuda.threadIdx.x]
    keep = cuda.ballot_sync(FULL, value > 0)
    if value > 0:
        y[cuda.popc(keep & cuda.lanemask_lt())] = value


def multiplied(rng):
    a, b = floats(rng, 8, 12), floats(rng, 12, 8)
    return (a, b, np.full((8, 8), np.nan, np.float32)), (2, a @ b)


@correct((2, 2), (4, 4), multiplied)
def matrix_product(a, b, c):
    ta = cuda.shared.array((4, 4), float32)
    tb = cuda.shared.array((4, 4), float32)
    x, y = cuda.grid(2)
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    total = float32(0)
    for k in range(0, a.shape[1], 4):
        ta[ty, tx] = a[y, k + tx]
        tb[ty, tx] = b[k + ty, x]
        cuda.syncthreads()
        for j in range(4):
            total += ta[ty, j] * tb[j, tx]
        cuda.syncthreads()
    c[y, x] = total


def doubled(rng):
    x = floats(rng, 5, 6, 7)
    return (x, np.full_like(x, np.nan)), (1, 2 * x)


@correct((2, 3, 4), (3, 2, 2), doubled)
def blocks_in_three_dimensions(x, y):
    i, j, k = cuda.grid(3)
    if i < x.shape[0] and j < x.shape[1] and k < x.shape[2]:
        y[i, j, k] = 2 * x[i, j, k]


def added_up(rng):
    x = floats(rng, 4 * 32)
    return (x, np.full(4, np.nan, np.float32), np.zeros(1, np.int32), np.full(1, np.nan, np.float32)), (3, [x.sum()])


@correct(4, 32, added_up)
def last_block_done(x, partial, done, y):
    last = cuda.shared.array(1, int32)
    value = x[cuda.grid(1)]
    for d in (16, 8, 4, 2, 1):
        value += cuda.shfl_down_sync(FULL, value, d)
    if cuda.threadIdx.x == 0:
        partial[cuda.blockIdx.x] = value
        cuda.threadfence()
        last[0] = cuda.atomic.add(done, 0, 1) == cuda.gridDim.x - 1
    cuda.syncthreads()
    if last[0] and cuda.threadIdx.x == 0:
        total = float32(0)
        for k in range(cuda.gridDim.x):
            total += partial[k]
        y[0] = total


@correct(1, 32, scanned(32), dynamic=32 * 4 + 32 * 8)
def dynamic_shared_memory(x, y):
    """One buffer seen as float32 in front and as float64 behind."""
    s = cuda.shared.array(0, float32)
    t = cuda.shared.array(0, float64)[16:]
    i = cuda.threadIdx.x
    s[i] = x[i]
    cuda.syncthreads()
    total = 0.0
    for k in range(i + 1):
        total += s[k]
    t[i] = total
    cuda.syncthreads()
    y[31 - i] = t[31 - i]


@correct(1, 16, summed(16))
def sum_under_a_lock(x, y):
    lock = cuda.shared.array(1, int32)
    total = cuda.shared.array(1, float32)
    if cuda.threadIdx.x == 0:
        lock[0] = 0
        total[0] = 0
    cuda.syncthreads()
    while cuda.atomic.cas(lock, 0, 0, 1) != 0:
        pass
    cuda.threadfence_block()
    total[0] += x[cuda.threadIdx.x]
    cuda.threadfence_block()
    cuda.atomic.exch(lock, 0, 0)
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        y[0] = total[0]


def voted(rng):
    x = floats(rng, 48)
    positive = x > 0
    want = [positive.sum(), positive.any(), positive.all(), positive[:16].all()]
    return (x, np.full(4, -1, np.int32)), (1, want)


@correct(1, 48, voted)
def votes_of_block_and_warp(x, y):
    i = cuda.threadIdx.x
    positive = int32(x[i] > 0)  # on a GPU these take no bool
    count = cuda.syncthreads_count(positive)
    any_positive = cuda.syncthreads_or(positive)
    all_positive = cuda.syncthreads_and(positive)
    if i < 16:
        first = cuda.all_sync(cuda.activemask(), positive)
        if i == 0:
            y[0], y[1], y[2], y[3] = count, any_positive, all_positive, first
