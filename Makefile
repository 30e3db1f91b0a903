# make demo    migrate and verify a real database through the local cloud
# make test    run the suite but for what is slow, four files at a time: its tests wait more than they work
# make check   the whole gate, step by step: layout, lint, types, template, doctests, test, and slow
# make slow    the slow tier: slowtests, portable, a soak of a minute, build, replay, docs, and core
#   make slowtests  the tests that take minutes: each fault alone, through the local cloud
#   make docs       the documents as a site, in site/, with a reference from the docstrings; warnings are errors
#   make core       coverage on Python 3.13, which is Lambda's, and the property tests with more examples
# make coverage   what the unit tests leave out: of the protocol nothing, of the rest no more than pyproject.toml allows
# make bench   measure, as one line of JSON
# make bench-cpu  the CPU that each million bytes costs dialer and relay, as one line of JSON, without and, if it is
#              installed, with the extra `speedups`; BESIDE=folder measures another tree, too, in turns
# make fuzz    any bytes into each parser, led by coverage; FUZZ_SECONDS (10) each, FUZZ=name for one alone
# make portable  library and command with all hidden that Windows' Python lacks; types as on Windows and macOS
# make soak    mixed traffic while everything goes wrong; SOAK_SECONDS (180) and SOAK_SEED (drawn) may be set
# make ends    programs that write and end at once: RUNS (100), SEED (drawn), RUN (one of them alone) may be set
# make build   the functions' artifacts, as they are deployed, in .aws-sam/build: no Docker, any Python from 3.11 on
# make replay  each of events/ against the built artifacts, under AWS's runtime interface emulator; RECORD=1 records
#              what they do now, CASES="connect_dialer ..." chooses
# make coldstart  what starting each artifact costs, as JSON; COLDSTART_RUNS (9) may be set
# make lock    renew all that is pinned and hashed: requirements/*.txt, functions/requirements.txt
# make lowest  the suite with the lowest versions that pyproject.toml allows; make newest: with the newest there are
# make dist    the source distribution and the wheel of a release in dist/, when version, changelog and tag agree
# make format  lay the code out, as `make layout` checks it
# make documents  generate the tables of the documents that repeat code, and wrap their prose; the suite checks it
# make clean   remove what these made
#
# Each makes its own virtual environment in .venv first. PYTHON chooses the interpreter: make PYTHON=python3.13 test

SHELL := /bin/sh
MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:
.DEFAULT_GOAL := check
.PHONY: demo test slow check layout lint types template doctests coverage slowtests portable core bench bench-cpu soak fuzz ends \
  build replay docs coldstart lock lowest newest dist format documents costs clean

VENV := .venv
BIN := $(VENV)/bin
PIP := -m pip --disable-pip-version-check --quiet
# Wheels alone, so that nothing is built on the way by tools that are not locked. The lock is complete, and `pip check`
# says so; old pips refuse a hashed lock if they look for dependencies themselves (extras inside of packages).
LOCKED := $(PIP) install --no-deps --only-binary :all: --require-hashes --requirement
EDITABLE := $(PIP) install --no-deps --no-build-isolation --editable .
# In the order of the files: what takes long comes first, so that no worker is left alone with it at the end.
PYTEST := -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder

# The first of these that runs, is new enough, and can make virtual environments.
ifndef PYTHON
PYTHON := $(shell for each in python3.13 python3.12 python3.11 python3 python; do \
	  $$each -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	    && echo $$each && break; done)
endif

# An environment that is there stays what it is, whatever is asked for.
ifneq (,$(and $(PYTHON),$(wildcard $(BIN)/python),$(filter-out clean,$(or $(MAKECMDGOALS),all))))
ifneq ($(origin PYTHON),file)
VERSION := -c 'import sys; print("%d.%d" % sys.version_info[:2])'
ifneq ($(shell $(BIN)/python $(VERSION)),$(shell $(PYTHON) $(VERSION)))
$(error $(VENV) is of Python $(shell $(BIN)/python $(VERSION)), not of $(PYTHON); run: make clean)
endif
endif
endif

# The sam command must not report home; nor is this machine's AWS configuration any of its business here.
export SAM_CLI_TELEMETRY := 0

# The suite starts hundreds of processes, each of which would compile everything again.
unexport PYTHONDONTWRITEBYTECODE

