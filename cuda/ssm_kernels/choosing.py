"""Which kernels a scan is given, by its shape.

| batch · dim | a warp takes | because |
|---|---|---|
| 8 warps a multiprocessor, of 4 channels each | 4 channels × 8 segments of 16 steps | few shuffles, shared maps |
| 8 warps, of one each | 1 × 32 of 8 steps; 16-bit rows 2 × 16 of 16 | more warps; two states at a time |
| fewer | 1 × 32 of 16 steps; of bfloat16 four states at a time on Hopper | the same |
| over 64 states | 2 × 16 or 1 × 32 | the states of a block's channels lie in shared memory |
| short sequences | the fewest segments that cover it | a lane without steps is idle |

float64 and complex states have 8 steps a lane, complex128 has 4: registers. The adjoint has half of that where a warp
takes one channel, for all but float32 states by Mamba's rule, and on other GPUs than Hopper, whose blocks have more
shared memory, too. Rows that do not begin at 16-byte boundaries are read number by number.

From Hopper on the plainest scans walk (:mod:`ssm_kernels.walking`). On the way back a block takes 105 KB of shared
memory, which from 12.0 on it does not get. On the way forward half of a block's warps help the others, where all of
time goes at once (:mod:`ssm_kernels.walking.teams`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from math import gcd
from typing import Any

from ssm_kernels import sums
from ssm_kernels._target import LARGE_BLOCKS, Launchable, compiled, compute_capability, current_device
from ssm_kernels.backward import production as backward_scan
from ssm_kernels.forward import production as forward_scan
from ssm_kernels.intrinsics import ITEMSIZE
from ssm_kernels.variant import WARP, Variant
from ssm_kernels.walking import abreast, adjoint, carry, helped, middles, parts, summary
from ssm_kernels.walking import forward as walking_forward
from ssm_kernels.walking.bands import WIDEST, Band
from ssm_kernels.walking.teams import Team

SHARED_BYTES = 48 * 1024
# two blocks of a multiprocessor's 228 KB, from Hopper up to 12.0
HOPPER_SHARED_BYTES = 112 * 1024 if LARGE_BLOCKS else SHARED_BYTES
LEAST_SHARED_BYTES = 99 * 1024  # of a block, wherever there is walking
WARPS = 4
WARPS_A_MULTIPROCESSOR = 8
HOPPER, BLACKWELL, SMALLER_SHARED, LATER = (9, 0), (10, 0), (12, 0), (99, 0)


@dataclass(frozen=True, eq=False)
class Compilable:
    """A kernel as the compiler is given it, for compute capabilities from `since` up to, and without, `until`.

    `max_registers` holds from compute capability 9.0 on: there the cap makes no spills. Of `blocks` a multiprocessor is
    to have room for so many: without the number the compiler reckons with the largest blocks, and spares registers. If
    they are `tight`, that is so on Hopper, and elsewhere, where it would make spills, one is enough. `shared_bytes` are
    dynamic.
    """

    name: str
    kernel: Any
    signature: Any
    threads: int
    max_registers: int | None = None
    arithmetic: str = "float32"
    expects: frozenset[str] = frozenset()
    since: tuple[int, int] = (8, 0)
    until: tuple[int, int] = LATER
    shared_bytes: int = 0
    blocks: int | None = None
    tight: bool = False

    def options(self, capability: tuple[int, int]) -> dict[str, Any]:
        """Of the compiler."""
        if self.blocks is not None:
            return {"launch_bounds": (self.threads, 1 if self.tight and capability >= BLACKWELL else self.blocks)}
        cap = self.cap(capability)
        return {} if cap is None else {"max_registers": cap}

    def cap(self, capability: tuple[int, int]) -> int | None:
        return self.max_registers if capability >= HOPPER else None

    def compiled(self) -> Launchable:
        return _compiled(self, current_device())


@cache
def _compiled(kernel: Compilable, device: int) -> Launchable:
    options = kernel.options(compute_capability(device))
    return compiled(kernel.kernel, kernel.signature, kernel.shared_bytes, **options)


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
    items = most_items(map_dtype(dtype, is_complex, True))
    enough = WARPS_A_MULTIPROCESSOR * processors
    channels = batch * dim
    narrow, plain = ITEMSIZE[dtype] == 2, dtype != "float64" and not is_complex
    # with few warps several states at a time, in the registers that are free then
    warps, together, ahead = WARPS, 1, True
    if channels * 8 >= enough * WARP:
        segments = 8
        warps, together = (2 * WARPS, 1) if narrow else (WARPS, 2)
    elif narrow and channels > enough:
        segments, warps, together = 16, 2 * WARPS, 2
    elif channels > enough:
        segments, items, together, ahead = 32, min(items, 8), 2, False
    else:
        segments, warps, together, ahead = 32, 2 * WARPS, 4 if narrow else 2, False
    if state > 64:
        segments = max(segments, 16)
    while segments > 1 and (segments // 2) * items >= length:
        segments //= 2
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
        warps=warps,
        together=gcd(together, state) if plain else 1,
        ahead=ahead,
    )


def rounded_states(state: int) -> int:
    """Kernels are compiled for 16, 32, 64, … states: what is kept for each has that room."""
    return max(16, 1 << (state - 1).bit_length())


@cache
def forward_kernel(
    v: Variant, state: int, borders: bool, capability: tuple[int, int] = (8, 0)
) -> tuple[Variant, Compilable]:
    states = rounded_states(state)
    plainest = v.number == "float32" and v.discretization == "mamba"
    # four states at a time take every register for Hopper of the plainest kernel, of bfloat16, and elsewhere more
    four = plainest and v.dtype == "bfloat16" and not v.packed and HOPPER <= capability < BLACKWELL
    if v.together > 2 and not four:
        v = replace(v, together=2)
    v = fitted(v, lambda w: forward_scan.shared_bytes(w, states, borders), capability)
    if state % v.together:
        v = replace(v, together=1)
    kernel = forward_scan.kernel(v, states, borders)
    name = f"{'borders' if borders else 'forward'} {states} {v}"
    cap = most_registers(v) if plainest and v.ahead else None
    return v, Compilable(
        name, kernel, forward_scan.signature(v), v.threads, cap, v.precision, expectations(v, not v.ahead),
        *capabilities(forward_scan.shared_bytes(v, states, borders), v.together > 2),
    )  # fmt: skip


def most_registers(v: Variant) -> int | None:
    """Of the plainest way forward: a multiprocessor has room for sixteen warps with 128 each, for twelve with 168.

    With few registers more there is one block fewer; eight warps a block with more than 128 are alone anyway.
    """
    if v.together == 1:
        return 128
    return 168 if v.together == 2 and v.dtype == "float32" else None


@cache
def backward_kernel(v: Variant, state: int, capability: tuple[int, int]) -> tuple[Variant, Compilable]:
    states = rounded_states(state)
    # few warps gain more from more of them than from more steps a lane; all but the plainest, and those compiled for
    # other than Hopper, take too many registers
    plain = v.number == "float32" and v.discretization == "mamba" and not v.packed
    fewer = v.segments == WARP or not plain or not HOPPER <= capability < BLACKWELL
    items = max(most_items(v.number) // (2 if fewer else 1), 16 // ITEMSIZE[v.dtype])
    # of a short sequence, no more lanes than have steps
    segments = max(v.segments * v.items // max(items, v.items), 1)
    v = replace(v, segments=segments, items=items, warps=WARPS, together=1, ahead=True)
    v = fitted(v, lambda w: backward_scan.shared_bytes(w, states), capability)
    kernel = backward_scan.kernel(v, states)
    return v, Compilable(
        f"backward {states} {v}",
        kernel,
        backward_scan.signature(v),
        v.threads,
        None,
        v.precision,
        expectations(v, True),
        *capabilities(backward_scan.shared_bytes(v, states), not fewer),
    )


def capabilities(shared_bytes: int, hopper: bool) -> tuple[tuple[int, int], tuple[int, int]]:
    """`since` and `until` of a kernel with so much shared memory, or of Hopper alone."""
    if hopper:
        return HOPPER, BLACKWELL
    return ((8, 0), LATER) if shared_bytes <= SHARED_BYTES else (HOPPER, SMALLER_SHARED)


def most_items(number: str) -> int:
    """Steps a lane, for states of this dtype: what registers hold."""
    return 64 // ITEMSIZE[number]


def expectations(v: Variant, loads_rows: bool) -> frozenset[str]:
    """What the compiled code must have; rows that come asynchronously are copied, not loaded."""
    if not v.aligned:
        return frozenset()
    ex2 = {"ex2"} if v.precision == "float32" else set()
    return frozenset({"wide_shared"} | ({"wide_global"} if loads_rows else set()) | ex2)


def most_shared_bytes(capability: tuple[int, int]) -> int:
    """Bytes of shared memory that a block may take."""
    return HOPPER_SHARED_BYTES if HOPPER <= capability < SMALLER_SHARED else SHARED_BYTES


def fitted(v: Variant, shared_bytes: Callable[[Variant], int], capability: tuple[int, int] = (8, 0)) -> Variant:
    """The variant with as many states staged, steps a lane and warps as shared memory has room for, in this order.

    If one warp is too much, it takes fewer channels and more time.
    """
    most = most_shared_bytes(capability)
    for segments in [s for s in (1, 2, 4, 8, 16, 32) if s >= v.segments]:
        for warps in [w for w in (8, 4, 2, 1) if w <= v.warps]:
            for items in (v.items, v.items // 2):
                for block in (16, 8, 4, 2):
                    block = max(block, v.together)
                    candidate = replace(v, segments=segments, items=items, warps=warps, block=block)
                    if items >= 16 // ITEMSIZE[v.dtype] and shared_bytes(candidate) <= most:
                        return candidate
    raise ValueError(f"no variant has room for its states in {most} bytes of shared memory: {v}")


def by_walking(
    name: str, dtype: str, threads: int, kernel: Any, signature: Any, shared_bytes: int = 0, blocks: int | None = None
) -> Compilable:
    expects = frozenset({"wide_shared", "ex2"} | ({"wide_global"} if dtype == "float32" else set()))
    return Compilable(
        f"walking: {name}, {dtype}", kernel, signature, threads,
        expects=expects, since=HOPPER, until=SMALLER_SHARED if shared_bytes > LEAST_SHARED_BYTES else LATER,
        shared_bytes=shared_bytes, blocks=blocks,
    )  # fmt: skip


@cache
def walking_forward_kernel(dtype: str, warps: int, every: int) -> Compilable:
    name = f"forward{', that saves states' if every else ''}"
    kernel, signature = walking_forward.kernel(dtype, warps, every), walking_forward.signature(dtype)
    blocks = 3 if ITEMSIZE[dtype] == 2 else None
    return by_walking(name, dtype, parts.threads(warps), kernel, signature, blocks=blocks)


@cache
def walking_helped_kernel(dtype: str, team: Team, every: int) -> Compilable:
    name = f"forward, helped by {team.warps}, {team.held} a lane, tiles of {team.steps}"
    name += ", that saves states" if every else ""
    kernel, signature = helped.kernel(dtype, team, every), helped.signature(dtype)
    found = by_walking(name, dtype, team.threads, kernel, signature, team.shared_bytes, team.blocks)
    return replace(found, tight=True)


@cache
def walking_abreast_kernel(dtype: str, band: Band) -> Compilable:
    kernel, signature = abreast.kernel(dtype, band), abreast.signature(dtype)
    name = f"forward, time abreast, {band.channels} channels a block"
    found = by_walking(name, dtype, band.threads, kernel, signature, band.shared_bytes(dtype), 1)
    found = replace(found, expects=frozenset({"wide_shared", "ex2"}))  # all that it reads of time it copies
    return replace(found, until=BLACKWELL) if band == WIDEST else found


@cache
def walking_summary_kernel(dtype: str, ways: summary.Ways, warps: int) -> Compilable:
    kernel, signature, team = summary.kernel(dtype, ways, warps), summary.signature(dtype), ways.team(warps)
    shared = ways.shared_bytes(warps)
    found = by_walking(f"summary, {ways}", dtype, team.threads, kernel, signature, shared, team.blocks)
    return replace(found, tight=True)


@cache
def walking_middles_kernel(dtype: str, warps: int) -> Compilable:
    kernel, signature = middles.kernel(dtype, warps), middles.signature(dtype)
    return by_walking("middles", dtype, parts.threads(warps), kernel, signature)


@cache
def walking_adjoint_kernel(dtype: str, warps: int, saved: bool) -> Compilable:
    name, kernel = f"adjoint{' of saved states' if saved else ''}", adjoint.kernel(dtype, warps, saved)
    return by_walking(name, dtype, parts.threads(warps), kernel, adjoint.signature(dtype), adjoint.shared_bytes(warps))


@cache
def walking_carry_kernel() -> Compilable:
    return Compilable(
        "walking: carry", carry.kernel(), carry.signature(), carry.THREADS,
        expects=frozenset({"ex2"}), since=HOPPER,
    )  # fmt: skip


@cache
def sum_kernel(shares: str, narrow: str, aligned: bool, early: bool) -> Compilable:
    arithmetic = "float64" if shares in ("float64", "complex128") else "float32"
    kernel = sums.kernel(shares, narrow, aligned, early)
    name = f"sums {shares} {narrow}{'' if aligned else ', one by one'}{', early' if early else ''}"
    since = HOPPER if early else (8, 0)
    return Compilable(name, kernel, sums.signature(shares, narrow), sums.THREADS, None, arithmetic, since=since)
