"""Rung 6, all chunks of the length at once: what a chunk does to h and to r is known before either comes to it.

    pass 1    │ chunk 0 │ chunk 1 │ … │ chunk K−1 │     a block for each: ΣΔ, h from h = 0, r from r = 0
    combine   h ──▶ h ──▶ h ──▶ …                       a thread per (b, d, n), K steps each way:
              … ◀── r ◀── r ◀── r                       h ← exp(A ΣΔ) h + h_chunk,  r ← exp(A ΣΔ) r + r_chunk
    pass 2    │ chunk 0 │ chunk 1 │ … │ chunk K−1 │     a block for each: rung 5's tile, from the right borders

A is constant in time, so a chunk decays by exp(A ΣΔ) (SCAN-15). All states share its ΣΔ, it cannot underflow as a
product of many Ā does (SCAN-17), and because what flows back is r_t = Ā_t g_t, both directions share it too.

With N, I, W, T and S as in rung 5, per (b, d, t): bytes 4 (14 + 4N + 1/T + 2N/I + 4N/W + 8N/T + 2N/dim), exponentials
2N + 9 + 2N/T, FLOPs N (44 + 4S + 5/I + 2/W + 7/T) + 31 + 15/I + 2/T; and K times as many blocks.
Next: 16-byte loads, fewer shuffles, exponentials in two instructions: the production kernel.

Claims ADJ-1 to ADJ-4, ADJ-9, SCAN-15, SCAN-17, SCAN-24. Source: Mamba, §3.3.2.
"""

from __future__ import annotations

import math
from functools import cache
from typing import no_type_check

from ssm_kernels._target import cuda, jit, types
from ssm_kernels.backward import rung5_warp_shuffles as rung5
from ssm_kernels.backward.rung5_warp_shuffles import ITEMS, WARP, WARPS, scan_down, scan_up, warp_sum
from ssm_kernels.backward.rungs import ONE, THREADS, ZERO, ceil, costs, launcher, scratch, silu, softplus, sum_parts
from ssm_kernels.ladder import Rung
from ssm_kernels.unrolling import unroll, unrolled


@no_type_check
@cache
def make(state, warps, items):
    CHUNK = WARP * items
    tile = rung5.make(state, warps, items, sequential=False).tile

    @jit
    @unrolled
    def summaries(grad_y, u, delta, A, B, C, z, delta_bias, total, h_at, r_at):
        """ΣΔ of each chunk, h on its right border from h = 0 on its left one, and r the other way round."""
        _, dim, length = u.shape
        chunks = (length + CHUNK - 1) // CHUNK
        groups = (dim + warps - 1) // warps
        k = cuda.blockIdx.x % chunks
        b = cuda.blockIdx.x // chunks // groups
        d = cuda.blockIdx.x // chunks % groups * warps + cuda.threadIdx.x // WARP
        lane = cuda.threadIdx.x % WARP
        if d >= dim:
            return  # a whole warp, and no barrier waits for it
        t0 = k * CHUNK + lane * items
        step_ = cuda.local.array(items, types.float32)
        u_ = cuda.local.array(items, types.float32)
        e_ = cuda.local.array(items, types.float32)
        A_bar = cuda.local.array(items, types.float32)
        steps = ZERO
        for j in unroll(items):
            t = t0 + j
            inside = t < length
            step_[j] = softplus(delta[b, d, t] + delta_bias[d]) if inside else ZERO
            u_[j] = u[b, d, t] if inside else ZERO
            e_[j] = grad_y[b, d, t] * silu(z[b, d, t]) if inside else ZERO
            steps += step_[j]
        steps = warp_sum(steps)
        if lane == 0:
            total[b, k, d] = steps
        for n in range(state):
            A_n = A[d, n]
            decay = ONE
            h = ZERO
            for j in unroll(items):
                A_bar[j] = math.exp(step_[j] * A_n)
                decay *= A_bar[j]
                h = A_bar[j] * h + step_[j] * (B[b, n, t0 + j] if t0 + j < length else ZERO) * u_[j]
            r = ZERO
            for j in unroll(items - 1, -1, -1):
                r = A_bar[j] * ((C[b, n, t0 + j] if t0 + j < length else ZERO) * e_[j] + r)
            h = scan_up(lane, decay, h)
            r = scan_down(lane, decay, r)
            if lane == WARP - 1:
                h_at[b, k, d, n] = h
            if lane == 0:
                r_at[b, k, d, n] = r

    @jit(max_registers=128)  # two blocks of 256 threads fill a multiprocessor's registers
    def gradients(
        grad_y, u, delta, A, B, C, D, z, delta_bias, h_at, r_at,
        du, ddelta, dz, B_parts, C_parts, A_parts, D_parts, bias_parts,
    ):  # fmt: skip
        _, dim, length = u.shape
        chunks = (length + CHUNK - 1) // CHUNK
        groups = (dim + warps - 1) // warps
        k = cuda.blockIdx.x % chunks
        group = cuda.blockIdx.x // chunks
        tile(
            group // groups, group % groups, k, chunks,
            grad_y, u, delta, A, B, C, D, z, delta_bias, h_at, r_at,
            du, ddelta, dz, B_parts, C_parts, A_parts, D_parts, bias_parts,
        )  # fmt: skip

    return summaries, gradients


