# One command for each thing that a developer or CI does; `make help` lists them.

SHELL := /bin/sh
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONFIG ?= config.example.yaml
RULES ?= rules/rules.yaml
ARGS ?=

.PHONY: help setup lint test ci demo run cluster cluster-down format lock docs bench clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' \
		| while IFS='|' read -r name text; do printf '  %-14s %s\n' "$$name" "$$text"; done

$(VENV)/.runtime: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3"; exit 1; }
	@echo "installing the locked requirements into $(VENV) (half a minute the first time) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.lock pyproject.toml
	@echo "installing the tools of the tests into $(VENV) (half a minute the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

setup: $(VENV)/.dev ## install everything into .venv, from the lock files

demo: $(VENV)/.runtime ## three events, a real reaction, on a machine with nothing but Python
	@PYTHONPATH=src $(BIN)/python -m falco_talon demo

run: $(VENV)/.dev ## run the daemon (CONFIG=…, RULES=…)
	$(BIN)/talon server -c $(CONFIG) -r $(RULES)

lint: $(VENV)/.dev ## formatting, lint, types, layers, rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/talon rules check -r rules/rules.yaml -r rules/override.example.yaml

test: $(VENV)/.dev ## all tests; ARGS="-k word" for some of them
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered $(ARGS)

ci: lint test ## what must pass before a change lands

cluster: $(VENV)/.dev ## start a real Kubernetes with a node for the tests (root)
	@$(BIN)/python -m tests.cluster up

cluster-down: $(VENV)/.dev ## stop it
	@$(BIN)/python -m tests.cluster down

format: $(VENV)/.dev ## format, and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: ## resolve the requirements anew into the lock files (needs uv)
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
		--python-version 3.11 --extra embedded pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
		--python-version 3.11 --all-extras pyproject.toml -o requirements-dev.lock

docs: $(VENV)/.dev ## write the pages of the plugins and the schema of the rules anew, from their classes
	$(BIN)/python -m tests.documentation
	$(BIN)/talon rules schema > rules/rules.schema.json

bench: $(VENV)/.dev ## measure speed and memory, and on the cluster of KUBECONFIG reactions (TALON_PEER=/path/to/binary: another one)
	$(BIN)/python -m bench

clean: ## remove the environment and what tools left behind
	rm -rf $(VENV) .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
