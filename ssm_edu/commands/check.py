"""`ssm-edu check MODULE:FUNCTION`: property-test anybody's selective scan."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from difflib import get_close_matches
from importlib import import_module
from io import TextIOBase
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ssm_edu.commands.usage import usage_error

ALGORITHM_HELP = (
    "How it scans: its tolerance is proved for scans that do. sequential: step by step. tree: Blelloch's or Hillis and "
    "Steele's; the others stay inside as well unless their exponential is as bad as is allowed. chunked: by chunks of "
    "--chunk steps. any: in whatever order, with the widest tolerance."
)
COLOURS = {"passed": "green", "failed": "bold red", "skipped": "yellow"}


def check_command(
    forward: Annotated[str, typer.Argument(help="MODULE:FUNCTION, called as ssm_edu.selective_scan is.")],
    backward: Annotated[str | None, typer.Option(help="MODULE:FUNCTION, as ssm_edu.selective_scan_backward.")] = None,
    step: Annotated[str | None, typer.Option(help="MODULE:FUNCTION, as ssm_edu.selective_step.")] = None,
    framework: Annotated[str, typer.Option(help="Whose arrays it takes: numpy, torch, cupy or jax.")] = "numpy",
    dtype: Annotated[str, typer.Option(help="Of u: float16, bfloat16, float32 or float64.")] = "float32",
    without: Annotated[str, typer.Option(help="Features it lacks, such as complex,seq_idx.")] = "",
    max_examples: Annotated[int | None, typer.Option(min=1, help="Problems for a property.")] = None,
    device: Annotated[str | None, typer.Option(help="The framework's name for one, such as cuda:0.")] = None,
    fast_math: Annotated[bool, typer.Option("--fast-math", help="Allow CUDA's approximate functions.")] = False,
    algorithm: Annotated[str, typer.Option(help=ALGORITHM_HELP)] = "tree",
    chunk: Annotated[int | None, typer.Option(help="Steps in a chunk, with --algorithm chunked.")] = None,
) -> None:
    """Property-test a selective scan of your own, and shrink what fails to a few lines.

    Exit code 1 if a property fails, 2 if the functions cannot be found or an option is wrong. A function that ends the
    process, by os._exit or a segmentation fault, ends the check before its last line, with an exit code of its own.
    """
    from ssm_edu import bounds
    from ssm_edu.testing.report import MARKS, NOT_TRIED, Result
    from ssm_edu.testing.runner import MAX_EXAMPLES, check, make_implementation, select

    out = Console(highlight=False, file=sys.stdout)  # and not to what stands in for it while the functions run
    table = Table(box=None, pad_edge=False)
    for column in ("", "property", "", "problems", "seconds"):
        table.add_column(column, justify="right" if column in ("problems", "seconds") else "left")
    columns = (TextColumn("checking"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=out)
    task = progress.add_task("", total=len(select(None)))

    def on_result(result: Result) -> None:
        progress.update(task, advance=1)
        if result.message == NOT_TRIED:
            return
        colour = COLOURS[result.status]
        words = result.reason if result.status == "passed" else result.message
        counts = (str(result.examples), f"{result.seconds:.1f}") if result.examples else ("", "")
        table.add_row(f"[{colour}]{MARKS[result.status]}[/]", escape(result.name), escape(words), *counts)

    scan, adjoint = _load(forward), None if backward is None else _load(backward)
    options: dict[str, Any] = {
        "step": None if step is None else _load(step),
        "framework": framework,
        "dtype": dtype,
        "without": {name.strip() for name in without.split(",") if name.strip()},
        "device": device,
        "arithmetic": bounds.FLOAT32_APPROX if fast_math else None,
        "algorithm": algorithm,
        "chunk": chunk,
    }
    try:
        make_implementation(scan, adjoint, **options)
    except (ValueError, TypeError, ImportError) as error:
        usage_error(str(error))
    printed = Printed()
    shown = Live(Group(table, progress), console=out, refresh_per_second=8, redirect_stdout=False)
    with shown as live, redirect_stdout(printed):
        report = check(scan, adjoint, **options, max_examples=max_examples or MAX_EXAMPLES, on_result=on_result)
        untried = sum(result.message == NOT_TRIED for result in report.results)
        if untried:
            table.add_row(f"[{COLOURS['skipped']}]{MARKS['skipped']}[/]", f"{untried} others", NOT_TRIED)
        live.update(table)
    if printed.beginning:
        first = printed.beginning.strip().partition("\n")[0]
        out.print(f"\nWhat the functions print is not shown; it begins with {first!r}", markup=False, soft_wrap=True)
    named = {"forward": forward, "backward": backward, "step": step}
    imports = [_import(target, name) for name, target in named.items() if target is not None]
    for failure in report.failures:
        out.print(f"\n[bold red]{MARKS['failed']}[/] {escape(failure.name)}: {escape(failure.reason)}", soft_wrap=True)
        out.print(f"{failure.message}\n", markup=False, soft_wrap=True)
        out.print("\n".join([*imports, failure.counterexample]), markup=False, soft_wrap=True)
    out.print(f"\n{report.summary}", soft_wrap=True)
    if not report.ok:
        raise typer.Exit(1)


class Printed(TextIOBase):
    """Stands in for stdout while the functions run, whose output would tear the table apart."""

    def __init__(self) -> None:
        self.beginning = ""

    def write(self, text: str) -> int:
        self.beginning = (self.beginning + text)[:80]
        return len(text)


def _import(target: str, name: str) -> str:
    """The line that makes MODULE:FUNCTION known by a name."""
    module, _, path = target.partition(":")
    first, dot, _ = path.partition(".")
    if dot:
        return f"from {module} import {first}\n{name} = {path}"
    return f"from {module} import {first}" + (f" as {name}" if first != name else "")


def _load(target: str) -> Callable[..., Any]:
    """The function that MODULE:FUNCTION names, looked for in the current folder, too."""
    name, colon, path = target.partition(":")
    if not (name and colon and path):
        usage_error(f"{target!r} is not of the form MODULE:FUNCTION")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = import_module(name)
    except (Exception, SystemExit) as error:
        usage_error(f"{name} cannot be imported: {type(error).__name__}: {error}")
    for part in path.split("."):
        if not hasattr(found, part):
            near = get_close_matches(part, dir(found), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            usage_error(f"{name} has no {path!r}{hint}")
        found = getattr(found, part)
    if not callable(found):
        usage_error(f"{target} is {found!r:.60}, expected a function")
    return found
