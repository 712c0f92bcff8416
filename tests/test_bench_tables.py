"""What `ssm-edu bench --device cuda` keeps: floors, JSON, tables and the figure."""

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from ssm_edu.bench import Case, figure, tables
from ssm_edu.bench.floors import Rates, Work, work
from ssm_edu.bench.results import Report, Result, speedup

ROOT = Path(__file__).parent.parent
# An H100: what a copy was measured to move, and 16 exponentials a clock of 132 multiprocessors.
RATES = Rates(3.0e12, 16 * 132 * 1.755e9)
LAYER = Case(8, 2048, 2048, 16)
LONG = Case(1, 1024, 131072, 64, group=8)
MACHINE = {
    "gpu": "GPU of tests",
    "compute_capability": "9.0",
    "multiprocessors": 132,
    "cuda": "13.0",
    "cpu": "CPU of tests",
    "python": "3.11",
    "packages": {"ssm-edu": "0", "numpy": "2"},
}


def result(name, direction, case, median, **changes):
    times = {"median": median, "best": 0.9 * median, "runs": 20, "launch": 3e-5}
    return replace(
        Result(name, direction, name == "ssm_edu", case, ok=True, ratio=0.1, checked="all"), **times | changes
    )


def report(*more, **changes):
    bf16 = replace(LAYER, stored="bfloat16")
    found = (
        result("ssm_edu", "forward", LAYER, 0.4e-3),
        result("mamba_ssm", "forward", LAYER, 1.2e-3, ok=False, ratio=7.0),
        result("ssm_edu", "backward", LAYER, 1e-3, ok=False, ratio=None, message="gradient of A[0, 0] is nan"),
        result("ssm_edu", "forward", bf16, 0.2e-3, host_ahead=False),
        Result("mamba_ssm", "forward", False, bf16, skipped="not installed"),
        *more,
    )
    ladder = (result("0 materialised", "forward", LAYER, 9e-3, ours=True),)
    return replace(Report("2026-11-21T12:00:00+00:00", MACHINE, RATES, found, ladder), **changes)


@pytest.mark.parametrize(
    ("case", "direction", "milliseconds", "limit"),
    [
        (LAYER, "forward", 0.180, "bytes"),
        (replace(LAYER, stored="bfloat16"), "forward", 0.145, "exponentials"),
        (Case(1, 1024, 131072, 16), "forward", 0.72, "bytes"),
        (Case(1, 1536, 65536, 16, stored="bfloat16"), "forward", 0.43, "exponentials"),
        (Case(64, 768, 512, 16, "float16"), "forward", 0.109, "exponentials"),
    ],
)
def test_the_floor_is_the_larger_of_the_two(case, direction, milliseconds, limit):
    """By hand: 4 or 2 bytes of u, delta, z, y, B and C over 3 TB/s; elements over 3.7·10¹² a second."""
    found = work(case, direction)
    assert found.floor(RATES) * 1e3 == pytest.approx(milliseconds, rel=0.02)
    assert found.limit(RATES) == limit


def test_the_work_is_that_of_the_problem():
    tiny = Case(2, 6, 5, 3, group=2)
    in_time, map_ = 2 * 6 * 5, 2 * 2 * 3 * 5
    assert work(tiny, "forward") == Work(4 * (4 * in_time + 2 * map_), in_time * 3)
    assert work(tiny, "backward") == Work(4 * (7 * in_time + 4 * map_), in_time * 3)
    assert work(replace(tiny, stored="bfloat16"), "forward").bytes == 2 * (4 * in_time + 2 * map_)
    assert work(replace(tiny, dtype="float64"), "forward") == Work(8 * (4 * in_time + 2 * map_), 0)
    assert work(replace(tiny, discretization="bilinear"), "forward").exponentials == 0


def test_a_report_survives_its_file(tmp_path):
    file = tmp_path / "gpu.json"
    file.write_text(report().to_json(), encoding="utf-8")
    assert Report.load(file) == report()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda kept: kept.pop("rates"),
        lambda kept: kept["results"][0].update(speed=1),
        lambda kept: kept["results"][0]["case"].update(dim=-1),
        lambda kept: kept["rates"].pop("bytes_per_second"),
    ],
)
def test_another_file_is_no_report(tmp_path, spoil):
    kept = json.loads(report().to_json())
    spoil(kept)
    file = tmp_path / "gpu.json"
    file.write_text(json.dumps(kept), encoding="utf-8")
    with pytest.raises(ValueError, match=r"gpu\.json: "):
        Report.load(file)


def test_a_time_of_ours_counts_only_within_its_bound():
    found = report()
    ours, theirs = found.find("ssm_edu", "forward", LAYER), found.find("mamba_ssm", "forward", LAYER)
    assert speedup(ours, theirs) == pytest.approx(3)
    assert found.floor_share(ours) == pytest.approx(work(LAYER, "forward").floor(RATES) / 0.4e-3)
    assert found.find("ssm_edu", "backward", LAYER) is None
    assert speedup(None, theirs) is None


