"""`python -m tests.gpu [FILE …]`: every test whose kernels run on a GPU, on this machine's, or those of some files.

Kernels are compiled as tests ask for them, in a process a core, and kept on the disk. What needs most of the GPU's
memory runs at the end, alone. A test that fails is told at once, since all take a while; one that hangs is named by the
stacks that it is in.
"""

import subprocess
import sys
from pathlib import Path

from tests import kernel_runs

ROOT = Path(__file__).parents[2]
# beside the files that ask tests/kernel_runs.py where kernels run
MORE = ("tests/gpu", "tests/test_bench_device.py", "tests/test_gpu.py", "tests/test_torch.py")
ALONE = "tests/gpu/test_large.py"
HANGS = 300  # seconds; a test that compiles all that it needs takes some two minutes
# pytest-benchmark, where it is installed, warns of xdist, and warnings are errors
OPTIONS = ("-q", "-p", "no:benchmark", "-p", "tests.gpu.telling", "-o", f"faulthandler_timeout={HANGS}")


def files() -> list[str]:
    asking = [file for file in sorted((ROOT / "tests").glob("test_*.py")) if "kernel_runs" in file.read_text("utf-8")]
    return [*MORE, *(str(file.relative_to(ROOT)) for file in asking)]


def main() -> int | str:
    """What `sys.exit` takes."""
    if kernel_runs.NO_GPU:
        return f"make gpu {kernel_runs.NO_GPU}"

    def pytest(*arguments: str) -> int:
        return subprocess.call([sys.executable, "-m", "pytest", *OPTIONS, *arguments], cwd=ROOT)

    asked = sys.argv[1:] or [*files(), ALONE]
    together = [file for file in asked if file != ALONE]
    codes = [pytest("-n", "auto", "--ignore", ALONE, *together)] if together else []
    codes += [pytest(ALONE)] if ALONE in asked else []
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
