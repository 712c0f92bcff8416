"""`make gpu` runs what it should, and says what it needs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpu.__main__ import ALONE, HANGS, MORE, OPTIONS, files

ROOT = Path(__file__).parent.parent


def test_the_files_whose_kernels_run_on_a_gpu():
    assert all((ROOT / name).exists() for name in (*MORE, ALONE))
    assert ALONE.startswith(MORE[0])
    found = files()
    assert len(set(found)) == len(found)
    kernels = [f"tests/test_{name}.py" for name in ("cuda_kernels", "cuda_functions", "ladder_forward", "torch_blocks")]
    assert set(kernels) <= set(found)
    assert "tests/test_reference.py" not in found


@pytest.mark.parametrize("module", ["tests.gpu", "tests.sanitize"])
def test_without_a_gpu_it_says_so_and_fails(module):
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run([sys.executable, "-m", module], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "needs a GPU" in done.stderr
    assert done.stdout == ""


def test_a_test_that_hangs_names_itself(tmp_path):
    """Also in a process of xdist's."""
    (tmp_path / "test_it.py").write_text("import time\ndef test_that_hangs():\n    time.sleep(0.5)\n")
    options = [option.replace(str(HANGS), "0.2") for option in OPTIONS]
    command = [sys.executable, "-m", "pytest", *options, "-n", "1", "-c", os.devnull, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "in test_that_hangs" in done.stderr
