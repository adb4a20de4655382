# make demo and make test set up everything themselves; they need Python 3.11+, make and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two processes of one thread each: faster than one of two, and they do not fight for cores.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile --max-worker-restart 0

.PHONY: demo test test-slow check format docs clean

demo: $(VENV)/installed
	$(BIN)/fpnkit demo --out demo

test: $(VENV)/installed-dev
	$(PYTEST) -m "not slow" tests/e2e tests/docs
	$(PYTEST) -m "not slow" tests/contract tests/parity tests/property tests/unit

test-slow: $(VENV)/installed-dev
	$(PYTEST) -m slow

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(PYTEST) -m "not slow" tests/e2e tests/docs
	$(PYTEST) -m "not slow" tests/contract tests/parity tests/property tests/unit

format: $(VENV)/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/installed-docs
	$(BIN)/sphinx-build --fresh-env --nitpicky --fail-on-warning --keep-going --quiet --conf-dir docs . build/docs
	@echo "open build/docs/index.html"

$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/installed-dev: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@ $(VENV)/installed

$(VENV)/installed-docs: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable ".[docs]"
	touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) demo build dist
