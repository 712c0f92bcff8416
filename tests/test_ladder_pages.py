"""The ladder's pages: every rung has its section, its drawings, its own counts and its place under the roofs."""

import math
import re
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("greenlet")

from ssm_kernels import ladder

from ssm_edu.bench.device.run import LADDER
from ssm_edu.bench.floors import Rates
from ssm_edu.bench.results import OURS, THEIRS, Report, Result
from ssm_edu.bench.tables import milliseconds

DOCS = Path(__file__).parent.parent / "docs"
DIRECTIONS = ("forward", "backward")
RUNGS = [(direction, rung) for direction in DIRECTIONS for rung in getattr(ladder, direction.upper())]
NAMES = [f"{direction} {rung.number}" for direction, rung in RUNGS]
ROOM = "raised CudaAPIError: [<CUresult.CUDA_ERROR_OUT_OF_MEMORY: 2>] Call to cuMemAlloc results in …"
MACHINE = {
    "gpu": "GPU of tests",
    "compute_capability": "9.0",
    "multiprocessors": 132,
    "cuda": "13.0",
    "cpu": "CPU of tests",
    "python": "3.11",
    "packages": {"ssm-edu": "0"},
}
every_rung = pytest.mark.parametrize(("direction", "rung"), RUNGS, ids=NAMES)


@pytest.fixture(scope="module")
def pages():
    """The modules that the pages import, found as they find them."""
    sys.path.insert(0, str(DOCS / "ladder"))
    try:
        import page
        import scenes
        import speed

        yield {"page": page, "scenes": scenes, "speed": speed}
    finally:
        sys.path.remove(str(DOCS / "ladder"))
        for name in ("page", "scenes", "speed", "drawings"):
            sys.modules.pop(name, None)


@pytest.fixture
def page(pages):
    return pages["page"]


def measured(seconds=lambda k: 10e-3 / (k + 1), **changes):
    """A made-up report in which the k-th rung takes seconds(k)."""
    found = []
    for direction in DIRECTIONS:
        for k, rung in enumerate(getattr(ladder, direction.upper())):
            name, median = f"{rung.number} {rung.title}", seconds(k)
            found.append(Result(name, direction, True, LADDER, ok=True, ratio=0.1, median=median, best=median, runs=20))
    rates = Rates(3.0e12, 3.7e12)
    return replace(Report("2026-11-22T12:00:00+00:00", MACHINE, rates, (), tuple(found)), **changes)


def parsed(svg):
    return ET.fromstring(svg.replace(' xmlns="http://www.w3.org/2000/svg"', ""))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_rung_has_a_section_and_a_scene(direction, pages):
    text = (DOCS / "ladder" / f"{direction}.md").read_text("utf-8")
    numbers = [rung.number for rung in getattr(ladder, direction.upper())]
    assert re.findall(r"^## Rung (\w+):", text, re.MULTILINE) == numbers
    for shown in ("drawing", "numbers"):
        assert re.findall(rf'^page\.{shown}\("{direction}", "(\w+)"\)$', text, re.MULTILINE) == numbers
    assert list(getattr(pages["scenes"], direction.upper())) == numbers
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    for section in sections:
        assert "**Idea.**" in section
        assert "**Next.**" in section
        assert "literalinclude" in section


@every_rung
def test_drawings_are_svg_with_words_in_the_colour_of_the_page(direction, rung, page):
    shown = page.drawing_html(direction, rung.number)
    assert_drawn(shown)
    each = rung.bytes(*sizes()) / (LADDER.elements / LADDER.state)
    assert f"{each:.4g} bytes for each (b, d, t)" in shown


def assert_drawn(shown):
    drawings = [parsed(svg) for svg in re.findall(r"<svg.*?</svg>", shown, re.DOTALL)]
    assert len(drawings) == 2
    for svg in drawings:
        assert svg.get("role") == "img"
        assert len(svg.get("aria-label")) > 40
        assert svg.get("fill") == "currentColor"
        _, _, width, height = map(float, svg.get("viewBox").split())
        for element in svg.iter():
            for name, most in (
                ("x", width),
                ("cx", width),
                ("x1", width),
                ("y", height),
                ("cy", height),
                ("y2", height),
            ):
                assert 0 <= float(element.get(name, 0)) <= most, ET.tostring(element)


def sizes():
    return LADDER.batch, LADDER.dim, LADDER.length, LADDER.state


