//! The filter's sources with another `mapping`, one that does not read the event. It makes the same host calls in the same
//! order, and for the benchmark's events it sends the same bytes to Segment.

#![cfg(target_arch = "wasm32")]

#[path = "../../../src/abi.rs"]
mod abi;
#[path = "../../../src/authorization.rs"]
pub mod authorization;
#[path = "../../../src/config/mod.rs"]
pub mod config;
#[path = "../../../src/envelope.rs"]
pub mod envelope;
#[path = "../../../src/event.rs"]
pub mod event;
#[path = "../../../src/event_name.rs"]
pub mod event_name;
#[path = "../../../src/filter.rs"]
pub mod filter;
#[path = "../../../src/header_map.rs"]
pub mod header_map;
#[path = "../../../src/headers.rs"]
pub mod headers;
#[path = "../../../src/host.rs"]
pub mod host;
#[path = "../../../src/json.rs"]
pub mod json;
pub mod mapping;
#[path = "../../../src/metrics.rs"]
pub mod metrics;
#[path = "../../../src/path.rs"]
pub mod path;
#[path = "../../../src/pattern.rs"]
pub mod pattern;
#[path = "../../../src/places.rs"]
pub mod places;
#[path = "../../../src/redact.rs"]
pub mod redact;
#[path = "../../../src/reply.rs"]
pub mod reply;
#[path = "../../../src/rfc3339.rs"]
pub mod rfc3339;
#[path = "../../../src/secret.rs"]
pub mod secret;
#[path = "../../../src/shell.rs"]
mod shell;
#[path = "../../../src/stream.rs"]
pub mod stream;
#[path = "../../../src/verify.rs"]
pub mod verify;

pub mod identity {
    //! The filter's name and version, so that the calls have the same length.

    /// The filter's name.
    pub const NAME: &str = "stigg-segment-filter";

    /// The filter's version.
    pub const VERSION: &str = env!("CARGO_PKG_VERSION");

    /// Name and version, as the filter sends them.
    pub const USER_AGENT: &str = concat!("stigg-segment-filter/", env!("CARGO_PKG_VERSION"));
}
