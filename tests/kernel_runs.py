"""Where tests run kernels: in the simulator, or on the GPU where Numba was imported without NUMBA_ENABLE_CUDASIM=1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numba import cuda

SIMULATED = cuda.jit.__module__.startswith("numba.cuda.simulator")
NEITHER = (
    "" if SIMULATED or cuda.is_available() else "Numba was imported without NUMBA_ENABLE_CUDASIM=1, and has no GPU"
)
NO_GPU = "needs a GPU, and Numba without NUMBA_ENABLE_CUDASIM=1" if SIMULATED or NEITHER else ""
on_a_gpu = pytest.mark.skipif(bool(NO_GPU), reason=NO_GPU)
in_the_simulator = pytest.mark.skipif(
    not SIMULATED, reason="the simulator's alone: it draws schedules, counts, and survives a wrong kernel"
)


@contextmanager
def running(schedule: Any = None) -> Iterator[None]:
    """Kernels that are launched inside have run when it ends, in the simulator in the order of the schedule."""
    if SIMULATED:
        from ssm_edu.testing.simulator import simulated

        with simulated(schedule):
            yield
    else:
        yield
        cuda.synchronize()


def device_copy(array: np.ndarray) -> Any:
    """What a launcher of the ladder reads."""
    return array if SIMULATED else cuda.to_device(array)


class Output:
    """An array that a launcher of the ladder writes, NaN until then."""

    def __init__(self, like: np.ndarray) -> None:
        self.host = np.full_like(like, np.nan)
        self.argument = cuda.Out(self.host) if SIMULATED else cuda.to_device(self.host)

    def read(self) -> np.ndarray:
        return self.host if SIMULATED else self.argument.copy_to_host()


def assert_unchanged(arrays: dict[str, np.ndarray], copies: dict[str, Any], before: dict[str, np.ndarray]) -> None:
    """The inputs hold what they held: where the kernels read them, and on the host."""
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name])
        if not SIMULATED:
            np.testing.assert_array_equal(copies[name].copy_to_host(), before[name])
