# The only interface to the book. `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
# TORCH=cpu takes PyTorch's CPU wheels: pip would bring a CUDA build of several
# gigabytes on Linux otherwise.
TORCH ?=
ifeq ($(TORCH),cpu)
TORCH_INDEX := --extra-index-url https://download.pytorch.org/whl/cpu
else ifneq ($(TORCH),)
$(error TORCH=$(TORCH) is unknown: use TORCH=cpu, or leave it unset for pip's default)
endif
PINS := $(shell cat requirements.txt constraints.txt pyproject.toml | cksum | tr -d ' ')
STAMP := $(VENV)/ready-$(PINS)
PORT ?= 8000

.PHONY: help env book read test check chapter new import lab bench portability pdf clean

help: ## list the targets
	@echo "Proved by Running: the executable textbook for LLM engineers"
	@grep -E '^[a-z]+: .*## |^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /\1\t/' | \
	  awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo "next: make book (read) or make test (check everything)"

env: $(STAMP) ## set up .venv with the exact pins (all targets do it when needed)

$(STAMP): requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed; name one with PYTHON=python3.11"; exit 1; }
	@echo "setting up $(VENV) with the pinned packages (minutes, once)"
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check $(TORCH_INDEX) \
	  -r requirements.txt -c constraints.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@rm -f $(VENV)/ready-*; touch $@
	@echo "$(VENV) is ready; next: make book or make test"

book: $(STAMP) ## build the HTML site from the stored outputs and print its path
	@$(PY) tools/build_site.py build
	@echo "next: make read, or open the file above"

read: $(STAMP) ## serve the built site on 127.0.0.1 (PORT=8000)
	@$(PY) tools/build_site.py serve --port $(PORT)

test: $(STAMP) ## run everything: tests, every chapter, the site in a browser
	@$(PY) tools/run_tests.py $(if $(filter 1,$(CHANGED)),--changed)
	@echo "next: make portability before you call a chapter finished"

check: $(STAMP) ## the fast gates, under two minutes, no chapter executed
	@$(PY) tools/run_tests.py --fast
	@echo "next: make test"

chapter: $(STAMP) ## execute a chapter: make chapter C=3.02 (several: C="3.02 1.10")
	@test -n "$(C)" || { echo "error: which chapter? make chapter C=3.02"; exit 1; }
	@$(PY) tools/build_notebooks.py $(C)

new: $(STAMP) ## start a chapter: make new C=3.03 S=transformer
	@test -n "$(C)" -a -n "$(S)" || { echo "error: say which: make new C=3.03 S=transformer"; exit 1; }
	@$(PY) tools/new_chapter.py "$(C)" "$(S)"

import: $(STAMP) ## take JupyterLab edits back into the source: make import C=3.02
	@test -n "$(C)" || { echo "error: which chapter? make import C=3.02"; exit 1; }
	@$(PY) tools/import_notebook.py $(C)

lab: $(STAMP) ## open the chapters in JupyterLab
	@echo "edit in JupyterLab, then: make import C=..., make chapter C=..."
	@$(PY) -m jupyterlab chapters
	@echo "next: make import C=... for the chapters you edited"

bench: $(STAMP) ## compare llmbook with the libraries; time the book: benchmarks/results/
	@$(PY) benchmarks/package.py
	@$(PY) benchmarks/book.py

portability: $(STAMP) ## re-run chapters as other CPUs would (C="3.02", ALL=1)
	@$(PY) tools/portability.py $(C) $(if $(ALL),--all)

pdf: $(STAMP) ## print the whole book into one PDF (minutes; needs Chromium)
	@$(PY) tools/build_pdf.py

clean: ## remove the site, caches and .venv
	@rm -rf _build .cache .ruff_cache .mypy_cache .pytest_cache *.egg-info $(VENV)
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "removed build products, caches and $(VENV); next: make book"
