# Everything a contributor types. Each target builds .venv first if it is not there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-endurance check lint format types bench audit clean .venv

help: ## Show this list
	@grep -E '^[a-z.-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.venv: $(VENV)/.installed ## Build the environment alone

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "segan-ray needs Python 3.11 or newer; try make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed ## Data, sweep, promotion, evaluation and report, in front of you
	@PATH="$(CURDIR)/$(BIN):$$PATH" scripts/demo.sh

# Unit tests share the cores out by file, a thread each. Of the others, those that start Ray take
# turns, for two clusters at once are slow; what needs none runs beside them.
test: $(VENV)/.installed ## All tests but endurance
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not endurance" tests/unit --numprocesses logical --maxprocesses 4 --dist loadfile
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not endurance" tests/end_to_end tests/integration --numprocesses 2 --dist loadgroup

test-endurance: $(VENV)/.installed ## Repeated kills and long soaks
	$(BIN)/pytest -m endurance

check: lint types test ## Lint, types and tests: what must hold before a push

lint: $(VENV)/.installed ## Style, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pytest -q tests/unit/test_rooms.py

format: $(VENV)/.installed ## Mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed ## mypy --strict
	$(BIN)/mypy

BENCH ?=
bench: $(VENV)/.installed ## Comparisons that fit in ten minutes on two quiet cores; BENCH=--loaded to run on busy ones
	@for bench in train_step scaling data; do echo "== $$bench"; $(BIN)/python benchmarks/$$bench.py $(BENCH) || exit 1; done

audit: ## Known weaknesses of every pinned dependency; needs the advisory service
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/pip install --quiet --disable-pip-version-check pip-audit
	$(VENV)-audit/bin/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt

clean: ## Remove the environment and every cache, never your records
	rm -rf $(VENV) $(VENV)-audit .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
