"""`ssm-edu bench --device cuda`: what it is asked, and what it prints."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ssm_edu.bench import report as shared
from ssm_edu.bench.cases import Case
from ssm_edu.bench.device import gpu, run
from ssm_edu.bench.results import OURS, SAVING, THEIRS, Report, Result, speedup
from ssm_edu.bench.tables import WAITED, shape_text


def cases(shapes: Sequence[str], dtypes: str) -> list[Case]:
    """Every shape, `batch,dim,length,state` or `batch,dim,length,state,group`, in every dtype; all of them if none.

    Raises:
        ValueError: a shape or a dtype that is none.
    """
    wanted = [_shape(text) for text in shapes] or run.SHAPES
    names = [name.strip() for name in dtypes.split(",")]
    for name in names:
        if name not in run.DTYPES:
            raise ValueError(f"dtype is {name!r}, expected some of {', '.join(run.DTYPES)}")
    return [run.case_of(shape, name) for name in dict.fromkeys(names) for shape in wanted]


def _shape(text: str) -> tuple[int, int, int, int, int]:
    sizes = text.split(",")
    if len(sizes) not in (4, 5) or not all(size.strip().isdecimal() for size in sizes):
        raise ValueError(f"--shape is {text!r}, expected batch,dim,length,state or batch,dim,length,state,group")
    batch, dim, length, state, *group = (int(size) for size in sizes)
    return batch, dim, length, state, group[0] if group else 1


def execute(
    wanted: list[Case],
    directions: tuple[str, ...],
    *,
    ladder: bool,
    json_file: Path | None,
    figure: Path | None,
) -> None:
    """Measure, print, and write the files, the JSON as it grows. Exits with 1 if anything of ours is wrong."""
    out = Console(highlight=False)
    with shared.progress() as bar:
        task = bar.add_task("", total=None)

        def tell(what: str) -> None:
            bar.update(task, description=what, advance=1, refresh=True)

        # the other half of the cores is left to the host's part of what is timed
        processes = (os.cpu_count() or 1) // 2
        for found in run.reports(wanted, directions, gpu.Gpu(), tell, with_ladder=ladder, processes=processes):
            if json_file is not None:
                json_file.write_text(found.to_json(), encoding="utf-8")
    if figure is not None:
        from ssm_edu.bench.figure import draw

        draw(found, figure)
    show(found, out)


def show(found: Report, out: Console) -> None:
    """The tables, then what did not run and what is wrong. Exits with 1 if anything of ours is."""
    out.print(
        f"{found.machine['gpu']}: a copy moves {found.rates.bytes_per_second / 1e12:.3g} TB/s, "
        f"ex2.approx takes {found.rates.exponentials_per_second / 1e12:.3g}·10¹² a second"
    )
    by_table = dict.fromkeys((r.case.format, r.direction) for r in found.results)
    for format, direction in by_table:
        rows = [r for r in found.results if (r.case.format, r.direction) == (format, direction)]
        for name, title in ((OURS, f"{direction}, {format}"), (SAVING, f"{direction}, {format}, states saved")):
            if mine := [row for row in rows if row.name == name]:
                out.print(results_table(title, found, mine))
    for direction in dict.fromkeys(r.direction for r in found.ladder):
        rows = [r for r in found.ladder if r.direction == direction]
        sizes = f"{shape_text(run.LADDER)} {run.LADDER.format}"
        out.print(results_table(f"ladder, {direction}, {sizes}", found, rows, ladder=True))
    conclude([*found.results, *found.ladder], out)


def results_table(title: str, found: Report, rows: Sequence[Result], *, ladder: bool = False) -> Table:
    first = "rung" if ladder else "batch, dim, length"
    figures = ("error/bound", "median", "min", "launch", "MB", "10⁹ exp", "floor", "of floor", THEIRS, "faster by")
    table = shared.new_table(title, ("", first), figures[:-2] if ladder else figures)
    for row in [row for row in rows if row.skipped is None]:
        theirs = found.find(THEIRS, row.direction, row.case)
        faster, share = speedup(row if row.shown else None, theirs), found.floor_share(row) if row.shown else None
        cells = [
            "[red]✗[/]" if row.ok is False else "[green]✓[/]",
            escape(row.name) if ladder else shape_text(row.case),
            "" if row.ratio is None else f"{row.ratio:.2g}",
            *(_struck(row, seconds) for seconds in (row.median, row.best)),
            _time(row.launch),
            f"{row.work.bytes / 1e6:.4g}",
            f"{row.work.exponentials / 1e9:.3g}",
            _time(row.work.floor(found.rates)),
            "" if share is None else f"{share:.0%}",
        ]
        if not ladder:
            mark = "" if theirs is None or theirs.ok else " [red]✗[/]"
            cells += [_time(None if theirs is None else theirs.median) + mark, f"{faster:.2f}×" if faster else ""]
        table.add_row(*cells)
    checked = dict.fromkeys(row.checked for row in rows if row.checked)
    notes = [f"checked: {'; '.join(checked)}"] if checked else []
    others = [found.find(THEIRS, row.direction, row.case) for row in rows if not ladder]
    late = [row for row in (*rows, *others) if row is not None and not row.host_ahead]
    notes += [f"{row.name}, {shape_text(row.case)}: {WAITED}" for row in late]
    table.caption = "\n".join(notes)
    return table


def _time(seconds: float | None) -> str:
    return "" if seconds is None else shared.time_text(seconds)


def _struck(row: Result, seconds: float | None) -> str:
    return _time(seconds) if row.shown or seconds is None else f"[strike]{_time(seconds)}[/]"


def conclude(results: Sequence[Result], out: Console) -> None:
    """What did not run, once for each reason, and what is outside its bound."""
    for name, reason in dict.fromkeys((r.name, r.skipped) for r in results if r.skipped is not None):
        out.print(f"[yellow]–[/] {escape(name)}: {escape(reason)}", soft_wrap=True)
    wrong = [result for result in results if result.ok is False]
    for result in wrong:
        where = f"{shape_text(result.case)}, {result.case.format}"
        words = f"{result.name} {result.direction} ({where}) is outside its bound: {result.message}"
        out.print(f"[red]✗[/] {escape(words)}", soft_wrap=True)
    if any(result.ours for result in wrong):
        raise typer.Exit(1)
