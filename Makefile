# `make up` runs the platform, `make test` tests it; both install what they need first. PYTHON is any Python 3.11 or later.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: up test slow cluster check house bench soak images lock clean platform dev
.DEFAULT_GOAL := up

platform dev:
	@$(PYTHON) bootstrap.py $@

up: platform
	@exec $(BIN)/torpor up $(ARGS)

test: dev
	$(BIN)/pytest -m "not slow and not soak and not cluster" $(ARGS)

slow: dev
	$(BIN)/pytest -m "slow and not soak and not cluster" $(ARGS)

# Needs KUBECONFIG and TORPOR_KUBE_REGISTRY: a cluster whose nodes pull from that registry.
cluster: dev
	$(BIN)/pytest -m "cluster and not soak" $(ARGS)

check: dev house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

house:
	@$(PYTHON) .ci/house

bench: dev
	$(BIN)/python -m benchmarks $(ARGS)

soak: dev
	$(BIN)/pytest -m soak $(ARGS)

# Builds the images of a cluster: docs/reference/images.md.
images:
	@$(PYTHON) images/build.py $(ARGS)

# Writes requirements/*.txt anew from pyproject.toml, and uv's own line from its version there.
UV := .venv/bootstrap/uv/bin/uv
COMPILE := $(UV) pip compile -q --universal --generate-hashes --no-emit-index-url --no-annotate --no-header
# Images have the versions that the tests run on.
LOCKED := requirements/images
IMAGE := $(COMPILE) -c requirements/dev.txt
WORKSPACE := --extra lab --extra widgets --extra cli pyproject.toml images/workspace/packages.in
lock: platform
	$(COMPILE) --extra embedded -o requirements/platform.txt pyproject.toml
	$(COMPILE) --extra dev -o requirements/dev.txt pyproject.toml
	$(IMAGE) --extra cluster --override images/platform/overrides.in -o $(LOCKED)/platform.txt pyproject.toml images/platform/packages.in
	$(IMAGE) --extra agent -o $(LOCKED)/agent.txt pyproject.toml
	$(IMAGE) $(WORKSPACE) -o $(LOCKED)/workspace.txt
	$(IMAGE) $(WORKSPACE) --extra spark images/workspace-spark/packages.in -o $(LOCKED)/workspace-spark.txt
	echo setuptools | $(COMPILE) -o $(LOCKED)/build.txt -
	grep -o '^uv==[^ ]*' requirements/uv.txt | $(COMPILE) -o requirements/uv.txt -

clean:
	rm -rf .venv hub/node/node_modules extensions/node_modules extensions/lib extensions/torpor_lab/labextension
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis test-results
