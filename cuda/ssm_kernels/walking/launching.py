"""The scans by walking, launched: for which problems there are kernels, and how their time is cut."""

from __future__ import annotations

from math import ceil
from typing import no_type_check

from ssm_kernels import description
from ssm_kernels.choosing import (
    BLACKWELL,
    HOPPER,
    SMALLER_SHARED,
    walking_abreast_kernel,
    walking_adjoint_kernel,
    walking_carry_kernel,
    walking_forward_kernel,
    walking_helped_kernel,
    walking_middles_kernel,
    walking_summary_kernel,
)
from ssm_kernels.description import Scan, either, on_16_bytes, options_of
from ssm_kernels.intrinsics import ITEMSIZE
from ssm_kernels.shares import add_up, of_channels
from ssm_kernels.variant import CARRIED, RETURNS, STARTS, Variant
from ssm_kernels.walking import carry, middles, parts
from ssm_kernels.walking.bands import MOST_STEPS, Band, best_band
from ssm_kernels.walking.chunks import BACK, BACK_FROM_SAVED, FORTH, Room, chunk_of
from ssm_kernels.walking.summary import Ways
from ssm_kernels.walking.teams import Team, best_team, time_by_team, time_in_chunks


def serve(scan: Scan, v: Variant) -> bool:
    """Whether there are kernels of :mod:`ssm_kernels.walking` for it, for the way forward at least."""
    plain = not v.is_complex and v.discretization == "mamba" and not v.packed and v.aligned
    plain = plain and on_16_bytes(scan.A, scan.initial_state)
    one_dtype = not v.constant_B and not v.constant_C and v.map_B == v.map_C == v.dtype != "float64"
    shaped = scan.span % parts.channels(parts.WARPS) == 0 and scan.state in (8, 12, 16)
    return plain and one_dtype and shaped and description.capability() >= HOPPER


def serve_back(scan: Scan, v: Variant) -> bool:
    """Whether there are those of the way back, of whose shared memory a block gets less from 12.0 on."""
    return serve(scan, v) and description.capability() < SMALLER_SHARED


def chunk_for(scan: Scan, room: Room) -> int:
    """Steps of a chunk of time, where that is cut."""
    blocks = ceil(scan.batch * scan.dim / parts.channels(parts.WARPS))
    return chunk_of(blocks, scan.length, description.processors(), room)


def team_for(scan: Scan) -> Team | None:
    """Who walks forward through all of time at once; None where this is better cut."""
    processors, itemsize = description.processors(), ITEMSIZE[scan.dtype]
    channels, length = scan.batch * scan.dim, scan.length
    in_chunks = time_in_chunks(channels, length, processors) < time_by_team(channels, length, processors, itemsize)
    return None if in_chunks else best_team(channels, processors, itemsize)


def band_for(scan: Scan) -> Band | None:
    """Whose lanes have time abreast; None where others are faster, or blocks get less shared memory."""
    capability, processors = description.capability(), description.processors()
    channels, length = scan.batch * scan.dim, scan.length
    if capability >= SMALLER_SHARED or length > MOST_STEPS:
        return None
    band = best_band(channels, length, scan.span, processors, capability < BLACKWELL)
    others = (
        time_in_chunks(channels, length, processors),
        time_by_team(channels, length, processors, ITEMSIZE[scan.dtype]),
    )
    return band if band is not None and band.time(channels, length, processors) < min(others) else None


def chunk_from_saved(scan: Scan) -> int:
    """Steps of a chunk on the way back where the way forward has saved states: of 16-bit scans for one chunk alone."""
    return scan.length if ITEMSIZE[scan.dtype] == 2 else chunk_for(scan, BACK_FROM_SAVED)


