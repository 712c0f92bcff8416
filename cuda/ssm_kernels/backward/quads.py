"""The adjoint in which time is walked, not scanned: a quad of lanes holds four channels, each lane four of the states.

    lane = 4 · quad + quarter        channels quad + 8k, states 4 · quarter + j        k, j < 4

A lane's sixteen states are independent chains, so nothing waits for a scan over lanes, and what is added up over
channels (for B and C) or over states (for u and Δ) is first added up four at a time in registers. For enough warps
whatever the shape, chunks of time go in parallel, in three kernels:

1. :func:`summary`: over each chunk, from zero, its last state and Āg at its first step; and the states before each tile
   of 16 steps on the way.
2. :func:`carry`: from these, chunk by chunk, the state that each begins with and the Āg that comes back to it.
3. :func:`adjoint`: tile by tile from the last. The state before a tile is the summary's plus e^{AΣΔ} times the chunk's.
   The tile's second half, then its first: forwards, leaving in shared memory the state before each step, then
   backwards, where the sums over what a lane holds take the states' places.

For real A, Mamba's rule, up to 16 states, and rows and maps of one dtype that vary in time, without seq_idx.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, no_type_check

import numpy as np

from ssm_kernels._target import SHARED_ALIGNMENT, cuda, types
from ssm_kernels.arithmetic import arithmetic, inline
from ssm_kernels.intrinsics import access, exp2, pointer, shared_load, shared_store, short_access
from ssm_kernels.unrolling import unroll, unrolled
from ssm_kernels.variant import FULL, HAS_BIAS, HAS_D, HAS_Z, SOFTPLUS

STATES = 16
TILE = 16  # steps
WARPS = 4  # of a block, 32 channels each; 1, 2 or 4
HALF = TILE // 2
# numbers from one step to the next in shared memory: of a warp's rows, and of its states, so that banks differ
ROW, SLOT = 36, 516
MAPS = TILE * STATES
# what a block's threads share out: words of four steps of both maps' tiles, and a half's sums over channels
ITEMS = 128
CARRY_THREADS = 128
AHEAD = 8  # chunks that the carry reads at a time

SUMMARY = (
    "u", "delta", "A", "B", "C", "z", "delta_bias", "grad_y", "borders", "before", "ends", "backs", "totals",
    "options", "batch", "dim", "length", "state", "per_group_B", "per_group_C", "chunk",
)  # fmt: skip
CARRY = ("A", "start", "arriving", "ends", "backs", "totals", "leaving", "starts", "arrives",
         "chunks", "batch", "dim", "state")  # fmt: skip
ADJOINT = (
    "u", "delta", "A", "B", "C", "D", "z", "delta_bias", "grad_y", "borders", "before", "starts", "backs",
    "du", "ddelta", "dz", "dA", "dB", "dC", "dD", "dbias",
    "options", "batch", "dim", "length", "state", "per_group_B", "per_group_C", "chunk",
)  # fmt: skip


def channels(warps: int) -> int:
    """Of a block, which has as many threads."""
    return 32 * warps


def shared_bytes(warps: int) -> int:
    """Of the adjoint's blocks, all of it dynamic."""
    return 4 * (2 * MAPS + warps * (3 * TILE * ROW + HALF * SLOT + HALF * ROW))


def summary_signature(dtype: str) -> Any:
    io, real, integers = pointer(dtype), pointer("float32"), (types.int64,) * 8
    return types.void(io, io, real, io, io, io, real, io, *(real,) * 5, *integers)


def carry_signature() -> Any:
    return types.void(*(pointer("float32"),) * 7, *(types.int64,) * 6)


def adjoint_signature(dtype: str) -> Any:
    io, real, integers = pointer(dtype), pointer("float32"), (types.int64,) * 8
    return types.void(io, io, real, io, io, real, io, real, io, *(real,) * 4, io, io, io, *(real,) * 5, *integers)


