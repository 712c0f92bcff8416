"""A step of decoding by one kernel, on PyTorch's tensors: on a GPU, or in the simulator on the CPU's memory."""

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest

from tests import kernel_runs

torch = pytest.importorskip("torch")
if kernel_runs.NEITHER:
    pytest.skip(kernel_runs.NEITHER, allow_module_level=True)

from ssm_kernels import decoding  # noqa: E402
from ssm_kernels.intrinsics import POINTEES  # noqa: E402

from ssm_edu import torch as ours  # noqa: E402
from ssm_edu.gpu import runtime  # noqa: E402
from ssm_edu.torch import device_step  # noqa: E402
from tests.kernel_runs import SIMULATED, in_the_simulator, on_a_gpu  # noqa: E402

DEVICE = "cpu" if SIMULATED else "cuda"


def at(address, dtype, count):
    """So many elements of memory, as the simulator's kernels take them."""
    bits = np.dtype(runtime.BITS.get(dtype, dtype))
    assert bits.name == str(POINTEES[dtype])
    return np.frombuffer((ctypes.c_char * (count * bits.itemsize)).from_address(address), bits)


def simulated_step(sizes, operands, y, delta_softplus, *, stream):
    """The kernel on the host's memory, none of it beyond what the tensors have."""
    batch, dim, state, group_B, group_C = sizes
    ends = dict.fromkeys(("u", "delta", "z"), (1, dim)) | {"B": (group_B, state), "C": (group_C, state)}
    ends |= {"h": (1, batch * dim * state), "A": (1, dim * state), "D": (1, dim), "delta_bias": (1, dim)}

    def flat(name, x):
        groups, last = ends[name]
        rows = 1 if name in ("h", "A", "D", "delta_bias") else batch
        return x._replace(buffer=at(x.buffer, x.dtype, (rows - 1) * x.row + (groups - 1) * x.group + last))

    found = {name: flat(name, x) for name, x in operands.items()}
    decoding.step(sizes, found, at(y, operands["u"].dtype, batch * dim), delta_softplus, stream=0)


@pytest.fixture
def on_the_host(monkeypatch):
    """In the simulator the kernel is given the CPU's tensors as a GPU's."""
    if SIMULATED:
        kernels = SimpleNamespace(Operand=decoding.Operand, Sizes=decoding.Sizes, step=simulated_step)
        monkeypatch.setattr(device_step, "import_module", lambda name: kernels)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=0))


def arguments(dtype, *, is_complex=False, heads=None, group=None, states=5, batch=3, weights=torch.float32):
    """As models have them: a step is a slice, maps are pieces of one projection, a head's A and bias are expanded."""
    generator = torch.Generator().manual_seed(0)
    dim = (6,) if heads is None else (heads, 4)
    number = torch.complex64 if is_complex else weights

    def normal(*shape, dtype=dtype):
        return torch.randn(shape, generator=generator, dtype=dtype)

    groups = () if group is None else (group,)
    maps = normal(batch, *groups, 2 * states + 3, dtype=number if is_complex else dtype)
    A = -torch.rand(dim if heads is None else (heads,), generator=generator, dtype=weights)
    A = (A[:, None] if heads is None else A[:, None, None]).expand(*dim, states)
    A = torch.complex(A, A.flip(0)).to(number) if is_complex else A
    tensors = {
        "x": normal(batch, *dim, 2)[..., 0],
        "dt": normal(batch, *dim),
        "A": A,
        "B": maps[..., 3 : 3 + states],
        "C": maps[..., 3 + states :].conj() if is_complex else maps[..., 3 + states :],
        "D": normal(*dim, dtype=weights),
        "z": normal(batch, 2 * dim[0], *dim[1:])[:, dim[0] :],
        "dt_bias": normal(dim[0], dtype=weights)[:, None].expand(dim) if heads else normal(*dim, dtype=weights),
    }
    return normal(batch, *dim, states, dtype=number if is_complex else torch.float32), tensors


