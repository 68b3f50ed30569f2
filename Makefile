# Every target sets up what it needs: a virtual environment from hash-pinned lock files.
# PYTHON chooses the interpreter that makes it (3.11 or newer), VENV the place.
PYTHON   ?= python3
VENV     ?= .venv
JOBS     ?= 3
MINUTES  ?= 10
COMMANDS ?= 50000
SEEDS    ?= 10000
SEED     ?=
DATABASE ?=
PYTHONS  ?=
BIN      := $(VENV)/bin
STAMP    := $(VENV)/.installed
SMALL    := $(VENV)/.installed-demo
TOOLS    := $(VENV)-tools
PEERS    := $(VENV)-peers
SITE     := $(VENV)-docs
CHECKED  := build/dist-check

# Some hundred workers and commands start in a test run. Without bytecode, each of them would compile its modules again.
export PYTHONDONTWRITEBYTECODE :=

PIP     := -m pip install --disable-pip-version-check --progress-bar off
COMPILE := $(TOOLS)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-annotate --no-header

# In what follows "##@ Heading" starts a group of `make help`, and "## text" explains a target.

##@ Start here
.PHONY: help demo setup promtool helm clean

help:  ## list the targets
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(SMALL)  ## the whole service on a real Kafka and Postgres, one worker killed on the way (2 min); OPEN=1: look at it
	@echo "Running the demo: 20 agents, 2 workers, one of them killed on the way (about a minute)"
	@$(BIN)/python -m tests.tools.demo

setup: $(STAMP)  ## virtual environment with everything that checks and tests need

# The demo needs a subset of all packages, with the same versions, so these are installed first.
$(SMALL): requirements-demo.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Waypost needs Python 3.11 or newer. This is " + sys.version.split()[0] + ". Choose another one: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || echo "[1/3] Creating the virtual environment $(VENV) (about 5 s)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "[2/3] Installing the packages of a development server, 0.3 GB (about half a minute the first time)"
	@$(BIN)/python deploy/pip_progress.py $(BIN)/python $(PIP) --require-hashes -r requirements-demo.lock
	@echo "[3/3] Installing Waypost itself from this folder (about 5 s)"
	@$(BIN)/python $(PIP) --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(STAMP): $(SMALL) requirements.lock
	@echo "Installing everything that checks and tests need, 1.8 GB (3 to 4 minutes the first time)"
	@$(BIN)/python deploy/pip_progress.py $(BIN)/python $(PIP) --require-hashes -r requirements.lock
	@deploy/fetch-promtool $(BIN)
	@touch $@

promtool:  ## tool that tests the alert rules, from Debian's package (make setup tries it too)
	@deploy/fetch-promtool $(BIN)

helm:  ## program that renders the chart, built by Go; without it the tests of the chart are skipped
	@deploy/fetch-helm $(BIN)

clean:  ## remove build products (virtual environments stay)
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

##@ Before you send a change
.PHONY: check commits language test all-tests

check: setup commits language  ## lint, format, strict types, layers, generated files, commit messages, language
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m waypost_worker.cli schema check
	$(BIN)/python deploy/reference.py --check

commits:  ## form of the commit messages since the rule exists
	@$(PYTHON) deploy/check_commits.py

language:  ## phrases that read as translated, in pages, help, messages, docstrings, comments and names of tests
	@$(PYTHON) deploy/language.py

# Installing and building helm take minutes each, and mypy takes one. Each alone leaves a core idle.
test:  ## everything that CI runs: check, and all tests, each of JOBS jobs with its own servers
	@$(if $(CI),deploy/install-test-packages)
	@$(if $(CI),deploy/fetch-helm $(BIN) &) $(MAKE) --no-print-directory setup $(SITE)/.installed && wait
	@$(MAKE) --no-print-directory --jobs 2 check all-tests

# Files are taken in the order of their names: unit tests, which are short, come last, so that all jobs end together.
all-tests:  ## all tests, JOBS files at a time, without the checks; `make test` sets up what they need
	@$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations=15 --instafail \
	  --max-worker-restart 0 --timeout 300 -o faulthandler_timeout=480 -o faulthandler_exit_on_timeout=true

##@ Generated files
.PHONY: schemas reference tutorial demo-picture measure-extras docs site-pictures lock pin-images

schemas: setup  ## JSON Schema and AsyncAPI files, from the models
	$(BIN)/waypost schema export --directory schemas/json

reference: setup  ## docs/metrics.md, docs/settings.md, the drawings and the dashboard
	@$(BIN)/python deploy/reference.py
	@$(BIN)/python deploy/reference_pictures.py

tutorial: setup  ## what the tutorials say that their commands and lines print, from a run of both
	@TUTORIAL_WRITE=1 $(BIN)/pytest tests/integration/test_tutorial.py -q

