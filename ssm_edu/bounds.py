"""How far rounding may carry a selective scan: a bound on the error of each output and of each gradient.

The formulas of :mod:`ssm_edu.selective.reference`, on the balls of :mod:`ssm_edu.balls` in place of numbers. The
bounds are on the distance from that oracle, for any input, and inf where no finite one holds.

What an implementation may do: order its sums and products as it likes, fuse multiply and add, take eˣ as 2^(x log₂e),
flush what lies below the normal numbers, and scan as `algorithm` says. It must form Ā h_{t−1} as a product (ADJ-12),
φ₁ and softplus without cancellation (PHI-1), and a decay from the Δ of its own span alone, not as a quotient or a
difference of prefixes (SCAN-19).

The order of a sum over batch and time is anybody's, so its bound grows with the number of terms, and cannot grow
slower (ROUND-5): to test the gradients of A, D and the bias sharply, take few steps (ROUND-13).

Claims ROUND-1 to ROUND-16. Source: Higham 2002, ch. 3 and 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from ssm_edu.arrays import positive_integer
from ssm_edu.balls import (
    COMPLEX_PRODUCT,
    FLOAT32,
    FLOAT32_APPROX,
    FLOAT64,
    FORMATS,
    Arithmetic,
    Array,
    Ball,
    Format,
    Real,
    bilinear,
    dsilu,
    exact,
    exp,
    flushed,
    gamma,
    phi,
    product,
    rounded,
    sigma,
    softplus,
    total,
    within,
)
from ssm_edu.selective.problem import Problem, read_cotangents
from ssm_edu.selective.reference import Gradients, multiplicity, widened

__all__ = ["ALGORITHMS", "FLOAT32", "FLOAT32_APPROX", "FLOAT64", "Arithmetic", "ForwardBounds", "backward", "forward"]

ALGORITHMS = ("sequential", "chunked", "tree", "any")
# The radii are themselves computed in float64, from rounded magnitudes: far less than 1/1024 of them.
MARGIN = 1 + 2.0**-10


@dataclass(frozen=True)
class Rule:
    """A discretisation's α, α′, p and p′ at z = ΔA; None for Mamba's p = 1 and p′ = 0."""

    alpha: Ball
    dalpha: Ball
    p: Ball | None = None
    dp: Ball | None = None

    @property
    def weight(self) -> tuple[Ball, ...]:
        """The factors of B̄ beside Δ and B."""
        return () if self.p is None else (self.p,)

    @property
    def dweight(self) -> tuple[Ball, ...]:
        """The factors of ∂B̄/∂Δ beside B: α′ for every rule but Mamba's (ADJ-4)."""
        return () if self.p is None else (self.dalpha,)


def rule(name: str, z: Ball, additions: float) -> Rule:
    """The rule's balls. In an exponential the Δ of z may be a sum: `additions` roundings more (ROUND-10)."""
    if name == "bilinear":
        alpha, p = bilinear(z)
        dalpha = product(p, p)
        return Rule(alpha, dalpha, p, dalpha.scaled(0.5))
    alpha = exp(Ball(z.value, z.radius + gamma(additions, z.rules) * z.largest, z.rules))
    return Rule(alpha, alpha) if name == "mamba" else Rule(alpha, alpha, *phi(z))


