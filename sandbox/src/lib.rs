//! Both neighbours of the filter, on this machine: a stand-in for Segment ([`segment`]), the sender that stands in for
//! Stigg ([`stigg`]), and the launcher of a real Envoy on the shipped `envoy.yaml` ([`envoy`]).
//!
//! `make run`, the integration tests and the benchmarks are all made of these three. Nothing leaves the loopback
//! interface, the system chooses the ports, and whatever was started ends when its value is dropped.

#![deny(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "`say!` and `note` do not panic when nobody reads the output"
)]

use std::path::Path;

pub mod envoy;
pub mod fixtures;
pub mod image;
pub mod marked;
pub mod output;
pub mod process;
pub mod pypi;
pub mod segment;
pub mod stigg;
pub mod trapping;

mod http;

/// The folder of the workspace, which the paths in `envoy.yaml` are relative to.
pub fn workspace_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the sandbox is a folder of the workspace")
}
