"""Threads as greenlets, and the scheduler of one block: no operating-system threads, no polling, no chance.

A thread runs until it waits, for its block or for lanes of its warp, or steps back after an atomic. Who runs next is
the runnable thread of highest rank; the ranks are drawn anew behind each barrier. So one warp may run far ahead of
another, as on the hardware, and the same draws give the same run.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from random import Random
from types import CodeType
from typing import Any, no_type_check

try:
    from greenlet import greenlet
except ImportError as error:
    raise ImportError("the simulator needs greenlet: pip install 'ssm-edu[simulator]'") from error

from ssm_edu.testing.simulator.errors import BarrierError, Deadlock, WarpError, kernels_frame, place, plural
from ssm_edu.testing.simulator.events import left, returned
from ssm_edu.testing.simulator.warp import WARP, exchange, lanes_of

SPINS = 3000  # atomics in a row that change nothing, for each live thread, that count as spinning for ever
READS_A_SPIN = 333  # so do a million reads a live thread, in which nothing is written


@no_type_check
class Thread:
    """One CUDA thread: where it is, what it waits for, and what it knows of the other lanes of its warp."""

    __slots__ = (
        *("block", "index", "number", "warp", "lane"),
        *("greenlet", "rank", "wait", "result"),
        *("segment", "known", "fenced", "fenced_block", "acquired", "reads"),
    )

    greenlet: Any
    wait: Any  # a Wait, or None while it runs or could

    def __init__(self, block: Block, index: Any, number: int) -> None:
        self.block = block
        self.index = index
        self.number = number
        self.warp, self.lane = divmod(number, WARP)
        self.rank = number
        self.wait = None
        self.result: Any = None
        self.reads = 0
        self.segment = 0
        self.known = [0] * WARP
        # when it last fenced, for the device and for its block, and up to when it knows what its block did
        self.fenced = self.fenced_block = self.acquired = -1

    def __str__(self) -> str:
        i, b = self.index, self.block.index
        return f"thread ({i.x}, {i.y}, {i.z}) of block ({b.x}, {b.y}, {b.z})"


@no_type_check
class Wait:
    """What a thread waits for: an intrinsic, the mask of its lanes (None: the block), what it brings, and where."""

    __slots__ = ("code", "kind", "lasti", "mask", "value")

    def __init__(self, kind: str, mask: int | None, value: Any, code: CodeType, lasti: int) -> None:
        self.kind, self.mask, self.value, self.code, self.lasti = kind, mask, value, code, lasti

    def __str__(self) -> str:
        mask = "" if self.mask is None or self.kind == "activemask" else f"mask {self.mask:#010x}"
        return f"{self.kind}({mask}) at {place(self.code, self.lasti)}"


VOTES: dict[str, Callable[[list[int]], int]] = {
    "syncthreads_count": sum,
    "syncthreads_and": lambda votes: int(all(votes)),
    "syncthreads_or": lambda votes: int(any(votes)),
}


@no_type_check
class Block:
    """A block of threads, and its scheduler."""

    def __init__(self, launch: Any, index: Any, points: Iterable[Any]) -> None:
        self.launch = launch
        self.index = index
        self.epoch = 0
        self.acquired: dict[Block, int] = {}
        self.shared: dict[Any, Any] = {}
        self.threads = [Thread(self, point, number) for number, point in enumerate(points)]
        self.live = len(self.threads)
        self.at_barrier: list[Thread] = []
        self.at_warp: dict[tuple[int, str, int, Any], list[Thread]] = {}
        self.ready: list[tuple[int, int, Thread]] = []
        self.demoted = len(self.threads)
        self.spins = 0

    def run(self, function: Callable[..., None], args: tuple[Any, ...], context: Any) -> None:
        """Run every thread to its end; never leaves one suspended."""
        self.args = args
        for thread in self.threads:
            thread.greenlet = greenlet(function)
            thread.greenlet.gr_context = context.copy()
        try:
            self._rank()
            for thread in self.threads:
                self._push(thread)
            while self.live:
                while self.ready:
                    self._turn(heapq.heappop(self.ready)[2])
                if self.live and not self._release_stalled():
                    raise self._stuck()
        finally:
            for thread in self.threads:
                if thread.greenlet:
                    thread.greenlet.throw()
                thread.greenlet = None
            # whoever knows of an access here may keep its thread and this block, and nothing more
            for kept in (self.threads, self.shared, self.at_barrier, self.at_warp, self.ready):
                kept.clear()

    def _turn(self, thread: Thread) -> None:
        self.launch.current = thread
        thread.wait = None
        try:
            if thread.greenlet:
                thread.greenlet.switch(thread.result)
            else:
                thread.greenlet.switch(*self.args)
        except Exception as error:
            if str(thread) not in str(error):
                error.add_note(f"in {thread}")
            raise
        if thread.greenlet.dead:
            self.live -= 1
            self.spins = 0
            if self.launch.options.watch is not None:
                self.launch.options.watch(returned(thread))
        elif thread.wait is None:
            self._step_back(thread)
        elif thread.wait.mask is None:
            self.at_barrier.append(thread)
            if len(self.at_barrier) == len(self.threads):
                self._release_block()
        else:
            self._arrive_at_warp(thread)

    def _rank(self) -> None:
        order = drawn_order(self.launch.options.schedule, len(self.threads))
        for thread, rank in zip(self.threads, order, strict=True):
            thread.rank = rank
        self.demoted = len(self.threads)

    def _push(self, thread: Thread) -> None:
        heapq.heappush(self.ready, (thread.rank, thread.number, thread))

    def _step_back(self, thread: Thread) -> None:
        self.spins += 1 + thread.reads // READS_A_SPIN
        thread.reads = 0
        if self.spins > SPINS * self.live:
            frame = kernels_frame(thread.greenlet.gr_frame)
            raise Deadlock(
                f"{thread} and others spin: they read and update what no longer changes, "
                f"at {place(frame.f_code, frame.f_lasti)}; {self._listing()}"
            )
        self.demoted += 1
        thread.rank = self.demoted
        self._push(thread)

    def _release(self, thread: Thread, result: Any) -> None:
        thread.result = result
        self.spins = 0
        if self.launch.options.watch is not None:
            self.launch.options.watch(left(thread))
        self._push(thread)

    def _release_block(self) -> None:
        group, self.at_barrier = self.at_barrier, []
        first = group[0].wait
        if any((t.wait.code, t.wait.lasti) != (first.code, first.lasti) for t in group):
            raise BarrierError(
                f"the threads of block {self._name()} wait at different barriers: {self._listing()}. "
                "All must reach the same one"
            )
        self.epoch += 1
        result = VOTES[first.kind]([int(bool(t.wait.value)) for t in group]) if first.kind in VOTES else None
        self._rank()
        for thread in group:
            self._release(thread, result)

    def _arrive_at_warp(self, thread: Thread) -> None:
        wait = thread.wait
        place_of_active = (wait.code, wait.lasti) if wait.kind == "activemask" else None
        key = (thread.warp, wait.kind, wait.mask, place_of_active)
        group = self.at_warp.setdefault(key, [])
        group.append(thread)
        if len(group) == (wait.mask & self._launched(thread.warp)).bit_count() and wait.kind != "activemask":
            self._release_warp(key)

    def _release_warp(self, key: tuple[int, str, int, Any]) -> None:
        group = self.at_warp.pop(key)
        kind = key[1]
        if kind == "syncwarp":
            self._order(group)
        values = {thread.lane: thread.wait.value for thread in group}
        for thread in group:
            try:
                self._release(thread, exchange(kind, thread.lane, values))
            except WarpError as error:
                raise WarpError(f"{thread} {error}, at {thread.wait}") from None

    def _order(self, group: list[Thread]) -> None:
        """What any of them knew, all know; and each knows all that the others did until now."""
        tables = list({id(thread.known): thread.known for thread in group}.values())
        known = list(map(max, *tables)) if len(tables) > 1 else list(tables[0])
        segment = max(thread.segment for thread in group) + 1
        for thread in group:
            known[thread.lane] = segment
            thread.segment = segment
            thread.known = known

    def _launched(self, warp: int) -> int:
        return (1 << min(WARP, len(self.threads) - warp * WARP)) - 1

    def _alive(self, warp: int) -> int:
        return sum(1 << t.lane for t in self.threads[warp * WARP : (warp + 1) * WARP] if not t.greenlet.dead)

    def _release_stalled(self) -> bool:
        """Nothing can run: let those go that wait for whoever is there, and with `early_exit` for whoever is left."""
        active = [key for key in self.at_warp if key[1] == "activemask"]
        for key in active:
            self._release_warp(key)
        if active or not self.launch.options.early_exit:
            return bool(active)
        complete = [
            key for key, group in self.at_warp.items() if len(group) == (key[2] & self._alive(key[0])).bit_count()
        ]
        for key in complete:
            self._release_warp(key)
        if not complete and len(self.at_barrier) == self.live:
            self._release_block()
        return bool(self.ready)

    def _name(self) -> str:
        return f"({self.index.x}, {self.index.y}, {self.index.z})"

    def _listing(self) -> str:
        """Which threads wait where, and which have returned."""
        groups: dict[str, list[int]] = {}
        for thread in self.threads:
            waiting = f"at {thread.wait}" if thread.wait else "running"
            groups.setdefault("returned" if thread.greenlet.dead else waiting, []).append(thread.number)
        return "; ".join(f"{plural('thread', numbers)} {doing}" for doing, numbers in groups.items())

    def _stuck(self) -> Exception:
        for (warp, kind, mask, _), group in self.at_warp.items():
            here = {thread.lane for thread in group}
            missing = [lane for lane in lanes_of(mask & self._launched(warp)) if lane not in here]
            threads = [self.threads[warp * WARP + lane] for lane in missing]
            exited = [thread.lane for thread in threads if thread.greenlet.dead]
            what = f"{kind} in warp {warp} of block {self._name()}: mask {mask:#010x} names"
            if exited:
                verb = "have" if len(exited) > 1 else "has"
                return WarpError(
                    f"{what} {plural('lane', exited)}, which {verb} exited (early_exit=True does without): "
                    f"{self._listing()}"
                )
            if all(thread.wait.mask is not None for thread in threads):
                verb = "do" if len(missing) > 1 else "does"
                return WarpError(f"{what} {plural('lane', missing)}, which {verb} not take part: {self._listing()}")
        if self.at_warp:
            return Deadlock(
                f"deadlock in block {self._name()}: some threads wait for lanes that wait for the block: "
                f"{self._listing()}"
            )
        return BarrierError(
            f"a barrier reached by only part of block {self._name()}: {self._listing()}. Every thread must reach it "
            "(early_exit=True does without those that returned)"
        )


def drawn_order(schedule: Any, n: int) -> list[int]:
    """Ranks for n threads from one draw: 0 the order of the threads, 1 the reverse, else a shuffle that it seeds.

    One draw, and not n, so that Hypothesis shrinks a schedule to the few phases whose order matters.
    """
    draw = 0 if schedule is None or n < 2 else schedule.randrange(1 << 16)
    order = list(range(n))
    if draw == 1:
        order.reverse()
    elif draw > 1:
        Random(draw).shuffle(order)
    return order
