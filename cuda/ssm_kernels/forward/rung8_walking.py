"""Rung 8: walk again. A lane goes step by step through half of a channel's states, and nothing is scanned over lanes.

    lane = 2 · channel + half        states 8 · half … 8 · half + 7
    a lane       h ─▶ h ─▶ h ─▶ …    eight states, each with its own decay: eight chains that wait for no other
    a pair       Σ C h               over its two lanes by shuffles, four steps at a time: each adds up two of them
    a warp       16 channels, 16 states
    a block      64 channels share B and C of a tile of 32 steps

The next tile is read while this one is walked through. What is read stays packed, as it lies in memory, until it is
used, so that nothing waits for it when it arrives.

Rung 2 with what came after it: the tiles of rung 3, and the shuffles of rung 5 for what is read out alone. h stays in
registers from the first step to the last. It is for the plainest scans alone
(:func:`ssm_kernels.walking.launching.serve`); the others take rung 7.

With N states, where lanes go through 16, per (b, d, t): bytes 4 (4 + 2N/64), exponentials 18, FLOPs 125; and 16 FLOPs
more per (b, d).
"""

from __future__ import annotations

from typing import no_type_check

from ssm_kernels import segments
from ssm_kernels.description import variant_of
from ssm_kernels.forward.rung7_production import allocator, buffer, described
from ssm_kernels.ladder import Rung, check
from ssm_kernels.walking import launching


@no_type_check
def launch(u, delta, A, B, C, D, z, delta_bias, y, *, stream=0):
    """y of the layer; takes scratch memory for the last state."""
    inputs = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z, "delta_bias": delta_bias}
    sizes, to, kept = check(**inputs, y=y), buffer("y", y), []
    given = described(sizes, inputs)
    v = variant_of(given, to)
    if launching.serve(given, v):
        launching.forward_in_chunks(given, v, to, None, stream, allocator(kept), chunk=given.length)
    else:
        segments.forward(given, v, to, None, stream, allocator(kept))


RUNG = Rung(
    number="8",
    title="walking",
    idea="Walk time again: a lane's eight states wait for no other lane, and only y is added up over two.",
    launch=launch,
    bytes=lambda b, d, t, N: 4 * b * d * t * (4 + 2 * N / 64),
    exponentials=lambda b, d, t, N: b * d * t * 18,
    flops=lambda b, d, t, N: b * d * (t * 125 + 16),
)
