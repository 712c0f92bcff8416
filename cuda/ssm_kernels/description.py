"""A selective scan on the device, as all launches are told of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import lcm
from typing import Any

from ssm_kernels._target import compute_capability, current_device, multiprocessors
from ssm_kernels.choosing import choose
from ssm_kernels.intrinsics import ITEMSIZE
from ssm_kernels.variant import HAS_BIAS, HAS_D, HAS_Z, SOFTPLUS, STARTS, Variant

Buffer = Any
Allocate = Callable[[tuple[int, ...], str], Buffer]


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


def capability() -> tuple[int, int]:
    return compute_capability(current_device())


def processors() -> int:
    return multiprocessors(current_device())


def variant_of(scan: Scan, *rows: Buffer | None) -> Variant:
    """The variant for a scan, and for further arrays along time."""
    maps = [M for M, group in ((scan.B, scan.group_B), (scan.C, scan.group_C)) if group is not None]
    addresses = [scan.u, scan.delta, scan.z, *maps, *rows]
    aligned = scan.length % (16 // ITEMSIZE[scan.dtype]) == 0
    aligned = aligned and on_16_bytes(*addresses)
    return choose(
        scan.batch, scan.dim, scan.length, scan.state, scan.dtype, scan.is_complex, scan.discretization,
        scan.group_B is None, scan.group_C is None, scan.complex_B, scan.complex_C, scan.seq_idx is not None,
        aligned, processors(),
    )  # fmt: skip


def on_16_bytes(*buffers: Buffer | None) -> bool:
    return all(address % 16 == 0 for address in buffers if isinstance(address, int))


def options_of(scan: Scan, starts: bool) -> int:
    given = (scan.D is not None, scan.z is not None, scan.delta_bias is not None, scan.delta_softplus, starts)
    return sum(bit for bit, has in zip((HAS_D, HAS_Z, HAS_BIAS, SOFTPLUS, STARTS), given, strict=True) if has)


def either(buffer: Buffer | None, nothing: Buffer) -> Buffer:
    return nothing if buffer is None else buffer
