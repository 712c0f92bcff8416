"""What stands around the scan in PyTorch: decoding, the convolution, Mamba's block, and the place of mamba_ssm."""

from __future__ import annotations

import importlib
import importlib.metadata
import itertools
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

import ssm_edu
from tests import kernel_runs
from tests.problems import random_arguments

torch = pytest.importorskip("torch")

from ssm_edu import torch as ours  # noqa: E402
from ssm_edu.torch import drop_in, mamba_simple  # noqa: E402


def tensors(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in kwargs.items()}


# Decoding


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("is_complex", [False, True])
def test_steps_make_the_scan(is_complex: bool, groups: int) -> None:
    kwargs = tensors(random_arguments(5, is_complex=is_complex, groups_B=groups, groups_C=groups))
    y, last = ours.selective_scan_fn(**kwargs, return_last_state=True)
    state = kwargs["initial_state"].clone()
    where = state.data_ptr()
    for t in range(y.shape[-1]):
        x, dt, B, C, z = (kwargs[name][..., t] for name in ("u", "delta", "B", "C", "z"))
        if groups == 1:
            B, C = B[:, 0], C[:, 0]
        rest = {"D": kwargs["D"], "z": z, "dt_bias": kwargs["delta_bias"], "dt_softplus": True}
        y_t = ours.selective_state_update(state, x, dt, kwargs["A"], B, C, **rest)
        # two computations in double precision of sums of a few terms of order 1
        torch.testing.assert_close(y_t, y[..., t], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state, last, rtol=1e-12, atol=1e-12)
    assert state.data_ptr() == where


def test_a_step_in_heads_is_a_step_of_all_their_channels() -> None:
    torch.manual_seed(0)
    batch, head, channel, n, group = 2, 4, 3, 5, 2
    state, x, dt, z = (torch.randn(batch, head, channel, *more) for more in ((n,), (), (), ()))
    A, D, bias = -torch.rand(head, channel, n), torch.randn(head, channel), torch.randn(head, channel)
    B, C = torch.randn(2, batch, group, n)
    flat = {"D": D.flatten(), "z": z.flatten(1), "dt_bias": bias.flatten(), "dt_softplus": True}
    flat_state = state.flatten(1, 2).clone()
    right = ours.selective_state_update(flat_state, x.flatten(1), dt.flatten(1), A.flatten(0, 1), B, C, **flat)
    y = ours.selective_state_update(state, x, dt, A, B, C, D, z, bias, True)
    assert torch.equal(y.flatten(1), right)
    assert torch.equal(state.flatten(1, 2), flat_state)


def test_a_narrow_step_is_computed_with_in_float32() -> None:
    kwargs = tensors(random_arguments(6, dtype="float32"))
    x, dt, B, C = (kwargs[name][..., 0].bfloat16() for name in ("u", "delta", "B", "C"))
    state, wide = kwargs["initial_state"].bfloat16(), kwargs["initial_state"].bfloat16().float()
    y = ours.selective_state_update(state, x, dt, kwargs["A"], B[:, 0], C[:, 0], kwargs["D"].bfloat16())
    right = ours.selective_state_update(
        wide, x.float(), dt.float(), kwargs["A"], B[:, 0].float(), C[:, 0].float(), kwargs["D"].bfloat16().float()
    )
    assert torch.equal(y, right.bfloat16())
    assert torch.equal(state, wide.bfloat16())


def step_arguments() -> dict[str, Any]:
    shapes = {"state": (2, 4, 3), "x": (2, 4), "dt": (2, 4), "A": (4, 3), "B": (2, 3), "C": (2, 3)}
    return {name: torch.ones(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.ones(2, 5)}, ValueError, r"x has shape \(2, 5\), expected \(batch, dim\) = \(2, 4\)"),
        ({"B": torch.ones(2, 3, 3)}, ValueError, "B has 3 groups, expected a divisor of 4"),
        ({"C": torch.ones(2, 4)}, ValueError, "C has shape"),
        ({"state": torch.ones(4, 3)}, ValueError, "state has shape"),
        ({"D": torch.ones(1)}, ValueError, "D has shape"),
        ({"dt": torch.ones(2, 4, dtype=torch.int32)}, TypeError, "dt has dtype int32"),
        ({"A": torch.ones(4, 3, dtype=torch.complex64)}, TypeError, "state has dtype float32"),
        ({"B": torch.ones(2, 3, dtype=torch.complex64)}, TypeError, "B has dtype complex64"),
        ({"x": torch.ones(2, 4, device="meta")}, ValueError, "x is on meta, expected cpu"),
        ({"state_batch_indices": torch.zeros(2)}, NotImplementedError, "state_batch_indices"),
        ({"state": torch.ones(1, 4, 3).expand(2, 4, 3)}, ValueError, r"state has strides \(0, 3, 1\)"),
        ({"A": torch.ones(4, 3).to_sparse()}, TypeError, "A is a sparse_coo tensor"),
    ],
)
def test_a_bad_step_is_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    ours.selective_state_update(**step_arguments())
    with pytest.raises(error, match=message):
        ours.selective_state_update(**step_arguments() | change)


