# Two commands for a fresh machine: `make demo` and `make test`. Each makes .venv when it is not there.
# A third, `make families`, has an environment of its own, with torchvision, which some model families need.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
VISION := .venv-torchvision

.PHONY: demo test lint families faults production api

demo: $(VENV)/installed
	$(BIN)/adapt-inf demo

test: $(VENV)/installed-dev lint
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive HF_HUB_OFFLINE=1 $(BIN)/python -m pytest

# The import first: the tests choose the families by whether torchvision is there, and here all of them must be tried.
families: $(VISION)/installed
	$(VISION)/bin/python -c "import torchvision"
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive HF_HUB_OFFLINE=1 $(VISION)/bin/python -m pytest tests/families

# 200 kills of random processes of running lineages; prints what was killed and what came out otherwise (nothing).
faults: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive HF_HUB_OFFLINE=1 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/fault_harness.py

# Two rounds over PostgreSQL (Debian's package, which has to be there) and an S3 server of this machine.
production: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive HF_HUB_OFFLINE=1 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n 0 tests/production.py

# The reference of every module, class and function, from their docstrings, in build/api.
api: $(VENV)/installed-dev
	$(BIN)/python -m pdoc --docformat google --output-directory build/api adapt_inf flows

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# constraints.txt holds every version that was tested together.
$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@ $(VENV)/installed

# The same versions, but for torch and what torchvision brings.
$(VISION)/installed: pyproject.toml constraints.txt constraints-torchvision.txt
	test -x $(VISION)/bin/python || $(PYTHON) -m venv $(VISION)
	grep -v '^torch==' constraints.txt | cat - constraints-torchvision.txt > $(VISION)/constraints.txt
	$(VISION)/bin/pip install --quiet --constraint $(VISION)/constraints.txt --editable '.[dev,torchvision]'
	touch $@
