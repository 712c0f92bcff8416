"""Matplotlib figures as inline SVG: lines and letters take the colour of the page's text, in either theme."""

from __future__ import annotations

import hashlib
import re
from html import escape
from io import StringIO
from typing import Any

# stands for the page's own colour until the SVG is written
INK = "#010203"
# at least 3:1 on white and on the dark theme's background
COLOURS = ("#2f7fc1", "#d9730d", "#2a9d5c", "#d1495b", "#8e6bbf")
BLUE, ORANGE, GREEN, RED, PURPLE = COLOURS


def style() -> None:
    """Make all later figures transparent, small and in these colours."""
    import matplotlib

    matplotlib.use("svg")
    ink = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "legend.labelcolor")
    matplotlib.rcParams.update(dict.fromkeys(ink, INK))
    matplotlib.rcParams.update(
        {
            "axes.prop_cycle": matplotlib.cycler(color=COLOURS),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlelocation": "left",
            "axes.titlesize": "medium",
            "figure.figsize": (5.6, 2.8),
            "figure.constrained_layout.use": True,
            "legend.frameon": False,
            "savefig.transparent": True,
            "svg.fonttype": "none",
        }
    )


def svg(figure: Any, alt: str) -> Any:
    """The figure as inline SVG for a notebook cell; `alt` says in words what it shows."""
    import matplotlib
    from IPython.display import HTML

    written = StringIO()
    with matplotlib.rc_context({"svg.hashsalt": hashlib.sha256(alt.encode()).hexdigest()}):
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    drawing = written.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(INK, "currentColor")
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    opening = f'<svg class="figure" role="img" aria-label="{escape(alt)}" '
    return HTML(drawing.replace("<svg ", opening, 1))


def paper(figure: Any, alt: str) -> Any:
    """A figure with colours of its own, on white in either theme; it scrolls where the page is narrower."""
    from IPython.display import HTML

    drawing = svg(figure, alt).data.replace('class="figure"', 'class="figure paper"')
    return HTML(f'<div class="scrolls" role="group" aria-label="{escape(alt)}" tabindex="0">{drawing}</div>')
