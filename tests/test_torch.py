"""PyTorch's `selective_scan_fn`: numbers and gradients, autograd, torch.compile, autocast and errors.

On the GPU where kernels run on one, else on the CPU.
"""

from __future__ import annotations

import itertools
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given

import ssm_edu
from tests.problems import GRID_LENGTHS, GRID_TOLERANCES, NIGHTLY, arguments, random_arguments

torch = pytest.importorskip("torch")

from torch.autograd import forward_ad  # noqa: E402
from torch.autograd.gradcheck import GradcheckError  # noqa: E402

from ssm_edu import torch as ours  # noqa: E402
from ssm_edu.gpu import runtime  # noqa: E402
from ssm_edu.testing import conformance_tests  # noqa: E402
from ssm_edu.torch import operators  # noqa: E402
from ssm_edu.torch.arguments import check_tensors  # noqa: E402


def has_kernels() -> bool:
    try:
        return torch.cuda.is_available() and not runtime.is_simulated()
    except (ImportError, RuntimeError):
        return False


DEVICE, BACKEND = ("cuda", "cuda") if has_kernels() else ("cpu", "auto")
on_the_cpu = pytest.mark.skipif(
    DEVICE == "cuda", reason="holds on the CPU, whose backend has one kernel for all dtypes"
)
# what judges a GPU on the grid: in double precision within some 1e-12 of the reference, and fifteen times as fast
JUDGE = "reference" if DEVICE == "cpu" else "numba"
# of the magnitudes that ∂delta_bias adds up: with a GPU's eˣ large terms may cancel to less than float32 keeps of them,
# as in mamba_ssm's formula in float32, which is 0.021 off where 2.27 is left of 25,490
CANCELLED = 0 if DEVICE == "cpu" else 2.0**-20
TOLERANCES = GRID_TOLERANCES | {"bfloat16": (3e-2, 5e-2)}
FLAGS = ("delta_bias", "delta_softplus", "z", "D")
# whether B varies, whether C does, and their groups
MAPS = ((False, False, 1), (False, True, 1), (True, False, 1), (True, True, 1), (True, True, 2))
OPTIONS = list(itertools.product(itertools.product((False, True), repeat=len(FLAGS)), MAPS))
GRID = list(itertools.product(TOLERANCES, (False, True), GRID_LENGTHS))
# every short length with all dtypes, every long one with one of them in turn
THINNED = [
    (d, c, n) for i, (d, c, n) in enumerate(GRID) if n <= 64 or i // len(GRID_LENGTHS) == GRID_LENGTHS.index(n) % 6
]


def tensor(array: Any, requires_grad: bool = True) -> Any:
    """A leaf of its own memory, recorded for gradients if it can be."""
    made = torch.from_numpy(np.array(array)).to(DEVICE)
    return made.requires_grad_(requires_grad and (made.is_floating_point() or made.is_complex()))


def tensors(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: tensor(value) if isinstance(value, np.ndarray) else value for name, value in kwargs.items()}