def scan(a: Ball, b: Ball, start: Ball, keep: Bool[np.ndarray, "batch length"], additions: Real | None) -> Ball:
    """h_t = a_t h_{t−1} + b_t on the axes (batch, dim, state, length), without the first term where not `keep`.

    Step by step (`additions` None) the radius follows |h_t| (ROUND-7). For any other bracketing it follows the scan
    of magnitudes M_t = |a_t| M_{t−1} + |b_t|: every bracketing multiplies each term by the same factors, and adds
    to it `additions` times at most (ROUND-10). X_t, where no factor is below 1, bounds what underflow can become.
    """
    rules, tiny = a.rules, flushed(b.value, a.rules)
    size = np.abs(a.value)
    excess = a.radius + gamma(COMPLEX_PRODUCT if a.is_complex else 1, rules) * a.largest
    growth = np.maximum(size + excess, 1)
    h, r, M, X = start.value, start.radius, np.abs(start.value), np.maximum(start.largest, 1)
    values, radii = np.empty(b.value.shape, np.result_type(a.value, b.value)), np.empty(b.value.shape)
    for t in range(b.value.shape[-1]):
        kept, b_t, r_b = keep[:, None, None, t], b.value[..., t], b.radius[..., t]
        carried = size[..., t] * r + excess[..., t] * (M + r)
        h = values[..., t] = np.where(kept, a.value[..., t] * h, 0) + b_t
        if additions is None:
            M, spread = np.abs(h), np.where(kept, carried + tiny, 0) + r_b
            r = radii[..., t] = within(spread + gamma(1, rules) * (M + spread) + tiny, M + spread, rules)
        else:
            M, r = np.where(kept, size[..., t] * M, 0) + np.abs(b_t), np.where(kept, carried, 0) + r_b
            X = np.where(kept, growth[..., t] * X, 1) + np.abs(b_t) + r_b
            radii[..., t] = within(r + gamma(additions[t], rules) * (M + r) + 3 * (t + 1) * X * tiny, X, rules)
    return Ball(values, radii, rules)


def most_additions(algorithm: str, chunk: int, length: int) -> Real | None:
    """How often a term of h_t is added to, at most; None for the scan that goes step by step.

    No bracketing of t + 1 steps has more than t + 1 nodes. By chunks, a term passes its own chunk and the ends of the
    others; up and down a binary tree, twice its height (SCAN-12, SCAN-13).
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm is {algorithm!r}, expected one of {', '.join(ALGORITHMS)}")
    chunk = positive_integer("chunk", chunk)
    depth = {"chunked": chunk + -(-length // chunk), "tree": 2 * length.bit_length(), "any": length}
    return None if algorithm == "sequential" else np.minimum(np.arange(1.0, length + 1), depth[algorithm])


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A forward pass on balls, on the axes (batch, dim, state, length); s and z have no axis of states."""

    problem: Problem
    additions: Real | None
    u: Ball
    x: Ball
    delta: Ball
    A: Ball
    B: Ball
    C: Ball
    D: Ball | None
    z: Ball | None
    rule: Rule
    start: Ball
    h: Ball
    s: Ball

    @property
    def h_before(self) -> Ball:
        """h_{t−1} where it flows into step t, and otherwise zero."""
        length, keep = self.problem.length, ~self.problem.fresh[:, None, None]
        value, radius = (
            np.concatenate([first[..., None], then], axis=-1)[..., :length]
            for first, then in ((self.start.value, self.h.value), (self.start.radius, self.h.radius))
        )
        return Ball(value, radius, self.h.rules).where(keep)


def trajectory(problem: Problem, rules: Arithmetic, algorithm: str, chunk: int) -> Trajectory:
    """The reference's forward pass on balls."""
    p = widened(problem)
    additions = most_additions(algorithm, chunk, p.length)
    u, x, A = (exact(array[:, :, None], rules) for array in (p.u, p.delta, p.A))
    B, C = (exact(_per_channel(M, p.dim), rules) for M in (p.B, p.C))
    D = None if p.D is None else exact(p.D[:, None, None], rules)
    z = None if p.z is None else exact(p.z, rules)
    if p.delta_bias is not None:
        bias = exact(p.delta_bias[:, None, None], rules)
        x = rounded(x.value + bias.value, x.radius + bias.radius, 1, rules)
    delta = softplus(x) if p.delta_softplus else x
    maps = rule(p.discretization, product(delta, A), 0 if additions is None else float(additions.max(initial=0)))
    first = np.zeros((p.batch, p.dim, p.state), p.A.dtype) if p.initial_state is None else p.initial_state
    start = exact(first, rules)
    h = scan(maps.alpha, product(delta, *maps.weight, B, u), start, ~p.fresh, additions)
    read = product(C, h).real.scaled(multiplicity(h.value))
    s = total(read, axis=2, start=None if D is None else _flat(product(D, u)))
    return Trajectory(problem, additions, u, x, delta, A, B, C, D, z, maps, start, h, s)


