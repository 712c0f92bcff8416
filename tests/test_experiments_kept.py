"""The results that the site shows: their findings and figures follow from their rows, and all are on the page."""

from __future__ import annotations

import json
import re
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

FOLDER = Path(__file__).parent.parent / "docs/experiments"
PAGE = (FOLDER / "index.md").read_text("utf-8")
NAMES = list(experiments.cards())
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


@pytest.mark.parametrize("name", NAMES)
def test_a_result_is_as_it_was_written_and_stands_on_the_page(name: str, kept: Any) -> None:
    one = kept.result(name)
    assert (kept.RESULTS / f"{name}.json").read_text("utf-8") == one.to_json()
    assert (one.experiment, one.size, one.seed) == (name, "small", 0)
    for cell in ("question", "figure", "found"):
        assert f'kept.{cell}("{name}")' in PAGE
    said = kept.found_text(name)
    for words in (*one.findings, one.date[:10], one.machine["cpu"], experiments.cards()[name].paper):
        assert kept.plain(words) in said
    assert str(one.machine["cores"]) in said


def test_no_file_is_left_over(kept: Any) -> None:
    files = {f"{name}.{end}" for name in NAMES for end in ("json", "svg")}
    assert {path.name for path in kept.RESULTS.iterdir()} == files


def test_the_page_needs_no_torch() -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import kept\n"
        f"for name in {NAMES}: kept.found_text(name), kept.figure_html(name)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_no_two_figures_have_an_id_in_common_and_every_link_has_its_place(kept: Any) -> None:
    seen: set[str] = set()
    for name in NAMES:
        html = kept.figure_html(name)
        places = set(re.findall(r'\bid="([^"]+)"', html))
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', html)) <= places
        assert not seen & places
        seen |= places


def test_settings_are_told_in_words(kept: Any) -> None:
    settings = {"steps": 1600, "training": {"learning_rate": 0.01}, "lengths": [64, 128], "dtype": "float32"}
    told = ["steps 1,600", "training (learning rate 0.01)", "lengths 64 128", "dtype float32"]
    assert list(kept.in_words(settings)) == told


@needs_torch
@pytest.mark.parametrize("name", NAMES)
def test_the_settings_are_todays(name: str, kept: Any) -> None:
    today, settings = plain_json(experiments.load(name).SIZES["small"]), kept.result(name).settings
    assert holds(settings, today)
    assert not holds(settings, today | {next(iter(today)): "other"})


def holds(settings: Any, some: Any) -> bool:
    if isinstance(some, dict):
        return all(key in settings and holds(settings[key], value) for key, value in some.items())
    return settings == some


@needs_torch
@pytest.mark.parametrize("name", NAMES)
def test_the_findings_are_those_of_the_rows(name: str, kept: Any) -> None:
    one = kept.result(name)
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
@pytest.mark.parametrize("name", NAMES)
def test_the_figures_are_those_of_the_rows(name: str, kept: Any, tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    old = (kept.RESULTS / f"{name}.svg").read_text("utf-8")
    if f"Matplotlib v{matplotlib.__version__}," not in old:
        pytest.skip("the figures were drawn by another Matplotlib, which lays them out in its own way")
    for change, same in ((lambda rows: rows, True), (halved, False)):
        one = kept.result(name)
        new = tmp_path / "new.svg"
        experiments.figures.save(experiments.load(name).figure(replace(one, measured=change(one.measured))), new)
        assert (drawn(old) == drawn(new.read_text("utf-8"))) is same


def drawn(svg: str) -> list[str]:
    """The curves and words, to a tenth of a point: the digits beyond differ between machines."""
    shapes = re.findall(r'\bd="([^"]*)"|<use [^>]*\bx="([-\d.]+)" y="([-\d.]+)"|<text [^>]*>([^<]*)<', svg)
    return [re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.1f}", " ".join(shape)) for shape in shapes]


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
