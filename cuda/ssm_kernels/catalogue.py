"""The production kernels that are compiled to be looked at: few, and every option and table row in one of them.

Each is what a launch would compile, chosen by shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ssm_kernels import scan
from ssm_kernels.scan import Compilable

H100 = 132  # its multiprocessors
ORDINARY: dict[str, Any] = {
    "batch": 8, "dim": 2048, "length": 2048, "state": 16, "dtype": "float32", "is_complex": False,
    "discretization": "mamba", "constant_B": False, "constant_C": False, "complex_B": False, "complex_C": False,
    "packed": False, "aligned": True, "processors": H100,
}  # fmt: skip
FEWER, FEW = {"batch": 1, "dim": 2560}, {"batch": 1, "dim": 512}  # than the ORDINARY channels
COMPLEX = {"is_complex": True, "complex_B": True, "complex_C": True}
CONSTANT = {"constant_B": True, "constant_C": True}

FORWARD: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16, zoh": {"dtype": "bfloat16", "discretization": "zoh"},
    "float16, packed": FEW | {"dtype": "float16", "packed": True},
    "complex64": FEWER | COMPLEX,
    "float64, bilinear, constant maps": CONSTANT | {"dtype": "float64", "discretization": "bilinear"},
    "float32, 256 states, not aligned": FEW | {"state": 256, "aligned": False},
}
BORDERS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16, packed, constant B": FEW | {"dtype": "bfloat16", "packed": True, "constant_B": True},
}
BEFORE_HOPPER = (8, 0)
BACKWARD: dict[str, dict[str, Any]] = {
    "float32": {},
    "float32, before Hopper": {"capability": BEFORE_HOPPER},
    "bfloat16, zoh, packed": {"dtype": "bfloat16", "discretization": "zoh", "packed": True},
    "float16, not aligned": FEW | {"dtype": "float16", "aligned": False},
    "float32, 64 states, constant C": FEWER | {"state": 64, "constant_C": True},
    "complex64, bilinear": COMPLEX | {"discretization": "bilinear"},
    "complex128, real maps, 256 states": {"dtype": "float64", "is_complex": True, "state": 256},
    "float64": {"dtype": "float64"},
}
SUMS = [("float32", "bfloat16", True), ("complex128", "complex128", False)]


def variants() -> Iterator[Compilable]:
    """The kernels, each with a short name."""
    for title, options in FORWARD.items():
        yield _named("forward", title, *_forward(options, False))
    for title, options in BORDERS.items():
        yield _named("borders", title, *_forward(options, True))
    for title, options in BACKWARD.items():
        options, capability = dict(options), options.get("capability", scan.HOPPER)
        options.pop("capability", None)
        yield _named("backward", title, *scan.backward_kernel(_chosen(options), _states(options), capability))
    for shares, total, aligned in SUMS:
        yield scan.sum_kernel(shares, total, aligned)


def _chosen(options: dict[str, Any]) -> Any:
    return scan.choose(**ORDINARY | options)


def _states(options: dict[str, Any]) -> int:
    return int((ORDINARY | options)["state"])


def _forward(options: dict[str, Any], borders: bool) -> tuple[Any, Compilable]:
    v = _chosen(options)
    if borders:  # with the tile of the adjoint that reads them
        v, _ = scan.backward_kernel(v, _states(options), scan.HOPPER)
    return scan.forward_kernel(v, _states(options), borders)


def _named(kind: str, title: str, v: Any, kernel: Compilable) -> Compilable:
    return replace(kernel, name=f"{kind}: {title}, {v.segments} segments")
