"""The explorers, driven in a browser by keyboard and by mouse: every number on the page against ssm_edu's."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssm_edu.derivations import load
from ssm_edu.discretize import discretize_diagonal
from ssm_edu.scan import SCANS, chunked_by, combine
from ssm_edu.selective import selective_scan

DOCS = Path(__file__).parent.parent.parent / "docs"
U = 2.0**-53
VOICE_MS = 900  # the page speaks 700 ms after the last change

STORIES = ("article1", "article2", "reset", "hold", "forget", "invariant", "scales", "ringing")
RULES = ("zoh", "mamba", "bilinear")


# The page alone, without its theme: what stands in the page's raw HTML, its stories, and the scripts beside it.


def bare_page(name: str, folder: Path, edits: dict[str, tuple[str, str]] | None = None) -> str:
    """Write the page into `folder`, its scripts edited as {file: (old, new)}; its address."""
    source = (DOCS / "explore" / f"{name}.md").read_text("utf-8")
    raw = re.findall(r"^```\{raw\} html\n(.*?)^```", source, re.DOTALL | re.MULTILINE)
    stories = re.findall(r"^:::\{container\} (story-\w+)\n(.*?)^:::", source, re.DOTALL | re.MULTILINE)
    told = "".join(f'<div class="{story}"><p>{text}</p></div>' for story, text in stories)
    shutil.copytree(DOCS / "_static" / "explore", folder / "_static" / "explore")
    for file, (old, new) in (edits or {}).items():
        script = folder / "_static" / "explore" / file
        text = script.read_text("utf-8")
        assert text.count(old) == 1, f"{old!r} in {file}"
        script.write_text(text.replace(old, new), "utf-8")
    page = folder / "explore" / f"{name}.html"
    page.parent.mkdir()
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    page.write_text(f"{head}<title>{name}</title><main><h1>{name}</h1>{raw[0]}{told}</main>{raw[1]}</html>", "utf-8")
    return page.as_uri()


@pytest.fixture(scope="module")
def opened(headless: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """opened(name, edits, …): the page in a fresh tab. At the end, no tab may have seen an error."""
    faults: list[str] = []
    tabs = []

    def open_tab(name: str, edits: dict[str, tuple[str, str]] | None = None, hash: str = "", **context: Any) -> Any:
        address = bare_page(name, tmp_path_factory.mktemp(name), edits)
        tab = headless.new_page(**{"viewport": {"width": 1000, "height": 900}, **context})
        tab.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: faults.append(str(error)))
        tab.goto(address + hash)
        tabs.append(tab)
        return tab

    yield open_tab
    for tab in tabs:
        tab.close()
    assert faults == []


@pytest.fixture(scope="module")
def explorer(opened: Callable[..., Any]) -> Any:
    return opened("scan_explorer")


@pytest.fixture(scope="module")
def trees(opened: Callable[..., Any]) -> Any:
    return opened("scan_trees")


# What a page shows: every element that carries a number, with the digits that a reader sees.


class Shown(NamedTuple):
    name: str
    value: float
    text: str
    place: str
    row: int
    column: int


READ = """root => [...document.querySelectorAll(`${root} [data-value]`)].filter(e => e.textContent !== "").map(e => {
  const inside = where => e.closest(where) !== null;
  const place = inside(".ex-board") ? "board" : inside(".ex-panel") ? "panel" : "table";
  const line = e.closest("tr");
  const row = place === "table" && line ? line.rowIndex - 1 : Number(e.dataset.row ?? e.dataset.token ?? -1);
  const column = place === "table" && line ? e.cellIndex - 1 : Number(e.dataset.column ?? -1);
  return [e.dataset.name, Number(e.dataset.value), e.textContent, place, row, column];
})"""


def shown(page: Any, root: str) -> list[Shown]:
    return [Shown(*found) for found in page.evaluate(READ, root)]


def number(text: str) -> float:
    """1.93·10⁻⁹, 2e−9, −0.37 and (−1) as numbers."""
    text = text.strip("()").replace("−", "-")
    text = text.translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")).replace("·10", "e")
    return float(text)


def check_digits(one: Shown) -> None:
    """The text is the value, rounded to the digits of its place."""
    size = abs(one.value)
    digits = {"panel": 3, "table": 6, "board": 2 if 0.00995 <= size < 9995 else 1}[one.place]
    half = 0.5 * 10.0 ** (math.floor(math.log10(size)) - digits + 1) if size else 0
    # a subnormal number has fewer digits than are asked for
    assert abs(number(one.text) - one.value) <= half * (1 + 1e-9) + 5e-324, one


# The scan explorer.


class Setting(NamedTuple):
    rule: str
    A: np.ndarray
    x: np.ndarray
    delta: np.ndarray
    B: np.ndarray
    C: np.ndarray

    @property
    def hash(self) -> str:
        row, rows = (lambda v: ",".join(map(repr, map(float, v)))), (lambda v: ";".join(map(row, v)))
        return (
            f"#rule={self.rule}&A={row(self.A)}&kind={'u' * len(self.x)}&x={row(self.x)}&delta={row(self.delta)}"
            f"&B={rows(self.B)}&C={rows(self.C)}"
        )


def setting_of(page: Any) -> Setting:
    """The setting, from the page's first table, the fields of A and the rule that is checked."""
    table = page.evaluate("""[...document.querySelectorAll(".ex-tables table")[0].tBodies[0].rows].map(
        row => [...row.querySelectorAll("td")].map(cell => [cell.dataset.name, Number(cell.dataset.value)]))""")

    def columns(name: str) -> np.ndarray:
        return np.array([[value for key, value in row if key == name] for row in table])

    A = page.evaluate("[...document.querySelectorAll('.ex-decay input[type=number]')].map(e => Number(e.value))")
    rule = page.evaluate("document.querySelector('input[name=rule]:checked').value")
    return Setting(rule, np.array(A), columns("x")[:, 0], columns("delta")[:, 0], columns("B"), columns("C"))


