"""The production forward scan: a warp is a grid of lanes, channels by segments of time.

    lane = segment · channels + channel        channels · segments = 32

A lane holds `items` consecutive steps of one channel in registers: Δ, Δu and y. State by state it scans them; then
the segments' ends are scanned with shuffles of (decay, state), where a segment's decay is e^{AΣΔ}; and each lane goes
over its steps again from the state that its segment begins with. A state costs one exponential a step, and B and C are
read from shared memory, staged once for all channels of the block, while the next block of states is on its way.

The same kernel, without C and y, leaves the state before every tile, from which the adjoint starts again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, no_type_check

from ssm_kernels._target import SHARED_ALIGNMENT, cuda, types
from ssm_kernels.intrinsics import (
    ITEMSIZE,
    POINTEES,
    access,
    commit_async,
    pointer,
    shared_load,
    wait_async,
    wait_async_but_last,
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
    row_mail,
    row_storer,
    shuffles,
    staged_dtype,
    staged_maps,
)


def signature(v: Variant) -> Any:
    io, real, number = pointer(v.dtype), pointer(v.precision), pointer(v.number)
    maps = (pointer(v.map_B), pointer(v.map_C))
    seq_idx, integers = types.CPointer(types.int32), (types.int64,) * 8
    return types.void(io, io, number, *maps, real, io, real, number, seq_idx, io, number, number, *integers)


@dataclass(frozen=True)
class Shared:
    """Numbers of each shared array, and their bytes."""

    row: int
    row_z: int
    mail_B: int
    mail_C: int
    maps_B: int
    maps_C: int
    held: int
    bytes: int


def shared(v: Variant, states: int, borders: bool) -> Shared:
    row = v.items * v.threads if v.aligned and v.ahead else 16
    row_z = 16 if borders else row
    B, C = staged_maps(v, not borders)
    held = held_states(v, states)
    io = ITEMSIZE[v.dtype] * (2 * row + row_z)
    return Shared(
        row, row_z, B.mail, C.mail, B.planes, C.planes, held, io + B.bytes + C.bytes + 2 * held * ITEMSIZE[v.number]
    )


def shared_bytes(v: Variant, states: int, borders: bool) -> int:
    return shared(v, states, borders).bytes


@no_type_check
@cache
def kernel(v: Variant, states: int, borders: bool) -> Any:
    """The kernel for up to `states` states; with `borders` it writes the states before each tile in place of y."""
    A_ = v.arithmetic
    softplus, sigmoid, decay, prepared, exp, re = A_.softplus, A_.sigmoid, A_.decay, A_.prepared, A_.exp, A_.re
    zoh, bilinear = A_.zoh, A_.bilinear
    real, number, real_t, number_t = A_.real, A_.number, A_.real_type, A_.number_type
    MAMBA, ZOH = v.discretization == "mamba", v.discretization == "zoh"
    BILINEAR = v.discretization == "bilinear"
    PACKED = v.packed
    READ_OUT, BORDERS, COMPLEX, AHEAD = not borders, borders, v.is_complex, v.ahead
    VARIABLE_B, VARIABLE_C = not v.constant_B, not v.constant_C and not borders
    SEGMENTS, ITEMS, THREADS, TILE, BLOCK, TOGETHER = v.segments, v.items, v.threads, v.tile, v.block, v.together
    CHANNELS, MANY = v.channels, v.segments > 1
    BLOCK_CHANNELS, LAST_SEGMENT = CHANNELS * v.warps, WARP - CHANNELS
    ZERO, TWO, NONE = real(0), real(2), number(0)
    ONE = number(1)

    staged_B, staged_C = staged_dtype(v.map_B, v.precision), staged_dtype(v.map_C, v.precision)
    WIDTH_B, WIDTH_C = 16 // ITEMSIZE[staged_B], 16 // ITEMSIZE[staged_C]
    WORDS_B, WORDS_C = ITEMS // WIDTH_B, ITEMS // WIDTH_C
    STRIDE_B, STRIDE_C = SEGMENTS * WIDTH_B, SEGMENTS * WIDTH_C
    ask_B, take_B = map_stager(v.map_B, staged_B, v)
    ask_C, take_C = map_stager(v.map_C, staged_C, v)
    B_t, C_t = number_of(staged_B), number_of(staged_C)
    read_B, read_C = shared_load(staged_B), shared_load(staged_C)
    load_B, load_C = access(v.map_B).load, access(v.map_C).load
    load_real, load_number, store_number = access(v.precision).load, access(v.number).load, access(v.number).store
    ask_row, take_row = row_mail(v.dtype, v)
    load_row = row_loader(v.dtype, ITEMS, v.aligned)
    store_row = row_storer(v.dtype, ITEMS, v.aligned)
    fresh = fresh_bits(ITEMS)
    shuffle_up, _ = shuffles(v.is_complex, number)

    PLANE = BLOCK * TILE
    room = shared(v, states, borders)
    ROWS, ROWS_Z, MAIL_B, MAIL_C, HELD = room.row, room.row_z, room.mail_B, room.mail_C, room.held
    SIZE_B, SIZE_C = room.maps_B, room.maps_C
    IO, IO_B, IO_C = POINTEES[v.dtype], POINTEES[v.map_B], POINTEES[v.map_C]
    TOGETHER_ITEMS = TOGETHER * ITEMS
    INDEX = types.uint64

    @unrolled
    def scan(
        u, delta, A, B, C, D, z, delta_bias, start, seq_idx, y, last, borders_,
        options, batch, dim, length, state, span, per_group_B, per_group_C,
    ):  # fmt: skip
        mail_u = cuda.shared.array(ROWS, IO, alignment=SHARED_ALIGNMENT)
        mail_delta = cuda.shared.array(ROWS, IO, alignment=SHARED_ALIGNMENT)
        mail_z = cuda.shared.array(ROWS_Z, IO, alignment=SHARED_ALIGNMENT)
        mail_B = cuda.shared.array(MAIL_B, IO_B, alignment=SHARED_ALIGNMENT)
        mail_C = cuda.shared.array(MAIL_C, IO_C, alignment=SHARED_ALIGNMENT)
        maps_B = cuda.shared.array(SIZE_B, B_t, alignment=SHARED_ALIGNMENT)
        maps_C = cuda.shared.array(SIZE_C, C_t, alignment=SHARED_ALIGNMENT)
        held_a = cuda.shared.array(HELD, number_t)
        held_h = cuda.shared.array(HELD, number_t)
        dt = cuda.local.array(ITEMS, real_t)
        du = cuda.local.array(ITEMS, real_t)
        s = cuda.local.array(ITEMS, real_t)
        gate = cuda.local.array(ITEMS, real_t)
        next_u = cuda.local.array(ITEMS, real_t)
        next_delta = cuda.local.array(ITEMS, real_t)
        e = cuda.local.array(TOGETHER_ITEMS, number_t)
        x = cuda.local.array(TOGETHER_ITEMS, number_t)
        ends = cuda.local.array(TOGETHER, number_t)
        decays = cuda.local.array(TOGETHER, number_t)
        starts = cuda.local.array(TOGETHER, number_t)

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
            held_h[INDEX(k)] = NONE
            if c < end_of_span:
                a = load_number(A, c * state + n)
                held_a[INDEX(k)] = prepared(a) if MAMBA else a
                if options & STARTS:
                    held_h[INDEX(k)] = load_number(start, (b * dim + c) * state + n)
        bias = load_real(delta_bias, d) if options & HAS_BIAS else ZERO
        skip = load_real(D, d) if options & HAS_D else ZERO

        row = (b * dim + d) * length + segment * ITEMS
        row_B = (b * (dim // per_group_B) + d0 // per_group_B) * state * length
        row_C = (b * (dim // per_group_C) + d0 // per_group_C) * state * length
        lane_B, lane_C = segment * WIDTH_B, segment * WIDTH_C
        here = BLOCK if BLOCK < state else state
        left = length - segment * ITEMS
        if AHEAD:
            if VARIABLE_B:
                ask_B(maps_B, 0, mail_B, B, row_B, length, length, here, tid)
            if VARIABLE_C:
                ask_C(maps_C, 0, mail_C, C, row_C, length, length, here, tid)
            ask_row(mail_u, u, row, left, tid)
            ask_row(mail_delta, delta, row, left, tid)
            commit_async()
        else:
            load_row(u, row, left, next_u)
            load_row(delta, row, left, next_delta)
        buffer = 0
        for t0 in range(0, length, TILE):
            at = row + t0
            left = length - t0 - segment * ITEMS
            total = ZERO
            bits = 0
            for n0 in range(0, state, BLOCK):
                count = min(state - n0, BLOCK)
                here_B, here_C = buffer * PLANE, buffer * PLANE
                if AHEAD:
                    if n0 == BLOCK:
                        wait_async_but_last()
                    else:
                        wait_async()
                else:
                    cuda.syncthreads()  # the block of states before has been read
                    if VARIABLE_B:
                        ask_B(maps_B, 0, mail_B, B, row_B + n0 * length + t0, length, length - t0, count, tid)
                    if VARIABLE_C:
                        ask_C(maps_C, 0, mail_C, C, row_C + n0 * length + t0, length, length - t0, count, tid)
                    wait_async()
                if VARIABLE_B:
                    take_B(maps_B, here_B, mail_B, count, tid)
                if VARIABLE_C:
                    take_C(maps_C, here_C, mail_C, count, tid)
                cuda.syncthreads()
                if AHEAD:
                    # the next block of states, or the first one of the next tile
                    more = n0 + BLOCK < state
                    n1 = n0 + BLOCK if more else 0
                    t1 = t0 if more else t0 + TILE
                    if t1 < length:
                        next_count = min(state - n1, BLOCK)
                        there = (1 - buffer) * PLANE
                        if VARIABLE_B:
                            ask_B(
                                maps_B, there, mail_B, B, row_B + n1 * length + t1, length, length - t1, next_count, tid
                            )  # fmt: skip
                        if VARIABLE_C:
                            ask_C(
                                maps_C, there, mail_C, C, row_C + n1 * length + t1, length, length - t1, next_count, tid
                            )  # fmt: skip
                    commit_async()
                if n0 == 0:
                    if AHEAD:
                        take_row(mail_u, u, at, left, tid, s)
                        take_row(mail_delta, delta, at, left, tid, dt)
                        if t0 + TILE < length:
                            ask_row(mail_u, u, at + TILE, left - TILE, tid)
                            ask_row(mail_delta, delta, at + TILE, left - TILE, tid)
                        if READ_OUT and gated:
                            ask_row(mail_z, z, at, left, tid)
                        commit_async()
                    else:
                        for i in unroll(ITEMS):
                            s[i] = next_u[i]
                            dt[i] = next_delta[i]
                        load_row(u, at + TILE, left - TILE, next_u)
                        load_row(delta, at + TILE, left - TILE, next_delta)
                        if READ_OUT and gated:
                            load_row(z, at, left, gate)
                    for i in unroll(ITEMS):
                        dt[i] += bias
                    if options & SOFTPLUS:
                        for i in unroll(ITEMS):
                            dt[i] = softplus(dt[i])
                    for i in unroll(ITEMS):
                        du[i] = dt[i] * s[i]
                        s[i] = skip * s[i]
                    if left < ITEMS:
                        for i in unroll(ITEMS):
                            if i >= left:
                                dt[i] = ZERO
                                du[i] = ZERO
                    for i in unroll(ITEMS):
                        total += dt[i]
                    if PACKED:
                        bits = fresh(seq_idx, b * length + t0 + segment * ITEMS, t0 + segment * ITEMS, left)
                at_B = here_B + lane_B
                at_C = here_C + lane_C
                held = n0 * BLOCK_CHANNELS + channel
                for n in range(0, count, TOGETHER):
                    for w in unroll(TOGETHER):
                        a = held_a[INDEX(held + w * BLOCK_CHANNELS)]
                        starts[w] = held_h[INDEX(held + w * BLOCK_CHANNELS)]
                        if not VARIABLE_B:
                            fixed_B = load_B(B, d * state + n0 + n + w)
                        h = NONE if MANY else starts[w]
                        if BILINEAR:
                            decays[w] = ONE
                        for j in unroll(WORDS_B):
                            if VARIABLE_B:
                                word = read_B(maps_B, at_B + (w * WORDS_B + j) * STRIDE_B)
                            for k in unroll(WIDTH_B):
                                i = j * WIDTH_B + k
                                b_i = word[k] if VARIABLE_B else fixed_B
                                if MAMBA:
                                    alpha = decay(dt[i], a)
                                    x_i = du[i] * b_i
                                elif ZOH:
                                    alpha, weight = zoh(dt[i] * a)
                                    x_i = du[i] * (weight * b_i)
                                else:
                                    alpha, weight = bilinear(dt[i] * a)
                                    x_i = du[i] * (weight * b_i)
                                    decays[w] = decays[w] * alpha
                                if PACKED:
                                    h = NONE if bits >> i & 1 else alpha * h
                                    alpha = NONE if bits >> i & 1 else alpha
                                    h = h + x_i
                                else:
                                    h = alpha * h + x_i
                                e[w * ITEMS + i] = alpha
                                x[w * ITEMS + i] = number(x_i) if COMPLEX else x_i
                        if MANY:
                            if MAMBA:
                                decays[w] = decay(total, a)
                            elif ZOH:
                                decays[w] = exp(total * a)
                            if PACKED:
                                decays[w] = NONE if bits else decays[w]
                            if first and not (PACKED and bits):
                                h = h + decays[w] * starts[w]
                            ends[w] = h
                        else:
                            ends[w] = h
                    if MANY:
                        cut = 1 if bits else 0
                        for level in unroll(5):
                            hop = CHANNELS << level
                            if hop < WARP:
                                if PACKED:
                                    cut_before = cuda.shfl_up_sync(FULL, types.int32(cut), hop)
                                for w in unroll(TOGETHER):
                                    h_before = shuffle_up(ends[w], hop)
                                    decay_before = shuffle_up(decays[w], hop)
                                    if lane >= hop:
                                        if PACKED:
                                            ends[w] = ends[w] + (NONE if cut else decays[w] * h_before)
                                        else:
                                            ends[w] = ends[w] + decays[w] * h_before
                                        decays[w] = decays[w] * decay_before
                                if PACKED and lane >= hop:
                                    cut = cut | cut_before
                    cuda.syncwarp()  # all lanes have read the state that the last ones now replace
                    for w in unroll(TOGETHER):
                        place = held + w * BLOCK_CHANNELS
                        if BORDERS and first and live:
                            store_number(borders_, ((t0 // TILE * batch + b) * state + n0 + n + w) * dim + d, starts[w])
                        h_before = shuffle_up(ends[w], CHANNELS) if MANY else starts[w]
                        if final:
                            held_h[INDEX(place)] = ends[w]
                        h = starts[w] if first else h_before
                        if READ_OUT:
                            if not VARIABLE_C:
                                fixed_C = load_C(C, d * state + n0 + n + w)
                            for j in unroll(WORDS_C):
                                if VARIABLE_C:
                                    word = read_C(maps_C, at_C + (w * WORDS_C + j) * STRIDE_C)
                                for k in unroll(WIDTH_C):
                                    i = j * WIDTH_C + k
                                    c_i = word[k] if VARIABLE_C else fixed_C
                                    if PACKED:
                                        h = (NONE if bits >> i & 1 else e[w * ITEMS + i] * h) + x[w * ITEMS + i]
                                    else:
                                        h = e[w * ITEMS + i] * h + x[w * ITEMS + i]
                                    s[i] += TWO * re(c_i * h) if COMPLEX else c_i * h
                    at_B += TOGETHER * TILE
                    at_C += TOGETHER * TILE
                    held += TOGETHER * BLOCK_CHANNELS
                if AHEAD:
                    buffer = 1 - buffer
            if READ_OUT:
                if gated:
                    if AHEAD:
                        wait_async()
                        take_row(mail_z, z, at, left, tid, gate)
                    for i in unroll(ITEMS):
                        s[i] = s[i] * (gate[i] * sigmoid(gate[i]))
                if live:
                    store_row(y, at, left, s)
            cuda.syncwarp()
        cuda.syncthreads()
        for k in range(tid, state * BLOCK_CHANNELS, THREADS):
            n = k // BLOCK_CHANNELS
            c = d0 + k - n * BLOCK_CHANNELS
            if c < end_of_span:
                store_number(last, (b * dim + c) * state + n, held_h[INDEX(k)])

    return scan
