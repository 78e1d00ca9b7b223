# Everything starts here. On a machine with make and Python 3.11 or newer (with venv) nothing else is needed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Where uv is on the path it is used; else it is put into the environment.
UV := $(or $(shell command -v uv 2>/dev/null),$(BIN)/uv)
# Tests run in this many processes; `make test WORKERS=0` runs them in one, which a debugger needs.
WORKERS ?= 2
# Arguments for `llmproxy serve` or pytest: `make run ARGS="--port 8080"`, `make quick ARGS="-k sse -x"`.
ARGS ?=

# Tests that would take twice as long measured, and show no more of the core: of processes, of documents, and those
# that go through the same code thousands of times.
UNMEASURED := tests/llmproxy_server tests/clients tests/docs tests/grammar tests/packaging tests/typing \
	tests/test_bench.py tests/test_dialect_conformance.py tests/test_growth.py tests/test_many.py \
	tests/resilience/goals tests/test_reload_under_load.py \
	tests/test_recent_workers.py tests/test_replay.py tests/test_soak.py tests/test_takeover.py \
	tests/test_takeover_tls.py tests/test_worker_faults.py tests/test_workers.py tests/test_workers_providers.py \
	$(addprefix tests/,test_cases.py test_errors_translated.py test_matrix.py test_matrix_channels.py \
	test_matrix_recordings.py test_recordings_translated.py test_unknown_nested.py)
# Another version of a dependency shows in what uses it; not in documents, other programs, what is built on our own parts
# alone, or the tests of our tests.
NOT_LOWEST := $(filter-out tests/llmproxy_server,$(UNMEASURED)) docs plugins/chaos tests/resilience \
	$(addprefix tests/,test_changes_told.py test_disconnect.py test_keepalive.py test_proportion.py \
	test_streams_that_fail_first.py test_translated_histories.py) \
	$(addprefix tests/llmproxy_core/,groups resilience test_exchange_branch.py test_memory_store.py \
	test_processor_conformance.py test_testing_fixtures.py) \
	$(addprefix tests/llmproxy_server/,process rehearsal test_admission.py test_admission_limit.py \
	test_asyncio_debug.py test_bounds.py test_cli_check.py test_cli_diff.py test_cli_explain.py \
	test_cli_plugin_new.py test_cli_plugins.py test_cli_rehearse.py test_cli_schema.py test_cli_serve.py test_culprit.py \
	test_difference.py test_edge_disconnect.py test_edge_overload.py test_log_process.py test_log_writer.py \
	test_recent.py test_recent_endpoint.py test_reload_process.py test_watchdog.py test_windows.py) \
	$(addprefix tests/llmproxy_server/wire/,test_corpus.py test_differential.py test_edge_fuzz.py test_splits.py)

RUN := $(VENV)/.installed-run
DEV := $(VENV)/.installed-dev
LOWEST := .venv-lowest/.installed
PREVIOUS_SDK := .venv-previous-sdk/.installed
NODE := .venv-node/.installed
NODE_CLIENTS := .venv-node/current/.installed .venv-node/previous/.installed

.PHONY: help run dev test static quick lint format types imports tests wheel lowest clients soak bench lock docs hooks clean
# One check after the other: they share two cores on a small machine, and their output is read by people.
ifndef TOGETHER
.NOTPARALLEL:
endif
.DEFAULT_GOAL := help

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

run: $(RUN) ## install what is missing and start the proxy
	@echo "Starting the proxy (make run); stop it with Ctrl-C."
	@exec $(BIN)/llmproxy serve $(ARGS)

dev: $(DEV) ## install everything to work on llmproxy, into .venv

test: static lowest clients tests ## run every check, as CI does
# `tests` comes last: its last line is pytest's own, "N passed".

# What reads the code has one core, and what installs the environments of later checks mostly waits: two at a time, the
# longest first, the output of each in one piece. What fails stops it.
static: $(DEV)
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target TOGETHER=yes \
		types lint imports $(LOWEST) $(PREVIOUS_SDK) $(NODE_CLIENTS)

quick: $(DEV) ## run the tests without those that build the wheel
	$(BIN)/python -m pytest -n $(WORKERS) -m "not packaging and not soak" $(ARGS)

lint: $(DEV) ## ruff and codespell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

format: $(DEV) ## let ruff format the code and mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(DEV) ## mypy --strict
	$(BIN)/mypy

imports: $(DEV) ## import-linter: the layers of docs/ARCHITECTURE.md
	$(BIN)/lint-imports

tests: FEWER = HYPOTHESIS_PROFILE=$(or $(HYPOTHESIS_PROFILE),again)
tests: $(DEV) ## the tests, with branch coverage where the core is; it must be covered by 95 percent
	$(BIN)/python -m pytest -n $(WORKERS) -m "not soak" $(filter-out tests/clients,$(UNMEASURED))
	@# Property tests are run again with fewer examples: `lowest` digs deep with them. What repeats itself is not measured.
	$(FEWER) $(BIN)/python -m pytest -n $(WORKERS) -m "repeats and not soak" $(UNMEASURED:%=--ignore=%)
	$(FEWER) $(BIN)/python tools/tests.py -n $(WORKERS) -m "not repeats and not soak" $(UNMEASURED:%=--ignore=%) $(ARGS)

