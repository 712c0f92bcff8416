"""How the experiments' figures look: on white, legible when narrow, curves named where they end."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

# Near Okabe and Ito's, which people tell apart who see no red or no green, and dark enough for text on white.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072b2", "#bd5000", "#008060", "#a8548a", "#6b6b6b"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, GREY)
INK = "#333333"
STYLE: Any = {
    "svg.hashsalt": "ssm_edu",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "figure.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.5,
    "grid.color": "#dddddd",
    "lines.linewidth": 2,
    "lines.markersize": 5,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}


def style() -> AbstractContextManager[Any]:
    """Draw inside it: `with figures.style(): …`.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("a figure needs matplotlib: pip install matplotlib") from error
    return matplotlib.rc_context(STYLE)


def panels(count: int = 1, *, height: float = 3.6) -> tuple[Any, Any]:
    """A figure and its axes, `count` of them, two in a row; inside :func:`style`.

    `height` is that of a row, in inches.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    across, rows = min(count, 2), -(-count // 2)
    figure = Figure(figsize=(1.2 + 4.3 * across, height * rows), layout=ConstrainedLayoutEngine(h_pad=0.04 * rows))
    axes = figure.subplots(rows, across, squeeze=False).ravel()
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def name_curve(axes: Any, x: float, y: float, text: str, colour: str, *, up: float = 0) -> None:
    """The name of a curve, to the right of its last point, and `up` points above."""
    behind = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5}
    place = {"xytext": (6, up), "textcoords": "offset points", "va": "center", "annotation_clip": False}
    axes.annotate(text, (x, y), color=colour, bbox=behind, **place)


def name_curves(axes: Any, ends: Sequence[tuple[float, float, str, str]], gap: float = 17) -> None:
    """:func:`name_curve` for all curves of `axes`, once they are drawn: names so near that they touch move up.

    Args:
        ends: x, y, name and colour of each.
        gap: points between the lines of two names.
    """
    axes.figure.draw_without_rendering()  # until then the axes have neither their place nor their limits
    points = 72 / axes.figure.dpi
    placed: list[tuple[float, float]] = []
    for x, y, text, colour in sorted(ends, key=lambda end: end[1]):
        across, up = (points * float(p) for p in axes.transData.transform((x, y)))
        beside = [other + gap for at, other in placed if abs(at - across) < 5 * gap]
        name_at = max([up, *beside])
        placed.append((across, name_at))
        name_curve(axes, x, y, text, colour, up=name_at - up)


def save(figure: Any, path: Path) -> None:
    """As SVG, with the same bytes for the same figure."""
    with style():
        figure.savefig(path, format="svg", metadata={"Date": None})
