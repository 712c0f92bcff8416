"""Puzzle 8: the missing barrier.

A CUDA kernel sums up x by the scan of Hillis and Steele: in each round, every
thread adds what stands d places to its left. On a GPU it mostly works. The
simulator runs its threads in other orders. Mend it.
"""

import os

os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")  # read when Numba is imported

import numpy as np
from numba import cuda, float32
from puzzle import Wrong, differs, run, shown

from ssm_edu.testing.simulator import KernelError, simulated

THREADS = 8


@cuda.jit
def prefix_sum(x, y):
    tile = cuda.shared.array(THREADS, float32)
    t = cuda.threadIdx.x
    tile[t] = x[t]
    cuda.syncthreads()
    d = 1
    while d < THREADS:
        left = tile[t - d] if t >= d else float32(0)
        tile[t] += left
        cuda.syncthreads()
        d *= 2
    y[t] = tile[t]


def check(prefix_sum=prefix_sum):
    x = np.arange(1, THREADS + 1, dtype=np.float32)
    for schedule in (None, *range(5)):
        y = np.zeros_like(x)
        try:
            with simulated(schedule):
                prefix_sum[1, THREADS](x, cuda.Out(y))
        except KernelError as error:
            raise Wrong(f"{type(error).__name__}: {error}") from None
        if differs(y, np.cumsum(x), 0):
            raise Wrong(f"the sums of {shown(x)} are {shown(np.cumsum(x))}, and y is {shown(y)}.")


if __name__ == "__main__":
    run(check)
