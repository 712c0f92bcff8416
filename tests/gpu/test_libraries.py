"""Arrays of torch, CuPy, JAX and Numba through the door on a real GPU: no copies, the same bits twice, their streams.

`tests/test_gpu.py` has the door with a stand-in for the kernels. All libraries are given one problem, so that its
kernels are compiled once.
"""

from contextlib import nullcontext
from functools import partial
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
from numba import cuda

import ssm_edu
from ssm_edu.gpu import runtime
from tests import kernel_runs
from tests.problems import random_arguments

if kernel_runs.NO_GPU:
    pytest.skip(kernel_runs.NO_GPU, allow_module_level=True)

CYCLES = 200_000_000  # about 0.1 s
SHAPE = {"batch": 2, "dim": 6, "length": 70, "dtype": "float32"}


def arrays_of(wrap, seed=0):
    return {name: wrap(x) for name, x in random_arguments(seed, **SHAPE).items() if isinstance(x, np.ndarray)}


def of_torch():
    torch = pytest.importorskip("torch")

    def late(source):
        target, stream = torch.full_like(source, float("nan")), torch.cuda.Stream()
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            torch.cuda._sleep(CYCLES)
            target.copy_(source)
        return target, torch.cuda.stream(stream)

    return SimpleNamespace(
        wrap=lambda x: torch.from_numpy(x.copy()).cuda(),
        read=lambda x: x.cpu().numpy(),
        pointer=lambda x: x.data_ptr(),
        late=late,
    )


def of_cupy():
    cupy = pytest.importorskip("cupy")
    spin = cupy.RawKernel(
        'extern "C" __global__ void spin(long long n) { long long t = clock64(); while (clock64() - t < n); }', "spin"
    )

    def late(source):
        spin((1,), (1,), (np.int64(1),))  # compiled
        target, stream = cupy.full_like(source, np.nan), cupy.cuda.Stream(non_blocking=True)
        cuda.synchronize()
        with stream:
            spin((1,), (1,), (np.int64(CYCLES),))
            target[...] = source
        return target, stream

    return SimpleNamespace(wrap=cupy.asarray, read=cupy.asnumpy, pointer=lambda x: x.data.ptr, late=late)


def of_jax():
    jax = pytest.importorskip("jax")
    if jax.default_backend() != "gpu":
        pytest.skip("JAX is installed without its support for GPUs")

    @partial(jax.jit, donate_argnums=0, keep_unused=True)  # the result takes the target's memory
    def slow_copy(target, source, one):
        product = jax.lax.fori_loop(0, 200, lambda _, m: m @ one, one)
        return source + 0 * product.sum()

    def late(source):
        one = jax.numpy.eye(4096, dtype="float32")
        slow_copy(source + 0, source, one).block_until_ready()  # compiled
        target = jax.numpy.full_like(source, np.nan).block_until_ready()
        return slow_copy(target, source, one), nullcontext()

    return SimpleNamespace(
        wrap=jax.numpy.asarray, read=np.asarray, pointer=lambda x: x.unsafe_buffer_pointer(), late=late
    )


@cuda.jit
def wait(milliseconds):
    for _ in range(milliseconds):
        cuda.nanosleep(1_000_000)


def of_numba():
    def late(source):
        wait[1, 1](1)  # compiled
        target = cuda.to_device(np.full(source.shape, np.nan, source.dtype))
        cuda.synchronize()
        # Numba's own streams wait for the default one: kernels on the wrong stream would be in order too
        error, address = import_module("cuda.bindings.driver").cuStreamCreate(1)
        assert not error
        stream = cuda.external_stream(int(address))
        wait[1, 1, stream](100)
        target.copy_to_device(source, stream=stream)
        return target.bind(stream), nullcontext()

    return SimpleNamespace(
        wrap=cuda.to_device,
        read=lambda x: x.copy_to_host(),
        pointer=lambda x: x.__cuda_array_interface__["data"][0],
        late=late,
    )


LIBRARIES = {"torch": of_torch, "cupy": of_cupy, "jax": of_jax, "numba": of_numba}


@pytest.fixture
def seen(monkeypatch):
    """What the kernels were given, launch after launch."""
    kernels, scans = runtime.kernels(), []

    def noted(function):
        def call(scan, *args, **kwargs):
            scans.append(scan)
            return function(scan, *args, **kwargs)

        return call

    noting = SimpleNamespace(Scan=kernels.Scan, forward=noted(kernels.forward), backward=noted(kernels.backward))
    monkeypatch.setattr(runtime, "kernels", lambda: noting)
    return scans


@pytest.mark.parametrize("name", LIBRARIES)
def test_arrays_are_read_in_place_and_twice_the_same(name, seen):
    library = LIBRARIES[name]()
    arrays = arrays_of(library.wrap)
    first, second = (ssm_edu.selective_scan(**arrays, delta_softplus=True) for _ in range(2))
    gradients = [ssm_edu.selective_scan_backward(first, **arrays, delta_softplus=True) for _ in range(2)]
    assert type(first) is type(arrays["u"])
    assert len(seen) == 4
    for given in seen:
        assert {n: getattr(given, n) for n in arrays} == {n: library.pointer(x) for n, x in arrays.items()}
    np.testing.assert_array_equal(library.read(first), library.read(second))
    for n in gradients[0]._fields:
        left, right = (library.read(getattr(g, n)) for g in gradients)
        np.testing.assert_array_equal(left.view(np.uint32), right.view(np.uint32), err_msg=n)


@pytest.mark.parametrize("name", LIBRARIES)
def test_libraries_agree_in_every_bit(name):
    """With NumPy's arrays, which are copied to the device, and with one of Numba's among a library's own."""
    library, host = LIBRARIES[name](), arrays_of(np.array)
    arrays = arrays_of(library.wrap) | {"B": cuda.to_device(host["B"])}
    y = ssm_edu.selective_scan(**arrays, delta_softplus=True)
    right = ssm_edu.selective_scan(**host, delta_softplus=True, backend="cuda")
    np.testing.assert_array_equal(library.read(y), right)
    assert np.isfinite(right).all()
    gradients = ssm_edu.selective_scan_backward(y, **arrays, delta_softplus=True)._asdict()
    exact = ssm_edu.selective_scan_backward(right, **host, delta_softplus=True, backend="cuda")
    for n, array in gradients.items():
        np.testing.assert_array_equal(library.read(array), getattr(exact, n), err_msg=n)


@pytest.mark.parametrize("name", LIBRARIES)
def test_kernels_are_ordered_on_the_callers_stream(name):
    """u holds NaN until long after the call: only kernels behind its copy see numbers."""
    library = LIBRARIES[name]()
    arrays = arrays_of(library.wrap)
    y = ssm_edu.selective_scan(**arrays, delta_softplus=True)
    right = ssm_edu.selective_scan_backward(y, **arrays, delta_softplus=True)
    cuda.synchronize()
    u, inside = library.late(arrays["u"])
    with inside:
        found = ssm_edu.selective_scan(**arrays | {"u": u}, delta_softplus=True)
        gradients = ssm_edu.selective_scan_backward(y, **arrays | {"u": u}, delta_softplus=True)
    cuda.synchronize()
    np.testing.assert_array_equal(library.read(found), library.read(y))
    for n in right._fields:
        np.testing.assert_array_equal(library.read(getattr(gradients, n)), library.read(getattr(right, n)), err_msg=n)
