"""A launcher's kernels without a launch: which there are, for which arguments, in blocks of how many threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np

from ssm_kernels._target import cuda, types
from ssm_kernels.offline.toolchain import require

__all__ = ["Launch", "recorded"]


@dataclass(frozen=True)
class Launch:
    """What :func:`~ssm_kernels.offline.build` asks for, and the threads a block."""

    name: str
    kernel: Any
    signature: Any
    threads: int


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Inside, a launch is listed and not run, and `cuda.device_array` gives an array of NumPy's.

    Raises:
        ToolchainError: as :func:`~ssm_kernels.offline.require`.
    """
    require()
    launches: list[Launch] = []

    def configure(kernel: Any, griddim: Any, blockdim: Any, stream: Any = 0, sharedmem: int = 0) -> Callable[..., None]:
        def launch(*arguments: Any) -> None:
            signature = types.void(*map(kernel.typeof_pyval, arguments))
            name = f"{kernel.py_func.__module__}.{kernel.py_func.__name__}"
            launches.append(Launch(name, kernel, signature, math.prod(np.atleast_1d(blockdim).tolist())))

        return launch

    def device_array(shape: Any, dtype: Any = np.float64, stream: Any = 0) -> np.ndarray:
        return np.empty(shape, dtype)

    with (
        mock.patch("numba.cuda.dispatcher.CUDADispatcher.configure", configure),
        mock.patch.object(cuda, "device_array", device_array),
    ):
        yield launches
