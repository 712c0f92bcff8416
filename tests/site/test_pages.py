"""Every page of the built site: what it loads, what it links to, and how it stands in a browser.

The pages are opened from disk, so a site that is only copied somewhere works as well.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.site.conftest import ROOT, SITE

WIDTHS = (1280, 390)
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "object": "data"}
# pages of source code are alike: of these one is opened, of the others each
SOURCE = "source/ssm_edu/scan.html"


def pages(site: Path) -> list[str]:
    return sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html") if "_static" not in path.parts)


def opened(site: Path) -> list[str]:
    return [page for page in pages(site) if not page.startswith("source/") or page == SOURCE]


class Page(HTMLParser):
    """The addresses that a page loads and links to, and the places in it that can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.places |= {values[name] for name in ("id", "name") if name in values}
        if tag in LOADED and LOADED[tag] in values:
            self.loads.append(values[LOADED[tag]])
        elif tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload", "prefetch", "modulepreload"):
            self.loads.append(values["href"])
        elif tag == "a" and values.get("href"):
            self.links.append(values["href"])


@cache
def parsed(page: Path) -> Page:
    return Page(page.read_text("utf-8"))


def elsewhere(address: str) -> bool:
    return bool(urlsplit(address).netloc)


def broken_links(site: Path) -> Iterator[str]:
    """The links and loads within the site that lead nowhere."""
    known = {page: parsed(site / page) for page in pages(site)}
    for page, found in known.items():
        for address in {*found.links, *found.loads}:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (site / page).parent / unquote(parts.path) if parts.path else site / page
            target = target.resolve()
            name = target.relative_to(site.resolve()).as_posix() if target.is_relative_to(site.resolve()) else ""
            place = unquote(parts.fragment)
            if not name or not target.exists() or target.is_dir():
                yield f"{page}: {address} is not there"
            elif place and name in known and place not in known[name].places and place != "top":
                yield f"{page}: {address} has no such place"


def loads_from_elsewhere(site: Path) -> Iterator[str]:
    """What the pages and their style sheets would fetch from another host."""
    for page in pages(site):
        for address in parsed(site / page).loads:
            if elsewhere(address):
                yield f"{page}: {address}"
    for sheet in site.rglob("*.css"):
        for address in re.findall(r"(?:url\(|@import\s*)\s*['\"]?([^'\")]+)", sheet.read_text("utf-8")):
            if elsewhere(address):
                yield f"{sheet.relative_to(site)}: {address}"


def test_no_link_is_broken(site: Path) -> None:
    assert list(broken_links(site)) == []


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    assert list(loads_from_elsewhere(site)) == []


def paths_of_the_build(site: Path, folder: Path) -> Iterator[str]:
    """The pages that show where they were built."""
    for page in pages(site):
        found = re.search(rf"{re.escape(escape(str(folder)))}[/\w.-]*", (site / page).read_text("utf-8"))
        if found:
            yield f"{page}: {found[0]}"


def test_no_page_says_where_it_was_built(site: Path) -> None:
    assert list(paths_of_the_build(site, ROOT)) == []


