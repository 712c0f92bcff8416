"""A selective scan and its adjoint in NumPy's float32, correct ones with another rounding, and planted bugs.

Each bug overrides the one method of :class:`Kernel` in which it sits, and names the property that must catch it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ssm_edu import scan, selective_scan, selective_scan_backward
from ssm_edu.discretize import METHODS

Array = np.ndarray
LOG2E = 1.4426950408889634


class Kernel:
    """One call. Arrays of every step and state are (batch, dim, state, length)."""

    def __init__(
        self,
        u: Array,
        delta: Array,
        A: Array,
        B: Array,
        C: Array,
        D: Array | None = None,
        z: Array | None = None,
        delta_bias: Array | None = None,
        delta_softplus: bool = False,
        *,
        initial_state: Array | None = None,
        seq_idx: Array | None = None,
        discretization: str = "mamba",
    ) -> None:
        self.dtype, self.narrow = u.dtype, {"u": u, "delta": delta, "z": z, "B": B, "C": C}
        self.P = np.promote_types(u.dtype, np.float32)
        self.u, self.delta = u.astype(self.P), delta.astype(self.P)
        self.z = None if z is None else z.astype(self.P)
        self.A, self.B, self.C, self.D, self.bias, self.softplus = A, B, C, D, delta_bias, delta_softplus
        self.seq_idx, self.rule = seq_idx, METHODS[discretization]
        self.given = initial_state
        batch, dim, self.length = u.shape
        self.dim, self.twice = dim, 2 if np.iscomplexobj(A) else 1
        self.h0 = np.zeros((batch, dim, A.shape[1]), A.dtype) if initial_state is None else initial_state
        self.step = self.step_size()[:, :, None]
        self.ζ = self.step * A[:, :, None]
        self.Bs, self.Cs = self.per_channel(B), self.per_channel(C)
        self.keep = self.kept()[:, None, None]
        self.alpha = self.decay()
        self.b = self.written()
        self.h = self.states(np.where(self.keep, self.alpha, 0), self.b, self.start())

    # The forward scan

    def step_size(self) -> Array:
        x = self.delta if self.bias is None else self.delta + self.bias[:, None]
        return self.soft(x) if self.softplus else x

    def soft(self, x: Array) -> Array:
        return np.where(x > 20, x, np.log1p(np.exp(np.minimum(x, 20))))

    def per_channel(self, M: Array) -> Array:
        if M.ndim == 2:
            return M[None, :, :, None]
        M = M[:, None] if M.ndim == 3 else M
        return M.astype(np.promote_types(M.dtype, np.float32))[:, self.group_of(np.arange(self.dim), M.shape[1])]

    def group_of(self, d: Array, groups: int) -> Array:
        return d // (self.dim // groups)

    def kept(self) -> Array:
        keep = np.ones((len(self.u), self.length), bool)
        if self.seq_idx is not None:
            keep[:, 1:] = self.seq_idx[:, 1:] == self.seq_idx[:, :-1]
        return keep

    def exp(self, x: Array) -> Array:
        return np.exp(x)

    def decay(self) -> Array:
        return self.rule.alpha(self.ζ) if self.rule.name == "bilinear" else self.exp(self.ζ)

    def weight(self) -> Array:
        return self.step * self.rule.p(self.ζ)

    def written(self) -> Array:
        return self.weight() * self.Bs * self.u[:, :, None]

    def start(self) -> Array:
        return self.h0

    def states(self, a: Array, b: Array, h: Array) -> Array:
        out = np.empty(b.shape, np.result_type(a, b, h))
        for t in range(b.shape[-1]):
            h = a[..., t] * h + b[..., t]
            out[..., t] = h
        return out

    def readout(self) -> Array:
        return self.summed(self.Cs * self.h).real * self.P.type(self.twice)

    def summed(self, terms: Array) -> Array:
        return terms.sum(axis=2)

    def skipped(self) -> Array:
        return self.readout() if self.D is None else self.readout() + self.D[:, None] * self.u

    def sigma(self, x: Array) -> Array:
        e = np.exp(-np.abs(x))
        return np.where(x < 0, e, 1) / (1 + e)

    def gate(self) -> Array:
        return self.z * self.sigma(self.z)

    def last_state(self) -> Array:
        return self.h[..., -1]

    def outputs(self) -> tuple[Array, Array]:
        y = self.skipped() if self.z is None else self.skipped() * self.gate()
        return y.astype(self.dtype), self.last_state().astype(self.A.dtype)

    # The adjoint

    def before(self) -> Array:
        return np.where(self.keep, np.concatenate([self.h0[..., None], self.h[..., :-1]], axis=-1), 0)

    def conj(self, x: Array) -> Array:
        return np.conj(x)

    def adjoint_states(self) -> Array:
        """g_t = c_t + Ā_{t+1} g_{t+1}: the scan of the mirrored sequences."""
        a = np.where(self.keep, self.conj(self.alpha), 0)
        return self.states(self.next_decay(a)[..., ::-1], self.c[..., ::-1], self.last)[..., ::-1]

    def next_decay(self, a: Array) -> Array:
        return np.concatenate([a[..., 1:], np.ones_like(a[..., :1])], axis=-1)

    def to_map(self, terms: Array, M: Array) -> Array:
        """Summed over what shares a map."""
        terms = terms if np.iscomplexobj(M) else terms.real
        if M.ndim == 2:
            return terms.sum(axis=(0, 3))
        groups = M.shape[1] if M.ndim == 4 else 1
        batch, dim, state, length = terms.shape
        return self.over_group(terms.reshape(batch, groups, dim // groups, state, length)).reshape(M.shape)

    def over_group(self, terms: Array) -> Array:
        return terms.sum(axis=2)

    def decay_terms(self) -> Array:
        """g h_{t−1} α′, the gradient that reaches ζ through Ā."""
        return self.g * self.conj(self.before()) * self.conj(self.dalpha())

    def dalpha(self) -> Array:
        return self.alpha if self.rule.name != "bilinear" else self.rule.dalpha(self.ζ)

    def by_step(self) -> Array:
        through_B = self.P.type(1) if self.rule.name == "mamba" else self.dalpha()
        B_u = self.conj(self.Bs) * self.u[:, :, None]
        return (self.conj(self.A)[:, :, None] * self.decay_terms() + self.g * B_u * self.conj(through_B)).real.sum(
            axis=2
        )

    def by_delta(self) -> Array:
        x = self.delta if self.bias is None else self.delta + self.bias[:, None]
        return self.by_step() * self.sigma(x) if self.softplus else self.by_step()

    def by_A(self) -> Array:
        B_u = self.conj(self.Bs) * self.u[:, :, None]
        terms = self.step * self.decay_terms() + self.g * B_u * self.conj(self.step * self.step * self.rule.dp(self.ζ))
        return self.over_batch(terms.sum(axis=3))

    def over_batch(self, terms: Array) -> Array:
        return terms.sum(axis=0)

    def dsilu(self) -> Array:
        return self.sigma(self.z) * (1 + self.z * self.sigma(-self.z))

    def cotangent(self, grad_last: Array | None) -> Array:
        return np.zeros_like(self.h0) if grad_last is None else grad_last

    def by_initial_state(self) -> Array:
        return np.where(self.keep[..., 0], self.conj(self.alpha[..., 0]) * self.g[..., 0], 0)

    def gradients(self, grad_y: Array, grad_last: Array | None) -> dict[str, Any]:
        grad_y = grad_y.astype(self.P)
        seen = grad_y if self.z is None else grad_y * self.gate()
        e = self.P.type(self.twice) * seen[:, :, None]
        self.c, self.last = self.conj(self.Cs) * e, self.cotangent(grad_last)
        self.g = self.adjoint_states()
        du = (self.g * self.conj(self.weight() * self.Bs)).real.sum(axis=2)
        ddelta = self.by_delta()
        found = {
            "u": du if self.D is None else du + seen * self.D[:, None],
            "delta": ddelta,
            "A": self.by_A(),
            "B": self.to_map(self.g * self.conj(self.weight()) * self.u[:, :, None], self.B),
            "C": self.to_map(self.conj(self.h) * e, self.C),
            "D": None if self.D is None else (seen * self.u).sum(axis=(0, 2)),
            "z": None if self.z is None else grad_y * self.skipped() * self.dsilu(),
            "delta_bias": None if self.bias is None else ddelta.sum(axis=(0, 2)),
            "initial_state": None if self.given is None else self.by_initial_state(),
        }
        return {
            n: g.astype(self.narrow[n].dtype) if g is not None and n in self.narrow else g for n, g in found.items()
        }

    @classmethod
    def forward(cls, *args: Any, return_last_state: bool = False, **kwargs: Any) -> Any:
        y, last = cls(*args, **kwargs).outputs()
        return (y, last) if return_last_state else y

    @classmethod
    def backward(cls, grad_y: Array, *args: Any, grad_last_state: Array | None = None, **kwargs: Any) -> Any:
        return cls(*args, **kwargs).gradients(grad_y, grad_last_state)


class Chunked(Kernel):
    """Chunks of 8 side by side."""

    def states(self, a: Array, b: Array, h: Array) -> Array:
        return scan.chunked(a, b, 8, h)


class Tree(Kernel):
    """By doubling."""

    def states(self, a: Array, b: Array, h: Array) -> Array:
        return scan.hillis_steele(a, b, h)


class BaseTwo(Kernel):
    """Ā = 2^(Δ · (A log₂ e)), as GPUs compute it."""

    def decay(self) -> Array:
        if self.rule.name == "bilinear" or self.twice == 2:
            return super().decay()
        return np.exp2(self.step * (self.A * self.P.type(LOG2E))[:, :, None])


class Wide(Kernel):
    """The state and every sum in double precision, rounded once, and the states summed backwards."""

    def states(self, a: Array, b: Array, h: Array) -> Array:
        wide = (x.astype(np.promote_types(x.dtype, np.float64)) for x in (a, b, h))
        return super().states(*wide).astype(np.result_type(a, b, h))

    def summed(self, terms: Array) -> Array:
        return terms[:, :, ::-1].astype(np.promote_types(terms.dtype, np.float64)).sum(axis=2).astype(terms.dtype)


class Reference:
    """The oracle itself, rounded to float32."""

    forward = staticmethod(partial(selective_scan, backend="reference"))
    backward = staticmethod(partial(selective_scan_backward, backend="reference"))


CORRECT = (Kernel, Chunked, Tree, BaseTwo, Wide)
MUTANTS: dict[type[Kernel], str] = {}


def caught_by(name: str) -> Any:
    """Enter a mutant and the property that must catch it."""

    def enter(kind: type[Kernel]) -> type[Kernel]:
        MUTANTS[kind] = name
        return kind

    return enter


ORACLE, GRADIENTS = "equals the oracle", "gradients equal the oracle's"


@caught_by(ORACLE)
class SignOfA(Kernel):
    def decay(self):
        return self.rule.alpha(-self.ζ)


@caught_by(ORACLE)
class PositiveADecays(Kernel):
    def decay(self):
        A = np.where(self.A.real > 0, -self.A, self.A)
        return self.rule.alpha(self.step * A[:, :, None])


@caught_by("the gate multiplies")
class GateOneLate(Kernel):
    def gate(self):
        return np.roll(self.z * self.sigma(self.z), 1, axis=-1)


@caught_by("the gate multiplies")
class GateIsSigmoid(Kernel):
    def gate(self):
        return self.sigma(self.z)


@caught_by("the gate multiplies")
class SkipPastTheGate(Kernel):
    def outputs(self):
        y, last = super().outputs()
        if self.z is not None and self.D is not None:
            y = (self.readout() * self.gate() + self.D[:, None] * self.u).astype(self.dtype)
        return y, last


@caught_by(ORACLE)
class SkipForgotten(Kernel):
    def skipped(self):
        return self.readout()


@caught_by("tiny steps")
class SoftplusByCancellation(Kernel):
    def soft(self, x):
        return np.where(x > 20, x, np.log(1 + np.exp(np.minimum(x, 20))))


@caught_by(ORACLE)
class SoftplusThresholdTwo(Kernel):
    def soft(self, x):
        return np.where(x > 2, x, super().soft(x))


@caught_by(ORACLE)
class SoftplusOverflows(Kernel):
    def soft(self, x):
        return np.log1p(np.exp(x))


@caught_by("the bias is added first")
class BiasForgotten(Kernel):
    def step_size(self):
        return self.soft(self.delta) if self.softplus else self.delta


@caught_by("the bias is added first")
class BiasAfterSoftplus(Kernel):
    def step_size(self):
        step = self.soft(self.delta) if self.softplus else self.delta
        return step if self.bias is None else step + self.bias[:, None]


@caught_by("groups are copies")
class GroupsInterleaved(Kernel):
    def group_of(self, d, groups):
        return d % groups


@caught_by("a real A as a complex one")
class NotDoubled(Kernel):
    def readout(self):
        return self.summed(self.Cs * self.h).real


@caught_by("complex A")
class RealPartsMultiplied(Kernel):
    def readout(self):
        return self.summed(self.Cs.real * self.h.real) * self.P.type(self.twice)


@caught_by("complex A")
class ConjugateC(Kernel):
    def readout(self):
        return self.summed(np.conj(self.Cs) * self.h).real * self.P.type(self.twice)


@caught_by(ORACLE)
class TailDropped(Kernel):
    def readout(self):
        y = super().readout()
        y[..., self.length - self.length % 32 if self.length > 32 else self.length :] = 0
        return y


@caught_by(ORACLE)
class LastChannelsDropped(Kernel):
    """Whole blocks of 32 channels alone."""

    def readout(self):
        y = super().readout()
        y[:, self.dim - self.dim % 32 if self.dim > 32 else self.dim :] = 0
        return y


@caught_by("long sequences")
class SecondTileStartsAtZero(Kernel):
    """Tiles of 2048 whose state is not handed on."""

    def states(self, a, b, h):
        a = a.copy()
        a[..., 2048::2048] = 0
        return super().states(a, b, h)


@caught_by("long sequences")
class SilentPastFourThousand(Kernel):
    def readout(self):
        y = super().readout()
        y[..., 4096:] = 0
        return y


@caught_by("packed equals separate")
class NeverReset(Kernel):
    def kept(self):
        return np.ones((len(self.u), self.length), bool)


@caught_by("packed equals separate")
class ResetOneLate(Kernel):
    def kept(self):
        keep = super().kept()
        return np.concatenate([np.ones_like(keep[:, :1]), keep[:, :-1]], axis=1)


@caught_by("packed equals separate")
class FirstRowResetsAll(Kernel):
    def kept(self):
        return np.broadcast_to(super().kept()[:1], (len(self.u), self.length))


class OtherIds(Kernel):
    """Resets where what it takes for the numbers of the sequences changes."""

    def ids(self):
        return self.seq_idx

    def kept(self):
        if self.seq_idx is not None:
            self.seq_idx = self.ids()
        return super().kept()


@caught_by("packed equals separate")
class ResetsWhereIdsGrow(OtherIds):
    def ids(self):
        return np.cumsum(np.diff(self.seq_idx, axis=1, prepend=self.seq_idx[:, :1]) > 0, axis=1)


@caught_by("packed equals separate")
class ResetsWhereAnIdIsNew(OtherIds):
    def ids(self):
        return np.array([np.cumsum([x not in row[:t] for t, x in enumerate(row)]) for row in self.seq_idx])


@caught_by("packed equals separate")
class NegativeIdsAreZero(OtherIds):
    def ids(self):
        return np.maximum(self.seq_idx, 0)


@caught_by("packed equals separate")
class SignsOfIdsLost(OtherIds):
    def ids(self):
        return np.abs(self.seq_idx)


@caught_by("packed equals separate")
class IdsInOneByte(OtherIds):
    def ids(self):
        return self.seq_idx.astype(np.int8)


@caught_by("packed equals separate")
class IdsInFloat(OtherIds):
    def ids(self):
        return self.seq_idx.astype(np.float32)


@caught_by("splits anywhere")
class LastStateBeforeTheLastStep(Kernel):
    def last_state(self):
        return self.before()[..., -1]


@caught_by("splits anywhere")
class LastStateOfAWholeChunk(Kernel):
    def last_state(self):
        return self.h[..., self.length - self.length % 16 - 1 if self.length > 16 else -1]


@caught_by("a zero step holds")
class InitialStateIgnored(Kernel):
    def start(self):
        return np.zeros_like(self.h0)


@caught_by("superposition")
class InitialStateTakesTheFirstStep(Kernel):
    def written(self):
        b = super().written()
        b[..., :1] *= self.given is None
        return b


@caught_by("splits anywhere")
class InitialStateDecaysTwice(Kernel):
    def start(self):
        return self.alpha[..., 0] * self.h0


@caught_by("a huge step forgets")
class DecayNeverEnds(Kernel):
    def decay(self):
        return np.where(self.ζ.real < -9, self.P.type(1e-4), super().decay())


@caught_by(ORACLE)
class BForC(Kernel):
    def readout(self):
        return self.summed(self.Bs * self.h).real * self.P.type(self.twice)


@caught_by("tiny steps")
class ZohCancels(Kernel):
    def weight(self):
        if self.rule.name != "zoh":
            return super().weight()
        return np.where(self.ζ == 0, self.step, (self.alpha - 1) / np.where(self.A == 0, 1, self.A)[:, :, None])


@caught_by(ORACLE)
class ZohWithEulersB(Kernel):
    def weight(self):
        return self.step + 0 * self.ζ if self.rule.name == "zoh" else super().weight()


@caught_by(ORACLE)
class BilinearWithWholeStep(Kernel):
    def decay(self):
        return (1 + self.ζ) / (1 - self.ζ) if self.rule.name == "bilinear" else super().decay()


@caught_by(ORACLE)
class HalfPrecisionExp(Kernel):
    def exp(self, x):
        return np.exp(x) if np.iscomplexobj(x) else np.exp(x).astype(np.float16).astype(x.dtype)


@caught_by("causality")
class SeesTheLastInput(Kernel):
    def readout(self):
        y = super().readout()
        y[..., 0] += self.u[..., -1] if self.length > 1 else 0
        return y


@caught_by("rows of a batch")
class BatchStride(Kernel):
    def written(self):
        return self.weight() * (self.Bs if self.B.ndim == 2 else self.Bs[:1]) * self.u[:, :, None]


@caught_by("NaN stays where it belongs")
class NanLeaksAcrossChannels(Kernel):
    def readout(self):
        y = super().readout()
        return y + 0 * self.u.sum(axis=1, keepdims=True)


@caught_by("NaN stays where it belongs")
class NanSwallowed(Kernel):
    def readout(self):
        return np.nan_to_num(super().readout())


@caught_by("y alone")
class YDependsOnWhatIsAsked(Kernel):
    @classmethod
    def forward(cls, *args, return_last_state=False, **kwargs):
        y, last = cls(*args, **kwargs).outputs()
        return (y, last) if return_last_state else 2 * y


@caught_by("inputs unchanged")
class WritesToU(Kernel):
    def __init__(self, u, *args, **kwargs):
        u *= 2
        super().__init__(u / 2, *args, **kwargs)


@caught_by("strided inputs")
class StridesIgnored(Kernel):
    def __init__(self, u, *args, **kwargs):
        super().__init__(u if u.base is None else np.ndarray(u.shape, u.dtype, u.base), *args, **kwargs)


@caught_by("determinism")
class OrderOfSumVaries(Kernel):
    calls = 0

    def summed(self, terms):
        OrderOfSumVaries.calls += 1
        return np.roll(terms, OrderOfSumVaries.calls, axis=2).cumsum(axis=2)[:, :, -1]


@caught_by("nothing unwritten")
class LastElementUnwritten(Kernel):
    def outputs(self):
        y, last = super().outputs()
        out = np.empty_like(y)
        out.ravel()[:-1] = y.ravel()[:-1]
        return out, last


@caught_by("signed zeros and subnormals")
class MultipliesByLogarithms(Kernel):
    def written(self):
        return self.weight() * self.Bs * (self.u / np.abs(self.u) * np.exp(np.log(np.abs(self.u))))[:, :, None]


@caught_by("linearity in u")
class StateSaturates(Kernel):
    def readout(self):
        return np.clip(super().readout(), -4, 4)


@caught_by("order of channels")
class FirstChannelsDecay(Kernel):
    def decay(self):
        return self.rule.alpha(self.step * self.A[:1, :, None])


@caught_by("order of states")
class StatesPastSixteenLost(Kernel):
    def summed(self, terms):
        return terms[:, :, :16].sum(axis=2)


@caught_by(ORACLE)
class StatesPastTwoHundredFiftySixLost(Kernel):
    def summed(self, terms):
        return terms[:, :, :256].sum(axis=2)


@caught_by("constant maps")
class LastStateWithoutConstantB(Kernel):
    """Keeps h/B, as mamba_ssm does for a constant B, and forgets to multiply."""

    def last_state(self):
        return self.h[..., -1] / self.B if self.B.ndim == 2 and self.given is None else self.h[..., -1]


@caught_by("steps make the scan")
class ReturnsDouble(Kernel):
    def outputs(self):
        y, last = super().outputs()
        return y.astype(np.float64), last


@caught_by("steps make the scan")
class FailsAtLengthOne(Kernel):
    def states(self, a, b, h):
        if b.shape[-1] == 1:
            raise IndexError("tile is empty")
        return super().states(a, b, h)


@caught_by(GRADIENTS)
class DecayOfTheSameStep(Kernel):
    def next_decay(self, a):
        return a


@caught_by("gradients by a complex A")
class ConjugateForgotten(Kernel):
    def conj(self, x):
        return x


@caught_by("gradients by a complex A")
class GradientNotDoubled(Kernel):
    def gradients(self, grad_y, grad_last):
        self.twice = 1
        return super().gradients(grad_y, grad_last)


@caught_by("gradients of constant maps")
class ConstantMapsOfTheLastRow(Kernel):
    def to_map(self, terms, M):
        return super().to_map(terms[-1:] if M.ndim == 2 else terms, M)


@caught_by("adjoint identity")
class LastStatesGradientIgnored(Kernel):
    def cotangent(self, grad_last):
        return np.zeros_like(self.h0)


@caught_by(GRADIENTS)
class SlopeOfSoftplusForgotten(Kernel):
    def by_delta(self):
        return self.by_step()


@caught_by("gradients of shared maps")
class GroupNotSummed(Kernel):
    def over_group(self, terms):
        return terms[:, :, 0]


@caught_by(GRADIENTS)
class UnusedLanesSummed(Kernel):
    """The last of several blocks of 32 channels holds in its unused lanes what the block before it had there."""

    def over_group(self, terms):
        total = super().over_group(terms)
        used = terms.shape[2] % 32
        stale = terms[:, :, -32:-used] if used and terms.shape[2] > 32 else terms[:, :, :0]
        return total + stale.sum(axis=2)


@caught_by("scale of time")
class BatchNotSummed(Kernel):
    def over_batch(self, terms):
        return terms[0]


@caught_by("gradients under strong decay")
class DecayedStateBySubtraction(Kernel):
    """Ā h_{t−1} as h_t − B̄u, which mamba_ssm's kernel does."""

    def decay_terms(self):
        if self.rule.name != "mamba":
            return super().decay_terms()
        return np.where(self.keep, self.g * self.conj(self.h - self.b), 0)


