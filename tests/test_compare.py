"""`ssm-edu compare` and `ssm-edu bench`: every contestant is judged before it is timed."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from ssm_edu import bounds
from ssm_edu.bench import BUILT_IN, Case, Contestant, Judge, competitors, console, contestants, measure
from ssm_edu.bench.judging import peak_memory, timed
from ssm_edu.bench.report import time_text, times
from ssm_edu.commands.bench import bench_command
from ssm_edu.commands.compare import compare_command

runner = CliRunner()
TINY = ("--batch", "1", "--dim", "4", "--length", "33", "--state", "4")
CASE = Case(1, 4, 33, 4)
NUMBA, NUMBA_BACKWARD, CHUNKED, CHUNKED_BACKWARD, REFERENCE, REFERENCE_BACKWARD = BUILT_IN


def call(function, *arguments):
    app = typer.Typer()
    app.command()(function)
    return runner.invoke(app, arguments)


def spoiled(contestant, spoil, **changes):
    """The contestant with `spoil` done to its outputs."""

    def outputs(result):
        return spoil({name: array.copy() for name, array in contestant.outputs(result).items()})

    return replace(contestant, name=f"wrong {contestant.name}", outputs=outputs, **changes)


def scaled(name, factor):
    return lambda outputs: outputs | {name: outputs[name] * np.float32(factor)}


@pytest.fixture(autouse=True)
def _few_runs(monkeypatch):
    monkeypatch.setattr("ssm_edu.bench.judging.timed", partial(timed, runs=3, seconds=0.0))


@pytest.fixture(scope="module")
def judge():
    return Judge(CASE)


def test_compare_tells_error_time_and_memory_of_each(tmp_path):
    file = tmp_path / "rows.json"
    result = call(compare_command, *TINY, "--json", str(file))
    assert result.exit_code == 0, result.output
    report = json.loads(file.read_text("utf-8"))
    assert set(report) == {"date", "machine", "case", "rows"}
    assert report["case"]["length"] == 33
    assert {"cpu", "cores", "python", "packages"} <= set(report["machine"])
    assert [(row["name"], row["direction"]) for row in report["rows"]] == [
        (name, direction) for name in ("numba", "chunked", "reference") for direction in ("forward", "backward")
    ]
    for row in report["rows"]:
        assert row["ok"]
        assert 0 < row["error_in_bounds"] <= 1
        assert row["checked_steps"] == 33
        assert 0 < row["min_seconds"] <= row["median_seconds"]
        assert row["peak_bytes"] >= 4 * 33 * np.dtype(np.float32).itemsize  # y itself, or one gradient
    for word in ("numba", "chunked", "reference", "error/bound", "memory"):
        assert word in result.output


@pytest.mark.parametrize(
    "case",
    [Case(2, 3, 40, 5, "float64", "zoh"), Case(1, 2, 70, 3, "float16"), Case(1, 2, 9, 3, "float32", "bilinear", True)],
)
def test_numpy_implementations_are_within_their_bounds(case):
    """Over one chunk and over two, in every precision: ROUND-7 to ROUND-13."""
    judge = Judge(case)
    for contestant in (CHUNKED, CHUNKED_BACKWARD, REFERENCE, REFERENCE_BACKWARD):
        row = measure(contestant, judge)
        assert row.ok, row.verdict
        if contestant.name == "reference" and case.dtype == "float64":
            assert row.verdict.ratio == row.verdict.error == 0


@pytest.mark.parametrize(
    ("contestant", "spoil", "message"),
    [
        (CHUNKED, scaled("y", 1 + 1e-4), r"^y\[0, \d, \d+\] is .*, expected .* ± "),
        (CHUNKED, scaled("last_state", 1 + 1e-4), r"^last_state\["),
        (CHUNKED, scaled("y", np.nan), r"^y\[0, 0, 0\] is nan, expected"),
        (
            CHUNKED,
            lambda outputs: outputs | {"y": outputs["y"][..., :-1]},
            r"y is f\(1, 4, 32\), expected f\(1, 4, 33\)",
        ),
        (CHUNKED, lambda outputs: outputs | {"y": outputs["y"] + 0j}, "y is c"),
        (CHUNKED, lambda outputs: {}, "y is missing"),
        (CHUNKED_BACKWARD, scaled("gradient of A", 1 + 1e-2), r"gradient of A\["),
        (CHUNKED_BACKWARD, lambda outputs: {"gradient of u": outputs["gradient of u"]}, "gradient of A is missing"),
    ],
)
def test_a_wrong_contestant_is_outside(judge, contestant, spoil, message):
    row = measure(spoiled(contestant, spoil), judge)
    assert not row.ok
    assert row.verdict.ratio > 1
    assert re.search(message, row.verdict.message), row.verdict.message
    assert times(row)[0].startswith("[strike]")
    json.dumps(row.as_dict(), allow_nan=False)


def test_an_error_without_a_finite_bound_is_not_within_it(judge, monkeypatch):
    unbounded = bounds.forward(CASE.problem)._replace(y=np.full((1, 4, 33), np.inf))
    monkeypatch.setattr(bounds, "forward", lambda *_, **__: unbounded)
    assert not measure(REFERENCE, Judge(CASE)).ok


def test_a_contestant_that_raises_is_wrong(judge):
    def prepare(case):
        raise RuntimeError("no such kernel")

    row = measure(replace(REFERENCE, prepare=prepare), judge)
    assert not row.ok
    assert row.verdict.message == "raised RuntimeError: no such kernel"
    assert times(row) == ("", "")


def test_one_that_is_not_available_says_why(judge):
    row = measure(replace(REFERENCE, available=contestants.needs("no_such_package", "numpy")), judge)
    assert row.skipped == "no_such_package not installed"
    assert row.as_dict()["skipped"] == row.skipped


def test_ours_outside_its_bound_exits_with_1(monkeypatch, tmp_path):
    monkeypatch.setattr("ssm_edu.bench.BUILT_IN", (REFERENCE, spoiled(CHUNKED, scaled("y", 2))))
    monkeypatch.setattr(competitors, "COMPETITORS", ())
    for function, forward in ((compare_command, ["--no-backward"]), (bench_command, ["--direction", "forward"])):
        result = call(function, *TINY, *forward, "--json", str(tmp_path / "rows.json"))
        assert result.exit_code == 1, result.output
        assert "wrong chunked forward is outside its bound: y[" in result.output.replace("\n", " ")
        assert [row["ok"] for row in json.loads((tmp_path / "rows.json").read_text("utf-8"))["rows"]] == [True, False]


def test_bench_strikes_a_wrong_competitor_and_counts_the_others(monkeypatch, tmp_path):
    file = tmp_path / "bench.json"
    other = replace(CHUNKED, name="other", ours=False)
    wrong = spoiled(other, scaled("y", 2))
    yardstick = Contestant("yardstick", "forward", lambda case: lambda: np.exp(np.zeros(case.elements)), None)
    absent = replace(other, name="absent", available=lambda: "not here")
    monkeypatch.setattr(competitors, "COMPETITORS", (other, wrong, yardstick, absent))
    monkeypatch.setattr(console, "LENGTHS", (20, 40))
    result = call(bench_command, *TINY, "--lengths", "--json", str(file))
    assert result.exit_code == 0, result.output
    assert "wrong other forward is outside its bound" in result.output
    assert "absent: not here" in result.output
    report = json.loads(file.read_text("utf-8"))
    assert [(ratio["name"], ratio["direction"]) for ratio in report["ratios"]] == [
        ("other", "forward"),
        ("yardstick", "forward"),
    ]
    assert [(row["length"], row["ok"]) for row in report["lengths"]] == [(20, True), (40, True)]
    rows = {(row["name"], row["direction"]): row for row in report["rows"]}
    assert rows["wrong other", "forward"]["ok"] is False
    assert "ok" not in rows["yardstick", "forward"]
    ours = rows["numba", "forward"]
    assert ours["exponentials_per_second"] * ours["median_seconds"] == pytest.approx(CASE.elements)
    assert ours["bytes_per_second"] * ours["median_seconds"] == pytest.approx(4 * (4 * 4 * 33 + 2 * 4 * 33))


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (compare_command, ("--dtype", "float31"), "dtype is 'float31', expected one of float16, float32, float64"),
        (compare_command, ("--discretization", "foh"), "discretization is 'foh', expected one of mamba, zoh, bilinear"),
        (compare_command, ("--length", "0"), "greater than or equal to 1"),
        (compare_command, ("--length", "1000000"), "is 2048000000, expected at most 16777216"),
        (compare_command, ("--json", "/no/such/folder/x.json"), "--json: no folder /no/such/folder"),
        (
            bench_command,
            ("--device", "cpu", "--dtype", "float16"),
            "dtype is 'float16', expected one of float32, float64",
        ),
        (bench_command, ("--length", "1000000"), "gradients are judged whole; --direction forward"),
        (bench_command, ("--json", "/no/such/folder/x.json"), "--json: no folder /no/such/folder"),
    ],
)
def test_usage_errors_exit_with_2(function, arguments, message):
    result = call(function, *arguments)
    assert result.exit_code == 2
    assert message in result.output.replace("\n", " ")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"dim": True}, TypeError, "dim is True, expected an integer"),
        ({"state": 0}, ValueError, "state is 0, expected at least 1"),
    ],
)
def test_a_case_names_its_wrong_field(changes, error, message):
    fields = {"batch": 1, "dim": 1, "length": 1, "state": 1} | changes
    with pytest.raises(error, match=message):
        Case(**fields)


def test_a_long_case_is_checked_on_its_first_steps(monkeypatch):
    """y there is that of the whole scan, and only the whole has gradients."""
    monkeypatch.setattr("ssm_edu.bench.judging.LARGEST_CHECK", 16 * 10)
    judge = Judge(CASE)
    assert judge.steps == 10
    assert measure(REFERENCE, judge).verdict.steps == 10
    assert np.array_equal(judge.scan["y"], Judge(CASE).scan["y"])

    def at(t):
        def spoil(outputs):
            outputs["y"][0, 0, t] += 1
            return outputs

        return measure(spoiled(REFERENCE, spoil), judge).ok

    assert not at(9)
    assert at(10)
    with pytest.raises(ValueError, match="is 528, expected at most 160"):
        measure(REFERENCE_BACKWARD, judge)


def test_numba_is_judged_by_chunks_where_it_cuts_time(monkeypatch):
    problem = Case(1, 4, 1000, 4).problem
    monkeypatch.setattr("ssm_edu.selective.cpu.cores", lambda: 1)
    assert contestants.numba_bracketing(problem) == {"algorithm": "sequential"}
    monkeypatch.setattr("ssm_edu.selective.cpu.cores", lambda: 64)
    assert contestants.numba_bracketing(problem) == {"algorithm": "chunked", "chunk": 64}


def test_timing_repeats_enough():
    assert len(timed(lambda: None, seconds=0.0)) == 7
    assert sum(timed(lambda: None, seconds=0.01)) >= 0.01
    assert len(timed(lambda: None, at_most=0.0)) == 3


def test_memory_is_that_of_arrays_at_their_peak():
    def two_after_another():
        np.ones(10**6)
        return np.ones(2 * 10**6)

    assert 16e6 <= peak_memory(two_after_another) < 16.1e6


def test_bytes_moved_are_those_of_the_arrays():
    a = CASE.arguments
    maps = a["B"].nbytes + a["C"].nbytes
    assert CASE.bytes_moved("forward") == sum(a[n].nbytes for n in ("u", "delta", "z", "u")) + maps
    gradients = sum(a[n].nbytes for n in ("u", "delta", "z")) + maps
    assert (
        CASE.bytes_moved("backward")
        == sum(a[n].nbytes for n in ("u", "delta", "z")) + CASE.grad_y.nbytes + maps + gradients
    )


@pytest.mark.parametrize(("seconds", "text"), [(2.0, "2 s"), (0.00281, "2.81 ms"), (17e-6, "17 µs"), (3e-9, "3 ns")])
def test_times_have_their_unit(seconds, text):
    assert time_text(seconds) == text


def test_the_commands_load_neither_numba_nor_torch():
    heavy = ["scipy", "sympy", "numba", "torch", "hypothesis"]
    modules = "ssm_edu.commands.compare, ssm_edu.commands.bench, ssm_edu.bench.console, ssm_edu.bench.device.console"
    code = f"import {modules}, sys; print(*[m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


@pytest.mark.parametrize("length", [1, 33, 64])
def test_competitors_are_within_their_bounds(length):
    """Their discretisation and layouts are ours to get right."""
    judge = Judge(Case(2, 4, length, 3))
    for contestant in competitors.COMPETITORS:
        if contestant.available() is not None:
            pytest.skip(contestant.available())
        if contestant.outputs is not None:
            found = contestant.outputs(contestant.prepare(judge.case)())
            assert judge.verdict(contestant, found).ok, contestant
