"""The forward scan by walking: y of a chunk of time, from the state that it begins with."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, no_type_check

import numpy as np

from ssm_kernels._target import SHARED_ALIGNMENT, cuda, types
from ssm_kernels.arithmetic import inline
from ssm_kernels.intrinsics import access, exp2, packed_access, pointer, short_access, wait_for_launches
from ssm_kernels.unrolling import unroll, unrolled
from ssm_kernels.variant import HAS_BIAS, HAS_D, HAS_Z, STARTS
from ssm_kernels.walking.parts import LONG, STATES, folding, parts


def signature(dtype: str) -> Any:
    io, real, integers = pointer(dtype), pointer("float32"), (types.int64,) * 8
    return types.void(io, io, real, io, io, real, io, real, real, io, real, real, *integers)


@no_type_check
@cache
def kernel(dtype: str, warps: int, every: int) -> Any:
    """A block for 16 · `warps` channels and a chunk of time, the states of each channel in a pair of lanes.

    `starts` has a row for each chunk and batch entry. `borders` become the states before each so many steps, if it is
    `every` so many; chunks begin with one.
    """
    (
        block, map_row, read_rows, opened, put_rows, read_maps, put_maps, step_sizes, gate, read_states, store_states,
        _, four, _, _, _,
    ) = parts(dtype, warps, LONG)  # fmt: skip
    load_real = access("float32").load
    _, store_four = short_access(dtype, 4)
    ZERO, LOG2_E = np.float32(0), np.float32(math.log2(math.e))
    real_t = types.float32
    TILE, ROW, PLANE, ROWS = LONG.steps, LONG.row, LONG.plane, LONG.rows
    MAP, FOUR, fold = LONG.map, LONG.four, folding(1)
    ACROSS, TURNS, NUMBERS = LONG.across, LONG.turns, 4 * LONG.turns
    ALL_MAPS, ALL_ROWS, WORDS = 2 * 2 * MAP, warps * ROWS, LONG.map_words(dtype, warps)
    IN_ROWS, word_t = LONG.row_words(dtype), packed_access(dtype).word_t
    SAVES = every > 0

    @inline
    @unrolled
    def walk_four(maps, rows, at_B, at, half, a, h):
        """Four steps, and their y in the channel's row."""
        d4 = cuda.local.array(4, real_t)
        x4 = cuda.local.array(4, real_t)
        y4 = cuda.local.array(4, real_t)
        b8 = cuda.local.array(8, real_t)
        c8 = cuda.local.array(8, real_t)
        four(rows, at, d4, 0)
        four(rows, at + PLANE, x4, 0)
        for w in unroll(4):
            for k in unroll(2):
                four(maps, at_B + w * STATES + 4 * k, b8, 4 * k)
                four(maps, at_B + w * STATES + 4 * k + MAP, c8, 4 * k)
            y4[w] = ZERO
            for n in unroll(8):
                h[n] = exp2(d4[w] * a[n]) * h[n] + x4[w] * b8[n]
                y4[w] += h[n] * c8[n]
        fold(rows, at + 2 * PLANE, y4, half == 1)

    @unrolled
    def walk(
        u, delta, A, B, C, D, z, delta_bias, starts, y, last, borders,
        options, batch, dim, length, state, per_group_B, per_group_C, chunk,
    ):  # fmt: skip
        maps = cuda.shared.array(ALL_MAPS, real_t, alignment=SHARED_ALIGNMENT)
        rows = cuda.shared.array(ALL_ROWS, real_t, alignment=SHARED_ALIGNMENT)
        a = cuda.local.array(8, real_t)
        h = cuda.local.array(8, real_t)
        us = cuda.local.array(IN_ROWS, word_t)
        deltas = cuda.local.array(IN_ROWS, word_t)
        zs = cuda.local.array(IN_ROWS, word_t)
        x = cuda.local.array(NUMBERS, real_t)
        dt = cuda.local.array(NUMBERS, real_t)
        ys = cuda.local.array(NUMBERS, real_t)
        words = cuda.local.array(WORDS, word_t)
        bias = cuda.local.array(TURNS, real_t)
        skip = cuda.local.array(TURNS, real_t)
        y4 = cuda.local.array(4, real_t)

        tid = types.int64(cuda.threadIdx.x)
        b, d0, first, warp, lane, reads, step = block(dim)
        channel, half = first + (lane >> 1), lane & 1
        part = types.int64(cuda.blockIdx.y)
        begin = part * chunk
        end = min(begin + chunk, length)
        states = 8 * half  # the lane's begin there
        some, all_ = states < state, states + 4 < state  # of the eight

        read_states(A, channel * state + states, 4, some, all_, a)
        for n in unroll(8):
            a[n] = a[n] * LOG2_E
        started = options & STARTS != 0
        at_start = ((part * batch + b) * dim + channel) * state + states
        for i in unroll(TURNS):
            bias[i] = load_real(delta_bias, first + reads + i * ACROSS) if options & HAS_BIAS else ZERO
            skip[i] = load_real(D, first + reads + i * ACROSS) if options & HAS_D else ZERO
        last_four = end - 4  # what lies beyond is read from there, and nobody takes it
        row = (b * dim + first + reads) * length
        across = ACROSS * length
        row_B = map_row(b, d0, dim, per_group_B, state, length)
        row_C = map_row(b, d0, dim, per_group_C, state, length)
        at_rows = warp * ROWS + reads * ROW + step
        at_channel = warp * ROWS + (lane >> 1) * ROW

        at = row + min(begin + step, last_four)
        read_rows(u, at, across, us)
        read_rows(delta, at, across, deltas)
        read_maps(B, C, row_B, row_C, begin, last_four, tid, state, length, words)
        wait_for_launches()
        read_states(starts, at_start, 4, some and started, all_ and started, h)
        buffer = 0
        for t0 in range(begin, end, TILE):
            opened(us, x)
            opened(deltas, dt)
            for i in unroll(TURNS):
                for j in unroll(4):
                    dt[4 * i + j] += bias[i]
                    ys[4 * i + j] = skip[i] * x[4 * i + j]
            step_sizes(options, dt)
            for i in unroll(NUMBERS):
                x[i] = dt[i] * x[i]
            put_rows(rows, at_rows, dt)
            put_rows(rows, at_rows + PLANE, x)
            put_maps(maps, buffer * 2 * MAP, tid, words)
            cuda.syncthreads()
            if options & HAS_Z:
                read_rows(z, at, across, zs)
            to, there = at, t0 + step < end
            at = row + min(t0 + TILE + step, last_four)
            if t0 + TILE < end:
                read_rows(u, at, across, us)
                read_rows(delta, at, across, deltas)
                read_maps(B, C, row_B, row_C, t0 + TILE, last_four, tid, state, length, words)
            at_B = buffer * 2 * MAP + states
            steps = min(TILE, end - t0)
            if SAVES:
                for border in range(0, steps, every):
                    at_border = ((t0 + border) // every * batch + b) * dim + channel
                    store_states(borders, at_border * state + states, 4, some, all_, h)
                    for s in range(border, min(border + every, steps), 4):
                        walk_four(maps, rows, at_B, at_channel + s, half, a, h)
                        at_B += FOUR
            else:
                for s in range(0, steps, 4):
                    walk_four(maps, rows, at_B, at_channel + s, half, a, h)
                    at_B += FOUR
            cuda.syncwarp()
            if there:
                for i in unroll(TURNS):
                    four(rows, at_rows + i * ACROSS * ROW + 2 * PLANE, y4, 0)
                    for j in unroll(4):
                        ys[4 * i + j] += y4[j]
                if options & HAS_Z:
                    opened(zs, x)
                    gate(ys, x)
                for i in unroll(TURNS):
                    store_four(y, to + i * across, (ys[4 * i], ys[4 * i + 1], ys[4 * i + 2], ys[4 * i + 3]))
            buffer = 1 - buffer
        if end == length:
            store_states(last, (b * dim + channel) * state + states, 4, some, all_, h)

    return walk