def host(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy()


def leaves(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if getattr(value, "requires_grad", False)}


def interleaved(M: np.ndarray) -> np.ndarray:
    return np.stack([M.real, M.imag], axis=-1).reshape(*M.shape[:-1], 2 * M.shape[-1])


# Numbers


def grid_point(
    dtype: str, is_complex: bool, length: int, flags: tuple[bool, ...], maps: tuple[bool, bool, int]
) -> dict[str, Any]:
    """A point of mamba_ssm's own test grid in its own layout."""
    generator = torch.Generator().manual_seed(0)
    on = dict(zip(FLAGS, flags, strict=True))
    batch, dim, state, narrow = 2, 4, 8, getattr(torch, dtype)
    wide = torch.complex64 if is_complex else torch.float32

    def normal(*shape: int, dtype: Any = narrow) -> Any:
        return torch.randn(shape, generator=generator, dtype=dtype)

    def uniform(*shape: int, dtype: Any = narrow) -> Any:
        return 0.5 * torch.rand(shape, generator=generator, dtype=dtype)

    def map_(varies: bool, groups: int) -> Any:
        if not varies:
            return normal(dim, state, dtype=wide)
        return normal(*((batch, state) if groups == 1 else (batch, groups, state)), length * (2 if is_complex else 1))

    kwargs = {
        "u": normal(batch, dim, length),
        "delta": uniform(batch, dim, length),
        "A": -uniform(dim, state, dtype=wide),
        "B": map_(maps[0], maps[2]),
        "C": map_(maps[1], maps[2]),
        "D": normal(dim, dtype=torch.float32) if on["D"] else None,
        "z": normal(batch, dim, length) if on["z"] else None,
        "delta_bias": uniform(dim, dtype=torch.float32) if on["delta_bias"] else None,
    }
    kwargs = {n: None if value is None else value.to(DEVICE).requires_grad_() for n, value in kwargs.items()}
    return kwargs | {"delta_softplus": on["delta_softplus"]}


def exact(kwargs: dict[str, Any], grad_y: Any) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """y, the last state and the gradients of the same inputs by the reference, in mamba_ssm's layout."""
    wide: dict[str, Any] = {}
    for name, value in kwargs.items():
        if not isinstance(value, torch.Tensor):
            wide[name] = value
            continue
        value = value.detach()
        wide[name] = host(value.to(torch.complex128 if value.is_complex() else torch.float64))
        if name in ("B", "C") and value.ndim > 2 and kwargs["A"].is_complex() and not value.is_complex():
            wide[name] = wide[name][..., ::2] + 1j * wide[name][..., 1::2]
    y, last = ssm_edu.selective_scan(**wide, return_last_state=True, backend=JUDGE)
    found = ssm_edu.selective_scan_backward(host(grad_y.double()), **wide, backend=JUDGE)._asdict()
    for name in ("B", "C"):
        if wide[name].shape != tuple(kwargs[name].shape):
            found[name] = interleaved(found[name])
    return y, last, {name: gradient for name, gradient in found.items() if gradient is not None}


def assert_on_grid(scan: Any, dtype: str, is_complex: bool, length: int, flags: Any, maps: Any) -> None:
    """mamba_ssm's own tolerances, against double precision."""
    kwargs = grid_point(dtype, is_complex, length, flags, maps)
    rtol, atol = TOLERANCES[dtype]
    weights = (max(1e-3, rtol), max(1e-3, atol)) if kwargs["z"] is not None else (1e-3, 1e-3)
    y, last = scan(**kwargs, return_last_state=True)
    assert torch.equal(scan(**kwargs), y)
    grad_y = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float32).to(y)
    y.backward(grad_y)
    exact_y, exact_last, gradients = exact(kwargs, grad_y)

    def close(name: str, value: Any, right: np.ndarray, rtol: float, atol: Any) -> None:
        assert value.dtype == (kwargs["A"].dtype if name == "last_state" else kwargs.get(name, kwargs["u"]).dtype), name
        value = host(value.to(torch.complex128 if value.is_complex() else torch.float64))
        allowed = atol + rtol * np.abs(right)
        np.testing.assert_array_less(np.abs(value - right), allowed, err_msg=f"{name} of {flags}, {maps}")

    close("y", y, exact_y, rtol, atol)
    close("last_state", last, exact_last, rtol, atol)
    factors = {"u": (2, 2), "delta": (5, 10)}
    for name, right in gradients.items():
        value = kwargs[name]
        if name in factors:
            by = (factors[name][0] * rtol, factors[name][1] * atol)
        elif name == "A":
            by = (weights[0], 5 * weights[1])
        else:
            by = (rtol, atol) if value.ndim > 2 else weights
        if name == "delta_bias":
            by = (by[0], by[1] + CANCELLED * np.abs(gradients["delta"]).sum((0, 2)))
        close(name, value.grad, right, *by)


