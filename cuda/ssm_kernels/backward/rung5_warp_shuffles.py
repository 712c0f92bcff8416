"""Rung 5, warp shuffles: a warp scans a channel, each lane ITEMS steps, and no scan touches memory.

    warp = channel     lane 0          lane 1          …   lane 31
                       0 1 2 … 7       8 9 … 15            248 … 255      ITEMS = 8 steps a lane, in registers
    1  the lane        (ΠĀ, h) of its own steps, from h = 0
    2  shuffles        ───────▶ five times: the pair of the lane 1, 2, 4, 8, 16 before it;  for r the other way ◀───
    3  the lane        its steps again, from the h (r) that the lane before (behind) it ended with

Five hops for ITEMS·32 steps, where rung 4 took log₂ TILE of them with two barriers each. The block's warps are
channels: they lay the terms of dB and dC down in shared memory, and its threads sum over the warps in order. Rows there
have a float to spare for each lane, so that steps ITEMS apart lie in different banks.

With N states, I items, W warps and T = 32 I, per (b, d, t): bytes 4 (12 + 3N + 2N/I + 4N/W + 3N/T + 2N/dim),
exponentials 2N + 8, FLOPs N (41 + 3S + 5/I + 2/W + 1/T) + 26 + 10/I + 2/T, with S = 3·129/T for a scan: of the 160
lanes in its five rounds 129 have one to take from.
Next: a block still walks over the tiles of its channels one after the other. Where batch·dim is small the GPU is idle.

Claims ADJ-1 to ADJ-4, ADJ-9, SCAN-1, SCAN-24. Source: Mamba, §3.3.2.
"""

from __future__ import annotations

import math
from functools import cache
from types import SimpleNamespace
from typing import no_type_check

