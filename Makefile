# `make quickstart` and `make test` set up everything they need in .venv; Python 3.11 or later is enough.
PYTHON ?= python3
BIN := .venv/bin
# one thread a process: on few cores many small operations run several times faster than with threads that fight
export OMP_NUM_THREADS ?= 1

.PHONY: quickstart test lint benchmark gpu clean

quickstart: .venv/installed
	$(BIN)/ddbench run configs/sweeps/quickstart.yaml --out results/local/quickstart

test: .venv/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

benchmark: .venv/installed-dev
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only --benchmark-columns=min,median,rounds

gpu: .venv/installed
	$(BIN)/ddbench selftest --gpu

.venv/python:
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "ddbench needs Python 3.11 or later: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	touch $@

.venv/installed: .venv/python pyproject.toml
	@echo "Installing torch, Ray and the rest into .venv (several GB: some minutes, once)"
	$(BIN)/python -m pip install --quiet -e .
	touch $@

.venv/installed-dev: .venv/python pyproject.toml
	@echo "Installing torch, Ray, the test tools and the rest into .venv (several GB: some minutes, once)"
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@ .venv/installed

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache
