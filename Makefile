# `make film` and `make test` each work as the first command after a clone.
#   make film PIP_ARGS="--index-url …"   pass arguments to pip
#   make film VENV=/path/to/environment  use an environment of your own
PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
READY := $(VENV)/.mask2dit-ready
RUN := $(VENV)/bin/python
TORCH := $(shell sed -n 's/^torch==//p' requirements.txt)

.PHONY: film test test-slow check setup playhouse clean

film: $(READY)
	$(VENV)/bin/mask2dit generate storyboards/fox.yaml -o films/fox --fresh

test: $(READY)
	$(RUN) -m pytest -n 2

test-slow: $(READY)
	$(RUN) -m pytest -m slow

check: $(READY)
	$(RUN) -m ruff format --check src tests benchmarks
	$(RUN) -m ruff check src tests benchmarks
	$(RUN) -m mypy

setup: $(READY)

# A torch of the right version that the interpreter already has is used instead of a second copy.
$(READY): requirements.txt pyproject.toml
	test -x $(RUN) || $(PYTHON) -m venv $(VENV) $$($(PYTHON) -c "from importlib.metadata import version as v; \
	  v('torch').split('+')[0] == '$(TORCH)' and print('--system-site-packages')" 2>/dev/null)
	$(RUN) -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) -r requirements.txt
	$(RUN) -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	touch $(READY)

# Retrains the built-in model from nothing, level A: autoencoder, text encoder, latents, base, pretrain, sft, adapters, judge. Every step goes on where it stopped.
RUNS ?= runs/playhouse-a
TRAIN = $(VENV)/bin/mask2dit train recipes/playhouse-a
playhouse: $(READY)
	$(TRAIN)/vae.yaml --output $(RUNS)/vae
	$(TRAIN)/text.yaml --output $(RUNS)/text
	$(TRAIN)/base.yaml --output $(RUNS)/base --precompute
	for stage in base pretrain sft context-blind judge; do $(TRAIN)/$$stage.yaml --output $(RUNS)/$$stage || exit; done

clean:
	rm -rf build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
