"""`ssm-edu experiment`: the articles' claims as runs, each with a result file and a figure."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from ssm_edu.commands.usage import usage_error
from ssm_edu.names import unknown

BUSY = 0.5  # tasks beside this one, over the last minute, from which on they are worth a word
EXTRAS = {"torch": "'ssm-edu[torch]'"}  # by package, what pip is given in its place


def experiment_command(
    name: Annotated[str | None, typer.Argument(help="Which to run; all are listed when none is named.")] = None,
    paper: Annotated[bool, typer.Option("--paper", help="The paper's size, which takes a GPU.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: cuda where torch sees a GPU.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of every random number.")] = 0,
    out: Annotated[Path, typer.Option(help="A folder that is there, for NAME.json and NAME.svg.")] = Path("."),
) -> None:
    """Run one of the articles' claims: train or time models, print what was found, write it and draw it.

    The small size takes seconds to minutes on two CPU cores. Exit code 2 if the name is unknown or something it needs
    is absent.
    """
    from ssm_edu import experiments

    cards = experiments.cards()
    if name is None:
        list_experiments(cards)
        return
    if message := unknown("experiment", [name], cards, f"the experiments are {', '.join(cards)}"):
        usage_error(message)
    if not out.is_dir():
        usage_error(f"--out: no folder {out.absolute()}")
    if not os.access(out, os.W_OK):
        usage_error(f"--out: nothing may be written to {out.absolute()}")
    if missing := [package for package in cards[name].needs.split(", ") if find_spec(package) is None]:
        installed = " ".join(EXTRAS.get(package, package) for package in missing)
        usage_error(f"{name} needs {' and '.join(missing)}: pip install {installed}")
    run(name, "paper" if paper else "small", chosen(device), seed, out)


def list_experiments(cards: dict[str, Any]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("experiment", "question", "needs"):
        table.add_column(column, no_wrap=column == "experiment")
    for card in cards.values():
        table.add_row(escape(card.name), escape(card.question), escape(card.needs))
    Console(highlight=False).print(
        table,
        "\n[dim]ssm-edu experiment NAME runs one; with --paper at the paper's size, which takes a GPU. "
        "A figure needs matplotlib.[/]",
    )


def chosen(device: str) -> str:
    """`cpu` or `cuda`."""
    if device not in ("auto", "cpu", "cuda"):
        usage_error(f"device is {device!r}, expected one of auto, cpu, cuda")
    import torch

    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        usage_error(f"device is 'cuda', but torch {torch.__version__} sees no GPU here; expected cpu")
    return ("cuda" if there else "cpu") if device == "auto" else device


def run(name: str, size: Any, device: str, seed: int, out: Path) -> None:
    """Run, print, write the result, draw the figure."""
    from ssm_edu import experiments
    from ssm_edu.bench import report
    from ssm_edu.experiments import figures
    from ssm_edu.experiments.result import CannotRun, Progress

    experiment, console, load = experiments.load(name), Console(highlight=False), report.load()
    if not (drawable := find_spec("matplotlib") is not None):
        console.print("[yellow]–[/] no figure, which needs matplotlib: pip install matplotlib")
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    # drawn when it moves: a bar that redraws itself would take time from what is measured
    bar = Bar(*columns, console=Console(stderr=True), transient=True, auto_refresh=False)
    task = bar.add_task(name, total=1.0)

    def tell(fraction: float, note: str) -> None:
        bar.update(task, completed=fraction, description=escape(note or name), refresh=True)

    try:
        with bar:
            result = experiment.run(size, device=device, seed=seed, progress=Progress(tell))
    except CannotRun as error:
        usage_error(str(error))

    console.print(f"[bold]{escape(experiment.TITLE)}[/]: {escape(experiment.QUESTION)}")
    shown = getattr(experiment, "shown", lambda rows: rows)  # of rows with more columns than a terminal has room for
    console.print(rows_table(shown(result.measured)))
    for finding in result.findings:
        console.print(f"• {escape(finding)}")
    if (load or 0) > BUSY and any("seconds" in row for row in result.measured):
        console.print(f"[yellow]![/] this machine was busy when it began (load {load}): times may be too long")
    written = out / f"{name}.json"
    written.write_text(result.to_json(), encoding="utf-8")
    console.print(f"written: {escape(str(written))}", soft_wrap=True)
    if drawable:
        drawn = out / f"{name}.svg"
        figures.save(experiment.figure(result), drawn)
        console.print(f"written: {escape(str(drawn))}", soft_wrap=True)


def rows_table(rows: list[dict[str, Any]]) -> Table:
    """A column for every key of which a row has a value."""
    table = Table(box=None, pad_edge=False)
    keys = list(dict.fromkeys(key for row in rows for key, value in row.items() if value is not None))
    for key in keys:
        words = any(isinstance(row.get(key), str) for row in rows)
        table.add_column(key.replace("_", " "), justify="left" if words else "right")
    for row in rows:
        table.add_row(*(escape(cell(key, row.get(key))) for key in keys))
    return table


def cell(key: str, value: Any) -> str:
    from ssm_edu.bench.report import time_text
    from ssm_edu.experiments.result import bytes_text

    if value is None:
        return ""
    if key in ("seconds", "best"):
        return time_text(value)
    if key.endswith("_bytes"):
        return bytes_text(value)
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
