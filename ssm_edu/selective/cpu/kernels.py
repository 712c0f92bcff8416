"""The recurrence and its adjoint in Numba: lanes are channels, time is sequential, states are the loop between.

A task is a block of neighbouring channels, its lanes, of one batch entry. Time goes by in tiles: u, Δ and z are turned
so that the lanes lie side by side, and then each of

    h[n, lane] = Ā(Δ[t, lane] · A[n, lane]) · h[n, lane] + B̄ u        s[t, lane] += C[t, n] · h[n, lane]

is a handful of vector instructions. Nothing of size batch · dim · state · length is stored: the adjoint keeps the
states at the borders of tiles and recomputes those inside a tile when it comes to it.

A call that takes an array, or a slice of one, costs Numba some ten nanoseconds of reference counts: there is none in
the loops over states. There, the numbers of a map at time t are first spread into a row, one for each lane.

| array | shape |
|---|---|
| u, delta, z, y | (batch, dim, length) |
| span | (block, 2), a block's first channel and the one after its last |
| a, D, bias | (block, state, lanes), (block, lanes), (block, lanes) |
| B, C | (batch, group, length, state), empty when constant |
| held_B, held_C | (block, state, lanes), the constant maps, empty when variable |
| groups | (block, 2), the groups of B and of C |
| fresh | (batch, length), where no state flows in |
| chunks | (chunk + 1,), where the chunks begin, and the length |
| start, last, arriving, leaving | (batch, chunk, block, state, lanes) |

Every kernel does the tasks from `first` to `last_task`, one for each (batch, block or team, chunk). Equations:
:mod:`ssm_edu.selective.reference`; a complex A goes through the same code. Claims ADJ-1 to ADJ-9.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from inspect import signature
from typing import Any, no_type_check

import numpy as np
from numba import from_dtype, njit, types
from numba.core.registry import cpu_target
from numba.extending import register_jitable

from ssm_edu.kernel_cache import compiled, digest_of_files
from ssm_edu.selective.cpu import vector_math
from ssm_edu.selective.cpu.vector_math import FLAGS, conj, dphi1, exp, exp_phi1, sigmoid, softplus

TILE = 64
RULES = {"mamba": 0, "zoh": 1, "bilinear": 2}
MAMBA, ZOH, BILINEAR = RULES.values()
SOURCES = digest_of_files(__file__, vector_math.__file__)


def argument_types(real: np.dtype, number: np.dtype) -> dict[str, Any]:
    """The type of each argument, by its name, the same in all kernels; `real` is u's dtype, `number` that of A."""

    def read(dtype: Any, axes: int, *names: str) -> dict[str, Any]:
        return dict.fromkeys(names, types.Array(from_dtype(dtype), axes, "C", readonly=True))

    def written(dtype: Any, axes: int, *names: str) -> dict[str, Any]:
        return dict.fromkeys(names, types.Array(from_dtype(dtype), axes, "C"))

    return {
        **dict.fromkeys(("first", "last_task"), types.int64),
        **dict.fromkeys(("with_softplus", "with_gate"), types.boolean),
        "pairs": from_dtype(real),
        **read(real, 3, "u", "delta", "z", "grad_y"),
        **read(real, 2, "D", "bias"),
        **read(number, 3, "a", "held_B", "held_C"),
        **read(number, 4, "B", "C"),
        **read(number, 5, "start", "arriving"),
        **read(np.dtype(np.int64), 1, "chunks", "teams"),
        **read(np.dtype(np.int64), 2, "span", "groups"),
        **read(np.dtype(np.bool_), 2, "fresh"),
        **written(real, 3, "y", "du", "ddelta", "dz"),
        **written(real, 4, "dD", "dbias"),
        **written(number, 5, "last", "leaving", "da", "dB", "dC"),
    }


