# Everything a contributor types. Each target builds .venv first if it is not there.
PYTHON ?= python3
# Another Python than the usual one has an environment of its own beside it.
VENV := .venv$(addprefix -,$(filter-out python3,$(notdir $(PYTHON))))
BIN := $(VENV)/bin
TOOLS := .venv-tools

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-full test-endurance check lint format types bench constraints audit sbom dist docs notebooks clean .venv

help: ## Show this list
	@grep -E '^[a-z.-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.venv: $(VENV)/.installed ## Build the environment alone

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "segan-ray needs Python 3.11 or newer; try make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed ## Data, sweep, promotion, evaluation and report, in front of you
	@$(BIN)/segan-ray demo

# Two processes share the tests out by file, a thread each; those of one Ray session stay together.
# They come in the order of their folders, so that the longest begin first.
SHARED_OUT := --numprocesses 2 --dist loadgroup --no-loadscope-reorder
# Most of their time goes into starting processes. In huge pages these take a fifth of the page
# faults, which some virtual machines make dear.
TESTED_WITH := OMP_NUM_THREADS=1 PYTHONMALLOC=malloc GLIBC_TUNABLES=glibc.malloc.hugetlb=1

test: test-fast ## All that a push needs: the main job, a Ray session, a kill of each kind too
	$(TESTED_WITH) $(BIN)/pytest -m "slow and not full and not endurance and not gpu" $(SHARED_OUT)

test-fast: $(VENV)/.installed ## Unit tests that take no more than a second or two each
	$(TESTED_WITH) $(BIN)/pytest -m "not slow and not full and not endurance" tests/unit \
		--numprocesses logical --maxprocesses 4 --dist loadfile

test-full: test ## And clusters, jobs, servers, browsers, the image: all tests but endurance
	$(TESTED_WITH) $(BIN)/pytest -m "full and not endurance and not gpu" $(SHARED_OUT)

# Needs no Ray and no MLflow, so the rest of the tests' fixtures stay out.
gpu-check: $(VENV)/.installed ## What only a GPU can settle, in minutes: a table, and gpu-check.json
	$(BIN)/python -m pytest -q -o addopts= --confcutdir=tests/gpu -p no:xdist tests/gpu

test-endurance: $(VENV)/.installed ## Repeated kills, long soaks, Slurm, an autoscaler
	$(BIN)/pytest -m endurance

check: lint types test ## Lint, types and tests: what must hold before a push

lint: $(VENV)/.installed ## Style, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pytest -q tests/unit/test_architecture.py

format: $(VENV)/.installed ## Mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed ## mypy --strict
	$(BIN)/mypy

BENCH ?=
bench: $(VENV)/.installed ## Comparisons that fit in ten minutes on two quiet cores; BENCH=--loaded to run on busy ones
	@for bench in train_step scaling data; do echo "== $$bench"; $(BIN)/python benchmarks/$$bench.py $(BENCH) || exit 1; done

# What the next four run is no part of the environment: it would count among what it looks at.
constraints: $(TOOLS)/.installed ## Pin what pyproject.toml leads to; UPGRADE=--upgrade for the newest of everything
	$(TOOLS)/bin/uv pip compile --quiet pyproject.toml --all-extras --python-version 3.11 \
		--python-platform x86_64-manylinux_2_28 --no-annotate --no-emit-index-url \
		--custom-compile-command "make constraints" $(UPGRADE) --output-file constraints.txt

audit: $(TOOLS)/.installed ## Known weaknesses of every pinned dependency; needs the advisory service
	$(TOOLS)/bin/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt

sbom: $(TOOLS)/.installed $(VENV)/.installed ## A bill of materials (CycloneDX) of the environment: dist/segan-ray.cdx.json
	mkdir -p dist
	$(TOOLS)/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --mc-type application \
		--output-reproducible --output-format JSON --output-file dist/segan-ray.cdx.json

$(TOOLS)/.installed: Makefile
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet --disable-pip-version-check build==1.6.1 check-wheel-contents==0.6.3 \
		cyclonedx-bom==7.5.0 pip-audit==2.10.1 twine==7.0.0 uv==0.13.9
	touch $@

DIST ?= dist
dist: $(TOOLS)/.installed ## The source archive and the wheel made of it, checked as an index does: dist/
	rm -f $(DIST)/segan_ray-*
	$(TOOLS)/bin/python -m build --quiet --outdir $(DIST)
	$(TOOLS)/bin/twine check --strict $(DIST)/segan_ray-*
	$(TOOLS)/bin/check-wheel-contents $(DIST)/segan_ray-*.whl

docs: $(VENV)/.docs ## The documentation site, its links checked: site/index.html
	$(BIN)/python docs/site/build_site.py site

notebooks: $(VENV)/.docs ## Run the notebooks of examples/, and render their pages: docs/examples
	$(BIN)/python docs/site/render_notebooks.py

# What makes the site and the figures is no part of the environment that others wait for.
$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	touch $@

clean: ## Remove the environment and every cache, never your records
	rm -rf .venv .venv-* dist site site.staging .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