from ssm_kernels._target import cuda, jit, types
from ssm_kernels.backward.rungs import (
    ONE,
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
from ssm_kernels.unrolling import unroll, unrolled

FULL = 0xFFFFFFFF
WARP = 32
WARPS, ITEMS = 8, 8


@jit(device=True, forceinline=True)
@no_type_check
def scan_up(lane, a, b):
    """b of the pairs of all lanes up to this one: (a₂, b₂)∘(a₁, b₁) = (a₂a₁, a₂b₁ + b₂), Hillis–Steele."""
    hop = 1
    while hop < WARP:
        a_before = cuda.shfl_up_sync(FULL, a, hop)
        b_before = cuda.shfl_up_sync(FULL, b, hop)
        if lane >= hop:
            b += a * b_before
            a *= a_before
        hop *= 2
    return b


@jit(device=True, forceinline=True)
@no_type_check
def scan_down(lane, a, b):
    """The same of all lanes from the last one down to this one."""
    hop = 1
    while hop < WARP:
        a_behind = cuda.shfl_down_sync(FULL, a, hop)
        b_behind = cuda.shfl_down_sync(FULL, b, hop)
        if lane < WARP - hop:
            b += a * b_behind
            a *= a_behind
        hop *= 2
    return b


@jit(device=True, forceinline=True)
@no_type_check
def warp_sum(x):
    hop = 1
    while hop < WARP:
        x += cuda.shfl_xor_sync(FULL, x, hop)
        hop *= 2
    return x


@no_type_check
@cache
def make(state, warps, items, sequential=True):
    TILE = WARP * items
    ROW = WARP * (items + 1)
    THREADS = WARP * warps

    @jit
    @unrolled
    def borders(u, delta, A, B, delta_bias, h_at):
        _, dim, length = u.shape
        groups = (dim + warps - 1) // warps
        b = cuda.blockIdx.x // groups
        d = cuda.blockIdx.x % groups * warps + cuda.threadIdx.x // WARP
        lane = cuda.threadIdx.x % WARP
        if d >= dim:
            return  # a whole warp, and no barrier waits for it
        step_ = cuda.local.array(items, types.float32)
        u_ = cuda.local.array(items, types.float32)
        for k in range((length - 1) // TILE):
            t0 = k * TILE + lane * items
            for j in unroll(items):
                step_[j] = softplus(delta[b, d, t0 + j] + delta_bias[d])
                u_[j] = u[b, d, t0 + j]
            for n in range(state):
                A_n = A[d, n]
                decay = ONE
                h = h_at[b, k - 1, d, n] if k > 0 and lane == 0 else ZERO
                for j in unroll(items):
                    A_bar = math.exp(step_[j] * A_n)
                    decay *= A_bar
                    h = A_bar * h + step_[j] * B[b, n, t0 + j] * u_[j]
                h = scan_up(lane, decay, h)
                if lane == WARP - 1:
                    h_at[b, k, d, n] = h
            cuda.syncwarp()

    @jit(device=True, forceinline=True)
    @unrolled
    def tile(
        b, group, k, tiles, grad_y, u, delta, A, B, C, D, z, delta_bias, h_at, r_at,
        du, ddelta, dz, B_parts, C_parts, A_parts, D_parts, bias_parts,
    ):  # fmt: skip
        """All gradients of one tile, from the h on its left border and the r on its right one."""
        B_terms = cuda.shared.array((warps, ROW), types.float32)
        C_terms = cuda.shared.array((warps, ROW), types.float32)
        _, dim, length = u.shape
        own = cuda.threadIdx.x
        warp = own // WARP
        lane = own % WARP
        live = group * warps + warp < dim
        d = min(group * warps + warp, dim - 1)
        t0 = k * TILE + lane * items
        part = b * tiles + k
        D_d = D[d]
        step_ = cuda.local.array(items, types.float32)
        u_ = cuda.local.array(items, types.float32)
        e_ = cuda.local.array(items, types.float32)
        s_ = cuda.local.array(items, types.float32)
        du_ = cuda.local.array(items, types.float32)
        dstep_ = cuda.local.array(items, types.float32)
        A_bar = cuda.local.array(items, types.float32)
        h_before = cuda.local.array(items, types.float32)
        B_ = cuda.local.array(items, types.float32)
        C_ = cuda.local.array(items, types.float32)
        # outside of the problem Δ = u = e = 0, which changes nothing: Ā = 1, and every term is 0
        dD = ZERO
        for j in unroll(items):
            t = t0 + j
            inside = live and t < length
            step_[j] = softplus(delta[b, d, t] + delta_bias[d]) if inside else ZERO
            u_[j] = u[b, d, t] if inside else ZERO
            e_[j] = grad_y[b, d, t] * silu(z[b, d, t]) if inside else ZERO
            s_[j] = D_d * u_[j]
            du_[j] = D_d * e_[j]
            dstep_[j] = ZERO
            dD += e_[j] * u_[j]
        dD = warp_sum(dD)
        if lane == 0 and live:
            D_parts[part, d] = dD

        for n in range(state):
            A_n = A[d, n]
            before = h_at[b, k - 1, d, n] if k > 0 else ZERO
            behind = r_at[b, k + 1, d, n] if k < tiles - 1 else ZERO
            decay = ONE
            h = before if lane == 0 else ZERO
            for j in unroll(items):
                A_bar[j] = math.exp(step_[j] * A_n)
                B_[j] = B[b, n, t0 + j] if t0 + j < length else ZERO
                C_[j] = C[b, n, t0 + j] if t0 + j < length else ZERO
                decay *= A_bar[j]
                h = A_bar[j] * h + step_[j] * B_[j] * u_[j]
            h = cuda.shfl_up_sync(FULL, scan_up(lane, decay, h), 1)
            h = before if lane == 0 else h
            r = behind if lane == WARP - 1 else ZERO
            for j in unroll(items - 1, -1, -1):
                r = A_bar[j] * (C_[j] * e_[j] + r)
            r = cuda.shfl_down_sync(FULL, scan_down(lane, decay, r), 1)
            r = behind if lane == WARP - 1 else r

            for j in unroll(items):
                h_before[j] = h
                h = A_bar[j] * h + step_[j] * B_[j] * u_[j]
                s_[j] += C_[j] * h
                C_terms[warp, lane * (items + 1) + j] = h * e_[j]
            dA = ZERO
            for j in unroll(items - 1, -1, -1):
                g = C_[j] * e_[j] + r
                r = A_bar[j] * g
                du_[j] += g * step_[j] * B_[j]
                dstep_[j] += A_n * (r * h_before[j]) + g * B_[j] * u_[j]
                dA += step_[j] * (r * h_before[j])
                B_terms[warp, lane * (items + 1) + j] = g * step_[j] * u_[j]
            dA = warp_sum(dA)
            if lane == 0 and live:
                A_parts[part, d, n] = dA
                if sequential:
                    r_at[b, k, d, n] = r
            cuda.syncthreads()
            for i in range(own, TILE, THREADS):
                if k * TILE + i < length:
                    dB_t = ZERO
                    dC_t = ZERO
                    for w in range(warps):
                        dB_t += B_terms[w, i + i // items]
                        dC_t += C_terms[w, i + i // items]
                    B_parts[b, group, n, k * TILE + i] = dB_t
                    C_parts[b, group, n, k * TILE + i] = dC_t
            cuda.syncthreads()

        dbias = ZERO
        for j in unroll(items):
            t = t0 + j
            if live and t < length:
                ddelta_t = dstep_[j] * sigmoid(delta[b, d, t] + delta_bias[d])
                du[b, d, t] = du_[j]
                ddelta[b, d, t] = ddelta_t
                dz[b, d, t] = grad_y[b, d, t] * s_[j] * dsilu(z[b, d, t])
                dbias += ddelta_t
        dbias = warp_sum(dbias)
        if lane == 0 and live:
            bias_parts[part, d] = dbias

    @jit(max_registers=128)  # two blocks of 256 threads fill a multiprocessor's registers
    def gradients(
        grad_y, u, delta, A, B, C, D, z, delta_bias, h_at, r_at,
        du, ddelta, dz, B_parts, C_parts, A_parts, D_parts, bias_parts,
    ):  # fmt: skip
        _, dim, length = u.shape
        groups = (dim + warps - 1) // warps
        tiles = (length + TILE - 1) // TILE
        for k in range(tiles - 1, -1, -1):
            tile(
                cuda.blockIdx.x // groups, cuda.blockIdx.x % groups, k, tiles,
                grad_y, u, delta, A, B, C, D, z, delta_bias, h_at, r_at,
                du, ddelta, dz, B_parts, C_parts, A_parts, D_parts, bias_parts,
            )  # fmt: skip

    return SimpleNamespace(borders=borders, tile=tile, gradients=gradients)


@no_type_check
def runner(warps, items):
    """The rung with so many channels a block and steps a lane."""

    def run(inputs, grads, sizes, stream):
        (batch, dim, length, state), (_, u, delta, A, B, _, _, _, delta_bias) = sizes, inputs
        groups, tiles = ceil(dim, warps), ceil(length, WARP * items)
        grid = batch * groups, WARP * warps, stream
        kernels = make(state, warps, items)
        h_at, r_at = (scratch(batch, tiles, dim, state) for _ in range(2))
        maps = tuple(scratch(batch, groups, state, length) for _ in range(2))
        channels = scratch(batch * tiles, dim, state), scratch(batch * tiles, dim), scratch(batch * tiles, dim)
        kernels.borders[grid](u, delta, A, B, delta_bias, h_at)
        kernels.gradients[grid](*inputs, h_at, r_at, grads.u, grads.delta, grads.z, *maps, *channels)
        sum_parts(maps, channels, grads, stream)

    return run


@no_type_check
def costs_of(warps, items):
    tile = WARP * items
    scan = 3 * 129 / tile  # 129 of a warp's 5·32 hops have a lane to come from
    total = 5 / items
    return costs(
        words=lambda N, dim: 12 + 3 * N + 2 * N / items + 4 * N / warps + 3 * N / tile + 2 * N / dim,
        exponentials=lambda N, dim: 2 * N + 8,
        flops=lambda N, dim: 26 + 2 * (total + 1 / tile) + N * (41 + 3 * scan + total + 2 / warps + 1 / tile),
    )


RUNG = Rung(
    number="5",
    title="warp shuffles",
    idea="a warp scans a channel by shuffles, several steps a lane; only the terms of dB and dC meet in shared memory",
    launch=launcher(runner(WARPS, ITEMS)),
    **costs_of(WARPS, ITEMS),
    chunk=WARP * ITEMS,
)
