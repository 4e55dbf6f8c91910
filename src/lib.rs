//! Turns Stigg's webhooks into Segment track calls, inside Envoy or any other proxy-wasm host.
//!
//! | file | concern |
//! | --- | --- |
//! | [`json`] | reading JSON without building anything |
//! | [`path`] | paths into an event, patterns for its type |
//! | [`event`] | a Stigg event, as far as anybody wants to know |
//! | [`mapping`] | what becomes of an event |
//! | [`name`] | what an event is called in Segment |
//! | [`redact`] | leaving members out of an event |
//! | [`track`] | the Segment calls |
//! | [`rfc3339`] | what a timestamp looks like |
//! | [`verify`] | who is let in; keeping secrets secret |
//! | [`headers`] | what reaches Segment beside the body |
//! | [`reply`] | what Stigg is told |
//! | [`metrics`] | what is counted |
//! | [`config`] | the plugin's configuration |
//! | [`fields`] | reading it, field by field |
//! | [`filter`] | one request's way through all of this |
//! | `host` | the proxy-wasm host; on WebAssembly only |
//!
//! Everything but `host` is plain Rust over bytes that knows of no proxy.

#![cfg_attr(not(target_arch = "wasm32"), forbid(unsafe_code))]

pub mod config;
pub mod event;
pub mod fields;
pub mod filter;
pub mod headers;
pub mod json;
pub mod mapping;
pub mod metrics;
pub mod name;
pub mod path;
pub mod redact;
pub mod reply;
pub mod rfc3339;
pub mod track;
pub mod verify;

#[cfg(target_arch = "wasm32")]
mod host;

/// What this sender calls itself towards Segment.
pub const NAME: &str = env!("CARGO_PKG_NAME");

/// The version it sends along.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Both, as the `user-agent` header says them.
pub const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
