"""The ladder: what every rung says of itself, and the one check of shapes that all launchers share.

`FORWARD` and `BACKWARD` are the lists of rungs. They import Numba when they are first asked for, and not before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

__all__ = ["BACKWARD", "FORWARD", "MAX_STATE", "Rung", "Sizes", "check"]

MAX_STATE = 64
AXES = {
    **dict.fromkeys(("u", "delta", "z", "y"), ("batch", "dim", "length")),
    **dict.fromkeys(("B", "C"), ("batch", "state", "length")),
    **dict.fromkeys(("D", "delta_bias"), ("dim",)),
    "A": ("dim", "state"),
}

Count = Callable[[int, int, int, int], float]  # of (batch, dim, length, state)


@dataclass(frozen=True)
class Rung:
    """One step of the ladder; the counts are for a whole launch on sizes that fill their tiles.

    Attributes:
        number: its place, such as "4a".
        title: a few words.
        idea: the one new idea, in a sentence.
        launch: takes device arrays, outputs last, and `stream=0`.
        bytes: what threads ask of global memory for arrays with a time axis, before any cache.
        exponentials: eˣ and log.
        flops: additions, multiplications and divisions; a fused pair counts two.
        chunk: the steps between two carries, for :func:`ssm_edu.bounds.forward`; None where h goes step by step.
    """

    number: str
    title: str
    idea: str
    launch: Callable[..., None]
    bytes: Count
    exponentials: Count
    flops: Count
    chunk: int | None = None


FORWARD: list[Rung]
BACKWARD: list[Rung]


class Sizes(NamedTuple):
    """The sizes of a problem."""

    batch: int
    dim: int
    length: int
    state: int


def check(**arrays: Any) -> Sizes:
    """The sizes on which all arrays agree; `grad_u` has the shape of `u`, and so on.

    Raises:
        ValueError: a shape that does not fit, an empty axis, or more than `MAX_STATE` states.
        TypeError: no array, or one of a dtype that is not float32.
    """
    sizes: dict[str, int] = {}
    for name, array in arrays.items():
        array = getattr(array, "value", array)  # cuda.In, Out and InOut wrap it
        axes = AXES[name.removeprefix("grad_")]
        found = str(getattr(array, "dtype", type(array).__name__))
        if found != "float32":
            raise TypeError(f"{name} is of {found}, expected an array of float32")
        expected = "(" + ", ".join(f"{axis}={sizes[axis]}" if axis in sizes else axis for axis in axes) + ")"
        fits = len(array.shape) == len(axes) and all(
            0 < n == sizes.setdefault(axis, n) for n, axis in zip(array.shape, axes, strict=True)
        )
        if not fits:
            raise ValueError(f"{name} has shape {tuple(array.shape)}, expected {expected}, none of them 0")
    if sizes["state"] > MAX_STATE:
        raise ValueError(f"A has {sizes['state']} states, expected at most {MAX_STATE}")
    return Sizes(**sizes)


def __getattr__(name: str) -> list[Rung]:
    if name not in ("FORWARD", "BACKWARD"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    folder = import_module(f"ssm_kernels.{name.lower()}")
    return [import_module(f"{folder.__name__}.{rung}").RUNG for rung in folder.RUNGS]
