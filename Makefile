# make help lists what there is. Every target sets up what it needs; a second call finds it done.
SHELL := /bin/bash
PY := .venv/bin/python
STORE ?= $(or $(RETABLE_STORE),runs)
.DEFAULT_GOAL := help

.PHONY: help setup smoke test slurm-test chaos report bench check format schema clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .stamps/setup ## system libraries, virtual environment, pinned dependencies, the project

.stamps/setup: pyproject.toml constraints.txt .ci/setup
	@.ci/setup
	@mkdir -p .stamps && touch $@

smoke: setup ## the whole path in minutes: train 16 small experiments, print the papers' table
	@$(PY) -m benchmark.run sweeps/byol_norm_ablation.yaml --profile smoke --store $(STORE)
	@$(PY) -m reports --store $(STORE) --sweep sweeps/byol_norm_ablation.yaml --profile smoke --print

test: setup ## the test suite
	@$(PY) -m pytest -n 2 --dist worksteal

slurm-test: setup ## the SLURM launcher against a real throw-away cluster; installs Debian's SLURM, munge and MariaDB for it
	@.ci/slurm
	@$(PY) -m pytest -m slurm tests/slurm

chaos: setup ## 200 random SIGKILLs over a local sweep: nothing lost, nothing done twice, no number changed (a quarter of an hour; ARGS="--kills N --seed N")
	@$(PY) -m tests.e2e.chaos $(ARGS)

report: setup ## reports/build/index.html: the papers' tables with verdicts, claims, figures, costs (ARGS="--check", "--against DIR", "--pdf")
	@$(PY) -m reports $(if $(wildcard $(STORE)),--store $(STORE)) $(ARGS)

bench: .stamps/bench ## loaders and training steps beside what people use, in half an hour (ARGS="--json FILE --images FOLDER --only step")
	@$(PY) -m benchmark.bench $(ARGS)

.stamps/bench: .stamps/setup
	@$(PY) -m pip --disable-pip-version-check install --quiet --constraint constraints.txt --editable '.[bench]'
	@$(PY) -m pip --disable-pip-version-check install --quiet --no-deps solo-learn==1.0.2 || true # its losses alone; what it needs is ten releases old
	@touch $@

check: setup ## format, lint, types, and whether the committed tables fit their records
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(PY) -m reports --check

format: setup ## put the code into the house format
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

schema: setup ## write methods/catalogue.json anew after a change to a method's config
	@$(PY) -m methods.catalogue

clean: ## remove what was built, but no records
	rm -rf reports/build .mypy_cache .ruff_cache build *.egg-info
