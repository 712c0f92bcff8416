"""The parallel scan: all states of h_t = a_t h_{t-1} + b_t, from an associative product of affine maps.

A step of the recurrence is the map h ↦ a h + b, kept as the pair (a, b). Two steps compose to a third pair
(SCAN-1), composition is associative (SCAN-2), so the product of the first t steps may be bracketed at will. A
scan is a way of bracketing, and here it is data: a list of rounds, in each of which some positions absorb
others. `prefixes` carries the rounds out in any monoid; the rounds never see what they combine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, Inexact, Shaped
from numpy.typing import ArrayLike

from ssm_edu.arrays import numbers, positive_integer

Elements = tuple[Any, ...]
"""A sequence of monoid elements: one array for each component, time on the last axis of all of them."""

Combine = Callable[[Elements, Elements], Elements]
"""combine(second, first): the element that does what `first` does, and then what `second` does."""

Round = tuple[slice, slice]
"""(into, source): position into[i] absorbs position source[i], which lies before it, for all i at once."""

IDENTITY = (1.0, 0.0)
"""The map h ↦ 1·h + 0 (SCAN-4)."""


def combine(second: Elements, first: Elements) -> Elements:
    """(a₂, b₂)∘(a₁, b₁) = (a₂a₁, a₂b₁ + b₂): `first` acts first. Associative (SCAN-2), not commutative (SCAN-6).

    Source: Blelloch 1990; Martin & Cundy 2018.
    """
    a2, b2 = second
    a1, b1 = first
    return a2 * a1, a2 * b1 + b2


def decay_combine(A: Shaped[np.ndarray, "... state"], exp: Callable[[Any], Any] = np.exp) -> Combine:
    """The product of pairs (ΣΔ, b) that stand for h ↦ exp(A ΣΔ) h + b, with A constant in time (SCAN-15).

    ΣΔ has shape (..., length), with no axis for the state: all states share it. b has shape (..., state, length).
    A may hold objects for which `exp` is an elementwise exponential, such as symbols.
    """
    rates = A[..., None]

    def combine_decays(second: Elements, first: Elements) -> Elements:
        sum2, b2 = second
        sum1, b1 = first
        return sum2 + sum1, exp(rates * sum2[..., None, :]) * b1 + b2

    return combine_decays


def sequential_rounds(length: int) -> Iterator[Round]:
    """One step after the other: least work, greatest depth (SCAN-10)."""
    for t in range(1, length):
        yield slice(t, t + 1), slice(t - 1, t)


def hillis_steele_rounds(length: int) -> Iterator[Round]:
    """Every position absorbs the one 1, 2, 4, … places before it: least depth, most work (SCAN-11)."""
    for d in _powers_below(length):
        yield slice(d, length), slice(0, length - d)


def blelloch_rounds(length: int) -> Iterator[Round]:
    """Up a binary tree and down again: linear work at logarithmic depth (SCAN-12).

    This is the inclusive form, whose down-sweep hands prefixes to the right. It wants neither the identity at
    the root nor a length that is a power of two, as Blelloch's exclusive form does.
    """
    powers = _powers_below(length)
    for d in powers:
        yield slice(2 * d - 1, length, 2 * d), slice(d - 1, length, 2 * d)
    for d in reversed(powers):
        yield slice(3 * d - 1, length, 2 * d), slice(2 * d - 1, length, 2 * d)


def chunked_rounds(length: int, chunk: int) -> Iterator[Round]:
    """All chunks side by side; the ends of chunks one by one; each end into the chunk after it (SCAN-13)."""
    chunk = min(chunk, length)
    for j in range(1, chunk):
        yield slice(j, length, chunk), slice(j - 1, length, chunk)
    for end in range(2 * chunk - 1, length, chunk or 1):
        yield slice(end, end + 1), slice(end - chunk, end - chunk + 1)
    for j in range(chunk - 1):
        yield slice(chunk + j, length, chunk), slice(chunk - 1, length, chunk)


def _doublings(length: int) -> int:
    """⌈log₂ length⌉, and 0 for length 0."""
    return max(length - 1, 0).bit_length()


def _powers_below(length: int) -> list[int]:
    return [2**k for k in range(_doublings(length))]


def prefixes(rounds: Iterable[Round], elements: Elements, combine: Combine) -> Elements:
    """The products x_t∘…∘x_1 for t = 1…length, in any monoid, bracketed as `rounds` say (SCAN-9)."""
    x = tuple(component.copy() for component in elements)
    for into, source in rounds:
        second = tuple(component[..., into] for component in x)
        count = second[0].shape[-1]
        first = tuple(component[..., source][..., :count] for component in x)
        for component, value in zip(x, combine(second, first), strict=True):
            component[..., into] = value
    return x


def sequential(
    a: ArrayLike, b: ArrayLike, initial_state: ArrayLike | None = None, *, reverse: bool = False
) -> Inexact[np.ndarray, "... length"]:
    """The states h_1 … h_L of h_t = a_t h_{t-1} + b_t, one after the other.

    All scans of this module take these arguments, and compute the same states up to rounding (`rounding_bound`).
    A scan other than this one multiplies a's with each other, so it is as good as this one only where no such
    product overflows (its states are then infinite or NaN) or underflows before a state large enough to show it.

    Args:
        a: (..., length), float or complex; integers become float64.
        b: (..., length). The leading axes of a, b and initial_state broadcast against each other.
        initial_state: (...), h_0, which a_1 multiplies; zero if left out. Costs one combine more.
        reverse: g_t = a_{t+1} g_{t+1} + b_t instead, down from g_L = initial_state + b_L: the transpose of
            b ↦ h (SCAN-24). Step t uses the *next* a; a_1 is not used.

    Returns:
        (..., length), in the common dtype. A NaN reaches no state before its own step.

    Raises:
        TypeError: a dtype other than float32, float64, complex64, complex128 or integer.
        ValueError: lengths that differ, or leading axes that do not broadcast.
    """
    return _affine_scan(sequential_rounds, a, b, initial_state, reverse)


def hillis_steele(
    a: ArrayLike, b: ArrayLike, initial_state: ArrayLike | None = None, *, reverse: bool = False
) -> Inexact[np.ndarray, "... length"]:
    """`sequential`, by ⌈log₂ L⌉ rounds of up to L combines each. Source: Hillis & Steele 1986."""
    return _affine_scan(hillis_steele_rounds, a, b, initial_state, reverse)


def blelloch(
    a: ArrayLike, b: ArrayLike, initial_state: ArrayLike | None = None, *, reverse: bool = False
) -> Inexact[np.ndarray, "... length"]:
    """`sequential`, by an up-sweep and a down-sweep. Source: Blelloch 1990."""
    return _affine_scan(blelloch_rounds, a, b, initial_state, reverse)


def chunked(
    a: ArrayLike, b: ArrayLike, chunk: int, initial_state: ArrayLike | None = None, *, reverse: bool = False
) -> Inexact[np.ndarray, "... length"]:
    """`sequential`, by local scans of chunks, a scan of their ends, and the carried state (least depth: SCAN-14)."""
    return _affine_scan(partial(chunked_rounds, chunk=positive_integer("chunk", chunk)), a, b, initial_state, reverse)


def chunked_decay(
    delta: ArrayLike,
    A: ArrayLike,
    b: ArrayLike,
    chunk: int,
    initial_state: ArrayLike | None = None,
    *,
    reverse: bool = False,
) -> Inexact[np.ndarray, "... state length"]:
    """`chunked` for Mamba's decay a_t = exp(Δ_t A), with A constant in time: scans (ΣΔ, b) (SCAN-15).

    A chunk's summary is one ΣΔ for all states, and it cannot underflow (SCAN-17).

    Args:
        delta: (..., length), real.
        A: (..., state), the diagonal of the state matrix; real or complex.
        b: (..., state, length). Leading axes (...) broadcast: for Mamba they are (batch, dim), and (dim,) in A.
        chunk: steps in a chunk, at least 1.
        initial_state: (..., state), which exp(Δ_1 A) multiplies; zero if left out.
        reverse: g_t = exp(Δ_{t+1} A) g_{t+1} + b_t, as in `sequential`. Δ_1 is not used.

    Raises:
        TypeError: a complex delta, or a dtype that `sequential` refuses.
        ValueError: lengths or numbers of states that differ, or a chunk below 1.
    """
    rounds = partial(chunked_rounds, chunk=positive_integer("chunk", chunk))
    delta, A, b = _inexact("delta", delta, 1), _inexact("A", A, 1), _inexact("b", b, 2)
    h0 = np.zeros(A.shape[-1:], b.dtype) if initial_state is None else _inexact("initial_state", initial_state, 1)
    if np.iscomplexobj(delta):
        raise TypeError(f"delta has dtype {delta.dtype}; expected real step sizes")
    _agree("length (last axis)", delta=delta.shape[-1], b=b.shape[-1])
    _agree("number of states", A=A.shape[-1], b=b.shape[-2], initial_state=h0.shape[-1])
    leading = _leading(delta=delta.shape[:-1], A=A.shape[:-1], b=b.shape[:-2], initial_state=h0.shape[:-1])
    dtype = np.result_type(delta.dtype, A.dtype, b.dtype, h0.dtype)
    b = np.broadcast_to(b, leading + b.shape[-2:]).astype(dtype)
    delta = delta.astype(np.finfo(dtype).dtype)
    return _states(rounds, decay_combine(A.astype(dtype)), 0.0, delta, b, h0, reverse)


def _affine_scan(
    rounds: Callable[[int], Iterable[Round]], a: Any, b: Any, initial_state: Any, reverse: bool
) -> np.ndarray:
    a, b = _inexact("a", a, 1), _inexact("b", b, 1)
    h0 = np.zeros((), b.dtype) if initial_state is None else _inexact("initial_state", initial_state, 0)
    _agree("length (last axis)", a=a.shape[-1], b=b.shape[-1])
    leading = _leading(a=a.shape[:-1], b=b.shape[:-1], initial_state=h0.shape)
    dtype = np.result_type(a.dtype, b.dtype, h0.dtype)
    b = np.broadcast_to(b, leading + b.shape[-1:]).astype(dtype)
    return _states(rounds, combine, IDENTITY[0], a.astype(dtype), b, h0, reverse)


def _states(
    rounds: Callable[[int], Iterable[Round]],
    combine: Combine,
    unit: float,
    multiplier: np.ndarray,
    b: np.ndarray,
    initial_state: np.ndarray,
    reverse: bool,
) -> np.ndarray:
    """The second component of all prefixes, once the first step has acted on the initial state."""
    length = b.shape[-1]
    if length == 0:
        return b
    if reverse:
        multiplier[..., 0] = unit
        multiplier, b = np.roll(multiplier, -1, axis=-1)[..., ::-1], b[..., ::-1]
    h = np.empty_like(b[..., :1])
    h[...] = initial_state[..., None]
    # As a multiplier, 0 makes the pair the constant map to h (SCAN-8), so no product over t = 1 can overflow;
    # as a ΣΔ it makes the pair "add h". Either way the second component comes out as h_1.
    nothing = np.zeros_like(multiplier[..., :1])
    multiplier[..., :1], b[..., :1] = combine((multiplier[..., :1], b[..., :1]), (nothing, h))
    states = prefixes(rounds(length), (multiplier, b), combine)[1]
    return states[..., ::-1].copy() if reverse else states


def _inexact(name: str, value: Any, ndim: int) -> np.ndarray:
    array = numbers(name, value)
    if array.ndim < ndim:
        raise ValueError(f"{name} has shape {array.shape}; expected at least {ndim} ax{'ei'[ndim < 2]}s")
    return array


def _agree(what: str, **sizes: int) -> None:
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{size} in {name}" for name, size in sizes.items())
        raise ValueError(f"the {what} must agree; found {found}")


def _leading(**shapes: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(*shapes.values())
    except ValueError:
        found = ", ".join(f"{shape} in {name}" for name, shape in shapes.items())
        raise ValueError(f"the leading axes must broadcast; found {found}") from None


def rounding_bound(
    a: ArrayLike, b: ArrayLike, initial_state: ArrayLike | None = None, *, reverse: bool = False
) -> Float[np.ndarray, "... length"]:
    """How far the states of any scan of (a, b) can lie from the exact ones; two scans, twice as far (SCAN-20).

    γ_{kt} Σ_s |a_t…a_{s+1} b_s| with γ_n = nu/(1 − nu), where u is the unit roundoff of the common dtype and
    k = 2 roundings a combine, 4 for complex numbers; with t + 1 for t, which makes up for its own roundings. It holds
    where nothing under- or overflows. Source: Higham 2002, §3.1 and §3.6.
    """
    arrays = [_inexact("a", a, 1), _inexact("b", b, 1)]
    if initial_state is not None:
        arrays.append(_inexact("initial_state", initial_state, 0))
    dtype = np.result_type(*(x.dtype for x in arrays))
    magnitude = sequential(*(np.abs(x.astype(np.result_type(x, np.float64))) for x in arrays), reverse=reverse)
    steps = np.arange(2, magnitude.shape[-1] + 2)  # one more than t, for the roundings of the bound itself
    nu = (4 if dtype.kind == "c" else 2) * steps[:: -1 if reverse else 1] * np.finfo(dtype).eps / 2
    return nu / (1 - nu) * magnitude


@dataclass(frozen=True)
class Scan:
    """A scan, its rounds, and its cost in combines for a length L: all of them, and the longest chain.

    `function` takes (a, b, initial_state=None, *, reverse=False).
    """

    name: str
    function: Callable[..., np.ndarray]
    rounds: Callable[[int], Iterable[Round]]
    work: Callable[[int], int]
    depth: Callable[[int], int]


def chunked_by(chunk: int) -> Scan:
    """`chunked` with this chunk."""
    chunk = positive_integer("chunk", chunk)

    def function(a: ArrayLike, b: ArrayLike, initial_state: Any = None, *, reverse: bool = False) -> np.ndarray:
        return chunked(a, b, chunk, initial_state, reverse=reverse)

    def split(L: int) -> int:
        size = min(chunk, max(L, 1))
        return size + -(-L // size)

    return Scan(
        "chunked",
        function,
        partial(chunked_rounds, chunk=chunk),
        lambda L: max(2 * L - split(L), 0),
        lambda L: max(split(L) - 2, 0),
    )


_ALL = (
    Scan("sequential", sequential, sequential_rounds, lambda L: max(L - 1, 0), lambda L: max(L - 1, 0)),
    Scan(
        "hillis_steele",
        hillis_steele,
        hillis_steele_rounds,
        lambda L: L * _doublings(L) - 2 ** _doublings(L) + 1,
        _doublings,
    ),
    Scan(
        "blelloch",
        blelloch,
        blelloch_rounds,
        lambda L: 2 * L - L.bit_count() - L.bit_length(),
        lambda L: max((L + 1).bit_length() + ((L + 1) // 3).bit_length() - 2, 0),
    ),
    chunked_by(16),
)

SCANS = {scan.name: scan for scan in _ALL}
"""The scans by name; `chunked` by chunks of 16."""
