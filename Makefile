# make demo | make test | make check | make docs | make clean; needs Python >= 3.11 and a package registry.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := $(shell find onnx_lapq cli calibration -name '*.py' -o -name '*.j2') pyproject.toml
PREPROCESSING := --mean 0.2860 --std 0.3530

.PHONY: demo test test-ray check docs clean

demo: $(VENV)/installed
	@mkdir -p build/demo
	$(BIN)/onnx-lapq demo/model.onnx demo/calib -o build/demo/model_w4a4.onnx -w 4 -a 4 $(PREPROCESSING)
	$(BIN)/onnx-lapq evaluate demo/model.onnx build/demo/model_w4a4.onnx --data demo/test $(PREPROCESSING)

test: $(VENV)/installed-test
	$(BIN)/python -m pytest -n auto --dist worksteal

test-ray: $(VENV)/installed-test $(VENV)/installed-ray
	$(BIN)/python -m pytest tests/evaluation/test_ray_evaluator.py

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/installed-docs
	$(BIN)/mkdocs build --strict --site-dir build/site

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/installed: $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet .
	touch $@

$(VENV)/installed-%: $(VENV)/installed
	$(BIN)/python -m pip install --quiet ".[$*]"
	touch $@
