"""`ssm_edu::selective_scan` and its adjoint as PyTorch's operators: what autograd records and `torch.compile` traces.

A tensor on a CUDA device goes to :mod:`ssm_edu.gpu` as it is, and the kernels go on the current stream. One on the host
goes to the CPU's backend without a copy, but for float16 and bfloat16: these are widened to float32, in which the
scan computes anyway, and the results rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils import _python_dispatch

from ssm_edu import gpu, selective_scan, selective_scan_backward
from ssm_edu.selective.problem import ARGUMENTS, Reader
from ssm_edu.torch.arguments import dtype_name

ARRAYS = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state", "seq_idx")
DIFFERENTIABLE = ARRAYS[:-1]
INPUTS = (
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, "
    "Tensor? initial_state, Tensor? seq_idx, bool delta_softplus, str discretization"
)
NARROW = (torch.float16, torch.bfloat16)


@torch.library.custom_op(
    "ssm_edu::selective_scan", mutates_args=(), schema=f"({INPUTS}, bool saving) -> (Tensor, Tensor, Tensor)"
)
def scan(*given: Any) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state, and states for the way back, if they are to be saved; without elements if there are none."""
    *inputs, saving = given
    arrays, options = _named(inputs)
    with torch.no_grad():
        if not arrays["u"].is_cuda:
            y, last_state = selective_scan(**_on_host(arrays), **options, return_last_state=True)
            return _tensor(y, arrays["u"]), _tensor(last_state, arrays["A"]), _nothing(arrays["u"])
        if saving:
            y, last_state, saved = gpu.scan_saving_states(_given(arrays), **options)
            return y, last_state, _nothing(arrays["u"]) if saved is None else saved
        return *selective_scan(**arrays, **options, return_last_state=True), _nothing(arrays["u"])


@scan.register_fake
def _(*given: Any) -> tuple[Tensor, Tensor, Tensor]:
    *inputs, saving = given
    if saving and inputs[0].is_cuda:  # how many there are is known when it runs
        raise NotImplementedError("what is traced saves no states: expected saving=False")
    _refuse_tangents()
    _check_traced(_named(inputs)[0])
    u, _, A = inputs[:3]
    return u.new_empty(u.shape), A.new_empty((u.shape[0], u.shape[1], A.shape[1])), _nothing(u)


