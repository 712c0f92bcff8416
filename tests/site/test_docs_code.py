"""No code on the site or in the README can rot: each block runs in the build, in a test, or in a step of the CI.

A fenced block may be a cell on a page that is executed, a literal include of a file that something runs, a doctest, or
shell commands of `COMMANDS`. The README's Python is run by tests/test_readme.py.
"""

from __future__ import annotations

import doctest
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest

from ssm_edu import derivations, experiments

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, *sorted(p for p in DOCS.rglob("*.md") if not p.relative_to(DOCS).parts[0].startswith("_"))]
CI = (".ci/run", "Makefile")

# Directives that show no code of their own.
PLAIN = {"articles", "container", "eval-rst", "figure", "image", "include", "ledger", "list-table", "math", "raw"}
PLAIN |= {"admonition", "note", "seealso", "table", "tip", "toctree", "warning", "glossary"}


@dataclass(frozen=True)
class Block:
    """A fenced block: what stands behind its fence, its lines, and whether its page is executed."""

    page: Path
    line: int
    info: str
    text: str
    executed: bool

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path, text: str) -> Iterator[Block]:
    """The fenced blocks of a page, those inside other directives too."""
    executed = bool(re.match(r"---\n(?:.*\n)*?(?:file_format: mystnb|jupytext:)\n(?:.*\n)*?---\n", text))
    fence, start, info, held = "", 0, "", []
    for number, line in enumerate(text.splitlines(), 1):
        opened = re.match(r"\s*(`{3,}|~{3,})\s*(.*)$", line)
        if not fence and opened:
            fence, info, start, held = opened[1], opened[2].strip(), number, []
        elif fence and re.match(rf"\s*{fence[0]}{{{len(fence)},}}\s*$", line):
            yield Block(page, start, info, "\n".join(held) + "\n", executed)
            yield from blocks_of(page, "\n".join(held)) if info.startswith("{") else ()
            fence = ""
        elif fence:
            held.append(line)
    assert not fence, f"{page}:{start}: a fence that is not closed"


BLOCKS = [block for page in PAGES for block in blocks_of(page, page.read_text("utf-8"))]


@dataclass(frozen=True)
class Here:
    """A command that is run by a test below, in a folder: its exit code, words that it says, and what it needs."""

    folder: str
    exit_code: int
    says: str
    needs: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """A command that a step of the continuous integration runs: the words by which it does."""

    file: str
    words: str


@dataclass(frozen=True)
class OnGpu:
    """A command that needs a GPU; another one of the list does the same without."""

    instead: str


@dataclass(frozen=True)
class Smaller:
    """A command that takes minutes: a test of the suite runs the same experiment with less to train or to time."""

    file: str
    test: str