demo: $(VENV)/.demo
	@$(BIN)/python -m tools.demo

test: $(VENV)/.dev
	@$(BIN)/python $(PYTEST)

# The step that a gate is in, its seconds, and what was skipped, are .ci/check's to say.
STEPS := layout lint types template doctests test
SLOW := slowtests portable soak build replay docs core

check: $(VENV)/.dev
	@SOAK_SECONDS=$(or $(SOAK_SECONDS),60) .ci/check $(STEPS) $(SLOW)

slow: $(VENV)/.dev
	@SOAK_SECONDS=$(or $(SOAK_SECONDS),60) .ci/check $(SLOW)

layout: $(VENV)/.dev
	@$(BIN)/ruff format --quiet --check . || { echo "run: make format"; exit 1; }

lint: $(VENV)/.dev
	@$(BIN)/ruff check --quiet .

types: $(VENV)/.dev
	@$(BIN)/mypy --no-error-summary

template: $(VENV)/.dev
	@for each in template.yaml tools/probe/template.yaml; do \
	  $(BIN)/sam validate --lint --region us-east-1 --template $$each || exit; done

doctests: $(VENV)/.dev
	@$(BIN)/python -m pytest -q --doctest-modules --ignore=tools/demo/history emissary_lib emissary_local tools

# The protocol's own tests first: nobody else's count for it.
coverage: $(VENV)/.dev
	@$(BIN)/python $(PYTEST) --cov --cov-report= --cov-fail-under=0 tests/unit/protocol
	@$(BIN)/python -m coverage report --include='emissary_lib/protocol/*' --fail-under=100 --show-missing --skip-covered
	@$(BIN)/python $(PYTEST) --cov --cov-append --cov-report= tests/unit --ignore=tests/unit/protocol

slowtests: $(VENV)/.dev
	@$(BIN)/python $(PYTEST) -m slow

# Not those of what Windows has not: signals of other processes, fork, job control.
PORTABLE := tests/unit/test_system.py tests/unit/transport tests/unit/doctor \
  $(patsubst %,tests/unit/tunnel/test_%.py,driver loopback shutdown wakeup) \
  $(patsubst %,tests/unit/client/test_%.py,config dialer endpoint env_file forward hang_up settings socket socks) \
  $(patsubst %,tests/unit/cli/test_%.py,config dials doctor execute failure main output program_environment)

# No Windows and no macOS: what mypy and a Python from which everything is hidden can tell of them on Linux.
portable: $(VENV)/.dev
	@for each in win32 darwin; do $(BIN)/mypy --no-error-summary --no-warn-unreachable --platform $$each -p emissary_lib || exit; done
	@PYTHONPATH=$(CURDIR)/tests/helpers/foreign_os $(BIN)/python $(PYTEST) $(PORTABLE)

# Also where pyenv has it: its own python3.13 fails unless that version is chosen.
PYTHON313 = $(shell for each in python3.13 $(wildcard $(HOME)/.pyenv/versions/3.13.*/bin/python3.13); do \
	  $$each -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null \
	    && echo $$each && break; done)

core: $(VENV)/.dev
	@venv=$(VENV); \
	if $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))'; then :; \
	elif test -n "$(PYTHON313)"; then venv=.venv-3.13; \
	else echo "SKIPPED core on Python 3.13: no python3.13 was found; name one: make core PYTHON313=..."; fi; \
	$(MAKE) VENV=$$venv PYTHON="$(PYTHON313)" coverage && HYPOTHESIS_PROFILE=gate $$venv/bin/python $(PYTEST) tests/property

bench: $(VENV)/.demo
	@$(BIN)/python -m tools.bench

bench-cpu: $(VENV)/.demo
	@$(BIN)/python -m tools.bench.cpu $(if $(BESIDE),--beside "$(BESIDE)")

soak: $(VENV)/.dev
	@$(BIN)/python -m tests.soak

fuzz: $(VENV)/.fuzz
	@FUZZ="$(FUZZ)" FUZZ_SECONDS=$(or $(FUZZ_SECONDS),10) $(BIN)/python -m tests.fuzz

ends: $(VENV)/.dev
	@$(BIN)/python -m tests.ends

