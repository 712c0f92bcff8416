"""Rung 6: the chunks of one channel in parallel, by A's being constant in time.

A chunk takes h to exp(A ΣΔ) h + b, with b the state that it ends in when it begins with zero. So one number, ΣΔ,
holds its decays for all states (SCAN-15), and what underflows in a product of decays does not in their sum (SCAN-17):

    chunk            0             1             2             3
    summarise     (ΣΔ, b)       (ΣΔ, b)       (ΣΔ, b)       (ΣΔ, b)       all at once
    combine       h = 0    ─→   h        ─→   h        ─→   h             h ← exp(A ΣΔ) h + b
    scan          y             y             y             y             all at once, from those h

The passes over time are rung 3's: states in registers, tiles in shared memory, B and C once for a block's channels.

With N states, K = 64 channels a block and chunks of S = 256, per (b, d, t): bytes 4 (6 + 3N/K + (1 + 5N)/S),
exponentials 2N + 5 + N/S, FLOPs 10N + 10 + 3N/S.
Every exponential twice, and more bytes: it pays where batch · dim alone leaves the GPU idle. Next, for both cases: the
cost of an instruction. Base-2 exponentials, 16-byte loads, 32-bit indices, loads that are under way during a tile.
"""

from __future__ import annotations

import math
from functools import cache
from typing import no_type_check

from ssm_kernels._target import cuda, jit, types
from ssm_kernels.forward.equations import silu, softplus
from ssm_kernels.forward.rung3_shared_tiles import CHANNELS, ROW, TILE, copy
from ssm_kernels.ladder import Rung, check

float32 = types.float32
CHUNK = 256  # a multiple of TILE
THREADS = 128


@cache
@no_type_check
def summarise(state):
    @jit
    def kernel(u, delta, A, B, delta_bias, sum_delta, h_chunk):
        tile_u = cuda.shared.array((CHANNELS, ROW), float32)
        tile_delta = cuda.shared.array((CHANNELS, ROW), float32)
        tile_B = cuda.shared.array((state, TILE), float32)
        dim, length = u.shape[1], u.shape[2]
        groups = (dim + CHANNELS - 1) // CHANNELS
        chunks = sum_delta.shape[1]
        b, chunk = cuda.blockIdx.x // (groups * chunks), cuda.blockIdx.x // groups % chunks
        d0 = cuda.blockIdx.x % groups * CHANNELS
        c = cuda.threadIdx.x
        d = d0 + c
        a = cuda.local.array(state, float32)
        h = cuda.local.array(state, float32)
        for n in range(state):
            a[n] = A[d, n] if d < dim else float32(0)
            h[n] = float32(0)
        total = float32(0)
        end = min(length, (chunk + 1) * CHUNK)
        for t0 in range(chunk * CHUNK, end, TILE):
            copy(tile_u, CHANNELS, u, b, d0, t0)
            copy(tile_delta, CHANNELS, delta, b, d0, t0)
            copy(tile_B, state, B, b, 0, t0)
            cuda.syncthreads()
            if d < dim:
                for k in range(min(TILE, end - t0)):
                    delta_t = softplus(tile_delta[c, k] + delta_bias[d])
                    delta_u = delta_t * tile_u[c, k]
                    total += delta_t
                    for n in range(state):
                        h[n] = math.exp(delta_t * a[n]) * h[n] + delta_u * tile_B[n, k]
            cuda.syncthreads()
        if d < dim:
            sum_delta[b, chunk, d] = total
            for n in range(state):
                h_chunk[b, chunk, n, d] = h[n]

    return kernel


@jit
@no_type_check
def combine(A, sum_delta, h_chunk):
    """Comes with the state that each chunk adds and leaves the one that it begins with."""
    batch, chunks, state, dim = h_chunk.shape
    i = cuda.grid(1)
    if i >= batch * state * dim:
        return
    d, n, b = i % dim, i // dim % state, i // (dim * state)
    h = float32(0)
    for chunk in range(chunks):
        added = h_chunk[b, chunk, n, d]
        h_chunk[b, chunk, n, d] = h
        h = math.exp(A[d, n] * sum_delta[b, chunk, d]) * h + added


