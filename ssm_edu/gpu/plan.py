"""What the shapes and dtypes of a scan's arguments alone say: checked once, and remembered."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from ssm_edu.selective.problem import ARGUMENTS, Reader

Described = tuple[tuple[str, Any, str], ...]  # an argument's name, its shape and its dtype's name


class Plan(NamedTuple):
    """The fields of a kernel's description that are no arrays, and the shape and dtype of the states."""

    fields: dict[str, Any]
    states: tuple[tuple[int, ...], str]
    is_empty: bool


@lru_cache(maxsize=1024)
def plan(delta_softplus: bool, discretization: str, arguments: Described) -> Plan:
    """Check the arguments' shapes and dtypes, u first, and A before B.

    Raises:
        TypeError, ValueError: as :func:`ssm_edu.selective_scan`, except for values.
    """
    reader = Reader()
    for name, shape, dtype in arguments:
        kind, layouts = ARGUMENTS[name]
        reader.check(name, tuple(shape), dtype, kind, *layouts)
    shapes = {name: tuple(shape) for name, shape, _ in arguments}
    dtypes = {name: dtype for name, _, dtype in arguments}
    batch, dim, length, state = (reader.sizes[axis] for axis in ("batch", "dim", "length", "state"))
    fields = {
        "batch": batch,
        "dim": dim,
        "length": length,
        "state": state,
        "dtype": dtypes["u"],
        "is_complex": reader.is_complex,
        "group_B": _groups(shapes["B"]),
        "group_C": _groups(shapes["C"]),
        "complex_B": dtypes["B"].startswith("complex"),
        "complex_C": dtypes["C"].startswith("complex"),
        "delta_softplus": delta_softplus,
        "discretization": discretization,
    }
    return Plan(fields, ((batch, dim, state), dtypes["A"]), 0 in (batch, dim, length, state))


def _groups(shape: tuple[int, ...]) -> int | None:
    """None of a constant map."""
    return {2: None, 3: 1}.get(len(shape), shape[1])
