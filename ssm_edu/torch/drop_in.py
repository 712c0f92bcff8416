"""`mamba_ssm` and `causal_conv1d` for code that imports them, where they or `mamba_ssm`'s extension are absent."""

from __future__ import annotations

import importlib
import logging
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, DistributionFinder
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any

import ssm_edu
from ssm_edu.torch.convolution import causal_conv1d_fn, causal_conv1d_update
from ssm_edu.torch.decoding import selective_state_update
from ssm_edu.torch.inner import mamba_inner_fn
from ssm_edu.torch.mamba_simple import Mamba
from ssm_edu.torch.scan import selective_scan_fn

LOG = logging.getLogger("ssm_edu.torch")
INTERFACE = "mamba_ssm.ops.selective_scan_interface"
CONVOLUTIONS = {"causal_conv1d_fn": causal_conv1d_fn, "causal_conv1d_update": causal_conv1d_update}
SCANS: dict[str, Any] = {"selective_scan_fn": selective_scan_fn, "mamba_inner_fn": mamba_inner_fn}
MODULES: dict[str, dict[str, dict[str, Any]]] = {
    "mamba_ssm": {
        "mamba_ssm": SCANS | {"Mamba": Mamba},
        "mamba_ssm.modules": {},
        "mamba_ssm.modules.mamba_simple": {"Mamba": Mamba},
        "mamba_ssm.ops": {},
        INTERFACE: SCANS,
        "mamba_ssm.ops.triton": {},
        "mamba_ssm.ops.triton.selective_state_update": {"selective_state_update": selective_state_update},
        # in Hugging Face's releases before 5, a copy of the interface that asks for the extension itself
        "transformers.kernels.falcon_mamba": {"mamba_inner_fn": mamba_inner_fn},
    },
    "causal_conv1d": {
        "causal_conv1d": CONVOLUTIONS,
        "causal_conv1d.causal_conv1d_interface": CONVOLUTIONS,
    },
}
# Of the release whose interface this is. From 2.0.4 on, Hugging Face also expects Mamba-2's kernels of mamba_ssm.
VERSIONS = {"mamba_ssm": "2.0.3", "causal_conv1d": "1.4.0"}
PROBES = ("is_mamba_ssm_available", "is_mamba_2_ssm_available", "is_causal_conv1d_available")


class StandIn(MetaPathFinder, Loader):
    """Finds and loads the `MODULES` of the packages that it stands in for, and their metadata."""

    def __init__(self, packages: list[str]) -> None:
        self.packages = packages
        self.modules = {name: values for package in packages for name, values in MODULES[package].items()}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in self.modules:
            return None
        is_package = any(other.startswith(f"{name}.") for other in self.modules)
        return ModuleSpec(name, self, origin=__file__, is_package=is_package)

    def exec_module(self, module: ModuleType) -> None:
        module.__doc__ = f"{module.__name__}, as ssm_edu.torch.install() provides it."
        vars(module).update(self.modules[module.__name__])
        if module.__name__ in VERSIONS:
            vars(module)["__version__"] = _version(module.__name__)

    def find_distributions(self, context: DistributionFinder.Context | None = None) -> Iterator[Distribution]:
        asked = None if context is None or context.name is None else re.sub(r"[-_.]+", "_", context.name).lower()
        return (Metadata(package) for package in self.packages if asked in (None, package))


class Metadata(Distribution):
    def __init__(self, package: str) -> None:
        self.package = package

    def read_text(self, filename: str) -> str | None:
        name = self.package.replace("_", "-")
        return {
            "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {_version(self.package)}\n",
            "top_level.txt": self.package,
        }.get(filename)

    def locate_file(self, path: str | PathLike[str]) -> Path:
        return Path(__file__).parent / path


_undo: list[Callable[[], Any]] = []
_done: list[str] = []


def install() -> list[str]:
    """Put this package's functions where `mamba_ssm`'s and `causal_conv1d`'s are looked for and are not found.

    A package that cannot be imported is stood in for, with metadata of its own. Where `mamba_ssm` is there but its
    compiled scan is not, the two functions that need it are replaced, in every module that has them. What works stays
    as it is. Hugging Face's models choose their functions when they are imported: call this before.

    Returns:
        What was done, a line each, which is logged too; once more, if nothing was to do since.
    """
    if not _undo:
        _done.clear()
        absent = [package for package in VERSIONS if not _is_importable(package)]
        if absent:
            _stand_in(absent)
        if (
            "mamba_ssm" not in absent
            and getattr(importlib.import_module(INTERFACE), "selective_scan_cuda", None) is None
        ):
            _rebind()
        for line in _done:
            LOG.info(line)
        if _undo:
            _forget_probes()
            for name in _too_early():
                LOG.warning("%s was imported before install() and keeps the functions that it chose then", name)
    return list(_done)


def uninstall() -> None:
    """Undo :func:`install`. Modules that have imported our functions since then keep them."""
    while _undo:
        _undo.pop()()
    _done.clear()
    _forget_probes()


def _is_importable(package: str) -> bool:
    """Whether a package, mamba_ssm with its interface, can be imported; one that fails leaves no modules behind."""
    before = set(sys.modules)
    try:
        if find_spec(package) is None:
            return False
        importlib.import_module(INTERFACE if package == "mamba_ssm" else package)
    except Exception as error:
        LOG.info("%s is installed, but cannot be imported: %s", package, error)
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == package:
                del sys.modules[name]
        return False
    return True


def _stand_in(packages: list[str]) -> None:
    finder = StandIn(packages)
    sys.meta_path.insert(0, finder)
    _undo.append(partial(sys.meta_path.remove, finder))
    before = {name: sys.modules.pop(name) for name in finder.modules if name in sys.modules}
    _undo.append(partial(sys.modules.update, before))
    for name, functions in finder.modules.items():
        _undo.append(partial(sys.modules.pop, name, None))
        if name.partition(".")[0] in packages:
            importlib.import_module(name)
            _done.extend(f"{name}.{function} is {_origin(f)}" for function, f in functions.items())


def _rebind() -> None:
    interface = importlib.import_module(INTERFACE)
    for name, ours in SCANS.items():
        original = getattr(interface, name)
        for module in list(sys.modules.values()):
            if getattr(module, "__dict__", {}).get(name) is original:
                setattr(module, name, ours)
                _undo.append(partial(setattr, module, name, original))
                _done.append(f"{module.__name__}.{name} is {_origin(ours)}, as mamba_ssm lacks selective_scan_cuda")


def _forget_probes() -> None:
    """Let Hugging Face look again for what it has found, or missed, before."""
    importlib.invalidate_caches()
    probes = sys.modules.get("transformers.utils.import_utils")
    for name in PROBES:
        getattr(getattr(probes, name, None), "cache_clear", lambda: None)()


def _too_early() -> list[str]:
    """Models that have chosen their scan already: they hold neither a name that was rebound nor one stood in for."""
    names = ("mamba_selective_scan", "selective_scan_fn")
    return [
        key
        for key, module in list(sys.modules.items())
        if key.startswith("transformers.models.")
        and any(name in vars(module) and vars(module)[name] is not selective_scan_fn for name in names)
    ]


def _origin(function: Callable[..., Any]) -> str:
    where = function.__module__ if isinstance(function, type) else "ssm_edu.torch"
    return f"{where}.{function.__name__}"


def _version(package: str) -> str:
    return f"{VERSIONS[package]}+ssm.edu.{ssm_edu.__version__}"
