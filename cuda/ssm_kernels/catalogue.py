"""The production kernels that are compiled to be looked at: few, and every option and table row in one of them.

Each is what a launch would compile, chosen by shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

from ssm_kernels import choosing, decoding
from ssm_kernels.choosing import HOPPER, Compilable
from ssm_kernels.intrinsics import ITEMSIZE
from ssm_kernels.variant import Variant
from ssm_kernels.walking.bands import BANDS
from ssm_kernels.walking.parts import SHORT, WARPS, saved_every
from ssm_kernels.walking.summary import Ways
from ssm_kernels.walking.teams import H100, teams_for

ORDINARY: dict[str, Any] = {
    "batch": 8, "dim": 2048, "length": 2048, "state": 16, "dtype": "float32", "is_complex": False,
    "discretization": "mamba", "constant_B": False, "constant_C": False, "complex_B": False, "complex_C": False,
    "packed": False, "aligned": True, "processors": H100,
}  # fmt: skip
FEWER, FEW = {"batch": 1, "dim": 2560}, {"batch": 1, "dim": 512}  # than the ORDINARY channels
COMPLEX = {"is_complex": True, "complex_B": True, "complex_C": True}
CONSTANT = {"constant_B": True, "constant_C": True}
BEFORE_HOPPER = {"capability": (8, 0)}  # where blocks have less shared memory
ON_BLACKWELL = {"capability": choosing.BLACKWELL}

FORWARD: dict[str, dict[str, Any]] = {
    "float32": {},
    "float32, before Hopper": BEFORE_HOPPER,
    "float32, fewer channels": FEWER,
    "float32, few channels": FEW,
    "float32, few channels, before Hopper": FEW | BEFORE_HOPPER,
    "float32, 40 steps": {"length": 40},
    "bfloat16, zoh": {"dtype": "bfloat16", "discretization": "zoh"},
    "bfloat16, before Hopper": BEFORE_HOPPER | {"dtype": "bfloat16"},
    "bfloat16, fewer channels": FEWER | {"dtype": "bfloat16"},
    "float16, fewer channels, before Hopper": FEWER | BEFORE_HOPPER | {"dtype": "float16"},
    "bfloat16, few channels": FEW | {"dtype": "bfloat16"},
    "bfloat16, few channels, on Blackwell": FEW | ON_BLACKWELL | {"dtype": "bfloat16"},
    "float16, few channels, packed, before Hopper": FEW | BEFORE_HOPPER | {"dtype": "float16", "packed": True},
    "complex64": FEWER | COMPLEX,
    "float64, bilinear, constant maps": CONSTANT | {"dtype": "float64", "discretization": "bilinear"},
    "float32, 256 states, not aligned": FEW | {"state": 256, "aligned": False},
}
BORDERS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float32, before Hopper": BEFORE_HOPPER,
    "bfloat16, fewer channels": FEWER | {"dtype": "bfloat16"},
    "bfloat16, packed, constant B": FEW | {"dtype": "bfloat16", "packed": True, "constant_B": True},
}
BACKWARD: dict[str, dict[str, Any]] = {
    "float32": {},
    "float32, before Hopper": BEFORE_HOPPER,
    "float32, few channels": FEW,
    "float32, few channels, before Hopper": FEW | BEFORE_HOPPER,
    "bfloat16": {"dtype": "bfloat16"},
    "bfloat16, zoh, packed": {"dtype": "bfloat16", "discretization": "zoh", "packed": True},
    "bfloat16, fewer channels": FEWER | {"dtype": "bfloat16"},
    "float16, fewer channels, before Hopper": FEWER | BEFORE_HOPPER | {"dtype": "float16"},
    "float16, not aligned, before Hopper": FEW | BEFORE_HOPPER | {"dtype": "float16", "aligned": False},
    "float32, 64 states, constant C": FEWER | {"state": 64, "constant_C": True},
    "complex64, bilinear": COMPLEX | {"discretization": "bilinear"},
    "complex128, real maps, 256 states": BEFORE_HOPPER | {"dtype": "float64", "is_complex": True, "state": 256},
    "float64": {"dtype": "float64"},
}
WALKING = ("float32", "bfloat16")
# of a step's arrays, by ssm_kernels.decoding.NAMES: a model in float32, one in bfloat16 but for its A, and complex A
STEPS: list[tuple[str, ...]] = [
    ("float32",) * 9,
    ("float32", "bfloat16", "bfloat16", "float32", *("bfloat16",) * 5),
    ("complex64", "float32", "float32", "complex64", "float32", "complex64", *("float32",) * 3),
]
SUMS = [
    ("float32", "bfloat16", True, False),
    ("float32", "bfloat16", True, True),
    ("complex128", "complex128", False, False),
]


def variants() -> Iterator[Compilable]:
    """The kernels, each with a short name."""
    for _, _, kernel in entries():
        yield kernel


def entries() -> Iterator[tuple[str, Variant | None, Compilable]]:
    """(kind, its variant if it has one, the kernel with a short name)."""
    for kind, table in (("forward", FORWARD), ("borders", BORDERS), ("backward", BACKWARD)):
        for title, given in table.items():
            options, capability = split(given)
            v, state = choosing.choose(**ORDINARY | options), (ORDINARY | options)["state"]
            if kind != "forward":
                v, kernel = choosing.backward_kernel(v, state, capability)
            if kind != "backward":  # borders with the tile of the adjoint that reads them
                v, kernel = choosing.forward_kernel(v, state, kind == "borders", capability)
            yield kind, v, replace(kernel, name=f"{kind}: {title}, {v.segments} segments")
    for kernel in by_walking():
        yield "walking", None, kernel
    for dtypes in STEPS:
        yield "step", None, decoding.step_kernel(dtypes)
    for shares, narrow, aligned, early in SUMS:
        yield "sums", None, choosing.sum_kernel(shares, narrow, aligned, early)


def by_walking() -> Iterator[Compilable]:
    for dtype in WALKING:
        for every in (0, saved_every(dtype)):
            yield choosing.walking_forward_kernel(dtype, WARPS, every)
        for team, every in product(teams_for(ITEMSIZE[dtype]), (0, saved_every(dtype))):
            yield choosing.walking_helped_kernel(dtype, team, every)
        for band in BANDS:
            yield choosing.walking_abreast_kernel(dtype, band)
        for ways in (Ways(), Ways(bordered=True), Ways(back=True, bordered=True)):
            yield choosing.walking_summary_kernel(dtype, ways, WARPS)
        if saved_every(dtype) == SHORT.steps:  # of these states are saved in chunks too
            yield choosing.walking_summary_kernel(dtype, Ways(forth=False, back=True), WARPS)
        else:
            yield choosing.walking_middles_kernel(dtype, WARPS)
        for saved in (False, True):
            yield choosing.walking_adjoint_kernel(dtype, WARPS, saved)
    yield choosing.walking_carry_kernel()


def split(given: dict[str, Any]) -> tuple[dict[str, Any], tuple[int, int]]:
    """Options, and the compute capability for which the kernel is chosen."""
    return {name: value for name, value in given.items() if name != "capability"}, given.get("capability", HOPPER)