def test_the_summary_has_a_row_for_each_case():
    lines = tables.summary(report()).splitlines()
    assert [line.count("|") for line in lines[:4]] == [11] * 4
    fp32, bf16 = lines[2:4]
    share = work(LAYER, "forward").floor(RATES) / 0.4e-3
    assert fp32.startswith(f"| 8, 2048, 2048 | float32 | 0.400 | 0.180 | {share:.0%} | 3.00 | ~~1.00~~ ✗ |")
    assert "| bfloat16 | 0.200 ¹ |" in bf16
    assert lines[-1].startswith("¹ ")
    assert tables.shape_text(LONG) == "1, 1024, 131072; state 64; group 8"


@pytest.mark.parametrize(
    ("number", "digits", "text"),
    [
        (0.04125, 3, "0.0413"),
        (0.18, 3, "0.180"),
        (1.6, 3, "1.60"),
        (12.06, 3, "12.1"),
        (100, 3, "100"),
        (999.4, 3, "999"),
        (999.6, 3, "1000"),
        (12345.6, 3, "12346"),
        (0.06, 2, "0.060"),
        (99.6, 2, "100"),
        (539, 4, "539.0"),
    ],
)
def test_a_number_has_as_many_digits_as_its_neighbours(number, digits, text):
    assert tables.figures(number, digits) == text
    assert digits != 3 or tables.milliseconds(number / 1000) == text


OUT_OF_MEMORY = (
    "raised CudaAPIError: [<CUresult.CUDA_ERROR_OUT_OF_MEMORY: 2>] Call to cuMemAlloc results in …",
    "raised OutOfMemoryError: CUDA out of memory. Tried to allocate 4.00 GiB.",
)


@pytest.mark.parametrize("message", OUT_OF_MEMORY)
def test_what_had_no_memory_is_not_shown_as_wrong(message):
    failed = Result("ssm_edu", "forward", True, LAYER, ok=False, message=message)
    assert tables.time_cell(failed) == "no memory ²"
    assert tables.footnote([failed]) == f"\n² {tables.NO_ROOM}.\n"
    wrong = replace(failed, message="raised ValueError: A is not finite")
    assert tables.time_cell(wrong) == "✗"
    assert tables.footnote([wrong]) == ""
    assert not replace(failed, ok=True).out_of_memory


def test_who_is_absent_has_no_columns_and_no_rows():
    found = report()
    alone = replace(found, results=tuple(r for r in found.results if r.ours or r.skipped))
    lines = tables.summary(alone).splitlines()
    assert [line.count("|") for line in lines[:4]] == [9] * 4
    rows = tables.details(alone, alone.results)
    assert "| mamba_ssm |" not in rows
    assert "\nNot measured: `mamba_ssm` in 1 of 1 rows: not installed.\n" in rows
    assert "`mamba_ssm` in 1 of 2 rows" in tables.absent(found.results)
    assert tables.absent(found.results[:2]) == ""


def test_the_page_names_machine_rates_and_ladder():
    text = tables.page({"h100": report()})
    for words in ("## h100", "GPU of tests", "3.00 TB/s", "3.71·10¹²", "2026-11-21", "0 materialised", "not installed"):
        assert words in text
    assert "h100.svg" not in text
    assert "(h100.svg)" in tables.page({"h100": report()}, {"h100"})


GIVEN = """{
 "report": "new", "gpu": "another GPU", "date": "2026-10", "source": "by a friend", "milliseconds": {
  "8, 2048, 2048": {"float32": {"forward": 1.10, "backward": 13.0}, "bfloat16": {"forward": 0.051}},
  "1, 2, 3": {"float32": {"forward": 2.00}}
 }
}
"""


@pytest.fixture
def given_file(tmp_path):
    file = tmp_path / tables.FILE
    file.write_text(GIVEN, encoding="utf-8")
    return file


def test_times_that_were_given_keep_their_digits_and_their_source(given_file):
    table, _, words = tables.beside(report(), tables.Given.load(given_file)).partition("\n\n")
    assert table.splitlines() == [
        "| batch, dim, length | float32 forward | mamba_ssm | float32 backward | mamba_ssm "
        "| bfloat16 forward | mamba_ssm | bfloat16 backward | mamba_ssm |",
        "| --- | --: | --: | --: | --: | --: | --: | --: | --: |",
        "| 8, 2048, 2048 | 0.400 | 1.10 | ~~1.00~~ ✗ | 13.0 | 0.200 ¹ | 0.051 | – | – |",
        "| 1, 2, 3 | – | 2.00 | – | – | – | – | – | – |",
    ]
    assert words == f"¹ {tables.WAITED}.\n\nMilliseconds. `mamba_ssm`: another GPU, 2026-10; by a friend.\n"


@pytest.mark.parametrize("text", ["{", "[1]", '{"report": "new"}', GIVEN.replace('"date"', '"day"')])
def test_another_file_holds_no_times(given_file, text):
    given_file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"mamba_ssm\.json: no times"):
        tables.Given.load(given_file)


