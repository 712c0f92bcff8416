"""The clock of the experiments, on a CPU and on a GPU, and what they do where there is no memory or no time."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch

# A GPU fills so many bytes in a third of a millisecond and more. What it does next finds nothing in its cache, and the
# host has the time to be ahead of it.
FILLED = 2**30
NO_MEMORY = ("out of memory", "OUT_OF_MEMORY", "can't allocate memory")


@dataclass(frozen=True)
class Timing:
    """Seconds of each run."""

    times: tuple[float, ...]

    @property
    def row(self) -> dict[str, Any]:
        """What a row of measurements keeps."""
        return {"seconds": median(self.times), "best": min(self.times), "runs": len(self.times)}


def wall(call: Callable[[], Any], device: str) -> float:
    """Seconds that a caller waits until all is done."""
    synchronize(device)
    started = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - started


def kernels(call: Callable[[], Any], device: str) -> float:
    """As :func:`wall`; on a GPU its own time, from the first kernel to the end of the last, by events."""
    if not device.startswith("cuda"):
        return wall(call, device)
    filled = torch.empty(FILLED, dtype=torch.uint8, device=device)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    filled.zero_()
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def timed(
    call: Callable[[], Any],
    device: str,
    *,
    by: Callable[[Callable[[], Any], str], float] = wall,
    runs: int = 20,
    budget: float = 1.0,
    warm_up: int = 2,
) -> Timing:
    """Run it so often, or less often but once at least where that takes more than `budget` seconds."""
    for _ in range(warm_up):
        call()
    synchronize(device)
    times: list[float] = []
    while len(times) < runs and sum(times) < budget:
        times.append(by(call, device))
    return Timing(tuple(times))


def attempt(work: Callable[[], dict[str, Any]], device: str) -> dict[str, Any]:
    """What `work` returns, or `reason`, that it ran out of memory; every other exception passes."""
    release(device)
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    finally:
        release(device)
    return {"reason": "out of memory"}


def is_out_of_memory(error: BaseException) -> bool:
    """Torch, Numba and NumPy have an exception each."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY)


def release(device: str) -> None:
    """Give back the GPU's memory that nothing holds, or that only a cycle of references does."""
    if device.startswith("cuda"):
        gc.collect()
        torch.cuda.empty_cache()


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The exponent p of the y ∝ xᵖ that lies nearest, by least squares in logarithms.

    Raises:
        ValueError: fewer than two points.
    """
    if len(x) < 2:
        raise ValueError(f"x has {len(x)} points, expected two or more")
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])
