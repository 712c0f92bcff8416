"""The sums over what blocks have each added up for themselves."""

from __future__ import annotations

from typing import no_type_check

from ssm_kernels import sums
from ssm_kernels.choosing import sum_kernel
from ssm_kernels.intrinsics import ITEMSIZE


@no_type_check
def of_channels(grads, rows, dim, state, number, precision, allocate):
    """Where a launch leaves A's, D's and the bias's gradients, a row for each of its parts, and the sums that are due.

    A single row is the gradient itself.
    """
    alone = rows == 1
    shares_A = grads.A if alone else allocate((rows, dim, state), number)
    shares_D, shares_bias = (
        found if alone and found is not None else allocate((rows, dim), precision)
        for found in (grads.D, grads.delta_bias)
    )
    pending = []
    if not alone:
        pending.append((number, number, shares_A, grads.A, 1, rows, dim * state))
        for shares, target in ((shares_D, grads.D), (shares_bias, grads.delta_bias)):
            if target is not None:
                pending.append((precision, precision, shares, target, 1, rows, dim))
    return (shares_A, shares_D, shares_bias), pending


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
