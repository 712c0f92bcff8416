"""Autograd on a GPU: gradients from the states that the way forward saves are those of the inputs alone."""

import pytest

import ssm_edu
from ssm_edu import gpu
from tests import kernel_runs

if kernel_runs.NO_GPU:
    pytest.skip(kernel_runs.NO_GPU, allow_module_level=True)
torch = pytest.importorskip("torch")

from ssm_edu.torch import operators, selective_scan_fn  # noqa: E402

BATCH, DIM, LENGTH, STATE = 16, 2048, 520, 16  # a quarter of a tile at the end


def tensors(dtype, starts):
    generator = torch.Generator("cuda").manual_seed(0)

    def normal(*shape, dtype=dtype):
        return torch.randn(shape, generator=generator, device="cuda", dtype=dtype)

    rows, maps, real = (BATCH, DIM, LENGTH), (BATCH, 1, STATE, LENGTH), torch.float32
    found = {name: normal(*rows) for name in ("u", "delta", "z")} | {name: normal(*maps) for name in ("B", "C")}
    found |= {"A": -torch.rand(DIM, STATE, generator=generator, device="cuda"), "D": normal(DIM, dtype=real)}
    found["delta_bias"] = normal(DIM, dtype=real) - 3
    if starts:
        found["initial_state"] = normal(BATCH, DIM, STATE, dtype=real)
    return found, normal(*rows), normal(BATCH, DIM, STATE, dtype=real) if starts else None


@pytest.mark.parametrize("starts", [False, True], ids=["", "with states at both ends"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_gradients_from_saved_states(dtype, starts, monkeypatch):
    given, grad_y, grad_last = tensors(dtype, starts)
    told = tuple((name, tuple(x.shape), str(x.dtype).removeprefix("torch.")) for name, x in given.items())
    if not gpu.saves_states(True, "mamba", told):
        pytest.skip("on this GPU the way back has several chunks")
    cotangents = {"grad_y": grad_y} | ({} if grad_last is None else {"grad_last_state": grad_last})
    right = ssm_edu.selective_scan_backward(**cotangents, **given, delta_softplus=True, backend="cuda")
    monkeypatch.setattr(operators, "selective_scan_backward", lambda **_: pytest.fail("nothing was saved"))
    recorded = {name: x.clone().requires_grad_() for name, x in given.items()}
    outputs = selective_scan_fn(**recorded, delta_softplus=True, return_last_state=True)
    outputs, arriving = outputs if starts else outputs[:1], list(cotangents.values())
    first, again = (
        torch.autograd.grad(outputs, list(recorded.values()), arriving, retain_graph=retained)
        for retained in (True, False)
    )
    for name, found, same in zip(recorded, first, again, strict=True):
        assert torch.equal(found, same), name
        expected = getattr(right, name).float()
        # the states before tiles round otherwise, and in 16 bits a gradient may go to either side of a half
        off = {torch.float32: 2.0**-18, torch.float16: 2.0**-9, torch.bfloat16: 2.0**-6}[found.dtype]
        assert (found.float() - expected).abs().max() <= off * expected.abs().max(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_no_more_is_saved_than_y_takes(dtype):
    given, _, _ = tensors(dtype, False)
    y, _, saved = gpu.scan_saving_states(given, True, "mamba")
    if saved is None:
        pytest.skip("on this GPU the way back has several chunks")
    assert saved.isfinite().all()
    assert saved.nbytes <= y.nbytes + BATCH * DIM * STATE * 4
