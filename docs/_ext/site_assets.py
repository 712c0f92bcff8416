"""What the site carries and is built from: MathJax and its fonts, and a hash of the code that the pages run."""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
# of the 24 MB of MathJax: TeX in, HTML and CSS out, and the fonts
MATHJAX = ("tex-chtml-full.js", "output/chtml/fonts/woff-v2")


def hash_of(*folders: str) -> str:
    """A hash of all Python and JSON below these folders of the repository."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".json")):
            digest.update(path.relative_to(ROOT).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def forget_what_other_code_made(app: Any, config: Any) -> None:
    """Outputs are kept for the code that made them, pages for that code and these extensions."""
    ours = [f"docs/{path.name}" for path in (ROOT / "docs").iterdir() if path.is_dir()]
    beside = sorted(set(ours) - {"docs/_ext", "docs/_build", "docs/learn"})
    code = hash_of("ssm_edu", "cuda", "derivations", *beside)
    config.code_hash = code + hash_of("docs/_ext")
    kept = Path(app.doctreedir).parent / ".executed"
    config.nb_execution_cache_path = str(kept / code)
    for old in kept.glob("*"):
        if old.name != code:
            shutil.rmtree(old, ignore_errors=True)


def quiet_kernels(app: Any, config: Any) -> None:
    """Notebook kernels with a profile of their own: nobody's settings, and no word on stderr but errors."""
    profile = Path(app.doctreedir) / ".ipython/profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    (profile / "ipython_kernel_config.py").write_text("get_config().IPKernelApp.log_level = 40\n", "utf-8")
    os.environ["IPYTHONDIR"] = str(profile.parent)


def copy_mathjax(app: Any, exception: Exception | None) -> None:
    if exception is not None or app.builder.format != "html":
        return
    package = importlib.import_module("sphinx-mathjax-offline").__file__
    assert package is not None
    source, target = Path(package).parent / "static/mathjax", Path(app.outdir) / "_static/mathjax"
    for name in MATHJAX:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, dirs_exist_ok=True)
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name)


def setup(app: Any) -> dict[str, bool]:
    app.add_config_value("code_hash", "", "env")
    app.connect("config-inited", forget_what_other_code_made, priority=1)
    app.connect("config-inited", quiet_kernels)
    app.connect("build-finished", copy_mathjax)
    app.config.mathjax_path = f"mathjax/{MATHJAX[0]}"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
