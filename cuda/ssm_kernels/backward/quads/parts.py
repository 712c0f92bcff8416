"""What the kernels by quads share: who holds what, how a tile lies in shared memory, and how it gets there."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, no_type_check

import numpy as np

from ssm_kernels._target import cuda, types
from ssm_kernels.arithmetic import arithmetic, inline
from ssm_kernels.intrinsics import exp2, shared_load, shared_store, short_access
from ssm_kernels.unrolling import unroll, unrolled
from ssm_kernels.variant import FULL, HAS_Z, SOFTPLUS

STATES = 16
TILE = 16  # steps
WARPS = 4  # of a block, 32 channels each; 1, 2 or 4
# numbers from one step of a warp's rows to the next in shared memory, so that banks differ
ROW = 36
ROWS = 3 * TILE * ROW  # numbers of a warp's rows: Δ, Δu and ∂ℓ/∂y
MAPS = TILE * STATES  # numbers of a map's tile
ITEMS = 128  # words of four steps of both maps' tiles, which a block's threads share out

Device = Callable[..., Any]


def channels(warps: int) -> int:
    """Of a block, which has as many threads."""
    return 32 * warps


class Parts(NamedTuple):
    """Device functions. out is a lane's local array, 4k + j its place for channel k and step or state j."""

    place: Device
    map_row: Device
    read_rows: Device
    put_rows: Device
    read_maps: Device
    put_maps: Device
    step_sizes: Device
    gate: Device
    read_states: Device
    store_states: Device
    prepared: Device
    four: Device
    advance: Device
    over_quad: Device


@no_type_check
@cache
def parts(dtype: str, warps: int) -> Parts:
    """For one dtype in memory, and blocks of so many warps."""
    CHANNELS = THREADS = channels(warps)
    TURNS = ITEMS // THREADS
    ZERO, LOG2_E = np.float32(0), np.float32(math.log2(math.e))
    softplus, sigmoid = arithmetic("float32", False).softplus, arithmetic("float32", False).sigmoid
    load_four, _ = short_access(dtype, 4)
    load_states, store_four = short_access("float32", 4)
    put, read = shared_store("float32"), shared_load("float32")

    @inline
    def place(dim):
        """The batch entry, the block's first channel, the lane's first one, its warp, quad and quarter."""
        tid = types.int64(cuda.threadIdx.x)
        warp, quad, quarter = tid >> 5, (tid & 31) >> 2, tid & 3
        per_batch = dim // CHANNELS
        block = types.int64(cuda.blockIdx.x)
        b = block // per_batch
        d0 = (block - b * per_batch) * CHANNELS
        return b, d0, d0 + warp * 32 + quad, warp, quad, quarter

    @inline
    def map_row(b, d0, dim, per_group, state, length):
        """Where the block's rows of a map begin."""
        return (b * (dim // per_group) + d0 // per_group) * state * length

    @inline
    @unrolled
    def read_rows(p, at, across, there, out):
        """Four steps of each of the quad's four channels, or zeros: out[4k + j] = p[at + k·across + j]."""
        if there:
            for k in unroll(4):
                word = load_four(p, at + k * across)
                for j in unroll(4):
                    out[4 * k + j] = word[j]
        else:
            for i in unroll(16):
                out[i] = ZERO

    @inline
    @unrolled
    def put_rows(rows, at, x):
        """A step's four channels side by side, as the quad's lanes read them."""
        for j in unroll(4):
            put(rows, at + j * ROW, (x[j], x[4 + j], x[8 + j], x[12 + j]))

    @inline
    @unrolled
    def read_maps(B, C, row_B, row_C, t0, tid, state, length, out):
        """A thread's words of both maps: four steps of one state each, or zeros."""
        for turn in unroll(TURNS):
            item = tid + turn * THREADS
            n, t = item >> 2 & 15, t0 + 4 * (item & 3)
            for j in unroll(4):
                out[4 * turn + j] = ZERO
            if n < state and t < length:
                if item >> 6 == 0:
                    word = load_four(B, row_B + n * length + t)
                    for j in unroll(4):
                        out[4 * turn + j] = word[j]
                else:
                    word = load_four(C, row_C + n * length + t)
                    for j in unroll(4):
                        out[4 * turn + j] = word[j]

    @inline
    @unrolled
    def put_maps(maps, at, tid, x):
        """The states of a step side by side, first B's steps, then C's."""
        for turn in unroll(TURNS):
            item = tid + turn * THREADS
            to = at + (item >> 6) * MAPS + 4 * (item & 3) * STATES + (item >> 2 & 15)
            for j in unroll(4):
                maps[types.uint64(to + j * STATES)] = x[4 * turn + j]

    @inline
    @unrolled
    def step_sizes(options, bias, there, dt):
        """Δ of a lane's steps from delta as read; 0, which changes nothing, beyond the sequence."""
        for k in unroll(4):
            for j in unroll(4):
                dt[4 * k + j] += bias[k]
        if options & SOFTPLUS:
            for i in unroll(16):
                dt[i] = softplus(dt[i])
        if not there:
            for i in unroll(16):
                dt[i] = ZERO

    @inline
    @unrolled
    def gate(options, e, z):
        """∂ℓ/∂y before the gate."""
        if options & HAS_Z:
            for i in unroll(16):
                e[i] = e[i] * (z[i] * sigmoid(z[i]))

    @inline
    @unrolled
    def read_states(p, at, across, there, out):
        """A lane's states of its four channels: out[4k + j] = p[at + k·across + j]."""
        for i in unroll(16):
            out[i] = ZERO
        if there:
            for k in unroll(4):
                word = load_states(p, at + k * across)
                for j in unroll(4):
                    out[4 * k + j] = word[j]

    @inline
    @unrolled
    def store_states(p, at, across, there, x):
        if there:
            for k in unroll(4):
                store_four(p, at + k * across, (x[4 * k], x[4 * k + 1], x[4 * k + 2], x[4 * k + 3]))

    @inline
    @unrolled
    def prepared(a):
        """A so that e^{ΔA} is 2^{Δa}."""
        for i in unroll(16):
            a[i] = a[i] * LOG2_E

    @inline
    @unrolled
    def four(shared, at, out):
        word = read(shared, at)
        for j in unroll(4):
            out[j] = word[j]

    @inline
    @unrolled
    def advance(h, a, d, x, b):
        """A step: h ← 2^{Δa} h + x b, with x = Δu."""
        for k in unroll(4):
            for j in unroll(4):
                h[4 * k + j] = exp2(d[k] * a[4 * k + j]) * h[4 * k + j] + x[k] * b[j]

    @inline
    def over_quad(x):
        """The sum over the quad's lanes, in each of them."""
        x += cuda.shfl_xor_sync(FULL, x, 1)
        return x + cuda.shfl_xor_sync(FULL, x, 2)

    return Parts(
        place, map_row, read_rows, put_rows, read_maps, put_maps, step_sizes, gate, read_states, store_states,
        prepared, four, advance, over_quad,
    )  # fmt: skip
