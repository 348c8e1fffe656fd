# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PYTEST := $(BIN)/python -m pytest --confcutdir="$(CURDIR)/tests"

.PHONY: setup demo test test-slow check types fix bench aimock clean

setup: $(READY)

# One install for all targets; it runs again when the dependencies change.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[all,test,check]"
	mkdir -p .typing && ln -sfn .. .typing/kernloom
	touch $(READY)

demo: $(READY)
	$(BIN)/python -m kernloom demo

test: $(READY)
	$(PYTEST) -m "not slow"

test-slow: $(READY)
	$(PYTEST) -m slow

check: $(READY) types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

# Static checkers see the package through the link .typing/kernloom -> ..
types: $(READY)
	MYPYPATH=.typing $(BIN)/mypy -p kernloom
	$(BIN)/pyright

fix: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/functions.py
	$(BIN)/python benchmarks/journal.py
	$(BIN)/python benchmarks/recovery.py
	$(BIN)/python benchmarks/turn.py
	$(BIN)/python benchmarks/retrieval.py $(if $(KERNLOOM_DATA),,handbook)

# The second server the OpenAI client is tested against; needs Node.
aimock:
	npm install --silent --no-audit --no-fund --no-package-lock --prefix tests/aimock

clean:
	rm -rf $(VENV) .typing build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