@no_type_check
def kernel(real: np.dtype, number: np.dtype) -> Callable[..., Any]:
    """Compiles a function at once, for one precision."""

    def decorate(function: Any) -> Any:
        known = argument_types(real, number)
        return compiled(
            njit,
            function,
            tuple(known[name] for name in signature(function).parameters),
            SOURCES,
            cpu_target.target_context.codegen().magic_tuple(),  # the instructions of this processor
            fastmath=FLAGS,
            error_model="numpy",
            nogil=True,
        )

    return decorate


@no_type_check
@register_jitable
def alpha_and_weight(rule: Any, z: Any, one: Any, half: Any) -> Any:
    """α(z) and p(z), where Ā = α(Δa) and B̄ = Δ p(Δa) B."""
    if rule == MAMBA:
        return exp(z), one
    if rule == ZOH:
        return exp_phi1(z)
    p = one / (one - half * z)
    return (one + half * z) * p, p


@no_type_check
@register_jitable
def slopes(rule: Any, z: Any, alpha: Any, p: Any, one: Any, half: Any) -> Any:
    """α′(z), p′(z) and (z p)′ (claims ADJ-4 and ADJ-7)."""
    if rule == MAMBA:
        return alpha, one - one, one
    if rule == ZOH:
        return alpha, dphi1(z, alpha, p), alpha
    return p * p, half * p * p, p * p


@no_type_check
@register_jitable
def load(source: Any, b: Any, span: Any, t0: Any, t1: Any, tile: Any) -> None:
    """tile[t, lane] = source[b, span[0] + lane, t0 + t]."""
    for lane in range(span[1] - span[0]):
        for t in range(t1 - t0):
            tile[t, lane] = source[b, span[0] + lane, t0 + t]


@no_type_check
@register_jitable
def store(tile: Any, target: Any, b: Any, span: Any, t0: Any, t1: Any) -> None:
    """target[b, span[0] + lane, t0 + t] = tile[t, lane]."""
    for lane in range(span[1] - span[0]):
        for t in range(t1 - t0):
            target[b, span[0] + lane, t0 + t] = tile[t, lane]


@no_type_check
@register_jitable
def load_steps(
    delta: Any, bias: Any, with_softplus: Any, b: Any, span: Any, t0: Any, t1: Any, raw: Any, dt: Any
) -> None:
    """raw = delta + bias, and Δ = softplus(raw) or raw."""
    load(delta, b, span, t0, t1, raw)
    for t in range(t1 - t0):
        for lane in range(raw.shape[1]):
            raw[t, lane] += bias[lane]
            dt[t, lane] = softplus(raw[t, lane]) if with_softplus else raw[t, lane]


