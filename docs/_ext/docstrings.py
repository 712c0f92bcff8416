"""Docstrings are written to be read as text: make reStructuredText of their tables, their |x| and their code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any


def escaped(line: str) -> str:
    """The line with lone asterisks, bars and trailing underscores taken as they stand; `code` is left alone."""
    parts = re.split(r"(`[^`]*`)", line)
    for index in range(0, len(parts), 2):
        text = re.sub(r"\|", r"\|", parts[index])
        text = re.sub(r"(\w)_(?=\W|$)", r"\1\_", text)
        # *emphasis* stays, 2*x, `ZOH-*` and **kwargs do not
        parts[index] = re.sub(r"(?<!\w)(\*{1,2}\w[\w ,-]*\w\*{1,2})(?!\w)|\*", lambda m: m[1] or r"\*", text)
    return "".join(parts)


def cells(row: str) -> list[str]:
    return [escaped(cell.strip()) for cell in row.strip().strip("|").split("|")]


def table(rows: list[str]) -> Iterator[str]:
    yield from ("", ".. list-table::", "   :header-rows: 1", "")
    for row in (row for row in rows if not re.fullmatch(r"[|\s:-]+", row)):
        for index, cell in enumerate(cells(row)):
            yield f"   {'*' if index == 0 else ' '} - {cell}"
    yield ""


def kind(line: str) -> str:
    if line.startswith("|") and line.endswith("|") and line.count("|") > 2:
        return "table"
    return "code" if line.startswith(("    ", ">>>")) else "blank" if not line.strip() else "text"


def as_rest(app: Any, what: str, name: str, obj: Any, opts: Any, lines: list[str]) -> None:
    if lines and lines[0].startswith("Alias for field number"):  # what Python writes for a NamedTuple's field
        lines[:] = []
        return
    made: list[str] = []
    for found, group in groupby(list(lines), kind):
        block = list(group)
        if found == "table":
            made += table(block)
        elif found == "code" and what == "module" and block[0].startswith("    "):
            made += ["", ".. code-block:: text", "", *block, ""]
        elif found == "code" and block[0].startswith(">>>"):
            made += block
        else:
            made += [escaped(line) for line in block]
    lines[:] = made


def with_aliases(
    app: Any, what: str, name: str, obj: Any, opts: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """An alias in a union by its name alone."""

    def named(text: str | None) -> str | None:
        return text and re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", text)

    return named(signature), named(returns)


def signature_lines(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """A parameter a line without the list of definitions, with nothing defined, that Sphinx makes of it."""

    def lines(found: re.Match[str]) -> str:
        inner = found[2].replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")
        return f"{found[1]}{inner}{found[3]}"

    if pagename.startswith("reference/") and "body" in context:
        parameters = r'(<span class="sig-paren">\(</span>)\s*<dl>(.*?)</dl>(\s*<span class="sig-paren">)'
        context["body"] = re.sub(parameters, lines, context["body"], flags=re.DOTALL)


def setup(app: Any) -> dict[str, bool]:
    # before Napoleon reads the sections
    app.connect("autodoc-process-docstring", as_rest, priority=400)
    app.connect("autodoc-process-signature", with_aliases)
    app.connect("html-page-context", signature_lines)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
