# Two commands that need nothing but Python 3.11 or newer:
#   make picture    a picture from a sentence, by the model inside this repository
#   make test       lint, types, layers, tests
# and one that shows more:
#   make gallery    every task of the embedded models: docs/gallery.png
# Each makes its own .venv. PYTHON=python3.12 chooses another interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROMPT ?= a red apple on a sky blue background

.PHONY: picture gallery test lint types layers pytest font browser clean

picture: $(VENV)/run.stamp
	$(BIN)/tintype txt2img "$(PROMPT)" --seed 7

gallery: $(VENV)/run.stamp
	$(BIN)/python benchmarks/gallery.py

test: lint types layers pytest

lint: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/dev.stamp
	$(BIN)/pyright --pythonpath $(BIN)/python

layers: $(VENV)/dev.stamp
	$(BIN)/lint-imports

pytest: $(VENV)/dev.stamp font browser
	$(BIN)/python -m pytest

# The tests of the page click through it.
browser:
	@sh tools/install_browser.sh

# The tests draw scenes; pictures need no font.
font: $(VENV)/run.stamp
	@sh tools/install_font.sh $(BIN)/python

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps k-diffusion==0.1.1.post1  # its samplers alone
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps ldm-fix==1.0.1 einops==0.8.2  # CompVis's networks
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps torch-fidelity==0.4.0  # its arithmetic
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps lpips==0.1.4  # without torchvision
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps open_clip_torch==3.3.0  # its towers and losses
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps taming-transformers==0.0.1  # VQGAN's loss
	@touch $@ $(VENV)/run.stamp

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache
