"""What the ladder's pages show of a rung: its drawings, its counts, and where it stands under the roofs of a GPU.

Counts are the rungs' own (`ssm_kernels.ladder.Rung`); times are those of the newest report in docs/benchmarks that has
any of the ladder. Where nothing has been measured yet, that is what is shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import drawings
import scenes
from ssm_kernels import ladder

from ssm_edu.bench.cases import Case
from ssm_edu.bench.device.run import LADDER
from ssm_edu.bench.floors import Rates
from ssm_edu.bench.results import Report, Result
from ssm_edu.bench.tables import figures, kept, markdown, milliseconds

WARP, SCHEDULERS = 32, 4  # lanes of a warp, schedulers of a multiprocessor
ROOT = Path(__file__).parent.parent.parent
NO_ROOM = "out of memory"
NOT_YET = "not measured yet"
OF_NO_ROOM = (
    "every call of this rung takes memory of its own for all states, and while it is timed its calls follow each other "
    "faster than that memory is given back. One call alone has room."
)
COMMAND = "ssm-edu bench --device cuda --ladder --json docs/benchmarks/NAME.json"


@dataclass(frozen=True)
class Entry:
    """A rung on the ladder's case.

    Attributes:
        bytes, exponentials, flops: of the whole problem.
        seconds: None where there is no time that counts.
        said: the time, or why there is none.
    """

    number: str
    title: str
    idea: str
    case: Case
    bytes: float
    exponentials: float
    flops: float
    seconds: float | None
    said: str

    @property
    def intensity(self) -> float:
        """State updates, of which there are batch · dim · length · state, for a byte."""
        return self.case.elements / self.bytes

    @property
    def per_second(self) -> float | None:
        return None if self.seconds is None else self.case.elements / self.seconds


def entries(direction: str, report: Report | None) -> list[Entry]:
    """Every rung from the bottom to the top."""
    case = report.ladder[0].case if report is not None and report.ladder else LADDER
    sizes = case.batch, case.dim, case.length, case.state
    results = {r.name: r for r in (report.ladder if report is not None else ()) if r.direction == direction}
    found = []
    for rung in getattr(ladder, direction.upper()):
        result = results.get(f"{rung.number} {rung.title}")
        counts = rung.bytes(*sizes), rung.exponentials(*sizes), rung.flops(*sizes)
        seconds = result.median if result is not None and result.shown else None
        found.append(Entry(rung.number, rung.title, rung.idea, case, *counts, seconds, said_of(result)))
    return found


def said_of(result: Result | None) -> str:
    """The time in milliseconds, or why there is none."""
    if result is None or result.skipped:
        return NOT_YET
    if result.out_of_memory:
        return NO_ROOM
    return "its result was wrong" if not result.shown or result.median is None else milliseconds(result.median)


@cache
def newest(root: Path = ROOT) -> Report | None:
    """The newest kept report that timed the ladder, or else the newest."""
    reports = list(kept(root).values())
    return next((report for report in reports if report.ladder), reports[0] if reports else None)


def shape(case: Case) -> str:
    return f"batch {case.batch}, dim {case.dim}, length {case.length}, state {case.state}, {case.format}"


def figure(number: float) -> str:
    """Three figures, in units of 1, k, M, G, …"""
    power = max(0, int(math.log10(number) // 3)) if number else 0
    unit = ("", "\u00a0k", "\u00a0M", "\u00a0G", "\u00a0T", "\u00a0P")[power]
    return f"{figures(number / 1000**power)}{unit}"


def drawing(direction: str, number: str) -> Any:
    """Who walks where, and what is held where, as a notebook cell shows it."""
    from IPython.display import HTML

    return HTML(drawing_html(direction, number))


def drawing_html(direction: str, number: str) -> str:
    entry = find(direction, number, None)
    scene = {"forward": scenes.FORWARD, "backward": scenes.BACKWARD}[direction][number]
    return scene_html(scene, entry.bytes / (entry.case.elements / entry.case.state))


def scene_html(scene: scenes.Scene, each: float) -> str:
    """Both drawings; `each` is the bytes of global memory for each (b, d, t)."""
    traffic = f"{each:.4g} bytes for each (b, d, t)"
    words = "; ".join(
        f"{where}: {', '.join(lines) or 'nothing'}"
        for where, lines in (
            ("registers", scene.held.registers),
            ("shared memory", scene.held.shared),
            ("global memory", scene.held.memory),
        )
    )
    return (
        f'<div class="rung"><figure>{scene.who(scene.words)}<figcaption>Who walks where.</figcaption></figure>'
        f"<figure>{drawings.held(scene.held, traffic, f'{words}. {traffic} pass.')}"
        "<figcaption>What is held where.</figcaption></figure></div>"
    )


def find(direction: str, number: str, report: Report | None) -> Entry:
    return next(entry for entry in entries(direction, report) if entry.number == number)


def counts(direction: str, number: str, report: Report | None) -> str:
    """A table: what the rung asks for, per element and in all, and how long each alone would take."""
    entry = find(direction, number, report)
    rates = report.rates if report is not None else None
    elements = entry.case.elements / entry.case.state
    rows = []
    for name, count, rate in (
        ("bytes asked for", entry.bytes, rates and rates.bytes_per_second),
        ("exponentials, log", entry.exponentials, rates and rates.exponentials_per_second),
        ("FLOPs", entry.flops, None),
    ):
        rows.append((name, f"{count / elements:.4g}", figure(count), milliseconds(count / rate) if rate else "–"))
    body = "".join(f"<tr><th scope=row>{a}</th><td>{b}</td><td>{c}</td><td>{d}</td></tr>" for a, b, c, d in rows)
    return (
        f"<table><caption>{shape(entry.case)}</caption><thead><tr><th scope=col>what</th>"
        "<th scope=col>each (b, d, t)</th><th scope=col>in all</th><th scope=col>alone, ms</th></tr></thead>"
        f'<tbody>{body}<tr class="measured"><th scope=row>measured</th><td colspan=3>{entry.said}</td></tr>'
        "</tbody></table>"
    )


def decades(low: float, high: float) -> tuple[int, int]:
    return math.floor(math.log10(low)), math.ceil(math.log10(high))


def ticks(first: int, last: int) -> Iterator[tuple[int, str]]:
    superscript = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    for power in range(first, last + 1):
        yield power, "1" if power == 0 else f"10{str(power).translate(superscript)}"


def roofline(direction: str, number: str, report: Report) -> str:
    """State updates a second over state updates a byte, under what the GPU's memory and exponentials allow."""
    found = entries(direction, report)
    chosen = next(entry for entry in found if entry.number == number)
    measured = [entry for entry in found if entry.per_second is not None]
    rates = report.rates
    bandwidth, exponentials = rates.bytes_per_second, rates.exponentials_per_second
    corner = exponentials / bandwidth
    x_first, x_last = decades(min(e.intensity for e in found), 3 * corner)
    y_first, y_last = decades(
        min([e.per_second for e in measured if e.per_second] + [exponentials / 100]), 1.5 * exponentials
    )
    left, top, width, height = 44, 12, 284, 190

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            left + (math.log10(x) - x_first) / (x_last - x_first) * width,
            top + (y_last - math.log10(y)) / (y_last - y_first) * height,
        )

    d = drawings.Drawing(top + height + 46, roofline_words(chosen, rates))
    for power, words in ticks(x_first, x_last):
        x, _ = at(10.0**power, 10.0**y_first)
        d.line(x, top, x, top + height, stroke_width=0.5, stroke_opacity=0.3)
        d.text(x, top + height + 16, words, "middle", 11)
    for power, words in ticks(y_first, y_last):
        _, y = at(10.0**x_first, 10.0**power)
        d.line(left, y, left + width, y, stroke_width=0.5, stroke_opacity=0.3)
        d.text(left - 6, y + 4, words, "end", 11)
    d.text(left + width / 2, top + height + 36, "state updates for a byte", "middle", 11)
    d.text(left + 6, top + 11, "state updates a second", size=11)
    low = max(10.0**x_first, 10.0**y_first / bandwidth)
    start, bent, end = at(low, low * bandwidth), at(corner, exponentials), at(10.0**x_last, exponentials)
    d.line(*start, *bent)
    d.line(*bent, *end)
    d.text(end[0], end[1] - 6, "one exponential each", "end", 11)
    x, y = (start[0] + bent[0]) / 2, (start[1] + bent[1]) / 2
    slope = math.degrees(math.atan2(bent[1] - start[1], bent[0] - start[0]))
    d.text(x, y - 6, "memory", "middle", 11, transform=f"rotate({slope:.4g} {x:.4g} {y:.4g})")
    points = {entry.number: at(entry.intensity, entry.per_second) for entry in measured if entry.per_second}
    for entry in sorted(measured, key=lambda entry: entry is chosen):
        x, y = points[entry.number]
        own = entry is chosen
        d.add("circle", cx=x, cy=y, r=6 if own else 4, fill=drawings.HUES[1] if own else drawings.INK,
              fill_opacity=1 if own else 0.35)  # fmt: skip
        in_the_way = any(0 < other_x - x < 24 and abs(other_y - y) < 12 for other_x, other_y in points.values())
        words = {"size": 13 if own else 10, "font_weight": "bold" if own else "normal"}
        d.text(x - 9 if in_the_way else x + 9, y + 4, entry.number, "end" if in_the_way else "start", **words)
    return d.svg()


