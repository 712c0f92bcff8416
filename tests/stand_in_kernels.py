"""The kernels' interface on any machine: the reference, on the flat buffers that a kernel would get."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ssm_edu.selective import reference
from ssm_edu.selective.problem import PRECISIONS, Problem
from ssm_edu.selective.reference import Gradients

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Scan:
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
    u: Any
    delta: Any
    A: Any
    B: Any
    C: Any
    D: Any
    z: Any
    delta_bias: Any
    initial_state: Any
    seq_idx: Any

    @property
    def layouts(self) -> dict[str, tuple[Shape, str]]:
        """The shape and dtype of each array."""
        real = PRECISIONS[self.dtype]
        complex_ = {"float32": "complex64", "float64": "complex128"}[real]
        along, states = (self.batch, self.dim, self.length), (self.batch, self.dim, self.state)
        spectrum = complex_ if self.is_complex else real

        def map_(group: int | None, is_complex: bool) -> tuple[Shape, str]:
            if group is None:
                return (self.dim, self.state), complex_ if is_complex else real
            return (self.batch, group, self.state, self.length), complex_ if is_complex else self.dtype

        return {
            "u": (along, self.dtype),
            "delta": (along, self.dtype),
            "A": ((self.dim, self.state), spectrum),
            "B": map_(self.group_B, self.complex_B),
            "C": map_(self.group_C, self.complex_C),
            "D": ((self.dim,), real),
            "z": (along, self.dtype),
            "delta_bias": ((self.dim,), real),
            "initial_state": (states, spectrum),
            "seq_idx": ((self.batch, self.length), "int32"),
            "last_state": (states, spectrum),
        }

    @property
    def problem(self) -> Problem:
        arrays: dict[str, Any] = {
            name: read(getattr(self, name), *self.layouts[name])
            for name in (*Gradients._fields, "seq_idx")
            if getattr(self, name) is not None
        }
        for name in ("D", "z", "delta_bias", "initial_state", "seq_idx"):
            arrays.setdefault(name, None)
        return Problem(**arrays, delta_softplus=self.delta_softplus, discretization=self.discretization)


def elements(buffer: Any, shape: Shape, dtype: str) -> np.ndarray:
    """What a buffer holds, narrow floats as bits; a view."""
    bits = np.dtype("uint16" if dtype in ("float16", "bfloat16") else dtype)
    if isinstance(buffer, np.ndarray):
        assert (buffer.shape, buffer.dtype) == ((prod(shape),), bits)
        assert buffer.flags.c_contiguous
        return buffer.reshape(shape)
    raw = (ctypes.c_uint8 * (prod(shape) * bits.itemsize)).from_address(buffer)
    return np.frombuffer(raw, bits).reshape(shape)


def read(buffer: Any, shape: Shape, dtype: str) -> np.ndarray:
    """A copy in double precision; integers as they are."""
    found = elements(buffer, shape, dtype)
    if dtype == "bfloat16":
        found = (found.astype(np.uint32) << 16).view(np.float32)
    elif dtype == "float16":
        found = found.view(np.float16)
    return found.copy() if found.dtype.kind in "iu" else found.astype(np.promote_types(found.dtype, np.float64))


def write(array: np.ndarray, buffer: Any, dtype: str) -> None:
    target = elements(buffer, array.shape, dtype)
    with np.errstate(over="ignore"):
        target[...] = bfloat16_bits(array) if dtype == "bfloat16" else array.astype(dtype).view(target.dtype)


def bfloat16_bits(array: np.ndarray) -> np.ndarray:
    """The nearest numbers of bfloat16, ties to even, by their bits."""
    wide = array.astype(np.float32).view(np.uint32)
    return np.where(np.isnan(array), 0x7FC0, (wide + 0x7FFF + (wide >> 16 & 1)) >> 16).astype(np.uint16)


calls: list[Any] = []  # the streams of all launches


def saved_shape(scan: Scan) -> Shape | None:
    return (2, scan.batch, scan.dim) if scan.dtype == "float32" else None


def forward(
    scan: Scan, y: Any, last_state: Any, *, stream: Any, allocate: Callable[..., Any], saved: Any = None
) -> None:
    calls.append(stream)
    if saved is not None:
        elements(saved, (2, scan.batch, scan.dim), "float32")[...] = 7
    elements(allocate((3, 5), scan.dtype), (3, 5), scan.dtype)[...] = 1
    exact, exact_last = reference.selective_scan(scan.problem)
    write(exact, y, scan.dtype)
    if last_state is not None:
        write(exact_last, last_state, scan.layouts["last_state"][1])


def backward(
    scan: Scan,
    grad_y: Any,
    grad_last_state: Any,
    grads: Gradients,
    *,
    stream: Any,
    allocate: Callable[..., Any],
    saved: Any = None,
) -> None:
    calls.append(stream)
    if saved is not None:
        assert (elements(saved, (2, scan.batch, scan.dim), "float32") == 7).all()
        calls.append("saved states")
    last = None if grad_last_state is None else read(grad_last_state, *scan.layouts["last_state"])
    exact = reference.selective_scan_backward(scan.problem, read(grad_y, *scan.layouts["u"]), last)
    for name, gradient in exact._asdict().items():
        assert (gradient is None) == (getattr(grads, name) is None), name
        if gradient is not None:
            write(gradient, getattr(grads, name), scan.layouts[name][1])
