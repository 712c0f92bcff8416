# `make derive` and `make test` set up .venv once, then run.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# the tests run in a process a core: more threads in each would get in one another's way
export OPENBLAS_NUM_THREADS ?= 1

.PHONY: derive test nightly lint clean

derive: $(STAMP)
	@$(BIN)/ssm-edu derive

test: $(STAMP)
	@$(BIN)/python -m pytest -n auto -q

nightly: $(STAMP)
	@HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest -n auto -q

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

clean:
	rm -rf $(VENV) build dist docs/_build .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