def inference_tensor(*shape: int) -> Any:
    with torch.inference_mode():
        return torch.zeros(shape)


def test_memories_of_inference_mode_are_written_there_alone() -> None:
    state, conv_state, arguments = inference_tensor(2, 4, 3), inference_tensor(2, 4, 3), step_arguments()
    with pytest.raises(ValueError, match="state is an inference tensor"):
        ours.selective_state_update(**arguments | {"state": state})
    with pytest.raises(ValueError, match="conv_state is an inference tensor"):
        ours.causal_conv1d_update(torch.ones(2, 4), conv_state, torch.ones(4, 3))
    out = {"return_final_states": True, "final_states_out": inference_tensor(2, 4, 2)}
    with pytest.raises(ValueError, match="final_states_out is an inference tensor"):
        ours.causal_conv1d_fn(torch.ones(2, 4, 6), torch.ones(4, 3), **out)
    with torch.inference_mode():
        ours.selective_state_update(**arguments | {"state": state})
        ours.causal_conv1d_update(torch.ones(2, 4), conv_state, torch.ones(4, 3))
    assert state.any()
    assert conv_state.any()


def test_steps_are_not_recorded() -> None:
    """Else a state keeps all steps before it, and their inputs, alive."""
    arguments = {name: value.requires_grad_(name != "state") for name, value in step_arguments().items()}
    weight, conv_state = torch.ones(4, 3, requires_grad=True), torch.zeros(2, 4, 3)
    for _ in range(3):
        y = ours.selective_state_update(**arguments)
        x = ours.causal_conv1d_update(arguments["x"], conv_state, weight)
        assert not any(value.requires_grad for value in (y, x, arguments["state"], conv_state))


def test_torch_func_is_told_that_steps_are_not_recorded() -> None:
    """It would take them for constants."""
    arguments = step_arguments()

    def step(x: Any) -> Any:
        return ours.selective_state_update(**arguments | {"x": x, "state": torch.zeros_like(arguments["state"])})

    def convolution(x: Any) -> Any:
        return ours.causal_conv1d_update(x, torch.zeros(2, 4, 3), torch.ones(4, 3))

    for function in (step, convolution):
        with pytest.raises(NotImplementedError, match="_update has no derivative"):
            torch.func.grad(lambda x, function=function: function(x).sum())(arguments["x"])


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # which torch.func uses itself
def test_a_step_has_its_forward_mode_derivative() -> None:
    """It is linear in the state and x together."""
    arguments = step_arguments()

    def step(state: Any, x: Any) -> Any:
        return ours.selective_state_update(**arguments | {"x": x, "state": state.clone()})

    point = (arguments["state"], arguments["x"])
    assert torch.equal(torch.func.jvp(step, point, point)[1], step(*point))


# The convolution and the block


def convolved(x: Any, weight: Any, bias: Any) -> Any:
    """y_t = Σ_k w_k x_{t − width + 1 + k} + bias as it is written."""
    width, y = weight.shape[1], torch.zeros_like(x)
    for t, k in itertools.product(range(x.shape[-1]), range(width)):
        if t - width + 1 + k >= 0:
            y[..., t] += weight[:, k] * x[..., t - width + 1 + k]
    return y if bias is None else y + bias[:, None]


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 3, 7])
@pytest.mark.parametrize("activation", [None, "silu", "swish"])
def test_the_convolution_and_its_steps(width: int, length: int, activation: str | None) -> None:
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(s, dtype=torch.float64) for s in ((2, 3, length + 2), (3, width), (3,)))
    right = convolved(x, weight, bias)
    right = right if activation is None else torch.nn.functional.silu(right)
    y = ours.causal_conv1d_fn(x, weight, bias, activation=activation)
    torch.testing.assert_close(y, right, rtol=1e-13, atol=1e-13)

    head, final = ours.causal_conv1d_fn(x[..., :2], weight, bias, return_final_states=True, activation=activation)
    tail = ours.causal_conv1d_fn(x[..., 2:], weight, bias, initial_states=final, activation=activation)
    torch.testing.assert_close(torch.cat([head, tail], dim=-1), right, rtol=1e-13, atol=1e-13)

    state = torch.zeros(2, 3, width + 1, dtype=torch.float64)
    steps = [ours.causal_conv1d_update(x[..., 0], state, weight, bias, activation)[..., None]]
    steps.append(ours.causal_conv1d_update(x[..., 1:], state, weight, bias, activation))
    torch.testing.assert_close(torch.cat(steps, dim=-1), right, rtol=1e-13, atol=1e-13)
    assert torch.equal(state, torch.nn.functional.pad(x, (width + 1, 0))[..., -width - 1 :])


