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
	$(VENV)/bin/mask2dit generate storyboards/fox.yaml -o films/fox --overwrite

test: $(READY)
	$(RUN) -m pytest

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

# Retrains the built-in model from nothing, level A: autoencoder, text encoder, base, pretrain, sft, judge. Every step resumes where it stopped.
RUNS ?= runs/playhouse-a
playhouse: $(READY)
	for step in vae text base pretrain sft judge; do \
	  $(RUN) -m mask2dit.training recipes/playhouse-a/$$step.yaml --run $(RUNS)/$$step || exit; done

clean:
	rm -rf build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
