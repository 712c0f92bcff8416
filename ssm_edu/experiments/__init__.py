"""The articles' claims as runs: each module has a question, `run`, which measures, and `figure`, which draws."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

__all__ = ["Card", "cards", "load"]


@dataclass(frozen=True)
class Card:
    """What is known of an experiment before it is imported, which takes torch.

    Attributes:
        name: of its module, and for `ssm-edu experiment`.
        title: in a few words.
        question: that it answers.
        needs: packages, a comma between two.
        paper: what a run at the paper's size takes, a GPU in any case.
    """

    name: str
    title: str
    question: str
    needs: str
    paper: str


def cards() -> dict[str, Card]:
    """By name: every module here that asks a question."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        constants = _constants(path)
        if "QUESTION" in constants:
            needs = constants.get("NEEDS", "torch")
            found[path.stem] = Card(path.stem, constants["TITLE"], constants["QUESTION"], needs, constants["PAPER"])
    return found


def load(name: str) -> ModuleType:
    """The module of an experiment.

    Raises:
        ValueError: there is none of this name.
        ImportError: it needs a package that is not installed.
    """
    if name not in (known := cards()):
        raise ValueError(f"no experiment named {name!r}; the experiments are {', '.join(known)}")
    return import_module(f"{__name__}.{name}")


def _constants(path: Path) -> dict[str, str]:
    """The strings that a module assigns to names."""
    found = {}
    for line in ast.parse(path.read_text("utf-8")).body:
        match line:
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=str(text))):
                found[name] = text
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(text))):
                found[name] = text
    return found