@jit
@no_type_check
def combine(A, total, h_at, r_at):
    """From what each chunk does by itself to h on its right border, and to r on its left one, in place."""
    batch, chunks, dim, state = h_at.shape
    i = cuda.grid(1)
    if i < batch * dim * state:
        n = i % state
        d = i // state % dim
        b = i // state // dim
        h = ZERO
        for k in range(chunks):
            h = math.exp(A[d, n] * total[b, k, d]) * h + h_at[b, k, d, n]
            h_at[b, k, d, n] = h
        r = ZERO
        for k in range(chunks - 1, -1, -1):
            r = math.exp(A[d, n] * total[b, k, d]) * r + r_at[b, k, d, n]
            r_at[b, k, d, n] = r


@no_type_check
def runner(warps, items):
    """The rung with so many channels a block and steps a lane."""

    def run(inputs, grads, sizes, stream):
        (batch, dim, length, state), (grad_y, u, delta, A, B, C, _, z, delta_bias) = sizes, inputs
        groups, chunks = ceil(dim, warps), ceil(length, WARP * items)
        grid = batch * groups * chunks, WARP * warps, stream
        summaries, gradients = make(state, warps, items)
        h_at, r_at = (scratch(batch, chunks, dim, state) for _ in range(2))
        total = scratch(batch, chunks, dim)
        maps = tuple(scratch(batch, groups, state, length) for _ in range(2))
        channels = scratch(batch * chunks, dim, state), scratch(batch * chunks, dim), scratch(batch * chunks, dim)
        summaries[grid](grad_y, u, delta, A, B, C, z, delta_bias, total, h_at, r_at)
        combine[ceil(batch * dim * state, THREADS), THREADS, stream](A, total, h_at, r_at)
        gradients[grid](*inputs, h_at, r_at, grads.u, grads.delta, grads.z, *maps, *channels)
        sum_parts(maps, channels, grads, stream)

    return run


@no_type_check
def costs_of(warps, items):
    chunk = WARP * items
    scan, total = 3 * 129 / chunk, 5 / items
    return costs(
        words=lambda N, dim: 14 + 1 / chunk + N * (4 + 2 / items + 4 / warps + 8 / chunk + 2 / dim),
        exponentials=lambda N, dim: 2 * N + 9 + 2 * N / chunk,
        flops=lambda N, dim: 31 + 3 * total + 2 / chunk + N * (44 + 4 * scan + total + 2 / warps + 7 / chunk),
    )


RUNG = Rung(
    number="6",
    title="chunks of the length at once",
    idea="a chunk's effect on h and on r is summarised first, so that all chunks can be done at the same time",
    launch=launcher(runner(WARPS, ITEMS)),
    **costs_of(WARPS, ITEMS),
    chunk=WARP * ITEMS,
)
