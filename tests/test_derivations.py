"""Every derivation comes to the verdicts that it declares, and code, tests and ledger cite one another."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from typer.testing import CliRunner

from ssm_edu import bounds, derivations, scan
from ssm_edu.cli import app
from ssm_edu.ledger import Work
from ssm_edu.selective import reference
from ssm_edu.sources import SOURCES

ROOT = Path(__file__).parent.parent
CLAIMS = derivations.select([])
BY_ID = {one.id: one for one in CLAIMS}


@pytest.mark.usefixtures("no_type_checks")
@pytest.mark.parametrize("id", BY_ID)
def test_the_verdict_is_the_declared_one(id):
    result = BY_ID[id].check()
    assert result.ok, f"declared {result.declared}, came out {result.verdict}: {result.evidence}"


BACKWARD = "selective_scan_backward"
D_SUM, GROUPS = "(grad_s * p.u).sum(axis=(0, 2))", "np.repeat(M[..., t], dim // M.shape[1], axis=1)"


@pytest.mark.usefixtures("no_type_checks")
@pytest.mark.parametrize(
    ("id", "module", "function", "right", "wrong"),
    [
        ("SCAN-15", scan, "decay_combine", "exp(rates * sum2", "exp(rates * sum1"),
        ("SCAN-15", scan, "decay_combine", "sum2 + sum1", "sum2"),
        ("SCAN-20", scan, "rounding_bound", "nu = (4", "nu = 0.25 * (4"),
        ("SCAN-20", scan, "rounding_bound", "nu = (4", "nu = 1.5 * (4"),
        ("SCAN-20", scan, "rounding_bound", "(4 if", "(2 if"),
        ("ADJ-8", reference, BACKWARD, "t, np.conj(h) * e", "t, h * e"),
        ("ADJ-8", reference, BACKWARD, "dA += (np.conj(delta_t * dalpha)", "dA += (delta_t * dalpha"),
        ("ADJ-8", reference, BACKWARD, "np.conj(delta_t**2 * method.dp(z))", "0"),
        ("ADJ-8", reference, BACKWARD, "np.where(fresh[:, t, None, None], 0, np.conj(m", "(np.conj(m"),
        ("ADJ-8", reference, BACKWARD, "if grad_last_state is None else", "if True else"),
        ("ADJ-8", reference, BACKWARD, "if p.delta_softplus:", "if True:"),
        ("ADJ-8", reference, BACKWARD, D_SUM, D_SUM.replace("grad_s", "grad_y")),
        ("ADJ-8", reference, "map_at", GROUPS, "np.tile(M[..., t], (1, dim // M.shape[1], 1))"),
        ("ADJ-8", reference, "add_to_map", "gradient.sum(axis=0)", "gradient[0]"),
        ("ADJ-8", reference, "multiplicity", "2 if", "1 if"),
        ("ADJ-9", reference, BACKWARD, D_SUM, D_SUM + " + 1e-12"),
        ("ROUND-12", bounds, "_bound", "MARGIN * ball.radius", "0.5 * ball.radius"),
        ("ROUND-12", bounds, "_by_map", "terms, axis=(0, 3))", "terms, axis=(0, 3)).scaled(0.01)"),
        ("ROUND-13", bounds, "_bound", "MARGIN * ball.radius", "20 * ball.radius"),
    ],
)
def test_a_mistake_in_the_library_is_not_passed(monkeypatch, id, module, function, right, wrong):
    """A claim is about the code that cites it."""
    original = getattr(module, function)
    source = inspect.getsource(original)
    assert source.count(right) == 1
    names = dict(vars(module))
    exec("from __future__ import annotations\n" + source.replace(right, wrong), names)
    for place in (module, derivations.load(BY_ID[id].derivation)):
        if getattr(place, function, None) is original:
            monkeypatch.setattr(place, function, names[function])
    monkeypatch.setattr(Work, "forall", without_shrinking)
    assert BY_ID[id].check().verdict == "refuted"


def without_shrinking(work, strategy, check, examples=200):
    every_case = settings(max_examples=examples, derandomize=True, database=None, deadline=None)
    every_case = settings(every_case, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    every_case(given(strategy)(lambda value: check(value)))()


@pytest.mark.parametrize("id", ["ZOH-4", "ZOH-6", "SCAN-8", "SCAN-24", "SEL-20", "SEL-21", "SEL-22", "ADJ-2", "ADJ-3"])
def test_what_is_proved_for_every_size_says_how(id):
    assert re.search("induction step|every length|any length", str(BY_ID[id].check().evidence))


def test_ids_are_unique():
    assert len(BY_ID) == len(CLAIMS)


def test_every_refuted_claim_names_one_that_holds():
    for one in CLAIMS:
        if one.corrected_by is not None:
            assert BY_ID[one.corrected_by].declared in ("proved", "verified"), one.id
    assert any(one.declared == "refuted" for one in CLAIMS)


def test_every_claim_has_a_title_a_statement_and_known_sources():
    for one in CLAIMS:
        assert one.title, one.id
        assert one.statement, one.id
        for source in one.source.split(";"):
            assert any(source.strip().startswith(key) for key in SOURCES), f"{one.id} cites {source!r}"


def test_ids_run_from_one_in_reading_order():
    seen: dict[str, int] = {}
    for one in CLAIMS:
        prefix, number = one.id.rsplit("-", 1)
        assert int(number) == seen.get(prefix, 0) + 1, one.id
        seen[prefix] = int(number)


def cited_in(*folders: str) -> set[str]:
    prefixes = "|".join({one.id.rsplit("-", 1)[0] for one in CLAIMS})
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return {match for path in files for match in re.findall(rf"\b(?:{prefixes})-\d+\b", path.read_text("utf-8"))}


def test_every_cited_id_is_in_the_ledger():
    assert cited_in("ssm_edu", "cuda", "tests", "derivations") <= set(BY_ID)


def test_every_id_is_cited_in_code_or_tests():
    assert set(BY_ID) - cited_in("ssm_edu", "cuda", "tests") == set()


def test_a_script_runs_alone_and_prints_its_steps(tmp_path):
    script = derivations.folder() / "selectivity.py"
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    assert "✓ proved (symbolic)" in run.stdout
    assert "source: Article 1, §2.2" in run.stdout


def test_unknown_names_are_refused_with_a_suggestion():
    with pytest.raises(ValueError, match="no derivation or claim named 'zero_order'; did you mean 'zero_order_hold'"):
        derivations.select(["zero_order"])
    with pytest.raises(ValueError, match="no derivation named 'nothing'; the derivations are zero_order_hold, phi_"):
        derivations.load("nothing")
    with pytest.raises(ValueError, match="'adjont'; did you mean 'adjoint'") as refused:
        derivations.select(["nothing", "zoh-3", "x", "ZOH-1", "adjont", "hold"])
    for words in (
        "did you mean 'ZOH-3'?",
        "did you mean 'zero_order_hold'?",
        "named 'nothing' or 'x'; the derivations",
    ):
        assert words in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["atlas", "mamb", "nothing"], ["no model named 'mamb'; did you mean 'mamba'?", "'nothing'; the models are"]),
        (
            ["experiment", "selective_coping"],
            ["no experiment named 'selective_coping'; did you mean 'selective_copying'"],
        ),
        (["experiment", "nothing"], ["no experiment named 'nothing'; the experiments are"]),
    ],
)
def test_commands_suggest_a_name(arguments, words):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert all(one in result.output.replace("\n", " ") for one in words)


def test_one_claim_is_one_claim():
    assert "\n1 claim in " in CliRunner().invoke(app, ["derive", "ZOH-1"]).output
