"""What was measured on a GPU, as a file keeps it: JSON there and back without loss."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ssm_edu.bench.cases import Case
from ssm_edu.bench.floors import Rates, Work, work
from ssm_edu.bench.judging import Verdict, finite

# SAVING is ours where gradients are recorded: forward saves states, and backward takes them
OURS, SAVING, THEIRS = "ssm_edu", "ssm_edu, states saved", "mamba_ssm"


@dataclass(frozen=True)
class Result:
    """A contestant on a case; times are seconds.

    Attributes:
        name: of the contestant.
        direction: `forward` or `backward`.
        ours: whether being wrong is this package's fault.
        case: what was solved.
        skipped: why nothing was measured.
        ok: whether it lies within its bound; None for what was not judged.
        ratio: the worst error in units of the bound on it; None where that is not finite.
        output: in which output.
        message: where and how it is wrong.
        checked: what was compared.
        median, best: of `runs` calls, by CUDA events.
        launch: the median time of the call on the host, which does not wait for the GPU.
        host_ahead: whether each call had returned before the GPU began it. Where not, the GPU may have waited for the
            host in between, and the times hold that too.
    """

    name: str
    direction: str
    ours: bool
    case: Case
    skipped: str | None = None
    ok: bool | None = None
    ratio: float | None = None
    output: str = ""
    message: str = ""
    checked: str = ""
    median: float | None = None
    best: float | None = None
    runs: int = 0
    launch: float | None = None
    host_ahead: bool = True

    def judged(self, verdict: Verdict, checked: str) -> Result:
        return replace(
            self,
            ok=verdict.ok,
            ratio=finite(verdict.ratio),
            output=verdict.output,
            message=verdict.message,
            checked=checked,
        )

    @property
    def work(self) -> Work:
        return work(self.case, self.direction)

    @property
    def out_of_memory(self) -> bool:
        """Whether it failed because the GPU's memory ran out, which says nothing of what it computes."""
        return self.ok is False and "out of memory" in self.message.lower().replace("_", " ")

    @property
    def shown(self) -> bool:
        """Whether its time counts: ours only if within its bound."""
        return self.median is not None and (self.ok is True or not self.ours)


@dataclass(frozen=True)
class Report:
    """All that was measured on one GPU on one day.

    Attributes:
        date: UTC, ISO 8601.
        machine: the GPU, its driver, and the versions of packages.
        rates: measured beside the scans.
        results: of the production scans and of others'.
        ladder: of every rung, on one case.
    """

    date: str
    machine: dict[str, Any]
    rates: Rates
    results: tuple[Result, ...]
    ladder: tuple[Result, ...] = ()

    @property
    def cases(self) -> list[Case]:
        """In the order in which they were measured."""
        return list(dict.fromkeys(result.case for result in self.results))

    def find(self, name: str, direction: str, case: Case) -> Result | None:
        """The result of that name, if its time counts."""
        found = (r for r in self.results if (r.name, r.direction, r.case) == (name, direction, case))
        return next((r for r in found if r.shown), None)

    def ours(self, direction: str, case: Case) -> Result | None:
        """Ours, backward as autograd runs it: from saved states where forward saves them. Its time may not count."""
        found = {r.name: r for r in self.results if (r.direction, r.case) == (direction, case)}
        return found.get(SAVING if direction == "backward" and SAVING in found else OURS)

    def measured(self, name: str) -> bool:
        """Whether there is any time of it."""
        return any(result.median is not None for result in self.results if result.name == name)

    def floor_share(self, result: Result) -> float | None:
        """The floor over the median: 1 is as fast as can be."""
        return None if result.median is None else result.work.floor(self.rates) / result.median

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """The report that :meth:`to_json` wrote.

        Raises:
            ValueError: it did not write this.
        """
        try:
            kept = json.loads(text)
            results, ladder = (
                tuple(Result(**row | {"case": Case(**row["case"])}) for row in kept[rows])
                for rows in ("results", "ladder")
            )
            return cls(kept["date"], kept["machine"], Rates(**kept["rates"]), results, ladder)
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"no report of `ssm-edu bench --device cuda`: {error!r}") from error

    @classmethod
    def load(cls, path: Path) -> Report:
        """The report in a file. Raises a ValueError, which names it, where it holds none."""
        try:
            return cls.from_json(path.read_text("utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def speedup(ours: Result | None, theirs: Result | None) -> float | None:
    """How often as fast ours is, by the medians."""
    if ours is None or theirs is None or ours.median is None or theirs.median is None:
        return None
    return theirs.median / ours.median
