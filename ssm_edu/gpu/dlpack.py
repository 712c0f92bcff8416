"""DLPack by ctypes: a capsule read without a framework, and memory exported to one. Source: dlpack.h, version 0.8."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

CODES = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 5: "complex", 6: "bool"}
KDL_CUDA = 2
NAME = b"dltensor"  # ctypes does not keep it, and a capsule does not copy it


class _Device(ctypes.Structure):
    _fields_ = [("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32)]


class _DataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _ManagedTensor(ctypes.Structure):
    _fields_ = [("tensor", _Tensor), ("manager", ctypes.c_void_p), ("deleter", _Deleter)]


_api = ctypes.pythonapi
_get_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
# The destructor meets a capsule without references, which must not become a py_object.
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_dying_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_Destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
_new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, _Destructor)(
    ("PyCapsule_New", _api)
)


class Tensor(NamedTuple):
    """What a capsule says of an array; `strides` are in elements, None in C order."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    dtype: str
    device: tuple[int, int]


def read(capsule: Any) -> Tensor:
    """Read a capsule, which goes on owning the memory: it is not marked as used.

    Raises:
        ValueError: it is no capsule of this kind, or used.
    """
    t = _ManagedTensor.from_address(_get_pointer(capsule, NAME)).tensor
    kind = CODES.get(t.dtype.code, f"code{t.dtype.code}_")
    dtype = kind if kind == "bool" else f"{kind}{t.dtype.bits}"
    return Tensor(
        (t.data or 0) + t.byte_offset,
        tuple(t.shape[: t.ndim]) if t.ndim else (),
        tuple(t.strides[: t.ndim]) if t.strides else None,
        dtype if t.dtype.lanes == 1 else f"{dtype}x{t.dtype.lanes}",
        (t.device.device_type, t.device.device_id),
    )


def is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...] | None, step: int = 1) -> bool:
    """Whether these strides are those of C order, wherever it matters; `step` is that of the last axis."""
    if strides is None or prod(shape) <= 1:
        return True
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != step:
            return False
        step *= size
    return True


_exported: dict[int, Any] = {}
_returned: list[Any] = []


@_Deleter
def _delete(managed: int) -> None:
    # Any thread may call this, and an owner's memory is freed from one that has a context: at the next export.
    _returned.append(_exported.pop(managed, None))


@_Destructor
def _destroy(capsule: int) -> None:
    if _is_valid(capsule, NAME):
        _delete(_dying_pointer(capsule, NAME))


class Exported:
    """C-contiguous memory, to be handed to a framework's `from_dlpack`.

    Args:
        owner: keeps the memory; the framework keeps it for as long as it needs.
        ready: called with the consumer's stream, which it lets wait until the memory holds what it should.
    """

    def __init__(
        self,
        owner: Any,
        address: int,
        shape: tuple[int, ...],
        dtype: str,
        device: tuple[int, int],
        ready: Callable[[Any], None],
    ) -> None:
        self.owner, self.address, self.shape, self.device, self.ready = owner, address, shape, device, ready
        kind = dtype.rstrip("0123456789")
        self.dtype = _DataType({name: code for code, name in CODES.items()}[kind], int(dtype[len(kind) :]), 1)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, *, stream: Any = None, **options: Any) -> Any:
        """A capsule of the unversioned kind, which every consumer takes."""
        _returned.clear()
        self.ready(stream)
        shape = (ctypes.c_int64 * len(self.shape))(*self.shape)
        tensor = _Tensor(self.address, _Device(*self.device), len(self.shape), self.dtype, shape, None, 0)
        managed = _ManagedTensor(tensor, None, _delete)
        where = ctypes.addressof(managed)
        _exported[where] = managed, shape, self.owner
        return _new_capsule(where, NAME, _destroy)
