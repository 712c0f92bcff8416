from numba import cuda, float32


@cuda.jit
def total(x, y):
    tile = cuda.shared.array(64, float32)
    i = cuda.threadIdx.x
    tile[i] = x[i]
    cuda.syncthreads()
    for d in (32, 16, 8, 4, 2, 1):
        if i < d:
            tile[i] += tile[i + d]
    y[0] = tile[0]


@cuda.jit
def positive(x, y, count):
    """Gather the positive numbers of x in y."""
    i = cuda.threadIdx.x
    if x[i] > 0:
        y[cuda.atomic.add(count, 0, 1)] = x[i]
