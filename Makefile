# The commands of this repository. CI runs the same ones (.ci/run).

CARGO ?= cargo
# `make demo ARGS="--help"`, `make test ARGS="relay"`
ARGS ?=
# Of `make profile`.
CASE ?= rr64
# Where rustup puts cargo, for shells that have not read its profile.
export PATH := $(PATH):$(HOME)/.cargo/bin

SHELL_SCRIPTS := $(filter-out %.txt %.py %/__pycache__,$(wildcard scripts/*)) .ci/run \
	$(addprefix tests/cluster/,archive build check cluster lib.sh lifecycle.sh node)

.DEFAULT_GOAL := help
.PHONY: help setup build image demo test fuzz asan e2e e2e-full cluster lint tidy chart manifests fmt audit guard bench bench-faults profile clean

help: ## Say what each target does
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install the system packages that are missing
	@scripts/setup test

build: ## Compile the optimised binary, target/release/sheave
	@scripts/setup build
	$(CARGO) build --release --locked

image: ## Build a container image of it, target/image/sheave.tar, without a registry
	@scripts/setup image
	$(CARGO) build --release --locked
	@scripts/image sheave

demo: ## Run Sheave in front of upstreams of its own, on this machine
	@scripts/setup build
	$(CARGO) run --release --locked -- demo $(ARGS)

test: ## Run every test that needs no Kubernetes
	@scripts/setup test
	$(CARGO) test --locked --features faults --no-fail-fast $(ARGS)

fuzz: ## Fuzz every parser of bytes from outside, a minute each (ARGS=seconds)
	@scripts/setup fuzz
	@CARGO="$(CARGO)" scripts/fuzz $(ARGS)

asan: ## Run the tests of the data path under AddressSanitizer (ARGS=part of a name)
	@scripts/setup test
	@CARGO="$(CARGO)" scripts/asan $(ARGS)

e2e: ## Run the end-to-end tests in Kubernetes: one of its own (as root), or KUBECONFIG's
	@CARGO="$(CARGO)" scripts/e2e $(ARGS)

e2e-full: ## The same, with the long tests
	@CARGO="$(CARGO)" scripts/e2e --full $(ARGS)

cluster: ## A shell in a throw-away Kubernetes, with KUBECONFIG set (as root)
	@tests/cluster/cluster shell

lint: ## Check format, lints, dependencies, the tree's own rules, scripts and the chart
	@scripts/setup build
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path fuzz/Cargo.toml
	@set -e; for script in $(SHELL_SCRIPTS); do echo "bash -n $$script"; bash -n "$$script"; done
	@deny=$$(scripts/install-cargo-deny) && set -x && "$$deny" --locked check bans licenses sources
	$(CARGO) clippy --all-targets --all-features --locked -- -D warnings
	$(CARGO) check --quiet --locked --manifest-path fuzz/Cargo.toml --target-dir target/fuzz
	@$(MAKE) --no-print-directory tidy chart

tidy: ## Check the tree's own rules: sizes, words, who may name whom
	@scripts/setup build
	$(CARGO) test --locked --features faults --quiet --test integration tidy

# With the features of the tests, so that nothing is compiled twice.
chart: ## Check the Helm chart and that manifests/ is rendered from it
	@scripts/setup chart
	$(CARGO) build --locked --features faults --quiet
	scripts/chart check

manifests: ## Write manifests/ and the chart's values.schema.json anew
	@scripts/setup python
	$(CARGO) build --locked --features faults --quiet
	scripts/chart render

fmt: ## Format the code
	$(CARGO) fmt
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml

audit: ## Check dependencies for known vulnerabilities (fetches the RustSec database)
	@scripts/setup build
	@deny=$$(scripts/install-cargo-deny) && set -x && "$$deny" --locked check advisories

guard: ## Count the instructions of single steps, and fail where they have grown
	@scripts/setup guard
	$(CARGO) bench --locked --bench pick -- --counts $(ARGS)

bench: ## Compare Sheave with HAProxy, nginx, Envoy, Traefik: CPU, latency, memory
	@scripts/setup python
	@peers=$$(scripts/install-bench-peers) && set -x && PATH="$$peers:$$PATH" $(CARGO) bench --locked --bench compare -- $(ARGS)

bench-faults: ## Compare it with HAProxy and Envoy while endpoints fail (as root)
	@scripts/setup faults
	@peers=$$(scripts/install-bench-peers) && set -x && PATH="$$peers:$$PATH" $(CARGO) bench --locked --bench faults -- $(ARGS)

profile: ## A flame graph of Sheave under one case: `make profile CASE=rr64`
	@scripts/setup profile
	@tools=$$(scripts/install-bench-peers profile) && set -x && PATH="$$tools:$$PATH" $(CARGO) bench --locked --bench compare -- \
		--peers sheave --cases $(CASE) --rounds 1 --seconds 5 --profile target/profile $(ARGS)

clean: ## Remove what was built
	$(CARGO) clean
