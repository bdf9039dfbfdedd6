# Every task of a developer. `make setup` once, then `make check` while working, `make test` before a push.
# Settings: JOBS=n compiler processes, ARGS="..." passed on to pytest, the demo or the benchmarks.

SHELL := /bin/sh
PYTHON := .venv/bin/python
export PATH := $(CURDIR)/.venv/bin:$(PATH)
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
ARGS ?=

# -P and not the working directory at the front of sys.path: the `pythonpath` setting of pyproject.toml, or a
# staged build given instead, comes before PYTHONPATH.
PYTEST := PYTHONPATH=$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH} $(PYTHON) -P -m pytest
CTEST := ctest --output-on-failure --no-tests=error --test-dir
FAST := -m "not sweep and not slow" --ignore=tests/models
CPP = $(shell git ls-files -co --exclude-standard 'csrc/*.cpp' 'csrc/*.h' 'csrc/*.c' 'tests/*.cpp' 'tests/*.h' 2>/dev/null)

.PHONY: help setup build debug asan tsan check test sweep demo bench format lint wheel clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## system packages if missing, .venv with the pinned requirements
	@tools/setup.sh

build: setup  ## the release build, in place
	@tools/build.sh release $(JOBS)

debug: setup  ## a debug build under build/debug, fast tests on it
	@tools/build.sh debug $(JOBS)
	@$(CTEST) build/debug
	@$(PYTEST) -o pythonpath=build/debug/stage $(FAST) $(ARGS)

asan: setup  ## AddressSanitizer and UBSan build under build/asan, fast tests on it
	@tools/build.sh asan $(JOBS)
	@$(CTEST) build/asan
	@LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so)" \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
	  $(PYTEST) -o pythonpath=build/asan/stage $(FAST) $(ARGS)

tsan:  ## ThreadSanitizer on the unit tests that need neither torch nor Python
	@cmake --preset tsan >/dev/null
	@cmake --build --preset tsan -j $(JOBS)
	@ctest --preset tsan

check: build  ## the fast tests, in about a minute
	@$(PYTEST) $(FAST) -n $(JOBS) $(ARGS)

test: build  ## C++ unit tests, fast tests, model tests
	@$(CTEST) build/release
	@$(PYTEST) -m "not sweep" $(ARGS)

sweep: build  ## the long corpora
	@$(PYTEST) -m sweep $(ARGS) || [ $$? -eq 5 ]  # 5: there is none
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
	@mkdir -p build/lint  # a flag that clang does not know is left out
	@sed 's/ -mtls-dialect=gnu2//g' build/release/compile_commands.json > build/lint/compile_commands.json
	@printf '%s\n' $(filter csrc/%.cpp,$(CPP)) | xargs -P $(JOBS) -n 4 clang-tidy -quiet -p build/lint

wheel: setup  ## a wheel in dist/
	@$(PYTHON) -m pip wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps -w dist .

clean:  ## what was built; .venv stays
	rm -rf build dist flashpoint/*.so
