# Two commands for a new clone:  make demo   and   make test
# Needed: CPython 3.11, pip, make, g++.  On a machine without a GPU, spare yourself the CUDA packages:
#   make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON   ?= python3
PIP_ARGS ?=
TEST_ARGS ?=
WORKERS  ?= 2
VENV     := .venv
BIN      := $(VENV)/bin
READY    := $(VENV)/.ready
TOOLS    := .tools
CHECKERS := $(TOOLS)/.ready

NATIVE   := CMakeLists.txt $(shell find src/openautoglm/runtime -name '*.cpp' -o -name '*.h')

.PHONY: demo test coverage lint bench docs picture native protos tools sbom audit clean

$(READY): constraints.txt pyproject.toml $(NATIVE)
	$(PYTHON) -c 'import sys; sys.exit("CPython 3.11 or later is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_ARGS) -c constraints.txt -e '.[train,serve,dev]'
	touch $@

demo: $(READY)  ## a dirty data set becomes a small GLM: cleaned, searched, trained, scored, exported
	$(BIN)/python examples/quickstart/demo.py

test: $(READY)  ## every test, two at a time
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -q -n $(WORKERS) $(TEST_ARGS)

coverage:  ## every test, and the lines that none has run; takes a quarter longer
	$(MAKE) --no-print-directory test TEST_ARGS="--cov --cov-report=term:skip-covered"

lint: $(READY)  ## style, types, and the import contract
	$(BIN)/ruff check src tests examples benchmarks deploy
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)  ## the figures of docs/benchmarks.md, one script after the other
	for script in benchmarks/*.py; do echo "== $$script" && $(BIN)/python $$script || exit 1; done

native:  ## the extension alone, built beside its Python files; needs cmake, ninja and nanobind (extra `dev`)
	PATH="$(abspath $(BIN)):$$PATH" cmake -S . -B build/native -G Ninja $(CMAKE_ARGS) \
	    -DPython_EXECUTABLE=$$(PATH="$(abspath $(BIN)):$$PATH" $(PYTHON) -c 'import sys; print(sys.executable)')
	PATH="$(abspath $(BIN)):$$PATH" cmake --build build/native
	PATH="$(abspath $(BIN)):$$PATH" cmake --install build/native --prefix src

protos: $(READY)  ## the Python code of src/openautoglm/protos/*.proto; a test holds that it is theirs
	$(BIN)/python -m grpc_tools.protoc -I src --python_out=src --pyi_out=src src/openautoglm/protos/*.proto

docs: $(READY)  ## docs/task-reference.md from the settings models
	$(BIN)/python -m openautoglm.pipeline.reference docs/task-reference.md

picture: $(READY)  ## the README's picture, from the last `make demo`
	$(BIN)/python examples/quickstart/picture.py

tools: $(CHECKERS)  ## programs that check deploy/, write the SBOM and audit, in an environment of their own

$(CHECKERS): deploy/audit/tools.txt
	test -x $(TOOLS)/bin/python || $(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --disable-pip-version-check -q -r deploy/audit/tools.txt
	touch $@

sbom: $(READY) $(CHECKERS)  ## sbom.json: all that `serve` and `train` need, as installed, in CycloneDX's form
	mkdir -p build
	$(TOOLS)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-format JSON \
	    --output-file build/environment.json $(BIN)/python
	$(BIN)/python deploy/audit/sbom.py pyproject.toml build/environment.json sbom.json

audit: $(CHECKERS)  ## faults in our sources, and advisories on every pin; status 3 where no advisories could be had
	$(TOOLS)/bin/python deploy/audit/audit.py

clean:  ## what the tools leave behind; runs and the environment stay
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage htmlcov
