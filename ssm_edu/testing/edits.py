"""Problems made of other problems, and whatever else properties draw or cut."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssm_edu.testing.implementation import Arrays
from ssm_edu.testing.recipes import Arguments, Array, rounded

IN_TIME = ("u", "delta", "z", "seq_idx", "grad_y")


def window(kwargs: Arrays, start: int, stop: int, **others: Any) -> dict[str, Any]:
    """The problem of a window of time."""
    cut = {
        name: value[..., start:stop]
        for name, value in kwargs.items()
        if name in IN_TIME or (name in ("B", "C") and value.ndim > 2)
    }
    return {**kwargs, **cut, **others}


def rows(kwargs: Arrays, index: Any) -> dict[str, Any]:
    """The problem of some rows of the batch."""
    cut = (*IN_TIME, "initial_state")
    return {n: v[index] if n in cut or (n in ("B", "C") and v.ndim > 2) else v for n, v in kwargs.items()}


def without(kwargs: Arrays, *names: str) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name not in names}


def random(problem: Arguments, name: str = "choice") -> np.random.Generator:
    """A generator for what a property draws beside the problem."""
    return np.random.default_rng([problem.recipe.seed, *name.encode()])


def on_a_grid(u: Array) -> Array:
    """Rounded to at most 8 times a unit, a power of two: 2u − v, at most 24 units, is then a number of any dtype."""
    largest = np.abs(u.astype(np.float64)).max(initial=0)
    unit = 2.0 ** np.floor(np.log2(max(largest, 1e-30))) / 4
    return (np.round(u.astype(np.float64) / unit) * unit).astype(u.dtype)


def seamless(kwargs: Arrays, at: int) -> dict[str, Any]:
    """The problem without a border between sequences at a cut, which neither part would see."""
    if "seq_idx" not in kwargs or not 0 < at < kwargs["u"].shape[2]:
        return dict(kwargs)
    idx = kwargs["seq_idx"].copy()
    idx[:, at:] += idx[:, at - 1 : at] - idx[:, at : at + 1]
    return {**kwargs, "seq_idx": idx}


def exact_maps(problem: Arguments) -> dict[str, Array]:
    """B and C, constant ones rounded to numbers that u's dtype has too."""
    maps = {name: problem[name] for name in ("B", "C")}
    return {
        name: M if M.dtype.kind == "c" or M.ndim > 2 else rounded(M, problem.recipe).astype(M.dtype)
        for name, M in maps.items()
    }


def varying_maps(kwargs: Arrays) -> dict[str, Array]:
    """Constant B and C as ones that vary in time, with a group for each channel."""
    batch, _, length = kwargs["u"].shape
    maps = {name: kwargs[name] for name in ("B", "C")}
    return {
        name: np.repeat(M if M.dtype.kind == "c" else M.astype(kwargs["u"].dtype), length, axis=-1)
        .reshape(1, *M.shape, length)
        .repeat(batch, axis=0)
        for name, M in maps.items()
    }
