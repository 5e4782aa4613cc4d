# `make test` and `make demo` set up their own environment in .venv; nothing else is needed but Python 3.10 to 3.13.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := $(BIN)/python -m pytest --durations=15
# A worker that dies is not started again: pytest-xdist would wait for ever for the tests that it had left.
PARALLEL := -n logical --maxprocesses 8 --dist loadfile --max-worker-restart 0
OWN := cpp or arm64 or triton_server or ray
CPU := not (slow or gpu or trt or $(OWN))
LONG := long or rtx
RTX := tests/export/tensorrt
ALONE := timing or gpu or trt

.PHONY: test test-long test-all test-cpp test-arm64 test-ros test-rtx test-triton test-ray test-lowest test-lowest-runtime coverage lint docs demo clean

test: lint
	$(PYTEST) $(PARALLEL) -m "$(CPU) and not ($(LONG) or timing)"
	$(PYTEST) -m "$(CPU) and timing and not ($(LONG))"

test-long: $(READY)
	$(PYTEST) $(PARALLEL) -m "$(CPU) and ($(LONG)) and not timing"
	$(PYTEST) -m "$(CPU) and ($(LONG)) and timing"

test-all: lint
	$(PYTEST) $(PARALLEL) -m "not ($(ALONE) or $(OWN))"
	$(PYTEST) -m "$(ALONE)"

test-rtx: $(READY)
	$(PYTEST) -m "rtx and not slow" $(RTX)

coverage: $(READY)
	$(PYTEST) $(PARALLEL) -m "$(CPU) and not timing" --cov --cov-report=json
	$(BIN)/python -m pcaseg.benchmarks.studies.covered_lines coverage.json --out benchmarks/results/covered_lines.json
	$(BIN)/python -m pcaseg.benchmarks.tables

# Each says what the machine lacks for it, and what to install.
test-cpp: $(READY)
	$(PYTEST) -m cpp tests/export/cpp

test-arm64: $(READY)
	$(PYTEST) -m arm64 tests/export/cpp

test-ros: $(READY)
	$(BIN)/python tests/ros_environment.py

test-triton: $(READY)
	$(PYTEST) -m triton_server tests/serving

test-ray: $(READY)
	$(PYTEST) -m ray tests/test_ray.py

test-lowest: $(READY)
	$(BIN)/python tests/lowest.py all

test-lowest-runtime: $(READY)
	$(BIN)/python tests/lowest.py runtime

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/mkdocs build --strict

demo: $(READY)
	$(BIN)/python -m pcaseg.benchmarks.demo --out demo

$(READY): setup.py pyproject.toml
	$(PYTHON) -c "import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v else 'Python 3.10 or newer is needed; run: make PYTHON=/path/to/python3.12')"
	@echo "Setting up $(VENV): PyTorch is large, this takes some minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) .venv-* demo site build *.egg-info
