"""One simulated launch, and the context manager that puts it in the place of Numba's."""

from __future__ import annotations

import contextvars
import functools
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, no_type_check

import numpy as np

from ssm_edu.testing.simulator.array import Array
from ssm_edu.testing.simulator.errors import KernelError, caller
from ssm_edu.testing.simulator.events import Event, arrived
from ssm_edu.testing.simulator.memory import Memory, poison, root_of
from ssm_edu.testing.simulator.threads import Block, Thread, Wait, drawn_order

MAX_THREADS = 1024  # CUDA C++ Programming Guide, Technical Specifications per Compute Capability


@dataclass(frozen=True)
class Options:
    """What :func:`simulated` was asked for."""

    schedule: Any
    races: bool
    uninitialised: str
    wraparound: bool
    early_exit: bool
    same_value_writes: bool
    watch: Callable[[Event], None] | None


@contextmanager
def garbage_kept() -> Iterator[None]:
    """Without the search for cycles, which walks through all that is known of accesses, time and again."""
    searched = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searched:
            gc.enable()


@no_type_check
class Launch:
    """A kernel's run over its grid, block after block."""

    current: Thread  # the one that runs

    def __init__(self, options: Options) -> None:
        self.options = options
        self.time = 0
        self.memories: dict[int, tuple[np.ndarray, Memory]] = {}

    def run(self, kernel: Any, args: tuple[Any, ...]) -> None:
        from greenlet import getcurrent
        from numba.cuda.simulator import kernel as numba_kernel
        from numba.cuda.simulator.kernelapi import Dim3

        from ssm_edu.testing.simulator.intrinsics import Module

        grid_dim, block_dim = numba_kernel.normalize_kernel_dimensions(kernel.grid_dim, kernel.block_dim)
        threads = block_dim[0] * block_dim[1] * block_dim[2]
        if threads > MAX_THREADS:
            raise KernelError(f"a block of {threads} threads {tuple(block_dim)}; CUDA allows {MAX_THREADS}")
        self.hub = getcurrent()
        self.module = Module(self, grid_dim, block_dim, kernel.dynshared_size)
        names = kernel.fn.__code__.co_varnames
        after: list[Callable[[], Any]] = []
        fake = tuple(
            self._argument(kernel, value, names[k] if k < len(names) else "?", after) for k, value in enumerate(args)
        )
        points = [Dim3(x, y, z) for z in range(block_dim[2]) for y in range(block_dim[1]) for x in range(block_dim[0])]
        blocks = [Dim3(x, y, z) for z in range(grid_dim[2]) for y in range(grid_dim[1]) for x in range(grid_dim[0])]
        order = drawn_order(self.options.schedule, len(blocks))
        with np.errstate(all="ignore"), standing_in_for_cuda(self.module):  # a GPU does not warn of overflow and NaN
            context = contextvars.copy_context()
            for number in order:
                Block(self, blocks[number], points).run(kernel.fn, fake, context)
        for write_back in after:
            write_back()

    def _argument(self, kernel: Any, value: Any, name: str, after: list[Callable[[], Any]]) -> Any:
        """As Numba passes it: host arrays as copies that are written back, device arrays as they are."""
        from numba import cuda
        from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

        for extension in kernel.extensions:
            _, value = extension.prepare_args(None, value, stream=0, retr=after)
        if isinstance(value, tuple):
            parts = [self._argument(kernel, part, f"{name}[{k}]", after) for k, part in enumerate(value)]
            return value._make(parts) if hasattr(value, "_make") else tuple(parts)
        unwritten = isinstance(value, cuda.Out) and isinstance(value.value, np.ndarray)
        read_only = isinstance(value, np.ndarray) and not value.flags.writeable
        if isinstance(value, np.ndarray) and value.ndim > 0:
            value = (cuda.In if read_only else cuda.InOut)(value)
        if isinstance(value, (cuda.In, cuda.Out, cuda.InOut)):
            value = value.to_device(after)
        if not isinstance(value, FakeCUDAArray):
            return value
        data = value._ary
        if read_only:
            data.setflags(write=False)
        if unwritten:
            poison(data)
        return Array(data, self._memory_of(data, name, unwritten))

    def _memory_of(self, data: np.ndarray, name: str, unwritten: bool) -> Memory:
        root = root_of(data)
        if id(root) not in self.memories:
            unwritten = unwritten and self.options.uninitialised == "error"
            memory = Memory(self, f"argument `{name}`", data, races=self.options.races, unwritten=unwritten)
            self.memories[id(root)] = root, memory
        return self.memories[id(root)][1]

    def allocate(self, title: str, shape: tuple[int, ...], dtype: np.dtype, races: bool) -> Array:
        data = np.empty(shape, dtype)
        poison(data)
        return Array(data, Memory(self, title, data, races=races, unwritten=self.options.uninitialised == "error"))

    @staticmethod
    @functools.cache
    def numpy_dtype(dtype: Any) -> np.dtype:
        from numba.cuda.simulator.kernelapi import numpy_support, types

        return np.dtype(numpy_support.as_dtype(dtype) if isinstance(dtype, types.Type) else dtype)

    def wait(self, kind: str, mask: int | None = None, value: Any = None) -> Any:
        frame = caller(2)
        self.current.wait = Wait(kind, mask, value, frame.f_code, frame.f_lasti)
        if self.options.watch is not None:
            self.options.watch(arrived(self.current))
        return self.hub.switch()

    def forget(self) -> None:
        """What is known of accesses. It leads back to the launch, and would stay until cycles are searched for."""
        for _, memory in self.memories.values():
            memory.forget()

    def step_back(self, changed: Any) -> None:
        if changed:
            self.current.block.spins = 0
        self.hub.switch()

    def fence(self, of_device: bool) -> None:
        self.current.fenced_block = self.time
        if of_device:
            self.current.fenced = self.time
        self.time += 1