@cache
@no_type_check
def scan(state):
    @jit
    def kernel(u, delta, A, B, C, D, z, delta_bias, h_chunk, y):
        tile_u = cuda.shared.array((CHANNELS, ROW), float32)
        tile_delta = cuda.shared.array((CHANNELS, ROW), float32)
        tile_B = cuda.shared.array((state, TILE), float32)
        tile_C = cuda.shared.array((state, TILE), float32)
        dim, length = u.shape[1], u.shape[2]
        groups = (dim + CHANNELS - 1) // CHANNELS
        chunks = h_chunk.shape[1]
        b, chunk = cuda.blockIdx.x // (groups * chunks), cuda.blockIdx.x // groups % chunks
        d0 = cuda.blockIdx.x % groups * CHANNELS
        c = cuda.threadIdx.x
        d = d0 + c
        a = cuda.local.array(state, float32)
        h = cuda.local.array(state, float32)
        for n in range(state):
            a[n] = A[d, n] if d < dim else float32(0)
            h[n] = h_chunk[b, chunk, n, d] if d < dim else float32(0)
        end = min(length, (chunk + 1) * CHUNK)
        for t0 in range(chunk * CHUNK, end, TILE):
            copy(tile_u, CHANNELS, u, b, d0, t0)
            copy(tile_delta, CHANNELS, delta, b, d0, t0)
            copy(tile_B, state, B, b, 0, t0)
            copy(tile_C, state, C, b, 0, t0)
            cuda.syncthreads()
            if d < dim:
                for k in range(min(TILE, end - t0)):
                    u_t = tile_u[c, k]
                    delta_t = softplus(tile_delta[c, k] + delta_bias[d])
                    delta_u = delta_t * u_t
                    y_t = D[d] * u_t
                    for n in range(state):
                        h[n] = math.exp(delta_t * a[n]) * h[n] + delta_u * tile_B[n, k]
                        y_t += tile_C[n, k] * h[n]
                    tile_u[c, k] = y_t  # u_t is not needed again
            cuda.syncthreads()
            for i in range(c, CHANNELS * TILE, CHANNELS):
                r, k = i // TILE, i % TILE
                if d0 + r < dim and t0 + k < end:
                    y[b, d0 + r, t0 + k] = tile_u[r, k] * silu(z[b, d0 + r, t0 + k])
            cuda.syncthreads()

    return kernel


@no_type_check
def launch(u, delta, A, B, C, D, z, delta_bias, y, *, stream=0):
    """y of the layer; takes scratch memory of (state + 1) / CHUNK times the size of u."""
    batch, dim, length, state = check(u=u, delta=delta, A=A, B=B, C=C, D=D, z=z, delta_bias=delta_bias, y=y)
    chunks = -(-length // CHUNK)
    blocks = batch * chunks * -(-dim // CHANNELS)
    sum_delta = cuda.device_array((batch, chunks, dim), "float32", stream=stream)
    h_chunk = cuda.device_array((batch, chunks, state, dim), "float32", stream=stream)
    summarise(state)[blocks, CHANNELS, stream](u, delta, A, B, delta_bias, sum_delta, h_chunk)
    combine[-(-batch * state * dim // THREADS), THREADS, stream](A, sum_delta, h_chunk)
    scan(state)[blocks, CHANNELS, stream](u, delta, A, B, C, D, z, delta_bias, h_chunk, y)


@no_type_check
def bytes_moved(batch, dim, length, state):
    return 4 * batch * dim * length * (6 + 3 * state / CHANNELS + (1 + 5 * state) / CHUNK)


RUNG = Rung(
    number="6",
    title="chunks in parallel",
    idea="A chunk's decay is exp(A ΣΔ): summarise all chunks at once, combine, scan all at once.",
    launch=launch,
    bytes=bytes_moved,
    exponentials=lambda batch, dim, length, state: batch * dim * length * (2 * state + 5 + state / CHUNK),
    flops=lambda batch, dim, length, state: batch * dim * length * (10 * state + 10 + 3 * state / CHUNK),
    chunk=CHUNK,
)