class Numbers(NamedTuple):
    """Ā, B̄, h (token, state), y (token) and M (token, token)."""

    A_bar: np.ndarray
    B_bar: np.ndarray
    h: np.ndarray
    y: np.ndarray
    M: np.ndarray


def by_library(s: Setting) -> Numbers:
    """The numbers by `discretize_diagonal` and `selective_scan`; M from unit inputs, h from shorter sequences."""
    A_bar, B_bar = discretize_diagonal(s.A, s.B, s.delta[:, None], s.rule)
    length = len(s.x)

    def scan(u: np.ndarray, stop: int = length) -> Any:
        batch = len(u)
        delta, B, C = (np.broadcast_to(v, (batch, *v.shape)) for v in (s.delta[None], s.B.T, s.C.T))
        return selective_scan(
            *(u[:, None, :stop], delta[..., :stop], s.A[None], B[..., :stop], C[..., :stop]),
            return_last_state=True,
            discretization=s.rule,
            backend="reference",
        )

    h = np.array([scan(s.x[None], t + 1)[1][0, 0] for t in range(length)])
    M = scan(np.eye(length))[0][:, 0].T
    return Numbers(A_bar, B_bar, h, scan(s.x[None])[0][0, 0], M)


def magnitudes(s: Setting, exact: Numbers) -> Numbers:
    """The scan of absolute values."""
    A_bar, B_bar, C = np.abs(exact.A_bar), np.abs(exact.B_bar), np.abs(s.C)
    h, held = np.zeros(len(s.A)), np.zeros((len(s.x), len(s.A)))
    states, M = [], []
    for t, x in enumerate(np.abs(s.x)):
        h = A_bar[t] * h + B_bar[t] * x
        held = A_bar[t] * held
        held[t] = B_bar[t]
        states.append(h)
        M.append(held @ C[t])
    return Numbers(A_bar, B_bar, np.array(states), (np.array(states) * C).sum(axis=1), np.array(M))


def bounds(s: Setting, exact: Numbers) -> Numbers:
    """How far two evaluations in double precision can be apart.

    z = ΔA is one product, the same on both sides. Then an exponential within 1 ulp (2u) a side, and at most four
    more roundings a side: 12u for Ā and B̄. Each step of a scan adds this, a product and a sum, on both sides.
    """
    length, states = s.B.shape
    size = magnitudes(s, exact)
    steps = 16 * np.arange(1, length + 1)
    return Numbers(
        12 * U * np.abs(exact.A_bar),
        12 * U * np.abs(exact.B_bar),
        steps[:, None] * U * size.h,
        (steps + 2 * states + 4) * U * size.y,
        (steps[:, None] + 2 * states + 4) * U * size.M,
    )


