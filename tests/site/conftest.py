"""The built site and a headless Chromium; tests that lack one of them are skipped and say so."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
SITE = Path(os.environ.get("SSM_EDU_SITE", ROOT / "docs/_build/html"))
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"]


@pytest.fixture(scope="session")
def site() -> Path:
    """The folder of the built site."""
    if not (SITE / "index.html").exists():
        pytest.skip(f"no site in {SITE}: make docs")
    return SITE


@pytest.fixture(scope="module")
def headless() -> Iterator[Any]:
    """One browser for a module's tests; Playwright allows no second one beside it."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'ssm-edu[docs]'")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()
