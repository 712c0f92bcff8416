"""The production adjoint: the forward kernel's grid of lanes, tile after tile of time from the last to the first.

From the state before the tile, which the forward kernel left, a lane scans its steps forwards for h and backwards for
g, state by state; shuffles carry both over the segments. What it adds up over states, for u and Δ, stays in registers.
What is added up over channels, for B and C, goes through shared memory once a state, is summed in a fixed order over
the block's channels, and then by :mod:`ssm_kernels.sums` over the blocks: no atomic, and the same bits each time.

With s = Re Σ C h and e = ∂ℓ/∂s, g_t = C̄_t e_t + Ā̄_{t+1} g_{t+1} (claims ADJ-1 to ADJ-7). Ā h_{t−1} is a product,
never a difference (ADJ-11 and ADJ-12).
"""

from __future__ import annotations

from functools import cache
from typing import Any, no_type_check

import numpy as np

from ssm_kernels._target import SHARED_ALIGNMENT, cuda, types
from ssm_kernels.arithmetic import inline
from ssm_kernels.intrinsics import (
    ITEMSIZE,
    POINTEES,
    access,
    commit_async,
    pointer,
    shared_load,
    shared_store,
    wait_async,
)
from ssm_kernels.unrolling import unroll, unrolled
from ssm_kernels.variant import (
    FULL,
    HAS_BIAS,
    HAS_D,
    HAS_Z,
    SOFTPLUS,
    STARTS,
    WARP,
    Variant,
    fresh_bits,
    held_states,
    map_stager,
    number_of,
    row_loader,
    row_storer,
    shuffles,
    staged_dtype,
    staged_maps,
)

NEVER = 1 << 40  # a step beyond every sequence


def signature(v: Variant) -> Any:
    io, real, number = pointer(v.dtype), pointer(v.precision), pointer(v.number)
    B, C = pointer(v.map_B), pointer(v.map_C)
    dB, dC = pointer(staged_dtype(v.map_B, v.precision)), pointer(staged_dtype(v.map_C, v.precision))
    seq_idx, integers = types.CPointer(types.int32), (types.int64,) * 8
    return types.void(
        io, io, io, number, B, C, real, io, real, seq_idx, number, number,
        io, io, io, number, dB, dC, real, real, number, *integers,
    )  # fmt: skip


