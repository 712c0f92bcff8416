"""The site. `make docs` builds it; nothing in it is loaded from another host."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

# kernels that the pages run are small, and the ones that run on a GPU run in Numba's simulator
os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# what pages import (`figures`) is in _lib, and no debugger speaks up in them
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE / "_lib"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"

from source_pages import linkcode_resolve  # noqa: E402, F401

import ssm_edu  # noqa: E402

project = "ssm_edu"
author = "The ssm_edu authors"
version = release = ssm_edu.__version__
html_title = "ssm_edu"
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.linkcode",
    "sphinx.ext.mathjax",
    "site_assets",
    "source_pages",
    "derivation_pages",
    "ledger_pages",
    "docstrings",
]
exclude_patterns = ["_build", "_ext", "_lib", "_static", "**/.ipynb_checkpoints"]
nitpicky = False

# MyST-NB: pages run when the site is built; an error in one fails the build
nb_execution_mode = "cache"
nb_execution_timeout = 240
# DOCS_SKIP='learn/derivations/*' leaves these pages unexecuted, while one works on others
nb_execution_excludepatterns = os.environ.get("DOCS_SKIP", "").split()
nb_execution_raise_on_error = True
nb_custom_formats = {".percent.py": "derivation_pages.reads"}
nb_render_markdown_format = "myst"
nb_merge_streams = True
nb_code_prompt_show = "The code"
nb_code_prompt_hide = "The code"
nb_mime_priority_overrides = [("html", "text/markdown", 0), ("html", "image/svg+xml", 1)]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist", "attrs_inline", "attrs_block"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_show_sourcelink = False
html_copy_source = False
html_use_index = False
html_domain_indices = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "navbar_start": [],
    "navbar_center": [],
    "navbar_end": [],
    "navbar_persistent": [],
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
    "show_navbar_depth": 1,
    "home_page_in_toc": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}

mathjax3_config = {
    "tex": {"tags": "none"},
    # the menu would fetch its speech rules; assistive MathML is there without it
    "options": {"enableMenu": False},
}

autodoc_typehints = "signature"
autodoc_type_aliases = {name: name for name in ("ArrayLike", "AnyArrayLike")}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
default_role = "code"
# one name in several modules, in annotations that are shown as they are written
suppress_warnings = ["ref.python"]
autodoc_member_order = "bysource"
autodoc_mock_imports = ["torch"]
napoleon_google_docstring = True
napoleon_numpy_docstring = False
