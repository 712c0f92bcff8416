"""The executable derivation of Mamba's selective scan.

    >>> import ssm_edu
    >>> ssm_edu.discretize([[0.0, 1.0], [-2.0, -3.0]], [0.0, 1.0], delta=0.1)

`import ssm_edu` costs NumPy and nothing heavier: the scans load when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Not loaded late: the function bears its module's name, and a late import would put the module in its place.
from ssm_edu.discretize import METHODS, discretize, discretize_diagonal

if TYPE_CHECKING:
    from ssm_edu.selective import selective_scan, selective_scan_backward, selective_step

__version__ = "0.1.0"

_LATE = {
    "selective_scan": "ssm_edu.selective",
    "selective_scan_backward": "ssm_edu.selective",
    "selective_step": "ssm_edu.selective",
}
__all__ = [
    "METHODS",
    "__version__",
    "discretize",
    "discretize_diagonal",
    "selective_scan",
    "selective_scan_backward",
    "selective_step",
]


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module 'ssm_edu' has no attribute {name!r}")
    value = getattr(import_module(_LATE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
