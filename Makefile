# make demo | train | test | test-extras | check | compare | soak | mutation | bench; ARGS adds to a command line: make train ARGS="dropout=none"

PYTHON ?= python3
# The table that compare and table make, one of `python -m experiments.table --list`.
TABLE ?= published_nano
ifdef SCALE
$(error a table has its scale in its name: TABLE=published_$(SCALE))
endif
# Processes at a time, of the tests and of compare; each computes on its share of the cores.
WORKERS ?= 2

# How long make soak goes on at random.
MINUTES ?= 10

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# What the optional packages add: the tests that skip without them.
EXTRAS := dev,tensorboard,harness,workspaces,search,digits
EXTRAS_TESTS := tests/data/test_made_texts.py tests/experiments/test_workspace.py tests/huggingface/test_harness.py tests/tracking/test_tensorboard.py
PYTEST := $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

.PHONY: help venv demo train test test-extras lint check compare table soak mutation bench clean

help:
	@echo 'make demo     three small runs, one picture, one sentence: a few minutes on two cores'
	@echo 'make train    train the default: scale=nano dropout=learned'
	@echo 'make compare  every row of a table (TABLE=published_nano) beside the committed runs; goes on where it stopped'
	@echo 'make table    the committed table again, from its records'
	@echo 'make test     the tests; make soak: the long ones; make test-extras: those of the optional packages'
	@echo 'make check    format, lint, types, the import contract and the tests'
	@echo 'make mutation MODULES=ops/gelu.py: what one change to a module would no test notice; without MODULES, of all'
	@echo 'make bench    speed and memory beside a plain implementation'

venv: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("error: Python 3.11 or newer is needed, and $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: venv
	$(BIN)/python train.py table=demo hydra.launcher.workers=$(WORKERS) tracker=none
	$(BIN)/python -m experiments.demo

train: venv
	$(BIN)/python train.py $(ARGS)

compare: venv
	$(BIN)/python -m experiments.rerun $(TABLE) hydra.launcher.workers=$(WORKERS) $(ARGS)
	$(BIN)/python -m experiments.compare $(TABLE)

table: venv
	$(BIN)/python -m experiments.table $(TABLE)

test: venv
	$(PYTEST) $(ARGS)

test-extras: venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	$(PYTEST) -m '' $(EXTRAS_TESTS) $(ARGS)

lint: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

check: lint test

soak: venv
	$(PYTEST) -m 'slow or soak' --timeout 3600
	$(BIN)/python -m tests.soak --minutes $(MINUTES) --write results/soak.md $(ARGS)
	$(BIN)/python -m tests.soak --hostile --write results/hostile.md

mutation: venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[mutation]'
	$(BIN)/python -m tests.mutation $(MODULES)

bench: venv
	$(BIN)/python -m benchmarks $(ARGS)

clean:
	rm -rf .cache .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