def test_packed_convolutions_are_separate_ones() -> None:
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(s, dtype=torch.float64) for s in ((1, 3, 9), (3, 4), (3,)))
    packed = ours.causal_conv1d_fn(x, weight, bias, seq_idx=torch.tensor([[0, 0, 1, 1, 1, 1, 1, 2, -1]]))
    parts = [ours.causal_conv1d_fn(x[..., a:b], weight, bias) for a, b in ((0, 2), (2, 7), (7, 8))]
    torch.testing.assert_close(packed[..., :8], torch.cat(parts, dim=-1), rtol=1e-13, atol=1e-13)
    assert (packed[..., 8] == 0).all()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "uint32", "int64", "uint64"])
def test_packed_in_any_integers(dtype: str) -> None:
    torch.manual_seed(0)
    x, weight, places = torch.randn(1, 3, 6), torch.randn(3, 4), torch.tensor([[0, 0, 7, 7, 0, 0]])
    right = ours.causal_conv1d_fn(x, weight, seq_idx=places.int())
    assert torch.equal(ours.causal_conv1d_fn(x, weight, seq_idx=places.to(getattr(torch, dtype))), right)
    if dtype == "uint64":  # whose greatest numbers are no negative ones
        great = torch.tensor(np.full((1, 6), 2**64 - 1, np.uint64))
        assert torch.equal(
            ours.causal_conv1d_fn(x, weight, seq_idx=great),
            ours.causal_conv1d_fn(x, weight, seq_idx=torch.zeros_like(places)),
        )


@pytest.mark.parametrize("bias", [None, torch.ones(4)])
@pytest.mark.parametrize(("batch", "dim", "length"), [(2, 4, 0), (0, 4, 5), (2, 0, 5)])
def test_of_nothing_there_is_nothing(batch: int, dim: int, length: int, bias: Any) -> None:
    x, weight = torch.ones(batch, dim, length, requires_grad=True), torch.ones(dim, 3, requires_grad=True)
    bias = None if bias is None else bias[:dim].clone().requires_grad_()
    before = torch.ones(batch, dim, 2)
    y, final = ours.causal_conv1d_fn(x, weight, bias, initial_states=before, return_final_states=True)
    assert (y.shape, final.shape) == (x.shape, before.shape)
    assert length > 0 or torch.equal(final, before)
    for gradient in torch.autograd.grad(y.sum(), [value for value in (x, weight, bias) if value is not None]):
        assert not gradient.any()
    places = torch.zeros(batch, length, dtype=torch.int32)
    assert ours.causal_conv1d_fn(x, weight, bias, seq_idx=places).shape == x.shape
    assert ours.causal_conv1d_update(x, before, weight, bias).shape == x.shape
    assert length > 0 or (before == 1).all()


