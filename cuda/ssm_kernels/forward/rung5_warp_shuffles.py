"""Rung 5: several times a thread, warp shuffles between threads, shared memory between warps alone.

Most of a tile needs no exchange at all: a thread composes its own 4 consecutive steps in registers. The 32 lanes of a
warp scan those compositions by `shfl_up`, register to register, without a barrier. Only each warp's total goes through
shared memory, and a thread runs through the totals of the warps before its own: one barrier a state.

    registers   t t t t │ t t t t │ … │ t t t t      4 steps a thread
    shuffles       ↘────────↘──────…──────↘          32 threads a warp: 5 rounds
    shared         total of warp 0 → warp 1 → …      4 warps a block
    registers   h h h h │ h h h h │ … │ h h h h      again from the state before each thread

With N states, I = 4 items, W = 4 warps and tiles of T = 32 W I, per (b, d, t): bytes 4 (4 + 2N), exponentials N + 3,
FLOPs N (6 + 2/T + (3 (I − 1) + W − 1 + 2 · 31/32 + 3 · 129/32)/I) + 7: 31 lanes have one before them, and of the 160
in 5 rounds 129 compose.
Every channel reads B and C anew, as in rung 4, and its tiles wait for one another. Next: they need not.
"""

from __future__ import annotations

import math
from functools import cache
from typing import no_type_check

from ssm_kernels._target import cuda, jit, types
from ssm_kernels.forward.equations import compose, silu, softplus
from ssm_kernels.ladder import Rung, check

float32 = types.float32
WARPS = 4
THREADS = 32 * WARPS
ITEMS = 4
TILE = THREADS * ITEMS
ALL_LANES = 0xFFFFFFFF


@jit(device=True)
@no_type_check
def warp_scan(a, b):
    """The composition of all lanes' steps up to this one's."""
    lane = cuda.threadIdx.x % 32
    for k in range(5):
        reach = 1 << k
        a_left = cuda.shfl_up_sync(ALL_LANES, a, reach)
        b_left = cuda.shfl_up_sync(ALL_LANES, b, reach)
        if lane >= reach:
            a, b = compose(a, b, a_left, b_left)
    return a, b


@cache
@no_type_check
def scan(state):
    @jit
    def kernel(u, delta, A, B, C, D, z, delta_bias, y):
        total_a = cuda.shared.array((2, WARPS), float32)
        total_b = cuda.shared.array((2, WARPS), float32)
        carry = cuda.shared.array(state, float32)
        delta_t = cuda.local.array(ITEMS, float32)
        delta_u = cuda.local.array(ITEMS, float32)
        a_t = cuda.local.array(ITEMS, float32)
        b_t = cuda.local.array(ITEMS, float32)
        y_t = cuda.local.array(ITEMS, float32)
        dim, length = u.shape[1], u.shape[2]
        b, d = cuda.blockIdx.x // dim, cuda.blockIdx.x % dim
        i = cuda.threadIdx.x
        warp, lane = i // 32, i % 32
        for n in range(i, state, THREADS):
            carry[n] = float32(0)
        for t0 in range(0, length, TILE):
            cuda.syncthreads()  # the carry of the tile before
            first = t0 + i * ITEMS
            for k in range(ITEMS):
                t = first + k
                live = t < length
                # past the end Δ = 0: a = 1 and b = 0, the step that changes nothing
                u_t = u[b, d, t] if live else float32(0)
                delta_t[k] = softplus(delta[b, d, t] + delta_bias[d]) if live else float32(0)
                delta_u[k] = delta_t[k] * u_t
                y_t[k] = D[d] * u_t
            for n in range(state):
                for k in range(ITEMS):
                    a_t[k] = math.exp(delta_t[k] * A[d, n])
                    b_t[k] = delta_u[k] * B[b, n, first + k] if first + k < length else float32(0)
                if i == 0:
                    b_t[0] += a_t[0] * carry[n]
                a_span, b_span = a_t[0], b_t[0]
                for k in range(1, ITEMS):
                    a_span, b_span = compose(a_t[k], b_t[k], a_span, b_span)
                a_span, b_span = warp_scan(a_span, b_span)
                buffer = n % 2
                if lane == 31:
                    total_a[buffer, warp] = a_span
                    total_b[buffer, warp] = b_span
                a_before = cuda.shfl_up_sync(ALL_LANES, a_span, 1)
                b_before = cuda.shfl_up_sync(ALL_LANES, b_span, 1)
                cuda.syncthreads()
                h = float32(0)
                for w in range(WARPS):
                    if w < warp:
                        h = total_a[buffer, w] * h + total_b[buffer, w]
                if lane > 0:
                    h = a_before * h + b_before
                for k in range(ITEMS):
                    h = a_t[k] * h + b_t[k]
                    if first + k < length:
                        y_t[k] += C[b, n, first + k] * h
                if i == THREADS - 1:
                    carry[n] = h
            for k in range(ITEMS):
                if first + k < length:
                    y[b, d, first + k] = y_t[k] * silu(z[b, d, first + k])

    return kernel


@no_type_check
def launch(u, delta, A, B, C, D, z, delta_bias, y, *, stream=0):
    """y of the layer."""
    batch, dim, _, state = check(u=u, delta=delta, A=A, B=B, C=C, D=D, z=z, delta_bias=delta_bias, y=y)
    scan(state)[batch * dim, THREADS, stream](u, delta, A, B, C, D, z, delta_bias, y)


@no_type_check
def flops(batch, dim, length, state):
    a_thread = 3 * (ITEMS - 1) + (WARPS - 1) + 2 * 31 / 32  # its own steps, the warps before, the lanes before
    a_warp = 3 * 129  # Σ (32 − r) lanes over r = 1, 2, 4, 8, 16
    an_item = 6 + (a_thread + a_warp / 32) / ITEMS + 2 / TILE
    return batch * dim * length * (state * an_item + 7)


RUNG = Rung(
    number="5",
    title="warp shuffles",
    idea="Consecutive steps in a thread's registers, threads by shuffles, only the warps' totals in shared memory.",
    launch=launch,
    bytes=lambda batch, dim, length, state: 4 * batch * dim * length * (4 + 2 * state),
    exponentials=lambda batch, dim, length, state: batch * dim * length * (state + 3),
    flops=flops,
    chunk=TILE,
)
