# Every task of this repository by one name. What a task does is in scripts/, images/ and tests/kubernetes/; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
ENV := . scripts/env.sh &&
CLUSTER := tests/kubernetes/harness/cluster

##@ The two to begin with

.PHONY: demo
demo: setup ## The whole story on a real Kubernetes: install, load, scale, restart, with every key checked
	scripts/demo

.PHONY: test
test: ## Every test there is, those on a real Kubernetes included
	scripts/test

##@ While working

.PHONY: setup
setup: ## Install what is missing on this machine (Debian, Ubuntu), check Rust and Go
	@scripts/setup

.PHONY: fmt
fmt: ## Format every source
	$(ENV) cargo fmt --all

.PHONY: lint
lint: setup ## Formatting, clippy, generated files, the chart, scripts; changes nothing
	scripts/lint

.PHONY: unit
unit: setup ## Unit and integration tests, those that need no Kubernetes
	scripts/test unit

.PHONY: compat
compat: setup ## What a client of Redis finds here, by family: commands served, commands compared with redis-server, differences
	$(ENV) cargo build --quiet --locked -p sluice-store && scripts/compat

.PHONY: compat-suite
compat-suite: setup ## Redis' own test suite against redis-server and a store (SUITE_ARGS="unit/multi --cluster")
	$(ENV) cargo build --quiet --locked -p sluice-store && scripts/compat-suite $(SUITE_ARGS)

.PHONY: test-clients
test-clients: setup ## Real clients that CI has not: ioredis (Node.js, npm) and Jedis (Java, Maven); CLIENTS=jedis for one
	$(ENV) cargo build --quiet --locked -p sluice-store && \
	SLUICE_TEST_CLIENTS=$(or $(CLIENTS),ioredis,jedis) cargo test --quiet --locked -p sluice-tests --test compat clients_by_flag

.PHONY: crash-loop
crash-loop: setup ## kill -9 and check, KILLS=200 times under each policy, with WAL and without
	$(ENV) cargo build --quiet --locked -p sluice-store && \
	SLUICE_CRASH_KILLS=$(or $(KILLS),200) cargo test --quiet --locked -p sluice-tests --test crash durability -- --nocapture

.PHONY: fault-loop
fault-loop: setup ## Migrations in which links break and nodes die at random, ROUNDS=100, under writes of every type, every element checked after each
	$(ENV) cargo build --quiet --locked -p sluice-store && \
	SLUICE_FAULT_ROUNDS=$(or $(ROUNDS),100) cargo test --quiet --locked -p sluice-tests --test migration every_fault -- --nocapture

.PHONY: fuzz
fuzz: setup ## Fuzz what arrives from outside, FUZZ_SECONDS=60 a target (FUZZ_TARGETS="reader codecs payload script")
	scripts/fuzz

.PHONY: test-kubernetes
test-kubernetes: setup ## Build the images and run the tests on a real Kubernetes (K8S_TESTS=name for some; KEEP=1 keeps the cluster)
	scripts/test kubernetes

.PHONY: crds
crds: setup ## Write crds/ and the chart's copy of it from the operator's types
	scripts/crds

.PHONY: images
images: setup ## Build the container images, without a docker daemon
	$(ENV) images/build

.PHONY: promtool
promtool: ## Have Prometheus' own checker read the alert rules
	scripts/promtool

.PHONY: deny
deny: setup ## Licences, sources, duplicates and advisories of every crate, by deny.toml
	scripts/deny

##@ Figures: redis-server and the store in turn (BENCH_ARGS="--rounds 5 --tests SET,GET"; BENCH_ARGS=--help lists more)

.PHONY: bench
bench: setup ## Throughput, latency and server CPU a command
	scripts/bench throughput $(BENCH_ARGS)

.PHONY: bench-sync
bench-sync: setup ## The same with every write synced, and acknowledgements a fsync
	scripts/bench sync $(BENCH_ARGS)

.PHONY: bench-profile
bench-profile: setup ## What heap profiling costs: off for good, built in and not sampling, sampling
	scripts/bench profile $(BENCH_ARGS)

.PHONY: bench-feed
bench-feed: setup ## What the change feed costs a commit, with and without subscribers
	$(ENV) cargo bench --quiet --locked -p sluice-store --bench feed

.PHONY: bench-flush
bench-flush: setup ## Flush rounds for 100 callers at once, and writes during a flush
	scripts/bench flush $(BENCH_ARGS)

.PHONY: bench-migration
bench-migration: setup ## Moving all slots to another node, beside what loopback and disk can do (BENCH_ARGS="--mib 256 --shapes strings")
	scripts/bench migration $(BENCH_ARGS)

##@ The local Kubernetes

.PHONY: cluster-up
cluster-up: setup ## Get a cluster: a given KUBECONFIG, kind, or our own from package registries
	$(CLUSTER) up

.PHONY: cluster-down
cluster-down: ## Remove it
	$(CLUSTER) down

.PHONY: demo-down
demo-down: ## Remove everything `make demo` left
	scripts/demo down

##@ Cleaning

.PHONY: clean
clean: ## Remove build outputs of this checkout and its images; caches stay
	$(ENV) cargo clean -q --workspace; rm -rf images/rootfs "$$SLUICE_CACHE/images"

.PHONY: clean-cache
clean-cache: cluster-down ## Remove every cache as well: compiled crates, local Kubernetes, node image
	$(ENV) rm -rf "$$SLUICE_CACHE"

.PHONY: help
help: ## This list
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } /^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile
