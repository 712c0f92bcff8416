"""The door to the CUDA kernels: what goes in, on which stream and device, and what comes out, with a stand-in."""

from __future__ import annotations

import gc
import importlib
import inspect
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ssm_edu
from ssm_edu import bounds, gpu, selective
from ssm_edu.arrays import on_device
from ssm_edu.gpu import dlpack, libraries, runtime
from ssm_edu.selective import reference
from ssm_edu.selective.problem import make_problem
from ssm_edu.testing.frameworks import get_framework
from tests import stand_in_kernels as stand_in
from tests.device_arrays import Cuda, Exchanged, Interfaced, Ndarray, NumbaArray, Tensor, cupy_module, torch_module
from tests.problems import arguments, random_arguments

Wrap = Callable[[np.ndarray], Any]
STREAM = 7000  # of the pretended libraries, plus the device
CACHES = (runtime.device_count, runtime.numba_stream, libraries._library, libraries._library_of)


@pytest.fixture(scope="module", autouse=True)
def stand_in_for_kernels() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "kernels", lambda: stand_in)
        yield


def pretend(patch: pytest.MonkeyPatch, devices: int) -> Cuda:
    cuda = Cuda(devices)
    target = type("Target", (), {"SIMULATED": False, "cuda": cuda})
    patch.setattr(runtime, "target", lambda: target)
    patch.setitem(sys.modules, "torch", torch_module(STREAM))
    patch.setitem(sys.modules, "cupy", cupy_module(STREAM))
    for cached in CACHES:
        cached.cache_clear()
    stand_in.calls.clear()
    return cuda


SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") != "0"
in_the_simulator = pytest.mark.skipif(not SIMULATED, reason="the stand-in reads the simulator's arrays, not a GPU's")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cuda]:
    """One device of pretence."""
    yield pretend(monkeypatch, 1)
    clear_caches()


@pytest.fixture
def two_devices(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cuda]:
    yield pretend(monkeypatch, 2)
    clear_caches()


def clear_caches() -> None:
    for cached in CACHES:
        cached.cache_clear()


def simulated(array: np.ndarray) -> list[Any]:
    return [simulated_array(array)] if SIMULATED else []


def simulated_array(array: np.ndarray) -> Any:
    from numba import cuda

    return cuda.to_device(array)


SIMULATED_ARRAY = pytest.param(simulated_array, marks=in_the_simulator)


