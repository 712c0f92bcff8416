"""Arrays as a kernel sees them: bounds, uninitialised reads and races, element by element.

Each allocation is a :class:`Memory`, which keys what it knows by the byte offset of an element, so that
views and slices of one allocation share it; each view is an :class:`Array`.

Two accesses to one element race when different threads make them, one of them is a plain write (or one is
atomic and the other plain and one writes), and nothing orders them. What orders two accesses:

- a `syncthreads` between them (each block counts its barriers: the *epoch*);
- a chain of `syncwarp` between lanes of one warp, with any masks (each lane keeps, for every lane of its warp,
  up to which of its *segments* it has synchronised). Shuffles and votes do not: the CUDA C++ Programming Guide
  gives `__syncwarp` memory ordering among the lanes that take part, and says of the warp shuffle and vote
  functions that they imply no memory barrier;
- between blocks, `threadfence` after the write, then an atomic by the writer and one by the reader's block on the
  same element: the guide's last-block-done pattern. This is followed by block, not by thread.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from types import EllipsisType
from typing import TYPE_CHECKING, Any, no_type_check

import numpy as np

from ssm_edu.testing.simulator.errors import OutOfBounds, RaceError, UninitialisedRead, caller, place

if TYPE_CHECKING:
    from ssm_edu.testing.simulator.launch import Launch
    from ssm_edu.testing.simulator.threads import Thread

POISON_BYTE = 0xA5
PARTIAL = (slice, EllipsisType, type(None), str)
Access = tuple[Any, ...]  # thread, epoch, segment, time, code, lasti


def poison(array: np.ndarray) -> None:
    """Fill with NaN, integers with bytes 0xA5 (int32: -1515870811), booleans with True."""
    # all ones is a NaN in every floating format, bfloat16 included
    byte = {"b": 1, "i": POISON_BYTE, "u": POISON_BYTE}.get(array.dtype.kind, 0xFF)
    array[...] = np.frombuffer(bytes([byte]) * array.itemsize, array.dtype)[0]


def root_of(data: np.ndarray) -> np.ndarray:
    while isinstance(data.base, np.ndarray):
        data = data.base
    return data


def address(data: np.ndarray) -> int:
    return data.__array_interface__["data"][0]


# the test run's type checks would cost more than these classes do
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
        self.title = title
        self.origin = address(root_of(data))
        self.itemsize = data.itemsize
        self.mixed = False
        self.races = races
        self.written: set[int] | None = set() if unwritten else None
        self.writes: dict[int, Access] = {}
        self.reads: dict[int, dict[Thread, Access]] = {}
        self.atomics: dict[int, dict[Thread, Access]] = {}
        self.released: dict[int, dict[Any, int]] = {}

    @property
    def watched(self) -> bool:
        return self.races or self.written is not None

    def admit(self, itemsize: int) -> None:
        """Key by single bytes from the moment that one memory is seen in elements of different sizes."""
        if itemsize == self.itemsize or self.mixed:
            return
        self.mixed = True
        for table in (self.writes, self.reads, self.atomics):
            for key in list(table):
                for byte in range(1, self.itemsize):
                    entry = table[key]
                    table[key + byte] = dict(entry) if isinstance(entry, dict) else entry
        if self.written is not None:
            self.written |= {key + byte for key in self.written for byte in range(self.itemsize)}

    def read(self, array: Array, index: Any, offset: int) -> None:
        thread = self.launch.current
        keys = range(offset, offset + array.itemsize) if self.mixed else (offset,)
        if self.written is not None and not self.written.issuperset(keys):
            frame = caller(3)
            raise UninitialisedRead(
                f"{thread} reads {array.element(index)} before anything is written to it, "
                f"at {place(frame.f_code, frame.f_lasti)}"
            )
        if not self.races:
            return
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
        thread = self.launch.current
        keys = range(offset, offset + array.itemsize) if self.mixed else (offset,)
        if self.written is not None:
            self.written.update(keys)
        if not self.races:
            return
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
        keys = range(offset, offset + array.itemsize) if self.mixed else (offset,)
        if self.written is not None and not self.written.issuperset(keys):
            frame = caller(3)
            raise UninitialisedRead(
                f"{thread} updates {array.element(index)} before anything is written to it, "
                f"at {place(frame.f_code, frame.f_lasti)}"
            )
        if not self.races:
            return
        self._exchange(thread, offset)
        access = self._access(thread)
        for key in keys:
            last = self.writes.get(key)
            if last is not None and last[0] is not thread and not ordered(last, thread):
                self._race(array, index, access, "updates atomically", last, "wrote")
            if key in self.reads:
                self._check(array, index, access, "updates atomically", self.reads[key], "read")
            self.atomics.setdefault(key, {})[thread] = access

    def _exchange(self, thread: Thread, offset: int) -> None:
        """What blocks published by a fence and an atomic here, this block now knows; and the other way round."""
        published = self.released.setdefault(offset, {})
        known = thread.block.acquired
        for block, time in published.items():
            known[block] = max(known.get(block, -1), time)
        if thread.fenced is not None:
            published.update(known)
            published[thread.block] = thread.fenced

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
            f"{did} at {place(*other[4:])}, with no {between} between{note}"
        )


@no_type_check
def ordered(access: Access, thread: Thread) -> bool:
    """Whether another thread's access happened before what `thread` does now."""
    other, epoch, segment, time = access[:4]
    if other.block is not thread.block:
        return time <= thread.block.acquired.get(other.block, -1)
    if epoch != thread.block.epoch:
        return True
    return other.warp == thread.warp and thread.known[other.lane] > segment


