"""The oracle: the selective scan and its adjoint as the equations say them, in double precision.

With z = Δ A, Ā = α(z), B̄ = Δ p(z) B and the rules α, p of :data:`ssm_edu.discretize.METHODS`:

    h_t = Ā_t h_{t−1} + B̄_t u_t                    y_t = (Σ_n C_t h_t + D u_t) · silu(z_t)
    g_t = C_t* ē_t + Ā_{t+1}* g_{t+1}              ē_t = ȳ_t · silu(z_t)

g is ∂ℓ/∂h, x* the conjugate, and for a complex A every Σ C h is 2 Re Σ C h. Gradients by complex numbers are
∂ℓ/∂Re + i ∂ℓ/∂Im, PyTorch's convention. Claims ADJ-1 to ADJ-8. Source: Mamba, eq. 2 and Algorithm 2.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Inexact

from ssm_edu.discretize import METHODS
from ssm_edu.selective.problem import Problem

Array = Inexact[np.ndarray, "..."]
Real = Float[np.ndarray, "..."]


class Gradients(NamedTuple):
    """∂ℓ/∂ each input, in that input's shape; None for an input that was not given."""

    u: Array
    delta: Array
    A: Array
    B: Array
    C: Array
    D: Array | None
    z: Array | None
    delta_bias: Array | None
    initial_state: Array | None


def sigmoid(x: Real) -> Real:
    """σ(x) = 1/(1 + e⁻ˣ), to full relative accuracy in both tails."""
    decay = np.exp(-np.abs(x))
    return np.where(x < 0, decay, 1.0) / (1 + decay)


def silu(x: Real) -> Real:
    return x * sigmoid(x)


def dsilu(x: Real) -> Real:
    return sigmoid(x) * (1 + x * sigmoid(-x))


def step_size(
    delta: Float[np.ndarray, "batch dim ..."], delta_bias: Float[np.ndarray, " dim"] | None, delta_softplus: bool
) -> Float[np.ndarray, "batch dim ..."]:
    """Δ = softplus(delta + bias), log(1 + eˣ) without overflow; each of the two only where asked for."""
    if delta_bias is not None:
        delta = delta + delta_bias.reshape(-1, *[1] * (delta.ndim - 2))
    return np.logaddexp(0, delta) if delta_softplus else delta


def update(
    h: Inexact[np.ndarray, "batch dim state"],
    fresh: Bool[np.ndarray, " batch"],
    delta_t: Float[np.ndarray, "batch dim"],
    u_t: Float[np.ndarray, "batch dim"],
    A: Inexact[np.ndarray, "dim state"],
    B_t: Inexact[np.ndarray, "#batch dim state"],
    discretization: str,
) -> Inexact[np.ndarray, "batch dim state"]:
    """h_t = Ā_t h_{t−1} + Δ_t p(Δ_t A) B_t u_t; where `fresh`, the first term is dropped."""
    method, delta = METHODS[discretization], delta_t[..., None]
    carried = np.where(fresh[:, None, None], 0, method.A_bar(delta, A) * h)
    return carried + method.beta(delta, A) * B_t * u_t[..., None]


def readout(
    h: Inexact[np.ndarray, "batch dim state"],
    C_t: Inexact[np.ndarray, "#batch dim state"],
    D: Float[np.ndarray, " dim"] | None,
    u_t: Float[np.ndarray, "batch dim"],
) -> Float[np.ndarray, "batch dim"]:
    """Σ_n C_t h_t + D u_t, for a complex state 2 Re Σ_n C_t h_t + D u_t."""
    s = multiplicity(h) * (C_t * h).sum(axis=-1).real
    return s if D is None else s + D * u_t


def multiplicity(h: Array) -> int:
    """A complex state stands for a conjugate pair (claim ADJ-6)."""
    return 2 if np.iscomplexobj(h) else 1


@np.errstate(all="ignore")  # inf and NaN are the answer where the inputs say so
def selective_scan(
    problem: Problem,
) -> tuple[Float[np.ndarray, "batch dim length"], Inexact[np.ndarray, "batch dim state"]]:
    """y and the last state, float64 or complex128 whatever the input's dtype."""
    p = widened(problem)
    delta = step_size(p.delta, p.delta_bias, p.delta_softplus)
    h, fresh = _first_state(p), p.fresh
    y = np.empty(p.u.shape)
    for t in range(p.length):
        h = update(h, fresh[:, t], delta[..., t], p.u[..., t], p.A, map_at(p.B, t, p.dim), p.discretization)
        y[..., t] = readout(h, map_at(p.C, t, p.dim), p.D, p.u[..., t])
    return (y if p.z is None else y * silu(p.z)), h