CASES = {
    "float32": (torch.float32, {}),
    "bfloat16": (torch.bfloat16, {}),
    "bfloat16, its weights too": (torch.bfloat16, {"weights": torch.bfloat16}),
    "float16, groups": (torch.float16, {"group": 2}),
    "float32, heads": (torch.float32, {"heads": 4, "group": 2}),
    "one group, named": (torch.float32, {"group": 1, "batch": 1}),
    "complex": (torch.float32, {"is_complex": True, "group": 3}),
    "one state": (torch.float32, {"states": 1}),
}


def updated(function, state, tensors, without=()):
    state = state.clone()
    given = {name: x for name, x in tensors.items() if name not in without}
    version = state._version
    y = function(state, given)
    assert state._version > version
    return y.cpu(), state.cpu()


@pytest.mark.parametrize("without", [(), ("D", "z", "dt_bias")], ids=["", "nothing optional"])
@pytest.mark.parametrize("name", CASES)
def test_one_kernel_does_what_pytorchs_operators_do(name, without, on_the_host):
    dtype, options = CASES[name]
    state, tensors = arguments(dtype, **options)
    right = updated(lambda h, given: ours.selective_state_update(h, **given, dt_softplus=True), state, tensors, without)
    there = {key: x.to(DEVICE) for key, x in tensors.items()}
    found = updated(lambda h, given: device_step.step(h, given, True), state.to(DEVICE), there, without)
    rounding = 2.0 ** -{torch.float32: 18, torch.float16: 9, torch.bfloat16: 6}[dtype]
    for left, expected in zip(found, right, strict=True):
        assert left.dtype == expected.dtype
        # both compute in float32, where a GPU's eˣ has some units more, and round y once; in y a few terms may cancel
        torch.testing.assert_close(left, expected, rtol=rounding, atol=rounding)


def test_a_step_in_inference_mode(on_the_host):
    state, tensors = arguments(torch.float32)
    right = updated(lambda h, given: ours.selective_state_update(h, **given), state, tensors)
    with torch.inference_mode():
        h = state.to(DEVICE, copy=True)
        y = device_step.step(h, {key: x.to(DEVICE) for key, x in tensors.items()}, False)
        for left, expected in zip((y, h), right, strict=True):
            torch.testing.assert_close(left.cpu(), expected, rtol=2**-18, atol=2**-18)


@on_a_gpu
@pytest.mark.parametrize("name", CASES)
def test_a_step_on_a_gpu_is_one_kernel(name, monkeypatch):
    dtype, options = CASES[name]
    state, tensors = arguments(dtype, **options)
    state, tensors = state.cuda(), {key: x.cuda() for key, x in tensors.items()}
    steps, step = [], device_step.step
    monkeypatch.setattr(device_step, "step", lambda *given: steps.append(given) or step(*given))
    ours.selective_state_update(state, **tensors)
    assert len(steps) == 1


def test_what_the_kernel_does_not_serve(monkeypatch):
    state, tensors = arguments(torch.float32)
    assert not device_step.serves(state, tensors)  # on the CPU
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(device_step, "has_kernels", lambda: True)
    assert device_step.serves(state, tensors)
    assert not device_step.serves(state.mT.contiguous().mT, tensors)
    assert not device_step.serves(state, tensors | {"x": tensors["x"].double()})
    assert not device_step.serves(state, tensors | {"B": tensors["B"].double()})
    assert not device_step.serves(state[:0], tensors)
    assert not device_step.serves(state._neg_view(), tensors)
    with torch.utils._python_dispatch.TorchDispatchMode():
        assert not device_step.serves(state, tensors)
    asked = []
    torch.vmap(lambda h: asked.append(device_step.serves(h, tensors)) or h)(state)
    assert asked == [False]


@in_the_simulator
def test_rows_and_groups_are_told_as_they_lie(on_the_host, monkeypatch):
    """A glue that takes every row to be dense is noticed."""
    dtype, options = CASES["float16, groups"]
    state, tensors = arguments(dtype, **options)
    right = updated(lambda h, given: ours.selective_state_update(h, **given), state, tensors)

    def dense(buffer, dtype, row=0, group=0):
        return decoding.Operand(buffer, dtype, min(row, 10), group)

    monkeypatch.setattr(device_step.import_module(""), "Operand", dense)
    found = updated(lambda h, given: device_step.step(h, given, False), state, tensors)
    assert not torch.allclose(found[1], right[1], rtol=1e-2, atol=1e-2)
