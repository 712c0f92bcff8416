"""What was measured on a GPU, in a sentence."""

from __future__ import annotations

from collections.abc import Iterator

from ssm_edu.bench import tables
from ssm_edu.bench.contestants import DIRECTIONS
from ssm_edu.bench.floors import work
from ssm_edu.bench.results import OURS, THEIRS, Report


def sentences(reports: dict[str, Report]) -> Iterator[str]:
    """Of the newest report, the first case timed both ways: ours, the floor, mamba_ssm's; nothing without a report."""
    for report in list(reports.values())[:1]:
        whole = (case for case in report.cases if all(report.find(OURS, way, case) for way in DIRECTIONS))
        case = next(whole, report.cases[0])
        yield f"On one {report.machine['gpu']}, at batch, dim, length {tables.shape_text(case)} in {case.format}:"
        for direction in DIRECTIONS:
            ours, theirs = (report.find(name, direction, case) for name in (OURS, THEIRS))
            floor = tables.milliseconds(work(case, direction).floor(report.rates))
            compared = f"; `{THEIRS}`: {tables.time_cell(theirs)}" if theirs else ""
            yield f"- {direction}: {tables.time_cell(ours)} ms, where the floor is {floor}{compared}."
