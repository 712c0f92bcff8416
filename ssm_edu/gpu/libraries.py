"""Arrays on a device, of PyTorch, CuPy, JAX, Numba and others: read where they lie, and made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from ssm_edu.gpu import dlpack, runtime


class View(NamedTuple):
    """An array as a kernel takes it.

    Attributes:
        buffer: the address of its elements, in the simulator these elements in a flat array; they are in C order.
        owner: keeps the memory.
        device: None is the one that is current.
        stream: where something may still write it, 0 the legacy default stream, None nowhere.
    """

    shape: tuple[int, ...]
    dtype: str
    buffer: Any
    device: int | None
    owner: Any
    stream: int | None = None


class Library:
    """How a library's arrays are read and made. A `stream` is its address, 0 the legacy default one."""

    xp: Any  # its namespace of NumPy's functions

    def stream(self, u: Any) -> int:
        """The caller's stream, where the kernels go."""
        return 0

    def view(self, name: str, array: Any, stream: int) -> View:
        """The array, made C-contiguous, and ready for what comes on the stream once its own `stream` is."""
        raise NotImplementedError

    def empty(self, shape: tuple[int, ...], dtype: str, u: View) -> tuple[Any, Any]:
        """An array beside u, and its buffer."""
        raise NotImplementedError

    def like(self, view: View, u: View) -> tuple[Any, Any]:
        """An array beside u of a view's shape and dtype, and its buffer."""
        return self.empty(view.shape, view.dtype, u)

    def result(self, array: Any) -> Any:
        """What the caller gets of an array that was made here."""
        return array

    def relabelled(self, seq_idx: Any) -> Any:
        """seq_idx in int32: numbers that change where it does, so that a wider one loses nothing."""
        xp = self.xp
        return xp.cumsum(xp.diff(seq_idx, axis=1, prepend=seq_idx[:, :1]) != 0, axis=1, dtype=xp.int32)

    @contextmanager
    def launch(self, views: dict[str, View]) -> Iterator[tuple[Any, Callable[..., Any]]]:
        """The stream as Numba takes it, ordered after all views, and an allocator of workspace for what goes on it."""
        u = views["u"]
        stream = u.stream or 0
        runtime.wait(stream, {view.stream for view in views.values() if view.stream is not None})
        kept: list[Any] = []  # until the launches are done, or in the queue of a stream-ordered allocator

        def allocate(shape: tuple[int, ...], dtype: str) -> Any:
            array, buffer = self.empty(shape, dtype, u)
            kept.append(array)
            return buffer

        yield runtime.numba_stream(stream), allocate
        foreign = [view.owner for view in views.values() if isinstance(view.owner, Foreign)]
        if foreign:
            runtime.hold(foreign, stream)


class Torch(Library):
    def __init__(self) -> None:
        self.xp = import_module("torch")
        self.names: dict[Any, str] = {}

    def stream(self, u: Any) -> int:
        return self.xp.cuda.current_stream(u.get_device()).cuda_stream

    def view(self, name: str, array: Any, stream: int) -> View:
        if array.requires_grad and self.xp.is_grad_enabled():
            raise TypeError(f"{name} requires grad, but nothing is recorded here; expected {name}.detach()")
        if array.is_neg() or array.is_conj():  # flags of a view, which its memory does not show
            array = array.resolve_conj().resolve_neg()
        if not array.is_contiguous():
            array = array.contiguous()
        dtype = array.dtype
        if dtype not in self.names:
            self.names[dtype] = str(dtype).removeprefix("torch.")
        return View(array.shape, self.names[dtype], array.data_ptr(), array.get_device(), array, stream)

    def empty(self, shape: tuple[int, ...], dtype: str, u: View) -> tuple[Any, int]:
        array = self.xp.empty(shape, dtype=getattr(self.xp, dtype), device=u.owner.device)
        return array, array.data_ptr()

    def like(self, view: View, u: View) -> tuple[Any, int]:
        if not isinstance(view.owner, self.xp.Tensor):
            return self.empty(view.shape, view.dtype, u)
        array = self.xp.empty_like(view.owner)  # half as long as empty takes
        return array, array.data_ptr()


class CuPy(Library):
    def __init__(self) -> None:
        self.xp = import_module("cupy")

    def stream(self, u: Any) -> int:
        with u.device:
            return self.xp.cuda.get_current_stream().ptr

    def view(self, name: str, array: Any, stream: int) -> View:
        if not array.flags.c_contiguous:
            with array.device:
                array = self.xp.ascontiguousarray(array)
        dtype = _native(name, array.dtype)
        return View(array.shape, dtype, array.data.ptr, array.device.id, array, stream)

    def empty(self, shape: tuple[int, ...], dtype: str, u: View) -> tuple[Any, int]:
        with u.owner.device:
            array = self.xp.empty(shape, np.dtype(dtype))
        return array, array.data.ptr


