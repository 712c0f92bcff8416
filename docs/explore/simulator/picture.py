"""A simulated run as a picture that can be stepped through, its kernel beside it, and a table that says the same."""

from __future__ import annotations

import inspect
import linecache
import math
from collections.abc import Iterator
from html import escape
from typing import Any
from xml.etree import ElementTree

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from simulator.timeline import Mark, Run, race_steps, steps

ROW, COLUMN, LEFT, TOP = 26, 30, 74, 30


class Picture:
    """The SVG of a run."""

    def __init__(self, run: Run) -> None:
        self.run, self.marks = run, steps(run)
        self.row = {thread: k for k, thread in enumerate(run.threads)}
        self.columns = 1 + max((mark.column for mark in self.marks), default=0)
        self.width, self.height = LEFT + self.columns * COLUMN + 16, TOP + len(self.row) * ROW + 8
        self.root = ElementTree.Element(
            "svg",
            {
                "xmlns": "http://www.w3.org/2000/svg",
                "viewBox": f"0 0 {self.width} {self.height}",
                "width": str(self.width),
                "height": str(self.height),
                "role": "img",
                "aria-label": f"{run.title}: {len(self.marks)} steps of {len(self.row)} threads, in the table below.",
                "font-size": "11",
                "fill": "currentColor",
            },
        )
        for thread, name in run.threads.items():
            y = self.y(thread)
            add(self.root, "text", name, x=LEFT - 12, y=y + 4, text_anchor="end")
            add(self.root, "line", x1=LEFT - 6, y1=y, x2=self.width - 8, y2=y, class_="thread")
        for k, mark in enumerate(self.marks):
            self.draw(k, mark)
        self.draw_race(race_steps(run, self.marks))

    def x(self, mark: Mark) -> float:
        return LEFT + (mark.column + 0.5) * COLUMN

    def y(self, thread: int) -> float:
        return TOP + (self.row[thread] + 0.5) * ROW

    def draw(self, k: int, mark: Mark) -> None:
        group = add(self.root, "g", class_=f"event {mark.kind}", data_step=k)
        add(group, "title", mark.words)
        x, y = self.x(mark), self.y(mark.threads[0])
        if mark.kind == "barrier":
            add(group, "line", x1=x, y1=TOP - 4, x2=x, y2=self.height - 6)
            add(group, "text", "barrier", x=x, y=TOP - 10, text_anchor="middle")
        elif mark.kind == "shuffle":
            add(group, "text", "shuffle", x=x - COLUMN / 2, y=TOP - 10, text_anchor="middle")
            for thread, source in mark.sources.items():
                if source in self.row:
                    arrow(group, x - COLUMN + 4, self.y(source), x, self.y(thread))
        elif mark.kind == "arrive":
            add(group, "circle", cx=x, cy=y, r=3.5)
        elif mark.kind == "return":
            add(group, "line", x1=x, y1=y - 7, x2=x, y2=y + 7)
        elif mark.kind == "read":
            add(group, "circle", cx=x, cy=y, r=6.5)
        else:
            add(group, "rect", x=x - 6.5, y=y - 6.5, width=13, height=13, rx=2)

    def draw_race(self, pair: list[int]) -> None:
        if not pair:
            return
        one, other = (self.marks[k] for k in pair)
        ends = [(self.x(mark), self.y(mark.threads[0])) for mark in (one, other)]
        group = add(self.root, "g", class_="event race", data_step=pair[1])
        add(group, "title", "the race: nothing orders these two")
        add(group, "line", x1=ends[0][0], y1=ends[0][1], x2=ends[1][0], y2=ends[1][1])
        for x, y in ends:
            add(group, "circle", cx=x, cy=y, r=11)
        x, y = max(ends, key=lambda end: end[1])
        add(group, "text", "race", x=x, y=y + 25, text_anchor="middle")

    def svg(self) -> str:
        return ElementTree.tostring(self.root, encoding="unicode")


def add(parent: Any, tag: str, text: str | None = None, **attributes: object) -> Any:
    named = {name.rstrip("_").replace("_", "-"): str(value) for name, value in attributes.items()}
    child = ElementTree.SubElement(parent, tag, named)
    child.text = text
    return child


def arrow(group: Any, x1: float, y1: float, x2: float, y2: float) -> None:
    """From one lane's row to another's, with its head on the one that takes."""
    add(group, "line", x1=x1, y1=y1, x2=x2, y2=y2)
    length = math.hypot(x2 - x1, y2 - y1)
    along, across = ((x2 - x1) / length, (y2 - y1) / length), ((y1 - y2) / length, (x2 - x1) / length)
    base = [(x2 - 8 * along[0] + side * across[0], y2 - 8 * along[1] + side * across[1]) for side in (3, -3)]
    add(group, "polygon", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in [(x2, y2), *base]))


def listing(run: Run, picture: Picture) -> str:
    """The kernel's source; the lines of a race are marked."""
    first = run.code.co_firstlineno
    source = inspect.getblock(linecache.getlines(run.code.co_filename)[first - 1 :])
    racing = {picture.marks[k].line for k in race_steps(run, picture.marks)}
    indent = min(len(line) - len(line.lstrip()) for line in source if line.strip())
    text = "".join(line[indent:] or "\n" for line in source)
    lines = highlight(text, PythonLexer(stripnl=False), HtmlFormatter(nowrap=True)).splitlines()
    return "".join(
        f'<span class="line{" racing" if first + k in racing else ""}" data-line="{first + k}">{line or " "}\n</span>'
        for k, line in enumerate(lines)
    )


def rows(picture: Picture) -> Iterator[str]:
    racing = race_steps(picture.run, picture.marks)
    for k, mark in enumerate(picture.marks):
        what = mark.words + (" — a race with the other marked step" if k in racing else "")
        cells = f"<td>{k + 1}</td><td>{escape(what)}</td><td>{mark.line or '–'}</td>"
        yield f'<tr data-step="{k}" data-line="{mark.line}">{cells}</tr>'


def view(run: Run) -> str:
    """The whole: the picture, its controls, the kernel's source, what stopped it, and a table that says the same."""
    picture = Picture(run)
    count, title = len(picture.marks), escape(run.title)
    error = ""
    if run.error is not None:
        error = f'<p class="error"><strong>{type(run.error).__name__}.</strong> {escape(str(run.error))}</p>'
    buttons = "".join(
        f'<button type="button" data-to="{to}">{words}</button>'
        for to, words in (("first", "First"), ("back", "Back"), ("next", "Next"), ("last", "Last"))
    )
    head = "".join(f"<th scope=col>{words}</th>" for words in ("step", "what happens", "line"))
    return (
        f'<div class="simulated">'
        f'<div class="threads" tabindex="0" role="group" aria-label="{title}: threads over steps">{picture.svg()}</div>'
        f'<div class="controls" hidden>{buttons}<label>Step <input type="range" min="0" max="{count}" value="{count}">'
        f'</label><output aria-live="polite"></output></div>{error}'
        f'<div class="highlight"><pre tabindex="0" aria-label="{title}: the kernel">{listing(run, picture)}</pre></div>'
        f"<details><summary>The same as a table of {count} steps</summary><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows(picture))}</tbody></table></details></div>"
    )
