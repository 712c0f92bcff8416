"""`ssm-edu derive`: run the derivations and print the ledger."""

from __future__ import annotations

import json
import time
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ssm_edu.commands.usage import check_json_path, usage_error
from ssm_edu.ledger import Result, lines_of

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

COLOURS = {"proved": "green", "verified": "cyan", "refuted": "magenta", "error": "bold red"}


def derive_command(
    names: Annotated[list[str] | None, typer.Argument(help="Derivations or claim IDs; all when none is named.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="Write the ledger to this file.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print each step's mathematics.")] = False,
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Processes; one a core by default.")] = None,
) -> None:
    """Prove, verify or refute every claim of the derivations, and print the ledger.

    Exit code 1 if a verdict is not the declared one, 2 if a name is unknown.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from ssm_edu import derivations

    check_json_path(json_file)
    start = time.perf_counter()
    try:
        claims = derivations.select(names or [])
    except ValueError as error:
        usage_error(str(error))
    results: list[Result] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("checking", total=len(claims))
        for result in derivations.run(claims, jobs):
            results.append(result)
            progress.update(task, advance=1, description=result.derivation)
    seconds = time.perf_counter() - start

    if verbose:
        for result in results:
            print(*lines_of(result), "", sep="\n")
    titles = {one.id: one.title for one in claims}
    for derivation, group in groupby(results, key=lambda r: r.derivation):
        out.print(_table(derivation, list(group), titles))
    if json_file is not None:
        ledger = {"seconds": round(seconds, 3), "claims": [result.as_dict() for result in results]}
        json_file.write_text(json.dumps(ledger, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    _summarise(results, seconds)


def _table(derivation: str, results: list[Result], titles: dict[str, str]) -> Table:
    table = Table(title=derivation, title_justify="left", title_style="bold", box=None, pad_edge=False, expand=False)
    table.add_column("", width=1)
    table.add_column("claim", no_wrap=True)
    table.add_column("what", ratio=3)
    table.add_column("verdict", no_wrap=True)
    table.add_column("evidence", ratio=4)
    for result in results:
        evidence = str(result.evidence) if result.ok else f"declared {result.declared}; {result.evidence}"
        if result.ok and result.corrected_by:
            evidence += f" → {result.corrected_by}"
        colour = COLOURS[result.verdict] if result.ok else "bold red"
        table.add_row(
            "✓" if result.ok else "✗",
            result.id,
            escape(titles[result.id]),
            f"[{colour}]{result.verdict}[/]",
            escape(evidence),
        )
    table.add_section()
    return table


def _summarise(results: list[Result], seconds: float) -> None:
    counts = Counter(result.verdict for result in results if result.ok)
    words = [f"{counts[v]} {v}{' as declared' * (v == 'refuted')}" for v in ("proved", "verified", "refuted")]
    wrong = [result for result in results if not result.ok]
    out.print(
        f"\n{len(results)} claim{'s' * (len(results) != 1)} in {seconds:.1f} s: {', '.join(words)}, "
        + (f"[bold red]{len(wrong)} not as declared[/]" if wrong else "none out of place"),
        soft_wrap=True,
    )
    for result in wrong:
        err.print(
            escape(f"{result.id} ({result.derivation}) is declared {result.declared} but came out {result.verdict}: ")
            + escape(str(result.evidence)),
            style="red",
            soft_wrap=True,
        )
    if wrong:
        raise typer.Exit(1)
