# `make help` says what each target does.
MODULE := target/wasm32-wasip1/release/stigg_segment.wasm
NATIVE := target/native/libstigg_segment.so
TARGET := wasm32-wasip1
TYPOS_VERSION := 1.52.0
TYPOS := target/typos-$(TYPOS_VERSION)/bin/typos

.DEFAULT_GOAL := help
.PHONY: help build native portable panicking image modules-image run send explain check test test-omissions test-arm64 test-gateways test-matrix mac lint audit msrv release ledger fuzz bench report soak instructions screenshot tools schemas clean rust nightly yardsticks \
  awk chromium envoy helm kubectl nginx node prometheus registry skopeo systemd wrk

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The modules name source files of their dependencies and of Rust. These names are the same wherever Cargo and Rust are.
RUST_SOURCES = $(shell rustc --print sysroot)/lib/rustlib/src/rust=/rustc/$(shell rustc -vV | sed -n 's/^commit-hash: //p')
ANYWHERE = --config 'target."cfg(all())".rustflags = ["--remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=/cargo", "--remap-path-prefix=$(RUST_SOURCES)"]'

build: rust ## build the filter: target/wasm32-wasip1/release/stigg_segment.wasm
	@# Only here: Cargo gives a library that is a cdylib too one file name, whatever profile it is built for.
	@cargo rustc $(ANYWHERE) --release --target $(TARGET) --lib --crate-type cdylib

native: rust ## build the filter as a dynamic module of Envoy: target/native/libstigg_segment.so
	@cargo rustc $(ANYWHERE) --profile native --package stigg-segment-native --lib --crate-type cdylib
	@# Envoy looks for this name. A new file, since one that Envoy has loaded must not change.
	@cp target/native/libstigg_segment_native.so $(NATIVE).new && mv $(NATIVE).new $(NATIVE)

PROCESSORS := x86_64 aarch64
portable: rust ## build the dynamic module for other machines too: target/portable/<x86_64|aarch64>/libstigg_segment.so, for glibc 2.31
	@tests/tools zig
	@rustup --quiet target add $(PROCESSORS:%=%-unknown-linux-gnu)
	@for processor in $(PROCESSORS); do \
	  PATH="$(CURDIR)/target/tools/zig/bin:$$PATH" cargo zigbuild $(ANYWHERE) --profile native --package stigg-segment-native \
	    --target $$processor-unknown-linux-gnu.2.31 --target-dir target/portable && \
	  mkdir -p target/portable/$$processor && rm -f target/portable/$$processor/libstigg_segment.so && \
	  cp target/portable/$$processor-unknown-linux-gnu/native/libstigg_segment_native.so target/portable/$$processor/libstigg_segment.so \
	  || exit 1; \
	done

panicking: rust ## build the dynamic module that panics when a request asks for it, for a test
	@# In a folder of its own: a library has the same file name whatever its features, and so has the filter's.
	@cargo rustc --quiet --package stigg-segment-native --lib --crate-type cdylib --features panics --target-dir target/panicking

image: build ## build the filter's OCI image in target/image, an image layout that skopeo can copy to a registry
	@cargo run --quiet --package sandbox -- image "$$(cargo pkgid | sed 's/.*[#@]//')"

COPY := target/copy/%/copy
modules-image: build portable $(PROCESSORS:%=$(COPY)) ## build the OCI image of both modules for pods in target/image-modules, for x86-64 and arm64
	@cargo run --quiet --package sandbox -- image --modules "$$(cargo pkgid | sed 's/.*[#@]//')"

# Static, since the image contains nothing else.
$(COPY): deploy/copy.rs
	@rustup --quiet target add $*-unknown-linux-musl
	@mkdir -p $(@D) && rustc --edition 2024 --target $*-unknown-linux-musl -C linker=rust-lld -C opt-level=z -C lto=fat -C panic=abort -C strip=symbols -o $@ $<

# A release.
.PHONY: sbom dist test-dist push sign publish notes
# What the files of a release say about their origin; the workflow that releases sets the first two.
REGISTRY ?= registry.example.com
REPOSITORY ?=
REVISION ?= $(shell git -c safe.directory='*' rev-parse HEAD)
override REGISTRY := $(shell echo '$(REGISTRY)' | tr '[:upper:]' '[:lower:]')
RELEASED = $$(cargo pkgid | sed 's|.*[\#@]||')
dist: build portable $(PROCESSORS:%=$(COPY)) sbom ## build all that a release consists of, in target/dist: REGISTRY for the images, REPOSITORY (its URL)
	@cargo run --quiet --package sandbox -- dist $(RELEASED) --registry '$(REGISTRY)' --revision '$(REVISION)' $(if $(REPOSITORY),--source '$(REPOSITORY)')