demo-picture: demo  ## docs/demo.svg, from a run of the demo
	@$(BIN)/python -m tests.tools.demo.picture

measure-extras:  ## docs/measured/extras.json: what each extra installs (downloads all of them, 10 min)
	@$(PYTHON) deploy/measure_extras.py

docs: $(SITE)/.installed  ## the documentation as a site, in build/site; fails on a broken link
	@NO_MKDOCS_2_WARNING=1 $(SITE)/bin/mkdocs build --strict
	@echo "build/site/index.html; to read it with its search: $(PYTHON) -m http.server --directory build/site"

site-pictures: setup $(SITE)/.installed  ## a picture of the site's pages, narrow and wide, light and dark; in build/site-pictures
	@SITE_PICTURES=build/site-pictures $(BIN)/pytest tests/integration/test_site.py -k fits -q

$(SITE)/.installed: deploy/docs.lock
	@echo "Installing the pinned tools of the documentation into $(SITE) (about 20 s)"
	@test -x $(SITE)/bin/python || $(PYTHON) -m venv $(SITE)
	@$(SITE)/bin/python deploy/pip_progress.py $(SITE)/bin/python $(PIP) --require-hashes -r deploy/docs.lock
	@touch $@

lock: $(TOOLS)/.installed  ## every lock file: versions and hashes, no addresses
	$(COMPILE) --extra test pyproject.toml -o requirements.lock
	$(COMPILE) --constraint requirements.lock --extra dev --group editable pyproject.toml -o requirements-demo.lock
	$(COMPILE) --constraint requirements.lock --extra oidc --extra telemetry --extra object-storage \
	  pyproject.toml -o deploy/worker.lock
	echo "hatchling>=1.27" | $(COMPILE) --constraint requirements.lock - -o deploy/build.lock
	$(COMPILE) --constraint requirements.lock --group tools -o deploy/tools.lock
	$(COMPILE) --constraint requirements.lock --extra worker --group docs pyproject.toml -o deploy/docs.lock

$(TOOLS)/.installed: deploy/tools.lock
	@echo "Installing the pinned tools of make lock and make dist into $(TOOLS) (about 20 s)"
	@test -x $(TOOLS)/bin/python || $(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python deploy/pip_progress.py $(TOOLS)/bin/python $(PIP) --require-hashes -r deploy/tools.lock
	@touch $@

pin-images:  ## digests of the base images (needs the network, and crane, skopeo or docker)
	@$(PYTHON) deploy/pin_images.py

##@ Faults, long runs and drills
.PHONY: faults soak fuzz crash-tests round-trip simulation mutants mutmut alerts docs-commands image-steps console-pictures

faults: setup  ## every fault on real servers and workers, with a table; writes build/faults.json (20 min)
	@$(BIN)/pytest tests/faults -m 'long or not long' -q --faults-report build/faults.json

soak: setup  ## load and random faults together for MINUTES; writes build/soak.json and build/soak.png
	@$(BIN)/python -m tests.faults.soak --minutes $(MINUTES)

fuzz: setup  ## MINUTES of hostile batches, envelopes and bodies against a worker; writes build/fuzz.json
	@$(BIN)/python -m tests.fuzz --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

crash-tests: setup  ## 200 agents die under load, Kafka up, down and frozen; writes build/crash.json
	@$(BIN)/python -m tests.tools.crash

round-trip: setup  ## COMMANDS=n through a worker, replayed, verified, killed; writes build/round-trip.json
	@$(BIN)/python -m tests.tools.roundtrip --commands $(COMMANDS)

simulation: setup  ## SEEDS=n worlds on virtual time, over all cores; writes build/simulation.json
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS)

mutants: setup  ## deliberate bugs, and what catches each; writes build/mutants.json
	@$(BIN)/python -m tests.mutants

mutmut: setup  ## small changes to the pure model that no unit test notices; writes build/mutmut.json
	@$(BIN)/python -m tests.mutants.mutmut

alerts: setup  ## each alert on its provoked fault, and what the runbook does about it (10 min)
	@$(BIN)/pytest tests/drills/test_runbook*.py tests/integration/test_alerts.py -m 'long or not long' -q

docs-commands: setup  ## every example of --help, and every command in the docs, on real servers
	@$(BIN)/pytest tests/integration/test_help_examples.py tests/integration/test_docs_commands.py \
	  tests/integration/test_tutorial.py tests/drills -m 'long or not long' -q

image-steps: setup  ## the steps of the container file, without an engine (downloads what worker.lock names)
	@$(BIN)/pytest tests/integration/test_image_steps.py -m long -q

