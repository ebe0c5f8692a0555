# `make demo` and `make test` do all of their own set-up; nothing but Python and pip is needed.
.DEFAULT_GOAL := help
.PHONY: help setup demo serve test quick lint types unit cluster lowest bench format clean

UV := $(shell command -v uv 2>/dev/null || echo .tools/uv/bin/uv)
# The first that runs and is new enough: a name may be there that only says what is missing.
# CI sets PYTHON to the one that it tests with.
ifndef PYTHON
PYTHON := $(shell for name in python3.12 python3.13 python3.14 python3 python; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null \
	&& command -v "$$name" && break; done)
endif

help: ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: .venv/.ready ## create .venv with everything, leaves .venv/bin/duologue

.tools/uv/bin/uv: | python
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || \
	{ echo "$(PYTHON) has no pip: install pip for it, or uv"; exit 1; }
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --target .tools/uv uv

# Another Python is never fetched behind your back.
.venv/.ready: pyproject.toml uv.lock | python $(filter .tools/%,$(UV))
	UV_PYTHON_DOWNLOADS=never $(UV) sync --frozen --all-extras --python $(PYTHON)
	@touch $@

.PHONY: python
python:
	@test -n "$(PYTHON)" || \
	{ echo "Python 3.12 to 3.14 is needed: no python3.12, python3.13, python3.14 or python3 here"; exit 1; }

demo: setup ## talk to it: a recorded caller first, then the page in your browser
	.venv/bin/duologue demo $(ARGS)

serve: setup ## the page with any model or agent: make serve ARGS="--llm openai"
	.venv/bin/duologue serve $(ARGS)

test: lint types unit ## what CI runs, but for `make lowest` and `make cluster`

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports
	.venv/bin/python scripts/module_coverage.py
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet --site-dir .site

types: setup
	.venv/bin/mypy
	.venv/bin/mypy --config-file tests/mypy.ini tests

# One more than there are cores, because many tests wait for something.
WORKERS := $(shell echo $$(($$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2) + 1)))
# Weights and browsers need every core for themselves, so their tests run one after another.
ALONE := weights or browser
unit: setup
ifeq ($(strip $(ARGS)),)
	.venv/bin/python -m pytest -m "$(ALONE)"
	.venv/bin/python -m pytest -n $(WORKERS) -m "not ($(ALONE) or ray)"
else
	.venv/bin/python -m pytest $(ARGS)
endif

cluster: setup ## test Ray Serve on a cluster of two nodes, which CI does too
	.venv/bin/python -m pytest -m ray tests/ray_serve

quick: lint types ## what a first patch needs: no weights, no browser, no cluster, no whole services
	.venv/bin/python -m pytest -n $(WORKERS) -m "not ($(ALONE) or ray)" \
		--ignore tests/conformance --ignore tests/simulators --ignore tests/cli/simulate \
		--ignore tests/server --ignore tests/rtc --ignore tests/test_examples.py

# Without the tests by software that is there for the newest packages only.
lowest: .venv-lowest/.ready ## test with the oldest packages that pyproject.toml allows
	.venv-lowest/bin/python -m pytest -q -n auto -W "ignore::DeprecationWarning" -m "not weights and not browser" \
	tests/test_audio.py tests/test_video.py tests/test_items.py tests/agent/test_conversation.py \
	tests/agent/test_jsonl_store.py tests/agent/test_instructions.py tests/tools tests/weights \
	tests/cli/test_weights_cli.py tests/edges \
	--ignore tests/edges/telephone/test_signatures.py \
	--ignore tests/edges/telephone/test_streamdouble.py \
	tests/server/test_server_http.py tests/server/test_calls.py tests/rtc/test_peer.py \
	tests/simulators/nova/test_simulated_nova_http.py \
	tests/simulators/qwen/test_simulated_qwen_http.py tests/realtime/test_websocket.py

.venv-lowest/.ready: pyproject.toml | python $(filter .tools/%,$(UV))
	$(UV) venv --quiet --clear --no-python-downloads --python $(PYTHON) .venv-lowest
	$(UV) pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct \
	--only-binary :all: --editable '.[all]' --group lowest
	@touch $@

bench: setup ## measure the figures of docs/benchmarks.md
	.venv/bin/python -m benchmarks $(ARGS)

format: setup ## format and fix what can be fixed
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

clean: ## remove what the targets above made
	rm -rf .venv .venv-lowest .tools .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .site
