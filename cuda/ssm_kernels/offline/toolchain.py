"""Where the compiler's parts are: libraries and programs of pip's wheels, of a conda environment, or of CUDA_HOME."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from ssm_kernels._target import SIMULATED

__all__ = ["ToolchainError", "program", "require"]


class ToolchainError(RuntimeError):
    """What compiles kernels is not installed here; the message says what to install."""


def require() -> None:
    """Check that kernels can be compiled here.

    Raises:
        ToolchainError: they cannot; it says what to install.
    """
    if SIMULATED:
        raise ToolchainError("NUMBA_ENABLE_CUDASIM is set, and a simulator compiles nothing: set it to 0")
    if importlib.util.find_spec("numba_cuda") is None:
        raise ToolchainError("numba-cuda is not installed: pip install 'ssm-edu[gpu]'")
    for library, package in (
        ("nvvm", "nvidia-nvvm"),
        ("nvrtc", "nvidia-cuda-nvrtc"),
        ("nvJitLink", "nvidia-nvjitlink"),
    ):
        try:
            _pathfinder().load_nvidia_dynamic_lib(library)
        except RuntimeError as error:
            raise ToolchainError(
                f"lib{library} was not found: pip install {package}, or set CUDA_HOME to a CUDA toolkit"
            ) from error


def program(name: str, extra: str) -> str:
    """The path of one of the toolkit's programs, which `cuda-toolkit[extra]` holds.

    Raises:
        ToolchainError: it is not here.
    """
    found = _pathfinder().find_nvidia_binary_utility(name)
    if found is None:
        raise ToolchainError(
            f"{name} was not found: pip install 'cuda-toolkit[{extra}]', or set CUDA_HOME to a CUDA toolkit"
        )
    return str(found)


def _pathfinder() -> Any:
    try:
        return importlib.import_module("cuda.pathfinder")
    except ImportError as error:
        raise ToolchainError("cuda-pathfinder is not installed: pip install 'ssm-edu[gpu]'") from error
