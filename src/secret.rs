//! A value that is never shown.

use std::fmt;

/// What Envoy writes for a secret that it does not have
/// (<https://www.envoyproxy.io/docs/envoy/latest/configuration/advanced/substitution_formatter>).
pub const NONE: &[u8] = b"-";

/// A secret. No log line, answer or debug output shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Hides `value`.
    pub fn new(value: impl Into<Vec<u8>>) -> Self {
        Secret(value.into())
    }

    /// The value itself, for the one place where it belongs.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
