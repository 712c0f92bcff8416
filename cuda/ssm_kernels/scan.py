"""The selective scan and its adjoint on the GPU, launched: what each kernel is given, and where it writes.

:mod:`ssm_kernels.choosing` says which kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import lcm
from typing import Any, no_type_check

from ssm_kernels import sums
from ssm_kernels._target import compute_capability, current_device, multiprocessors
from ssm_kernels.backward.quads import carry as carrying
from ssm_kernels.backward.quads import parts
from ssm_kernels.choosing import (
    HOPPER,
    WARPS_A_MULTIPROCESSOR,
    Compilable,
    backward_kernel,
    choose,
    chunk_of,
    forward_kernel,
    quad_kernels,
    sum_kernel,
)
from ssm_kernels.intrinsics import ITEMSIZE
from ssm_kernels.variant import HAS_BIAS, HAS_D, HAS_Z, SOFTPLUS, STARTS, WARP, Variant, staged_dtype

Buffer = Any
Allocate = Callable[[tuple[int, ...], str], Buffer]
MAX_STATE = 256
MOST_QUAD_CHANNELS = 8192  # batch · dim up to which the adjoint by quads is the faster one


@dataclass(frozen=True)
class Scan:
    """A selective scan on the device. Buffers are addresses of C-contiguous elements, in the simulator flat arrays.

    Attributes:
        dtype: of u, delta, z and y, and of real maps that vary in time: `float16`, `bfloat16`, `float32`, `float64`.
        group_B, group_C: the maps' groups; None where they are constant, (dim, state).
        complex_B, complex_C: whether the map is complex. A constant real map has the arithmetic's precision.
        seq_idx: int32.
    """

    batch: int
    dim: int
    length: int
    state: int
    dtype: str
    is_complex: bool
    group_B: int | None
    group_C: int | None
    complex_B: bool
    complex_C: bool
    delta_softplus: bool
    discretization: str
    u: Buffer
    delta: Buffer
    A: Buffer
    B: Buffer
    C: Buffer
    D: Buffer | None
    z: Buffer | None
    delta_bias: Buffer | None
    initial_state: Buffer | None
    seq_idx: Buffer | None

    @property
    def span(self) -> int:
        """Channels that share both maps."""
        return self.dim // lcm(self.group_B or 1, self.group_C or 1)

    @property
    def per_group(self) -> tuple[int, int]:
        return self.dim // (self.group_B or 1), self.dim // (self.group_C or 1)


def variant_of(scan: Scan, *rows: Buffer | None) -> Variant:
    """The variant for a scan, and for further arrays along time."""
    maps = [M for M, group in ((scan.B, scan.group_B), (scan.C, scan.group_C)) if group is not None]
    addresses = [scan.u, scan.delta, scan.z, *maps, *rows]
    aligned = scan.length % (16 // ITEMSIZE[scan.dtype]) == 0
    aligned = aligned and on_16_bytes(*addresses)
    return choose(
        scan.batch, scan.dim, scan.length, scan.state, scan.dtype, scan.is_complex, scan.discretization,
        scan.group_B is None, scan.group_C is None, scan.complex_B, scan.complex_C, scan.seq_idx is not None,
        aligned, multiprocessors(current_device()),
    )  # fmt: skip


def on_16_bytes(*buffers: Buffer | None) -> bool:
    return all(address % 16 == 0 for address in buffers if isinstance(address, int))


def blocks_of(scan: Scan, v: Variant) -> int:
    """Thread blocks for one batch entry: none crosses a span."""
    return scan.dim // scan.span * -(-scan.span // (v.channels * v.warps))


@no_type_check
def forward(scan: Scan, y: Buffer, last_state: Buffer | None, *, stream: Any, allocate: Allocate) -> None:
    """y and the last state, on the stream.

    Raises:
        ValueError: more than 256 states.
    """
    check_state(scan)
    v, kernel = forward_kernel(variant_of(scan, y), scan.state, False, compute_capability(current_device()))
    last = last_state if last_state is not None else allocate((scan.batch, scan.dim, scan.state), v.number)
    launch_forward(scan, v, kernel, y, last, None, stream, allocate)


@no_type_check
def launch_forward(scan, v, kernel: Compilable, y, last, borders, stream, allocate):
    nothing = scan.u
    total = allocate((scan.batch, scan.dim), v.precision)
    arguments = (
        scan.u, scan.delta, scan.A, scan.B, scan.C, _or(scan.D, nothing), _or(scan.z, nothing),
        _or(scan.delta_bias, nothing), _or(scan.initial_state, nothing), _or(scan.seq_idx, nothing),
        _or(y, nothing), last, total, _or(borders, nothing), options_of(scan, scan.initial_state is not None),
        scan.batch, scan.dim, scan.length, scan.state, scan.span, *scan.per_group, scan.length,
    )  # fmt: skip
    kernel.compiled()((scan.batch * blocks_of(scan, v), 1, 1), (v.threads, 1, 1), stream, arguments)


@no_type_check
def backward(
    scan: Scan, grad_y: Buffer, grad_last_state: Buffer | None, grads: Any, *, stream: Any, allocate: Allocate
) -> None:
    """Every gradient, on the stream; `grads` has the fields u, delta, A, B, C, D, z, delta_bias and initial_state.

    Raises:
        ValueError: more than 256 states.
    """
    check_state(scan)
    v = variant_of(scan, grad_y, grads.u, grads.delta, grads.z)
    if goes_by_quads(scan, v):
        backward_by_quads(scan, v, grad_y, grad_last_state, grads, stream, allocate)
    else:
        backward_by_segments(scan, v, grad_y, grad_last_state, grads, stream, allocate)


@no_type_check
def backward_by_segments(scan, v, grad_y, grad_last_state, grads, stream, allocate):
    back, kernel = backward_kernel(v, scan.state, compute_capability(current_device()))

    # the states before each of its tiles, from a pass in which nothing is read out
    first, before = forward_kernel(back, scan.state, True, compute_capability(current_device()))
    assert first.tile == back.tile
    states = (scan.batch, scan.dim, scan.state)
    tiles = -(-scan.length // back.tile)
    borders = allocate((tiles, scan.batch, scan.state, scan.dim), v.number)
    launch_forward(scan, first, before, None, allocate(states, v.number), borders, stream, allocate)

    blocks = blocks_of(scan, back)
    staged = staged_dtype(v.map_B, v.precision), staged_dtype(v.map_C, v.precision)
    along = (scan.batch * blocks, scan.state, scan.length)
    shares_B, shares_C = (
        allocate(states if constant else along, dtype)
        for constant, dtype in zip((v.constant_B, v.constant_C), staged, strict=True)
    )
    # one batch entry has nothing to add up for A, D and the bias
    alone = scan.batch == 1
    shares_A = grads.A if alone else allocate(states, v.number)
    shares_D, shares_bias = (
        found if alone and found is not None else allocate((scan.batch, scan.dim), v.precision)
        for found in (grads.D, grads.delta_bias)
    )
    leaving = allocate(states, v.number) if grads.initial_state is None else grads.initial_state
    nothing = scan.u
    arguments = (
        grad_y, scan.u, scan.delta, scan.A, scan.B, scan.C, _or(scan.D, nothing), _or(scan.z, nothing),
        _or(scan.delta_bias, nothing), _or(scan.seq_idx, nothing), borders, _or(grad_last_state, nothing),
        grads.u, grads.delta, _or(grads.z, nothing), shares_A, shares_B, shares_C, shares_D, shares_bias, leaving,
        options_of(scan, grad_last_state is not None),
        scan.batch, scan.dim, scan.length, scan.state, scan.span, *scan.per_group,
    )  # fmt: skip
    kernel.compiled()((scan.batch * blocks, 1, 1), (back.threads, 1, 1), stream, arguments)

    each = scan.dim * scan.state
    pending = [
        (dtype, M, shares, target, 1, scan.batch, each)
        if group is None
        else (dtype, M, shares, target, scan.batch * group, blocks // group, scan.state * scan.length)
        for shares, dtype, target, M, group in (
            (shares_B, staged[0], grads.B, v.map_B, scan.group_B),
            (shares_C, staged[1], grads.C, v.map_C, scan.group_C),
        )
    ]
    if not alone:
        pending.append((v.number, v.number, shares_A, grads.A, 1, scan.batch, each))
        for shares, target in ((shares_D, grads.D), (shares_bias, grads.delta_bias)):
            if target is not None:
                pending.append((v.precision, v.precision, shares, target, 1, scan.batch, scan.dim))
    add_up(pending, stream)


def goes_by_quads(scan: Scan, v: Variant) -> bool:
    """Whether the adjoint is :mod:`ssm_kernels.backward.quads`."""
    plain = not v.is_complex and v.discretization == "mamba" and not v.packed and v.aligned and on_16_bytes(scan.A)
    one_dtype = not v.constant_B and not v.constant_C and v.map_B == v.map_C == v.dtype != "float64"
    shaped = scan.span % parts.channels(parts.WARPS) == 0 and scan.state in (8, 12, 16)
    few = scan.batch * scan.dim <= MOST_QUAD_CHANNELS
    return plain and one_dtype and shaped and few and compute_capability(current_device()) >= HOPPER


@no_type_check
def backward_by_quads(scan, v, grad_y, grad_last_state, grads, stream, allocate):
    batch, dim, length, state = scan.batch, scan.dim, scan.length, scan.state
    of_block = parts.channels(parts.WARPS)
    chunk = chunk_of(batch * dim // WARP, length, WARPS_A_MULTIPROCESSOR * multiprocessors(current_device()))
    chunks, tiles, blocks = -(-length // chunk), -(-length // parts.TILE), dim // of_block
    real = "float32"
    borders, before = allocate((tiles, batch, dim, state), real), allocate((tiles, batch, dim), real)
    ends, backs = (allocate((chunks, batch, dim, state), real) for _ in range(2))
    totals = allocate((chunks, batch, dim), real)
    leaving = allocate((batch, dim, state), real) if grads.initial_state is None else grads.initial_state
    shares_B, shares_C = (allocate((batch * blocks, state, length), real) for _ in range(2))
    alone = batch * chunks == 1
    shares_A = grads.A if alone else allocate((chunks, batch, dim, state), real)
    shares_D, shares_bias = (
        found if alone and found is not None else allocate((chunks, batch, dim), real)
        for found in (grads.D, grads.delta_bias)
    )
    nothing = scan.u
    z, D, bias = _or(scan.z, nothing), _or(scan.D, nothing), _or(scan.delta_bias, nothing)
    options = options_of(scan, False)
    sizes = (options, batch, dim, length, state, *scan.per_group, chunk)
    summary, carry, adjoint = (kernel.compiled() for kernel in quad_kernels(v.dtype, parts.WARPS))
    grid, threads = (batch * blocks, chunks, 1), (of_block, 1, 1)
    summary(grid, threads, stream, (
        scan.u, scan.delta, scan.A, scan.B, scan.C, z, bias, grad_y, borders, before, ends, backs, totals, *sizes,
    ))  # fmt: skip
    carry((-(-batch * dim * state // carrying.THREADS), 1, 1), (carrying.THREADS, 1, 1), stream, (
        scan.A, _or(scan.initial_state, nothing), _or(grad_last_state, nothing), ends, backs, totals, leaving,
        int(scan.initial_state is not None), int(grad_last_state is not None), chunks, batch, dim, state,
    ))  # fmt: skip
    adjoint(grid, threads, stream, (
        scan.u, scan.delta, scan.A, scan.B, scan.C, D, z, bias, grad_y, borders, before, ends, backs,
        grads.u, grads.delta, _or(grads.z, nothing), shares_A, shares_B, shares_C, shares_D, shares_bias, *sizes,
    ))  # fmt: skip
    pending = [
        (real, M, shares, target, batch * group, blocks // group, state * length)
        for shares, target, M, group in (
            (shares_B, grads.B, v.map_B, scan.group_B),
            (shares_C, grads.C, v.map_C, scan.group_C),
        )
    ]
    if not alone:
        pending.append((real, real, shares_A, grads.A, 1, chunks * batch, dim * state))
        for shares, target in ((shares_D, grads.D), (shares_bias, grads.delta_bias)):
            if target is not None:
                pending.append((real, real, shares, target, 1, chunks * batch, dim))
    add_up(pending, stream)


@no_type_check
def add_up(pending, stream):
    """Sums of the same dtypes go into one launch, three at most."""
    groups = {}
    for dtype, total_dtype, *sum_ in pending:
        width = 16 // ITEMSIZE[dtype]
        groups.setdefault((dtype, total_dtype, width > 1 and sum_[-1] % width == 0), []).append(sum_)
    for (dtype, total_dtype, aligned), found in groups.items():
        kernel, width = sum_kernel(dtype, total_dtype, aligned), 16 // ITEMSIZE[dtype] if aligned else 1
        for first in range(0, len(found), sums.AT_ONCE):
            some = found[first : first + sums.AT_ONCE]
            most = max(outer * size for _, _, outer, _, size in some)
            grid = (-(-most // (width * sums.THREADS)), len(some), 1)
            unused = (some[0][0], some[0][0], 0, 1, 1)
            rows = [*some, *[unused] * (sums.AT_ONCE - len(some))]
            kernel.compiled()(grid, (sums.THREADS, 1, 1), stream, [argument for row in rows for argument in row])


def options_of(scan: Scan, starts: bool) -> int:
    given = (scan.D is not None, scan.z is not None, scan.delta_bias is not None, scan.delta_softplus, starts)
    return sum(bit for bit, has in zip((HAS_D, HAS_Z, HAS_BIAS, SOFTPLUS, STARTS), given, strict=True) if has)


def check_state(scan: Scan) -> None:
    if scan.state > MAX_STATE:
        raise ValueError(f"A has {scan.state} states, expected at most {MAX_STATE} on the cuda backend")


def _or(buffer: Buffer | None, nothing: Buffer) -> Buffer:
    return nothing if buffer is None else buffer
