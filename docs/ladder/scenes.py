"""Which drawing belongs to which rung, and what the rung keeps in which memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from drawings import (
    Held,
    blelloch,
    checkpoints,
    chunks,
    hillis_steele,
    kernels_over_arrays,
    production,
    shuffles,
    thread_per_channel,
    thread_per_state,
    tiles,
    walking,
)
from ssm_kernels.backward import rung4_block_scan as backward4
from ssm_kernels.backward import rung5_warp_shuffles as backward5
from ssm_kernels.forward import rung3_shared_tiles as forward3
from ssm_kernels.forward import rung5_warp_shuffles as forward5


@dataclass(frozen=True)
class Scene:
    """A rung's two drawings: who walks where, and what is held where; `words` says the first to who cannot see it."""

    who: Callable[[str], str]
    words: str
    held: Held


FORWARD = {
    "0": Scene(
        partial(
            kernels_over_arrays,
            kernels=(
                ("discretise", "(b, d, t, n) each", "cells"),
                ("scan", "(b, d, n) each", "forth"),
                ("read out", "(b, d, t) each", "cells"),
            ),
        ),
        "Three kernels. In the first every element has a thread of its own, in the second a thread walks along each "
        "row of time, in the third every element has a thread again.",
        Held((), (), ("u, Δ, z, y, A, B, C, D", "Ā and B̄u: N times the size of u, each", "h: over B̄u")),
    ),
    "1": Scene(
        partial(thread_per_state, back=False),
        "Two channels. In each, one thread a state walks along time, and all of them meet at barriers at every step, "
        "where their products are added up.",
        Held(
            ("h, A of one state",), ("C h of every state of the channels",), ("u, Δ: read by N threads; z, y", "B, C")
        ),
    ),
    "2": Scene(
        thread_per_channel,
        "Four channels. In each, one thread walks along time by itself.",
        Held(("h and A of all N states",), (), ("u, Δ, z, y: 32 rows at a time", "B, C: read by every channel")),
    ),
    "3": Scene(
        partial(tiles, sums=False),
        "One tile, twice. To copy it, neighbouring lanes take neighbouring times. To scan it, each lane takes "
        "a channel.",
        Held(
            ("h and A of all N states",),
            ("a tile of u and Δ", f"B, C of the tile: for all {forward3.CHANNELS} channels"),
            ("u, Δ, z, y, along time",),
        ),
    ),
    "4a": Scene(
        partial(hillis_steele, mirrored=False),
        "Eight times and three rounds. In the round of reach 1, 2 and 4, every time composes what it has with what the "
        "time so far before it had.",
        Held(
            ("a, b of one time", "y of one time"),
            ("two buffers of (a, b), a pair a time", "the carry: h of N states"),
            ("u, Δ, z, y, along time", "B, C: read by every channel"),
        ),
    ),
    "4b": Scene(
        blelloch,
        "Eight times. Up the tree, pairs, fours and all eight are composed; the state before the tile enters at the "
        "root; down the tree, every left child gets what its parent has, every right one what comes after the left.",
        Held(
            ("a, b of one time", "y of one time"),
            ("one tree of (a, b), a pair a time", "the carry: h of N states"),
            ("u, Δ, z, y, along time", "B, C: read by every channel"),
        ),
    ),
    "5": Scene(
        partial(shuffles, both=False),
        "Two warps of two lanes. Each lane holds four times; lanes of a warp exchange by shuffles; the totals of the "
        "warps pass through shared memory.",
        Held(
            (f"Δ, Δu, a, b, y of {forward5.ITEMS} times",),
            ("each warp's total", "the carry: h of N states"),
            ("u, Δ, z, y, along time", "B, C: read by every channel"),
        ),
    ),
    "6": Scene(
        partial(chunks, both=False),
        "Four chunks of time. All are summarised at once; a short chain over the summaries gives the state before "
        "each; all are scanned at once.",
        Held(("h and A of all N states",), ("tiles, as in rung 3",), ("u, Δ twice; z, y", "ΣΔ and h of every chunk")),
    ),
    "7": Scene(
        partial(production, both=False),
        "A warp as a grid of lanes, four channels by eight segments of time. Every lane holds some steps; shuffles "
        "carry the state from segment to segment; B and C come from shared memory, once for all channels.",
        Held(
            ("Δ, Δu, y of a lane's steps", "Ā of one state, for those steps"),
            ("B, C of a block of states", "A and h of the block's channels", "what comes next, on its way"),
            ("u, Δ, z, y: 16 bytes at a time", "B, C: once for a block's channels"),
        ),
    ),
    "8": Scene(
        partial(walking, both=False),
        "Above, two lanes share out a channel of 16 states: each has eight of them. Below, time in four chunks of "
        "three tiles: the lanes walk through a chunk from left to right, and all chunks go at once.",
        Held(
            ("h, A of 8 states", "what comes next, as it was read"),
            ("Δ, Δu, y of a tile", "B, C of a tile, for the block"),
            (
                "u, Δ, z, y: 16 bytes at a time",
                "B, C: once for a block's channels",
                "h and ΣΔ of every chunk",
            ),
        ),
    ),
}

