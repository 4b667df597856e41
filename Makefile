# SPDX-License-Identifier: Apache-2.0
# Everything a newcomer runs: demo, test, check, bench, docs. Needs python3 (3.11 or newer), a C++20
# compiler and make; the rest is installed with pip into VENV on first use.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
PYTEST_ARGS ?= -n auto
# A model that `make demo` uses instead of the built-in one, and that `make bench` measures.
MODEL ?=
# What `make demo` reads: a file or a folder of documents instead of the samples.
DOCUMENTS ?=
PEER_VENV ?= .venv-peer
BENCH_ARGS ?=
# Prints the peer's pinned requirement out of the bench extra: one place names the version.
PEER_PIN := import tomllib; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; print(next(r for r in extras["bench"] if r.startswith("llama-cpp-python")))

# The pinned version's kernels for tile matrices (AMX) end in an illegal instruction as soon as a
# second thread runs them, so the peer does without.
NO_TILES := -mno-amx-tile -mno-amx-int8 -mno-amx-bf16
PEER_FLAGS := $(if $(findstring amx_tile,$(shell cat /proc/cpuinfo 2>/dev/null)),'-DCMAKE_C_FLAGS=$(NO_TILES)' '-DCMAKE_CXX_FLAGS=$(NO_TILES)')

NATIVE := $(shell find native -type f 2>/dev/null) CMakeLists.txt

.PHONY: help demo test nightly check format bench bench-serve bench-documents bench-table docs sanitize neon clean

help:
	@echo "make demo      build, then let the built-in model read documents (MODEL=path, DOCUMENTS=path)"
	@echo "make test      run the tests (PYTEST_ARGS='-k gguf' and the like)"
	@echo "make nightly   ten minutes of impatient clients, hundreds of requests to every route, heavy clients"
	@echo "make check     linters, types, formatting"
	@echo "make format    let ruff and clang-format rewrite what they can"
	@echo "make bench     measure against llama.cpp (MODEL=path to a GGUF file; made if not given)"
	@echo "make bench-serve  measure the server beside the library and beside llama-cpp-python's server"
	@echo "make bench-documents  a job beside the same documents one by one through that server"
	@echo "make docs      refresh the benchmark table and picture from benchmarks/results"
	@echo "make sanitize  native tests under AddressSanitizer and UBSan"
	@echo "make neon      the aarch64 kernels under qemu"

# -- environment ------------------------------------------------------------------------------
# The build tools live in VENV and the package is built without isolation, so that a second
# build only compiles what changed.

$(VENV)/.tools:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "freehold needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install 'scikit-build-core>=0.11' 'nanobind>=2.7' 'cmake>=3.24' ninja
	@touch $@

$(VENV)/.package: $(VENV)/.tools pyproject.toml $(NATIVE)
	$(PIP) install --no-build-isolation -e .
	@touch $@

$(VENV)/.test: $(VENV)/.package pyproject.toml
	$(PIP) install --no-build-isolation -e '.[test]'
	@touch $@

$(VENV)/.dev: $(VENV)/.package pyproject.toml
	$(PIP) install --no-build-isolation -e '.[dev]'
	@touch $@

$(PEER_VENV)/.peer: pyproject.toml
	$(PYTHON) -m venv $(PEER_VENV)
	CMAKE_ARGS="-DGGML_NATIVE=ON $(PEER_FLAGS)" $(PEER_VENV)/bin/python -m pip --quiet install \
	  --no-binary llama-cpp-python "$$($(PYTHON) -c '$(PEER_PIN)')"
	@touch $@

# -- what people run --------------------------------------------------------------------------

demo: $(VENV)/.package
	@$(BIN)/freehold doctor
	@echo; echo '$$ freehold demo $(if $(DOCUMENTS),$(DOCUMENTS) )$(if $(MODEL),--model $(MODEL))'
	@$(BIN)/freehold demo $(if $(DOCUMENTS),"$(DOCUMENTS)") $(if $(MODEL),--model "$(MODEL)")

