# `make run` and `make test` do all the set-up on a fresh machine: a virtual environment from constraints.txt.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: run test fuzz bench bench-engine lint format

run: $(VENV)/.installed
	$(BIN)/python run_recbole_posattn.py --model=PosKernelSASRec --dataset=ml-100k

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadgroup

# Ten times the fuzzed cases of `make test`, other ones each time; their counts go into FUZZ_COUNTS.
FUZZ_COUNTS ?= fuzz-counts.json

fuzz: $(VENV)/.installed
	HYPOTHESIS_PROFILE=nightly FUZZ_COUNTS=$(FUZZ_COUNTS) $(BIN)/python -m pytest tests/fuzz

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks.step_time
	$(BIN)/python -m benchmarks.kernel_cost

bench-engine: $(VENV)/.installed
	$(BIN)/python -m benchmarks.epoch_speed
	$(BIN)/python -m benchmarks.data_preparation
	$(BIN)/python -m benchmarks.evaluation_speed
	$(BIN)/python -m benchmarks.loss_memory
	$(BIN)/python -m benchmarks.process_scaling
	$(BIN)/python -m benchmarks.dropout_speed
	$(BIN)/python -m benchmarks.precision_speed
	$(BIN)/python -m benchmarks.recommend_speed

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
