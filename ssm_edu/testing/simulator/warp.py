"""What the warp intrinsics return, lane by lane: pure functions of the values that the lanes bring."""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np

from ssm_edu.testing.simulator.errors import WarpError

WARP = 32
FULL = 0xFFFFFFFF
IDX, UP, DOWN, XOR = range(4)


def lanes_of(mask: int) -> list[int]:
    return [lane for lane in range(WARP) if mask >> lane & 1]


# the test run's type checks would cost more than these functions do
@no_type_check
def shuffle_source(mode: int, lane: int, operand: int, clamp: int) -> tuple[int, bool]:
    """The lane that `lane` reads, and whether it was in range: PTX ISA, `shfl.sync`. Out of range, a lane reads itself.

    Args:
        mode: 0 idx, 1 up, 2 down, 3 bfly.
        lane: the reader.
        operand: a lane, or a distance; only its low five bits count.
        clamp: bits 0-4 the bound inside a segment, bits 8-12 the segment mask (32 - width).
    """
    operand &= WARP - 1
    segment, bound = clamp >> 8 & WARP - 1, clamp & WARP - 1
    first = lane & segment
    last = first | (bound & ~segment)
    source = {UP: lane - operand, DOWN: lane + operand, XOR: lane ^ operand, IDX: first | (operand & ~segment)}[mode]
    inside = source >= last if mode == UP else source <= last
    return (source if inside else lane), inside


@no_type_check
def exchange(kind: str, lane: int, values: dict[int, Any]) -> Any:
    """What `lane` gets from an intrinsic that the lanes in `values` took part in.

    Raises:
        WarpError: a shuffle reads a lane that did not.
    """
    if kind == "syncwarp":
        return None
    if kind == "activemask":
        return sum(1 << one for one in values)
    if kind.startswith("shfl"):
        mode, _, operand, clamp = values[lane]
        source, inside = shuffle_source(mode, lane, operand, clamp)
        if source not in values:
            raise WarpError(f"(lane {lane}) reads lane {source}, which takes no part")
        value = values[source][1]
        return (value, inside) if kind == "shfl_sync_intrinsic" else value
    if kind.startswith("match"):
        bits = {one: np.asarray(value).tobytes() for one, value in values.items()}
        same = sum(1 << one for one in bits if bits[one] == bits[lane])
        if kind == "match_any_sync":
            return same
        return (same, True) if len(set(bits.values())) == 1 else (0, False)
    ballot = sum(1 << one for one, value in values.items() if value)
    everyone = sum(1 << one for one in values)
    return {
        "all_sync": int(ballot == everyone),
        "any_sync": int(ballot != 0),
        "eq_sync": int(ballot in (0, everyone)),
        "ballot_sync": ballot,
    }[kind]
