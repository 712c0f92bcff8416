"""NumPy's arrays as the kernels take them."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ssm_edu.gpu import runtime
from ssm_edu.gpu.libraries import Library, View


class Host(Library):
    """NumPy's arrays, copied to the device and back; in the simulator used as they are."""

    xp = np

    def view(self, name: str, array: Any, stream: int) -> View:
        if name == "seq_idx" and array.dtype != np.int32:
            array = self.relabelled(array)
        bits = runtime.flat_bits(array)
        if runtime.is_simulated():
            return View(array.shape, array.dtype.name, bits, None, array)
        copied = runtime.target().cuda.to_device(bits)
        return View(array.shape, array.dtype.name, runtime.address(copied), None, copied)

    def empty(self, shape: tuple[int, ...], dtype: str, u: View) -> tuple[Any, Any]:
        bits = np.dtype(runtime.BITS.get(dtype, dtype))
        size = prod(shape)
        if runtime.is_simulated():  # NaN, so that what a kernel does not write shows
            flat = np.full(size * bits.itemsize, 0xFF, np.uint8).view(bits)
            return (flat, shape, dtype), flat
        array = runtime.device_array((size,), bits.name, 0)
        return (array, shape, dtype), runtime.address(array)

    def result(self, array: Any) -> np.ndarray:
        flat, shape, dtype = array
        host = flat if isinstance(flat, np.ndarray) else flat.copy_to_host()
        return host.view(dtype).reshape(shape)
