# Everything below needs Python 3.11 or newer, and make; the rest is installed into .venv from the lock.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test test-long tools chaos check fmt bench bench-sleepers bench-providers bench-acceptance bench-telemetry clean

run: .venv/installed ## everything on this machine, until Ctrl-C
	@$(BIN)/python local.py

test: .venv/installed
	@$(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder

test-long: .venv/installed ## what does not fit into the minutes of `make test`
	@$(BIN)/pytest -m long -n 2 --dist loadfile

tools: ## what some tests need from Debian: Prometheus and PgBouncer, unpacked into .tools/, and Chromium
	@.ci/tools

chaos: .venv/installed ## one test at its full size: 2 000 messages while processes are killed
	@CHAOS_MESSAGES=2000 $(BIN)/pytest tests/messages/test_chaos.py

check: .venv/installed
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fmt: .venv/installed
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: .venv/installed
	@$(BIN)/python -m bench.reminders

bench-sleepers: .venv/installed
	@$(BIN)/python -m bench.sleepers

bench-acceptance: .venv/installed
	@$(BIN)/python -m bench.acceptance

bench-telemetry: .venv/installed
	@$(BIN)/python -m bench.telemetry

bench-providers: .venv/installed-bench
	@$(BIN)/python -m bench.providers

clean: ## forget what was installed and what local runs kept
	@rm -rf .venv .run .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/installed: requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'Fastbell needs Python 3.11 or newer; name one, for example: make PYTHON=python3.12' >&2; exit 1; }
	@echo 'Installing into .venv; the first time takes a minute.'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-input --require-hashes -r requirements-dev.lock
	@touch $@

.venv/installed-bench: .venv/installed requirements-bench.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-input --require-hashes -r requirements-bench.lock
	@touch $@