class _Parts:
    """The device functions that the kernels share, for one dtype in memory and blocks of so many warps."""

    @no_type_check
    def __init__(self, dtype: str, warps: int) -> None:
        THREADS = channels(warps)
        TURNS = ITEMS // THREADS
        ZERO, LOG2_E = np.float32(0), np.float32(math.log2(math.e))
        arithmetic_ = arithmetic("float32", False)
        softplus, sigmoid = arithmetic_.softplus, arithmetic_.sigmoid
        load_four, _ = short_access(dtype, 4)
        load_states, _ = short_access("float32", 4)
        put, read = shared_store("float32"), shared_load("float32")

        @inline
        @unrolled
        def read_rows(p, at, across, there, out):
            """Four steps of each of the quad's four channels, or zeros: out[4k + j] = p[at + k·across + j]."""
            if there:
                for k in unroll(4):
                    word = load_four(p, at + k * across)
                    for j in unroll(4):
                        out[4 * k + j] = word[j]
            else:
                for i in unroll(16):
                    out[i] = ZERO

        @inline
        @unrolled
        def put_rows(rows, at, x):
            """A step's four channels side by side, as the quad's lanes read them."""
            for j in unroll(4):
                put(rows, at + j * ROW, (x[j], x[4 + j], x[8 + j], x[12 + j]))

        @inline
        @unrolled
        def read_maps(B, C, row_B, row_C, t0, tid, state, length, out):
            """A thread's words of both maps: four steps of one state each, or zeros."""
            for turn in unroll(TURNS):
                item = tid + turn * THREADS
                n, t = item >> 2 & 15, t0 + 4 * (item & 3)
                for j in unroll(4):
                    out[4 * turn + j] = ZERO
                if n < state and t < length:
                    if item >> 6 == 0:
                        word = load_four(B, row_B + n * length + t)
                        for j in unroll(4):
                            out[4 * turn + j] = word[j]
                    else:
                        word = load_four(C, row_C + n * length + t)
                        for j in unroll(4):
                            out[4 * turn + j] = word[j]

        @inline
        @unrolled
        def put_maps(maps, at, tid, x):
            """The states of a step side by side, first B's steps, then C's."""
            for turn in unroll(TURNS):
                item = tid + turn * THREADS
                to = at + (item >> 6) * MAPS + 4 * (item & 3) * STATES + (item >> 2 & 15)
                for j in unroll(4):
                    maps[types.uint64(to + j * STATES)] = x[4 * turn + j]

        @inline
        @unrolled
        def step_sizes(options, bias, there, dt):
            """Δ of a lane's steps from delta as read; 0, which changes nothing, beyond the sequence."""
            for k in unroll(4):
                for j in unroll(4):
                    dt[4 * k + j] += bias[k]
            if options & SOFTPLUS:
                for i in unroll(16):
                    dt[i] = softplus(dt[i])
            if not there:
                for i in unroll(16):
                    dt[i] = ZERO

        @inline
        @unrolled
        def gate(options, e, z):
            """∂ℓ/∂y before the gate."""
            if options & HAS_Z:
                for i in unroll(16):
                    e[i] = e[i] * (z[i] * sigmoid(z[i]))

        @inline
        @unrolled
        def read_states(p, at, across, there, out):
            """A lane's states of its four channels: out[4k + j] = p[at + k·across + j]."""
            for i in unroll(16):
                out[i] = ZERO
            if there:
                for k in unroll(4):
                    word = load_states(p, at + k * across)
                    for j in unroll(4):
                        out[4 * k + j] = word[j]

        @inline
        @unrolled
        def prepared(a):
            for i in unroll(16):
                a[i] = a[i] * LOG2_E

        @inline
        @unrolled
        def four(shared, at, out):
            word = read(shared, at)
            for j in unroll(4):
                out[j] = word[j]

        self.read_rows, self.put_rows, self.read_maps, self.put_maps = read_rows, put_rows, read_maps, put_maps
        self.step_sizes, self.gate, self.read_states, self.prepared, self.four = (
            step_sizes, gate, read_states, prepared, four,
        )  # fmt: skip


