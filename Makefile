# One command each; all of them work in a fresh clone.
#   make demo          make the synthetic data set and run the default on it
#   make demo-compare  the same for Random, TJLS and all labels, then compare
#   make test          ruff and the quick tests, the same as CI
#   make test-all      the slow ones too: every kill, every whole trial
#   make ops           compile mmcv's ops into .venv (10-30 minutes, needs a C++ compiler)
#   make lint          ruff only
#   make clean         remove the demo's outputs and the caches; .venv stays

PYTHON ?= python3
BIN := .venv/bin
# The stamp of a finished installation: an interrupted one is done again.
INSTALLED := .venv/.installed

.PHONY: demo demo-compare test test-all ops lint clean

demo: $(INSTALLED)
	$(BIN)/python tools/make_demo_data.py --out data/demo
	$(BIN)/python tools/al_train.py configs/demo/demo_auto.py

demo-compare: demo
	for name in random tjls full; do \
	    $(BIN)/python tools/al_train.py configs/demo/demo_$$name.py || exit; done
	$(BIN)/python tools/al_compare.py work_dirs/demo_random work_dirs/demo_auto \
	    work_dirs/demo_tjls work_dirs/demo_full

test: lint
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

test-all: lint
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(INSTALLED)
	$(BIN)/ruff check .

# Without --no-cache-dir pip would take the wheel without ops that it built before.
# For the CUDA ops, set FORCE_CUDA=1 and have the CUDA toolkit of torch's version.
ops: $(INSTALLED)
	MMCV_WITH_OPS=1 CFLAGS="-g0 -O2" $(BIN)/python -m pip install \
	    --disable-pip-version-check --verbose --no-cache-dir --no-build-isolation \
	    --no-binary onedl-mmcv --no-deps --force-reinstall \
	    "$$(grep '^onedl-mmcv==' requirements/demo.txt)"

$(INSTALLED): requirements/demo.txt setup.py
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 10) else \
	    "Python 3.10 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet \
	    -r requirements/demo.txt
	$(BIN)/python -m pip install --disable-pip-version-check --quiet \
	    --no-deps --no-build-isolation --editable .
	touch $@

clean:
	rm -rf data/demo work_dirs/demo_auto work_dirs/demo_random work_dirs/demo_tjls
	rm -rf work_dirs/demo_full work_dirs/compare
	rm -rf build dist .pytest_cache .ruff_cache
	find tjls_mm tools tests configs -name __pycache__ -type d -prune -exec rm -rf {} +
