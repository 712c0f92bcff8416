"""A simulated run as steps, each in its column.

Columns are not time. A thread's own events follow one another, and a barrier or a shuffle comes after all that its
threads did before it; between those the simulator, like a GPU, may run threads in any order. The order of this run is
the order of the steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from types import CodeType
from typing import Any

from ssm_edu.testing.simulator import Event, KernelError, RaceError


@dataclass
class Mark:
    """A step: what one thread did, or a barrier or a shuffle that some of them left together."""

    kind: str
    column: int
    threads: list[int]
    line: int
    words: str
    sources: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """What is shown of a launch.

    Attributes:
        events: all of them, as `simulated(watch=…)` told them.
        threads: which rows to draw, by their names.
        arrays: the names of the arrays whose accesses are shown.
        code: of the kernel.
        error: what stopped it.
    """

    title: str
    events: Sequence[Event]
    threads: dict[int, str]
    arrays: frozenset[str]
    code: CodeType
    error: KernelError | None = None


def number(value: Any) -> str:
    return f"{float(value):.4g}".replace("-", "−")


def element(event: Event) -> str:
    name = event.name.replace("shared array ", "").replace("argument ", "").strip("`")
    return f"{name}[{', '.join(str(i) for i in event.index)}]"


def steps(run: Run) -> list[Mark]:
    """The marks in the order of the run, each in its column."""
    marks: list[Mark] = []
    cursor = dict.fromkeys(run.threads, 0)
    waiting: dict[int, Mark] = {}
    shown = [event for event in run.events if event.thread in cursor and is_shown(run, event)]
    for (kind, name), group in groupby(shown, key=lambda event: (event.kind, event.name)):
        if kind == "leave":
            marks.append(released(name, list(group), cursor, waiting))
            continue
        for event in group:
            mark = Mark(kind, cursor[event.thread], [event.thread], event.line, words(run, event))
            if kind == "arrive":
                waiting[event.thread] = mark
            else:
                cursor[event.thread] += 1
            marks.append(mark)
    return marks


def is_shown(run: Run, event: Event) -> bool:
    return event.kind in ("arrive", "leave", "return") or event.name in run.arrays


def released(name: str, events: list[Event], cursor: dict[int, int], waiting: dict[int, Mark]) -> Mark:
    """All that waited go on from one column, in which they also arrived; what a shuffle gives comes in the next."""
    threads = [event.thread for event in events]
    column, shuffle = max(cursor[thread] for thread in threads), name.startswith("shfl")
    for thread in threads:
        waiting.pop(thread).column = column
        cursor[thread] = column + 1 + shuffle
    if shuffle:
        sources = {e.thread: e.source for e in events if e.source is not None and e.source != e.thread}
        words = f"all lanes have come: {name} gives each its value"
        return Mark("shuffle", column + 1, threads, events[0].line, words, sources)
    return Mark("barrier", column, threads, events[0].line, "all threads have come: the barrier opens")


def words(run: Run, event: Event) -> str:
    who = run.threads[event.thread]
    if event.kind == "read":
        return f"{who} reads {number(event.value)} from {element(event)}"
    if event.kind == "write":
        return f"{who} writes {number(event.value)} to {element(event)}"
    if event.kind == "update":
        return f"{who} updates {element(event)}, which was {number(event.value)}"
    if event.kind == "arrive":
        brings = f" with {number(event.value)}" if event.name.startswith("shfl") else ""
        return f"{who} waits at {event.name}{brings}"
    return f"{who} returns"


def race_steps(run: Run, marks: list[Mark]) -> list[int]:
    """The two accesses of the race, as positions in `marks`; none if there is no race."""
    if not isinstance(run.error, RaceError):
        return []
    first, last = run.error.first, len(marks) - 1
    touched = marks[last].words.rpartition(" ")[2]
    earlier = [
        k
        for k, mark in enumerate(marks[:last])
        if mark.threads == [first.thread] and mark.line == first.line and mark.words.endswith(f" {touched}")
    ]
    return [earlier[-1], last]