@no_type_check
@cache
def summary(dtype: str, warps: int = WARPS) -> Any:
    """Kernel 1. `before` is ΣΔ before each tile, `totals` over the whole chunk."""
    parts = _Parts(dtype, warps)
    read_rows, put_rows, read_maps, put_maps = parts.read_rows, parts.put_rows, parts.read_maps, parts.put_maps
    step_sizes, gate, read_states, prepared, four = (
        parts.step_sizes, parts.gate, parts.read_states, parts.prepared, parts.four,
    )  # fmt: skip
    load_real, store_real = access("float32").load, access("float32").store
    _, store_four = short_access("float32", 4)
    ZERO, ONE = np.float32(0), np.float32(1)
    real_t = types.float32
    ROWS_SIZE = 3 * TILE * ROW
    CHANNELS = THREADS = channels(warps)
    ALL_MAPS, ALL_ROWS, WORDS = 4 * MAPS, warps * ROWS_SIZE, 4 * ITEMS // THREADS

    @unrolled
    def walk(
        u, delta, A, B, C, z, delta_bias, grad_y, borders, before, ends, backs, totals,
        options, batch, dim, length, state, per_group_B, per_group_C, chunk,
    ):  # fmt: skip
        maps = cuda.shared.array(ALL_MAPS, real_t, alignment=SHARED_ALIGNMENT)
        rows = cuda.shared.array(ALL_ROWS, real_t, alignment=SHARED_ALIGNMENT)
        a = cuda.local.array(16, real_t)
        h = cuda.local.array(16, real_t)
        back = cuda.local.array(16, real_t)
        decay = cuda.local.array(16, real_t)
        us = cuda.local.array(16, real_t)
        dt = cuda.local.array(16, real_t)
        es = cuda.local.array(16, real_t)
        zs = cuda.local.array(16, real_t)
        words = cuda.local.array(WORDS, real_t)
        bias = cuda.local.array(4, real_t)
        sums = cuda.local.array(4, real_t)
        d4 = cuda.local.array(4, real_t)
        x4 = cuda.local.array(4, real_t)
        e4 = cuda.local.array(4, real_t)
        b4 = cuda.local.array(4, real_t)
        c4 = cuda.local.array(4, real_t)

        tid = types.int64(cuda.threadIdx.x)
        lane = tid & 31
        warp = tid >> 5
        quad, quarter = lane >> 2, lane & 3
        per_batch = dim // CHANNELS
        block = types.int64(cuda.blockIdx.x)
        b = block // per_batch
        d0 = (block - b * per_batch) * CHANNELS
        d = d0 + warp * 32 + quad
        part = types.int64(cuda.blockIdx.y)
        begin = part * chunk
        end = min(begin + chunk, length)
        mine = 4 * quarter < state  # whether the lane has states at all

        read_states(A, d * state + 4 * quarter, 8 * state, mine, a)
        prepared(a)
        for k in unroll(4):
            bias[k] = load_real(delta_bias, d + 8 * k) if options & HAS_BIAS else ZERO
            sums[k] = ZERO
        for i in unroll(16):
            h[i] = ZERO
            back[i] = ZERO
            decay[i] = ONE
        row = (b * dim + d) * length + 4 * quarter
        across = 8 * length
        row_B = (b * (dim // per_group_B) + d0 // per_group_B) * state * length
        row_C = (b * (dim // per_group_C) + d0 // per_group_C) * state * length
        at_rows = warp * ROWS_SIZE + 4 * quarter * ROW + 4 * quad
        at_step = warp * ROWS_SIZE + 4 * quad

        there = begin + 4 * quarter < length
        read_rows(u, row + begin, across, there, us)
        read_rows(delta, row + begin, across, there, dt)
        read_rows(grad_y, row + begin, across, there, es)
        if options & HAS_Z:
            read_rows(z, row + begin, across, there, zs)
        read_maps(B, C, row_B, row_C, begin, tid, state, length, words)
        buffer = 0
        for t0 in range(begin, end, TILE):
            place = (t0 // TILE * batch + b) * dim + d
            there = t0 + 4 * quarter < length
            step_sizes(options, bias, there, dt)
            gate(options, es, zs)
            for k in unroll(4):
                # the quad's sum of all steps before this tile
                total = sums[k]
                total += cuda.shfl_xor_sync(FULL, total, 1)
                total += cuda.shfl_xor_sync(FULL, total, 2)
                if quarter == 0:
                    store_real(before, place + 8 * k, total)
                if mine:
                    store_four(
                        borders, (place + 8 * k) * state + 4 * quarter,
                        (h[4 * k], h[4 * k + 1], h[4 * k + 2], h[4 * k + 3]),
                    )  # fmt: skip
                for j in unroll(4):
                    sums[k] += dt[4 * k + j]
                    us[4 * k + j] = dt[4 * k + j] * us[4 * k + j]
            put_rows(rows, at_rows, dt)
            put_rows(rows, at_rows + TILE * ROW, us)
            put_rows(rows, at_rows + 2 * TILE * ROW, es)
            put_maps(maps, buffer * 2 * MAPS, tid, words)
            cuda.syncthreads()
            if t0 + TILE < end:
                t1 = t0 + TILE
                there = t1 + 4 * quarter < length
                read_rows(u, row + t1, across, there, us)
                read_rows(delta, row + t1, across, there, dt)
                read_rows(grad_y, row + t1, across, there, es)
                if options & HAS_Z:
                    read_rows(z, row + t1, across, there, zs)
                read_maps(B, C, row_B, row_C, t1, tid, state, length, words)
            at = at_step
            at_B = buffer * 2 * MAPS + 4 * quarter
            for _ in range(0, TILE, 4):
                for w in unroll(4):
                    four(rows, at + w * ROW, d4)
                    four(rows, at + (w + TILE) * ROW, x4)
                    four(rows, at + (w + 2 * TILE) * ROW, e4)
                    four(maps, at_B + w * STATES, b4)
                    four(maps, at_B + w * STATES + MAPS, c4)
                    for k in unroll(4):
                        for j in unroll(4):
                            alpha = exp2(d4[k] * a[4 * k + j])
                            h[4 * k + j] = alpha * h[4 * k + j] + x4[k] * b4[j]
                            decay[4 * k + j] = decay[4 * k + j] * alpha
                            back[4 * k + j] += decay[4 * k + j] * (c4[j] * e4[k])
                at += 4 * ROW
                at_B += 4 * STATES
            cuda.syncwarp()
            buffer = 1 - buffer
        place = (part * batch + b) * dim + d
        for k in unroll(4):
            total = sums[k]
            total += cuda.shfl_xor_sync(FULL, total, 1)
            total += cuda.shfl_xor_sync(FULL, total, 2)
            if quarter == 0:
                store_real(totals, place + 8 * k, total)
            if mine:
                at = (place + 8 * k) * state + 4 * quarter
                store_four(ends, at, (h[4 * k], h[4 * k + 1], h[4 * k + 2], h[4 * k + 3]))
                store_four(backs, at, (back[4 * k], back[4 * k + 1], back[4 * k + 2], back[4 * k + 3]))

    return walk


@no_type_check
@cache
def carry() -> Any:
    """Kernel 2, a thread per (batch, channel, state): `ends` become first states, `backs` what comes back."""
    load, store = access("float32").load, access("float32").store
    ZERO, LOG2_E = np.float32(0), np.float32(math.log2(math.e))
    real_t = types.float32

    @unrolled
    def over_chunks(
        A, start, arriving, ends, backs, totals, leaving, starts, arrives, chunks, batch, dim, state
    ):  # fmt: skip
        P = cuda.local.array(AHEAD, real_t)
        x = cuda.local.array(AHEAD, real_t)
        i = types.int64(cuda.blockIdx.x) * CARRY_THREADS + cuda.threadIdx.x
        channels = batch * dim
        each = channels * state
        if i >= each:
            return
        c = i // state
        a = load(A, c % dim * state + i - c * state) * LOG2_E
        h = load(start, i) if starts else ZERO
        for first in range(0, chunks, AHEAD):
            for w in unroll(AHEAD):
                m = first + w if first + w < chunks else first
                P[w] = exp2(a * load(totals, m * channels + c))
                x[w] = load(ends, m * each + i)
            for w in unroll(AHEAD):
                if first + w < chunks:
                    store(ends, (first + w) * each + i, h)
                    h = P[w] * h + x[w]
        g = load(arriving, i) if arrives else ZERO
        for first in range(0, chunks, AHEAD):
            for w in unroll(AHEAD):
                m = chunks - 1 - (first + w if first + w < chunks else first)
                P[w] = exp2(a * load(totals, m * channels + c))
                x[w] = load(backs, m * each + i)
            for w in unroll(AHEAD):
                if first + w < chunks:
                    store(backs, (chunks - 1 - first - w) * each + i, g)
                    g = P[w] * g + x[w]
        store(leaving, i, g)

    return over_chunks


@no_type_check
@cache
def adjoint(dtype: str, warps: int = WARPS) -> Any:
    """Kernel 3. dA, dD and dbias have a row for each chunk and batch entry, dB and dC for each block of channels."""
    parts = _Parts(dtype, warps)
    read_rows, put_rows, read_maps, put_maps = parts.read_rows, parts.put_rows, parts.read_maps, parts.put_maps
    step_sizes, gate, read_states, prepared, four = (
        parts.step_sizes, parts.gate, parts.read_states, parts.prepared, parts.four,
    )  # fmt: skip
    sigmoid = arithmetic("float32", False).sigmoid
    load_real, store_real = access("float32").load, access("float32").store
    _, store_four = short_access("float32", 4)
    load_two, store_two = short_access(dtype, 2)
    put = shared_store("float32")
    ZERO, ONE, LN_2 = np.float32(0), np.float32(1), np.float32(math.log(2))
    real_t = types.float32
    ROWS_SIZE, SLOTS_SIZE, OUTPUTS_SIZE = 3 * TILE * ROW, HALF * SLOT, HALF * ROW
    CHANNELS = THREADS = channels(warps)
    TURNS = ITEMS // THREADS
    ROWS, WORDS = 2 * MAPS, 4 * TURNS
    SLOTS = ROWS + warps * ROWS_SIZE
    OUTPUTS = SLOTS + warps * SLOTS_SIZE
    INDEX = types.uint64

    @inline
    @unrolled
    def read_pairs(p, at, across, there, out):
        """Two steps of each of the quad's channels, or zeros: out[2k + j] = p[at + k·across + j]."""
        for i in unroll(8):
            out[i] = ZERO
        if there:
            for k in unroll(4):
                word = load_two(p, at + k * across)
                out[2 * k] = word[0]
                out[2 * k + 1] = word[1]

    @inline
    @unrolled
    def write_pairs(p, at, across, there, x):
        if there:
            for k in unroll(4):
                store_two(p, at + k * across, (x[2 * k], x[2 * k + 1]))

    @unrolled
    def walk_back(
        u, delta, A, B, C, D, z, delta_bias, grad_y, borders, before, starts, backs,
        du_, ddelta_, dz_, dA_, dB_, dC_, dD_, dbias_,
        options, batch, dim, length, state, per_group_B, per_group_C, chunk,
    ):  # fmt: skip
        shared = cuda.shared.array(0, real_t, alignment=SHARED_ALIGNMENT)
        a = cuda.local.array(16, real_t)
        h = cuda.local.array(16, real_t)
        h_tile = cuda.local.array(16, real_t)
        g = cuda.local.array(16, real_t)
        sum_A = cuda.local.array(16, real_t)
        us = cuda.local.array(16, real_t)
        dt = cuda.local.array(16, real_t)
        es = cuda.local.array(16, real_t)
        zs = cuda.local.array(16, real_t)
        words = cuda.local.array(WORDS, real_t)
        bias = cuda.local.array(4, real_t)
        skip = cuda.local.array(4, real_t)
        sum_D = cuda.local.array(4, real_t)
        sum_bias = cuda.local.array(4, real_t)
        d4 = cuda.local.array(4, real_t)
        x4 = cuda.local.array(4, real_t)
        e4 = cuda.local.array(4, real_t)
        b4 = cuda.local.array(4, real_t)
        c4 = cuda.local.array(4, real_t)
        d4_next = cuda.local.array(4, real_t)
        x4_next = cuda.local.array(4, real_t)
        e4_next = cuda.local.array(4, real_t)
        b4_next = cuda.local.array(4, real_t)
        c4_next = cuda.local.array(4, real_t)
        h_before = cuda.local.array(16, real_t)
        h_next = cuda.local.array(16, real_t)
        s4 = cuda.local.array(4, real_t)
        q4 = cuda.local.array(4, real_t)
        y4 = cuda.local.array(4, real_t)
        dB4 = cuda.local.array(4, real_t)
        dC4 = cuda.local.array(4, real_t)
        u2 = cuda.local.array(8, real_t)
        raw2 = cuda.local.array(8, real_t)
        dy2 = cuda.local.array(8, real_t)
        z2 = cuda.local.array(8, real_t)
        s2 = cuda.local.array(8, real_t)
        q2 = cuda.local.array(8, real_t)
        y2 = cuda.local.array(8, real_t)
        dt2 = cuda.local.array(8, real_t)

        tid = types.int64(cuda.threadIdx.x)
        lane = tid & 31
        warp = tid >> 5
        quad, quarter = lane >> 2, lane & 3
        per_batch = dim // CHANNELS
        block = types.int64(cuda.blockIdx.x)
        b = block // per_batch
        d0 = (block - b * per_batch) * CHANNELS
        d = d0 + warp * 32 + quad
        part = types.int64(cuda.blockIdx.y)
        begin = part * chunk
        end = min(begin + chunk, length)
        mine = 4 * quarter < state
        gated = options & HAS_Z != 0

        read_states(A, d * state + 4 * quarter, 8 * state, mine, a)
        prepared(a)
        at_chunk = ((part * batch + b) * dim + d) * state + 4 * quarter
        read_states(backs, at_chunk, 8 * state, mine, g)
        for k in unroll(4):
            bias[k] = load_real(delta_bias, d + 8 * k) if options & HAS_BIAS else ZERO
            skip[k] = load_real(D, d + 8 * k) if options & HAS_D else ZERO
            sum_D[k] = ZERO
            sum_bias[k] = ZERO
        for i in unroll(16):
            sum_A[i] = ZERO
        row = (b * dim + d) * length
        across = 8 * length
        row_B = (b * (dim // per_group_B) + d0 // per_group_B) * state * length
        row_C = (b * (dim // per_group_C) + d0 // per_group_C) * state * length
        at_rows = ROWS + warp * ROWS_SIZE + 4 * quarter * ROW + 4 * quad
        at_step = ROWS + warp * ROWS_SIZE + 4 * quad
        at_slot = SLOTS + warp * SLOTS_SIZE + 4 * lane
        # the channel whose y is added up in this lane
        first_bit, second_bit = quarter & 1 != 0, quarter & 2 != 0
        at_y = OUTPUTS + warp * OUTPUTS_SIZE + 4 * quad + 2 * (quarter & 1) + (quarter >> 1)

        last_tile = (end - 1) // TILE * TILE
        read_maps(B, C, row_B, row_C, last_tile, tid, state, length, words)
        for back in range(0, last_tile - begin + 1, TILE):
            t0 = last_tile - back
            there = t0 + 4 * quarter < length
            at = row + t0 + 4 * quarter
            read_rows(u, at, across, there, us)
            read_rows(delta, at, across, there, dt)
            read_rows(grad_y, at, across, there, es)
            if gated:
                read_rows(z, at, across, there, zs)
            place = (t0 // TILE * batch + b) * dim + d
            read_states(borders, place * state + 4 * quarter, 8 * state, mine, h_tile)
            read_states(starts, at_chunk, 8 * state, mine, h)
            for k in unroll(4):
                total = load_real(before, place + 8 * k)
                for j in unroll(4):
                    h_tile[4 * k + j] += exp2(total * a[4 * k + j]) * h[4 * k + j]
            step_sizes(options, bias, there, dt)
            gate(options, es, zs)
            for i in unroll(16):
                us[i] = dt[i] * us[i]
            put_rows(shared, at_rows, dt)
            put_rows(shared, at_rows + TILE * ROW, us)
            put_rows(shared, at_rows + 2 * TILE * ROW, es)
            put_maps(shared, 0, tid, words)
            cuda.syncthreads()
            if t0 > begin:
                read_maps(B, C, row_B, row_C, t0 - TILE, tid, state, length, words)
            at_B = 4 * quarter

            for i in unroll(16):
                h[i] = h_tile[i]
            at = at_step
            to = at_B
            for _ in range(0, HALF, 4):
                for w in unroll(4):
                    four(shared, at + w * ROW, d4)
                    four(shared, at + (w + TILE) * ROW, x4)
                    four(shared, to + w * STATES, b4)
                    for k in unroll(4):
                        for j in unroll(4):
                            h[4 * k + j] = exp2(d4[k] * a[4 * k + j]) * h[4 * k + j] + x4[k] * b4[j]
                at += 4 * ROW
                to += 4 * STATES

            for turn in range(2):
                half = 1 - turn
                at = at_step + half * HALF * ROW
                to = at_B + half * HALF * STATES
                slot = at_slot
                four(shared, at, d4)
                four(shared, at + TILE * ROW, x4)
                four(shared, to, b4)
                for s in range(0, HALF, 2):
                    for w in unroll(2):
                        # the row after the half is read and not used
                        ahead = 1 if s + w < HALF - 1 else 0
                        four(shared, at + ahead * ROW, d4_next)
                        four(shared, at + (ahead + TILE) * ROW, x4_next)
                        four(shared, to + ahead * STATES, b4_next)
                        for k in unroll(4):
                            put(shared, slot + 128 * k, (h[4 * k], h[4 * k + 1], h[4 * k + 2], h[4 * k + 3]))
                        for k in unroll(4):
                            for j in unroll(4):
                                h[4 * k + j] = exp2(d4[k] * a[4 * k + j]) * h[4 * k + j] + x4[k] * b4[j]
                        for k in unroll(4):
                            d4[k] = d4_next[k]
                            x4[k] = x4_next[k]
                            b4[k] = b4_next[k]
                        at += ahead * ROW
                        to += ahead * STATES
                        slot += SLOT

                # what the steps of this half need once their sums are there
                t2 = t0 + half * HALF + 2 * quarter
                there2 = t2 < length
                read_pairs(u, row + t2, across, there2, u2)
                read_pairs(delta, row + t2, across, there2, raw2)
                read_pairs(grad_y, row + t2, across, there2, dy2)
                if gated:
                    read_pairs(z, row + t2, across, there2, z2)

                slot -= SLOT
                y_at = at_y + (HALF - 1) * ROW
                four(shared, at + 2 * TILE * ROW, e4)
                four(shared, to + MAPS, c4)
                for k in unroll(4):
                    four(shared, slot + 128 * k, s4)
                    for j in unroll(4):
                        h_before[4 * k + j] = s4[j]
                for s in range(0, HALF, 2):
                    for w in unroll(2):
                        ahead = 1 if s + w < HALF - 1 else 0
                        four(shared, at - ahead * ROW, d4_next)
                        four(shared, at + (TILE - ahead) * ROW, x4_next)
                        four(shared, at + (2 * TILE - ahead) * ROW, e4_next)
                        four(shared, to - ahead * STATES, b4_next)
                        four(shared, to + MAPS - ahead * STATES, c4_next)
                        for k in unroll(4):
                            four(shared, slot - ahead * SLOT + 128 * k, s4)
                            for j in unroll(4):
                                h_next[4 * k + j] = s4[j]
                        for k in unroll(4):
                            s4[k] = ZERO
                            q4[k] = ZERO
                            y4[k] = ZERO
                            dB4[k] = ZERO
                            dC4[k] = ZERO
                        for k in unroll(4):
                            for j in unroll(4):
                                dC4[j] += h[4 * k + j] * e4[k]
                                y4[k] += h[4 * k + j] * c4[j]
                                g_now = g[4 * k + j] + c4[j] * e4[k]
                                dB4[j] += g_now * x4[k]
                                s4[k] += g_now * b4[j]
                                g[4 * k + j] = exp2(d4[k] * a[4 * k + j]) * g_now
                                kept = g[4 * k + j] * h_before[4 * k + j]
                                q4[k] += kept * a[4 * k + j]
                                sum_A[4 * k + j] += kept * d4[k]
                                h[4 * k + j] = h_before[4 * k + j]
                        put(shared, slot, (s4[0], s4[1], s4[2], s4[3]))
                        put(shared, slot + 128, (q4[0], q4[1], q4[2], q4[3]))
                        put(shared, slot + 256, (dB4[0], dB4[1], dB4[2], dB4[3]))
                        put(shared, slot + 384, (dC4[0], dC4[1], dC4[2], dC4[3]))
                        kept_0 = y4[2] if first_bit else y4[0]
                        kept_1 = y4[3] if first_bit else y4[1]
                        sent_0 = y4[0] if first_bit else y4[2]
                        sent_1 = y4[1] if first_bit else y4[3]
                        kept_0 += cuda.shfl_xor_sync(FULL, sent_0, 1)
                        kept_1 += cuda.shfl_xor_sync(FULL, sent_1, 1)
                        own = kept_1 if second_bit else kept_0
                        own += cuda.shfl_xor_sync(FULL, kept_0 if second_bit else kept_1, 2)
                        shared[INDEX(y_at)] = own
                        for k in unroll(4):
                            d4[k] = d4_next[k]
                            x4[k] = x4_next[k]
                            e4[k] = e4_next[k]
                            b4[k] = b4_next[k]
                            c4[k] = c4_next[k]
                        for i in unroll(16):
                            h_before[i] = h_next[i]
                        at -= ahead * ROW
                        to -= ahead * STATES
                        slot -= ahead * SLOT
                        y_at -= ROW
                cuda.syncthreads()

                for nth in unroll(TURNS):
                    # sums over a block's channels: two lanes for the step, map and four states, each every second quad
                    item = tid + nth * THREADS
                    parity, t_sum, n_sum, map_sum = item & 1, item >> 1 & 7, 4 * (item >> 4 & 3), item >> 6
                    at_sum = SLOTS + t_sum * SLOT + 256 + 128 * map_sum + 4 * parity * 4 + n_sum
                    s0, s1, s2_, s3 = ZERO, ZERO, ZERO, ZERO
                    for w in unroll(warps):
                        for m in unroll(4):
                            four(shared, at_sum + w * SLOTS_SIZE + 32 * m, d4_next)
                            s0 += d4_next[0]
                            s1 += d4_next[1]
                            s2_ += d4_next[2]
                            s3 += d4_next[3]
                    s0 += cuda.shfl_xor_sync(FULL, s0, 1)
                    s1 += cuda.shfl_xor_sync(FULL, s1, 1)
                    s2_ += cuda.shfl_xor_sync(FULL, s2_, 1)
                    s3 += cuda.shfl_xor_sync(FULL, s3, 1)
                    t_out = t0 + half * HALF + t_sum
                    if t_out < length and n_sum < state:
                        # each of the two lanes writes two states
                        to_sum = (block * state + n_sum + 2 * parity) * length + t_out
                        one = s2_ if parity == 1 else s0
                        other = s3 if parity == 1 else s1
                        if map_sum == 0:
                            store_real(dB_, to_sum, one)
                            store_real(dB_, to_sum + length, other)
                        else:
                            store_real(dC_, to_sum, one)
                            store_real(dC_, to_sum + length, other)

                for j in unroll(2):
                    step = half * HALF + 2 * quarter + j
                    four(shared, at_step + step * ROW, d4_next)
                    four(shared, OUTPUTS + warp * OUTPUTS_SIZE + (2 * quarter + j) * ROW + 4 * quad, e4_next)
                    for k in unroll(4):
                        dt2[2 * k + j] = d4_next[k]
                        y2[2 * k + j] = e4_next[k]
                        s2[2 * k + j] = ZERO
                        q2[2 * k + j] = ZERO
                    for m in unroll(4):
                        # a different lane's share first for each lane of the quad: no two in the same bank
                        share = (
                            SLOTS + warp * SLOTS_SIZE + (2 * quarter + j) * SLOT + 4 * (4 * quad + (m + quarter & 3))
                        )
                        four(shared, share, d4_next)
                        four(shared, share + 128, e4_next)
                        for k in unroll(4):
                            s2[2 * k + j] += d4_next[k]
                            q2[2 * k + j] += e4_next[k]
                for k in unroll(4):
                    for j in unroll(2):
                        i = 2 * k + j
                        error = dy2[i]
                        if gated:
                            sigma = sigmoid(z2[i])
                            open_ = z2[i] * sigma
                            z2[i] = error * (y2[i] + skip[k] * u2[i]) * (sigma + open_ * (ONE - sigma))
                            error = error * open_
                        sum_D[k] += error * u2[i]
                        grad = q2[i] * LN_2 + s2[i] * u2[i]
                        if options & SOFTPLUS:
                            grad = grad * sigmoid(raw2[i] + bias[k])
                        sum_bias[k] += grad if there2 else ZERO
                        q2[i] = grad
                        s2[i] = s2[i] * dt2[i] + skip[k] * error
                write_pairs(du_, row + t2, across, there2, s2)
                write_pairs(ddelta_, row + t2, across, there2, q2)
                if gated:
                    write_pairs(dz_, row + t2, across, there2, z2)
                for i in unroll(16):
                    h[i] = h_tile[i]
                cuda.syncthreads()  # the slots have been read

        place = (part * batch + b) * dim + d
        for k in unroll(4):
            if mine:
                store_four(
                    dA_, at_chunk + 8 * k * state,
                    (sum_A[4 * k], sum_A[4 * k + 1], sum_A[4 * k + 2], sum_A[4 * k + 3]),
                )  # fmt: skip
            one, other = sum_D[k], sum_bias[k]
            for level in unroll(2):
                one += cuda.shfl_xor_sync(FULL, one, 1 << level)
                other += cuda.shfl_xor_sync(FULL, other, 1 << level)
            if quarter == 0:
                store_real(dD_, place + 8 * k, one)
                store_real(dbias_, place + 8 * k, other)

    return walk_back
