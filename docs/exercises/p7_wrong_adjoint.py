"""Puzzle 7: a wrong gradient.

A model with this adjoint trains, only worse than it should. One of its lines
is wrong. Find and mend it.
"""

import numpy as np
from puzzle import Wrong, differs, run, shown


def forward(u, delta, a, b, c):
    """y_t = c_t·h_t with h_t = exp(delta_t·a)·h_{t-1} + delta_t·b_t·u_t.

    The number a is the same for all t; the others are arrays over time.
    """
    h, y = 0.0, []
    for t in range(len(u)):
        h = np.exp(delta[t] * a) * h + delta[t] * b[t] * u[t]
        y.append(c[t] * h)
    return np.array(y)


def adjoint(grad_y, u, delta, a, b, c):
    """The gradient of Σ grad_y·y by each of u, delta, a, b and c."""
    length = len(u)
    h = np.zeros(length + 1)  # h[t + 1] is the state after step t
    for t in range(length):
        h[t + 1] = np.exp(delta[t] * a) * h[t] + delta[t] * b[t] * u[t]
    grads = {name: np.zeros(length) for name in ("u", "delta", "b", "c")}
    grads["a"] = 0.0
    g = 0.0
    for t in reversed(range(length)):
        g = g + grad_y[t] * c[t]  # by the state after step t
        decay = np.exp(delta[t] * a)
        grads["c"][t] = grad_y[t] * h[t + 1]
        grads["u"][t] = g * delta[t] * b[t]
        grads["b"][t] = g * delta[t] * u[t]
        grads["delta"][t] = g * b[t] * u[t]
        grads["a"] += g * delta[t] * decay * h[t]
        g = g * decay  # by the state before step t
    return grads


def complex_step(grad_y, inputs, name):
    """The gradient by one input, exact but for rounding: nudge it by i·1e-30."""
    value = np.asarray(inputs[name], complex)
    gradient = np.zeros(value.shape)
    for at in np.ndindex(value.shape):
        nudged = value.copy()
        nudged[at] += 1e-30j
        gradient[at] = (grad_y @ forward(**inputs | {name: nudged}).imag) / 1e-30
    return gradient


def check(adjoint=adjoint):
    rng = np.random.default_rng(0)
    inputs = {name: rng.standard_normal(5) for name in ("u", "b", "c")}
    inputs |= {"delta": rng.uniform(0.1, 1, 5), "a": -0.8}
    grad_y = rng.standard_normal(5)
    found = adjoint(grad_y, **inputs)
    expected = {name: complex_step(grad_y, inputs, name) for name in found}
    wrong = [name for name in found if differs(found[name], expected[name], 1e-12)]
    if wrong:
        right = ", ".join(name for name in found if name not in wrong) or "none"
        raise Wrong(
            f"the gradient of {wrong[0]} is {shown(found[wrong[0]])}; the complex step says "
            f"{shown(expected[wrong[0]])}. Right are: {right}. In how many places of h_t does {wrong[0]} stand?"
        )


if __name__ == "__main__":
    run(check)
