"""compute-sanitizer over the production kernels: `python -m tests.sanitize [memcheck racecheck initcheck synccheck]`.

Every kernel of `ssm_kernels/catalogue.py` runs on a small problem: once without a tool, which compiles it onto the
disk, then under each tool, all at the same time. Each tool has a planted fault to find as well. A line a tool; the exit
code is 1 if one found something, missed its fault or could not run.

Device memory is Numba's, a cudaMalloc an array, and no other kernel writes it. What the kernels leave unwritten of
their results, initcheck sees when these are copied to the host.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import cuda, float32

from tests import catalogue_cases, kernel_runs

# NVIDIA's bindings ask the driver for entry points that it does not have, and ask again in another way
TOOLS: dict[str, tuple[str, ...]] = {
    "memcheck": ("--report-api-errors", "no"),
    "racecheck": (),
    "initcheck": (),
    "synccheck": (),
}
LIMIT = 300  # seconds for a process under a tool, where a barrier that is missed may wait for ever


# What a tool must find


@cuda.jit
def outside(x):  # type: ignore[no-untyped-def]
    x[cuda.threadIdx.x + (1 << 20)] = float32(1)


@cuda.jit
def no_barrier(x):  # type: ignore[no-untyped-def]
    tile = cuda.shared.array(64, float32)
    i = cuda.threadIdx.x
    tile[i] = float32(i)
    x[i] = tile[63 - i]


@cuda.jit
def unwritten(x):  # type: ignore[no-untyped-def]
    x[cuda.threadIdx.x] += float32(1)


@cuda.jit
def not_of_the_mask(x):  # type: ignore[no-untyped-def]
    x[cuda.threadIdx.x] = float32(1)
    cuda.syncwarp(0xFFFF)


PLANTS = {"memcheck": outside, "racecheck": no_barrier, "initcheck": unwritten, "synccheck": not_of_the_mask}


def plant(tool: str) -> None:
    PLANTS[tool][1, 64](cuda.device_array(64, np.float32))
    cuda.synchronize()


# What the tools say


class Done(NamedTuple):
    code: int
    output: str

    @property
    def found(self) -> int | None:
        """Errors and hazards by the tool's summary; None if there is none, as where the tool could not run."""
        counts = re.findall(r"SUMMARY: (\d+) (?:error|hazard)", self.output)
        return sum(map(int, counts)) if counts else None

    def excerpt(self) -> str:
        """What the tool found first, or the last that was said."""
        said = [line for line in self.output.splitlines() if line.strip("= ")]
        return "\n".join(f"    {line}" for line in (said[:12] if self.found else said[-12:]))


def verdict(tool: str, shares: Sequence[Done], planted: Done) -> tuple[bool, str]:
    """Whether all is well with a tool, and the line that says so, or what is not."""
    for one in shares:
        if one.found is None:
            return False, f"{tool} could not run (exit code {one.code}):\n{one.excerpt()}"
    found = sum(one.found or 0 for one in shares)
    if found:
        return False, f"{tool} found {found}:\n{next(one.excerpt() for one in shares if one.found)}"
    for one in shares:
        if one.code:
            return False, f"{tool} found nothing, but what ran failed (exit code {one.code}):\n{one.excerpt()}"
    if planted.found:
        return True, f"{tool} found nothing, and in a planted fault {planted.found}"
    return False, f"{tool} found nothing, and nothing in a planted fault:\n{planted.excerpt()}"


# The command


def sanitizer() -> str:
    """The program's path.

    Raises:
        ToolchainError: it is not here; the message says what to install.
    """
    from ssm_kernels.offline.toolchain import program

    known = [shutil.which("compute-sanitizer"), *sorted(Path("/usr/local").glob("cuda*/bin/compute-sanitizer"))]
    return next((str(path) for path in known if path), None) or program("compute-sanitizer", "sanitizer")


def run(*command: str, limit: float | None = None) -> Done:
    """What a program says until it ends, or after `limit` seconds is ended."""
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "0", "NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS": "0"}
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=environment, start_new_session=True, **pipes) as process:
        try:
            output, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the tool, and what it runs
            output = f"{process.communicate()[0]}\nnot done after {limit} s"
    return Done(process.returncode, output)


def sanitize(tools: Sequence[str], program: str) -> int:
    """The exit code, the lines printed."""
    this, processors = (sys.executable, "-m", "tests.sanitize"), os.cpu_count() or 1
    count = len(list(catalogue_cases.cases()))
    of = min(max(processors // len(tools), 1), count)
    with ThreadPoolExecutor(max(processors, len(tools) * (of + 1))) as pool:
        print(f"{count} problems for the catalogue's kernels: compiling what is not on the disk", flush=True)
        plain = list(pool.map(lambda k: run(*this, "launch", str(k), str(processors)), range(processors)))
        if failed := next((one for one in plain if one.code), None):
            print(f"without a tool it fails (exit code {failed.code}):\n{failed.excerpt()}")
            return 1

        def under(tool: str, *arguments: str) -> Any:
            return pool.submit(run, program, "--tool", tool, *TOOLS[tool], *this, *arguments, limit=LIMIT)

        shares = {tool: [under(tool, "launch", str(k), str(of)) for k in range(of)] for tool in tools}
        plants = {tool: under(tool, "plant", tool) for tool in tools}
        verdicts = []
        for tool in tools:
            verdicts.append(verdict(tool, [one.result() for one in shares[tool]], plants[tool].result()))
            print(verdicts[-1][1], flush=True)
    return 0 if all(well for well, _ in verdicts) else 1


def main(arguments: Sequence[str]) -> int | str:
    """What `sys.exit` takes."""
    match arguments:
        case ["launch", share, of]:
            for case in list(catalogue_cases.cases())[int(share) :: int(of)]:
                catalogue_cases.launch(case)
            return 0
        case ["plant", tool]:
            plant(tool)
            return 0
    if unknown := [tool for tool in arguments if tool not in TOOLS]:
        return f"found {', '.join(unknown)}, expected any of {', '.join(TOOLS)}"
    if kernel_runs.NO_GPU:
        return f"compute-sanitizer {kernel_runs.NO_GPU}"
    from ssm_kernels.offline import ToolchainError

    try:
        return sanitize(arguments or list(TOOLS), sanitizer())
    except ToolchainError as error:
        return str(error)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
