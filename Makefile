# Two commands: `make demo` and `make test`. Each sets up its own .venv; nothing is installed outside this folder.
# On Linux the plain package index has torch for CUDA graphics cards (some 3 GB). For the CPU build of the same version,
# give the address of PyTorch's CPU wheels, see its installation page: make demo TORCH_INDEX=URL.
PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
SEED ?= 0
OUT ?= runs/demo
# Seen sites of the demo; `wildpdiff demo` without --seen has 240 and takes twice as long.
SEEN ?= 100

RECENT := import sys; sys.exit(sys.version_info < (3, 11))
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint types check clean clean-runs

# A .venv of another Python, or one whose making was interrupted, is made anew.
$(VENV)/.runtime: pyproject.toml constraints.txt
	@{ $(BIN)/python -c '$(RECENT)' && $(BIN)/python -m pip --version; } >/dev/null 2>&1 \
		|| { $(PYTHON) -c '$(RECENT)' && $(PYTHON) -m venv --clear $(VENV); } \
		|| { echo "$(PYTHON) makes no $(VENV); name a Python from 3.11 on: make PYTHON=python3.12"; exit 1; }
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "torch==2.13.0"
	$(PIP) -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(PIP) -c constraints.txt -e ".[dev]"
	touch $@

demo: $(VENV)/.runtime
	$(BIN)/wildpdiff demo --seed $(SEED) --seen $(SEEN) --out $(OUT)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

check: lint types test

clean:
	rm -rf $(VENV)

clean-runs:
	rm -rf runs
