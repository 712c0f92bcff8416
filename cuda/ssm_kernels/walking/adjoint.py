"""Kernel 3 by walking: the gradients, tile by tile from the chunk's last.

The state before a tile is the summary's plus e^{AΣΔ} times the chunk's first, or what the way forward has saved. A tile
is walked forwards once, leaving the states before each four steps, then by fours from its end: four steps forwards,
their states and decays kept in registers, and the same four back.
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
    exp2,
    next_may_begin,
    packed_access,
    pointer,
    shared_store,
    short_access,
    staging,
    wait_async,
    wait_for_launches,
)
from ssm_kernels.unrolling import unroll, unrolled
from ssm_kernels.variant import CARRIED, FULL, HAS_BIAS, HAS_D, HAS_Z, RETURNS, SOFTPLUS, STARTS
from ssm_kernels.walking.parts import SHORT, STATES, folding, parts, threads

TILE, FOURS = SHORT.steps, SHORT.steps // 4
ROW, SKEW, PLANE = SHORT.row, SHORT.skew, SHORT.plane
ROWS = 2 * SHORT.rows  # what goes into a tile, and the sums over states that come of it
MAPS, FOUR = SHORT.map, SHORT.four
KEPT = 256  # numbers of a warp's states
STEP = 264  # from one step's sums of a warp to the next's, for B and 128 further for C, so that banks differ
SUMS = 4 * STEP
AHEAD = SHORT.ahead
CHUNKS = 2  # that are read at a time


def shared_bytes(warps: int) -> int:
    """Of a block, all of it dynamic."""
    return 4 * (2 * MAPS + warps * (ROWS + FOURS * KEPT + 2 * SUMS))


def signature(dtype: str) -> Any:
    io, real, integers = pointer(dtype), pointer("float32"), (types.int64,) * 8
    return types.void(io, io, real, io, io, real, io, real, io, *(real,) * 7, io, io, io, *(real,) * 6, *integers)


@no_type_check
@cache
def kernel(dtype: str, warps: int, saved: bool) -> Any:
    """dA, dD and dbias have a row for each chunk and batch entry, dB and dC for each block of channels.

    `borders` are the states before each tile, if they are `saved`; else those from zero at the chunk's first step, with
    ΣΔ since then `before`. `start` is the first chunk's first state and `arriving` what comes back to the last one. If
    chunks are CARRIED over, `ends` and `backs` are the same of each chunk; else what each adds, by its ΣΔ `totals`.
    """
    (
        block, map_row, _, _, put_rows, read_maps, put_maps, _, _, read_states, store_states,
        prepared, four, asks, ask, take,
    ) = parts(dtype, warps, SHORT)  # fmt: skip
    softplus_and_slope, sigmoid = arithmetic("float32", False).softplus_and_slope, arithmetic("float32", False).sigmoid
    load_real, store_real = access("float32").load, access("float32").store
    _, store_four = short_access(dtype, 4)
    put, fold = shared_store("float32"), folding(2)
    ZERO, ONE, LN_2 = np.float32(0), np.float32(1), np.float32(math.log(2))
    real_t = types.float32
    THREADS, ADDED, OVER = threads(warps), 8 * CHUNKS, 2 * CHUNKS
    TO_NEXT = 8 * ROW + SKEW
    SUM_TURNS = 4 * 2 * STATES // THREADS
    PARTS = 4 * SUM_TURNS
    WORDS, word_t = SHORT.map_words(dtype, warps), packed_access(dtype).word_t
    ALL_AHEAD, ALL_STATES, element_t = warps * 4 * AHEAD, warps * KEPT, POINTEES[dtype]
    copy_states, _ = staging("float32")
    IN_COPY = 16 // ITEMSIZE[dtype]
    SHARED_COPIES = IN_COPY > 4
    # of a block's shared memory: the maps, and by warps the rows, the states, and two buffers of sums
    ROWS_AT, KEPT_AT = 2 * MAPS, 2 * MAPS + warps * ROWS
    SUMS_AT, BUFFER = KEPT_AT + warps * FOURS * KEPT, warps * SUMS

    @inline
    @unrolled
    def fold_quad(shared, at, x, odd):
        """The quad's sums over states, at 4k + w of channel k and step w, into the row of the lane's own channel.

        Each lane keeps its own channel, so that what is added up is never chosen.
        """
        m = cuda.local.array(4, real_t)
        for w in unroll(4):
            m[w] = x[w] + cuda.shfl_xor_sync(FULL, x[4 + w], 4)
        fold(shared, at, m, odd)

    @inline
    @unrolled
    def keep(shared, at, h):
        for k in unroll(2):
            put(shared, at + 128 * k, (h[4 * k], h[4 * k + 1], h[4 * k + 2], h[4 * k + 3]))

    @inline
    @unrolled
    def leave_states(shared, at_own, at_other, at_B, kept, a, h):
        """The state before each four steps of a tile."""
        d8 = cuda.local.array(8, real_t)
        x8 = cuda.local.array(8, real_t)
        b4 = cuda.local.array(4, real_t)
        for i in unroll(FOURS):
            if i < FOURS - 1:  # before the store, which it has no need to wait for
                four(shared, at_own + 4 * i, d8, 0)
                four(shared, at_other + 4 * i, d8, 4)
                four(shared, at_own + 4 * i + PLANE, x8, 0)
                four(shared, at_other + 4 * i + PLANE, x8, 4)
            keep(shared, kept + i * KEPT, h)
            if i < FOURS - 1:
                for w in unroll(4):
                    four(shared, at_B + i * FOUR + w * STATES, b4, 0)
                    for k in unroll(2):
                        for j in unroll(4):
                            h[4 * k + j] = exp2(d8[4 * k + w] * a[4 * k + j]) * h[4 * k + j] + x8[4 * k + w] * b4[j]

    @inline
    def place(item):
        """The first of four states, the share of the quads, the step and the map.

        Lanes side by side read from all banks, and write four steps side by side.
        """
        n = 4 * (item & 1) + 8 * (item >> 5 & 1)
        return n, (item >> 1 & 1) + (item >> 4 & 1) * 2, item >> 2 & 3, item >> 6

    @inline
    @unrolled
    def read_part(shared, at, tid, part, out):
        """Of what a thread adds up of four steps, one of four parts: two quads of a warp, for a turn."""
        turn, w = part // warps, part % warps
        n, share, step, map_ = place(tid + turn * THREADS)
        from_ = at + w * SUMS + step * STEP + 128 * map_ + 16 * share + n
        four(shared, from_, out, 0)
        four(shared, from_ + 64, out, 4)

    @inline
    @unrolled
    def add_part(part, word, sums):
        turn, first = part // warps, part % warps == 0
        for j in unroll(4):
            sums[4 * turn + j] = word[j] + word[4 + j] + (ZERO if first else sums[4 * turn + j])

    @inline
    @unrolled
    def exchange(tid, sums, shares):
        """B's and C's shares of four steps: four lanes for a step, map and four states, each every fourth quad."""
        for turn in unroll(SUM_TURNS):
            _, share, _, _ = place(tid + turn * THREADS)
            high, odd = share >= 2, share & 1 == 1
            s0, s1, s2, s3 = sums[4 * turn], sums[4 * turn + 1], sums[4 * turn + 2], sums[4 * turn + 3]
            kept_0 = s2 if high else s0
            kept_1 = s3 if high else s1
            kept_0 += cuda.shfl_xor_sync(FULL, s0 if high else s2, 16)
            kept_1 += cuda.shfl_xor_sync(FULL, s1 if high else s3, 16)
            shares[turn] = (kept_1 if odd else kept_0) + cuda.shfl_xor_sync(FULL, kept_0 if odd else kept_1, 2)

    @inline
    @unrolled
    def four_back(shared, at_own, at_other, at_B, kept, to, from_, tid, odd, a, g, sum_A, shares):
        """Four steps: g becomes Āg of the step before them.

        Meanwhile the block's shares of the four steps walked before, whose parts lie at `from_`, are added up, a part
        a step, so that nobody waits for what is read.
        """
        d8 = cuda.local.array(8, real_t)
        x8 = cuda.local.array(8, real_t)
        e8 = cuda.local.array(8, real_t)
        b = cuda.local.array(16, real_t)
        c4 = cuda.local.array(4, real_t)
        alpha = cuda.local.array(32, real_t)
        h = cuda.local.array(40, real_t)  # of step w at 8w + 8, before the first at 0
        y = cuda.local.array(8, real_t)
        s = cuda.local.array(8, real_t)
        q = cuda.local.array(8, real_t)
        dB4 = cuda.local.array(4, real_t)
        dC4 = cuda.local.array(4, real_t)
        word = cuda.local.array(8, real_t)
        sums = cuda.local.array(PARTS, real_t)
        four(shared, at_own, d8, 0)
        four(shared, at_other, d8, 4)
        four(shared, at_own + PLANE, x8, 0)
        four(shared, at_other + PLANE, x8, 4)
        four(shared, at_own + 2 * PLANE, e8, 0)
        four(shared, at_other + 2 * PLANE, e8, 4)
        four(shared, kept, h, 0)
        four(shared, kept + 128, h, 4)
        for w in unroll(4):
            four(shared, at_B + w * STATES, b, 4 * w)
            for k in unroll(2):
                for j in unroll(4):
                    i = 8 * w + 4 * k + j
                    alpha[i] = exp2(d8[4 * k + w] * a[4 * k + j])
                    h[i + 8] = alpha[i] * h[i] + x8[4 * k + w] * b[4 * w + j]
        for v in unroll(4):
            w = 3 - v
            four(shared, at_B + w * STATES + MAPS, c4, 0)
            read_part(shared, from_, tid, v, word)
            for j in unroll(4):
                dB4[j] = ZERO
                dC4[j] = ZERO
            for k in unroll(2):
                m = 4 * k + w
                y[m] = ZERO
                s[m] = ZERO
                q[m] = ZERO
            for j in unroll(4):
                for k in unroll(2):
                    m = 4 * k + w
                    i, n = 8 * w + 4 * k + j, 4 * k + j
                    now = g[n] + c4[j] * e8[m]
                    dC4[j] += h[i + 8] * e8[m]
                    y[m] += h[i + 8] * c4[j]
                    dB4[j] += now * x8[m]
                    s[m] += now * b[4 * w + j]
                    g[n] = alpha[i] * now
                    back = g[n] * h[i]
                    q[m] += back * a[n]
                    sum_A[n] += back * d8[m]
            add_part(v, word, sums)
            put(shared, to + w * STEP, (dB4[0], dB4[1], dB4[2], dB4[3]))
            put(shared, to + w * STEP + 128, (dC4[0], dC4[1], dC4[2], dC4[3]))
        exchange(tid, sums, shares)
        fold_quad(shared, at_own + 3 * PLANE, q, odd)
        fold_quad(shared, at_own + 4 * PLANE, s, odd)
        fold_quad(shared, at_own + 5 * PLANE, y, odd)

    @inline
    @unrolled
    def write_shares(shares, tid, t, row, state, length, dB, dC):
        for turn in unroll(SUM_TURNS):
            n, share, step, map_ = place(tid + turn * THREADS)
            if n < state and t >= 0:
                to = (row + n + share) * length + t + step
                if map_ == 0:
                    store_real(dB, to, shares[turn])
                else:
                    store_real(dC, to, shares[turn])

    @inline
    def ask_states(coming, to, p, at, to_other, mine):
        if mine:
            copy_states(coming, to, p, at)
            copy_states(coming, to + 128, p, at + to_other)

    @inline
    @unrolled
    def carry_over(added, totals, at, at_total, to_next, total_to_next, chunks, to_other, other_total, mine, a, h):
        """So many chunks, some read at a time: h becomes e^{AΣΔ} h and what each adds."""
        x8 = cuda.local.array(8, real_t)
        x = cuda.local.array(ADDED, real_t)
        dt = cuda.local.array(OVER, real_t)
        for first in range(0, chunks, CHUNKS):
            for k in unroll(CHUNKS):
                there = mine and first + k < chunks
                read_states(added, at + (first + k) * to_next, to_other, there, there, x8)
                for n in unroll(8):
                    x[8 * k + n] = x8[n]
                from_ = at_total + (first + k) * total_to_next
                dt[2 * k] = load_real(totals, from_) if there else ZERO
                dt[2 * k + 1] = load_real(totals, from_ + other_total) if there else ZERO
            for k in unroll(CHUNKS):
                for i in unroll(2):
                    for j in unroll(4):
                        n = 4 * i + j
                        h[n] = exp2(dt[2 * k + i] * a[n]) * h[n] + x[8 * k + n]

    @inline
    @unrolled
    def write_rows(p, at, across, there, x):
        if there:
            for i in unroll(2):
                store_four(p, at + i * across, (x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]))

    @inline
    @unrolled
    def step_sizes(options, raw, dt):
        """Δ of a lane's steps from what softplus takes, which becomes its slope."""
        for i in unroll(8):
            dt[i] = raw[i]
            if options & SOFTPLUS:
                dt[i], raw[i] = softplus_and_slope(raw[i])
            else:
                raw[i] = ONE

    @inline
    @unrolled
    def through_gate(options, e, z):
        """∂ℓ/∂y before the gate from that behind it, and in z's place what becomes ∂ℓ/∂z, times y before the gate."""
        if options & HAS_Z:
            for i in unroll(8):
                sigma = sigmoid(z[i])
                open_ = z[i] * sigma
                z[i] = e[i] * (sigma + open_ * (ONE - sigma))
                e[i] = e[i] * open_

    @unrolled
    def walk_back(
        u, delta, A, B, C, D, z, delta_bias, grad_y, borders, before, start, arriving, ends, backs, totals,
        du, ddelta, dz, leaving, dA, dB, dC, dD, dbias,
        options, batch, dim, length, state, per_group_B, per_group_C, chunk,
    ):  # fmt: skip
        shared = cuda.shared.array(0, real_t, alignment=SHARED_ALIGNMENT)
        ahead = cuda.shared.array(ALL_AHEAD, element_t, alignment=SHARED_ALIGNMENT)
        coming = cuda.shared.array(ALL_STATES, real_t, alignment=SHARED_ALIGNMENT)
        a = cuda.local.array(8, real_t)
        h = cuda.local.array(8, real_t)
        h_0 = cuda.local.array(8, real_t)
        g = cuda.local.array(8, real_t)
        sum_A = cuda.local.array(8, real_t)
        us = cuda.local.array(8, real_t)
        raw = cuda.local.array(8, real_t)
        zs = cuda.local.array(8, real_t)
        dt = cuda.local.array(8, real_t)
        xs = cuda.local.array(8, real_t)
        es = cuda.local.array(8, real_t)
        s8 = cuda.local.array(8, real_t)
        q8 = cuda.local.array(8, real_t)
        y8 = cuda.local.array(8, real_t)
        zeros = cuda.local.array(8, real_t)
        words = cuda.local.array(WORDS, word_t)
        sums = cuda.local.array(PARTS, real_t)
        shares = cuda.local.array(SUM_TURNS, real_t)
        bias = cuda.local.array(2, real_t)
        skip = cuda.local.array(2, real_t)
        sum_D = cuda.local.array(2, real_t)
        sum_bias = cuda.local.array(2, real_t)

        tid = types.int64(cuda.threadIdx.x)
        b, d0, first, warp, lane, reads, step = block(dim)
        # of lanes next to each other one map's word, and of those next but one one row's: so each takes half the time
        quad, quarter = (lane & 1) + (lane >> 3) * 2, lane >> 1 & 3
        upper = quarter >> 1
        own, other = quad + 8 * upper, quad + 8 * (1 - upper)
        at_block, part = types.int64(cuda.blockIdx.x), types.int64(cuda.blockIdx.y)
        begin = part * chunk
        end = min(begin + chunk, length)
        mine = 4 * quarter < state  # whether the lane has states at all
        to_other = (other - own) * state
        gated = options & HAS_Z != 0
        odd = quarter & 1 == 1

        read_states(A, (first + own) * state + 4 * quarter, to_other, mine, mine, a)
        prepared(a)
        last, at_total = types.int64(cuda.gridDim.y) - 1, b * dim + first + own
        at_state = at_total * state + 4 * quarter
        a_tile = batch * dim  # of what has a row for each tile or chunk, from one to the next, and of states
        to_next = a_tile * state
        at_chunk = at_state + part * to_next
        starts, returns = mine and options & STARTS != 0, mine and options & RETURNS != 0
        for i in unroll(2):
            bias[i] = load_real(delta_bias, first + reads + 8 * i) if options & HAS_BIAS else ZERO
            skip[i] = load_real(D, first + reads + 8 * i) if options & HAS_D else ZERO
            sum_D[i] = ZERO
            sum_bias[i] = ZERO
        for i in unroll(8):
            sum_A[i] = ZERO
            zeros[i] = ZERO
        last_four = end - 4  # what lies beyond is read from there, and nobody takes it
        row = (b * dim + first + reads) * length
        across = 8 * length
        row_B = map_row(b, d0, dim, per_group_B, state, length)
        row_C = map_row(b, d0, dim, per_group_C, state, length)
        at_rows = ROWS_AT + warp * ROWS + reads * ROW + step
        at_own = ROWS_AT + warp * ROWS + own * ROW + upper * SKEW
        at_other = ROWS_AT + warp * ROWS + other * ROW + (1 - upper) * SKEW
        held = 16 * quad + 4 * quarter
        at_kept = KEPT_AT + warp * FOURS * KEPT + held
        at_sums = SUMS_AT + warp * SUMS + held
        asked, asked_step, to, from_ = asks(lane, reads, step)
        on_way, arrived, states_on_way = warp * 4 * AHEAD + to, warp * 4 * AHEAD + from_, warp * KEPT + held
        asked_row = (b * dim + first + asked) * length + asked_step

        last_tile = (end - 1) // TILE * TILE
        at = asked_row + min(last_tile, end - IN_COPY - asked_step)
        ask(ahead, on_way, u, at, across)
        ask(ahead, on_way + AHEAD, delta, at, across)
        ask(ahead, on_way + 2 * AHEAD, grad_y, at, across)
        if gated:
            ask(ahead, on_way + 3 * AHEAD, z, at, across)
        channel = (last_tile // TILE * batch + b) * dim + first
        read_maps(B, C, row_B, row_C, last_tile, last_four, tid, state, length, words)
        wait_for_launches()
        if options & CARRIED:
            read_states(backs, at_chunk, to_other, mine, mine, g)
            if not saved:
                read_states(ends, at_chunk, to_other, mine, mine, h_0)
        else:
            read_states(arriving, at_state, to_other, returns, returns, g)
            at_last, last_total = at_state + last * to_next, at_total + last * a_tile
            carry_over(
                backs, totals, at_last, last_total, -to_next, -a_tile, last - part, to_other, other - own, mine, a, g
            )
            if not saved:
                read_states(start, at_state, to_other, starts, starts, h_0)
                carry_over(ends, totals, at_state, at_total, to_next, a_tile, part, to_other, other - own, mine, a, h_0)
        ask_states(coming, states_on_way, borders, (channel + own) * state + 4 * quarter, to_other, mine)
        before_own, before_other = ZERO, ZERO
        if not saved:
            before_own, before_other = load_real(before, channel + own), load_real(before, channel + other)
        buffer, pending = 0, -1  # in the other one lie the sums of the four steps before: to begin with, nothing
        for w in unroll(4):
            put(shared, at_sums + BUFFER + w * STEP, (ZERO, ZERO, ZERO, ZERO))
            put(shared, at_sums + BUFFER + w * STEP + 128, (ZERO, ZERO, ZERO, ZERO))
        for done in range(0, last_tile - begin + 1, TILE):
            t0 = last_tile - done
            at, there = row + min(t0 + step, last_four), t0 + step < end
            fours = min(FOURS, (end - t0) >> 2)
            wait_async()
            if SHARED_COPIES:
                cuda.syncwarp()  # what other lanes have waited for
            take(ahead, arrived, us)
            take(ahead, arrived + AHEAD, raw)
            take(ahead, arrived + 2 * AHEAD, es)
            if gated:
                take(ahead, arrived + 3 * AHEAD, zs)
            for i in unroll(8):
                h[i] = ZERO
            if mine:
                four(coming, states_on_way, h, 0)
                four(coming, states_on_way + 128, h, 4)
            if not saved and mine:  # elsewhere 0 · ∞, where ΣΔ is beyond float32
                for j in unroll(4):
                    h[j] += exp2(before_own * a[j]) * h_0[j]
                    h[4 + j] += exp2(before_other * a[4 + j]) * h_0[4 + j]
            for i in unroll(2):
                for j in unroll(4):
                    raw[4 * i + j] += bias[i]
            step_sizes(options, raw, dt)
            through_gate(options, es, zs)
            for i in unroll(8):
                xs[i] = dt[i] * us[i]
            put_rows(shared, at_rows, dt)
            put_rows(shared, at_rows + PLANE, xs)
            put_rows(shared, at_rows + 2 * PLANE, es)
            if t0 + TILE > end:  # beyond it nobody adds up anything
                for k in unroll(3):
                    put_rows(shared, at_rows + (3 + k) * PLANE, zeros)
            put_maps(shared, 0, tid, words)
            cuda.syncthreads()
            if t0 > begin:
                read_maps(B, C, row_B, row_C, t0 - TILE, last_four, tid, state, length, words)
                channel -= a_tile
                ask_states(coming, states_on_way, borders, (channel + own) * state + 4 * quarter, to_other, mine)
                if not saved:
                    before_own, before_other = load_real(before, channel + own), load_real(before, channel + other)
                before_this = asked_row + t0 - TILE
                ask(ahead, on_way, u, before_this, across)
                ask(ahead, on_way + AHEAD, delta, before_this, across)
                ask(ahead, on_way + 2 * AHEAD, grad_y, before_this, across)
                if gated:
                    ask(ahead, on_way + 3 * AHEAD, z, before_this, across)

            leave_states(shared, at_own, at_other, 4 * quarter, at_kept, a, h)
            for turn in range(fours):
                q = fours - 1 - turn
                four_back(
                    shared, at_own + 4 * q, at_other + 4 * q, 4 * quarter + q * FOUR,
                    at_kept + q * KEPT, at_sums + buffer, SUMS_AT + BUFFER - buffer, tid, odd, a, g, sum_A, shares,
                )  # fmt: skip
                write_shares(shares, tid, pending, at_block * state, state, length, dB, dC)
                cuda.syncthreads()
                pending = t0 + 4 * q
                buffer = BUFFER - buffer

            for i in unroll(2):
                four(shared, at_rows + i * TO_NEXT, dt, 4 * i)
                four(shared, at_rows + i * TO_NEXT + 2 * PLANE, es, 4 * i)
                four(shared, at_rows + i * TO_NEXT + 3 * PLANE, q8, 4 * i)
                four(shared, at_rows + i * TO_NEXT + 4 * PLANE, s8, 4 * i)
                four(shared, at_rows + i * TO_NEXT + 5 * PLANE, y8, 4 * i)
                for j in unroll(4):
                    m = 4 * i + j
                    if gated:
                        zs[m] = zs[m] * (y8[m] + skip[i] * us[m])
                    sum_D[i] += es[m] * us[m] if there else ZERO
                    grad = (q8[m] * LN_2 + s8[m] * us[m]) * raw[m]
                    sum_bias[i] += grad
                    q8[m] = grad
                    s8[m] = s8[m] * dt[m] + skip[i] * es[m]
            write_rows(du, at, across, there, s8)
            write_rows(ddelta, at, across, there, q8)
            if gated:
                write_rows(dz, at, across, there, zs)

        next_may_begin()
        for v in unroll(4):
            read_part(shared, SUMS_AT + BUFFER - buffer, tid, v, s8)
            add_part(v, s8, sums)
        exchange(tid, sums, shares)
        write_shares(shares, tid, pending, at_block * state, state, length, dB, dC)
        if part == 0:
            store_states(leaving, (b * dim + first + own) * state + 4 * quarter, to_other, mine, mine, g)
        store_states(dA, at_chunk, to_other, mine, mine, sum_A)
        channel = (part * batch + b) * dim + first + reads
        for i in unroll(2):
            total_D, total_bias = sum_D[i], sum_bias[i]
            total_D += cuda.shfl_xor_sync(FULL, total_D, 1)
            total_D += cuda.shfl_xor_sync(FULL, total_D, 2)
            total_bias += cuda.shfl_xor_sync(FULL, total_bias, 1)
            total_bias += cuda.shfl_xor_sync(FULL, total_bias, 2)
            if step == 0:
                store_real(dD, channel + 8 * i, total_D)
                store_real(dbias, channel + 8 * i, total_bias)

    return walk_back
