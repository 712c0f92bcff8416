"""The forward scan by walking with helpers: all of time in one chunk.

Half of a block's warps walk, and the others work for them: while a tile is walked they prepare the next one, and finish
y of the one before. So a walker waits for shared memory alone.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, no_type_check

import numpy as np

from ssm_kernels._target import SHARED_ALIGNMENT, cuda, types
from ssm_kernels.arithmetic import arithmetic, inline
from ssm_kernels.intrinsics import (
    access,
    exp2,
    meeting,
    packed_access,
    pointer,
    shared_store,
    short_access,
)
from ssm_kernels.unrolling import unroll, unrolled
from ssm_kernels.variant import FULL, HAS_BIAS, HAS_D, HAS_Z, SOFTPLUS, STARTS, WARP
from ssm_kernels.walking.helping import helping
from ssm_kernels.walking.parts import reading_four
from ssm_kernels.walking.teams import GROUP, Team


def signature(dtype: str) -> Any:
    io, real, integers = pointer(dtype), pointer("float32"), (types.int64,) * 7
    return types.void(io, io, real, io, io, real, io, real, real, io, real, real, *integers)


@no_type_check
@cache
def kernel(dtype: str, team: Team, every: int) -> Any:
    """A block for the channels of its walkers.

    `borders` become the states before each so many steps, if it is `every` so many. What is read in place of a z that
    is not there is never used.
    """
    load_real = access("float32").load
    ask, ask_map, opened, put_map, read_states, write_states = helping(dtype, team)
    packed, (_, store_four) = packed_access(dtype), short_access(dtype, 4)
    word_t, IN_FOUR = packed.word_t, 4 // packed.numbers
    put, four, meet = shared_store("float32"), reading_four(), meeting(team.threads)
    softplus, sigmoid = arithmetic("float32", False).softplus, arithmetic("float32", False).sigmoid
    ZERO, LOG2_E = np.float32(0), np.float32(math.log2(math.e))
    LEAST = np.float32(np.finfo(np.float32).min)
    real_t, int_t = types.float32, types.int32
    HELD, LANES, OF_WARP, OF_BLOCK, AHEAD = team.held, team.lanes, team.of_warp, team.of_block, team.ahead
    TILE, ROW, PLANE, MAP, OTHER_TILE = team.steps, team.row, team.plane, team.map, team.tile
    WALKERS, GROUPS = team.warps, team.steps // GROUP if AHEAD else 1
    # of each step the first of the 2, 4, 8 or 16 that it is the last one of, or itself
    BEFORE = [[t + 1 - (2 << n) if (t + 1) % (2 << n) == 0 else t for t in range(GROUP)] for n in range(4)]
    CHANNEL_BITS, LEVELS = (OF_WARP - 1).bit_length(), (LANES - 1).bit_length()
    # a lane's states lie as many rows, and the skew, behind those of the lane before
    OF_LANE, SKEW = HELD * ROW + team.skew, team.skew
    # a helper's four steps of a tile, and the channels and states at a time that all helpers have
    FOUR_BITS, FOUR, ACROSS = (TILE // 4 - 1).bit_length(), TILE // 4 - 1, team.across
    DOWN, DOWN_MAP = ACROSS * ROW, ACROSS * ROW + ACROSS // HELD * SKEW
    TURNS, MAP_TURNS = team.turns, team.map_turns
    HELD_FOURS, NUMBERS = 4 * HELD, 4 * TURNS
    SAVES, EACH = every > 0, every == GROUP
    WORDS, MAP_WORDS = TURNS * IN_FOUR, 2 * MAP_TURNS * IN_FOUR

    # the walkers

    @inline
    @unrolled
    def read_steps(shared, at, at_B, dt, x, b, c):
        four(shared, at, dt, 0)
        four(shared, at + PLANE, x, 0)
        for j in unroll(HELD):
            four(shared, at_B + j * ROW, b, 4 * j)
            four(shared, at_B + j * ROW + MAP, c, 4 * j)

    @inline
    @unrolled
    def walk_group(shared, at, at_B, share, odd, more, a, h, dt, x, b, c):
        """Sixteen steps, and their y in the channel's row.

        With steps read `AHEAD`, these are its first four, and when it is done the next group's, if there is one `more`.
        """
        y = cuda.local.array(GROUP, real_t)
        next_dt = cuda.local.array(4, real_t)
        next_x = cuda.local.array(4, real_t)
        next_b = cuda.local.array(HELD_FOURS, real_t)
        next_c = cuda.local.array(HELD_FOURS, real_t)
        for q in unroll(GROUP // 4):
            if AHEAD:
                if more or q < GROUP // 4 - 1:
                    read_steps(shared, at + 4 * q + 4, at_B + 4 * q + 4, next_dt, next_x, next_b, next_c)
            else:
                read_steps(shared, at + 4 * q, at_B + 4 * q, dt, x, b, c)
            for w in unroll(4):
                y[4 * q + w] = ZERO
                for j in unroll(HELD):
                    # one operation from step to step; the compiler would fuse x·b, and make it two
                    h[j] = cuda.fma(exp2(dt[w] * a[j]), h[j], x[w] * b[4 * j + w])
                    y[4 * q + w] += h[j] * c[4 * j + w]
                # over a channel's lanes, as soon as two steps are there: two lanes add up both, and each keeps one
                for level in unroll(LEVELS):
                    for i in unroll(BEFORE[level][4 * q + w], 4 * q + w, 2 << level):
                        sent = y[i] if odd[level] else y[i + (1 << level)]
                        kept = y[i + (1 << level)] if odd[level] else y[i]
                        y[i] = kept + cuda.shfl_xor_sync(FULL, sent, OF_WARP << level)
            if AHEAD:
                for i in unroll(4):
                    dt[i] = next_dt[i]
                    x[i] = next_x[i]
                for i in unroll(HELD_FOURS):
                    b[i] = next_b[i]
                    c[i] = next_c[i]
        for i in unroll(0, GROUP, LANES):
            shared[types.uint64(types.int64(at) + 2 * PLANE + share + i)] = y[i]

    # those who work for them

    @inline
    @unrolled
    def prepare(options, shared, to, to_map, us, deltas, maps, has, bias, there):
        """Δ, Δu and the maps of a tile to where walkers read them."""
        x = cuda.local.array(NUMBERS, real_t)
        dt = cuda.local.array(NUMBERS, real_t)
        opened(us, x)
        opened(deltas, dt)
        for i in unroll(TURNS):
            for j in unroll(4):
                dt[4 * i + j] += bias[i]
        if options & SOFTPLUS:
            for i in unroll(NUMBERS):
                dt[i] = softplus(dt[i])
        for i in unroll(TURNS):
            for j in unroll(4):
                x[4 * i + j] = dt[4 * i + j] * x[4 * i + j]
            if there:
                put(shared, to + i * DOWN, (dt[4 * i], dt[4 * i + 1], dt[4 * i + 2], dt[4 * i + 3]))
                put(shared, to + i * DOWN + PLANE, (x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]))
            else:  # beyond the end states stay as they are
                put(shared, to + i * DOWN, (ZERO, ZERO, ZERO, ZERO))
                put(shared, to + i * DOWN + PLANE, (ZERO, ZERO, ZERO, ZERO))
        for i in unroll(MAP_TURNS):
            put_map(shared, to_map + i * DOWN_MAP, maps, i, has[i] and there)
            put_map(shared, to_map + i * DOWN_MAP + MAP, maps, MAP_TURNS + i, has[i] and there)

    @inline
    @unrolled
    def finish(options, y, at, across, shared, from_, us, zs, skip, there):
        """y of a tile that has been walked, with D·u and behind the gate."""
        out = cuda.local.array(4, real_t)
        x = cuda.local.array(NUMBERS, real_t)
        z = cuda.local.array(NUMBERS, real_t)
        opened(us, x)
        opened(zs, z)
        if there:
            for i in unroll(TURNS):
                four(shared, from_ + i * DOWN, out, 0)
                for j in unroll(4):
                    out[j] += skip[i] * x[4 * i + j]
                if options & HAS_Z:
                    for j in unroll(4):
                        out[j] *= z[4 * i + j] * sigmoid(z[4 * i + j])
                store_four(y, at + i * across, (out[0], out[1], out[2], out[3]))

    @unrolled
    def walk(
        u, delta, A, B, C, D, z, delta_bias, start, y, last, borders,
        options, batch, dim, length, state, per_group_B, per_group_C,
    ):  # fmt: skip
        shared = cuda.shared.array(0, real_t, alignment=SHARED_ALIGNMENT)  # two tiles: maps, Δ, Δu and y of each
        a = cuda.local.array(HELD, real_t)
        h = cuda.local.array(HELD, real_t)
        dt = cuda.local.array(4, real_t)
        x = cuda.local.array(4, real_t)
        b = cuda.local.array(HELD_FOURS, real_t)
        c = cuda.local.array(HELD_FOURS, real_t)
        us = cuda.local.array(WORDS, word_t)
        deltas = cuda.local.array(WORDS, word_t)
        zs = cuda.local.array(WORDS, word_t)
        maps = cuda.local.array(MAP_WORDS, word_t)
        us_of_this = cuda.local.array(WORDS, word_t)
        us_of_next = cuda.local.array(WORDS, word_t)
        bias = cuda.local.array(TURNS, real_t)
        skip = cuda.local.array(TURNS, real_t)
        at_B = cuda.local.array(MAP_TURNS, types.int64)
        at_C = cuda.local.array(MAP_TURNS, types.int64)
        has = cuda.local.array(MAP_TURNS, types.boolean)

        tid = int_t(cuda.threadIdx.x)
        warp, lane = tid >> 5, tid & 31
        per_batch = dim // OF_BLOCK
        at_block = types.int64(cuda.blockIdx.x)
        entry = at_block // per_batch
        d0 = (at_block - entry * per_batch) * OF_BLOCK
        # by a vote the compiler knows that a warp's lanes agree
        if cuda.any_sync(FULL, warp >= WALKERS):
            item = tid - WALKERS * WARP
            row, step = types.int64(item >> FOUR_BITS), 4 * (item & FOUR)
            across = ACROSS * length
            at_row = (entry * dim + d0 + row) * length
            for i in unroll(TURNS):
                channel = d0 + row + i * ACROSS
                bias[i] = load_real(delta_bias, channel) if options & HAS_BIAS else ZERO
                skip[i] = load_real(D, channel) if options & HAS_D else ZERO
            map_B = (entry * (dim // per_group_B) + d0 // per_group_B) * state
            map_C = (entry * (dim // per_group_C) + d0 // per_group_C) * state
            for i in unroll(MAP_TURNS):
                n = row + i * ACROSS
                has[i] = n < state
                n = min(n, state - 1)
                at_B[i] = (map_B + n) * length
                at_C[i] = (map_C + n) * length
            first = int_t(row * ROW + step)
            skewed = int_t(row // HELD * SKEW)
            to, last_four = first + OTHER_TILE, length - 4  # what lies beyond is read from there, and nobody takes it

            # no branch around what is asked for: where two paths meet it would be waited for
            t = min(types.int64(step), last_four)
            ask(u, at_row + t, across, us)
            ask(delta, at_row + t, across, deltas)
            ask_map(B, at_B, t, 0, maps)
            ask_map(C, at_C, t, MAP_TURNS, maps)
            prepare(options, shared, first + 2 * MAP, first + skewed, us, deltas, maps, has, bias, step < length)
            for i in unroll(WORDS):
                us_of_this[i] = us[i]
            ask(z, at_row + t, across, zs)
            t = min(TILE + step, last_four)
            ask(u, at_row + t, across, us)
            ask(delta, at_row + t, across, deltas)
            ask_map(B, at_B, t, 0, maps)
            ask_map(C, at_C, t, MAP_TURNS, maps)
            meet()
            for t0 in range(0, length, TILE):  # which is walked now
                more = t0 + TILE + step < length
                prepare(options, shared, to + 2 * MAP, to + skewed, us, deltas, maps, has, bias, more)
                for i in unroll(WORDS):
                    us_of_next[i] = us[i]
                t = min(t0 + 2 * TILE + step, last_four)
                ask(u, at_row + t, across, us)
                ask(delta, at_row + t, across, deltas)
                ask_map(B, at_B, t, 0, maps)
                ask_map(C, at_C, t, MAP_TURNS, maps)
                meet()
                to = int_t(2 * first + OTHER_TILE - to)
                t = t0 + step
                at_y = to + 2 * MAP + 2 * PLANE
                finish(options, y, at_row + t, across, shared, at_y, us_of_this, zs, skip, t < length)
                ask(z, at_row + min(t + TILE, last_four), across, zs)
                for i in unroll(WORDS):
                    us_of_this[i] = us_of_next[i]
        else:
            share, of_block = lane >> CHANNEL_BITS, warp * OF_WARP + (lane & (OF_WARP - 1))
            odd = (share & 1 == 1, share & 2 == 2, share & 4 == 4, share & 8 == 8)
            states = HELD * share  # the lane's begin there
            at_A = (d0 + of_block) * state + states
            at_state = at_A + entry * dim * state
            for j in unroll(HELD):
                a[j] = ZERO
                h[j] = ZERO
            read_states(A, at_A, states, state, a)
            for j in unroll(HELD):
                a[j] = a[j] * LOG2_E
                a[j] = LEAST if a[j] < LEAST else a[j]  # beyond the end 0 · a is 0
            if options & STARTS:
                read_states(start, at_state, states, state, h)
            first, first_B = int_t(2 * MAP + of_block * ROW), int_t(share * OF_LANE)
            at, at_map = first, first_B
            meet()
            for left in range(int_t(length), int_t(0), int_t(-TILE)):
                steps = min(left, int_t(TILE))
                if AHEAD:
                    read_steps(shared, at, at_map, dt, x, b, c)
                for s in range(int_t(0), steps, int_t(GROUP * GROUPS)):
                    for g in unroll(GROUPS):
                        if SAVES and s + GROUP * g < steps and (EACH or (s + GROUP * g) % every == 0):
                            border = (length - left + s + GROUP * g) // every
                            write_states(borders, border * batch * dim * state + at_state, states, state, h)
                        group, more = s + GROUP * g, g < GROUPS - 1
                        walk_group(shared, at + group, at_map + group, share, odd, more, a, h, dt, x, b, c)
                meet()
                at, at_map = int_t(2 * first + OTHER_TILE - at), int_t(2 * first_B + OTHER_TILE - at_map)
            write_states(last, at_state, states, state, h)

    return walk