def test_final_states_go_where_they_are_asked_for() -> None:
    x, weight, out = torch.randn(2, 3, 6), torch.ones(3, 4), torch.empty(2, 3, 3)
    _, final = ours.causal_conv1d_fn(x, weight, return_final_states=True, final_states_out=out)
    assert final is out
    assert torch.equal(out, x[..., -3:])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"weight": torch.ones(4, 4)}, ValueError, "weight has shape"),
        ({"bias": torch.ones(4)}, ValueError, "bias has shape"),
        ({"activation": "relu"}, ValueError, "activation is 'relu'"),
        ({"seq_idx": torch.ones(2, 6)}, TypeError, "seq_idx has dtype float32"),
        ({"seq_idx": torch.ones(2, 5, dtype=torch.int32)}, ValueError, "seq_idx has shape"),
        ({"initial_states": torch.ones(2, 3, 4)}, ValueError, "initial_states has shape"),
        ({"x": torch.ones(2, 3, 6, dtype=torch.int64)}, TypeError, "x has dtype int64"),
        ({"seq_idx": torch.ones(2, 6, dtype=torch.int32), "return_final_states": True}, ValueError, "seq_idx is given"),
        ({"weight": torch.ones(3, 4).to_sparse()}, TypeError, "weight is a sparse_coo tensor"),
        ({"final_states_out": torch.ones(2, 3, 3)}, ValueError, "expected return_final_states=True beside it"),
        *(
            ({"final_states_out": value, "return_final_states": True}, error, f"final_states_out{message}")
            for value, error, message in (
                (np.ones((2, 3, 3), np.float32), TypeError, ""),
                (torch.ones(2, 3, 4), ValueError, r" has shape \(2, 3, 4\), expected \(batch, dim, before\)"),
                (torch.ones(5, 2, 3, 3), ValueError, " has shape"),
                (torch.ones(2, 3, 1).expand(2, 3, 3), ValueError, r" has strides \(3, 1, 0\)"),
                (torch.ones(2, 3, 3, dtype=torch.int32), TypeError, " has dtype int32"),
            )
        ),
    ],
)
def test_a_bad_convolution_is_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ours.causal_conv1d_fn(**{"x": torch.ones(2, 3, 6), "weight": torch.ones(3, 4)} | change)


def test_a_bad_convolution_step_is_named() -> None:
    x, weight = torch.ones(2, 3), torch.ones(3, 4)
    with pytest.raises(ValueError, match="conv_state holds 2 inputs, expected at least width − 1 = 3"):
        ours.causal_conv1d_update(x, torch.ones(2, 3, 2), weight)
    with pytest.raises(ValueError, match=r"conv_state has strides \(12, 4, 0\)"):
        ours.causal_conv1d_update(x, torch.ones(2, 3, 4)[..., :1].expand(2, 3, 4), weight)
    with pytest.raises(NotImplementedError, match="cache_seqlens"):
        ours.causal_conv1d_update(x, torch.ones(2, 3, 4), weight, cache_seqlens=torch.ones(2))


def rms_normed(x: Any, weight: Any, eps: float) -> Any:
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps) * weight


@pytest.mark.parametrize("is_complex", [False, True])
def test_the_block_is_its_parts(is_complex: bool) -> None:
    """With loops, `einsum` and the reference in the place of operators and kernels."""
    torch.manual_seed(0)
    batch, dim, length, n, rank, out = 2, 4, 6, 3, 2, 5
    real, pairs = torch.float64, 2 * n if is_complex else n

    def normal(*shape: int) -> Any:
        return torch.randn(shape, dtype=real)

    xz, conv, conv_bias = normal(batch, 2 * dim, length), normal(dim, 1, 4), normal(dim)
    x_proj, dt_proj, out_proj, out_bias = (
        normal(rank + 2 * pairs, dim),
        normal(dim, rank),
        normal(out, dim),
        normal(out),
    )
    A = -torch.rand(dim, n, dtype=torch.complex128 if is_complex else real)
    D, dt_bias, B_bias, C_bias, eps = normal(dim), normal(dim), normal(pairs), normal(pairs), 1e-3
    norms = {"b_rms_weight": normal(pairs), "c_rms_weight": normal(pairs), "dt_rms_weight": normal(dim)}
    found = ours.mamba_inner_fn(
        xz, conv, conv_bias, x_proj, dt_proj, out_proj, out_bias, A, None, None, D, dt_bias, B_bias, C_bias, True,
        **norms, b_c_dt_rms_eps=eps,
    )  # fmt: skip

    x = convolved(xz[:, :dim], conv[:, 0], conv_bias)
    x = x * torch.sigmoid(x)
    factors = torch.einsum("bdt,rd->btr", x, x_proj)
    delta = rms_normed(torch.einsum("btr,dr->btd", factors[..., :rank], dt_proj), norms["dt_rms_weight"], eps)
    B = rms_normed(factors[..., rank : rank + pairs] + B_bias, norms["b_rms_weight"], eps)
    C = rms_normed(factors[..., rank + pairs :] + C_bias, norms["c_rms_weight"], eps)
    if is_complex:
        B, C = (M[..., ::2] + 1j * M[..., 1::2] for M in (B, C))
    arrays = [x, delta.mT, A, B.mT, C.mT, D, xz[:, dim:], dt_bias]
    y = ssm_edu.selective_scan(*[array.numpy() for array in arrays], delta_softplus=True, backend="reference")
    right = torch.einsum("bdt,od->bto", torch.from_numpy(y), out_proj) + out_bias
    # double precision, sums of some dozens of terms of order 1 to 10
    torch.testing.assert_close(found, right, rtol=1e-11, atol=1e-11)


