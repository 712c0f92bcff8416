"""The ledger of claims on the site: the page that lists it, the articles' statements, and the role {claim}`ZOH-3`."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from functools import cache
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from docutils import nodes
from source_pages import ROOT, link, sources
from sphinx.addnodes import pending_xref
from sphinx.transforms import SphinxTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from ssm_edu import derivations
from ssm_edu.ledger import Claim

logger = logging.getLogger(__name__)
VERDICTS = ("proved", "verified", "refuted")


@cache
def claims() -> dict[str, Claim]:
    return {one.id: one for one in derivations.select([])}


@cache
def prefixes() -> str:
    """The beginnings of all IDs, as a pattern."""
    return "|".join(sorted({id.rsplit("-", 1)[0] for id in claims()}))


@cache
def citations() -> dict[str, dict[str, list[tuple[str, int]]]]:
    """Where each claim is cited: {ID: {"code" or "tests": [(file, first line)]}}."""
    found: dict[str, dict[str, list[tuple[str, int]]]] = defaultdict(lambda: {"code": [], "tests": []})
    for path in sources():
        if path.startswith("derivations/"):
            continue
        seen = set()
        for number, line in enumerate((ROOT / path).read_text("utf-8").splitlines(), 1):
            for id in re.findall(rf"\b(?:{prefixes()})-\d+\b", line):
                if id in claims() and id not in seen:
                    seen.add(id)
                    found[id]["tests" if path.startswith("tests/") else "code"].append((path, number))
    return found


def to_claim(docname: str, id: str) -> nodes.inline:
    """A link to the place on its derivation's page where the claim is checked."""
    how = {"refdomain": "std", "reftype": "ref", "reftarget": id.lower(), "refexplicit": True, "refwarn": True}
    return nodes.inline("", "", pending_xref("", nodes.inline(id, id), refdoc=docname, **how), classes=["claim"])


