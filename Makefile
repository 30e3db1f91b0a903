# make demo    migrate and verify a real database through the local cloud
# make test    run the suite, three files at a time: its tests wait more than they work
# make check   the whole gate: format, lint, types, tests, doctests, template
# make slow    what takes minutes: each fault alone, through the local cloud
# make bench   measure, as one line of JSON
# make soak    mixed traffic while everything goes wrong; SOAK_SECONDS (180) and SOAK_SEED (drawn) may be set
# make build   the functions' artifacts, as they are deployed, in .aws-sam/build: no Docker, any Python from 3.11 on
# make replay  each of events/ against the built artifacts, under AWS's runtime interface emulator; RECORD=1 records
#              what they do now, CASES="connect_dialer ..." chooses
# make coldstart  what starting each artifact costs, as JSON; COLDSTART_RUNS (9) may be set
# make lock    resolve functions/requirements.in anew
# make clean   remove what these made
#
# Each makes its own virtual environment in .venv first. PYTHON chooses the interpreter: make PYTHON=python3.13 test

SHELL := /bin/sh
MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:
.DEFAULT_GOAL := check
.PHONY: demo test slow check bench soak build replay coldstart lock format clean

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# The first of these that runs, is new enough, and can make virtual environments.
ifndef PYTHON
PYTHON := $(shell for each in python3.13 python3.12 python3.11 python3 python; do \
	  $$each -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	    && echo $$each && break; done)
endif

# The sam command must not report home; nor is this machine's AWS configuration any of its business here.
export SAM_CLI_TELEMETRY := 0

demo: $(VENV)/.demo
	@$(BIN)/emissary demo

test: $(VENV)/.dev
	@$(BIN)/python -m pytest -q -n 3 --dist loadfile

slow: $(VENV)/.dev
	@$(BIN)/python -m pytest -q -m slow

bench: $(VENV)/.demo
	@$(BIN)/emissary bench

soak: $(VENV)/.dev
	@$(BIN)/python -m tests.soak

check: $(VENV)/.dev
	@echo "format";   $(BIN)/ruff format --quiet --check . || { echo "run: make format"; exit 1; }
	@echo "lint";     $(BIN)/ruff check --quiet .
	@echo "types";    $(BIN)/mypy --no-error-summary
	@echo "template"; $(BIN)/sam validate --lint --region us-east-1 --template template.yaml
	@echo "doctests"; $(BIN)/python -m pytest -q --doctest-modules --ignore=tools/demo/history emissary_lib emissary_local tools
	@echo "tests";    $(MAKE) test

build: $(VENV)/.dev
	@PYTHON=$(CURDIR)/$(BIN)/python $(BIN)/sam build --template template.yaml
	@$(BIN)/python -m tools.artifacts report .aws-sam/build

replay: $(VENV)/.dev .aws-sam/build/template.yaml
	@$(BIN)/python -m tools.replay run $(if $(RECORD),--record) $(CASES)

coldstart: $(VENV)/.dev .aws-sam/build/template.yaml
	@$(BIN)/python -m tools.coldstart --runs $(or $(COLDSTART_RUNS),9)

lock: $(VENV)/.dev
	@$(BIN)/python -m tools.artifacts lock

format: $(VENV)/.dev
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .aws-sam .databases .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage

# A stamp file for each set of packages; installing again when pyproject.toml has changed.

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer with venv was found; name one: make PYTHON=..." >&2; exit 1; }
	@echo "making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo "installing what the demo needs"
	@$(PIP) install --editable '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "installing what the suite needs"
	@$(PIP) install --editable '.[dev]'
	@touch $@ $(VENV)/.demo

# What replay and coldstart run has to be what the source would give now.
.aws-sam/build/template.yaml: template.yaml functions/requirements.txt Makefile \
    $(shell find functions emissary_lib tools/artifacts -name '*.py' 2>/dev/null)
	@$(MAKE) build

# What `sam build` calls, once for each function, with ARTIFACTS_DIR. It needs pip and nothing else.

BUILDS := build-ConnectFunction build-DefaultFunction build-DisconnectFunction build-RelayFunction
.PHONY: $(BUILDS)

$(BUILDS):
	@test -n "$(ARTIFACTS_DIR)" || { echo "$@ is for sam build, which sets ARTIFACTS_DIR" >&2; exit 1; }
	@$(PYTHON) -m tools.artifacts function $(@:build-%=%) "$(ARTIFACTS_DIR)"