@no_type_check
class Array:
    """A view of a :class:`Memory` with the part of NumPy's interface that Numba's CUDA target has."""

    __slots__ = ("_data", "_memory", "_offset", "_watched", "dtype", "itemsize", "ndim", "shape", "size", "strides")

    def __init__(self, data: np.ndarray, memory: Memory) -> None:
        if data.dtype.names:
            data = data.view(np.recarray)
        memory.admit(data.itemsize)
        self._data = data
        self._memory = memory
        self._offset = address(data) - memory.origin
        # a record's fields are written through the scalar that NumPy returns: unseen
        self._watched = memory.watched and not data.dtype.names
        self.dtype = data.dtype
        self.itemsize = data.itemsize
        self.ndim = data.ndim
        self.shape = data.shape
        self.size = data.size
        self.strides = data.strides

    def __getitem__(self, index: Any) -> Any:
        offset = self._element(index)
        if offset is None:
            return Array(self._part(index), self._memory)
        if self._watched:
            self._memory.read(self, index, offset)
        return self._data[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        offset = self._element(index)
        if offset is not None:
            if self._watched:
                self._memory.write(self, index, offset, value)
            self._data[index] = value
            return
        part = Array(self._part(index), self._memory)
        if self._watched:
            if isinstance(value, Array):
                value = value._read_all()
            values = np.broadcast_to(np.asarray(value), part.shape)
            for where, offset in part._elements():
                self._memory.write(part, where, offset, values[where])
        part._data[...] = value._data if isinstance(value, Array) else value

    def _element(self, index: Any) -> int | None:
        """The byte offset of one element; None where the index selects an array."""
        indices = index if index.__class__ is tuple else (index,)
        if len(indices) != self.ndim:
            return None
        offset = self._offset
        for i, n, stride in zip(indices, self.shape, self.strides, strict=True):
            if i.__class__ is not int:
                if i.__class__ in PARTIAL:
                    return None
                i = self._integer(i)
            if not 0 <= i < n:
                if not (self._memory.launch.options.wraparound and -n <= i < 0):
                    raise self._outside(index)
                i += n
            offset += i * stride
        return offset

    def _integer(self, i: Any) -> int:
        if i.__class__ is bool:
            raise TypeError(f"{self} is indexed with a bool; an index is an integer")
        try:
            return operator.index(i)
        except TypeError:
            raise TypeError(
                f"{self} is indexed with {i!r} of type {type(i).__name__}; an index is an integer"
            ) from None

    def _part(self, index: Any) -> np.ndarray:
        for i in index if isinstance(index, tuple) else (index,):
            negative = i.__class__ not in PARTIAL and self._integer(i) < 0
            if negative and not self._memory.launch.options.wraparound:
                raise self._outside(index)
        try:
            return self._data[index]
        except IndexError as error:
            raise self._outside(index, str(error)) from None

    def _outside(self, index: Any, words: str = "") -> OutOfBounds:
        frame = caller(3)
        indices = index if isinstance(index, tuple) else (index,)
        if any(i.__class__ not in PARTIAL and i < 0 for i in indices):
            words = "a negative index reads from the end (or, unsigned, far outside); wraparound=True allows it"
        elif self.size == 0 and self._memory.title.startswith("dynamic"):
            words = "the launch's fourth argument is the size of dynamic shared memory in bytes"
        where = place(frame.f_code, frame.f_lasti)
        return OutOfBounds(
            f"{self._memory.launch.current} is out of bounds with {self.element(index)} at {where}"
            + (f": {words}" if words else "")
        )

    def _elements(self) -> Iterator[tuple[tuple[int, ...], int]]:
        for where in np.ndindex(self.shape):
            yield where, self._offset + sum(i * s for i, s in zip(where, self.strides, strict=True))

    def _read_all(self) -> np.ndarray:
        if self._watched:
            for where, offset in self._elements():
                self._memory.read(self, where, offset)
        return self._data

    def element(self, index: Any) -> str:
        inner = ", ".join(str(i) for i in index) if isinstance(index, tuple) else str(index)
        return f"[{inner}] of {self}"

    def __str__(self) -> str:
        return f"{self._memory.title} {self.shape} {self.dtype}"

    __repr__ = __str__

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._read_all(), dtype)

    def __getattr__(self, name: str) -> Any:
        if self.dtype.names and name in self.dtype.names:
            return Array(self._data[name].view(np.ndarray), self._memory)
        raise AttributeError(f"{self} has no attribute {name!r} in the simulator")

    def _view(self, data: np.ndarray) -> Array:
        if not np.may_share_memory(data, self._data):
            raise ValueError(f"{self} is not contiguous: this view of it would be a copy")
        return Array(data, self._memory)

    @property
    def nbytes(self) -> int:
        return self._data.nbytes

    @property
    def T(self) -> Array:
        return self._view(self._data.T)

    def transpose(self, *axes: Any) -> Array:
        return self._view(self._data.transpose(*axes))

    def reshape(self, *shape: Any) -> Array:
        return self._view(self._data.reshape(*shape))

    def ravel(self) -> Array:
        return self._view(self._data.reshape(-1))

    def view(self, dtype: Any) -> Array:
        return self._view(self._data.view(self._memory.launch.numpy_dtype(dtype)))
