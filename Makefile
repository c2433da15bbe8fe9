# Everything a developer does here. `make run` and `make test` work on a fresh machine: they set up what they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
PROTOS := $(wildcard proto/ccr_rpc/v1/*.proto)
# Touched whenever code is generated.
GENERATED := proto/gen/ccr_rpc/__init__.py
PYTEST := $(BIN)/pytest
COLLECTED := .cache/collected
SOURCES := dataplane controlplane clients/cli clients/py clients/tui clients/words demo tests tools hatch_build.py
# Hundreds of short processes run the same modules: each would compile them anew where the environment forbids to keep that.
export PYTHONDONTWRITEBYTECODE :=

# Debian leaves a part of Python's venv out of its python3 package; root may fetch it without being asked.
GET_VENV := { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo "installing python3-venv" && \
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends python3-venv >/dev/null; }

.DEFAULT_GOAL := help
.PHONY: help setup proto docs format lint types contracts generated compiled compatible unit property golden integration faults simulation long chaos web page screenshots check test run bench scale simulate attack upgrade audit
.DELETE_ON_ERROR:

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) $(GENERATED) page ## make the environment in .venv, and the web page

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(GET_VENV) || \
	    { echo "Python's venv module is incomplete; install it, as root: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml constraints.txt hatch_build.py | $(BIN)/python
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

# As machine code (docs/adr/0017-compiled-hot-path.md): most of a minute if a source of the worker changed, else nothing.
compiled: $(STAMP) $(GENERATED) ## compile the worker's hot modules, where there is a C compiler
	@$(BIN)/python tools/compile_worker.py --if-possible

# The web page, with the Node.js of this machine or one from PyPI. Does nothing if it is current.
page: $(STAMP) $(GENERATED)
	@$(BIN)/python tools/build_web.py --if-possible

# The build hook generates at setup; this is for a contract that changed since.
$(GENERATED): $(PROTOS) | $(STAMP)
	$(BIN)/python hatch_build.py

proto: $(STAMP) ## generate the code of the contract
	$(BIN)/python hatch_build.py

web: $(STAMP) $(GENERATED) ## build the web page, and check its types
	@$(BIN)/python tools/build_web.py --check

screenshots: setup ## make the pictures of the README, from a relay with scripted providers
	$(BIN)/python tools/screenshots.py

docs: setup ## write the generated pages of docs/
	$(BIN)/python tools/docs.py

format: setup ## format the code and mend what can be mended
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

lint: setup contracts generated compatible ## check style, import contracts, generated code, and what was released
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

contracts: setup
	$(BIN)/lint-imports

generated: setup
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && $(BIN)/python hatch_build.py "$$fresh" && \
	    diff -r --exclude=__pycache__ "$$fresh" proto/gen || \
	    { echo "proto/gen is out of date: make proto" >&2; exit 1; }

types: setup ## check types, strictly
	$(BIN)/mypy

compatible: setup
	@PYTHONPATH=tools $(BIN)/python -m releases.check

# A kind of test that has no files yet is no failure.
unit property golden integration faults simulation attack upgrade: setup
	@if ls tests/$@/test_*.py >/dev/null 2>&1; then $(PYTEST) tests/$@ $(ARGS); else echo "no tests in tests/$@"; fi

unit: ## one behaviour each
property: ## what always holds
golden: ## given input, expected output
integration: ## real processes, real sockets
faults: ## the same while things break
attack: ## hostile clients and providers, byte for byte
upgrade: ## this version and the release before, together
simulation: ## whole fleets on a virtual clock, 200 seeds

chaos: setup ## real processes under random faults, 100 seeds; SEED=7 plays one again, ARGS="--seeds 1000" many
	@$(if $(filter-out file,$(origin SEED))$(findstring --seeds,$(ARGS)),PYTHONPATH=tools $(BIN)/python -m chaos --seed $(SEED),$(PYTEST) tests/chaos) $(ARGS)

# Most tests wait for processes: six files at a time, the longest first (tests/support/order.py), keep two processors busy.
# `make test SIDE_BY_SIDE=` runs one after another.
SIDE_BY_SIDE ?= -n 6 --dist loadfile --no-loadscope-reorder

# Pytest rewrites every assert, and keeps what it makes of a file: once, and not by each of six processes at the same time.
$(COLLECTED): $(shell find tests -name '*.py') | $(STAMP) $(GENERATED)
	@mkdir -p $(@D) && { $(PYTEST) --collect-only -q >/dev/null 2>&1 || true; } && touch $@  # what is wrong the tests say

# What needs no process to wait for runs beside the tests, and says what it found in one piece. What failed is run once
# more, by itself: six files at a time keep two processors so busy that now and then a wait is too short.
check: setup compiled $(COLLECTED) ## style, types and tests, as CI runs them; changes no file
	@said=$$(mktemp) && trap 'rm -f "$$said" "$$said.failed"' EXIT && \
	    { { $(MAKE) --no-print-directory lint types web >"$$said" 2>&1 || touch "$$said.failed"; echo; cat "$$said"; } & } && \
	    { $(PYTEST) $(SIDE_BY_SIDE) -m "not long" $(ARGS); tests=$$?; wait; \
	      if [ $$tests = 1 ]; then echo "what failed beside the others is run once more, by itself; should it pass now, it is a fault that shows on a busy machine: mend it" >&2; \
	        $(PYTEST) --last-failed --last-failed-no-failures none $(ARGS); tests=$$?; fi; \
	      if [ -e "$$said.failed" ]; then cat "$$said"; echo "lint, types or web: see above" >&2; exit 1; fi; exit $$tests; }

# The rest of the tests, and ten times the examples of each property.
long: setup compiled ## what `make test` leaves out: the same in more ways, or for longer
	$(PYTEST) $(SIDE_BY_SIDE) -m long $(ARGS)
	CCR_EXAMPLES=500 $(PYTEST) $(SIDE_BY_SIDE) tests/property $(ARGS)

test: check ## set up, then check

audit: setup ## write sbom.cdx.json, and look up known faults of all that is pinned (needs the network)
	$(BIN)/python tools/sbom.py > sbom.cdx.json
	@test -x $(VENV)/audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)/audit && \
	    $(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1; }
	$(VENV)/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

run: setup compiled ## start the relay; ARGS="--workers 2" are for `ccr serve`
	@$(BIN)/ccr serve $(ARGS)

bench: setup compiled ## measure speed against a direct connection and nginx
	bench/run $(ARGS)

scale: setup compiled ## measure cost and memory as load and configuration grow; ARGS="--only swaps"
	bench/scale $(ARGS)

SEED ?= 1

simulate: setup ## both planes on a virtual clock; SEED=7, ARGS="--nodes 100"
	@PYTHONPATH=tools $(BIN)/python -m simulate --seed $(SEED) $(ARGS)
