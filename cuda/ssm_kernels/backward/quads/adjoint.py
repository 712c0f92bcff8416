"""Kernel 3 by quads: the gradients, tile by tile from the chunk's last.

The state before a tile is the summary's plus e^{AΣΔ} times the chunk's first. A tile goes by halves, the later one
first: forwards, leaving in shared memory the state before each step, then backwards, where the sums over what a lane
holds take the states' places.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, no_type_check

import numpy as np

from ssm_kernels._target import SHARED_ALIGNMENT, cuda, types
from ssm_kernels.arithmetic import arithmetic, inline
from ssm_kernels.backward.quads.parts import ITEMS, MAPS, ROW, ROWS, STATES, TILE, WARPS, channels, parts
from ssm_kernels.intrinsics import access, exp2, pointer, shared_store, short_access
from ssm_kernels.unrolling import unroll, unrolled
from ssm_kernels.variant import FULL, HAS_BIAS, HAS_D, HAS_Z, SOFTPLUS

HALF = TILE // 2
# A step's slot holds, for each of a warp's lanes, four words of four numbers 128 apart: the states, then the sums over
# the lane's states for u and for Δ, by channel, and over its channels for B and for C, by state.
SLOT = 516
SLOTS = HALF * SLOT
READ_OUT = HALF * ROW  # numbers of a warp's y


def shared_bytes(warps: int) -> int:
    """Of a block, all of it dynamic."""
    return 4 * (2 * MAPS + warps * (ROWS + SLOTS + READ_OUT))


def signature(dtype: str) -> Any:
    io, real, integers = pointer(dtype), pointer("float32"), (types.int64,) * 8
    return types.void(io, io, real, io, io, real, io, real, io, *(real,) * 4, io, io, io, *(real,) * 5, *integers)


@no_type_check
@cache
def kernel(dtype: str, warps: int = WARPS) -> Any:
    """dA, dD and dbias have a row for each chunk and batch entry, dB and dC for each block of channels."""
    (
        place, map_row, read_rows, put_rows, read_maps, put_maps, step_sizes, gate, read_states, store_states,
        prepared, four, advance, over_quad,
    ) = parts(dtype, warps)  # fmt: skip
    sigmoid = arithmetic("float32", False).sigmoid
    load_real, store_real = access("float32").load, access("float32").store
    load_two, store_two = short_access(dtype, 2)
    put = shared_store("float32")
    ZERO, ONE, LN_2 = np.float32(0), np.float32(1), np.float32(math.log(2))
    real_t = types.float32
    THREADS = channels(warps)
    TURNS = ITEMS // THREADS
    WORDS = 4 * TURNS
    # of a block's shared memory: the maps, and by warps the rows, the slots and y
    ROWS_AT, SLOTS_AT = 2 * MAPS, 2 * MAPS + warps * ROWS
    Y_AT = SLOTS_AT + warps * SLOTS
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

    @inline
    @unrolled
    def to_middle(shared, at, to, a, h):
        """h after the first half of a tile from h before it."""
        d4 = cuda.local.array(4, real_t)
        x4 = cuda.local.array(4, real_t)
        b4 = cuda.local.array(4, real_t)
        for _ in range(0, HALF, 4):
            for w in unroll(4):
                four(shared, at + w * ROW, d4)
                four(shared, at + (w + TILE) * ROW, x4)
                four(shared, to + w * STATES, b4)
                advance(h, a, d4, x4, b4)
            at += 4 * ROW
            to += 4 * STATES

    @inline
    @unrolled
    def leave_states(shared, at, to, slot, a, h):
        """Over a half, the state before each step into its slot, and h after the last."""
        d4 = cuda.local.array(4, real_t)
        x4 = cuda.local.array(4, real_t)
        b4 = cuda.local.array(4, real_t)
        d4_next = cuda.local.array(4, real_t)
        x4_next = cuda.local.array(4, real_t)
        b4_next = cuda.local.array(4, real_t)
        four(shared, at, d4)
        four(shared, at + TILE * ROW, x4)
        four(shared, to, b4)
        for s in range(0, HALF, 2):
            for w in unroll(2):
                ahead = 1 if s + w < HALF - 1 else 0
                four(shared, at + ahead * ROW, d4_next)
                four(shared, at + (ahead + TILE) * ROW, x4_next)
                four(shared, to + ahead * STATES, b4_next)
                for k in unroll(4):
                    put(shared, slot + 128 * k, (h[4 * k], h[4 * k + 1], h[4 * k + 2], h[4 * k + 3]))
                advance(h, a, d4, x4, b4)
                for k in unroll(4):
                    d4[k] = d4_next[k]
                    x4[k] = x4_next[k]
                    b4[k] = b4_next[k]
                at += ahead * ROW
                to += ahead * STATES
                slot += SLOT

    @inline
    @unrolled
    def read_slot(shared, slot, h):
        for k in unroll(4):
            word = cuda.local.array(4, real_t)
            four(shared, slot + 128 * k, word)
            for j in unroll(4):
                h[4 * k + j] = word[j]

    @inline
    @unrolled
    def put_y(shared, at, y, first_bit, second_bit):
        """The quad's sum of each channel's y, in the lane that has it: two shuffles halve what is sent twice."""
        kept_0 = y[2] if first_bit else y[0]
        kept_1 = y[3] if first_bit else y[1]
        sent_0 = y[0] if first_bit else y[2]
        sent_1 = y[1] if first_bit else y[3]
        kept_0 += cuda.shfl_xor_sync(FULL, sent_0, 1)
        kept_1 += cuda.shfl_xor_sync(FULL, sent_1, 1)
        own = kept_1 if second_bit else kept_0
        own += cuda.shfl_xor_sync(FULL, kept_0 if second_bit else kept_1, 2)
        shared[INDEX(at)] = own

    @inline
    @unrolled
    def adjoint_step(shared, slot, a, d, x, e, b, c, h, h_before, g, sum_A, y):
        """A step backwards: g becomes Āg of the step before, and the lane's sums go where the step's states were."""
        s4 = cuda.local.array(4, real_t)
        q4 = cuda.local.array(4, real_t)
        dB4 = cuda.local.array(4, real_t)
        dC4 = cuda.local.array(4, real_t)
        for k in unroll(4):
            s4[k] = ZERO
            q4[k] = ZERO
            y[k] = ZERO
            dB4[k] = ZERO
            dC4[k] = ZERO
        for k in unroll(4):
            for j in unroll(4):
                dC4[j] += h[4 * k + j] * e[k]
                y[k] += h[4 * k + j] * c[j]
                g_now = g[4 * k + j] + c[j] * e[k]
                dB4[j] += g_now * x[k]
                s4[k] += g_now * b[j]
                g[4 * k + j] = exp2(d[k] * a[4 * k + j]) * g_now
                kept = g[4 * k + j] * h_before[4 * k + j]
                q4[k] += kept * a[4 * k + j]
                sum_A[4 * k + j] += kept * d[k]
        put(shared, slot, (s4[0], s4[1], s4[2], s4[3]))
        put(shared, slot + 128, (q4[0], q4[1], q4[2], q4[3]))
        put(shared, slot + 256, (dB4[0], dB4[1], dB4[2], dB4[3]))
        put(shared, slot + 384, (dC4[0], dC4[1], dC4[2], dC4[3]))

    @inline
    @unrolled
    def go_back(shared, at, to, slot, y_at, a, h, g, sum_A, first_bit, second_bit):
        """Over a half, from its last step; what the step before needs is read ahead."""
        d4 = cuda.local.array(4, real_t)
        x4 = cuda.local.array(4, real_t)
        e4 = cuda.local.array(4, real_t)
        b4 = cuda.local.array(4, real_t)
        c4 = cuda.local.array(4, real_t)
        y4 = cuda.local.array(4, real_t)
        d4_next = cuda.local.array(4, real_t)
        x4_next = cuda.local.array(4, real_t)
        e4_next = cuda.local.array(4, real_t)
        b4_next = cuda.local.array(4, real_t)
        c4_next = cuda.local.array(4, real_t)
        h_before = cuda.local.array(16, real_t)
        h_next = cuda.local.array(16, real_t)
        four(shared, at, d4)
        four(shared, at + TILE * ROW, x4)
        four(shared, at + 2 * TILE * ROW, e4)
        four(shared, to, b4)
        four(shared, to + MAPS, c4)
        read_slot(shared, slot, h_before)
        for s in range(0, HALF, 2):
            for w in unroll(2):
                ahead = 1 if s + w < HALF - 1 else 0
                four(shared, at - ahead * ROW, d4_next)
                four(shared, at + (TILE - ahead) * ROW, x4_next)
                four(shared, at + (2 * TILE - ahead) * ROW, e4_next)
                four(shared, to - ahead * STATES, b4_next)
                four(shared, to + MAPS - ahead * STATES, c4_next)
                read_slot(shared, slot - ahead * SLOT, h_next)
                adjoint_step(shared, slot, a, d4, x4, e4, b4, c4, h, h_before, g, sum_A, y4)
                put_y(shared, y_at, y4, first_bit, second_bit)
                for k in unroll(4):
                    d4[k] = d4_next[k]
                    x4[k] = x4_next[k]
                    e4[k] = e4_next[k]
                    b4[k] = b4_next[k]
                    c4[k] = c4_next[k]
                for i in unroll(16):
                    h[i] = h_before[i]
                    h_before[i] = h_next[i]
                at -= ahead * ROW
                to -= ahead * STATES
                slot -= ahead * SLOT
                y_at -= ROW

    @inline
    @unrolled
    def sum_channels(shared, tid, t0, row, state, length, dB, dC):
        """B's and C's shares of a half: two lanes for a step, map and four states, each every second quad."""
        word = cuda.local.array(4, real_t)
        for turn in unroll(TURNS):
            item = tid + turn * THREADS
            parity, step, n, map_ = item & 1, item >> 1 & 7, 4 * (item >> 4 & 3), item >> 6
            at = SLOTS_AT + step * SLOT + 256 + 128 * map_ + 4 * parity * 4 + n
            s0, s1, s2, s3 = ZERO, ZERO, ZERO, ZERO
            for w in unroll(warps):
                for m in unroll(4):
                    four(shared, at + w * SLOTS + 32 * m, word)
                    s0 += word[0]
                    s1 += word[1]
                    s2 += word[2]
                    s3 += word[3]
            s0 += cuda.shfl_xor_sync(FULL, s0, 1)
            s1 += cuda.shfl_xor_sync(FULL, s1, 1)
            s2 += cuda.shfl_xor_sync(FULL, s2, 1)
            s3 += cuda.shfl_xor_sync(FULL, s3, 1)
            t = t0 + step
            if t < length and n < state:
                # each of the two lanes writes two states
                to = (row + n + 2 * parity) * length + t
                one = s2 if parity == 1 else s0
                other = s3 if parity == 1 else s1
                if map_ == 0:
                    store_real(dB, to, one)
                    store_real(dB, to + length, other)
                else:
                    store_real(dC, to, one)
                    store_real(dC, to + length, other)

    @inline
    @unrolled
    def sum_states(shared, at_step, at_y, at_share, quarter, dt, y, s, q):
        """Of a lane's two steps j of a half and channels k: Δ, y, and the sums over states for u and Δ, at 2k + j."""
        d4 = cuda.local.array(4, real_t)
        y4 = cuda.local.array(4, real_t)
        for j in unroll(2):
            four(shared, at_step + j * ROW, d4)
            four(shared, at_y + j * ROW, y4)
            for k in unroll(4):
                dt[2 * k + j] = d4[k]
                y[2 * k + j] = y4[k]
                s[2 * k + j] = ZERO
                q[2 * k + j] = ZERO
            for m in unroll(4):
                # a different lane's share first for each lane of the quad: no two in the same bank
                share = at_share + j * SLOT + 4 * (m + quarter & 3)
                four(shared, share, d4)
                four(shared, share + 128, y4)
                for k in unroll(4):
                    s[2 * k + j] += d4[k]
                    q[2 * k + j] += y4[k]

    @unrolled
    def walk_back(
        u, delta, A, B, C, D, z, delta_bias, grad_y, borders, before, starts, backs,
        du, ddelta, dz, dA, dB, dC, dD, dbias,
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
        u2 = cuda.local.array(8, real_t)
        raw2 = cuda.local.array(8, real_t)
        dy2 = cuda.local.array(8, real_t)
        z2 = cuda.local.array(8, real_t)
        s2 = cuda.local.array(8, real_t)
        q2 = cuda.local.array(8, real_t)
        y2 = cuda.local.array(8, real_t)
        dt2 = cuda.local.array(8, real_t)

        tid = types.int64(cuda.threadIdx.x)
        b, d0, d, warp, quad, quarter = place(dim)
        block, part = types.int64(cuda.blockIdx.x), types.int64(cuda.blockIdx.y)
        begin = part * chunk
        end = min(begin + chunk, length)
        mine = 4 * quarter < state  # whether the lane has states at all
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
        row_B = map_row(b, d0, dim, per_group_B, state, length)
        row_C = map_row(b, d0, dim, per_group_C, state, length)
        at_rows = ROWS_AT + warp * ROWS + 4 * quarter * ROW + 4 * quad
        at_step = ROWS_AT + warp * ROWS + 4 * quad
        at_slot = SLOTS_AT + warp * SLOTS + 4 * (4 * quad + quarter)
        at_share = SLOTS_AT + warp * SLOTS + 2 * quarter * SLOT + 4 * 4 * quad
        # the channel whose y is added up in this lane
        first_bit, second_bit = quarter & 1 != 0, quarter & 2 != 0
        at_y = Y_AT + warp * READ_OUT + 4 * quad
        own_y = at_y + 2 * (quarter & 1) + (quarter >> 1)

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
            channel = (t0 // TILE * batch + b) * dim + d
            read_states(borders, channel * state + 4 * quarter, 8 * state, mine, h_tile)
            read_states(starts, at_chunk, 8 * state, mine, h)
            for k in unroll(4):
                total = load_real(before, channel + 8 * k)
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

            for i in unroll(16):
                h[i] = h_tile[i]
            to_middle(shared, at_step, 4 * quarter, a, h)
            for turn in range(2):
                half = 1 - turn
                first = half * HALF
                leave_states(shared, at_step + first * ROW, 4 * quarter + first * STATES, at_slot, a, h)

                # what the steps of this half need once their sums are there
                t2 = t0 + first + 2 * quarter
                there2 = t2 < length
                read_pairs(u, row + t2, across, there2, u2)
                read_pairs(delta, row + t2, across, there2, raw2)
                read_pairs(grad_y, row + t2, across, there2, dy2)
                if gated:
                    read_pairs(z, row + t2, across, there2, z2)

                last = HALF - 1
                go_back(
                    shared, at_step + (first + last) * ROW, 4 * quarter + (first + last) * STATES,
                    at_slot + last * SLOT, own_y + last * ROW, a, h, g, sum_A, first_bit, second_bit,
                )  # fmt: skip
                cuda.syncthreads()
                sum_channels(shared, tid, t0 + first, block * state, state, length, dB, dC)
                sum_states(
                    shared, at_step + (first + 2 * quarter) * ROW, at_y + 2 * quarter * ROW, at_share, quarter,
                    dt2, y2, s2, q2,
                )  # fmt: skip
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
                write_pairs(du, row + t2, across, there2, s2)
                write_pairs(ddelta, row + t2, across, there2, q2)
                if gated:
                    write_pairs(dz, row + t2, across, there2, z2)
                for i in unroll(16):
                    h[i] = h_tile[i]
                cuda.syncthreads()  # the slots have been read

        channel = (part * batch + b) * dim + d
        store_states(dA, at_chunk, 8 * state, mine, sum_A)
        for k in unroll(4):
            total_D, total_bias = over_quad(sum_D[k]), over_quad(sum_bias[k])
            if quarter == 0:
                store_real(dD, channel + 8 * k, total_D)
                store_real(dbias, channel + 8 * k, total_bias)

    return walk_back
