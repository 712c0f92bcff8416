"""Kernel 1 by walking: what each chunk of time does to the state that it begins with, and to the Āg that comes back."""

from __future__ import annotations

from functools import cache
from typing import Any, no_type_check

import numpy as np

from ssm_kernels._target import SHARED_ALIGNMENT, cuda, types
from ssm_kernels.intrinsics import access, exp2, packed_access, pointer
from ssm_kernels.unrolling import unroll, unrolled
from ssm_kernels.variant import FULL, HAS_BIAS, HAS_Z
from ssm_kernels.walking.parts import LONG, SHORT, STATES, parts


def signature(dtype: str) -> Any:
    io, real, integers = pointer(dtype), pointer("float32"), (types.int64,) * 8
    return types.void(io, io, real, io, io, io, real, io, *(real,) * 5, *integers)


@no_type_check
@cache
def kernel(dtype: str, returning: bool, bordered: bool, warps: int) -> Any:
    """From a state of zero, a block for 16 · `warps` channels and a chunk of time.

    `ends` are the chunk's last states, and `totals` ΣΔ over it; if it is `bordered`, `borders` are the states before
    each short tile, and `before` is ΣΔ up to there; if it is `returning`, `backs` are Āg at the chunk's first step
    where nothing comes back to its last.
    """
    (
        block, map_row, read_rows, opened, put_rows, read_maps, put_maps, step_sizes, gate, read_states, store_states,
        prepared, four, _, _, _,
    ) = parts(dtype, warps, LONG)  # fmt: skip
    load_real, store_real = access("float32").load, access("float32").store
    ZERO, ONE = np.float32(0), np.float32(1)
    real_t = types.float32
    TILE, ROW, PLANE, ROWS, MAP, FOUR = LONG.steps, LONG.row, LONG.plane, LONG.rows, LONG.map, LONG.four
    ACROSS, TURNS, NUMBERS = LONG.across, LONG.turns, 4 * LONG.turns
    BORDER, TO_OTHER_HALF = SHORT.steps, SHORT.lanes  # a long tile is two short ones
    ALL_MAPS, ALL_ROWS, WORDS = 2 * 2 * MAP, warps * ROWS, LONG.map_words(dtype, warps)
    IN_ROWS, word_t = LONG.row_words(dtype), packed_access(dtype).word_t

    @unrolled
    def walk(
        u, delta, A, B, C, z, delta_bias, grad_y, borders, before, ends, backs, totals,
        options, batch, dim, length, state, per_group_B, per_group_C, chunk,
    ):  # fmt: skip
        maps = cuda.shared.array(ALL_MAPS, real_t, alignment=SHARED_ALIGNMENT)
        rows = cuda.shared.array(ALL_ROWS, real_t, alignment=SHARED_ALIGNMENT)
        a = cuda.local.array(8, real_t)
        h = cuda.local.array(8, real_t)
        back = cuda.local.array(8, real_t)
        decay = cuda.local.array(8, real_t)
        us = cuda.local.array(IN_ROWS, word_t)
        deltas = cuda.local.array(IN_ROWS, word_t)
        es = cuda.local.array(IN_ROWS, word_t)
        zs = cuda.local.array(IN_ROWS, word_t)
        x = cuda.local.array(NUMBERS, real_t)
        e = cuda.local.array(NUMBERS, real_t)
        dt = cuda.local.array(NUMBERS, real_t)
        words = cuda.local.array(WORDS, word_t)
        bias = cuda.local.array(TURNS, real_t)
        sums = cuda.local.array(TURNS, real_t)
        d4 = cuda.local.array(4, real_t)
        x4 = cuda.local.array(4, real_t)
        e4 = cuda.local.array(4, real_t)
        b8 = cuda.local.array(8, real_t)
        c8 = cuda.local.array(8, real_t)

        tid = types.int64(cuda.threadIdx.x)
        b, d0, first, warp, lane, reads, step = block(dim)
        channel, half = first + (lane >> 1), lane & 1
        part = types.int64(cuda.blockIdx.y)
        begin = part * chunk
        end = min(begin + chunk, length)
        states = 8 * half  # the lane's begin there
        some, all_ = states < state, states + 4 < state  # of the eight

        read_states(A, channel * state + states, 4, some, all_, a)
        prepared(a)
        for i in unroll(TURNS):
            bias[i] = load_real(delta_bias, first + reads + i * ACROSS) if options & HAS_BIAS else ZERO
            sums[i] = ZERO
        for i in unroll(8):
            h[i] = ZERO
            back[i] = ZERO
            decay[i] = ONE
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
        if returning:
            read_rows(grad_y, at, across, es)
            if options & HAS_Z:
                read_rows(z, at, across, zs)
        read_maps(B, C, row_B, row_C, begin, last_four, tid, state, length, words)
        buffer = 0
        for t0 in range(begin, end, TILE):
            there = t0 + step < end
            opened(us, x)
            opened(deltas, dt)
            for i in unroll(TURNS):
                for j in unroll(4):
                    dt[4 * i + j] += bias[i]
            step_sizes(options, dt)
            for i in unroll(TURNS):
                total = ZERO
                for j in unroll(4):
                    total += dt[4 * i + j] if there else ZERO
                    x[4 * i + j] = dt[4 * i + j] * x[4 * i + j]
                if bordered:
                    total += cuda.shfl_xor_sync(FULL, total, 1)
                    total += cuda.shfl_xor_sync(FULL, total, 2)
                    other_half = cuda.shfl_xor_sync(FULL, total, TO_OTHER_HALF)
                    if there and step & BORDER - 1 == 0:
                        tile = (t0 + step) // BORDER
                        at_tile = (tile * batch + b) * dim + first + reads + i * ACROSS
                        store_real(before, at_tile, sums[i] + (other_half if step else ZERO))
                    total += other_half
                sums[i] += total
            put_rows(rows, at_rows, dt)
            put_rows(rows, at_rows + PLANE, x)
            if returning:
                opened(es, e)
                if options & HAS_Z:
                    opened(zs, x)
                    gate(e, x)
                put_rows(rows, at_rows + 2 * PLANE, e)
            put_maps(maps, buffer * 2 * MAP, tid, words)
            cuda.syncthreads()
            if t0 + TILE < end:
                at = row + min(t0 + TILE + step, last_four)
                read_rows(u, at, across, us)
                read_rows(delta, at, across, deltas)
                if returning:
                    read_rows(grad_y, at, across, es)
                    if options & HAS_Z:
                        read_rows(z, at, across, zs)
                read_maps(B, C, row_B, row_C, t0 + TILE, last_four, tid, state, length, words)
            at_B = buffer * 2 * MAP + states
            steps = min(TILE, end - t0)
            for border in range(0, steps, BORDER):
                if bordered:
                    at_border = ((t0 + border) // BORDER * batch + b) * dim + channel
                    store_states(borders, at_border * state + states, 4, some, all_, h)
                for s in range(border, min(border + BORDER, steps), 4):
                    four(rows, at_channel + s, d4, 0)
                    four(rows, at_channel + s + PLANE, x4, 0)
                    if returning:
                        four(rows, at_channel + s + 2 * PLANE, e4, 0)
                    for w in unroll(4):
                        for k in unroll(2):
                            four(maps, at_B + w * STATES + 4 * k, b8, 4 * k)
                            if returning:
                                four(maps, at_B + w * STATES + 4 * k + MAP, c8, 4 * k)
                        for n in unroll(8):
                            alpha = exp2(d4[w] * a[n])
                            h[n] = alpha * h[n] + x4[w] * b8[n]
                            if returning:
                                decay[n] = decay[n] * alpha
                                back[n] += decay[n] * (c8[n] * e4[w])
                    at_B += FOUR
            cuda.syncwarp()
            buffer = 1 - buffer
        of_part = (part * batch + b) * dim
        for i in unroll(TURNS):
            total = sums[i]
            if not bordered:
                total += cuda.shfl_xor_sync(FULL, total, 1)
                total += cuda.shfl_xor_sync(FULL, total, 2)
                total += cuda.shfl_xor_sync(FULL, total, TO_OTHER_HALF)
            if step == 0:
                store_real(totals, of_part + first + reads + i * ACROSS, total)
        store_states(ends, (of_part + channel) * state + states, 4, some, all_, h)
        if returning:
            store_states(backs, (of_part + channel) * state + states, 4, some, all_, back)

    return walk
