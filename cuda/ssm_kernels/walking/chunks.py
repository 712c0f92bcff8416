"""How time is cut: by a model of how long the fullest multiprocessor takes.

Blocks of channels times chunks of time are spread over the multiprocessors, each of which walks so many steps a second,
however its blocks share them. So the time is that of the fullest: twelve blocks on each of 132 take as long as eleven
on most and twelve on one.
"""

from __future__ import annotations

from functools import cache
from math import ceil
from typing import NamedTuple

from ssm_kernels.walking.parts import LONG

LEAST, RANGE = 64, 4096  # steps of the shortest chunk, and by so many more of the longest
MOST_CHUNKS = 65535  # a grid's second dimension
BUSY = 2  # blocks that keep a multiprocessor busy; one alone takes as long
BEGINNING = 20  # steps in whose time a chunk begins and ends
IN_ONE = 0.9  # of the time, where a single chunk leaves out what carries over chunks


class Room(NamedTuple):
    """What a multiprocessor has room for: so many blocks at a time.

    They begin, and end, `apart` by this part of a chunk: meanwhile it is not busy.
    """

    blocks: int
    apart: float


FORTH, BACK = Room(3, 0.5), Room(2, 0.1)


def fullest(blocks: int, length: int, chunk: int, processors: int) -> float:
    """Chunks on the fullest multiprocessor, `blocks` of each; the last, shorter, one counts as part of one."""
    whole, rest = divmod(length, chunk)
    each, more = divmod(blocks * whole, processors)
    last = ceil(blocks / (processors - more)) * rest / chunk  # on those that have no more than `each`
    return max(each + (more > 0), each + last, (blocks * length / chunk) / processors)


@cache
def chunk_of(blocks: int, length: int, processors: int, room: Room) -> int:
    """Steps of a chunk, or the whole length, for the least time.

    Chunks are long tiles, which in float32 begin with a line of the cache each.
    """

    def time(chunk: int) -> float:
        load = max(fullest(blocks, length, chunk, processors), BUSY)
        if round(load) % room.blocks == 1:  # a last one alone; after many rounds they are out of step anyway
            load += 1 / round(load)
        return (load * (chunk + BEGINNING) + room.apart * chunk) * (IN_ONE if chunk >= length else 1)

    tile = LONG.steps
    least = max(LEAST, ceil(length / (MOST_CHUNKS * tile)) * tile)
    return min((length, *range(least, min(least + RANGE, length), tile)), key=time)
