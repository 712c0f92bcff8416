"""What a launch does, event by event: what `simulated(watch=…)` is told, to be drawn or counted."""

from __future__ import annotations

from dataclasses import dataclass
from types import CodeType
from typing import Any, no_type_check

from ssm_edu.testing.simulator.errors import line_of, source_of
from ssm_edu.testing.simulator.warp import WARP, shuffle_source


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that one thread did. Events come in the order in which the simulator ran them.

    Attributes:
        kind: `read`, `write` or `update` (an atomic) of an element; `arrive` and `leave`, of a barrier or of an
            intrinsic of a warp; `return`. An access is told before it is judged, so one that raises is the last.
        block, thread: who; the thread by its number in the block.
        phase: how many barriers the block has passed.
        name: of what: "shared array `s`", or "syncthreads".
        index: of the element; empty where there is none.
        value: read or written, an update's before it; brought to an intrinsic by who arrives, and taken from it.
        source: the thread whose value a shuffle gave to the one that leaves it.
        line, text: of the kernel's code; 0 and empty for a return.
    """

    kind: str
    block: tuple[int, int, int]
    thread: int
    phase: int
    name: str = ""
    index: tuple[Any, ...] = ()
    value: Any = None
    source: int | None = None
    line: int = 0
    text: str = ""


@no_type_check
def accessed(kind: str, thread: Any, title: str, index: Any, value: Any, where: tuple[CodeType, int]) -> Event:
    index = index if isinstance(index, tuple) else (index,)
    return _event(kind, thread, title, index, value, None, where)


@no_type_check
def arrived(thread: Any) -> Event:
    wait = thread.wait
    value = wait.value[1] if wait.kind.startswith("shfl") else wait.value
    return _event("arrive", thread, wait.kind, (), value, None, (wait.code, wait.lasti))


@no_type_check
def left(thread: Any) -> Event:
    wait, source = thread.wait, None
    if wait.kind.startswith("shfl"):
        mode, _, operand, clamp = wait.value
        source = thread.warp * WARP + shuffle_source(mode, thread.lane, operand, clamp)[0]
    return _event("leave", thread, wait.kind, (), thread.result, source, (wait.code, wait.lasti))


@no_type_check
def returned(thread: Any) -> Event:
    return _event("return", thread, "", (), None, None, None)


@no_type_check
def _event(kind: str, thread: Any, name: str, index: Any, value: Any, source: Any, where: Any) -> Event:
    line, text = (0, "") if where is None else (line_of(*where), source_of(*where))
    block = thread.block
    return Event(kind, tuple(block.index), thread.number, block.epoch, name, tuple(index), value, source, line, text)
