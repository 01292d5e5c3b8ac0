# make demo   install, pretrain, fine-tune and test on synthetic videos
# make demo-images  the same on pictures of shapes
# make demo-pretraining  what pretraining is worth with few labels (an hour or more)
# make test   install and run the tests
# make gpu    measure everything on a GPU (12 minutes)
# make docs   the documentation as a web site, in build/docs/
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo demo-images demo-scratch demo-pretraining test test-slow gpu lint docs clean

# The stamp is remade when what is to be installed changes. Most modules are never imported: those
# that are get compiled then, once, also in containers whose Python is told to write no bytecode.
export PYTHONDONTWRITEBYTECODE :=
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python 3.11 to 3.13 is needed; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/python benchmarks/demo.py

demo-images: $(VENV)/installed
	$(BIN)/python -m benchmarks.images_demo

demo-pretraining: $(VENV)/installed
	$(BIN)/python -m benchmarks.demo_pretraining

demo-scratch: $(VENV)/installed
	$(BIN)/python benchmarks/demo.py --scratch

# Two halves at once, for two cores: most of the integration tests, and all others. What the one in
# the background prints comes at the end. Threads of both on the same core would wait for one another.
NOT_IN_HALF := test_real_clips test_wheel
HALF := $(filter-out $(NOT_IN_HALF:%=tests/integration/%.py),$(wildcard tests/integration/test_*.py))
test: export OMP_NUM_THREADS := 1
test: $(VENV)/installed
	@$(BIN)/python -m pytest $(HALF) > $(VENV)/half.log 2>&1 & other=$$!; \
	$(BIN)/python -m pytest $(HALF:%=--ignore=%); one=$$?; \
	wait $$other; two=$$?; cat $(VENV)/half.log; exit $$((one || two))

test-slow: $(VENV)/installed
	$(BIN)/python -m pytest -m 'slow or not slow'

gpu: $(VENV)/installed
	$(BIN)/python benchmarks/gpu.py

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean:
	rm -rf $(VENV) runs/demo data/synthetic
