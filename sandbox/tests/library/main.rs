//! The launcher of Envoy and the stand-in for Segment, which all tests on Envoy rely on.

mod envoy;
mod envoy_config;
mod segment;
mod which_envoy;
