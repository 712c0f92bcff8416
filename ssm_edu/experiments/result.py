"""What a run of an experiment leaves behind, and whom it tells how far it has come."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from ssm_edu.bench import report

Size = Literal["small", "paper"]
Rows = list[dict[str, Any]]
Settings = TypeVar("Settings")


class CannotRun(Exception):
    """What was asked for needs something that is not here; the message says what."""


def sized(sizes: Mapping[Size, Settings], size: Size, device: str) -> Settings:
    """The settings of this size.

    Raises:
        ValueError: there is none of this size.
        CannotRun: the paper's size is asked for on a CPU.
    """
    if size not in sizes:
        raise ValueError(f"size is {size!r}, expected one of {', '.join(sizes)}")
    if size == "paper" and not device.startswith("cuda"):
        raise CannotRun(f"the paper's size takes a GPU, but the device is {device!r}; the small size runs on it")
    return sizes[size]


class Progress:
    """Whom a run tells how far it has come: nobody, or a function of the fraction that is done and of a note."""

    def __init__(self, tell: Callable[[float, str], object] | None = None) -> None:
        self.tell = tell

    def advance(self, fraction: float, note: str = "") -> None:
        """`fraction` of the whole run is done, from 0 to 1; `note` says in a few words what comes next."""
        if self.tell is not None:
            self.tell(fraction, note)

    def part(self, start: float, end: float, label: str = "") -> Progress:
        """For a part of the run, whose own fractions run from 0 to 1; each of its notes begins with the label."""
        return Progress(lambda fraction, note: self.advance(start + (end - start) * fraction, label + note))


def machine() -> dict[str, Any]:
    """The CPU, the versions of packages, and of torch, where it is loaded, its threads and the GPU it sees."""
    found, torch = report.machine(), sys.modules.get("torch")
    if torch is not None:
        found["threads"] = torch.get_num_threads()
        found["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return found


def bytes_text(number: float) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f} bytes"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Result:
    """A run.

    Attributes:
        experiment: its name, that of its module.
        size: `small` or `paper`.
        seed: of every random number.
        device: `cpu` or `cuda`, as torch names it.
        settings: what was run, by name: sizes, steps, rates.
        measured: rows, all with the same keys where they can be; None where there is no figure. Times in seconds.
        findings: sentences, each computed from the rows.
        machine: where it ran.
        date: UTC, ISO 8601.
    """

    experiment: str
    size: str
    seed: int
    device: str
    settings: dict[str, Any]
    measured: Rows
    findings: list[str]
    machine: dict[str, Any] = field(default_factory=machine)
    date: str = field(default_factory=now)

    def to_json(self) -> str:
        """Raises a ValueError where a figure is not finite: JSON has none such."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Result:
        """The result that :meth:`to_json` wrote. Raises a ValueError where it did not write this."""
        try:
            return cls(**json.loads(text))
        except (TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"no result of `ssm-edu experiment`: {error}") from error
