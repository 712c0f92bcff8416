"""A step of decoding on a GPU, by one kernel."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.utils import _python_dispatch

from ssm_edu.gpu import runtime
from ssm_edu.torch.arguments import dtype_name

# as the kernel's arguments are named
NAMES = {"x": "u", "dt": "delta", "dt_bias": "delta_bias"}
SINGLE = (torch.float32, torch.float16, torch.bfloat16, torch.complex64)
DOUBLE = (torch.float64, torch.complex128)


def serves(state: Tensor, tensors: dict[str, Tensor]) -> bool:
    """Whether the kernel takes these tensors, which fit each other, and is to be launched now."""
    if torch.compiler.is_compiling() or not state.is_cuda:
        return False
    if torch._C._are_functorch_transforms_active() or _python_dispatch._get_current_dispatch_mode() is not None:
        return False
    if not state.numel() or not state.is_contiguous() or state.is_neg() or state.is_conj():
        return False
    formats = DOUBLE if tensors["x"].dtype == torch.float64 else SINGLE
    return all(tensor.dtype in formats for tensor in (state, *tensors.values())) and has_kernels()


@cache
def has_kernels() -> bool:
    try:
        return not runtime.is_simulated()
    except (ImportError, RuntimeError):
        return False


def step(state: Tensor, tensors: dict[str, Tensor], delta_softplus: bool) -> Tensor:
    """y, and the state overwritten, on the current stream."""
    kernels: Any = import_module("ssm_kernels.decoding")
    batch, states = state.shape[0], state.shape[-1]
    dim = state.numel() // (batch * states)
    operands = {"h": kernels.Operand(state.data_ptr(), dtype_name(state))}
    laid_out = {name: dense(name, tensor, dim, states) for name, tensor in tensors.items()}  # alive until the launch
    for name, tensor in laid_out.items():
        row = tensor.stride(0) if name in ("x", "dt", "z", "B", "C") else 0
        group = tensor.stride(1) if tensor.ndim == 3 else 0
        operands[NAMES.get(name, name)] = kernels.Operand(tensor.data_ptr(), dtype_name(tensor), row, group)
    groups = [tensors[name].shape[1] if tensors[name].ndim == 3 else 1 for name in ("B", "C")]
    y = torch.empty(tensors["x"].shape, dtype=tensors["x"].dtype, device=state.device)
    stream = runtime.numba_stream(torch.cuda.current_stream(state.device).cuda_stream)
    with runtime.current_device(state.get_device()):
        kernels.step(kernels.Sizes(batch, dim, states, *groups), operands, y.data_ptr(), delta_softplus, stream=stream)
    torch.autograd.graph.increment_version(state)
    return y


def dense(name: str, tensor: Tensor, dim: int, states: int) -> Tensor:
    """Channels in one axis, and the last axis without gaps, in memory as it is read."""
    tensor = tensor.resolve_conj().resolve_neg()
    if name == "A":
        return tensor.reshape(dim, states).contiguous()
    if name in ("D", "dt_bias"):
        return tensor.reshape(dim).contiguous()
    if name not in ("B", "C"):
        tensor = tensor.flatten(1)
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()