@pytest.mark.parametrize(("dtype", "is_complex", "length"), GRID if NIGHTLY else THINNED)
def test_the_grid_of_mamba_ssm(dtype: str, is_complex: bool, length: int) -> None:
    """All of it nightly; otherwise each takes other options in turn, more of them the shorter it is."""
    first, share = 7 * GRID.index((dtype, is_complex, length)), max(1, 128 // length)
    share = share if DEVICE == "cpu" else 1  # each needs kernels of its own, which are compiled first
    # all of them in an order of its own: processes side by side then compile other kernels
    shuffled = random.Random(first).sample(OPTIONS, len(OPTIONS))
    for options in shuffled if NIGHTLY else [OPTIONS[(first + 37 * k) % len(OPTIONS)] for k in range(share)]:
        assert_on_grid(ours.selective_scan_fn, dtype, is_complex, length, *options)


def test_the_grid_sees_a_wrong_gradient() -> None:
    def wrong(**kwargs: Any) -> Any:
        biased = 1.05 * kwargs["delta_bias"] - 0.05 * kwargs["delta_bias"].detach()
        return ours.selective_scan_fn(**kwargs | {"delta_bias": biased})

    with pytest.raises(AssertionError, match="delta_bias"):
        assert_on_grid(wrong, "float32", False, 64, (True,) * len(FLAGS), (True, True, 1))


def through_autograd(grad_y: Any, *args: Any, grad_last_state: Any = None, **kwargs: Any) -> dict[str, Any]:
    names = ("u", "delta", "A", "B", "C")
    given = dict(zip(names, args, strict=False)) | kwargs
    recorded = {n: v.detach().clone().requires_grad_() for n, v in given.items() if n in operators.DIFFERENTIABLE}
    y, last = ours.selective_scan_fn(**(given | recorded), return_last_state=True)
    outputs, cotangents = [y], [grad_y]
    if grad_last_state is not None:
        outputs.append(last)
        cotangents.append(grad_last_state)
    gradients = torch.autograd.grad(outputs, list(recorded.values()), cotangents)
    return dict(zip(recorded, gradients, strict=True))


test_conformance = conformance_tests(
    ours.selective_scan_fn,
    through_autograd,
    framework="torch",
    dtype="float64",
    device=DEVICE,
    algorithm="tree" if DEVICE == "cpu" else "any",
    max_examples=3 if DEVICE == "cpu" else 1,
    without=() if DEVICE == "cpu" else ("many_states",),
)


@on_the_cpu
def test_narrow_inputs_are_computed_with_in_float32_and_rounded_once() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        kwargs = tensors(random_arguments(0, dtype="float32", length=40))
        narrow = {name: value.detach() for name, value in leaves(kwargs).items()}
        narrow |= {name: narrow[name].to(dtype) for name in ("u", "delta", "B", "C", "z")}
        wide = {name: value.float() for name, value in narrow.items()}
        y, last = ours.selective_scan_fn(**narrow, delta_softplus=True, return_last_state=True)
        exact_y, exact_last = ours.selective_scan_fn(**wide, delta_softplus=True, return_last_state=True)
        assert torch.equal(y, exact_y.to(dtype))
        assert torch.equal(last, exact_last)
        grad_y = torch.ones_like(y)
        found = through_autograd(grad_y, **narrow, delta_softplus=True)
        for name, right in through_autograd(grad_y.float(), **wide, delta_softplus=True).items():
            assert torch.equal(found[name], right.to(narrow[name].dtype)), name


# Autograd


def differentiated(kwargs: dict[str, Any]) -> bool:
    recorded = leaves(kwargs)

    def scan(*values: Any) -> Any:
        return ours.selective_scan_fn(**kwargs | dict(zip(recorded, values, strict=True)), return_last_state=True)

    # of functions of order 1 to 100: central differences over 1e-6 err by roundoff / 1e-6 = 1e-10 of these
    return torch.autograd.gradcheck(scan, tuple(recorded.values()), rtol=1e-6, atol=1e-7)


CHECKED = [
    {},
    {"is_complex": True},
    {"packed": True, "groups_B": 2},
    {"is_complex": True, "packed": True, "groups_B": None, "groups_C": 2, "initial_state": False},
    {"D": False, "z": False, "delta_bias": False, "groups_C": None},
    {"is_complex": True, "delta_softplus": False, "complex_maps": False},
    {"discretization": "zoh", "is_complex": True},
    {"discretization": "bilinear", "delta_softplus": False},
]


@pytest.mark.parametrize("options", CHECKED)
def test_gradcheck_in_float64(options: dict[str, Any]) -> None:
    assert differentiated(tensors(random_arguments(0, batch=1, dim=2, length=2, state=2, **options)))


def test_gradcheck_of_interleaved_maps() -> None:
    kwargs = random_arguments(1, batch=1, dim=1, length=2, state=2, is_complex=True)
    assert differentiated(tensors(kwargs | {name: interleaved(kwargs[name]) for name in ("B", "C")}))


@pytest.mark.parametrize("field", operators.DIFFERENTIABLE)
def test_gradcheck_sees_a_wrong_gradient(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = operators.selective_scan_backward

    def wrong(*args: Any, **kwargs: Any) -> Any:
        found = right(*args, **kwargs)
        return found._replace(**{field: 1.001 * getattr(found, field)})

    kwargs = tensors(random_arguments(2, batch=1, dim=1, length=2, state=1))
    monkeypatch.setattr(operators, "selective_scan_backward", wrong)
    with pytest.raises(GradcheckError):
        differentiated(kwargs)


@on_the_cpu
@given(arguments())
def test_interleaved_maps_are_the_complex_ones(kwargs: dict[str, Any]) -> None:
    varying = [n for n in ("B", "C") if np.iscomplexobj(kwargs[n]) and kwargs[n].ndim > 2]
    pairs = {name: interleaved(kwargs[name]) for name in varying}
    plain, paired = tensors(kwargs), tensors(kwargs | pairs)
    y, found = ours.selective_scan_fn(**plain), ours.selective_scan_fn(**paired)
    assert torch.equal(y, found)
    y.sum().backward()
    found.sum().backward()
    for name, value in leaves(plain).items():
        right = interleaved(host(value.grad)) if name in pairs else host(value.grad)
        np.testing.assert_array_equal(host(paired[name].grad), right)


def test_a_gradient_through_the_last_state_alone() -> None:
    kwargs = tensors(random_arguments(3))
    _, last = ours.selective_scan_fn(**kwargs, return_last_state=True)
    (2 * last).sum().backward()
    plain = {n: host(v) if isinstance(v, torch.Tensor) else v for n, v in kwargs.items()}
    both = {"grad_y": np.zeros(plain["u"].shape), "grad_last_state": np.full(last.shape, 2.0)}
    for name, right in ssm_edu.selective_scan_backward(**both, **plain, backend=BACKEND)._asdict().items():
        np.testing.assert_array_equal(host(kwargs[name].grad), right)


def test_there_is_no_second_derivative() -> None:
    kwargs = tensors(random_arguments(0))
    (gradient,) = torch.autograd.grad(ours.selective_scan_fn(**kwargs).sum(), kwargs["u"], create_graph=True)
    with pytest.raises(NotImplementedError, match="gradient of a gradient"):
        gradient.sum().backward()


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # which torch.func uses itself
def test_there_is_no_forward_mode_one() -> None:
    """PyTorch by itself takes the tangent of an operator that has none for zero, and says nothing."""
    u, rest = one_input()

    def scan(u: Any) -> Any:
        return ours.selective_scan_fn(u=u, **rest)

    def inner(xz: Any) -> Any:
        maps = (torch.ones(2, 1, 3), None, torch.ones(5, 2), torch.ones(2, 1), torch.ones(4, 2), None)
        return ours.mamba_inner_fn(xz, *(x if x is None else x.to(xz) for x in maps), -torch.ones(2, 2).to(xz))

    for function, x in ((scan, u), (inner, torch.ones(2, 4, 5, dtype=torch.float64, device=DEVICE))):
        with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
            torch.func.jvp(function, (x,), (torch.ones_like(x),))
        with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
            torch.func.jacfwd(function)(x)
        with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="no forward-mode derivative"):
            function(forward_ad.make_dual(x, torch.ones_like(x)))
    torch.compiler.reset()
    with pytest.raises(Exception, match="no forward-mode derivative"):
        torch.compile(lambda u: torch.func.jvp(scan, (u,), (u,)), fullgraph=True, backend="aot_eager")(u)


def one_input() -> tuple[Any, dict[str, Any]]:
    """u, and all other arguments, none of them recorded."""
    kwargs = {n: v.detach() if torch.is_tensor(v) else v for n, v in tensors(random_arguments(0, packed=True)).items()}
    return kwargs.pop("u"), kwargs


def test_torch_func_takes_it() -> None:
    u, rest = one_input()

    def scan(u: Any) -> Any:
        return ours.selective_scan_fn(u=u, **rest)

    recorded = u.clone().requires_grad_()
    (right,) = torch.autograd.grad(scan(recorded).sum(), recorded)
    assert torch.equal(torch.func.grad(lambda u: scan(u).sum())(u), right)
    assert torch.equal(torch.func.vjp(scan, u)[1](torch.ones_like(u))[0], right)
    # as many roundings in double precision as there are outputs, in another order
    torch.testing.assert_close(torch.func.jacrev(scan)(u).sum((0, 1, 2)), right, rtol=1e-12, atol=1e-12)
    many = torch.stack([u, 2 * u, -u])
    assert torch.equal(torch.vmap(scan)(many), torch.stack([scan(each) for each in many]))
    assert torch.equal(torch.vmap(scan, 1, 1)(many.movedim(0, 1))[:, 2], scan(-u))
    assert torch.equal(torch.vmap(torch.func.grad(lambda u: scan(u).sum()))(many)[1], right)  # linear in u
    with pytest.raises(NotImplementedError, match="gradient of a gradient"):
        torch.func.grad(lambda u: torch.func.grad(lambda u: scan(u).sum())(u).sum())(u)


def test_inputs_that_lie_strangely() -> None:
    kwargs = {n: v.detach() if isinstance(v, torch.Tensor) else v for n, v in tensors(random_arguments(4)).items()}
    strange = {n: v.mT.contiguous().mT if getattr(v, "ndim", 0) > 1 else v for n, v in kwargs.items()}
    strange["u"] = torch.stack([kwargs["u"]] * 2, dim=-1)[..., 0]
    conjugate = {
        n: v.conj().resolve_conj().conj() if torch.is_tensor(v) and v.is_complex() else v for n, v in strange.items()
    }
    assert torch.equal(ours.selective_scan_fn(**conjugate), ours.selective_scan_fn(**kwargs))
    hollow = kwargs | {name: kwargs[name][..., :0] for name in ("u", "delta", "z", "B", "C")}
    y, last = ours.selective_scan_fn(**hollow, return_last_state=True)
    assert y.shape == hollow["u"].shape
    assert torch.equal(last, kwargs["initial_state"])


# torch.compile and autocast


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_without_a_break_it_is_the_same(is_complex: bool, dynamic: bool) -> None:
    def layer(kwargs: dict[str, Any]) -> Any:
        y, last = ours.selective_scan_fn(**kwargs, return_last_state=True)
        return y * 2, last

    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for length in (5, 6):
        kwargs = random_arguments(length, length=length, dtype="float32", is_complex=is_complex, packed=True)
        if is_complex:
            kwargs |= {name: interleaved(kwargs[name]) for name in ("B", "C")}
        eager, traced = tensors(kwargs), tensors(kwargs)
        outputs = layer(eager), compiled(traced)
        for right, found in zip(*outputs, strict=True):
            assert torch.equal(right, found)
        for y, last in outputs:
            (y.sum() + last.abs().sum()).backward()
        for name, value in leaves(eager).items():
            assert torch.equal(value.grad, traced[name].grad), name


@pytest.mark.parametrize("options", CHECKED)
def test_the_operators_keep_their_promises(options: dict[str, Any]) -> None:
    """PyTorch's own check: the schema, no aliases, what tracing is told of shapes, strides and dtypes."""
    kwargs = tensors(random_arguments(0, batch=1, length=4, **options))
    inputs = [kwargs.get(name) for name in operators.ARRAYS]
    scalars = [kwargs["delta_softplus"], kwargs["discretization"]]
    saving = kwargs["u"].device.type == "cpu"  # on a GPU what is traced saves none
    torch.library.opcheck(operators.scan, (*inputs, *scalars, saving))
    given = *operators.scan(*inputs, *scalars, False), *inputs
    plain = [None if value is None else value.detach() for value in given]
    torch.library.opcheck(operators.scan_backward, (*plain, *scalars))


def test_meta_tensors_have_shapes() -> None:
    kwargs = {n: v.to("meta") if torch.is_tensor(v) else v for n, v in tensors(random_arguments(0)).items()}
    y, last = ours.selective_scan_fn(**kwargs, return_last_state=True)
    assert (y.device.type, y.shape, last.shape) == ("meta", kwargs["u"].shape, kwargs["initial_state"].shape)
    with pytest.raises(ValueError, match=r"B has shape \(2, 1, 3, 4\), expected \(batch, group, state, length\)"):
        ours.selective_scan_fn(**kwargs | {"B": kwargs["B"][..., 1:]})
    with pytest.raises(TypeError, match="delta has dtype float32, expected float64"):
        ours.selective_scan_fn(**kwargs | {"delta": kwargs["delta"].float()})
    plain = {n: v.detach() if torch.is_tensor(v) else v for n, v in kwargs.items()}
    inputs = [*(plain.get(name) for name in operators.ARRAYS), True, "mamba"]
    with pytest.raises(ValueError, match="grad_y has shape"):
        operators.scan_backward(plain["u"][..., 1:], None, plain["u"].new_empty(0), *inputs)


@on_the_cpu
def test_states_are_saved_where_gradients_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """And come to the adjoint. The tensors are taken for a GPU's, and the kernels' part is the reference's."""
    seen: list[Any] = []
    marked = torch.full((3,), 2.0)

    def numbers(arrays: dict[str, Any]) -> dict[str, Any]:
        return {name: host(value) for name, value in arrays.items()}

    def saving(arrays: dict[str, Any], **options: Any) -> Any:
        found = ssm_edu.selective_scan(**numbers(arrays), **options, return_last_state=True)
        return *map(torch.from_numpy, found), marked

    def adjoint(arrays: dict[str, Any], saved: Any, **options: Any) -> Any:
        seen.append(saved)
        found = ssm_edu.selective_scan_backward(**numbers(arrays), **options)
        return found._replace(**{n: torch.from_numpy(x) for n, x in found._asdict().items() if x is not None})

    kwargs = tensors(random_arguments(0, dtype="float64"))
    right = ours.selective_scan_fn(**kwargs)
    expected = torch.autograd.grad(right.sum(), list(leaves(kwargs).values()))
    door = SimpleNamespace(scan_saving_states=saving, differentiate_device_arrays=adjoint)
    monkeypatch.setattr(operators, "gpu", door)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    y = ours.selective_scan_fn(**kwargs)
    for found, exact in zip(torch.autograd.grad(y.sum(), list(leaves(kwargs).values())), expected, strict=True):
        assert torch.equal(found, exact)
    assert len(seen) == 1
    assert torch.equal(seen[0], marked)
    with monkeypatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        assert not operators.saves(kwargs)
    with torch.utils._python_dispatch.TorchDispatchMode():
        assert not operators.saves(kwargs)
    assert operators.saves({"u": kwargs["u"], "D": None})
    door.scan_saving_states = lambda *_, **__: pytest.fail("nothing is recorded")
    monkeypatch.setattr(operators, "selective_scan", lambda **_: (right.detach().clone(), right.detach().clone()))
    with torch.no_grad():
        assert torch.equal(ours.selective_scan_fn(**kwargs), right)
    still = {n: v.detach() if torch.is_tensor(v) else v for n, v in kwargs.items()}
    assert torch.equal(ours.selective_scan_fn(**still), right)


@pytest.mark.parametrize("is_complex", [False, True])
def test_autocast_brings_dtypes_together(is_complex: bool) -> None:
    """The inputs to the widest of theirs, the parameters to float32; the gradients come back in their own."""
    kwargs = random_arguments(0, dtype="float32", is_complex=is_complex, complex_maps=False)
    narrow = {n: v.detach().bfloat16() for n, v in leaves(tensors(kwargs)).items() if not v.is_complex()}
    own = tensors(kwargs) | {n: v.requires_grad_() for n, v in narrow.items()}
    wide = {n: v.detach().float().requires_grad_() if n in narrow else v for n, v in tensors(kwargs).items()}
    wide |= {n: own[n].detach().float().requires_grad_() for n in narrow}
    inputs = {n: wide[n].detach().bfloat16() for n in ("u", "delta", "B", "C", "z")}
    with torch.autocast(DEVICE, torch.bfloat16):
        y = ours.selective_scan_fn(**own)
        mixed = ours.selective_scan_fn(**own | {"delta": wide["delta"]})
        compiled = torch.compile(ours.selective_scan_fn, fullgraph=True, backend="aot_eager")(**own)
    assert torch.equal(y, compiled)
    assert torch.equal(y, ours.selective_scan_fn(**wide | inputs))
    assert torch.equal(mixed, ours.selective_scan_fn(**wide))
    mixed.sum().backward()
    ours.selective_scan_fn(**wide).sum().backward()
    for name, value in leaves(own).items():
        if name != "delta":
            assert torch.equal(value.grad, wide[name].grad.to(value.dtype)), name
    with pytest.raises(TypeError, match="delta has dtype float32, expected bfloat16"):
        ours.selective_scan_fn(**own | {"delta": wide["delta"]})


# Errors


def test_what_is_no_dense_tensor_is_named() -> None:
    """Where no annotation is checked before."""
    one = torch.ones(1)
    for wrong, message in (
        (np.ones(1), "x is a ndarray, expected a torch.Tensor"),
        (None, "x is a NoneType, expected a torch.Tensor"),
        (one.to_sparse(), "x is a sparse_coo tensor, expected a dense one"),
    ):
        with pytest.raises(TypeError, match=message):
            check_tensors("u", {"u": one, "x": wrong}, required="x")
    check_tensors("u", {"u": one, "x": None}, required="")


@on_the_cpu
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"u": lambda u: u.numpy()}, TypeError, "u"),
        ({"delta": lambda u: None}, TypeError, "delta"),
        (
            {"delta": lambda u: u.double()},
            TypeError,
            "delta has dtype float64, expected float32, as u has dtype float32",
        ),
        ({"A": lambda u: u.bfloat16()}, TypeError, "A has dtype bfloat16, expected float32 or complex64"),
        ({"D": lambda u: u.half()}, TypeError, "D has dtype float16, expected float32"),
        ({"u": lambda u: u.int()}, TypeError, "u has dtype int32"),
        ({"z": lambda u: u.to("meta")}, ValueError, "z is on meta, expected cpu, where u is"),
        ({"B": lambda u: u.to_sparse()}, TypeError, "B is a sparse_coo tensor, expected a dense one"),
        (
            {"u": lambda u: torch.nested.nested_tensor(list(u), layout=torch.jagged)},
            TypeError,
            "u is a nested tensor, expected a dense one",
        ),
        ({"z": lambda u: u[..., 1:]}, ValueError, r"z has shape \(2, 4, 4\), expected \(batch, dim, length\) = "),
        ({"B": lambda u: u[:, :, None].expand(2, 1, 3, 3, 5)}, ValueError, "B has shape"),
        ({"A": lambda u: u * torch.inf}, ValueError, "A is -inf"),
        ({"seq_idx": lambda u: u[:, 0] > 0}, TypeError, "seq_idx has dtype bool, expected an integer dtype"),
        ({"discretization": lambda u: "Zoh"}, ValueError, "discretization is 'Zoh'"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    kwargs = {
        n: v.detach() if torch.is_tensor(v) else v for n, v in tensors(random_arguments(0, dtype="float32")).items()
    }
    for name, make in change.items():
        kwargs[name] = make(kwargs["u"] if name == "seq_idx" else kwargs[name])
    with pytest.raises(error, match=message):
        ours.selective_scan_fn(**kwargs)


def test_a_wrongly_interleaved_map_is_named() -> None:
    kwargs = tensors(random_arguments(0, dtype="float32", is_complex=True, complex_maps=False))
    long = torch.cat([kwargs["B"]] * 3, dim=-1)
    with pytest.raises(ValueError, match=r"B has shape \(2, 1, 3, 15\) beside u's \(2, 4, 5\), .* 2·length"):
        ours.selective_scan_fn(**kwargs | {"B": long})
    with pytest.raises(TypeError, match="C has dtype float64, expected float32"):
        ours.selective_scan_fn(**kwargs | {"C": torch.cat([kwargs["C"]] * 2, dim=-1).double()})