@caught_by("gradients equal the oracle's")
class GradientFlowsAcrossSequences(Kernel):
    def next_decay(self, a):
        return super().next_decay(self.conj(self.alpha))


@caught_by(GRADIENTS)
class AdjointResetsWhereIdsGrow(OtherIds):
    ids = ResetsWhereIdsGrow.ids


@caught_by(GRADIENTS)
class AdjointPastTwoHundredFiftySixStatesLost(Kernel):
    def by_step(self):
        self.g[:, :, 256:] = 0
        return super().by_step()


@caught_by("gradients split anywhere")
class InitialStatesGradientNotDecayed(Kernel):
    def by_initial_state(self):
        return np.where(self.keep[..., 0], self.g[..., 0], 0)


@caught_by("adjoint identity of C and D")
class GateLeftOutOfC(Kernel):
    def gradients(self, grad_y, grad_last):
        found = super().gradients(grad_y, grad_last)
        if self.z is not None:
            found["C"] = self.to_map(self.conj(self.h) * (self.twice * grad_y[:, :, None]), self.C).astype(self.C.dtype)
        return found


@caught_by(GRADIENTS)
class SlopeOfSiluWrong(Kernel):
    def dsilu(self):
        return self.sigma(self.z)


@caught_by("gradients add up")
class CotangentsClash(Kernel):
    """With a gradient of the last state, that of the last y is overwritten."""

    def gradients(self, grad_y, grad_last):
        if grad_last is not None and grad_last.any() and grad_y.any():
            grad_y = grad_y.copy()
            grad_y[..., -1] = 0
        return super().gradients(grad_y, grad_last)


@caught_by("gradients of long sequences")
class AdjointTileStartsAtZero(Kernel):
    def next_decay(self, a):
        a = super().next_decay(a)
        a[..., 2047::2048] = np.where(np.arange(self.length)[2047::2048] < self.length - 1, 0, a[..., 2047::2048])
        return a


@caught_by("gradients of long sequences")
class AdjointPastEightThousandLost(Kernel):
    def adjoint_states(self):
        g = super().adjoint_states()
        g[..., 8192:] = 0
        return g
