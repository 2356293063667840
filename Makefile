# `make` or `make help` lists what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Most tests wait for processes and clocks, so that three of them go well side by side on two cores. A file stays
# together; in the order of their names those that wait longest come first (xdist would begin with the files that hold
# the most tests).
PARALLEL ?= --numprocesses 3 --dist loadfile --no-loadscope-reorder
# These measure what the machine gives, or take servers away.
ALONE := tests/acceptance/test_ceiling.py tests/chaos

.PHONY: help demo demo-services run test chaos attacks properties browser bench check format constraints clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

demo: $(VENV)/installed ## the whole system against a simulated ESI, on a machine that has nothing but Python
	@$(BIN)/python scripts/demo.py

demo-services: $(VENV)/installed ## the same with the real processes, on the servers of DATABASE_URL and RABBITMQ_URL
	@$(BIN)/python scripts/demo.py --services

run: $(VENV)/installed ## the system on your own EVE application, from .env
	@$(BIN)/python app.py

test: $(VENV)/installed-dev ## the whole test suite; uses PostgreSQL and RabbitMQ where they are
	@$(BIN)/python -m pytest $(PARALLEL) $(ALONE:%=--ignore %)
	@$(BIN)/python -m pytest $(ALONE)

chaos: $(VENV)/installed-dev ## kill and restart everything while 20 pilots sync; CHAOS_SEED=N repeats a run
	@CHAOS_LONG=1 $(BIN)/python -m pytest -s tests/chaos

attacks: $(VENV)/installed-dev ## attack every door, and feed it bad input
	@$(BIN)/python -m pytest tests/security

properties: $(VENV)/installed-dev ## let hypothesis look for what breaks a promise; HYPOTHESIS_PROFILE=long looks for more
	@$(BIN)/python -m pytest tests/properties tests/unit/test_killmails_properties.py tests/unit/esi/test_charges_properties.py

browser: $(VENV)/installed-dev ## use the pages as a pilot does, in Chromium
	@$(BIN)/python -m pytest tests/browser

bench: $(VENV)/installed-bench ## measure the claims; QUICK=1 takes minutes
	@$(BIN)/python -m benchmarks

check: $(VENV)/installed-dev ## lint, types, and known vulnerabilities of the dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .
	@scripts/audit.sh $(BIN)

format: $(VENV)/installed-dev ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: | $(VENV)/bin/python ## write constraints.txt anew, after a change of requirements*.txt
	@rm -rf var/constraints && $(PYTHON) -m venv var/constraints
	@var/constraints/bin/pip install --quiet --disable-pip-version-check --requirement requirements-bench.txt
	@head -n 1 constraints.txt > var/constraints.txt
	@var/constraints/bin/pip freeze >> var/constraints.txt
	@mv var/constraints.txt constraints.txt && rm -rf var/constraints

clean: ## remove the virtual environment and the demo's data; never var/killmails.db
	rm -rf $(VENV) var/demo var/demo.lock

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "error: Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: this Python cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Making $(VENV) …"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/installed: requirements.txt constraints.txt | $(VENV)/bin/python
	@echo "Installing what it needs …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt --constraint constraints.txt
	@touch $@

$(VENV)/installed-dev: requirements.txt requirements-dev.txt constraints.txt | $(VENV)/bin/python
	@echo "Installing what the tests need …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt --constraint constraints.txt
	@touch $@ $(VENV)/installed

$(VENV)/installed-bench: requirements-bench.txt constraints.txt | $(VENV)/installed-dev
	@echo "Installing what the benchmarks need …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements-bench.txt --constraint constraints.txt
	@touch $@