@contextmanager
def standing_in_for_cuda(module: Any) -> Iterator[None]:
    """Let `numba.cuda` find in `module` what only a kernel may use: Numba's simulator leaves those names out of it."""
    from numba import cuda

    vars(cuda)["__getattr__"] = functools.partial(getattr, module)
    try:
        yield
    finally:
        del vars(cuda)["__getattr__"]


_active = False


def is_active() -> bool:
    """Whether :func:`simulated` has begun, in any thread, and not ended."""
    return _active


@contextmanager
def simulated(
    schedule: Any = None,
    *,
    races: bool = True,
    uninitialised: str = "error",
    wraparound: bool = False,
    early_exit: bool = False,
    same_value_writes: bool = False,
    watch: Callable[[Event], None] | None = None,
) -> Iterator[None]:
    """Run every Numba CUDA kernel that is launched inside on this simulator.

    Args:
        schedule: the order of threads between barriers, and of blocks: None for their natural order, an int to seed
            one, or an object with `randrange` such as `random.Random` or what Hypothesis'
            `st.randoms(use_true_random=False)` draws.
        races: look for races in shared memory and in arguments.
        uninitialised: what comes of reading an element of shared memory, local memory or a `cuda.Out` argument before
            it is written: an "error", or only the "poison" (NaN; integers of bytes 0xA5).
        wraparound: let a signed negative index count from the end, as Numba does on the GPU; else it is an error.
        early_exit: let barriers and masks do without threads that have returned. Hardware from Volta on does; the
            CUDA C++ Programming Guide allows it for masks and leaves a barrier under a condition undefined.
        same_value_writes: let two threads write the same value to one element.
        watch: called with every :class:`Event` as it happens, such as `events.append`.

    Raises:
        RuntimeError: already inside, or Numba was imported without NUMBA_ENABLE_CUDASIM=1.
        TypeError: a schedule of another kind. ValueError: another word for `uninitialised`.
        KernelError: from a launch, one of its subclasses in :mod:`ssm_edu.testing.simulator.errors`.
    """
    global _active
    if isinstance(schedule, bool) or not (
        schedule is None or isinstance(schedule, int | np.integer) or hasattr(schedule, "randrange")
    ):
        raise TypeError(f"schedule is {schedule!r}; expected None, an int, or a random.Random")
    if uninitialised not in ("error", "poison"):
        raise ValueError(f"uninitialised is {uninitialised!r}; expected 'error' or 'poison'")
    if _active:
        raise RuntimeError("simulated() is already active: one at a time")
    kernel_class = _simulator_kernel_class()
    source = Random(int(schedule)) if isinstance(schedule, int | np.integer) else schedule
    options = Options(source, races, uninitialised, wraparound, early_exit, same_value_writes, watch)
    running: list[Launch] = []

    @no_type_check
    def call(kernel: Any, *args: Any) -> Any:
        if running:
            return kernel.fn(*args)
        running.append(Launch(options))
        with garbage_kept():
            try:
                return running[0].run(kernel, args)
            finally:
                running.pop().forget()

    original = kernel_class.__call__
    kernel_class.__call__ = call
    _active = True
    try:
        yield
    finally:
        kernel_class.__call__ = original
        _active = False


def _simulator_kernel_class() -> Any:
    from numba import cuda

    if not cuda.jit.__module__.startswith("numba.cuda.simulator"):
        raise RuntimeError("set NUMBA_ENABLE_CUDASIM=1 in the environment before Numba is imported")
    from numba.cuda.simulator.kernel import FakeCUDAKernel

    return FakeCUDAKernel
