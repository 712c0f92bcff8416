"""`ssm-edu bench --device cpu`: ours and others' selective scans on the CPU, each checked before its time counts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ssm_edu import bench
from ssm_edu.bench import Case, Contestant, Judge, Row, competitors, measure, report

LENGTHS = (10**3, 10**4, 10**5, 10**6)
# What ours is built to reach on the default case: how often as fast as each of these.
GOALS = {
    ("torch loop", "forward"): 30.0,
    ("mambapy pscan", "forward"): 40.0,
    ("torch.exp alone", "forward"): 0.9,
    ("torch loop, unbound", "backward"): 25.0,
}


@dataclass(frozen=True)
class Ratio:
    """How often as fast as a competitor ours is, by the medians and by the minima."""

    name: str
    direction: str
    by_median: float
    by_min: float
    goal: float | None


def execute(
    case: Case, directions: tuple[str, ...], *, lengths: bool, json_file: Path | None, out: Console
) -> list[Row]:
    """Measure, print, and write the file; the rows, for :func:`ssm_edu.bench.report.conclude`."""
    contestants = [one for one in bench.BUILT_IN + competitors.COMPETITORS if one.direction in directions]
    found_on = report.machine()
    rows = run(case, contestants)
    against = ratios(rows)
    swept = sweep(LENGTHS, case.dtype) if lengths else []

    out.print(times_table(case, rows))
    if against:
        out.print(ratios_table(against))
    if swept:
        out.print(sweep_table(swept))
    if (found_on["load"] or 0) > 0.5:
        out.print(f"[yellow]![/] this machine was busy (load {found_on['load']}), which slows torch's threads most")
    if json_file is not None:
        more: dict[str, Any] = {"ratios": [vars(ratio) for ratio in against]}
        more["lengths"] = [{"length": row.case.length, "dim": row.case.dim, **row.as_dict()} for row in swept]
        report.write_json(json_file, found_on, case, rows, **more)
    return [*rows, *swept]


def run(case: Case, contestants: list[Contestant]) -> list[Row]:
    """A row for each."""
    judge, rows = Judge(case), []
    with report.progress() as bar:
        task = bar.add_task("", total=len(contestants))
        for contestant in contestants:
            bar.update(task, description=f"{contestant.name} {contestant.direction}", refresh=True)
            rows.append(measure(contestant, judge))
            bar.advance(task)
    return rows


def sweep(lengths: tuple[int, ...], dtype: str) -> list[Row]:
    """The `numba` backend on one row of 16 channels of 16 states: the time of an element must not grow with length."""
    ours, rows = bench.BUILT_IN[0], []
    with report.progress() as bar:
        task = bar.add_task("", total=len(lengths))
        for length in lengths:
            bar.update(task, description=f"{length} steps", refresh=True)
            rows.append(measure(ours, Judge(Case(1, 16, length, 16, dtype))))
            bar.advance(task)
    return rows


def ratios(rows: list[Row], ours: str = "numba") -> list[Ratio]:
    """Against every competitor that is within its bound; none where ours is not."""
    mine = {row.contestant.direction: row for row in rows if row.contestant.name == ours and row.ok and row.seconds}
    found = []
    for row in rows:
        name, direction = row.contestant.name, row.contestant.direction
        if not row.contestant.ours and row.ok and row.seconds and direction in mine:
            own = mine[direction]
            by_median, by_min = row.median / own.median, row.best / own.best
            found.append(Ratio(name, direction, by_median, by_min, GOALS.get((name, direction))))
    return found


def times_table(case: Case, rows: list[Row]) -> Table:
    figures = ("error/bound", "median", "min", "10⁹ exp/s", "GB/s")
    table = report.new_table(report.title(case), ("", "contestant", "direction"), figures)
    for row in [row for row in rows if row.skipped is None]:
        rates = ("", "")
        if row.seconds and row.ok:
            rates = f"{row.rate / 1e9:.3g}", "" if row.bandwidth is None else f"{row.bandwidth / 1e9:.3g}"
        name, direction = row.contestant.name, row.contestant.direction
        ratio = "" if row.verdict is None else f"{row.verdict.ratio:.2g}"
        table.add_row(report.mark(row), name, direction, ratio, *report.times(row), *rates)
    judged = [row.verdict.steps for row in rows if row.verdict is not None]
    if judged and min(judged) < case.length:
        table.caption = f"checked on the first {min(judged)} of {case.length} steps"
    return table


def ratios_table(against: list[Ratio]) -> Table:
    table = report.new_table("numba is faster by", ("than", "direction"), ("by medians", "by minima", "goal"))
    for ratio in against:
        goal = "" if ratio.goal is None else f"{ratio.goal:g}×"
        table.add_row(ratio.name, ratio.direction, f"{ratio.by_median:.3g}×", f"{ratio.by_min:.3g}×", goal)
    return table


def sweep_table(rows: list[Row]) -> Table:
    figures = ("length", "error/bound", "checked", "median", "min", "ns/element", "to the first")
    table = report.new_table("time is linear in length: numba forward, 16 channels of 16 states", ("",), figures)
    timed = [row for row in rows if row.seconds]
    for row in rows:
        each = row.best / (row.case.batch * row.case.dim * row.case.length) if row.seconds else 0.0
        first = timed[0].best / (timed[0].case.dim * timed[0].case.length) if timed else 1.0
        table.add_row(
            report.mark(row),
            str(row.case.length),
            f"{row.verdict.ratio:.2g}" if row.verdict else "",
            str(row.verdict.steps) if row.verdict else "",
            *report.times(row),
            *((f"{each * 1e9:.3g}", f"{each / first:.2f}×") if row.seconds and row.ok else ("", "")),
        )
    table.caption = "ns/element: the minimum over batch · dim · length; checked: the first steps, of each length"
    return table
