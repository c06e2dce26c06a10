# What this project can do, one word each. `make` alone lists them.

PYTHON ?= python3
SKLEARN ?= 1.9
PYTHON_VERSION ?= 3.13
FORMATS ?=
IMAGE ?= skserve
VENV := .venv
RUN := $(VENV)/bin/python

# Processes of `make test`: one more than cores, as tests of servers wait as much as they work.
JOBS ?= 3

# For bench and bench-peers: where models and peers are kept, a smoke run, a choice of each.
CACHE ?= build
BENCH = $(RUN) -m benchmarks --cache $(CACHE) $(if $(QUICK),--quick) $(if $(WORKS),--works '$(WORKS)') \
  $(if $(OLDER),--older $(OLDER))

export PYTHONPATH := $(CURDIR)/container

.DEFAULT_GOAL := help
.PHONY: help demo serve test check house audit soak bench bench-peers image cloud clean

help:  ## list the words
	@grep -E '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 13

demo: $(VENV)/serve  ## train both examples, serve them, send requests, stop
	@$(RUN) examples/demo.py

serve: $(VENV)/serve  ## serve a folder: make serve MODEL=path/to/folder
	@echo "When the model is loaded, try it at http://localhost:$${SAGEMAKER_BIND_TO_PORT:-8080}/"
	@$(RUN) -m skserve serve --model-dir $(or $(MODEL),$(error say which folder: make serve MODEL=path))

check: $(VENV)/dev  ## format, lint, types, shell scripts, the limits of make house
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(VENV)/bin/shellcheck $$(git ls-files '*.sh') .ci/run
	$(RUN) tests/house.py --quiet

house: $(VENV)/dev  ## lengths of modules, classes and functions, comments, the graph of packages
	@$(RUN) tests/house.py

test: check  ## check, then every test that takes seconds; with Docker the image too
	@$(RUN) -m compileall -q container deployment local_test  # or each process of a test would
	$(RUN) -m pytest -m "not soak" --numprocesses $(JOBS) --dist loadfile \
	  --no-loadscope-reorder

audit: $(VENV)/dev  ## licences and known vulnerabilities of all pins (ADVISORIES=all.zip of OSV)
	@$(RUN) requirements/audit.py $(ADVISORIES)

soak: $(VENV)/fuzz  ## the tests that take minutes
	$(RUN) -m pytest -m soak

bench: $(VENV)/serve  ## how fast we answer, into build/bench.json (QUICK=1, WORKS=, OLDER=a commit beside today's)
	$(BENCH) --out build/bench.json

bench-peers: $(VENV)/bench  ## the same beside other servers, with a picture (QUICK=1, PEERS=, WORKS=)
	$(BENCH) --peers $(or $(PEERS),all) --out build/bench-peers.json
	$(RUN) -m benchmarks.picture build/bench-peers.json build/latency.svg

image:  ## build the image: make image SKLEARN=1.5
	docker build --build-arg SKLEARN=$(SKLEARN) --build-arg PYTHON_VERSION=$(PYTHON_VERSION) \
	  --build-arg FORMATS=$(FORMATS) \
	  --tag $(IMAGE):$(SKLEARN) .
	@mkdir -p build && docker run --rm --network none --entrypoint cat $(IMAGE):$(SKLEARN) \
	  /opt/skserve/sbom.json > build/sbom-$(SKLEARN).json
	@echo "What is in it: build/sbom-$(SKLEARN).json"

cloud: $(VENV)/dev endpoint.toml  ## a SageMaker on this machine, with real containers: docs/35-cloud.md (CLOUD=--help)
	@$(RUN) -m local_test.cloud $(CLOUD)

# What `python deploy.py` takes in this folder: the iris example, unless there is a file of yours.
endpoint.toml: | $(VENV)/dev
	@test -e model || $(RUN) examples/iris/train.py model
	@cp examples/endpoint.toml $@

clean:  ## remove what the words above made here
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis

# An environment of its own: first what the image holds, then what the tests need beside it.
$(VENV)/serve: requirements/serve-1.9.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; try make PYTHON=python3.13")'
	@echo "Setting up $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

$(VENV)/bench: $(VENV)/serve requirements/bench.txt
	@$(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@touch $@

$(VENV)/fuzz: $(VENV)/dev requirements/fuzz.txt
	@$(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/fuzz.txt
	@touch $@

$(VENV)/dev: $(VENV)/serve requirements/deploy.txt requirements/dev.txt
	@$(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes \
	  -r requirements/deploy.txt -r requirements/dev.txt
	@touch $@