def check_explorer(page: Any) -> None:
    """Every number on the page, in the board, in the panel and in the tables."""
    s = setting_of(page)
    length, states = s.B.shape
    exact = by_library(s)
    bound = bounds(s, exact)
    expected = {"x": s.x[:, None], "delta": s.delta[:, None], "B": s.B, "C": s.C, "y": exact.y[:, None]}
    expected |= {"A_bar": exact.A_bar, "B_bar": exact.B_bar, "h": exact.h}
    slack = {name: np.zeros(1) for name in ("x", "delta", "B", "C")}
    slack |= {"A_bar": bound.A_bar, "B_bar": bound.B_bar, "h": bound.h, "y": bound.y[:, None]}
    chosen, state = page.evaluate("""[Number(document.querySelector("input[name=token]:checked").value),
        Number(document.querySelector("input[name=state]:checked").value) - 1]""")

    def near(one: Shown, value: float, allowed: float) -> None:
        check_digits(one)
        # what underflows may be lost in full on one side
        assert abs(one.value - value) <= allowed + 1e-300, (one, value)

    seen = {"board": 0, "panel": 0, "table": 0}
    inputs = 0
    for one in shown(page, "#scan-explorer"):
        seen[one.place] += 1
        name, n = one.name, state
        if name == "M":
            near(one, exact.M[one.row, one.column], bound.M[one.row, one.column])
            continue
        if one.place == "panel":
            at = (chosen, state)
            if name == "z":
                near(one, s.delta[chosen] * s.A[state], 0)
            elif name == "weight":
                near(one, exact.M[chosen, inputs], bound.M[chosen, inputs])
                inputs += 1
            elif name in ("y", "y_by_inputs"):
                # the sum by inputs goes another way: M is as uncertain as y, and adds a product and a sum for each
                near(one, exact.y[chosen], 3 * bound.y[chosen] + 2 * length * U * magnitudes(s, exact).y[chosen])
            else:
                near(one, expected[name][at], slack[name][at])
            continue
        if one.place == "board":
            if name.startswith("h"):
                name, n = "h", int(name[1:])
        elif name in ("B", "C", "A_bar", "B_bar", "h"):
            n = (one.column - 2) // 5
        n = n if expected[name].shape[1] > 1 else 0
        allowed = slack[name] if slack[name].size == 1 else slack[name][one.row, n]
        near(one, expected[name][one.row, n], float(np.max(allowed)))
    triangle = length * (length + 1) // 2
    # nothing is left out: x, Δ, B, C, Ā, B̄, y and each h on the board; five formulas and the weights in the panel
    assert seen["board"] == length * (7 + states) + triangle
    assert seen["panel"] == 6 + chosen + 1
    assert seen["table"] == length * (3 + 5 * states) + triangle


@pytest.mark.parametrize("story", STORIES)
def test_every_story_under_every_rule(explorer: Any, story: str) -> None:
    explorer.click(f"label[for=story-{story}]")
    assert explorer.locator(f".story-{story}").is_visible()
    assert explorer.locator("[class^=story-]:visible").count() == 1
    check_explorer(explorer)
    for rule in RULES:
        explorer.click(f"label[for=rule-{rule}]")
        assert setting_of(explorer).rule == rule
        check_explorer(explorer)


def test_the_stories_are_those_of_the_page(explorer: Any) -> None:
    assert tuple(explorer.evaluate("Object.keys(ssmStories.STORIES)")) == STORIES
    source = (DOCS / "explore" / "scan_explorer.md").read_text("utf-8")
    assert tuple(re.findall(r"\{container\} story-(\w+)", source)) == STORIES


def test_the_articles_stories_are_those_of_the_ledger(explorer: Any) -> None:
    """SEL-13: Δ and B of both rules."""
    selectivity = load("selectivity")
    for story, (delta, B) in (("article1", selectivity.ARTICLE), ("article2", selectivity.PAPER)):
        explorer.click(f"label[for=story-{story}]")
        s = setting_of(explorer)
        assert (s.delta.tolist(), s.B[:, 0].tolist(), s.A.tolist(), s.rule) == (delta, B, [-1], "zoh")
        weights = selectivity.sensitivities("zoh", delta, B)
        last = [one.value for one in shown(explorer, "#scan-explorer") if one.name == "weight"]
        np.testing.assert_allclose(last, weights, rtol=1e-14)


