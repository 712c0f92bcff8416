"""`ssm-edu` as a person meets it."""

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from ssm_edu import derivations
from ssm_edu.cli import app
from ssm_edu.ledger import claim

runner = CliRunner()


def ssm_edu(*arguments, cwd=None):
    command = [sys.executable, "-c", "from ssm_edu.cli import app; app()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120, env=os.environ)


def test_derive_prints_the_ledger_and_writes_it(tmp_path):
    run = ssm_edu("derive", "phi_functions", "--json", "ledger.json", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "PHI-1" in run.stdout
    assert "4 claims in" in run.stdout
    ledger = json.loads((tmp_path / "ledger.json").read_text("utf-8"))
    assert ledger["seconds"] > 0
    assert [c["id"] for c in ledger["claims"]] == ["PHI-1", "PHI-2", "PHI-3", "PHI-4"]
    wanted = {"id", "statement", "source", "method", "declared", "verdict", "evidence", "derivation"}
    assert all(wanted <= set(c) for c in ledger["claims"])
    assert ledger["claims"][0]["derivation"] == "phi_functions"


def test_commands_leave_nothing_behind_and_say_nothing_on_stderr(tmp_path):
    for command in (["derive", "ROUND-1", "PHI-1"], ["check", "ssm_edu:selective_scan", "--max-examples", "1"]):
        run = ssm_edu(*command, cwd=tmp_path)
        assert (run.returncode, run.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_verbose_prints_the_mathematics():
    result = runner.invoke(app, ["derive", "ZOH-3", "--verbose"])
    assert result.exit_code == 0
    assert "the solution at Δ, with x held at x₀" in result.stdout
    assert "source: Mamba, eq. 4" in result.stdout


def test_a_wrong_verdict_exits_with_1_and_says_which_and_why(monkeypatch):
    @claim("BAD-1", "1 = 2", source="Mamba", method="symbolic", declared="proved")
    def one_is_two(work):
        work.equal(1, 2)

    monkeypatch.setattr(derivations, "select", lambda names: [one_is_two])
    result = runner.invoke(app, ["derive"])
    assert result.exit_code == 1
    assert "1 not as declared" in result.output
    assert "BAD-1" in result.output
    assert "is declared proved but came out refuted" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["derive", "zero_order_holt"], "did you mean 'zero_order_hold'"),
        (["derive", "zoh-3"], "did you mean 'ZOH-3'"),
        (["derive", "nothing"], "the derivations are zero_order_hold, phi_functions,"),
        (["derive", "--json", "."], "is a directory"),
        (["derive", "--json", "/no/such/folder/x.json"], "no folder /no/such/folder"),
        (["check", "ssm_edu:selective_scan", "--dtype", "int8"], "ssm-edu: dtype is 'int8', expected one of"),
        (["check", "ssm_edu:selective_scan", "--algorithm", "scan"], "ssm-edu: algorithm is 'scan', expected one of"),
        (
            ["check", "ssm_edu:selective_scan", "--algorithm", "chunked", "--chunk", "0"],
            "chunk is 0, expected an integer",
        ),
    ],
)
def test_usage_errors_exit_with_2(arguments, message):
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2
    assert message in result.output.replace("\n", " ")
    assert result.stdout == ""


def test_doctor_says_what_runs_here():
    run = ssm_edu("doctor")
    assert run.returncode == 0, run.stderr
    for word in ("Python", "numpy", "scipy", "numba", "Numba CUDA"):
        assert word in run.stdout


def test_help_names_the_commands():
    run = ssm_edu("--help")
    assert run.returncode == 0
    assert "derive" in run.stdout
    assert "doctor" in run.stdout
