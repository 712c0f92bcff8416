"""What the page shows of the kept results. As a script it writes their findings and figures anew, from their rows.

The page needs no torch; the script does, as the experiments themselves.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import is_dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

from ssm_edu import experiments
from ssm_edu.experiments import figures
from ssm_edu.experiments.result import Result, Size

RESULTS = Path(__file__).parent / "results"
LONG = 12  # findings; more of them are folded


def path_of(name: str, size: Size = "small", end: str = "json", folder: Path = RESULTS) -> Path:
    return folder / f"{name}{'' if size == 'small' else f'_{size}'}.{end}"


def result(name: str, size: Size = "small", folder: Path = RESULTS) -> Result:
    return Result.from_json(path_of(name, size, folder=folder).read_text("utf-8"))


def in_words(settings: dict[str, Any]) -> Iterator[str]:
    """The settings one by one, those inside others too."""
    for key, value in settings.items():
        name = key.replace("_", " ")
        if isinstance(value, dict):
            yield f"{name} ({', '.join(in_words(value))})"
        elif isinstance(value, list):
            yield f"{name} {' '.join(map(text, value))}"
        else:
            yield f"{name} {text(value)}"


def text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def machine(kept: Result) -> str:
    """Where and when it ran."""
    found = kept.machine
    parts = [found["gpu"]] if found.get("gpu") else []
    parts += [found["cpu"], f"cores used: {found['cores']}", f"threads of torch: {found['threads']}"]
    if found["load"] is not None:
        parts.append(f"load: {found['load']}")
    versions = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    return f"{kept.date[:10]}; {'; '.join(parts)}; Python {found['python']}, {versions}."


def found_text(name: str, size: Size = "small", folder: Path = RESULTS) -> str:
    """In Markdown: the findings, by what they came, and that they lack the paper's size where they do."""
    kept, card = result(name, size, folder), experiments.cards()[name]
    settings = f"size {kept.size}, seed {kept.seed}, device {kept.device}; {', '.join(in_words(kept.settings))}."
    parts = [
        folded([plain(one) for one in kept.findings]),
        f"**Settings:** {plain(settings)}",
        f"**Measured:** {plain(machine(kept))}",
    ]
    if not path_of(name, "paper", folder=folder).exists():
        parts.append(f"**Not run here at the paper's size**, which takes {plain(card.paper)}")
    return "\n\n".join(parts)


def folded(sentences: list[str]) -> str:
    """A list in Markdown, behind its number where it is long."""
    items = "\n".join(f"- {one}" for one in sentences)
    if len(sentences) <= LONG:
        return items
    return f"<details><summary>All {len(sentences)} findings</summary>\n\n{items}\n\n</details>"


def times_as_long(kept: Result) -> str:
    """In Markdown: how often the time of our scan every other operation takes, or why there is no time of it."""
    lengths = kept.settings["lengths"][::2]
    rows = {(row["dtype"], row["operation"], row["length"]): row for row in kept.measured}
    lines = ["| | " + " | ".join(f"{length:,}" for length in lengths) + " |", "| --- |" + " ---: |" * len(lengths)]
    for dtype, operation in dict.fromkeys(key[:2] for key in rows):
        if operation != "our scan":
            cells = (ratio(rows[dtype, operation, t], rows[dtype, "our scan", t]) for t in lengths)
            lines.append(f"| {operation}, {dtype} | {' | '.join(cells)} |")
    return "\n".join(lines)


def ratio(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """Of their seconds to ours."""
    if "reason" in theirs:
        return theirs["reason"]
    times = theirs["seconds"] / ours["seconds"]
    return f"{times:.3g}" if times < 999.5 else f"{times:,.0f}"


def plain(words: str) -> str:
    """With no sign that Markdown would read."""
    return re.sub(r"([_*^`<>\[\]$|~])", r"\\\1", words)


def figure_html(name: str, size: Size = "small") -> str:
    """The kept SVG on white, in a box that scrolls where the page is narrower than can be read."""
    title, path = f"{experiments.cards()[name].title}, {size} size", path_of(name, size, "svg")
    svg = path.read_text("utf-8")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{path.stem}-", svg)  # no two figures of a page have one name
    width = float(re.search(r'width="([\d.]+)pt"', svg)[1])  # type: ignore[index]
    words = escape(f"A figure: {title}. The text below it says what it shows.")
    look = f"width: 100%; max-width: {width:.0f}pt; min-width: {0.9 * width:.0f}px"
    opening = f'<svg class="figure paper" role="img" aria-label="{words}" style="{look}" '
    return (
        f'<div class="scrolls" role="group" aria-label="{escape(title)}" tabindex="0">'
        f"{svg.replace('<svg ', opening, 1)}</div>"
    )


def question(name: str) -> Any:
    from IPython.display import Markdown

    return Markdown(f"**{plain(experiments.cards()[name].question)}**")


def found(name: str, size: Size = "small") -> Any:
    from IPython.display import Markdown

    return Markdown(found_text(name, size))


def figure(name: str, size: Size = "small") -> Any:
    from IPython.display import HTML

    return HTML(figure_html(name, size))


def beside_our_scan() -> Any:
    from IPython.display import Markdown

    return Markdown(times_as_long(result("scan_speed", "paper")))


def settings_of(kept: Result) -> Any:
    """What the experiment's functions take: its own settings where it has a class for them."""
    now = experiments.load(kept.experiment).SIZES[kept.size]
    return now if is_dataclass(now) else kept.settings


def concluded(kept: Result) -> Result:
    """The result with the findings that its rows give now."""
    findings = experiments.load(kept.experiment).findings
    known = {"rows": kept.measured, "settings": settings_of(kept)}
    return replace(kept, findings=findings(**{name: known[name] for name in inspect.signature(findings).parameters}))


def renew(folder: Path = RESULTS) -> None:
    for path in sorted(folder.glob("*.json")):
        kept = concluded(Result.from_json(path.read_text("utf-8")))
        path.write_text(kept.to_json(), "utf-8")
        figures.save(experiments.load(kept.experiment).figure(kept), path.with_suffix(".svg"))


if __name__ == "__main__":
    renew()
