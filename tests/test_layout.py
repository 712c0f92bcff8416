"""What must hold of the tree and of `import ssm_edu`."""

import subprocess
import sys
from pathlib import Path

import pytest

import ssm_edu

ROOT = Path(__file__).parent.parent


def test_cuda_is_no_package():
    """With an __init__.py, cuda/ would shadow NVIDIA's `cuda.bindings` and break every import of numba.cuda."""
    assert not (ROOT / "cuda" / "__init__.py").exists()
    assert not (ROOT / "ssm_edu" / "cuda.py").exists()
    for taken in ("bindings", "core", "pathfinder", "compute", "cccl"):
        assert not (ROOT / "cuda" / taken).exists()


def loaded_by(statement):
    heavy = ["scipy", "sympy", "numba", "torch", "hypothesis", "mpmath", "matplotlib", "rich", "typer"]
    code = f"{statement}; import sys; print(*[m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.split()


def test_import_loads_numpy_and_nothing_heavier():
    assert loaded_by("import ssm_edu") == []
    assert loaded_by("import ssm_edu; ssm_edu.discretize_diagonal(-1.0, 1.0, 0.1)") == []
    assert "scipy" in loaded_by("import ssm_edu; ssm_edu.discretize([[1.0]], [1.0], 0.1)")


def test_the_function_is_not_hidden_by_its_module():
    code = "import ssm_edu.discretize, ssm_edu; assert callable(ssm_edu.discretize)"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "from ssm_edu import discretize; assert callable(discretize)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ssm_edu.nothing
    assert set(ssm_edu.__all__) <= set(dir(ssm_edu))


def test_the_citation_is_of_this_version():
    assert f"\nversion: {ssm_edu.__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
