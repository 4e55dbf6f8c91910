//! A gateway around the filter that is not Envoy: the module runs in [`proxy_wasm_host`], an implementation of
//! proxy-wasm 0.2.1 of its own, on a WebAssembly engine of its own.
//!
//! | file | concern |
//! | --- | --- |
//! | [`gateway`] | a request's way through the module, callback by callback |
//! | [`exchange`] | what the module may touch, and when |
//! | [`services`] | log and metrics |
//! | [`complaints`] | what the module did that it must not do |
//!
//! The gateway is strict where Envoy is lenient: a host call that is answered with anything but `OK` fails the request,
//! unless a module has to expect that answer from any host.

pub mod complaints;
pub mod exchange;
pub mod gateway;
pub mod services;

#[path = "../../src/cases.rs"]
pub mod cases;
#[path = "../../src/fixtures.rs"]
pub mod fixtures;