def test_the_block_takes_constant_maps_and_autocast() -> None:
    torch.manual_seed(0)
    dim, n = 4, 3
    xz, B, C = torch.randn(2, 2 * dim, 6), torch.randn(dim, n), torch.randn(dim, n)
    weights = torch.randn(dim, 1, 4), None, torch.randn(2 + 2 * n, dim), torch.randn(dim, 2), torch.randn(5, dim), None
    A = -torch.rand(dim, n)
    right = ours.mamba_inner_fn(xz, *weights, A, B, C)
    with torch.autocast("cpu", torch.bfloat16):
        found = ours.mamba_inner_fn(xz, *weights, A, B, C)
    assert found.dtype == torch.bfloat16
    # three matrix products in bfloat16 of a unit roundoff of 2⁻⁸, of sums with some cancellation
    assert (found - right).abs().max() < 12 * 2**-8 * right.abs().max()
    with pytest.raises(ValueError, match="checkpoint_lvl is 2"):
        ours.mamba_inner_fn(xz, *weights, A, checkpoint_lvl=2)


def inner_arguments() -> dict[str, Any]:
    shapes = {"xz": (2, 8, 6), "conv1d_weight": (4, 1, 3), "x_proj_weight": (7, 4), "delta_proj_weight": (4, 1)}
    shapes |= {"out_proj_weight": (5, 4), "A": (4, 3)}
    optional = dict.fromkeys(["conv1d_bias", "out_proj_bias"])
    torch.manual_seed(0)
    return {name: torch.randn(shape) for name, shape in shapes.items()} | optional


def test_maps_that_are_given_need_not_be_projected() -> None:
    """mamba_ssm takes x_proj_weight with the rows of what it projects, or with all of them."""
    arguments = inner_arguments()
    weight, B, C = arguments["x_proj_weight"], torch.randn(4, 3), torch.randn(4, 3)
    for rows, maps in (
        ([0], {"B": B, "C": C}),
        ([0, 1, 2, 3], {"C": C}),
        ([0, 4, 5, 6], {"B": B}),
    ):
        right = ours.mamba_inner_fn(**arguments | maps)
        assert torch.equal(ours.mamba_inner_fn(**arguments | maps | {"x_proj_weight": weight[rows]}), right)
        with pytest.raises(ValueError, match="x_proj_weight has shape"):
            ours.mamba_inner_fn(**arguments | maps | {"x_proj_weight": weight[:2]})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"xz": np.ones((2, 8, 6))}, TypeError, "xz"),
        ({"xz": torch.ones(2, 7, 6)}, ValueError, r"xz has shape \(2, 7, 6\), expected \(batch, 2·dim, length\)"),
        ({"xz": torch.ones(2, 8)}, ValueError, "xz has shape"),
        ({"xz": torch.ones(2, 8, 6, dtype=torch.int32)}, TypeError, "xz has dtype int32"),
        ({"xz": torch.ones(2, 10, 6)}, ValueError, r"conv1d_weight has shape \(4, 1, 3\), expected .* \(5, 1, 3\)"),
        ({"conv1d_weight": torch.ones(4, 3)}, ValueError, "conv1d_weight has shape"),
        ({"conv1d_weight": torch.ones(4, 2, 3)}, ValueError, "conv1d_weight has shape"),
        ({"conv1d_bias": torch.ones(1)}, ValueError, "conv1d_bias has shape"),
        ({"x_proj_weight": torch.ones(8, 4)}, ValueError, r"x_proj_weight has shape \(8, 4\), expected .* = \(7, 4\)"),
        ({"x_proj_weight": torch.ones(7, 5)}, ValueError, "x_proj_weight has shape"),
        ({"x_proj_weight": torch.ones(7, 4).double()}, TypeError, "x_proj_weight has dtype float64, expected float32"),
        ({"delta_proj_weight": torch.ones(4)}, ValueError, "delta_proj_weight has shape"),
        ({"delta_proj_weight": None}, TypeError, "delta_proj_weight"),
        (
            {"out_proj_weight": torch.ones(5, 6)},
            ValueError,
            r"out_proj_weight has shape \(5, 6\), expected .* = \(5, 4\)",
        ),
        ({"out_proj_bias": torch.ones(4)}, ValueError, "out_proj_bias has shape"),
        ({"A": torch.ones(3)}, ValueError, "A has shape"),
        ({"A": torch.ones(3, 3)}, ValueError, "A has shape"),
        ({"B_proj_bias": torch.ones(4)}, ValueError, "B_proj_bias has shape"),
        ({"dt_rms_weight": torch.ones(3)}, ValueError, "dt_rms_weight has shape"),
        ({"D": torch.ones(3)}, ValueError, "D has shape"),
    ],
)
def test_a_bad_argument_of_the_block_is_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ours.mamba_inner_fn(**inner_arguments() | change)


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # which torch.compile uses itself
def test_the_block_and_its_step_compile_too() -> None:
    torch.manual_seed(0)
    dim, n = 4, 3
    xz, state, conv_state = torch.randn(2, 2 * dim, 6), torch.randn(2, dim, n), torch.randn(2, dim, 4)
    weights = torch.randn(dim, 1, 4), torch.randn(dim), torch.randn(2 + 2 * n, dim), torch.randn(dim, 2)
    outer, A, maps = torch.randn(5, dim), -torch.rand(dim, n), torch.randn(2, 2, n)

    def block(state: Any, conv_state: Any) -> Any:
        y = ours.mamba_inner_fn(xz, *weights, outer, None, A)
        x = ours.causal_conv1d_update(xz[:, :dim, 0], conv_state, weights[0][:, 0], weights[1], "silu")
        packed = ours.causal_conv1d_fn(xz, torch.ones(2 * dim, 2), seq_idx=torch.zeros(2, 6, dtype=torch.int32))
        return y, packed, ours.selective_state_update(state, x, x, A, *maps, dt_softplus=True)

    torch.compiler.reset()
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    memories = (state.clone(), conv_state.clone()), (state.clone(), conv_state.clone())
    for right, found in zip(block(*memories[0]), compiled(*memories[1]), strict=True):
        torch.testing.assert_close(found, right)  # compiled, a product of matrices may round otherwise
    for right, found in zip(*memories, strict=True):
        assert torch.equal(right, found)


