"""Judge a scan of any size by a few of its channels, in the run that is timed and not in a smaller one.

The output of a channel depends on that channel alone, beside B and C: it is compared with the oracle's for those few
channels. Backward, grad_y is zero in all channels but these. Then what they add to the gradients of B and C is all
that there is, and every gradient of another channel must be exactly zero.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from ssm_edu.bench.cases import Case
from ssm_edu.bench.contestants import Contestant, Outputs
from ssm_edu.bench.judging import Judge, Verdict
from ssm_edu.selective.problem import Problem, make_problem

# The oracle and its bounds take some seconds for so many of batch · channels · length · state, and 1.5 gigabytes.
CHECKED = 2**22
MOST_CHANNELS = 32
# The axis of channels, in the outputs that have one.
CHANNEL_AXIS = {
    **dict.fromkeys(("y", "last_state", "gradient of u", "gradient of delta", "gradient of z"), 1),
    **dict.fromkeys(("gradient of A", "gradient of D", "gradient of delta_bias"), 0),
}


def spread(case: Case) -> tuple[int, ...]:
    """Channels to look at: equally many of each group, the first and the last among them where they are several."""
    width = case.dim // case.group
    affordable = min(CHECKED // (case.batch * case.length * case.state), MOST_CHANNELS) // case.group
    each = max(1, min(affordable, width))
    within = [i * (width - 1) // (each - 1) for i in range(each)] if each > 1 else [width - 1]
    return tuple(group * width + i for group in range(case.group) for i in within)


@dataclass(frozen=True)
class Probe(Case):
    """A case with grad_y zero in all but some channels."""

    channels: tuple[int, ...] = ()

    @classmethod
    def of(cls, case: Case) -> Probe:
        return cls(**{field.name: getattr(case, field.name) for field in fields(Case)}, channels=spread(case))

    def share_arguments(self, case: Case) -> None:
        """Take the arguments of a case with the same, in place of another copy."""
        vars(self)["arguments"] = case.arguments

    def without_arrays(self) -> Probe:
        """The same, whose arrays are made again when they are asked for."""
        return Probe(**{field.name: getattr(self, field.name) for field in fields(self)})

    @cached_property
    def grad_y(self) -> np.ndarray:
        """The gradient of y, (batch, dim, length)."""
        channels, grad_y = list(self.channels), np.zeros((self.batch, self.dim, self.length), self.dtype)
        grad_y[:, channels] = super().grad_y[:, channels]
        return grad_y

    @property
    def seen(self) -> Problem:
        """The problem of those channels alone; B and C have as many groups as before."""
        channels, arguments = list(self.channels), dict(self.arguments)
        for name in ("u", "delta", "z"):
            arguments[name] = arguments[name][:, channels]
        for name in ("A", "D", "delta_bias"):
            arguments[name] = arguments[name][channels]
        return make_problem(**arguments)


class ChannelJudge(Judge):
    """Knows the exact outputs of some channels, and what the outputs of the others must at least be."""

    case: Probe

    def __init__(self, case: Case) -> None:
        super().__init__(Probe.of(case))
        self.steps = case.length

    @cached_property
    def problem(self) -> Problem:
        return self.case.seen

    @property
    def grad_y(self) -> np.ndarray:
        return self.case.grad_y[:, list(self.case.channels)]

    def checked(self, direction: str) -> str:
        """What :meth:`verdict` looks at, for a table."""
        channels, dim = len(self.case.channels), self.case.dim
        if channels == dim:
            return "all channels"
        rest = "the others finite" if direction == "forward" else "grad_y zero in the others"
        return f"{channels} of {dim} channels, {rest}"

    def verdict(self, contestant: Contestant, found: Outputs) -> Verdict:
        """As :class:`Judge`'s, on its channels; elsewhere an output must be finite, or a gradient zero."""
        others = np.ones(self.case.dim, bool)
        others[list(self.case.channels)] = False
        seen = {}
        for name, array in found.items():
            axis = CHANNEL_AXIS.get(name)
            whole = axis is not None and array.ndim > axis and array.shape[axis] == self.case.dim
            seen[name] = np.take(array, self.case.channels, axis) if whole else array
            if not np.isfinite(array).all():
                return self.wrong(name, f"{name} is not finite everywhere")
            if whole and contestant.direction == "backward" and np.compress(others, array, axis).any():
                return self.wrong(name, f"{name} is not zero in a channel where the gradient of y is zero")
        return super().verdict(contestant, seen)
