"""An allocation, and who touched its elements: uninitialised reads and races.

It keys what it knows by the byte offset of an element, so that views and slices of one allocation share it.

Two accesses to one element race when different threads make them, at least one writes, they are not both atomic, and
nothing orders them. What orders two accesses:

- a `syncthreads` between them (each block counts its barriers: the *epoch*);
- a chain of `syncwarp` between lanes of one warp, with any masks (each lane keeps, for every lane of its warp,
  up to which of its *segments* it has synchronised). Shuffles and votes do not: the CUDA C++ Programming Guide
  gives `__syncwarp` memory ordering among the lanes that take part, and says of the warp shuffle and vote
  functions that they imply no memory barrier;
- a fence after the first access, then an atomic by the thread that fenced, then one on the same element by the
  second thread: a lock, or the guide's last-block-done pattern. A fence is taken to cover what its whole block did
  until then, and an atomic on what another block published to cover what its whole block does from then on, so
  that barriers on either side need no tracing: this can miss a race, and does not report one that is none.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, no_type_check

import numpy as np

from ssm_edu.testing.simulator.errors import RaceError, Side, UninitialisedRead, caller, place
from ssm_edu.testing.simulator.events import accessed

if TYPE_CHECKING:
    from ssm_edu.testing.simulator.array import Array
    from ssm_edu.testing.simulator.launch import Launch
    from ssm_edu.testing.simulator.threads import Thread

POISON_BYTE = 0xA5
PATIENCE = 10_000  # reads after which a thread lets others run: it may be waiting for them
Access = tuple[Any, ...]  # thread, epoch, segment, time, code, lasti


# the test run's type checks would cost more than what is here does
@no_type_check
def poison(array: np.ndarray) -> None:
    """Fill with NaN, integers with bytes 0xA5 (int32: -1515870811), booleans with True."""
    array[...] = _poison_of(array.dtype)


@cache
def _poison_of(dtype: np.dtype) -> Any:
    # all ones is a NaN in every floating format, bfloat16 included
    byte = {"b": 1, "i": POISON_BYTE, "u": POISON_BYTE}.get(dtype.kind, 0xFF)
    return np.frombuffer(bytes([byte]) * dtype.itemsize, dtype)[0]


@no_type_check
def root_of(data: np.ndarray) -> np.ndarray:
    while isinstance(data.base, np.ndarray):
        data = data.base
    return data


@no_type_check
def address(data: np.ndarray) -> int:
    return data.__array_interface__["data"][0]


@no_type_check
class Memory:
    """One allocation, and who touched its elements.

    Args:
        launch: the running launch, which knows the current thread.
        title: what messages call it, such as "shared array `tile`".
        data: any array of the allocation.
        races: whether races are looked for.
        unwritten: whether the memory begins uninitialised and reading that is an error.
    """

    def __init__(
        self, launch: Launch, title: str, data: np.ndarray, *, races: bool = False, unwritten: bool = False
    ) -> None:
        self.launch = launch
        self.watch = launch.options.watch
        self.title = title
        self.origin = address(root_of(data))
        self.itemsize = data.itemsize
        self.mixed = False
        self.races = races
        self.written: set[int] | None = set() if unwritten else None
        # nothing is kept but `written`: arrays look into it themselves, which is the fast way of nearly every access
        self.plain = unwritten and not races and self.watch is None
        self.writes: dict[int, Access] = {}
        self.reads: dict[int, dict[Thread, Access]] = {}
        self.atomics: dict[int, dict[Thread, Access]] = {}
        self.published: dict[int, dict[Thread, tuple[int, int, dict[Any, int]]]] = {}

    @property
    def watched(self) -> bool:
        return self.races or self.written is not None or self.watch is not None

    def admit(self, itemsize: int) -> None:
        """Key by single bytes from the moment that one memory is seen in elements of different sizes."""
        if itemsize == self.itemsize or self.mixed:
            return
        self.mixed, self.plain = True, False
        rest = range(1, self.itemsize)
        self.writes |= {key + byte: access for key, access in self.writes.items() for byte in rest}
        for table in (self.reads, self.atomics):
            table |= {key + byte: dict(by_thread) for key, by_thread in table.items() for byte in rest}
        if self.written is not None:
            self.written |= {key + byte for key in self.written for byte in range(self.itemsize)}

    def forget(self) -> None:
        for table in (self.writes, self.reads, self.atomics, self.published):
            table.clear()

    def read(self, array: Array, index: Any, offset: int) -> None:
        if self.watch is not None:
            self._tell("read", index, array._data[index])
        keys = range(offset, offset + array.itemsize) if self.mixed else (offset,)
        written = self.written
        if written is not None and not (written.issuperset(keys) if self.mixed else offset in written):
            frame = caller(3)
            raise UninitialisedRead(
                f"{self.launch.current} reads {array.element(index)} before anything is written to it, "
                f"at {place(frame.f_code, frame.f_lasti)}"
            )
        if not self.races:
            return
        thread = self.launch.current
        thread.reads += 1
        if thread.reads == PATIENCE:
            self.launch.step_back(changed=False)
        access = self._access(thread)
        for key in keys:
            last = self.writes.get(key)
            if last is not None and last[0] is not thread and not ordered(last, thread):
                self._race(array, index, access, "reads", last, "wrote")
            others = self.atomics.get(key)
            if others is not None:
                self._check(array, index, access, "reads", others, "updated atomically")
            readers = self.reads.get(key)
            if readers is None:
                self.reads[key] = {thread: access}
            else:
                readers[thread] = access

    def write(self, array: Array, index: Any, offset: int, value: Any) -> None:
        if self.watch is not None:
            self._tell("write", index, value)
        keys = range(offset, offset + array.itemsize) if self.mixed else (offset,)
        if self.written is not None:
            self.written.update(keys)
        if not self.races:
            return
        thread = self.launch.current
        thread.block.spins = 0
        access = self._access(thread)
        for key in keys:
            last = self.writes.get(key)
            if last is not None and last[0] is not thread and not ordered(last, thread):
                same = bool(array._data[index] == value)
                if not (same and self.launch.options.same_value_writes):
                    note = "; both write the same value: same_value_writes=True allows that" if same else ""
                    self._race(array, index, access, "writes", last, "wrote", note)
            for others, done in ((self.reads, "read"), (self.atomics, "updated atomically")):
                before = others.pop(key, None)
                if before is not None:
                    self._check(array, index, access, "writes", before, done)
            self.writes[key] = access

    def atomic(self, array: Array, index: Any, offset: int) -> None:
        thread = self.launch.current
        if self.watch is not None:
            self._tell("update", index, array._data[index])
        keys = range(offset, offset + array.itemsize) if self.mixed else (offset,)
        if self.written is not None and not self.written.issuperset(keys):
            frame = caller(3)
            raise UninitialisedRead(
                f"{thread} updates {array.element(index)} before anything is written to it, "
                f"at {place(frame.f_code, frame.f_lasti)}"
            )
        if not self.races:
            return
        self._synchronise(thread, offset)
        access = self._access(thread)
        for key in keys:
            last = self.writes.get(key)
            if last is not None and last[0] is not thread and not ordered(last, thread):
                self._race(array, index, access, "updates atomically", last, "wrote")
            if key in self.reads:
                self._check(array, index, access, "updates atomically", self.reads[key], "read")
            self.atomics.setdefault(key, {})[thread] = access

    def _synchronise(self, thread: Thread, offset: int) -> None:
        """What others published by a fence and an atomic here, this thread now knows; and the other way round."""
        published = self.published.setdefault(offset, {})
        known = thread.block.acquired
        for other, (fenced, fenced_block, blocks) in published.items():
            if other.block is not thread.block:
                for block, time in (blocks | {other.block: fenced}).items():
                    known[block] = max(known.get(block, -1), time)
            elif other is not thread:
                thread.acquired = max(thread.acquired, fenced_block)
        if thread.fenced_block >= 0:
            published[thread] = thread.fenced, thread.fenced_block, dict(known)

    @no_type_check
    def _tell(self, kind: str, index: Any, value: Any) -> None:
        frame = caller(3)
        event = accessed(kind, self.launch.current, self.title, index, value, (frame.f_code, frame.f_lasti))
        self.launch.options.watch(event)

    def _access(self, thread: Thread) -> Access:
        frame = caller(4)
        return (thread, thread.block.epoch, thread.segment, self.launch.time, frame.f_code, frame.f_lasti)

    def _check(
        self, array: Array, index: Any, access: Access, does: str, others: dict[Thread, Access], did: str
    ) -> None:
        thread = access[0]
        for other in others.values():
            if other[0] is not thread and not ordered(other, thread):
                self._race(array, index, access, does, other, did)

    def _race(
        self, array: Array, index: Any, access: Access, does: str, other: Access, did: str, note: str = ""
    ) -> None:
        between = "barrier" if other[0].block is access[0].block else "fence and atomic"
        raise RaceError(
            f"{access[0]} {does} {array.element(index)} at {place(*access[4:])}, which {other[0]} "
            f"{did} at {place(*other[4:])}, with no {between} between{note}",
            first=Side.of(*other),
            second=Side.of(*access),
        )


@no_type_check
def ordered(access: Access, thread: Thread) -> bool:
    """Whether another thread's access happened before what `thread` does now."""
    other, epoch, segment, time = access[:4]
    if other.block is not thread.block:
        return time <= thread.block.acquired.get(other.block, -1)
    if epoch != thread.block.epoch:
        return True
    return time <= thread.acquired or (other.warp == thread.warp and thread.known[other.lane] > segment)
