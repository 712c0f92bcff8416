"""Other people's implementations: how they are found, and what agreement with them means.

Some packages import a compiler or a GPU's library as they start, though the formulas that are wanted from them need
neither. Of those one file is loaded, or one function in it, without the package around it.
"""

from __future__ import annotations
import __future__

import ast
import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

# What computes in float32 rounds sums of some 10² numbers of size 1, at 6e-8 each.
SINGLE = 1e-5


def agree(found: Any, expected: np.ndarray, wrong: np.ndarray, tolerance: float) -> None:
    """`found` is `expected`, relative to the largest number in it, and is far from what a wrong model would give."""
    found = np.asarray(found.detach() if hasattr(found, "detach") else found)
    assert found.shape == expected.shape == wrong.shape
    scale = max(1.0, np.abs(expected).max())
    assert np.abs(found - expected).max() <= tolerance * scale
    assert np.abs(found - wrong).max() > 100 * tolerance * scale


@contextmanager
def their_warnings_ignored() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def imported(name: str) -> Any:
    """That module; the test is skipped where there is none."""
    with their_warnings_ignored():
        return pytest.importorskip(name)


def file_of(package: str, path: str) -> Path:
    """A file of an installed package, which is not imported; the test is skipped where there is none."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"could not find {package!r}")
    return Path(spec.submodule_search_locations[0]) / path


def module(package: str, path: str) -> ModuleType:
    """The module in that file, alone."""
    spec = importlib.util.spec_from_file_location(f"{package}_alone", file_of(package, path))
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    with their_warnings_ignored():
        spec.loader.exec_module(loaded)
    return loaded


def function(package: str, path: str, name: str, names: dict[str, Any]) -> Any:
    """The function of that name in that file, wherever it is defined, undecorated; `names` is all that it can see."""
    tree = ast.parse(file_of(package, path).read_text("utf-8"))
    (found,) = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name)
    found.decorator_list = []
    names = dict(names)
    exec(compile(ast.Module([found], []), path, "exec", flags=__future__.annotations.compiler_flag), names)
    return names[name]
