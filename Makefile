# Everything happens in .venv; the only things needed beforehand are Python 3.11 to 3.13 and make.
PYTHON ?= python3
BIN := .venv/bin
SOURCES := enhancekit plugins/mfnn/enhancekit_mfnn plugins/classical/enhancekit_classical \
	plugins/spandrel/enhancekit_spandrel examples/third_party_block/acme_blocks

.PHONY: demo test benchmark clean

.venv/installed: pyproject.toml constraints.txt $(wildcard plugins/*/pyproject.toml examples/*/pyproject.toml)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt \
		-e ".[test]" -e plugins/mfnn -e plugins/classical -e examples/third_party_block
	$(BIN)/python -m pip install --quiet --no-deps -e plugins/spandrel  # its tests do without torchvision
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
