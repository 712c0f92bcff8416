"""The selective scan by chunks: all times of a chunk at once, one state from each chunk to the next.

A step is the map h ↦ Ā h + b with b = B̄u, and a run of steps is one such map again (SCAN-1). A is constant in time,
so under Ā = exp(ΔA) a run decays by exp(A ΣΔ): it is kept as (ΣΔ, b), whose ΣΔ all states share and which no decay
can underflow (SCAN-15, SCAN-17). Nothing is ever divided by a decay (SCAN-19). Under the bilinear rule a run is kept
as (ΠĀ, b). Beside either stands `keep`, false where a new sequence begins anywhere in the run. A term of a state is
added to log₂ chunk times in its own chunk and once in each one after it.

The backward pass is the same scan in reverse, over states that each chunk computes again from the one at its left
border (ADJ-1, ADJ-9): O(batch · dim · (length + state · (chunk + length/chunk))) memory.

All arithmetic is in the precision of the problem, float32 or float64. As in any parallel scan, growth (ΔA > 0) that
overflows over a whole run shows as NaN where the loop may still be finite.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Inexact

from ssm_edu.arrays import positive_integer
from ssm_edu.discretize import METHODS
from ssm_edu.scan import Elements, hillis_steele_rounds, prefixes
from ssm_edu.selective.problem import Problem
from ssm_edu.selective.reference import Gradients, dsilu, multiplicity, silu, step_size

States = Inexact[np.ndarray, "batch dim state time"]
Border = Inexact[np.ndarray, "batch dim state"]
Spectrum = Inexact[np.ndarray, "dim state"]
Step = Float[np.ndarray, "batch dim 1 time"]


class Chunk(NamedTuple):
    """A window of time, in the problem's precision, on the axes (batch, dim, state, time)."""

    u: Step
    delta: Step
    B: Inexact[np.ndarray, "#batch dim state #time"]
    C: Inexact[np.ndarray, "#batch dim state #time"]
    z: Step | None
    keep: Bool[np.ndarray, "batch 1 1 time"]


