"""The kernels whose runs are shown: rung 1 of the ladder, the same without a barrier, and two of eight threads."""

from __future__ import annotations

import linecache
from types import ModuleType
from typing import no_type_check

from numba import cuda, float32, int32
from ssm_kernels.forward import rung1_thread_per_state as rung1

THREADS = 8
BARRIER = "            cuda.syncthreads()\n"


def without_second_barrier() -> ModuleType:
    """Rung 1 from its own source, less the last barrier in it."""
    with open(rung1.__file__, encoding="utf-8") as file:
        head, _, tail = file.read().rpartition(BARRIER)
    source, name = head + tail, "rung1_without_a_barrier.py"
    if not head or head.count(BARRIER) != 1:
        raise ValueError(f"{rung1.__file__} has not the two barriers that it had")
    module = ModuleType("rung1_without_a_barrier")
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec"), vars(module))
    return module


@cuda.jit
@no_type_check
def shuffled_sum(x, y):
    """y[i] = x[0] + … + x[i], lane to lane."""
    i = cuda.threadIdx.x
    total = x[i]
    reach = int32(1)
    while reach < THREADS:
        before = cuda.shfl_up_sync(0xFF, total, reach)
        if i >= reach:
            total += before
        reach *= 2
    y[i] = total


@cuda.jit
@no_type_check
def reversed_copy(x, y):
    """y is x from its end to its beginning; threads beyond the end leave early."""
    s = cuda.shared.array(THREADS, float32)
    i = cuda.threadIdx.x
    if i >= x.size:
        return
    s[i] = x[i]
    cuda.syncthreads()
    y[i] = s[x.size - 1 - i]
