"""Arrays as a kernel sees them: every index checked, every access told to the array's memory."""

from __future__ import annotations

from collections.abc import Iterator
from operator import index as whole
from types import CodeType, EllipsisType
from typing import TYPE_CHECKING, Any, no_type_check

import numpy as np

from ssm_edu.testing.simulator.errors import OutOfBounds, assigned_name, caller, place
from ssm_edu.testing.simulator.memory import Memory, address

if TYPE_CHECKING:
    from ssm_edu.testing.simulator.launch import Launch

PARTIAL = (slice, EllipsisType, type(None), str)
INTEGERS: frozenset[Any] = frozenset({int, *(np.dtype(code).type for code in np.typecodes["AllInteger"])})


@no_type_check
class Array:
    """A view of a :class:`Memory` with the part of NumPy's interface that Numba's CUDA target has."""

    __slots__ = (
        "_data", "_launch", "_length", "_memory", "_offset", "_stride", "_type", "_values", "_watched", "_where",
        "dtype", "itemsize", "ndim", "shape", "size", "strides",
    )  # fmt: skip

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
        # of one dimension; no index is within that of another array
        self._length = data.shape[0] if data.ndim == 1 else 0
        self._stride = data.strides[-1] if data.ndim else 0

    def __getitem__(self, index: Any) -> Any:
        offset: int | None
        if index.__class__ in INTEGERS and 0 <= (i := whole(index)) < self._length:  # nearly always: the fast way
            index, offset = i, self._offset + i * self._stride
        elif (offset := self._element(index)) is None:
            return Array(self._part(index), self._memory)
        memory: Any = self._memory
        if self._watched and not (memory.plain and offset in memory.written):
            memory.read(self, index, offset)
        return self._data[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        offset: int | None
        if index.__class__ in INTEGERS and 0 <= (i := whole(index)) < self._length:
            index, offset = i, self._offset + i * self._stride
        else:
            offset = self._element(index)
        if offset is not None:
            memory: Any = self._memory
            if self._watched and memory.plain:
                memory.written.add(offset)
            elif self._watched:
                memory.write(self, index, offset, value)
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
            return whole(i)
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
            words = "a negative index counts from the end where it is signed; wraparound=True allows that"
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


@no_type_check
class Registers(Array):
    """A thread's own array of one dimension, of which nothing but elements was asked so far.

    They cannot race, so that a list says it all, in half of the time: None is unwritten. When anything else is asked,
    or an error is to be told, it becomes an :class:`Array`.
    """

    __slots__ = ()

    def __init__(self, launch: Launch, where: tuple[CodeType, int], length: int, dtype: np.dtype) -> None:
        self._launch = launch
        self._where = where
        self._length = length
        self._type = dtype.type
        self._values = [None] * length
        self.dtype = dtype

    def __getitem__(self, index: Any) -> Any:
        if index.__class__ in INTEGERS and 0 <= (i := whole(index)) < self._length:
            value = self._values[i]
            if value is not None:
                return value
        self._become_memory()
        return self[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        if index.__class__ in INTEGERS and 0 <= (i := whole(index)) < self._length:
            self._values[i] = value if value.__class__ is self._type else cast(value, self.dtype)
        else:
            self._become_memory()
            self[index] = value

    def _become_memory(self) -> None:
        launch, values = self._launch, self._values
        like = launch.allocate(local_title(*self._where), (self._length,), self.dtype, races=False)
        self.__class__ = Array  # type: ignore[assignment]
        Array.__init__(self, like._data, like._memory)
        for i, value in enumerate(values):
            if value is not None:
                self[i] = value

    def __getattr__(self, name: str) -> Any:
        self._become_memory()
        return getattr(self, name)


@no_type_check
def local_title(code: CodeType, lasti: int) -> str:
    return f"local array `{assigned_name(code, lasti) or '?'}`"


@no_type_check
def cast(value: Any, dtype: np.dtype) -> Any:
    """As an array of that dtype takes it."""
    one = np.empty(1, dtype)
    one[0] = value
    return one[0]