def saved_shape(scan: Scan) -> tuple[int, ...] | None:
    """Of the float32 states that the way forward saves for the way back; None where that is no faster with them.

    With several chunks, a first pass over them is due anyway, since what comes back to each is not known beforehand.
    The states between those that are saved of 16-bit scans would be another.
    """
    if ITEMSIZE[scan.dtype] == 2 and chunk_for(scan, BACK) < scan.length:
        return None
    return -(-scan.length // parts.saved_every(scan.dtype)), scan.batch, scan.dim, scan.state


@no_type_check
def forward(scan, v, y, last_state, stream, allocate, saved=None):
    band = None if saved is not None else band_for(scan)
    team = team_for(scan)
    if band is not None:
        forward_abreast(scan, v, y, last_state, stream, allocate, band)
    elif team is None:
        forward_in_chunks(scan, v, y, last_state, stream, allocate, saved)
    else:
        forward_by_team(scan, v, y, last_state, stream, allocate, saved, team)


@no_type_check
def forward_abreast(scan, v, y, last_state, stream, allocate, band):
    """A warp a channel, which saves no states."""
    batch, dim, length, state = scan.batch, scan.dim, scan.length, scan.state
    last = last_state if last_state is not None else allocate((batch, dim, state), "float32")
    nothing = scan.u
    D, z, bias = either(scan.D, nothing), either(scan.z, nothing), either(scan.delta_bias, nothing)
    grid = batch * dim // band.channels, 1, 1
    walking_abreast_kernel(v.dtype, band).compiled()(grid, (band.threads, 1, 1), stream, (
        scan.u, scan.delta, scan.A, scan.B, scan.C, D, z, bias, either(scan.initial_state, nothing), y, last,
        options_of(scan, scan.initial_state is not None), batch, dim, length, state, *scan.per_group,
    ))  # fmt: skip


@no_type_check
def forward_by_team(scan, v, y, last_state, stream, allocate, saved, team):
    """All of time at once."""
    batch, dim, length, state = scan.batch, scan.dim, scan.length, scan.state
    last = last_state if last_state is not None else allocate((batch, dim, state), "float32")
    nothing = scan.u
    D, z, bias = either(scan.D, nothing), either(scan.z, nothing), either(scan.delta_bias, nothing)
    every = 0 if saved is None else parts.saved_every(v.dtype)
    grid = batch * dim // team.of_block, 1, 1
    walking_helped_kernel(v.dtype, team, every).compiled()(grid, (team.threads, 1, 1), stream, (
        scan.u, scan.delta, scan.A, scan.B, scan.C, D, z, bias, either(scan.initial_state, nothing), y, last,
        either(saved, nothing), options_of(scan, scan.initial_state is not None), batch, dim, length, state,
        *scan.per_group,
    ))  # fmt: skip


@no_type_check
def forward_in_chunks(scan, v, y, last_state, stream, allocate, saved=None, chunk=None):
    """In two passes, of which the first, for what each chunk leaves, spares the last: nobody asks for that.

    Chunks have so many steps, or are cut by the model.
    """
    batch, dim, length, state = scan.batch, scan.dim, scan.length, scan.state
    real = "float32"
    last = last_state if last_state is not None else allocate((batch, dim, state), real)
    chunk = chunk or chunk_for(scan, FORTH)
    chunks = -(-length // chunk)
    nothing = scan.u
    D, z, bias = either(scan.D, nothing), either(scan.z, nothing), either(scan.delta_bias, nothing)
    sizes = (batch, dim, length, state, *scan.per_group, chunk)
    blocks, threads = batch * dim // parts.channels(parts.WARPS), (parts.threads(parts.WARPS), 1, 1)
    starts, started = scan.initial_state, scan.initial_state is not None
    if chunks > 1:
        ends, totals = allocate((chunks, batch, dim, state), real), allocate((chunks, batch, dim), real)
        summarize(scan, Ways(), (blocks, chunks - 1, 1), stream, (
            scan.u, scan.delta, scan.A, scan.B, scan.C, nothing, bias, nothing, nothing, nothing, ends, nothing, totals,
            options_of(scan, False), *sizes,
        ))  # fmt: skip
        carry_on(scan, None, ends, None, totals, chunks, stream)
        starts, started = ends, True
    every = 0 if saved is None else parts.saved_every(v.dtype)
    walking_forward_kernel(v.dtype, parts.WARPS, every).compiled()((blocks, chunks, 1), threads, stream, (
        scan.u, scan.delta, scan.A, scan.B, scan.C, D, z, bias, either(starts, nothing), y, last,
        either(saved, nothing), options_of(scan, started), *sizes,
    ), early=chunks > 1)  # fmt: skip


@no_type_check
def backward(scan, v, grad_y, grad_last_state, grads, stream, allocate, saved=None):
    batch, dim, length, state = scan.batch, scan.dim, scan.length, scan.state
    of_block = parts.channels(parts.WARPS)
    chunk = chunk_for(scan, BACK) if saved is None else chunk_from_saved(scan)
    chunks, tiles, blocks = -(-length // chunk), -(-length // parts.SHORT.steps), dim // of_block
    real = "float32"
    leaving = allocate((batch, dim, state), real) if grads.initial_state is None else grads.initial_state
    shares_B, shares_C = (allocate((batch * blocks, state, length), real) for _ in range(2))
    (shares_A, shares_D, shares_bias), sums = of_channels(grads, chunks * batch, dim, state, real, real, allocate)
    nothing = scan.u
    z, D, bias = either(scan.z, nothing), either(scan.D, nothing), either(scan.delta_bias, nothing)
    options = options_of(scan, False)
    sizes = (batch, dim, length, state, *scan.per_group, chunk)
    grid, threads = (batch * blocks, chunks, 1), (parts.threads(parts.WARPS), 1, 1)
    borders, before, ends, backs, totals, follows = saved, nothing, None, None, nothing, False
    carried = chunks > carry.MOST_BY_THEMSELVES
    if saved is None:
        borders, before = allocate((tiles, batch, dim, state), real), allocate((tiles, batch, dim), real)
        ends = allocate((chunks, batch, dim, state), real)
    elif parts.saved_every(v.dtype) != parts.SHORT.steps:
        borders, follows = allocate((tiles, batch, dim, state), real), True
        of_time = -(-length // middles.CHUNK)
        walking_middles_kernel(v.dtype, parts.WARPS).compiled()((grid[0], of_time, 1), threads, stream, (
            scan.u, scan.delta, scan.A, scan.B, bias, saved, borders, options, *sizes[:5],
        ))  # fmt: skip
    if saved is None or chunks > 1:
        backs, totals = allocate((chunks, batch, dim, state), real), allocate((chunks, batch, dim), real)
        ways, follows = Ways(forth=saved is None, back=chunks > 1, bordered=saved is None), True
        summarize(scan, ways, (grid[0], chunks if ways.forth else chunks - 1, 1), stream, (
            scan.u, scan.delta, scan.A, scan.B, scan.C, z, bias, grad_y, borders, before, either(ends, nothing), backs,
            totals, options, *sizes,
        ))  # fmt: skip
        if carried:
            carry_on(scan, grad_last_state, ends, backs, totals, chunks, stream)
    options |= (STARTS if scan.initial_state is not None else 0) | (RETURNS if grad_last_state is not None else 0)
    walking_adjoint_kernel(v.dtype, parts.WARPS, saved is not None).compiled()(grid, threads, stream, (
        scan.u, scan.delta, scan.A, scan.B, scan.C, D, z, bias, grad_y, borders, before,
        either(scan.initial_state, nothing), either(grad_last_state, nothing), either(ends, nothing),
        either(backs, nothing), totals, grads.u, grads.delta, either(grads.z, nothing), leaving, shares_A, shares_B,
        shares_C, shares_D, shares_bias, options | (CARRIED if carried else 0), *sizes,
    ), early=follows)  # fmt: skip
    pending = [
        (real, M, shares, target, batch * group, blocks // group, state * length)
        for shares, target, M, group in (
            (shares_B, grads.B, v.map_B, scan.group_B),
            (shares_C, grads.C, v.map_C, scan.group_C),
        )
    ]
    add_up([*sums, *pending], stream, early=True)


@no_type_check
def summarize(scan, ways, grid, stream, arguments):
    """The first pass over chunks."""
    team = ways.team(parts.WARPS)
    walking_summary_kernel(scan.dtype, ways, parts.WARPS).compiled()(grid, (team.threads, 1, 1), stream, arguments)


@no_type_check
def carry_on(scan, grad_last_state, ends, backs, totals, chunks, stream):
    """From chunk to chunk: `ends`, if given, become first states, and `backs`, if given, what comes back."""
    batch, dim, state = scan.batch, scan.dim, scan.state
    nothing = scan.u
    first_way = int(ends is None)
    grid = -(-batch * dim * state // carry.THREADS), 1 if ends is None or backs is None else 2, 1
    walking_carry_kernel().compiled()(grid, (carry.THREADS, 1, 1), stream, (
        scan.A, either(scan.initial_state, nothing), either(grad_last_state, nothing), either(ends, nothing),
        either(backs, nothing), totals, int(scan.initial_state is not None), int(grad_last_state is not None),
        first_way, chunks, batch, dim, state,
    ), early=True)  # fmt: skip
