# Five verbs. `check` never writes, `fix` does.
PYTHON ?= python3
BIN := .venv/bin
ROOMS := app agents tables streaming learning features pipelines tests

.PHONY: help venv check fix test lock clean
help: ## Show the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

.venv/.stamp: requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --require-hashes -r requirements/dev.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

venv: .venv/.stamp ## Build .venv from the hashed lock file

check: venv ## Lint, types and import contracts; changes nothing
	$(BIN)/ruff check $(ROOMS)
	$(BIN)/ruff format --check $(ROOMS)
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: venv ## Format and mend what can be mended
	$(BIN)/ruff check --fix $(ROOMS)
	$(BIN)/ruff format $(ROOMS)

test: check ## Everything: check and all tests
	$(BIN)/pytest

lock: venv ## Renew the lock files
	$(BIN)/pip-compile -q --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links -o requirements/dev.txt requirements/dev.in

clean: ## Remove the environment and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
