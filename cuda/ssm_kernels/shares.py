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
def add_up(pending, stream, early=False):
    """Sums of shares of the same dtype go into one launch, first those of channels, whose rows are the most.

    They may be launched `early` where they follow a launch of the same scan.
    """
    groups = {}
    for dtype, total_dtype, *sum_ in pending:
        width = 16 // ITEMSIZE[dtype]
        groups.setdefault((dtype, width > 1 and sum_[-1] % width == 0), []).append((total_dtype, sum_))
    for (dtype, aligned), found in groups.items():
        same, others = ([sum_ for total, sum_ in found if (total == dtype) == is_same] for is_same in (True, False))
        narrow = next((total for total, _ in found if total != dtype), dtype)
        width = 16 // ITEMSIZE[dtype] if aligned else 1
        while same or others:
            first, same = same[: sums.SAME], same[sums.SAME :]
            if narrow == dtype:
                others, same = same[: sums.NARROW], same[sums.NARROW :]
            of_block = sums.of_block(width)
            blocks = sum(-(-outer * size // of_block) for _, _, outer, _, size in (*first, *others))
            nothing, unused = found[0][1][0], sums.SAME - len(first)
            each = [*first, *[(nothing, nothing, 0, 1, 1)] * unused, *others]
            each += [(nothing, nothing, 0, 1, 1)] * (sums.SAME + sums.NARROW - len(each))
            arguments = [argument for one in each for argument in one]
            kernel = sum_kernel(dtype, narrow, aligned, early).compiled()
            kernel((blocks, 1, 1), (sums.THREADS, 1, 1), stream, arguments, early)
            others, narrow = [], dtype
