"""What public functions ask of an argument first: that it is an array of numbers, or a number."""

from __future__ import annotations

import operator
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Inexact, Shaped
from numpy.typing import ArrayLike

Array: TypeAlias = Inexact[np.ndarray, "..."]
AnyArray: TypeAlias = Shaped[np.ndarray, "..."]


@runtime_checkable
class DeviceArray(Protocol):
    """An array of any library, perhaps on a device: NumPy need not be able to read it."""

    @property
    def shape(self) -> Any: ...


AnyArrayLike: TypeAlias = ArrayLike | DeviceArray

REAL = ("float32", "float64")
INEXACT = (*REAL, "complex64", "complex128")
EXACT_INTEGERS = 2**53  # float64 has 53 bits
CUDA_DEVICES = (2, 13)  # DLPack's kDLCUDA and kDLCUDAManaged


def on_device(value: Any) -> bool:
    """Whether the value is an array in a CUDA device's memory, of whatever library."""
    if value is None or type(value) is np.ndarray:
        return False
    is_cuda = getattr(value, "is_cuda", None)  # PyTorch's, ten times as fast as its __dlpack_device__
    if is_cuda is not None:
        return bool(is_cuda)
    if hasattr(value, "__cuda_ndarray__"):  # Numba's, in its simulator too
        return True
    if hasattr(value, "__dlpack_device__"):
        try:
            return int(value.__dlpack_device__()[0]) in CUDA_DEVICES
        except BufferError:  # an array that lies on several devices
            return False
    return hasattr(value, "__cuda_array_interface__")


def rectangular(name: str, value: Any) -> AnyArray:
    """The value as an array of any dtype, in native byte order.

    Raises:
        ValueError: a ragged list.
        TypeError: a masked array, whose mask NumPy would drop, or one that NumPy cannot read.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be lost; expected a plain one")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} is not a rectangular array: {error}") from None
    except (TypeError, RuntimeError) as error:  # another library's array, on a device or recorded for gradients
        raise TypeError(f"{name} cannot be read as a NumPy array: {error}") from None
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def integers_as_float64(name: str, array: AnyArray) -> Array:
    """Raise ValueError for an integer that float64 rounds."""
    if array.size and max(int(array.max()), -int(array.min())) > EXACT_INTEGERS:
        largest = max(int(array.max()), int(array.min()), key=abs)
        raise ValueError(f"{name} has the integer {largest}, expected none past ±2**53, which float64 rounds")
    return array.astype(np.float64)


def numbers(name: str, value: Any, allowed: tuple[str, ...] = INEXACT) -> Array:
    """The value as an array of one of these dtypes; integers become float64.

    Raises:
        ValueError: a ragged list, or an integer past 2⁵³.
        TypeError: another dtype, or a masked array.
    """
    array = rectangular(name, value)
    if array.dtype.kind in "iu":
        return integers_as_float64(name, array)
    if array.dtype.name not in allowed:
        raise TypeError(f"{name} must hold numbers ({', '.join(allowed)} or integers); found dtype {array.dtype}")
    return array


def check_finite(name: str, array: Array) -> None:
    """Raise ValueError for a NaN or an infinity."""
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite; found {array[~np.isfinite(array)].flat[0]}")


def positive_integer(name: str, value: Any) -> int:
    """The value as an int.

    Raises:
        TypeError: no integer, or a bool.
        ValueError: an integer below 1.
    """
    message = f"{name} is {value!r:.60}, expected an integer of at least 1"
    try:
        integer = operator.index(value)
    except TypeError:
        raise TypeError(message) from None
    if isinstance(value, bool):
        raise TypeError(message)
    if integer < 1:
        raise ValueError(message)
    return integer
