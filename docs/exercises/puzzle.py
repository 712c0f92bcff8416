"""What the puzzles share: a check that says in words what is wrong, and a command line that prints it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


class Wrong(AssertionError):
    """A puzzle's answer is not right; the message says how it shows."""


def filled(name: str, *values: Any) -> None:
    """Refuse an answer that still has its gap in it."""
    if any(value is ... or value is None for value in values):
        raise Wrong(f"{name} still has a gap: put your own code in place of each `...`.")


def must(holds: Any, words: str) -> None:
    if not holds:
        raise Wrong(words)


def differs(found: Any, expected: Any, tolerance: float) -> bool:
    """Whether an answer is farther than `tolerance`, relative to its largest element, or has another shape."""
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape != expected.shape:
        return True
    size = np.abs(expected).max(initial=0)
    return not np.all(np.abs(found - expected) <= tolerance * size)  # not, so that NaN differs


def shown(values: Any) -> str:
    return np.array2string(np.asarray(values), precision=4, separator=", ", threshold=8)


def run(check: Callable[[], None]) -> None:
    """What `python puzzle.py` does: the verdict, and exit code 1 while it is wrong."""
    try:
        check()
    except Wrong as wrong:
        raise SystemExit(f"✗ {wrong}") from None
    print("✓ right")
