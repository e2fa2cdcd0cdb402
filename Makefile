# The two commands: make ladder, make test. The daily ones: make check, make test-slow, make lock.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DATA   ?= dead_leaves

.DEFAULT_GOAL := help
.PHONY: help setup ladder test test-slow test-tpu libtpu check lock clean

help:
	@echo "make ladder             train the first ladder, forecast its largest model, judge the forecast"
	@echo "make ladder DATA=NAME   the same on fashion_mnist or eurosat (TFDS_MANUAL_DIR holds their files)"
	@echo "make test               the fast tests          make test-slow   the long ones"
	@echo "make libtpu             the TPU's compiler, for lab.launch.compile; make test-tpu: its tests"
	@echo "make check              ruff and pyrefly        make lock        renew requirements.lock"

setup: $(VENV)/installed

$(VENV)/installed: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@touch $@

ladder: setup
	$(BIN)/python experiments/01_first_ladder/ladder.py --data $(DATA)

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: setup
	TESTS_COMPILE_AS_USERS_DO=1 $(BIN)/python -m pytest -m slow

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check

libtpu: setup
	$(BIN)/python -m pip install --quiet --no-deps --target .cache/libtpu \
	  "$$($(BIN)/python -c 'from lab.launch.compile_job import libtpu_version; print(libtpu_version())')"

test-tpu: libtpu
	$(BIN)/python -m pytest -m tpu_backend

lock: setup
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.11 --no-emit-index-url --no-header --upgrade --quiet \
	  requirements-dev.txt --output-file requirements.lock

clean:
	rm -rf runs .cache
