"""Paths of files in messages."""

from __future__ import annotations

import os


def from_here(path: str) -> str:
    """The path, relative where it lies under the working directory; names such as `<stdin>` are no paths."""
    if path.startswith("<"):
        return path
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative
