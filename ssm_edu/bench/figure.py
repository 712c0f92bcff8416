"""The figure of what was measured: time against floor, on a page of either colour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssm_edu.bench.contestants import DIRECTIONS
from ssm_edu.bench.results import OURS, THEIRS, Report
from ssm_edu.bench.tables import shape_text

# Each stands out from white and from near-black alike: tests/test_bench_tables.py computes their contrast.
INK, OURS_COLOUR, THEIRS_COLOUR, FLOOR_COLOUR = "#797979", "#1f83c9", "#c8641d", "#4d8f3c"
Point = tuple[float, int]
SETTINGS: Any = {
    "svg.hashsalt": "ssm_edu",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), INK
    ),
}


def draw(report: Report, path: Path) -> None:
    """Write an SVG: a panel for each direction and dtype, a row for each case, time on a logarithmic axis.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("a figure needs matplotlib: pip install matplotlib") from error

    with matplotlib.rc_context(SETTINGS):
        formats = list(dict.fromkeys(case.format for case in report.cases))
        tallest = max(sum(case.format == one for case in report.cases) for one in formats)
        size = (5.2 * len(DIRECTIONS) + 1, len(formats) * (1.1 + 0.3 * tallest))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(formats), len(DIRECTIONS), squeeze=False, sharex=True)
        for row, one in zip(axes, formats, strict=True):
            for panel, direction in zip(row, DIRECTIONS, strict=True):
                draw_panel(panel, report, direction, one)
        for panel in axes[-1]:
            panel.set_xlabel("milliseconds")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})


def draw_panel(panel: Any, report: Report, direction: str, dtype: str) -> None:
    """Floor, ours and theirs; a line from the floor to ours is the room that is left."""
    cases = [case for case in report.cases if case.format == dtype]
    floors: list[Point] = []
    ours: list[Point] = []
    theirs: list[Point] = []
    for row, case in enumerate(cases):
        if (found := report.find(THEIRS, direction, case)) is not None and found.median is not None:
            theirs.append((1e3 * found.median, row))
        found = report.ours(direction, case)
        if found is not None and found.shown and found.median is not None:
            ours.append((1e3 * found.median, row))
            floors.append((1e3 * found.work.floor(report.rates), row))
            panel.plot([floors[-1][0], 1e3 * found.median], [row, row], color=OURS_COLOUR, linewidth=1, zorder=1)
    for label, points, colour, marker in (
        ("floor", floors, FLOOR_COLOUR, "|"),
        (OURS, ours, OURS_COLOUR, "o"),
        (THEIRS, theirs, THEIRS_COLOUR, "x"),
    ):
        if label == THEIRS and not report.measured(THEIRS):
            continue
        x, y = zip(*points, strict=True) if points else ((), ())
        panel.scatter(x, y, s=36, color=colour, marker=marker, label=label, zorder=2)
    panel.set_title(f"{direction}, {dtype}", fontsize=10)
    panel.set_xscale("log")
    panel.set_yticks(range(len(cases)), [shape_text(case) for case in cases])
    panel.set_ylim(len(cases) - 0.5, -0.5)
    panel.grid(axis="x", which="major", linewidth=0.5, alpha=0.5)
