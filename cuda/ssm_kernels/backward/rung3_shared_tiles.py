"""Rung 3, tiles in shared memory: lanes run along time to load and store, along channels to scan and to sum.

    a tile, CHANNELS × WINDOW, of Δ, u and e                 the terms of dB and dC for one n

           time ─▶                                           t = 0 … 15 of dB │ 0 … 15 of dC
    c  ┌──────────────┐  loaded by rows: 64 bytes a row      ┌───────────────────────────────┐ written by rows:
    │  │ lane = time  │  scanned by rows too, but there      │ lane = c                      │ a lane its channel
    ▼  │              │  a lane has its own row              │                               │
       └──────────────┘                                      └──▼──▼──▼──▼──▼──▼──▼──▼──▼──▼─┘ summed by columns

B and C of a tile are staged once for all channels of the block. dB and dC are summed in three steps, each in one
order: a warp's 32 channels (a lane takes a column), the block's warps, and the blocks (`sum_maps`). What goes through
global memory is 1/CHANNELS of the terms. Rows have one float to spare, so that a column lies in 32 banks.

With N states, windows of W steps and K channels a block, per (b, d, t): bytes 4 (12 + 7N/K + 4N/W + 2N/dim),
exponentials 2N + 8, FLOPs 32N + 26 + N/W + 2N/32 + 2N/K.
Next: there are batch·dim threads, and each has the whole length to go: a GPU wants ten times as many.

Claims ADJ-1 to ADJ-4 and ADJ-9 to ADJ-12. Source: Mamba, Algorithm 2 and §3.3.2.
"""

from __future__ import annotations

import math
from functools import cache
from typing import no_type_check

from ssm_kernels._target import cuda, jit, types
from ssm_kernels.backward.rungs import (
    ZERO,
    ceil,
    costs,
    dsilu,
    launcher,
    scratch,
    sigmoid,
    silu,
    softplus,
    sum_parts,
)
from ssm_kernels.ladder import Rung
from ssm_kernels.unrolling import unroll, unrolled

WINDOW = 16  # dB and dC of a window are the 32 columns of a warp
WARP = 32
WARPS = 2