class ClaimRole(SphinxRole):
    """{claim}`ZOH-3`: a link to the claim."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        if self.text not in claims():
            message = self.inliner.reporter.error(f"no claim {self.text!r} in the ledger", line=self.lineno)
            return [nodes.literal(self.text, self.text)], [message]
        return [to_claim(self.env.docname, self.text)], []


class LinkClaims(SphinxTransform):
    """Claims that derivations and docstrings name in passing become links."""

    default_priority = 500

    def apply(self, **kwargs: Any) -> None:
        if not self.env.docname.startswith(("learn/derivations/", "reference/")):
            return
        leave = (
            nodes.literal,
            nodes.literal_block,
            nodes.reference,
            pending_xref,
            nodes.title,
            nodes.strong,
            nodes.raw,
        )
        pattern = re.compile(rf"\b((?:{prefixes()})-\d+)\b")
        for text in list(self.document.findall(nodes.Text)):
            parent: Any = text.parent
            while parent is not None and not isinstance(parent, leave):
                parent = parent.parent
            pieces = pattern.split(text.astext())
            if parent is not None or len(pieces) == 1:
                continue
            linked = [
                to_claim(self.env.docname, piece) if piece in claims() else nodes.Text(piece)
                for piece in pieces
                if piece
            ]
            text.parent.replace(text, linked)


def load_results(app: Any) -> None:
    """The ledger as `ssm-edu derive --json` writes it: the given file, or one made here and kept with the outputs."""
    given = Path(app.config.ledger_json)
    path = given if given.name else Path(app.config.nb_execution_cache_path) / "ledger.json"
    if not given.name and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        logger.info("checking every claim for the ledger")
        results = [result.as_dict() for result in derivations.run(list(claims().values()))]
        path.write_text(json.dumps({"claims": results}, ensure_ascii=False), "utf-8")
    app.env.ledger = {result["id"]: result for result in json.loads(path.read_text("utf-8"))["claims"]}
    if app.env.ledger.keys() != claims().keys():
        logger.warning("%s does not hold the claims of derivations/", path)
    for result in app.env.ledger.values():
        if result["verdict"] != result["declared"]:
            logger.warning("%s is declared %s and came out %s", result["id"], result["declared"], result["verdict"])


def raw(html: str) -> nodes.raw:
    return nodes.raw("", html, format="html")


def badge(verdict: str) -> nodes.inline:
    return nodes.inline(verdict, verdict, classes=["verdict", f"verdict-{verdict}"])


def joined(parts: list[nodes.Node], separator: str = ", ") -> list[nodes.Node]:
    return [node for part in parts for node in (nodes.Text(separator), part)][1:]


def line(label: str, content: list[nodes.Node]) -> nodes.paragraph:
    return nodes.paragraph("", "", nodes.inline(label, label, classes=["label"]), nodes.Text(" "), *content)


def section(id: str, title: list[nodes.Node]) -> nodes.section:
    made = nodes.section(ids=[id], names=[id])
    made += nodes.title("", "", *title)
    return made


def display(latex: str) -> nodes.math_block:
    return nodes.math_block(latex, latex, nowrap=False, number=None, label=None, classes=[])


FILTER = """<form class="ledger-filter" role="search" aria-label="the ledger">
<label>Search <input type="search" id="ledger-search" autocomplete="off"></label>
<label>Verdict <select id="ledger-verdict"><option value="">all</option>{verdicts}</select></label>
<label>Source <select id="ledger-source"><option value="">all</option>{sources}</select></label>
<output for="ledger-search ledger-verdict ledger-source" id="ledger-count">{count} claims</output>
</form>"""


def options(counts: Counter[str]) -> str:
    return "".join(
        f'<option value="{escape(name)}">{escape(name)} ({count})</option>' for name, count in counts.items()
    )


def sources_of(one: Claim) -> set[str]:
    from ssm_edu.sources import SOURCES

    parts = [part.strip() for part in one.source.split(";")]
    # the longest key, so that Mamba-2 is not Mamba
    return {max((key for key in SOURCES if part.startswith(key)), key=len) for part in parts}


class LedgerDirective(SphinxDirective):
    """Every claim, grouped by derivation, with a filter above."""

    def run(self) -> list[nodes.Node]:
        ledger = self.env.ledger
        known = [one for one in claims().values() if one.id in ledger]
        verdicts = Counter(ledger[one.id]["verdict"] for one in known)
        cited = Counter(source for one in known for source in sorted(sources_of(one)))
        controls = FILTER.format(
            verdicts=options(verdicts), sources=options(Counter(dict(cited.most_common()))), count=len(known)
        )
        found: list[nodes.Node] = [raw(controls)]
        for name, group in groupby(known, key=lambda one: one.derivation):
            part = section(f"ledger-{name}", [nodes.Text(title_of(name))])
            part += line("Derivation:", [page_link(self.env.docname, name)])
            for one in group:
                part += self.row(one, ledger[one.id])
            found.append(part)
        return found

    def row(self, one: Claim, result: dict[str, Any]) -> list[nodes.Node]:
        here = self.env.docname
        words = " ".join([one.id, one.title, one.statement, one.source, one.method, one.derivation])
        keys = "|".join(sorted(sources_of(one)))
        opening = (
            f'<div class="claim-row" data-verdict="{result["verdict"]}" data-sources="{escape(keys)}"'
            f' data-words="{escape(words.casefold())}">'
        )
        head = nodes.paragraph("", "", to_claim(here, one.id), nodes.Text(f" {one.title} "), badge(result["verdict"]))
        evidence = evidence_of(result)
        if len(evidence) > 240:
            evidence = evidence[:240] + " …"
        found = [raw(opening), head, display(one.statement)]
        found.append(line("Source:", [nodes.Text(one.source)]))
        found.append(line("Checked:", [nodes.Text(f"{one.method}; {evidence}")]))
        if one.corrected_by:
            found.append(line("What holds instead:", [to_claim(here, one.corrected_by)]))
        for label, places in citations()[one.id].items():
            if places:
                links: list[nodes.Node] = [link(here, path, f"{path}:{number}", number) for path, number in places]
                found.append(line(f"{label.capitalize()}:", joined(links)))
        return [*found, raw("</div>")]


def evidence_of(result: dict[str, Any]) -> str:
    from ssm_edu.ledger import Evidence

    return str(Evidence(**{**result["evidence"], "steps": []}))


@cache
def title_of(name: str) -> str:
    text = (derivations.folder() / f"{name}.py").read_text("utf-8")
    match = re.search(r"^# # (.+)$", text, re.MULTILINE)
    return match[1] if match else name


def page_link(docname: str, name: str) -> nodes.reference:
    up = "../" * docname.count("/")
    text = title_of(name)
    return nodes.reference("", text, refuri=f"{up}learn/derivations/{name}.html", internal=True)


class ArticlesDirective(SphinxDirective):
    """What the two articles state, in their order, and what the ledger makes of each statement."""

    def run(self) -> list[nodes.Node]:
        table = derivations.load("articles").TABLE
        counts = Counter(row.verdict for row in table)
        words = ", ".join(f"{counts[verdict]} {verdict}" for verdict in (*VERDICTS, "open"))
        found: list[nodes.Node] = [nodes.paragraph("", f"{len(table)} statements: {words}.")]
        for article, rows in groupby(table, key=lambda row: row.place.split(",")[0]):
            part = section(article.lower().replace(" ", "-"), [nodes.Text(article)])
            for number, (place, group) in enumerate(groupby(rows, key=lambda row: row.place), 1):
                name = place.split(", ", 1)[1]
                sub = section(f"{part['ids'][0]}-{number}", [nodes.Text(name[0].upper() + name[1:])])
                for row in group:
                    sub += self.statement(row)
                part += sub
            found.append(part)
        return found

    def statement(self, row: Any) -> nodes.container:
        made = nodes.container(classes=["statement", f"statement-{row.verdict}"])
        made += nodes.paragraph("", "", nodes.Text(f"“{row.quote}” "), badge(row.verdict))
        items = nodes.bullet_list()
        instead = sorted({str(claims()[id].corrected_by) for id in row.by if claims()[id].corrected_by})
        for id, words in [
            *((id, "fails: " if claims()[id].declared == "refuted" else "") for id in row.by),
            *((id, "denied, and rightly: ") for id in row.denies),
            *((id, "what holds instead: ") for id in instead),
        ]:
            text = nodes.Text(f", {words}{claims()[id].title}")
            items += nodes.list_item("", nodes.paragraph("", "", to_claim(self.env.docname, id), text))
        if items.children:
            made += items
        if row.note:
            made += nodes.paragraph("", row.note)
        return made


def add_script(app: Any, pagename: str, *rest: Any) -> None:
    if pagename == "learn/ledger":
        app.add_js_file("ledger.js", loading_method="defer")


def setup(app: Any) -> dict[str, bool]:
    app.add_config_value("ledger_json", "", "")
    app.connect("builder-inited", load_results)
    app.connect("html-page-context", add_script)
    app.add_transform(LinkClaims)
    app.add_role("claim", ClaimRole())
    app.add_directive("ledger", LedgerDirective)
    app.add_directive("articles", ArticlesDirective)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
