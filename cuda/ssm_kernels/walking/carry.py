"""Kernel 2 by walking: chunk after chunk, the state that each begins with and what comes back to it."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, no_type_check

import numpy as np

from ssm_kernels._target import cuda, types
from ssm_kernels.intrinsics import access, exp2, pointer
from ssm_kernels.unrolling import unroll, unrolled

THREADS = 128
AHEAD = 16  # chunks that are read at a time


def signature() -> Any:
    return types.void(*(pointer("float32"),) * 6, *(types.int64,) * 6)


@no_type_check
@cache
def kernel(returning: bool) -> Any:
    """A thread per (batch, channel, state): `ends` become first states, and, in blocks of their own, `backs` the Āg."""
    load, store = access("float32").load, access("float32").store
    ZERO, LOG2_E = np.float32(0), np.float32(math.log2(math.e))
    real_t = types.float32

    @unrolled
    def over_chunks(
        A, start, arriving, ends, backs, totals, starts, arrives, chunks, batch, dim, state
    ):  # fmt: skip
        P = cuda.local.array(AHEAD, real_t)
        x = cuda.local.array(AHEAD, real_t)
        i = types.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        channels = batch * dim
        each = channels * state
        if i >= each:
            return
        c = i // state
        a = load(A, c % dim * state + i - c * state) * LOG2_E
        if cuda.blockIdx.y == 0:
            h = load(start, i) if starts else ZERO
            for first in range(0, chunks, AHEAD):
                for w in unroll(AHEAD):
                    m = first + w
                    P[w] = ZERO
                    x[w] = ZERO
                    if m < chunks - 1:
                        P[w] = exp2(a * load(totals, m * channels + c))
                        x[w] = load(ends, m * each + i)
                for w in unroll(AHEAD):
                    if first + w < chunks:
                        store(ends, (first + w) * each + i, h)
                        h = P[w] * h + x[w]
        elif returning:
            g = load(arriving, i) if arrives else ZERO
            for first in range(0, chunks, AHEAD):
                for w in unroll(AHEAD):
                    m = chunks - 1 - first - w
                    P[w] = ZERO
                    x[w] = ZERO
                    if m > 0:
                        P[w] = exp2(a * load(totals, m * channels + c))
                        x[w] = load(backs, m * each + i)
                for w in unroll(AHEAD):
                    if first + w < chunks:
                        store(backs, (chunks - 1 - first - w) * each + i, g)
                        g = P[w] * g + x[w]

    return over_chunks
