"""Kernel 1 by walking: what each chunk of time does to the state that it begins with, and to the Āg that comes back.

Half of a block's warps walk, and the others prepare the next tile for them. A walker adds up nothing over its lanes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, no_type_check

import numpy as np

from ssm_kernels._target import SHARED_ALIGNMENT, cuda, types
from ssm_kernels.arithmetic import arithmetic, inline
from ssm_kernels.intrinsics import (
    access,
    exp2,
    meeting,
    next_may_begin,
    packed_access,
    pointer,
    shared_store,
)
from ssm_kernels.unrolling import unroll, unrolled
from ssm_kernels.variant import FULL, HAS_BIAS, HAS_Z, SOFTPLUS, WARP
from ssm_kernels.walking.helping import helping
from ssm_kernels.walking.parts import LONG, SHORT, reading_four
from ssm_kernels.walking.teams import Team


@dataclass(frozen=True)
class Ways:
    """What is walked through: `forth` for the state, `back` for Āg, or both; `bordered`, for the states on the way."""

    forth: bool = True
    back: bool = False
    bordered: bool = False

    def __str__(self) -> str:
        return f"{'forth' * self.forth}{' and ' * (self.forth and self.back)}{'back' * self.back}" + (
            ", with borders" if self.bordered else ""
        )

    @property
    def both(self) -> bool:
        return self.forth and self.back

    @property
    def maps(self) -> int:
        return self.forth + self.back

    @property
    def rows(self) -> int:
        """Of a channel in a tile: Δ, and Δu, ∂ℓ/∂y or both."""
        return 1 + self.maps

    def team(self, warps: int) -> Team:
        return Team(8, warps, LONG.steps, ahead=False, blocks=2 if self.both else 3)

    def tile(self, team: Team) -> int:
        """Numbers."""
        return self.maps * team.map + self.rows * team.plane

    def shared_bytes(self, warps: int) -> int:
        """Of a block, all of it dynamic: two tiles."""
        return 2 * 4 * self.tile(self.team(warps))


def signature(dtype: str) -> Any:
    io, real, integers = pointer(dtype), pointer("float32"), (types.int64,) * 8
    return types.void(io, io, real, io, io, io, real, io, *(real,) * 5, *integers)


@no_type_check
@cache
def kernel(dtype: str, ways: Ways, warps: int) -> Any:
    """From a state of zero, a block for 16 · `warps` channels and a chunk of time.

    `ends` are the chunk's last states, `backs` Āg at its first step where nothing comes back to its last, and `totals`
    ΣΔ over it. If it is bordered, `borders` are the states before each short tile, and `before` is ΣΔ up to there.
    """
    team = ways.team(warps)
    ask, ask_map, opened, put_map, read_states, write_states = helping(dtype, team)
    load_real, store_real = access("float32").load, access("float32").store
    put, four, meet = shared_store("float32"), reading_four(), meeting(team.threads)
    softplus, sigmoid = arithmetic("float32", False).softplus, arithmetic("float32", False).sigmoid
    word_t, IN_FOUR = packed_access(dtype).word_t, 4 // packed_access(dtype).numbers
    ZERO, ONE, LOG2_E = np.float32(0), np.float32(1), np.float32(math.log2(math.e))
    LEAST = np.float32(np.finfo(np.float32).min)
    real_t, int_t = types.float32, types.int32
    FORTH, BACK, BORDERED, WALKERS = ways.forth, ways.back, ways.bordered, warps
    FIRST = 0 if FORTH else 1  # chunk that is walked through: nobody asks for what the first one sends back
    HELD, OF_WARP, OF_BLOCK = team.held, team.of_warp, team.of_block
    TILE, ROW, PLANE, MAP, SKEW, OTHER_TILE = team.steps, team.row, team.plane, team.map, team.skew, ways.tile(team)
    # of a tile: B's map and C's, Δ, Δu and ∂ℓ/∂y, of which some may not be there
    OF_C, DELTA = (MAP if FORTH else 0), ways.maps * MAP
    E_BEHIND = 2 * PLANE if FORTH else PLANE
    OF_LANE, CHANNEL_BITS = HELD * ROW + SKEW, (OF_WARP - 1).bit_length()
    FOUR_BITS, FOUR, ACROSS = (TILE // 4 - 1).bit_length(), TILE // 4 - 1, team.across
    TURNS, MAP_TURNS, C_TURNS = team.turns, team.map_turns, (team.map_turns if FORTH else 0)
    DOWN, NUMBERS, HELD_FOURS = ACROSS * ROW, 4 * TURNS, 4 * HELD
    WORDS, MAP_WORDS = TURNS * IN_FOUR, ways.maps * MAP_TURNS * IN_FOUR
    BORDER = SHORT.steps  # a long tile is two short ones
    # one way alone, with fours that are not all written out, leaves room for a third block
    FOURS = 4 if ways.both else 2
    STEPS = 4 * FOURS

    @inline
    @unrolled
    def walk_four(shared, at, at_map, a, h, back, decay):
        d = cuda.local.array(4, real_t)
        x = cuda.local.array(4, real_t)
        e = cuda.local.array(4, real_t)
        b = cuda.local.array(HELD_FOURS, real_t)
        c = cuda.local.array(HELD_FOURS, real_t)
        four(shared, at, d, 0)
        if FORTH:
            four(shared, at + PLANE, x, 0)
        if BACK:
            four(shared, at + E_BEHIND, e, 0)
        for j in unroll(HELD):
            if FORTH:
                four(shared, at_map + j * ROW, b, 4 * j)
            if BACK:
                four(shared, at_map + j * ROW + OF_C, c, 4 * j)
            for w in unroll(4):
                alpha = exp2(d[w] * a[j])
                if FORTH:
                    h[j] = cuda.fma(alpha, h[j], x[w] * b[4 * j + w])
                if BACK:
                    decay[j] = decay[j] * alpha
                    back[j] += decay[j] * (c[4 * j + w] * e[w])

    @inline
    @unrolled
    def put_rows(shared, to, x):
        for i in unroll(TURNS):
            put(shared, to + i * DOWN, (x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]))

    @inline
    @unrolled
    def add_up(dt, sums, before, at_before, to_next, is_first, later, there):
        """ΣΔ of a tile; if there are borders that before each of its halves, where eight lanes have a tile's row."""
        for i in unroll(TURNS):
            total = dt[4 * i] + dt[4 * i + 1] + (dt[4 * i + 2] + dt[4 * i + 3])
            if BORDERED:
                total += cuda.shfl_xor_sync(FULL, total, 1)
                total += cuda.shfl_xor_sync(FULL, total, 2)
                other_half = cuda.shfl_xor_sync(FULL, total, 4)
                if is_first and there:
                    store_real(before, at_before + i * to_next, sums[i] + (other_half if later else ZERO))
                total += other_half
            sums[i] += total

    @inline
    @unrolled
    def prepare(options, shared, to, us, deltas, es, zs, bias, dt, there):
        """Δ, Δu and ∂ℓ/∂y before the gate, of a tile, to where walkers read them.

        Beyond the end Δ and the maps are zeros: nothing decays, and nothing is added.
        """
        x = cuda.local.array(NUMBERS, real_t)
        opened(deltas, dt)
        for i in unroll(TURNS):
            for j in unroll(4):
                dt[4 * i + j] += bias[i]
        if options & SOFTPLUS:
            for i in unroll(NUMBERS):
                dt[i] = softplus(dt[i])
        for i in unroll(NUMBERS):
            dt[i] = dt[i] if there else ZERO
        put_rows(shared, to, dt)
        if FORTH:
            opened(us, x)
            for i in unroll(NUMBERS):
                x[i] = dt[i] * x[i]
            put_rows(shared, to + PLANE, x)
        if BACK:
            z = cuda.local.array(NUMBERS, real_t)
            opened(es, x)
            if options & HAS_Z:
                opened(zs, z)
                for i in unroll(NUMBERS):
                    x[i] = x[i] * (z[i] * sigmoid(z[i]))
            put_rows(shared, to + E_BEHIND, x)

    @unrolled
    def walk(
        u, delta, A, B, C, z, delta_bias, grad_y, borders, before, ends, backs, totals,
        options, batch, dim, length, state, per_group_B, per_group_C, chunk,
    ):  # fmt: skip
        shared = cuda.shared.array(0, real_t, alignment=SHARED_ALIGNMENT)
        a = cuda.local.array(HELD, real_t)
        h = cuda.local.array(HELD, real_t)
        back = cuda.local.array(HELD, real_t)
        decay = cuda.local.array(HELD, real_t)
        us = cuda.local.array(WORDS, word_t)
        deltas = cuda.local.array(WORDS, word_t)
        es = cuda.local.array(WORDS, word_t)
        zs = cuda.local.array(WORDS, word_t)
        maps = cuda.local.array(MAP_WORDS, word_t)
        dt = cuda.local.array(NUMBERS, real_t)
        bias = cuda.local.array(TURNS, real_t)
        sums = cuda.local.array(TURNS, real_t)
        at_B = cuda.local.array(MAP_TURNS, types.int64)
        at_C = cuda.local.array(MAP_TURNS, types.int64)
        has = cuda.local.array(MAP_TURNS, types.boolean)
        of_map = cuda.local.array(MAP_TURNS, int_t)

        next_may_begin()
        tid = int_t(cuda.threadIdx.x)
        warp, lane = tid >> 5, tid & 31
        per_batch = dim // OF_BLOCK
        at_block = types.int64(cuda.blockIdx.x)
        entry = at_block // per_batch
        d0 = (at_block - entry * per_batch) * OF_BLOCK
        part = types.int64(cuda.blockIdx.y) + FIRST
        begin = part * chunk
        end = min(begin + chunk, length)
        # by a vote the compiler knows that a warp's lanes agree
        if cuda.any_sync(FULL, warp >= WALKERS):
            item = tid - WALKERS * WARP
            row, step = types.int64(item >> FOUR_BITS), 4 * (item & FOUR)
            across = ACROSS * length
            channel = entry * dim + d0 + row
            at_row = channel * length
            for i in unroll(TURNS):
                bias[i] = load_real(delta_bias, d0 + row + i * ACROSS) if options & HAS_BIAS else ZERO
                sums[i] = ZERO
            map_B = (entry * (dim // per_group_B) + d0 // per_group_B) * state
            map_C = (entry * (dim // per_group_C) + d0 // per_group_C) * state
            for i in unroll(MAP_TURNS):
                n = row + i * ACROSS
                of_map[i] = int_t(n * ROW + n // HELD * SKEW + step)
                has[i] = n < state
                n = min(n, state - 1)
                at_B[i] = (map_B + n) * length
                at_C[i] = (map_C + n) * length
            first = int_t(DELTA + row * ROW + step)
            at, last_four = int_t(0), end - 4  # what lies beyond is read from there, and nobody takes it
            is_first, later = step & BORDER - 1 == 0, step != 0

            # no branch around what is asked for: where two paths meet it would be waited for. So what stands in the
            # place of a z that is not there is read, and never used
            t = min(begin + step, last_four)
            ask(delta, at_row + t, across, deltas)
            if FORTH:
                ask(u, at_row + t, across, us)
                ask_map(B, at_B, t, 0, maps)
            if BACK:
                ask(grad_y, at_row + t, across, es)
                ask(z, at_row + t, across, zs)
                ask_map(C, at_C, t, C_TURNS, maps)
            for t0 in range(begin, end, TILE):  # which is prepared now
                there = t0 + step < end
                prepare(options, shared, at + first, us, deltas, es, zs, bias, dt, there)
                at_before = (t0 + step) // BORDER * batch * dim + channel
                add_up(dt, sums, before, at_before, ACROSS, is_first, later, there)
                for i in unroll(MAP_TURNS):
                    if FORTH:
                        put_map(shared, at + of_map[i], maps, i, has[i] and there)
                    if BACK:
                        put_map(shared, at + of_map[i] + OF_C, maps, C_TURNS + i, has[i] and there)
                t = min(t0 + TILE + step, last_four)
                ask(delta, at_row + t, across, deltas)
                if FORTH:
                    ask(u, at_row + t, across, us)
                    ask_map(B, at_B, t, 0, maps)
                if BACK:
                    ask(grad_y, at_row + t, across, es)
                    ask(z, at_row + t, across, zs)
                    ask_map(C, at_C, t, C_TURNS, maps)
                meet()
                at = int_t(OTHER_TILE - at)
            for i in unroll(TURNS):
                total = sums[i]
                if not BORDERED:
                    total += cuda.shfl_xor_sync(FULL, total, 1)
                    total += cuda.shfl_xor_sync(FULL, total, 2)
                    total += cuda.shfl_xor_sync(FULL, total, 4)
                if step == 0:
                    store_real(totals, part * batch * dim + channel + i * ACROSS, total)
        else:
            share, of_block = lane >> CHANNEL_BITS, warp * OF_WARP + (lane & (OF_WARP - 1))
            states = HELD * share  # the lane's begin there
            at_A = (d0 + of_block) * state + states
            at_state = at_A + entry * dim * state
            for j in unroll(HELD):
                a[j] = ZERO
                h[j] = ZERO
                back[j] = ZERO
                decay[j] = ONE
            read_states(A, at_A, states, state, a)
            for j in unroll(HELD):
                a[j] = a[j] * LOG2_E
                a[j] = LEAST if a[j] < LEAST else a[j]  # beyond the end 0 · a is 0
            first, first_map = int_t(DELTA + of_block * ROW), int_t(share * OF_LANE)
            at = int_t(0)
            a_border = batch * dim * state  # from one to the next
            at_border = begin // BORDER * a_border + at_state
            for left in range(int_t(end - begin), int_t(0), int_t(-TILE)):
                meet()
                for s in range(int_t(0), min(left, int_t(TILE)), int_t(BORDER)):
                    if BORDERED:
                        write_states(borders, at_border, states, state, h)
                        at_border += a_border
                    for r in range(s, s + int_t(BORDER), int_t(STEPS)):
                        for q in unroll(FOURS):
                            to = at + r + 4 * q
                            walk_four(shared, to + first, to + first_map, a, h, back, decay)
                at = int_t(OTHER_TILE - at)
            at_chunk = part * batch * dim * state + at_state
            if FORTH:
                write_states(ends, at_chunk, states, state, h)
            if BACK:
                write_states(backs, at_chunk, states, state, back)

    return walk
