"""The selective scan and its adjoint on the GPU: a variant is chosen by shape, compiled once, and launched.

| batch · dim | a warp takes | because |
|---|---|---|
| many channels | 4 channels × 8 segments of 16 steps | few shuffles; B and C are read for 4 channels at once |
| fewer | 2 × 16, 1 × 32 | as soon as there would be fewer than 8 warps on each multiprocessor |
| fewer than 16 warps each | 1 × 32, two or four states at a time; maps in larger blocks | registers are free |
| over 64 states | 2 × 16 or 1 × 32 | the states of a block's channels lie in shared memory |
| short sequences | the fewest segments that cover it | a lane without steps is idle |

float64 and complex states have 8 steps a lane, complex128 has 4: registers. The adjoint has half of that for all but
float32 states by Mamba's rule. Rows that do not begin at 16-byte boundaries are read number by number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from math import lcm
from typing import Any, no_type_check

from ssm_kernels import sums
from ssm_kernels._target import Launchable, compiled, compute_capability, current_device, multiprocessors
from ssm_kernels.backward import production as backward_scan
from ssm_kernels.forward import production as forward_scan
from ssm_kernels.intrinsics import ITEMSIZE
from ssm_kernels.variant import HAS_BIAS, HAS_D, HAS_Z, SOFTPLUS, STARTS, WARP, Variant, staged_dtype

Buffer = Any
Allocate = Callable[[tuple[int, ...], str], Buffer]
SHARED_BYTES = 48 * 1024
WARPS = 4
WARPS_A_MULTIPROCESSOR = 8
MAX_STATE = 256
HOPPER = (9, 0)


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


@dataclass(frozen=True, eq=False)
class Compilable:
    """A kernel as the compiler is given it. `since`: the compute capability from which it is launched.

    `max_registers` holds from compute capability 9.0 on: there the cap makes no spills.
    """

    name: str
    kernel: Any
    signature: Any
    threads: int
    max_registers: int | None = None
    arithmetic: str = "float32"
    expects: frozenset[str] = frozenset()
    since: tuple[int, int] = (8, 0)

    def cap(self, capability: tuple[int, int]) -> int | None:
        return self.max_registers if capability >= HOPPER else None

    def compiled(self) -> Launchable:
        return _compiled(self, current_device())


@cache
def _compiled(kernel: Compilable, device: int) -> Launchable:
    return compiled(kernel.kernel, kernel.signature, max_registers=kernel.cap(compute_capability(device)))


def map_dtype(dtype: str, is_complex: bool, constant: bool) -> str:
    if is_complex:
        return "complex128" if dtype == "float64" else "complex64"
    return ("float64" if dtype == "float64" else "float32") if constant else dtype


@cache
def choose(
    batch: int, dim: int, length: int, state: int, dtype: str, is_complex: bool, discretization: str,
    constant_B: bool, constant_C: bool, complex_B: bool, complex_C: bool, packed: bool, aligned: bool, processors: int,
) -> Variant:  # fmt: skip
    """The variant for a shape: the table above."""
    items = {4: 16, 8: 8, 16: 4}[ITEMSIZE[map_dtype(dtype, is_complex, True)]]
    enough = WARPS_A_MULTIPROCESSOR * processors
    segments = next((s for s in (8, 16) if batch * dim * s >= enough * WARP), 32)
    if state > 64:
        segments = max(segments, 16)
    while segments > 1 and (segments // 2) * items >= length:
        segments //= 2
    few = segments == WARP and batch * dim < 2 * enough
    fewest = batch * dim <= WARPS_A_MULTIPROCESSOR * processors
    if few and not fewest:
        items = min(items, 8)
    return Variant(
        dtype=dtype,
        is_complex=is_complex,
        discretization=discretization,
        map_B=map_dtype(dtype, complex_B, constant_B),
        map_C=map_dtype(dtype, complex_C, constant_C),
        constant_B=constant_B,
        constant_C=constant_C,
        packed=packed,
        aligned=aligned,
        segments=segments,
        items=items,
        # few warps: larger blocks of states and several of them at a time, in the registers that are free then
        warps=2 * WARPS if fewest else WARPS,
        together=(2 if fewest or state % 4 else 4) if few and state % 2 == 0 and not is_complex else 1,
        ahead=not few,
    )


def variant_of(scan: Scan, *rows: Buffer | None) -> Variant:
    """The variant for a scan, and for further arrays along time."""
    maps = [M for M, group in ((scan.B, scan.group_B), (scan.C, scan.group_C)) if group is not None]
    addresses = [scan.u, scan.delta, scan.z, *maps, *rows]
    aligned = scan.length % (16 // ITEMSIZE[scan.dtype]) == 0
    aligned = aligned and all(address % 16 == 0 for address in addresses if isinstance(address, int))
    return choose(
        scan.batch, scan.dim, scan.length, scan.state, scan.dtype, scan.is_complex, scan.discretization,
        scan.group_B is None, scan.group_C is None, scan.complex_B, scan.complex_C, scan.seq_idx is not None,
        aligned, multiprocessors(current_device()),
    )  # fmt: skip


def rounded_states(state: int) -> int:
    """Kernels are compiled for 16, 32, 64, … states: what is kept for each has that room."""
    return max(16, 1 << (state - 1).bit_length())


@cache
def forward_kernel(v: Variant, state: int, borders: bool) -> tuple[Variant, Compilable]:
    states = rounded_states(state)
    v = fitted(v, lambda w: forward_scan.shared_bytes(w, states, borders))
    if state % v.together:
        v = replace(v, together=1)
    kernel = forward_scan.kernel(v, states, borders)
    name = f"{'borders' if borders else 'forward'} {states} {v}"
    plain = v.ahead and not v.is_complex and v.precision == "float32" and v.discretization == "mamba"
    return v, Compilable(
        name, kernel, forward_scan.signature(v), v.threads, 128 if plain else None, v.precision,
        expectations(v, not v.ahead),
    )  # fmt: skip


@cache
def backward_kernel(v: Variant, state: int, capability: tuple[int, int]) -> tuple[Variant, Compilable]:
    states = rounded_states(state)
    # few warps gain more from more of them than from more steps a lane; all but the plainest take too many registers
    plain = v.number == "float32" and v.discretization == "mamba" and not v.packed
    fewer = v.segments == WARP or not plain or capability < HOPPER
    items = max(v.items // 2, 16 // ITEMSIZE[v.dtype]) if fewer else v.items
    v = replace(v, items=items, warps=WARPS, together=1, ahead=True)
    v = fitted(v, lambda w: backward_scan.shared_bytes(w, states))
    kernel = backward_scan.kernel(v, states)
    return v, Compilable(
        f"backward {states} {v}",
        kernel,
        backward_scan.signature(v),
        v.threads,
        None,
        v.precision,
        expectations(v, True),
        (8, 0) if fewer else HOPPER,
    )


def expectations(v: Variant, loads_rows: bool) -> frozenset[str]:
    """What the compiled code must have; rows that come asynchronously are copied, not loaded."""
    if not v.aligned:
        return frozenset()
    ex2 = {"ex2"} if v.precision == "float32" else set()
    return frozenset({"wide_shared"} | ({"wide_global"} if loads_rows else set()) | ex2)


def fitted(v: Variant, shared_bytes: Callable[[Variant], int]) -> Variant:
    """The variant with as many states staged, steps a lane and warps as shared memory has room for, in this order.

    If one warp is too much, it takes fewer channels and more time.
    """
    for segments in [s for s in (1, 2, 4, 8, 16, 32) if s >= v.segments]:
        for warps in [w for w in (8, 4, 2, 1) if w <= v.warps]:
            for items in (v.items, v.items // 2):
                for block in (16, 8, 4, 2):
                    block = max(block, v.together)
                    candidate = replace(v, segments=segments, items=items, warps=warps, block=block)
                    if items >= 16 // ITEMSIZE[v.dtype] and shared_bytes(candidate) <= SHARED_BYTES:
                        return candidate
    raise ValueError(f"no variant has room for its states in {SHARED_BYTES} bytes of shared memory: {v}")


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
    v, kernel = forward_kernel(variant_of(scan, y), scan.state, False)
    last = last_state if last_state is not None else allocate((scan.batch, scan.dim, scan.state), v.number)
    launch_forward(scan, v, kernel, y, last, None, stream, allocate)


@no_type_check
def launch_forward(scan, v, kernel, y, last, borders, stream, allocate):
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
    back, kernel = backward_kernel(v, scan.state, compute_capability(current_device()))

    # the states before each of its tiles, from a pass in which nothing is read out
    first, before = forward_kernel(back, scan.state, True)
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


@cache
def sum_kernel(shares: str, total: str, aligned: bool) -> Compilable:
    arithmetic = "float64" if shares in ("float64", "complex128") else "float32"
    kernel = sums.kernel(shares, total, aligned)
    return Compilable(f"sums {shares} {total}", kernel, sums.signature(shares, total), sums.THREADS, None, arithmetic)


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
