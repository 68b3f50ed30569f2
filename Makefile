# Every target sets up what it needs: a virtual environment from the hash-pinned lock.
# PYTHON chooses the interpreter that makes it (3.11 or newer).
PYTHON ?= python3
VENV   ?= .venv
MINUTES ?= 10
COMMANDS ?= 50000
JOBS ?= 2
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: round-trip help setup demo test check faults soak bench bench-full cost simulation mutants mutmut schemas lock clean reference docs

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## virtual environment with everything, from requirements.lock

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Waypost needs Python 3.11 or newer; set PYTHON=python3.12, say. This is " + sys.version) if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the pinned dependencies into $(VENV) (about a minute the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@deploy/fetch-promtool $(BIN)
	@touch $@

promtool:  ## tool that tests the alert rules, from Debian's package (make setup tries it too)
	@deploy/fetch-promtool $(BIN)

demo: setup  ## the whole service on a real Kafka and Postgres, a worker killed in the middle
	@$(BIN)/python -m tests.tools.demo

check: setup  ## lint, format, strict types, layers, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m waypost_worker.cli schema check
	$(BIN)/python deploy/reference.py --check

test: check  ## everything that CI runs: check, then all tests, JOBS files at a time, each job with servers of its own
	$(BIN)/pytest -n $(JOBS) --dist loadfile --durations=15 --instafail \
	  --max-worker-restart 0 --timeout 300 -o faulthandler_timeout=480 -o faulthandler_exit_on_timeout=true

faults: setup  ## every fault on real servers and workers, with a table; writes build/faults.json (20 min)
	@$(BIN)/pytest tests/faults -m 'long or not long' -q --faults-report build/faults.json

soak: setup  ## load and random faults together for MINUTES; writes build/soak.json and build/soak.png
	@$(BIN)/python -m tests.faults.soak --minutes $(MINUTES)

alerts: setup  ## each alert on its provoked fault, and what the runbook does about it (10 min)
	@$(BIN)/pytest tests/drills/test_runbook.py tests/drills/test_runbook_postgres.py tests/integration/test_alerts.py -m 'long or not long' -q

image-steps: setup  ## the steps of the container file, without an engine (fetches what worker.lock names)
	@$(BIN)/pytest tests/integration/test_image_steps.py -m long -q

bench: setup  ## the service beside the bare loop in one run; writes build/bench.json
	@$(BIN)/python -m tests.tools.bench

SEEDS ?= 10000
round-trip: setup  ## COMMANDS=n through a worker, replayed, verified, killed; writes build/round-trip.json
	@$(BIN)/python -m tests.tools.roundtrip --commands $(COMMANDS)

simulation: setup  ## SEEDS=n worlds on virtual time, over all cores; writes build/simulation.json
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS)

mutants: setup  ## deliberate bugs, and what catches each; writes build/mutants.json
	@$(BIN)/python -m tests.mutants

mutmut: setup  ## small changes to the pure model that no unit test notices; writes build/mutmut.json
	@$(BIN)/python -m tests.mutants.mutmut

bench-client: setup  ## what publishing costs an agent, and the spool; writes build/bench-client.json
	@$(BIN)/python -m tests.tools.bench.client

bench-telemetry: setup  ## what telemetry costs a worker, on and off in turns; writes build/bench-telemetry.json (9 min)
	@$(BIN)/python -m tests.tools.bench.telemetry

crash-tests: setup  ## 200 agents killed under load, Kafka up, away and frozen; writes build/crash.json
	@$(BIN)/python -m tests.tools.crash

cost: setup  ## instructions and bytes that a command costs the worker, beside the last record
	@$(BIN)/python -m tests.tools.bench.cost

PEERS := .venv-peers

bench-page: setup  ## docs/performance.md and its picture, from build/bench.json
	@$(BIN)/python -m tests.tools.bench.page

bench-full: setup  ## the long run, other shapes of load, and the service beside its peers; two hours
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
	  -r tests/tools/bench/peers/requirements.lock
	@$(BIN)/python -m tests.tools.bench --full
	@$(BIN)/python -m tests.tools.bench.shapes
	@$(BIN)/python -m tests.tools.bench.peers --python $(PEERS)/bin/python

schemas: setup  ## regenerate the JSON Schema and AsyncAPI files from the models
	$(BIN)/waypost schema export --directory schemas/json

reference: setup  ## regenerate docs/metrics.md, docs/settings.md, docs/cli.md, the pictures and the dashboard
	@$(BIN)/python deploy/reference.py
	@$(BIN)/python deploy/reference_cli.py
	@$(BIN)/python deploy/reference_pictures.py

docs-commands: setup  ## every example of --help, and every command of the pages, on real servers
	@$(BIN)/pytest tests/integration/test_help_examples.py tests/integration/test_docs_commands.py \
	  tests/integration/test_tutorial.py tests/drills -m 'long or not long' -q

docs: setup  ## the documentation as a site, in build/site; fails on a broken link
	@$(BIN)/mkdocs build --strict --quiet
	@echo "build/site/index.html"

lock: setup  ## renew requirements.lock and the image's locks (hashes, no addresses)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header --extra test pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-annotate --no-header --constraint requirements.lock --extra worker --extra telemetry --extra object-storage \
	  pyproject.toml -o deploy/worker.lock
	echo "hatchling>=1.27" | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header --constraint requirements.lock - -o deploy/build.lock

pin-images:  ## renew the digests of base images (needs the network, and crane, skopeo or docker)
	@$(PYTHON) deploy/pin_images.py

DATABASE ?=
audit: setup  ## DATABASE=path of OSV advisories for PyPI (directory or zip): what is known against the locks
	@$(BIN)/python deploy/audit.py '$(DATABASE)'

clean:  ## remove build products (the virtual environment stays)
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
