"""The properties of a selective scan: a name, a reason and a small function each, in the order they are checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssm_edu.testing.implementation import Implementation
from ssm_edu.testing.recipes import Arguments, Recipe, features_of

Check = Callable[[Implementation, Arguments], None]


@dataclass(frozen=True)
class Property:
    """What must hold of every problem of some kind.

    Attributes:
        check: raises :class:`Failure` if it does not hold of a problem.
        needs: features without which it says nothing.
        backward: whether it needs the adjoint.
        share: how many examples it gets, relative to `max_examples`; 0 for the corners alone.
        max_length: of the problems that are drawn.
        corners: recipes' fields that are tried always, before those that are drawn.
        fixed: fields that every problem has.
    """

    name: str
    reason: str
    check: Check
    needs: frozenset[str]
    backward: bool
    share: float
    max_length: int
    corners: tuple[dict[str, Any], ...]
    fixed: dict[str, Any]

    def holds_of(self, implementation: Implementation, problem: Arguments) -> None:
        """Raise :class:`Failure` unless it holds of a problem, whose numbers may overflow."""
        with np.errstate(all="ignore"):
            self.check(implementation, problem)

    def missing(self, implementation: Implementation) -> str:
        """What the implementation lacks for it, in words; empty if nothing."""
        if self.backward and implementation.backward is None:
            return "no backward given"
        asked = Recipe(**{"shape": (1, 12, 1, 1)} | self.fixed)
        names = (self.needs | (features_of(asked) - features_of(Recipe()))) - implementation.features
        return f"without {', '.join(sorted(names))}" if names else ""


PROPERTIES: dict[str, Property] = {}


def holds(
    name: str,
    reason: str,
    *needs: str,
    backward: bool = False,
    share: float = 1,
    max_length: int = 33,
    corners: tuple[dict[str, Any], ...] = (),
    **fixed: Any,
) -> Callable[[Check], Check]:
    """Enter a property in the registry."""

    def decorate(check: Check) -> Check:
        PROPERTIES[name] = Property(name, reason, check, frozenset(needs), backward, share, max_length, corners, fixed)
        return check

    return decorate
