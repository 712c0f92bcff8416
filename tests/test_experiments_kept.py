"""The results that the site shows: their findings and figures follow from their rows, and all are on the page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from copy import deepcopy
from dataclasses import asdict, is_dataclass, replace
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ssm_edu import experiments
from ssm_edu.commands.experiment import rows_table
from ssm_edu.experiments.result import Rows, Size

FOLDER = Path(__file__).parent.parent / "docs/experiments"
PAGE = (FOLDER / "index.md").read_text("utf-8")
NAMES = list(experiments.cards())
ON_A_GPU = ("constant_memory", "scan_speed", "training_step")  # at the paper's size
KEPT: list[tuple[str, Size]] = [*((name, "small") for name in NAMES), *((name, "paper") for name in ON_A_GPU)]
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")


@pytest.fixture(scope="module")
def kept() -> Any:
    """The module beside the page."""
    spec = spec_from_file_location("kept", FOLDER / "kept.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plain_json(settings: Any) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(settings) if is_dataclass(settings) else settings))


@pytest.mark.parametrize(("name", "size"), KEPT)
def test_a_result_is_as_it_was_written_and_stands_on_the_page(name: str, size: Size, kept: Any) -> None:
    one = kept.result(name, size)
    assert kept.path_of(name, size).read_text("utf-8") == one.to_json()
    assert (one.experiment, one.size, one.seed) == (name, size, 0)
    arguments = f'"{name}"' if size == "small" else f'"{name}", "{size}"'
    assert f'kept.question("{name}")' in PAGE
    for cell in ("figure", "found"):
        assert f"kept.{cell}({arguments})" in PAGE
    said = kept.found_text(name, size)
    for words in (*one.findings, one.date[:10], one.machine["cpu"]):
        assert kept.plain(words) in said
    assert f"cores used: {one.machine['cores']}; " in said
    assert f"load: {one.machine['load']}; " in said


@pytest.mark.parametrize(("name", "size"), KEPT)
def test_what_ran_at_the_papers_size_ran_on_a_gpu_and_is_told_with_it(name: str, size: Size, kept: Any) -> None:
    one = kept.result(name, size)
    gpu = one.machine["gpu"]
    assert (size == "paper") == (one.device == "cuda") == (gpu is not None)
    told = f"**Measured:** {one.date[:10]}; {gpu or one.machine['cpu']}; "
    assert told in kept.found_text(name, size)
    assert gpu is None or told not in kept.found_text(name)


@pytest.mark.parametrize(("name", "size"), KEPT)
def test_only_where_the_papers_size_was_not_run_the_page_says_so(
    name: str, size: Size, kept: Any, tmp_path: Path
) -> None:
    lacking = f"**Not run here at the paper's size**, which takes {kept.plain(experiments.cards()[name].paper)}"
    said = kept.found_text(name, size)
    assert (lacking in said) == ("Not run" in said) == (name not in ON_A_GPU)
    shutil.copy(kept.path_of(name), tmp_path)
    assert kept.found_text(name, folder=tmp_path).endswith(lacking)


def test_no_file_is_left_over(kept: Any) -> None:
    files = {kept.path_of(name, size, end).name for name, size in KEPT for end in ("json", "svg")}
    assert len(files) == 2 * len(KEPT)
    assert {path.name for path in kept.RESULTS.iterdir()} == files


def test_the_page_needs_no_torch() -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import kept\n"
        f"for one in {KEPT}: kept.found_text(*one), kept.figure_html(*one)\n"
        "kept.times_as_long(kept.result('scan_speed', 'paper'))\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_no_two_figures_have_an_id_or_a_name_in_common_and_every_link_has_its_place(kept: Any) -> None:
    seen: set[str] = set()
    for name, size in KEPT:
        html = kept.figure_html(name, size)
        places = set(re.findall(r'\b(?:id|aria-label)="([^"]+)"', html))
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', html)) <= places
        assert not seen & places
        seen |= places


def test_a_long_list_is_folded(kept: Any) -> None:
    few, many = (kept.folded([f"Number {i}." for i in range(count)]) for count in (kept.LONG, kept.LONG + 1))
    assert few == "\n".join(f"- Number {i}." for i in range(kept.LONG))
    assert many.startswith(f"<details><summary>All {kept.LONG + 1} findings</summary>\n\n- Number 0.\n")
    assert many.endswith(f"- Number {kept.LONG}.\n\n</details>")


def test_the_table_is_of_the_rows(kept: Any) -> None:
    """It agrees with the findings, which are computed elsewhere."""
    one = kept.result("scan_speed", "paper")
    said, lengths = kept.times_as_long(one), one.settings["lengths"][::2]
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines()]
    assert table[0] == ["", *(f"{length:,}" for length in lengths)]
    cells = {(row[0], length): cell for row in table[2:] for length, cell in zip(lengths, row[1:], strict=True)}
    pattern = (
        r"(\w+), our scan beside ([\w ]+): .*, (\S+) times as fast at ([\d,]+) and at most (\S+) times, at ([\d,]+)\."
    )
    found = [match.groups() for match in map(re.compile(pattern).fullmatch, one.findings) if match]
    assert len(found) == len(table) - 2
    agreed = 0
    for dtype, operation, *figures in found:
        for times, length in (figures[:2], figures[2:]):
            if cell := cells.get((f"{operation}, {dtype}", int(length.replace(",", "")))):
                assert float(cell.replace(",", "")) == pytest.approx(float(times), rel=5e-3)  # three digits of both
                agreed += 1
    assert agreed >= len(found)
    reasons = [row for row in one.measured if "reason" in row and row["length"] in lengths]
    assert reasons
    for row in reasons:
        assert cells[f"{row['operation']}, {row['dtype']}", row["length"]] == row["reason"]
    assert kept.times_as_long(replace(one, measured=halved(one.measured))) != said


def test_settings_are_told_in_words(kept: Any) -> None:
    settings = {"steps": 1600, "training": {"learning_rate": 0.01}, "lengths": [64, 128], "dtype": "float32"}
    told = ["steps 1,600", "training (learning rate 0.01)", "lengths 64 128", "dtype float32"]
    assert list(kept.in_words(settings)) == told


@needs_torch
@pytest.mark.parametrize(("name", "size"), KEPT)
def test_the_settings_are_todays(name: str, size: Size, kept: Any) -> None:
    today, settings = plain_json(experiments.load(name).SIZES[size]), kept.result(name, size).settings
    assert holds(settings, today)
    assert not holds(settings, today | {next(iter(today)): "other"})


def holds(settings: Any, some: Any) -> bool:
    if isinstance(some, dict):
        return all(key in settings and holds(settings[key], value) for key, value in some.items())
    return settings == some


@needs_torch
@pytest.mark.parametrize(("name", "size"), KEPT)
def test_the_findings_are_those_of_the_rows(name: str, size: Size, kept: Any) -> None:
    one = kept.result(name, size)
    assert kept.concluded(one).findings == one.findings
    assert kept.concluded(replace(one, measured=halved(one.measured))).findings != one.findings


def halved(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every second figure of a kind that findings are made of."""
    changed = deepcopy(rows)
    for row in changed[::2]:
        for key in {"accuracy", "superiority", "seconds", "tokens_per_second", "q50"} & row.keys():
            row[key] = None if row[key] is None else row[key] / 2
    return changed


