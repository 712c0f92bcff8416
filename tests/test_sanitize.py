"""`make sanitize` launches every production kernel, plants faults that are faults, and believes no silent tool."""

import numpy as np
import pytest
from numba import cuda
from ssm_kernels import catalogue, choosing

from tests import catalogue_cases, kernel_runs, sanitize
from tests.sanitize import PLANTS, TOOLS, Done, main, verdict

CASES = {case.title: case for case in catalogue_cases.cases()}


@kernel_runs.in_the_simulator
def test_every_kernel_of_the_catalogue_is_launched(monkeypatch):
    """By what stands in for them, which writes nothing: every case says that a result is not finite."""
    launched = []

    def noted(kernel):
        launched.append(kernel.kernel)
        return lambda *launch, **early: None

    monkeypatch.setattr(choosing.Compilable, "compiled", noted)
    for case in CASES.values():
        with pytest.raises(ArithmeticError, match="is not finite"):
            catalogue_cases.launch(case)
    assert {one.kernel for one in catalogue.variants()} <= set(launched)


@kernel_runs.in_the_simulator
@pytest.mark.parametrize(
    "tool", [tool for tool in TOOLS if tool != "initcheck"]
)  # the simulator's global memory is always written
def test_a_planted_fault_is_one(tool):
    from ssm_edu.testing.simulator import KernelError, simulated

    with pytest.raises(KernelError), simulated():
        PLANTS[tool][1, 64](cuda.device_array(64, np.float32))


CLEAN = Done(0, "========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n")
FAULT = Done(0, "========= COMPUTE-SANITIZER\n========= Invalid __global__ write\n========= ERROR SUMMARY: 64 errors\n")
NO_HAZARD = Done(0, "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n")
HAZARD = Done(
    0, "========= Error: Race reported\n========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)\n"
)
NOTHING_RAN = Done(
    255,
    "========= COMPUTE-SANITIZER\n========= Error: Target application terminated before first instrumented API call\n",
)


@pytest.mark.parametrize(
    ("tool", "shares", "planted", "well", "words"),
    [
        ("memcheck", [CLEAN, CLEAN], FAULT, True, ["found nothing, and in a planted fault 64"]),
        ("racecheck", [NO_HAZARD], HAZARD, True, ["found nothing, and in a planted fault 1"]),
        ("memcheck", [CLEAN, FAULT], FAULT, False, ["memcheck found 64:", "Invalid __global__ write"]),
        ("racecheck", [HAZARD, NO_HAZARD, HAZARD], HAZARD, False, ["racecheck found 2:", "Race reported"]),
        ("initcheck", [CLEAN], CLEAN, False, ["nothing in a planted fault:"]),
        ("initcheck", [CLEAN], NOTHING_RAN, False, ["nothing in a planted fault:", "terminated before"]),
        ("synccheck", [CLEAN, NOTHING_RAN], CLEAN, False, ["could not run (exit code 255):", "terminated before"]),
        ("memcheck", [CLEAN._replace(code=1)], FAULT, False, ["what ran failed (exit code 1)"]),
    ],
)
def test_verdicts(tool, shares, planted, well, words):
    found, said = verdict(tool, shares, planted)
    assert found == well
    assert said.startswith(tool)
    assert all(word in said for word in words)


def stand_in(monkeypatch, output):
    def run(*command, limit=None):
        return next((done for words, done in output.items() if set(words.split()) <= set(command)), Done(0, ""))

    monkeypatch.setattr(sanitize, "run", run)


@pytest.mark.parametrize(("under", "code"), [(CLEAN, 0), (FAULT, 1), (NOTHING_RAN, 1)])
def test_the_exit_code(under, code, monkeypatch, capsys):
    stand_in(monkeypatch, {"--tool plant": FAULT, "--tool": under})
    assert sanitize.sanitize(["memcheck", "initcheck"], "compute-sanitizer") == code
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[0] in "mi"] == [
        "memcheck",
        "initcheck",
    ]


def test_kernels_that_fail_without_a_tool_are_not_looked_at(monkeypatch, capsys):
    stand_in(monkeypatch, {"--tool": CLEAN, "launch": Done(1, "RuntimeError: no room\n")})
    assert sanitize.sanitize(list(TOOLS), "compute-sanitizer") == 1
    assert "without a tool it fails (exit code 1):\n    RuntimeError: no room" in capsys.readouterr().out


@pytest.mark.parametrize("processors", [1, 16, 500])
def test_every_case_runs_under_every_tool_once(processors, monkeypatch):
    """No process is without a case: a tool complains of a program that launches nothing."""
    shares = {tool: [] for tool in TOOLS}

    def run(*command, limit=None):
        if "--tool" in command and "launch" in command:
            shares[command[2]].append(list(CASES)[int(command[-2]) :: int(command[-1])])
        return FAULT if "plant" in command else CLEAN

    monkeypatch.setattr(sanitize, "run", run)
    monkeypatch.setattr(sanitize.os, "cpu_count", lambda: processors)
    assert sanitize.sanitize(list(TOOLS), "compute-sanitizer") == 0
    for found in shares.values():
        assert all(found)
        assert sorted(title for share in found for title in share) == sorted(CASES)


def test_an_unknown_tool_is_named():
    assert main(["memchek"]) == "found memchek, expected any of memcheck, racecheck, initcheck, synccheck"


def test_a_program_that_does_not_end_is_ended():
    done = sanitize.run("sh", "-c", "echo it began; sleep 20; true", limit=0.5)
    assert done.code != 0
    assert "it began" in done.output
    assert "not done after 0.5 s" in done.output