# It writes into the folder of each package, and a date only if no other is given.
sbom: rust
	@tests/tools cyclonedx
	@mkdir -p target/sbom
	@for package in stigg-segment-filter:wasm32-wasip1 stigg-segment-native:x86_64-unknown-linux-gnu; do \
	  PATH="$(CURDIR)/target/tools/cyclonedx/bin:$$PATH" SOURCE_DATE_EPOCH=0 cargo cyclonedx --quiet --format json --spec-version 1.5 \
	    --no-build-deps --target $${package#*:} && \
	  mv "$$(find . -name target -prune -o -name "$${package%:*}.cdx.json" -print)" target/sbom/$${package%:*} && \
	  find . -name target -prune -o -name '*.cdx.json' -exec rm {} + || exit 1; \
	done

# These three run on what `make dist` has written, and build nothing, because they have the right to write. VERSION may have a v
# in front, as its tag has.
push sign publish notes: override VERSION := $(VERSION:v%=%)
push sign: export REGISTRY_AUTH_FILE := $(HOME)/.docker/config.json
NOTES = awk -v version='\#\# [$(VERSION)]' -v at='$(REPOSITORY)/blob/v$(VERSION)' '/^\#\# / { if (found) exit; found = index($$0, version) == 1; next } \
  found && (NF || any) { gsub(/\]\(docs/, "](" at "/docs"); gsub(/\]\(\#/, "](" at "/CHANGELOG.md\#"); print; any = 1 } END { if (!any) { print "CHANGELOG.md has nothing about " version > "/dev/stderr"; exit 1 } }' CHANGELOG.md
EACH_IMAGE = while read -r digest name; do $(1) || exit 1; done < target/dist/IMAGES
push: ## copy the images and the chart of target/dist to REGISTRY; REGISTRY_USER and REGISTRY_PASSWORD, if it needs a login
	@cd target/dist && sha256sum --quiet --check SHA256SUMS
	@mkdir -p $(HOME)/.docker
	@[ -z "$$REGISTRY_PASSWORD" ] || sed 's|^[^ ]* *\([^/]*\).*|\1|; q' target/dist/IMAGES | { read -r host; \
	  echo "$$REGISTRY_PASSWORD" | skopeo login --username "$$REGISTRY_USER" --password-stdin "$$host"; }
	@$(call EACH_IMAGE,skopeo copy --quiet --all "oci:target/dist/images/$${name#$(REGISTRY)/}:$(VERSION)" "docker://$$name:$(VERSION)")

sign: # without a key: cosign asks the machine that runs it who it is
	@$(call EACH_IMAGE,cosign sign --yes "$$name@sha256:$$digest")
	@cosign sign-blob --yes --bundle target/dist/SHA256SUMS.sigstore.json target/dist/SHA256SUMS

publish: notes push sign ## push and sign the images of target/dist, and make the release VERSION on GitHub
	@$(NOTES) > target/notes
	@gh release create "v$(VERSION)" --verify-tag --title "$(VERSION)" --notes-file target/notes $$(find target/dist -maxdepth 1 -type f)

notes: ## print what CHANGELOG.md says about VERSION, with links for GitHub: REPOSITORY (its URL)
	@$(NOTES)

# The first time, it shows what it builds, which takes a minute.
SANDBOX := cargo run $(if $(wildcard target/debug/sandbox),--quiet) --package sandbox --

SHELL_KIND ?= wasm
$(if $(filter-out wasm native,$(SHELL_KIND)),$(error SHELL_KIND is `$(SHELL_KIND)`, but it is wasm or native))
run: $(if $(filter native,$(SHELL_KIND)),native,build) ## run a real Envoy with a stand-in for Segment and a debugger; CONFIG: a file with another configuration; SHELL_KIND: native or wasm
	@$(SANDBOX) run $(if $(CONFIG),--config '$(CONFIG)') $(if $(filter native,$(SHELL_KIND)),--native)

send: rust ## send an event to the running sandbox: EVENT (subscription.created) or a file; COUNT of them, RATE per second; ENVIRONMENT, a path
	@$(SANDBOX) send '$(or $(EVENT),subscription.created)' $(if $(ENVIRONMENT),--path '$(ENVIRONMENT)') $(if $(COUNT),--count $(COUNT)) $(if $(RATE),--rate $(RATE))

explain: rust ## say what the filter does with an event, and why: EVENT, a name, a file or a folder; CONFIG; ENVIRONMENT, a path
	@$(SANDBOX) explain $(if $(EVENT),'$(EVENT)') $(if $(CONFIG),--config '$(CONFIG)') $(if $(ENVIRONMENT),--path '$(ENVIRONMENT)')

check: rust ## check what the filter does with events: CASES, a YAML or JSON file; CONFIG
	@$(SANDBOX) check $(if $(CASES),'$(CASES)') $(if $(CONFIG),--config '$(CONFIG)')

# Most tests on Envoy wait: for a retry, for a timeout, for Envoy to end.
test test-matrix: export RUST_TEST_THREADS = 6

# A separate workspace with its own lock. It asks for a newer Rust than the filter does, but compiles with the filter's.
SECOND_HOST := --quiet --locked --ignore-rust-version --manifest-path tests/second_host/Cargo.toml --target-dir target/second_host

test: build native panicking yardsticks tools $(patsubst %,$(COPY),$(shell uname -m)) ## run all tests: the mapping, the configuration, and everything on a real Envoy
	@# Meanwhile the last tests are built, with the time that these leave.
	@nice cargo test $(SECOND_HOST) --no-run & built=$$!; cargo test --workspace || { kill $$built 2> /dev/null; exit 1; }; wait $$built
	@cargo test $(SECOND_HOST)

test-omissions: build envoy ## leave out each node of envoy.yaml and of its variants in turn, and change each value: Envoy rejects it, or it fails closed
	@ALL_OMISSIONS=1 cargo test --quiet --package tests --test envoy omissions -- --nocapture --test-threads 1

test-arm64: build portable ## run the table of cases, the hostile requests and the end-to-end tests on an arm64 Envoy, which qemu runs
	@tests/tools arm64
	@ENVOY=$(CURDIR)/target/tools/arm64/run NATIVE_MODULE=$(CURDIR)/target/portable/aarch64/libstigg_segment.so \
	  cargo test --package tests --test envoy --test native --no-fail-fast -- cases_on_envoy hostile end_to_end
	@cargo test --quiet --package tests --test portable

# The version of Envoy that Envoy Gateway runs; it is not installed for anything else.
test-gateways: export ENVOY_VERSION := 1.39.3
test-gateways: dist prometheus registry skopeo ## run the tests on Envoy Gateway's, Istio's and Kubernetes' own code; needs Go, and builds for minutes the first time
	@tests/tools envoy gateways helm kubectl redis
	@cargo test --package tests --test gateways --config 'target."cfg(unix)".runner = "$(CURDIR)/tests/gateways/alone"' -- --test-threads 1

test-dist: REPOSITORY = https://example.com/stigg-segment-filter
test-dist: dist envoy helm registry skopeo ## build the release in two clones in different folders, which must give the same bytes, and look at it
	@cargo test --quiet --package tests --test dist

.PHONY: test-telemetry
test-telemetry: build envoy ## run envoy.yaml with a real OpenTelemetry collector; needs Go, and builds for some minutes at first
	@tests/tools otelcol
	@cargo test --quiet --package tests --test telemetry

test-matrix: build native panicking tools $(patsubst %,$(COPY),$(shell uname -m)) ## run the tests on every supported version of Envoy, and write the table in README.md
	@cargo run --quiet --package tests --bin matrix

mac: rust ## check that `make run`, `make send` and their like compile for a Mac
	@tests/tools zig
	@rustup --quiet target add aarch64-apple-darwin
	@PATH="$(CURDIR)/target/tools/zig/bin:$$PATH" cargo-zigbuild check --quiet --package sandbox --target aarch64-apple-darwin --target-dir target/mac

lint: rust $(TYPOS) ## check format, lints, documentation and spelling
	@cargo fmt --all --check && rustfmt --check --edition 2024 deploy/copy.rs
	@cargo clippy --quiet --workspace --all-targets -- --deny warnings
	@cargo clippy --quiet --package tests --tests $(patsubst %,--test %,portable dist telemetry gateways) -- --deny warnings # `make test` does not run these
	@cargo fmt --check --manifest-path tests/second_host/Cargo.toml
	@cargo clippy $(SECOND_HOST) --all-targets -- --deny warnings
	@cargo fmt --check --manifest-path fuzz/Cargo.toml
	@cargo clippy --quiet --release --target $(TARGET) --lib --package stigg-segment-filter --package noop --package edits -- --deny warnings
	@RUSTDOCFLAGS="--deny warnings" cargo doc --quiet --no-deps --workspace
	@$(TYPOS)

$(TYPOS):
	@echo "installing typos, which checks the spelling"
	@python3 -m venv $(dir $(TYPOS)).. && $(dir $(TYPOS))pip install --quiet --disable-pip-version-check typos==$(TYPOS_VERSION)

.PHONY: workflows site
workflows: ## check the workflows in .github: needs Go
	@tests/tools workflows
	@target/tools/workflows/bin/actionlint
	@target/tools/workflows/bin/zizmor --offline --quiet .github

# A copy, because the README and the files that the pages link to are outside docs/.
SITE_FILES := *.md LICENSE configuration.schema.json envoy.yaml deploy docs native src
site: ## build the README and docs/ as a site, target/site/book/index.html, and check its links: REPOSITORY (its URL)
	@tests/tools site
	@rm -rf target/site && mkdir -p target/site/src
	@cp -r $(SITE_FILES) target/site/src
	@mv target/site/src/docs/site/SUMMARY.md target/site/src && mv target/site/src/docs/site/* target/site && rmdir target/site/src/docs/site
	@sed 's|(\.\./\.\./|($(or $(REPOSITORY),https://github.com)/|g' README.md > target/site/src/README.md
	@PATH="$(CURDIR)/target/tools/site/bin:$$PATH" mdbook build target/site 2> target/site/log || { cat target/site/log >&2; exit 1; }
	@if grep -E 'WARN|ERROR' target/site/log >&2; then exit 1; fi
	@target/tools/site/bin/lychee --offline --include-fragments --index-files index.html --no-progress --format compact target/site/book

# Three workspaces, each with its own lock.
MANIFESTS := Cargo.toml fuzz/Cargo.toml tests/second_host/Cargo.toml
DENY := cargo deny --config $(CURDIR)/deny.toml --manifest-path
audit: rust ## check licences, sources and known vulnerabilities of all dependencies
	@command -v cargo-deny > /dev/null || { echo "installing cargo-deny, which takes some minutes"; cargo install --quiet --locked cargo-deny; }
	@for manifest in $(MANIFESTS); do echo "$$manifest: licences, sources, duplicates"; \
	  $(DENY) $$manifest check --hide-inclusion-graph licenses sources bans || exit 1; done
	@if ! cargo deny --log-level off fetch db; then \
	  echo "advisories are NOT checked: the advisory database cannot be fetched" >&2; \
	else for manifest in $(MANIFESTS); do echo "$$manifest: advisories"; \
	  $(DENY) $$manifest check --disable-fetch advisories || exit 1; done; fi

RUST_VERSION = $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
msrv: rust ## build the filter, and check all other packages, with the oldest Rust that Cargo.toml states
	@output=$$(rustup toolchain install $(RUST_VERSION) --profile minimal --target $(TARGET) 2>&1) || { echo "$$output" >&2; exit 1; }
	@cargo +$(RUST_VERSION) rustc --quiet --locked --release --target $(TARGET) --target-dir target/msrv --lib --crate-type cdylib
	@cargo +$(RUST_VERSION) check --quiet --locked --workspace --all-targets --target-dir target/msrv

# The version is beside the filter's name in each file, on a separate line in each manifest, and in each lock file at the
# packages without a source.
release: ## change the version everywhere: VERSION (x.y.z); then see CONTRIBUTING.md
	@echo '$(VERSION)' | grep -Eqx '[0-9]+\.[0-9]+\.[0-9]+' || { echo "which version? make release VERSION=x.y.z" >&2; exit 1; }
	@awk '/^## / { if (unreleased) exit; unreleased = /\[Unreleased\]/; next } unreleased && NF { found = 1 } END { exit !found }' CHANGELOG.md \
	  || { echo "CHANGELOG.md has nothing under [Unreleased]" >&2; exit 1; }
	@old=$$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1 | sed 's/\./\\./g'); \
	files() { find . -name target -prune -o -name corpus -prune -o -name .git -prune -o -type f "$$@" -print; }; \
	new=$$(mktemp) && trap 'rm "$$new"' EXIT; \
	edit() { while read -r file; do sed "$$1" "$$file" > "$$new" && cat "$$new" > "$$file" || exit 1; done; }; \
	files ! -name '*.lock' ! -name CHANGELOG.md | xargs grep -lI "stigg-segment-filter.*$$old" | \
	  edit "/stigg-segment-filter/{s/\([^0-9.]\)$$old\([^0-9]\)/\1$(VERSION)\2/g;s/\([^0-9.]\)$$old\$$/\1$(VERSION)/;}"; \
	files -name Cargo.toml | edit "s/^version = \"$$old\"/version = \"$(VERSION)\"/"; \
	echo deploy/chart/Chart.yaml | edit "s/^\(version: \)$$old/\1$(VERSION)/;s/^\(appVersion: \)$$old/\1$(VERSION)/"; \
	files -name Cargo.lock | edit "/^version = \"$$old\"/{N;/\nsource = /!s/$$old/$(VERSION)/;}"
	@awk -v heading="## [$(VERSION)] - $$(date +%F)" '{ print } /^## \[Unreleased\]/ { print ""; print heading }' CHANGELOG.md > CHANGELOG.md.new && mv CHANGELOG.md.new CHANGELOG.md

# The benchmark's own programs are optimised, so that they do not slow Envoy down.
BENCH := cargo run --quiet --profile bench --package benches --

ROUNDS ?= 9
SECONDS ?= 2
bench: build native yardsticks wrk node ## measure what the filter costs, compared with no filter and with alternatives: ROUNDS (9) of SECONDS (2) each
	@$(BENCH) bench --rounds $(ROUNDS) --seconds $(SECONDS)

report: rust ## write the marked parts of docs/benchmarks.md and README.md, and the plots, from the last results
	@cargo run --quiet --package benches -- report

REQUESTS ?= 1000000
soak: build wrk ## show that Envoy's memory does not grow: send REQUESTS (1000000) through the filter
	@$(BENCH) soak --requests $(REQUESTS)

instructions: build yardsticks ## count the instructions that the module executes for an event; the count is the same in every run
	@cargo run $(SECOND_HOST) --example instructions

yardsticks: rust ## build what the filter is measured against
	@for filter in noop edits floor; do cargo rustc --quiet --release --target $(TARGET) --package $$filter || exit 1; done
	@cargo rustc --quiet --profile native --package native_floor

tools: rust ## install what the tests and benchmarks need besides Rust, as root; others are told what is missing
	@tests/tools

awk chromium envoy helm kubectl nginx node prometheus registry skopeo systemd wrk: rust
	@tests/tools $@

schemas: helm ## take the schemas that the manifests in deploy/ are checked against from their publishers; needs Go
	@cargo run --quiet --package tests --bin schemas

LEDGER_EVENTS ?= 20000
ledger: build envoy ## prove that no event is lost or doubled while everything fails, with LEDGER_EVENTS (20000)
	@LEDGER_EVENTS=$(LEDGER_EVENTS) cargo test --quiet --package tests --test ledger -- --nocapture

# Findings are saved where the tests run them again.
FUZZ_SECONDS ?= 60
fuzz: nightly ## search for events and configurations that break the filter, for FUZZ_SECONDS (60) each
	@for target in mapping configuration; do \
	  mkdir -p fuzz/target fuzz/corpus/$$target tests/regressions/$$target; \
	  echo "fuzzing: $$target, $(FUZZ_SECONDS) s"; \
	  cargo +nightly fuzz run --release $$target fuzz/corpus/$$target tests/regressions/$$target fuzz/seeds/$$target -- -dict=fuzz/dictionaries/$$target.dict -max_len=65536 \
	    -timeout=10 -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=tests/regressions/$$target/ -print_final_stats=1 2> fuzz/target/$$target.log \
	    || { tail -n 40 fuzz/target/$$target.log; echo "$$target: found something; it is in tests/regressions/$$target" >&2; exit 1; }; \
	  sed -n "s/^stat::number_of_executed_units: */$$target: nothing found; executions: /p" fuzz/target/$$target.log; \
	done

nightly: rust
	@rustc +nightly --version > /dev/null 2>&1 || { echo "installing a nightly Rust, which fuzzing needs"; rustup toolchain install nightly --profile minimal; }
	@command -v cargo-fuzz > /dev/null || { echo "installing cargo-fuzz"; cargo install --quiet --locked cargo-fuzz; }

screenshot: build chromium envoy ## take a new picture of the debugger: docs/debugger.png
	@SCREENSHOT=$(CURDIR)/docs/debugger.png cargo test --quiet --package sandbox --test commands a_test_event > /dev/null

clean: ## remove everything that was built or installed here
	@cargo clean

rust:
	@command -v cargo > /dev/null || { echo "cargo is missing: install Rust from https://rustup.rs" >&2; exit 1; }
	@rustc --print target-libdir --target $(TARGET) | xargs test -d || rustup target add $(TARGET) || \
	  { echo "Rust's target $(TARGET) is missing: install Rust from https://rustup.rs, which can add it" >&2; exit 1; }
