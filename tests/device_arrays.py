"""Libraries whose arrays pretend to lie on a device: host memory behind the attributes that the door reads."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np


class Unreadable:
    """An array that NumPy cannot read, as an array on a device is."""

    def __init__(self, array: np.ndarray, device: int = 0) -> None:
        self.array, self.where = array, device

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError("can't convert a device array to numpy")


class Tensor(Unreadable):
    """PyTorch's; an array of uint16 is one of bfloat16."""

    is_cuda = True

    def __init__(self, array: np.ndarray, device: int = 0, requires_grad: bool = False, is_conj: bool = False) -> None:
        super().__init__(array, device)
        self.requires_grad, self.conjugated = requires_grad, is_conj
        self.device = f"cuda:{device}"

    @property
    def dtype(self) -> str:
        return "torch." + {"uint16": "bfloat16"}.get(self.array.dtype.name, self.array.dtype.name)

    def get_device(self) -> int:
        return self.where

    def data_ptr(self) -> int:
        return self.array.ctypes.data

    def is_contiguous(self) -> bool:
        return self.array.flags.c_contiguous

    def contiguous(self) -> Tensor:
        return Tensor(np.ascontiguousarray(self.array), self.where)

    def is_neg(self) -> bool:
        return False

    def is_conj(self) -> bool:
        return self.conjugated

    def resolve_conj(self) -> Tensor:
        return Tensor(self.array.conj() if self.conjugated else self.array, self.where)

    def resolve_neg(self) -> Tensor:
        return self

    def __getitem__(self, index: Any) -> Tensor:
        return Tensor(self.array[index], self.where)


class Ndarray(Unreadable):
    """CuPy's."""

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    @property
    def flags(self) -> Any:
        return self.array.flags

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.array.ctypes.data)

    @property
    def device(self) -> Any:
        return Device(self.where)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return interface(self.array)

    def __getitem__(self, index: Any) -> Ndarray:
        return Ndarray(self.array[index], self.where)


class Device:
    current = 0

    def __init__(self, id: int) -> None:
        self.id = id

    def __enter__(self) -> None:
        self.before, Device.current = Device.current, self.id

    def __exit__(self, *exception: Any) -> None:
        Device.current = self.before


class Interfaced(Unreadable):
    """Known by its CUDA array interface alone."""

    def __init__(self, array: np.ndarray, **more: Any) -> None:
        super().__init__(array)
        self.more = more

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return interface(self.array) | self.more


class Exchanged(Unreadable):
    """Known by DLPack alone; `asked` has the streams it was to be ready on."""

    def __init__(self, array: np.ndarray, device: int = 0) -> None:
        super().__init__(array, device)
        self.asked: list[Any] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.where

    def __dlpack__(self, *, stream: Any) -> Any:
        self.asked.append(stream)
        return self.array.__dlpack__()


class NumbaArray(Interfaced):
    """Numba's."""

    __cuda_ndarray__ = True

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    def copy_to_host(self) -> np.ndarray:
        return self.array.copy()

    def copy_to_device(self, array: np.ndarray) -> None:
        self.array[...] = array


def interface(array: np.ndarray) -> dict[str, Any]:
    strides = None if array.flags.c_contiguous else array.strides
    data = (array.ctypes.data, False)
    return {"shape": array.shape, "strides": strides, "typestr": array.dtype.str, "data": data, "version": 3}


Tensor.__module__, Ndarray.__module__ = "torch", "cupy"


def torch_module(stream: int) -> Any:
    def empty(shape: Any, *, dtype: Any, device: str) -> Tensor:
        return Tensor(np.empty(shape, dtype), int(device.removeprefix("cuda:")))

    def diff(x: Tensor, *, axis: int, prepend: Tensor) -> np.ndarray:
        return np.diff(x.array, axis=axis, prepend=prepend.array)

    def cumsum(x: np.ndarray, *, axis: int, dtype: Any) -> Tensor:
        return Tensor(np.cumsum(x, axis=axis, dtype=dtype))

    def empty_like(x: Tensor) -> Tensor:
        if not isinstance(x, Tensor):
            raise TypeError(f"empty_like(): argument 'input' (position 1) must be Tensor, not {type(x).__name__}")
        return Tensor(np.empty_like(x.array), x.where)

    names = ("int32", "float16", "float32", "float64", "complex64", "complex128")
    return SimpleNamespace(
        Tensor=Tensor,
        empty=empty,
        empty_like=empty_like,
        diff=diff,
        cumsum=cumsum,
        is_grad_enabled=lambda: True,
        cuda=SimpleNamespace(current_stream=lambda device: SimpleNamespace(cuda_stream=stream + device)),
        bfloat16=np.uint16,
        **{name: np.dtype(name) for name in names},
    )


def cupy_module(stream: int) -> Any:
    return SimpleNamespace(
        empty=lambda shape, dtype: Ndarray(np.empty(shape, dtype), Device.current),
        ascontiguousarray=lambda x: Ndarray(np.ascontiguousarray(x.array), Device.current),
        diff=lambda x, *, axis, prepend: np.diff(x.array, axis=axis, prepend=prepend.array),
        cumsum=lambda x, *, axis, dtype: Ndarray(np.cumsum(x, axis=axis, dtype=dtype)),
        int32=np.int32,
        cuda=SimpleNamespace(get_current_stream=lambda: SimpleNamespace(ptr=stream + Device.current)),
    )


class Cuda:
    """Numba's `cuda`, which writes down what it is asked to order and which device it made current."""

    def __init__(self, devices: int = 1) -> None:
        self.log: list[Any] = []
        self.gpus = [self._made_current(device) for device in range(devices)]

    @contextmanager
    def _made_current(self, device: int) -> Iterator[None]:
        self.log.append(("device", device))
        yield

    def device_array(self, shape: Any, dtype: Any, stream: Any = 0) -> NumbaArray:
        return NumbaArray(np.empty(shape, dtype), stream=stream or None)

    def to_device(self, array: np.ndarray) -> NumbaArray:
        return NumbaArray(array.copy())

    def as_cuda_array(self, memory: Any) -> NumbaArray:
        found = memory.__cuda_array_interface__
        size = found["shape"][0] * np.dtype(found["typestr"]).itemsize
        raw = (ctypes.c_uint8 * size).from_address(found["data"][0])
        return NumbaArray(np.frombuffer(raw, found["typestr"]))

    def external_stream(self, address: int) -> str:
        return f"stream {address}"

    def event(self, timing: bool) -> Any:
        assert not timing
        return SimpleNamespace(
            record=lambda stream: self.log.append(("record", stream)),
            wait=lambda stream: self.log.append(("wait", stream)),
            query=lambda: True,
        )

    def synchronize(self) -> None:
        self.log.append("synchronize")
