"""A deterministic simulator for any Numba CUDA kernel.

>>> import numpy as np
>>> from numba import cuda, float32
>>> from ssm_edu.testing.simulator import RaceError, simulated
>>> @cuda.jit
... def reverse(x):
...     tile = cuda.shared.array(64, float32)
...     i = cuda.threadIdx.x
...     tile[i] = x[i]
...     x[i] = tile[63 - i]  # a barrier is missing above this line
>>> with simulated(schedule=0):
...     reverse[1, 64](np.arange(64, dtype=np.float32))
Traceback (most recent call last):
...
ssm_edu.testing.simulator.errors.UninitialisedRead: ...
"""

from __future__ import annotations

from ssm_edu.testing.simulator.errors import (
    BarrierError,
    Deadlock,
    KernelError,
    OutOfBounds,
    RaceError,
    UninitialisedRead,
    WarpError,
)
from ssm_edu.testing.simulator.launch import simulated

__all__ = [
    "BarrierError",
    "Deadlock",
    "KernelError",
    "OutOfBounds",
    "RaceError",
    "UninitialisedRead",
    "WarpError",
    "simulated",
]
