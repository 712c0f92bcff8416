"""PyTorch's scan in a CUDA graph, on two streams, in a fresh thread, on a second device: the same bits as plainly."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import ssm_edu
from tests import kernel_runs
from tests.problems import random_arguments

if kernel_runs.NO_GPU:
    pytest.skip(kernel_runs.NO_GPU, allow_module_level=True)
torch = pytest.importorskip("torch")

from ssm_edu.torch import selective_scan_fn  # noqa: E402

SHAPE = {"batch": 2, "dim": 6, "length": 70, "dtype": "float32"}
# several launches each way, most of which begin while the one before them ends, from Hopper on
IN_CHUNKS = SHAPE | {"batch": 1, "dim": 64, "length": 4096, "state": 16}
each_shape = pytest.mark.parametrize("shape", [SHAPE, IN_CHUNKS], ids=["", "in chunks"])


def tensors(seed, device="cuda", shape=SHAPE):
    arrays = random_arguments(seed, **shape)
    return {n: torch.from_numpy(x).to(device).requires_grad_() for n, x in arrays.items() if isinstance(x, np.ndarray)}


def step(kwargs):
    """y, the last state, and every gradient; nothing of autograd's graph is left, which belongs to this stream."""
    outputs = selective_scan_fn(**kwargs, delta_softplus=True, return_last_state=True)
    gradients = torch.autograd.grad(outputs, list(kwargs.values()), [torch.ones_like(x) for x in outputs])
    return *(x.detach() for x in outputs), *gradients


def assert_same(found, right):
    torch.cuda.synchronize()
    assert len(found) == len(right)
    for left, expected in zip(found, right, strict=True):
        assert torch.isfinite(left).all()
        assert torch.equal(left.cpu(), expected.cpu())


@each_shape
def test_a_cuda_graph_replays_with_other_data(shape):
    kwargs, others = tensors(0, shape=shape), tensors(1, shape=shape)
    first, right = step(kwargs), step(others)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # what autograd makes once must be there before the capture
        step(kwargs)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(kwargs)
    graph.replay()
    assert_same(captured, first)
    with torch.no_grad():
        for name, tensor in kwargs.items():
            tensor.copy_(others[name])
    graph.replay()
    assert_same(captured, right)


@each_shape
def test_two_streams_do_not_meet(shape):
    problems = [tensors(seed, shape=shape) for seed in (0, 1)]
    right = [step(kwargs) for kwargs in problems]
    torch.cuda.synchronize()
    streams, found = [torch.cuda.Stream() for _ in problems], []
    for _ in range(10):
        for stream, kwargs in zip(streams, problems, strict=True):
            with torch.cuda.stream(stream):
                found.append(step(kwargs))
    for k, one in enumerate(found):
        assert_same(one, right[k % 2])


def test_a_thread_that_has_used_no_gpu_before():
    kwargs = tensors(0)
    right = step(kwargs)
    with ThreadPoolExecutor(1) as fresh:
        assert_same(fresh.submit(step, kwargs).result(), right)
    with ThreadPoolExecutor(1) as fresh:
        y = fresh.submit(ssm_edu.selective_scan, **random_arguments(0, **SHAPE), backend="cuda").result()
    np.testing.assert_array_equal(y, right[0].detach().cpu().numpy())


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs a second GPU")
def test_a_second_device():
    right, there = step(tensors(0)), tensors(0, "cuda:1")
    found = step(there)
    assert {x.device.index for x in found} == {1}
    assert torch.cuda.current_device() == 0
    assert_same(found, right)
    with pytest.raises(ValueError, match="z is on cuda:0, expected cuda:1"):
        selective_scan_fn(**there | {"z": there["z"].detach().to("cuda:0")}, delta_softplus=True)
