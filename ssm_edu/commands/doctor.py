"""`ssm-edu doctor`: what this machine has, and what of ssm_edu will run on it."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import ssm_edu

KERNELS = "the selective scan on a GPU, backend='cuda', and CUDA kernels of your own"


@dataclass(frozen=True)
class Finding:
    """One line of the report: `ok` is None where a missing thing is optional."""

    name: str
    ok: bool | None
    found: str
    advice: str = ""


def _package(name: str, use: str, required: bool, install: str = "") -> Finding:
    try:
        return Finding(name, True, version(name), use)
    except PackageNotFoundError:
        return Finding(name, False if required else None, "not installed", f"{use}: pip install {install or name}")


def _cuda() -> Finding:
    from ssm_edu.gpu import runtime

    try:
        target = runtime.target()
        runtime.kernels()
    except (ImportError, RuntimeError) as error:
        return Finding("Numba CUDA", None, "does not run", f"{KERNELS}: {error}")
    if target.SIMULATED:
        return Finding("Numba CUDA", True, "simulator", f"NUMBA_ENABLE_CUDASIM is set: {KERNELS}, in Python and slowly")
    device = target.cuda.get_current_device()
    name = device.name.decode() if isinstance(device.name, bytes) else device.name
    major, minor = device.compute_capability
    return Finding("Numba CUDA", True, f"{name}, compute capability {major}.{minor}", KERNELS)


def examine() -> list[Finding]:
    """Every finding, required things first."""
    cores = f"{os.cpu_count()} cores"
    system = f"{platform.system()} {platform.machine()}, {cores}"
    return [
        Finding("ssm-edu", True, ssm_edu.__version__, "the NumPy layer and this command"),
        Finding("Python", True, f"{platform.python_version()} on {system}"),
        _package("numpy", "every array", required=True),
        _package("scipy", "dense discretisation, FFT convolution, derivations", required=True),
        _package("sympy", "derivations", required=True),
        _package("hypothesis", "derivations and property tests", required=True),
        _package("numba", "the fast CPU path, and CUDA kernels", required=True),
        _package("matplotlib", "figures", required=False),
        _package("torch", "checking and timing scans of torch's", required=False),
        _cuda(),
    ]


def doctor_command() -> None:
    """Say what this machine has and what of ssm_edu will run on it. Exit code 1 if something required is missing."""
    table = Table(box=None, pad_edge=False)
    for column in ("", "what", "found", "for"):
        table.add_column(column)
    findings = examine()
    for finding in findings:
        mark = {True: "[green]✓[/]", False: "[red]✗[/]", None: "[yellow]–[/]"}[finding.ok]
        table.add_row(mark, finding.name, escape(finding.found), escape(finding.advice))
    Console(highlight=False).print(table)
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(1)
