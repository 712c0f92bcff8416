"""The `numba` backend: the selective scan and its adjoint on all cores of a CPU, in the precision of the problem.

Channels are dealt out in blocks (`layout`), and the cores share the blocks (`threads`), over which the recurrence runs
(`kernels`). Where there are far fewer blocks than cores, time is cut into chunks that run side by side: first each
chunk's decay and last state, then, from the right start, its outputs. A decay over a chunk may leave the format where
the recurrence does not (growth, and then a state of 0; or decay, and then growth): such a problem runs uncut.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Integer

from ssm_edu.selective import reference
from ssm_edu.selective.cpu.kernels import RULES, TILE, backward_kernel, carry_kernel, forward_kernel
from ssm_edu.selective.cpu.layout import Array, Blocks
from ssm_edu.selective.cpu.threads import cores, share_out
from ssm_edu.selective.problem import Problem
from ssm_edu.selective.reference import Gradients


class Turned(NamedTuple):
    """A problem as the kernels take it."""

    blocks: Blocks
    u: Array
    delta: Array
    z: Array
    a: Array
    B: tuple[Array, Array]  # variable and constant, one of them empty
    C: tuple[Array, Array]
    D: Array
    bias: Array
    fresh: Array
    chunks: Integer[np.ndarray, " border"]
    initial: Array
    options: tuple[bool, bool, Any]  # with softplus, with gate, and 2 for conjugate pairs
    rule: int

    @property
    def kind(self) -> tuple[int, np.dtype, np.dtype]:
        """Which kernels: the rule, and the precisions of u and of A."""
        return self.rule, self.u.dtype, self.a.dtype

    @property
    def states(self) -> tuple[int, ...]:
        """(batch, chunk, block, state, lanes)."""
        return (len(self.u), len(self.chunks) - 1, *self.a.shape)

    @property
    def places(self) -> tuple[np.ndarray, ...]:
        return self.blocks.span, self.blocks.groups, self.fresh, self.chunks

    @property
    def inputs(self) -> tuple[Array, ...]:
        return self.delta, self.z, self.a, *self.B, *self.C, self.D, self.bias

    def scan(self, u: Array, start: Array) -> tuple[Array, Array]:
        """y, and the state at the end of each chunk."""
        y, last = np.empty_like(u), np.empty_like(start)
        tasks = start.shape[0] * start.shape[1] * start.shape[2]
        share_out(forward_kernel(*self.kind), tasks, u, *self.inputs, *self.options, *self.places, start, y, last)
        return y, last


def as_compiled_for(x: Array, dtype: np.dtype) -> Array:
    """Contiguous and aligned, as the kernels take arrays."""
    x = np.ascontiguousarray(x, dtype)
    return x if x.flags.aligned else x.copy()


def turn(p: Problem, chunks: int | None) -> Turned:
    # a complex scan is scalar code, and complex128 costs it little
    real = np.dtype(np.float64) if p.is_complex else np.promote_types(p.u.dtype, np.float32)
    A = p.A.astype(np.complex128 if p.is_complex else real, copy=False)
    blocks = Blocks.of(p)

    def per_channel(parameter: Array | None) -> Array:
        return blocks.pack(np.zeros(p.dim, real) if parameter is None else parameter.astype(real, copy=False))

    def map_(M: Array) -> tuple[Array, Array]:
        wide = M.astype(A.dtype, copy=False)
        if M.ndim == 2:
            return np.empty((0, 0, 0, 0), A.dtype), blocks.pack(wide)
        return as_compiled_for(np.moveaxis(wide, 2, 3), A.dtype), np.empty((0, 0, 0), A.dtype)

    def input_(x: Array) -> Array:
        return as_compiled_for(x, real)

    initial = np.zeros((p.batch, p.dim, p.state)) if p.initial_state is None else p.initial_state
    u = input_(p.u)
    return Turned(
        blocks=blocks,
        u=u,
        delta=input_(p.delta),
        z=u if p.z is None else input_(p.z),
        a=blocks.pack(A),
        B=map_(p.B),
        C=map_(p.C),
        D=per_channel(p.D),
        bias=per_channel(p.delta_bias),
        fresh=p.fresh,
        chunks=_chunks(p, len(blocks.span), chunks),
        initial=blocks.pack_states(initial.astype(A.dtype, copy=False)),
        options=(p.delta_softplus, p.z is not None, real.type(2 if p.is_complex else 1)),
        rule=RULES[p.discretization],
    )


def _chunks(p: Problem, blocks: int, chunks: int | None) -> Integer[np.ndarray, " border"]:
    """The borders of the chunks. In chunks, a scan takes three passes for one: it pays with eight cores a task."""
    tasks = p.batch * blocks
    if chunks is None:
        chunks = cores() // tasks if cores() >= 8 * tasks else 1
    step = max(TILE, -(-p.length // (chunks * TILE)) * TILE)
    return np.array([*range(0, p.length, step), p.length], np.int64)


def _unit(q: Turned) -> Any:
    """The power of 2 from which decays are computed, at half of the format's range: see :func:`_is_moderate`."""
    return q.u.dtype.type(2.0 ** (np.finfo(q.u.dtype).maxexp // 2))


@np.errstate(all="ignore")
def _is_moderate(q: Turned, states: Array) -> bool:
    """Whether the states at the borders of chunks are as good as those of the recurrence.

    A chunk's decay is the recurrence from h = 2^k. Where h = 2^k does not overflow, no product of decay and a state of
    at most 2^k does; where it underflows on the way, so does such a state. An infinite decay gives a state that is not
    finite.
    """
    # unpacked: what an unused lane holds depends on which thread had which block
    return bool((np.abs(q.blocks.unpack(states)) <= _unit(q)).all())


def _chain(first: Array, decay: Array, own: Array) -> Array:
    """Along the second axis, h ← decay·h + own from h = first; where decay is 0, not even inf or NaN passes."""
    chained = np.empty_like(own)
    chained[:, 0] = first
    for c in range(1, own.shape[1]):
        carried = np.where(decay[:, c - 1] == 0, 0, decay[:, c - 1] * chained[:, c - 1])
        chained[:, c] = carried + own[:, c - 1]
    return chained


@np.errstate(all="ignore")  # inf and NaN are the answer where the inputs say so
def _decays_and_starts(q: Turned) -> tuple[Array, Array]:
    """The product of Ā over each chunk, and the state before it."""
    if q.states[1] == 1:
        return np.empty(q.states, q.a.dtype), q.initial[:, None]
    _, decayed = q.scan(np.zeros_like(q.u), np.full(q.states, _unit(q), q.a.dtype))
    _, own = q.scan(q.u, np.zeros(q.states, q.a.dtype))
    decay = decayed / _unit(q)
    return decay, _chain(q.initial, decay, own)


def selective_scan(p: Problem, *, chunks: int | None = None) -> tuple[Array, Array]:
    """y and the last state; `chunks` cuts time into about that many parts (by default, as the cores ask for)."""
    if p.u.size == 0 or p.state == 0:
        return reference.selective_scan(p)
    q = turn(p, chunks)
    _, start = _decays_and_starts(q)
    if q.states[1] > 1 and not _is_moderate(q, start):
        return selective_scan(p, chunks=1)
    y, last = q.scan(q.u, start)
    return y, q.blocks.unpack(last[:, -1])


def selective_scan_backward(
    p: Problem, grad_y: Array, grad_last_state: Array | None = None, *, chunks: int | None = None
) -> Gradients:
    """The adjoint; B and C in the normal form of :class:`Problem`."""
    if p.u.size == 0 or p.state == 0:
        return reference.selective_scan_backward(p, grad_y, grad_last_state)
    q = turn(p, chunks)
    blocks, gradient = q.blocks, as_compiled_for(grad_y, q.u.dtype)
    decay, start = _decays_and_starts(q)
    arriving = _arriving(q, gradient, decay, grad_last_state)
    if q.states[1] > 1 and not (_is_moderate(q, start) and _is_moderate(q, arriving)):
        return selective_scan_backward(p, grad_y, grad_last_state, chunks=1)

    teams = blocks.teams(p.batch)
    du, ddelta, dz = np.empty_like(q.u), np.empty_like(q.u), np.empty_like(q.u if p.z is not None else q.u[:0])
    da, leaving = np.empty_like(start), np.empty_like(start)
    dD, dbias = (np.empty((*q.states[:3], blocks.lanes), q.u.dtype) for _ in range(2))
    summed = (p.batch, 1, len(teams) - 1, p.length, p.state)
    dB, dC = (np.empty(summed if varies else q.states, q.a.dtype) for varies in (p.variable_B, p.variable_C))
    share_out(
        backward_kernel(*q.kind), p.batch * (len(teams) - 1) * q.states[1],
        q.u, *q.inputs, *q.options, *q.places, teams, start, arriving, gradient,
        du, ddelta, dz, da, dB, dC, dD, dbias, leaving,
    )  # fmt: skip
    return Gradients(
        u=du,
        delta=ddelta,
        A=blocks.unpack(da.sum(axis=(0, 1))),
        B=_gather(dB, p.B, q, teams, 0),
        C=_gather(dC, p.C, q, teams, 1),
        D=None if p.D is None else blocks.unpack(dD.sum(axis=(0, 1))[:, None])[..., 0],
        z=None if p.z is None else dz,
        delta_bias=None if p.delta_bias is None else blocks.unpack(dbias.sum(axis=(0, 1))[:, None])[..., 0],
        initial_state=None if p.initial_state is None else blocks.unpack(leaving[:, 0]),
    )


@np.errstate(all="ignore")
def _arriving(q: Turned, grad_y: Array, decay: Array, grad_last_state: Array | None) -> Array:
    """∂ℓ/∂ the state after each chunk, from what comes after it."""
    at_end = np.zeros_like(q.initial)
    if grad_last_state is not None:
        at_end = q.blocks.pack_states(grad_last_state.astype(q.a.dtype, copy=False))
    if q.states[1] == 1:
        return at_end[:, None]
    own = np.empty(q.states, q.a.dtype)
    share_out(
        carry_kernel(*q.kind), q.states[0] * q.states[1] * q.states[2],
        q.delta, q.z, q.a, *q.C, q.bias, *q.options, *q.places, grad_y, own,
    )  # fmt: skip
    return _chain(at_end, np.conj(decay[:, ::-1]), own[:, ::-1])[:, ::-1].copy()


def _gather(dM: Array, M: Array, q: Turned, teams: np.ndarray, which: int) -> Array:
    """The gradient of a map in its own shape: the chunks' or the teams' shares, added in order."""
    if np.isrealobj(M):
        dM = dM.real
    if M.ndim == 2:
        return q.blocks.unpack(dM.sum(axis=(0, 1)))
    group = q.blocks.groups[teams[:-1], which]
    first = np.flatnonzero(np.diff(group, prepend=-1))
    return np.moveaxis(np.add.reduceat(dM[:, 0], first, axis=1), 3, 2)
