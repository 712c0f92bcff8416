"""The last sum of the adjoint: what blocks of channels, or batch entries, have each added up, in a fixed order."""

from __future__ import annotations

from functools import cache
from typing import Any, no_type_check

from ssm_kernels._target import cuda, types
from ssm_kernels.intrinsics import access, pointer
from ssm_kernels.unrolling import unroll, unrolled

THREADS = 128


def signature(shares: str, total: str) -> Any:
    return types.void(pointer(shares), pointer(total), types.int64, types.int64, types.int64)


@no_type_check
@cache
def kernel(shares: str, total: str, aligned: bool) -> Any:
    """total[g·size + k] = Σ_r shares[(g·rows + r)·size + k]; `aligned` if size is a multiple of 16 bytes."""
    source, target = access(shares), access(total)
    width = source.width if aligned else 1
    load, load_wide, store, wide = source.load, source.load_wide, target.store, width > 1
    four = width == 4

    @unrolled
    def sum_rows(shares_, total_, outer, rows, size):
        k = (types.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x) * width
        if k >= outer * size:
            return
        group = k // size
        at = group * (rows - 1) * size + k
        if wide:
            x = load_wide(shares_, at)
            for _ in range(1, rows):
                at += size
                y = load_wide(shares_, at)
                x = (x[0] + y[0], x[1] + y[1], x[2] + y[2], x[3] + y[3]) if four else (x[0] + y[0], x[1] + y[1])
            for i in unroll(width):
                store(total_, k + i, x[i])
        else:
            one = load(shares_, at)
            for _ in range(1, rows):
                at += size
                one = one + load(shares_, at)
            store(total_, k, one)

    return sum_rows
