"""The sums over what blocks have each added up for themselves."""

from __future__ import annotations

from typing import no_type_check

from ssm_kernels import sums
from ssm_kernels.choosing import sum_kernel
from ssm_kernels.intrinsics import ITEMSIZE


@no_type_check
def add_up(pending, stream):
    """Sums of the same dtypes go into one launch, three at most."""
    groups = {}
    for dtype, total_dtype, *sum_ in pending:
        width = 16 // ITEMSIZE[dtype]
        groups.setdefault((dtype, total_dtype, width > 1 and sum_[-1] % width == 0), []).append(sum_)
    for (dtype, total_dtype, aligned), found in groups.items():
        kernel, width = sum_kernel(dtype, total_dtype, aligned), 16 // ITEMSIZE[dtype] if aligned else 1
        for first in range(0, len(found), sums.AT_ONCE):
            some = found[first : first + sums.AT_ONCE]
            most = max(outer * size for _, _, outer, _, size in some)
            grid = (-(-most // (width * sums.THREADS)), len(some), 1)
            unused = (some[0][0], some[0][0], 0, 1, 1)
            rows = [*some, *[unused] * (sums.AT_ONCE - len(some))]
            kernel.compiled()(grid, (sums.THREADS, 1, 1), stream, [argument for row in rows for argument in row])
