"""What the kernels by walking share: who holds what, how a tile lies in shared memory, and how it gets there."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, no_type_check

import numpy as np

from ssm_kernels._target import cuda, types
from ssm_kernels.arithmetic import arithmetic, inline
from ssm_kernels.intrinsics import ITEMSIZE, packed_access, shared_load, shared_store, short_access, staging
from ssm_kernels.unrolling import unroll, unrolled
from ssm_kernels.variant import FULL, SOFTPLUS, WARP

STATES = 16
CHANNELS = 16  # of a warp
WARPS = 4  # of a block; 1, 2 or 4

Device = Callable[..., Any]


@dataclass(frozen=True)
class Tile:
    """So many steps of a warp's channels in shared memory; what follows counts numbers, if it says nothing else."""

    steps: int
    skew: int = 0  # by so much more the upper eight channels lie behind the lower, so that banks differ

    @property
    def row(self) -> int:
        """From one channel to the next, so that banks differ."""
        return self.steps + 4

    @property
    def plane(self) -> int:
        return CHANNELS * self.row + self.skew

    @property
    def rows(self) -> int:
        """Of a warp: Δ, Δu, and ∂ℓ/∂y or y."""
        return 3 * self.plane

    @property
    def four(self) -> int:
        """From four steps of a map to the next, so that banks differ where a warp puts many fours there at once."""
        return 4 * STATES + WARP // self.lanes

    @property
    def ahead(self) -> int:
        """Of a warp and one array, on their way."""
        return self.steps * CHANNELS

    @property
    def map(self) -> int:
        """Of B or of C."""
        return self.lanes * self.four

    @property
    def lanes(self) -> int:
        """Lanes that read a channel's row, four steps each."""
        return self.steps // 4

    @property
    def across(self) -> int:
        """Channels that a warp reads at a time."""
        return WARP // self.lanes

    @property
    def turns(self) -> int:
        """Until it has read all of its channels."""
        return CHANNELS // self.across

    def map_turns(self, warps: int) -> int:
        """Until a block has read both maps' tiles, each thread four steps of a state at a time."""
        return 2 * STATES * self.lanes // threads(warps)

    def row_words(self, dtype: str) -> int:
        """A lane's of its channels' rows, packed."""
        return 4 * self.turns // packed_access(dtype).numbers

    def map_words(self, dtype: str, warps: int) -> int:
        """A thread's of both maps, packed."""
        return 4 * self.map_turns(warps) // packed_access(dtype).numbers


# Long, where lanes have registers left: what is read for the next tile has more time to come.
LONG, SHORT = Tile(32), Tile(16, skew=16)


def saved_every(dtype: str) -> int:
    """From one state that the way forward saves for the way back to the next.

    By then 16 float32 states are as many bytes as the steps of y.
    """
    return LONG.steps if ITEMSIZE[dtype] == 2 else SHORT.steps


def channels(warps: int) -> int:
    """Of a block."""
    return CHANNELS * warps


def threads(warps: int) -> int:
    return WARP * warps


class Parts(NamedTuple):
    """Device functions. out is a lane's local array, 4k + j its place for channel or turn k and step or state j."""

    block: Device
    map_row: Device
    read_rows: Device
    opened: Device
    put_rows: Device
    read_maps: Device
    put_maps: Device
    step_sizes: Device
    gate: Device
    read_states: Device
    store_states: Device
    prepared: Device
    four: Device
    asks: Device
    ask: Device
    take: Device


@no_type_check
@cache
def reading_four():
    """The function that reads four numbers side by side in shared memory."""
    read = shared_load("float32")

    @inline
    @unrolled
    def four(shared, at, out, first):
        word = read(shared, at)
        for j in unroll(4):
            out[first + j] = word[j]

    return four


@no_type_check
@cache
def reading_rows(dtype, turns):
    """The functions that read rows, packed, and that open them: so many turns of four steps of a channel."""
    packed = packed_access(dtype)
    load_four, numbers_of, PACKED = packed.load, packed.opened, packed.numbers
    TURNS, IN_FOUR, WORDS = turns, 4 // PACKED, turns * 4 // PACKED

    @inline
    @unrolled
    def read_rows(p, at, across, out):
        for i in unroll(TURNS):
            word = load_four(p, at + i * across)
            for j in unroll(IN_FOUR):
                out[IN_FOUR * i + j] = word[j]

    @inline
    @unrolled
    def opened(words, out):
        """The numbers of rows: 4i + j of turn i and step j."""
        for i in unroll(WORDS):
            numbers = numbers_of(words[i])
            for j in unroll(PACKED):
                out[PACKED * i + j] = numbers[j]

    return read_rows, opened


