"""What to say of a name that nothing has."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def unknown(kind: str, wanted: Iterable[str], known: Iterable[str], otherwise: str) -> str:
    """What to say of the wanted names that are not known; empty if all are.

    Args:
        kind: what they would name: `no KIND named …`.
        otherwise: said of those that no known name is like.
    """
    any_case = {name.casefold(): name for name in known}
    strange = [name for name in dict.fromkeys(wanted) if name not in any_case.values()]
    meant = {name: any_case[key] for name in strange if (key := _closest(name.casefold(), list(any_case)))}
    lines = [f"no {kind} named {name!r}; did you mean {known_one!r}?" for name, known_one in meant.items()]
    if unlike := [repr(name) for name in strange if name not in meant]:
        lines.append(f"no {kind} named {' or '.join(unlike)}; {otherwise}")
    return " ".join(lines)


def _closest(name: str, known: list[str]) -> str:
    containing = [key for key in known if len(name) > 2 and name in key]
    return next(iter(get_close_matches(name, known, n=1) + containing), "")
