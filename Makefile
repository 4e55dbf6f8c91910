# Every target says what it does: `make help`.
MODULE := target/wasm32-wasip1/release/stigg_segment.wasm
TARGET := wasm32-wasip1

.DEFAULT_GOAL := help
.PHONY: help build image run send test test-matrix lint ledger fuzz bench report soak instructions screenshot tools schemas clean rust nightly yardsticks \
  chromium envoy kubectl node registry skopeo wrk

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: rust ## build the filter: target/wasm32-wasip1/release/stigg_segment.wasm
	@# The library is an rlib too, for the tests, and cargo optimises across crates only where it is nothing but a cdylib.
	@cargo rustc --release --target $(TARGET) --lib --crate-type cdylib

image: build ## build the OCI image of the filter: target/image, an image layout that skopeo copies to a registry
	@cargo run --quiet --package sandbox -- image "$$(cargo pkgid | sed 's/.*[#@]//')"

run: build ## run it: a real Envoy, a local stand-in for Segment, a debugger; CONFIG is a file with another configuration
	@cargo run --quiet --package sandbox -- run $(if $(CONFIG),--config '$(CONFIG)')

send: rust ## send an event to the running sandbox: EVENT (subscription.created) or a file, COUNT of them, RATE a second
	@cargo run --quiet --package sandbox -- send '$(or $(EVENT),subscription.created)' $(if $(COUNT),--count $(COUNT)) $(if $(RATE),--rate $(RATE))

test: build yardsticks tools ## prove it: the mapping, the configuration, and all of it on a real Envoy
	@cargo test --workspace
	@# A host of its own with a lock of its own; it compiles with the filter's Rust, though it asks for a newer one.
	@cargo test --quiet --locked --ignore-rust-version --manifest-path tests/second_host/Cargo.toml --target-dir target/second_host

test-matrix: build tools ## run the tests on every version of Envoy the filter is made for; puts the table into README.md
	@cargo run --quiet --package tests --bin matrix

lint: rust ## check format and lints
	@cargo fmt --all --check
	@cargo clippy --quiet --workspace --all-targets -- --deny warnings
	@cargo fmt --check --manifest-path tests/second_host/Cargo.toml
	@cargo fmt --check --manifest-path fuzz/Cargo.toml
	@cargo clippy --quiet --release --target $(TARGET) --lib --package stigg-segment-filter --package noop --package edits -- --deny warnings

# The harness is built as benches are: what is around Envoy should not be what holds it back.
BENCH := cargo run --quiet --profile bench --package benches --

ROUNDS ?= 9
SECONDS ?= 2
bench: build yardsticks wrk node ## measure what the filter costs, beside no filter and others: ROUNDS (9) of SECONDS (2) for each
	@$(BENCH) bench --rounds $(ROUNDS) --seconds $(SECONDS)

report: rust ## write docs/benchmarks.md, its plots and the README's lines anew from the results of the last bench
	@cargo run --quiet --package benches -- report

REQUESTS ?= 1000000
soak: build wrk ## show that Envoy's memory stays what it is: REQUESTS (1000000) through the filter
	@$(BENCH) soak --requests $(REQUESTS)

instructions: build yardsticks ## count the instructions that the module executes for an event, the same in every run
	@cargo run --quiet --locked --ignore-rust-version --manifest-path tests/second_host/Cargo.toml --target-dir target/second_host --example instructions

yardsticks: rust ## build the Wasm filters that it is measured against
	@for filter in noop edits; do cargo rustc --quiet --release --target $(TARGET) --package $$filter || exit 1; done

tools: rust ## install what the tests and benchmarks need besides Rust, as root; others are told what is missing
	@tests/tools

chromium envoy kubectl node registry skopeo wrk: rust
	@tests/tools $@

schemas: build kubectl ## take the schemas that the manifests in deploy/ are checked against from their publishers; needs Go
	@cargo run --quiet --package tests --bin schemas

LEDGER_EVENTS ?= 20000
ledger: build envoy ## prove that no event is lost or doubled: LEDGER_EVENTS (20000) while everything fails
	@LEDGER_EVENTS=$(LEDGER_EVENTS) cargo test --quiet --package tests --test ledger -- --nocapture

# Findings land where the tests try them again.
FUZZ_SECONDS ?= 60
fuzz: nightly ## look for events and configurations that break it: FUZZ_SECONDS for each (60)
	@for target in mapping configuration; do \
	  mkdir -p fuzz/corpus/$$target tests/regressions/$$target; \
	  echo "fuzzing: $$target, $(FUZZ_SECONDS) s"; \
	  cargo +nightly fuzz run --release $$target fuzz/corpus/$$target tests/regressions/$$target fuzz/seeds/$$target -- -dict=fuzz/dictionaries/$$target.dict -max_len=65536 \
	    -timeout=10 -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=tests/regressions/$$target/ -print_final_stats=1 2> fuzz/$$target.log \
	    || { tail -n 40 fuzz/$$target.log; echo "$$target: found something; it is in tests/regressions/$$target" >&2; exit 1; }; \
	  sed -n "s/^stat::number_of_executed_units: */$$target: nothing found; executions: /p" fuzz/$$target.log; \
	done

nightly: rust
	@rustc +nightly --version > /dev/null 2>&1 || { echo "installing a nightly Rust, which fuzzing needs"; rustup toolchain install nightly --profile minimal; }
	@command -v cargo-fuzz > /dev/null || { echo "installing cargo-fuzz"; cargo install --quiet --locked cargo-fuzz; }

screenshot: build chromium envoy ## take the picture of the debugger anew: docs/debugger.png
	@SCREENSHOT=$(CURDIR)/docs/debugger.png cargo test --quiet --package sandbox --test commands a_test_event > /dev/null

clean: ## remove all that was built or installed here
	@cargo clean

rust:
	@command -v cargo > /dev/null || { echo "cargo is missing: install Rust from https://rustup.rs" >&2; exit 1; }
	@rustc --print target-libdir --target $(TARGET) | xargs test -d || rustup target add $(TARGET) || \
	  { echo "Rust's target $(TARGET) is missing: install Rust from https://rustup.rs, which can add it" >&2; exit 1; }
