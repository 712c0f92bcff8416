"""Puzzle 2: how far Mamba's rule is from zero-order hold.

Zero-order hold writes B_bar = (e^z - 1)/z · ΔB with z = Δ·a. Mamba's released
code writes ΔB. How many times as large is what Mamba writes? The answer
depends on z alone. Steps may be tiny: it must keep its digits there.
"""

import numpy as np
from puzzle import Wrong, differs, filled, run


def overshoot(z: np.ndarray) -> np.ndarray:
    """Mamba's B_bar over zero-order hold's, for each z = Δ·a ≤ 0."""
    return ...


def check(overshoot=overshoot):
    z = -np.array([16.0, 2.0, 1.0, 0.1, 1e-3, 1e-6, 1e-9, 1e-12])
    with np.errstate(all="ignore"):
        found = overshoot(z)
    filled("overshoot", found)
    right = z / np.expm1(z)
    if differs(found[:4], right[:4], 1e-9):
        slip = " You have its inverse." if not differs(1 / np.asarray(found[:4]), right[:4], 1e-9) else ""
        raise Wrong(f"at z = -16 it is {found[0]:.4g}: zero-order hold writes 1/16 of ΔB there.{slip}")
    for one, answer, expected in zip(z, found, right, strict=True):
        # np.expm1 and one division: a few roundings of 1.1e-16
        if differs(answer, expected, 1e-15):
            raise Wrong(
                f"at z = {one:.0e} it is {answer:.15g}, and should be {expected:.15g}: e^z - 1 takes two numbers that "
                "agree in nearly all digits from each other. NumPy has a function that does not."
            )
    with np.errstate(all="ignore"):
        at_zero = overshoot(np.zeros(1))
    if differs(at_zero, [1.0], 0):
        raise Wrong(f"at z = 0 it is {at_zero[0]}: without decay the two rules agree, so it must be 1.")


if __name__ == "__main__":
    run(check)
