"""The drawings of the ladder's pages: for every rung who walks where, and what lies in which memory.

Each is a pure function that returns an SVG as text. Lines and letters have the page's colour, so that they are read in
light and in dark; a hue stands for a thread. In all of them time goes to the right and channels go down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from xml.etree import ElementTree

WIDTH = 340
# a hue for each thread, told apart on white and on near-black
HUES = ("#1f83c9", "#c8641d", "#4d8f3c", "#9a5fc0")
INK = "currentColor"


class Drawing:
    """An SVG that grows."""

    def __init__(self, height: float, label: str, width: float = WIDTH) -> None:
        self.root = ElementTree.Element(
            "svg",
            {
                "xmlns": "http://www.w3.org/2000/svg",
                "viewBox": f"0 0 {width:g} {height:g}",
                "role": "img",
                "aria-label": label,
                "font-size": "12",
                "fill": INK,
            },
        )

    def add(self, tag: str, text: str | None = None, **attributes: object) -> None:
        named = {
            name.rstrip("_").replace("_", "-"): f"{value:.4g}" if isinstance(value, float) else str(value)
            for name, value in attributes.items()
        }
        ElementTree.SubElement(self.root, tag, named).text = text

    def text(self, x: float, y: float, words: str, anchor: str = "start", size: int = 12, **more: object) -> None:
        self.add("text", words, x=x, y=y, text_anchor=anchor, font_size=size, **more)

    def cell(self, x: float, y: float, w: float, h: float, hue: str = INK, words: str = "", fill: float = 0.22) -> None:
        faint = 0.06 if hue == INK else fill
        self.add(
            "rect", x=x, y=y, width=w, height=h, rx=2, fill=hue, fill_opacity=faint, stroke=hue, stroke_opacity=0.7
        )
        if words:
            self.text(x + w / 2, y + h / 2 + 4, words, "middle", 11)

    def line(self, x1: float, y1: float, x2: float, y2: float, hue: str = INK, **more: object) -> None:
        self.add("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke=hue, **{"stroke_width": 1.5, **more})

    def barrier(self, x: float, y1: float, y2: float) -> None:
        self.line(x, y1, x, y2, stroke_dasharray="2 3", stroke_width=1.2, stroke_opacity=0.8)

    def arrow(self, x1: float, y1: float, x2: float, y2: float, hue: str = INK, bend: float = 0) -> None:
        """From one point to another; bent to its left by so many units."""
        length = math.hypot(x2 - x1, y2 - y1)
        cx, cy = (x1 + x2) / 2 + bend * (y2 - y1) / length, (y1 + y2) / 2 - bend * (x2 - x1) / length
        angle = math.atan2(y2 - cy, x2 - cx)
        back = [(x2 - 7 * math.cos(angle + turn), y2 - 7 * math.sin(angle + turn)) for turn in (0.42, -0.42)]
        tip_x, tip_y = x2 - 5 * math.cos(angle), y2 - 5 * math.sin(angle)
        self.add(
            "path", d=f"M{x1:.4g} {y1:.4g}Q{cx:.4g} {cy:.4g} {tip_x:.4g} {tip_y:.4g}", stroke=hue, fill="none",
            stroke_width=1.5,
        )  # fmt: skip
        points = " ".join(f"{x:.4g},{y:.4g}" for x, y in [(x2, y2), *back])
        self.add("polygon", points=points, fill=hue)

    def svg(self) -> str:
        return ElementTree.tostring(self.root, encoding="unicode")


def hue(i: int) -> str:
    return HUES[i % len(HUES)]


def axes(d: Drawing, x: float, y: float, rows: int, pitch: float) -> None:
    d.text(x, y - 8, "time →", size=11, fill_opacity=0.8)
    for row in range(rows):
        d.text(x - 6, y + pitch * row + pitch / 2 + 3, f"ch. {row}", "end", 11)


# A mini grid is one kernel of rung 0: (title, whom a thread belongs to, how it is drawn).
Kernels = tuple[tuple[str, str, str], ...]


def kernels_over_arrays(label: str, kernels: Kernels) -> str:
    """One small grid of channels × time for each kernel: cells, rows or columns are its threads."""
    per_row, pitch, rows, columns, size = 3, 114, 3, 5, 18
    lines = -(-len(kernels) // per_row)
    d = Drawing(lines * 112 + 8, label)
    for k, (title, thread, how) in enumerate(kernels):
        x, y = 4 + k % per_row * pitch, 26 + k // per_row * 112
        d.text(x, y - 8, title, font_weight="bold")
        for r in range(rows):
            for c in range(columns):
                own = {"cells": r * columns + c + r, "columns": c}.get(how, r)
                d.cell(x + c * size, y + r * size, size, size, hue(own))
            ends = (x + 4, x + columns * size - 4)
            if how in ("forth", "back"):
                a, b = ends if how == "forth" else ends[::-1]
                d.arrow(a, y + r * size + size / 2, b, y + r * size + size / 2, hue(r))
        if how == "columns":
            for c in range(columns):
                d.arrow(x + c * size + size / 2, y + 3, x + c * size + size / 2, y + rows * size - 2, hue(c))
        d.text(x, y + rows * size + 17, thread, size=11)
    return d.svg()


def thread_per_state(label: str, back: bool) -> str:
    """Every channel is a bundle of threads, one a state, which meet at two barriers a step."""
    d = Drawing(196, label)
    x, y, step, lanes, lane = 44, 28, 52, 4, 13
    axes(d, x, y, 2, lanes * lane + 18)
    for c in range(2):
        top = y + c * (lanes * lane + 18)
        for n in range(lanes):
            row = top + n * lane + lane / 2 + 2
            d.text(x + 4, row + 4, "h" + "₀₁₂₃"[n], size=10)
            a, b = (x + 24, x + 5.2 * step) if not back or n % 2 == 0 else (x + 5.2 * step, x + 24)
            d.arrow(a, row, b, row, hue(n))
        d.text(x + 5.3 * step, top + lanes * lane / 2 + 6, "Σ", size=16)
    for k in range(1, 5):
        d.barrier(x + 20 + k * step, y, y + 2 * (lanes * lane + 18) - 10)
    words = "each state goes forth, then back;" if back else "each thread keeps one state;"
    d.text(x, 184, f"{words} dashed: barriers", size=11)
    return d.svg()


def thread_per_channel(label: str) -> str:
    """Every channel is one thread, which walks along its own row."""
    d = Drawing(166, label)
    x, y, cw, ch = 44, 28, 35, 28
    axes(d, x, y, 4, ch)
    for r in range(4):
        for c in range(8):
            d.cell(x + c * cw, y + r * ch, cw, ch, hue(r))
        d.arrow(x + 6, y + r * ch + ch / 2, x + 8 * cw - 6, y + r * ch + ch / 2, hue(r))
    d.text(x, y + 4 * ch + 18, "a thread is a channel, with all of its states", size=11)
    return d.svg()


def checkpoints(label: str) -> str:
    """Windows: forth a checkpoint at each left border, back each window once more."""
    d = Drawing(190, label)
    x, y, w, h = 12, 36, 79, 30
    for k in range(4):
        d.cell(x + k * w, y, w, h, hue(k), f"window {k}", 0.12)
        d.cell(x + k * w, y + 78, w, h, hue(k), "", 0.12)
        d.add("circle", cx=x + k * w, cy=y + h, r=4.5, fill=INK)
        d.text(x + k * w + 7, y + h + 16, "h" + ("" if k else " = 0"), size=11)
        mid = y + 78 + h / 2
        d.arrow(x + k * w + 8, mid - 7, x + (k + 1) * w - 8, mid - 7, hue(k))
        d.arrow(x + (k + 1) * w - 8, mid + 7, x + k * w + 8, mid + 7, hue(k))
        d.arrow(x + k * w, y + h + 22, x + k * w, y + 76)
    d.text(x, 24, "forth: a checkpoint of h at each left border", size=11)
    d.text(x, y + 78 + h + 18, "back, from the last window to the first: its h again,", size=11)
    d.text(x, y + 78 + h + 33, "then g against the time", size=11)
    return d.svg()


def tiles(label: str, sums: bool) -> str:
    """The same tile twice: lanes along time to copy, along channels to scan; with `sums`, along columns to add up."""
    d = Drawing(172, label)
    size, rows, columns = 25, 4, 4
    panels = ["copy", "scan", "add up"] if sums else ["copy", "scan"]
    pitch = 113 if sums else 170
    for p, title in enumerate(panels):
        x, y = 6 + p * pitch, 40
        d.text(x, 16, title, font_weight="bold")
        d.text(x, y - 8, "time →", size=11, fill_opacity=0.8)
        for r in range(rows):
            for c in range(columns):
                d.cell(x + c * size, y + r * size, size, size, hue(r if title == "scan" else c))
            if title == "scan":
                d.arrow(x + 4, y + (r + 0.5) * size, x + columns * size - 4, y + (r + 0.5) * size, hue(r))
        if title == "add up":
            for c in range(columns):
                d.arrow(x + (c + 0.5) * size, y + 4, x + (c + 0.5) * size, y + rows * size - 2, hue(c))
        words = {"copy": "a lane is a time", "scan": "a lane is a channel", "add up": "dB, dC: columns"}[title]
        d.text(x, y + rows * size + 18, words, size=11)
        if p + 1 < len(panels):
            gap = pitch - columns * size
            mid = y + rows * size / 2
            d.arrow(x + columns * size + 2, mid, x + columns * size + gap - (2 if sums else 6), mid)
    return d.svg()


def node(d: Drawing, x: float, y: float, filled: bool = True) -> None:
    d.add("circle", cx=x, cy=y, r=5, fill=INK if filled else "none", stroke=INK)


def hillis_steele(label: str, mirrored: bool) -> str:
    """Rounds of reach 1, 2, 4 over eight times; mirrored, the reverse scan beside it."""
    pitch = 20 if mirrored else 38
    d = Drawing(186, label)
    for panel in range(2 if mirrored else 1):
        x0, y0, level = 14 + panel * 170, 42, 38
        d.text(x0 - 6, 18, ["h: from the left", "r = Ā g: from the right"][panel] if mirrored else "time →", size=11)
        for i in range(8):
            node(d, x0 + i * pitch, y0, False)
            if not mirrored:
                d.text(x0 + i * pitch, y0 - 10, str(i), "middle", 10)
        for r, reach in enumerate((1, 2, 4)):
            for i in range(8):
                a, b = y0 + r * level + 5, y0 + (r + 1) * level - 5
                d.line(x0 + i * pitch, a, x0 + i * pitch, b, stroke_opacity=0.35, stroke_width=1)
                taken = i + reach if panel else i - reach
                if 0 <= taken < 8:
                    d.line(x0 + taken * pitch, a, x0 + i * pitch, b, hue(r))
                node(d, x0 + i * pitch, y0 + (r + 1) * level, 0 <= taken < 8)
            if not mirrored:
                d.text(WIDTH, y0 + (r + 0.5) * level + 4, f"reach {reach}", "end", 10)
        if not mirrored:
            d.text(x0 - 6, y0 + 3 * level + 24, "every place takes in the pair that lies a reach before it", size=11)
    if mirrored:
        d.text(8, 180, "a thread is a time; a filled circle composes", size=11)
    return d.svg()


def blelloch(label: str) -> str:
    """Up a tree of eight times, and down again."""
    d = Drawing(280, label)
    x0, pitch, y0, level = 30, 37, 30, 32
    for i in range(8):
        node(d, x0 + i * pitch, y0, False)
        d.text(x0 + i * pitch, y0 - 10, str(i), "middle", 10)
    d.text(WIDTH, y0 + 4, "up", "end", 11)
    y = y0
    for r, span in enumerate((1, 2, 4)):
        for right in range(2 * span - 1, 8, 2 * span):
            d.line(x0 + (right - span) * pitch, y + 5, x0 + right * pitch, y + level - 5, hue(r))
            d.line(x0 + right * pitch, y + 5, x0 + right * pitch, y + level - 5, hue(r))
            node(d, x0 + right * pitch, y + level)
        y += level
    d.text(x0 + 7 * pitch - 9, y + 18, "the state before the tile enters here", "end", 11)
    y += 26
    node(d, x0 + 7 * pitch, y, False)
    d.text(WIDTH, y + 4, "down", "end", 11)
    for r, span in ((2, 4), (1, 2), (0, 1)):
        for right in range(2 * span - 1, 8, 2 * span):
            left = right - span
            d.line(x0 + right * pitch, y + 5, x0 + left * pitch, y + level - 5, hue(r), stroke_dasharray="4 2")
            d.line(x0 + right * pitch, y + 5, x0 + right * pitch, y + level - 5, hue(r))
            node(d, x0 + left * pitch, y + level, False)
            node(d, x0 + right * pitch, y + level)
        y += level
    d.text(x0 - 24, y + 24, "filled: composes; dashed: handed on as it is", size=11)
    return d.svg()


def shuffles(label: str, both: bool) -> str:
    """Runs of steps in a lane, lanes by shuffles, warps by shared memory; `both`, a second scan the other way."""
    d = Drawing(200, label)
    x0, y0, cw, ch = 8, 32, 19.5, 26
    d.text(x0, 16, "time →", size=11, fill_opacity=0.8)
    for lane in range(4):
        x = x0 + lane * (4 * cw + 4)
        for k in range(4):
            d.cell(x + k * cw, y0, cw, ch, hue(lane))
        d.arrow(x + 3, y0 + ch / 2, x + 4 * cw - 3, y0 + ch / 2, hue(lane))
        d.text(x + 2 * cw, y0 + ch + 16, f"lane {lane}" if both or lane < 2 else f"lane {lane - 2}", "middle", 11)
    ends = [x0 + lane * (4 * cw + 4) + 2 * cw for lane in range(4)]
    y = y0 + ch + 24
    if both:
        for a, b in ((0, 1), (1, 2), (2, 3)):
            d.arrow(ends[a] + 4, y, ends[b] - 4, y, bend=-16)
            d.arrow(ends[b] - 4, y + 46, ends[a] + 4, y + 46, bend=-16)
        d.text(x0, y + 32, "h by shuffles to the right, r to the left", size=11)
        d.text(x0, y + 90, "terms of dB and dC: shared memory, summed over warps", size=11)
        return d.svg()
    for a, b in ((0, 1), (2, 3)):
        d.arrow(ends[a] + 4, y, ends[b] - 4, y, bend=-16)
        d.text((ends[a] + ends[b]) / 2, y + 30, "shuffle", "middle", 11)
    for warp in range(2):
        x = (ends[2 * warp] + ends[2 * warp + 1]) / 2
        d.text(x, y + 88, f"warp {warp}", "middle", 11, font_weight="bold")
        d.cell(x - 46, y + 44, 92, 26, INK, "its total")
    d.arrow(x0 + 2 * (2 * cw + 2) + 54, y + 57, ends[2] - 8, y + 57)
    d.text(WIDTH / 2, y + 106, "the totals lie in shared memory, the rest in registers", "middle", 11)
    return d.svg()


def chunks(label: str, both: bool) -> str:
    """All chunks at once, a short chain over their summaries, all chunks at once again."""
    d = Drawing(216, label)
    x0, w, y = 8, 81, 34
    for title, top in (("1  summarise, all at once", y), ("3  scan, all at once", y + 126)):
        d.text(x0, top - 8, title, size=11, font_weight="bold")
        for k in range(4):
            d.cell(x0 + k * w, top, w - 4, 24, hue(k))
            middle = top + 12
            d.arrow(
                x0 + k * w + 5, middle - (5 if both else 0), x0 + (k + 1) * w - 10, middle - (5 if both else 0), hue(k)
            )
            if both:
                d.arrow(x0 + (k + 1) * w - 10, middle + 6, x0 + k * w + 5, middle + 6, hue(k))
    d.text(x0, y + 48, "2  combine, in a row", size=11, font_weight="bold")
    for k in range(4):
        middle = x0 + k * w + (w - 4) / 2
        d.cell(middle - 27, y + 58, 54, 24, INK, "ΣΔ, h, r" if both else "ΣΔ, h")
        d.line(middle, y + 25, middle, y + 36, hue(k), stroke_dasharray="2 2")
        d.line(middle, y + 83, middle, y + 106, hue(k), stroke_dasharray="2 2")
        if k:
            d.arrow(middle - w + 28, y + 66, middle - 28, y + 66)
            if both:
                d.arrow(middle - 28, y + 76, middle - w + 28, y + 76)
    d.text(x0, y + 126 + 44, "h ← exp(A ΣΔ) h + h of the chunk" + (", r likewise" if both else ""), size=11)
    return d.svg()


def production(label: str, both: bool) -> str:
    """A warp is a grid of lanes: channels × segments of time."""
    d = Drawing(226, label)
    x0, y0, cw, ch = 44, 62, 36, 24
    axes(d, x0, y0, 4, ch)
    d.cell(x0, 8, 8 * cw, 22, INK, "B and C of the tile, in shared memory")
    for s in (2, 4.5, 7):
        d.arrow(x0 + (s - 0.2) * cw, 31, x0 + (s - 0.2) * cw, y0 - 2)
    for c in range(4):
        for s in range(8):
            d.cell(x0 + s * cw, y0 + c * ch, cw - 2, ch - 2, hue(c))
            for k in range(1, 4):
                x = x0 + s * cw + k * cw / 4 - 1
                d.line(x, y0 + c * ch + 16, x, y0 + c * ch + 20, hue(c), stroke_width=1)
    y = y0 + 4 * ch + 4
    for a, b in ((0, 1), (1, 3), (3, 7)):
        d.arrow(x0 + (a + 0.5) * cw, y, x0 + (b + 0.5) * cw, y, bend=-(7 + 4 * (b - a)))
    d.text(x0, y + 42, "a cell is a lane: some steps of one channel, in registers;", size=11)
    words = "shuffles carry h over the segments, and r back" if both else "shuffles carry h over the segments"
    d.text(x0, y + 57, words, size=11)
    return d.svg()


def walking(label: str, both: bool) -> str:
    """A pair of lanes over a channel's states, or a quad over two channels'; below, chunks that warps walk through."""
    x0, y0, size = 74, 44, 16
    lanes, channels, title = (4, 2, "a quad of lanes") if both else (2, 1, "a pair of lanes")
    each, below = 16 // lanes, y0 + channels * size
    d = Drawing(below + 144, label)
    d.text(x0, 14, title, font_weight="bold")
    d.text(x0, y0 - 8, "states →", size=11, fill_opacity=0.8)
    for k in range(channels):
        d.text(x0 - 6, y0 + (k + 0.5) * size + 4, f"ch. d + {8 * k}" if k else "ch. d", "end", 11)
        for n in range(16):
            d.cell(x0 + n * size, y0 + k * size, size, size, hue(n // each))
    for lane in range(lanes):
        d.text(x0 + (lane + 0.5) * each * size, below + 15, f"lane {lane}", "middle", 11)
    y, w = below + 62, 81
    forth = y + (9 if both else 15)
    d.text(8, y - 22, "chunks of time, all at once", font_weight="bold")
    d.text(8, y - 7, "time →", size=11, fill_opacity=0.8)
    for k in range(4):
        left, right = 8 + k * w, 8 + (k + 1) * w - 4
        d.cell(left, y, right - left, 30)
        for tile in range(1, 3):
            d.line(left + tile * (right - left) / 3, y, left + tile * (right - left) / 3, y + 30, stroke_opacity=0.4)
        for tile in range(3):
            a, b = left + tile * (right - left) / 3 + 4, left + (tile + 1) * (right - left) / 3 - 4
            d.arrow(a, forth, b, forth)
            if both:
                d.arrow(b, y + 21, a, y + 21)
    words = "tile by tile from the last: forth for h, then back for g;" if both else "tile by tile, h in registers;"
    d.text(8, y + 48, words, size=11)
    d.text(8, y + 63, "what enters a chunk is known from a summary of all", size=11)
    return d.svg()


@dataclass(frozen=True)
class Held:
    """What lies in which memory."""

    registers: tuple[str, ...]
    shared: tuple[str, ...]
    memory: tuple[str, ...]


def held(what: Held, traffic: str, label: str) -> str:
    """Three memories as boxes, the fastest on top, and what passes between the last and the rest."""
    bands = (
        ("registers, a thread's own", what.registers),
        ("shared memory, a block's own", what.shared),
        ("global memory", what.memory),
    )
    line, between = 17, (8, 30)
    heights = [22 + line * max(1, len(lines)) for _, lines in bands]
    d = Drawing(sum(heights) + sum(between) + 4, label)
    y = 2
    for k, ((title, lines), height) in enumerate(zip(bands, heights, strict=True)):
        d.cell(1, y, WIDTH - 2, height, hue(k) if lines else INK, "", 0.13)
        d.text(9, y + 16, title, size=11, font_weight="bold")
        for i, words in enumerate(lines or ("–",)):
            d.text(9, y + 33 + i * line, words)
        y += height
        if k == 1:
            d.arrow(20, y + 28, 20, y + 2)
            d.arrow(30, y + 2, 30, y + 28)
            d.text(40, y + 19, traffic, size=11)
        y += (*between, 0)[k]
    return d.svg()
