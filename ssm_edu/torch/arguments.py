"""What every function here asks of its tensors first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

DEVICES = ("cpu", "cuda", "meta")


def check_tensors(leader: str, arguments: dict[str, Any], required: str) -> None:
    """Check that each argument is a tensor, or None unless its name is among `required`, on the leader's device.

    Raises:
        TypeError: it is not. ValueError: it is on another device, or the leader on one that has no kernels.
    """
    where = None
    for name in (leader, *(name for name in arguments if name != leader)):
        value = arguments[name]
        if value is None and name != leader and name not in required.split():
            continue
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} is a {type(value).__name__}, expected a torch.Tensor")
        if where is None:
            where = value.device
            if where.type not in DEVICES:
                raise ValueError(f"{name} is on {where}, expected the CPU or a CUDA device")
        elif value.device != where:
            raise ValueError(f"{name} is on {value.device}, expected {where}, where {leader} is")


def check_shape(name: str, x: Tensor | None, axes: str, sizes: Mapping[str, int]) -> None:
    """Raise ValueError unless the tensor, if there is one, has these axes in these sizes."""
    if x is None:
        return
    expected = tuple(sizes[axis] for axis in axes.split())
    if tuple(x.shape) != expected:
        raise ValueError(f"{name} has shape {tuple(x.shape)}, expected ({', '.join(axes.split())}) = {expected}")


def check_floating(arguments: Mapping[str, Tensor | None], may_be_complex: str = "") -> None:
    """Raise TypeError for integers, booleans, and complex numbers where there may be none."""
    for name, x in arguments.items():
        if x is not None and not (x.is_floating_point() or (x.is_complex() and name in may_be_complex.split())):
            raise TypeError(f"{name} has dtype {dtype_name(x)}, expected floating-point numbers")


def precision(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which inputs of this dtype are computed with."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def precision_of(x: Tensor, real: torch.dtype) -> torch.dtype:
    """The real dtype, or the complex one of its precision for a complex tensor."""
    if not x.is_complex():
        return real
    return torch.complex128 if real == torch.float64 else torch.complex64  # dtype.to_complex is nothing Dynamo knows


def dtype_name(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
