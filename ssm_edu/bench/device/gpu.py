"""The clock on the GPU, its two rates, and arrays there and back."""

from __future__ import annotations

import gc
import platform
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from statistics import median
from typing import Any

import numpy as np

from ssm_edu import __version__
from ssm_edu.bench.floors import Rates
from ssm_edu.bench.report import cpu_model

RUNS = 20
# The host is ahead of the GPU if the GPU is kept busy until the call has returned; no longer than this.
LONGEST_HOLD = 0.2
GIBIBYTE = 2**30
ROUNDS = 4096  # some milliseconds of exponentials
PACKAGES = ("numpy", "numba", "numba-cuda", "torch", "mamba-ssm")


@dataclass(frozen=True)
class Timing:
    """Seconds of each run, of a call on the host, and whether each call had returned before the GPU began it."""

    times: tuple[float, ...]
    launch: float
    host_ahead: bool


def why_not() -> str | None:
    """What keeps the CUDA kernels from being timed here, or None."""
    from ssm_edu.gpu import runtime

    try:
        if runtime.is_simulated():
            return "NUMBA_ENABLE_CUDASIM is set, and the times of a simulator mean nothing"
        runtime.kernels()
    except (ImportError, RuntimeError) as error:
        return str(error)
    return None


class Gpu:
    """The current GPU, on its default stream, which is also torch's."""

    def __init__(self) -> None:
        from ssm_kernels._target import cuda

        from ssm_edu.bench.device import yardsticks

        self.cuda, self.yardsticks = cuda, yardsticks
        self.device = cuda.get_current_device()
        self.torch = import_module("torch") if find_spec("torch") else None
        if self.torch is not None and not self.torch.cuda.is_available():
            self.torch = None
        self._one_block = cuda.to_device(np.ones(yardsticks.THREADS, np.float32))
        self._spin(1)
        started = time.perf_counter()
        self._spin(ROUNDS)
        cuda.synchronize()
        self._round = (time.perf_counter() - started) / ROUNDS

    def upload(self, array: np.ndarray, stored: str | None = None) -> Any:
        """A torch tensor where torch has this GPU, or else a Numba array. Only torch has bfloat16."""
        if self.torch is None:
            if stored is not None:
                raise ValueError(f"{stored} needs torch, which is not installed or does not see the GPU")
            return self.upload_to_numba(array)
        tensor = self.torch.from_numpy(array).cuda()
        return tensor if stored is None else tensor.to(getattr(self.torch, stored))

    def upload_to_numba(self, array: np.ndarray) -> Any:
        return self.cuda.to_device(np.ascontiguousarray(array))

    def download(self, array: Any) -> np.ndarray:
        """As NumPy; bfloat16 as float32."""
        if hasattr(array, "copy_to_host"):
            return array.copy_to_host()
        found = array.detach()
        return (found.float() if str(found.dtype) == "torch.bfloat16" else found).cpu().numpy()

    @property
    def cache_bytes(self) -> int:
        return int(self.device.L2_CACHE_SIZE)

    def rates(self) -> Rates:
        """The best of some runs of each yardstick: what has been reached can be reached."""
        y, cuda = self.yardsticks, self.cuda
        numbers = GIBIBYTE // 4
        source, target = cuda.to_device(np.ones(numbers, np.float32)), cuda.to_device(np.zeros(numbers, np.float32))
        copied = self.time([lambda: y.launch(y.copy, numbers // y.COPIED, y.THREADS, address(source), address(target))])
        blocks = self.device.MULTIPROCESSOR_COUNT * (2048 // y.THREADS)
        threads = blocks * y.THREADS
        taken = self.time([lambda: y.launch(y.exponentials, blocks, y.THREADS, ROUNDS, address(source))])
        if not (target.copy_to_host() == 1).all() or not np.isfinite(source[:threads].copy_to_host()).all():
            raise RuntimeError("a yardstick did not do its work: its rate means nothing")
        return Rates(2 * GIBIBYTE / min(copied.times), threads * ROUNDS * y.CHAINS / min(taken.times))

    def time(self, calls: Sequence[Callable[[], Any]]) -> Timing:
        """Time the calls in turn. Each result lives until its call's next turn, so that outputs change places too.

        What a call takes the host is hidden behind other work of the GPU: it is no time of the kernel's.
        """
        kept: deque[Any] = deque(maxlen=len(calls))
        for call in (*calls, *calls):
            kept.append(call())
        self.cuda.synchronize()
        launch = self._launch_time(calls, kept)
        hold, ahead, late = max(1e-3, 4 * launch), list[float](), list[float]()
        gc.collect()
        gc.disable()
        try:
            while len(ahead) < RUNS and len(late) < RUNS:
                call = calls[(len(ahead) + len(late)) % len(calls)]
                seconds, was_ahead = self._timed(call, kept, hold)
                (ahead if was_ahead else late).append(seconds)
                if not was_ahead:
                    hold = min(2 * hold, LONGEST_HOLD)
        finally:
            gc.enable()
        host_ahead = len(ahead) == RUNS
        return Timing(tuple(ahead if host_ahead else late), launch, host_ahead)

    def _timed(self, call: Callable[[], Any], kept: deque[Any], hold: float) -> tuple[float, bool]:
        cuda = self.cuda
        start, end = cuda.event(), cuda.event()
        with self._nothing_freed():
            self._spin(int(hold / self._round))
            start.record()
            kept.append(call())
            end.record()
            ahead = not start.query()
            end.synchronize()
        self._free()
        return start.elapsed_time(end) / 1e3, ahead

    def _launch_time(self, calls: Sequence[Callable[[], Any]], kept: deque[Any]) -> float:
        times = []
        for i in range(RUNS):
            with self._nothing_freed():
                started = time.perf_counter()
                kept.append(calls[i % len(calls)]())
                times.append(time.perf_counter() - started)
                self.cuda.synchronize()
            self._free()
        return median(times)

    def _nothing_freed(self) -> AbstractContextManager[Any]:
        """Numba frees memory in bulk, and waits for the GPU to do so."""
        return self.cuda.defer_cleanup()

    def _free(self) -> None:
        """What the calls have let go of: a rung's scratch takes gigabytes."""
        self.cuda.current_context().memory_manager.deallocations.clear()

    def _spin(self, rounds: int) -> None:
        y = self.yardsticks
        y.launch(y.exponentials, 1, y.THREADS, rounds, address(self._one_block))

    def release(self) -> None:
        """Give back the memory that torch keeps for later."""
        if self.torch is not None:
            self.torch.cuda.empty_cache()

    def describe(self) -> dict[str, Any]:
        """The GPU and the versions of what runs on it."""
        name, (major, minor) = self.device.name, self.device.compute_capability
        packages = {"ssm-edu": __version__}
        for package in PACKAGES:
            try:
                packages[package] = version(package)
            except PackageNotFoundError:
                continue
        return {
            "gpu": name.decode() if isinstance(name, bytes) else str(name),
            "compute_capability": f"{major}.{minor}",
            "multiprocessors": int(self.device.MULTIPROCESSOR_COUNT),
            "l2_bytes": self.cache_bytes,
            "memory_bytes": int(self.cuda.current_context().get_memory_info().total),
            "cuda": ".".join(str(n) for n in self.cuda.runtime.get_version()),
            "cpu": cpu_model(),
            "python": platform.python_version(),
            "packages": packages,
        }


def address(array: Any) -> int:
    """Of a Numba array on the GPU, for a kernel that takes a pointer."""
    return int(array.__cuda_array_interface__["data"][0])
