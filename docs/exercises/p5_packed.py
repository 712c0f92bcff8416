"""Puzzle 5: several sequences in one row.

To fill a GPU, short sequences are packed one behind the other. seq_idx tells
which one a step belongs to. No state may flow from one sequence into the next,
and still it should be a single scan. Prepare its a and b.
"""

import numpy as np
from puzzle import Wrong, differs, filled, run, shown

from ssm_edu import scan


def packed(a: np.ndarray, b: np.ndarray, seq_idx: np.ndarray):
    """The a and b whose plain scan is that of the packed sequences."""
    return ..., ...


def check(packed=packed):
    rng = np.random.default_rng(0)
    seq_idx = np.array([0, 0, 0, 1, 2, 2, 2, 2, 0])
    given = rng.uniform(0.5, 1, seq_idx.size), rng.standard_normal(seq_idx.size)
    a, b = given[0].copy(), given[1].copy()
    prepared = packed(a, b, seq_idx)
    filled("packed", *prepared)
    if differs(a, given[0], 0) or differs(b, given[1], 0):
        raise Wrong("packed wrote to its inputs: the caller still needs them. Work on a copy.")
    states = scan.blelloch(*prepared)
    for start, stop in ((0, 3), (3, 4), (4, 8), (8, 9)):
        alone = scan.sequential(a[start:stop], b[start:stop])
        if differs(states[start:stop], alone, 1e-12):
            raise Wrong(
                f"the sequence of steps {start} to {stop - 1} has the states {shown(states[start:stop])}; alone it has "
                f"{shown(alone)}. Which number of a step says how much of the state before it stays? It must change at "
                "a sequence's first step, wherever seq_idx differs from the step before."
            )


if __name__ == "__main__":
    run(check)
