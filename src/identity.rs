//! What the filter calls itself towards Segment.

/// The name in `context.library`.
pub const NAME: &str = env!("CARGO_PKG_NAME");

/// The version in `context.library`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The `user-agent` header: name and version, as every SDK of Segment's sends them.
pub const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
