"""What the models of the atlas share: the affine scan they are brought to, and their cards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float, Inexact

from ssm_edu.names import unknown
from ssm_edu.scan import SCANS, Elements, Scan, prefixes

Array: TypeAlias = Inexact[np.ndarray, "..."]
Reals: TypeAlias = Float[np.ndarray, "..."]
Rows: TypeAlias = Inexact[np.ndarray, "length *rest"]
Sequence: TypeAlias = Float[np.ndarray, "length width"]
Token: TypeAlias = Float[np.ndarray, " width"]
Complexity = Literal["L", "L log L", "L²"]


def scan_named(name: str) -> Scan:
    """Raises ValueError where :data:`ssm_edu.scan.SCANS` has no scan of this name."""
    if message := unknown("scan", [name], SCANS, f"the scans are {', '.join(SCANS)}"):
        raise ValueError(message)
    return SCANS[name]


def matrix_combine(second: Elements, first: Elements) -> Elements:
    """(A₂, B₂)∘(A₁, B₁) = (A₂A₁, A₂B₁ + B₂) for matrices; A (..., n, n, length), B (..., n, m, length)."""
    A2, B2 = second
    A1, B1 = first
    return _times(A2, A1), _times(A2, B1) + B2


def _times(A: Array, B: Array) -> Array:
    return np.einsum("...ijt,...jkt->...ikt", A, B)


@dataclass(frozen=True)
class AffineScan:
    """h_t = a_t h_{t−1} + b_t from h_0 = 0, and y = read_out(h_1 … h_L). Time is the last axis of a, b and h.

    a_t and b_t are functions of the last few tokens: of more, and any recurrence could be written so.

    Attributes:
        a: (..., length), a diagonal map, which multiplies entry by entry and broadcasts against b; or, where
            `dense`, (..., n, n, length), a matrix for each step.
        b: (..., length), what each step adds; where `dense`, (..., n, m, length): the state is a matrix, m = 1
            for a vector.
        read_out: from the states, of b's shape, to y (length, width). It may look at x_1 … x_t, but at no state
            other than h_t.
        dense: whether a holds matrices.
    """

    a: Array
    b: Array
    read_out: Callable[[Array], Sequence]
    dense: bool = False

    def states(self, scan: str = "blelloch") -> Array:
        """h_1 … h_L, by the scan of this name in :data:`ssm_edu.scan.SCANS`.

        Raises:
            ValueError: no scan has this name.
        """
        how = scan_named(scan)
        if not self.dense:
            return how.function(self.a, self.b)
        leading = np.broadcast_shapes(self.a.shape[:-3], self.b.shape[:-3])
        a = np.broadcast_to(self.a, leading + self.a.shape[-3:])
        b = np.broadcast_to(self.b, leading + self.b.shape[-3:])
        dtype = np.result_type(a, b)
        return prefixes(how.rounds(b.shape[-1]), (a.astype(dtype), b.astype(dtype)), matrix_combine)[1]

    def outputs(self, scan: str = "blelloch") -> Sequence:
        """y (length, width), from `states`."""
        return self.read_out(self.states(scan))


@dataclass(frozen=True)
class Card:
    """What the table says of a model.

    The three formulas are functions of the model's sizes (the keywords of its `init`) and of `length`, the number
    of tokens before the step; they take what they do not use as `**_`. They are polynomials, so that symbols go in
    as numbers do. A complex number is two numbers.

    Attributes:
        name: the model's.
        paper: a key of :data:`ssm_edu.sources.SOURCES`.
        year: of the paper's first version.
        state_size: numbers that `step` keeps between tokens.
        flops: additions, multiplications, divisions and elementary functions of the step. On complex numbers an
            addition is 2, a product 6, or 2 beside a real number, an exponential 5; a product of matrices is a
            product and an addition for every pair of numbers that meet; signs, maxima, selections and copies are 0.
        memory: numbers that decoding holds, parameters and state; a step reads each of them once.
        time_invariant: whether y is a fixed convolution of x.
        input_dependent_decay: whether what multiplies the state depends on x.
        parallel_form: what `parallel` does, in a few words.
        complexity: how the work of `parallel` grows with the length, all sizes fixed.
    """

    name: str
    paper: str
    year: int
    state_size: Callable[..., Any]
    flops: Callable[..., Any]
    memory: Callable[..., Any]
    time_invariant: bool
    input_dependent_decay: bool
    parallel_form: str
    complexity: Complexity


def linear(rng: np.random.Generator, *shape: int) -> Reals:
    """A weight matrix (..., out, in), normal of variance 1/in: what goes in at size 1 comes out at size 1."""
    return rng.standard_normal(shape) / np.sqrt(shape[-1])


def shift(x: Rows, by: int) -> Rows:
    """x_{t−by}, zero before the beginning."""
    by = min(by, len(x))
    return np.concatenate([np.zeros_like(x[:by]), x[: len(x) - by]])


def tapped(x: Sequence, taps: Float[np.ndarray, "width taps"]) -> Sequence:
    """Σ_j taps_j ⊙ x_{t−j}: a tapped delay line, or short convolution, for each channel."""
    return sum((shift(x, j) * taps[:, j] for j in range(taps.shape[1])), np.zeros_like(x))
