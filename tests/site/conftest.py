"""The built site and a headless Chromium; tests that lack one of them are skipped and say so."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
# set by `make docs-test`, which builds it first: what lies in docs/_build may be an old one
SITE = Path(os.environ["SSM_EDU_SITE"]).resolve() if "SSM_EDU_SITE" in os.environ else None
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"]


@pytest.fixture(scope="session")
def site() -> Path:
    """The folder of the built site."""
    if SITE is None:
        pytest.skip("no site to look at: make docs-test")
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
