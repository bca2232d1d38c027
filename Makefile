# Set-up, demonstration and tests in a virtual environment of the checkout's own: .venv.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo test test-fast test-random lint docs setup
.DELETE_ON_ERROR:

demo: $(VENV)/.installed ## evaluate NACLIP on the embedded benchmark
	$(RUN) eval.py --config configs/cfg_shapes.py

# One process a core would need some GB of memory each: two, unless told otherwise, as in make test JOBS=8.
JOBS ?= 2
# make test COVERAGE=1 also tells how much of each room the tests ran.
PYTEST := $(RUN) $(if $(COVERAGE),-m coverage run) -m tests -n $(JOBS) --dist loadfile

test: $(VENV)/.installed-tests ## run the tests
	$(if $(COVERAGE),$(RUN) -m coverage erase)
	$(PYTEST)
	$(if $(COVERAGE),$(RUN) -m coverage combine --quiet && $(RUN) tools/rooms_covered.py)

test-fast: $(VENV)/.installed-tests ## run the tests without the slow ones
	$(PYTEST) -m 'not slow'

# Modules in another order each time, and tests within them. The first line of output has the seed: make test-random SEED=7.
SEED ?= $(shell date +%s)
test-random: $(VENV)/.installed-tests ## run the tests without the slow ones, in random order
	$(PYTEST) -m 'not slow' --random-order --random-order-seed=$(SEED)

lint: $(VENV)/.installed-tests ## check style
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

docs: $(VENV)/.installed-docs ## build the manual into site/
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

setup: $(VENV)/.installed

$(VENV)/.installed: requirements.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else \
	  f"Python 3.11 to 3.13 is needed, {sys.executable} is {v.major}.{v.minor}; name another: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.installed-docs: pyproject.toml $(VENV)/.installed
	$(RUN) -m pip install --disable-pip-version-check -e .[docs]
	@touch $@

$(VENV)/.installed-tests: tests/requirements.txt pyproject.toml $(VENV)/.installed
	$(RUN) -m pip install --disable-pip-version-check -r tests/requirements.txt
	@touch $@
