"""Puzzle 3: two steps in one.

A step of the scan is the map h ↦ a·h + b, kept as the pair (a, b). Two steps,
one after the other, are again such a map. Its pair is all that a parallel scan
needs.
"""

import numpy as np
from puzzle import Wrong, differs, filled, must, run, shown

from ssm_edu import scan


def combine(second, first):
    """The pair that does what first = (a1, b1) does, then what second does."""
    return ..., ...


def check(combine=combine):
    half, plus = (0.5, 0.0), (1.0, 3.0)
    pair = combine(plus, half)
    filled("combine", *pair)
    h = 8.0
    must(
        pair[0] * h + pair[1] == 7.0,
        f"first halve, then add 3: from 8 to 4 to 7. Your pair {pair} leads to {pair[0] * h + pair[1]}.",
    )
    pair = combine(half, plus)
    must(
        pair[0] * h + pair[1] == 5.5,
        f"first add 3, then halve: from 8 to 11 to 5.5. Your pair {pair} leads to {pair[0] * h + pair[1]}. "
        "What was there before the second step shrinks with it, b of the first step too.",
    )
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 1, 13), rng.standard_normal(13)
    found = scan.prefixes(scan.blelloch_rounds(13), (a, b), combine)[1]
    if differs(found, scan.sequential(a, b), 1e-12):
        raise Wrong(f"a tree of your pairs gives the states {shown(found)}, step by step they are otherwise.")


if __name__ == "__main__":
    run(check)
