"""What `compare` and `bench` share in telling what they found: the machine, units, JSON and the rows of a table."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ssm_edu.bench.cases import Case
from ssm_edu.bench.judging import Row


def machine() -> dict[str, Any]:
    """CPU, cores that this process may use, load and versions."""
    from ssm_edu.selective.cpu.threads import cores

    found = {}
    for package in ("ssm-edu", "numpy", "numba", "torch", "mambapy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "cpu": cpu_model(),
        "cores": cores(),
        "load": load(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": found,
    }


def load() -> float | None:
    """How many tasks ran or waited over the last minute, on average; None on Windows."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def cpu_model() -> str:
    """The CPU's name, as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def write_json(path: Path, found_on: dict[str, Any], case: Case, rows: list[Row], **more: Any) -> None:
    report = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": found_on,
        "case": asdict(case),
        "rows": [row.as_dict() for row in rows],
    }
    path.write_text(json.dumps(report | more, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def progress() -> Progress:
    """A bar that is drawn when it moves: one that redraws itself would take time from what is measured."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False)


def time_text(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def times(row: Row) -> tuple[str, str]:
    """Median and minimum, struck out where the result is wrong."""
    if not row.seconds:
        return "", ""
    median, best = time_text(row.median), time_text(row.best)
    return (median, best) if row.ok else (f"[strike]{median}[/]", f"[strike]{best}[/]")


def mark(row: Row) -> str:
    if row.verdict is None:
        return "[yellow]–[/]"
    return "[green]✓[/]" if row.ok else "[red]✗[/]"


def short(output: str) -> str:
    return output.replace("gradient of ", "∂")


def new_table(title: str, words: tuple[str, ...], figures: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    table.caption_justify = "left"
    for column in words + figures:
        table.add_column(column, justify="left" if column in words else "right", no_wrap=True)
    return table


def conclude(rows: list[Row], out: Console) -> None:
    """Say what did not run and what is wrong, and exit with 1 if anything of ours is."""
    for reason in dict.fromkeys(row.skipped for row in rows if row.skipped is not None):
        names = dict.fromkeys(row.contestant.name for row in rows if row.skipped == reason)
        out.print(f"[yellow]–[/] {escape(', '.join(names))}: {escape(reason)}", soft_wrap=True)
    for row in rows:
        if row.verdict is not None and not row.ok:
            words = f"{row.contestant.name} {row.contestant.direction} is outside its bound: {row.verdict.message}"
            out.print(f"[red]✗[/] {escape(words)}", soft_wrap=True)
    if any(row.contestant.ours and not row.ok for row in rows):
        raise typer.Exit(1)


def title(case: Case) -> str:
    kind = f"{case.dtype}{', complex A' if case.is_complex else ''}, {case.discretization}"
    return f"batch {case.batch}, dim {case.dim}, length {case.length}, state {case.state}: {kind}"
