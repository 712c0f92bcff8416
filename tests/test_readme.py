"""The README's Python runs as it is written."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")


NUMPY, TORCH, KIT = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_example_runs():
    names: dict = {}
    exec(NUMPY, names)
    assert names["y"].shape == (2, 64, 1000)
    assert names["gradients"].A.shape == (64, 16)


def test_the_example_in_torch_runs():
    pytest.importorskip("torch")
    from ssm_edu.torch import uninstall

    names: dict = {}
    exec(NUMPY, names)
    try:
        exec(TORCH, names)
        assert names["inputs"][2].grad.shape == (64, 16)
    finally:
        uninstall()


def test_the_line_for_a_test_file_runs():
    own = "import ssm_edu\nmy_scan, my_scan_backward = ssm_edu.selective_scan, None\n"
    exec(own + KIT.replace("torch", "numpy"), {})


def test_the_counts_are_of_today():
    from ssm_edu import derivations
    from ssm_edu.testing import PROPERTIES

    claims = derivations.select([])
    counts = {v: sum(one.declared == v for one in claims) for v in ("proved", "verified", "refuted")}
    line = re.search(r"(\d+) claims in [\d.]+ s: (\d+) proved, (\d+) verified, (\d+) refuted", README)
    assert line is not None
    assert [int(n) for n in line.groups()] == [len(claims), *counts.values()]
    assert f"tests {len(PROPERTIES)} properties" in README
