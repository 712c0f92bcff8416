"""The ladder's drawings as a browser lays them out: no letter outside its frame, none over another."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("greenlet")

LADDER = Path(__file__).parent.parent.parent / "docs" / "ladder"
# letters have room around them: a box may touch another one by so much of its height
TOUCH = 3
FAULTS = """touch => [...document.querySelectorAll("svg")].flatMap(svg => {
  const frame = svg.viewBox.baseVal, found = [];
  const boxes = [...svg.querySelectorAll("text")].map(text => [text.textContent, text.getBBox(), text]);
  for (const [words, box] of boxes) {
    if (box.x < -1 || box.x + box.width > frame.width + 1 || box.y < -1 || box.y + box.height > frame.height + 1) {
      found.push(`${svg.ariaLabel.slice(0, 60)}: "${words}" leaves the frame`);
    }
  }
  for (const [i, [words, box]] of boxes.entries()) {
    for (const [others, other] of boxes.slice(i + 1)) {
      const across = Math.min(box.x + box.width, other.x + other.width) - Math.max(box.x, other.x);
      const down = Math.min(box.y + box.height, other.y + other.height) - Math.max(box.y, other.y);
      if (across > touch && down > touch) found.push(`${svg.ariaLabel.slice(0, 60)}: "${words}" over "${others}"`);
    }
  }
  return found;
})"""


@pytest.fixture(scope="module")
def shown() -> str:
    """Every drawing of both directions."""
    sys.path.insert(0, str(LADDER))
    try:
        import page
        import scenes

        scene_lists = {"forward": scenes.FORWARD, "backward": scenes.BACKWARD}
        return "".join(
            page.drawing_html(direction, number) for direction, all_ in scene_lists.items() for number in all_
        )
    finally:
        sys.path.remove(str(LADDER))
        for name in ("page", "scenes", "drawings"):
            sys.modules.pop(name, None)


@pytest.fixture
def faults(headless: Any) -> Callable[[str], list[str]]:
    def found(html: str) -> list[str]:
        tab = headless.new_page()
        tab.set_content(f'<!doctype html><meta charset="utf-8"><style>svg {{ width: 340px }}</style>{html}')
        listed: list[str] = tab.evaluate(FAULTS, TOUCH)
        tab.close()
        return listed

    return found


def test_no_letter_leaves_its_frame_or_lies_over_another(shown: str, faults: Callable[[str], list[str]]) -> None:
    assert shown.count("<svg") > 30
    assert faults(shown) == []


def test_the_check_sees_a_drawing_that_is_cut_off_and_words_that_overlap(
    shown: str, faults: Callable[[str], list[str]]
) -> None:
    cut = shown.replace('viewBox="0 0 340', 'viewBox="0 0 200')
    assert any("leaves the frame" in fault for fault in faults(cut))
    assert any(" over " in fault for fault in faults(shown.replace('font-size="11"', 'font-size="22"')))