@no_type_check
@cache
def make(state, warps):
    CHANNELS = WARP * warps
    COLUMNS = 2 * WINDOW
    ROW, TERMS = WINDOW + 1, COLUMNS + 1

    @jit
    @unrolled
    def borders(u, delta, A, B, delta_bias, h_at):
        steps = cuda.shared.array((CHANNELS, ROW), types.float32)
        inputs = cuda.shared.array((CHANNELS, ROW), types.float32)
        Bs = cuda.shared.array((WINDOW, state), types.float32)
        _, dim, length = u.shape
        groups = (dim + CHANNELS - 1) // CHANNELS
        b = cuda.blockIdx.x // groups
        first = cuda.blockIdx.x % groups * CHANNELS
        own = cuda.threadIdx.x
        live = first + own < dim
        h = cuda.local.array(state, types.float32)
        A_ = cuda.local.array(state, types.float32)
        for n in unroll(state):
            h[n] = ZERO
            A_[n] = A[first + own, n] if live else ZERO
        for k in range((length + WINDOW - 1) // WINDOW):
            for i in range(own, CHANNELS * WINDOW, CHANNELS):
                c = i // WINDOW
                t = k * WINDOW + i % WINDOW
                inside = first + c < dim and t < length
                steps[c, i % WINDOW] = softplus(delta[b, first + c, t] + delta_bias[first + c]) if inside else ZERO
                inputs[c, i % WINDOW] = u[b, first + c, t] if inside else ZERO
            for i in range(own, state * WINDOW, CHANNELS):
                t = k * WINDOW + i % WINDOW
                Bs[i % WINDOW, i // WINDOW] = B[b, i // WINDOW, t] if t < length else ZERO
            cuda.syncthreads()
            if live:
                for n in unroll(state):
                    h_at[b, k, n, first + own] = h[n]
            for j in range(WINDOW):
                step = steps[own, j]
                u_t = inputs[own, j]
                for n in unroll(state):
                    h[n] = math.exp(step * A_[n]) * h[n] + step * Bs[j, n] * u_t
            cuda.syncthreads()

    @jit
    @unrolled
    def gradients(
        grad_y, u, delta, A, B, C, D, z, delta_bias, h_at, r_at,
        du, ddelta, dz, B_parts, C_parts, A_parts, D_parts, bias_parts,
    ):  # fmt: skip
        steps = cuda.shared.array((CHANNELS, ROW), types.float32)
        inputs = cuda.shared.array((CHANNELS, ROW), types.float32)
        es = cuda.shared.array((CHANNELS, ROW), types.float32)
        Bs = cuda.shared.array((state, WINDOW), types.float32)
        Cs = cuda.shared.array((state, WINDOW), types.float32)
        terms = cuda.shared.array((CHANNELS, TERMS), types.float32)
        sums = cuda.shared.array((warps, state, COLUMNS), types.float32)
        _, dim, length = u.shape
        groups = (dim + CHANNELS - 1) // CHANNELS
        group = cuda.blockIdx.x % groups
        b = cuda.blockIdx.x // groups
        first = group * CHANNELS
        own = cuda.threadIdx.x
        warp = own // WARP
        lane = own % WARP
        d = first + own
        live = d < dim
        D_d = D[d] if live else ZERO
        s_ = cuda.local.array(WINDOW, types.float32)
        du_ = cuda.local.array(WINDOW, types.float32)
        dstep_ = cuda.local.array(WINDOW, types.float32)
        A_bar = cuda.local.array(WINDOW, types.float32)
        h_before = cuda.local.array(WINDOW, types.float32)
        dD = ZERO
        dbias = ZERO
        last = (length - 1) // WINDOW
        for k in range(last, -1, -1):
            # outside of the problem Δ = u = e = 0, which changes nothing: Ā = 1, and every term is 0
            for i in range(own, CHANNELS * WINDOW, CHANNELS):
                c = i // WINDOW
                j = i % WINDOW
                t = k * WINDOW + j
                inside = first + c < dim and t < length
                steps[c, j] = softplus(delta[b, first + c, t] + delta_bias[first + c]) if inside else ZERO
                inputs[c, j] = u[b, first + c, t] if inside else ZERO
                es[c, j] = grad_y[b, first + c, t] * silu(z[b, first + c, t]) if inside else ZERO
            for i in range(own, state * WINDOW, CHANNELS):
                n = i // WINDOW
                j = i % WINDOW
                t = k * WINDOW + j
                Bs[n, j] = B[b, n, t] if t < length else ZERO
                Cs[n, j] = C[b, n, t] if t < length else ZERO
            cuda.syncthreads()

            for j in unroll(WINDOW):
                s_[j] = D_d * inputs[own, j]
                du_[j] = D_d * es[own, j]
                dstep_[j] = ZERO
                dD += es[own, j] * inputs[own, j]
            for n in range(state):
                A_n = A[d, n] if live else ZERO
                h = h_at[b, k, n, d] if live else ZERO
                for j in unroll(WINDOW):
                    A_bar[j] = math.exp(steps[own, j] * A_n)
                    h_before[j] = h
                    h = A_bar[j] * h + steps[own, j] * Bs[n, j] * inputs[own, j]
                    s_[j] += Cs[n, j] * h
                    terms[own, WINDOW + j] = h * es[own, j]
                carried = r_at[b, n, d] if live and k < last else ZERO
                dA = ZERO
                for j in unroll(WINDOW - 1, -1, -1):
                    g = Cs[n, j] * es[own, j] + carried
                    carried = A_bar[j] * g
                    du_[j] += g * steps[own, j] * Bs[n, j]
                    dstep_[j] += A_n * (carried * h_before[j]) + g * Bs[n, j] * inputs[own, j]
                    dA += steps[own, j] * (carried * h_before[j])
                    terms[own, j] = g * steps[own, j] * inputs[own, j]
                if live:
                    r_at[b, n, d] = carried
                    A_parts[b, d, n] = dA + (A_parts[b, d, n] if k < last else ZERO)
                cuda.syncwarp()
                column = ZERO
                for c in range(warp * WARP, (warp + 1) * WARP):
                    column += terms[c, lane]
                sums[warp, n, lane] = column
                cuda.syncwarp()

            for j in unroll(WINDOW):
                inputs[own, j] = du_[j]
                steps[own, j] = dstep_[j]
                es[own, j] = s_[j]
            cuda.syncthreads()
            for i in range(own, CHANNELS * WINDOW, CHANNELS):
                c = i // WINDOW
                j = i % WINDOW
                t = k * WINDOW + j
                if first + c < dim and t < length:
                    ddelta_t = steps[c, j] * sigmoid(delta[b, first + c, t] + delta_bias[first + c])
                    steps[c, j] = ddelta_t
                    ddelta[b, first + c, t] = ddelta_t
                    du[b, first + c, t] = inputs[c, j]
                    dz[b, first + c, t] = grad_y[b, first + c, t] * es[c, j] * dsilu(z[b, first + c, t])
            for i in range(own, state * WINDOW, CHANNELS):
                n = i // WINDOW
                j = i % WINDOW
                t = k * WINDOW + j
                if t < length:
                    dB_t = ZERO
                    dC_t = ZERO
                    for w in range(warps):
                        dB_t += sums[w, n, j]
                        dC_t += sums[w, n, WINDOW + j]
                    B_parts[b, group, n, t] = dB_t
                    C_parts[b, group, n, t] = dC_t
            cuda.syncthreads()
            for j in range(WINDOW):
                dbias += steps[own, j]
            cuda.syncthreads()
        if live:
            D_parts[b, d] = dD
            bias_parts[b, d] = dbias

    return borders, gradients


@no_type_check
def runner(warps):
    """The rung with blocks of so many warps."""

    def run(inputs, grads, sizes, stream):
        (batch, dim, length, state), (_, u, delta, A, B, _, _, _, delta_bias) = sizes, inputs
        groups = ceil(dim, WARP * warps)
        grid = batch * groups, WARP * warps, stream
        borders, gradients = make(state, warps)
        h_at, r_at = scratch(batch, ceil(length, WINDOW), state, dim), scratch(batch, state, dim)
        maps = tuple(scratch(batch, groups, state, length) for _ in range(2))
        channels = scratch(batch, dim, state), scratch(batch, dim), scratch(batch, dim)
        borders[grid](u, delta, A, B, delta_bias, h_at)
        gradients[grid](*inputs, h_at, r_at, grads.u, grads.delta, grads.z, *maps, *channels)
        sum_parts(maps, channels, grads, stream)

    return run


@no_type_check
def costs_of(warps):
    channels = WARP * warps
    return costs(
        words=lambda N, dim: 12 + 7 * N / channels + 4 * N / WINDOW + 2 * N / dim,
        exponentials=lambda N, dim: 2 * N + 8,
        flops=lambda N, dim: 32 * N + 26 + N / WINDOW + 2 * N / WARP + 2 * N / channels,
    )


RUNG = Rung(
    number="3",
    title="tiles in shared memory",
    idea="lanes along time to load, along channels to scan; dB and dC are summed over a block's channels on chip",
    launch=launcher(runner(WARPS)),
    **costs_of(WARPS),
)