def on(wrap: Wrap, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments with every array in a library's; seq_idx in int32."""
    return {
        name: wrap(value.astype(np.int32) if name == "seq_idx" else value) if isinstance(value, np.ndarray) else value
        for name, value in kwargs.items()
    }


def host(array: Any) -> np.ndarray:
    return array._ary if hasattr(array, "_ary") else array.array


def assert_same_scan(kwargs: dict[str, Any], wrap: Wrap, kind: type) -> None:
    """Outputs of this kind, that hold what the reference gives for NumPy's arrays."""
    y, last = ssm_edu.selective_scan(**on(wrap, kwargs), return_last_state=True)
    alone = ssm_edu.selective_scan(**on(wrap, kwargs))
    expected, expected_last = ssm_edu.selective_scan(**kwargs, return_last_state=True, backend="reference")
    for found, array in ((y, expected), (alone, expected), (last, expected_last)):
        assert type(found) is kind
        assert host(found).dtype == array.dtype
        np.testing.assert_array_equal(host(found), array)
    cotangents = {"grad_y": expected, "grad_last_state": expected_last}
    gradients = ssm_edu.selective_scan_backward(**on(wrap, kwargs | cotangents))
    expected_all = ssm_edu.selective_scan_backward(**kwargs, **cotangents, backend="reference")
    for name, array in expected_all._asdict().items():
        found = getattr(gradients, name)
        assert (found is None) == (array is None), name
        if array is not None:
            assert type(found) is kind
            np.testing.assert_array_equal(host(found), array, err_msg=name)


KINDS = {Tensor: Tensor, Ndarray: Ndarray, NumbaArray: NumbaArray, Interfaced: NumbaArray, Exchanged: NumbaArray}


def test_results_belong_to_the_library_of_u(cuda: Cuda) -> None:
    """A map, and with it its gradient, that is not PyTorch's."""
    kwargs = random_arguments(0, dtype="float32")
    mixed = on(Tensor, kwargs) | {"B": NumbaArray(kwargs["B"])}
    y = ssm_edu.selective_scan(**mixed)
    right = ssm_edu.selective_scan_backward(host(y), **kwargs, backend="reference")
    for name, gradient in ssm_edu.selective_scan_backward(y, **mixed)._asdict().items():
        assert type(gradient) is Tensor, name
        np.testing.assert_array_equal(host(gradient), getattr(right, name), err_msg=name)


@in_the_simulator
@given(arguments(dtype="float16") | arguments(dtype="float32") | arguments(dtype="float64"), st.integers(0, 2**32 - 1))
def test_numpy_goes_through_the_simulator_and_back(kwargs: dict[str, Any], seed: int) -> None:
    """Laid out strangely, and with labels of sequences that int32 does not hold."""
    strange = {
        name: np.repeat(np.asfortranarray(value), 2, axis=-1)[..., ::2] if isinstance(value, np.ndarray) else value
        for name, value in kwargs.items()
    }
    if "seq_idx" in strange:
        strange["seq_idx"] = strange["seq_idx"] * 2**40
    y, last = ssm_edu.selective_scan(**strange, return_last_state=True, backend="cuda")
    expected, expected_last = ssm_edu.selective_scan(**kwargs, return_last_state=True, backend="reference")
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(last, expected_last)
    cotangents = {"grad_y": expected, "grad_last_state": expected_last}
    found = ssm_edu.selective_scan_backward(**strange, **cotangents, backend="cuda")
    right = ssm_edu.selective_scan_backward(**kwargs, **cotangents, backend="reference")
    for name, array in right._asdict().items():
        np.testing.assert_array_equal(getattr(found, name), array, err_msg=name)


@in_the_simulator
@given(arguments(dtype="float16") | arguments(dtype="float32") | arguments(dtype="float64"))
def test_the_simulators_own_arrays_stay_its_own(kwargs: dict[str, Any]) -> None:
    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

    assert_same_scan(kwargs, simulated_array, FakeCUDAArray)


@pytest.mark.parametrize("wrap", KINDS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("is_complex", [False, True])
def test_arrays_of_every_library_come_back_as_that_librarys(
    wrap: Any, dtype: str, is_complex: bool, cuda: Cuda
) -> None:
    for seed, groups in enumerate([(1, 2), (None, 1), (4, None)]):
        kwargs = random_arguments(
            seed, dtype=dtype, is_complex=is_complex, packed=True, groups_B=groups[0], groups_C=groups[1]
        )
        assert_same_scan(kwargs, wrap, KINDS[wrap])


@pytest.mark.parametrize("wrap", KINDS)
def test_a_wrong_kernel_would_be_seen(wrap: Any, cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    write = stand_in.write
    monkeypatch.setattr(stand_in, "write", lambda array, buffer, dtype: write(array + 1, buffer, dtype))
    with pytest.raises(AssertionError):
        assert_same_scan(random_arguments(0), wrap, KINDS[wrap])


view_here = gpu._view


def elsewhere(name: str, *given: Any) -> Any:
    """Saved states are taken for another device's."""
    view = view_here(name, *given)
    return view._replace(device=7) if name == "saved" else view


@pytest.mark.parametrize("wrap", KINDS)
def test_states_that_are_saved_come_back_to_the_kernels(wrap: Any, cuda: Cuda) -> None:
    """Where there are any, in u's library; without them the gradients are the same."""
    for dtype, saving in (("float32", True), ("float64", False)):
        kwargs = random_arguments(0, dtype=dtype)
        arrays = on(wrap, {name: x for name, x in kwargs.items() if isinstance(x, np.ndarray)})
        told = tuple((name, x.shape, x.dtype.name) for name, x in kwargs.items() if isinstance(x, np.ndarray))
        assert gpu.saves_states(True, "mamba", told) == saving
        y, last, saved = gpu.scan_saving_states(arrays, True, "mamba")
        right = ssm_edu.selective_scan(**kwargs, return_last_state=True, backend="reference")
        for found, exact in zip((y, last), right, strict=True):
            np.testing.assert_array_equal(host(found), exact)
        assert (saved is not None) == saving
        assert saved is None or type(saved) is KINDS[wrap]
        stand_in.calls.clear()
        found = gpu.differentiate_device_arrays(arrays | {"grad_y": y}, True, "mamba", saved)
        assert ("saved states" in stand_in.calls) == saving
        exact = ssm_edu.selective_scan_backward(right[0], **kwargs, backend="reference")
        np.testing.assert_array_equal(host(found.delta), exact.delta)
        if saving:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(gpu, "_view", elsewhere)
                with pytest.raises(ValueError, match="saved is on device 7, expected 0"):
                    gpu.differentiate_device_arrays(arrays | {"grad_y": y}, True, "mamba", saved)
            with pytest.raises(ValueError, match=r"saved has shape \(2, 4, 5\) and .*, expected float32 \(2, 2, 4\)"):
                gpu.differentiate_device_arrays(arrays | {"grad_y": y}, True, "mamba", y)
            stand_in.calls.clear()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(stand_in, "saved_shape", lambda scan: None)
                gpu.differentiate_device_arrays(arrays | {"grad_y": y}, True, "mamba", saved)
            assert "saved states" not in stand_in.calls


def test_numpy_is_copied_to_a_device_and_back(cuda: Cuda) -> None:
    kwargs = random_arguments(0, dtype="float32", packed=True)
    y, last = ssm_edu.selective_scan(**kwargs, return_last_state=True, backend="cuda")
    expected, expected_last = ssm_edu.selective_scan(**kwargs, return_last_state=True, backend="reference")
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(last, expected_last)
    assert isinstance(y, np.ndarray)


def test_inputs_are_read_where_they_lie(cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    forward = stand_in.forward
    monkeypatch.setattr(stand_in, "forward", lambda scan, *a, **k: (seen.append(scan), forward(scan, *a, **k)))
    for wrap in KINDS:
        kwargs = on(wrap, random_arguments(0, packed=True))
        ssm_edu.selective_scan(**kwargs)
        for name, array in kwargs.items():
            if hasattr(array, "array"):
                assert getattr(seen[-1], name) == array.array.ctypes.data, (wrap, name)


def test_bfloat16_of_torch(cuda: Cuda) -> None:
    kwargs = random_arguments(0, dtype="float32")
    narrow = ("u", "delta", "B", "C", "z")
    bits = {name: stand_in.bfloat16_bits(kwargs[name]) for name in narrow}
    exact = kwargs | {name: (x.astype(np.uint32) << 16).view(np.float32) for name, x in bits.items()}
    y = ssm_edu.selective_scan(**on(Tensor, kwargs | bits))
    assert str(y.dtype) == "torch.bfloat16"
    expected, _ = reference.selective_scan(make_problem(**exact))
    np.testing.assert_array_equal(y.array, stand_in.bfloat16_bits(expected))
    gradients = ssm_edu.selective_scan_backward(Tensor(bits["u"]), **on(Tensor, kwargs | bits))
    assert {str(g.dtype) for g in gradients if g is not None} == {"torch.bfloat16", "torch.float32"}
    with pytest.raises(TypeError, match="delta has dtype float32, expected bfloat16, as u has dtype bfloat16"):
        ssm_edu.selective_scan(**on(Tensor, kwargs | bits | {"delta": kwargs["delta"]}))


@pytest.mark.parametrize(("wrap", "address"), [(Tensor, STREAM), (Ndarray, STREAM), (Exchanged, 0), (NumbaArray, 0)])
def test_kernels_go_on_the_callers_stream(wrap: Any, address: int, cuda: Cuda) -> None:
    ssm_edu.selective_scan(**on(wrap, random_arguments(0)))
    assert stand_in.calls == [f"stream {address}" if address else 0]
    assert "synchronize" not in cuda.log
    assert not any(entry[0] == "wait" for entry in cuda.log)


def test_what_an_array_waits_for_is_waited_for(cuda: Cuda) -> None:
    kwargs = on(Interfaced, random_arguments(0))
    kwargs["u"].more["stream"], kwargs["B"].more["stream"], kwargs["C"].more["stream"] = 11, 12, 1
    y = ssm_edu.selective_scan(**kwargs)
    assert stand_in.calls == ["stream 11"]
    waits = [tuple(cuda.log[i : i + 2]) for i in range(0, 4, 2)]
    assert set(waits) == {(("record", s), ("wait", "stream 11")) for s in ("stream 12", 0)}
    assert y.more["stream"] == "stream 11"
    assert runtime._held[-1][1][0].array is kwargs["u"], "others' memory is held until the kernels are done"

    kwargs = on(Tensor, random_arguments(0)) | {"z": Exchanged(random_arguments(0)["z"])}
    ssm_edu.selective_scan(**kwargs)
    assert kwargs["z"].asked == [STREAM]
    kwargs = on(Exchanged, random_arguments(0))
    ssm_edu.selective_scan(**kwargs)
    assert kwargs["u"].asked == [1], "DLPack's name for the legacy default stream"


def test_held_memory_is_let_go_of_when_its_kernels_are_done(cuda: Cuda) -> None:
    runtime._held.clear()
    for _ in range(5):
        ssm_edu.selective_scan(**on(Exchanged, random_arguments(0)))
    assert len(runtime._held) == 1


def test_the_device_of_u_is_made_current(two_devices: Cuda) -> None:
    kwargs = on(lambda array: Tensor(array, 1), random_arguments(0))
    y = ssm_edu.selective_scan(**kwargs)
    assert (y.where, stand_in.calls, two_devices.log) == (1, [f"stream {STREAM + 1}"], [("device", 1)])
    with pytest.raises(ValueError, match="C is on device 0, expected 1, where u is"):
        ssm_edu.selective_scan(**kwargs | {"C": Tensor(kwargs["C"].array, 0)})


@pytest.mark.parametrize("wrap", [Tensor, Ndarray])
def test_strides_are_made_contiguous_by_those_who_can(wrap: Any, cuda: Cuda) -> None:
    kwargs = random_arguments(0)
    strided = on(wrap, kwargs) | {"u": wrap(np.asfortranarray(kwargs["u"]))}
    np.testing.assert_array_equal(
        ssm_edu.selective_scan(**strided).array, ssm_edu.selective_scan(**kwargs, backend="reference")
    )


@pytest.mark.parametrize(
    "wrap", [Interfaced, Exchanged, NumbaArray, pytest.param(simulated_array, marks=in_the_simulator)]
)
def test_strides_are_refused_from_the_others(wrap: Any, request: pytest.FixtureRequest) -> None:
    if wrap is not simulated_array:
        request.getfixturevalue("cuda")
    kwargs = on(wrap, random_arguments(0)) | {"u": wrap(np.asfortranarray(random_arguments(0)["u"]))}
    with pytest.raises(ValueError, match=r"u has strides \(.*\), expected a C-contiguous array of shape \(2, 4, 5\)"):
        ssm_edu.selective_scan(**kwargs)


@pytest.mark.parametrize("wrap", [Tensor, Ndarray])
def test_labels_of_sequences_are_narrowed_without_loss(wrap: Any, cuda: Cuda) -> None:
    kwargs = random_arguments(0) | {"seq_idx": np.array([[0, 2**32, 2**32, 0, 0], [5, 5, 5, 5, 5 + 2**33]])}
    y = ssm_edu.selective_scan(**on(wrap, kwargs) | {"seq_idx": wrap(kwargs["seq_idx"])})
    np.testing.assert_array_equal(y.array, ssm_edu.selective_scan(**kwargs, backend="reference"))
    with pytest.raises(TypeError, match="seq_idx has dtype int64, expected int32"):
        ssm_edu.selective_scan(**on(NumbaArray, kwargs) | {"seq_idx": NumbaArray(kwargs["seq_idx"])})


def test_a_lazy_conjugate_is_resolved(cuda: Cuda) -> None:
    kwargs = random_arguments(0, is_complex=True)
    lazy = on(Tensor, kwargs) | {"B": Tensor(kwargs["B"].conj(), is_conj=True)}
    expected = ssm_edu.selective_scan(**kwargs, backend="reference")
    np.testing.assert_array_equal(ssm_edu.selective_scan(**lazy).array, expected)


@pytest.mark.parametrize("empty", [{"batch": 0}, {"length": 0}, {"state": 0}])
@pytest.mark.parametrize(
    "wrap", [None, Tensor, NumbaArray, Exchanged, pytest.param(simulated_array, marks=in_the_simulator)]
)
def test_empty_axes_never_reach_a_kernel(empty: dict[str, int], wrap: Any, request: pytest.FixtureRequest) -> None:
    if wrap is not simulated_array and wrap is not None:
        request.getfixturevalue("cuda")
    stand_in.calls.clear()
    kwargs = random_arguments(7, dtype="float32", **empty)
    if wrap is None:
        np.testing.assert_array_equal(
            ssm_edu.selective_scan(**kwargs, backend="cuda"), ssm_edu.selective_scan(**kwargs, backend="reference")
        )
    else:
        assert_same_scan(kwargs, wrap, type(ssm_edu.selective_scan(**on(wrap, kwargs))))
    assert stand_in.calls == []


def test_an_empty_scan_of_bfloat16_is_rounded_as_one_of_a_kernel(cuda: Cuda) -> None:
    kwargs = random_arguments(7, dtype="float32", state=0)
    bits = {name: stand_in.bfloat16_bits(kwargs[name]) for name in ("u", "delta", "B", "C", "z")}
    exact = kwargs | {name: (x.astype(np.uint32) << 16).view(np.float32) for name, x in bits.items()}
    y = ssm_edu.selective_scan(**on(Tensor, kwargs | bits))
    expected = ssm_edu.selective_scan(**exact, backend="reference")
    np.testing.assert_array_equal(y.array, stand_in.bfloat16_bits(expected))


BAD: list[tuple[str, Wrap, type[Exception], str]] = [
    ("delta", lambda x: x, TypeError, "delta is a ndarray that is not on a device, expected a device array, as u is"),
    ("A", lambda x: None, TypeError, "A is a NoneType that is not on a device"),
    ("delta", lambda x: Tensor(x[..., :-1]), ValueError, r"delta has shape \(2, 4, 4\), .* = \(2, 4, 5\)"),
    ("D", lambda x: Tensor(x.astype("float32")), TypeError, "D has dtype float32, expected float64, as u has"),
    ("u", lambda x: Tensor(x.astype("int64")), TypeError, "u has dtype int64, expected one of float16"),
    ("u", lambda x: Tensor(x.astype(bool)), TypeError, "u has dtype bool, expected one of float16"),
    ("B", lambda x: Tensor(np.repeat(x, 3, axis=1)), ValueError, "B has 3 groups, expected a divisor of dim = 4"),
    ("z", lambda x: Tensor(x, requires_grad=True), TypeError, r"z requires grad, .* expected z.detach\(\)"),
    ("z", lambda x: Interfaced(x, mask=1), TypeError, "z has a mask"),
    ("z", lambda x: Interfaced(x, typestr=">f8"), TypeError, "z has dtype >f8, expected native byte order"),
    ("z", lambda x: Interfaced(x, typestr="<V8"), TypeError, "z has dtype void64, expected float64"),
    ("seq_idx", lambda x: Tensor(np.zeros((2, 5))), TypeError, "seq_idx has dtype float64, expected an integer"),
    ("seq_idx", lambda x: Tensor(np.zeros((2, 6), int)), ValueError, r"seq_idx has shape \(2, 6\)"),
    ("discretization", lambda x: "foh", ValueError, "discretization is 'foh'"),
    ("backend", lambda x: "numba", TypeError, "u is on a CUDA device, which backend 'numba' does not read"),
    ("backend", lambda x: "tpu", ValueError, "backend is 'tpu', expected one of auto"),
]  # fmt: skip


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize(("name", "change", "error", "words"), BAD)
def test_bad_input_is_refused_before_any_launch(name: str, change: Wrap, error: type[Exception], words: str) -> None:
    kwargs = random_arguments(0) | {"backend": "auto"}
    bad = on(Tensor, kwargs) | {name: change(kwargs.get(name))}
    # Past the run-time type checks of the test run, which a user's process has not.
    scan, backward = inspect.unwrap(ssm_edu.selective_scan), inspect.unwrap(ssm_edu.selective_scan_backward)
    with pytest.raises(error, match=words):
        scan(**bad)
    with pytest.raises(error, match=words):
        backward(Tensor(kwargs["u"]), **bad)
    assert stand_in.calls == []


def test_bad_cotangents_are_refused_by_name(cuda: Cuda) -> None:
    kwargs = on(Tensor, random_arguments(0))
    with pytest.raises(ValueError, match=r"grad_y has shape \(2, 4, 6\)"):
        ssm_edu.selective_scan_backward(Tensor(np.ones((2, 4, 6))), **kwargs)
    with pytest.raises(TypeError, match="grad_last_state has dtype complex128, expected float64"):
        ssm_edu.selective_scan_backward(kwargs["u"], **kwargs, grad_last_state=Tensor(np.ones((2, 4, 3), "complex128")))
    with pytest.raises(TypeError, match="grad_y is a ndarray that is not on a device"):
        ssm_edu.selective_scan_backward(np.ones((2, 4, 5)), **kwargs)


def test_values_on_a_device_are_not_looked_at(cuda: Cuda) -> None:
    kwargs = random_arguments(0)
    kwargs["A"][1, 2] = np.nan
    y = ssm_edu.selective_scan(**on(Tensor, kwargs)).array
    assert np.isnan(y[:, 1]).all()
    assert not np.isnan(y[:, [0, 2, 3]]).any()
    with pytest.raises(ValueError, match="A is nan"):
        ssm_edu.selective_scan(**kwargs, backend="cuda")


def test_a_read_only_or_distributed_array_is_named(cuda: Cuda) -> None:
    class Sharded(Exchanged):
        def __dlpack__(self, *, stream: Any) -> Any:
            raise BufferError("sharded over 2 devices")

    kwargs = on(Exchanged, random_arguments(0))
    with pytest.raises(TypeError, match="B cannot be read through DLPack: sharded over 2 devices"):
        ssm_edu.selective_scan(**kwargs | {"B": Sharded(kwargs["B"].array)})


@in_the_simulator
def test_a_simulator_reads_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch_module(STREAM))
    clear_caches()
    try:
        with pytest.raises(RuntimeError, match="NUMBA_ENABLE_CUDASIM is set, and the simulator reads no array that"):
            ssm_edu.selective_scan(**on(Tensor, random_arguments(0)))
    finally:
        clear_caches()


def test_where_an_array_lies() -> None:
    x = np.ones(3)
    for array in (Tensor(x), Ndarray(x), Interfaced(x), Exchanged(x), NumbaArray(x), *simulated(x)):
        assert on_device(array), array
    pinned = Exchanged(x)
    pinned.__dlpack_device__ = lambda: (3, 0)  # type: ignore[method-assign]
    on_host = Tensor(x)
    on_host.is_cuda = False
    for value in (None, 1.0, x, x[0], [x], "x", pinned, on_host, object()):
        assert not on_device(value), value


def test_an_array_that_numpy_cannot_read_is_named() -> None:
    array = Tensor(np.ones((1, 1, 2)))
    array.is_cuda = False
    with pytest.raises(TypeError, match="u cannot be read as a NumPy array: can't convert a device array"):
        make_problem(array, [[[1.0]]], [[1.0]], [[1.0]], [[1.0]])  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["reference", "numba", pytest.param("cuda", marks=in_the_simulator)])
def test_bfloat16_of_numpy(backend: str) -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    kwargs = random_arguments(0, dtype="float32", length=40, dim=3)
    kwargs |= {name: kwargs[name].astype(bfloat16) for name in ("u", "delta", "B", "C", "z")}
    problem = make_problem(**kwargs)
    y, last = ssm_edu.selective_scan(**kwargs, return_last_state=True, backend=backend)
    assert (y.dtype, last.dtype) == (bfloat16, np.float32)
    exact = reference.selective_scan(problem)
    for found, expected, bound in zip((y, last), exact, bounds.forward(problem, stored="bfloat16"), strict=True):
        assert (np.abs(found.astype(float) - expected) <= bound).all()
    gradients = ssm_edu.selective_scan_backward(y, **kwargs, backend=backend)
    assert {name: g.dtype for name, g in gradients._asdict().items()} == {
        name: kwargs[name].dtype for name in gradients._fields
    }
    with pytest.raises(TypeError, match="z has dtype float32, expected bfloat16, as u has dtype bfloat16"):
        ssm_edu.selective_scan(**kwargs | {"z": kwargs["z"].astype("float32")}, backend=backend)


def test_bfloat16_of_numpy_in_the_conformance_kit() -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    framework = get_framework("numpy", "bfloat16", None)
    array = framework.from_numpy(np.array([1.5, -2.0], np.float32), "bfloat16")
    assert array.dtype == bfloat16
    back, dtype = framework.to_numpy("u", array)
    assert (back.dtype, dtype, back.tolist()) == (np.float32, "bfloat16", [1.5, -2.0])


def test_dlpack_is_read_as_it_is_written() -> None:
    base = np.arange(60.0, dtype=np.float32).reshape(3, 4, 5)
    for array in (base, base[1:], base.transpose(2, 0, 1), base[..., ::2], base.astype("complex128"), base[:0]):
        tensor = dlpack.read(array.__dlpack__())
        assert (tensor.shape, tensor.dtype, tensor.device) == (array.shape, array.dtype.name, (1, 0))
        assert array.size == 0 or tensor.address == array.ctypes.data
        assert dlpack.is_contiguous(tensor.shape, tensor.strides) == array.flags.c_contiguous
    assert dlpack.read(np.ones(2, bool).__dlpack__()).dtype == "bool"
    capsule = base.__dlpack__()
    np.from_dlpack(type("Once", (), {"__dlpack__": lambda s, **k: capsule, "__dlpack_device__": lambda s: (1, 0)})())
    with pytest.raises(ValueError, match="PyCapsule_GetPointer"):
        dlpack.read(capsule)


def test_strides_of_c_order() -> None:
    assert dlpack.is_contiguous((2, 3), None)
    assert dlpack.is_contiguous((2, 1, 3), (3, 99, 1))
    assert dlpack.is_contiguous((0, 3), (7, 7))
    assert dlpack.is_contiguous((2, 3), (24, 8), 8)
    assert not dlpack.is_contiguous((2, 3), (1, 2))
    assert not dlpack.is_contiguous((2, 3), (0, 1))


@pytest.mark.parametrize("consumed", [True, False])
def test_exported_memory_lives_as_long_as_it_is_used(consumed: bool) -> None:
    class Memory:
        def __init__(self) -> None:
            self.array = np.arange(6.0)

    memory, streams = Memory(), []
    gone = weakref.ref(memory)
    exported = dlpack.Exported(memory, memory.array.ctypes.data, (2, 3), "float64", (1, 0), streams.append)
    del memory
    made: Any = np.from_dlpack(exported) if consumed else exported.__dlpack__(stream=5)
    assert streams == [None if consumed else 5]
    del exported
    gc.collect()
    if consumed:
        np.testing.assert_array_equal(made, [[0, 1, 2], [3, 4, 5]])
    assert gone() is not None
    del made
    gc.collect()
    assert len(dlpack._exported) == 0
    dlpack._returned.clear()
    gc.collect()
    assert gone() is None


def test_exported_dtypes() -> None:
    for dtype in ("float16", "float32", "complex64", "complex128", "int32", "uint16"):
        array = np.ones(3, dtype)
        exported = dlpack.Exported(array, array.ctypes.data, (3,), dtype, (1, 0), lambda stream: None)
        assert np.from_dlpack(exported).dtype == dtype
    exported = dlpack.Exported(None, 0, (3,), "bfloat16", (1, 0), lambda stream: None)
    assert dlpack.read(exported.__dlpack__()).dtype == "bfloat16"


def test_results_for_jax_are_ordered_with_its_stream(cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its arrays come by DLPack and go by DLPack, in memory of Numba's."""

    class Array(Exchanged):
        pass

    Array.__module__ = "jaxlib._jax"

    def from_dlpack(exported: Any) -> Array:
        assert exported.__dlpack_device__() == (2, 0)
        tensor = dlpack.read(exported.__dlpack__(stream=99))
        return Array(stand_in.elements(tensor.address, tensor.shape, tensor.dtype).view(tensor.dtype).copy())

    fake = type("dlpack", (), {"from_dlpack": staticmethod(from_dlpack)})
    monkeypatch.setitem(sys.modules, "jax.dlpack", fake)
    monkeypatch.setitem(sys.modules, "jax.numpy", np)
    assert_same_scan(random_arguments(0, dtype="float16"), Array, Array)
    assert ("wait", "stream 99") in cuda.log


@pytest.fixture
def torch_itself() -> Any:
    """Asked for before `cuda` puts another in its place: torch cannot be imported twice in a process."""
    return pytest.importorskip("torch")


def test_pytorch_itself(torch_itself: Any, cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tensors on the CPU, said to be on a device."""
    torch = torch_itself
    monkeypatch.setitem(sys.modules, "torch", torch)
    clear_caches()
    monkeypatch.setattr(torch.cuda, "current_stream", torch_module(STREAM).cuda.current_stream)
    monkeypatch.setattr(selective, "on_device", lambda value: isinstance(value, torch.Tensor))

    def wrap(array: np.ndarray) -> Any:
        return torch.from_numpy(array.copy())

    for is_complex in (False, True):
        kwargs = random_arguments(0, dtype="float32", is_complex=is_complex)
        kwargs["seq_idx"] = np.array([[0, 2**32, 2**32, 0, 0], [5, 5, 5, 5, 5 + 2**33]])
        tensors = on(wrap, kwargs) | {"seq_idx": wrap(kwargs["seq_idx"])}
        tensors["u"] = tensors["u"].mT.contiguous().mT
        tensors["A"] = torch.nn.Parameter(tensors["A"], requires_grad=False)
        if is_complex:
            tensors["B"] = wrap(kwargs["B"].conj()).conj()
        y = ssm_edu.selective_scan(**tensors)
        assert type(y) is torch.Tensor
        np.testing.assert_array_equal(y.numpy(), ssm_edu.selective_scan(**kwargs, backend="reference"))
        gradients = ssm_edu.selective_scan_backward(y, **tensors)
        expected = ssm_edu.selective_scan_backward(y.numpy(), **kwargs, backend="reference")
        for found, array in zip(gradients, expected, strict=True):
            np.testing.assert_array_equal(found.numpy(), array)
        with pytest.raises(TypeError, match="z requires grad"):
            ssm_edu.selective_scan(**tensors | {"z": tensors["z"].clone().requires_grad_()})
        with torch.no_grad():
            ssm_edu.selective_scan(**tensors | {"z": tensors["z"].clone().requires_grad_()})


MISSING = {
    "no driver": ({}, RuntimeError, "no NVIDIA driver that works .*NUMBA_ENABLE_CUDASIM=1 simulates"),
    "no Numba": ({"numba": None}, ImportError, "Numba is not installed: pip install numba"),
    "no loading": ({"numba.cuda": None}, ImportError, r"numba.cuda does not load \(.*ssm-edu\[gpu\]"),
    "no greenlet": ({"greenlet": None}, ImportError, r"simulator needs greenlet: pip install 'ssm-edu\[simulator\]'"),
}


@pytest.mark.parametrize("case", MISSING)
def test_what_is_missing_is_said(case: str) -> None:
    absent, error, words = MISSING[case]
    program = f"""
import re, sys
import numpy as np
import ssm_edu
for name in {list(absent)}:
    sys.modules[name] = None
u, A = np.ones((1, 1, 2)), -np.ones((1, 1))
try:
    ssm_edu.selective_scan(u, u, A, A, A, backend="cuda")
except {error.__name__} as error:
    assert re.search({words!r}, str(error)), error
else:
    raise AssertionError
"""
    simulated = str(int(case == "no greenlet"))
    hidden = os.environ | {"NUMBA_ENABLE_CUDASIM": simulated, "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, env=hidden)


@pytest.mark.parametrize(
    ("available", "why", "packaged", "error", "words"),
    [
        (False, "not\nfound", True, RuntimeError, r"no NVIDIA driver that works \(not found\); NUMBA"),
        (False, "not found", False, RuntimeError, r"with one, also pip install 'ssm-edu\[gpu\]'"),
        (False, None, False, ImportError, r"numba-cuda is not installed: pip install 'ssm-edu\[gpu\]'"),
        (False, None, True, RuntimeError, "no device or no compiler"),
    ],
)
def test_each_reason_has_its_advice(
    available: bool, why: str | None, packaged: bool, error: type[Exception], words: str, monkeypatch: Any
) -> None:
    cuda = type("cuda", (), {"is_available": lambda: available, "cuda_error": lambda: why})
    monkeypatch.setattr(runtime, "import_module", lambda name: type("target", (), {"SIMULATED": False, "cuda": cuda}))
    monkeypatch.setattr(runtime, "find_spec", lambda name: name == "numba" or packaged or None)
    with pytest.raises(error, match=words):
        runtime.target.__wrapped__()


IN_THE_SIMULATOR = """
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import ssm_edu
from numba import cuda
from ssm_edu.testing.simulator import simulated

rng = np.random.default_rng(0)
u, delta, z = rng.uniform(0.1, 1, (3, 1, 2, 20)).astype("f4")
B, C = rng.standard_normal((2, 1, 4, 20)).astype("f4")
arguments = {"u": u, "delta": delta, "A": -rng.uniform(0.1, 2, (2, 4)).astype("f4"), "B": B, "C": C, "z": z}

def scan(backend="cuda", arguments=arguments):
    y = ssm_edu.selective_scan(**arguments, backend=backend)
    return [y, *ssm_edu.selective_scan_backward(y, **arguments, backend=backend)]

def check(found):
    for value, right in zip(found, expected, strict=True):
        if right is not None:
            np.testing.assert_allclose(value, right, rtol=0, atol=1e-4 * np.abs(right).max())  # float32, 20 steps

expected = scan("reference")
check(scan())
with simulated(schedule=3):
    check(scan())
with ThreadPoolExecutor(3) as pool:
    for found in pool.map(lambda _: scan(), range(3)):
        check(found)
on_device = scan(arguments={name: cuda.to_device(array) for name, array in arguments.items()})
check([None if array is None else array.copy_to_host() for array in on_device])
"""


def test_the_real_kernels_run_in_the_simulator_unasked() -> None:
    """As a user has it, whichever Numba is there: the variable alone, and no `simulated()`."""
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}
    subprocess.run([sys.executable, "-c", IN_THE_SIMULATOR], check=True, timeout=300, env=environment)


def test_importing_the_door_loads_no_numba() -> None:
    program = "import sys, ssm_edu.gpu; assert 'numba' not in sys.modules and 'scipy' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize("error", [RuntimeError("no driver"), ImportError("no package"), None])
def test_doctor_says_whether_the_kernels_run_here(error: Exception | None, monkeypatch: pytest.MonkeyPatch) -> None:
    doctor = importlib.import_module("ssm_edu.commands.doctor")

    def target() -> Any:
        if error:
            raise error
        return type("target", (), {"SIMULATED": True})

    monkeypatch.setattr(runtime, "target", target)
    finding = doctor.examine()[-1]
    assert (finding.name, finding.ok) == ("Numba CUDA", None if error else True)
    assert "the selective scan on a GPU" in finding.advice
    assert (str(error) if error else "simulator") in f"{finding.found} {finding.advice}"
