"""Kernel 2 by walking: chunk after chunk, the state that each begins with and what comes back to it."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, no_type_check

import numpy as np

from ssm_kernels._target import cuda, types
from ssm_kernels.arithmetic import inline
from ssm_kernels.intrinsics import access, exp2, next_may_begin, pointer, wait_for_launches
from ssm_kernels.unrolling import unroll, unrolled

THREADS = 128
AHEAD = 16  # chunks that are read at a time, while those before are carried
MOST_BY_THEMSELVES = 50  # chunks on the way back, over which its blocks carry by themselves


def signature() -> Any:
    return types.void(*(pointer("float32"),) * 6, *(types.int64,) * 7)


@no_type_check
@cache
def kernel() -> Any:
    """A thread per (batch, channel, state): `ends` become first states, and, in blocks of their own, `backs` the Āg.

    The first row of blocks goes the way `first_way`, 0 forth and 1 back, and the second, if there is one, the other.
    """
    load, store = access("float32").load, access("float32").store
    ZERO, LOG2_E = np.float32(0), np.float32(math.log2(math.e))
    real_t = types.float32

    @inline
    @unrolled
    def read(added, totals, at, at_total, to_next, total_to_next, first, chunks, x, dt):
        """Of the chunks from `first` on, what each adds and its ΣΔ; nobody asks for the last one's."""
        for w in unroll(AHEAD):
            x[w] = ZERO
            dt[w] = ZERO
            if first + w < chunks - 1:
                x[w] = load(added, at + (first + w) * to_next)
                dt[w] = load(totals, at_total + (first + w) * total_to_next)

    @unrolled
    def over_chunks(
        A, start, arriving, ends, backs, totals, starts, arrives, first_way, chunks, batch, dim, state
    ):  # fmt: skip
        next_may_begin()
        x = cuda.local.array(AHEAD, real_t)
        dt = cuda.local.array(AHEAD, real_t)
        next_x = cuda.local.array(AHEAD, real_t)
        next_dt = cuda.local.array(AHEAD, real_t)
        i = types.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        channels = batch * dim
        each = channels * state
        if i >= each:
            return
        c = i // state
        a = load(A, c % dim * state + i - c * state) * LOG2_E
        added, given, is_given, at, at_total, to_next, total_to_next = ends, start, starts, i, c, each, channels
        if cuda.blockIdx.y + first_way == 1:  # from the last chunk to the first
            added, given, is_given, to_next, total_to_next = backs, arriving, arrives, -each, -channels
            at, at_total = i + (chunks - 1) * each, c + (chunks - 1) * channels
        h = load(given, i) if is_given else ZERO
        wait_for_launches()
        read(added, totals, at, at_total, to_next, total_to_next, 0, chunks, next_x, next_dt)
        for first in range(0, chunks, AHEAD):
            for w in unroll(AHEAD):
                x[w] = next_x[w]
                dt[w] = next_dt[w]
            read(added, totals, at, at_total, to_next, total_to_next, first + AHEAD, chunks, next_x, next_dt)
            for w in unroll(AHEAD):
                if first + w < chunks:
                    store(added, at + (first + w) * to_next, h)
                    h = exp2(a * dt[w]) * h + x[w]

    return over_chunks