build: $(VENV)/.dev
	@PYTHON=$(CURDIR)/$(BIN)/python $(BIN)/sam build --template template.yaml
	@$(BIN)/python -m tools.artifacts report .aws-sam/build

replay: $(VENV)/.dev .aws-sam/build/template.yaml
	@$(BIN)/python -m tools.replay run $(if $(RECORD),--record) $(CASES)

# The hooks of mkdocs.yml are modules of this tree. With --quiet no warning would be seen, and --strict be in vain.
docs: $(VENV)/.docs
	@PYTHONPATH=. NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

coldstart: $(VENV)/.dev .aws-sam/build/template.yaml
	@$(BIN)/python -m tools.coldstart --runs $(or $(COLDSTART_RUNS),9)

# uv resolves, since pip cannot for other Pythons and systems than its own; it is pinned as everything else.
UV := .venv-lock/bin/uv
BACKEND := $(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])'
COMPILE := $(UV) pip compile --quiet --only-binary :all: --no-header --no-emit-index-url
UNIVERSAL := $(COMPILE) --upgrade --universal --python-version 3.11 --generate-hashes

lock: $(VENV)/.dev $(UV)
	@$(BIN)/python -m tools.artifacts lock
	@echo uv | $(UNIVERSAL) - --output-file requirements/lock.txt
	@$(BACKEND) | $(UNIVERSAL) --extra dev pyproject.toml - --output-file requirements/dev.txt
	@for extra in demo docs fuzz; do \
	  $(BACKEND) | $(UNIVERSAL) --extra $$extra --constraint requirements/dev.txt pyproject.toml - \
	    --output-file requirements/$$extra.txt || exit; done

lowest: RESOLUTION := lowest-direct
newest: RESOLUTION := highest

lowest newest: $(UV)
	@echo "making .venv-$@ with $(PYTHON)"
	@$(PYTHON) -m venv --clear .venv-$@
	@$(BACKEND) | $(COMPILE) --no-annotate --resolution $(RESOLUTION) --python .venv-$@/bin/python --extra dev \
	  pyproject.toml - --output-file .venv-$@/requirements.txt
	@cat .venv-$@/requirements.txt
	@$(UV) pip install --quiet --python .venv-$@/bin/python --no-deps --requirement .venv-$@/requirements.txt
	@.venv-$@/bin/python $(EDITABLE)
	@.venv-$@/bin/python $(PYTEST)

dist: $(VENV)/.dev
	@$(BIN)/python -m tools.release

format: $(VENV)/.dev
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

documents: $(VENV)/.dev
	@$(BIN)/python -m tools.documents write

# What each kind of message costs, measured anew on the local cloud, and the documents' table of it.
costs: $(VENV)/.dev
	@$(BIN)/python -m tests.helpers.costs
	@$(BIN)/python -m tools.documents write

clean:
	rm -rf $(VENV) .venv-* .check dist .aws-sam .databases .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage \
	  .fuzz site

# A stamp file for each set of packages; installing again when pyproject.toml or the lock has changed.

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer with venv was found; name one: make PYTHON=..." >&2; exit 1; }
	@echo "making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml requirements/demo.txt | $(BIN)/python
	@echo "installing what the demo needs"
	@$(BIN)/python $(LOCKED) requirements/demo.txt
	@$(BIN)/python $(EDITABLE)
	@touch $@

$(VENV)/.dev: pyproject.toml requirements/dev.txt | $(BIN)/python
	@echo "installing what the suite needs"
	@$(BIN)/python $(LOCKED) requirements/dev.txt
	@$(BIN)/python $(EDITABLE)
	@$(BIN)/python $(PIP) check
	@touch $@ $(VENV)/.demo

$(VENV)/.docs: requirements/docs.txt $(VENV)/.dev
	@echo "installing what builds the site"
	@$(BIN)/python $(LOCKED) requirements/docs.txt
	@touch $@

# Where atheris has no wheel, its mark keeps it out, and nothing is installed.
$(VENV)/.fuzz: requirements/fuzz.txt $(VENV)/.dev
	@echo "installing what leads the fuzzing"
	@$(BIN)/python $(LOCKED) requirements/fuzz.txt
	@touch $@

$(UV): requirements/lock.txt
	@$(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/python $(LOCKED) requirements/lock.txt
	@touch $@

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
