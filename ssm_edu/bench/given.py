"""Times that were given, not measured here: those of `mamba_ssm`'s CUDA C++ in docs/benchmarks/mamba_ssm.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from ssm_edu.bench.results import THEIRS

FILE = f"{THEIRS}.json"


@dataclass(frozen=True)
class Given:
    """Medians of `mamba_ssm`.

    Attributes:
        report: the name of the report beside which they stand, of a GPU of the same kind.
        gpu, date, source: on what they were taken, when, and how.
        milliseconds: by batch, dim, length, then by dtype and direction; as many digits as were written down.
    """

    report: str
    gpu: str
    date: str
    source: str
    milliseconds: dict[str, dict[str, dict[str, Decimal]]]

    @classmethod
    def load(cls, path: Path) -> Given:
        """The times in a file. Raises a ValueError, which names it, where it holds none."""
        try:
            return cls(**json.loads(path.read_text("utf-8"), parse_float=Decimal))
        except (TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path}: no times that were given: {error!r}") from error
