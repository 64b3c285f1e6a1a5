# SPDX-License-Identifier: BSD-2-Clause
# The one way in: every target sets up what it needs by itself. Knows commands; how to install is in scripts/setup.sh.

PYTHON ?=
TIME ?= 60
CRASH_COMMANDS ?= 2000
TESTS ?= tests
SCHEDULES ?= 1000
ARGS ?=
export PYTHON

BIN := .venv/bin
SETUP := scripts/setup.sh
ASAN := VENV=.venv-asan VSCSI_SANITIZE=address,undefined $(SETUP)
TSAN := VENV=.venv-tsan VSCSI_SANITIZE=thread $(SETUP)
# What runs C of ours in several threads; the rest of the tests would only be slower.
THREADED := tests/target/native tests/initiator tests/stress

.PHONY: help setup demo test lint format asan tsan fuzz stress crash model conformance bench bench-peers pictures clean

help:
	@echo 'make setup              install what is missing, build, install into .venv'
	@echo 'make demo               serve an image, inquire, write, read back, compare the protocols'
	@echo 'make test               every test (TESTS=path for some, ARGS="-k word" for pytest)'
	@echo 'make lint               ruff, mypy, import directions; C warnings are errors in every build'
	@echo 'make format             let ruff format the Python files'
	@echo 'make asan               the tests with AddressSanitizer and UndefinedBehaviorSanitizer, built in .venv-asan'
	@echo 'make tsan               the native modules and the C stress programs with ThreadSanitizer, TIME=60 seconds each'
	@echo 'make stress             the C stress programs in every variant, TIME=60 seconds each'
	@echo 'make model              every state of ring, task set and range locks, large bounds; SCHEDULES=1000 through the C'
	@echo 'make crash              every crash point of long random loads and of file systems (CRASH_COMMANDS=2000 each)'
	@echo 'make conformance        libiscsi'\''s tests through the SG_IO door on every kind of LUN (ARGS="--test Sanitize.*")'
	@echo 'make fuzz               the fuzz tests with new seeds for TIME=60 seconds, then each target in C and in Python'
	@echo 'make bench              bench/compare.py (ARGS="--quick")'
	@echo 'make bench-peers        the same beside other targets, which are installed first'
	@echo 'make pictures           draw the pictures in docs/ from docs/bench.json and docs/scheduler.json'
	@echo 'make clean              remove everything that was built or installed here'

setup:
	@$(SETUP)

demo: setup
	$(BIN)/python scripts/demo.py $(ARGS)

test: setup
	$(BIN)/pytest $(TESTS) $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --strict bench scripts/*.py
	$(BIN)/python scripts/imports.py

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Python itself is not built for leak checking; the C programs of the tests check their own leaks.
asan:
	@$(ASAN)
	LD_PRELOAD=$$(gcc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 \
	UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 .venv-asan/bin/pytest --timeout=600 $(TESTS) $(ARGS)

# Races in the modules are written to .setup/tsan.*: any such file is a failure. setarch: a layout TSan can live with.
tsan: setup
	@$(TSAN)
	rm -f .setup/tsan.*
	LD_PRELOAD=$$(gcc -print-file-name=libtsan.so) TSAN_OPTIONS="exitcode=0 log_path=$(CURDIR)/.setup/tsan" \
	setarch -R .venv-tsan/bin/pytest --timeout=600 $(THREADED) $(ARGS)
	@! cat .setup/tsan.* 2>/dev/null
	VSCSI_STRESS_SECONDS=$(TIME) $(BIN)/pytest --timeout=0 -m stress -k tsan $(TESTS) $(ARGS)

stress: setup
	VSCSI_STRESS_SECONDS=$(TIME) $(BIN)/pytest --timeout=0 -m stress $(TESTS) $(ARGS)

crash: setup
	VSCSI_CRASH_COMMANDS=$(CRASH_COMMANDS) VSCSI_CRASH_STATES=50 $(BIN)/pytest --timeout=0 tests/crash $(ARGS)

fuzz: setup
	scripts/fuzz.sh $(TIME) $(TESTS) $(ARGS)

model: setup
	PYTHONPATH=tests $(BIN)/python -m model
	VSCSI_MODEL_SCHEDULES=$(SCHEDULES) $(BIN)/pytest -q -s --timeout=0 tests/model/test_differential*.py $(ARGS)

# The package list has the tool; scripts/setup.sh installs it where it may.
conformance: setup
	@PYTHONPATH=tests $(BIN)/python -m suite $(ARGS)

bench: setup
	$(BIN)/python bench/compare.py $(ARGS)

bench-peers: setup
	@NEED=peers $(SETUP)
	$(BIN)/python bench/compare.py --peers --progress $(ARGS)

pictures: setup
	$(BIN)/python bench/compare.py --from docs/bench.json --docs docs
	$(BIN)/python bench/scheduler.py --from docs/scheduler.json --svg docs/scheduling.svg

clean:
	rm -rf .venv .venv-asan .venv-tsan .setup build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find vscsi target initiator bench tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
