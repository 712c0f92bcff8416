"""`ssm-edu experiment`: the list, the result, the figures' look, and what is said where something is missing."""

import ast
import inspect
import json
import os
import subprocess
import sys
import types
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ssm_edu import experiments
from ssm_edu.cli import app
from ssm_edu.commands import experiment as command
from ssm_edu.experiments import figures
from ssm_edu.experiments.result import CannotRun, Progress, Result, bytes_text, sized
from tests.test_bench_tables import contrast

runner = CliRunner()
FOLDER = Path(experiments.__file__).parent
BOTH = {"torch", "transformers"}


def result(**change):
    rows = [{"layer": "Mamba", "tokens": 1000, "state_bytes": 2048, "seconds": 1e-3, "peak_bytes": None}]
    kept = {"settings": {"width": 4}, "measured": rows, "findings": ["One."]} | change
    return Result("constant_memory", "small", 0, "cpu", **kept)


def told(*arguments):
    found = runner.invoke(app, ["experiment", *arguments])
    return found.exit_code, " ".join(found.output.split())


def test_a_result_is_kept_without_loss_and_says_where_and_when():
    one = result()
    assert Result.from_json(one.to_json()) == one
    assert {"cpu", "cores", "packages"} <= one.machine.keys()
    assert one.date.endswith("+00:00")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"experiment": "x"}', '"text"'])
def test_what_is_no_result_is_refused(text):
    with pytest.raises(ValueError, match="no result of `ssm-edu experiment`"):
        Result.from_json(text)


def test_a_figure_that_is_not_finite_is_not_written():
    with pytest.raises(ValueError, match="nan"):
        result(measured=[{"seconds": float("nan")}]).to_json()


def test_progress_tells_whom_it_is_given():
    heard = []
    whole = Progress(lambda fraction, note: heard.append((fraction, note)))
    whole.advance(0.5, "half")
    Progress().advance(0.5, "half")
    whole.part(0.5, 1.0, "S4D: ").part(0.0, 0.5).advance(0.5, "step 2")
    Progress().part(0.5, 1.0).advance(0.5, "half")
    assert heard == [(0.5, "half"), (0.625, "S4D: step 2")]


def test_a_size_is_small_or_on_a_gpu_the_papers():
    sizes = {"small": 1, "paper": 2}
    assert [sized(sizes, size, device) for size, device in [("small", "cpu"), ("paper", "cuda:0")]] == [1, 2]
    with pytest.raises(CannotRun, match=r"takes a GPU, but the device is 'cpu'; the small size runs on it"):
        sized(sizes, "paper", "cpu")
    with pytest.raises(ValueError, match="size is 'large', expected one of small, paper"):
        inspect.unwrap(sized)(sizes, "large", "cuda")


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1 KiB"), (3 * 2**29, "1.5 GiB")]
)
def test_bytes_are_told_in_units(number, text):
    assert bytes_text(number) == text


def test_every_experiment_has_a_card_a_run_and_a_figure():
    def functions(path):
        return {node.name for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)}

    whole = {path.stem for path in FOLDER.glob("*.py") if {"run", "figure"} <= functions(path)}
    assert whole == set(experiments.cards()) >= {"constant_memory", "scan_speed", "training_step"}
    for card in experiments.cards().values():
        assert card.title
        assert card.question.endswith((")", "?"))
        assert card.paper.startswith("a GPU: ")  # it follows "which takes"
        assert card.paper.endswith(".")
        assert "\n" not in card.title + card.question + card.paper


def test_the_list_names_them_and_imports_no_torch():
    code, words = told()
    assert code == 0
    for card in experiments.cards().values():
        assert card.name in words
    script = (
        "import sys; from typer.testing import CliRunner; from ssm_edu.cli import app; "
        "found = CliRunner().invoke(app, ['experiment']); "
        "sys.exit(found.exit_code or ('torch' in sys.modules) or ('matplotlib' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_an_unknown_name_and_a_missing_folder_are_said(tmp_path):
    code, words = told("constant_memry")
    assert code == 2
    assert "no experiment named 'constant_memry'; did you mean 'constant_memory'?" in words
    with pytest.raises(ValueError, match="no experiment named 'result'"):
        experiments.load("result")
    assert told("constant_memory", "--out", str(tmp_path / "no")) == (2, f"ssm-edu: --out: no folder {tmp_path / 'no'}")
    for seed in (-1, 2**32):
        assert told("constant_memory", "--seed", str(seed))[0] == 2


def test_a_folder_that_takes_no_files_is_said_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, how: how != os.W_OK)
    code, words = told("constant_memory", "--out", str(tmp_path))
    assert (code, words) == (2, f"ssm-edu: --out: nothing may be written to {tmp_path}")


