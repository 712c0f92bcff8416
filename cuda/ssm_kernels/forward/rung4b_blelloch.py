"""Rung 4b: a block scans along time up and down a tree, with as few compositions as there are steps (Blelloch 1990).

Up: every node composes its two children, in place at the right end of its span. Down: a node hands the state before
its span to its left child, and to its right child that state taken through the left child's steps. The root gets the
state that the last tile ended with, so the leaves get the h_{t−1} of their times, and h_t = a_t h_{t−1} + b_t.

    up      0   0:1   2   2:3   4   4:5   6   6:7        down    ·   ·   ·   ·   ·   ·   ·   h
            ·    ·    ·   0:3   ·    ·    ·   4:7                ·   ·   ·   h   ·   ·   ·   h₃
            ·    ·    ·    ·    ·    ·    ·   0:7                ·   h   ·   h₁  ·   h₃  ·   h₅
                                                                 h   h₀  h₁  h₂  h₃  h₄  h₅  h₆

Going down takes a state, not a pair: a product and a sum where a composition has two products.

With N states and tiles of T = 128, per (b, d, t): bytes 4 (4 + 2N), exponentials N + 3, FLOPs N (11 − 3/T) + 7.
It makes half of 4a's FLOPs (SCAN-12), at 2 log₂ T + 1 barriers a state instead of log₂ T, with most threads idle
between them, and its lanes read 2, 4, 8, … elements apart: bank conflicts. Next: shuffles, which need neither.
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
ROOT = TILE - 1


@cache
@no_type_check
def scan(state):
    @jit
    def kernel(u, delta, A, B, C, D, z, delta_bias, y):
        tree_a = cuda.shared.array(TILE, float32)
        tree_b = cuda.shared.array(TILE, float32)
        carry = cuda.shared.array(state, float32)  # thread 0's alone
        dim, length = u.shape[1], u.shape[2]
        b, d = cuda.blockIdx.x // dim, cuda.blockIdx.x % dim
        i = cuda.threadIdx.x
        if i == 0:
            for n in range(state):
                carry[n] = float32(0)
        for t0 in range(0, length, TILE):
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
                tree_a[i] = a_t
                tree_b[i] = b_t
                span = 1
                while span < TILE:
                    cuda.syncthreads()
                    right = 2 * span * (i + 1) - 1
                    left = right - span
                    if right < TILE:
                        tree_a[right], tree_b[right] = compose(tree_a[right], tree_b[right], tree_a[left], tree_b[left])
                    span *= 2
                if i == 0:  # who has made the root
                    h = carry[n]
                    carry[n] = tree_a[ROOT] * h + tree_b[ROOT]
                    tree_b[ROOT] = h
                while span > 1:
                    cuda.syncthreads()
                    span //= 2
                    right = 2 * span * (i + 1) - 1
                    left = right - span
                    if right < TILE:
                        h = tree_b[right]
                        tree_b[right] = tree_a[left] * h + tree_b[left]
                        tree_b[left] = h
                cuda.syncthreads()
                if live:
                    y_t += C[b, n, t] * (a_t * tree_b[i] + b_t)
            if live:
                y[b, d, t] = y_t * silu(z[b, d, t])

    return kernel


@no_type_check
def launch(u, delta, A, B, C, D, z, delta_bias, y, *, stream=0):
    """y of the layer."""
    batch, dim, _, state = check(u=u, delta=delta, A=A, B=B, C=C, D=D, z=z, delta_bias=delta_bias, y=y)
    scan(state)[batch * dim, TILE, stream](u, delta, A, B, C, D, z, delta_bias, y)


RUNG = Rung(
    number="4b",
    title="Blelloch's scan",
    idea="Up and down a tree: as many compositions as steps, and the carry enters at the root.",
    launch=launch,
    bytes=lambda batch, dim, length, state: 4 * batch * dim * length * (4 + 2 * state),
    exponentials=lambda batch, dim, length, state: batch * dim * length * (state + 3),
    flops=lambda batch, dim, length, state: batch * dim * length * (state * (11 - 3 / TILE) + 7),
    chunk=TILE,
)
