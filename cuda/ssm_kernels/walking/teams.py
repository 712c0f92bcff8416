"""Teams of a block's warps on the way forward in one chunk of time: half of them walk, the others help.

What a walker's lane holds of a channel's states is a choice. The more, the less is read and added up for each of them;
the fewer, the more walkers the channels make. Which is best depends on how many blocks a multiprocessor gets, and was
measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from ssm_kernels.variant import WARP
from ssm_kernels.walking.parts import STATES

GROUP = 16  # steps of which a walker adds up the states at a time


@dataclass(frozen=True)
class Team:
    """So many `warps` that walk, each lane with `held` states, and as many that help, tile after tile of `steps`.

    What follows counts numbers, if it says nothing else.

    Attributes:
        ahead: whether walkers read the next four steps before they walk these, where registers are left.
        blocks: for so many a multiprocessor has room; None, if the compiler does not need to know.
        nanoseconds: that a step takes with one, two, … blocks on a multiprocessor, on an H100.
        narrow: whether it is for 16-bit numbers alone, or for all but those; None: for all.
    """

    held: int
    warps: int
    steps: int
    ahead: bool
    blocks: int | None
    nanoseconds: tuple[float, ...] = (1,)
    narrow: bool | None = None

    @property
    def lanes(self) -> int:
        """Of a channel."""
        return STATES // self.held

    @property
    def of_warp(self) -> int:
        """Channels."""
        return WARP // self.lanes

    @property
    def of_block(self) -> int:
        """Channels."""
        return self.of_warp * self.warps

    @property
    def threads(self) -> int:
        return 2 * self.warps * WARP

    @property
    def row(self) -> int:
        """From one channel or state to the next, so that banks differ."""
        return self.steps + 4

    @property
    def skew(self) -> int:
        """By so much more the states of one lane lie behind those of the one before, so that banks differ."""
        return 4 if self.held > 1 else 0

    @property
    def plane(self) -> int:
        """Of a tile's Δ, Δu or y."""
        return self.of_block * self.row

    @property
    def map(self) -> int:
        """Of a tile's B or C."""
        return STATES * self.row + self.lanes * self.skew

    @property
    def tile(self) -> int:
        """Both maps, Δ, Δu and y."""
        return 2 * self.map + 3 * self.plane

    @property
    def shared_bytes(self) -> int:
        """Of a block, all of it dynamic: two tiles."""
        return 2 * 4 * self.tile

    @property
    def across(self) -> int:
        """Rows of which the helpers read four steps each at a time: a multiple of the states of a lane."""
        return self.warps * WARP * 4 // self.steps

    @property
    def turns(self) -> int:
        """Until they have read all channels."""
        return self.of_block // self.across

    @property
    def map_turns(self) -> int:
        """Until they have read all states of a map."""
        return STATES // self.across

    def time(self, channels: int, processors: int) -> float:
        """Nanoseconds a step, of a GPU as fast as an H100: waves of as many blocks as there is room for, and a rest."""
        waves, rest = divmod(ceil(channels / self.of_block / processors), len(self.nanoseconds))
        return waves * self.nanoseconds[-1] + (self.nanoseconds[rest - 1] if rest else 0)


TEAMS = (
    Team(1, 4, 64, True, None, (16, 21.5, 30)),
    Team(2, 4, 64, True, 2, (20.5, 33.5)),
    Team(2, 2, 32, True, None, (26, 29.5, 35.5, 41, 48, 58), narrow=False),
    Team(2, 2, 64, False, None, (19.5, 24.5, 30.5, 35.5, 44), narrow=True),
    Team(2, 4, 32, True, None, (28, 37, 50)),
    Team(4, 4, 32, False, 3, (38, 57, 83)),
    Team(8, 4, 32, False, 2, (60, 103)),
)
# nanoseconds on an H100 too: of a step of a channel in chunks, on all multiprocessors, and before and after all steps
IN_CHUNKS, ALL_CHUNKS, A_TEAM = 0.0111, 20_000, 9_000
H100 = 132  # its multiprocessors


def teams_for(itemsize: int) -> tuple[Team, ...]:
    """Of numbers of so many bytes."""
    return tuple(team for team in TEAMS if team.narrow in (None, itemsize == 2))


def best_team(channels: int, processors: int, itemsize: int) -> Team:
    return min(teams_for(itemsize), key=lambda team: team.time(channels, processors))


def time_by_team(channels: int, length: int, processors: int, itemsize: int) -> float:
    """Nanoseconds, of a GPU as fast as an H100."""
    return best_team(channels, processors, itemsize).time(channels, processors) * length + A_TEAM


def time_in_chunks(channels: int, length: int, processors: int) -> float:
    """Nanoseconds, though the states are walked through twice."""
    return IN_CHUNKS * channels * length * H100 / processors + ALL_CHUNKS