def test_the_stories_say_what_is_so(explorer: Any) -> None:
    """What each story tells of its last output, its matrix M or its states."""
    told = {}
    for story in STORIES:
        explorer.click(f"label[for=story-{story}]")
        told[story] = by_library(setting_of(explorer))
    first, noise, last = np.abs(told["article1"].M[3, [0, 2, 3]])
    assert first < 1e-8 < 0.9 * last < noise < last
    useful, other = np.abs(told["article2"].M[3, [0, 3]]), np.abs(told["article2"].M[3, [1, 2]])
    assert useful.min() > 100 * other.max()
    assert np.abs(told["reset"].M[4:, :4]).max() < 1e-4 < 0.99 < told["reset"].M[4, 4]
    assert np.ptp(told["hold"].h) == 0 < told["hold"].h[0, 0]
    assert np.abs(np.tril(told["forget"].M, -1)).max() < 1e-4
    M = told["invariant"].M
    assert all(np.ptp(np.diag(M, -k)) < 1e-15 for k in range(len(M)))
    assert (np.diff(told["scales"].h[1:, :], axis=1) < 0).all()  # a larger |A| forgets faster
    assert told["ringing"].A_bar.max() < -0.9
    assert (np.sign(told["ringing"].M[-1]) == (-1.0) ** np.arange(7, -1, -1)).all()


BARS = """[...document.querySelectorAll(".ex-line svg[aria-label^=Bars]")].map(svg => ({
  zero: Number(svg.querySelector(".ex-zero").getAttribute("y1")),
  values: [...svg.querySelectorAll("text")].map(text => Number(text.dataset.value)),
  rects: [...svg.querySelectorAll("rect")].map(
    rect => ["y", "height"].map(name => Number(rect.getAttribute(name))).concat(rect.getAttribute("class"))),
}))"""


def check_drawing(page: Any) -> None:
    """Bars of one row are to one scale, up for plus and down for minus; a state's two parts end at it."""
    for row in page.evaluate(BARS):
        values, parts = np.array(row["values"]), len(row["rects"]) // len(row["values"])
        ends = []
        for k in range(len(values)):
            carried, (top, height, kind) = row["zero"], row["rects"][parts * k + parts - 1]
            if parts == 2:
                low, tall, _ = row["rects"][parts * k]
                carried = low if low < row["zero"] - 1e-9 else low + tall
            down = kind == "ex-bar-minus"
            assert abs((top if down else top + height) - carried) < 1e-6
            ends.append(row["zero"] - (top + height if down else top))
        largest = np.argmax(np.abs(values))
        assert np.sign(ends[largest]) == np.sign(values[largest])
        if values[largest]:
            np.testing.assert_allclose(np.array(ends) / ends[largest], values / values[largest], atol=1e-6)
    cells = page.evaluate("""[...document.querySelectorAll(".ex-row text")].map(text => [Number(text.dataset.value),
        Number(text.previousSibling.getAttribute("fill-opacity")), text.previousSibling.getAttribute("class")])""")
    largest = max(abs(value) for value, _, _ in cells)
    for value, opacity, kind in cells:
        assert abs(opacity - abs(value) / largest) < 1e-4
        assert kind == ("ex-cell-minus" if value < 0 else "ex-cell")


@pytest.mark.parametrize("story", STORIES)
def test_the_drawing_is_of_the_numbers(explorer: Any, story: str) -> None:
    explorer.click(f"label[for=story-{story}]")
    check_drawing(explorer)
    explorer.focus("#x-2")
    explorer.keyboard.press("Home")
    explorer.focus("#C-1")
    explorer.keyboard.press("Home")
    check_drawing(explorer)


def test_a_wrong_drawing_is_caught(opened: Callable[..., Any]) -> None:
    page = opened(
        "scan_explorer", {"drawings.js": ("block(left, thick, carried[t], value,", "block(left, thick, 0, value,")}
    )
    with pytest.raises(AssertionError):
        check_drawing(page)


SMALL = st.sampled_from([0.0, 1e-300, 1e-16, 1e-12, 1e-9, 1e-7, 1e-5, 1e-3])
STEP = st.one_of(SMALL, st.floats(1e-3, 1000))
RATE = st.one_of(SMALL, st.floats(1e-3, 100)).map(lambda a: 0.0 if a == 0 else -a)
VALUE = st.one_of(st.sampled_from([0.0, 1.0, -1.0]), st.floats(-1000, 1000).filter(lambda v: abs(v) > 1e-3))