MINE = "last_state,initial_state,seq_idx,complex,constant_B,constant_C,zoh,bilinear"
LACKS = "groups,unequal_groups,constant_B,constant_C,D,z,delta_bias,softplus,initial_state,last_state,grad_last_state"
OWN = "from ssm_edu import selective_scan as my_scan, selective_scan_backward as my_scan_backward\n"
FEW = ("--max-examples", "1")
IN_TRITON = f"ssm-edu check triton_scan:scan --framework torch --max-examples 2 --without {LACKS}"
IN_TRITON = f"TRITON_INTERPRET=1 {IN_TRITON},seq_idx,complex,zoh,bilinear,nan,subnormals,strided"
TRAINED = Smaller("tests/test_experiments_trained.py", "test_a_run_is_a_result_with_a_figure")
COMMANDS: dict[str, Here | Step | OnGpu | Smaller] = {
    "make derive": Step(".ci/run", "make derive\n"),
    "make test": Step(".ci/run", "make test\n"),
    "make lint": Step(".ci/run", "make lint\n"),
    "pip install .": Step(".ci/run", 'pip install --quiet --disable-pip-version-check "$wheel"/*.whl'),
    "pip install '.[gpu]'": Step("Makefile", "'.[test,gpu]'"),
    "pip install '.[simulator]'": Step("Makefile", "'.[dev]'"),
    "ssm-edu doctor": Step(".ci/run", "venv/bin/ssm-edu doctor\n"),
    "ssm-edu derive ZOH-4 --verbose": Here(".", 0, "1 proved, .*none out of place"),
    "ssm-edu check mymodule:my_scan --backward mymodule:my_scan_backward": Here(
        "", 0, "38 properties: 38 passed", more=FEW, files={"mymodule.py": OWN}
    ),
    f"ssm-edu check my_scan:scan --without {MINE}": Here(
        "docs/kernels", 1, r"problem_from\(seed=0, shape=\(1, 4, 1, 1\), groups_B=2\)", more=FEW
    ),
    "ssm-edu check torch_scan:scan --backward torch_scan:scan_backward --framework torch --without groups,constant_B,"
    "constant_C,D,z,delta_bias,softplus,seq_idx,complex,zoh,bilinear": (
        Here("docs/kernels", 0, r"\d+ properties: \d+ passed, \d+ skipped", needs=("torch",), more=FEW)
    ),
    "ssm-edu check triton_scan:scan --framework torch --device cuda --fast-math --algorithm sequential --without "
    f"{LACKS},seq_idx,complex,zoh,bilinear,nan,subnormals,strided": OnGpu(IN_TRITON),
    IN_TRITON: Here("docs/kernels", 0, r"\d+ properties: \d+ passed, \d+ skipped", needs=("torch", "triton")),
    "ssm-edu experiment selective_copying": TRAINED,
    "ssm-edu experiment forgetting": TRAINED,
    "ssm-edu experiment induction_heads": TRAINED,
    "ssm-edu experiment constant_memory": Smaller(
        "tests/test_experiments_timed.py", "test_memory_is_what_the_cards_say"
    ),
    "ssm-edu experiment scan_speed": Smaller(
        "tests/test_experiments_timed.py", "test_the_speed_of_the_scan_is_measured"
    ),
    "ssm-edu experiment training_step": Smaller(
        "tests/test_experiments_timed.py", "test_a_training_step_is_measured_and_a_wrong_gradient_is_found"
    ),
    "python docs/exercises/p1_zero_order_hold.py": Here(".", 1, "zero_order_hold still has a gap"),
}
TAKES_THE_FAST_PATH = """
import ssm_edu.torch
from transformers.models.mamba import modeling_mamba as module

chosen = getattr(module, "mamba_selective_scan", None) or module.selective_scan_fn
held = [cell.cell_contents for cell in chosen.__closure__ or ()]  # newer releases wrap what they choose
assert any(f is ssm_edu.torch.selective_scan_fn for f in (chosen, *held))
"""
# Scripts beside the pages that no cell imports: run here, with what they need, the last words that they print, and what
# must hold afterwards.
SCRIPTS = {
    "docs/use/train_step.py": (("torch",), r"torch.Size\(\[64, 16\]\)", ""),
    "docs/use/hugging_face.py": (
        ("torch", "transformers"),
        r"mamba_ssm.selective_scan_fn is ssm_edu.torch.*tensor\(",
        TAKES_THE_FAST_PATH,
    ),
}


def commands_in(block: Block) -> list[str]:
    return [line.removeprefix("$ ").partition("  #")[0].strip() for line in block.text.splitlines() if line[:2] == "$ "]


def needs(names: tuple[str, ...]) -> None:
    for name in names:
        pytest.importorskip(name)


def run(arguments: list[str], folder: Path, **environment: str) -> tuple[int, str]:
    """The exit code, and all that was printed."""
    done = subprocess.run(
        arguments,
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"COLUMNS": "200", "OMP_NUM_THREADS": "1"} | environment,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


def run_command(command: str, folder: Path, more: tuple[str, ...] = ()) -> tuple[int, str]:
    """A command with this Python, `ssm-edu` being the one that it has."""
    words = command.replace("'", "").split() + list(more)
    environment = dict(words.pop(0).split("=") for _ in range(len(words)) if re.match(r"[A-Z_]+=", words[0]))
    program = {
        "ssm-edu": [sys.executable, "-c", "from ssm_edu.cli import app; app()"],
        "python": [sys.executable],
    }
    return run(program[words[0]] + words[1:], folder, **environment)


def complaint(block: Block) -> str:
    """What is wrong with a block; empty if it cannot rot."""
    directive = re.match(r"\{([\w-]+)\}\s*(.*)", block.info)
    if directive is None:
        return complaint_of_plain_fence(block)
    name, argument = directive.groups()
    if name == "code-cell":
        return "" if block.executed else "a code-cell on a page without `file_format: mystnb`, which nothing executes"
    if name == "literalinclude":
        return complaint_of_include(block.page.parent / argument)
    if name not in PLAIN:
        return f"the directive {name!r}, of which this test does not know whether it shows code that nobody runs"
    return "a code block in reStructuredText, which nothing runs" if re.search(r"\.\. code", block.text) else ""


