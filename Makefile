# `make demo` and `make test` do all of their own set-up; nothing but Python and pip is needed.
.DEFAULT_GOAL := help
.PHONY: help setup demo test quick lint types unit bench format clean

UV := $(shell command -v uv 2>/dev/null || echo .tools/uv/bin/uv)
PYTHON := $(shell command -v python3.12 || command -v python3.13 || command -v python3)
RUN := $(UV) run --frozen --all-extras

help: ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: .venv/.ready ## create .venv with everything, leaves .venv/bin/duologue

.tools/uv/bin/uv:
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --target .tools/uv uv

.venv/.ready: pyproject.toml uv.lock | $(filter .tools/%,$(UV))
	$(UV) sync --frozen --all-extras
	@touch $@

demo: setup ## talk to it: a recorded caller first, then the page in your browser
	.venv/bin/duologue demo $(ARGS)

test: lint types unit ## everything CI runs

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: setup
	.venv/bin/mypy

# Weights and browsers need every core for themselves, so their tests run one after another.
ALONE := models or browser
unit: setup
ifeq ($(strip $(ARGS)),)
	.venv/bin/python -m pytest -m "$(ALONE)"
	.venv/bin/python -m pytest -n auto -m "not ($(ALONE))"
else
	.venv/bin/python -m pytest $(ARGS)
endif

quick: lint types ## what a first patch needs: no weights, no browser, no whole services
	.venv/bin/python -m pytest -n auto -m "not ($(ALONE))" \
		--ignore tests/conformance --ignore tests/simulator --ignore tests/test_examples.py

bench: setup ## measure the figures of docs/benchmarks.md
	.venv/bin/python -m benchmarks $(ARGS)

format: setup ## format and fix what can be fixed
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

clean: ## remove what the targets above made
	rm -rf .venv .tools .mypy_cache .ruff_cache .pytest_cache
