"""The page of the atlas in the reference: its table is the cards', and no model lacks a section."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from ssm_edu.atlas import models

DOCS = Path(__file__).parent.parent.parent / "docs"


@pytest.fixture
def atlas_page(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / "_lib"))
    return import_module("atlas_page")


def test_every_model_has_its_line_its_section_and_its_reason(atlas_page):
    page = DOCS / "reference/atlas.md"
    lines = atlas_page.table(str(page)).splitlines()[2:]
    assert len(lines) == len(models())
    for line, module in zip(lines, models().values(), strict=True):
        assert f">{module.CARD.name}</a> | {module.CARD.year} |" in line
        reason = f"- {module.CARD.name}: {getattr(module, 'NOT_A_SCAN', None)}."
        assert (reason in atlas_page.reasons().splitlines()) == hasattr(module, "NOT_A_SCAN")
    assert "L for `length`, D for `width`" in atlas_page.symbols()


def test_a_page_that_lacks_a_model_or_names_another_is_refused(atlas_page, tmp_path):
    text, page = (DOCS / "reference/atlas.md").read_text("utf-8"), tmp_path / "atlas.md"
    for wrong in (text.replace("## GRU\n", "## GRU-2\n"), text.replace("automodule:: ssm_edu.atlas.gru\n", "")):
        page.write_text(wrong, "utf-8")
        with pytest.raises(ValueError, match=r"atlas\.md has the sections .*, expected .*'GRU'"):
            atlas_page.table(str(page))
