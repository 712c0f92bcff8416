"""The experiments that take times: what they time is right, what is wrong or does not fit is told, and the findings."""

from __future__ import annotations

import sys
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from ssm_edu.atlas import attention as atlas_attention  # noqa: E402
from ssm_edu.atlas import mamba as atlas_mamba  # noqa: E402
from ssm_edu.experiments import (  # noqa: E402
    _hugging_face,
    clock,
    constant_memory,
    operations,
    scan_speed,
    training_step,
)
from ssm_edu.experiments.operations import OPERATIONS, Operation, Setting  # noqa: E402
from ssm_edu.experiments.result import CannotRun, Progress, Result  # noqa: E402

CPU: dict[str, Any] = {"device": "cpu", "seed": 0, "progress": Progress()}


def drawn_texts(experiment: Any, result: Result) -> str:
    """The words of the figure."""
    pytest.importorskip("matplotlib")
    figure = experiment.figure(result)
    return " ".join(
        text.get_text() for axes in figure.axes for text in (axes.title, *axes.texts, *axes.get_yticklabels())
    )


# The clock


def test_a_call_is_timed_as_often_as_asked_but_not_for_longer_than_the_budget() -> None:
    calls: list[int] = []
    timing = clock.timed(lambda: calls.append(1), "cpu", runs=5, warm_up=2)
    assert (len(timing.times), len(calls)) == (5, 7)
    once = clock.timed(partial(sum, range(100_000)), "cpu", budget=1e-9, warm_up=0, by=clock.kernels)
    assert once.row["runs"] == 1
    assert 0 < once.row["best"] == once.row["seconds"] < 1