@st.composite
def settings_drawn(draw: st.DrawFn) -> Setting:
    length, states = draw(st.integers(4, 12)), draw(st.integers(1, 4))

    def matrix(value: st.SearchStrategy[float], *shape: int) -> np.ndarray:
        count = math.prod(shape)
        return np.array(draw(st.lists(value, min_size=count, max_size=count))).reshape(shape)

    x, B, C = matrix(VALUE, length), matrix(VALUE, length, states), matrix(VALUE, length, states)
    return Setting(draw(st.sampled_from(RULES)), matrix(RATE, states), x, matrix(STEP, length), B, C)


def follow(page: Any, setting: Setting) -> None:
    page.evaluate(
        "hash => { history.replaceState(null, '', hash); dispatchEvent(new Event('hashchange')); }", setting.hash
    )


@given(setting=settings_drawn())
def test_drawn_settings(explorer: Any, setting: Setting) -> None:
    follow(explorer, setting)
    found = setting_of(explorer)
    assert found.hash == setting.hash
    check_explorer(explorer)


def test_keyboard_alone(explorer: Any) -> None:
    explorer.click("label[for=story-article1]")
    explorer.focus("#delta-1")
    for key in ("ArrowDown", "ArrowDown", "ArrowUp", "ArrowDown", "PageDown"):
        explorer.keyboard.press(key)
        check_explorer(explorer)
    assert 0 < setting_of(explorer).delta[1] < 10
    assert explorer.locator("input[name=token]:checked").get_attribute("value") == "1"  # the slider chose its token
    explorer.keyboard.press("Home")
    assert setting_of(explorer).delta[1] == 0
    check_explorer(explorer)
    explorer.focus("#field-x")
    explorer.keyboard.press("Control+a")
    explorer.keyboard.type("0.125")
    assert setting_of(explorer).x[1] == 0.125
    explorer.focus("#token-1")
    explorer.keyboard.press("ArrowRight")
    assert explorer.locator("input[name=token]:checked").get_attribute("value") == "2"
    explorer.focus("#count-states")
    explorer.keyboard.press("ArrowUp")
    explorer.keyboard.press("Tab")
    assert len(setting_of(explorer).A) == 2
    explorer.focus("#state-1")
    explorer.keyboard.press("ArrowRight")
    explorer.focus("#B-3")
    explorer.keyboard.press("ArrowDown")
    s = setting_of(explorer)
    assert s.B[3, 1] != s.B[3, 0]
    check_explorer(explorer)
    explorer.focus("#rule-zoh")
    explorer.keyboard.press("ArrowRight")
    assert setting_of(explorer).rule == "mamba"
    check_explorer(explorer)


def test_mouse_alone(explorer: Any) -> None:
    explorer.click("label[for=story-invariant]")
    before = setting_of(explorer)
    for name in ("x", "delta", "B", "C"):
        box = explorer.locator(f"#{name}-2").bounding_box()
        explorer.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        explorer.mouse.down()
        explorer.mouse.move(box["x"] + box["width"] / 2, box["y"] + 8, steps=4)
        explorer.mouse.up()
        assert getattr(setting_of(explorer), name)[2] > getattr(before, name)[2]
        check_explorer(explorer)
    explorer.locator(".ex-memory .ex-row").nth(5).locator("text").first.click()
    assert explorer.locator("input[name=token]:checked").get_attribute("value") == "5"
    explorer.get_by_role("button", name="Reset").click()
    assert setting_of(explorer).hash == before.hash
    explorer.wait_for_timeout(VOICE_MS)
    assert explorer.evaluate("location.hash") == "#story=invariant"


def test_a_link_opens_what_was_seen(opened: Callable[..., Any], explorer: Any) -> None:
    explorer.click("label[for=story-scales]")
    explorer.fill("#count-tokens", "12")
    explorer.keyboard.press("Tab")
    explorer.fill("#A-2", "-0.3")
    explorer.wait_for_timeout(VOICE_MS)
    again = opened("scan_explorer", hash=explorer.evaluate("location.hash"))
    assert setting_of(again).hash == setting_of(explorer).hash
    assert len(setting_of(again).x) == 12
    check_explorer(again)
    told = opened("scan_explorer", hash="#story=hold")
    assert told.locator(".story-hold").is_visible()
    check_explorer(told)


