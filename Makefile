# One environment, made when needed: .venv with every version from constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-slow test-quantized chaos lint format bench-training bench-classification bench-service screenshots serve clean

demo: $(READY)
	$(BIN)/rootstock demo --out runs/demo

# One process for every core, each with one thread.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow" --numprocesses auto --maxprocesses 8 --dist loadfile

# Those that time something, drive a browser or a whole service have the machine to themselves.
ALONE = tests/service tests/pipelines/estimate tests/test_report_browser.py
test-slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow --numprocesses auto --maxprocesses 8 --dist loadfile $(ALONE:%=--ignore=%)
	$(BIN)/pytest -m slow $(ALONE)

# Beside the environment: where bitsandbytes can be found, peft imports it, and it logs a warning on most CPUs.
test-quantized: $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps --upgrade --target .venv/quantized bitsandbytes
	OMP_NUM_THREADS=1 PYTHONPATH=.venv/quantized $(BIN)/pytest tests/pipelines/test_quantized.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Long: 50 kills while a run is trained, 50 of a sweep, 30 while 200,000 rows are classified, 200 of a whole service on each database.
chaos: $(READY)
	ROOTSTOCK_KILLS=50 $(BIN)/pytest tests/test_kills.py
	ROOTSTOCK_KILLS=50 $(BIN)/pytest tests/test_sweep_kills.py
	ROOTSTOCK_KILLS=30 ROOTSTOCK_KILL_ROWS=200000 $(BIN)/pytest tests/test_classify_kills.py
	ROOTSTOCK_SERVICE_KILLS=200 $(BIN)/pytest tests/service/test_chaos.py

bench-training: $(READY)
	$(BIN)/python -m benchmarks.training

bench-classification: $(READY)
	$(BIN)/python -m benchmarks.classification

bench-service: $(READY)
	$(BIN)/python -m benchmarks.service

# Every page in both themes, wide and on a phone, into runs/screenshots.
screenshots: $(READY)
	$(BIN)/python -m tests.service.pages.screenshots runs/screenshots

# The API and a worker, on this machine only.
serve: $(READY)
	$(BIN)/rootstock serve

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(READY): constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt pip torch
	$(BIN)/pip install -qq --constraint constraints.txt --editable ".[dev]"
	touch $(READY)
