"""The executable derivation of Mamba's selective scan.

    >>> import ssm_edu
    >>> ssm_edu.discretize([[0.0, 1.0], [-2.0, -3.0]], [0.0, 1.0], delta=0.1)

Names load when first used, so that `import ssm_edu` costs NumPy and nothing heavier.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssm_edu.discretize import METHODS, discretize, discretize_diagonal

__version__ = version("ssm-edu")

_HOME = {
    "METHODS": "ssm_edu.discretize",
    "discretize": "ssm_edu.discretize",
    "discretize_diagonal": "ssm_edu.discretize",
}
__all__ = ["METHODS", "__version__", "discretize", "discretize_diagonal"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ssm_edu' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