BACKWARD = {
    "0": Scene(
        partial(
            kernels_over_arrays,
            kernels=(
                ("steps", "Δ, e: (b, d, t)", "cells"),
                ("states", "h: (b, d, n)", "forth"),
                ("adjoints", "g: (b, d, n)", "back"),
                ("over states", "(b, d, t), Σ over n", "cells"),
                ("over channels", "(b, t, n), Σ over d", "columns"),
                ("over time", "(d, n), Σ over b, t", "forth"),
            ),
        ),
        "Six kernels. Two work on every element; one walks along time, one against it; two add up over channels and "
        "over time.",
        Held((), (), ("inputs and gradients", "h and g: N times the size of u, each", "Δ, e, ddelta")),
    ),
    "1": Scene(
        partial(thread_per_state, back=True),
        "Two channels. In each, one thread a state goes along time and then back, and all of them meet at barriers at "
        "every step of the way back.",
        Held(
            ("h, g, A and ΣdA of one state",),
            ("three terms of every state",),
            ("inputs and gradients", "h, then the terms of dC: N floats", "the terms of dB: N floats"),
        ),
    ),
    "2": Scene(
        checkpoints,
        "Time in four windows. On the way forth the state at each left border is kept; on the way back, from the last "
        "window to the first, each is walked through forth and then back.",
        Held(
            ("h of all N states, forth", "Ā, h of one window, back"),
            (),
            ("inputs and gradients; Δ and e", "a checkpoint of h and of r a window"),
        ),
    ),
    "3": Scene(
        partial(tiles, sums=True),
        "One tile, three times. To copy it, a lane is a time; to scan it, a channel; to add up dB and dC, a column.",
        Held(
            ("Ā, h of one window",),
            ("Δ, u, e of a tile; B, C", "the terms of dB and dC of one n"),
            ("inputs and gradients", "checkpoints; dB, dC of each block"),
        ),
    ),
    "4": Scene(
        partial(hillis_steele, mirrored=True),
        "Two scans of eight times, in three rounds each: the state from the left, and the adjoint from the right.",
        Held(
            ("one time's (a, b), dB and dC",),
            ("a buffer for the scans", f"Δ, u, e and sums: {backward4.CHANNELS} channels × tile"),
            ("inputs and gradients", "h at tiles' borders; dB, dC of a block"),
        ),
    ),
    "5": Scene(
        partial(shuffles, both=True),
        "A warp of four lanes, each with four times. Shuffles carry the state to the right and the adjoint to the "
        "left.",
        Held(
            (f"Ā, h, B, C, sums of {backward5.ITEMS} times",),
            (f"the terms of dB and dC of {backward5.WARPS} warps",),
            ("inputs and gradients", "h at tiles' borders; dB, dC of a block"),
        ),
    ),
    "6": Scene(
        partial(chunks, both=True),
        "Four chunks of time. All are summarised at once, in both directions; two short chains give the state and the "
        "adjoint at every border; all are finished at once.",
        Held(
            ("as in rung 5",),
            ("as in rung 5",),
            ("inputs and gradients; u, Δ, B, C twice", "ΣΔ, h and r of every chunk", "dB, dC of a block"),
        ),
    ),
    "7": Scene(
        partial(production, both=True),
        "A warp as a grid of lanes, four channels by eight segments of time. Shuffles carry the state to the right and "
        "the adjoint to the left; dB and dC are added up over the channels in shared memory.",
        Held(
            ("Δ, u, e, Ā of a lane's steps", "sums over states, for u and Δ"),
            ("B, C of a block of states", "dB, dC of one state, over channels"),
            ("inputs and gradients", "h at tiles' borders; dB, dC of a block"),
        ),
    ),
    "8": Scene(
        partial(walking, both=True),
        "Above, four lanes share out two channels of 16 states: each has four states of both channels. Below, time in "
        "four chunks of three tiles; in every tile the lanes go forth and then back, and all chunks go at once.",
        Held(
            ("h, g, A, ΣdA: 2 channels × 4 states", "h and Ā of four steps"),
            ("Δ, Δu, e of a tile; its B, C", "h before each four steps; their dB, dC"),
            ("inputs, gradients", "h before each tile; ΣΔ", "h and Āg of every chunk; dB, dC of a block"),
        ),
    ),
}
