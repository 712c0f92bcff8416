"""The command line, `ssm-edu`."""

from __future__ import annotations

import typer

from ssm_edu.commands.check import check_command
from ssm_edu.commands.derive import derive_command
from ssm_edu.commands.doctor import doctor_command

app = typer.Typer(
    help="The executable derivation of Mamba's selective scan.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("derive")(derive_command)
app.command("check")(check_command)
app.command("doctor")(doctor_command)
