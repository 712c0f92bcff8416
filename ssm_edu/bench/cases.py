"""The problems on which scans are compared: a layer of Mamba as it is initialised, with random inputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod, sqrt
from typing import Any

import numpy as np

from ssm_edu.hippo import mamba_A, mamba_delta_bias, s4d_lin
from ssm_edu.selective.problem import INPUT_DTYPES, Problem, check_options, make_problem

IN_TIME = ("u", "delta", "z", "B", "C")
# So many random numbers are drawn, and repeated: of an odd number, so that no row of a power of two meets itself.
POOL = 2**22 + 1


@dataclass(frozen=True)
class Case:
    """A selective scan with D, z, delta_bias and softplus.

    Attributes:
        batch, dim, length, state: at least 1.
        dtype: of u.
        discretization: `mamba`, `zoh` or `bilinear`.
        is_complex: A, B and C are complex, A = S4D-Lin's; otherwise A = −(1 … state).
        seed: of the inputs.
        group: of B and C; divides dim.
        stored: `bfloat16` beside float32: what varies in time, and its gradients, lie in memory as bfloat16. NumPy
            has no such type: the arguments here are float32, and their numbers bfloat16's.

    Raises:
        TypeError: a size that is no integer.
        ValueError: a size below 1, an unknown dtype or discretization, groups that do not divide dim.
    """

    batch: int
    dim: int
    length: int
    state: int
    dtype: str = "float32"
    discretization: str = "mamba"
    is_complex: bool = False
    seed: int = 0
    group: int = 1
    stored: str | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "dim", "length", "state", "group"):
            size: Any = getattr(self, name)
            if isinstance(size, bool) or not isinstance(size, int):
                raise TypeError(f"{name} is {size!r}, expected an integer of at least 1")
            if size < 1:
                raise ValueError(f"{name} is {size}, expected at least 1")
        if self.dtype not in INPUT_DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}, expected one of {', '.join(INPUT_DTYPES)}")
        if self.dim % self.group:
            raise ValueError(f"group is {self.group}, expected a divisor of dim = {self.dim}")
        if self.stored not in (None, "bfloat16") or (self.stored and (self.dtype != "float32" or self.is_complex)):
            raise ValueError(f"stored is {self.stored!r}, expected None, or 'bfloat16' beside a real float32")
        check_options(True, self.discretization)

    @property
    def format(self) -> str:
        """What u lies in memory as."""
        return self.stored or self.dtype

    @property
    def elements(self) -> int:
        """batch · dim · length · state: with an exponential Ā, so many exponentials."""
        return self.batch * self.dim * self.length * self.state

    def bytes_moved(self, direction: str) -> int:
        """u, delta, z, y, B and C, each once; backward, grad_y for y, and the gradients of all five inputs."""
        channels, maps = (4, 2) if direction == "forward" else (7, 4)
        itemsize = 2 if self.stored else np.dtype(self.dtype).itemsize
        map_size = np.promote_types(self.dtype, np.complex64).itemsize if self.is_complex else itemsize
        steps = self.batch * self.length
        return channels * steps * self.dim * itemsize + maps * steps * self.group * self.state * map_size

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """Of :func:`ssm_edu.selective_scan`, by name."""
        rng = np.random.default_rng(self.seed)
        precision = np.promote_types(self.dtype, np.float32)
        spectrum = np.promote_types(precision, np.complex64) if self.is_complex else precision
        in_time, maps = (self.batch, self.dim, self.length), (self.batch, self.group, self.state, self.length)

        def map_() -> np.ndarray:
            if not self.is_complex:
                return self._normal(rng, maps)
            return np.resize((normal(rng, maps) + 1j * normal(rng, maps)).astype(spectrum), maps)

        A = np.tile(s4d_lin(self.state), (self.dim, 1)) if self.is_complex else mamba_A(self.dim, self.state)
        return {
            "u": self._normal(rng, in_time),
            # Mamba draws the rows of Δ's projection from ±rank^−½, uniformly: on unit inputs, a variance of 1/3.
            "delta": self._normal(rng, in_time, 1 / sqrt(3)),
            "A": A.astype(spectrum),
            "B": map_(),
            "C": map_(),
            "D": np.ones(self.dim, precision),
            "z": self._normal(rng, in_time),
            "delta_bias": mamba_delta_bias(self.dim, rng=rng).astype(precision),
            "delta_softplus": True,
            "discretization": self.discretization,
        }

    @cached_property
    def grad_y(self) -> np.ndarray:
        """The gradient of y, (batch, dim, length)."""
        shape = (self.batch, self.dim, self.length)
        return self._normal(np.random.default_rng([self.seed, 1]), shape)

    def _normal(self, rng: np.random.Generator, shape: tuple[int, ...], deviation: float = 1.0) -> np.ndarray:
        x = (deviation * normal(rng, shape)).astype(self.dtype)
        return np.resize(to_bfloat16(x) if self.stored else x, shape)

    @property
    def problem(self) -> Problem:
        return make_problem(**self.arguments)

    def first_steps(self, steps: int) -> Problem:
        """The same problem, ended after so many steps: the scan is causal, and y up to there the same."""
        return make_problem(**{n: v[..., :steps] if n in IN_TIME else v for n, v in self.arguments.items()})


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers for such an array, flat: all of them, or :data:`POOL` to be repeated."""
    return rng.normal(size=min(POOL, prod(shape)))


def to_bfloat16(x: np.ndarray) -> np.ndarray:
    """Finite float32 numbers rounded to the nearest bfloat16, ties to even, as float32."""
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