# All tests of a client of npm ask what one process of it saw: they stay together (`loadgroup`).
clients: $(DEV) $(PREVIOUS_SDK) $(NODE_CLIENTS) ## the official clients, Python's and npm's, in their newest major and the one before
	$(BIN)/python -m pytest -n $(WORKERS) --dist=loadgroup tests/clients
	CLIENTS=previous .venv-previous-sdk/bin/python -m pytest -n $(WORKERS) --dist=loadgroup tests/clients

wheel: $(DEV) ## build the wheel into dist/ and try it in a new environment
	$(BIN)/python -m build --wheel --no-isolation
	$(BIN)/python -m pytest -n 0 -m packaging tests/packaging

lowest: $(LOWEST) ## run the tests on the lowest dependencies that pyproject.toml allows
	ONE_WAY=1 .venv-lowest/bin/python -m pytest -n $(WORKERS) -m "not packaging and not soak" \
		$(NOT_LOWEST:%=--ignore=%)

soak: $(DEV) ## run the long tests
	$(BIN)/python -m pytest -m soak --timeout=0 -s $(ARGS)

bench: $(DEV) ## measure the proxy beside nginx, a bare relay and other gateways, in one run (Linux, two cores)
	$(BIN)/python -m bench $(ARGS)

lock: $(DEV) $(NODE) ## write the pinned dependencies anew after a change of pyproject.toml (UPGRADE=1: newer releases)
	UV="$(UV)" tools/lock

docs: $(DEV) ## write docs/configuration.md and config.schema.json anew from the configuration classes
	$(BIN)/python tools/configuration_docs.py
	$(BIN)/python -m tools.dialect_table

hooks: $(DEV) ## run the checks of each commit from git
	$(BIN)/pre-commit install

clean: ## remove the environments and all that the tools leave
	rm -rf .venv .venv-lowest .venv-node .venv-previous-sdk dist .coverage .coverage.* htmlcov
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---------------------------------------------------------------- environments
# A stamp is newer than the files it was made from, or the installation is done again.

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "llmproxy needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo 'not there')." >&2; \
		echo "Name another one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) has no venv module, which makes the environment. On Debian and Ubuntu: apt install python3-venv" >&2; \
		exit 1; }
	@echo "Making the environment .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

$(BIN)/uv: | $(BIN)/python
	@echo "Putting uv, the installer, into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt

# The dependencies come pinned by hash; llmproxy itself is linked to this checkout by the pinned build backend,
# without build isolation, which would fetch a backend that no lock holds.
define install
	@echo "Installing llmproxy and the $(3) packages of $(2) into $(1)"
	@$(UV) pip install --quiet --python $(1)/bin/python --require-hashes -r $(2)
	@$(UV) pip install --quiet --python $(1)/bin/python --no-deps --no-build-isolation --editable .
endef
count = $(shell grep -c '==' $(1))

$(RUN): pyproject.toml requirements/run.txt | $(BIN)/python $(UV)
	$(call install,$(VENV),requirements/run.txt,$(call count,requirements/run.txt))
	@touch $@

$(DEV): pyproject.toml requirements/dev.txt | $(BIN)/python $(UV)
	$(call install,$(VENV),requirements/dev.txt,$(call count,requirements/dev.txt))
	@touch $(RUN) $@

$(LOWEST): pyproject.toml requirements/lowest.txt | $(BIN)/python $(UV)
	@$(BIN)/python -m venv --without-pip .venv-lowest
	$(call install,.venv-lowest,requirements/lowest.txt,$(call count,requirements/lowest.txt))
	@touch $@

$(PREVIOUS_SDK): pyproject.toml requirements/previous-sdk.txt | $(BIN)/python $(UV)
	@$(BIN)/python -m venv --without-pip .venv-previous-sdk
	$(call install,.venv-previous-sdk,requirements/previous-sdk.txt,$(call count,requirements/previous-sdk.txt))
	@touch $@

$(NODE): requirements/node.txt | $(BIN)/python $(UV)
	@echo "Installing Node.js into .venv-node"
	@$(BIN)/python -m venv --without-pip .venv-node
	@$(UV) pip install --quiet --python .venv-node/bin/python --require-hashes -r requirements/node.txt
	@touch $@

# The packages come pinned by hash, and none of their scripts runs. Scripts of ours are found below them by a link,
# since Node.js looks for a package in the folders above the script that names it.
.venv-node/%/.installed: tests/clients/node/%/package.json tests/clients/node/%/package-lock.json $(NODE)
	@echo "Installing the $* clients of npm into .venv-node/$*"
	@mkdir -p .venv-node/$*
	@cp tests/clients/node/$*/package.json tests/clients/node/$*/package-lock.json .venv-node/$*
	@cd .venv-node/$* && PATH="$(CURDIR)/.venv-node/bin:$$PATH" npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@ln -sfn ../../tests/clients/node .venv-node/$*/clients
	@touch $@
