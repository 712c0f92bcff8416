"""Rung 4, a thread per time: the block scans over the length in shared memory, forth for h and back for the adjoint.

    block = TILE times × 8 channels, one channel and state after the other

    h_t = Ā_t h_{t−1} + B̄_t u_t     places 0 1 2 … from the left:   (Ā_t, B̄_t u_t)
    r_t = Ā_t r_{t+1} + Ā_t C_t e_t  places 0 1 2 … from the right:  (Ā_t, Ā_t C_t e_t)     g_t = C_t e_t + r_{t+1}

    hop 1   ○ ○ ○ ○ ○ ○ ○ ○        each place takes in the pair that lies a hop before it, log₂ TILE times:
            │╲│╲│╲│╲│╲│╲│╲│        (a₂, b₂)∘(a₁, b₁) = (a₂a₁, a₂b₁ + b₂)
    hop 2   ○ ○ ○ ○ ○ ○ ○ ○

What flows back is r_t = Ā_t g_t: then both scans decay by the Ā of their own step, one function does both, and nothing
is shifted at the borders of tiles. Lanes are times, so every load is coalesced as it is; Δ, u, e and the sums over
states stand in shared memory, in columns that only their thread touches. A thread sums its terms of dB and dC over the
block's channels in a register, and 1/8 of them go to global memory. The terms of dA stand in rows, one a channel.

With N states, tiles of T times and K channels a block, per (b, d, t): bytes 4 (12 + 3N + 7N/K + 2N/T + 2N/dim),
exponentials 2N + 8, FLOPs N (33 + 3S + 3/K + 1/T) + 26 + 2/K + 2/T with S = 3 (log₂ T − 1 + 1/T) + 2 for a scan.
Next: those barriers. A warp can pass values from lane to lane without memory.

Claims ADJ-1 to ADJ-4, ADJ-9, SCAN-1, SCAN-11, SCAN-24. Source: Hillis & Steele 1986; Mamba, §3.3.2.
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

CHANNELS, TILE = 8, 128


@no_type_check
@cache
def make(state, channels, tile):
    SEGMENTS = tile // channels
    ROW = tile + 1

    @jit(device=True, forceinline=True)
    def scan(place, a, b, start, a_row, b_row):
        """x = a x_before + b from x = start before place 0: x_before, and x at the last place."""
        hop = 1
        while hop < tile:
            a_row[place] = a
            b_row[place] = b
            cuda.syncthreads()
            if place >= hop:
                b += a * b_row[place - hop]
                a *= a_row[place - hop]
            cuda.syncthreads()
            hop *= 2
        b_row[place] = a * start + b
        cuda.syncthreads()
        before = b_row[place - 1] if place > 0 else start
        last = b_row[tile - 1]
        cuda.syncthreads()
        return before, last

    @jit(device=True, forceinline=True)
    def row_sums(own, rows, partial):
        """For thread c < channels the sum of row c, in a fixed order; else 0."""
        cuda.syncthreads()
        c = own // SEGMENTS
        segment = own % SEGMENTS
        total = ZERO
        for i in range(segment, tile, SEGMENTS):
            total += rows[c, i]
        partial[c, segment] = total
        cuda.syncthreads()
        total = ZERO
        if own < channels:
            for k in range(SEGMENTS):
                total += partial[own, k]
        return total

    @jit
    def borders(u, delta, A, B, delta_bias, h_at):
        a_row = cuda.shared.array(tile, types.float32)
        b_row = cuda.shared.array(tile, types.float32)
        _, dim, length = u.shape
        groups = (dim + channels - 1) // channels
        b = cuda.blockIdx.x // groups
        first = cuda.blockIdx.x % groups * channels
        own = cuda.threadIdx.x
        step_ = cuda.shared.array((channels, tile), types.float32)
        u_ = cuda.shared.array((channels, tile), types.float32)
        tiles = (length + tile - 1) // tile
        for k in range(tiles - 1):
            t = k * tile + own
            for c in range(channels):
                live = first + c < dim
                step_[c, own] = softplus(delta[b, first + c, t] + delta_bias[first + c]) if live else ZERO
                u_[c, own] = u[b, first + c, t] if live else ZERO
            for n in range(state):
                B_t = B[b, n, t]
                for c in range(channels):
                    d = min(first + c, dim - 1)
                    start = h_at[b, k - 1, n, d] if k > 0 else ZERO
                    _, h = scan(
                        own, math.exp(step_[c, own] * A[d, n]), step_[c, own] * B_t * u_[c, own], start, a_row, b_row
                    )
                    if own == 0 and first + c < dim:
                        h_at[b, k, n, d] = h
            cuda.syncthreads()

    @jit
    def gradients(
        grad_y, u, delta, A, B, C, D, z, delta_bias, h_at, r_at,
        du, ddelta, dz, B_parts, C_parts, A_parts, D_parts, bias_parts,
    ):  # fmt: skip
        a_row = cuda.shared.array(tile, types.float32)
        b_row = cuda.shared.array(tile, types.float32)
        rows = cuda.shared.array((channels, ROW), types.float32)
        partial = cuda.shared.array((channels, SEGMENTS), types.float32)
        _, dim, length = u.shape
        groups = (dim + channels - 1) // channels
        group = cuda.blockIdx.x % groups
        b = cuda.blockIdx.x // groups
        first = group * channels
        own = cuda.threadIdx.x
        owns = own < channels and first + own < dim
        step_ = cuda.shared.array((channels, tile), types.float32)
        u_ = cuda.shared.array((channels, tile), types.float32)
        e_ = cuda.shared.array((channels, tile), types.float32)
        s_ = cuda.shared.array((channels, tile), types.float32)
        du_ = cuda.shared.array((channels, tile), types.float32)
        dstep_ = cuda.shared.array((channels, tile), types.float32)
        dD = ZERO
        dbias = ZERO
        last = (length - 1) // tile
        for k in range(last, -1, -1):
            t = k * tile + own
            # outside of the problem Δ = u = e = 0, which changes nothing: Ā = 1, and every term is 0
            for c in range(channels):
                d = first + c
                inside = d < dim and t < length
                step_[c, own] = softplus(delta[b, d, t] + delta_bias[d]) if inside else ZERO
                u_[c, own] = u[b, d, t] if inside else ZERO
                e_[c, own] = grad_y[b, d, t] * silu(z[b, d, t]) if inside else ZERO
                s_[c, own] = D[d] * u_[c, own] if inside else ZERO
                du_[c, own] = D[d] * e_[c, own] if inside else ZERO
                dstep_[c, own] = ZERO
                rows[c, own] = e_[c, own] * u_[c, own]
            dD += row_sums(own, rows, partial)

            for n in range(state):
                B_t = B[b, n, t] if t < length else ZERO
                C_t = C[b, n, t] if t < length else ZERO
                dB_t = ZERO
                dC_t = ZERO
                for c in range(channels):
                    d = min(first + c, dim - 1)
                    A_n = A[d, n]
                    A_bar = math.exp(step_[c, own] * A_n)
                    written = step_[c, own] * B_t * u_[c, own]
                    start = h_at[b, k - 1, n, d] if k > 0 else ZERO
                    h_before, _ = scan(own, A_bar, written, start, a_row, b_row)
                    start = r_at[b, n, d] if k < last else ZERO
                    r_after, r = scan(tile - 1 - own, A_bar, A_bar * (C_t * e_[c, own]), start, a_row, b_row)
                    if own == 0 and first + c < dim:
                        r_at[b, n, d] = r

                    h = A_bar * h_before + written
                    g = C_t * e_[c, own] + r_after
                    s_[c, own] += C_t * h
                    du_[c, own] += g * step_[c, own] * B_t
                    dstep_[c, own] += A_n * (A_bar * g * h_before) + g * B_t * u_[c, own]
                    rows[c, own] = step_[c, own] * (A_bar * g * h_before)
                    dB_t += g * step_[c, own] * u_[c, own]
                    dC_t += h * e_[c, own]
                if t < length:
                    B_parts[b, group, n, t] = dB_t
                    C_parts[b, group, n, t] = dC_t
                dA = row_sums(own, rows, partial)
                if owns:
                    A_parts[b, first + own, n] = dA + (A_parts[b, first + own, n] if k < last else ZERO)

            for c in range(channels):
                d = first + c
                rows[c, own] = ZERO
                if d < dim and t < length:
                    ddelta_t = dstep_[c, own] * sigmoid(delta[b, d, t] + delta_bias[d])
                    rows[c, own] = ddelta_t
                    ddelta[b, d, t] = ddelta_t
                    du[b, d, t] = du_[c, own]
                    dz[b, d, t] = grad_y[b, d, t] * s_[c, own] * dsilu(z[b, d, t])
            dbias += row_sums(own, rows, partial)
        if owns:
            D_parts[b, first + own] = dD
            bias_parts[b, first + own] = dbias

    return borders, gradients


@no_type_check
def runner(channels, tile):
    """The rung with blocks of so many channels and times; `tile` is a power of two, and `channels` divides it."""

    def run(inputs, grads, sizes, stream):
        (batch, dim, length, state), (_, u, delta, A, B, _, _, _, delta_bias) = sizes, inputs
        groups = ceil(dim, channels)
        grid = batch * groups, tile, stream
        borders, gradients = make(state, channels, tile)
        h_at, r_at = scratch(batch, ceil(length, tile), state, dim), scratch(batch, state, dim)
        maps = tuple(scratch(batch, groups, state, length) for _ in range(2))
        channel_parts = scratch(batch, dim, state), scratch(batch, dim), scratch(batch, dim)
        borders[grid](u, delta, A, B, delta_bias, h_at)
        gradients[grid](*inputs, h_at, r_at, grads.u, grads.delta, grads.z, *maps, *channel_parts)
        sum_parts(maps, channel_parts, grads, stream)

    return run


@no_type_check
def costs_of(channels, tile):
    rounds = tile.bit_length() - 1
    scan = 3 * (rounds - 1 + 1 / tile) + 2  # a place with nothing a hop before it rests
    rows = 1 + 1 / channels
    return costs(
        words=lambda N, dim: 12 + 3 * N + 7 * N / channels + 2 * N / tile + 2 * N / dim,
        exponentials=lambda N, dim: 2 * N + 8,
        flops=lambda N, dim: 24 + 2 * (rows + 1 / tile) + N * (32 + 3 * scan + rows + 1 / tile + 2 / channels),
    )


RUNG = Rung(
    number="4",
    title="block scans in shared memory",
    idea="a thread per time: h is scanned over the length from the left, and r = Ā g from the right",
    launch=launcher(runner(CHANNELS, TILE)),
    **costs_of(CHANNELS, TILE),
    chunk=TILE,
)