@pytest.mark.parametrize(
    "hash", ["#story=none", "#rule=zoh", "#rule=none&A=-1", "#rule=zoh&A=1&x=1,1,1,1&delta=1,1,1,1", "#rule=%"]
)
def test_a_broken_link_is_said_to_be_one(opened: Callable[..., Any], hash: str) -> None:
    page = opened("scan_explorer", hash=hash)
    check_explorer(page)
    page.wait_for_timeout(VOICE_MS)
    assert "holds no setting" in page.locator(".ex-voice").text_content()


@pytest.mark.parametrize(("field", "typed"), [("delta", "-1"), ("delta", ""), ("x", "1e9"), ("B", "-")])
def test_a_number_out_of_range_changes_nothing(explorer: Any, field: str, typed: str) -> None:
    explorer.click("label[for=story-article2]")
    before = setting_of(explorer).hash
    explorer.focus(f"#field-{field}")
    explorer.keyboard.press("Control+a")
    explorer.keyboard.press("Delete")
    explorer.keyboard.type(typed)
    assert explorer.locator(f"#field-{field}").get_attribute("aria-invalid") == "true"
    assert setting_of(explorer).hash == before
    explorer.wait_for_timeout(VOICE_MS)
    assert "must be a number from" in explorer.locator(".ex-voice").text_content()
    explorer.keyboard.press("Tab")
    assert explorer.locator(f"#field-{field}").get_attribute("aria-invalid") == "false"
    check_explorer(explorer)


def test_one_sentence_for_many_changes(explorer: Any) -> None:
    explorer.click("label[for=story-article2]")
    explorer.wait_for_timeout(VOICE_MS)
    explorer.evaluate("""window.spoken = [];
      new MutationObserver(() => spoken.push(document.querySelector(".ex-voice").textContent))
        .observe(document.querySelector(".ex-voice"), { childList: true })""")
    explorer.focus("#delta-3")
    for _ in range(8):
        explorer.keyboard.press("ArrowDown")
    explorer.wait_for_timeout(VOICE_MS)
    (sentence,) = explorer.evaluate("spoken")
    assert sentence.startswith("Token 4, state 1:")


B_BAR = "B_bar: delta * RULES[rule].p(delta * A) * B,"
MUTANTS = {
    "B̄ without Δ": {"rules.js": (B_BAR, "B_bar: RULES[rule].p(delta * A) * B,")},
    "B̄ = ΔB under the hold": {"rules.js": (B_BAR, "B_bar: delta * B,")},
    "exp(z) − 1 for expm1": {"rules.js": ("Math.expm1(z) / z", "(Math.exp(z) - 1) / z")},
    "Ā of the token before": {"rules.js": ("kept *= A_bar[s][n]", "kept *= A_bar[Math.max(s - 1, 0)][n]")},
    "digits": {"common.js": ('if (value === 0) return "0";', 'if (Math.abs(value) < 0.01) return "0";')},
}
NEAR_ZERO = Setting(
    *("zoh", np.array([-1e-7]), np.ones(4), np.array([0.3, 1.0, 1e-3, 2.0]), np.full((4, 1), 1.5), np.ones((4, 1)))
)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_page_is_caught(opened: Callable[..., Any], mutant: str) -> None:
    page = opened("scan_explorer", MUTANTS[mutant], hash=NEAR_ZERO.hash)

    def drive() -> None:
        check_explorer(page)
        page.click("label[for=story-article2]")
        check_explorer(page)

    with pytest.raises(AssertionError):
        drive()


# The scan trees.


def library_rounds(scan: str, length: int, chunk: int) -> list[list[tuple[int, int]]]:
    """The pairs (into, source) of each round; the chunked scan's last phase, whose rounds are independent, as one."""
    rounds = (chunked_by(chunk) if scan == "chunked" else SCANS[scan]).rounds(length)
    t = list(range(length))
    pairs = [list(zip(t[into], t[source], strict=False)) for into, source in rounds]
    if scan == "chunked":
        together = chunk - 1 + length // chunk - 1
        pairs = [*pairs[:together], sorted(pair for one in pairs[together:] for pair in one)]
    return [one for one in pairs if one]


