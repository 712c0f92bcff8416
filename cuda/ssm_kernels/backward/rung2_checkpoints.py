"""Rung 2, a thread per (batch, channel): states live in registers, and are made again from checkpoints.

    time     │ window 0 │ window 1 │ … │ window K−1 │       WINDOW steps each
    forth    h₀ ───────▶h₁ ───────▶h₂ … ▶                   a checkpoint of h at each left border
    back                ◀───────r₁ ◀───────r₂ … ◀ r_K = 0   one of r_t = Ā_t g_t, what crosses the border leftwards

`borders`: a thread per (b, d) holds h of all states, and keeps WINDOW times fewer of them. `windows`: the same thread
goes back window by window; for one state after another it makes the window's h again (never by h_{t−1} = (h_t −
B̄u)/Ā: ADJ-11, SCAN-7), goes back over it with g, and sums over states in registers. `maps`: who sums dB and dC over
the channels? Their owner: a thread per (b, n, window), which makes h and g again, channel after channel.

With N states and windows of W steps, per (b, d, t): bytes 4 (11N + 14 + 6N/W + 4N/dim), of which the checkpoints are
4·6N/W; exponentials 3N + 6, Ā once in each kernel; FLOPs 40N + 24 + N/W. Δ and e are kept for `maps`.
Next: lanes are channels, so that a warp reads u[b, d, t] at 32 distant places.

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
    sum_channels,
)
from ssm_kernels.ladder import Rung
from ssm_kernels.unrolling import unroll, unrolled

WINDOW = 16
THREADS = 64


@no_type_check
@cache
def make(state):
    @jit
    @unrolled
    def borders(u, delta, A, B, delta_bias, h_at, step):
        batch, dim, length = u.shape
        i = cuda.grid(1)
        if i >= batch * dim:
            return
        d = i % dim
        b = i // dim
        h = cuda.local.array(state, types.float32)
        A_ = cuda.local.array(state, types.float32)
        for n in unroll(state):
            h[n] = ZERO
            A_[n] = A[d, n]
        for t in range(length):
            if t % WINDOW == 0:
                for n in unroll(state):
                    h_at[b, t // WINDOW, n, d] = h[n]
            u_t = u[b, d, t]
            step_t = softplus(delta[b, d, t] + delta_bias[d])
            step[b, d, t] = step_t
            for n in unroll(state):
                h[n] = math.exp(step_t * A_[n]) * h[n] + step_t * B[b, n, t] * u_t

    return borders


@jit
@unrolled
@no_type_check
def windows(
    grad_y, u, delta, A, B, C, D, z, delta_bias, h_at, r_at, step, e, du, ddelta, dz, A_parts, D_parts, bias_parts
):
    batch, dim, length = u.shape
    state = A.shape[1]
    i = cuda.grid(1)
    if i >= batch * dim:
        return
    d = i % dim
    b = i // dim
    step_ = cuda.local.array(WINDOW, types.float32)
    e_ = cuda.local.array(WINDOW, types.float32)
    u_ = cuda.local.array(WINDOW, types.float32)
    s_ = cuda.local.array(WINDOW, types.float32)
    du_ = cuda.local.array(WINDOW, types.float32)
    dstep_ = cuda.local.array(WINDOW, types.float32)
    A_bar = cuda.local.array(WINDOW, types.float32)
    h_before = cuda.local.array(WINDOW, types.float32)
    for n in range(state):
        A_parts[b, d, n] = ZERO
    dD = ZERO
    dbias = ZERO
    last = (length - 1) // WINDOW
    for k in range(last, -1, -1):
        first = types.uint32(k * WINDOW)  # unsigned: no test for a negative index
        count = min(WINDOW, length - first)
        # steps behind the end have Δ = u = e = 0, which changes nothing: Ā = 1, and every term is 0
        for j in unroll(WINDOW):
            inside = j < count
            step_[j] = step[b, d, first + j] if inside else ZERO
            u_[j] = u[b, d, first + j] if inside else ZERO
            e_[j] = grad_y[b, d, first + j] * silu(z[b, d, first + j]) if inside else ZERO
            s_[j] = D[d] * u_[j]
            du_[j] = D[d] * e_[j]
            dstep_[j] = ZERO
            dD += e_[j] * u_[j]
            if inside:
                e[b, d, first + j] = e_[j]

        for n in range(state):
            A_n = A[d, n]
            h = h_at[b, k, n, d]
            for j in unroll(WINDOW):
                A_bar[j] = math.exp(step_[j] * A_n)
                h_before[j] = h
                h = A_bar[j] * h + step_[j] * (B[b, n, first + j] if j < count else ZERO) * u_[j]
                s_[j] += (C[b, n, first + j] if j < count else ZERO) * h
            carried = r_at[b, k + 1, n, d] if k < last else ZERO
            dA = ZERO
            for j in unroll(WINDOW - 1, -1, -1):
                B_t = B[b, n, first + j] if j < count else ZERO
                g = (C[b, n, first + j] if j < count else ZERO) * e_[j] + carried
                carried = A_bar[j] * g
                du_[j] += g * step_[j] * B_t
                dstep_[j] += A_n * (carried * h_before[j]) + g * B_t * u_[j]
                dA += step_[j] * (carried * h_before[j])
            r_at[b, k, n, d] = carried
            A_parts[b, d, n] += dA

        for j in unroll(WINDOW):
            if j < count:
                ddelta_t = dstep_[j] * sigmoid(delta[b, d, first + j] + delta_bias[d])
                du[b, d, first + j] = du_[j]
                ddelta[b, d, first + j] = ddelta_t
                dz[b, d, first + j] = grad_y[b, d, first + j] * s_[j] * dsilu(z[b, d, first + j])
                dbias += ddelta_t
    D_parts[b, d] = dD
    bias_parts[b, d] = dbias


@jit
@unrolled
@no_type_check
def maps(u, A, B, C, h_at, r_at, step, e, dB, dC):
    batch, dim, length = u.shape
    state = A.shape[1]
    last = (length - 1) // WINDOW
    i = cuda.grid(1)
    if i >= batch * (last + 1) * state:
        return
    n = i % state
    k = i // state % (last + 1)
    b = i // state // (last + 1)
    first = types.uint32(k * WINDOW)  # unsigned: no test for a negative index
    count = min(WINDOW, length - first)
    dB_ = cuda.local.array(WINDOW, types.float32)
    dC_ = cuda.local.array(WINDOW, types.float32)
    A_bar = cuda.local.array(WINDOW, types.float32)
    B_ = cuda.local.array(WINDOW, types.float32)
    C_ = cuda.local.array(WINDOW, types.float32)
    for j in unroll(WINDOW):
        B_[j] = B[b, n, first + j] if j < count else ZERO
        C_[j] = C[b, n, first + j] if j < count else ZERO
        dB_[j] = ZERO
        dC_[j] = ZERO
    for d in range(dim):
        h = h_at[b, k, n, d]
        for j in unroll(WINDOW):
            step_t = step[b, d, first + j] if j < count else ZERO
            A_bar[j] = math.exp(step_t * A[d, n])
            h = A_bar[j] * h + step_t * B_[j] * (u[b, d, first + j] if j < count else ZERO)
            dC_[j] += h * (e[b, d, first + j] if j < count else ZERO)
        carried = r_at[b, k + 1, n, d] if k < last else ZERO
        for j in unroll(WINDOW - 1, -1, -1):
            g = carried
            if j < count:
                g += C_[j] * e[b, d, first + j]
                dB_[j] += g * step[b, d, first + j] * u[b, d, first + j]
            carried = A_bar[j] * g
    for j in unroll(WINDOW):
        if j < count:
            dB[b, n, first + j] = dB_[j]
            dC[b, n, first + j] = dC_[j]


@no_type_check
def run(inputs, grads, sizes, stream):
    (batch, dim, length, state), (_, u, delta, A, B, C, _, _, delta_bias) = sizes, inputs
    count = ceil(length, WINDOW)
    h_at, r_at = (scratch(batch, count, state, dim) for _ in range(2))
    step, e = (scratch(batch, dim, length) for _ in range(2))
    channels = scratch(batch, dim, state), scratch(batch, dim), scratch(batch, dim)

    def blocks(threads):
        return ceil(threads, THREADS), THREADS, stream

    make(state)[blocks(batch * dim)](u, delta, A, B, delta_bias, h_at, step)
    windows[blocks(batch * dim)](*inputs, h_at, r_at, step, e, grads.u, grads.delta, grads.z, *channels)
    maps[blocks(batch * count * state)](u, A, B, C, h_at, r_at, step, e, grads.B, grads.C)
    sum_channels[blocks(dim * state)](*channels, grads.A, grads.D, grads.delta_bias)


RUNG = Rung(
    number="2",
    title="a thread per (batch, channel), and checkpoints",
    idea="states are made again in registers, from checkpoints at the borders of windows; dB and dC by their owner",
    launch=launcher(run),
    **costs(
        words=lambda N, dim: 14 + 11 * N + 6 * N / WINDOW + 4 * N / dim,
        exponentials=lambda N, dim: 3 * N + 6,
        flops=lambda N, dim: 40 * N + 24 + N / WINDOW,
    ),
)
