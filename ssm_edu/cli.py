"""The command line, `ssm-edu`."""

from __future__ import annotations

import os
import sys

import typer

from ssm_edu.commands.atlas import atlas_command
from ssm_edu.commands.bench import bench_command
from ssm_edu.commands.check import check_command
from ssm_edu.commands.compare import compare_command
from ssm_edu.commands.derive import derive_command
from ssm_edu.commands.doctor import doctor_command
from ssm_edu.commands.experiment import experiment_command

if "hypothesis" not in sys.modules:  # it would leave a .hypothesis in whatever folder the command runs in
    os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", os.devnull)

app = typer.Typer(
    help="The executable derivation of Mamba's selective scan.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("derive")(derive_command)
app.command("check")(check_command)
app.command("compare")(compare_command)
app.command("bench")(bench_command)
app.command("atlas")(atlas_command)
app.command("experiment")(experiment_command)
app.command("doctor")(doctor_command)
