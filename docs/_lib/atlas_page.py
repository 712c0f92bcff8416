"""The table on the page of the atlas, made from the models' cards; and that the page has a section for each model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ssm_edu.atlas import models
from ssm_edu.bench.tables import markdown
from ssm_edu.commands.atlas import NOTES, SYMBOLS, row

COLUMNS = ("model", "year", "affine scan", "time-invariant", "decay by input", "work", "form it is trained by", "state")
SECTION = re.compile(
    r"^\(atlas-([\w-]+)\)=\n## (.+)\n\n\{source\}`ssm_edu/atlas/(\w+)\.py`\n\n"
    r"```\{eval-rst\}\n\.\. automodule:: ssm_edu\.atlas\.(\w+)$",
    re.MULTILINE,
)


def table(page: str) -> str:
    """What the models are, in Markdown, each linked to its section of that page.

    Raises:
        ValueError: the page's sections are not those of the models, in their order.
    """
    atlas = models()
    wanted = [(_anchor(name), module.CARD.name, name, name) for name, module in atlas.items()]
    if (found := SECTION.findall(Path(page).read_text("utf-8"))) != wanted:
        raise ValueError(f"{page} has the sections {found}, expected {wanted}")
    rows = [_cells(name, row(module, None)) for name, module in atlas.items()]
    return markdown(COLUMNS, rows, words=len(COLUMNS))


def notes() -> str:
    """What the columns mean that need a word."""
    return " ".join(f"*{column.capitalize()}*: {note}." for column, note in NOTES.items() if column in COLUMNS)


def reasons() -> str:
    """Why some are no affine scans, as a list in Markdown."""
    named = {module.CARD.name: getattr(module, "NOT_A_SCAN", None) for module in models().values()}
    return "\n".join(f"- {name}: {reason}." for name, reason in named.items() if reason)


def symbols() -> str:
    """What the letters in the table stand for."""
    used = {"length"}.union(*(row(module, None)["sizes"] for module in models().values()))
    return ", ".join(f"{symbol} for `{size}`" for size, symbol in SYMBOLS.items() if size in used)


def _anchor(name: str) -> str:
    return name.replace("_", "-")


def _cells(name: str, one: dict[str, Any]) -> list[str]:
    link = f'<a href="#atlas-{_anchor(name)}">{one["name"]}</a>'
    facts = ("yes" if one[fact] else "no" for fact in ("affine_scan", "time_invariant", "input_dependent_decay"))
    return [link, str(one["year"]), *facts, one["complexity"], one["parallel_form"], one["state_size"]]
