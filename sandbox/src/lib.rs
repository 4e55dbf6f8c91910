//! Both neighbours of the filter, on this machine: a stand-in for Segment ([`segment`]), the sender that stands in for
//! Stigg ([`stigg`]), and the launcher of a real Envoy on the shipped `envoy.yaml` ([`envoy`]).
//!
//! In the filter's place there can be something else to measure it against ([`yardstick`]).
//!
//! `make run`, the integration tests and the benchmarks are all made of these three. Nothing leaves the loopback
//! interface, the system chooses the ports, and whatever was started ends when its value is dropped.

pub mod envoy;
pub mod image;
pub mod marked;
pub mod module;
pub mod process;
pub mod sample;
pub mod segment;
pub mod stigg;
pub mod wheel;
pub mod yardstick;

mod http;
