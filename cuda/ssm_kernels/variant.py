"""What a compiled kernel is made for, and what its variants share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, no_type_check

from ssm_kernels._target import cuda, types
from ssm_kernels.arithmetic import Arithmetic, arithmetic, inline
from ssm_kernels.intrinsics import ITEMSIZE, access, copy_async, shared_load, shared_store
from ssm_kernels.unrolling import unroll, unrolled

WARP = 32
FULL = 0xFFFFFFFF
# What is decided at run time, as bits: a branch around a loop costs nothing, a kernel more to compile does.
HAS_D, HAS_Z, HAS_BIAS, SOFTPLUS, STARTS, RETURNS, CARRIED = (1 << k for k in range(7))


@dataclass(frozen=True)
class Variant:
    """The options that a kernel is compiled for. It runs `warps` warps, each a grid of channels by `segments` of time.

    Attributes:
        dtype: of u, delta, z and y. map_B, map_C: of B and C in memory.
        discretization: `mamba`, `zoh` or `bilinear`.
        constant_B, constant_C: (dim, state) in place of (batch, group, state, length).
        packed: whether seq_idx cuts the sequence.
        aligned: rows of time begin at 16-byte boundaries.
        segments, items: a lane holds `items` steps, a warp segments · items steps of 32 / segments channels.
        block: the states whose maps are staged at a time. together: those scanned at a time.
        ahead: whether maps and rows come asynchronously, a block or a tile ahead, through shared memory; else rows come
            ahead in registers and maps when they are needed, which leaves room for larger blocks.
    """

    dtype: str
    is_complex: bool = False
    discretization: str = "mamba"
    map_B: str = "float32"
    map_C: str = "float32"
    constant_B: bool = False
    constant_C: bool = False
    packed: bool = False
    aligned: bool = True
    segments: int = 8
    items: int = 16
    warps: int = 4
    block: int = 8
    together: int = 1
    ahead: bool = True

    @property
    def precision(self) -> str:
        return "float64" if self.dtype == "float64" else "float32"

    @property
    def number(self) -> str:
        """The dtype of A and of states."""
        if not self.is_complex:
            return self.precision
        return "complex128" if self.dtype == "float64" else "complex64"

    @property
    def arithmetic(self) -> Arithmetic:
        return arithmetic(self.precision, self.is_complex)

    @property
    def channels(self) -> int:
        """Of a warp."""
        return WARP // self.segments

    @property
    def threads(self) -> int:
        return WARP * self.warps

    @property
    def tile(self) -> int:
        """The steps that a warp takes at a time."""
        return self.segments * self.items


def staged_dtype(map_dtype: str, precision: str) -> str:
    """The dtype of a map in shared memory: its own if complex, else the arithmetic's."""
    return map_dtype if map_dtype.startswith("complex") else precision


@dataclass(frozen=True)
class StagedMap:
    """Numbers of shared memory for a map: `planes` for its rows, `mail` on their way there."""

    planes: int
    mail: int
    bytes: int


def staged_map(dtype: str, constant: bool, v: Variant) -> StagedMap:
    if constant:
        return StagedMap(1, 8, 8 * ITEMSIZE[dtype] + 16)
    staged = staged_dtype(dtype, v.precision)
    plane = v.block * v.tile
    planes = 2 * plane if v.ahead else plane
    mail = plane if v.aligned and v.ahead and staged != dtype else 8
    return StagedMap(planes, mail, planes * ITEMSIZE[staged] + mail * ITEMSIZE[dtype])


def staged_maps(v: Variant, with_C: bool) -> tuple[StagedMap, StagedMap]:
    return staged_map(v.map_B, v.constant_B, v), staged_map(v.map_C, v.constant_C or not with_C, v)


def held_states(v: Variant, states: int) -> int:
    """Numbers of shared memory for A of a block's channels, or for their states."""
    return states * v.channels * v.warps


