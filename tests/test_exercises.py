"""The puzzles: every solution passes its check; every gap, and a planted wrong answer to each, fails it in words."""

import inspect
import math
import os
import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from ssm_edu import scan

FOLDER = Path(__file__).parent.parent / "docs" / "exercises"
PUZZLES = sorted(path.stem for path in FOLDER.glob("p?_*.py"))


def load(path, monkeypatch):
    """A file of the folder as a module, with its neighbours importable as they are beside a script."""
    monkeypatch.syspath_prepend(str(FOLDER))
    if path.stem.startswith("p8"):
        pytest.importorskip("greenlet")
        from numba import cuda

        if not cuda.jit.__module__.startswith("numba.cuda.simulator"):
            pytest.skip("Numba was imported without NUMBA_ENABLE_CUDASIM=1")
    spec = spec_from_file_location(path.stem, path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def puzzle(request, monkeypatch):
    yield load(FOLDER / f"{request.param}.py", monkeypatch)
    sys.modules.pop("puzzle", None)


def answer_of(module):
    """The name of the function that the check takes, which is the one to fill in."""
    [name] = inspect.signature(module.check).parameters
    return name


def test_there_are_eight_with_a_solution_each():
    assert len(PUZZLES) == 8
    assert [path.stem for path in sorted((FOLDER / "solutions").glob("*.py"))] == PUZZLES


@pytest.mark.parametrize("puzzle", PUZZLES, indirect=True)
def test_a_solution_is_right(puzzle, monkeypatch):
    solved = load(FOLDER / "solutions" / f"{puzzle.__name__}.py", monkeypatch)
    puzzle.check(getattr(solved, answer_of(puzzle)))


UNSOLVED = {
    "p7_wrong_adjoint": r"the gradient of delta is .*Right are: u, b, c, a",
    "p8_missing_barrier": r"RaceError: thread .*`left = tile.*`tile\[t\] \+= left`",
}


@pytest.mark.parametrize("puzzle", PUZZLES, indirect=True)
def test_a_gap_fails_in_words(puzzle):
    name = answer_of(puzzle)
    with pytest.raises(AssertionError) as caught:
        puzzle.check()
    assert type(caught.value).__name__ == "Wrong"
    assert re.search(UNSOLVED.get(puzzle.__name__, rf"^{name} still has a gap: put your own code"), str(caught.value))


def mambas_rule(a, b, delta):
    return math.exp(delta * a), delta * b


def no_limit(a, b, delta):
    return math.exp(delta * a), b * math.expm1(delta * a) / a


def cancelling(z):
    return z / (np.exp(z) - 1)


def inverse(z):
    return np.expm1(z) / z


def no_zero(z):
    return z / np.expm1(z)


def swapped(second, first):
    return second[0] * first[0], first[0] * second[1] + first[1]


def undecayed(second, first):
    return second[0] * first[0], second[1] + first[1]


def quotient(delta, b, A):
    total = delta.sum()
    return total, (np.exp(A * total) / np.exp(A * np.cumsum(delta)) * b).sum()


def decayed_by_itself(delta, b, A):
    after = np.cumsum(delta[::-1])[::-1]
    return delta.sum(), (np.exp(A * after) * b).sum()


def writing(a, b, seq_idx):
    a[1:][seq_idx[1:] != seq_idx[:-1]] = 0
    return a, b


def silent(a, b, seq_idx):
    return a, np.where(np.append(True, seq_idx[1:] != seq_idx[:-1]), 0, b)


def one_too_early(a, c):
    return scan.blelloch(a[::-1], c[::-1])[::-1]


def forward_again(a, c):
    return scan.blelloch(a, c)


def lost_at_the_end(a, c):
    after = np.append(a[1:], 0)
    return scan.blelloch(np.minimum(after[::-1], 1), c[::-1])[::-1]


PLANTED = [
    ("p1_zero_order_hold", mambas_rule, r"B_bar is delta·b, which is Mamba's rule"),
    ("p1_zero_order_hold", no_limit, r"a = 0\.0.*division by zero"),
    ("p1_zero_order_hold", lambda a, b, delta: (1 + delta * a, delta * b), r"A_bar is 0\.5\..*decays from 1 to 0\.606"),
    ("p1_zero_order_hold", lambda a, b, delta: (math.exp(delta * a), 1.0), r"B_bar is 1\. From h = 0"),
    ("p2_mambas_rule", cancelling, r"at z = -1e-03 it is .*two numbers that agree"),
    ("p2_mambas_rule", inverse, r"You have its inverse"),
    ("p2_mambas_rule", no_zero, r"at z = 0 it is nan"),
    ("p3_combine", swapped, r"first halve, then add 3"),
    ("p3_combine", undecayed, r"first add 3, then halve"),
    ("p4_chunk_summary", quotient, r"large steps: b is nan.*0/0 is no number"),
    ("p4_chunk_summary", decayed_by_itself, r"small steps: from h = 0 .*not of s itself"),
    ("p4_chunk_summary", lambda delta, b, A: (delta.prod(), 0.0), r"exponents of a product of exponentials add up"),
    ("p5_packed", writing, r"packed wrote to its inputs"),
    ("p5_packed", silent, r"the sequence of steps 0 to 2 has the states"),
    ("p5_packed", lambda a, b, seq_idx: (a, b), r"the sequence of steps 3 to 3 has the states"),
    ("p6_reverse_scan", one_too_early, r"takes the a of the step after it"),
    ("p6_reverse_scan", forward_again, r"the last g is .*nothing comes after it"),
    ("p6_reverse_scan", lost_at_the_end, r"takes the a of the step after it"),
]


@pytest.mark.parametrize(("puzzle", "answer", "words"), PLANTED, indirect=["puzzle"])
def test_a_wrong_answer_fails_in_words(puzzle, answer, words):
    with pytest.raises(AssertionError, match=words), np.errstate(all="ignore"):
        puzzle.check(answer)


PLANTED_EDITS = [
    ("p7_wrong_adjoint", "g * b[t] * u[t]", "g * (b[t] * u[t] + a * decay * h[t + 1])", "gradient of delta is"),
    ("p7_wrong_adjoint", "g = g * decay  #", "g = g  #", "gradient of u is"),
    (
        "p8_missing_barrier",
        "        tile[t] += left\n",
        "        if t >= d:\n            cuda.syncthreads()\n        tile[t] += left\n",
        "RaceError: .*reads .* of shared array `tile`",
    ),
    (
        "p8_missing_barrier",
        "        tile[t] += left\n        cuda.syncthreads()\n        d *= 2\n",
        "        cuda.syncthreads()\n        tile[t] += left\n        cuda.syncthreads()\n        d *= 4\n",
        "the sums of .* and y is",
    ),
]


@pytest.mark.parametrize(("name", "old", "new", "words"), PLANTED_EDITS)
def test_a_wrong_mend_fails_in_words(name, old, new, words, monkeypatch, tmp_path):
    text = (FOLDER / f"{name}.py").read_text("utf-8")
    assert text.count(old) == 1
    (tmp_path / f"{name}.py").write_text(text.replace(old, new), "utf-8")
    mended = load(tmp_path / f"{name}.py", monkeypatch)
    with pytest.raises(AssertionError, match=words):
        mended.check()
    sys.modules.pop("puzzle", None)


def test_the_puzzles_planted_are_all():
    assert {name for name, *_ in PLANTED + PLANTED_EDITS} == set(PUZZLES)


def test_as_a_script(tmp_path):
    """A gap is said in one line, with exit code 1; the solution in its place is right."""
    gap = FOLDER / "p3_combine.py"
    solved = tmp_path / gap.name
    text = gap.read_text("utf-8")
    solution = (FOLDER / "solutions" / gap.name).read_text("utf-8")
    solved.write_text(text.replace("\n\ndef check", f"\n{solution}\n\ndef check"), "utf-8")

    paths = os.pathsep.join(filter(None, [str(FOLDER), os.environ.get("PYTHONPATH")]))

    def script(path):
        run = [sys.executable, str(path)]
        return subprocess.run(run, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths})

    unsolved, right = script(gap), script(solved)
    assert unsolved.returncode == 1
    assert unsolved.stderr.startswith("✗ combine still has a gap")
    assert (right.returncode, right.stdout) == (0, "✓ right\n")