@pytest.fixture
def project(tmp_path):
    """A project with two reports and a README that shows the newer one, and the other by name."""
    folder = tmp_path / tables.FOLDER
    folder.mkdir(parents=True)
    older = report(date="2026-01-01T00:00:00+00:00", machine=MACHINE | {"gpu": "older GPU"})
    (folder / "new.json").write_text(report().to_json(), encoding="utf-8")
    (folder / "old.json").write_text(older.to_json(), encoding="utf-8")
    begin, end = "<!-- bench:begin -->\n", "<!-- bench:end -->"
    readme = f"before\n{begin}{end}\nbetween\n{begin.replace(' -->', ' old -->')}typed in\n{end}\nafter\n"
    (tmp_path / "README.md").write_text(readme, encoding="utf-8")
    return tmp_path


def test_tables_are_written_and_then_stale_when_touched(project, capsys):
    readme, page = project / "README.md", project / tables.FOLDER / "README.md"
    assert tables.stale(project) == [readme, page]
    assert tables.main([], project) == 1
    assert tables.main(["--write"], project) == 0
    assert tables.main([], project) == 0
    text = readme.read_text("utf-8")
    assert text.index("before") < text.index("GPU of tests") < text.index("between") < text.index("older GPU")
    assert "typed in" not in text
    assert text.endswith("after\n")
    readme.write_text(text.replace("| 0.400 |", "| 0.300 |", 1), encoding="utf-8")
    assert tables.stale(project) == [readme]
    page.unlink()
    assert tables.stale(project) == [readme, page]
    assert tables.main(["--wrong"], project) == 2
    assert "stale" in capsys.readouterr().out


def test_times_that_were_given_stand_in_the_notes_and_below_their_report(project):
    notes, file = project / "docs/notes.md", project / tables.FOLDER / tables.FILE
    notes.write_text("before\n<!-- bench:beside -->\ntyped in\n<!-- bench:end -->\nafter\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"bench:beside -->: docs.*mamba_ssm\.json is not there"):
        tables.stale(project)
    file.write_text(GIVEN, encoding="utf-8")
    assert tables.main(["--write"], project) == 0
    table = tables.beside(report(), tables.Given.load(file))
    assert notes.read_text("utf-8") == f"before\n<!-- bench:beside -->\n{table}<!-- bench:end -->\nafter\n"
    newer, _, older = (project / "README.md").read_text("utf-8").partition("between")
    assert "In the first row `mamba_ssm`'s CUDA C++ took 1.10 ms forward and 13.0 ms backward" in newer
    assert "In the first row" not in older
    file.write_text(GIVEN.replace("1.10", "1.20"), encoding="utf-8")
    assert tables.stale(project) == [project / "README.md", notes]
    file.write_text(GIVEN.replace("8, 2048, 2048", "8, 2048, 1024"), encoding="utf-8")
    assert tables.given_text(report(), tables.Given.load(file)) == ""
    file.write_text(GIVEN.replace('"new"', '"newest"'), encoding="utf-8")
    with pytest.raises(ValueError, match="beside -->: found no report newest, expected one of new, old"):
        tables.stale(project)


def test_a_marker_that_names_no_report_is_an_error(project):
    readme = project / "README.md"
    readme.write_text(readme.read_text("utf-8").replace("begin old", "begin h200"), encoding="utf-8")
    with pytest.raises(ValueError, match="h200 -->: found no report h200, expected one of new, old"):
        tables.stale(project)


def test_the_tables_of_this_project_are_of_today():
    if not tables.kept(ROOT):
        pytest.skip("no report is kept in docs/benchmarks yet")
    assert tables.stale(ROOT) == [], "python -m ssm_edu.bench.tables --write"


def test_the_figure_has_a_panel_for_each_direction_and_dtype(tmp_path):
    pytest.importorskip("matplotlib")
    file = tmp_path / "figure.svg"
    figure.draw(report(), file)
    text = file.read_text("utf-8")
    ET.fromstring(text)
    words = re.findall(r"<text[^>]*>([^<]*)</text>", text)
    for panel in ("forward, float32", "backward, float32", "forward, bfloat16"):
        assert panel in words
    assert {"floor", "ssm_edu", "mamba_ssm", "8, 2048, 2048", "milliseconds"} <= set(words)
    for colour in (figure.INK, figure.OURS_COLOUR, figure.THEIRS_COLOUR, figure.FLOOR_COLOUR):
        assert colour in text
    alone = replace(report(), results=tuple(r for r in report().results if r.ours))
    figure.draw(alone, file)
    assert "mamba_ssm" not in file.read_text("utf-8")
    assert not re.search("#000000|#ffffff|black|white", text)
    again = tmp_path / "again.svg"
    figure.draw(report(), again)
    assert again.read_text("utf-8") == text


def contrast(one, other):
    """WCAG 2: the ratio of relative luminances."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colour", [figure.INK, figure.OURS_COLOUR, figure.THEIRS_COLOUR, figure.FLOOR_COLOUR])
@pytest.mark.parametrize("page", ["#ffffff", "#0d1117"])
def test_every_colour_is_seen_on_either_page(colour, page):
    """WCAG asks 3 of graphics. No grey has its 4.5 of small text on both pages; 4.3 is the most there is."""
    assert contrast(colour, page) >= (4.2 if colour == figure.INK else 3)
