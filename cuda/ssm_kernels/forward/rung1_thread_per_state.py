"""Rung 1: one kernel, a thread per (batch, channel, state).

A state lives in its thread's register from the first step to the last, and Ā and B̄u never leave it. Only the sum
over states crosses threads: each leaves its C h in shared memory, and the thread of state 0 adds them up.

    a block:   channel 0   h₀ h₁ … h_{N−1}   ─ C h ─→   shared row 0   ─ Σ ─→   y of channel 0
               channel 1   h₀ h₁ … h_{N−1}   ─ C h ─→   shared row 1   ─ Σ ─→   y of channel 1
                  ⋮                                                             step after step

With N states, per (b, d, t): bytes 4 (4N + 2), exponentials 3N + 1, FLOPs 8N + 5.
Every thread of a channel loads the same u and delta and takes the same softplus, and two barriers guard every step.
Next: one thread for all states of a channel.
"""

from __future__ import annotations

import math
from functools import cache
from typing import no_type_check

from ssm_kernels._target import cuda, jit, types
from ssm_kernels.forward.equations import silu, softplus
from ssm_kernels.ladder import Rung, check

float32 = types.float32
THREADS = 128


@cache
@no_type_check
def fused(state):
    channels = max(1, THREADS // state)

    @jit
    def kernel(u, delta, A, B, C, D, z, delta_bias, y):
        read = cuda.shared.array((channels, state), float32)
        batch, dim, length = u.shape
        n, c = cuda.threadIdx.x, cuda.threadIdx.y
        row = cuda.blockIdx.x * channels + c
        live = row < batch * dim  # no early return: the others would wait at the barrier
        b, d = row // dim, row % dim
        h = float32(0)
        u_t = float32(0)
        for t in range(length):
            if live:
                u_t = u[b, d, t]
                delta_t = softplus(delta[b, d, t] + delta_bias[d])
                h = math.exp(delta_t * A[d, n]) * h + delta_t * u_t * B[b, n, t]
                read[c, n] = C[b, n, t] * h
            cuda.syncthreads()
            if live and n == 0:
                y_t = D[d] * u_t
                for m in range(state):
                    y_t += read[c, m]
                y[b, d, t] = y_t * silu(z[b, d, t])
            cuda.syncthreads()

    return kernel, channels


@no_type_check
def launch(u, delta, A, B, C, D, z, delta_bias, y, *, stream=0):
    """y of the layer."""
    batch, dim, _, state = check(u=u, delta=delta, A=A, B=B, C=C, D=D, z=z, delta_bias=delta_bias, y=y)
    kernel, channels = fused(state)
    kernel[-(-batch * dim // channels), (state, channels), stream](u, delta, A, B, C, D, z, delta_bias, y)


RUNG = Rung(
    number="1",
    title="a thread per state",
    idea="One kernel: each thread keeps one state for all time, and shared memory sums over states.",
    launch=launch,
    bytes=lambda batch, dim, length, state: 4 * batch * dim * length * (4 * state + 2),
    exponentials=lambda batch, dim, length, state: batch * dim * length * (3 * state + 1),
    flops=lambda batch, dim, length, state: batch * dim * length * (8 * state + 5),
)
