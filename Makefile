# One word per chore; every recipe is a line you can also type. On Windows use the lines, or WSL.
PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help
.PHONY: help install format check test test-all bench ci

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: ## make .venv with everything that training and tests need
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -e ".[dev]" -c constraints.txt

format: ## lay out the code and sort the imports
	$(BIN)/ruff check --select I --fix
	$(BIN)/ruff format

check: ## layout, lint and types, changing nothing
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

test: ## the fast tests, which need no TensorFlow
	$(BIN)/pytest -m "not tf and not slow"

test-all: ## every test
	$(BIN)/pytest

bench: ## time the commands a user waits for, in new processes (needs a finished run in runs/)
	$(BIN)/python benchmarks/startup.py

ci: ## what the continuous integration runs, in a copy of this tree
	bash .ci/run
