"""Puzzle 6: backward is a scan, too.

The gradient of a loss by the state h_t is g_t = c_t + a_{t+1}·g_{t+1}: what
step t shows directly, and what later steps show of it. It runs from the last
step to the first. You have a scan that runs forward; make it run this one.
"""

import numpy as np
from puzzle import Wrong, differs, filled, run

from ssm_edu import scan


def reverse_scan(a: np.ndarray, c: np.ndarray) -> np.ndarray:
    """g, by one call of scan.blelloch(a, b): h_t = a_t·h_{t-1} + b_t, h_0 = 0."""
    return ...


def check(reverse_scan=reverse_scan):
    a, c = np.array([10.0, 0.5, 0.25, 2.0]), np.array([1.0, 10.0, 100.0, 1000.0])
    found = reverse_scan(a, c)
    filled("reverse_scan", found)
    if differs(found[-1:], c[-1:], 0):
        raise Wrong(f"the last g is {found[-1]}: nothing comes after it, so it must be c = {c[-1]}.")
    if differs(found[-2], c[-2] + a[-1] * c[-1], 1e-12):
        raise Wrong(
            f"the last g but one is {found[-2]}, and should be {c[-2]} + {a[-1]}·{c[-1]}: g_t takes the a of the step "
            "after it. The state flows from t to t + 1 through a_{t+1}."
        )
    rng = np.random.default_rng(0)
    for length in (1, 2, 7, 16):
        a, b, c = rng.uniform(0, 1, length), rng.standard_normal(length), rng.standard_normal(length)
        by_states, by_gradients = c @ scan.sequential(a, b), reverse_scan(a, c) @ b
        if differs(by_states, by_gradients, 1e-12):
            raise Wrong(
                f"length {length}: the loss is Σ c·h = {by_states:.6g}, and must also be Σ g·b = {by_gradients:.6g}."
            )


if __name__ == "__main__":
    run(check)