@no_type_check
@cache
def folding(lanes):
    """The function that adds up a pair's sums over states, where its lanes are so many apart."""

    @inline
    def fold(shared, at, y, odd):
        """Of four steps, into the row of their channel: each lane adds up two of them."""
        sent_0 = y[0] if odd else y[2]
        sent_1 = y[1] if odd else y[3]
        kept_0 = y[2] if odd else y[0]
        kept_1 = y[3] if odd else y[1]
        to = at + (2 if odd else 0)
        shared[types.uint64(to)] = kept_0 + cuda.shfl_xor_sync(FULL, sent_0, lanes)
        shared[types.uint64(to + 1)] = kept_1 + cuda.shfl_xor_sync(FULL, sent_1, lanes)

    return fold


@no_type_check
@cache
def parts(dtype: str, warps: int, tile: Tile) -> Parts:
    """For one dtype in memory, blocks of so many warps and tiles of so many steps."""
    OF_WARP, OF_BLOCK, THREADS = CHANNELS, channels(warps), threads(warps)
    MAP_TURNS, TURNS, NUMBERS = tile.map_turns(warps), tile.turns, 4 * tile.turns
    MAP, FOUR, TO_NEXT = tile.map, tile.four, tile.across * tile.row + tile.skew
    # a lane's word of a row, and a thread's of a map: the bits that count words, and how many those are
    SHORT_ROWS = tile.lanes == 4
    IN_COPY = 16 // ITEMSIZE[dtype]  # numbers
    COPIES, OWN = tile.steps // IN_COPY, IN_COPY == 4  # of a row; a lane that reads four steps asks for them itself
    STEPS, COPY_TURNS = tile.steps, COPIES * OF_WARP // WARP
    WORD, LANES = tile.lanes - 1, (tile.lanes - 1).bit_length()
    ZERO, LOG2_E = np.float32(0), np.float32(math.log2(math.e))
    LEAST = np.float32(np.finfo(np.float32).min)
    softplus, sigmoid = arithmetic("float32", False).softplus, arithmetic("float32", False).sigmoid
    packed = packed_access(dtype)
    load_four, numbers_of = packed.load, packed.opened
    PACKED, IN_FOUR, NOTHING = packed.numbers, 4 // packed.numbers, packed.zero
    read_rows, opened = reading_rows(dtype, tile.turns)
    load_states, store_four = short_access("float32", 4)
    copy, staged_four = staging(dtype)
    put, four = shared_store("float32"), reading_four()

    @inline
    @unrolled
    def block(dim):
        """Where a lane is.

        The batch entry, the first channels of block and warp, the warp and its lane; of the rows that the lane reads
        and writes the first channel, and of a tile the first of its four steps.
        """
        tid = types.int64(cuda.threadIdx.x)
        warp, lane = tid >> 5, tid & 31
        per_batch = dim // OF_BLOCK
        at = types.int64(cuda.blockIdx.x)
        b = at // per_batch
        d0 = (at - b * per_batch) * OF_BLOCK
        reads = lane >> LANES
        if SHORT_ROWS:  # eight lanes side by side read from all banks: their channels are four apart
            reads = (lane >> 3) + (lane & 4)
        return b, d0, d0 + warp * OF_WARP, warp, lane, reads, 4 * (lane & WORD)

    @inline
    def map_row(b, d0, dim, per_group, state, length):
        """Where the block's rows of a map begin."""
        return (b * (dim // per_group) + d0 // per_group) * state * length

    @inline
    @unrolled
    def put_rows(rows, at, x):
        for i in unroll(TURNS):
            put(rows, at + i * TO_NEXT, (x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]))

    @inline
    @unrolled
    def read_maps(B, C, row_B, row_C, t0, last, tid, state, length, out):
        """A thread's words of both maps, packed: four steps of a state each, none later than `last`'s; else zeros."""
        for turn in unroll(MAP_TURNS):
            item = tid + turn * THREADS
            n, t = item >> LANES & 15, min(t0 + 4 * (item & WORD), last)
            for j in unroll(IN_FOUR):
                out[IN_FOUR * turn + j] = NOTHING
            if n < state:
                if item >> LANES + 4 == 0:
                    word = load_four(B, row_B + n * length + t)
                    for j in unroll(IN_FOUR):
                        out[IN_FOUR * turn + j] = word[j]
                else:
                    word = load_four(C, row_C + n * length + t)
                    for j in unroll(IN_FOUR):
                        out[IN_FOUR * turn + j] = word[j]

    @inline
    @unrolled
    def put_maps(maps, at, tid, words):
        """The states of a step side by side, first B's steps, then C's."""
        for turn in unroll(MAP_TURNS):
            item = tid + turn * THREADS
            to = at + (item >> LANES + 4) * MAP + (item & WORD) * FOUR + (item >> LANES & 15)
            for i in unroll(IN_FOUR):
                numbers = numbers_of(words[IN_FOUR * turn + i])
                for j in unroll(PACKED):
                    maps[types.uint64(to + (PACKED * i + j) * STATES)] = numbers[j]

    @inline
    @unrolled
    def step_sizes(options, dt):
        """Δ in place of delta and its bias."""
        if options & SOFTPLUS:
            for i in unroll(NUMBERS):
                dt[i] = softplus(dt[i])

    @inline
    @unrolled
    def gate(e, z):
        """e·z·σ(z) in place of e: y behind the gate, or ∂ℓ/∂y before it."""
        for i in unroll(NUMBERS):
            e[i] = e[i] * (z[i] * sigmoid(z[i]))

    @inline
    @unrolled
    def read_states(p, at, to_other, there, other_there, out):
        """A lane's states, twice four: out[4k + j] = p[at + k·to_other + j], or zeros."""
        for i in unroll(8):
            out[i] = ZERO
        if there:
            word = load_states(p, at)
            for j in unroll(4):
                out[j] = word[j]
        if other_there:
            word = load_states(p, at + to_other)
            for j in unroll(4):
                out[4 + j] = word[j]

    @inline
    def store_states(p, at, to_other, there, other_there, x):
        if there:
            store_four(p, at, (x[0], x[1], x[2], x[3]))
        if other_there:
            store_four(p, at + to_other, (x[4], x[5], x[6], x[7]))

    @inline
    @unrolled
    def prepared(a):
        """A so that e^{ΔA} is 2^{Δa}, and 0 · a is 0: of chunks that are not there, and where Δ is 0."""
        for i in unroll(8):
            a[i] = a[i] * LOG2_E
            a[i] = LEAST if a[i] < LEAST else a[i]

    @inline
    @unrolled
    def asks(lane, reads, step):
        """The first channel and step that a lane asks for, where they go, and where it takes its own: see `ask`."""
        channel, first, to, from_ = reads, step, 4 * lane, 4 * lane
        if not OWN:  # two lanes ask for a row, four take it: eight side by side from all banks
            channel, first = lane >> 1, IN_COPY * (lane & 1)
            to = STEPS * (channel ^ channel >> 1 & 2) + first
            from_ = STEPS * (reads ^ reads >> 1 & 2) + step
        return channel, first, to, from_

    @inline
    @unrolled
    def ask(ahead, to, p, at, across):
        """For 16 bytes of each of some channels of a short tile: they go to shared memory past the registers."""
        for i in unroll(COPY_TURNS):
            copy(ahead, to + IN_COPY * WARP * i, p, at + i * across)

    @inline
    @unrolled
    def take(ahead, at, out):
        """Four steps of each of a lane's channels, for which the warp has asked and waited."""
        for i in unroll(TURNS):
            word = staged_four(ahead, at + 4 * WARP * i)
            for j in unroll(4):
                out[4 * i + j] = word[j]

    return Parts(
        block, map_row, read_rows, opened, put_rows, read_maps, put_maps, step_sizes, gate, read_states, store_states,
        prepared, four, asks, ask, take,
    )  # fmt: skip