def roofline_words(entry: Entry, rates: Rates) -> str:
    roof = min(entry.intensity * rates.bytes_per_second, rates.exponentials_per_second)
    words = f"Rung {entry.number}: {entry.intensity:.2g} state updates for a byte"
    words += f"; the roof there is {figure(roof)} a second"
    if entry.per_second is None:
        return f"{words}; no time: {entry.said}."
    return f"{words}, measured are {figure(entry.per_second)}."


def numbers(direction: str, number: str) -> Any:
    """The counts of a rung and its place under the roofs, as a notebook cell shows it."""
    from IPython.display import HTML

    return HTML(numbers_html(direction, number, newest()))


def numbers_html(direction: str, number: str, report: Report | None) -> str:
    if report is None:
        place = f"<p>Not measured yet: <code>{escape(COMMAND)}</code> on a GPU puts this rung under its roofs here.</p>"
    else:
        entry = find(direction, number, report)
        words = roofline_words(entry, report.rates).partition(": ")[2]
        above = ""
        if entry.per_second is not None and entry.per_second > entry.intensity * report.rates.bytes_per_second:
            above = " It lies above the roof of the memory: caches answer most of what it asks for."
        place = (
            f"<figure>{roofline(direction, number, report)}<figcaption>{escape(report.machine['gpu'])}, "
            f"{report.date[:10]}: {words}{above}</figcaption></figure>"
        )
    return f'<div class="rung"><div>{counts(direction, number, report)}</div>{place}</div>'


