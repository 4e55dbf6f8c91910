//! Everything around the filter, on this machine: a stand-in for Segment ([`segment`]), a sender in place of Stigg
//! ([`stigg`]), and a launcher for a real Envoy on the shipped `envoy.yaml` ([`envoy`]).
//!
//! `make run`, the integration tests and the benchmarks all use these three. Nothing leaves the loopback interface, the
//! system chooses the ports, and every process ends when its value is dropped.

#![deny(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "`say!` and `note` do not panic when nobody reads the output"
)]

use std::path::Path;

pub mod envoy;
pub mod fixtures;
pub mod generated;
pub mod image;
pub mod output;
pub mod process;
pub mod pypi;
pub mod segment;
pub mod stigg;
pub mod synthetic;
pub mod trapping;

mod fresh;
mod http;

/// The folder of the workspace, which the paths in `envoy.yaml` are relative to.
pub fn workspace_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the sandbox is a folder of the workspace")
}
