# setup makes .venv and installs the package into it; the other targets call it first.
#   make demo                       the whole loop on the built-in lab, ends in runs/demo/report.html
#   make PYTHON=python3.12 setup    with another interpreter (3.11 or newer)

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

# How many files of tests run at once; their own processes come on top.
TEST_PROCESSES ?= 2

# Several processes share few cores; spinning BLAS threads cost many times the work itself.
export OMP_NUM_THREADS := 1

.PHONY: setup demo test check bench evidence

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("selfdev needs Python 3.11 or newer and this is " + sys.version.split()[0] + "; try make PYTHON=python3.12 setup")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

demo: setup
	$(BIN)/selfdev run configs/lab.yaml --out runs/demo

test: setup
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile

check: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy selfdev tests scripts benchmarks
	@$(MAKE) --no-print-directory test

# The six claims of EVIDENCE.md over five searches on the lab, about a hundred minutes on two cores.
evidence: setup
	$(BIN)/python scripts/evidence.py --out runs/evidence

bench: setup
	$(BIN)/python benchmarks/merge_and_score.py
	$(BIN)/python benchmarks/sandbox_entry.py
	$(BIN)/python benchmarks/merging.py --size small
	$(BIN)/python benchmarks/scoring.py
	$(BIN)/python benchmarks/writing.py
	$(BIN)/python benchmarks/attempts.py --sizes 1 5 20 100 500
	$(BIN)/python benchmarks/commands.py --without-run
	$(BIN)/python benchmarks/table.py