def test_the_place_of_the_build_is_seen(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<p>wrong (/home/me/R&amp;D/scan.py:12), right (scan.py:12)</p>", "utf-8")
    assert list(paths_of_the_build(tmp_path, Path("/home/me/R&D"))) == ["index.html: /home/me/R&amp;D/scan.py"]
    assert list(paths_of_the_build(tmp_path, Path("/home/you"))) == []


def test_broken_links_and_foreign_loads_are_seen(tmp_path: Path) -> None:
    html = '<p id="here"><a href="#here">1</a><a href="#gone">2</a><a href="no.html">3</a><img src="no.png">'
    (tmp_path / "index.html").write_text(html + '<script src="https://example.org/x.js"></script>', "utf-8")
    (tmp_path / "x.css").write_text("@import 'https://example.org/y.css'; a { b: url(//example.org/z) }", "utf-8")
    assert sorted(broken_links(tmp_path)) == [
        "index.html: #gone has no such place",
        "index.html: no.html is not there",
        "index.html: no.png is not there",
    ]
    assert [found.rpartition("/")[2] for found in loads_from_elsewhere(tmp_path)] == ["x.js", "y.css", "z"]


IMAGES = "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
NOT_SET = "[...document.querySelectorAll('mjx-merror')].map(e => e.dataset.mjxError ?? e.textContent)"
WIDE = "document.documentElement.scrollWidth > innerWidth"
SETTLED = """async () => {
    await window.MathJax?.startup?.promise;
    await document.fonts.ready;
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
}"""
# axe walks through every element. Formulas are MathJax's own, thousands of elements on a page; the colours of code are
# the same everywhere, and looked at on the page of source code.
PRUNED = """keepCode => {
    for (const formula of document.querySelectorAll("mjx-container")) formula.textContent = "formula";
    if (!keepCode) for (const code of document.querySelectorAll(".highlight pre")) code.textContent = code.textContent;
}"""
# style sheets cannot be fetched once more from a page on disk
AXE_LIGHT: dict[str, Any] = {"resultTypes": ["violations"], "preload": False}
AXE_DARK: dict[str, Any] = {**AXE_LIGHT, "runOnly": ["color-contrast"]}


def inaccessible(tab: Any, options: dict[str, Any]) -> Iterator[str]:
    """axe-core's serious and critical findings."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    for found in axe.Axe().run(tab, options=options).response["violations"]:
        if found["impact"] in ("serious", "critical"):
            where = "; ".join(str(node["target"]) for node in found["nodes"][:3])
            yield f"{found['id']} ({len(found['nodes'])} times): {where}"


def faults(browser: Any, address: str) -> list[str]:
    """What is wrong with a page at any width, in either theme."""
    found: list[str] = []
    for width in WIDTHS:
        tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="light")
        said: list[str] = []
        tab.on("console", lambda m, said=said: said.append(f"console: {m.text}") if m.type == "error" else None)
        tab.on("pageerror", lambda error, said=said: said.append(f"script: {error}"))
        tab.on("request", lambda r, said=said: said.append(f"asks {r.url}") if r.url.startswith("http") else None)
        tab.goto(address)
        tab.add_style_tag(content="* { transition: none !important }")
        tab.evaluate(SETTLED)
        said += [f"no image {source}" for source in tab.evaluate(IMAGES)]
        said += [f"no formula: {error}" for error in tab.evaluate(NOT_SET)]
        for theme, options in (("light", AXE_LIGHT), ("dark", AXE_DARK)):
            tab.emulate_media(color_scheme=theme)
            tab.evaluate(SETTLED)
            shown = tab.evaluate("document.documentElement.dataset.theme")
            said += [f"is {shown} in {theme}"] if shown not in (theme, None) else []
            said += ["scrolls sideways"] if tab.evaluate(WIDE) else []
            tab.evaluate(PRUNED, address.endswith(SOURCE))
            said += [f"in {theme}: {fault}" for fault in inaccessible(tab, options)]
        found += [f"{width} px: {one}" for one in said]
        tab.close()
    return found


@pytest.mark.parametrize("page", opened(SITE) if SITE else ["no site"])
def test_a_page_stands_at_every_width_in_both_themes(page: str, site: Path, headless: Any) -> None:
    assert faults(headless, (site / page).as_uri()) == []


def test_faults_are_seen(tmp_path: Path, headless: Any) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        '<!doctype html><html lang="en"><title>t</title><main><h1>h</h1><img src="no.png">'
        '<mjx-merror data-mjx-error="only in math mode">x</mjx-merror>'
        '<p style="width: 2000px; color: #aaa; background: #fff">wide and pale</p></main>'
        "<script>console.error('said'); fetch('http://localhost:9/'); no.such.thing</script></html>",
        "utf-8",
    )
    seen = "\n".join(faults(headless, page.as_uri()))
    for fault in ("console: said", "script: no is", "asks http://", "scrolls", "image-alt", "color-contrast", "no.png"):
        assert fault in seen, fault
    assert "no formula: only in math mode" in seen


def test_the_ledger_is_filtered(site: Path, headless: Any) -> None:
    from ssm_edu import derivations

    claims = derivations.select([])
    tab = headless.new_page()
    tab.goto((site / "learn/ledger.html").as_uri())
    rows = tab.locator(".claim-row:visible")
    assert rows.count() == len(claims)
    tab.get_by_label("Verdict").select_option("refuted")
    assert rows.count() == sum(one.declared == "refuted" for one in claims)
    tab.get_by_label("Search", exact=True).last.fill("released rule")
    left = [one.id for one in claims if one.declared == "refuted" and "released rule" in one.title.lower()]
    assert all(any(id in text for text in rows.all_inner_texts()) for id in left)
    assert tab.locator("#ledger-count").inner_text().split()[0] == str(rows.count())
    tab.get_by_label("Search", exact=True).last.fill("no such words")
    assert rows.count() == 0
    tab.close()


def test_every_claim_has_its_place_and_every_derivation_its_page(site: Path) -> None:
    from ssm_edu import derivations

    for one in derivations.select([]):
        text = (site / f"learn/derivations/{one.derivation}.html").read_text("utf-8")
        assert f'id="{one.id.lower()}"' in text, one.id
        assert f">{one.id}</strong>" in text, f"{one.id} is not shown"


def public_names(package: Path) -> Iterator[str]:
    """`module.name` for every name in an `__all__`, read from the source: not every module can be imported here."""
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        module = ".".join(part for part in parts if part != "__init__")
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                yield from (f"{module}.{name}" for name in ast.literal_eval(node.value))


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    text = "".join(path.read_text("utf-8") for path in (site / "reference").glob("*.html"))
    documented = set(re.findall(r'id="(?:module-)?(ssm_edu[\w.]*)"', text)) | {"ssm_edu.__version__"}
    names = set(public_names(ROOT / "ssm_edu"))
    assert {"ssm_edu.selective_scan", "ssm_edu.testing.check"} <= names
    assert sorted(names - documented) == []


def test_the_sentence_on_speed_is_made_of_the_kept_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import import_module

    from ssm_edu.bench import tables
    from tests.test_bench_tables import MACHINE, report

    monkeypatch.syspath_prepend(str(ROOT / "docs/_lib"))
    sentences = import_module("measured").sentences
    assert list(sentences({})) == []
    found = report()
    said = list(sentences({"newest": found, "older": report()}))
    assert len(said) == 3
    assert MACHINE["gpu"] in said[0]
    assert tables.time_cell(found.find("ssm_edu", "forward", found.cases[0])) in said[1]


def test_the_sentence_on_speed_is_of_a_case_timed_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace
    from importlib import import_module

    from ssm_edu.bench import tables
    from tests.test_bench_tables import LAYER, report, result

    monkeypatch.syspath_prepend(str(ROOT / "docs/_lib"))
    whole = replace(LAYER, batch=3)
    timed = (result("ssm_edu", "forward", whole, 3e-3), result("ssm_edu", "backward", whole, 7e-3))
    said = list(import_module("measured").sentences({"newest": report(*timed)}))
    assert tables.shape_text(whole) in said[0]
    assert "3.00 ms" in said[1]
    assert "7.00 ms" in said[2]
