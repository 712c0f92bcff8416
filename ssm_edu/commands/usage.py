"""What a command says of wrong arguments, before it exits with 2."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import typer
from rich.console import Console
from rich.markup import escape


def usage_error(message: str) -> NoReturn:
    Console(stderr=True, highlight=False).print(f"ssm-edu: {escape(message)}", style="red", soft_wrap=True)
    raise typer.Exit(2)


def check_json_path(path: Path | None) -> None:
    if path is not None and not path.absolute().parent.is_dir():
        usage_error(f"--json: no folder {path.absolute().parent}")
