"""The simulator's view, driven in a browser by keyboard and by mouse."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("greenlet")
pytest.importorskip("pygments")

DOCS = Path(__file__).parent.parent.parent / "docs"


@pytest.fixture(scope="module")
def html() -> str:
    """The race and the shuffles, alone on a page, with the script and the styles of the site."""
    from numba import cuda

    if not cuda.jit.__module__.startswith("numba.cuda.simulator"):
        pytest.skip("Numba was imported without NUMBA_ENABLE_CUDASIM=1")
    sys.path.insert(0, str(DOCS / "explore"))
    try:
        from simulator import runs
        from simulator.picture import view

        views = view(runs.rung1(without_second_barrier=True)), view(runs.shuffled_sum())
    finally:
        sys.path.remove(str(DOCS / "explore"))
        for name in [name for name in sys.modules if name.partition(".")[0] == "simulator"]:
            del sys.modules[name]
    files = [(DOCS / "_static/simulator" / name).read_text("utf-8") for name in ("view.css", "view.js")]
    head = '<!doctype html><html lang="en" data-theme="light"><meta charset="utf-8"><title>view</title>'
    return (
        f"{head}<style>{files[0]}</style><main><h1>view</h1>{''.join(views)}</main><script>{files[1]}</script></html>"
    )


@pytest.fixture
def page(headless: Any, html: str) -> Iterator[Any]:
    tab, faults = headless.new_page(viewport={"width": 390, "height": 800}), []
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.set_content(html)
    yield tab
    tab.close()
    assert not faults


def state(view: Any) -> tuple[int, int, list[str]]:
    """Steps that are seen, where the slider stands, and the lines marked as this step's."""
    seen = view.locator(".event:not(.later):not(.race)").count()
    lines = view.locator("pre .line.now").evaluate_all("lines => lines.map(line => line.dataset.line)")
    return seen, int(view.locator("input").input_value()), lines


def row(view: Any, step: int) -> tuple[str, list[str]]:
    """What the table says of a step, counted from 1, and its line."""
    found = view.locator("tbody tr").nth(step - 1)
    line = found.get_attribute("data-line")
    return found.locator("td").nth(1).text_content(), [] if line == "0" else [line]


def check(view: Any, step: int, count: int) -> None:
    """The picture, the slider, the words and the marked line are all those of the step."""
    words, lines = row(view, step) if step else ("", [])
    assert state(view) == (step, step, lines)
    said = view.locator("output").text_content()
    assert said == (f"Step {step} of {count}: {words}." if step else f"Before the first of {count} steps.")
    race = view.locator(".event.race")
    assert race.count() == 0 or race.evaluate("e => e.classList.contains('later')") == (step < count)


@pytest.mark.parametrize("number", [0, 1])
def test_buttons_and_slider(page: Any, number: int) -> None:
    view = page.locator(".simulated").nth(number)
    count = view.locator("tbody tr").count()
    check(view, count, count)
    for button, step in (("Next", count), ("Back", count - 1), ("First", 0), ("Back", 0), ("Next", 1), ("Next", 2)):
        view.get_by_role("button", name=button).click()
        check(view, step, count)
    slider = view.get_by_role("slider", name="Step")
    slider.focus()
    slider.press("ArrowRight")
    check(view, 3, count)
    slider.fill(str(count // 2))
    check(view, count // 2, count)
    view.get_by_role("button", name="Last").press("Enter")
    check(view, count, count)


def test_arrow_keys_in_the_picture(page: Any) -> None:
    view = page.locator(".simulated").first
    count = view.locator("tbody tr").count()
    picture = view.locator(".threads")
    for key, step in (("ArrowLeft", count - 1), ("Home", 0), ("ArrowRight", 1), ("End", count), ("a", count)):
        picture.press(key)
        check(view, step, count)
    other = page.locator(".simulated").nth(1)
    assert state(other)[1] == other.locator("tbody tr").count()


def test_what_happens_now_is_scrolled_into_sight(page: Any) -> None:
    page.set_viewport_size({"width": 240, "height": 800})
    view = page.locator(".simulated").first
    view.get_by_role("button", name="First").click()
    count = view.locator("tbody tr").count()
    for step in range(1, count + 1):
        view.get_by_role("button", name="Next").click()
        inside = view.locator(f'.event[data-step="{step - 1}"]').first.evaluate(
            """mark => {
                 const box = mark.getBoundingClientRect(), frame = mark.closest(".threads").getBoundingClientRect();
                 return box.left >= frame.left && box.right <= frame.right;
               }"""
        )
        assert inside, step


def test_the_page_does_not_scroll_sideways(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_script_that_forgets_a_step_is_seen(headless: Any, html: str) -> None:
    """The check of these tests fails a script that shows one step too many."""
    assert html.count("step >= done") == 1
    tab = headless.new_page()
    tab.set_content(html.replace("step >= done", "step > done"))
    view = tab.locator(".simulated").first
    view.get_by_role("button", name="First").click()
    with pytest.raises(AssertionError):
        check(view, 0, view.locator("tbody tr").count())
    tab.close()