def complaint_of_plain_fence(block: Block) -> str:
    language = block.info
    if language == "console":
        found = commands_in(block)
        unknown = [command for command in found if command not in COMMANDS]
        other = [line for line in block.text.splitlines() if line[:2] != "$ "]
        if other or not found:
            return f"expected lines of `$ command` in a console block, found {other[:1]}"
        return f"no test and no step of the CI runs {unknown}" if unknown else ""
    if language == "python" and block.page == README:
        return ""  # tests/test_readme.py
    if language == "python" and ">>> " in block.text:
        return doctest_failures(block)
    if language == "text" and block.page == README and block.text.startswith("zero_order_hold\n"):
        return ""  # test_the_ledger_in_the_readme
    return f"a block of {language or 'no language'!r} that nothing runs: make it a code-cell, an include or a doctest"


def doctest_failures(block: Block) -> str:
    test = doctest.DocTestParser().get_doctest(block.text, {}, str(block), str(block.page), block.line)
    said: list[str] = []
    doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS).run(test, out=said.append)
    return "".join(said)


def complaint_of_include(path: Path) -> str:
    path = path.resolve()
    if not path.is_file():
        return f"{path} is not there"
    name = path.relative_to(ROOT).as_posix()
    if name.partition("/")[0] in ("ssm_edu", "cuda", "derivations", "tests") or name in SCRIPTS:
        return ""
    if name.startswith("docs/exercises/"):
        return ""  # tests/test_exercises.py
    cells = "\n".join(b.text for b in BLOCKS if b.info.startswith("{code-cell}") and b.page.parent == path.parent)
    if re.search(rf"^(?:import|from) {path.stem}\b", cells, re.MULTILINE) or any(path.stem in c for c in COMMANDS):
        return ""
    return "" if name == CONFORMANCE else f"{name} is run by no cell beside it and by no test"


CONFORMANCE = "docs/kernels/test_my_scan.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_of_a_page_is_run(page):
    wrong = [f"{block}: {words}" for block in BLOCKS if block.page == page and (words := complaint(block))]
    assert not wrong, "\n".join(wrong)


CELL = "---\nfile_format: mystnb\n---\n```{code-cell} python3\n1 + 1\n```\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("```python\n1 + 1\n```\n", "nothing runs"),
        ("```\n1 + 1\n```\n", "no language"),
        ("```python\n>>> 1 + 1\n3\n```\n", "Expected:\n    3\nGot:\n    2"),
        ("```{code-cell} python3\n1 + 1\n```\n", "nothing executes"),
        ("```{code-block} python\n1 + 1\n```\n", "does not know"),
        ("```{eval-rst}\n.. code-block:: python\n\n   1 + 1\n```\n", "reStructuredText"),
        ("```{literalinclude} nowhere.py\n```\n", "is not there"),
        ("```{literalinclude} conf.py\n```\n", "run by no cell"),
        ("```console\n$ ssm-edu derive nothing\n```\n", "no test and no step"),
        ("```console\nssm-edu derive\n```\n", "expected lines of"),
        ("````{note}\n```python\n1 + 1\n```\n````\n", "nothing runs"),
        (CELL, ""),
        ("```python\n>>> 1 + 1\n2\n```\n", ""),
        ("```console\n$ make derive\n```\n", ""),
    ],
)
def test_a_block_that_nothing_runs_is_found(text, words):
    found = [complaint(block) for block in blocks_of(DOCS / "page.md", text)]
    assert any(words in one for one in found) if words else not any(found)


def test_a_fence_that_is_not_closed_is_found():
    with pytest.raises(AssertionError, match="not closed"):
        list(blocks_of(DOCS / "page.md", "```python\n1 + 1\n"))


def test_no_command_of_the_list_is_unused():
    used = Counter(command for block in BLOCKS if block.info == "console" for command in commands_in(block))
    assert set(COMMANDS) - set(used) == set()
    included = {(block.page.parent / block.info.split()[-1]).resolve() for block in BLOCKS if "literal" in block.info}
    assert {ROOT / name for name in SCRIPTS} <= included


@pytest.mark.parametrize("command", [c for c, how in COMMANDS.items() if isinstance(how, Step)])
def test_a_step_of_the_ci_runs_it(command):
    step = COMMANDS[command]
    assert step.file in CI
    assert step.words in (ROOT / step.file).read_text("utf-8")


def test_the_extras_are_there():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    texts = "\n".join(page.read_text("utf-8") for page in PAGES)
    named = {extra for match in re.findall(r"(?:ssm-edu|\.)\[([\w,-]+)\]", texts) for extra in match.split(",")}
    assert {"gpu", "simulator", "torch"} <= named <= set(extras)


