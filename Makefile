# Everything starts with `make help`. Python 3.10 to 3.13; another one than python3: make PYTHON=python3.12 ...
PYTHON ?= python3
RUN := .venv/bin/python
# Where measurements go, with their plots and pages; BENCH_ARGS are options of the command.
BENCH_FOLDER ?= docs/benchmarks
LIBRARY ?= torch
MICRO = micro$(if $(filter-out torch,$(LIBRARY)),.$(LIBRARY))
bench_page = $(RUN) -m hvd_compress bench-plot $(BENCH_FOLDER)/$(1).json -o $(BENCH_FOLDER)/$(1).svg --markdown $(BENCH_FOLDER)/$(1).md
DEMO_ARGS := $(if $(FRAMEWORK),--framework $(FRAMEWORK)) $(if $(METHOD),--method $(METHOD)) $(if $(NP),--np $(NP))

.DEFAULT_GOAL := help
.PHONY: help demo test bench bench-micro bench-growth check format setup clean
.SUFFIXES:

help: ## show this list
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / {sub("%", "N", $$1); printf "  make %-12s %s\n", $$1, $$2}' Makefile

demo: setup ## set up, then train a CNN on Fashion-MNIST with two workers (FRAMEWORK=keras METHOD=... NP=...)
	@$(RUN) examples/demo.py $(DEMO_ARGS)

test: setup ## set up, then run the whole suite
	@$(RUN) -m pytest

test-%: setup ## set up, then run the multi-process tests with N ranks, as in make test-3
	@case '$*' in *[!0-9]*|0*) echo 'make test-N takes a number of ranks, as in make test-3' >&2; exit 1;; esac
	@HVD_COMPRESS_TEST_RANKS=$* $(RUN) -m pytest -m multiprocess

check: setup ## formatting, lint and types
	@$(RUN) -m ruff format --check --quiet || { echo 'run `make format`' >&2; exit 1; }
	@$(RUN) -m ruff check --quiet
	@$(RUN) -m mypy

bench: setup ## set up, then as root train on links of several rates, against Horovod and DDP (BENCH_ARGS=...)
	@mkdir -p $(BENCH_FOLDER)
	@$(RUN) -m hvd_compress bench-network --json $(BENCH_FOLDER)/network.json $(BENCH_ARGS)
	@$(call bench_page,network)

bench-micro: setup ## set up, then measure compressors by themselves, 4 KB to 256 MB (LIBRARY=torch, numpy or tensorflow)
	@mkdir -p $(BENCH_FOLDER)
	@$(RUN) -m hvd_compress bench -e 256M --library $(LIBRARY) --json $(BENCH_FOLDER)/$(MICRO).json $(BENCH_ARGS)
	@$(call bench_page,$(MICRO))

bench-growth: setup ## set up, then measure more parameters, tensors and workers (BENCH_ARGS=...)
	@mkdir -p $(BENCH_FOLDER)
	@$(RUN) -m hvd_compress bench-growth --json $(BENCH_FOLDER)/growth.json $(BENCH_ARGS)
	@$(call bench_page,growth)

format: setup ## format the code and repair what lint can repair
	@$(RUN) -m ruff format --quiet
	@$(RUN) -m ruff check --fix --quiet

setup: ## make .venv with Horovod, torch, TensorFlow and Open MPI, and fetch the data
	@command -v $(PYTHON) >/dev/null || { \
		echo 'set-up: $(PYTHON) not found: install Python 3.11 (Debian, Ubuntu: `sudo apt install python3`).' >&2; \
		exit 1; }
	@$(PYTHON) ci/setup.py

clean: ## remove what set-up and the tools made here (the cache in ~/.cache/hvd_compress stays)
	@rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -prune -exec rm -rf {} +
