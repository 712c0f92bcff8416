"""One step of the selective scan, for decoding: the state is all the memory of the past."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Inexact
from numpy.typing import ArrayLike

from ssm_edu.selective import reference
from ssm_edu.selective.problem import Reader, check_options


@np.errstate(all="ignore")  # inf and NaN are the answer where the inputs say so
def selective_step(
    h: ArrayLike,
    u_t: ArrayLike,
    delta_t: ArrayLike,
    A: ArrayLike,
    B_t: ArrayLike,
    C_t: ArrayLike,
    D: ArrayLike | None = None,
    z_t: ArrayLike | None = None,
    delta_bias: ArrayLike | None = None,
    delta_softplus: bool = False,
    *,
    discretization: str = "mamba",
) -> tuple[Float[np.ndarray, "batch dim"], Inexact[np.ndarray, "batch dim state"]]:
    """y_t and the new state h_t from the state h_{t−1}, which stays as it is.

    Args:
        h: (batch, dim, state), the state before the step.
        u_t: (batch, dim). delta_t and z_t likewise; delta_t is before bias and softplus.
        A: (dim, state), real or complex.
        B_t: (batch, state) or (batch, group, state); a constant map has one group for each channel. C_t likewise.
        D: (dim,). delta_bias likewise.
        delta_softplus: whether Δ = softplus(delta_t + delta_bias).
        discretization: `mamba`, `zoh` or `bilinear`.

    Returns:
        y_t (batch, dim) in u_t's dtype and h_t (batch, dim, state) in A's. Dtypes as in
        :mod:`ssm_edu.selective.problem`, B_t and C_t being maps that vary in time.

    Raises:
        TypeError, ValueError: as :func:`ssm_edu.selective_scan`.

    Source: Mamba, eq. 2a and 2b.
    """
    check_options(delta_softplus, discretization)
    reader = Reader()
    u = reader.read("u_t", u_t, "input", "batch dim")
    delta = reader.read("delta_t", delta_t, "input", "batch dim")
    spectrum = reader.read("A", A, "spectrum", "dim state")
    maps = ("batch state", "batch group state")
    B, C = (_per_channel(reader.read(name, M, "map", *maps), u.shape[1]) for name, M in (("B_t", B_t), ("C_t", C_t)))
    skip = reader.read_optional("D", D, "parameter", "dim")
    gate = reader.read_optional("z_t", z_t, "input", "batch dim")
    bias = reader.read_optional("delta_bias", delta_bias, "parameter", "dim")
    before = reader.read("h", h, "state", "batch dim state")

    wide_u = u.astype(np.float64)
    step = reference.step_size(delta.astype(np.float64), bias, delta_softplus)
    fresh = np.zeros(len(before), bool)
    after = reference.update(before, fresh, step, wide_u, spectrum, B, discretization)
    y = reference.readout(after, C, skip, wide_u)
    if gate is not None:
        y = y * reference.silu(gate.astype(np.float64))
    return y.astype(u.dtype), after.astype(before.dtype)


def _per_channel(M: np.ndarray, dim: int) -> np.ndarray:
    groups = M[:, None] if M.ndim == 2 else M
    return np.repeat(groups, dim // groups.shape[1], axis=1)
