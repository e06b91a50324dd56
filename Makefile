# Needs python3 (3.11 or newer) and make; everything else goes into .venv.
# A stamp file per set of dependencies makes repeated runs quick. The installation is
# editable, so the commands always run the sources as they are now.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-all parity bench bench-steps bench-models lint clean

demo: $(VENV)/core.stamp
	$(BIN)/cnnkern demo

test: $(VENV)/test.stamp
	$(BIN)/python -m pytest -m "not slow"

test-all: $(VENV)/test.stamp
	$(BIN)/python -m pytest

# cnnkern against model.predict on all models of keras.applications; takes half an hour.
parity: $(VENV)/test.stamp
	$(BIN)/python tests/applications.py

bench: $(VENV)/bench.stamp
	$(BIN)/python -m pytest bench -o python_files='bench_*.py' --benchmark-group-by=group
	$(BIN)/python bench/bench_kernels.py

# Where the time goes in every model of keras.applications.
bench-steps: $(VENV)/bench.stamp
	PYTHONPATH=tests $(BIN)/python bench/bench_steps.py

# cnnkern against other runtimes on whole models; the first run converts the models.
bench-models: $(VENV)/peers.stamp $(VENV)/pnnx.stamp
	PYTHONPATH=tests $(BIN)/python bench/bench_models.py

lint: $(VENV)/lint.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .benchmarks .hypothesis

$(VENV)/core.stamp: pyproject.toml $(VENV)/created.stamp
	$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/%.stamp: pyproject.toml $(VENV)/created.stamp
	$(PIP_INSTALL) --editable '.[$*]'
	@touch $@

# Converts for ncnn by a program that needs none of the package's dependencies: torch, 5 GB.
$(VENV)/pnnx.stamp: $(VENV)/created.stamp
	$(PIP_INSTALL) --no-deps pnnx
	@touch $@

$(VENV)/created.stamp:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("cnnkern needs Python 3.11 or newer; try: make PYTHON=python3.12")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo 'python3 cannot make virtual environments: install your system'"'"'s python3-venv package' >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@
