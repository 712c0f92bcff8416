"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["passed", "failed", "skipped"]
NOT_TRIED = "not tried: it would fail in the same way"
MARKS = {"passed": "✓", "failed": "✗", "skipped": "–"}


@dataclass(frozen=True)
class Result:
    """One property.

    Attributes:
        message: why it failed, or why it was skipped.
        counterexample: with a failure, the problem as code that rebuilds it and fails again when it is run.
        examples: how many problems were tried.
        wrong_form: whether it failed before any number was compared, as what was called takes other arguments or
            returns something else; :func:`check` then tries no other property.
    """

    name: str
    reason: str
    status: Status
    message: str = ""
    counterexample: str = ""
    examples: int = 0
    seconds: float = 0.0
    wrong_form: bool = False

    def __str__(self) -> str:
        lines = [f"{MARKS[self.status]} {self.name}: {self.reason}"]
        if self.message:
            lines.append(f"    {self.message}")
        lines += [f"        {line}" for line in self.counterexample.splitlines()]
        return "\n".join(lines)


@dataclass(frozen=True)
class Report:
    """All properties, in the order they were checked."""

    results: list[Result]

    @property
    def ok(self) -> bool:
        """Whether none failed."""
        return not self.failures

    @property
    def failures(self) -> list[Result]:
        return [result for result in self.results if result.status == "failed"]

    def __str__(self) -> str:
        return "\n".join([*map(str, self.results), "", self.summary])

    @property
    def summary(self) -> str:
        """One line of counts."""
        counts = {status: sum(r.status == status for r in self.results) for status in MARKS}
        words = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        examples, seconds = sum(r.examples for r in self.results), sum(r.seconds for r in self.results)
        total = len(self.results)
        return (
            f"{total} propert{'y' if total == 1 else 'ies'}: {words}; "
            f"{examples} problem{'s' * (examples != 1)} in {seconds:.1f} s"
        )