def cut(p: Problem, window: slice) -> Chunk:
    def in_time(x: np.ndarray) -> np.ndarray:
        return x[:, :, None, window].astype(p.A.real.dtype)

    def per_channel(M: np.ndarray) -> np.ndarray:
        varies = M.ndim == 4
        channels = np.repeat(M[..., window], p.dim // M.shape[1], axis=1) if varies else M[None, ..., None]
        return channels.astype(p.A.dtype)

    return Chunk(
        u=in_time(p.u),
        delta=step_size(in_time(p.delta), p.delta_bias, p.delta_softplus),
        B=per_channel(p.B),
        C=per_channel(p.C),
        z=None if p.z is None else in_time(p.z),
        keep=~p.fresh[:, None, None, window],
    )


def scan(
    p: Problem, A: Spectrum, keep: Bool[np.ndarray, "batch 1 1 time"], delta: Step, b: States, start: Border
) -> States:
    """All h_t = Ā_t h_{t−1} + b_t from h_0 = start: the runs from the first step on (SCAN-11), carried out on h_0."""
    bilinear = p.discretization == "bilinear"

    def decay(x: np.ndarray) -> np.ndarray:
        return x if bilinear else np.exp(A[..., None] * x)

    def combine(second: Elements, first: Elements) -> Elements:
        (keep2, x2, b2), (keep1, x1, b1) = second, first
        return keep2 & keep1, x2 * x1 if bilinear else x2 + x1, np.where(keep2, decay(x2) * b1, 0) + b2

    x = METHODS["bilinear"].A_bar(delta, A[..., None]) if bilinear else delta
    keep, x, b = prefixes(hillis_steele_rounds(b.shape[-1]), (keep, x, b), combine)
    return np.where(keep, decay(x) * start[..., None], 0) + b


def states(p: Problem, c: Chunk, before: Border) -> States:
    """h_t = Ā_t h_{t−1} + B̄_t u_t over a chunk, from the state before it."""
    B_bar = METHODS[p.discretization].beta(c.delta, p.A[..., None]) * c.B
    return scan(p, p.A, c.keep, c.delta, B_bar * c.u, before)


def adjoint_states(p: Problem, c: Chunk, e: Step, carried: Border) -> States:
    """g_t = C_t* e_t + Ā*_{t+1} g_{t+1} over a chunk; at its last step that second term is `carried`."""
    # In reverse, g_t decays by the Δ of the step after it, and the first one by nothing: Δ = 0.
    delta, keep = np.zeros_like(c.delta), np.ones_like(c.keep)
    delta[..., 1:], keep[..., 1:] = c.delta[..., :0:-1], c.keep[..., :0:-1]
    return scan(p, np.conj(p.A), keep, delta, (np.conj(c.C) * e)[..., ::-1], carried)[..., ::-1]


def readout(p: Problem, c: Chunk, h: States) -> Step:
    """Σ_n C_t h_t + D u_t, for a complex state 2 Re Σ_n C_t h_t + D u_t."""
    s = multiplicity(h) * (c.C * h).sum(axis=2, keepdims=True).real
    return s if p.D is None else s + p.D[:, None, None] * c.u


def windows(length: int, chunk: int) -> list[slice]:
    """Windows of `chunk` steps, the last one what is left."""
    chunk = positive_integer("chunk", chunk)
    return [slice(start, stop) for start, stop in pairwise([*range(0, length, chunk), length])]


def first_border(p: Problem) -> Border:
    return np.zeros((p.batch, p.dim, p.state), p.A.dtype) if p.initial_state is None else p.initial_state


@np.errstate(all="ignore")  # inf and NaN are the answer where the inputs say so
def selective_scan(problem: Problem, chunk: int = 64) -> tuple[Float[np.ndarray, "batch dim length"], Border]:
    """y and the last state, in the problem's precision.

    Raises:
        TypeError, ValueError: chunk is no integer, or below 1.
    """
    p, border = problem, first_border(problem)
    y = np.empty(p.u.shape, p.A.real.dtype)
    for window in windows(p.length, chunk):
        c = cut(p, window)
        h = states(p, c, border)
        s = readout(p, c, h)
        y[..., window] = (s if c.z is None else s * silu(c.z))[:, :, 0]
        border = h[..., -1].copy()
    return y, border


@np.errstate(all="ignore")
def selective_scan_backward(
    problem: Problem,
    grad_y: Float[np.ndarray, "batch dim length"],
    grad_last_state: Border | None = None,
    chunk: int = 64,
) -> Gradients:
    """The adjoint, in the problem's precision; B and C in the normal form of :class:`Problem`. Raises as the scan."""
    p, A, rule = problem, problem.A[..., None], METHODS[problem.discretization]
    parts = windows(p.length, chunk)
    borders = [first_border(p)]
    for window in parts[:-1]:
        borders.append(states(p, cut(p, window), borders[-1])[..., -1].copy())  # a view would keep the chunk

    du, ddelta, dz = (np.empty(p.u.shape, p.A.real.dtype) for _ in range(3))
    dB, dC = (np.zeros(M.shape, np.promote_types(M.dtype, np.float32)) for M in (p.B, p.C))
    dA, dD = np.zeros_like(p.A), np.zeros(p.dim, p.A.real.dtype)
    carried = np.zeros_like(borders[0]) if grad_last_state is None else grad_last_state
    for window, border in reversed(list(zip(parts, borders, strict=False))):
        c = cut(p, window)
        h = states(p, c, border)
        h_before = np.concatenate([border[..., None], h[..., :-1]], axis=-1)

        e = grad_y[:, :, None, window].astype(du.dtype)
        if c.z is not None:
            dz[..., window] = (e * readout(p, c, h) * dsilu(c.z))[:, :, 0]
            e = e * silu(c.z)
        dD += (e * c.u).sum(axis=(0, 2, 3))

        twice_e = multiplicity(h) * e
        g = adjoint_states(p, c, twice_e, carried)
        carried = np.where(c.keep[..., 0], np.conj(rule.A_bar(c.delta[..., 0], p.A)) * g[..., 0], 0)

        grad_A_bar = np.where(c.keep, g * np.conj(h_before), 0)
        grad_B_bar = g * c.u
        grad_beta = grad_B_bar * np.conj(c.B)
        beta, by = rule.beta(c.delta, A), rule.partials(c.delta, A)
        du[..., window] = (g * np.conj(beta * c.B)).sum(axis=2).real
        du[..., window] += 0 if p.D is None else p.D[:, None] * e[:, :, 0]
        grad_delta = (np.conj(by.dA_bar_ddelta) * grad_A_bar + np.conj(by.dbeta_ddelta) * grad_beta).sum(axis=2).real
        if p.delta_softplus:
            grad_delta *= -np.expm1(-c.delta[:, :, 0])  # softplus′ is 1 − exp(−softplus), claim SEL-1
        ddelta[..., window] = grad_delta
        dA += (np.conj(by.dA_bar_da) * grad_A_bar + np.conj(by.dbeta_da) * grad_beta).sum(axis=(0, 3))
        add_to_map(dB, window, grad_B_bar * np.conj(beta))
        add_to_map(dC, window, twice_e * np.conj(h))

    return Gradients(
        *(du, ddelta, dA, dB, dC),
        D=None if p.D is None else dD,
        z=None if p.z is None else dz,
        delta_bias=None if p.delta_bias is None else ddelta.sum(axis=(0, 2)),
        initial_state=None if p.initial_state is None else carried,
    )


def add_to_map(dM: np.ndarray, window: slice, gradient: States) -> None:
    """Add a gradient by B_t or C_t of every channel: summed over batch and time, or over the channels of each group."""
    gradient = gradient if np.iscomplexobj(dM) else gradient.real
    if dM.ndim == 2:
        dM += gradient.sum(axis=(0, 3))
    else:
        batch, dim, state, time = gradient.shape
        dM[..., window] = gradient.reshape(batch, dM.shape[1], dim // dM.shape[1], state, time).sum(axis=2)
