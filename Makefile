# `make demo` fine-tunes a real model on this machine; `make migrate-demo` leaves a scripted account; `make test` checks everything.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo migrate-demo test check schemas docs clean

demo: $(VENV)/.local
	$(BIN)/ftbridge run examples/support-triage/job.yaml --provider local
	$(BIN)/ftbridge report latest

# From the inventory of a scripted account to the proof of its replacement, a small model trained on this machine.
migrate-demo: $(VENV)/.dev
	FTBRIDGE=$(abspath $(BIN))/ftbridge examples/leave-openai/demo.sh

# Tests of real training run two at a time, each with one thread: with more, they would wait for each other's processors.
test: $(VENV)/.dev check
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow --numprocesses 2 --dist loadfile

# The fast half of `make test`: style, types, imports that point one way, and words.
check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_words.py

# Generated files: `make test` fails when they are stale.
schemas: $(VENV)/.dev
	$(BIN)/python -m ftbridge.spec.schemas
	$(BIN)/python docs/generate.py

# The documentation as a site, in site/. Fails on a broken link or anchor.
docs: schemas
	$(BIN)/python -m mkdocs build --strict

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.local: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing ftbridge with its local extra into $(VENV) (torch is large; a few minutes the first time)"
	$(PIP) --editable '.[local]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing ftbridge with its development tools into $(VENV)"
	$(PIP) --editable '.[local,dev]'
	@touch $@ $(VENV)/.local

clean:
	rm -rf $(VENV) dist build site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