test: $(VENV)/.test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# What takes too long for every change. FUZZ is the number of requests each route gets.
SOAK_MINUTES ?= 10
FUZZ ?= 300
nightly: $(VENV)/.test
	$(BIN)/python tests/server/soak.py --minutes $(SOAK_MINUTES)
	FREEHOLD_FUZZ_EXAMPLES=$(FUZZ) $(BIN)/python -m pytest tests/server/test_openapi.py
	$(BIN)/python tests/clients/run.py

# The recipes' types are checked against torch, which comes with the tests.
check: $(VENV)/.dev $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	find native tests/native -name '*.cpp' -o -name '*.h' -o -name '*.inl' | xargs -r $(BIN)/clang-format --dry-run -Werror

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	find native tests/native -name '*.cpp' -o -name '*.h' -o -name '*.inl' | xargs -r $(BIN)/clang-format -i

# Files with random weights: nothing is downloaded, and what they say is noise.
BENCH_MODEL := build/bench/llama-1b-Q4_K_M.gguf
WORDS_MODEL := build/bench/llama-1b-Q4_K_M-words.gguf

$(BENCH_MODEL): | $(VENV)/.package
	$(BIN)/python benchmarks/make_model.py --shape llama-1b --mix Q4_K_M --out $@

$(WORDS_MODEL): | $(VENV)/.package
	$(BIN)/python benchmarks/make_model.py --shape llama-1b --mix Q4_K_M --words --out $@

$(PEER_VENV)/.server: $(PEER_VENV)/.peer
	pin="$$($(PYTHON) -c '$(PEER_PIN)')"; \
	$(PEER_VENV)/bin/python -m pip --quiet install "$${pin/==/[server]==}"
	@touch $@

bench: $(VENV)/.package $(PEER_VENV)/.peer $(if $(MODEL),,$(BENCH_MODEL))
	$(BIN)/python benchmarks/bench_engine.py --model "$(or $(MODEL),$(BENCH_MODEL))" \
	  --peer-python $(PEER_VENV)/bin/python $(BENCH_ARGS)

bench-serve: $(VENV)/.package $(PEER_VENV)/.server $(if $(MODEL),,$(WORDS_MODEL))
	$(BIN)/python benchmarks/bench_serve.py --model "$(or $(MODEL),$(WORDS_MODEL))" \
	  --peer-python $(PEER_VENV)/bin/python $(BENCH_ARGS)

bench-documents: $(VENV)/.package $(PEER_VENV)/.server $(if $(MODEL),,$(WORDS_MODEL))
	$(BIN)/python benchmarks/bench_documents.py --model "$(or $(MODEL),$(WORDS_MODEL))" \
	  --only shared --peer-python $(PEER_VENV)/bin/python $(BENCH_ARGS)

RESULTS := $(wildcard benchmarks/results/*.json)
docs: $(VENV)/.package
	$(BIN)/python tools/supported_models.py page
	$(BIN)/python benchmarks/fill_table.py $(RESULTS)
	@if [ -z "$(RESULTS)" ]; then echo "no stored results: the table says so"; \
	elif $(BIN)/python -c 'import matplotlib' 2>/dev/null; then \
	  $(BIN)/python benchmarks/plot.py $(RESULTS) --out docs/benchmarks.png; \
	else echo "matplotlib is not installed: the picture was left as it is"; fi

# -- native lanes -----------------------------------------------------------------------------

sanitize: $(VENV)/.test
	@if [ -f tests/native_sanitize.sh ]; then BIN=$(abspath $(BIN)) bash tests/native_sanitize.sh; \
	else echo "tests/native_sanitize.sh is not there: nothing to do"; fi

neon: $(VENV)/.tools
	@if [ ! -f tests/native_neon.sh ]; then \
	  echo "tests/native_neon.sh is not there: nothing to do"; \
	elif ! command -v qemu-aarch64 >/dev/null || ! command -v aarch64-linux-gnu-g++ >/dev/null; then \
	  echo "skipped: needs qemu-aarch64 and aarch64-linux-gnu-g++ (Debian: qemu-user, g++-aarch64-linux-gnu)"; \
	else BIN=$(abspath $(BIN)) bash tests/native_neon.sh; fi

clean:
	rm -rf build dist
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
