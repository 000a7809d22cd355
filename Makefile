# Every target works alone on a fresh clone with a bare Python >= 3.10: it makes .venv and installs what it needs first.
#   make demo                          the whole story in two minutes
#   make test                          the fast tests
#   make test CONSTRAINTS=             with the newest torch instead of the one in constraints/cpu.txt
PYTHON ?= python3
CONSTRAINTS ?= constraints/cpu.txt
JOBS ?= 2
BIN := .venv/bin
READY := .venv/.ready
DEMO := .venv/.demo
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: help demo test test-slow faults fuzz mutants lint format types docs pages page bench results clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -4
	@echo "Targets: demo test test-slow faults fuzz mutants lint format types docs pages page bench results clean"

$(READY): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "isthmus needs Python >= 3.10; give one: make PYTHON=python3.12"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e '.[dev]'
	@touch $(READY) $(DEMO)

# The demo needs neither the linters nor the models: a part of what the tests install.
$(DEMO): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "isthmus needs Python >= 3.10; give one: make PYTHON=python3.12"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e '.[demo]'
	@touch $(DEMO)

demo: $(DEMO)
	$(BIN)/isthmus demo

test: $(READY)
	$(PYTEST) -n $(JOBS)

test-slow: $(READY)
	$(PYTEST) -n $(JOBS) -m slow

mutants: $(READY)
	$(BIN)/python tests/mutants/run_mutants.py --out bench/results/mutants.json

faults: $(READY)
	$(BIN)/python tests/faults/kills.py --kills 200 --out bench/results/faults.json
	$(BIN)/python tests/faults/fuzz_readers.py --cases 1000000 --out bench/results/faults.json

fuzz: $(READY)
	$(BIN)/python -m pip install -q atheris
	$(BIN)/python tests/faults/fuzz_readers.py --cases 1000000 --guided --out bench/results/faults.json

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY)
	$(BIN)/mypy

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict -q

page:
	cd page && npm ci --no-audit --no-fund && npm test && npm run build

bench: $(READY)
	for script in $(filter-out bench/render_%.py,$(wildcard bench/*.py)); do \
		$(BIN)/python $$script --out bench/results/$$(basename $$script .py).json || exit 1; done
	$(MAKE) --no-print-directory results

results: $(READY)
	$(BIN)/python bench/render_results.py

pages: $(READY)
	$(BIN)/python tests/docs/cli_page.py --write
	$(BIN)/python tests/docs/config_table.py --write
	$(BIN)/python tests/docs/benchmark_table.py --write

clean:
	rm -rf .venv build dist site isthmus-demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
