# `make run` and `make test` do all the set-up on a fresh machine: a virtual environment from constraints.txt.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: run test bench lint format

run: $(VENV)/.installed
	$(BIN)/python run_recbole_posattn.py --model=PosKernelSASRec --dataset=ml-100k

test: lint
	$(BIN)/python -m pytest

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks.step_time
	$(BIN)/python -m benchmarks.kernel_cost

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[test]"
	touch $@
