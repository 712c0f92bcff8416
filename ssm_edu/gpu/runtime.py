"""What the kernels need of this machine: Numba's CUDA target, a device and its streams, or the simulator."""

from __future__ import annotations

from collections import deque
from contextlib import AbstractContextManager, nullcontext
from functools import cache, lru_cache
from importlib import import_module
from importlib.util import find_spec
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np

INSTALL = "pip install 'ssm-edu[gpu]', or 'ssm-edu[gpu-cu12]' for a driver of CUDA 12"
SIMULATOR = "pip install 'ssm-edu[simulator]'"
SIMULATE = f"NUMBA_ENABLE_CUDASIM=1 simulates the kernels, slowly ({SIMULATOR})"
BITS = {"float16": "uint16", "bfloat16": "uint16"}  # how narrow floats travel


@cache
def target() -> Any:
    """`ssm_kernels._target`, once it is known that kernels can run.

    Raises:
        ImportError: a package is missing, or does not load. RuntimeError: no driver, or no device.
    """
    if find_spec("numba") is None:
        raise ImportError("Numba is not installed: pip install numba")
    try:
        found = import_module("ssm_kernels._target")
    except Exception as error:  # one release of numba-cuda met a new NumPy with an AttributeError
        raise ImportError(f"numba.cuda does not load ({type(error).__name__}: {error}): {INSTALL}") from error
    if found.SIMULATED and find_spec("greenlet") is None:
        raise ImportError(f"NUMBA_ENABLE_CUDASIM is set, and the simulator needs greenlet: {SIMULATOR}")
    if found.SIMULATED or found.cuda.is_available():
        return found
    packaged = find_spec("numba_cuda") is not None
    if why := found.cuda.cuda_error():
        advice = "" if packaged else f"; with one, also {INSTALL}"
        raise RuntimeError(f"no NVIDIA driver that works ({' '.join(why.split())}){advice}; {SIMULATE}")
    if not packaged:
        raise ImportError(f"numba-cuda is not installed: {INSTALL}")
    raise RuntimeError(f"the NVIDIA driver is there, but no device or no compiler for it: {INSTALL}; {SIMULATE}")


def kernels() -> ModuleType:
    """`ssm_kernels.scan`. Raises as :func:`target`."""
    target()
    return import_module("ssm_kernels.scan")


def is_simulated() -> bool:
    return target().SIMULATED


@cache
def device_count() -> int:
    return 1 if is_simulated() else len(target().cuda.gpus)


def current_device(device: int | None) -> AbstractContextManager[Any]:
    """Inside, kernels and Numba's allocations go to this device; None is the one that is current now."""
    return nullcontext() if device is None or device_count() == 1 else target().cuda.gpus[device]


@lru_cache(maxsize=64)
def numba_stream(address: int) -> Any:
    """A stream as Numba takes it; 0 and 1 are the legacy default one."""
    return 0 if address in (0, 1) or is_simulated() else target().cuda.external_stream(address)


def wait(stream: int, streams: set[int]) -> None:
    """Let what comes on `stream` wait for what is on the others now."""
    for other in streams - {stream}:
        event = target().cuda.event(timing=False)
        event.record(numba_stream(other))
        event.wait(numba_stream(stream))


_held: deque[tuple[Any, Any]] = deque()
_holding = Lock()


def hold(owners: Any, stream: int) -> None:
    """Keep the owners of memory until what is on the stream now is done; let go of earlier ones."""
    event = target().cuda.event(timing=False)
    event.record(numba_stream(stream))
    with _holding:
        _held.append((event, owners))
        while _held[0][0].query() and len(_held) > 1:
            _held.popleft()


def device_array(shape: tuple[int, ...], dtype: str, stream: int) -> Any:
    return target().cuda.device_array(shape, np.dtype(dtype), stream=numba_stream(stream))


def address(array: Any) -> Any:
    """A Numba array as a kernel takes it: where it lies, or in the simulator its flat elements."""
    return flat_bits(array._ary) if is_simulated() else array.__cuda_array_interface__["data"][0]


def flat_bits(array: np.ndarray) -> np.ndarray:
    """The elements in C order, narrow floats as their bits; a view where the array is C-contiguous."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(BITS.get(array.dtype.name, array.dtype))


def download(shape: tuple[int, ...], dtype: str, buffer: Any) -> np.ndarray:
    """A buffer as an array of NumPy's own, bfloat16 as float32. The host waits."""
    bits = np.empty(tuple(shape), BITS.get(dtype, dtype))
    if bits.size:
        bits.reshape(-1)[:] = buffer if is_simulated() else _as_numba(buffer, bits).copy_to_host()
    if dtype == "bfloat16":
        return (bits.astype(np.uint32) << 16).view(np.float32)
    return bits.view(dtype)


def upload(array: np.ndarray, dtype: str, buffer: Any) -> None:
    """Write an array into a buffer of this dtype. The host waits."""
    if dtype == "bfloat16":
        wide = np.ascontiguousarray(array, np.float32).view(np.uint32)
        nearest = (wide + 0x7FFF + (wide >> 16 & 1)) >> 16  # ties to even
        bits = np.where(np.isnan(array), 0x7FFF, nearest).astype(np.uint16).reshape(-1)
    else:
        bits = flat_bits(array.astype(dtype))
    if not bits.size:
        return
    if is_simulated():
        buffer[:] = bits
    else:
        _as_numba(buffer, bits).copy_to_device(bits)
        target().cuda.synchronize()


class _Memory:
    def __init__(self, interface: dict[str, Any]) -> None:
        self.__cuda_array_interface__ = interface


def _as_numba(buffer: int, like: np.ndarray) -> Any:
    cuda = target().cuda
    cuda.synchronize()  # its copies run on a stream of their own
    interface = {"shape": (like.size,), "typestr": like.dtype.str, "data": (buffer, False), "version": 3}
    return cuda.as_cuda_array(_Memory(interface))
