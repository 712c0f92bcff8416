import math


def zero_order_hold(a: float, b: float, delta: float) -> tuple[float, float]:
    A_bar = math.exp(delta * a)
    B_bar = b * (math.expm1(delta * a) / a if a else delta)
    return A_bar, B_bar
