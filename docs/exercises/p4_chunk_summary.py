"""Puzzle 4: a chunk of time in two numbers.

In Mamba a step decays the state by exp(Δ·A), with the same A at all times. So
a whole chunk of steps is h ↦ exp(A·total)·h + b: its summary is (total, b).
Compute it without a loop, for steps of any size.
"""

import numpy as np
from puzzle import Wrong, differs, filled, must, run

from ssm_edu import scan


def summary(delta: np.ndarray, b: np.ndarray, A: float):
    """(total, b) of a chunk whose step t is h ↦ exp(A·delta[t])·h + b[t]."""
    total = ...
    b_chunk = ...
    return total, b_chunk


def check(summary=summary):
    rng = np.random.default_rng(0)
    b = rng.standard_normal(50)
    for largest, what in ((0.1, "small steps"), (100.0, "large steps")):
        delta = largest * rng.uniform(0, 1, 50)
        with np.errstate(all="ignore"):
            total, b_chunk = summary(delta, b, -1.0)
        filled("summary", total, b_chunk)
        must(
            not differs(total, delta.sum(), 1e-12),
            f"{what}: total is {total:.6g}. The exponents of a product of exponentials add up, here to "
            f"{delta.sum():.6g}.",
        )
        end = scan.sequential(np.exp(-delta), b)[-1]
        if not np.isfinite(b_chunk):
            raise Wrong(
                f"{what}: b is {b_chunk}. exp(A·ΣΔ) over a long time is 0 in floating point, and 0/0 is no number. "
                "Take the decay from step s to the end from the Δ after s alone, never as a quotient."
            )
        must(
            not differs(b_chunk, end, 1e-12),
            f"{what}: from h = 0 the chunk ends at {end:.6g}, and your b is {b_chunk:.6g}. What step s adds decays by "
            "exp(A·Δ) of every step after s, and not of s itself.",
        )


if __name__ == "__main__":
    run(check)
