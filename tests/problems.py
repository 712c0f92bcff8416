"""Random selective scans for the tests, as keyword arguments of `selective_scan`."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ssm_edu.selective.problem import DISCRETIZATIONS

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"  # when tests draw as much as they can
GRID_LENGTHS = (8, 16, 32, 64, 128, 256, 372, 512, 784, 1024, 1134, 2048, 4096)
GRID_TOLERANCES = {"float32": (6e-4, 2e-3), "float16": (3e-3, 5e-3)}


def precision_of(dtype: str, is_complex: bool = False) -> np.dtype:
    """The parameters' dtype beside an input dtype."""
    return np.promote_types(dtype, np.complex64 if is_complex else np.float32)


def random_arguments(
    seed: int,
    *,
    batch: int = 2,
    dim: int = 4,
    length: int = 5,
    state: int = 3,
    groups_B: int | None = 1,
    groups_C: int | None = 1,
    is_complex: bool = False,
    complex_maps: bool = True,
    D: bool = True,
    z: bool = True,
    delta_bias: bool = True,
    delta_softplus: bool = True,
    initial_state: bool = True,
    packed: bool = False,
    discretization: str = "mamba",
    dtype: str = "float64",
) -> dict[str, Any]:
    """Every array of a scan, standard normal but for A in −(0.2, 2) ± 2i and Δ > 0; groups None is a constant map."""
    rng = np.random.default_rng(seed)
    parameter, states = precision_of(dtype), precision_of(dtype, is_complex)

    def normal(shape: tuple[int, ...], complex_: bool = False) -> np.ndarray:
        return rng.normal(size=shape) + (1j * rng.normal(size=shape) if complex_ else 0)

    def map_(groups: int | None) -> np.ndarray:
        complex_ = is_complex and complex_maps
        constant = groups is None
        array = normal((dim, state) if constant else (batch, groups, state, length), complex_)
        return array.astype(precision_of(dtype, True) if complex_ else parameter if constant else dtype)

    A = -rng.uniform(0.2, 2, (dim, state)) + (1j * rng.uniform(-2, 2, (dim, state)) if is_complex else 0)
    delta = normal((batch, dim, length)) if delta_softplus else rng.uniform(0.3, 1, (batch, dim, length))
    arguments: dict[str, Any] = {
        "u": normal((batch, dim, length)).astype(dtype),
        "delta": delta.astype(dtype),
        "A": A.astype(states),
        "B": map_(groups_B),
        "C": map_(groups_C),
    }
    if D:
        arguments["D"] = normal((dim,)).astype(parameter)
    if z:
        arguments["z"] = normal((batch, dim, length)).astype(dtype)
    if delta_bias:
        arguments["delta_bias"] = rng.uniform(-0.2, 0.5, dim).astype(parameter)
    if initial_state:
        arguments["initial_state"] = normal((batch, dim, state), is_complex).astype(states)
    if packed:
        arguments["seq_idx"] = np.sort(rng.integers(0, 3, (batch, length)), axis=1)
    return arguments | {"delta_softplus": delta_softplus, "discretization": discretization}


@st.composite
def arguments(draw: st.DrawFn, max_length: int = 7, **fixed: Any) -> dict[str, Any]:
    """Scans of every size and with every option; `fixed` takes options out of the draw."""
    dim = draw(st.sampled_from([4, 1, 2, 6]))
    groups = st.sampled_from([g for g in (1, 2, 3, None) if g is None or dim % g == 0])
    options = {
        name: draw(st.booleans())
        for name in ("complex_maps", "D", "z", "delta_bias", "delta_softplus", "initial_state", "packed", "is_complex")
    }
    sizes = {
        "batch": draw(st.integers(1, 2)),
        "dim": dim,
        "length": draw(st.integers(1, max_length)),
        "state": draw(st.integers(1, 4)),
        "groups_B": draw(groups),
        "groups_C": draw(groups),
        "discretization": draw(st.sampled_from(DISCRETIZATIONS)),
    }
    return random_arguments(draw(st.integers(0, 2**32 - 1)), **(options | sizes | fixed))


def grid_arguments(
    length: int,
    *,
    dtype: str = "float32",
    is_complex: bool = False,
    delta_bias: bool = True,
    delta_softplus: bool = True,
    z: bool = True,
    D: bool = True,
    variable_B: bool = True,
    variable_C: bool = True,
    groups: int = 1,
) -> dict[str, Any]:
    """A point of the grid on which mamba_ssm tests its own kernel: batch 2, dim 4, state 8."""
    rng = np.random.default_rng(0)
    batch, dim, state = 2, 4, 8
    parameter, states = precision_of(dtype), precision_of(dtype, is_complex)

    def map_(variable: bool) -> np.ndarray:
        shape = (batch, groups, state, length) if variable else (dim, state)
        array = rng.normal(size=shape) + (1j * rng.normal(size=shape) if is_complex else 0)
        return array.astype(states if is_complex else dtype if variable else parameter)

    A = -0.5 * rng.random((dim, state)) + (0.5j * rng.normal(size=(dim, state)) if is_complex else 0)
    arguments: dict[str, Any] = {
        "u": rng.normal(size=(batch, dim, length)).astype(dtype),
        "delta": (0.5 * rng.random((batch, dim, length))).astype(dtype),
        "A": A.astype(states),
        "B": map_(variable_B),
        "C": map_(variable_C),
    }
    if D:
        arguments["D"] = rng.normal(size=dim).astype(parameter)
    if z:
        arguments["z"] = rng.normal(size=(batch, dim, length)).astype(dtype)
    if delta_bias:
        arguments["delta_bias"] = (0.5 * rng.random(dim)).astype(parameter)
    return arguments | {"delta_softplus": delta_softplus}


@st.composite
def grid(draw: st.DrawFn, max_length: int = 4096) -> dict[str, Any]:
    """Points of :func:`grid_arguments`."""
    switches = ("is_complex", "delta_bias", "delta_softplus", "z", "D", "variable_B", "variable_C")
    options = {name: draw(st.booleans()) for name in switches}
    both = options["variable_B"] and options["variable_C"]
    return grid_arguments(
        draw(st.sampled_from([length for length in GRID_LENGTHS if length <= max_length])),
        dtype=draw(st.sampled_from(sorted(GRID_TOLERANCES))),
        groups=draw(st.sampled_from([1, 2] if both else [1])),
        **options,
    )
