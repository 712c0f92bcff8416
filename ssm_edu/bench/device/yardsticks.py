"""Two kernels that do one thing as fast as a GPU can: copy memory, and take exponentials."""

from __future__ import annotations

from functools import cache
from typing import Any, no_type_check

from ssm_kernels import _target
from ssm_kernels._target import Launchable, cuda, types
from ssm_kernels.intrinsics import access, exp2, pointer

THREADS = 256
# Independent 16-byte loads of a thread, and independent chains of exponentials: they hide the latency.
LOADS, CHAINS = 4, 8
FLOAT32 = access("float32")
load, store, load_wide, store_wide = FLOAT32.load, FLOAT32.store, FLOAT32.load_wide, FLOAT32.store_wide
WIDTH = FLOAT32.width
STRIDE = THREADS * WIDTH
# float32 numbers that a block copies
COPIED = LOADS * STRIDE

POINTER = pointer("float32")


@no_type_check
def copy(source: Any, target: Any) -> None:
    """Block i copies the float32 numbers i · COPIED to (i + 1) · COPIED − 1."""
    first = cuda.blockIdx.x * COPIED + cuda.threadIdx.x * WIDTH
    a = load_wide(source, first)
    b = load_wide(source, first + STRIDE)
    c = load_wide(source, first + 2 * STRIDE)
    d = load_wide(source, first + 3 * STRIDE)
    store_wide(target, first, a)
    store_wide(target, first + STRIDE, b)
    store_wide(target, first + 2 * STRIDE, c)
    store_wide(target, first + 3 * STRIDE, d)


@no_type_check
def exponentials(rounds: Any, x: Any) -> None:
    """A thread takes rounds · CHAINS exponentials, a ← 2^−a in each chain; x keeps their sum, so that none is idle."""
    i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    a = load(x, i)
    b = a * a
    c = a + b
    d = a * b
    e = a - b
    f = b + d
    g = b - d
    h = c * d
    for _ in range(rounds):
        a = exp2(-a)
        b = exp2(-b)
        c = exp2(-c)
        d = exp2(-d)
        e = exp2(-e)
        f = exp2(-f)
        g = exp2(-g)
        h = exp2(-h)
    store(x, i, ((a + b) + (c + d)) + ((e + f) + (g + h)))


SIGNATURES = {copy: types.void(POINTER, POINTER), exponentials: types.void(types.int64, POINTER)}


@cache
def compiled(kernel: Any) -> Launchable:
    """The kernel for the current GPU, or for the simulator: (grid, block, stream, arguments) → None."""
    return _target.compiled(kernel, SIGNATURES[kernel])


def launch(kernel: Any, blocks: int, threads: int, *arguments: Any) -> None:
    """On the legacy default stream."""
    compiled(kernel)((blocks, 1, 1), (threads, 1, 1), 0, arguments)
