import numpy as np


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
        grads["delta"][t] = g * (a * decay * h[t] + b[t] * u[t])
        grads["a"] += g * delta[t] * decay * h[t]
        g = g * decay  # by the state before step t
    return grads
