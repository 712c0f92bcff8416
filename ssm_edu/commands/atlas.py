"""`ssm-edu atlas`: every sequence model of the atlas, as tables made from the models' cards."""

from __future__ import annotations

import json
from inspect import signature
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ssm_edu.commands.usage import check_json_path, usage_error
from ssm_edu.names import unknown

SYMBOLS = {
    "length": "L",
    "width": "D",
    "state": "N",
    "heads": "H",
    "rank": "R",
    "expand": "E",
    "taps": "T",
    "window": "W",
    "key": "K",
    "value": "V",
    "pair": "P",
    "size": "S",
    "hidden": "M",
    "horizon": "Z",
}
NOTES = {
    "work": "of the form it is trained by, as the length grows; an affine scan runs in L as well",
    "decay by input": "whether what is kept of the state depends on the token",
    "state": "numbers kept between tokens",
    "memory": "parameters and state",
}
FIGURES = ("state_size", "flops", "memory")


def atlas_command(
    names: Annotated[list[str] | None, typer.Argument(help="Models, by file name; all when none is named.")] = None,
    length: Annotated[
        int | None, typer.Option(min=0, help="Numbers after this many tokens, at default sizes, not formulas.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="Write the rows to this file.")
    ] = None,
) -> None:
    """Every sequence model: whether it is an affine recurrence, how it is trained, what a token costs.

    Exit code 2 if a name is unknown.
    """
    from ssm_edu.atlas import models

    check_json_path(json_file)
    atlas = models()
    if message := unknown("model", names or [], atlas, f"the models are {', '.join(atlas)}"):
        usage_error(message)
    rows = {name: row(module, length) for name, module in atlas.items() if not names or name in names}
    out = Console(highlight=False)
    out.print(_facts(rows), "", _costs(rows), "")
    sizes = {key: value for one in rows.values() for key, value in one["sizes"].items()} | {"length": length}
    where = "at each model's default sizes" if length is not None else _legend(list(sizes))
    notes = " ".join(f"{column}: {note}." for column, note in NOTES.items())
    out.print(f"[dim]{notes} {where}.[/]")
    for one in rows.values():
        if one["not_a_scan"]:
            out.print(f"{escape(one['name'])} is no affine scan: {escape(one['not_a_scan'])}")
    if json_file is not None:
        json_file.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def row(model: Any, length: int | None) -> dict[str, Any]:
    """A model's line: its card, the formulas in symbols or, with a length, as numbers at its default sizes."""
    card, sizes = model.CARD, _sizes(model)
    values = _symbols([*sizes, "length"]) if length is None else {**sizes, "length": length}
    figures = {key: getattr(card, key)(**values) for key in FIGURES}
    return {
        "name": card.name,
        "paper": card.paper,
        "year": card.year,
        "affine_scan": hasattr(model, "as_affine_scan"),
        "not_a_scan": getattr(model, "NOT_A_SCAN", None),
        "time_invariant": card.time_invariant,
        "input_dependent_decay": card.input_dependent_decay,
        "parallel_form": card.parallel_form,
        "complexity": card.complexity,
        "sizes": sizes,
        **{key: _formula(value) if length is None else int(value) for key, value in figures.items()},
    }


def _sizes(model: Any) -> dict[str, int]:
    return {name: one.default for name, one in signature(model.init).parameters.items() if name != "rng"}


def _facts(rows: dict[str, dict[str, Any]]) -> Table:
    table = Table(title="what they are", title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in ("model", "year", "affine\nscan", "time-\ninvariant", "decay\nby input", "work", "trained by"):
        table.add_column(column, vertical="top", no_wrap=column == "model")
    for one in rows.values():
        facts = ("✓" if one[key] else "" for key in ("affine_scan", "time_invariant", "input_dependent_decay"))
        table.add_row(escape(one["name"]), str(one["year"]), *facts, one["complexity"], escape(one["parallel_form"]))
    return table


def _costs(rows: dict[str, dict[str, Any]]) -> Table:
    table = Table(title="what a token costs", title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in ("model", "state", "FLOPs", "memory"):
        table.add_column(column, justify="left" if column == "model" else "right", no_wrap=column == "model")
    for one in rows.values():
        table.add_row(escape(one["name"]), *(escape(str(one[key])) for key in FIGURES))
    return table


def _symbols(sizes: list[str]) -> dict[str, Any]:
    import sympy as sp

    return {name: sp.Symbol(SYMBOLS.get(name, name), positive=True, integer=True) for name in sizes}


def _formula(value: Any) -> str:
    """A polynomial as text, the highest powers first."""
    import sympy as sp

    return sp.sstr(sp.expand(value), order="grlex").replace("**2", "²").replace("*", "")


def _legend(sizes: list[str]) -> str:
    return ", ".join(f"{SYMBOLS[name]} {name}" for name in SYMBOLS if name in sizes)