@no_type_check
@cache
def forward_kernel(rule: int, real: np.dtype, number: np.dtype) -> Any:
    """`scan` by one rule and in one precision: of u, and of A."""

    @kernel(real, number)
    def scan(
        first: Any, last_task: Any, u: Any, delta: Any, z: Any, a: Any, B: Any, held_B: Any, C: Any, held_C: Any,
        D: Any, bias: Any, with_softplus: Any, with_gate: Any, pairs: Any, span: Any, groups: Any, fresh: Any,
        chunks: Any, start: Any,
        y: Any, last: Any,
    ) -> None:  # fmt: skip
        """y = (pairs·Re Σ C h + D u)·silu(z), and the state at the end of each chunk."""
        n_blocks, n_chunks, state, lanes = len(a), len(chunks) - 1, a.shape[1], a.shape[2]
        one, half, zero = a.dtype.type(1), a.dtype.type(0.5), a.dtype.type(0)
        B_row, C_row = np.zeros(lanes, a.dtype), np.zeros(lanes, a.dtype)
        constant_B, constant_C = held_B.size > 0, held_C.size > 0
        raw, dt = np.zeros((TILE, lanes), u.dtype), np.zeros((TILE, lanes), u.dtype)
        x, gate, s = (
            np.zeros((TILE, lanes), u.dtype),
            np.zeros((TILE, lanes), u.dtype),
            np.zeros((TILE, lanes), u.dtype),
        )
        for task in range(first, last_task):
            b, block, chunk = task // (n_blocks * n_chunks), task // n_chunks % n_blocks, task % n_chunks
            group_B, group_C = groups[block, 0], groups[block, 1]
            h = start[b, chunk, block].copy()
            for t0 in range(chunks[chunk], chunks[chunk + 1], TILE):
                t1 = min(t0 + TILE, chunks[chunk + 1])
                load_steps(delta, bias[block], with_softplus, b, span[block], t0, t1, raw, dt)
                load(u, b, span[block], t0, t1, x)
                for t in range(t0, t1):
                    i, is_fresh = t - t0, fresh[b, t]
                    for lane in range(lanes):
                        s[i, lane] = 0
                    if not (constant_B or constant_C):
                        # Mamba's own case again, without the rows: a fifth of the time
                        for n in range(state):
                            for lane in range(lanes):
                                step = dt[i, lane]
                                alpha, p = alpha_and_weight(rule, step * a[block, n, lane], one, half)
                                alpha = zero if is_fresh else alpha
                                before = zero if is_fresh else h[n, lane]
                                after = alpha * before + step * x[i, lane] * (p * B[b, group_B, t, n])
                                h[n, lane] = after
                                s[i, lane] += (C[b, group_C, t, n] * after).real
                        continue
                    for n in range(state):
                        if constant_B:
                            for lane in range(lanes):
                                B_row[lane] = held_B[block, n, lane]
                        else:
                            for lane in range(lanes):
                                B_row[lane] = B[b, group_B, t, n]
                        if constant_C:
                            for lane in range(lanes):
                                C_row[lane] = held_C[block, n, lane]
                        else:
                            for lane in range(lanes):
                                C_row[lane] = C[b, group_C, t, n]
                        for lane in range(lanes):
                            step = dt[i, lane]
                            alpha, p = alpha_and_weight(rule, step * a[block, n, lane], one, half)
                            # both, so that no inf or NaN crosses the border of a sequence
                            alpha = zero if is_fresh else alpha
                            before = zero if is_fresh else h[n, lane]
                            after = alpha * before + step * x[i, lane] * (p * B_row[lane])
                            h[n, lane] = after
                            s[i, lane] += (C_row[lane] * after).real
                if with_gate:
                    load(z, b, span[block], t0, t1, gate)
                for t in range(t1 - t0):
                    for lane in range(lanes):
                        value = pairs * s[t, lane] + D[block, lane] * x[t, lane]
                        s[t, lane] = value * (gate[t, lane] * sigmoid(gate[t, lane])) if with_gate else value
                store(s, y, b, span[block], t0, t1)
            last[b, chunk, block] = h

    return scan


@no_type_check
@register_jitable
def load_gradients(
    grad_y: Any, z: Any, with_gate: Any, pairs: Any, b: Any, span: Any, t0: Any, t1: Any, gy: Any, gate: Any, e: Any
) -> None:
    """e = pairs·silu(z)·∂ℓ/∂y, which is ∂ℓ/∂s for s = Re Σ C h."""
    load(grad_y, b, span, t0, t1, gy)
    if with_gate:
        load(z, b, span, t0, t1, gate)
    for t in range(t1 - t0):
        for lane in range(gy.shape[1]):
            scale = pairs * (gate[t, lane] * sigmoid(gate[t, lane])) if with_gate else pairs
            e[t, lane] = scale * gy[t, lane]


