//! The filter from its own sources, but for one: a `mapping` that does not look at the event. It makes the same host
//! calls in the same order, and for the benchmark's events it sends the same bytes to Segment.

#![cfg(target_arch = "wasm32")]

#[path = "../../../src/config.rs"]
pub mod config;
#[path = "../../../src/event.rs"]
pub mod event;
#[path = "../../../src/fields.rs"]
pub mod fields;
#[path = "../../../src/filter.rs"]
pub mod filter;
#[path = "../../../src/headers.rs"]
pub mod headers;
#[path = "../../../src/host.rs"]
mod host;
#[path = "../../../src/json.rs"]
pub mod json;
pub mod mapping;
#[path = "../../../src/metrics.rs"]
pub mod metrics;
#[path = "../../../src/name.rs"]
pub mod name;
#[path = "../../../src/path.rs"]
pub mod path;
#[path = "../../../src/redact.rs"]
pub mod redact;
#[path = "../../../src/reply.rs"]
pub mod reply;
#[path = "../../../src/rfc3339.rs"]
pub mod rfc3339;
#[path = "../../../src/track.rs"]
pub mod track;
#[path = "../../../src/verify.rs"]
pub mod verify;

/// The filter's own name, so that the calls are as long.
pub const NAME: &str = "stigg-segment-filter";

/// The filter's version, which all packages share.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Both, as the filter sends them.
pub const USER_AGENT: &str = concat!("stigg-segment-filter/", env!("CARGO_PKG_VERSION"));