def test_on_a_gpu_the_clock_is_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its calls in their order, on a GPU that is not there."""
    told: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            told.append("record")

        def synchronize(self) -> None:
            told.append("wait")

        def elapsed_time(self, end: Any) -> float:
            return 2.5

    empty = torch.empty
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: told.append("synchronize"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: told.append("release"))
    monkeypatch.setattr(torch, "empty", lambda size, dtype, device: empty(1, dtype=dtype))
    assert clock.kernels(lambda: told.append("call"), "cuda") == 2.5e-3
    assert told == ["record", "call", "record", "wait"]
    told.clear()
    assert clock.wall(lambda: told.append("call"), "cuda:0") > 0
    assert told == ["synchronize", "call", "synchronize"]
    told.clear()
    assert clock.attempt(lambda: {"seconds": 1}, "cuda") == {"seconds": 1}
    assert told == ["release", "release"]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("[CUresult.CUDA_ERROR_OUT_OF_MEMORY] Call to cuMemAlloc results in an error"),
    ],
)
def test_what_does_not_fit_is_told(error: Exception) -> None:
    def work() -> dict[str, Any]:
        raise error

    assert clock.attempt(work, "cpu") == {"reason": "out of memory"}


def test_what_fails_otherwise_is_raised() -> None:
    def work() -> dict[str, Any]:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        clock.attempt(work, "cpu")


@pytest.mark.parametrize("power", [-1.0, 0.0, 0.5, 2.0])
def test_the_slope_is_the_power(power: float) -> None:
    x = [10.0, 100.0, 3000.0]
    assert clock.slope(x, [7 * at**power for at in x]) == pytest.approx(power, abs=1e-12)
    with pytest.raises(ValueError, match="x has 1 points, expected two or more"):
        clock.slope([1.0], [1.0])


# The speed of the scan


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_what_is_timed_is_right(operation: Operation, dtype: str) -> None:
    setting = Setting(128, 8, dtype, "cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        assert operation.error(operation.call, setting) <= 1
        y = operation.call(*operation.inputs(setting, 33))
        assert operation.call(*operation.inputs(setting, 1)).dtype == y.dtype == getattr(torch, dtype)


def forgetful(a: Any, b: Any) -> Any:
    """A scan whose last step drops the state."""
    h = operations.halves(a, b)
    h[-1] = b[-1]
    return h


def wrapped_round(u: Any, K: Any) -> Any:
    """A convolution without padding."""
    return torch.fft.irfft(torch.fft.rfft(u.float()) * torch.fft.rfft(K), u.shape[-1]).to(u.dtype)


WRONG = {
    "our scan": lambda *inputs: operations.our_scan(*inputs[:5], 0 * inputs[5], *inputs[6:]),
    "torch loop": partial(operations.stored_scan, forgetful),
    "torch scan": partial(operations.stored_scan, lambda a, b: operations.loop(a.roll(1, 0), b)),
    "FFT convolution": wrapped_round,
    "attention": functional.scaled_dot_product_attention,
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_what_is_wrong_is_not_timed(operation: Operation, dtype: str) -> None:
    setting = Setting(128, 8, dtype, "cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for call in (WRONG[operation.name], lambda *inputs: torch.nan * operation.call(*inputs)):
            wrong = Operation("wrong", 1, operation.inputs, call, operation.error)
            (row,) = scan_speed.measure(wrong, setting, [16])
            assert row["reason"].startswith("it is wrong: ")
            assert "seconds" not in row


@pytest.mark.parametrize("length", range(1, 18))
def test_the_scan_by_pairs_is_the_loop(length: int) -> None:
    a, b = torch.rand(2, length, 2, 3, dtype=torch.float64)
    # every state is a sum of at most 17 terms, each below 1, rounded some 40 times
    torch.testing.assert_close(operations.halves(a, b), operations.loop(a, b), rtol=0, atol=40 * 17 * 2.0**-53)


def test_what_takes_too_long_is_told_and_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []

    def timed(call: Any, *_: Any, **__: Any) -> clock.Timing:
        lengths.append(len(call()))
        return clock.Timing((lengths[-1] ** 2 / 100,))

    monkeypatch.setattr(clock, "timed", timed)
    quadratic = Operation("slow", 2, lambda setting, length: [torch.empty(length)], lambda x: x, lambda *_: 0.0)
    rows = list(scan_speed.measure(quadratic, Setting(1, 1, "float32", "cpu"), [10, 20, 40, 80]))
    assert lengths == [10, 20]
    reasons = [None, None, "a call would take about 16 s", "a call would take about 64 s"]
    assert [row.get("reason") for row in rows] == reasons


def test_a_length_that_does_not_fit_has_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def inputs(setting: Setting, length: int) -> list[Any]:
        if length == 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [torch.empty(length)]

    some = Operation("some", 1, inputs, lambda x: x, lambda *_: 0.0)
    rows = list(scan_speed.measure(some, Setting(1, 1, "float32", "cpu"), [10, 20, 40]))
    assert [row.get("reason") for row in rows] == [None, "out of memory", None]


def speed_row(operation: str, length: int, seconds: float | None) -> dict[str, Any]:
    row = {"operation": operation, "dtype": "float32", "length": length}
    return row | ({"reason": "out of memory"} if seconds is None else {"seconds": seconds})


def test_the_speeds_findings_are_computed_from_the_rows() -> None:
    lengths = (256, 512, 1024, 2048)
    rows = [speed_row("our scan", length, 1e-3 * length) for length in lengths]
    rows += [speed_row("attention", length, 2e-6 * length**2) for length in lengths[:3]]
    rows += [speed_row("attention", 2048, None), speed_row("torch loop", 256, 0.1)]
    assert scan_speed.findings(rows) == [
        "float32, our scan: 2.05 s at length 2,048, time ∝ length^1.00 there.",
        "float32, attention: 2.1 s at length 1,024, time ∝ length^2.00 there.",
        "float32, our scan beside attention: the faster one from length 512 on, 2.05 times as fast at 1,024 and at "
        "most 2.05 times, at 1,024.",
        "float32, our scan beside torch loop: not the faster one at the greatest length, 0.391 times as fast at 256 "
        "and at most 0.391 times, at 256.",
        "float32, attention at length 2,048: out of memory.",
    ]


def test_the_speed_of_the_scan_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "timed", partial(clock.timed, runs=2, warm_up=0))
    result = scan_speed.run("small", **CPU, lengths=[48, 96])
    assert len(result.measured) == 2 * len(OPERATIONS)
    assert all(row["seconds"] > 0 and row["error_in_bounds"] <= 1 for row in result.measured)
    assert Result.from_json(result.to_json()) == result
    words = drawn_texts(scan_speed, result)
    assert all(operation.name in words for operation in OPERATIONS)
    with pytest.raises(CannotRun, match="takes a GPU, but the device is 'cpu'"):
        scan_speed.run("paper", **CPU)


def test_the_names_of_curves_that_end_early_stand_behind_all_others() -> None:
    pytest.importorskip("matplotlib")
    rows = [speed_row("our scan", length, 1e-3 * length) for length in (256, 512, 1024)]
    rows += [speed_row("attention", 256, 1.0), speed_row("attention", 512, None)]
    settings = {"dtypes": ["float32"], "lengths": [256, 512, 1024]}
    (axes,) = scan_speed.figure(Result("scan_speed", "small", 0, "cpu", settings, rows, [])).axes
    assert {text.get_text(): text.xy for text in axes.texts} == {"our scan": (1024, 1.024), "attention": (1024, 1.0)}


# Constant memory


def test_attention_by_steps_is_attention() -> None:
    """With the projections of the atlas's: x_t to q, k and v in heads, and back."""
    torch.manual_seed(0)
    width, heads, length = 6, 2, 5
    layer = constant_memory.Attention(width, heads, dtype=torch.float64)
    W = layer.in_proj.weight.detach().numpy().reshape(3, heads, width // heads, width)
    W_o = layer.out_proj.weight.detach().numpy().reshape(width, heads, width // heads).transpose(1, 0, 2)
    x = torch.randn(1, length, width, dtype=torch.float64)
    cache = layer.random_cache(1, 0, length)
    with torch.no_grad():
        y = np.concatenate([layer.step(x[:, t], cache).numpy() for t in range(length)])
    exact = atlas_attention.parallel(atlas_attention.Parameters(*W, W_o), x[0].numpy())
    # two computations in float64 of sums of at most `width` terms of order 1
    np.testing.assert_allclose(y, exact, rtol=0, atol=1e-13)
    assert cache.length == length
    beyond = layer.random_cache(1, 1, length)
    assert not np.allclose(layer.step(x[:, 0], beyond).detach().numpy(), exact[:1], atol=1e-3)


@pytest.mark.parametrize("size", ["small", "paper"])
def test_memory_is_what_the_cards_say(size: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CannotRun, match="takes a GPU, but the device is 'cpu'"):
        constant_memory.run("paper", **CPU)
    narrow = constant_memory.SIZES[size] | {"width": 64, "batch": 2}
    monkeypatch.setattr(constant_memory, "SIZES", {"small": narrow})
    monkeypatch.setattr(constant_memory, "TIMED", 2)
    result = constant_memory.run("small", **CPU, tokens=(32, 64))
    heads, itemsize = result.settings["heads"], {"small": 4, "paper": 2}[size]
    taps, state = (atlas_mamba.CARD.state_size(width=64, expand=2, taps=4, state=s) for s in (0, 16))
    for row in result.measured:
        cached = atlas_attention.CARD.state_size(heads=heads, size=64 // heads, length=row["tokens"])
        # the state of the scan stays in float32
        expected = itemsize * cached if row["layer"] == "attention" else itemsize * taps + 4 * (state - taps)
        assert row["state_bytes"] == 2 * expected
        assert row["seconds"] > 0
    assert Result.from_json(result.to_json()) == result
    assert drawn_texts(constant_memory, result).count("Mamba") == 2


def memory_row(layer: str, tokens: int, kept: int, seconds: float) -> dict[str, Any]:
    return {"layer": layer, "tokens": tokens, "state_bytes": kept, "seconds": seconds}


def test_the_memorys_findings_are_computed_from_the_rows() -> None:
    tokens = (1000, 10_000, 100_000)
    rows = [memory_row("Mamba", t, 1024, 1e-3) for t in tokens]
    rows += [memory_row("attention", t, 1024 * t, 1e-7 * t) for t in tokens[:2]]
    rows += [{"layer": "attention", "tokens": tokens[2], "reason": "out of memory"}]
    assert constant_memory.findings(rows) == [
        "Mamba keeps 1 KiB after 1,000 tokens and 1 KiB after 100,000, which grows as tokens^0.00; a token takes 1 ms "
        "and 1 ms, as tokens^0.00, over the last factor of ten 0.00.",
        "attention keeps 1e+03 KiB after 1,000 tokens and 9.77 MiB after 10,000, which grows as tokens^1.00; a token "
        "takes 100 µs and 1 ms, as tokens^1.00, over the last factor of ten 1.00.",
        "After 1,000 tokens attention takes 0.1 times as long as Mamba for one more.",
        "After 10,000 tokens attention takes 1 times as long as Mamba for one more.",
        "Attention is the slower one nowhere for good.",
        "Attention after 100,000 tokens: out of memory.",
    ]
    growing = constant_memory.findings([memory_row("Mamba", t, 8 * t, 1e-6 * t) for t in tokens])
    assert "which grows as tokens^1.00; a token takes 1 ms and 100 ms, as tokens^1.00" in growing[0]


# The training step


def training_row(path: str, batch: int, seconds: float, peak: int | None) -> dict[str, Any]:
    row = {"path": path, "dtype": "float32", "batch": batch, "seconds": seconds, "peak_bytes": peak}
    return row | {"tokens_per_second": 64 * batch / seconds}


TRAINED = [
    training_row(training_step.FAST, 8, 0.2, 2**31),
    {"path": training_step.SLOW, "dtype": "float32", "batch": 8, "reason": "out of memory"},
    training_row(training_step.SLOW, 4, 30.0, 2**35),
    training_row(training_step.FAST, 4, 0.1, 2**30),
]


def test_the_trainings_findings_are_computed_from_the_rows() -> None:
    found = training_step.findings(TRAINED, {"distance": 2e-6, "last_bit": 1e-6})
    assert found[1:] == [
        "float32, batch 8: a step takes 200 ms with the drop-in, peak memory 2 GiB.",
        "float32, batch 4: a step takes 100 ms with the drop-in and 30 s without, 300 times as long; peak memory is "
        "1 GiB and 32 GiB, 32 times as much.",
        "float32, own scan at batch 8: out of memory.",
    ]
    for far in (5e-6, float("nan")):
        (only,) = training_step.findings(TRAINED, {"distance": far, "last_bit": 1e-6})
        assert "they are two models, and their times say nothing" in only
    pytest.importorskip("matplotlib")
    words = drawn_texts(training_step, Result("training_step", "paper", 0, "cuda", {}, TRAINED, []))
    assert "drop-in, float32, batch 8" in words
    assert "32 GiB" in words


@pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed")
def test_a_training_step_is_measured_and_a_wrong_gradient_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from ssm_edu.torch import operators

    model = {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 20}
    monkeypatch.setitem(training_step.SIZES, "small", {"model": model, "batches": [4, 2], "length": 9})
    monkeypatch.setattr(training_step, "SHORT", 8)
    monkeypatch.setattr(clock, "timed", partial(clock.timed, runs=1))
    real = clock.attempt

    def attempt(work: Any, device: str) -> dict[str, Any]:
        path, _, batch, *_ = work.args
        return {"reason": "out of memory"} if (path, batch) == (training_step.SLOW, 4) else real(work, device)

    monkeypatch.setattr(clock, "attempt", attempt)
    before = dict(sys.modules)
    result = training_step.run("small", **CPU)
    assert [(row["path"], row["batch"]) for row in result.measured] == 2 * [
        ("drop-in", 4),
        ("own scan", 4),
        ("own scan", 2),
        ("drop-in", 2),
    ]
    assert 0 < result.settings["distance"] <= training_step.ALLOWED * result.settings["last_bit"]
    assert len(result.findings) == 1 + 2 * 2 + 2
    assert {name for name in before if name.startswith(("mamba_ssm", "causal_conv1d"))} == {
        name for name in sys.modules if name.startswith(("mamba_ssm", "causal_conv1d"))
    }
    assert Result.from_json(result.to_json()) == result

    adjoint = operators.selective_scan_backward
    wrong = lambda *args, **kwargs: (g := adjoint(*args, **kwargs))._replace(delta=1.001 * g.delta)  # noqa: E731
    config = result.settings["model"]
    tokens = _hugging_face.random_tokens(config, 2, 8, "cpu", 0)
    right = _hugging_face.gradients(_hugging_face.SLOW, config, tokens, 0)
    monkeypatch.setattr(operators, "selective_scan_backward", wrong)
    far = _hugging_face.distance(_hugging_face.gradients(_hugging_face.FAST, config, tokens, 0), right)
    assert far > training_step.ALLOWED * result.settings["last_bit"]
    monkeypatch.setattr(_hugging_face.ssm_edu_torch, "install", lambda: None)
    with pytest.raises(RuntimeError, match="the drop-in called 0 of ssm_edu's scans, expected 2"):
        _hugging_face.gradients(_hugging_face.FAST, config, tokens, 0)


def test_what_the_training_step_needs_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CannotRun, match="takes a GPU, but the device is 'cpu'"):
        training_step.run("paper", **CPU)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(CannotRun, match="training_step needs transformers: pip install transformers"):
        training_step.run("small", **CPU)
