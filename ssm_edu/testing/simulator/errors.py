"""What goes wrong in a kernel, said with the thread, the array and the line."""

from __future__ import annotations

import functools
import linecache
import os
import re
import sys
from collections.abc import Iterable
from types import CodeType, FrameType
from typing import Any, NamedTuple, no_type_check

from ssm_edu.testing.paths import from_here

HERE = os.path.dirname(__file__)
OURS = frozenset(os.path.join(HERE, name) for name in os.listdir(HERE))  # no kernel's code


class KernelError(Exception):
    """A kernel did what CUDA leaves undefined, or what no kernel should do."""


class OutOfBounds(KernelError, IndexError):
    """An index outside its array, or a negative one."""


class UninitialisedRead(KernelError):
    """An element read before anything was written to it."""


class Side(NamedTuple):
    """One of the two accesses of a race: whose, and where in the kernel's code."""

    block: tuple[int, int, int]
    thread: int
    file: str
    line: int

    @classmethod
    @no_type_check
    def of(cls, thread: Any, epoch: int, segment: int, time: int, code: CodeType, lasti: int) -> Side:
        return cls(tuple(thread.block.index), thread.number, code.co_filename, line_of(code, lasti))


class RaceError(KernelError):
    """Two threads touched one element, one of them writing, and nothing ordered them.

    Attributes:
        first, second: the two accesses, the one that was found out last.
    """

    def __init__(self, message: str, first: Side, second: Side) -> None:
        super().__init__(message)
        self.first, self.second = first, second


class BarrierError(KernelError):
    """A barrier reached by only part of a block, or different barriers reached by its parts."""


class WarpError(KernelError):
    """A warp intrinsic whose mask or source lane names a lane that does not take part."""


class Deadlock(KernelError):
    """Threads wait for one another, or spin, for ever."""


@no_type_check
def caller(depth: int) -> FrameType:
    """The frame of the kernel's code: at least `depth` frames up, and outside this package."""
    return kernels_frame(sys._getframe(depth))


@no_type_check
def kernels_frame(frame: FrameType) -> FrameType:
    """This one, or the nearest one up that is outside this package."""
    while frame.f_code.co_filename in OURS:
        frame = frame.f_back
    return frame


def line_of(code: CodeType, lasti: int) -> int:
    """The source line of the instruction at byte `lasti`."""
    for start, end, line in code.co_lines():
        if start <= lasti < end and line is not None:
            return line
    return code.co_firstlineno


def source_of(code: CodeType, lasti: int) -> str:
    """The text of that line."""
    return linecache.getline(code.co_filename, line_of(code, lasti)).strip()


def place(code: CodeType, lasti: int) -> str:
    """`file:line` and its text; the path is relative where it lies under the working directory."""
    text = source_of(code, lasti)
    return f"{from_here(code.co_filename)}:{line_of(code, lasti)}" + (f" `{text}`" if text else "")


@functools.cache
def assigned_name(code: CodeType, lasti: int) -> str | None:
    """`tile`, where the line reads `tile = cuda.shared.array(…)`."""
    match = re.match(r"(\w+)\s*(?::[^=]+)?=[^=]", source_of(code, lasti))
    return match[1] if match else None


def ranges(numbers: Iterable[int]) -> str:
    """[0, 1, 2, 5] as '0-2, 5'."""
    runs: list[list[int]] = []
    for n in sorted(numbers):
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def plural(word: str, numbers: list[int]) -> str:
    """'thread 3', 'threads 0-2, 5'."""
    return f"{word}{'s' * (len(numbers) != 1)} {ranges(numbers)}"