@needs_torch
@pytest.mark.parametrize(("name", "size"), KEPT)
def test_the_figures_are_those_of_the_rows(name: str, size: Size, kept: Any, tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    old = kept.path_of(name, size, "svg").read_text("utf-8")
    if f"Matplotlib v{matplotlib.__version__}," not in old:
        pytest.skip("the figures were drawn by another Matplotlib, which lays them out in its own way")
    for change, same in ((lambda rows: rows, True), (halved, False)):
        one = kept.result(name, size)
        new = tmp_path / "new.svg"
        experiments.figures.save(experiments.load(name).figure(replace(one, measured=change(one.measured))), new)
        assert (drawn(old) == drawn(new.read_text("utf-8"))) is same


def drawn(svg: str) -> list[str]:
    """The curves and words, to a tenth of a point: the digits beyond differ between machines."""
    shapes = re.findall(r'\bd="([^"]*)"|<use [^>]*\bx="([-\d.]+)" y="([-\d.]+)"|<text [^>]*>([^<]*)<', svg)
    return [re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.1f}", " ".join(shape)) for shape in shapes]


@needs_torch
@pytest.mark.parametrize(("name", "size"), KEPT)
def test_a_renewed_result_has_its_own_name_and_size(name: str, size: Size, kept: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    one = kept.result(name, size)
    path = kept.path_of(name, size, folder=tmp_path)
    path.write_text(replace(one, findings=["Nothing."]).to_json(), "utf-8")
    kept.renew(tmp_path)
    assert kept.result(name, size, tmp_path) == one
    assert {one.name for one in tmp_path.iterdir()} == {path.name, kept.path_of(name, size, "svg").name}


@needs_torch
@pytest.mark.parametrize("name", NAMES)
def test_what_the_papers_size_takes_is_what_it_is(name: str) -> None:
    """The paper's own number of steps is of Mamba, appendix E.1."""
    module, of = experiments.load(name), {"forgetting": "selective_copying"}.get(name, name)
    known = {float(x) for x in re.findall(r"[\d.]+", json.dumps(plain_json(experiments.load(of).SIZES["paper"])))}
    known |= {16.0, 64.0} if name == "forgetting" else set()
    told, _, papers = module.PAPER.partition("The paper trains")
    assert {float(x.replace(",", "")) for x in re.findall(r"\b\d[\d,]*\b", told)} <= known
    assert re.findall(r"\d[\d,]*\d", papers) in ([], ["400,000"], ["204,800"])


def shares(one: Any, key: str) -> dict[Any, float]:
    """Right answers in the tests."""
    return {row[key]: row["accuracy"] for row in one.measured if row["what"] == "test"}


@needs_torch
def test_what_the_page_says_in_its_own_words_holds(kept: Any) -> None:
    copying, forgetting, heads = map(kept.result, ("selective_copying", "forgetting", "induction_heads"))
    guess = 1 / copying.settings["values"]
    assert shares(copying, "layer")["S6"] > 0.95
    assert 1.5 * guess < shares(copying, "layer")["S4D"] < 0.9
    changed = [row for row in forgetting.measured if row["what"] == "intervention" and row["layer"] is None]
    by_hand = {row["kind"]: row["accuracy"] for row in changed}
    assert any(one.startswith("In every layer") and "as Article 2 says (a medium" in one for one in forgetting.findings)
    assert by_hand["Δ = 0 on far noise"] > 0.95 * by_hand["as trained"]
    assert by_hand["Δ = 10 on far noise"] < 1.5 * guess
    paper = experiments.load("induction_heads").SIZES["paper"]
    assert shares(heads, "length")[heads.settings["lengths"][-1]] < 0.95
    assert 2 * heads.settings["width"] == paper.width
    assert heads.settings["training"]["steps"] < paper.training.steps / 10
    assert heads.settings["length"] < paper.length == 256
    for timed in ("constant_memory", "scan_speed", "training_step"):
        assert kept.result(timed).machine["threads"] == kept.result(timed).machine["cores"] == 1


def test_what_the_page_says_of_the_gpus_scan_holds(kept: Any) -> None:
    rows = kept.result("scan_speed", "paper").measured
    assert fastest(rows, "our scan")
    for i, row in enumerate(rows):
        if row["operation"] == "our scan":
            slower = {**row, "seconds": 1e3 * row["seconds"]}
            assert not fastest([*rows[:i], slower, *rows[i + 1 :]], "our scan")
    behind = {key: time / seconds(rows)[key[0], "our scan", key[2]] for key, time in seconds(rows).items()}
    lengths = sorted({row["length"] for row in rows})
    attention = [behind["bfloat16", "attention", length] for length in lengths]
    assert max(attention[:2]) < 1.5 < min(attention[2:])
    assert seconds(rows)["bfloat16", "attention", lengths[1]] < 1e-4
    for dtype in ("bfloat16", "float32"):
        assert any(
            one.startswith(f"{dtype}, attention: ") and re.search(r"length\^(1\.9|2\.[01])\d there", one)
            for one in kept.result("scan_speed", "paper").findings
        )
        convolution = [behind[dtype, "FFT convolution", length] for length in lengths]
        assert 1 < max(convolution[:4]) < min(convolution[-4:])
        for length in lengths:
            timed = {key[1]: time for key, time in seconds(rows).items() if key[::2] == (dtype, length)}
            assert max(timed, key=lambda name: timed[name]) == "torch loop" or "torch loop" not in timed
    why = {(row["operation"], row["length"], row["reason"]) for row in rows if "reason" in row}
    assert {reason for operation, _, reason in why if operation == "torch scan"} == {"out of memory"}
    assert ("torch scan", lengths[-1], "out of memory") in why
    assert all("would take about" in reason for operation, _, reason in why if operation == "torch loop")
    small = seconds(kept.result("scan_speed").measured)
    assert all(small["float32", "FFT convolution", t] < 1.2 * small["float32", "our scan", t] for _, _, t in small)


def seconds(rows: Rows) -> dict[tuple[str, str, int], float]:
    """By dtype, operation and length, where there are any."""
    return {(row["dtype"], row["operation"], row["length"]): row["seconds"] for row in rows if "seconds" in row}


def fastest(rows: Rows, operation: str) -> bool:
    """At every length, of every dtype."""
    times = seconds(rows)
    return all(times[dtype, operation, t] < time for (dtype, name, t), time in times.items() if name != operation)


def test_what_the_page_says_of_the_gpus_memory_holds(kept: Any) -> None:
    one = kept.result("constant_memory", "paper")
    rows = {layer: [row for row in one.measured if row["layer"] == layer] for layer in ("Mamba", "attention")}
    times = {layer: [row["seconds"] for row in rows[layer]] for layer in rows}
    assert one.settings["batch"] > 1
    assert len({row["state_bytes"] for row in rows["Mamba"]}) == 1
    *block, last = times["Mamba"]
    assert max(block) < 1.05 * min(block)  # it does not grow
    assert last < 0.7 * min(block)  # far below
    assert rows["Mamba"][0]["best"] == pytest.approx(last, rel=0.05)  # about as short
    slower = [theirs > ours for ours, theirs in zip(times["Mamba"], times["attention"], strict=True)]
    assert slower == [False] * (len(slower) - 1) + [True]
    assert [last < theirs for theirs in times["attention"]] == [False] * (len(slower) - 2) + [True] * 2
    flat, grown = times["attention"][:3], times["attention"][-3:]
    assert max(flat) < 1.05 * min(flat)
    assert grown == sorted(grown)
    assert grown[-1] > 4 * grown[0]
    assert kept.result("constant_memory").settings["batch"] == 1


@needs_torch
def test_what_forgetting_prints_fits_a_terminal(kept: Any) -> None:
    rows, forgetting = kept.result("forgetting").measured, experiments.load("forgetting")

    def printed(some: list[dict[str, Any]]) -> str:
        written = StringIO()
        Console(file=written, width=80).print(rows_table(some))
        return written.getvalue()

    lines = printed(forgetting.shown(rows)).splitlines()
    assert len(lines) == 1 + 2 * len(forgetting.KINDS)
    assert all(kind in one + two for kind, (one, two) in zip(forgetting.KINDS, pairwise(lines[1:]), strict=False))
    assert "…" not in "".join(lines)
    assert "…" in printed(rows)