class ForwardBounds(NamedTuple):
    """Bounds on the errors of y and of the last state, for a complex state on their moduli."""

    y: Float[np.ndarray, "batch dim length"]
    last_state: Float[np.ndarray, "batch dim state"]


@np.errstate(all="ignore")  # what is not finite has no finite bound
def forward(
    problem: Problem,
    arithmetic: Arithmetic | None = None,
    algorithm: str = "sequential",
    *,
    chunk: int = 64,
    stored: str | None = None,
) -> ForwardBounds:
    """How far y and the last state of an implementation may lie from the reference's.

    Args:
        problem: its numbers are taken to be exact in the arithmetic's format.
        arithmetic: :data:`FLOAT64` for a float64 problem and else :data:`FLOAT32`, if None.
        algorithm: `sequential`, step by step; `chunked`, by chunks of `chunk` steps, within and over which a term is
            added to at most once a step; `tree`, of a depth of up to 2 log₂ length; `any` bracketing at all.
        stored: the format of y if not `problem.u`'s: a key of :data:`ssm_edu.balls.FORMATS`.

    Raises:
        ValueError: an unknown algorithm or format, or a chunk below 1.
        TypeError: a chunk that is no integer.

    O(batch · dim · state · length) time and memory. Claims ROUND-4, ROUND-7 to ROUND-13.
    """
    t = trajectory(problem, arithmetic or _arithmetic_of(problem), algorithm, chunk)
    y = t.s if t.z is None else product(t.s, t.z, sigma(t.z))
    last = _at(t.h, -1) if problem.length else t.start
    return ForwardBounds(_bound(y, _format(problem, stored)), _bound(last, last.rules.format))


@np.errstate(all="ignore")
def backward(
    problem: Problem,
    grad_y: ArrayLike,
    grad_last_state: ArrayLike | None = None,
    arithmetic: Arithmetic | None = None,
    algorithm: str = "sequential",
    *,
    chunk: int = 64,
    stored: str | None = None,
) -> Gradients:
    """How far the gradients of an implementation may lie from the reference's.

    Args:
        grad_y: (batch, dim, length), in `problem.u`'s dtype.
        grad_last_state: (batch, dim, state), in `problem.A`'s dtype; zero if absent.
        problem, arithmetic, algorithm, chunk: as in :func:`forward`; the adjoint is scanned as the states are.
        stored: the format of the gradients of u, delta, z and a real B or C that varies in time.

    Returns:
        Bounds, on moduli where a gradient is complex, in the shapes of the reference's gradients.

    Raises:
        TypeError, ValueError: as :func:`forward`, or a gradient whose shape or dtype does not fit.

    Claims ROUND-4, ROUND-7 to ROUND-13.
    """
    rules = arithmetic or _arithmetic_of(problem)
    grad_y, grad_last_state = read_cotangents(problem, grad_y, grad_last_state)
    found = _gradients(
        trajectory(problem, rules, algorithm, chunk), exact(grad_y.astype(float), rules), grad_last_state
    )
    inputs = {"u", "delta", "z"} | {
        name for name, M in (("B", problem.B), ("C", problem.C)) if M.ndim == 4 and M.dtype.kind == "f"
    }
    formats = {name: _format(problem, stored) if name in inputs else rules.format for name in found}
    bounds: dict[str, Any] = {name: None if b is None else _bound(b, formats[name]) for name, b in found.items()}
    return Gradients(**bounds)


