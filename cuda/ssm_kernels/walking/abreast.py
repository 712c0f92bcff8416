"""The forward scan with time abreast: a warp a channel, 32 segments of it side by side, state by state.

A lane holds Δ, Δu and y of its segment's steps in registers. Of some states it walks through them; then the segments'
ends are scanned by the warp; and it walks again, from the state that its segment begins with. So a state and step cost
one exponential, where chunks of time walked twice cost two. Maps of a tile lie in shared memory, once for a block's
channels, and the next tile's are put there meanwhile: 16-bit ones, which come a tile earlier still, as float32.

Copies past the registers go to whole lines of 128 bytes, in which words have changed places so that banks differ: each
word of a line that is not written at once takes a turn of its own.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, no_type_check

import numpy as np

from ssm_kernels._target import SHARED_ALIGNMENT, cuda, types
from ssm_kernels.arithmetic import arithmetic, inline
from ssm_kernels.intrinsics import (
    ITEMSIZE,
    POINTEES,
    access,
    commit_async,
    copy_async,
    exp2,
    gathering,
    pointer,
    shared_load,
    shared_store,
    short_shared,
    staging,
    this_thread,
    wait_async,
    wait_async_but_last,
    worked_out,
)
from ssm_kernels.unrolling import unroll, unrolled
from ssm_kernels.variant import FULL, HAS_BIAS, HAS_D, HAS_Z, SOFTPLUS, STARTS, WARP
from ssm_kernels.walking.bands import Band
from ssm_kernels.walking.parts import STATES


def signature(dtype: str) -> Any:
    io, real, integers = pointer(dtype), pointer("float32"), (types.int64,) * 7
    return types.void(io, io, real, io, io, real, io, real, real, io, real, *integers)


@no_type_check
@cache
def kernel(dtype: str, band: Band) -> Any:
    """A block for the band's channels, all of one group. What is read in place of a z that is not there is not used."""
    io, load_real, store_real = access(dtype), access("float32").load, access("float32").store
    store_wide, WIDTH = io.store_wide, io.width
    copy, (copy_whole, _) = copy_async(dtype, False), staging(dtype)
    read, put, read_io = shared_load("float32"), shared_store("float32"), shared_load(dtype)
    (_, put_pair), (read_pairs, put_four) = short_shared(2), short_shared(4)
    softplus, sigmoid = arithmetic("float32", False).softplus, arithmetic("float32", False).sigmoid
    ZERO, LOG2_E = np.float32(0), np.float32(math.log2(math.e))
    LEAST = np.float32(np.finfo(np.float32).min)
    real_t, int_t, IO, INDEX = types.float32, types.int32, POINTEES[dtype], types.uint64
    NARROW, ITEMS, TOGETHER, TILE = ITEMSIZE[dtype] == 2, band.items, band.together, band.tile
    MANY, PAIRS = TOGETHER * ITEMS, 2 * TOGETHER
    QUAD = TOGETHER == 4
    # in words of 16 bytes: of a lane's steps in memory and in float32; of the latter also how far apart
    WORDS, FOURS, FOURS_APART = ITEMS // WIDTH, ITEMS // 4, 4 * band.plane(dtype) // ITEMS
    WORD_BITS, WORD_MASK, FOURS_A_WORD = (WORDS - 1).bit_length(), WORDS - 1, WIDTH // 4
    LINE = WARP * WIDTH  # numbers that a warp copies at once
    PLANE, OF_CHANNEL = band.plane(dtype), 3 * TILE
    MAP, BUFFER, OF_STATE = band.map(dtype), 2 * band.map(dtype), TILE if NARROW else band.plane(dtype)
    # rows of both maps, of which so many threads copy the words of one, and all those of so many in an iteration
    AT_ONCE = max(TOGETHER, 4)
    HALVES = AT_ONCE // TOGETHER
    OF_ROW, TO_C = TILE // WIDTH, STATES * TILE if NARROW else MAP
    ROW_BITS, ROW_MASK, ROWS = (OF_ROW - 1).bit_length(), OF_ROW - 1, band.copiers(dtype) // OF_ROW
    TURNS = -(-AT_ONCE // ROWS)
    COPIED = TURNS * ROWS
    UNEVEN = COPIED != AT_ONCE  # the last iterations have fewer
    ALL_COPY = not UNEVEN and band.copiers(dtype) == band.threads
    # where what follows the maps begins: in numbers of memory, then in float32
    PER = 4 // ITEMSIZE[dtype]
    RAW = 2 * BUFFER * PER
    MAIL = RAW + (2 * STATES * TILE if NARROW else 0)
    OF_BLOCK, SCRATCH = band.channels, 3 * WARP * TOGETHER
    HELD_A = (MAIL + OF_BLOCK * OF_CHANNEL) // PER
    HELD_H = HELD_A + OF_BLOCK * STATES
    GATHERED = HELD_H + OF_BLOCK * STATES
    OF_ALL = GATHERED + 4
    ENDS = OF_ALL + -(-2 * OF_BLOCK // 4) * 4
    # the segments' ends of the states together are scanned by as many lanes for each, of which each has some segments
    LANES, LEVELS = WARP // TOGETHER, (WARP // TOGETHER - 1).bit_length()
    open_gathering, arrive, gather = gathering(band.threads, not NARROW)

    # rows of time, a warp's own

    @inline
    @unrolled
    def ask_row(mail, to, p, at, left, step):
        if left >= TILE:
            for j in unroll(WORDS):
                copy_whole(mail, to + j * LINE, p, at + step + j * LINE)
        else:
            for j in unroll(WORDS):
                t = step + j * LINE
                copy(mail, to + j * LINE, p, at + (t if t < left else 0), WIDTH if t < left else 0)

    @inline
    @unrolled
    def place(lane, j):
        """Of a lane's word of a row."""
        return ((lane * WORDS + j) ^ (lane * WORDS >> 3 & WORD_MASK)) * WIDTH

    @inline
    @unrolled
    def take_row(mail, at, lane, out):
        for j in unroll(WORDS):
            word = read_io(mail, at + place(lane, j))
            for k in unroll(WIDTH):
                out[j * WIDTH + k] = word[k]

    # maps, the block's

    @inline
    def place_raw(tid):
        """Of what a thread copies of the maps' first states."""
        return worked_out(int_t((tid >> ROW_BITS) * OF_STATE + RAW + (tid & ROW_MASK) * WIDTH))

    @inline
    def place_opened(tid):
        """Where it puts that as float32."""
        own, word = tid >> ROW_BITS, tid & ROW_MASK
        four = (word & WORD_MASK) * FOURS_A_WORD
        return worked_out(int_t(own * PLANE + four * FOURS_APART + (word >> WORD_BITS) * 4))

    @inline
    def is_copied(m, own, turn, state):
        """Whether a thread copies a row of this turn, of those from m on."""
        return own + turn * ROWS < int_t(state - m) if UNEVEN else own < ROWS

    @inline
    @unrolled
    def ask_maps(mail, to, B, C, from_B, from_C, m, own, state, length, t, valid):
        """A thread's words of the rows from m on, of which its own is so many behind; or zeros."""
        for turn in unroll(TURNS):
            if ALL_COPY or is_copied(m, own, turn, state):
                further = (m + turn * ROWS) * length + t
                copy(mail, to + (m + turn * ROWS) * OF_STATE, B, from_B + further, valid)
                copy(mail, to + (m + turn * ROWS) * OF_STATE + TO_C, C, from_C + further, valid)

    @inline
    @unrolled
    def open_maps(shared, mail, to, from_, m, own, state):
        """What has come of them, as float32."""
        for turn in unroll(TURNS):
            if ALL_COPY or is_copied(m, own, turn, state):
                for k in unroll(2):
                    x = read_io(mail, from_ + (m + turn * ROWS) * OF_STATE + k * TO_C)
                    there = to + (m + turn * ROWS) * PLANE + k * MAP
                    put(shared, there, (x[0], x[1], x[2], x[3]))
                    put(shared, there + FOURS_APART, (x[4], x[5], x[6], x[7]))

    # a segment

    @inline
    def place_end(segment):
        """Of what a segment leaves, among those of a state."""
        if QUAD:
            lane, later = segment >> 2, segment >> 1 & 1
            return later * 32 + (lane * 4 ^ later * 16) + (segment & 1) * 2
        return segment * 2

    @inline
    @unrolled
    def first_walk(shared, at_held, at, dt, du, total, ends, e, x):
        """What a segment leaves of some states, and their decays, for the scan."""
        for w in unroll(TOGETHER):
            a, h = shared[INDEX(HELD_A + at_held + w)], ZERO
            for j in unroll(FOURS):
                word = read(shared, at[j] + w * PLANE)
                for k in unroll(4):
                    alpha, x_i = exp2(dt[4 * j + k] * a), du[4 * j + k] * word[k]
                    e[w * ITEMS + 4 * j + k] = alpha
                    x[w * ITEMS + 4 * j + k] = x_i
                    h = x_i if j + k == 0 else cuda.fma(alpha, h, x_i)
            put_pair(shared, ends + w * 2 * WARP, (h, exp2(total * a)))

    @inline
    @unrolled
    def second_walk(shared, at, begins, e, x, y):
        """C·h of the states, of which the segment's first are at `begins`."""
        for w in unroll(TOGETHER):
            h = shared[INDEX(begins + w * WARP)]
            for j in unroll(FOURS):
                word = read(shared, at[j] + MAP + w * PLANE)
                for k in unroll(4):
                    h = cuda.fma(e[w * ITEMS + 4 * j + k], h, x[w * ITEMS + 4 * j + k])
                    y[4 * j + k] = cuda.fma(h, word[k], y[4 * j + k])

    @inline
    @unrolled
    def both_walks(shared, at_held, at, begins, dt, du, total, ends, e, x, y):
        """The second of some states, and the first of those behind them: exponentials between what waits for none."""
        As = read(shared, HELD_A + at_held)
        for w in unroll(TOGETHER):
            a, left, h = As[w], ZERO, shared[INDEX(begins + w * WARP)]
            for j in unroll(FOURS):
                C, B = read(shared, at[j] + MAP + w * PLANE), read(shared, at[j] + (TOGETHER + w) * PLANE)
                for k in unroll(4):
                    h = cuda.fma(e[w * ITEMS + 4 * j + k], h, x[w * ITEMS + 4 * j + k])
                    y[4 * j + k] = cuda.fma(h, C[k], y[4 * j + k])
                    alpha, x_i = exp2(dt[4 * j + k] * a), du[4 * j + k] * B[k]
                    e[w * ITEMS + 4 * j + k] = alpha
                    x[w * ITEMS + 4 * j + k] = x_i
                    left = x_i if j + k == 0 else cuda.fma(alpha, left, x_i)
            put_pair(shared, ends + w * 2 * WARP, (left, exp2(total * a)))

    @unrolled
    def scan(
        u, delta, A, B, C, D, z, delta_bias, start, y, last,
        options, batch, dim, length, state, per_group_B, per_group_C,
    ):  # fmt: skip
        shared = cuda.shared.array(0, real_t, alignment=SHARED_ALIGNMENT)
        mail = cuda.shared.array(0, IO, alignment=SHARED_ALIGNMENT)
        fours = cuda.local.array(FOURS, int_t)
        at_fours = cuda.local.array(FOURS, types.int64)
        dt = cuda.local.array(ITEMS, real_t)
        du = cuda.local.array(ITEMS, real_t)
        s = cuda.local.array(ITEMS, real_t)
        e = cuda.local.array(MANY, real_t)
        x = cuda.local.array(MANY, real_t)
        pairs = cuda.local.array(PAIRS, real_t)

        tid = int_t(cuda.threadIdx.x)
        warp, lane = int_t(tid >> 5), int_t(tid & 31)
        per_batch = dim // OF_BLOCK
        at_block = types.int64(cuda.blockIdx.x)
        b = at_block // per_batch
        d0 = (at_block - b * per_batch) * OF_BLOCK
        d = d0 + warp
        row = (at_block * OF_BLOCK + warp) * length
        if QUAD or not NARROW:  # here, and wherever it stands, it spares registers: every one is taken
            row = worked_out(row)
        row_B = (b * (dim // per_group_B) + d0 // per_group_B) * state * length
        row_C = (b * (dim // per_group_C) + d0 // per_group_C) * state * length
        step = int_t(lane * WIDTH)
        mail_u = int_t(MAIL + warp * OF_CHANNEL)
        copied = int_t(mail_u + (lane ^ lane >> 3 & WORD_MASK) * WIDTH)
        ask_row(mail, copied, u, row, length, step)
        ask_row(mail, copied + TILE, delta, row, length, step)
        # of the maps: the state and word of a row that a thread copies, where to, and where that is opened
        own, word = int_t(tid >> ROW_BITS), int_t(tid & ROW_MASK)
        of_copy = int_t(word * WIDTH)
        from_B = worked_out(row_B + own * length + of_copy)
        from_C = worked_out(row_C + own * length + of_copy)
        to, opened = worked_out(int_t(own * OF_STATE + (word ^ word >> 3 & WORD_MASK) * WIDTH)), int_t(0)
        if NARROW:
            to, opened = place_raw(tid), place_opened(tid)
        valid = WIDTH if of_copy < length else 0
        for m in range(int_t(0), int_t(state), int_t(COPIED)):
            ask_maps(mail, to, B, C, from_B, from_C, m, own, state, length, 0, valid)

        # of the scan over segments: the lane's state of those together, its place among the state's lanes, and the one
        # before, which of the first is the last
        own_state, of_state = int_t(lane // LANES), int_t(lane & (LANES - 1))
        first, before = of_state == int_t(0), int_t(lane - of_state + ((of_state + LANES - 1) & (LANES - 1)))
        held = int_t(warp * STATES)
        ends = int_t(ENDS + warp * SCRATCH + place_end(lane))
        own_ends = other_ends = int_t(ENDS + warp * SCRATCH + PAIRS * lane)
        if QUAD:
            own_ends = int_t(ENDS + warp * SCRATCH + own_state * 2 * WARP + of_state * 4)
            other_ends = int_t(ENDS + warp * SCRATCH + own_state * 2 * WARP + (of_state * 4 ^ 16) + 32)
        begins = int_t(ENDS + warp * SCRATCH + PAIRS * WARP + lane)
        own_begins = int_t(ENDS + warp * SCRATCH + PAIRS * WARP + TOGETHER * lane)
        if lane < state:
            a = load_real(A, d * state + lane) * LOG2_E
            shared[INDEX(HELD_A + held + lane)] = LEAST if a < LEAST else a  # beyond the end 0 · a is 0
        if first:
            for n in range(own_state, int_t(state), int_t(TOGETHER)):
                h = load_real(start, (b * dim + d) * state + n) if options & STARTS else ZERO
                shared[INDEX(HELD_H + held + n)] = h
        if lane == 0:  # what a tile takes once is not kept in registers
            shared[INDEX(OF_ALL + 2 * warp)] = load_real(delta_bias, d) if options & HAS_BIAS else ZERO
            shared[INDEX(OF_ALL + 2 * warp + 1)] = load_real(D, d) if options & HAS_D else ZERO
        if tid == 0:
            open_gathering(shared, GATHERED)
        cuda.syncthreads()
        if NARROW:
            wait_async()
            valid = WIDTH if TILE + of_copy < length else 0
            for m in range(int_t(0), int_t(state), int_t(COPIED)):
                open_maps(shared, mail, opened, to, m, own, state)
                ask_maps(mail, to, B, C, from_B, from_C, m, own, state, length, TILE, valid)
        commit_async()
        arrive(shared, GATHERED)
        if options & HAS_Z:
            ask_row(mail, copied + 2 * TILE, z, row, length, step)
        commit_async()

        if not NARROW:
            for j in unroll(FOURS):
                fours[j] = worked_out(int_t(place(lane, j)))
        buffer, steps = int_t(0), int_t(length)
        for t0 in range(int_t(0), steps, int_t(TILE)):
            at = row + t0
            left = int_t(steps - t0)
            own_left = int_t(left - lane * ITEMS)
            wait_async_but_last()
            cuda.syncwarp()
            take_row(mail, mail_u, lane, s)
            take_row(mail, mail_u + TILE, lane, dt)
            cuda.syncwarp()
            bias, skip = shared[INDEX(OF_ALL + 2 * warp)], shared[INDEX(OF_ALL + 2 * warp + 1)]
            for i in unroll(ITEMS):
                dt[i] += bias
            if options & SOFTPLUS:
                for i in unroll(ITEMS):
                    dt[i] = softplus(dt[i])
            if own_left < ITEMS:
                for i in unroll(ITEMS):
                    if i >= own_left:
                        dt[i] = ZERO
            total = ZERO
            for i in unroll(ITEMS):
                du[i] = worked_out(dt[i] * s[i])
                s[i] = skip * s[i]
                total += dt[i]
            total = worked_out(total)
            if left > TILE:
                ask_row(mail, copied, u, at + TILE, left - TILE, step)
                ask_row(mail, copied + TILE, delta, at + TILE, left - TILE, step)
            other = int_t(BUFFER - buffer)
            t_ahead = int_t(t0 + (2 * TILE if NARROW else TILE))
            # a thread's number anew, as wherever it stands below, so that it is not kept meanwhile
            own_word = int_t(this_thread() & ROW_MASK)
            valid = worked_out(int_t(WIDTH if int_t(t_ahead + own_word * WIDTH) < steps else 0))
            gather(shared, worked_out(int_t(GATHERED)), int_t(1 if buffer else 0))
            if NARROW:
                opened = place_opened(this_thread())
            at_map = int_t(buffer + (lane * 4 if NARROW else 0))
            for j in unroll(FOURS):
                at_fours[j] = at_map + (j * FOURS_APART if NARROW else fours[j])
            if QUAD:
                first_walk(shared, held, at_fours, dt, du, total, ends, e, x)
            for n in range(int_t(0), int_t(state), int_t(AT_ONCE)):
                at_held = int_t(held + n)
                for half in unroll(HALVES):
                    for j in unroll(FOURS):
                        four = j * FOURS_APART if NARROW else fours[j]
                        at_fours[j] = at_map + half * TOGETHER * PLANE + four
                    if not QUAD:
                        first_walk(shared, at_held + half * TOGETHER, at_fours, dt, du, total, ends, e, x)
                    cuda.syncwarp()
                    # pairs[2k], pairs[2k + 1]: what segments 0 … k of this lane's leave, and their decay
                    for k in unroll(0, TOGETHER, 2):
                        word = read_pairs(shared, other_ends if k else own_ends)
                        for i in unroll(4):
                            pairs[2 * k + i] = word[i]
                    for k in unroll(1, TOGETHER):
                        pairs[2 * k] = cuda.fma(pairs[2 * k + 1], pairs[2 * k - 2], pairs[2 * k])
                        pairs[2 * k + 1] *= pairs[2 * k - 1]
                    begin = ZERO
                    if first:
                        begin = shared[INDEX(HELD_H + at_held + half * TOGETHER + own_state)]
                    if half == 0:  # while the scan waits for its shuffles
                        m = int_t((n >> 2) * COPIED) if UNEVEN else n
                        if NARROW:
                            open_maps(shared, mail, opened + other, to, m, own, state)
                            ask_maps(mail, to, B, C, from_B, from_C, m, own, state, length, t_ahead, valid)
                        else:
                            ask_maps(mail, to + other, B, C, from_B, from_C, m, own, state, length, t_ahead, valid)
                    decay = pairs[PAIRS - 1]
                    end = cuda.fma(decay, begin, pairs[PAIRS - 2])
                    for k in unroll(LEVELS):
                        # of lanes that have none so far before them, what is sent is not used
                        sent = cuda.shfl_up_sync(FULL, end, 1 << k)
                        end = cuda.fma(decay, sent, end) if of_state >= int_t(1 << k) else end
                        if k < LEVELS - 1:
                            decay = decay * cuda.shfl_up_sync(FULL, decay, 1 << k)
                    sent = cuda.shfl_sync(FULL, end, before)
                    if first:
                        shared[INDEX(HELD_H + at_held + half * TOGETHER + own_state)] = sent
                    h = begin if first else sent
                    if QUAD:
                        put_four(shared, own_begins, (
                            h, cuda.fma(pairs[1], h, pairs[0]), cuda.fma(pairs[3], h, pairs[2]),
                            cuda.fma(pairs[5], h, pairs[4]),
                        ))  # fmt: skip
                    else:
                        put_pair(shared, own_begins, (h, cuda.fma(pairs[1], h, pairs[0])))
                    cuda.syncwarp()
                    if QUAD and int_t(n + AT_ONCE) < int_t(state):
                        both_walks(shared, at_held + TOGETHER, at_fours, begins, dt, du, total, ends, e, x, s)
                    else:
                        second_walk(shared, at_fours, begins, e, x, s)
                at_map = int_t(at_map + AT_ONCE * PLANE)
            arrive(shared, worked_out(int_t(GATHERED)))
            commit_async()
            wait_async_but_last()
            cuda.syncwarp()
            if options & HAS_Z:
                take_row(mail, mail_u + 2 * TILE, lane, du)
                for i in unroll(ITEMS):
                    s[i] *= du[i] * sigmoid(du[i])
                cuda.syncwarp()
            if NARROW:
                own_left = int_t(left - (this_thread() & 31) * ITEMS)
                for j in unroll(WORDS):
                    if j * WIDTH < own_left:
                        store_wide(y, at + lane * ITEMS + j * WIDTH, (
                            s[j * 8], s[j * 8 + 1], s[j * 8 + 2], s[j * 8 + 3],
                            s[j * 8 + 4], s[j * 8 + 5], s[j * 8 + 6], s[j * 8 + 7],
                        ))  # fmt: skip
            else:
                # through shared memory, so that lanes side by side write what lies side by side
                for j in unroll(WORDS):
                    put(mail, mail_u + 2 * TILE + place(lane, j), (
                        s[j * 4], s[j * 4 + 1], s[j * 4 + 2], s[j * 4 + 3],
                    ))  # fmt: skip
                cuda.syncwarp()
                for j in unroll(WORDS):
                    if step + j * LINE < left:
                        store_wide(y, at + step + j * LINE, read_io(mail, copied + 2 * TILE + j * LINE))
            if options & HAS_Z and left > TILE:
                ask_row(mail, copied + 2 * TILE, z, at + TILE, left - TILE, step)
            commit_async()
            buffer = other
        tid = this_thread()
        own_state = int_t(tid // LANES & (TOGETHER - 1))
        at_states = (types.int64(cuda.blockIdx.x) * OF_BLOCK + (tid >> 5)) * state
        if tid & (LANES - 1) == 0:
            for n in range(own_state, int_t(state), int_t(TOGETHER)):
                store_real(last, at_states + n, shared[INDEX(HELD_H + (tid >> 5) * STATES + n)])

    return scan
