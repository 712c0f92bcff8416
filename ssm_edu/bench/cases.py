"""The problems on which scans are compared: a layer of Mamba as it is initialised, with random inputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Any

import numpy as np

from ssm_edu.hippo import mamba_A, mamba_delta_bias, s4d_lin
from ssm_edu.selective.problem import INPUT_DTYPES, Problem, check_options, make_problem

IN_TIME = ("u", "delta", "z", "B", "C")


@dataclass(frozen=True)
class Case:
    """A selective scan with D, z, delta_bias and softplus, B and C in one group.

    Attributes:
        batch, dim, length, state: at least 1.
        dtype: of u.
        discretization: `mamba`, `zoh` or `bilinear`.
        is_complex: A, B and C are complex, A = S4D-Lin's; otherwise A = −(1 … state).
        seed: of the inputs.

    Raises:
        TypeError: a size that is no integer.
        ValueError: a size below 1, an unknown dtype or discretization.
    """

    batch: int
    dim: int
    length: int
    state: int
    dtype: str = "float32"
    discretization: str = "mamba"
    is_complex: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch", "dim", "length", "state"):
            size: Any = getattr(self, name)
            if isinstance(size, bool) or not isinstance(size, int):
                raise TypeError(f"{name} is {size!r}, expected an integer of at least 1")
            if size < 1:
                raise ValueError(f"{name} is {size}, expected at least 1")
        if self.dtype not in INPUT_DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}, expected one of {', '.join(INPUT_DTYPES)}")
        check_options(True, self.discretization)

    @property
    def elements(self) -> int:
        """batch · dim · length · state: with an exponential Ā, so many exponentials."""
        return self.batch * self.dim * self.length * self.state

    def bytes_moved(self, direction: str) -> int:
        """u, delta, z, y, B and C, each once; backward, grad_y for y, and the gradients of all five inputs."""
        channels, maps = (4, 2) if direction == "forward" else (7, 4)
        B = self.arguments["B"]
        return channels * self.arguments["u"].nbytes + maps * B.nbytes

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """Of :func:`ssm_edu.selective_scan`, by name."""
        rng = np.random.default_rng(self.seed)
        precision = np.promote_types(self.dtype, np.float32)
        spectrum = np.promote_types(precision, np.complex64) if self.is_complex else precision
        in_time, maps = (self.batch, self.dim, self.length), (self.batch, 1, self.state, self.length)

        def map_() -> np.ndarray:
            if not self.is_complex:
                return rng.normal(size=maps).astype(self.dtype)
            return (rng.normal(size=maps) + 1j * rng.normal(size=maps)).astype(spectrum)

        A = np.tile(s4d_lin(self.state), (self.dim, 1)) if self.is_complex else mamba_A(self.dim, self.state)
        return {
            "u": rng.normal(size=in_time).astype(self.dtype),
            # Mamba draws the rows of Δ's projection from ±rank^−½, uniformly: on unit inputs, a variance of 1/3.
            "delta": (rng.normal(size=in_time) / sqrt(3)).astype(self.dtype),
            "A": A.astype(spectrum),
            "B": map_(),
            "C": map_(),
            "D": np.ones(self.dim, precision),
            "z": rng.normal(size=in_time).astype(self.dtype),
            "delta_bias": mamba_delta_bias(self.dim, rng=rng).astype(precision),
            "delta_softplus": True,
            "discretization": self.discretization,
        }

    @cached_property
    def grad_y(self) -> np.ndarray:
        """The gradient of y, (batch, dim, length)."""
        shape = (self.batch, self.dim, self.length)
        return np.random.default_rng([self.seed, 1]).normal(size=shape).astype(self.dtype)

    @property
    def problem(self) -> Problem:
        return make_problem(**self.arguments)

    def first_steps(self, steps: int) -> Problem:
        """The same problem, ended after so many steps: the scan is causal, and y up to there the same."""
        return make_problem(**{n: v[..., :steps] if n in IN_TIME else v for n, v in self.arguments.items()})