@np.errstate(all="ignore")
def selective_scan_backward(
    problem: Problem,
    grad_y: Float[np.ndarray, "batch dim length"],
    grad_last_state: Inexact[np.ndarray, "batch dim state"] | None = None,
) -> Gradients:
    """The adjoint, in float64 or complex128; B and C in the normal form of :class:`Problem`.

    Keeps all states, O(batch · dim · state · length) memory, where those at chunk borders would do (claims ADJ-9
    and ADJ-10). Ā h_{t−1} is a product, never h_t − B̄u (claims ADJ-11 and ADJ-12).
    """
    p = widened(problem)
    method = METHODS[p.discretization]
    delta = step_size(p.delta, p.delta_bias, p.delta_softplus)
    fresh = p.fresh

    states = [_first_state(p)]
    s = np.empty(p.u.shape)
    for t in range(p.length):
        B_t, C_t = map_at(p.B, t, p.dim), map_at(p.C, t, p.dim)
        h = update(states[t], fresh[:, t], delta[..., t], p.u[..., t], p.A, B_t, p.discretization)
        s[..., t] = readout(h, C_t, p.D, p.u[..., t])
        states.append(h)

    grad_y = grad_y.astype(np.float64)
    grad_s = grad_y if p.z is None else grad_y * silu(p.z)
    dz = None if p.z is None else grad_y * s * dsilu(p.z)
    dD = None if p.D is None else (grad_s * p.u).sum(axis=(0, 2))
    du = np.zeros(p.u.shape) if p.D is None else grad_s * p.D[:, None]
    ddelta = np.empty(p.u.shape)
    dA, dB, dC = np.zeros_like(p.A), np.zeros_like(p.B), np.zeros_like(p.C)

    carried = np.zeros_like(states[0]) if grad_last_state is None else grad_last_state.astype(states[0].dtype)
    for t in reversed(range(p.length)):
        h, h_before, e = states[t + 1], states[t], multiplicity(states[0]) * grad_s[..., t, None]
        B_t, C_t = map_at(p.B, t, p.dim), map_at(p.C, t, p.dim)
        u_t, delta_t = p.u[..., t, None], delta[..., t, None]
        z = delta_t * p.A
        dalpha, weight = method.dalpha(z), method.beta(delta_t, p.A)

        g = np.conj(C_t) * e + carried
        add_to_map(dC, t, np.conj(h) * e)
        add_to_map(dB, t, g * np.conj(weight) * u_t)
        du[..., t] += (g * np.conj(weight * B_t)).sum(axis=-1).real

        grad_A_bar = np.where(fresh[:, t, None, None], 0, g * np.conj(h_before))
        grad_weight = g * np.conj(B_t) * u_t
        ddelta[..., t] = (np.conj(p.A * dalpha) * grad_A_bar + np.conj(method.dzp(z)) * grad_weight).sum(axis=-1).real
        dA += (np.conj(delta_t * dalpha) * grad_A_bar + np.conj(delta_t**2 * method.dp(z)) * grad_weight).sum(axis=0)

        carried = np.where(fresh[:, t, None, None], 0, np.conj(method.alpha(z)) * g)

    if p.delta_softplus:
        ddelta = ddelta * sigmoid(step_size(p.delta, p.delta_bias, False))
    return Gradients(
        u=du,
        delta=ddelta,
        A=dA,
        B=dB,
        C=dC,
        D=dD,
        z=dz,
        delta_bias=None if p.delta_bias is None else ddelta.sum(axis=(0, 2)),
        initial_state=None if p.initial_state is None else carried,
    )


def map_at(M: Array, t: int, dim: int) -> Inexact[np.ndarray, "_ dim state"]:
    """B_t or C_t for every channel: (1, dim, state) from a constant map, (batch, dim, state) from a variable one."""
    return M[None] if M.ndim == 2 else np.repeat(M[..., t], dim // M.shape[1], axis=1)


def add_to_map(dM: Array, t: int, gradient: Inexact[np.ndarray, "batch dim state"]) -> None:
    """Add a gradient by B_t or C_t of every channel: summed over the batch, or over the channels of each group.

    A real map beside a complex state takes the real part.
    """
    if not np.iscomplexobj(dM):
        gradient = gradient.real
    if dM.ndim == 2:
        dM += gradient.sum(axis=0)
    else:
        batch, dim, state = gradient.shape
        group = dM.shape[1]
        dM[..., t] += gradient.reshape(batch, group, dim // group, state).sum(axis=2)


def widened(problem: Problem) -> Problem:
    """The problem with every floating array as float64 and every complex one as complex128."""
    wide: dict[str, Any] = {
        name: value.astype(np.promote_types(value.dtype, np.float64))
        for name, value in vars(problem).items()
        if isinstance(value, np.ndarray) and name != "seq_idx"
    }
    return replace(problem, **wide)


def _first_state(p: Problem) -> Inexact[np.ndarray, "batch dim state"]:
    return np.zeros((p.batch, p.dim, p.state), p.A.dtype) if p.initial_state is None else p.initial_state
