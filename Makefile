# Everything happens in .venv; the only things needed beforehand are Python 3.11 to 3.13 and make.
PYTHON ?= python3
BIN := .venv/bin
SOURCES := enhancekit plugins/mfnn/enhancekit_mfnn plugins/classical/enhancekit_classical \
	examples/third_party_block/acme_blocks

.PHONY: demo test benchmark clean

.venv/installed: pyproject.toml plugins/mfnn/pyproject.toml plugins/classical/pyproject.toml examples/third_party_block/pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt \
		-e ".[test]" -e plugins/mfnn -e plugins/classical -e examples/third_party_block
	touch $@

demo: .venv/installed
	$(BIN)/python examples/demo.py

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(SOURCES)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

benchmark: .venv/installed
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -p enhancekit.testing.options \
		--pyargs enhancekit.testing.benchmarks tests/benchmarks --benchmark-only

clean:
	rm -rf .venv out build
