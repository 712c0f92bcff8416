"""The one place that imports `numba.cuda`: the real target, or Numba's simulated one where NUMBA_ENABLE_CUDASIM=1.

Kernels take their `cuda` from here and keep to what numba-cuda and its successor numba-cuda-mlir both accept.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, no_type_check, runtime_checkable

import numpy as np
from numba import cuda, types
from numba.core import config

from ssm_edu import kernel_cache
from ssm_kernels.unseen import UNSEEN

__all__ = [
    "LARGE_BLOCKS",
    "LAUNCH_OPTIONS",
    "SHARED_ALIGNMENT",
    "SIMULATED",
    "Launchable",
    "compiled",
    "compute_capability",
    "cuda",
    "current_device",
    "intrinsic",
    "jit",
    "multiprocessors",
    "types",
]

# what kernels use of these files without closing over it
SOURCES = kernel_cache.digest_of_files(*sorted(map(str, Path(__file__).parent.rglob("*.py"))))
SIMULATED = bool(vars(config)["ENABLE_CUDASIM"])
SIMULATING = Lock()  # one launch at a time: what stands in for `numba.cuda` is global
# alignment= of cuda.shared.array for 16-byte accesses; the simulator's has no alignment
SHARED_ALIGNMENT = None if SIMULATED else 16
# what only a compiler understands, and the simulator refuses
LAUNCH_OPTIONS = ("max_registers", "launch_bounds", "lineinfo", "cache", "forceinline")


def _cuda_major() -> int:
    """Of NVIDIA's libraries that compile here; 0 without them."""
    try:
        return int(version("cuda-bindings").split(".")[0])
    except PackageNotFoundError:
        return 0


# whether a block's static shared memory may exceed 48 KB: CUDA 12 links no such kernel; the simulator holds kernels to
# what all GPUs have
LARGE_BLOCKS = not SIMULATED and _cuda_major() >= 13

intrinsic: Any = None
if not SIMULATED:
    try:
        from numba.cuda.extending import intrinsic
    except ImportError:  # the target that Numba itself carries
        from numba.extending import intrinsic


@no_type_check
def jit(*args: Any, **options: Any) -> Callable[..., Any]:
    """`cuda.jit`, without the options that the simulator refuses where it stands in for the compiler."""
    if SIMULATED:
        options = {name: value for name, value in options.items() if name not in LAUNCH_OPTIONS}
    return cuda.jit(*args, **options)


@runtime_checkable
class Launchable(Protocol):
    """A kernel on the current device. An `early` launch may begin before the one before it in the stream has ended.

    That one is of the same scan, so that what the kernel reads before it waits was there before both.
    """

    def __call__(
        self,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        stream: Any,
        arguments: tuple[Any, ...],
        early: bool = False,
    ) -> None: ...


@no_type_check
def compiled(function: Any, signature: Any, shared_bytes: int = 0, **options: Any) -> Launchable:
    """A kernel of pointers and int64.

    Pointers are passed as addresses. What is compiled is kept on disk. `shared_bytes` is the dynamic shared memory, and
    the options are `cuda.jit`'s.
    """
    if SIMULATED:
        return simulated_kernel(function, shared_bytes)
    from cuda.core import LaunchConfig
    from cuda.core import launch as core_launch
    from numba.cuda.descriptor import cuda_target

    made_by = version("numba-cuda"), cuda_target.target_context.codegen().magic_tuple()
    dispatcher = kernel_cache.compiled(cuda.jit, function, signature, SOURCES, *made_by, **options)
    (overload,) = dispatcher.overloads.values()
    kernel = overload._codelibrary.get_cufunc().kernel

    @cache
    def config(grid, block, early):
        return LaunchConfig(grid=grid, block=block, shmem_size=shared_bytes, programmatic_stream_serialization=early)

    if shared_bytes:
        driver = import_module("cuda.bindings.driver")
        most = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        (error,) = driver.cuKernelSetAttribute(most, shared_bytes, kernel.handle, cuda.get_current_device().id)
        if error:
            raise RuntimeError(f"shared memory: found {error}, expected room for {shared_bytes} bytes a block")

    # past Numba's own launch, which looks at the type of every argument: addresses and int64 are plain integers
    def launch(grid, block, stream, arguments, early=False):
        core_launch(core_stream(stream), config(grid, block, early), kernel, *arguments)

    return launch


@no_type_check
def simulated_kernel(function: Any, shared_bytes: int) -> Launchable:
    """A kernel in :mod:`ssm_edu.testing.simulator`: Numba's own simulator has no warp shuffles."""
    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

    from ssm_edu.testing.simulator.launch import is_active, simulated

    kernel = cuda.jit(function)

    def launch(grid, block, stream, arguments, early=False):
        buffers = [FakeCUDAArray(x) if isinstance(x, np.ndarray) else x for x in arguments]
        with SIMULATING, nullcontext() if is_active() else simulated():
            UNSEEN.begin(arguments, early)
            kernel[grid, block, 0, shared_bytes](*buffers)
            UNSEEN.end()

    return launch


@no_type_check
@cache
def core_stream(stream: Any) -> Any:
    """What `cuda.core` launches on, for one of Numba's streams or 0."""
    from numba.cuda.cudadrv import driver

    return vars(driver)["_to_core_stream"](stream)


@no_type_check
def current_device() -> int:
    return 0 if SIMULATED else cuda.get_current_device().id


@no_type_check
@cache
def multiprocessors(device: int) -> int:
    """Of a device, which is the current one; in the simulator, those of an H100."""
    return 132 if SIMULATED else cuda.get_current_device().MULTIPROCESSOR_COUNT


@no_type_check
@cache
def compute_capability(device: int) -> tuple[int, int]:
    """Of a device, which is the current one; in the simulator, that of an H100."""
    return (9, 0) if SIMULATED else tuple(cuda.get_current_device().compute_capability)
