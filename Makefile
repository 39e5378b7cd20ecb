# The targets a person uses; `make` or `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# What `make demo` needs, and what the tests need on top of it.
DEMO_EXTRAS := dataset,quality,model,tracking,registry,dvc
TEST_EXTRAS := all,dev
# What `ocrmem pipeline submit` needs.
CLIENT_EXTRAS := pipelines
# Nothing that runs here talks to a hub or sends telemetry.
export HF_HUB_OFFLINE ?= 1
export DVC_NO_ANALYTICS ?= 1
export MLFLOW_DISABLE_TELEMETRY ?= true
export GX_ANALYTICS_ENABLED ?= false
export WANDB_SILENT ?= true
# The tiny models' operations are too small to share: a second thread waits more than it works.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help install client demo english test coverage lint format manifests reference docs lock bench image clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Every file that is installed has a hash in constraints.txt: what is downloaded is what was locked, build tools too.
# uv installs in seconds what takes pip minutes; where it cannot (an index only pip knows), pip installs the whole lock.
# Compiled once, here: where PYTHONDONTWRITEBYTECODE is set, every command would compile torch again, for half its time.
define install
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] < (3, 14) else "ocrmem needs Python 3.11, 3.12 or 3.13; set PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@awk '/^(uv|setuptools)==/ {keep = 1} keep {print} !/\\$$/ {keep = 0}' constraints.txt > $(VENV)/tools.txt
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --no-deps --require-hashes -r $(VENV)/tools.txt
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -b constraints.txt -e '.[$(1)]' \
	  || { echo "uv could not install; pip does it now (some minutes)"; \
	       $(BIN)/python -m pip install --quiet --no-deps --require-hashes --no-build-isolation -r constraints.txt \
	       && $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .; }
	@touch $@
endef

$(VENV)/.demo-installed: pyproject.toml constraints.txt
	$(call install,$(DEMO_EXTRAS))

$(VENV)/.test-installed: pyproject.toml constraints.txt
	$(call install,$(TEST_EXTRAS))
	@touch $(VENV)/.demo-installed $(VENV)/.client-installed

$(VENV)/.client-installed: pyproject.toml constraints.txt
	$(call install,$(CLIENT_EXTRAS))

$(VENV)/.docs-installed: pyproject.toml constraints.txt
	$(call install,docs)

client: $(VENV)/.client-installed  ## make .venv with what submitting a pipeline to a cluster needs

install: $(VENV)/.test-installed  ## make .venv with everything in it

demo: $(VENV)/.demo-installed  ## the whole main job on the tiny preset: conversations in, a registered adapter out
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro
	@$(BIN)/python scripts/demo_result.py

english: $(VENV)/.demo-installed  ## the same with real English, in english/: a night on two cores, and it resumes
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python scripts/english.py

TESTS := -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.test-installed  ## all tests; ALL_CASES=1 for every kill and every broken input
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python $(TESTS)

coverage: $(VENV)/.test-installed  ## all tests with coverage, which takes half as long again
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python $(TESTS) --cov --cov-report=term:skip-covered --cov-fail-under=85

lint: $(VENV)/.test-installed  ## ruff and mypy
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(VENV)/.test-installed  ## let ruff rewrite what it can
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

manifests: $(VENV)/.test-installed  ## write again what is made of settings and kept in git: pipelines/*.yaml, example TrainJobs
	$(BIN)/ocrmem pipeline compile && $(BIN)/python scripts/example_trainjobs.py

reference: $(VENV)/.test-installed  ## write what docs take from the code (settings, commands, errors, schemas, the notebook), and .gitignore
	$(BIN)/python scripts/settings_reference.py && $(BIN)/python scripts/schemas.py && $(BIN)/python scripts/notebook.py && $(BIN)/python -m ocrmem.steps reference

docs: $(VENV)/.docs-installed  ## docs/ as a site with search, in site/; python -m http.server -d site shows it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# After a change of pyproject.toml: `make lock UPGRADE=` adds and removes, and leaves all other versions as they are.
UPGRADE ?= --upgrade
lock:  ## resolve constraints.txt again, with hashes, for Python 3.11 to 3.13; needs uv and the network
	PATH="$(CURDIR)/$(BIN):$$PATH" uv pip compile --quiet $(UPGRADE) --universal --python-version 3.11 --all-extras --no-annotate \
	  --generate-hashes --custom-compile-command "make lock" -o constraints.txt pyproject.toml

bench: $(VENV)/.test-installed  ## the measured comparisons of benchmarks/, on a machine with nothing else to do
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python benchmarks/run_all.py

VARIANT ?= training
image:  ## the container image, by docker, podman or buildah; VARIANT=cpu leaves CUDA out
	$(PYTHON) scripts/build_image.py --variant $(VARIANT) -- $(BUILD_OPTIONS)

clean:  ## remove what the verbs wrote (not .venv)
	outputs=$$($(PYTHON) -m ocrmem.steps outputs) && rm -rf $$outputs
