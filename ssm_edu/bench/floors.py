"""The least time that a selective scan can take on a GPU, from what that GPU was measured to do.

A scan must read its inputs and write its outputs once, and form exp(Δ_t A_n) once for every (batch, dim, length,
state). The first takes bytes over the bandwidth of a copy, the second so many instructions of the unit that takes 2ˣ
of a float32 number; the floor is the larger. Softplus and the gate need a few exponentials more, of which there are
`state` times fewer; they are left out. Nothing is counted for float64, whose exponential is no single instruction.
"""

from __future__ import annotations

from dataclasses import dataclass

from ssm_edu.bench.cases import Case


@dataclass(frozen=True)
class Rates:
    """What a GPU was measured to do in a second.

    Attributes:
        bytes_per_second: of a copy, reads and writes counted.
        exponentials_per_second: of `ex2.approx.ftz.f32`.
    """

    bytes_per_second: float
    exponentials_per_second: float


@dataclass(frozen=True)
class Work:
    """What a selective scan cannot do without: bytes of global memory, and exponentials in float32."""

    bytes: int
    exponentials: int

    def floor(self, rates: Rates) -> float:
        """Seconds."""
        return max(self.bytes / rates.bytes_per_second, self.exponentials / rates.exponentials_per_second)

    def limit(self, rates: Rates) -> str:
        """What the floor is made of."""
        moving = self.bytes / rates.bytes_per_second
        return "bytes" if moving >= self.exponentials / rates.exponentials_per_second else "exponentials"


def work(case: Case, direction: str) -> Work:
    """The adjoint needs no exponential more than the scan: one that keeps Ā in registers uses it for both."""
    has_exponentials = case.dtype != "float64" and case.discretization != "bilinear"
    return Work(case.bytes_moved(direction), case.elements if has_exponentials else 0)
