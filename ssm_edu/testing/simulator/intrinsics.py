"""The module that stands in for `numba.cuda` while a kernel runs: memory, barriers, warp intrinsics and atomics."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, no_type_check

import numpy as np
from numba.cuda.simulator.kernelapi import FakeCUDAAtomic, FakeCUDAModule

from ssm_edu.testing.simulator.array import Array, Registers, local_title
from ssm_edu.testing.simulator.errors import KernelError, WarpError, assigned_name, place
from ssm_edu.testing.simulator.memory import Memory, poison
from ssm_edu.testing.simulator.warp import DOWN, FULL, IDX, UP, XOR, lanes_of

if TYPE_CHECKING:
    from ssm_edu.testing.simulator.launch import Launch

ATOMICS = (
    "add", "sub", "and_", "or_", "xor", "inc", "dec", "exch", "max", "min", "nanmax", "nanmin", "cas",
)  # fmt: skip

STATIC_BYTES = 48 * 1024  # CUDA C++ Programming Guide, Shared Memory of each compute capability


@no_type_check
def shape_of(shape: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in shape) if isinstance(shape, (tuple, list)) else (int(shape),)


@no_type_check
class Shared:
    """`cuda.shared`: one array for each block and place in the code; size 0 is the dynamic memory of the launch."""

    def __init__(self, launch: Launch, dynamic_bytes: int) -> None:
        self.launch = launch
        self.dynamic_bytes = dynamic_bytes

    def array(self, shape: Any, dtype: Any, alignment: int | None = None) -> Array:
        frame = sys._getframe(1)
        allocations = self.launch.current.block.shared
        dtype = self.launch.numpy_dtype(dtype)
        shape = shape_of(shape)
        if shape == (0,):
            return self._dynamic(allocations, dtype)
        key = (frame.f_code, frame.f_lasti)
        array = allocations.get(key)
        if array is None:
            title = f"shared array `{assigned_name(*key) or '?'}`"
            array = allocations[key] = self.launch.allocate(title, shape, dtype, races=self.launch.options.races)
            used = sum(one.nbytes for where, one in allocations.items() if where is not None)
            if used > STATIC_BYTES:
                raise KernelError(
                    f"{used} bytes of static shared memory with {array} at {place(*key)}; CUDA allows "
                    f"{STATIC_BYTES}, and more only as dynamic shared memory"
                )
        return array

    def _dynamic(self, allocations: dict[Any, Any], dtype: np.dtype) -> Array:
        whole, memory = allocations.get(None, (np.empty(self.dynamic_bytes, np.uint8), None))
        data = whole[: whole.size // dtype.itemsize * dtype.itemsize].view(dtype)
        if memory is None:
            poison(data)
            options = self.launch.options
            unwritten = options.uninitialised == "error"
            memory = Memory(self.launch, "dynamic shared array", data, races=options.races, unwritten=unwritten)
            allocations[None] = whole, memory
        return Array(data, memory)


@no_type_check
class Local:
    """`cuda.local`: private to a thread, so it cannot race."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch

    def array(self, shape: Any, dtype: Any, alignment: int | None = None) -> Array:
        frame = sys._getframe(1)
        where = frame.f_code, frame.f_lasti
        shape, dtype = shape_of(shape), self.launch.numpy_dtype(dtype)
        if len(shape) == 1 and not dtype.names and self.launch.options.watch is None:
            return Registers(self.launch, where, shape[0], dtype)
        return self.launch.allocate(local_title(*where), shape, dtype, races=False)


@no_type_check
class Const:
    def __init__(self, launch: Launch) -> None:
        self.launch = launch

    def array_like(self, array: np.ndarray) -> Array:
        data = np.array(array)
        data.setflags(write=False)
        return Array(data, Memory(self.launch, "constant array", data))


