"""One step of the scan, for decoding: a thread for each channel goes through its states, and leaves the new in place.

Every array has a dtype of its own: models keep weights, inputs and states in different ones, and a copy of any would
take as long as the step.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple, no_type_check

from ssm_kernels._target import cuda, types
from ssm_kernels.arithmetic import arithmetic
from ssm_kernels.choosing import Compilable
from ssm_kernels.description import Buffer, either
from ssm_kernels.intrinsics import access, pointer
from ssm_kernels.unrolling import unrolled
from ssm_kernels.variant import HAS_BIAS, HAS_D, HAS_Z, SOFTPLUS

THREADS = 64  # few: a batch of one has some thousand channels, and 132 multiprocessors want some each
NAMES = ("h", "u", "delta", "A", "B", "C", "D", "z", "delta_bias")


class Operand(NamedTuple):
    """An array, and how many elements lie between two entries of the batch, and two groups; the last axis is dense."""

    buffer: Buffer
    dtype: str
    row: int = 0
    group: int = 0


class Sizes(NamedTuple):
    batch: int
    dim: int
    state: int
    group_B: int
    group_C: int


def signature(dtypes: tuple[str, ...]) -> Any:
    """Of arrays of these dtypes, by :data:`NAMES`, and of y, which has u's."""
    return types.void(*map(pointer, (*dtypes, dtypes[1])), *(types.int64,) * 13)


@no_type_check
@cache
def kernel(dtypes: tuple[str, ...]) -> Any:
    """h ← e^{ΔA} h + Δ B u and y = C h + D u, behind the gate."""
    precision = "float64" if dtypes[1] == "float64" else "float32"
    F = arithmetic(precision, dtypes[3].startswith("complex"))
    softplus, sigmoid, decay, prepared, re = F.softplus, F.sigmoid, F.decay, F.prepared, F.re
    real, number, COMPLEX = F.real, F.number, F.number is not F.real
    ZERO, TWO = real(0), real(2)
    load_h, load_u, load_delta, load_A, load_B, load_C, load_D, load_z, load_bias = (access(x).load for x in dtypes)
    store_h, store_y = access(dtypes[0]).store, access(dtypes[1]).store

    @unrolled
    def step(
        h_, u_, delta_, A, B, C, D, z, delta_bias, y_,
        options, batch, dim, state, per_group_B, per_group_C, row_u, row_delta, row_z, row_B, group_B, row_C, group_C,
    ):  # fmt: skip
        i = types.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if i >= batch * dim:
            return
        b = i // dim
        d = i - b * dim
        u = real(load_u(u_, b * row_u + d))
        delta = real(load_delta(delta_, b * row_delta + d))
        if options & HAS_BIAS:
            delta += real(load_bias(delta_bias, d))
        if options & SOFTPLUS:
            delta = softplus(delta)
        at_B, at_C = b * row_B + d // per_group_B * group_B, b * row_C + d // per_group_C * group_C
        y = ZERO
        for n in range(state):
            h = decay(delta, prepared(number(load_A(A, d * state + n)))) * number(load_h(h_, i * state + n))
            h += delta * u * number(load_B(B, at_B + n))
            store_h(h_, i * state + n, h)
            read_out = number(load_C(C, at_C + n)) * h
            y += TWO * re(read_out) if COMPLEX else read_out
        if options & HAS_D:
            y += real(load_D(D, d)) * u
        if options & HAS_Z:
            gate = real(load_z(z, b * row_z + d))
            y = y * (gate * sigmoid(gate))
        store_y(y_, i, y)

    return step


@cache
def step_kernel(dtypes: tuple[str, ...]) -> Compilable:
    precision = "float64" if dtypes[1] == "float64" else "float32"
    expects = frozenset({"ex2"} if precision == "float32" else set())
    return Compilable(f"step {' '.join(dtypes)}", kernel(dtypes), signature(dtypes), THREADS, None, precision, expects)


@no_type_check
def step(sizes: Sizes, operands: dict[str, Operand], y: Buffer, delta_softplus: bool, *, stream: Any) -> None:
    """y, and the state after the step in place of the one before, on the stream.

    D, z and delta_bias may be absent.
    """
    u = operands["u"]
    found = {name: operands.get(name) for name in NAMES}
    # what is absent has the dtype of an array that is there, so that fewer kernels are compiled
    alike = {"D": operands["A"].dtype.replace("complex64", "float32").replace("complex128", "float64")}
    alike |= {"z": u.dtype, "delta_bias": alike["D"]}
    dtypes = tuple(x.dtype if x is not None else alike[name] for name, x in found.items())
    has = (("D", HAS_D), ("z", HAS_Z), ("delta_bias", HAS_BIAS))
    options = sum(bit for name, bit in has if found[name] is not None) + (SOFTPLUS if delta_softplus else 0)
    B, C = operands["B"], operands["C"]
    grid = (-(-sizes.batch * sizes.dim // THREADS), 1, 1)
    step_kernel(dtypes).compiled()(grid, (THREADS, 1, 1), stream, (
        *(either(None if x is None else x.buffer, u.buffer) for x in found.values()), y,
        options, sizes.batch, sizes.dim, sizes.state, sizes.dim // sizes.group_B, sizes.dim // sizes.group_C,
        u.row, operands["delta"].row, 0 if found["z"] is None else found["z"].row, B.row, B.group, C.row, C.group,
    ))  # fmt: skip