@every_rung
def test_the_counts_are_the_rungs_own(direction, rung, page):
    report = measured()
    cells = re.findall(r"<td>(.*?)</td>", page.counts(direction, rung.number, report))
    elements = LADDER.elements / LADDER.state
    for k, (count, rate) in enumerate(
        (
            (rung.bytes, report.rates.bytes_per_second),
            (rung.exponentials, report.rates.exponentials_per_second),
            (rung.flops, None),
        )
    ):
        each, whole, alone = cells[3 * k : 3 * k + 3]
        assert float(each) == pytest.approx(count(*sizes()) / elements, rel=5e-4)  # four figures
        value, unit = whole.split("\u00a0")
        assert float(value) * {"M": 1e6, "G": 1e9}[unit] == pytest.approx(count(*sizes()), rel=5e-3)  # three
        assert alone == "–" if rate is None else float(alone) == pytest.approx(1e3 * count(*sizes()) / rate, rel=5e-3)


def place(svg):
    """Where the marked rung stands, read back from the labels of the axes: (updates a byte, updates a second)."""
    root = parsed(svg)
    power = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    values = {"end": [], "middle": []}
    for text in root.iter("text"):
        if text.text == "1" and text.get("font-size") == "11":
            values[text.get("text-anchor")].append((float(text.get("x")), float(text.get("y")) - 4, 0))
        if found := re.fullmatch("10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", text.text):
            exponent = int(found[1].translate(power))
            values[text.get("text-anchor")].append((float(text.get("x")), float(text.get("y")) - 4, exponent))
    xs, ys = [(x, e) for x, _, e in values["middle"]], [(y, e) for _, y, e in values["end"]]
    marked = [circle for circle in root.iter("circle") if circle.get("r") == "6"]
    assert len(marked) <= 1
    if not marked:
        return None

    def along(axis, at):
        (a, ea), (b, eb) = axis[0], axis[-1]
        return 10 ** (ea + (at - a) / (b - a) * (eb - ea))

    return along(xs, float(marked[0].get("cx"))), along(ys, float(marked[0].get("cy")))


@every_rung
def test_a_rung_stands_where_it_was_measured(direction, rung, page):
    intensity = LADDER.elements / rung.bytes(*sizes())
    k = [r.number for r in getattr(ladder, direction.upper())].index(rung.number)
    for seconds in (lambda k: 10e-3 / (k + 1), lambda k: 2e-3):
        x, y = place(page.roofline(direction, rung.number, measured(seconds)))
        # coordinates have four figures: a hundredth of a unit, of some 60 to a decade
        assert x == pytest.approx(intensity, rel=0.005)
        assert y == pytest.approx(LADDER.elements / seconds(k), rel=0.005)


def test_the_roofs_meet_where_both_take_as_long(page):
    report = measured()
    root = parsed(page.roofline("forward", "3", report))
    slope, flat = [line for line in root.iter("line") if line.get("stroke-width") == "1.5"]
    assert (slope.get("x2"), slope.get("y2")) == (flat.get("x1"), flat.get("y1"))
    assert flat.get("y1") == flat.get("y2")
    rates = report.rates
    assert math.log10(rates.exponentials_per_second / rates.bytes_per_second) == pytest.approx(0.0911, abs=1e-4)


@every_rung
def test_what_is_not_measured_is_said_to_be_so(direction, rung, page):
    nothing = page.numbers_html(direction, rung.number, None)
    assert "not measured yet" in nothing
    assert "ssm-edu bench --device cuda --ladder" in nothing
    none = {"median": None, "best": None, "ratio": None}
    for changes, said in (
        ({}, "its result was wrong"),
        (none | {"message": "raised ValueError: …"}, "its result was wrong"),
        (none | {"message": ROOM}, "out of memory"),
    ):
        failed = measured()
        failed = replace(failed, ladder=tuple(replace(result, ok=False, **changes) for result in failed.ladder))
        numbers = page.numbers_html(direction, rung.number, failed)
        assert f"no time: {said}" in numbers
        assert f"<td colspan=3>{said}</td>" in numbers
        assert place(page.roofline(direction, rung.number, failed)) is None
    assert "no time" not in page.numbers_html(direction, rung.number, measured())


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_table_of_all_rungs(direction, page):
    found = r"^\| (\w+) \| .*? \| (.*?) \| (.*?) \|"
    rows = re.findall(found, page.whole_markdown(direction, measured()), re.MULTILINE)
    numbers = [r.number for r in getattr(ladder, direction.upper())]
    times = [milliseconds(10e-3 / (k + 1)) for k in range(len(numbers))]
    gains = ["–", *(f"×\u00a0{(k + 1) / k:.2f}" for k in range(1, len(numbers)))]
    assert rows[1:] == list(zip(numbers, times, gains, strict=True))
    assert page.whole_markdown(direction, None).count("not measured yet") == len(times)
    failed = measured()
    second = replace(failed.ladder[1], ok=False, median=None, message=ROOM)
    failed = replace(failed, ladder=(failed.ladder[0], second, *failed.ladder[2:]))
    text = page.whole_markdown("forward", failed)
    assert re.findall(found, text, re.MULTILINE)[2:4] == [("1", "out of memory", "–"), ("2", times[2], "–")]
    assert "*Out of memory*: " in text
    assert "*Out of memory*" not in page.whole_markdown("forward", measured())


