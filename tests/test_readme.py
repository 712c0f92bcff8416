"""The README's Python runs as it is written."""

import re
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")


def test_the_example_runs():
    first, second = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict = {}
    exec(first, names)
    assert names["y"].shape == (2, 64, 1000)
    assert names["gradients"].A.shape == (64, 16)
    exec(
        "import ssm_edu\nmy_scan, my_scan_backward = ssm_edu.selective_scan, None\n" + second.replace("torch", "numpy"),
        names,
    )


def test_the_counts_are_of_today():
    from ssm_edu import derivations
    from ssm_edu.testing import PROPERTIES

    claims = derivations.select([])
    counts = {v: sum(one.declared == v for one in claims) for v in ("proved", "verified", "refuted")}
    line = re.search(r"(\d+) claims in [\d.]+ s: (\d+) proved, (\d+) verified, (\d+) refuted", README)
    assert line is not None
    assert [int(n) for n in line.groups()] == [len(claims), *counts.values()]
    assert f"tests {len(PROPERTIES)} properties" in README
