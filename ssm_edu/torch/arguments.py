"""What every function here asks of its tensors first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec

import torch
from torch import Tensor

DEVICES = ("cpu", "cuda", "meta")
Arguments = ParamSpec("Arguments")


def unrecorded(step: Callable[Arguments, Tensor]) -> Callable[Arguments, Tensor]:
    """A step of decoding outside of autograd, so that the memory which it writes keeps no graph of all steps before.

    torch.func's reverse mode would take what is not recorded for a constant: NotImplementedError there.
    """

    @wraps(step)
    def unrecorded_step(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Tensor:
        if not torch.compiler.is_compiling() and torch.is_grad_enabled():
            given = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
            if torch._C._are_functorch_transforms_active() and any(x.requires_grad for x in given):
                raise NotImplementedError(
                    f"{step.__name__} has no derivative; expected a function of whole sequences, or torch.no_grad()"
                )
        with torch.no_grad():
            return step(*args, **kwargs)

    return unrecorded_step


def check_tensors(leader: str, arguments: dict[str, Any], required: str) -> None:
    """Check that each argument is a tensor, or None unless its name is among `required`, on the leader's device.

    Raises:
        TypeError: it is not, or it is sparse or nested.
        ValueError: it is on another device, or the leader on one that has no kernels.
    """
    where = None
    for name in (leader, *(name for name in arguments if name != leader)):
        value = arguments[name]
        if value is None and name != leader and name not in required.split():
            continue
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} is a {type(value).__name__}, expected a torch.Tensor")
        if value.layout != torch.strided or value.is_nested:
            kind = "nested" if value.is_nested else str(value.layout).removeprefix("torch.")
            raise TypeError(f"{name} is a {kind} tensor, expected a dense one")
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


def check_dtype(name: str, x: Tensor, expected: torch.dtype, because: str) -> None:
    """Raise TypeError unless the tensor has this dtype; under autocast, which converts, unless it is floating-point."""
    check_floating({name: x})
    if x.dtype != expected and not is_autocast(x):
        raise TypeError(f"{name} has dtype {dtype_name(x)}, expected {str(expected).removeprefix('torch.')}, {because}")


def check_writable(name: str, x: Tensor) -> None:
    """Raise ValueError unless the tensor can be written in place."""
    if any(size > 1 and stride == 0 for size, stride in zip(x.shape, x.stride(), strict=True)):
        raise ValueError(f"{name} has strides {x.stride()}, expected a memory of its own for each element to write to")
    traced = torch.compiler.is_compiling()  # is_inference is nothing Dynamo knows
    if not traced and x.is_inference() and not torch.is_inference_mode_enabled():
        raise ValueError(f"{name} is an inference tensor, expected one that can be written outside of inference_mode")


def is_autocast(x: Tensor) -> bool:
    return x.device.type != "meta" and torch.is_autocast_enabled(x.device.type)


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