# In the place of mamba_ssm


@pytest.fixture
def undone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test has installed is undone, and no model of Hugging Face has chosen its functions before it."""
    assert find_spec("mamba_ssm") is None, "these tests are for a machine without mamba_ssm"
    for name in [name for name in sys.modules if name.startswith("transformers.models.")]:
        monkeypatch.delitem(sys.modules, name)
    yield
    ours.uninstall()


@pytest.fixture
def installed(undone: None) -> list[str]:
    return ours.install()


def test_install_puts_the_functions_where_they_are_looked_for(installed: list[str]) -> None:
    from causal_conv1d import causal_conv1d_fn, causal_conv1d_update
    from mamba_ssm import selective_scan_fn as top
    from mamba_ssm.ops.selective_scan_interface import mamba_inner_fn, selective_scan_fn
    from mamba_ssm.ops.triton.selective_state_update import selective_state_update

    found = (causal_conv1d_fn, causal_conv1d_update, mamba_inner_fn, top, selective_scan_fn, selective_state_update)
    assert found == tuple(getattr(ours, f.__name__) for f in found)
    assert find_spec("mamba_ssm") is not None
    for name, interface in (("mamba_ssm.modules.mamba_simple", "Mamba"), ("mamba_ssm", "Mamba")):
        assert getattr(importlib.import_module(name), interface) is mamba_simple.Mamba
    assert importlib.import_module("causal_conv1d.causal_conv1d_interface").causal_conv1d_fn is causal_conv1d_fn
    package = importlib.import_module("mamba_ssm")
    assert package.ops.triton.selective_state_update.selective_state_update is selective_state_update
    for name in ("mamba_ssm", "mamba-ssm", "causal_conv1d"):
        version = importlib.metadata.version(name)
        assert version.startswith(drop_in.VERSIONS[name.replace("-", "_")])
        assert version.endswith(ssm_edu.__version__)
    assert package.__version__ == importlib.metadata.version("mamba_ssm")
    with pytest.raises(ImportError):  # of which Mamba-2's fast path would make use
        importlib.import_module("mamba_ssm.ops.triton.ssd_combined")
    assert "mamba_ssm.ops.selective_scan_interface.selective_scan_fn is ssm_edu.torch.selective_scan_fn" in installed
    assert "mamba_ssm.Mamba is ssm_edu.torch.mamba_simple.Mamba" in installed
    assert ours.install() == installed


@pytest.mark.usefixtures("undone")
def test_uninstall_leaves_everything_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    modules, finders = dict(sys.modules), list(sys.meta_path)
    with caplog.at_level("INFO", "ssm_edu.torch"):
        lines = ours.install()
    assert caplog.messages == lines
    assert lines
    assert set(sys.modules) - set(modules) == {
        name for names in drop_in.MODULES.values() for name in names if not name.startswith("transformers")
    }
    ours.uninstall()
    assert dict(sys.modules) == modules
    assert sys.meta_path == finders
    assert find_spec("causal_conv1d") is None
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("mamba_ssm")
    ours.uninstall()


@pytest.fixture
def early_model(undone: None, monkeypatch: pytest.MonkeyPatch) -> str:
    module = types.ModuleType("transformers.models.early.modeling_early")
    module.mamba_selective_scan = lambda: ...  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.__name__


def test_a_model_that_was_imported_too_early_is_named(
    early_model: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers.models.x.modeling_x", types.ModuleType("x"))
    with caplog.at_level("WARNING", "ssm_edu.torch"):
        ours.install()
    assert [message.split()[0] for message in caplog.messages] == [early_model]


def test_a_copy_of_the_interface_in_transformers_is_stood_in_for(
    installed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = types.ModuleType("transformers.kernels")
    parent.__path__ = []
    monkeypatch.setitem(sys.modules, "transformers", types.ModuleType("transformers"))
    monkeypatch.setitem(sys.modules, "transformers.kernels", parent)
    assert importlib.import_module("transformers.kernels.falcon_mamba").mamba_inner_fn is ours.mamba_inner_fn
    ours.uninstall()
    with pytest.raises(ImportError):
        importlib.import_module("transformers.kernels.falcon_mamba")


def write_package(folder: Any, interface: str) -> None:
    (folder / "mamba_ssm" / "ops").mkdir(parents=True)
    (folder / "mamba_ssm" / "__init__.py").write_text(
        "from mamba_ssm.ops.selective_scan_interface import selective_scan_fn\n"
    )
    (folder / "mamba_ssm" / "ops" / "__init__.py").write_text("")
    (folder / "mamba_ssm" / "ops" / "selective_scan_interface.py").write_text(interface)


@pytest.fixture
def real_package(undone: None, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    ours.uninstall()
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("mamba_ssm", "causal_conv1d", "user"):
            del sys.modules[name]


BODY = "def selective_scan_fn(): ...\ndef mamba_inner_fn(): ...\ndef selective_scan_ref(): ...\n"


def test_a_package_without_its_extension_gets_its_two_functions(real_package: Any) -> None:
    write_package(real_package, "selective_scan_cuda = None\n" + BODY)
    package = importlib.import_module("mamba_ssm")
    interface, original = package.ops.selective_scan_interface, package.selective_scan_fn
    user = types.ModuleType("user")
    user.selective_scan_fn = original  # type: ignore[attr-defined]
    sys.modules["user"] = user
    lines = ours.install()
    assert all(module.selective_scan_fn is ours.selective_scan_fn for module in (package, interface, user))
    assert interface.mamba_inner_fn is ours.mamba_inner_fn
    assert interface.selective_scan_ref.__module__ == interface.__name__
    assert "user.selective_scan_fn is ssm_edu.torch.selective_scan_fn, as mamba_ssm lacks selective_scan_cuda" in lines
    ours.uninstall()
    assert all(module.selective_scan_fn is original for module in (package, interface, user))


@pytest.mark.usefixtures("early_model")
def test_packages_that_work_stay(real_package: Any, caplog: pytest.LogCaptureFixture) -> None:
    write_package(real_package, "import math as selective_scan_cuda\n" + BODY)
    (real_package / "causal_conv1d.py").write_text("")
    assert ours.install() == []
    assert caplog.messages == []
    assert importlib.import_module("mamba_ssm").selective_scan_fn is not ours.selective_scan_fn


def test_a_package_that_fails_is_stood_in_for(real_package: Any) -> None:
    write_package(real_package, "import there_is_no_such_extension\n" + BODY)
    ours.install()
    assert importlib.import_module("mamba_ssm").selective_scan_fn is ours.selective_scan_fn
    assert importlib.import_module("mamba_ssm.ops.selective_scan_interface").mamba_inner_fn is ours.mamba_inner_fn
    ours.uninstall()
    with pytest.raises(ImportError, match="no_such_extension"):
        importlib.import_module("mamba_ssm")


HUGGING_FACE = """
import importlib, sys
import torch, transformers
torch.backends.cudnn.allow_tf32 = False  # of the slow path's convolution
from torch.utils._python_dispatch import TorchDispatchMode
from ssm_edu import torch as ours  # noqa: E402
from ssm_edu.torch import operators

