import numpy as np


def per_channel(M, dim):
    """B or C of each channel, from that of its group of channels."""
    if M.ndim == 3:
        M = M[:, None]
    return np.repeat(M, dim // M.shape[1], axis=1)


def scan(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = np.logaddexp(delta, np.float32(0))
    B, C = per_channel(B, u.shape[1]), per_channel(C, u.shape[1])
    y, h = np.empty_like(u), np.float32(0)
    for t in range(u.shape[2]):
        decay = np.exp(delta[:, :, t, None] * A)
        h = decay * h + (delta * u)[:, :, t, None] * B[..., t]
        y[..., t] = (h * C[..., t]).sum(-1)
    if D is not None:
        y += D[:, None] * u
    return y if z is None else y * z / (1 + np.exp(-z))
