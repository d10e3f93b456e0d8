# Every target builds what it needs in .venv; nothing else on the machine is touched but ~/.cache/helios.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DIST ?= dist
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt 2>/dev/null | sha256sum | cut -c1-12)
NATIVE := server/helios_server/native
KERNELS := $(VENV)/.kernels-$(shell cat $(NATIVE)/build.py $(NATIVE)/kernels/* 2>/dev/null | sha256sum | cut -c1-12)
# File by file in this order, on two cores: first those that wait for pods and take longest, last the short ones, so that both
# cores end together. What starts pods gives them one thread each: two of many would wait for each other.
IN_ORDER := tests/local tests/cli tests/rpc tests/engine tests/cluster tests/native tests/profile tests/models tests/exits \
  tests/chart tests/decide
ON_TWO := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
# `make check` leaves out what makes mutants of decide/ and what needs a cluster.
CHECKED := tests/contract tests/api tests/decide tests/render tests/cluster tests/test_words.py
UNCHECKED := tests/decide/mutations tests/cluster/live tests/cluster/on_node

.PHONY: help check demo test pytest test-long sanitize test-cluster test-cluster-live test-cluster-node lint wheel proto chart data heads clean

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "helios needs Python 3.11 or newer: set PYTHON=/path/to/python3"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pip torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@rm -f $(VENV)/.installed-* && touch $@

$(KERNELS): $(STAMP)
	$(BIN)/python -m helios_server.native.build
	@rm -f $(VENV)/.kernels-* && touch $@

demo: $(KERNELS) ## the main job on this machine: profile, serve, notice the shift, adapt (TRAFFIC=prose,code)
	$(BIN)/python -m examples.demo

# Four at once on two cores: many of them wait for a fake cluster's clocks.
check: $(KERNELS) lint ## lint, spelling, terms, and the tests of what is pure, with few examples: under a minute
	HELIOS_HYPOTHESIS=small OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 4 --dist worksteal $(CHECKED) $(addprefix --ignore=,$(UNCHECKED))

# Side by side: while a test waits for a pod, mypy has its core. Either fails the whole; what runs beside it is heard to its end.
test: $(STAMP) ## lint, types, contracts and every test that needs no cluster
	+@$(MAKE) --no-print-directory --jobs=2 lint pytest

pytest: $(KERNELS)
	$(ON_TWO) $(IN_ORDER) $(filter-out $(IN_ORDER) %.py %__pycache__,$(wildcard tests/*)) $(wildcard tests/test_*.py)

test-long: $(KERNELS) sanitize ## the property tests with ten times the examples, and the soaks; writes bench/results/test-long.json (40 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long bench/results/test-long.json -n 2 --dist loadfile

test-cluster: test-cluster-live test-cluster-node ## the loop on a Kubernetes cluster, by KUBECONFIG

# One after another at the end: the first takes the CRDs away, the second sums up what the operator was seen to need.
LIVE := tests/cluster/live
ALONE := $(LIVE)/test_pages.py $(LIVE)/test_rights.py
test-cluster-live: $(KERNELS) ## a real API server; pods are processes of this machine, so any control plane will do
	@if [ -z "$$KUBECONFIG" ]; then \
	  echo "make $@: not run, KUBECONFIG names no cluster; start any (an API server with its controllers and scheduler is enough) and export KUBECONFIG"; \
	else export HELIOS_TEST_CLUSTER=1 HELIOS_RIGHTS_SEEN=$$(mktemp -d); \
	  $(ON_TWO) --dist worksteal --timeout=1200 $(addprefix --ignore=,$(ALONE)) $(LIVE) && $(BIN)/python -m pytest --timeout=1200 $(ALONE); \
	  code=$$?; rm -r "$$HELIOS_RIGHTS_SEEN"; exit $$code; fi

test-cluster-node: $(KERNELS) ## images, chart and the real model on a cluster with a node (docs/operator.md)
	@missing=$$($(BIN)/python -m tests.cluster.on_node.means) || exit 1; \
	if [ -n "$$missing" ]; then echo "make $@: not run, $$missing"; \
	else HELIOS_TEST_CLUSTER=1 $(BIN)/python -m pytest tests/cluster/on_node --timeout=1800; fi

sanitize: $(STAMP) ## the tests of the native kernels, small, with sanitizers for memory and arithmetic (g++ with libasan)
	HELIOS_SANITIZED=1 HELIOS_HYPOTHESIS=small OMP_NUM_THREADS=1 ASAN_OPTIONS=detect_leaks=0 \
	  LD_PRELOAD=$$($${CXX:-c++} -print-file-name=libasan.so) $(BIN)/python -m pytest tests/native --ignore=tests/native/test_build.py

lint: $(STAMP) ## ruff, spelling, mypy (strict on all but generated code), import contracts
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/typos
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

proto: ## the stubs in proto/helios_proto, by a grpcio-tools whose output runs on protobuf 6 and 7
	@test -x .venv-proto/bin/python || { $(PYTHON) -m venv .venv-proto && .venv-proto/bin/python -m pip install --quiet 'grpcio-tools==1.81.1'; }
	.venv-proto/bin/python -m grpc_tools.protoc -I helios_proto/v1=proto/helios/v1 \
	  --python_out=proto --pyi_out=proto --grpc_python_out=proto helios_proto/v1/generation.proto helios_proto/v1/control.proto
	.venv-proto/bin/python -m grpc_tools.protoc -I helios_proto/inference=proto/inference \
	  --python_out=proto --pyi_out=proto --grpc_python_out=proto helios_proto/inference/open_inference.proto

wheel: ## what users install, in dist/: pip install 'dist/helios_serve-….whl[cli,server]'
	$(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir $(DIST) .
	@ls $(DIST)/helios_serve-*.whl

chart: $(STAMP) ## what the Helm chart copies: CRDs, the table of values
	$(BIN)/python deploy/helm/generate.py

data: $(STAMP) ## the public texts that heads are trained and measured on
	$(BIN)/python -m helios_server.exits.data

heads: data ## train the built-in exit heads again (about half an hour)
	$(BIN)/python -m helios_server.exits.recipes

clean: ## what make built here
	rm -rf $(VENV) .venv-proto dist build $(NATIVE)/_kernels-*.so
