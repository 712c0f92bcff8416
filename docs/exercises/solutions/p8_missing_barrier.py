import os

os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")

from numba import cuda, float32

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
        cuda.syncthreads()  # all have read before anyone writes
        tile[t] += left
        cuda.syncthreads()  # all have written before anyone reads
        d *= 2
    y[t] = tile[t]
