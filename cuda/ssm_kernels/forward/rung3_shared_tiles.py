"""Rung 3: tiles in shared memory: lanes along time to load, along channels to scan.

A block copies a tile of its channels' u and delta, and of B and C, to shared memory, and scans from there. To copy,
neighbouring lanes take neighbouring times, which lie together in memory. To scan, each thread walks its own row; rows
are one element longer than the tile, so that the 32 rows a warp reads at one time lie in 32 banks.

                    time →                                      time →
    copy   ch. 0    lane 0  lane 1  …  lane 31     scan   ch. 0    lane 0  →  →  →
           ch. 1    lane 0  lane 1  …  lane 31            ch. 1    lane 1  →  →  →
             ⋮                                              ⋮
                                        B, C of a time: one for all channels of the block

With N states and K = 64 channels a block, per (b, d, t): bytes 4 (4 + 2N/K), exponentials N + 3, FLOPs 6N + 7.
That is close to the least there is. But there are only batch · dim threads, each waiting for its own step before.
Next: threads along time.
"""

from __future__ import annotations

import math
from functools import cache
from typing import no_type_check

from ssm_kernels._target import cuda, jit, types
from ssm_kernels.forward.equations import silu, softplus
from ssm_kernels.ladder import Rung, check

float32 = types.float32
CHANNELS = 64  # and threads
TILE = 32
ROW = TILE + 1


@jit(device=True)
@no_type_check
def copy(tile, rows, source, b, first, t0):
    """tile[r, k] = source[b, first + r, t0 + k], as far as the source goes; lanes along time."""
    for i in range(cuda.threadIdx.x, rows * TILE, CHANNELS):
        r, k = i // TILE, i % TILE
        if first + r < source.shape[1] and t0 + k < source.shape[2]:
            tile[r, k] = source[b, first + r, t0 + k]


@cache
@no_type_check
def scan(state):
    @jit
    def kernel(u, delta, A, B, C, D, z, delta_bias, y):
        tile_u = cuda.shared.array((CHANNELS, ROW), float32)
        tile_delta = cuda.shared.array((CHANNELS, ROW), float32)
        tile_B = cuda.shared.array((state, TILE), float32)
        tile_C = cuda.shared.array((state, TILE), float32)
        dim, length = u.shape[1], u.shape[2]
        groups = (dim + CHANNELS - 1) // CHANNELS
        b, d0 = cuda.blockIdx.x // groups, cuda.blockIdx.x % groups * CHANNELS
        c = cuda.threadIdx.x
        d = d0 + c
        a = cuda.local.array(state, float32)
        h = cuda.local.array(state, float32)
        for n in range(state):
            a[n] = A[d, n] if d < dim else float32(0)
            h[n] = float32(0)
        for t0 in range(0, length, TILE):
            copy(tile_u, CHANNELS, u, b, d0, t0)
            copy(tile_delta, CHANNELS, delta, b, d0, t0)
            copy(tile_B, state, B, b, 0, t0)
            copy(tile_C, state, C, b, 0, t0)
            cuda.syncthreads()
            if d < dim:
                for k in range(min(TILE, length - t0)):
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
                if d0 + r < dim and t0 + k < length:
                    y[b, d0 + r, t0 + k] = tile_u[r, k] * silu(z[b, d0 + r, t0 + k])
            cuda.syncthreads()

    return kernel


@no_type_check
def launch(u, delta, A, B, C, D, z, delta_bias, y, *, stream=0):
    """y of the layer."""
    batch, dim, _, state = check(u=u, delta=delta, A=A, B=B, C=C, D=D, z=z, delta_bias=delta_bias, y=y)
    scan(state)[batch * -(-dim // CHANNELS), CHANNELS, stream](u, delta, A, B, C, D, z, delta_bias, y)


RUNG = Rung(
    number="3",
    title="shared tiles",
    idea="Lanes along time to load, along channels to scan; B and C come once for all channels of a block.",
    launch=launch,
    bytes=lambda batch, dim, length, state: 4 * batch * dim * length * (4 + 2 * state / CHANNELS),
    exponentials=lambda batch, dim, length, state: batch * dim * length * (state + 3),
    flops=lambda batch, dim, length, state: batch * dim * length * (6 * state + 7),
)
