"""Rung 1, a thread per (batch, channel, state): one sweep there, one back, and g never leaves its register.

    block:   channel c   n = 0  1  2 … state−1     each lane: A, h_t, h_{t−1}, g_t, ΣdA
             channel c+1     0  1  2 … state−1
                             └──┴──┴───────┴── Σ over n of three terms, in shared memory, at every step

Forth, h_t goes to a strip of global memory. Back, g is a register, and the strip is used twice: the slot of h_t holds
h_t until the sweep has passed, and then e_t h_t, the term of dC. The terms of dB, g_t Δ_t u_t, have a strip beside
it. No thread adds to what another one adds to: `sum_maps` has a thread for each element of dB and dC, which walks
over the channels in order; so do dA, dD and the bias over the batch.

With N states, per (b, d, t): bytes 4 (15N + 3 + 2N/dim), of which the strips are 4·6N (h written and read, two terms
written and read); exponentials 7N + 3, since softplus and silu are computed in every lane; FLOPs 36N + 17.
Next: two barriers a step, and a strip of all states. A thread that holds a whole channel sums over n by itself.

Claims ADJ-1 to ADJ-4 and ADJ-12. Source: Mamba, eq. 2 and Algorithm 2.
"""

from __future__ import annotations

import math
from functools import cache
from typing import no_type_check

from ssm_kernels._target import cuda, jit, types
from ssm_kernels.backward.rungs import (
    THREADS,
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


def channels_of(state: int) -> int:
    """Channels of a block: as many as fit its threads, and at least one."""
    return max(1, THREADS // state)


@no_type_check
@cache
def make(state):
    LANES = channels_of(state) * state

    @jit
    def gradients(
        grad_y, u, delta, A, B, C, D, z, delta_bias, du, ddelta, dz, A_parts, B_parts, C_parts, D_parts, bias_parts
    ):
        s_terms = cuda.shared.array(LANES, types.float32)
        u_terms = cuda.shared.array(LANES, types.float32)
        step_terms = cuda.shared.array(LANES, types.float32)
        _, dim, length = u.shape
        i = cuda.threadIdx.x
        n = i % state
        row = (cuda.blockIdx.x * LANES + i) // state
        live = row < u.shape[0] * dim
        row = row if live else 0  # an idle lane follows the first channel to the barriers, and writes nothing
        b = row // dim
        d = row % dim
        A_n = A[d, n]

        h = ZERO
        for t in range(length):
            step = softplus(delta[b, d, t] + delta_bias[d])
            h = math.exp(step * A_n) * h + step * B[b, n, t] * u[b, d, t]
            if live:
                C_parts[b, d, n, t] = h

        carried = ZERO
        dA = ZERO
        dD = ZERO
        dbias = ZERO
        for t in range(length - 1, -1, -1):
            x = delta[b, d, t] + delta_bias[d]
            step = softplus(x)
            u_t = u[b, d, t]
            z_t = z[b, d, t]
            grad_y_t = grad_y[b, d, t]
            e = grad_y_t * silu(z_t)
            B_t = B[b, n, t]
            C_t = C[b, n, t]
            A_bar = math.exp(step * A_n)
            h_before = C_parts[b, d, n, t - 1] if t > 0 and live else ZERO

            g = C_t * e + carried
            carried = A_bar * g
            dA += step * (carried * h_before)
            s_terms[i] = C_t * h
            u_terms[i] = g * step * B_t
            step_terms[i] = A_n * (carried * h_before) + g * B_t * u_t
            if live:
                B_parts[b, d, n, t] = g * step * u_t
                C_parts[b, d, n, t] = h * e
            h = h_before

            cuda.syncthreads()
            if n == 0 and live:
                s = D[d] * u_t
                du_d = D[d] * e
                dstep = ZERO
                for k in range(i, i + state):
                    s += s_terms[k]
                    du_d += u_terms[k]
                    dstep += step_terms[k]
                du[b, d, t] = du_d
                ddelta_t = dstep * sigmoid(x)
                ddelta[b, d, t] = ddelta_t
                dz[b, d, t] = grad_y_t * s * dsilu(z_t)
                dD += e * u_t
                dbias += ddelta_t
            cuda.syncthreads()

        if live:
            A_parts[b, d, n] = dA
            if n == 0:
                D_parts[b, d] = dD
                bias_parts[b, d] = dbias

    return gradients


@no_type_check
def run(inputs, grads, sizes, stream):
    batch, dim, length, state = sizes
    maps = tuple(scratch(batch, dim, state, length) for _ in range(2))
    channels = scratch(batch, dim, state), scratch(batch, dim), scratch(batch, dim)
    per_block = channels_of(state)
    A_parts, *others = channels
    make(state)[ceil(batch * dim, per_block), per_block * state, stream](
        *inputs, grads.u, grads.delta, grads.z, A_parts, *maps, *others
    )
    sum_parts(maps, channels, grads, stream)


RUNG = Rung(
    number="1",
    title="a thread per (batch, channel, state)",
    idea="one sweep there and one back: g stays in a register, and the strip of states becomes the terms of dC",
    launch=launcher(run),
    **costs(
        words=lambda N, dim: 15 * N + 3 + 2 * N / dim,
        exponentials=lambda N, dim: 7 * N + 3,
        flops=lambda N, dim: 36 * N + 17,
    ),
)