console-pictures: setup  ## a picture of each page of the console, narrow and wide, light and dark; in build/console
	@CONSOLE_PICTURES=build/console $(BIN)/pytest tests/integration/test_console_browser.py -k fits -q

##@ Installed as users install it
.PHONY: wheel test-pythons test-extras

wheel: $(TOOLS)/.installed  ## the wheel alone, in build/wheel
	@rm -rf build/wheel
	@$(TOOLS)/bin/python -m hatchling build --target wheel --directory build/wheel >/dev/null

test-pythons: wheel  ## PYTHONS="3.12 3.14" (default: all that are here): unit tests, waypost dev and the README on each
	@$(PYTHON) deploy/installed.py pythons $(PYTHONS) --uv $(TOOLS)/bin/uv --wheel build/wheel/*.whl \
	  --into build/pythons --jobs $(JOBS)

test-extras: wheel  ## the wheel with each extra alone, and the imports of the examples that need it
	@$(PYTHON) deploy/installed.py extras --uv $(TOOLS)/bin/uv --wheel build/wheel/*.whl --into build/extras

##@ Benchmarks
.PHONY: bench bench-full bench-client bench-console bench-encryption bench-telemetry bench-page cost

bench: setup  ## the service and the bare loop in one run; writes build/bench.json (10 min)
	@$(BIN)/python -m tests.tools.bench
	@$(BIN)/python -m tests.tools.bench.partitions

bench-full: setup  ## the long run, other shapes of load, and the service next to its peers (2 hours)
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python $(PIP) --quiet --require-hashes -r tests/tools/bench/peers/requirements.lock
	@$(BIN)/python -m tests.tools.bench --full
	@$(BIN)/python -m tests.tools.bench.partitions --repeats 3 --seconds 15 --commands 200000
	@$(BIN)/python -m tests.tools.bench.shapes
	@$(BIN)/python -m tests.tools.bench.peers --python $(PEERS)/bin/python
	@$(BIN)/python -m tests.tools.bench.graphs --python $(PEERS)/bin/python

bench-client: setup  ## what publishing costs an agent, and the spool; writes build/bench-client.json
	@$(BIN)/python -m tests.tools.bench.client

bench-console: setup  ## the console's cold start and pages of a session of 10,000; writes build/bench-console.json (1 min)
	@$(BIN)/python -m tests.tools.bench.console

bench-encryption: setup  ## what encryption costs a call and a worker; writes build/bench-encryption.json (3 min)
	@$(BIN)/python -m tests.tools.bench.encryption

bench-telemetry: setup  ## what telemetry costs a worker, on and off in turns; writes build/bench-telemetry.json (9 min)
	@$(BIN)/python -m tests.tools.bench.telemetry

bench-page: setup  ## docs/performance.md and its charts, from build/bench.json
	@$(BIN)/python -m tests.tools.bench.page

cost: setup  ## instructions and bytes that a command costs the worker, compared with the last record
	@$(BIN)/python -m tests.tools.bench.cost

##@ Release
.PHONY: dist audit

# The wheel is made from the source archive, so a file that the archive lacks is noticed. It is installed twice: with
# the packages that an empty environment gets from the registry today, and with the tested, locked ones.
dist: $(TOOLS)/.installed  ## source archive and wheel in dist/, installed and checked, with a list of dependencies
	rm -rf dist $(CHECKED)
	$(TOOLS)/bin/python -m hatchling build --target sdist --directory dist
	$(TOOLS)/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	  --wheel-dir dist dist/*.tar.gz
	$(TOOLS)/bin/twine check --strict dist/*
	$(PYTHON) -m venv --without-pip $(CHECKED)/bare
	$(TOOLS)/bin/python -m pip --python $(CHECKED)/bare install --quiet --disable-pip-version-check dist/*.whl
	$(CHECKED)/bare/bin/python -I -c 'import waypost; print(waypost.Publisher, waypost.__version__)'
	$(CHECKED)/bare/bin/waypost --version
	$(PYTHON) -m venv --without-pip $(CHECKED)/worker
	$(TOOLS)/bin/python -m pip --python $(CHECKED)/worker install --quiet --disable-pip-version-check \
	  --require-hashes --no-deps -r deploy/worker.lock
	$(TOOLS)/bin/python -m pip --python $(CHECKED)/worker install --quiet --disable-pip-version-check \
	  --no-deps --no-index dist/*.whl
	$(CHECKED)/worker/bin/waypost --version
	$(TOOLS)/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type library --output-reproducible \
	  --output-file $(CHECKED)/waypost.cdx.json $(CHECKED)/worker/bin/python

audit: setup  ## DATABASE=path of OSV advisories for PyPI (directory or zip): known vulnerabilities in the locks
	@$(BIN)/python deploy/audit.py '$(DATABASE)'
