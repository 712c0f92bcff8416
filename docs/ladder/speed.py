"""What the page on speed shows of the kept reports: floors, times, the host's share, and every figure."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from page import COMMAND, ROOT

from ssm_edu.bench import figure as bench_figure
from ssm_edu.bench import tables
from ssm_edu.bench.contestants import DIRECTIONS
from ssm_edu.bench.floors import work
from ssm_edu.bench.results import OURS, THEIRS, Report, speedup

NOTHING = f"*Not measured yet: `{COMMAND}` on a GPU writes the file from which this is made.*\n"


def said(show: Callable[[dict[str, Report]], str], root: Path = ROOT) -> str:
    """What is made of the reports kept there, or that there are none."""
    reports = tables.kept(root)
    return show(reports) if reports else NOTHING


def of_reports(show: Callable[[dict[str, Report]], str]) -> Callable[[], Any]:
    """A cell that shows the Markdown made of the kept reports."""

    def cell() -> Any:
        from IPython.display import Markdown

        return Markdown(said(show))

    return cell


def newest(reports: dict[str, Report]) -> Report:
    return next(iter(reports.values()))


def floors_of(reports: dict[str, Report]) -> str:
    """Both times of the floor, in each direction, for the first shape of the newest report in every dtype."""
    report = newest(reports)
    rates = report.rates
    header = ["batch, dim, length", "dtype"]
    header += [f"{direction}: {what}, ms" for direction in DIRECTIONS for what in ("bytes", "exponentials")]
    rows = []
    first = tables.shape_text(report.cases[0])
    for case in [case for case in report.cases if tables.shape_text(case) == first]:
        cells = [first, case.format]
        for direction in DIRECTIONS:
            least = work(case, direction)
            times = least.bytes / rates.bytes_per_second, least.exponentials / rates.exponentials_per_second
            cells += [f"**{tables.milliseconds(t)}**" if t == max(times) else tables.milliseconds(t) for t in times]
        rows.append(cells)
    table = tables.markdown(header, rows, words=2)
    return f"{table}\nThe larger of each pair is the floor, at the rates of the GPU below.\n"


def times_of(report: Report, direction: str) -> str:
    """A row for each case: the contestants' times, the floor, and what that makes."""
    compared = report.measured(THEIRS)
    header = ["batch, dim, length", "dtype", OURS, "floor", "of floor", *((THEIRS, "speedup") if compared else ())]
    rows = []
    for case in report.cases:
        measured, theirs = report.ours(direction, case), report.find(THEIRS, direction, case)
        ours = measured if measured is not None and measured.shown else None
        share, faster = None if ours is None else report.floor_share(ours), speedup(ours, theirs)
        rows.append(
            [
                tables.shape_text(case),
                case.format,
                tables.time_cell(measured),
                tables.milliseconds(work(case, direction).floor(report.rates)),
                "–" if share is None else f"{share:.0%}",
                *((tables.time_cell(theirs), "–" if faster is None else f"{faster:.2f}") if compared else ()),
            ]
        )
    return tables.markdown(header, rows, words=2)


def summary_of(reports: dict[str, Report]) -> str:
    """The times of every report in both directions, each report with its machine and its date."""
    parts = []
    for name, report in reports.items():
        parts.append(f"**{name}.** {tables.machine_text(report)}")
        for direction in DIRECTIONS:
            parts.append(f"{direction.capitalize()}, in milliseconds:\n\n{times_of(report, direction)}")
        parts.append(tables.footnote(report.results) + tables.saved_text(report) + tables.absent(report.results))
    return "\n".join(parts)


def host_of(reports: dict[str, Report]) -> str:
    """Microseconds of a call on the host and those of the GPU, where the host takes longer, in the newest report."""
    report = newest(reports)
    names = [OURS, THEIRS] if report.measured(THEIRS) else [OURS]
    header = ["batch, dim, length", "dtype", "direction"]
    for name in names:
        header += [f"{name}: host, µs", "GPU, µs"]
    rows, others = [], 0
    for case in report.cases:
        for direction in DIRECTIONS:
            found = [report.find(name, direction, case) for name in names]
            slower = any(r and r.launch and r.median and r.launch > r.median for r in found)
            others += any(found) and not slower
            if slower:
                times = [
                    "–" if result is None or seconds is None else f"{seconds * 1e6:.0f}"
                    for result in found
                    for seconds in ((result.launch, result.median) if result else (None, None))
                ]
                rows.append([tables.shape_text(case), case.format, direction, *times])
    where = f"In {others} of {others + len(rows)} measurements the GPU takes longer than the call"
    return f"{where}. In the others:\n\n{tables.markdown(header, rows, words=3)}" if rows else f"{where}.\n"


def figure_words(report: Report) -> str:
    """What the figure shows, for who cannot see it."""
    faster = [
        speedup(report.ours(direction, case), report.find(THEIRS, direction, case))
        for case in report.cases
        for direction in DIRECTIONS
    ]
    known = [one for one in faster if one is not None]
    words = f"Time against floor for {len(report.cases)} cases, forward and backward"
    return words + (
        f"; {OURS} takes {1 / max(known):.2f} to {1 / min(known):.2f} of {THEIRS}'s time." if known else "."
    )


def figure_html(report: Report) -> str:
    """The figure as inline SVG in the page's own colour, in a box that scrolls where the page is narrower."""
    with TemporaryDirectory() as folder:
        drawn = Path(folder) / "figure.svg"
        bench_figure.draw(report, drawn)
        svg = drawn.read_text("utf-8")
    svg = svg[svg.index("<svg") :].replace(bench_figure.INK, "currentColor")
    words = escape(figure_words(report))
    opening = f'<svg role="img" aria-label="{words}" style="min-width: 40rem; max-width: 100%; height: auto" '
    return (
        f'<div class="scrolls" role="group" aria-label="{words}" tabindex="0">{svg.replace("<svg ", opening, 1)}</div>'
    )


floors = of_reports(floors_of)
summary = of_reports(summary_of)
host = of_reports(host_of)


def figure() -> Any:
    from IPython.display import HTML, Markdown

    reports = tables.kept(ROOT)
    return HTML(figure_html(newest(reports))) if reports else Markdown(NOTHING)