@pytest.mark.parametrize("command", [c for c, how in COMMANDS.items() if isinstance(how, OnGpu)])
def test_a_command_for_a_gpu(command):
    instead = COMMANDS[COMMANDS[command].instead]
    assert isinstance(instead, Here)
    if shutil.which("nvidia-smi") is None:
        pytest.skip("needs a GPU")
    needs(instead.needs)
    code, said = run_command(command, ROOT / instead.folder)
    assert code == instead.exit_code, said
    assert re.search(instead.says, said), said


def test_the_long_commands_are_all_experiments_and_run_smaller_in_a_test():
    long = {command: how for command, how in COMMANDS.items() if isinstance(how, Smaller)}
    assert set(long) == {f"ssm-edu experiment {name}" for name in experiments.cards()}
    for command, how in long.items():
        text = (ROOT / how.file).read_text("utf-8")
        assert f"def {how.test}(" in text
        assert command.split()[-1] in text


@pytest.mark.parametrize("command", [c for c, how in COMMANDS.items() if isinstance(how, Here)])
def test_a_command_does_what_the_page_says(command, tmp_path):
    how = COMMANDS[command]
    needs(how.needs)
    for name, text in how.files.items():
        (tmp_path / name).write_text(text, "utf-8")
    code, said = run_command(command, ROOT / how.folder if how.folder else tmp_path, how.more)
    assert code == how.exit_code, said
    assert re.search(how.says, said), said


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_beside_a_page(script):
    modules, words, afterwards = SCRIPTS[script]
    needs(modules)
    code, said = run(
        [sys.executable, "-c", f"import runpy\nrunpy.run_path({str(ROOT / script)!r})\n{afterwards}"], ROOT
    )
    assert code == 0, said
    assert re.search(words, said, re.DOTALL), said


def test_the_line_for_a_test_file():
    few = ["-k", "causality or seq_idx or packed", "-c", os.devnull, "-p", "no:cacheprovider"]
    code, said = run([sys.executable, "-m", "pytest", "-q", *few, Path(CONFORMANCE).name], ROOT / "docs/kernels")
    assert code == 0, said
    assert re.search(r"1 passed, 1 skipped", said), said


def test_the_mended_kernels_are_right_and_the_broken_one_races():
    """What the page on frameworks shows, with fewer problems: the cells run it, and the build would not mind."""
    if find_spec("greenlet") is None or os.environ.get("NUMBA_ENABLE_CUDASIM") != "1":
        pytest.skip("needs the simulator")
    code = (
        "from ssm_edu.testing import check\n"
        "import numba_scan, numba_scan_mended\n"
        "has = {'variable_B', 'variable_C', 'mamba', 'deterministic'}\n"
        "broken, mended = (check(m.scan, features=has, max_examples=1) for m in (numba_scan, numba_scan_mended))\n"
        "assert mended.ok, mended\n"
        "assert 'RaceError' in broken.failures[0].message, broken\n"
        "assert 'shape=(1, 1, 2, 2)' in broken.failures[0].counterexample, broken\n"
    )
    exit_code, said = run([sys.executable, "-c", code], DOCS / "kernels")
    assert exit_code == 0, said


def test_the_ledger_in_the_readme():
    """Its lines are those of `ssm-edu derive`: the same words for each claim, whatever the width of the columns."""
    [block] = [one for one in BLOCKS if one.page == README and one.info == "text"]
    claims = {claim.id: claim for claim in derivations.select(["zero_order_hold"])}
    shown = re.split(r"^✓ +([A-Z]+-\d+)", block.text.partition("evidence\n")[2], flags=re.MULTILINE)[1:]
    assert shown
    for id, words in zip(shown[::2], shown[1::2], strict=True):
        result = claims[id].check()
        expected = f"{claims[id].title} {result.verdict} {result.evidence}"
        expected += f" → {result.corrected_by}" if result.corrected_by else ""
        assert Counter(words.partition("   ⋮")[0].split()) == Counter(expected.split())


def test_the_picture_is_what_its_code_draws(tmp_path):
    script = shutil.copy(DOCS / "readme/selection.py", tmp_path)
    code, said = run([sys.executable, script], ROOT)
    assert code == 0, said
    drawn = (tmp_path / "selection.svg").read_text("utf-8")
    assert drawn == (DOCS / "readme/selection.svg").read_text("utf-8"), "run docs/readme/selection.py"
    assert re.search(r"docs/readme/selection\.svg", README.read_text("utf-8"))
