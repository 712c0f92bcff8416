"""Rung 7: the production kernel. What was learnt on the way down here, and nothing waits for memory any more.

    lane = segment · channels + channel        32 lanes of a warp: channels by segments of time
    segment    │ Δ Δ Δ … Δ │ Δ Δ Δ … Δ │ …     I steps a lane, in registers (rungs 2 and 5)
    state n    h ─→ h      h ─→ h              each lane by itself, from zero
    shuffles        └─ exp(A ΣΔ) h ─┘          ends of segments, by the summary of rung 6
    state n    y += C h    y += C h            again, from the state that the segment begins with

B and C of a block's channels lie in shared memory (rung 3), and the next block of states, and the next tile's u and Δ,
are copied there while this one is scanned. An exponential is two instructions, a load is 16 bytes, Ā stays in a
register between the two passes, and how many channels, segments and steps there are goes by shape
(:mod:`ssm_kernels.choosing`).

With N states, K channels a block, S segments of I steps, per (b, d, t): bytes 4 (4 + 2N/K), exponentials N + 2 + N/I,
FLOPs N (8 + (3 log₂S − 2 + 5/S)/I) + 30, within some hundredths.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, no_type_check

import numpy as np

from ssm_kernels import catalogue, choosing, segments
from ssm_kernels._target import SIMULATED, cuda
from ssm_kernels.description import Allocate, Scan, variant_of
from ssm_kernels.ladder import Rung, Sizes, check


@no_type_check
def buffer(name: str, array: Any) -> Any:
    """What the kernel takes for an array: where its elements lie, or in the simulator these elements.

    Raises:
        ValueError: they are not in C order.
    """
    if SIMULATED:
        array = getattr(array, "value", array)  # cuda.In, Out and InOut wrap it
        array = getattr(array, "_ary", array)
        flat = array.reshape(-1)
        if np.may_share_memory(flat, array):
            return flat
        strides = array.strides
    else:
        interface = array.__cuda_array_interface__
        strides = interface.get("strides")
        if strides is None:
            return interface["data"][0]
    raise ValueError(f"{name} has strides {strides}, expected a C-contiguous array of shape {tuple(array.shape)}")


@no_type_check
def buffers(arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: buffer(name, array) for name, array in arrays.items()}


@no_type_check
def described(sizes: Sizes, inputs: dict[str, Any]) -> Scan:
    """The ladder's layer as the production kernels are told of it."""
    return Scan(
        **sizes._asdict(), **buffers(inputs), dtype="float32", is_complex=False, group_B=1, group_C=1,
        complex_B=False, complex_C=False, delta_softplus=True, discretization="mamba", initial_state=None,
        seq_idx=None,
    )  # fmt: skip


@no_type_check
def allocator(kept: list[Any]) -> Allocate:
    """Scratch memory, which `kept` keeps."""

    def allocate(shape: tuple[int, ...], dtype: str) -> Any:
        kept.append(cuda.device_array((math.prod(shape),), np.dtype(dtype)))
        return buffer("scratch memory", kept[-1])

    return allocate


@no_type_check
def launch(u, delta, A, B, C, D, z, delta_bias, y, *, stream=0):
    """y of the layer; takes scratch memory for the last state."""
    inputs = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z, "delta_bias": delta_bias}
    sizes, to, kept = check(**inputs, y=y), buffer("y", y), []
    given = described(sizes, inputs)
    segments.forward(given, variant_of(given, to), to, None, stream, allocator(kept))


@cache
def variant(batch: int, dim: int, length: int, state: int) -> Any:
    """What an H100 is given for a shape."""
    v = choosing.choose(**catalogue.ORDINARY | {"batch": batch, "dim": dim, "length": length, "state": state})
    return choosing.forward_kernel(v, state, False)[0]


def of_a_launch(count: Callable[[Any, int], float]) -> Callable[[int, int, int, int], float]:
    """The count of a launch from that of one (b, d, t) in this variant with so many states."""
    return lambda batch, dim, length, state: batch * dim * length * count(variant(batch, dim, length, state), state)


def scanned(v: Any) -> float:
    """FLOPs of a state and step in the scan over segments: who has one before them compose, the first one starts."""
    return (1 + 3 * (math.log2(v.segments) - 1 + 1 / v.segments) + 2 / v.segments) / v.items


RUNG = Rung(
    number="7",
    title="production",
    idea="Lanes are channels by segments of time, chosen by shape, and every load is under way before it is needed.",
    launch=launch,
    bytes=of_a_launch(lambda v, N: 4 * (4 + 2 * N / (v.channels * v.warps))),
    exponentials=of_a_launch(lambda v, N: N + 2 + N / v.items),
    flops=of_a_launch(lambda v, N: N * (8 + scanned(v)) + 28),
    chunk=variant(8, 2048, 2048, 16).tile,
)