def test_the_warps_of_a_thread_per_channel(page):
    """By hand: 8 · 2048 channels are 512 warps of 32; 132 multiprocessors have 528 schedulers."""
    assert "16384 channels" in page.warps_markdown(None)
    assert "512 warps; this GPU has 528 schedulers" in page.warps_markdown(measured())


def test_a_report_with_the_ladder_goes_before_a_newer_one_without(page, tmp_path):
    assert page.newest(tmp_path) is None
    folder = tmp_path / "with" / "docs/benchmarks"
    folder.mkdir(parents=True)
    old, new = measured(date="2026-01-01T00:00:00+00:00"), measured(ladder=())
    for name, report in (("old", old), ("new", new)):
        (folder / f"{name}.json").write_text(report.to_json(), "utf-8")
    assert page.newest(tmp_path / "with") == old


def whole_report():
    cases = LADDER, replace(LADDER, stored="bfloat16"), replace(LADDER, batch=1)
    times = {OURS: 1e-3, THEIRS: 2.5e-3}
    return measured(
        results=tuple(
            Result(name, direction, name == OURS, case, ok=True, ratio=0.1, median=median, best=median, launch=4e-5)
            for case in cases
            for name, median in times.items()
            for direction in DIRECTIONS
        )
    )


def alone_of(report):
    """The results without a time of the other's."""
    for result in report.results:
        missing = {"skipped": "not installed", "ok": None, "median": None, "best": None, "launch": None}
        yield replace(result, **missing) if result.name == THEIRS else result


def test_the_page_on_speed(pages):
    speed, report = pages["speed"], whole_report()
    reports = {"made-up": report}
    floors = speed.floors_of(reports)
    assert "**0.180** | 0.145" in floors  # float32: 541 MB at 3 TB/s, 537 million exponentials at 3.7·10¹² a second
    assert floors.count("8, 2048, 2048") == 2
    assert "1, 2048, 2048" not in floors
    assert speed.host_of(reports) == "In 6 of 6 measurements the GPU takes longer than the call.\n"
    late = replace(report.results[0], launch=1.5e-3)
    host = speed.host_of({"made-up": replace(report, results=(late, *report.results[1:]))})
    assert host.startswith("In 5 of 6 measurements the GPU takes longer than the call. In the others:\n\n| batch")
    assert host.endswith("| 8, 2048, 2048 | float32 | forward | 1500 | 1000 | 40 | 2500 |\n")
    summary = speed.summary_of(reports)
    assert summary.count("| 8, 2048, 2048 | float32 | 1.00 | 0.180 | 18% | 2.50 | 2.50 |") == 1
    assert summary.count("| 8, 2048, 2048 | float32 | 1.00 | 0.315 | 31% | 2.50 | 2.50 |") == 1
    wrong = replace(report, results=tuple(replace(result, ok=False) for result in report.results))
    assert "| 8, 2048, 2048 | float32 | ~~1.00~~ ✗ | 0.180 | – | 2.50 | – |" in speed.summary_of({"made-up": wrong})
    alone = replace(report, results=tuple(alone_of(report)))
    assert "| 8, 2048, 2048 | float32 | 1.00 | 0.180 | 18% |\n" in speed.summary_of({"made-up": alone})
    assert f"`{THEIRS}` in 6 of 6 rows: not installed" in speed.summary_of({"made-up": alone})
    assert THEIRS not in speed.host_of({"made-up": alone})
    assert "GPU of tests" in speed.summary_of(reports)
    assert speed.figure_words(report).endswith(f"{OURS} takes 0.40 to 0.40 of {THEIRS}'s time.")
    figure = speed.figure_html(report)
    assert "currentColor" in figure
    ET.fromstring(figure.replace("xlink:href", "href"))


def test_the_page_on_speed_says_that_nothing_is_measured(pages, tmp_path):
    speed = pages["speed"]
    for show in (speed.floors_of, speed.summary_of, speed.host_of):
        assert "Not measured yet" in speed.said(show, tmp_path)
