"""The states before each short tile, from those before each long one: where only these were saved."""

from __future__ import annotations

from functools import cache
from typing import Any, no_type_check

import numpy as np

from ssm_kernels._target import SHARED_ALIGNMENT, cuda, types
from ssm_kernels.intrinsics import access, exp2, next_may_begin, packed_access, pointer
from ssm_kernels.unrolling import unroll, unrolled
from ssm_kernels.variant import HAS_BIAS
from ssm_kernels.walking.parts import LONG, SHORT, STATES, parts

CHUNK = 8 * LONG.steps  # of a block; none waits for another


def signature(dtype: str) -> Any:
    io, real, integers = pointer(dtype), pointer("float32"), (types.int64,) * 6
    return types.void(io, io, real, io, real, real, real, *integers)


@no_type_check
@cache
def kernel(dtype: str, warps: int) -> Any:
    """A block for 16 · `warps` channels and a chunk of time, of each long tile its first half.

    What stages maps stages two: B takes C's place too.
    """
    (
        block, map_row, read_rows, opened, put_rows, read_maps, put_maps, step_sizes, _, read_states, store_states,
        prepared, four, _, _, _,
    ) = parts(dtype, warps, SHORT)  # fmt: skip
    load_real = access("float32").load
    ZERO = np.float32(0)
    real_t = types.float32
    HALF, WHOLE, ROW, SKEW, PLANE = SHORT.steps, LONG.steps, SHORT.row, SHORT.skew, SHORT.plane
    MAP, FOUR = SHORT.map, SHORT.four
    ACROSS, TURNS, NUMBERS, ROWS = SHORT.across, SHORT.turns, 4 * SHORT.turns, 2 * SHORT.plane
    ALL_MAPS, ALL_ROWS, WORDS = 2 * 2 * MAP, warps * ROWS, SHORT.map_words(dtype, warps)
    IN_ROWS, word_t = SHORT.row_words(dtype), packed_access(dtype).word_t

    @unrolled
    def walk(
        u, delta, A, B, delta_bias, saved, borders,
        options, batch, dim, length, state, per_group_B,
    ):  # fmt: skip
        maps = cuda.shared.array(ALL_MAPS, real_t, alignment=SHARED_ALIGNMENT)
        rows = cuda.shared.array(ALL_ROWS, real_t, alignment=SHARED_ALIGNMENT)
        a = cuda.local.array(8, real_t)
        h = cuda.local.array(8, real_t)
        following = cuda.local.array(8, real_t)
        us = cuda.local.array(IN_ROWS, word_t)
        deltas = cuda.local.array(IN_ROWS, word_t)
        x = cuda.local.array(NUMBERS, real_t)
        dt = cuda.local.array(NUMBERS, real_t)
        words = cuda.local.array(WORDS, word_t)
        bias = cuda.local.array(TURNS, real_t)
        d4 = cuda.local.array(4, real_t)
        x4 = cuda.local.array(4, real_t)
        b8 = cuda.local.array(8, real_t)

        next_may_begin()
        tid = types.int64(cuda.threadIdx.x)
        b, d0, first, warp, lane, reads, step = block(dim)
        channel, half = first + (lane >> 1), lane & 1
        begin = types.int64(cuda.blockIdx.y) * CHUNK
        end = min(begin + CHUNK, length)
        states = 8 * half  # the lane's begin there
        some, all_ = states < state, states + 4 < state  # of the eight

        read_states(A, channel * state + states, 4, some, all_, a)
        prepared(a)
        for i in unroll(TURNS):
            bias[i] = load_real(delta_bias, first + reads + i * ACROSS) if options & HAS_BIAS else ZERO
        last_four = end - 4  # what lies beyond is read from there, and nobody takes it
        row = (b * dim + first + reads) * length
        across = ACROSS * length
        row_B = map_row(b, d0, dim, per_group_B, state, length)
        at_rows = warp * ROWS + reads * ROW + step
        at_channel = warp * ROWS + (lane >> 1) * ROW + (lane >> 4) * SKEW
        a_border = batch * dim * state  # from one to the next
        at_border = (b * dim + channel) * state + states

        at = row + min(begin + step, last_four)
        read_rows(u, at, across, us)
        read_rows(delta, at, across, deltas)
        read_maps(B, B, row_B, row_B, begin, last_four, tid, state, length, words)
        read_states(saved, at_border + begin // WHOLE * a_border, 4, some, all_, following)
        buffer = 0
        for t0 in range(begin, end, WHOLE):
            opened(us, x)
            opened(deltas, dt)
            for i in unroll(TURNS):
                for j in unroll(4):
                    dt[4 * i + j] += bias[i]
            step_sizes(options, dt)
            for i in unroll(NUMBERS):
                x[i] = dt[i] * x[i]
            for i in unroll(8):
                h[i] = following[i]
            put_rows(rows, at_rows, dt)
            put_rows(rows, at_rows + PLANE, x)
            put_maps(maps, buffer * 2 * MAP, tid, words)
            cuda.syncthreads()
            if t0 + WHOLE < end:
                at = row + min(t0 + WHOLE + step, last_four)
                read_rows(u, at, across, us)
                read_rows(delta, at, across, deltas)
                read_maps(B, B, row_B, row_B, t0 + WHOLE, last_four, tid, state, length, words)
                read_states(saved, at_border + (t0 // WHOLE + 1) * a_border, 4, some, all_, following)
            store_states(borders, at_border + t0 // HALF * a_border, 4, some, all_, h)
            if t0 + HALF < end:
                at_B = buffer * 2 * MAP + states
                for s in range(0, HALF, 4):
                    four(rows, at_channel + s, d4, 0)
                    four(rows, at_channel + s + PLANE, x4, 0)
                    for w in unroll(4):
                        for k in unroll(2):
                            four(maps, at_B + w * STATES + 4 * k, b8, 4 * k)
                        for n in unroll(8):
                            h[n] = exp2(d4[w] * a[n]) * h[n] + x4[w] * b8[n]
                    at_B += FOUR
                store_states(borders, at_border + (t0 // HALF + 1) * a_border, 4, some, all_, h)
            cuda.syncwarp()
            buffer = 1 - buffer

    return walk