class Exchange(Library):
    """Arrays known by a protocol alone, and Numba's; results are Numba's."""

    def stream(self, u: Any) -> int:
        if hasattr(u, "__dlpack__") or runtime.is_simulated():
            return 0
        due = u.__cuda_array_interface__.get("stream")
        return 0 if due in (None, 1) else due

    def view(self, name: str, array: Any, stream: int) -> View:
        return read(name, array, stream)

    def empty(self, shape: tuple[int, ...], dtype: str, u: View) -> tuple[Any, Any]:
        array = runtime.device_array(shape, dtype, u.stream or 0)
        return array, runtime.address(array)

    def relabelled(self, seq_idx: Any) -> Any:
        raise TypeError(f"seq_idx has dtype {seq_idx.dtype}, expected int32: only PyTorch, CuPy and JAX convert it")


class Jax(Exchange):
    """Its arrays are nobody's to write into: results lie in Numba's memory, handed over by DLPack."""

    def __init__(self) -> None:
        self.xp = import_module("jax.numpy")
        self.from_dlpack = import_module("jax.dlpack").from_dlpack

    def empty(self, shape: tuple[int, ...], dtype: str, u: View) -> tuple[Any, Any]:
        array, buffer = super().empty(shape, runtime.BITS.get(dtype, dtype), u)
        ready = partial(_order, u.stream or 0)
        return dlpack.Exported(array, buffer, shape, dtype, (dlpack.KDL_CUDA, u.device or 0), ready), buffer

    def result(self, array: Any) -> Any:
        return self.from_dlpack(array)

    def relabelled(self, seq_idx: Any) -> Any:
        return Library.relabelled(self, seq_idx)


class Foreign(NamedTuple):
    """Memory that its library may give to others, unless something holds it until the kernels are done."""

    array: Any
    capsule: Any


def read(name: str, array: Any, stream: int) -> View:
    """An array of any library, by DLPack or the CUDA array interface, ready for the stream once its own is.

    Raises:
        TypeError: it lies on several devices, has a mask or foreign byte order. ValueError: it is not C-contiguous.
    """
    if hasattr(array, "_ary") and runtime.is_simulated():
        host = array._ary
        _check_contiguous(name, host.shape, host.strides, host.itemsize)
        return View(host.shape, _native(name, host.dtype), runtime.flat_bits(host), 0, array)
    if hasattr(array, "__dlpack__"):
        try:
            capsule = array.__dlpack__(stream=stream or 1)
        except BufferError as error:
            raise TypeError(f"{name} cannot be read through DLPack: {error}") from None
        tensor = dlpack.read(capsule)
        _check_contiguous(name, tensor.shape, tensor.strides)
        return View(tensor.shape, tensor.dtype, tensor.address, tensor.device[1], Foreign(array, capsule), stream)
    interface = array.__cuda_array_interface__
    if interface.get("mask") is not None:
        raise TypeError(f"{name} has a mask, which would be lost; expected an array without one")
    dtype = getattr(array, "dtype", None)  # of bfloat16 the interface says that it is two bytes
    dtype = dtype if isinstance(dtype, np.dtype) else np.dtype(interface["typestr"])
    _check_contiguous(name, interface["shape"], interface.get("strides"), dtype.itemsize)
    where = interface["data"][0] or 0
    due = interface.get("stream")
    owner = array if hasattr(array, "__cuda_ndarray__") else Foreign(array, None)
    return View(
        tuple(interface["shape"]), _native(name, dtype), where, _device_of(array), owner, 0 if due in (None, 1) else due
    )


def _native(name: str, dtype: np.dtype) -> str:
    if not dtype.isnative:
        raise TypeError(f"{name} has dtype {dtype}, expected native byte order on a device")
    return dtype.name


def _check_contiguous(name: str, shape: tuple[int, ...], strides: tuple[int, ...] | None, step: int = 1) -> None:
    if not dlpack.is_contiguous(shape, strides, step):
        raise ValueError(f"{name} has strides {strides}, expected a C-contiguous array of shape {tuple(shape)}")


def _device_of(array: Any) -> int:
    if runtime.device_count() == 1:
        return 0
    if hasattr(array, "gpu_data"):
        return array.gpu_data.context.device.id
    return runtime.target().cuda.get_current_device().id


def _order(stream: int, consumer: int | None) -> None:
    """Let a consumer's stream wait for ours: −1 asks for nothing, None and 1 are the legacy default stream."""
    if consumer != -1:
        runtime.wait(0 if consumer in (None, 1) else consumer, {stream})


LIBRARIES: dict[str, Callable[[], Library]] = {"torch": Torch, "cupy": CuPy, "jax": Jax, "jaxlib": Jax}


def library_of(array: Any) -> Library:
    """The library whose array this is."""
    return _library_of(type(array))  # type: ignore[arg-type]


@cache
def _library_of(kind: Any) -> Library:
    roots = (base.__module__.partition(".")[0] for base in kind.__mro__)
    return _library(next((root for root in roots if root in LIBRARIES), ""))


@cache
def _library(root: str) -> Library:
    return LIBRARIES.get(root, Exchange)()
