"""`ssm-edu compare`: every built-in implementation against the oracle, in error, time and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ssm_edu.commands.usage import check_json_path, usage_error


def compare_command(
    batch: Annotated[int, typer.Option(min=1, help="Rows of the batch.")] = 2,
    dim: Annotated[int, typer.Option(min=1, help="Channels.")] = 64,
    length: Annotated[int, typer.Option(min=1, help="Steps.")] = 1024,
    state: Annotated[int, typer.Option(min=1, help="States of a channel.")] = 16,
    dtype: Annotated[str, typer.Option(help="Of u: float16, float32 or float64.")] = "float32",
    discretization: Annotated[str, typer.Option(help="mamba, zoh or bilinear.")] = "mamba",
    is_complex: Annotated[bool, typer.Option("--complex", help="Complex A, B and C.")] = False,
    backward: Annotated[bool, typer.Option(help="The gradients, too.")] = True,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows to this file.")] = None,
) -> None:
    """Compare every built-in implementation with the oracle: error in units of its bound, time, memory.

    Exit code 1 if one is outside its bound, 2 if an option is wrong.
    """
    from ssm_edu.bench import BUILT_IN, Case, Judge, measure, report

    check_json_path(json_file)
    try:
        case = Case(batch, dim, length, state, dtype, discretization, is_complex)
        judge = Judge(case)
        judge.require_all_steps("the bounds take some 270 bytes for each")
    except (TypeError, ValueError) as error:
        usage_error(str(error))
    contestants = [one for one in BUILT_IN if backward or one.direction == "forward"]
    found_on, rows = report.machine(), []
    with report.progress() as bar:
        task = bar.add_task("", total=len(contestants))
        for contestant in contestants:
            bar.update(task, description=f"{contestant.name} {contestant.direction}", refresh=True)
            rows.append(measure(contestant, judge, memory=True))
            bar.advance(task)

    figures = ("error/bound", "in", "error", "in", "time", "memory")
    table = report.new_table(report.title(case), ("", "by", "direction"), figures)
    for row in [row for row in rows if row.skipped is None]:
        v = row.verdict
        errors = ("",) * 4
        if v is not None:
            errors = (f"{v.ratio:.2g}", report.short(v.output), f"{v.error:.2g}", report.short(v.error_output))
        memory = "" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:.1f} MiB"
        median, _ = report.times(row)
        table.add_row(report.mark(row), row.contestant.name, row.contestant.direction, *errors, median, memory)
    out = Console(highlight=False)
    out.print(table)
    out.print(
        "[dim]error/bound: the worst error in units of the bound on it, and in which output (∂u: the gradient of u). "
        "error: the largest absolute one. reference is the oracle itself, rounded to the dtype. time: the median of "
        "several runs. memory: the most that NumPy's arrays, results included, take beyond the inputs; what compiled "
        "code takes for itself is not seen.[/]",
    )
    if json_file is not None:
        report.write_json(json_file, found_on, case, rows)
    report.conclude(rows, out)