def check_trees(page: Any, step: int) -> None:
    """The elements, the pairs and the counts after `step` rounds: bit for bit, as the operations are the same."""
    s = page.evaluate("({ ...document.getElementById('scan-trees').dataset })")
    length, chunk, reverse = int(s["length"]), int(s["chunk"]), s["way"] == "reverse"
    scan = chunked_by(chunk) if s["scan"] == "chunked" else SCANS[s["scan"]]
    a, b = (np.array(s[name].split(","), float) for name in "ab")
    assert len(a) == len(b) == length
    assert int(s["step"]) == step

    x = (np.append(a[1:], 1)[::-1].copy(), b[::-1].copy()) if reverse else (a.copy(), b.copy())
    first, chain = np.arange(length), np.zeros(length, int)
    rounds = library_rounds(s["scan"], length, chunk)
    for pairs in rounds[:step]:
        into, source = (np.array(one) for one in zip(*pairs, strict=True))
        made = combine(tuple(v[into] for v in x), tuple(v[source] for v in x))
        reached, waited = first[source], np.maximum(chain[into], chain[source]) + 1
        x[0][into], x[1][into] = made
        first[into], chain[into] = reached, waited

    def place(k: int) -> int:
        return length - k if reverse else k + 1

    rows = page.evaluate("""[...document.querySelectorAll("tr[data-place]")].map(row => [Number(row.dataset.place),
        ...["covers", "a", "b", "chain"].map(name => row.querySelector(`[data-name=${name}]`)).map(
          cell => cell.dataset.value ?? cell.textContent)])""")
    assert [row[0] for row in rows] == list(range(1, length + 1))
    for row in rows:
        k = row[0] - 1 if not reverse else length - row[0]
        ends = sorted((place(int(first[k])), place(k)))
        assert row[1] == (str(ends[0]) if ends[0] == ends[1] else f"{ends[0]}–{ends[1]}")
        assert [float(row[2]), float(row[3]), int(row[4])] == [x[0][k], x[1][k], chain[k]]
    if step:
        pairs = page.evaluate("""[...document.querySelectorAll("tr[data-into]")].map(
            row => [row.dataset.into, row.dataset.source].map(Number))""")
        assert sorted(map(tuple, pairs)) == sorted((place(i), place(j)) for i, j in rounds[step - 1])
        values = page.evaluate("""[...document.querySelectorAll("tr[data-into]")].map(row => [row.dataset.into,
            ...["a", "b"].map(name => row.querySelector(`[data-name=${name}]`).dataset.value)].map(Number))""")
        for into, *value in values:
            k = into - 1 if not reverse else length - into
            assert value == [x[0][k], x[1][k]]

    drawn = [one for one in shown(page, "#scan-trees .ex-stage") if one.row == step]
    assert len(drawn) == length
    for one in drawn:
        k = one.column if not reverse else length - 1 - one.column
        assert one.value == x[1][k]
        check_digits(one._replace(text=one.text.split()[-1], place="panel"))

    counts = {one.name: (one.value, one.text) for one in shown(page, "#scan-trees .ex-counts")}
    now = {"work": sum(map(len, rounds[:step])), "depth": int(chain.max())}
    expected = {"work": scan.work(length), "depth": scan.depth(length)}
    expected |= {f"{name}-now": value for name, value in now.items()}
    expected |= dict.fromkeys(("work-sequential", "depth-sequential"), length - 1)
    assert counts == {name: (value, str(value)) for name, value in expected.items()}
    if step == len(rounds):
        states = scan.function(a, b, reverse=reverse)
        assert [float(row[3]) for row in rows] == states.tolist()
        assert page.locator("#next").is_disabled()


TREES = [
    (scan, chunk, length)
    for length in (8, 16)
    for scan, chunk in (("hillis_steele", 4), ("blelloch", 4), ("chunked", 2), ("chunked", 4), ("chunked", 8))
    if chunk < length
]


@pytest.mark.parametrize("way", ["forward", "reverse"])
@pytest.mark.parametrize(("scan", "chunk", "length"), TREES)
def test_every_tree_by_mouse(trees: Any, scan: str, chunk: int, length: int, way: str) -> None:
    for name, value in (("length", length), ("scan", scan), ("way", way), ("values", "drawn")):
        trees.click(f"label[for={name}-{value}]")
    if scan == "chunked":
        trees.click(f"label[for=chunk-{chunk}]")
    trees.click("#draw-again")
    for step in range(len(library_rounds(scan, length, chunk))):
        check_trees(trees, step)
        trees.click("#next")
    check_trees(trees, step + 1)


