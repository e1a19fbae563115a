# Two commands for newcomers:   make book    make test
# A researcher with a GPU:      make book PROFILE=paper
PYTHON ?= python3
PROFILE ?= smoke
SECONDS ?= 600
SEED ?= 1
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Floors of pyproject.toml as the versions they name, and what runs tests as it is pinned there.
OLDEST = $(shell sed -n -e 's/^ *"\(torch[a-z]*\)>=\([0-9.]*\)".*/"\1==\2.*"/p' -e 's/^ *\("pytest[a-z-]*==[0-9.]*"\).*/\1/p' pyproject.toml)

# Rooms whose tests train next to nothing.
FAST = $(addprefix tests/,published data records judge review explore experiments/test_settings.py)

.PHONY: book test test-fast test-all test-oldest fuzz faults lint pdf chromium clean help

help:
	@echo "make book [PROFILE=smoke|mini|short|paper]   execute the chapters that changed, build _build/html"
	@echo "make test                              install what the tests need, run all but the slow ones"
	@echo "make test-fast                         what can be checked in a minute, without browser or book"
	@echo "make test-all                          the slow ones too: more than an hour on two cores"
	@echo "make test-oldest                       the tests of training and methods with the oldest torch that is supported"
	@echo "make fuzz [SECONDS=600]                odd and damaged inputs of every kind, for longer than make test draws them"
	@echo "make faults [SEED=1]                   kills, full disks, damaged files and more, done to sweeps: ten minutes"
	@echo "make lint                              ruff on code and notebooks, types by mypy, notebooks stripped of outputs"
	@echo "make pdf                               print every built page to _build/pdf"
	@echo "make clean                             remove _build (records of real profiles stay)"

book: .venv/book
	$(BIN)/python -m rkd book --profile $(PROFILE)

test: .venv/test chromium lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -q -m "not slow"

test-fast: .venv/test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -q -m "not slow and not browser" $(FAST)

test-all: .venv/test chromium lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -q

test-oldest: .venv-oldest/test
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n 2 -q -m "not slow" tests/training tests/review tests/methods

fuzz: .venv/test
	OMP_NUM_THREADS=1 RKD_FUZZ_SECONDS=$(SECONDS) $(BIN)/python -m pytest -q -s tests/test_fuzz.py

faults: .venv/test
	$(BIN)/python tests/faults.py --seed $(SEED) --out results/bench/faults.json

pdf: .venv/book chromium
	$(BIN)/python -m rkd.report.book.pdf

lint: .venv/test
	@twice=$$(find tests -name 'test_*.py' -exec basename {} \; | sort | uniq -d); \
	  test -z "$$twice" || { echo "test files need names of their own, since pytest imports them by name: $$twice"; exit 1; }
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/nbstripout --verify --extra-keys "metadata.papermill cell.metadata.papermill metadata.language_info.version" book/*.ipynb

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name one: make book PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv .venv \
	  || { rm -rf .venv; echo "python's venv module is missing: sudo apt install python3-venv"; exit 1; }

.venv/book: pyproject.toml | .venv/bin/python
	@echo "installing the book's packages into .venv (torch among them: some GB, a few minutes, once)"
	$(PIP) -e '.[book]'
	@touch $@

.venv/test: pyproject.toml .venv/book
	$(PIP) -e '.[book,test]'
	@touch $@

.venv-oldest/test: pyproject.toml | .venv/bin/python
	@$(BIN)/python -m venv .venv-oldest
	@echo 'installing $(OLDEST) into .venv-oldest (some GB, a few minutes, once)'
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check -e . $(OLDEST)
	@touch $@

# Chromium opens the built book in the tests. Where it cannot be installed those tests are skipped by name.
chromium:
	@if command -v chromedriver >/dev/null && command -v chromium >/dev/null; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ]; then run=""; elif sudo -n true 2>/dev/null; then run="sudo -n"; else run="no"; fi; \
	if [ "$$run" = no ] || ! command -v apt-get >/dev/null; then \
	  echo "Chromium is missing and cannot be installed without root: browser tests will be skipped"; exit 0; fi; \
	$$run env DEBIAN_FRONTEND=noninteractive sh -c 'apt-get update -qq && apt-get install -y -qq chromium chromium-driver' >/dev/null \
	  || echo "Chromium could not be installed: browser tests will be skipped"

clean:
	rm -rf _build
