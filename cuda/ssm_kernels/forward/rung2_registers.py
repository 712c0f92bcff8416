"""Rung 2: a thread per (batch, channel), all its states in registers.

The loop over states has a bound that the compiler knows, so it unrolls, and the arrays h and A become registers.
No barrier, no shared memory, and what does not depend on the state is loaded and computed once. (The compiler has a
limit to what it unrolls: at 64 states this body is past it, and h and A go to local memory, which is global memory.)

    a thread:   h₀ … h_{N−1}, A₀ … A_{N−1}   │ t = 0, 1, 2, …
    its lanes:  channels d, d+1, …, d+31     │ each walks its own row of u, delta, z, y

With N states, per (b, d, t): bytes 4 (4 + 2N), exponentials N + 3, FLOPs 6N + 7.
Neighbouring lanes read `length` elements apart, so that one warp's load touches 32 sectors of memory for 4 bytes of
each; and every thread loads all of B and C. Next: tiles in shared memory.
"""

from __future__ import annotations

import math
from functools import cache
from typing import no_type_check

from ssm_kernels._target import cuda, jit, types
from ssm_kernels.forward.equations import silu, softplus
from ssm_kernels.ladder import Rung, check

float32 = types.float32
THREADS = 64


@cache
@no_type_check
def scan(state):
    @jit
    def kernel(u, delta, A, B, C, D, z, delta_bias, y):
        batch, dim, length = u.shape
        row = cuda.grid(1)
        if row >= batch * dim:
            return
        b, d = row // dim, row % dim
        a = cuda.local.array(state, float32)
        h = cuda.local.array(state, float32)
        for n in range(state):
            a[n] = A[d, n]
            h[n] = float32(0)
        for t in range(length):
            u_t = u[b, d, t]
            delta_t = softplus(delta[b, d, t] + delta_bias[d])
            delta_u = delta_t * u_t
            y_t = D[d] * u_t
            for n in range(state):
                h[n] = math.exp(delta_t * a[n]) * h[n] + delta_u * B[b, n, t]
                y_t += C[b, n, t] * h[n]
            y[b, d, t] = y_t * silu(z[b, d, t])

    return kernel


@no_type_check
def launch(u, delta, A, B, C, D, z, delta_bias, y, *, stream=0):
    """y of the layer."""
    batch, dim, _, state = check(u=u, delta=delta, A=A, B=B, C=C, D=D, z=z, delta_bias=delta_bias, y=y)
    scan(state)[-(-batch * dim // THREADS), THREADS, stream](u, delta, A, B, C, D, z, delta_bias, y)


RUNG = Rung(
    number="2",
    title="registers",
    idea="A thread per channel with all its states in registers: no barrier, nothing computed twice.",
    launch=launch,
    bytes=lambda batch, dim, length, state: 4 * batch * dim * length * (4 + 2 * state),
    exponentials=lambda batch, dim, length, state: batch * dim * length * (state + 3),
    flops=lambda batch, dim, length, state: batch * dim * length * (6 * state + 7),
)
