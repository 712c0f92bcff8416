"""`ssm-edu bench`: selective scans against each other, on the CPU or against the floor of a GPU."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from ssm_edu.commands.usage import check_json_path, usage_error


def bench_command(
    device: Annotated[
        str,
        typer.Option(help="cpu, cuda, or auto: the one that the other options are for, or else cuda where it runs."),
    ] = "auto",
    dtype: Annotated[
        str | None,
        typer.Option(
            help="cpu: float32 or float64; cuda: some of float32,bfloat16,float16,float64. "
            "Default: float32; on cuda, float32,bfloat16.",
            show_default=False,
        ),
    ] = None,
    direction: Annotated[str, typer.Option(help="forward, backward or both.")] = "both",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="cpu: rows of the batch. Default: 1.")] = None,
    dim: Annotated[int | None, typer.Option(min=1, help="cpu: channels. Default: 512.")] = None,
    length: Annotated[int | None, typer.Option(min=1, help="cpu: steps. Default: 1024.")] = None,
    state: Annotated[int | None, typer.Option(min=1, help="cpu: states of a channel. Default: 16.")] = None,
    lengths: Annotated[bool, typer.Option("--lengths", help="cpu: also 10³ to 10⁶ steps of 16 channels.")] = False,
    shape: Annotated[
        list[str] | None,
        typer.Option(help="cuda: batch,dim,length,state or batch,dim,length,state,group; may be repeated."),
    ] = None,
    ladder: Annotated[bool, typer.Option("--ladder", help="cuda: also every rung of the ladder.")] = False,
    figure: Annotated[Path | None, typer.Option(help="cuda: draw time against floor into this SVG file.")] = None,
) -> None:
    """Time selective scans with D, z, bias and softplus, each once it is found to lie within the oracle's error bound.

    On the CPU: this package's beside those of torch and mambapy, where installed. On a GPU: its CUDA kernels beside
    mamba_ssm's, where installed, and the floor that the GPU's own bandwidth and rate of exponentials set.

    A time of ours that is outside its bound is struck out. Exit code 1 if there is one, 2 if an option is wrong.
    """
    from ssm_edu.bench.contestants import DIRECTIONS

    if direction not in (*DIRECTIONS, "both"):
        usage_error(f"direction is {direction!r}, expected one of forward, backward, both")
    directions = DIRECTIONS if direction == "both" else (direction,)
    check_json_path(json_file)
    for_cpu = {"batch": batch, "dim": dim, "length": length, "state": state, "lengths": lengths}
    for_cuda = {"shape": shape, "ladder": ladder, "figure": figure}
    chosen, reason = choose(device, given(for_cpu), given(for_cuda))
    if chosen == "cuda":
        bench_cuda(shape or [], dtype or "float32,bfloat16", directions, ladder, json_file, figure)
    else:
        bench_cpu(
            (batch or 1, dim or 512, length or 1024, state or 16),
            dtype or "float32",
            directions,
            lengths,
            json_file,
            reason,
        )


def given(options: dict[str, Any]) -> list[str]:
    return [f"--{name}" for name, value in options.items() if value]


def choose(device: str, for_cpu: list[str], for_cuda: list[str]) -> tuple[str, str | None]:
    """`cpu` or `cuda`; and where `auto` came to the CPU because CUDA does not run, why."""
    from ssm_edu.bench.device.gpu import why_not

    if device not in ("auto", "cpu", "cuda"):
        usage_error(f"device is {device!r}, expected one of auto, cpu, cuda")
    if (for_cpu and for_cuda) or (device == "cpu" and for_cuda) or (device == "cuda" and for_cpu):
        words = [
            f"{', '.join(names)}: for {kind} alone" for kind, names in (("cpu", for_cpu), ("cuda", for_cuda)) if names
        ]
        usage_error("; ".join([*words, f"--device is {device}"]))
    if device == "cpu" or for_cpu:
        return "cpu", None
    reason = why_not()
    if reason is None:
        return "cuda", None
    if device == "cuda" or for_cuda:
        usage_error(f"the CUDA kernels cannot be timed here: {reason}")
    return "cpu", reason


def bench_cpu(
    sizes: tuple[int, int, int, int],
    dtype: str,
    directions: tuple[str, ...],
    lengths: bool,
    json_file: Path | None,
    no_cuda: str | None,
) -> None:
    from ssm_edu.bench import Case, Judge, console, report

    try:
        if dtype not in ("float32", "float64"):
            raise ValueError(f"dtype is {dtype!r}, expected one of float32, float64")
        case = Case(*sizes, dtype)
        if "backward" in directions:
            Judge(case).require_all_steps("gradients are judged whole; --direction forward judges the first steps of y")
    except (TypeError, ValueError) as error:
        usage_error(str(error))
    out = Console(highlight=False)
    rows = console.execute(case, directions, lengths=lengths, json_file=json_file, out=out)
    if no_cuda is not None:
        out.print(f"[yellow]–[/] no CUDA: {escape(no_cuda)}", soft_wrap=True)
    report.conclude(rows, out)


def bench_cuda(
    shapes: list[str],
    dtypes: str,
    directions: tuple[str, ...],
    ladder: bool,
    json_file: Path | None,
    figure: Path | None,
) -> None:
    from ssm_edu.bench.device import console

    if figure is not None and not figure.absolute().parent.is_dir():
        usage_error(f"--figure: no folder {figure.absolute().parent}")
    if figure is not None and find_spec("matplotlib") is None:
        usage_error("--figure needs matplotlib: pip install matplotlib")
    try:
        cases = console.cases(shapes, dtypes)
    except ValueError as error:
        usage_error(str(error))
    console.execute(cases, directions, ladder=ladder, json_file=json_file, figure=figure)