def saves(arrays: dict[str, Any]) -> bool:
    """Whether states are to be saved for gradients. What is traced works them out again: its memory is planned."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return False
    if _python_dispatch._get_current_dispatch_mode() is not None:
        return False
    return any(x is not None and x.requires_grad for x in arrays.values())


@torch.library.custom_op(
    "ssm_edu::selective_scan_backward",
    mutates_args=(),
    schema=f"(Tensor grad_y, Tensor? grad_last_state, Tensor saved, {INPUTS}) -> Tensor[]",
)
def scan_backward(grad_y: Tensor, grad_last_state: Tensor | None, saved: Tensor, *inputs: Any) -> list[Tensor]:
    """The gradients by those of `DIFFERENTIABLE` that are given, in its order."""
    arrays, options = _named(inputs)
    cotangents: dict[str, Any] = {"grad_y": grad_y, "grad_last_state": grad_last_state}
    with torch.no_grad():
        if grad_y.is_cuda:
            gradients: Any
            if saved.numel():
                gradients = gpu.differentiate_device_arrays(_given(arrays | cotangents), **options, saved=saved)
            else:
                gradients = selective_scan_backward(**arrays, **cotangents, **options)
            return [gradient for gradient in gradients if gradient is not None]
        found = selective_scan_backward(**_on_host(arrays | cotangents), **options)
        return [_tensor(gradient, arrays[n]) for n, gradient in found._asdict().items() if gradient is not None]


@scan_backward.register_fake
def _(grad_y: Tensor, grad_last_state: Tensor | None, saved: Tensor, *inputs: Any) -> list[Tensor]:
    _refuse_tangents()
    _check_traced(_named(inputs)[0] | {"grad_y": grad_y, "grad_last_state": grad_last_state})
    return [x.new_empty(x.shape) for x in inputs[: len(DIFFERENTIABLE)] if x is not None]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[2], *inputs[: len(ARRAYS)])
    ctx.options = inputs[len(ARRAYS) :]


def _differentiate(
    ctx: Any, grad_y: Tensor | None, grad_last_state: Tensor | None, of_saved: Tensor | None
) -> tuple[Tensor | None, ...]:
    saved, *inputs = ctx.saved_tensors
    *options, _ = ctx.options
    if grad_y is None:
        grad_y = torch.zeros_like(inputs[0])
    adjoint = Adjoint.apply if is_transformed() else scan_backward
    found = iter(adjoint(grad_y, grad_last_state, saved, *inputs, *options))
    gradients = [None if x is None else next(found) for x in inputs[: len(DIFFERENTIABLE)]]
    return *gradients, None, *[None for _ in ctx.options]


def _refuse(ctx: Any, *gradients: Any) -> None:
    raise NotImplementedError(
        "the selective scan has first derivatives alone; this asks for the gradient of a gradient"
    )


def _refuse_forward(ctx: Any, *tangents: Any) -> None:
    raise NotImplementedError(
        "the selective scan has no forward-mode derivative; expected reverse mode (backward, vjp, jacrev)"
    )


def _refuse_tangents() -> None:
    """What is traced does not show its tangents: none is traced inside `dual_level` or `jvp`."""
    if forward_ad._current_level >= 0:
        _refuse_forward(None)


scan.register_autograd(_differentiate, setup_context=_save)
scan_backward.register_autograd(_refuse)


def _one_by_one(operator: Any) -> Any:
    """The operator under vmap, which can batch none that returns a list by itself."""

    def batched(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[list[Tensor], list[int]]:
        def slices(i: int) -> list[Any]:
            return [x if axis is None else x.select(axis, i) for x, axis in zip(inputs, in_dims, strict=True)]

        outputs = zip(*[operator(*slices(i)) for i in range(info.batch_size)], strict=True)
        stacked = [torch.stack(each) for each in outputs]
        return stacked, [0] * len(stacked)

    return batched


scan.register_vmap(_one_by_one(scan))
scan_backward.register_vmap(_one_by_one(scan_backward))


def is_transformed() -> bool:
    """Whether torch.func or forward mode is at work, outside of `torch.compile`.

    The one cannot differentiate an operator, and the other's tangents it takes for zero without a word. An
    `autograd.Function` around it serves both, but is slow to call.
    """
    if torch.compiler.is_compiling():
        return False
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


class Scan(torch.autograd.Function):
    """`scan` where it is transformed."""

    generate_vmap_rule = True
    setup_context = staticmethod(_save)
    backward = staticmethod(_differentiate)
    jvp = staticmethod(_refuse_forward)

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        return scan(*inputs)


class Adjoint(torch.autograd.Function):
    """`scan_backward` likewise."""

    generate_vmap_rule = True
    backward = staticmethod(_refuse)
    jvp = staticmethod(_refuse_forward)

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        return tuple(scan_backward(*inputs))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass


def _named(inputs: Sequence[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    *arrays, delta_softplus, discretization = inputs
    options = {"delta_softplus": delta_softplus, "discretization": discretization}
    return dict(zip(ARRAYS, arrays, strict=True)), options


def _given(arrays: dict[str, Tensor | None]) -> dict[str, Tensor]:
    return {name: x for name, x in arrays.items() if x is not None}


def _nothing(u: Tensor) -> Tensor:
    return u.new_empty(0, dtype=torch.float32)


def _check(arrays: dict[str, Tensor | None]) -> None:
    """Shapes and dtypes, as they came."""
    reader = Reader()
    for name, x in arrays.items():
        if x is not None:
            kind, layouts = ARGUMENTS[name]
            reader.check(name, tuple(x.shape), dtype_name(x), kind, *layouts)


def _check_traced(arrays: dict[str, Tensor | None]) -> None:
    """The same, unless a size is a symbol, which no comparison should tie to a number: then the run checks it."""
    if all(isinstance(size, int) for x in arrays.values() if x is not None for size in x.shape):
        _check(arrays)


def _on_host(arrays: dict[str, Tensor | None]) -> dict[str, Any]:
    """NumPy's arrays."""
    _check(arrays)
    found = dict[str, Any]()
    for name, x in arrays.items():
        if x is not None:
            x = x.detach().resolve_conj().resolve_neg()
        found[name] = None if x is None else (x.float() if x.dtype in NARROW else x).numpy()
    return found


def _tensor(array: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(like.dtype)
