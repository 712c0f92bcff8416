"""Every derivation comes to the verdicts that it declares, and code, tests and ledger cite one another."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ssm_edu import derivations
from ssm_edu.sources import SOURCES

ROOT = Path(__file__).parent.parent
CLAIMS = derivations.select([])
BY_ID = {one.id: one for one in CLAIMS}


@pytest.mark.parametrize("id", BY_ID)
def test_the_verdict_is_the_declared_one(id):
    result = BY_ID[id].check()
    assert result.ok, f"declared {result.declared}, came out {result.verdict}: {result.evidence}"


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
    script = derivations.folder() / "zero_order_hold.py"
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    assert "✓ proved (symbolic)" in run.stdout
    assert "source: Article 1, §1.2" in run.stdout


def test_unknown_names_are_refused_with_a_suggestion():
    with pytest.raises(ValueError, match="no derivation or claim named 'zero_order'; did you mean 'zero_order_hold'"):
        derivations.select(["zero_order"])
    with pytest.raises(ValueError, match="no derivation named 'nothing'"):
        derivations.load("nothing")
