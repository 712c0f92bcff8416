"""Rung 0, materialised: every equation of the adjoint is a kernel, and every symbol in it an array in global memory.

    kernel        a thread is       reads               writes
    steps         (b, d, t)         delta, z, ȳ         Δ, e
    states        (b, d, n)         Δ, u, B             h: all t, first to last
    adjoints      (b, d, n)         Δ, e, C             g: all t, last to first
    over_states   (b, d, t)         h, g, …             du, ddelta, dz: Σ over n
    over_channels (b, t, n)         h, g, …             dB, dC: Σ over d
    over_time     (d, n)            h, g, …             dA, dD, dbias: Σ over b and t

h and g are (batch, dim, length, state): each is written once and read again and again, and Ā is computed four times.
With N states, per (b, d, t): bytes 4 (21N + 18 + 2N/dim), exponentials 4N + 6, FLOPs 31N + 24. Of those bytes 4·9N
are h and g, which are too large for any cache; the inputs and gradients of the element itself have 28.
Next: g_t is needed only where it is made, so the sums can be taken on the way and g need not be stored.

Claims ADJ-1 to ADJ-4 and ADJ-12. Source: Mamba, eq. 2 and Algorithm 2.
"""

from __future__ import annotations

import math
from typing import no_type_check

from ssm_kernels._target import cuda, jit
from ssm_kernels.backward.rungs import THREADS, ZERO, ceil, costs, dsilu, launcher, scratch, sigmoid, silu, softplus
from ssm_kernels.ladder import Rung


@jit
@no_type_check
def steps(grad_y, delta, z, delta_bias, step, e):
    """Δ = softplus(delta + bias), e = ȳ silu(z)."""
    batch, dim, length = delta.shape
    i = cuda.grid(1)
    if i < batch * dim * length:
        t = i % length
        d = i // length % dim
        b = i // length // dim
        step[b, d, t] = softplus(delta[b, d, t] + delta_bias[d])
        e[b, d, t] = grad_y[b, d, t] * silu(z[b, d, t])


@jit
@no_type_check
def states(u, step, A, B, h):
    """h_t = exp(Δ_t A) h_{t−1} + Δ_t B_t u_t."""
    batch, dim, length, state = h.shape
    i = cuda.grid(1)
    if i < batch * dim * state:
        n = i % state
        d = i // state % dim
        b = i // state // dim
        h_t = ZERO
        for t in range(length):
            step_t = step[b, d, t]
            h_t = math.exp(step_t * A[d, n]) * h_t + step_t * B[b, n, t] * u[b, d, t]
            h[b, d, t, n] = h_t


@jit
@no_type_check
def adjoints(step, A, C, e, g):
    """g_t = C_t e_t + exp(Δ_{t+1} A) g_{t+1}."""
    batch, dim, length, state = g.shape
    i = cuda.grid(1)
    if i < batch * dim * state:
        n = i % state
        d = i // state % dim
        b = i // state // dim
        g_t = ZERO
        for t in range(length - 1, -1, -1):
            A_bar_next = math.exp(step[b, d, t + 1] * A[d, n]) if t < length - 1 else ZERO
            g_t = C[b, n, t] * e[b, d, t] + A_bar_next * g_t
            g[b, d, t, n] = g_t


@jit
@no_type_check
def over_states(grad_y, u, delta, A, B, C, D, z, delta_bias, step, e, h, g, ddelta, du, ddelta_out, dz):
    batch, dim, length, state = h.shape
    i = cuda.grid(1)
    if i < batch * dim * length:
        t = i % length
        d = i // length % dim
        b = i // length // dim
        step_t = step[b, d, t]
        u_t = u[b, d, t]
        s = D[d] * u_t
        du_t = D[d] * e[b, d, t]
        dstep = ZERO
        for n in range(state):
            B_t = B[b, n, t]
            g_t = g[b, d, t, n]
            h_before = h[b, d, t - 1, n] if t > 0 else ZERO
            A_bar = math.exp(step_t * A[d, n])
            s += C[b, n, t] * h[b, d, t, n]
            du_t += g_t * step_t * B_t
            dstep += g_t * (A[d, n] * A_bar * h_before + B_t * u_t)
        ddelta_t = dstep * sigmoid(delta[b, d, t] + delta_bias[d])
        du[b, d, t] = du_t
        ddelta[b, d, t] = ddelta_t
        ddelta_out[b, d, t] = ddelta_t
        dz[b, d, t] = grad_y[b, d, t] * s * dsilu(z[b, d, t])


@jit
@no_type_check
def over_channels(u, step, e, h, g, dB, dC):
    batch, dim, length, state = h.shape
    i = cuda.grid(1)
    if i < batch * length * state:
        n = i % state
        t = i // state % length
        b = i // state // length
        dB_t = ZERO
        dC_t = ZERO
        for d in range(dim):
            dB_t += g[b, d, t, n] * step[b, d, t] * u[b, d, t]
            dC_t += h[b, d, t, n] * e[b, d, t]
        dB[b, n, t] = dB_t
        dC[b, n, t] = dC_t


@jit
@no_type_check
def over_time(u, A, step, e, h, g, ddelta, dA, dD, dbias):
    batch, dim, length, state = h.shape
    i = cuda.grid(1)
    if i < dim * state:
        n = i % state
        d = i // state
        dA_n = ZERO
        dD_d = ZERO
        dbias_d = ZERO
        for b in range(batch):
            for t in range(length):
                h_before = h[b, d, t - 1, n] if t > 0 else ZERO
                step_t = step[b, d, t]
                A_bar = math.exp(step_t * A[d, n])
                dA_n += step_t * (A_bar * h_before * g[b, d, t, n])
                if n == 0:
                    dD_d += e[b, d, t] * u[b, d, t]
                    dbias_d += ddelta[b, d, t]
        dA[d, n] = dA_n
        if n == 0:
            dD[d] = dD_d
            dbias[d] = dbias_d


@no_type_check
def run(inputs, grads, sizes, stream):
    (batch, dim, length, state), (grad_y, u, delta, A, B, C, _, z, delta_bias) = sizes, inputs
    step, e, ddelta = (scratch(batch, dim, length) for _ in range(3))
    h, g = (scratch(batch, dim, length, state) for _ in range(2))

    def blocks(threads):
        return ceil(threads, THREADS), THREADS, stream

    steps[blocks(batch * dim * length)](grad_y, delta, z, delta_bias, step, e)
    states[blocks(batch * dim * state)](u, step, A, B, h)
    adjoints[blocks(batch * dim * state)](step, A, C, e, g)
    over_states[blocks(batch * dim * length)](*inputs, step, e, h, g, ddelta, grads.u, grads.delta, grads.z)
    over_channels[blocks(batch * length * state)](u, step, e, h, g, grads.B, grads.C)
    over_time[blocks(dim * state)](u, A, step, e, h, g, ddelta, grads.A, grads.D, grads.delta_bias)


RUNG = Rung(
    number="0",
    title="materialised",
    idea="every equation is a kernel, every symbol an array in global memory",
    launch=launcher(run),
    **costs(
        words=lambda N, dim: 18 + 21 * N + 2 * N / dim,
        exponentials=lambda N, dim: 4 * N + 6,
        flops=lambda N, dim: 31 * N + 24,
    ),
)
