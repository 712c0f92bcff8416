"""A derivation script as a page: `py:percent` read as a notebook, each claim shown below the code that checks it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jupytext
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from ssm_edu import derivations

PAGES = Path(__file__).parent.parent / "learn/derivations"
SUFFIX = ".percent.py"


def reads(text: str) -> NotebookNode:
    """The notebook of a script: its code folded away, its claims and figures shown, its last call left out."""
    notebook = jupytext.reads(text, fmt="py:percent")
    notebook.cells = [new for cell in notebook.cells for new in cells_for(cell)]
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return notebook


def cells_for(cell: NotebookNode) -> Iterator[NotebookNode]:
    if cell.cell_type != "code":
        yield cell
        return
    if cell.source.startswith('if __name__ == "__main__":'):
        return
    cell.metadata["tags"] = ["hide-input"]
    yield cell
    for node in ast.parse(cell.source).body:
        if isinstance(node, ast.FunctionDef):
            yield from shown(node)


def shown(function: ast.FunctionDef) -> Iterator[NotebookNode]:
    """The cells that show what a function defines, if it is a claim or draws a figure."""
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "claim":
            name = ast.literal_eval(decorator.args[0])
            yield new_markdown_cell(f"({name})=")
            yield new_code_cell(function.name, metadata={"tags": ["remove-input", "claim"]})
    if function.returns is not None and ast.unparse(function.returns) == "Figure":
        alt = ast.get_docstring(function)
        call = f"import figures\nfigures.paper({function.name}(), {alt!r})"
        yield new_code_cell(call, metadata={"tags": ["remove-input"]})


def write_pages(app: Any) -> None:
    """Copy the scripts among the pages, where Sphinx looks for them; an unchanged one keeps its time."""
    PAGES.mkdir(exist_ok=True)
    wanted = {PAGES / f"{name}{SUFFIX}": derivations.folder() / f"{name}.py" for name in derivations.names()}
    for old in set(PAGES.glob(f"*{SUFFIX}")) - set(wanted):
        old.unlink()
    for page, script in wanted.items():
        text = script.read_text("utf-8")
        if not page.exists() or page.read_text("utf-8") != text:
            page.write_text(text, "utf-8")


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