@no_type_check
def row_loader(dtype: str, items: int, aligned: bool) -> Any:
    """out[i] = p[at + i] for i < left, and 0 beyond: a lane's `items` consecutive steps."""
    io = access(dtype)
    load, load_wide, width, zero = io.load, io.load_wide, io.width, io.zero
    words = items // width

    @inline
    @unrolled
    def wide(p, at, left, out):
        if left >= items:
            for j in unroll(words):
                word = load_wide(p, at + j * width)
                for k in unroll(width):
                    out[j * width + k] = word[k]
        else:
            for j in unroll(words):
                if j * width < left:
                    word = load_wide(p, at + j * width)
                    for k in unroll(width):
                        out[j * width + k] = word[k]
                else:
                    for k in unroll(width):
                        out[j * width + k] = zero

    @inline
    @unrolled
    def narrow(p, at, left, out):
        for i in unroll(items):
            out[i] = load(p, at + i) if i < left else zero

    return wide if aligned else narrow


@no_type_check
def row_storer(dtype: str, items: int, aligned: bool) -> Any:
    """p[at + i] = x[i] for i < left."""
    io = access(dtype)
    store, store_wide, width = io.store, io.store_wide, io.width
    words, eight, four, two = items // width, width == 8, width == 4, width == 2

    @inline
    @unrolled
    def wide(p, at, left, x):
        for j in unroll(words):
            if j * width < left:
                if eight:
                    word = (x[j * width], x[j * width + 1], x[j * width + 2], x[j * width + 3],
                            x[j * width + 4], x[j * width + 5], x[j * width + 6], x[j * width + 7])  # fmt: skip
                    store_wide(p, at + j * width, word)
                if four:
                    store_wide(p, at + j * width, (x[j * width], x[j * width + 1], x[j * width + 2], x[j * width + 3]))
                if two:
                    store_wide(p, at + j * width, (x[j * width], x[j * width + 1]))

    @inline
    @unrolled
    def narrow(p, at, left, x):
        for i in unroll(items):
            if i < left:
                store(p, at + i, x[i])

    return wide if aligned else narrow


@no_type_check
def fresh_bits(items: int) -> Any:
    """Bit i says that no state flows into step t + i: seq_idx differs from the step before."""

    @inline
    def bits(seq_idx, at, t, left):
        found = 0
        for i in range(items):
            if i < left and t + i > 0 and seq_idx[at + i] != seq_idx[at + i - 1]:
                found |= 1 << i
        return found

    return bits


