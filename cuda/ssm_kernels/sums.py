"""The last sums of the adjoint: what blocks of channels, or batch entries, have each added up, in a fixed order."""

from __future__ import annotations

from functools import cache
from typing import Any, no_type_check

from ssm_kernels._target import cuda, types
from ssm_kernels.intrinsics import access, pointer
from ssm_kernels.unrolling import unroll, unrolled

THREADS = 128
AT_ONCE = 3


def signature(shares: str, total: str) -> Any:
    one = (pointer(shares), pointer(total), types.int64, types.int64, types.int64)
    return types.void(*one * AT_ONCE)


@no_type_check
@cache
def kernel(shares: str, total: str, aligned: bool) -> Any:
    """total[g·size + k] = Σ_r shares[(g·rows + r)·size + k], g < outer, for up to three arrays, a row of blocks each.

    `aligned` if each size is a multiple of 16 bytes.
    """
    source, target = access(shares), access(total)
    width = source.width if aligned else 1
    load, load_wide, store, wide = source.load, source.load_wide, target.store, width > 1
    four = width == 4

    @unrolled
    def sum_rows(
        shares_0, total_0, outer_0, rows_0, size_0,
        shares_1, total_1, outer_1, rows_1, size_1,
        shares_2, total_2, outer_2, rows_2, size_2,
    ):  # fmt: skip
        source_, target_, outer, rows, size = shares_0, total_0, outer_0, rows_0, size_0
        if cuda.blockIdx.y == 1:
            source_, target_, outer, rows, size = shares_1, total_1, outer_1, rows_1, size_1
        elif cuda.blockIdx.y == 2:
            source_, target_, outer, rows, size = shares_2, total_2, outer_2, rows_2, size_2
        k = (types.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x) * width
        if k >= outer * size:
            return
        at = k // size * (rows - 1) * size + k
        if wide:
            x = load_wide(source_, at)
            for _ in range(1, rows):
                at += size
                y = load_wide(source_, at)
                x = (x[0] + y[0], x[1] + y[1], x[2] + y[2], x[3] + y[3]) if four else (x[0] + y[0], x[1] + y[1])
            for i in unroll(width):
                store(target_, k + i, x[i])
        else:
            one = load(source_, at)
            for _ in range(1, rows):
                at += size
                one = one + load(source_, at)
            store(target_, k, one)

    return sum_rows