@no_type_check
@cache
def kernel(v: Variant, states: int) -> Any:
    """The kernel for up to `states` states. STARTS says that a gradient of the last state arrives."""
    A_ = v.arithmetic
    softplus, sigmoid, decay, prepared, exp = A_.softplus, A_.sigmoid, A_.decay, A_.prepared, A_.exp
    zoh, zoh_slopes, bilinear, bilinear_slopes = A_.zoh, A_.zoh_slopes, A_.bilinear, A_.bilinear_slopes
    re, conj = A_.re, A_.conj
    real, number, real_t, number_t = A_.real, A_.number, A_.real_type, A_.number_type
    MAMBA, ZOH, BILINEAR = (v.discretization == name for name in ("mamba", "zoh", "bilinear"))
    PACKED, COMPLEX = v.packed, v.is_complex
    VARIABLE_B, VARIABLE_C = not v.constant_B, not v.constant_C
    SEGMENTS, ITEMS, THREADS, TILE, BLOCK = v.segments, v.items, v.threads, v.tile, v.block
    CHANNELS, MANY = v.channels, v.segments > 1
    BLOCK_CHANNELS, LAST_SEGMENT = CHANNELS * v.warps, WARP - CHANNELS
    ZERO, ONE, TWO, NONE, UNIT = real(0), real(1), real(2), number(0), number(1)

    staged_B, staged_C = staged_dtype(v.map_B, v.precision), staged_dtype(v.map_C, v.precision)
    REAL_B, REAL_C = COMPLEX and staged_B == v.precision, COMPLEX and staged_C == v.precision
    WIDTH_B, WIDTH_C = 16 // ITEMSIZE[staged_B], 16 // ITEMSIZE[staged_C]
    WORDS_B, WORDS_C = ITEMS // WIDTH_B, ITEMS // WIDTH_C
    STRIDE_B, STRIDE_C = SEGMENTS * WIDTH_B, SEGMENTS * WIDTH_C
    ask_B, take_B = map_stager(v.map_B, staged_B, v)
    ask_C, take_C = map_stager(v.map_C, staged_C, v)
    B_t, C_t = number_of(staged_B), number_of(staged_C)
    read_B, read_C = shared_load(staged_B), shared_load(staged_C)
    put_B, put_C = channel_sums_writer(staged_B, v), channel_sums_writer(staged_C, v)
    (place_B, sum_B), (place_C, sum_C) = channel_sums(staged_B, v), channel_sums(staged_C, v)
    ROW_B, ROW_C = channel_row(staged_B, v), channel_row(staged_C, v)
    load_B, load_C = access(v.map_B).load, access(v.map_C).load
    store_B, store_C = access(staged_B).store, access(staged_C).store
    zero_B, zero_C = access(staged_B).zero, access(staged_C).zero
    load_real, load_number = access(v.precision).load, access(v.number).load
    store_real, store_number = access(v.precision).store, access(v.number).store
    load_row, store_row = row_loader(v.dtype, ITEMS, v.aligned), row_storer(v.dtype, ITEMS, v.aligned)
    fresh = fresh_bits(ITEMS)
    shuffle_up, shuffle_down = shuffles(COMPLEX, number)

    PLANE = BLOCK * TILE
    room_B, room_C = staged_maps(v, True)
    SIZE_B, SIZE_C, MAIL_B, MAIL_C = room_B.planes, room_C.planes, room_B.mail, room_C.mail
    SUMS_B, SUMS_C = channel_sums_size(staged_B, v), channel_sums_size(staged_C, v)
    SHARED_B, SHARED_C = (2 * SUMS_B if VARIABLE_B else 1), (2 * SUMS_C if VARIABLE_C else 1)
    HELD = held_states(v, states)
    HELD_B, HELD_C = (1 if VARIABLE_B else HELD), (1 if VARIABLE_C else HELD)
    IO_B, IO_C = POINTEES[v.map_B], POINTEES[v.map_C]
    INDEX = types.uint64

    @inline
    @unrolled
    def over_segments(x):
        """The sum over a warp's segments, of a number."""
        for level in unroll(5):
            hop = CHANNELS << level
            if hop < WARP:
                # not xor: the order of the sum is then the same for all lanes, but only the first segment has it all
                x = x + shuffle_down(x, hop)
        return x

    @inline
    def real_over_segments(x):
        hop = CHANNELS
        while hop < WARP:
            x = x + cuda.shfl_down_sync(FULL, x, hop)
            hop *= 2
        return x

    @unrolled
    def adjoint(
        grad_y, u, delta, A, B, C, D, z, delta_bias, seq_idx, borders, arriving,
        du_, ddelta_, dz_, dA_, dB_, dC_, dD_, dbias_, leaving,
        options, batch, dim, length, state, span, per_group_B, per_group_C,
    ):  # fmt: skip
        mail_B = cuda.shared.array(MAIL_B, IO_B, alignment=SHARED_ALIGNMENT)
        mail_C = cuda.shared.array(MAIL_C, IO_C, alignment=SHARED_ALIGNMENT)
        maps_B = cuda.shared.array(SIZE_B, B_t, alignment=SHARED_ALIGNMENT)
        maps_C = cuda.shared.array(SIZE_C, C_t, alignment=SHARED_ALIGNMENT)
        shares_B = cuda.shared.array(SHARED_B, B_t, alignment=SHARED_ALIGNMENT)
        shares_C = cuda.shared.array(SHARED_C, C_t, alignment=SHARED_ALIGNMENT)
        held_a = cuda.shared.array(HELD, number_t)
        held_g = cuda.shared.array(HELD, number_t)
        held_dA = cuda.shared.array(HELD, number_t)
        held_dB = cuda.shared.array(HELD_B, B_t)
        held_dC = cuda.shared.array(HELD_C, C_t)
        dt = cuda.local.array(ITEMS, real_t)
        xs = cuda.local.array(ITEMS, real_t)
        es = cuda.local.array(ITEMS, real_t)
        s = cuda.local.array(ITEMS, real_t)
        q = cuda.local.array(ITEMS, real_t)
        r = cuda.local.array(ITEMS, real_t)
        alphas = cuda.local.array(ITEMS, number_t)
        written = cuda.local.array(ITEMS, number_t)
        word_of_B = cuda.local.array(WIDTH_B, B_t)
        word_of_C = cuda.local.array(WIDTH_C, C_t)

        tid = types.int64(cuda.threadIdx.x)
        lane = tid & 31
        segment = lane // CHANNELS
        channel = (tid >> 5) * CHANNELS + (lane & (CHANNELS - 1))
        first, final = segment == 0, lane >= LAST_SEGMENT
        gated = options & HAS_Z != 0

        # blocks of channels never cross a group
        per_span = (span + BLOCK_CHANNELS - 1) // BLOCK_CHANNELS
        per_batch = dim // span * per_span
        block = types.int64(cuda.blockIdx.x)
        b = block // per_batch
        within = block - b * per_batch
        end_of_span = (within // per_span + 1) * span
        d0 = end_of_span - span + within % per_span * BLOCK_CHANNELS
        live = d0 + channel < end_of_span
        d = d0 + channel if live else d0

        for k in range(tid, state * BLOCK_CHANNELS, THREADS):
            n = k // BLOCK_CHANNELS
            c = d0 + k - n * BLOCK_CHANNELS
            held_a[INDEX(k)] = NONE
            held_g[INDEX(k)] = NONE
            held_dA[INDEX(k)] = NONE
            if not VARIABLE_B:
                held_dB[INDEX(k)] = zero_B
            if not VARIABLE_C:
                held_dC[INDEX(k)] = zero_C
            if c < end_of_span:
                held_a[INDEX(k)] = load_number(A, c * state + n)
                if options & STARTS:
                    held_g[INDEX(k)] = load_number(arriving, (b * dim + c) * state + n)
        bias = load_real(delta_bias, d) if options & HAS_BIAS else ZERO
        skip = load_real(D, d) if options & HAS_D else ZERO
        sum_D = ZERO
        sum_bias = ZERO

        row = (b * dim + d) * length + segment * ITEMS
        row_B = (b * (dim // per_group_B) + d0 // per_group_B) * state * length
        row_C = (b * (dim // per_group_C) + d0 // per_group_C) * state * length
        out_BC = block * state * length
        lane_B, lane_C = segment * WIDTH_B, segment * WIDTH_C
        mine_B, mine_C = channel * ROW_B + segment * WIDTH_B, channel * ROW_C + segment * WIDTH_C
        sharer_B, ours_B, step_B = place_B(tid)
        sharer_C, ours_C, step_C = place_C(tid)
        tiles = (length + TILE - 1) // TILE
        here = BLOCK if BLOCK < state else state
        if VARIABLE_B:
            ask_B(maps_B, 0, mail_B, B, row_B + (tiles - 1) * TILE, length, length - (tiles - 1) * TILE, here, tid)
        if VARIABLE_C:
            ask_C(maps_C, 0, mail_C, C, row_C + (tiles - 1) * TILE, length, length - (tiles - 1) * TILE, here, tid)
        commit_async()
        buffer = 0
        for back in range(tiles):
            tile = tiles - 1 - back
            t0 = tile * TILE
            at = row + t0
            left = length - t0 - segment * ITEMS
            load_row(u, at, left, xs)
            load_row(delta, at, left, dt)
            load_row(grad_y, at, left, es)
            total = ZERO
            bits = 0
            if gated:
                load_row(z, at, left, s)
                for i in unroll(ITEMS):
                    es[i] = es[i] * (s[i] * sigmoid(s[i]))
            for i in unroll(ITEMS):
                dt[i] += bias
            if options & SOFTPLUS:
                for i in unroll(ITEMS):
                    dt[i] = softplus(dt[i])
            for i in unroll(ITEMS):
                if MAMBA:
                    xs[i] = dt[i] * xs[i]
                if COMPLEX:
                    es[i] = TWO * es[i]
                s[i] = ZERO
                q[i] = ZERO
                r[i] = ZERO
            if left < ITEMS:
                for i in unroll(ITEMS):
                    if i >= left:
                        dt[i] = ZERO
                        xs[i] = ZERO
                        es[i] = ZERO
            if not live:
                for i in unroll(ITEMS):
                    es[i] = ZERO
            for i in unroll(ITEMS):
                total += dt[i]
            if PACKED:
                bits = fresh(seq_idx, b * length + t0 + segment * ITEMS, t0 + segment * ITEMS, left)
            for n0 in range(0, state, BLOCK):
                count = min(state - n0, BLOCK)
                here_B, here_C = buffer * PLANE, buffer * PLANE
                from_border = ((tile * batch + b) * state + n0) * dim + d
                h_next = load_number(borders, from_border)
                wait_async()
                if VARIABLE_B:
                    take_B(maps_B, here_B, mail_B, count, tid)
                if VARIABLE_C:
                    take_C(maps_C, here_C, mail_C, count, tid)
                cuda.syncthreads()
                # the next block of states, or the first one of the tile before
                more = n0 + BLOCK < state
                n1 = n0 + BLOCK if more else 0
                t1 = t0 if more else t0 - TILE
                if t1 >= 0:
                    next_count = min(state - n1, BLOCK)
                    there = (1 - buffer) * PLANE
                    if VARIABLE_B:
                        ask_B(maps_B, there, mail_B, B, row_B + n1 * length + t1, length, length - t1, next_count, tid)
                    if VARIABLE_C:
                        ask_C(maps_C, there, mail_C, C, row_C + n1 * length + t1, length, length - t1, next_count, tid)
                commit_async()
                at_B = here_B + lane_B
                at_C = here_C + lane_C
                held = n0 * BLOCK_CHANNELS + channel
                for n in range(count):
                    parity = n & 1  # two buffers of shares in turn: one barrier a state
                    a = held_a[INDEX(held)]
                    came = held_g[INDEX(held)]
                    h_start = h_next
                    if n + 1 < count:
                        from_border += dim
                        h_next = load_number(borders, from_border)
                    if MAMBA:
                        a_prepared = prepared(a)
                    if not VARIABLE_B:
                        fixed_B = load_B(B, d * state + n0 + n)
                        sum_fixed_B = zero_B
                    if not VARIABLE_C:
                        fixed_C = load_C(C, d * state + n0 + n)
                        sum_fixed_C = zero_C

                    P = UNIT
                    h = NONE if MANY else h_start
                    for j in unroll(WORDS_B):
                        if VARIABLE_B:
                            word = read_B(maps_B, at_B + j * STRIDE_B)
                        for k in unroll(WIDTH_B):
                            i = j * WIDTH_B + k
                            b_i = word[k] if VARIABLE_B else fixed_B
                            if MAMBA:
                                alpha = decay(dt[i], a_prepared)
                                x_i = xs[i] * b_i
                            elif ZOH:
                                alpha, weight = zoh(dt[i] * a)
                                x_i = dt[i] * xs[i] * (weight * b_i)
                            else:
                                alpha, weight = bilinear(dt[i] * a)
                                x_i = dt[i] * xs[i] * (weight * b_i)
                                P = P * alpha
                            if PACKED:
                                h = NONE if bits >> i & 1 else alpha * h
                                alpha = NONE if bits >> i & 1 else alpha
                                h = h + x_i
                            else:
                                h = alpha * h + x_i
                            alphas[i] = alpha
                            written[i] = number(x_i) if COMPLEX else x_i
                    g_start = came
                    if MANY:
                        if MAMBA:
                            P = decay(total, a_prepared)
                        elif ZOH:
                            P = exp(total * a)
                        if PACKED:
                            P = NONE if bits else P
                        g = NONE
                        for jj in unroll(WORDS_C):
                            j = WORDS_C - 1 - jj
                            if VARIABLE_C:
                                word = read_C(maps_C, at_C + j * STRIDE_C)
                            for kk in unroll(WIDTH_C):
                                k = WIDTH_C - 1 - kk
                                i = j * WIDTH_C + k
                                c_i = word[k] if VARIABLE_C else fixed_C
                                if REAL_C:
                                    g = conj(alphas[i]) * (number(c_i * es[i]) + g)
                                elif COMPLEX:
                                    g = conj(alphas[i]) * (conj(c_i) * es[i] + g)
                                else:
                                    g = alphas[i] * (c_i * es[i] + g)
                                if PACKED:
                                    g = NONE if bits >> i & 1 else g
                        if first and not (PACKED and bits):
                            h = h + P * h_start
                        if final and not (PACKED and bits):
                            g = g + conj(P) * came
                        P_back = P
                        cut = 1 if bits else 0
                        cut_back = cut
                        for level in unroll(5):
                            hop = CHANNELS << level
                            if hop < WARP:
                                if PACKED:
                                    cut_before = cuda.shfl_up_sync(FULL, types.int32(cut), hop)
                                    cut_after = cuda.shfl_down_sync(FULL, types.int32(cut_back), hop)
                                h_before, P_before = shuffle_up(h, hop), shuffle_up(P, hop)
                                g_after, P_after = shuffle_down(g, hop), shuffle_down(P_back, hop)
                                if lane >= hop:
                                    if PACKED:
                                        h = h + (NONE if cut else P * h_before)
                                        cut = cut | cut_before
                                    else:
                                        h = h + P * h_before
                                    P = P * P_before
                                if lane < WARP - hop:
                                    if PACKED:
                                        g = g + (NONE if cut_back else conj(P_back) * g_after)
                                        cut_back = cut_back | cut_after
                                    else:
                                        g = g + conj(P_back) * g_after
                                    P_back = P_back * P_after
                        h_before, g_after = shuffle_up(h, CHANNELS), shuffle_down(g, CHANNELS)
                        h = h_start if first else h_before
                        g_start = came if final else g_after
                        cuda.syncwarp()  # all lanes have read what the first ones now replace
                        if first:
                            held_g[INDEX(held)] = g
                    else:
                        h = h_start
                    for j in unroll(WORDS_C):
                        if VARIABLE_C:
                            word = read_C(maps_C, at_C + j * STRIDE_C)
                        for k in unroll(WIDTH_C):
                            i = j * WIDTH_C + k
                            c_i = word[k] if VARIABLE_C else fixed_C
                            if PACKED:
                                h = NONE if bits >> i & 1 else h
                            kept = alphas[i] * h
                            if BILINEAR:
                                _, weight = bilinear(dt[i] * a)
                                slope = weight * weight * h
                            else:
                                slope = kept
                            h = kept + written[i]
                            written[i] = slope
                            s[i] += re(c_i * h)
                            share = re(conj(h) * es[i]) if REAL_C else conj(h) * es[i]
                            if VARIABLE_C:
                                word_of_C[k] = share
                            else:
                                sum_fixed_C = sum_fixed_C + share
                        if VARIABLE_C:
                            put_C(shares_C, parity * SUMS_C + mine_C, j, word_of_C)
                    g = g_start
                    sum_a = NONE
                    for jj in unroll(WORDS_B):
                        j = WORDS_B - 1 - jj
                        if VARIABLE_B:
                            word_B = read_B(maps_B, at_B + j * STRIDE_B)
                        for kk in unroll(WIDTH_B):
                            k = WIDTH_B - 1 - kk
                            i = j * WIDTH_B + k
                            if VARIABLE_C:
                                if i % WIDTH_C == WIDTH_C - 1:
                                    word_C = read_C(maps_C, at_C + i // WIDTH_C * STRIDE_C)
                                c_i = word_C[i % WIDTH_C]
                            else:
                                c_i = fixed_C
                            b_i = word_B[k] if VARIABLE_B else fixed_B
                            if REAL_C:
                                g = number(c_i * es[i]) + g
                            elif COMPLEX:
                                g = conj(c_i) * es[i] + g
                            else:
                                g = c_i * es[i] + g
                            kept = g * conj(written[i])
                            if MAMBA:
                                r[i] += re(conj(a) * kept)
                                sum_a = sum_a + dt[i] * kept
                                if REAL_B or not COMPLEX:
                                    q[i] += re(g) * b_i
                                else:
                                    q[i] += re(g * conj(b_i))
                                share = g * xs[i]
                            else:
                                zed = dt[i] * a
                                if ZOH:
                                    alpha, weight = zoh(zed)
                                    _, dweight, dwhole = zoh_slopes(zed, alpha, weight)
                                else:
                                    alpha, weight = bilinear(zed)
                                    _, dweight, dwhole = bilinear_slopes(zed, alpha, weight)
                                q[i] += re(g * conj(weight * b_i))
                                if REAL_B or not COMPLEX:
                                    grad_weight = g * (b_i * xs[i])
                                else:
                                    grad_weight = g * (conj(b_i) * xs[i])
                                r[i] += re(conj(a) * kept + conj(dwhole) * grad_weight)
                                sum_a = sum_a + dt[i] * (kept + conj(dt[i] * dweight) * grad_weight)
                                share = g * (conj(weight) * (dt[i] * xs[i]))
                            share = re(share) if REAL_B else share
                            if VARIABLE_B:
                                word_of_B[k] = share
                            else:
                                sum_fixed_B = sum_fixed_B + share
                            g = conj(alphas[i]) * g
                            if PACKED:
                                g = NONE if bits >> i & 1 else g
                        if VARIABLE_B:
                            put_B(shares_B, parity * SUMS_B + mine_B, j, word_of_B)
                    if not MANY:
                        held_g[INDEX(held)] = g
                    sum_a = over_segments(sum_a)
                    if first:
                        held_dA[INDEX(held)] = held_dA[INDEX(held)] + sum_a
                    if not VARIABLE_B:
                        sum_fixed_B = real_over_segments(sum_fixed_B) if REAL_B else over_segments(sum_fixed_B)
                        if first:
                            held_dB[INDEX(held)] = held_dB[INDEX(held)] + sum_fixed_B
                    if not VARIABLE_C:
                        sum_fixed_C = real_over_segments(sum_fixed_C) if REAL_C else over_segments(sum_fixed_C)
                        if first:
                            held_dC[INDEX(held)] = held_dC[INDEX(held)] + sum_fixed_C
                    if VARIABLE_B or VARIABLE_C:
                        cuda.syncthreads()
                        out = out_BC + (n0 + n) * length + t0
                        if VARIABLE_B:
                            sum_B(shares_B, parity * SUMS_B + ours_B, dB_, out + step_B, length - t0 - step_B, sharer_B)
                        if VARIABLE_C:
                            sum_C(shares_C, parity * SUMS_C + ours_C, dC_, out + step_C, length - t0 - step_C, sharer_C)
                    at_B += TILE
                    at_C += TILE
                    held += BLOCK_CHANNELS
                buffer = 1 - buffer

            # share_B and share_C have served: the rows again, for what is left to do a step
            load_row(u, at, left, xs)
            load_row(grad_y, at, left, es)
            for i in unroll(ITEMS):
                if COMPLEX:
                    s[i] = TWO * s[i]
                if MAMBA:
                    r[i] += q[i] * xs[i]
                q[i] = dt[i] * q[i]
                s[i] += skip * xs[i]
            if gated:
                load_row(z, at, left, dt)
                for i in unroll(ITEMS):
                    sigma = sigmoid(dt[i])
                    gate = dt[i] * sigma
                    s[i] = es[i] * s[i] * (sigma + gate * (ONE - sigma))
                    es[i] = es[i] * gate
                if live:
                    store_row(dz_, at, left, s)
            for i in unroll(ITEMS):
                q[i] += skip * es[i]
                sum_D += es[i] * xs[i]
            if live:
                store_row(du_, at, left, q)
            if options & SOFTPLUS:
                load_row(delta, at, left, dt)
                for i in unroll(ITEMS):
                    r[i] = r[i] * sigmoid(dt[i] + bias)
            if live:
                store_row(ddelta_, at, left, r)
            for i in unroll(ITEMS):
                sum_bias += r[i] if i < left else ZERO
            cuda.syncwarp()

        sum_D, sum_bias = real_over_segments(sum_D), real_over_segments(sum_bias)
        if live and first:
            store_real(dD_, b * dim + d, sum_D)
            store_real(dbias_, b * dim + d, sum_bias)
        cuda.syncthreads()
        for k in range(tid, state * BLOCK_CHANNELS, THREADS):
            n = k // BLOCK_CHANNELS
            c = d0 + k - n * BLOCK_CHANNELS
            if c < end_of_span:
                place = (b * dim + c) * state + n
                store_number(dA_, place, held_dA[INDEX(k)])
                store_number(leaving, place, held_g[INDEX(k)])
                if not VARIABLE_B:
                    store_B(dB_, place, held_dB[INDEX(k)])
                if not VARIABLE_C:
                    store_C(dC_, place, held_dC[INDEX(k)])

    return adjoint


def shared_bytes(v: Variant, states: int) -> int:
    B, C = staged_maps(v, True)
    held = held_states(v, states)
    total = B.bytes + C.bytes + 3 * held * ITEMSIZE[v.number]
    for dtype, constant in ((v.map_B, v.constant_B), (v.map_C, v.constant_C)):
        staged = staged_dtype(dtype, v.precision)
        total += ITEMSIZE[staged] * (held + 16 if constant else 2 * channel_sums_size(staged, v) + 16)
    return total


def channel_row(dtype: str, v: Variant) -> int:
    """Numbers from one channel's shares to the next, so that eight lanes' 16-byte words fall into different banks."""
    return v.tile + 8 // min(v.channels, 8) * (16 // ITEMSIZE[dtype])


def channel_sums_size(dtype: str, v: Variant) -> int:
    return channel_row(dtype, v) * v.channels * v.warps


@no_type_check
def channel_sums_writer(dtype: str, v: Variant) -> Any:
    """Word j of a segment's shares, 16 bytes, goes to j·segments + segment of its channel's row."""
    width, stride, write = 16 // ITEMSIZE[dtype], v.segments * (16 // ITEMSIZE[dtype]), shared_store(dtype)
    four, two = width == 4, width == 2

    @inline
    @unrolled
    def put(shares, at, j, x):
        if four:
            write(shares, at + j * stride, (x[0], x[1], x[2], x[3]))
        elif two:
            write(shares, at + j * stride, (x[0], x[1]))
        else:
            write(shares, at + j * stride, (x[0],))

    return put


@no_type_check
def channel_sums(dtype: str, v: Variant) -> tuple[Any, Any]:
    """The sums of the channels' shares of each step, always in the same order: (`place`, `add_up`).

    `sharers` threads share a column of words: each adds up its rows, then they exchange halves until each has the sum
    of width / sharers steps, or all have that of one. With more columns than threads a thread has several.
    """
    width, row, segments, threads, items = 16 // ITEMSIZE[dtype], channel_row(dtype, v), v.segments, v.threads, v.items
    channels, columns = v.channels * v.warps, v.tile // width
    sharers = max(min(threads // columns, WARP, channels), 1)
    levels = sharers.bit_length() - 1
    halvings = min(levels, width.bit_length() - 1)
    rows, stride = channels // sharers, threads // sharers
    turns = -(-columns // stride)
    one_turn = turns == 1
    kept = width >> halvings
    read, store = shared_load(dtype), access(dtype).store
    is_complex = dtype.startswith("complex")
    number, number_t = np.dtype(dtype).type, number_of(dtype)
    later, all_write = levels - halvings, levels == halvings
    step_of_turn = stride // segments * width if stride >= segments else 0
    whole = stride % segments == 0

    @inline
    @unrolled
    def across(x, hop):
        if is_complex:
            return number(complex(cuda.shfl_xor_sync(FULL, x.real, hop), cuda.shfl_xor_sync(FULL, x.imag, hop)))
        return cuda.shfl_xor_sync(FULL, x, hop)

    @inline
    def step_of(column):
        return column % segments * items + column // segments * width

    @inline
    def place(tid):
        """(which of the sharers, its first word, its first step); a step that is never there for threads too many."""
        sharer = tid & (sharers - 1)
        column = tid // sharers
        busy = column < columns
        column = column if busy else 0
        return sharer, sharer * row + column * width, step_of(column) if busy else NEVER

    @unrolled
    def add_up(shares, base, out, at, left, sharer):
        x = cuda.local.array(width, number_t)
        for turn in unroll(turns):
            here = base + turn * stride * width
            word = read(shares, here)
            for k in unroll(width):
                x[k] = word[k]
            for m in unroll(1, rows):
                word = read(shares, here + m * sharers * row)
                for k in unroll(width):
                    x[k] = x[k] + word[k]
            offset = 0
            for level in unroll(halvings):
                upper = (sharer >> level & 1) == 1
                for k in unroll(width >> level + 1):
                    sent = x[k] if upper else x[k + (width >> level + 1)]
                    own = x[k + (width >> level + 1)] if upper else x[k]
                    x[k] = own + across(sent, 1 << level)
                offset += (width >> level + 1) if upper else 0
            for level in unroll(later):
                x[0] = x[0] + across(x[0], 1 << halvings + level)
            t = offset + turn * step_of_turn
            if all_write or sharer < width:
                for k in unroll(kept):
                    if t + k < left:
                        store(out, at + t + k, x[k])

    assert one_turn or whole
    return place, inline(add_up)