@no_type_check
def map_stager(dtype: str, staged: str, v: Variant) -> tuple[Any, Any]:
    """How a map's rows come into shared memory: (`ask`, `take`), once for each block of states and tile.

    A lane reads word j of state n as target[(n·words + j)·segments + segment], 16 bytes, so that neighbouring lanes
    read neighbouring words. `ask` starts the copy, `take` makes it readable: after that and a barrier, all may read.
    Of one dtype the copy is asynchronous and direct; a narrow one goes through `mail`, where each thread finds its own
    words again, or, where nothing is copied ahead, through registers; rows that are not aligned are copied at once.
    """
    io, width, wide = access(dtype), 16 // ITEMSIZE[staged], 16 // ITEMSIZE[dtype]
    items, segments, tile, threads = v.items, v.segments, v.tile, v.threads
    load, zero, copy, write, read = io.load, io.zero, copy_async(dtype), shared_store(staged), shared_load(dtype)
    load_wide = io.load_wide
    row_words = tile // wide
    asynchronous, narrow, mailed = v.aligned, wide != width, wide != width and v.ahead
    # threads that copy one row, the rows that are copied at once, and how often a thread has a word of each
    together, rows = min(threads, row_words), max(threads // row_words, 1)
    turns = row_words // together
    block, copies = v.block, -(-v.block // rows)

    @inline
    def place(t):
        """Where step t of a tile lies in a staged row."""
        i = t & (items - 1)
        return (i // width * segments + t // items) * width + (i & (width - 1))

    @inline
    @unrolled
    def ask(target, base, mail, p, at, length, left, states, tid):
        """The rows p[at + n·length:], n < states, of which `left` steps are there."""
        if asynchronous and not narrow and states == block and left >= tile:
            # the usual case, in which nothing depends on where the sequence and the states end
            for turn in unroll(turns):
                t = ((tid & (together - 1)) + turn * threads) * wide
                n = tid // together
                source = at + n * length + t
                to = base + n * tile + place(t)
                if n < states:
                    for m in unroll(copies):
                        copy(target, to + m * rows * tile, p, source, wide)
                        source += rows * length
        elif asynchronous and mailed and states == block and left >= tile:
            for turn in unroll(turns):
                n = tid // together
                source = at + n * length + ((tid & (together - 1)) + turn * threads) * wide
                if n < states:
                    for m in unroll(copies):
                        copy(mail, (tid + (turn * copies + m) * threads) * wide, p, source, wide)
                        source += rows * length
        elif asynchronous:
            slot = tid * wide
            for turn in unroll(turns):
                t = ((tid & (together - 1)) + turn * threads) * wide
                n = tid // together
                source = at + n * length + t
                to = base + n * tile + place(t)
                valid = min(max(left - t, 0), wide)
                source = source if valid > 0 else 0
                while n < states:
                    if mailed:
                        copy(mail, slot, p, source, valid)
                        slot += threads * wide
                    elif narrow:
                        if valid > 0:
                            x = load_wide(p, source)
                            write(target, to, (x[0], x[1], x[2], x[3]))
                            write(target, to + segments * width, (x[4], x[5], x[6], x[7]))
                        else:
                            write(target, to, (zero, zero, zero, zero))
                            write(target, to + segments * width, (zero, zero, zero, zero))
                        to += rows * tile
                    else:
                        copy(target, to, p, source, valid)
                        to += rows * tile
                    source += rows * length if valid > 0 else 0
                    n += rows
        else:
            for k in range(tid, states * tile, threads):
                n = k // tile
                t = k - n * tile
                target[base + n * tile + place(t)] = load(p, at + n * length + t) if t < left else zero

    @inline
    @unrolled
    def take(target, base, mail, states, tid):
        if asynchronous and mailed:
            slot = tid * wide
            for turn in unroll(turns):
                t = ((tid & (together - 1)) + turn * threads) * wide
                n = tid // together
                to = base + n * tile + place(t)
                while n < states:
                    x = read(mail, slot)
                    write(target, to, (x[0], x[1], x[2], x[3]))
                    write(target, to + segments * width, (x[4], x[5], x[6], x[7]))
                    slot += threads * wide
                    to += rows * tile
                    n += rows

    return ask, take


@no_type_check
def row_mail(dtype: str, v: Variant) -> tuple[Any, Any]:
    """A lane's `items` steps of a row by way of its own words of shared memory: (`ask`, `take`).

    A row that is not aligned is loaded when it is taken.
    """
    items, threads, width = v.items, v.threads, 16 // ITEMSIZE[dtype]
    words, copy, read = items // width, copy_async(dtype), shared_load(dtype)
    load_row, asynchronous = row_loader(dtype, items, False), v.aligned

    @inline
    @unrolled
    def ask(mail, p, at, left, tid):
        if asynchronous:
            if left >= items:
                for j in unroll(words):
                    copy(mail, tid * width + j * threads * width, p, at + j * width, width)
            else:
                for j in unroll(words):
                    valid = min(max(left - j * width, 0), width)
                    copy(mail, tid * width + j * threads * width, p, at + j * width if valid > 0 else 0, valid)

    @inline
    @unrolled
    def take(mail, p, at, left, tid, out):
        if asynchronous:
            for j in unroll(words):
                word = read(mail, tid * width + j * threads * width)
                for k in unroll(width):
                    out[j * width + k] = word[k]
        else:
            load_row(p, at, left, out)

    return ask, take


@no_type_check
@cache
def shuffles(is_complex: bool, number: Any) -> tuple[Any, Any]:
    """(`up`, `down`): a state from the lane so many below, or above."""
    if not is_complex:

        @inline
        def up(h, hop):
            return cuda.shfl_up_sync(FULL, h, hop)

        @inline
        def down(h, hop):
            return cuda.shfl_down_sync(FULL, h, hop)
    else:

        @inline
        def up(h, hop):
            return number(complex(cuda.shfl_up_sync(FULL, h.real, hop), cuda.shfl_up_sync(FULL, h.imag, hop)))

        @inline
        def down(h, hop):
            return number(complex(cuda.shfl_down_sync(FULL, h.real, hop), cuda.shfl_down_sync(FULL, h.imag, hop)))

    return up, down


def number_of(name: str) -> Any:
    """The Numba type of a shared or local array."""
    return getattr(types, name)
