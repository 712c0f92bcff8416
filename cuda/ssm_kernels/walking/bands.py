"""Bands of channels on the way forward with time abreast: how large a block is, and when that is the fastest way.

The fewer channels a block has, the more registers has a lane, and the more states it takes together. Which is best
depends on how the channels fill the multiprocessors, and was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from ssm_kernels.intrinsics import ITEMSIZE
from ssm_kernels.variant import WARP
from ssm_kernels.walking.parts import STATES


@dataclass(frozen=True)
class Band:
    """A block of so many `channels`, a warp each, with so many states `together`: 2 or 4.

    What follows counts numbers, if it says nothing else.

    Attributes:
        nanoseconds: that a step takes, on an H100, whose multiprocessors have room for one block each.
        items: steps of a lane.
    """

    channels: int
    together: int
    nanoseconds: float = 1
    items: int = 16

    @property
    def threads(self) -> int:
        return WARP * self.channels

    @property
    def tile(self) -> int:
        """Steps that a warp takes at a time."""
        return WARP * self.items

    def plane(self, dtype: str) -> int:
        """Of a map's state; where it is put there from registers, with gaps so that banks differ."""
        fours = self.items // 4
        return 4 * fours * (WARP + (8 // fours if ITEMSIZE[dtype] == 2 else 0))

    def map(self, dtype: str) -> int:
        return STATES * self.plane(dtype)

    def copiers(self, dtype: str) -> int:
        """Threads that copy maps: all; of float32, of which a row has more words, a power of two, which is faster."""
        return self.threads if ITEMSIZE[dtype] == 2 else 1 << (self.threads.bit_length() - 1)

    def shared_bytes(self, dtype: str) -> int:
        """Of a block, all of it dynamic.

        Two tiles of the maps, 16-bit ones on their way too; three rows of each channel on their way; A, D, the bias and
        the states; a barrier; and what the scans over segments exchange.
        """
        itemsize = ITEMSIZE[dtype]
        maps = 2 * 2 * 4 * self.map(dtype) + (2 * STATES * self.tile * itemsize if itemsize == 2 else 0)
        of_channel = 3 * self.tile * itemsize + 2 * STATES * 4 + 3 * WARP * self.together * 4
        return maps + self.channels * of_channel + 16 + -(-2 * self.channels // 4) * 16

    def time(self, channels: int, length: int, processors: int) -> float:
        """Nanoseconds, of a GPU as fast as an H100."""
        rounds, tiles = ceil(channels / self.channels / processors), ceil(length / self.tile)
        return rounds * (self.nanoseconds * tiles * self.tile + A_BLOCK) + A_BAND


WIDEST = Band(12, 2, 13.5)  # takes every register of Hopper's, and elsewhere more
BANDS = (Band(8, 4, 9.0), WIDEST)
MOST_STEPS = 1 << 30  # they are counted in 32 bits
# nanoseconds on an H100 too: before and after a block's steps, and before and after all blocks
A_BLOCK, A_BAND = 4_000, 5_000


def best_band(channels: int, length: int, span: int, processors: int, widest: bool) -> Band | None:
    """Of those whose blocks do not cross groups of so many channels, with or without the widest."""
    fitting = [band for band in BANDS if span % band.channels == 0 and (widest or band != WIDEST)]
    return min(fitting, key=lambda band: band.time(channels, length, processors), default=None)
