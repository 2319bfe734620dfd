# The two commands of the README are `make demo` and `make test`. Everything else is for developers.
# Needs python3 (3.11 or newer), make and git; uv comes into .make/ by itself.
SHELL := /bin/bash
PYTHON ?= python3
DOCKER ?= docker
UV := .make/uv/bin/uv
BIN := .venv/bin
# One worker more than there are cores: tests of dead writers, slow APIs and retries wait a good part of their time.
WORKERS ?= $(shell echo $$(($$(nproc 2>/dev/null || sysctl -n hw.ncpu) + 1)))
CONNECTORS ?= source-rest-api destination-s3-datalake

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-cdk test-pyairbyte audit check format lint typecheck imports spec chaos fuzz ablation traps kills-source bench-ingest bench-memory bench-source bench-manifest bench-costs transcripts images test-images clean

help: ## Explain every target
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .make/ready ## Make .venv with both connectors and every tool

.make/ready: uv.lock pyproject.toml $(wildcard */pyproject.toml) | $(UV)
	$(UV) sync --frozen --all-packages --quiet
	@touch $@

$(UV):
	@mkdir -p .make
	$(PYTHON) -m venv .make/uv
	.make/uv/bin/pip install --quiet --disable-pip-version-check uv

demo: setup ## Real API data to a lake on this machine, and a map of it
	@$(BIN)/python -m local_runner.demo

test: setup ## Run every test that needs no cloud account
	$(BIN)/pytest --numprocesses=$(WORKERS) --dist=worksteal $(PYTEST_ARGS)

test-cdk: setup ## The CDK's own test suite on both connectors, with our write scenarios, against stand-ins
	$(BIN)/python -m integration_tests.cdk_suite

test-pyairbyte: setup ## PyAirbyte drives both connectors, in an environment of its own (800 MB, minutes)
	$(BIN)/python -m integration_tests.pyairbyte_syncs

audit: setup ## Licences of what the images hold, and known vulnerabilities where the network allows
	$(BIN)/python -m integration_tests.audit

check: setup lint typecheck imports ## All static checks

lint: setup ## Formatter and linter, without changing anything
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: setup ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

typecheck: setup ## mypy, strict
	for part in source-rest-api destination-s3-datalake local-runner integration_tests benchmarks; do \
	  $(BIN)/mypy $$part || exit 1; done

imports: setup ## Which module may import which
	$(BIN)/lint-imports

chaos: setup ## Kill the destination at every step of its protocol, over 500 times (half an hour)
	$(BIN)/python -m integration_tests.chaos

fuzz: setup ## 100,000 hostile lines, each stored, stored with its change, or failed (hours; FUZZ_ARGS="--lines 1000")
	$(BIN)/python -m integration_tests.fuzz $(FUZZ_ARGS)

ablation: setup ## Take each guard of the protocol away and see a test notice
	$(BIN)/python -m integration_tests.ablation

traps: setup ## Take each fix of the source away and see its check notice
	$(BIN)/python -m integration_tests.traps

kills-source: setup ## Kill the source at 50 random moments; nothing is lost, little comes again (minutes)
	$(BIN)/python -m integration_tests.source_kills

bench-ingest: setup ## What writing costs, as ratios to bare DuckDB, the CDK's loop, pandas and dlt (minutes)
	unset PYTHONDONTWRITEBYTECODE; $(BIN)/python -m benchmarks.ingest

bench-memory: setup ## Time and memory from 100,000 to 10 million records, 200 streams, 1000 columns, 20 MB records (minutes)
	unset PYTHONDONTWRITEBYTECODE; $(BIN)/python -m benchmarks.memory

bench-source: setup ## What reading costs, as ratios to the stock CDK, dlt and a bare script (minutes)
	unset PYTHONDONTWRITEBYTECODE; $(BIN)/python -m benchmarks.source_read

bench-costs: setup ## Requests, bytes, copies, memory and disk of hourly syncs, into docs/costs.md (minutes)
	unset PYTHONDONTWRITEBYTECODE; $(BIN)/python -m benchmarks.costs --write

bench-manifest: setup ## What a pasted manifest costs to run, as a ratio to the CDK's own source
	unset PYTHONDONTWRITEBYTECODE; $(BIN)/python -m benchmarks.manifest_read

transcripts: setup ## Write the console sessions of docs/first-minutes.md anew (needs node)
	WRITE_TRANSCRIPTS=1 $(BIN)/pytest -q integration_tests/test_transcripts.py

spec: setup ## Make the spec.json files and the IAM policies anew from the code
	$(BIN)/python -m destination_s3_datalake.specification
	$(BIN)/python -m source_rest_api.specification
	$(BIN)/python -m destination_s3_datalake.iam destination-s3-datalake/iam

images: ## Build both Docker images (BASE_IMAGE=... for another base, DOCKER=podman for another engine)
	for connector in $(CONNECTORS); do \
	  DOCKER_BUILDKIT=1 $(DOCKER) build $(BUILD_ARGS) $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) \
	    --build-arg CONNECTOR=$$connector -f docker/Dockerfile -t local/$$connector:0.1.0 . || exit 1; done

test-images: setup ## Build the images and try them as users run them (an engine, or Debian as root; minutes)
	$(BIN)/pytest docker/test_images.py --capture=no -p no:cacheprovider --timeout=1800 $(PYTEST_ARGS)

clean: ## Remove everything that was made
	rm -rf .make .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache demo-output
