"""Draws selection.svg, the README's picture: a selective scan at work. Run it to draw it anew."""

from pathlib import Path

import numpy as np

import ssm_edu

LENGTH, STATES = 48, 8
SIGNALS = {5: 1.0, 21: -0.9, 36: 0.8}  # tokens worth keeping among noise
STEP, LEFT, WIDTH = 14, 96, 790
STYLE = """
  text { font: 14px system-ui, sans-serif; fill: #57606a }
  .axis { stroke: #57606a; stroke-opacity: 0.5 }
  .noise { fill: #8c959f }
  .delta { fill: #57606a }
  .plus { fill: #2f7fc1 }
  .minus { fill: #d9730d }
  @media (prefers-color-scheme: dark) {
    text { fill: #a8b1bb }
    .axis { stroke: #a8b1bb }
    .delta { fill: #a8b1bb }
  }"""


def scan():
    """u and Δ of shape (length,), and all states (length, state)."""
    u = 0.25 * np.random.default_rng(4).uniform(-1, 1, LENGTH)
    delta = np.full(LENGTH, 0.02)
    for t, value in SIGNALS.items():
        u[t], delta[t] = value, 2.0
    A = -np.geomspace(0.25, 4, STATES)[None]
    ones, h, states = np.ones((1, STATES)), np.zeros((1, 1, STATES)), []
    for t in range(LENGTH):
        _, h = ssm_edu.selective_step(h, u[None, [t]], delta[None, [t]], A, ones, ones, discretization="zoh")
        states.append(h[0, 0] * -A[0])  # by zero-order hold, a long step makes this the input
    return u, delta, np.array(states)


def rectangle(x, y, width, height, css, opacity=1.0):
    fade = "" if opacity == 1 else f' fill-opacity="{opacity:.2f}"'
    return f'<rect class="{css}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"{fade}/>'


def bars(values, base, height, css):
    for t, value in enumerate(values):
        size = max(abs(value) * height, 0.8)
        yield rectangle(LEFT + t * STEP + 2, base - size * (value > 0), STEP - 4, size, css(t))


def label(y, words, x=LEFT - 12, anchor="end"):
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{words}</text>'


def axis(y):
    return f'<line class="axis" x1="{LEFT}" x2="{LEFT + LENGTH * STEP}" y1="{y}" y2="{y}"/>'


def draw():
    u, delta, states = scan()
    parts = [
        label(54, "input u"),
        axis(50),
        *bars(u, 50, 36, lambda t: ("plus" if u[t] > 0 else "minus") if t in SIGNALS else "noise"),
        label(134, "step Δ"),
        axis(140),
        *bars(delta, 140, 18, lambda t: "delta"),
        label(215, "state h"),
    ]
    for t, row in enumerate(states):
        for n, value in enumerate(row):
            opacity = min(abs(value), 1)
            if opacity >= 0.01:
                css = "plus" if value > 0 else "minus"
                parts.append(rectangle(LEFT + t * STEP, 160 + n * 13, STEP, 12, css, opacity))
    parts.append(label(290, "time →", LEFT + LENGTH * STEP))
    body = "\n".join(parts)
    title = (
        "A selective scan. Noise comes with a small step and leaves the state as it is; "
        "a signal comes with a large step, and the state takes it on and keeps it until the next."
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} 300" width="{WIDTH}" role="img">\n'
        f"<title>{title}</title>\n<style>{STYLE}\n</style>\n{body}\n</svg>\n"
    )


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(draw(), "utf-8")
