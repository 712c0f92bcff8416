"""Rung 8: walk back as rung 8 of the forward ladder walks: eight states a lane, and no scan over lanes.

    lane = 4 · quad + quarter        channels quad and quad + 8, states 4 · quarter … 4 · quarter + 3
    states       h before every tile of 16 steps, by that rung's walk, with nothing read out
    a tile       h ─▶ h ─▶ h ─▶ h      forth, keeping the state before each four steps in shared memory
    four steps   h ─▶ h ─▶ h ─▶ h      forth again, h and Ā in registers …
                 g ◀─ g ◀─ g ◀─ g      … and back: what Δ, u, B and C gain
    a quad       Σ over states, for u and Δ, by shuffles
    a block      Σ over 64 channels, for B and C, four steps at a time
    blocks       Σ over blocks, chunks and batch, in one order

Where the channels are few, chunks of time go at once, as in rung 6: the first walk then leaves a summary of each, for h
on the way forth and for Āg on the way back. No step's state is written anywhere, at the price of its exponential, which
is taken three times, of one step in four twice.

With N = 16 states, one chunk and M = dim channels, per (b, d, t): bytes 4 (9 + 7N/64 + (2N + 5)/16 + 2N/M),
exponentials 48, FLOPs 531 + 1/16 + 2N/64 + 6N/M, and half of one more where softplus takes what is negative, half of
one less elsewhere.

Claims ADJ-1 to ADJ-7, ADJ-9, ADJ-11, ADJ-12, SCAN-15.
"""

from __future__ import annotations

from typing import no_type_check

from ssm_kernels import scan
from ssm_kernels.backward.rung7_production import buffered
from ssm_kernels.backward.rungs import launcher
from ssm_kernels.forward.rung7_production import allocator
from ssm_kernels.ladder import Rung
from ssm_kernels.walking import parts


@no_type_check
def run(inputs, grads, sizes, stream):
    (described, grad_y, targets), kept = buffered(inputs, grads, sizes), []
    scan.backward(described, grad_y, None, targets, stream=stream, allocate=allocator(kept))


BLOCK = parts.channels(parts.WARPS)
RUNG = Rung(
    number="8",
    title="walking",
    idea="the forward rung's walk there and back, four steps at a time in registers",
    launch=launcher(run),
    bytes=lambda b, d, t, N: 4 * b * d * t * (9 + 7 * N / BLOCK + (2 * N + 5) / parts.SHORT.steps + 2 * N / d),
    exponentials=lambda b, d, t, N: b * d * t * 48,
    flops=lambda b, d, t, N: b * d * t * (531 + 1 / 16 + 2 * N / BLOCK + 6 * N / d),
)
