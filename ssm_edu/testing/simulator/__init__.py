"""A deterministic simulator for any Numba CUDA kernel: no GPU, no operating-system threads, no luck.

Launch kernels inside :func:`simulated`. Threads are greenlets that run from one synchronisation to the next in an order
that you fix or let Hypothesis draw, and what CUDA leaves undefined is an error that names the threads, the element
and the lines. A reduction whose barrier stands outside its loop:

    >>> import numpy as np
    >>> from numba import cuda, float32
    >>> from ssm_edu.testing.simulator import simulated
    >>> @cuda.jit
    ... def total(x, y):
    ...     tile = cuda.shared.array(64, float32)
    ...     i = cuda.threadIdx.x
    ...     tile[i] = x[i]
    ...     cuda.syncthreads()
    ...     for d in (32, 16, 8, 4, 2, 1):
    ...         if i < d:
    ...             tile[i] += tile[i + d]
    ...     y[0] = tile[0]
    >>> with simulated():
    ...     total[1, 64](np.ones(64, np.float32), np.zeros(1, np.float32))
    Traceback (most recent call last):
    ...
    ssm_edu.testing.simulator.errors.RaceError: thread (1, 0, 0) of block (0, 0, 0) writes [1] of shared...

In a property test, let the schedule be drawn, and pass outputs as `cuda.Out(y)` so that they begin as NaN:

    >>> from hypothesis import given, strategies as st
    >>> @given(st.randoms(use_true_random=False))
    ... def test_total(schedule):
    ...     y = np.zeros(1, np.float32)
    ...     with simulated(schedule):
    ...         total[1, 64](np.ones(64, np.float32), cuda.Out(y))
    ...     assert y[0] == 64

`simulated` is a decorator as well, for a test that draws nothing: `@simulated(schedule=0)`. With `watch=events.append`
it tells a list all that happens: every read, write, barrier and shuffle, with the thread, the value and the line.

What is checked: barriers, warp masks and source lanes, every index, reads of what was never written, and races.
Arithmetic is NumPy's and Python's, as in Numba's own simulator: types do not promote as on the GPU, and `math.exp`
raises where the GPU returns infinity. Blocks run one after another, in the drawn order, so `grid.sync()` needs a
grid of one block, and a block cannot wait for one that comes later. A loop that waits for a plain read to change is a
race, and with `races=False` it may never end. Writes through the fields of records are bounds-checked only.

It needs greenlet (`pip install 'ssm-edu[simulator]'`), and NUMBA_ENABLE_CUDASIM=1 in the environment before Numba is
imported.
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
from ssm_edu.testing.simulator.events import Event
from ssm_edu.testing.simulator.launch import simulated

__all__ = [
    "BarrierError",
    "Deadlock",
    "Event",
    "KernelError",
    "OutOfBounds",
    "RaceError",
    "UninitialisedRead",
    "WarpError",
    "simulated",
]
