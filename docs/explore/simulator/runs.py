"""The runs that the page shows: each is a launch in the simulator, recorded and drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
from simulator import kernels
from simulator.picture import view
from simulator.timeline import Run

from ssm_edu.testing.simulator import Event, KernelError, simulated

CHANNELS, STATES, LENGTH = 2, 4, 2
THREADS = CHANNELS * STATES


def layer() -> dict[str, np.ndarray]:
    """A layer of two channels, four states and two steps, small numbers that can be followed."""
    steps = np.ones((1, CHANNELS, LENGTH), np.float32)
    maps = np.ones((1, STATES, LENGTH), np.float32)
    return {
        "u": steps * np.arange(1, LENGTH + 1, dtype=np.float32),
        "delta": 0 * steps,
        "A": -np.tile(np.arange(1, STATES + 1, dtype=np.float32), (CHANNELS, 1)),
        "B": maps,
        "C": maps,
        "D": np.ones(CHANNELS, np.float32),
        "z": 2 * steps,
        "delta_bias": np.zeros(CHANNELS, np.float32),
    }


def recorded(
    title: str, kernel: Any, block: Any, arguments: tuple[Any, ...], arrays: tuple[str, ...], schedule: Any = None
) -> Run:
    events: list[Event] = []
    error = None
    try:
        with simulated(schedule, watch=events.append):
            kernel[1, block](*arguments)
    except KernelError as found:
        error = found
    names = {i: f"thread {i}" for i in range(THREADS)}
    return Run(title, events, names, frozenset(arrays), kernel.fn.__code__, error)


def rung1(*, without_second_barrier: bool, schedule: Any = None) -> Run:
    """Rung 1 of the forward ladder on the small layer; threads that have no channel are not drawn."""
    module = kernels.without_second_barrier() if without_second_barrier else kernels.rung1
    title = "Rung 1 without its second barrier" if without_second_barrier else "Rung 1"
    kernel, channels = module.fused(STATES)
    y = np.full((1, CHANNELS, LENGTH), np.nan, np.float32)
    arguments = (*layer().values(), y)
    return recorded(title, kernel, (STATES, channels), arguments, ("shared array `read`", "argument `y`"), schedule)


def shuffled_sum() -> Run:
    x = np.arange(1, THREADS + 1, dtype=np.float32)
    arguments = x, np.zeros_like(x)
    return recorded("A sum by shuffles", kernels.shuffled_sum, THREADS, arguments, ("argument `x`", "argument `y`"))


def early_return() -> Run:
    x = np.arange(1, THREADS - 2, dtype=np.float32)
    arrays = ("shared array `s`", "argument `x`", "argument `y`")
    return recorded("An early return", kernels.reversed_copy, THREADS, (x, np.zeros_like(x)), arrays)


def show(run: Run) -> Any:
    """The run as a notebook cell shows it."""
    from IPython.display import HTML

    return HTML(view(run))
