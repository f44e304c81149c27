# make run    the whole line on real data, on this machine; ends with a report
# make test   the checks and tests, but for those that have a target of their own
# make coverage  the same, and which lines they reach
# make test-training      what trains: each compression technique, the reference models
# make test-formats       models that come in other formats, .onnx among them
# make test-layer-types   every technique on every type of layer
# make test-board    what takes a real arm64 system, on one that QEMU emulates; from nothing it builds that first
# make setup  the environments only: the host's, and one for each runtime of the agent
# make onnx   what the host needs to read .onnx files

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
ENVIRONMENTS := .venv
HOST := $(ENVIRONMENTS)/host
PIP := -m pip --quiet --disable-pip-version-check --no-input
TECHNIQUES := tests/pipeline/compression
TRAINING := $(TECHNIQUES) tests/pipeline/building/test_build_variants.py tests/models
FORMATS := tests/pipeline/model_formats
POWER_CUTS := tests/board/test_board_power_cuts.py
ELSEWHERE := $(TRAINING:%=--ignore=%) --ignore=$(FORMATS)
# Three on two cores: many tests wait for a process, a time-out or a restart.
PYTEST_FLAGS ?= --numprocesses 3 --dist loadfile --no-loadscope-reorder

export PYTHONUNBUFFERED = 1

.SECONDARY:
.PHONY: run test coverage test-board test-power-cuts test-whole-board test-training test-formats test-layer-types
.PHONY: layer-types check setup onnx environments benchmarks lock lock-boards clean
.DELETE_ON_ERROR:

run: setup
	$(HOST)/bin/edgepress run configs/experiments/fashion_mnist.yaml

test: $(HOST)/.test-installed
	sh tests/install_tools.sh
	$(MAKE) --no-print-directory check
	$(HOST)/bin/python -m pytest $(ELSEWHERE) $(PYTEST_FLAGS)

# The same tests, looked on in every process, which takes longer.
coverage: $(HOST)/.test-installed
	sh tests/install_tools.sh
	rm -f .coverage .coverage.*
	$(HOST)/bin/python -m pytest --cov --cov-report= $(ELSEWHERE) $(PYTEST_FLAGS)
	$(HOST)/bin/python -m coverage report

# They take as long as all the rest.
test-training: $(HOST)/.test-installed
	$(HOST)/bin/python -m pytest $(TRAINING) $(PYTEST_FLAGS)

test-formats: $(HOST)/.test-installed $(HOST)/.onnx-installed
	$(HOST)/bin/python -m pytest $(FORMATS) $(PYTEST_FLAGS)

# Two boards, each with its tests one after the other. -s: every cut and what was found after it is a line.
test-board: $(HOST)/.test-installed
	sh tests/board/install_tools.sh
	$(MAKE) --no-print-directory --jobs=2 test-power-cuts test-whole-board

test-power-cuts:
	$(HOST)/bin/python -m pytest -m board -s $(POWER_CUTS)

test-whole-board:
	$(HOST)/bin/python -m pytest -m board -s tests/board --ignore=$(POWER_CUTS)

# Every technique on every type of layer; layer-types writes what it finds into docs/compression.md.
test-layer-types: $(HOST)/.test-installed
	$(HOST)/bin/python -m pytest -m layer_types $(TECHNIQUES) $(PYTEST_FLAGS)

layer-types: $(HOST)/.test-installed
	EDGEPRESS_WRITE_LAYER_TYPES=1 $(HOST)/bin/python -m pytest -m layer_types $(TECHNIQUES)

check: $(HOST)/.test-installed
	$(HOST)/bin/ruff check .
	$(HOST)/bin/ruff format --check .
	$(HOST)/bin/mypy

benchmarks: setup
	$(HOST)/bin/python benchmarks/cli_startup.py
	PYTHONPATH=. $(HOST)/bin/python benchmarks/host_overhead.py
	$(HOST)/bin/python benchmarks/footprint.py
	$(HOST)/bin/python benchmarks/push.py
	$(HOST)/bin/python benchmarks/fleet.py
	$(HOST)/bin/python benchmarks/timing_fidelity.py
	$(HOST)/bin/python benchmarks/false_alarms.py

# The three environments share nothing, so they are made side by side.
setup:
	@$(MAKE) --no-print-directory -j3 environments

environments: $(HOST)/.ready $(ENVIRONMENTS)/litert/.ready $(ENVIRONMENTS)/tflite_runtime/.ready

$(HOST)/.installed: requirements/host.txt
$(ENVIRONMENTS)/litert/.installed: requirements/agent-litert.txt
$(ENVIRONMENTS)/tflite_runtime/.installed: requirements/agent-tflite_runtime.txt

$(ENVIRONMENTS)/%/.installed: requirements/build.txt
	@echo "installing the environment $(@D)"
	@sh requirements/make_environment.sh $(PYTHON) $(@D)
	@$(@D)/bin/python $(PIP) install --require-hashes $(patsubst %,-r %,$(filter requirements/%,$^))
	@touch $@

# The project itself is built without isolation, with the locked setuptools: nothing is fetched that has no hash. One
# after another, since each build writes the same egg-info into the checkout.
$(ENVIRONMENTS)/litert/.ready: | $(HOST)/.ready
$(ENVIRONMENTS)/tflite_runtime/.ready: | $(ENVIRONMENTS)/litert/.ready
$(ENVIRONMENTS)/%/.ready: $(ENVIRONMENTS)/%/.installed setup.cfg pyproject.toml
	@$(@D)/bin/python $(PIP) install --no-build-isolation --no-deps --editable .
	@touch $@

# Into the host's environment: the converter takes the host's TensorFlow. About 165 MB.
onnx: $(HOST)/.onnx-installed

# Only once all three environments are there, also with "make -j".
$(HOST)/.onnx-installed: requirements/onnx.txt | setup
	@echo "installing what reads .onnx files"
	@$(HOST)/bin/python $(PIP) install --require-hashes -r requirements/onnx.txt
	@touch $@

$(HOST)/.test-installed: requirements/test.txt | setup
	@echo "installing what the tests need"
	@$(HOST)/bin/python $(PIP) install --require-hashes -r requirements/test.txt
	@touch $@

# uv resolves; pip installs. Run this after editing a .in file.
lock:
	$(PYTHON) -m venv $(ENVIRONMENTS)/lock
	$(ENVIRONMENTS)/lock/bin/python $(PIP) install uv
	cd requirements && for name in build host test onnx agent-litert agent-tflite_runtime; do \
	    ../$(ENVIRONMENTS)/lock/bin/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-annotate --no-strip-extras \
	        --python-version 3.11 --custom-compile-command "make lock" $$name.in -o $$name.txt || exit 1; \
	done

# The wheels for boards, one file for each runtime, Python and architecture. Run this after editing requirements/board.
lock-boards: setup
	$(HOST)/bin/python requirements/lock_boards.py

clean:
	rm -rf $(ENVIRONMENTS) build *.egg-info .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache
