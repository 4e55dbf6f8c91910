# Every target says what it does: `make help`.
MODULE := target/wasm32-wasip1/release/stigg_segment.wasm
TARGET := wasm32-wasip1

.DEFAULT_GOAL := help
.PHONY: help build run test lint clean rust

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: rust ## build the filter: target/wasm32-wasip1/release/stigg_segment.wasm
	@# The library is an rlib too, for the tests, and cargo optimises across crates only where it is nothing but a cdylib.
	@cargo rustc --release --target $(TARGET) --lib --crate-type cdylib

run: build ## run it: a real Envoy, a local stand-in for Segment, and what to send
	@cargo run --quiet --package sandbox -- run

test: build ## prove it: the mapping, the configuration, and all of it on a real Envoy
	@cargo run --quiet --package sandbox -- envoy > /dev/null
	@cargo test --workspace

lint: rust ## check format and lints
	@cargo fmt --all --check
	@cargo clippy --quiet --workspace --all-targets -- --deny warnings
	@cargo clippy --quiet --release --target $(TARGET) --lib -- --deny warnings

clean: ## remove all that was built or installed here
	@cargo clean

rust:
	@command -v cargo > /dev/null || { echo "cargo is missing: install Rust from https://rustup.rs" >&2; exit 1; }
	@rustc --print target-libdir --target $(TARGET) | xargs test -d || rustup target add $(TARGET) || \
	  { echo "Rust's target $(TARGET) is missing: install Rust from https://rustup.rs, which can add it" >&2; exit 1; }