device, *kinds = sys.argv[1:]

class Count(TorchDispatchMode):
    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        self.calls = [*getattr(self, "calls", []), str(op)]
        return op(*args, **(kwargs or {}))

def build(kind):
    torch.manual_seed(0)
    own = {
        "Jamba": dict(intermediate_size=32, num_attention_heads=2, num_key_value_heads=2, num_experts=2,
                      attn_layer_period=2, attn_layer_offset=1, mamba_d_state=4, mamba_dt_rank=4),
        "Mamba2": dict(state_size=4, num_heads=4, head_dim=8, n_groups=2, eos_token_id=None),
    }.get(kind, dict(state_size=4, eos_token_id=None))
    sizes = dict(vocab_size=50, hidden_size=16, num_hidden_layers=2, pad_token_id=0)
    model = getattr(transformers, kind + "ForCausalLM")(getattr(transformers, kind + "Config")(**sizes, **own))
    with torch.no_grad():  # so that no gradient is small because a weight is
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.to(device)

def run(kind):
    found, tokens = {}, torch.arange(2, 24, device=device).reshape(2, 11)
    # trained, the two paths of FalconMamba are two models: one normalises before Δ's projection and one after it
    for training in (True, False)[kind == "FalconMamba":]:
        model = build(kind).train(training)
        output = model(tokens, labels=tokens, use_cache=False)
        output.loss.backward()
        found[training, "logits"] = output.logits.detach()
        found |= {(training, name): p.grad for name, p in model.named_parameters() if p.grad is not None}
    found["tokens"] = model.generate(tokens, max_new_tokens=5, do_sample=False, use_cache=True)
    return found

