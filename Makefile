.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
SOURCE ?=

.PHONY: help setup demo test check bench constraints clean

help: ## Show what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

.venv/.ready: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Watchword needs Python 3.11 or newer; set PYTHON=python3.12, say") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(BIN)/uv pip install --quiet --no-deps -r constraints.txt
	@# opencv-python needs the system's libGL even where nothing is shown; its headless twin is the same code without.
	@$(BIN)/python -c 'import cv2' 2>/dev/null || $(BIN)/uv pip install --quiet --no-deps --reinstall \
	    "$$(sed -n 's/^opencv-python==/opencv-python-headless==/p' constraints.txt)"
	$(BIN)/uv pip install --quiet --no-deps -e .
	@touch $@

setup: .venv/.ready ## Make .venv with everything pinned in constraints.txt

demo: setup ## Two cameras, standing prompts, events as they come (SOURCE=... for your own)
	$(BIN)/watchword demo $(if $(SOURCE),"$(SOURCE)")

test: setup check ## Static checks, then every test
	$(BIN)/python -m pytest

check: setup ## Format, lint, types, import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup ## Measure the pipeline on this machine
	$(BIN)/watchword bench pipeline

constraints: setup ## Resolve constraints.txt again
	$(BIN)/uv pip compile --quiet --upgrade pyproject.toml --group dev --no-header --no-annotate -o constraints.txt

clean: ## Remove what was built
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache
