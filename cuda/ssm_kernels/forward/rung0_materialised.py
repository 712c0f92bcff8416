"""Rung 0: every Ā and B̄u in global memory.

The equations as three array operations, each a kernel of its own, the way a framework would run them.

    discretise   a thread per (b, d, t, n)   Ā = exp(ΔA), B̄u = ΔuB   → two arrays of state × the input's size
    scan         a thread per (b, d, n)      h_t = Ā h_{t−1} + B̄u     → written over B̄u
    read out     a thread per (b, d, t)      y = (Σ C h + Du) silu(z)

With N states, per (b, d, t): bytes 4 (10N + 3), exponentials 3N + 1, FLOPs 8N + 5.
Two arrays of N times the input's size go to memory and come back. Next: never write them.
"""

from __future__ import annotations

import math
from typing import no_type_check

from ssm_kernels._target import cuda, jit, types
from ssm_kernels.forward.equations import silu, softplus
from ssm_kernels.ladder import Rung, check

float32 = types.float32
THREADS = 256


@jit
@no_type_check
def discretise(u, delta, A, B, delta_bias, A_bar, B_bar_u):
    batch, dim, length, state = A_bar.shape
    i = cuda.grid(1)
    if i >= batch * dim * length * state:
        return
    n, t = i % state, i // state % length
    d, b = i // (state * length) % dim, i // (state * length * dim)
    delta_t = softplus(delta[b, d, t] + delta_bias[d])
    A_bar[b, d, t, n] = math.exp(delta_t * A[d, n])
    B_bar_u[b, d, t, n] = delta_t * u[b, d, t] * B[b, n, t]


@jit
@no_type_check
def scan(A_bar, h):
    """Comes with B̄u in h and leaves the states there."""
    batch, dim, length, state = h.shape
    i = cuda.grid(1)
    if i >= batch * dim * state:
        return
    n, d, b = i % state, i // state % dim, i // (state * dim)
    h_t = float32(0)
    for t in range(length):
        h_t = A_bar[b, d, t, n] * h_t + h[b, d, t, n]
        h[b, d, t, n] = h_t


@jit
@no_type_check
def read_out(h, C, D, u, z, y):
    batch, dim, length, state = h.shape
    i = cuda.grid(1)
    if i >= batch * dim * length:
        return
    t, d, b = i % length, i // length % dim, i // (length * dim)
    y_t = D[d] * u[b, d, t]
    for n in range(state):
        y_t += C[b, n, t] * h[b, d, t, n]
    y[b, d, t] = y_t * silu(z[b, d, t])


@no_type_check
def launch(u, delta, A, B, C, D, z, delta_bias, y, *, stream=0):
    """y of the layer; takes scratch memory of 2 · state times the size of u."""
    batch, dim, length, state = check(u=u, delta=delta, A=A, B=B, C=C, D=D, z=z, delta_bias=delta_bias, y=y)
    A_bar = cuda.device_array((batch, dim, length, state), "float32", stream=stream)
    h = cuda.device_array((batch, dim, length, state), "float32", stream=stream)

    def blocks(threads):
        return -(-threads // THREADS)

    steps = batch * dim * length
    discretise[blocks(steps * state), THREADS, stream](u, delta, A, B, delta_bias, A_bar, h)
    scan[blocks(batch * dim * state), THREADS, stream](A_bar, h)
    read_out[blocks(steps), THREADS, stream](h, C, D, u, z, y)


RUNG = Rung(
    number="0",
    title="materialised",
    idea="Three kernels: all Ā and B̄u to global memory, the scan, the read-out.",
    launch=launch,
    bytes=lambda batch, dim, length, state: 4 * batch * dim * length * (10 * state + 3),
    exponentials=lambda batch, dim, length, state: batch * dim * length * (3 * state + 1),
    flops=lambda batch, dim, length, state: batch * dim * length * (8 * state + 5),
)
