# `make demo` and `make test` do all of their own set-up; nothing but Python and pip is needed.
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types unit bench format clean

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

# The engine talks in real time, so its tests have a process without a thousand others behind them.
unit: setup
ifeq ($(strip $(ARGS)),)
	.venv/bin/python -m pytest -m models
	.venv/bin/python -m pytest -m "not models"
else
	.venv/bin/python -m pytest $(ARGS)
endif

bench: setup ## measure the figures of docs/benchmarks.md
	.venv/bin/python -m benchmarks $(ARGS)

format: setup ## format and fix what can be fixed
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

clean: ## remove what the targets above made
	rm -rf .venv .tools .mypy_cache .ruff_cache .pytest_cache
