"""The last sums of the adjoint: what blocks of channels, or batch entries, have each added up, in a fixed order."""

from __future__ import annotations

from functools import cache
from typing import Any, no_type_check

from ssm_kernels._target import cuda, types
from ssm_kernels.arithmetic import inline
from ssm_kernels.intrinsics import access, pointer
from ssm_kernels.unrolling import unroll, unrolled

THREADS = 128
SAME, NARROW = 3, 2  # arrays at a time
AHEAD = 8  # rows that are read at a time


def signature(shares: str, narrow: str) -> Any:
    same, other = ((pointer(shares), pointer(total), *(types.int64,) * 3) for total in (shares, narrow))
    return types.void(*same * SAME, *other * NARROW)


@no_type_check
@cache
def kernel(shares: str, narrow: str, aligned: bool) -> Any:
    """total[g·size + k] = Σ_r shares[(g·rows + r)·size + k], g < outer, for up to five arrays, one after the other.

    Totals of the first three have the dtype of the shares, those of the others `narrow`. `aligned` if each size is a
    multiple of 16 bytes.
    """
    source = access(shares)
    width = source.width if aligned else 1
    load, load_wide, wide = source.load, source.load_wide, width > 1
    store, store_narrow = source.store, access(narrow).store
    four = width == 4
    OF_BLOCK = THREADS * width

    @inline
    @unrolled
    def read(p, at):
        return load_wide(p, at) if wide else load(p, at)

    @inline
    @unrolled
    def plus(x, y):
        if four:
            z = x[0] + y[0], x[1] + y[1], x[2] + y[2], x[3] + y[3]
        elif wide:
            z = x[0] + y[0], x[1] + y[1]
        else:
            z = x + y
        return z

    @inline
    def blocks(outer, size):
        return (outer * size + OF_BLOCK - 1) // OF_BLOCK

    @inline
    @unrolled
    def total_of(p, at, rows, size):
        x = read(p, at)
        at += size
        for _ in range((rows - 1) // AHEAD):
            y0, y1 = read(p, at), read(p, at + size)
            y2, y3 = read(p, at + 2 * size), read(p, at + 3 * size)
            y4, y5 = read(p, at + 4 * size), read(p, at + 5 * size)
            y6, y7 = read(p, at + 6 * size), read(p, at + 7 * size)
            at += AHEAD * size
            x = plus(plus(plus(plus(x, y0), y1), y2), y3)
            x = plus(plus(plus(plus(x, y4), y5), y6), y7)
        for _ in range((rows - 1) % AHEAD):
            x = plus(x, read(p, at))
            at += size
        return x

    @unrolled
    def sum_rows(
        shares_0, total_0, outer_0, rows_0, size_0,
        shares_1, total_1, outer_1, rows_1, size_1,
        shares_2, total_2, outer_2, rows_2, size_2,
        shares_3, narrow_3, outer_3, rows_3, size_3,
        shares_4, narrow_4, outer_4, rows_4, size_4,
    ):  # fmt: skip
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
        k = (block * THREADS + cuda.threadIdx.x) * width
        if k >= outer * size:
            return
        x = total_of(p, k // size * (rows - 1) * size + k, rows, size)
        if wide:
            for i in unroll(width):
                if same:
                    store(total, k + i, x[i])
                else:
                    store_narrow(narrow_, k + i, x[i])
        elif same:
            store(total, k, x)
        else:
            store_narrow(narrow_, k, x)

    return sum_rows
