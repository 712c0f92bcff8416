# `make derive` and `make test` set up .venv once, then run.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# what compiles CUDA kernels replaces Numba's simulator, so it has an environment of its own
CUDA_VENV  ?= .venv-cuda
CUDA_STAMP := $(CUDA_VENV)/.installed
# PyTorch pins other releases of NVIDIA's libraries than the compiler's
GPU_VENV   ?= .venv-gpu
GPU_STAMP  := $(GPU_VENV)/.installed
# the site is built, and looked at by a browser, in another
DOCS_VENV  ?= .venv-docs
DOCS_STAMP := $(DOCS_VENV)/.installed
# the tests run in a process a core: more threads in each would get in one another's way
export OPENBLAS_NUM_THREADS ?= 1
export OMP_NUM_THREADS ?= 1

.PHONY: derive test nightly compiled compiler gpu sanitize driver docs docs-test lint clean

derive: $(STAMP)
	@$(BIN)/ssm-edu derive

test: $(STAMP)
	@$(BIN)/python -m pytest -n auto -q

nightly: $(STAMP)
	@HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest -n auto -q

# the CUDA kernels as they are compiled, for three architectures; no GPU is needed
compiled: $(CUDA_STAMP)
	@NUMBA_ENABLE_CUDASIM=0 $(CUDA_VENV)/bin/python -c 'from ssm_kernels import offline; offline.require()'
	@NUMBA_ENABLE_CUDASIM=0 $(CUDA_VENV)/bin/python -m pytest -n auto -q tests/test_offline.py

compiler: $(CUDA_STAMP)

# the kernels' tests on a GPU
gpu: driver $(GPU_STAMP)
	@NUMBA_ENABLE_CUDASIM=0 $(GPU_VENV)/bin/python -m tests.gpu

# NVIDIA's compute-sanitizer over every production kernel; TOOLS=memcheck for one of its tools
sanitize: driver $(GPU_STAMP)
	@NUMBA_ENABLE_CUDASIM=0 $(GPU_VENV)/bin/python -m tests.sanitize $(TOOLS)

driver:
	@command -v nvidia-smi >/dev/null || { echo "This needs an NVIDIA GPU, and nvidia-smi is not here"; exit 1; }

# the site, in docs/_build/html; its pages run again where they, or the code, have changed
docs: $(DOCS_STAMP)
	@echo "Building the site: the first time a few minutes, as its pages run"
	@$(DOCS_VENV)/bin/sphinx-build -q -W --keep-going -b html -d docs/_build/doctrees docs docs/_build/html
	@echo "docs/_build/html/index.html"

# every page in a headless Chromium, where there is one
docs-test: docs
	@SSM_EDU_SITE=docs/_build/html $(DOCS_VENV)/bin/python -m pytest -q tests/site

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "ssm_edu needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -c 'import platform; print(platform.python_version())' 2>/dev/null || echo not there). Try: make $(firstword $(MAKECMDGOALS) derive) PYTHON=python3.12"; exit 1; }
	@echo "Setting up $(VENV) (once, about a minute)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(CUDA_STAMP): pyproject.toml
	@echo "Setting up $(CUDA_VENV) (once, about a minute)"
	@$(PYTHON) -m venv $(CUDA_VENV)
	@$(CUDA_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test,gpu]' 'cuda-toolkit[nvcc,nvdisasm]>=13.2'
	@touch $@

$(GPU_STAMP): pyproject.toml
	@echo "Setting up $(GPU_VENV) (once, some minutes: PyTorch is large)"
	@$(PYTHON) -m venv $(GPU_VENV)
	@$(GPU_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test,gpu,torch]' 'transformers>=5.20,<6' 'cuda-toolkit[sanitizer]'
	@touch $@

$(DOCS_STAMP): pyproject.toml
	@echo "Setting up $(DOCS_VENV) (once, about a minute)"
	@$(PYTHON) -m venv $(DOCS_VENV)
	@$(DOCS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[docs,test]'
	@touch $@

clean:
	rm -rf $(VENV) $(CUDA_VENV) $(GPU_VENV) $(DOCS_VENV) build dist docs/_build .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -f docs/learn/derivations/*.percent.py
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