def distance(found, right):
    assert found.keys() == right.keys()
    return max(((found[k] - r).abs().max() / r.abs().max()).item() for k, r in right.items() if k != "tokens")

right_adjoint = operators.selective_scan_backward
def wrong_adjoint(*args, **kwargs):
    found = right_adjoint(*args, **kwargs)
    return found._replace(delta=1.01 * found.delta)

MODULES = {"Mamba": "mamba", "FalconMamba": "falcon_mamba", "Jamba": "jamba", "Mamba2": "mamba2"}
for kind in kinds:
    slow, module = run(kind), MODULES[kind]
    name = f"transformers.models.{module}.modeling_{module}"
    del sys.modules[name]
    ours.install()
    setattr(transformers, kind + "ForCausalLM", getattr(importlib.import_module(name), kind + "ForCausalLM"))
    with Count() as count:
        fast = run(kind)
    assert torch.equal(fast["tokens"], slow["tokens"]), kind
    scans = sum("ssm_edu.selective_scan.default" in call for call in count.calls)
    print(kind, scans, distance(fast, slow))
    if kind == "Mamba":
        operators.selective_scan_backward = wrong_adjoint
        print("wrong", scans, distance(run(kind), slow))
        operators.selective_scan_backward = right_adjoint
    ours.uninstall()
"""


@pytest.mark.parametrize(
    ("device", "kinds"),
    [
        ("cpu", ["Mamba", "FalconMamba", "Jamba", "Mamba2"]),
        pytest.param("cuda", ["Mamba", "FalconMamba"], marks=kernel_runs.on_a_gpu),
    ],
    ids=["cpu", "cuda"],
)
def test_hugging_faces_models_are_the_same_on_their_fast_path(device: str, kinds: list[str]) -> None:
    """Logits, gradients and generated tokens of small models with random weights, as on their slow path."""
    pytest.importorskip("transformers")
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", HUGGING_FACE, device, *kinds]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    rows = {kind: (int(scans), float(far)) for kind, scans, far in map(str.split, done.stdout.splitlines())}
    assert set(rows) == {*kinds, "wrong"}
    # float32, of which a gradient rounds some hundreds of times on its way through two layers
    tolerance = 1000 * 2**-24
    for kind, (scans, far) in rows.items():
        assert (far > tolerance) == (kind == "wrong"), (kind, far)
        assert (scans > 0) == (kind != "Mamba2"), kind