@pytest.mark.parametrize(
    ("name", "absent", "words"),
    [
        ("scan_speed", BOTH, "torch: pip install 'ssm-edu[torch]'"),
        ("training_step", BOTH, "torch and transformers: pip install 'ssm-edu[torch]' transformers"),
        ("training_step", {"transformers"}, "transformers: pip install transformers"),
    ],
)
def test_all_packages_that_are_not_there_are_named_at_once(name, absent, words, monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda package: None if package in absent else package)
    assert told(name) == (2, f"ssm-edu: {name} needs {words}")


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
def test_a_device_that_is_not_there_is_said(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, words = told("scan_speed", "--device", "cuda")
    assert code == 2
    assert "sees no GPU here; expected cpu" in words
    code, words = told("scan_speed", "--device", "tpu")
    assert (code, words) == (2, "ssm-edu: device is 'tpu', expected one of auto, cpu, cuda")
    assert command.chosen("auto") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [command.chosen(device) for device in ("auto", "cpu", "cuda")] == ["cuda", "cpu", "cuda"]


def stand_in(run, figure=lambda result: None):
    return types.SimpleNamespace(TITLE="Title", QUESTION="What?", run=run, figure=figure)


def draw(result):
    with figures.style():
        drawn, (axes,) = figures.panels()
        axes.plot([1, 2], [1, 2], color=figures.BLUE)
        figures.name_curves(axes, [(2, 2, "one", figures.BLUE)])
    return drawn


def test_a_run_prints_its_findings_and_a_table_and_writes_both_files(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    asked = []

    def run(size, *, device, seed, progress):
        progress.advance(0.5, "half")
        asked.append((size, device, seed))
        return result()

    monkeypatch.setattr(experiments, "load", lambda name: stand_in(run, draw))
    command.run("constant_memory", "paper", "cpu", 3, tmp_path)
    assert asked == [("paper", "cpu", 3)]
    words = " ".join(capsys.readouterr().out.split())
    assert "Title: What?" in words
    assert "layer tokens state bytes seconds Mamba 1,000 2 KiB 1 ms • One." in words
    assert "peak" not in words
    assert Result.from_json((tmp_path / "constant_memory.json").read_text("utf-8")).findings == ["One."]
    svg = (tmp_path / "constant_memory.svg").read_text("utf-8")
    assert ">one</text>" in svg
    figures.save(draw(None), tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text("utf-8") == svg


def test_without_matplotlib_there_is_a_result_and_no_figure(tmp_path, monkeypatch, capsys):
    def run(size, **options):
        assert "no figure, which needs matplotlib" in capsys.readouterr().out  # before what takes minutes
        return result()

    monkeypatch.setattr(experiments, "load", lambda name: stand_in(run))
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    command.run("constant_memory", "small", "cpu", 0, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["constant_memory.json"]
    assert json.loads((tmp_path / "constant_memory.json").read_text("utf-8"))["size"] == "small"


@pytest.mark.parametrize(("row", "warned"), [({"seconds": 1.0}, True), ({"accuracy": 0.5}, False)])
def test_a_busy_machine_is_told_where_times_are_measured(row, warned, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiments, "load", lambda name: stand_in(lambda size, **options: result(measured=[row])))
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    monkeypatch.setattr("ssm_edu.bench.report.load", lambda: 2.0)
    command.run("constant_memory", "small", "cpu", 0, tmp_path)
    assert ("busy when it began (load 2.0)" in capsys.readouterr().out) is warned


def test_what_cannot_run_is_said_and_what_fails_otherwise_is_not_hidden(tmp_path, monkeypatch, capsys):
    def run(error):
        def raise_(size, **options):
            raise error

        monkeypatch.setattr(experiments, "load", lambda name: stand_in(raise_))
        command.run("constant_memory", "small", "cpu", 0, tmp_path)

    with pytest.raises(command.typer.Exit):
        run(CannotRun("it needs a GPU"))
    assert "ssm-edu: it needs a GPU" in capsys.readouterr().err
    with pytest.raises(ValueError, match="broken"):
        run(ValueError("broken"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (2, 1), (3, 2)])
def test_panels_stand_two_in_a_row(count, rows):
    pytest.importorskip("matplotlib")
    drawn, panels = figures.panels(count, height=2)
    assert list(panels) == drawn.axes
    assert len(panels) == count
    assert drawn.get_figheight() == 2 * rows


@pytest.mark.parametrize("colour", [*figures.COLOURS, figures.INK])
def test_every_colour_is_dark_enough_for_text_on_white(colour):
    """WCAG 2 asks 4.5 of text."""
    assert contrast(colour, "#ffffff") >= 4.5


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_names_that_would_touch_are_moved_apart(scale):
    pytest.importorskip("matplotlib")
    ends = [(2, 1.0, "low", figures.BLUE), (2, 1.01, "high", figures.ORANGE), (2, 3.0, "far", figures.GREEN)]
    with figures.style():
        drawn, (axes,) = figures.panels()
        for x, y, _, colour in ends:
            axes.plot([1, x], [0.1, y], color=colour)
        axes.set_yscale(scale)
        figures.name_curves(axes, ends, gap=10)
        drawn.draw_without_rendering()
    height = {
        text.get_text(): axes.transData.transform(text.xy)[1] * 72 / drawn.dpi + text.xyann[1] for text in axes.texts
    }
    shift = {text.get_text(): text.xyann[1] for text in axes.texts}
    assert shift["low"] == shift["far"] == 0
    assert height["high"] - height["low"] == pytest.approx(10)
