"""Rung 7: the production adjoint. Lanes are channels by segments of time, as in the forward rung 7.

    borders      h at the left end of every tile, by the forward kernel without C and y
    a tile       │ Δ Δ … Δ │ Δ Δ … Δ │ …     I steps a lane; both scans over segments by shuffles, at the same time
    state n      h ──▶ h ──▶ …   dC, and what Δ gains by Ā
                 … ◀── g ◀── g   dB, and what u and Δ gain
    channels     Σ over the block's channels in shared memory, in one order, once a state
    blocks       Σ over blocks and batch, in one order

Tiles go from the last to the first, so r needs no summary: it stays with the block. Rung 6's two passes over the whole
length have become a scan without read-out, and the maps come by 16-byte copies while the states before are scanned.

With N states, K channels a block, S segments of I steps and T = S I, per (b, d, t):
bytes 4 (13 + 7N/K + N/I + N/T + 2N/dim), exponentials 2N + 5 + 2N/I,
FLOPs N (29 + (10 log₂S − 6 + 16/S)/I) + 80, within some hundredths.

Claims ADJ-1 to ADJ-7, ADJ-9, ADJ-11, ADJ-12.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any, no_type_check

from ssm_kernels import catalogue, choosing, segments
from ssm_kernels.backward.rungs import launcher
from ssm_kernels.description import variant_of
from ssm_kernels.forward.rung7_production import allocator, buffer, buffers, described
from ssm_kernels.ladder import Rung


@no_type_check
def buffered(inputs, grads, sizes):
    """The scan, grad_y and the gradients, as launches are told of them."""
    given = inputs._asdict()
    grad_y = buffer("grad_y", given.pop("grad_y"))
    return described(sizes, given), grad_y, SimpleNamespace(**buffers(grads._asdict()), initial_state=None)


@no_type_check
def run(inputs, grads, sizes, stream):
    (scan, grad_y, targets), kept = buffered(inputs, grads, sizes), []
    v = variant_of(scan, grad_y, targets.u, targets.delta, targets.z)
    segments.backward(scan, v, grad_y, None, targets, stream, allocator(kept))


@cache
def variant(batch: int, dim: int, length: int, state: int) -> Any:
    """What an H100 is given for a shape."""
    v = choosing.choose(**catalogue.ORDINARY | {"batch": batch, "dim": dim, "length": length, "state": state})
    return choosing.backward_kernel(v, state, choosing.HOPPER)[0]


def scanned(v: Any) -> float:
    """FLOPs of a state and step in the three scans over segments, and in the sum over them for A."""
    levels, share = math.log2(v.segments), 1 / v.segments
    return (3 + 9 * (levels - 1 + share) + 6 * share + levels + share) / v.items


def of_a_launch(count: Callable[[Any, int, int], float]) -> Callable[[int, int, int, int], float]:
    """The count of a launch from that of one (b, d, t) in this variant with so many states and channels."""
    return lambda batch, dim, length, state: (
        batch * dim * length * count(variant(batch, dim, length, state), state, dim)
    )


RUNG = Rung(
    number="7",
    title="production",
    idea="the forward rung's lanes with both scans at the same time, and one barrier a state for dB and dC",
    launch=launcher(run),
    bytes=of_a_launch(
        lambda v, N, dim: 4 * (13 + N * (7 / (v.channels * v.warps) + 1 / v.items + 1 / v.tile + 2 / dim))
    ),
    exponentials=of_a_launch(lambda v, N, dim: 2 * N + 5 + 2 * N / v.items),
    flops=of_a_launch(lambda v, N, dim: N * (29 + scanned(v)) + 74),
    chunk=variant(8, 2048, 2048, 16).tile,
)
