# Two commands do everything on a bare machine with Python 3.10+ and make:
#   make demo   environment, generated data set, all streams, fused evaluation, TensorBoard files
#   make test   environment, the quick tests (make test-all: all of them)
# and make docs builds the documentation in build/docs.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -n auto

.PHONY: demo test test-all lint docs clean

# Rebuilt only when the package metadata or the pinned versions change.
.venv/ready: setup.py constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and f"Python 3.10 or newer is needed, this is {sys.version.split()[0]}; try make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

data/walkers: | .venv/ready
	$(BIN)/sptskm synth $@

demo: .venv/ready data/walkers
	$(BIN)/python launch/local.py --stream all --config configs/demo

test: .venv/ready
	$(PYTEST) -m "not slow"

test-all: .venv/ready
	$(PYTEST)

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/ready
	$(BIN)/python -m sphinx -q -W --keep-going -d build/doctrees docs build/docs

clean:
	rm -rf .venv runs/demo data/walkers build *.egg-info
