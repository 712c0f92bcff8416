"""What the models of the atlas ask of what they are given: sizes, sequences, tokens and states."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ssm_edu.arrays import REAL, check_finite, numbers, positive_integer

Given = ParamSpec("Given")
Made = TypeVar("Made")


def sized(init: Callable[Given, Made]) -> Callable[Given, Made]:
    """Let `init` start from a random generator and from sizes that are integers of at least 1.

    Raises:
        TypeError: rng is no numpy.random.Generator, or a size is no integer.
        ValueError: a size below 1.
    """

    @wraps(init)
    def checked(*args: Given.args, **kwargs: Given.kwargs) -> Made:
        sizes = signature(init).bind(*args, **kwargs).arguments
        rng = sizes.pop("rng")
        if not isinstance(rng, np.random.Generator):
            raise TypeError(f"rng is {rng!r:.60}, expected a numpy.random.Generator")
        for name, size in sizes.items():
            positive_integer(name, size)
        return init(*args, **kwargs)

    return checked


def check_sequence(x: ArrayLike, width: int) -> Float[np.ndarray, "length width"]:
    """x as (length ≥ 1, width) in float64.

    Raises:
        ValueError: another shape, or a number that is not finite.
        TypeError: x holds no real numbers.
    """
    array = _real("x", x)
    if array.ndim != 2 or array.shape[1] != width or len(array) == 0:
        raise ValueError(f"x must have shape (length ≥ 1, width {width}); found {array.shape}")
    return array


def check_token(x_t: ArrayLike, width: int) -> Float[np.ndarray, " width"]:
    """x_t as (width,) in float64. Raises as :func:`check_sequence`."""
    array = _real("x_t", x_t)
    if array.shape != (width,):
        raise ValueError(f"x_t must have shape (width {width},); found {array.shape}")
    return array


def _real(name: str, value: ArrayLike) -> Float[np.ndarray, ...]:
    array = numbers(name, value, ("float16", *REAL)).astype(np.float64)
    check_finite(name, array)
    return array


def check_state(state: Any, first: Any, *, grows: bool = False) -> None:
    """Refuse a state that is not made as the model's first one is.

    Args:
        state: arrays, or a (named) tuple of them.
        first: the first state.
        grows: whether an axis that is 0 in the first state counts the tokens so far.

    Raises:
        TypeError: another structure, or other numbers: complex ones where the first state is real.
        ValueError: an array of another shape; or arrays that have grown by different numbers of tokens.
    """
    tokens = set(_grown("state", state, first, grows))
    if len(tokens) > 1:
        raise ValueError(f"state must hold one number of tokens throughout; found {sorted(tokens)}")


def _grown(name: str, state: Any, first: Any, grows: bool) -> list[int]:
    """The lengths of the axes that are free."""
    if isinstance(first, tuple):
        if not isinstance(state, type(first)) or len(state) != len(first):
            found = f"{type(state).__name__} of {len(state)}" if isinstance(state, tuple) else type(state).__name__
            raise TypeError(f"{name} must be a {type(first).__name__} of {len(first)}; found {found}")
        names = getattr(first, "_fields", range(len(first)))
        parts = zip(names, state, first, strict=True)
        return [size for part, one, other in parts for size in _grown(f"{name}.{part}", one, other, grows)]
    if not isinstance(state, np.ndarray) or not np.can_cast(state.dtype, first.dtype) or state.dtype == bool:
        found = f"dtype {state.dtype}" if isinstance(state, np.ndarray) else type(state).__name__
        raise TypeError(f"{name} must be an array of {first.dtype}; found {found}")
    expected = tuple("any" if grows and size == 0 else size for size in first.shape)
    if state.ndim != first.ndim or any(e not in ("any", s) for s, e in zip(state.shape, expected, strict=True)):
        raise ValueError(f"{name} must have shape ({', '.join(map(str, expected))}); found {state.shape}")
    return [size for size, free in zip(state.shape, expected, strict=True) if free == "any"]