def warps() -> Any:
    """How many warps a thread per channel makes, and how many this GPU can issue from."""
    from IPython.display import Markdown

    return Markdown(warps_markdown(newest()))


def warps_markdown(report: Report | None) -> str:
    case = report.ladder[0].case if report is not None and report.ladder else LADDER
    channels = case.batch * case.dim
    words = f"The tables' problem has {channels} channels. With a thread for each, that is {channels // WARP} warps"
    if report is None:
        return f"{words}."
    schedulers = SCHEDULERS * report.machine["multiprocessors"]
    return f"{words}; this GPU has {schedulers} schedulers, each of which could switch between many."


def whole(direction: str) -> Any:
    """The ladder in one table, as a notebook cell shows it."""
    from IPython.display import Markdown

    return Markdown(whole_markdown(direction, newest()))


def whole_markdown(direction: str, report: Report | None) -> str:
    header = ["rung", "", f"{direction}, ms", "gain", "bytes", "exponentials", "FLOPs"]
    rows = []
    found = entries(direction, report)
    for entry, below in zip(found, [None, *found[:-1]], strict=True):
        elements = entry.case.elements / entry.case.state
        before = below.seconds if below is not None else None
        rows.append(
            [
                entry.number,
                entry.title,
                entry.said,
                f"×\u00a0{before / entry.seconds:.2f}" if before and entry.seconds else "–",
                *(f"{count / elements:.4g}" for count in (entry.bytes, entry.exponentials, entry.flops)),
            ]
        )
    words = f"Bytes, exponentials and FLOPs for each (b, d, t), at {shape(found[0].case)}."
    if report is not None:
        of = [f"{report.machine['gpu']}, {report.date[:10]}", *(n for n, one in kept(ROOT).items() if one == report)]
        words += f" The times are of one {', '.join(of)}; the gain is over the rung before."
        if any(entry.said == NOT_YET for entry in found):
            words += f" *{NOT_YET.capitalize()}*: the rung is newer than these times."
    if any(entry.said == NO_ROOM for entry in found):
        words += f" *{NO_ROOM.capitalize()}*: {OF_NO_ROOM}"
    return f"{markdown(header, rows, words=2)}\n{words}\n"