def test_the_trees_by_keyboard(trees: Any) -> None:
    trees.focus("#scan-blelloch")
    trees.keyboard.press("ArrowLeft")
    trees.keyboard.press("ArrowRight")
    trees.focus(".ex-stage")
    rounds = len(library_rounds("blelloch", 16, 4))
    trees.check("#length-16", force=True)
    trees.focus(".ex-stage")
    for key, step in (("ArrowRight", 1), ("ArrowDown", 2), ("ArrowLeft", 1), ("End", rounds), ("ArrowUp", rounds - 1)):
        trees.keyboard.press(key)
        check_trees(trees, step)
    trees.keyboard.press("Home")
    trees.focus("#step")
    trees.keyboard.press("ArrowRight")
    check_trees(trees, 1)
    trees.focus("#next")
    trees.keyboard.press("Enter")
    check_trees(trees, 2)


@pytest.mark.parametrize(("values", "states"), [("sum", range(1, 9)), ("decay", 2 - 0.5 ** np.arange(8))])
def test_the_values_that_one_knows(trees: Any, values: str, states: Any) -> None:
    trees.click("#reset")
    trees.click(f"label[for=values-{values}]")
    trees.click("#last")
    found = trees.evaluate("[...document.querySelectorAll('tr[data-place] [data-name=b]')].map(e => +e.dataset.value)")
    assert found == list(states)


TREE_MUTANTS = {
    "the order of a pair": {"rounds.js": ("b: second.a * first.b + second.b", "b: first.a * second.b + first.b")},
    "the down-sweep": {"rounds.js": ("length, 3 * d - 1, 2 * d, d)", "length, 3 * d - 1, 2 * d, 1)")},
    "the factor in reverse": {"rounds.js": ("k === 0 ? 1 : a[a.length - k]", "a[a.length - 1 - k]")},
}


@pytest.mark.parametrize("mutant", TREE_MUTANTS)
def test_a_wrong_tree_is_caught(opened: Callable[..., Any], mutant: str) -> None:
    hash = "#scan=blelloch&length=8&chunk=4&way=reverse&values=drawn&seed=3&step=0"
    page = opened("scan_trees", TREE_MUTANTS[mutant], hash=hash)
    rounds = len(library_rounds("blelloch", 8, 4))

    def drive() -> None:
        for step in range(rounds):
            page.click("#next")
            check_trees(page, step + 1)

    with pytest.raises(AssertionError):
        drive()


# Both.


LARGEST = Setting(
    "bilinear", -np.array([0.123, 4.56, 78.9, 0]), np.full(12, -1.23), np.full(12, 7.89), *np.full((2, 12, 4), -9.87)
)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    ("name", "hash"),
    [
        ("scan_explorer", LARGEST.hash),
        ("scan_trees", "#scan=chunked&length=16&chunk=4&way=reverse&values=drawn&seed=7&step=3"),
    ],
    ids=["explorer", "trees"],
)
def test_a_phone_shows_it_whole(opened: Callable[..., Any], name: str, hash: str, theme: str) -> None:
    page = opened(name, hash=hash, viewport={"width": 390, "height": 800}, reduced_motion="reduce")
    page.evaluate("theme => document.documentElement.dataset.theme = theme", theme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    moving = page.evaluate("""[...document.querySelectorAll(".ex *")].filter(
        e => getComputedStyle(e).transitionDuration.split(", ").some(time => time !== "0s")).length""")
    assert moving == 0
    unnamed = page.evaluate("""[...document.querySelectorAll(".ex input, .ex button")].filter(
        e => !e.getAttribute("aria-label") && !e.labels?.length && !e.textContent).length""")
    assert unnamed == 0


def test_the_built_pages(site: Path, opened: Callable[..., Any], explorer: Any, trees: Any) -> None:
    """In the site the pages are the same, inside its theme, with claims that lead to their derivations."""
    explorer.goto((site / "explore/scan_explorer.html").as_uri())
    for story in STORIES:
        explorer.click(f"label[for=story-{story}]")
        check_explorer(explorer)
        targets = explorer.evaluate(f"[...document.querySelectorAll('.story-{story} a')].map(a => a.href.split('#'))")
        assert targets
        for page, anchor in targets:
            assert f'id="{anchor}"' in Path(page.removeprefix("file://")).read_text("utf-8")
    trees.goto((site / "explore/scan_trees.html").as_uri())
    trees.click("#last")
    check_trees(trees, len(library_rounds("hillis_steele", 8, 4)))
