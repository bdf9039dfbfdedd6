# Every task of a developer. `make setup` once, then `make check` while working, `make test` before a push.
# Settings: JOBS=n compiler processes, ARGS="..." passed on to pytest, the demo or the benchmarks.

SHELL := /bin/sh
PYTHON := .venv/bin/python
export PATH := $(CURDIR)/.venv/bin:$(PATH)
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
ARGS ?=

# -P keeps the working directory off sys.path, so that a staged build is not shadowed by the tree;
# the `pythonpath` setting of pyproject.toml puts the tree there.
PYTEST := $(PYTHON) -P -m pytest
FAST := -m "not sweep and not slow" --ignore=tests/models
CPP := $(shell git ls-files -co --exclude-standard 'csrc/*.cpp' 'csrc/*.h' 'csrc/*.c' 'tests/*.cpp' 'tests/*.h' 2>/dev/null)

.PHONY: help setup build debug asan check test sweep demo bench format lint wheel clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

setup:  ## system packages if missing, .venv with the pinned requirements
	@tools/setup.sh

build: setup  ## the release build, in place
	@tools/build.sh release $(JOBS)

debug: setup  ## a debug build under build/debug, fast tests on it
	@tools/build.sh debug $(JOBS)
	@$(PYTEST) -o pythonpath=build/debug/stage $(FAST) $(ARGS)

asan: setup  ## AddressSanitizer and UBSan build under build/asan, fast tests on it
	@tools/build.sh asan $(JOBS)
	@LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so)" \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
	  $(PYTEST) -o pythonpath=build/asan/stage $(FAST) $(ARGS)

check: build  ## the fast tests
	@$(PYTEST) $(FAST) $(ARGS)

test: build  ## C++ unit tests, fast tests, model tests
	@ctest --test-dir build/release --output-on-failure --no-tests=ignore
	@$(PYTEST) -m "not sweep" $(ARGS)

sweep: build  ## the long corpora
	@$(PYTEST) -m sweep $(ARGS)
	@if [ -f tools/cpython_tests.py ]; then $(PYTHON) tools/cpython_tests.py; fi

demo: build  ## eight Hugging Face architectures, checked against eager and timed
	@PYTHONPATH=$(CURDIR) $(PYTHON) tools/demo.py $(ARGS)

bench: build  ## the benchmarks, as JSON lines
	@PYTHONPATH=$(CURDIR) $(PYTHON) -m benchmarks $(ARGS)

format: setup  ## clang-format and ruff, in place
	@clang-format -i $(CPP)
	@ruff check -q --fix --select I .
	@ruff format -q .

lint: build  ## clang-format, clang-tidy, ruff; changes nothing
	@tools/setup.sh lint
	@clang-format --dry-run -Werror $(CPP)
	@ruff check .
	@ruff format --check .
	@clang-tidy -quiet -p build/release $(filter csrc/%.cpp,$(CPP))

wheel: setup  ## a wheel in dist/
	@$(PYTHON) -m pip wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps -w dist .

clean:  ## what was built; .venv stays
	rm -rf build dist flashpoint/*.so