@no_type_check
@cache
def carry_kernel(rule: int, real: np.dtype, number: np.dtype) -> Any:
    """`carry`: what a chunk passes to the state before it, when no gradient comes from after it."""

    @kernel(real, number)
    def carry(
        first: Any, last_task: Any, delta: Any, z: Any, a: Any, C: Any, held_C: Any, bias: Any, with_softplus: Any,
        with_gate: Any, pairs: Any, span: Any, groups: Any, fresh: Any, chunks: Any, grad_y: Any, leaving: Any,
    ) -> None:  # fmt: skip
        n_blocks, n_chunks, state, lanes = len(a), len(chunks) - 1, a.shape[1], a.shape[2]
        one, half, zero = a.dtype.type(1), a.dtype.type(0.5), a.dtype.type(0)
        real, constant_C, C_row = grad_y.dtype, held_C.size > 0, np.zeros(lanes, a.dtype)
        raw, dt, e = np.zeros((TILE, lanes), real), np.zeros((TILE, lanes), real), np.zeros((TILE, lanes), real)
        gy, gate = np.zeros((TILE, lanes), real), np.zeros((TILE, lanes), real)
        for task in range(first, last_task):
            b, block, chunk = task // (n_blocks * n_chunks), task // n_chunks % n_blocks, task % n_chunks
            carried, group_C = np.zeros((state, lanes), a.dtype), groups[block, 1]
            begin, end = chunks[chunk], chunks[chunk + 1]
            for tile in range((end - begin + TILE - 1) // TILE - 1, -1, -1):
                t0, t1 = begin + tile * TILE, min(begin + (tile + 1) * TILE, end)
                load_steps(delta, bias[block], with_softplus, b, span[block], t0, t1, raw, dt)
                load_gradients(grad_y, z, with_gate, pairs, b, span[block], t0, t1, gy, gate, e)
                for t in range(t1 - 1, t0 - 1, -1):
                    for n in range(state):
                        if constant_C:
                            for lane in range(lanes):
                                C_row[lane] = held_C[block, n, lane]
                        else:
                            for lane in range(lanes):
                                C_row[lane] = C[b, group_C, t, n]
                        for lane in range(lanes):
                            alpha, _ = alpha_and_weight(rule, dt[t - t0, lane] * a[block, n, lane], one, half)
                            g = conj(C_row[lane]) * e[t - t0, lane] + carried[n, lane]
                            carried[n, lane] = zero if fresh[b, t] else conj(alpha) * g
            leaving[b, chunk, block] = carried

    return carry


@no_type_check
@register_jitable(forceinline=True)  # where `rule` is a constant: a quarter of the time
def states_of_a_tile(
    rule: Any, b: Any, block: Any, group_B: Any, t0: Any, t1: Any, dt: Any, x: Any, a: Any, B: Any, held_B: Any,
    fresh: Any, B_row: Any, states: Any,
) -> None:  # fmt: skip
    """states[i + 1] = the state after step t0 + i, from states[0]."""
    state, lanes, constant_B = a.shape[1], a.shape[2], held_B.size > 0
    one, half, zero = a.dtype.type(1), a.dtype.type(0.5), a.dtype.type(0)
    for t in range(t0, t1):
        i, is_fresh = t - t0, fresh[b, t]
        for n in range(state):
            if constant_B:
                for lane in range(lanes):
                    B_row[lane] = held_B[block, n, lane]
            else:
                for lane in range(lanes):
                    B_row[lane] = B[b, group_B, t, n]
            for lane in range(lanes):
                step = dt[i, lane]
                alpha, p = alpha_and_weight(rule, step * a[block, n, lane], one, half)
                alpha = zero if is_fresh else alpha
                before = zero if is_fresh else states[i, n, lane]
                states[i + 1, n, lane] = alpha * before + step * x[i, lane] * (p * B_row[lane])


@no_type_check
@cache
def backward_kernel(rule: int, real: np.dtype, number: np.dtype) -> Any:
    """`adjoint` by one rule."""

    @kernel(real, number)
    def adjoint(
        first: Any, last_task: Any, u: Any, delta: Any, z: Any, a: Any, B: Any, held_B: Any, C: Any, held_C: Any,
        D: Any, bias: Any, with_softplus: Any, with_gate: Any, pairs: Any, span: Any, groups: Any, fresh: Any,
        chunks: Any, teams: Any,
        start: Any, arriving: Any, grad_y: Any,
        du: Any, ddelta: Any, dz: Any, da: Any, dB: Any, dC: Any, dD: Any, dbias: Any, leaving: Any,
    ) -> None:  # fmt: skip
        """Every gradient, and the one that leaves each chunk for the state before it.

        A team is a run of blocks, teams[i] to teams[i + 1], that share their maps and whose dB and dC are summed on the
        way. da (batch, chunk, block, state, lanes), dD and dbias (batch, chunk, block, lanes), dB and dC (batch, 1,
        team, length, state) or, when constant, as da: what is left of their sums is done afterwards, in a fixed order.
        """
        n_teams, n_chunks, state, lanes = len(teams) - 1, len(chunks) - 1, a.shape[1], a.shape[2]
        one, half, zero = a.dtype.type(1), a.dtype.type(0.5), a.dtype.type(0)
        real, unit = u.dtype, u.dtype.type(1)
        raw, dt, x = np.zeros((TILE, lanes), real), np.zeros((TILE, lanes), real), np.zeros((TILE, lanes), real)
        gy, gate, e = np.zeros((TILE, lanes), real), np.zeros((TILE, lanes), real), np.zeros((TILE, lanes), real)
        s, dx, ddt = np.zeros((TILE, lanes), real), np.zeros((TILE, lanes), real), np.zeros((TILE, lanes), real)
        states = np.zeros((TILE + 1, state, lanes), a.dtype)
        B_row, C_row = np.zeros(lanes, a.dtype), np.zeros(lanes, a.dtype)
        constant_B, constant_C = held_B.size > 0, held_C.size > 0
        for task in range(first, last_task):
            b, team, chunk = task // (n_teams * n_chunks), task // n_chunks % n_teams, task % n_chunks
            lead, members = teams[team], teams[team + 1] - teams[team]
            begin, end = chunks[chunk], chunks[chunk + 1]
            tiles = (end - begin + TILE - 1) // TILE
            group_B, group_C = groups[lead, 0], groups[lead, 1]

            borders = np.zeros((members, tiles + 1, state, lanes), a.dtype)
            carried, a_sum = np.zeros((members, state, lanes), a.dtype), np.zeros((members, state, lanes), a.dtype)
            B_sum = np.zeros((members if constant_B else TILE, state, lanes), a.dtype)
            C_sum = np.zeros((members if constant_C else TILE, state, lanes), a.dtype)
            for member in range(members):
                block = lead + member
                carried[member] = arriving[b, chunk, block]
                borders[member, 0] = start[b, chunk, block]
                dD[b, chunk, block] = 0
                dbias[b, chunk, block] = 0
                for tile in range(tiles - 1):
                    t0 = begin + tile * TILE
                    load_steps(delta, bias[block], with_softplus, b, span[block], t0, t0 + TILE, raw, dt)
                    load(u, b, span[block], t0, t0 + TILE, x)
                    states[0] = borders[member, tile]
                    states_of_a_tile(rule, b, block, group_B, t0, t0 + TILE, dt, x, a, B, held_B, fresh, B_row, states)
                    borders[member, tile + 1] = states[TILE]

            for tile in range(tiles - 1, -1, -1):
                t0, t1 = begin + tile * TILE, min(begin + (tile + 1) * TILE, end)
                if not constant_B:
                    B_sum[:] = 0
                if not constant_C:
                    C_sum[:] = 0
                for member in range(members):
                    block, used = lead + member, span[lead + member, 1] - span[lead + member, 0]
                    load_steps(delta, bias[block], with_softplus, b, span[block], t0, t1, raw, dt)
                    load(u, b, span[block], t0, t1, x)
                    load_gradients(grad_y, z, with_gate, pairs, b, span[block], t0, t1, gy, gate, e)
                    states[0] = borders[member, tile]
                    states_of_a_tile(rule, b, block, group_B, t0, t1, dt, x, a, B, held_B, fresh, B_row, states)

                    for t in range(t1 - 1, t0 - 1, -1):
                        i, is_fresh = t - t0, fresh[b, t]
                        B_part, C_part = member if constant_B else i, member if constant_C else i
                        for lane in range(lanes):
                            s[i, lane] = 0
                            dx[i, lane] = 0
                            ddt[i, lane] = 0
                        for n in range(state):
                            if constant_B:
                                for lane in range(lanes):
                                    B_row[lane] = held_B[block, n, lane]
                            else:
                                for lane in range(lanes):
                                    B_row[lane] = B[b, group_B, t, n]
                            if constant_C:
                                for lane in range(lanes):
                                    C_row[lane] = held_C[block, n, lane]
                            else:
                                for lane in range(lanes):
                                    C_row[lane] = C[b, group_C, t, n]
                            # not all lanes: what an unused one holds would enter the sums over lanes
                            for lane in range(used):
                                step, x_lane, a_lane = dt[i, lane], x[i, lane], a[block, n, lane]
                                alpha, p = alpha_and_weight(rule, step * a_lane, one, half)
                                dalpha, dp, dzp = slopes(rule, step * a_lane, alpha, p, one, half)
                                before = zero if is_fresh else states[i, n, lane]
                                after = states[i + 1, n, lane]
                                s[i, lane] += (C_row[lane] * after).real

                                g = conj(C_row[lane]) * e[i, lane] + carried[member, n, lane]
                                C_sum[C_part, n, lane] += conj(after) * e[i, lane]
                                B_sum[B_part, n, lane] += g * (conj(p) * (step * x_lane))
                                dx[i, lane] += (g * conj(p * B_row[lane])).real * step
                                grad_weight = g * conj(B_row[lane]) * x_lane
                                decay_part = zero if is_fresh else conj(dalpha) * (g * conj(before))
                                ddt[i, lane] += (conj(a_lane) * decay_part + conj(dzp) * grad_weight).real
                                a_part = decay_part
                                if rule != MAMBA:
                                    a_part = decay_part + conj(step * dp) * grad_weight
                                a_sum[member, n, lane] += step * a_part
                                carried[member, n, lane] = zero if is_fresh else conj(alpha) * g

                    for i in range(t1 - t0):
                        for lane in range(lanes):
                            gradient = gy[i, lane]
                            if with_gate:
                                sigma = sigmoid(gate[i, lane])
                                ungated = pairs * s[i, lane] + D[block, lane] * x[i, lane]
                                s[i, lane] = (
                                    gradient * ungated * (sigma * (unit + gate[i, lane] * sigmoid(-gate[i, lane])))
                                )
                                gradient = gradient * (gate[i, lane] * sigma)
                            dx[i, lane] += D[block, lane] * gradient
                            dD[b, chunk, block, lane] += gradient * x[i, lane]
                            if with_softplus:
                                ddt[i, lane] *= sigmoid(raw[i, lane])
                            dbias[b, chunk, block, lane] += ddt[i, lane]
                    store(dx, du, b, span[block], t0, t1)
                    store(ddt, ddelta, b, span[block], t0, t1)
                    if with_gate:
                        store(s, dz, b, span[block], t0, t1)

                for t in range(t0, t1):
                    for n in range(state):
                        if not constant_B:
                            dB[b, 0, team, t, n] = B_sum[t - t0, n].sum()
                        if not constant_C:
                            dC[b, 0, team, t, n] = C_sum[t - t0, n].sum()

            for member in range(members):
                da[b, chunk, lead + member] = a_sum[member]
                leaving[b, chunk, lead + member] = carried[member]
                if constant_B:
                    dB[b, chunk, lead + member] = B_sum[member]
                if constant_C:
                    dC[b, chunk, lead + member] = C_sum[member]

    return adjoint