@no_type_check
class Atomics:
    """`cuda.atomic`: Numba's simulated arithmetic. The thread steps back after each, so that others interleave."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.numba = FakeCUDAAtomic()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in ATOMICS:
            raise AttributeError(f"cuda.atomic has no {name!r} in the simulator")
        operation = self._operation(getattr(self.numba, name))
        setattr(self, name, operation)
        return operation

    def _operation(self, update: Callable[..., Any]) -> Callable[..., Any]:
        def atomic(array: Array, index: Any, *values: Any) -> Any:
            offset = array._element(index)
            if offset is None:
                raise TypeError(f"an atomic updates one element, not [{index}] of {array}")
            if array._watched:
                array._memory.atomic(array, index, offset)
            old = update(array._data, index, *values)
            self.launch.step_back(changed=array._data[index] != old)
            return old

        return atomic

    def compare_and_swap(self, array: Array, old: Any, value: Any) -> Any:
        return self.cas(array, (0,) * array.ndim, old, value)


@no_type_check
class Grid:
    def __init__(self, module: Module) -> None:
        self.module = module

    def sync(self) -> None:
        extent = self.module.gridDim
        if extent.x * extent.y * extent.z > 1:
            raise KernelError(f"grid.sync() over {extent} blocks: blocks run one after another in the simulator")
        self.module.launch.wait("grid.sync")


@no_type_check
class Groups:
    def __init__(self, module: Module) -> None:
        self.module = module

    def this_grid(self) -> Grid:
        return Grid(self.module)


@no_type_check
class Module(FakeCUDAModule):
    """Numba's stand-in, with ours for all that touches memory or other threads."""

    def __init__(self, launch: Launch, grid_dim: Any, block_dim: Any, dynamic_bytes: int) -> None:
        super().__init__(grid_dim, block_dim, 0)
        self.launch = launch
        self._shared: Any = Shared(launch, dynamic_bytes)
        self._local: Any = Local(launch)
        self._const: Any = Const(launch)
        self._atomic: Any = Atomics(launch)
        self._cg: Any = Groups(self)

    @property
    def threadIdx(self) -> Any:
        return self.launch.current.index

    @property
    def blockIdx(self) -> Any:
        return self.launch.current.block.index

    @property
    def laneid(self) -> int:
        return self.launch.current.lane

    def syncthreads(self) -> None:
        self.launch.wait("syncthreads")

    def syncthreads_count(self, predicate: Any) -> int:
        return self.launch.wait("syncthreads_count", None, predicate)

    def syncthreads_and(self, predicate: Any) -> int:
        return self.launch.wait("syncthreads_and", None, predicate)

    def syncthreads_or(self, predicate: Any) -> int:
        return self.launch.wait("syncthreads_or", None, predicate)

    def threadfence(self) -> None:
        self.launch.fence(of_device=True)

    def threadfence_system(self) -> None:
        self.launch.fence(of_device=True)

    def threadfence_block(self) -> None:
        self.launch.fence(of_device=False)

    def nanosleep(self, nanoseconds: Any) -> None:
        self.launch.step_back(changed=False)

    def activemask(self) -> int:
        """The lanes that come to this place before anything else can happen: the most that CUDA may return."""
        return self.launch.wait("activemask", FULL)

    def lanemask_lt(self) -> int:
        return (1 << self.launch.current.lane) - 1

    def _warp(self, kind: str, mask: Any, value: Any = None) -> Any:
        mask = int(mask) & FULL
        lane = self.launch.current.lane
        if not mask >> lane & 1:
            frame = sys._getframe(2)
            raise WarpError(
                f"{self.launch.current} (lane {lane}) calls {kind} with mask {mask:#010x}, in which its own "
                f"lane is not, at {place(frame.f_code, frame.f_lasti)}; the mask's lanes are {lanes_of(mask)}"
            )
        return self.launch.wait(kind, mask, value)

    def syncwarp(self, mask: Any = FULL) -> None:
        self._warp("syncwarp", mask)

    def shfl_sync(self, mask: Any, value: Any, src_lane: Any) -> Any:
        return self._warp("shfl_sync", mask, (IDX, value, int(src_lane), 31))

    def shfl_up_sync(self, mask: Any, value: Any, delta: Any) -> Any:
        return self._warp("shfl_up_sync", mask, (UP, value, int(delta), 0))

    def shfl_down_sync(self, mask: Any, value: Any, delta: Any) -> Any:
        return self._warp("shfl_down_sync", mask, (DOWN, value, int(delta), 31))

    def shfl_xor_sync(self, mask: Any, value: Any, lane_mask: Any) -> Any:
        return self._warp("shfl_xor_sync", mask, (XOR, value, int(lane_mask), 31))

    def shfl_sync_intrinsic(self, mask: Any, mode: Any, value: Any, mode_offset: Any, clamp: Any) -> Any:
        """(value, whether the source lane was in range): where Numba exposes CUDA's `width`, in the clamp."""
        return self._warp("shfl_sync_intrinsic", mask, (int(mode), value, int(mode_offset), int(clamp)))

    def vote_sync_intrinsic(self, mask: Any, mode: Any, predicate: Any) -> tuple[int, bool]:
        """(ballot, vote): mode 0 all, 1 any, 2 eq, 3 ballot."""
        kind = ("all_sync", "any_sync", "eq_sync", "ballot_sync")[int(mode)]
        result = self._warp(kind, mask, bool(predicate))
        return (result, bool(result)) if kind == "ballot_sync" else (0, bool(result))

    def all_sync(self, mask: Any, predicate: Any) -> int:
        return self._warp("all_sync", mask, bool(predicate))

    def any_sync(self, mask: Any, predicate: Any) -> int:
        return self._warp("any_sync", mask, bool(predicate))

    def eq_sync(self, mask: Any, predicate: Any) -> int:
        return self._warp("eq_sync", mask, bool(predicate))

    def ballot_sync(self, mask: Any, predicate: Any) -> int:
        return self._warp("ballot_sync", mask, bool(predicate))

    def match_any_sync(self, mask: Any, value: Any) -> int:
        return self._warp("match_any_sync", mask, value)

    def match_all_sync(self, mask: Any, value: Any) -> tuple[int, bool]:
        return self._warp("match_all_sync", mask, value)