def _gradients(t: Trajectory, grad_y: Ball, grad_last: Array | None) -> dict[str, Ball | None]:
    """The reference's adjoint on balls."""
    p, B, dalpha = t.problem, t.B.conj(), t.rule.dalpha.conj()
    weight, dweight = ([factor.conj() for factor in factors] for factors in (t.rule.weight, t.rule.dweight))
    grad_s, dz = grad_y, None
    if t.z is not None:
        grad_s, dz = product(grad_y, t.z, sigma(t.z)), product(grad_y, t.s, dsilu(t.z))
    wide_s = Ball(grad_s.value[:, :, None], grad_s.radius[:, :, None], grad_s.rules)
    e = wide_s.scaled(multiplicity(t.h.value))

    last = exact(np.zeros_like(t.start.value) if grad_last is None else grad_last.astype(p.A.dtype), grad_y.rules)
    g = _adjoint_scan(t, product(t.C.conj(), e), last)
    h_before = t.h_before.conj()

    carried, written = product(t.A.conj(), dalpha, g, h_before), product(*dweight, g, B, t.u)
    ddelta = total(carried.real, written.real, axis=2)
    if p.delta_softplus:
        ddelta = product(ddelta, _flat(sigma(t.x)))
    dA = [product(t.delta, dalpha, g, h_before)]
    if t.rule.dp is not None:
        dA.append(product(t.delta, t.delta, t.rule.dp.conj(), g, B, t.u))
    skip = None if t.D is None else _flat(product(wide_s, t.D))
    dh = product(_at(t.rule.alpha, 0).conj(), _at(g, 0)).where(~p.fresh[:, :1, None]) if p.length else last
    return {
        "u": total(product(g, t.delta, *weight, B).real, axis=2, start=skip),
        "delta": ddelta,
        "A": total(*dA, axis=(0, 3)),
        "B": _by_map(product(g, t.delta, *weight, t.u), p.B),
        "C": _by_map(product(t.h.conj(), e), p.C),
        "D": None if t.D is None else total(product(wide_s, t.u), axis=(0, 2, 3)),
        "z": dz,
        "delta_bias": None if p.delta_bias is None else total(ddelta, axis=(0, 2)),
        "initial_state": None if p.initial_state is None else dh,
    }


def _adjoint_scan(t: Trajectory, c: Ball, last: Ball) -> Ball:
    """g_t = c_t + a_{t+1} g_{t+1} from g_{L+1} = `last` and a_{L+1} = 1: a scan from the other end (SCAN-24)."""
    a = t.rule.alpha.conj()
    a = Ball(_next_first(a.value, 1), _next_first(a.radius, 0), a.rules)
    mirrored = Ball(c.value[..., ::-1], c.radius[..., ::-1], c.rules)
    g = scan(a, mirrored, last, _next_first(~t.problem.fresh, True), t.additions)
    return Ball(g.value[..., ::-1], g.radius[..., ::-1], g.rules)


def _next_first(x: np.ndarray, end: float) -> np.ndarray:
    """What each step's next one has, from the last step to the first; `end` follows the last."""
    return np.concatenate([np.full_like(x[..., :1], end), x[..., :0:-1]], axis=-1)


def _by_map(terms: Ball, M: Array) -> Ball:
    """The sum over what shares a map: the batch and time, or the channels of a group."""
    terms = terms if np.iscomplexobj(M) else terms.real
    if M.ndim == 2:
        return total(terms, axis=(0, 3))
    batch, dim, *rest = terms.value.shape
    split = (batch, M.shape[1], dim // M.shape[1], *rest)
    return total(Ball(terms.value.reshape(split), terms.radius.reshape(split), terms.rules), axis=2)


def _per_channel(M: Array, dim: int) -> Array:
    return M[None, :, :, None] if M.ndim == 2 else np.repeat(M, dim // M.shape[1], axis=1)


def _flat(ball: Ball) -> Ball:
    """Without the axis of states, on which it has one element."""
    return Ball(ball.value[:, :, 0], ball.radius[:, :, 0], ball.rules)


def _at(ball: Ball, t: int) -> Ball:
    return Ball(ball.value[..., t], ball.radius[..., t], ball.rules)


def _bound(ball: Ball, stored: Format) -> Real:
    """The radius, with the last rounding of a result that is stored in another format; its subnormals are kept."""
    size, radius = np.abs(ball.value), MARGIN * ball.radius
    if stored != ball.rules.format:
        radius = radius + stored.unit_roundoff * (size + radius + stored.smallest)
    return np.where(size + radius <= stored.largest, radius, np.inf)


def _arithmetic_of(problem: Problem) -> Arithmetic:
    return FLOAT64 if problem.u.dtype == np.float64 else FLOAT32


def _format(problem: Problem, stored: str | None) -> Format:
    name = problem.u.dtype.name if stored is None else stored
    if name not in FORMATS:
        raise ValueError(f"stored is {name!r}, expected one of {', '.join(FORMATS)}")
    return FORMATS[name]
