//! A gateway that is not Envoy: the module runs in [`proxy_wasm_host`], an independent implementation of proxy-wasm 0.2.1 on
//! another WebAssembly engine.
//!
//! | file | concern |
//! | --- | --- |
//! | [`gateway`] | taking a request through the module, callback by callback |
//! | [`exchange`] | what the module may access, and when |
//! | [`services`] | log and metrics |
//! | [`complaints`] | the module's mistakes |
//!
//! The gateway is strict where Envoy is lenient: a host call that is answered with anything but `OK` fails the request,
//! unless a module must expect that answer from any host.

pub mod complaints;
pub mod exchange;
pub mod gateway;
pub mod services;

#[path = "../../src/cases.rs"]
pub mod cases;
#[path = "../../src/fixtures.rs"]
pub mod fixtures;
#[path = "../../../sandbox/src/fresh.rs"]
pub mod fresh;
