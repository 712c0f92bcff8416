"""The repository's Python files as pages of the site, and the role {source}`path` that links to them."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxRole

ROOT = Path(__file__).parent.parent.parent
FOLDERS = ("ssm_edu", "cuda", "derivations", "tests")


def sources() -> list[str]:
    """Every Python file that has a page, relative to the repository."""
    return sorted(path.relative_to(ROOT).as_posix() for name in FOLDERS for path in (ROOT / name).rglob("*.py"))


def page_of(path: str) -> str:
    """The page's name: `source/ssm_edu/scan` for `ssm_edu/scan.py`."""
    return f"source/{path.removesuffix('.py')}"


def link(docname: str, path: str, text: str = "", line: int | None = None) -> nodes.reference:
    """A link from the page `docname` to a source page."""
    up = "../" * docname.count("/")
    anchor = f"#line-{line}" if line else ""
    inner = nodes.literal(text or path, text or path)
    return nodes.reference("", "", inner, refuri=f"{up}{page_of(path)}.html{anchor}", internal=True)


class SourceRole(SphinxRole):
    """{source}`ssm_edu/scan.py`: a link to that file; `ssm_edu/scan.py:12` to a line of it."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        path, _, line = self.text.partition(":")
        if path not in sources():
            message = self.inliner.reporter.error(f"no source page for {path!r}", line=self.lineno)
            return [nodes.literal(self.text, self.text)], [message]
        return [link(self.env.docname, path, path, int(line) if line else None)], []


def linkcode_resolve(domain: str, info: dict[str, str]) -> str | None:
    """Where sphinx.ext.linkcode finds the source of a name; the reference lies one folder deep."""
    found: Any = sys.modules.get(info["module"])
    for name in info["fullname"].split("."):
        found = getattr(found, name, None)
    try:
        path, (_, line) = inspect.getsourcefile(inspect.unwrap(found)), inspect.getsourcelines(found)
    except (TypeError, OSError):  # a constant, or a name that a library made
        return None
    if path is None or not Path(path).is_relative_to(ROOT) or ".venv" in path:
        return None
    return f"../{page_of(Path(path).relative_to(ROOT).as_posix())}.html#line-{line}"


def pages(app: Any) -> Iterator[tuple[str, dict[str, Any], str]]:
    highlight = app.builder.highlighter.highlight_block
    for path in sources():
        text = (ROOT / path).read_text("utf-8")
        code = highlight(text, "python", linenos=False, linespans="line") if text.strip() else "<p>An empty file.</p>"
        # long lines scroll, by keyboard too
        code = re.sub(r"<pre>", '<pre tabindex="0">', code, count=1)
        yield page_of(path), {"title": path, "body": f"<h1><code>{path}</code></h1>{code}"}, "page.html"


def setup(app: Any) -> dict[str, bool]:
    app.add_role("source", SourceRole())
    app.connect("html-collect-pages", pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
