"""Puzzle 1: zero-order hold by hand.

A state follows h' = a h + b x. The input x is held for a time delta. The state
after that time is A_bar h + B_bar x. Find the two factors.
"""

from puzzle import differs, filled, must, run

import ssm_edu


def zero_order_hold(a: float, b: float, delta: float) -> tuple[float, float]:
    """A_bar and B_bar. Mind a = 0: then nothing decays, it only adds up."""
    A_bar = ...
    B_bar = ...
    return A_bar, B_bar


def check(zero_order_hold=zero_order_hold):
    for a, b, delta in [(-1.0, 1.0, 0.5), (-3.0, 2.0, 1.0), (0.7, -1.5, 0.2), (0.0, 2.0, 0.25)]:
        case = f"a = {a}, b = {b}, delta = {delta}"
        try:
            A_bar, B_bar = zero_order_hold(a, b, delta)
        except ZeroDivisionError:
            must(False, f"{case}: division by zero. There h' = b x, so what does the state gain in a time delta?")
        filled("zero_order_hold", A_bar, B_bar)
        right_A, right_B = ssm_edu.discretize_diagonal(a, b, delta, method="zoh")
        # a difference e^x - 1 with |x| > 0.1 loses two digits of sixteen at most
        must(
            not differs(A_bar, right_A, 1e-12),
            f"{case}: A_bar is {A_bar:.6g}. With x = 0 the state decays from 1 to {right_A:.6g} in that time.",
        )
        must(
            a == 0 or differs(B_bar, delta * b, 1e-12),
            f"{case}: B_bar is delta·b, which is Mamba's rule. A state that decays while it is being written ends up "
            "with less: integrate e^(a s) b for s from 0 to delta.",
        )
        must(
            not differs(B_bar, right_B, 1e-12),
            f"{case}: B_bar is {B_bar:.6g}. From h = 0, x = 1 leads to the state {right_B:.6g}.",
        )


if __name__ == "__main__":
    run(check)
