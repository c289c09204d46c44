# tidegate: what to run. Everything here is a line or two; the work is done by scripts/setup, cargo and tests/.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup build demo test lint soak mutants fmt fuzz bench profile clean

MUSL := $(shell uname -m)-unknown-linux-musl
# The filter is built for WebAssembly by control-plane/build.rs; it has nothing to build or test for the host.
HOST_CRATES := --workspace --exclude tidegate-filter
# What scripts/setup chose, unless the caller did. Not for scripts/setup itself, which must not find its own choice.
WITH_ENVOY := TIDEGATE_ENVOY="$${TIDEGATE_ENVOY:-$(CURDIR)/.tools/envoy}"

help: ## show this
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 8

setup: ## get what is missing (Rust targets, Envoy, Docker), and say what
	@scripts/setup

build: setup ## build tidegate, the filter and the sample backends
	cargo build $(HOST_CRATES) --bins
	cargo build -p tidegate-sample -p tidegate-sample-h2 --target $(MUSL)

demo: build ## show the main job on this machine (ONESHOT=1: once, then end)
	$(WITH_ENVOY) cargo run -p tidegate-tests --bin demo

test: build lint ## run every test
	$(WITH_ENVOY) cargo test $(HOST_CRATES) --no-fail-fast

lint: setup ## check format and lints, as CI does
	cargo fmt --all --check
	cargo clippy $(HOST_CRATES) --all-targets -- -D warnings
	cargo clippy -p tidegate-filter --target wasm32-wasip1 -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc -p tidegate-xds --no-deps

# What stays broken for as long as TIDEGATE_OUTAGE says.
OUTAGES := an_engine_that_is_frozen a_killed_control_plane a_host_that_falls_silent a_network_that_loses_packets

soak: build ## look longer for what breaks: property tests, 1,000 containers replaced, a healthy canary, outages of ten minutes
	PROPTEST_RNG_SEED=$${PROPTEST_RNG_SEED:-$$RANDOM} PROPTEST_CASES=$${PROPTEST_CASES:-200000} cargo test -p tidegate-xds --lib convergence
	PROPTEST_RNG_SEED=$${PROPTEST_RNG_SEED:-$$RANDOM} PROPTEST_CASES=$${PROPTEST_CASES:-10000} cargo test -p tidegate --lib histories
	$(WITH_ENVOY) TIDEGATE_REPLACEMENTS=$${TIDEGATE_REPLACEMENTS:-1000} TIDEGATE_SEED=$${TIDEGATE_SEED:-$$RANDOM} \
		cargo test $(HOST_CRATES) --test deploy -- --nocapture
	$(WITH_ENVOY) TIDEGATE_OUTAGE=$${TIDEGATE_OUTAGE:-600} \
		cargo test $(HOST_CRATES) --test containers --test xds_envoy --test upstreams -- $(OUTAGES)
	$(WITH_ENVOY) TIDEGATE_REQUESTS=$${TIDEGATE_REQUESTS:-1000000} cargo test $(HOST_CRATES) --test rollout healthy

mutants: ## break each rule of docs/xds-rules.md and the rules of discovery on purpose, and see that the tests notice
	scripts/mutate-xds
	scripts/mutate-discovery

fmt: ## format the sources
	cargo fmt --all

# What cargo-fuzz would set; without a sanitizer it needs no nightly compiler, and our own code has nothing unsafe.
FUZZ_FLAGS := --cfg fuzzing -Ccodegen-units=16 -Cpasses=sancov-module $(addprefix -Cllvm-args=-sanitizer-coverage-, \
	level=4 inline-8bit-counters pc-table trace-compares)
FUZZ_SECONDS ?= 300

# What it does with WHAT, of at most so many bytes: $(call play,WHAT,BYTES)
play = cd fuzz && mkdir -p corpus/$(1) && RUSTFLAGS="$(FUZZ_FLAGS)" cargo run --release \
	--target $(shell uname -m)-unknown-linux-gnu --bin $(1) -- corpus/$(1) -max_total_time=$(FUZZ_SECONDS) -max_len=$(2) \
	-timeout=10 -artifact_prefix=corpus/

fuzz: ## play what nobody thought of to the xDS server, to discovery and as labels, each for FUZZ_SECONDS (300)
	$(call play,requests,2048)
	$(call play,answers,8192)
	$(call play,labels,8192) -dict=labels.dict -len_control=0

bench: build ## measure; writes target/bench/report.json and target/bench/xds.json
	@scripts/setup bench
	cargo build --profile bench -p tidegate
	$(WITH_ENVOY) TIDEGATE_BIN="$${TIDEGATE_BIN:-$(CURDIR)/target/release/tidegate}" cargo run -p tidegate-tests --bin bench
	cargo bench -p tidegate-xds --bench scale

profile: ## where the xDS server spends its time: the scale bench under perf; reports in target/bench/profile
	cargo bench -p tidegate-xds --bench scale -- --profile $(CURDIR)/target/bench/profile

clean: ## remove what was built (not .tools)
	cargo clean
