# make demo   install into .venv and animate the sample        make lint   ruff and mypy
# make test   lint and run the tests                           make serve  (not part of this version)

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TESTABLE := $(VENV)/.testable
SAMPLES := src/personalive/samples
MARKERS ?= not slow
JOBS ?= 2

.PHONY: demo test lint serve footage sample clean

demo: $(READY)
	@mkdir -p out
	@$(BIN)/personalive animate $(SAMPLES)/portrait.jpg $(SAMPLES)/driving.mp4 -o out/demo.mp4 --side-by-side --overwrite
	@echo "The video is at $(CURDIR)/out/demo.mp4: portrait, driver and result side by side."

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m "$(MARKERS)"

lint: $(TESTABLE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

serve: $(READY)
	@echo "The server is not part of this version; see the roadmap in README.md." >&2; exit 2

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

# PyTorch and what only tests and tools need: the demo does without.
$(TESTABLE): $(READY)
	@echo "Installing PyTorch and what the tests need (once; a few minutes)…"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf out build .mypy_cache .ruff_cache .pytest_cache .hypothesis
