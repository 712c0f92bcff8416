"""The last sums of the adjoint: what blocks of channels, or batch entries, have each added up, in a fixed order."""

from __future__ import annotations

from functools import cache
from typing import Any, no_type_check

from ssm_kernels._target import SHARED_ALIGNMENT, cuda, types
from ssm_kernels.arithmetic import inline
from ssm_kernels.intrinsics import access, pointer, shared_store, wait_for_launches
from ssm_kernels.unrolling import unroll, unrolled
from ssm_kernels.variant import WARP, number_of

WARPS = 4  # each adds up every fourth row
THREADS = WARPS * WARP
SAME, NARROW = 3, 2  # arrays at a time
AHEAD = 4  # rows that a warp reads at a time


def signature(shares: str, narrow: str) -> Any:
    same, other = ((pointer(shares), pointer(total), *(types.int64,) * 3) for total in (shares, narrow))
    return types.void(*same * SAME, *other * NARROW)


def of_block(width: int) -> int:
    """Totals of a block, of which a lane of each warp adds up so many."""
    return WARP * width


@no_type_check
@cache
def kernel(shares: str, narrow: str, aligned: bool, early: bool) -> Any:
    """total[g·size + k] = Σ_r shares[(g·rows + r)·size + k], g < outer, for up to five arrays, one after the other.

    Totals of the first three have the dtype of the shares, those of the others `narrow`. `aligned` if each size is a
    multiple of 16 bytes. If it is launched `early` it waits for the launch before it.
    """
    source = access(shares)
    width = source.width if aligned else 1
    load, load_wide, wide = source.load, source.load_wide, width > 1
    store, store_narrow, put = source.store, access(narrow).store, shared_store(shares)
    number_t, ZERO = number_of(shares), source.zero
    four = width == 4
    OF_BLOCK, NUMBERS = of_block(width), WARPS * of_block(width)
    GROUP, KEPT = WARPS * AHEAD, width * AHEAD

    @inline
    def blocks(outer, size):
        return (outer * size + OF_BLOCK - 1) // OF_BLOCK

    @inline
    @unrolled
    def read(p, at, rows, size, first, out):
        """Of the rows from `first` on every fourth, of those that there are."""
        for r in unroll(AHEAD):
            if first + r * WARPS < rows:
                if wide:
                    word = load_wide(p, at + (first + r * WARPS) * size)
                    for i in unroll(width):
                        out[r * width + i] = word[i]
                else:
                    out[r] = load(p, at + (first + r * WARPS) * size)

    @unrolled
    def sum_rows(
        shares_0, total_0, outer_0, rows_0, size_0,
        shares_1, total_1, outer_1, rows_1, size_1,
        shares_2, total_2, outer_2, rows_2, size_2,
        shares_3, narrow_3, outer_3, rows_3, size_3,
        shares_4, narrow_4, outer_4, rows_4, size_4,
    ):  # fmt: skip
        parts = cuda.shared.array(NUMBERS, number_t, alignment=SHARED_ALIGNMENT)
        x = cuda.local.array(width, number_t)
        words = cuda.local.array(KEPT, number_t)
        block = types.int64(cuda.blockIdx.x)
        p, total, narrow_, outer, rows, size, same = shares_0, total_0, narrow_3, outer_0, rows_0, size_0, True
        left = block - blocks(outer_0, size_0)
        if left >= 0:
            block, p, total, outer, rows, size = left, shares_1, total_1, outer_1, rows_1, size_1
            left -= blocks(outer_1, size_1)
        if left >= 0:
            block, p, total, outer, rows, size = left, shares_2, total_2, outer_2, rows_2, size_2
            left -= blocks(outer_2, size_2)
        if left >= 0:
            block, p, outer, rows, size, same = left, shares_3, outer_3, rows_3, size_3, False
            left -= blocks(outer_3, size_3)
        if left >= 0:
            block, p, narrow_, outer, rows, size = left, shares_4, narrow_4, outer_4, rows_4, size_4
        tid = types.int64(cuda.threadIdx.x)
        warp, first = tid >> 5, block * OF_BLOCK
        k = first + (tid & 31) * width
        for i in unroll(width):
            x[i] = ZERO
        if early:
            wait_for_launches()
        if k < outer * size:
            at = k // size * (rows - 1) * size + k
            for group in range(warp, rows, GROUP):
                read(p, at, rows, size, group, words)
                for r in unroll(AHEAD):
                    if group + r * WARPS < rows:
                        for i in unroll(width):
                            x[i] += words[r * width + i]
        to = warp * OF_BLOCK + (tid & 31) * width
        if four:
            put(parts, to, (x[0], x[1], x[2], x[3]))
        elif wide:
            put(parts, to, (x[0], x[1]))
        else:
            parts[to] = x[0]
        cuda.syncthreads()
        if tid < OF_BLOCK and first + tid < outer * size:
            y = parts[tid]
            for w in unroll(1, WARPS):
                y += parts[tid + w * OF_BLOCK]
            if same:
                store(total, first + tid, y)
            else:
                store_narrow(narrow_, first + tid, y)

    return sum_rows
