"""Rung 4a: a block scans along time, every thread at every step (Hillis & Steele 1986).

Steps compose: h ↦ a₂(a₁h + b₁) + b₂ is again a step. So a block takes one channel, a thread one time, and log₂ T
rounds give every thread the composition of all steps up to its own. In the round of reach r, thread i composes what
it has with what thread i − r had:

    i          0       1       2       3       4       5       6       7
    r = 1      0      0:1     1:2     2:3     3:4     4:5     5:6     6:7
    r = 2      0      0:1     0:2     0:3     1:4     2:5     3:6     4:7
    r = 4      0      0:1     0:2     0:3     0:4     0:5     0:6     0:7

The state that the last tile ended with enters with the first step of this one: b₀ ← a₀ h + b₀. Then b is h.
The exchange has two buffers, so one barrier a round is enough: none writes what a slower thread still reads.

With N states and tiles of T = 128, per (b, d, t): bytes 4 (4 + 2N), exponentials N + 3,
FLOPs N (4 + 2/T + 3 (log₂ T − 1 + 1/T)) + 7.
log₂ T − 1 compositions a step (SCAN-11), where 2 are enough. Next: not to make the others.
"""

from __future__ import annotations

import math
from functools import cache
from typing import no_type_check

from ssm_kernels._target import cuda, jit, types
from ssm_kernels.forward.equations import compose, silu, softplus
from ssm_kernels.ladder import Rung, check

float32 = types.float32
TILE = 128  # times and threads, a power of two


@cache
@no_type_check
def scan(state):
    @jit
    def kernel(u, delta, A, B, C, D, z, delta_bias, y):
        shared_a = cuda.shared.array((2, TILE), float32)
        shared_b = cuda.shared.array((2, TILE), float32)
        carry = cuda.shared.array(state, float32)
        dim, length = u.shape[1], u.shape[2]
        b, d = cuda.blockIdx.x // dim, cuda.blockIdx.x % dim
        i = cuda.threadIdx.x
        for n in range(i, state, TILE):
            carry[n] = float32(0)
        buffer = 0
        for t0 in range(0, length, TILE):
            cuda.syncthreads()  # the carry of the tile before
            t = t0 + i
            live = t < length
            # past the end Δ = 0: a = 1 and b = 0, the step that changes nothing
            u_t = u[b, d, t] if live else float32(0)
            delta_t = softplus(delta[b, d, t] + delta_bias[d]) if live else float32(0)
            delta_u = delta_t * u_t
            y_t = D[d] * u_t
            for n in range(state):
                a_t = math.exp(delta_t * A[d, n])
                b_t = delta_u * B[b, n, t] if live else float32(0)
                if i == 0:
                    b_t += a_t * carry[n]
                reach = 1
                while reach < TILE:
                    shared_a[buffer, i] = a_t
                    shared_b[buffer, i] = b_t
                    cuda.syncthreads()
                    if i >= reach:
                        a_t, b_t = compose(a_t, b_t, shared_a[buffer, i - reach], shared_b[buffer, i - reach])
                    buffer = 1 - buffer
                    reach *= 2
                if i == TILE - 1:
                    carry[n] = b_t
                if live:
                    y_t += C[b, n, t] * b_t
            if live:
                y[b, d, t] = y_t * silu(z[b, d, t])

    return kernel


@no_type_check
def launch(u, delta, A, B, C, D, z, delta_bias, y, *, stream=0):
    """y of the layer."""
    batch, dim, _, state = check(u=u, delta=delta, A=A, B=B, C=C, D=D, z=z, delta_bias=delta_bias, y=y)
    scan(state)[batch * dim, TILE, stream](u, delta, A, B, C, D, z, delta_bias, y)


@no_type_check
def flops(batch, dim, length, state):
    rounds = TILE.bit_length() - 1
    compositions = rounds - 1 + 1 / TILE  # Σ (T − r)/T over r = 1, 2, 4, …
    return batch * dim * length * (state * (4 + 2 / TILE + 3 * compositions) + 7)


RUNG = Rung(
    number="4a",
    title="Hillis and Steele's scan",
    idea="A thread per time: log₂ T rounds compose the steps of a tile, all threads working in each.",
    launch=launch,
    bytes=lambda batch, dim, length, state: 4 * batch * dim * length * (4 + 2 * state),
    exponentials=lambda batch, dim, length, state: batch * dim * length * (state + 3),
    flops=flops,
    chunk=TILE,
)
