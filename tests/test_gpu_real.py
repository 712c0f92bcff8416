"""The door on a real GPU: the conformance kit with arrays of several libraries, their streams, and no copies.

Elsewhere nothing here runs. `tests/test_gpu.py` has the door with a stand-in for the kernels.
"""

from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

from tests import kernel_runs

if kernel_runs.SIMULATED or kernel_runs.NEITHER:
    pytest.skip("needs a GPU, and Numba without NUMBA_ENABLE_CUDASIM=1", allow_module_level=True)

from numba import cuda

import ssm_edu
from ssm_edu import bounds
from ssm_edu.gpu import runtime
from ssm_edu.testing.registry import PROPERTIES
from ssm_edu.testing.runner import check_property, make_implementation
from tests.kits import KITS
from tests.problems import random_arguments


def scan(*args, **kwargs):
    return ssm_edu.selective_scan(*args, backend="cuda", **kwargs)


def adjoint(*args, **kwargs):
    return ssm_edu.selective_scan_backward(*args, backend="cuda", **kwargs)


def implementation(kit, forward=scan, backward=adjoint):
    options = {name: value for name, value in KITS[kit].items() if name != "max_examples"}
    if find_spec(options["framework"]) is None:
        pytest.skip(f"{options['framework']} is not installed")
    arithmetic = bounds.FLOAT64 if options["dtype"] == "float64" else bounds.FLOAT32_APPROX
    return make_implementation(forward, backward, arithmetic=arithmetic, algorithm="any", **options)


@pytest.mark.parametrize("name", PROPERTIES)
@pytest.mark.parametrize("kit", KITS)
def test_conformance(kit, name):
    result = check_property(PROPERTIES[name], implementation(kit), KITS[kit]["max_examples"])
    if result.status == "skipped":
        pytest.skip(result.message)
    assert result.status == "passed", str(result)


def test_the_kit_fails_a_wrong_scan():
    def wrong(*args, **kwargs):
        return scan(*args, **kwargs | {"delta_softplus": not kwargs.get("delta_softplus", False)})

    name = next(iter(PROPERTIES))
    assert check_property(PROPERTIES[name], implementation("numpy, all of float32", wrong), 2).status == "failed"


@pytest.fixture
def seen(monkeypatch):
    """What the kernels were given, launch after launch."""
    kernels, calls = runtime.kernels(), []

    def noted(function):
        def call(scan, *args, **kwargs):
            calls.append((scan, kwargs["stream"]))
            return function(scan, *args, **kwargs)

        return call

    noting = SimpleNamespace(Scan=kernels.Scan, forward=noted(kernels.forward), backward=noted(kernels.backward))
    monkeypatch.setattr(runtime, "kernels", lambda: noting)
    return calls


def of_torch():
    torch = pytest.importorskip("torch")

    def late(stream, target, source):
        with torch.cuda.stream(stream):
            torch.cuda._sleep(200_000_000)  # cycles, about 0.1 s
            target.copy_(source)

    return SimpleNamespace(
        wrap=lambda x: torch.from_numpy(x.copy()).cuda(),
        read=lambda x: x.cpu().numpy(),
        pointer=lambda x: x.data_ptr(),
        like=lambda x: torch.full_like(x, float("nan")),
        stream=torch.cuda.Stream,
        inside=torch.cuda.stream,
        late=late,
    )


def of_cupy():
    cupy = pytest.importorskip("cupy")
    spin = cupy.RawKernel(
        'extern "C" __global__ void spin(long long n) { long long t = clock64(); while (clock64() - t < n); }', "spin"
    )
    spin((1,), (1,), (np.int64(1),))

    def late(stream, target, source):
        with stream:
            spin((1,), (1,), (np.int64(200_000_000),))
            target[...] = source

    return SimpleNamespace(
        wrap=cupy.asarray,
        read=cupy.asnumpy,
        pointer=lambda x: x.data.ptr,
        like=lambda x: cupy.full_like(x, np.nan),
        stream=lambda: cupy.cuda.Stream(non_blocking=True),
        inside=lambda stream: stream,
        late=late,
    )


LIBRARIES = {"torch": of_torch, "cupy": of_cupy}
SHAPE = {"batch": 2, "dim": 6, "length": 70, "dtype": "float32"}


@pytest.mark.parametrize("name", LIBRARIES)
def test_arrays_are_read_in_place_and_twice_the_same(name, seen):
    library = LIBRARIES[name]()
    arrays = {n: library.wrap(x) for n, x in random_arguments(0, **SHAPE).items() if isinstance(x, np.ndarray)}
    first, second = (ssm_edu.selective_scan(**arrays, delta_softplus=True) for _ in range(2))
    gradients = [ssm_edu.selective_scan_backward(first, **arrays, delta_softplus=True) for _ in range(2)]
    assert type(first) is type(arrays["u"])
    for given, _ in seen:
        assert {n: getattr(given, n) for n in arrays} == {n: library.pointer(x) for n, x in arrays.items()}
    np.testing.assert_array_equal(library.read(first), library.read(second))
    for n in gradients[0]._fields:
        left, right = (library.read(getattr(g, n)) for g in gradients)
        np.testing.assert_array_equal(left.view(np.uint32), right.view(np.uint32), err_msg=n)


@pytest.mark.parametrize("name", LIBRARIES)
def test_kernels_are_ordered_on_the_callers_stream(name):
    """u holds NaN until long after the call: only kernels behind its copy see numbers."""
    library = LIBRARIES[name]()
    arrays = {n: library.wrap(x) for n, x in random_arguments(0, **SHAPE).items() if isinstance(x, np.ndarray)}
    y = ssm_edu.selective_scan(**arrays, delta_softplus=True)
    right = ssm_edu.selective_scan_backward(y, **arrays, delta_softplus=True)
    stream, late = library.stream(), library.like(arrays["u"])
    cuda.synchronize()
    library.late(stream, late, arrays["u"])
    with library.inside(stream):
        found = ssm_edu.selective_scan(**arrays | {"u": late}, delta_softplus=True)
        gradients = ssm_edu.selective_scan_backward(y, **arrays | {"u": late}, delta_softplus=True)
    cuda.synchronize()
    np.testing.assert_array_equal(library.read(found), library.read(y))
    for n in right._fields:
        np.testing.assert_array_equal(library.read(getattr(gradients, n)), library.read(getattr(right, n)), err_msg=n)
