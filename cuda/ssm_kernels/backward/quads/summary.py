"""Kernel 1 by quads: what each chunk of time does to the state that it begins with, and to the Āg that comes back."""

from __future__ import annotations

from functools import cache
from typing import Any, no_type_check

import numpy as np

from ssm_kernels._target import SHARED_ALIGNMENT, cuda, types
from ssm_kernels.backward.quads.parts import ITEMS, MAPS, ROW, ROWS, STATES, TILE, WARPS, channels, parts
from ssm_kernels.intrinsics import access, exp2, pointer
from ssm_kernels.unrolling import unroll, unrolled
from ssm_kernels.variant import HAS_BIAS, HAS_Z


def signature(dtype: str) -> Any:
    io, real, integers = pointer(dtype), pointer("float32"), (types.int64,) * 8
    return types.void(io, io, real, io, io, io, real, io, *(real,) * 5, *integers)


@no_type_check
@cache
def kernel(dtype: str, warps: int = WARPS) -> Any:
    """From a state of zero, a block for 32 · `warps` channels and a chunk of time.

    `borders` are the states before each tile, `before` is ΣΔ up to there, and `totals` over the chunk; `ends` are the
    chunk's last states, and `backs` Āg at its first step, if nothing comes back to its last.
    """
    (
        place, map_row, read_rows, put_rows, read_maps, put_maps, step_sizes, gate, read_states, store_states,
        prepared, four, _, over_quad,
    ) = parts(dtype, warps)  # fmt: skip
    load_real, store_real = access("float32").load, access("float32").store
    ZERO, ONE = np.float32(0), np.float32(1)
    real_t = types.float32
    ALL_MAPS, ALL_ROWS, WORDS = 2 * 2 * MAPS, warps * ROWS, 4 * ITEMS // channels(warps)

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
        b, d0, d, warp, quad, quarter = place(dim)
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
        row_B = map_row(b, d0, dim, per_group_B, state, length)
        row_C = map_row(b, d0, dim, per_group_C, state, length)
        at_rows = warp * ROWS + 4 * quarter * ROW + 4 * quad
        at_step = warp * ROWS + 4 * quad

        there = begin + 4 * quarter < length
        read_rows(u, row + begin, across, there, us)
        read_rows(delta, row + begin, across, there, dt)
        read_rows(grad_y, row + begin, across, there, es)
        if options & HAS_Z:
            read_rows(z, row + begin, across, there, zs)
        read_maps(B, C, row_B, row_C, begin, tid, state, length, words)
        buffer = 0
        for t0 in range(begin, end, TILE):
            channel = (t0 // TILE * batch + b) * dim + d
            there = t0 + 4 * quarter < length
            step_sizes(options, bias, there, dt)
            gate(options, es, zs)
            store_states(borders, channel * state + 4 * quarter, 8 * state, mine, h)
            for k in unroll(4):
                total = over_quad(sums[k])  # of all steps before this tile
                if quarter == 0:
                    store_real(before, channel + 8 * k, total)
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
        channel = (part * batch + b) * dim + d
        for k in unroll(4):
            total = over_quad(sums[k])
            if quarter == 0:
                store_real(totals, channel + 8 * k, total)
        store_states(ends, channel * state + 4 * quarter, 8 * state, mine, h)
        store_states(backs, channel * state + 4 * quarter, 8 * state, mine, back)

    return walk
