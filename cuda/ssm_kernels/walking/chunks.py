"""How time is cut: by a model of how long the blocks of all channels and chunks take.

Each walks so many steps, and the next one begins where one has ended: short last chunks fill what is left. On the way
forward a multiprocessor walks so many steps a second, however its blocks share them; on the way back each of its two
blocks takes as long alone. A first pass over the chunks goes the first way, and spares one that nobody asks for.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import cache
from math import ceil
from typing import NamedTuple

from ssm_kernels.walking.parts import LONG

LEAST, RANGE = 64, 4096  # steps of the shortest chunk, and by so many more of the longest
MOST_CHUNKS = 65535  # a grid's second dimension
BEGINNING = 8  # steps in whose time a chunk begins
IN_ONE = 0.95  # of the time, where a single chunk leaves out what carries over chunks


class Room(NamedTuple):
    """What a multiprocessor has room for: so many blocks side by side; 1 if they share it.

    Attributes:
        busy: where they share it, fewer than so many take as long.
        apart: by this part of a chunk they begin, and end, one after the other.
        first: what a step of the first pass takes, where blocks share, in terms of these.
        spared: the chunk without a first pass, "first" or "last", if there is one.
    """

    blocks: int
    busy: float
    apart: float
    first: float
    spared: str = ""


FORTH = Room(1, 2.2, 0.1, 0.7, "last")
BACK, BACK_FROM_SAVED = Room(2, 2, 0.03, 0.8), Room(2, 2, 0, 0.15, "first")


def makespan(jobs: int, steps: int, later: int, shorter: int, servers: int) -> int:
    """When so many jobs are done, and then later ones of fewer steps, each by the server that is free first."""
    rounds, ahead = divmod(jobs, servers)
    early, late = rounds * steps, (rounds + 1) * steps  # when servers are free, `ahead` of them late
    begins, end = ((early, late), late) if ahead else ((early,), early)
    if later == 0:
        return end

    def done(time: int) -> int:
        return (servers - ahead) * ((time - early) // shorter) + ahead * (max(time - late, 0) // shorter)

    def last(begin: int) -> int:
        return begin + shorter * bisect_left(range(later), later, key=lambda k: done(begin + k * shorter))

    return max(end, min(map(last, begins)))


@cache
def chunk_of(blocks: int, length: int, processors: int, room: Room) -> int:
    """Steps of a chunk, or the whole length, for the least time.

    Chunks are long tiles, which in float32 begin with a line of the cache each.
    """

    def passing(chunk: int, whole: int, rest: int, side_by_side: int) -> float:
        steps = chunk + BEGINNING
        end = makespan(blocks * whole, steps, blocks * (rest > 0), rest + BEGINNING, side_by_side * processors)
        return max(end, room.busy * steps) if side_by_side == 1 and whole > 0 else end

    def time(chunk: int) -> float:
        whole, rest = divmod(length, chunk)
        second = passing(chunk, whole, rest, room.blocks) + room.apart * chunk
        if room.spared == "last" and rest > 0:
            rest = 0
        elif room.spared:
            whole -= 1
        first = passing(chunk, whole, rest, 1)
        return (second + room.first * first) * (IN_ONE if chunk >= length else 1)

    tile = LONG.steps
    least = max(LEAST, ceil(length / (MOST_CHUNKS * tile)) * tile)
    return min((length, *range(least, min(least + RANGE, length), tile)), key=time)
