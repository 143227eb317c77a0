# `make run` and `make test` do all the set-up on a fresh machine: a virtual environment from constraints.txt.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)

# A Python that is named, and is not the one that the environment was made with, makes it anew.
ifneq ($(origin PYTHON),file)
ifneq ($(shell $(BIN)/python tools/pythons.py version 2>/dev/null),$(shell $(PYTHON) tools/pythons.py version 2>/dev/null))
CLEAR := --clear
.PHONY: $(VENV)/.installed
endif
endif

# The advisories that audit passes over, each with its reason there and in SECURITY.md
IGNORED := audit-ignored.txt

.PHONY: run test test-fast test-recbole test-pythons fuzz soak bench bench-engine docs lint format audit

# More flags of the launcher, such as ARGUMENTS=--epochs=1
ARGUMENTS ?=

run: $(VENV)/.installed
	$(BIN)/python run_recbole_posattn.py --model=PosKernelSASRec --dataset=ml-100k $(ARGUMENTS)

test: lint
	$(BIN)/python -m pytest -n 3 --dist loadfile

# Every part of the package, without the tests marked "slow" and with a tenth of the generated cases
test-fast: lint
	HYPOTHESIS_PROFILE=fast $(BIN)/python -m pytest -n 3 --dist loadfile -m "not slow"

# All tests, on every Python found here, each in an environment of its own that is removed afterwards
test-pythons:
	@failed=; pythons=$$($(PYTHON) tools/pythons.py list) || { echo "make: no usable Python was found" >&2; exit 2; }; \
	for python in $$pythons; do \
	  $(MAKE) test PYTHON=$$python VENV=$(VENV)-pythons || failed="$$failed $$python"; \
	  rm -rf $(VENV)-pythons; \
	done; \
	for python in $$pythons; do case "$$failed " in \
	  *" $$python "*) echo "failed  $$python";; *) echo "passed  $$python";; \
	esac; done; test -z "$$failed"

# Ten times the fuzzed cases of `make test`, other ones each time; their counts go into FUZZ_COUNTS.
FUZZ_COUNTS ?= fuzz-counts.json

fuzz: $(VENV)/.installed
	HYPOTHESIS_PROFILE=nightly FUZZ_COUNTS=$(FUZZ_COUNTS) $(BIN)/python -m pytest tests/fuzz

# RecBole's own tests with this package in RecBole's place, of a checkout or an archive such as GitHub's of the tag v1.2.1:
# make test-recbole RECBOLE_TESTS=RecBole-1.2.1.tar.gz. ONLY names some of them, such as tests/data.
test-recbole: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.recbole_suite $(RECBOLE_TESTS) $(ONLY)

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks.step_time
	$(BIN)/python -m benchmarks.kernel_cost
	$(BIN)/python -m benchmarks.roofline

bench-engine: $(VENV)/.installed
	$(BIN)/python -m benchmarks.epoch_speed
	$(BIN)/python -m benchmarks.data_preparation
	$(BIN)/python -m benchmarks.evaluation_speed
	$(BIN)/python -m benchmarks.loss_memory
	$(BIN)/python -m benchmarks.process_scaling
	$(BIN)/python -m benchmarks.dropout_speed
	$(BIN)/python -m benchmarks.recipe_cost
	$(BIN)/python -m benchmarks.precision_speed
	$(BIN)/python -m benchmarks.recommend_speed
	$(BIN)/python -m benchmarks.runtime_speed
	$(BIN)/python -m benchmarks.trim_padding

# Random settings, a third of them stopped by random signals and resumed; one thread, as forks need
soak: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m mypy

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The documentation site, in site/; warnings are errors. To read it: .venv/bin/python -m mkdocs serve
docs: $(VENV)/.docs-installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

# Bandit needs no network, pip-audit asks PyPI's advisory service. Without --strict the latter reports no vulnerabilities
# where it cannot ask.
audit: $(VENV)/.audit-installed
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive recbole_posattn benchmarks run_recbole_posattn.py
	$(BIN)/pip-audit --strict --progress-spinner=off --requirement constraints.txt --no-deps --disable-pip \
	  $$(sed -nE 's/^([A-Za-z0-9-]+) .*/--ignore-vuln=\1/p' $(IGNORED)) \
	  || { echo "make audit: pip-audit found something, or could not ask about every pin (see above)" >&2; exit 1; }

# RecBole without its dependencies: its own pins exclude numpy 2 and every Ray that current Pythons can install.
$(VENV)/.installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: there is no $(PYTHON); say which Python: make run PYTHON=python3.13" >&2; exit 2; }
	@$(PYTHON) tools/pythons.py check
	$(PYTHON) -m venv $(CLEAR) $(VENV)
	$(BIN)/python -m pip install --no-warn-conflicts --constraint constraints.txt --editable ".[test]"
	$(BIN)/python -m pip install --no-deps --constraint constraints.txt recbole
	touch $@

$(VENV)/.audit-installed: $(VENV)/.installed
	$(BIN)/python -m pip install --no-warn-conflicts --constraint constraints.txt --editable ".[audit]"
	touch $@

$(VENV)/.docs-installed: $(VENV)/.installed
	$(BIN)/python -m pip install --no-warn-conflicts --constraint constraints.txt --editable ".[docs]"
	touch $@
