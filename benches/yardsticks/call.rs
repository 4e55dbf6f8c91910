//! The call of the benchmark's events, around the event: what the filter writes for them.

/// Before the event.
pub const HEAD: &str = concat!(
    r#"{"event":"entitlements_updated","userId":"acme","messageId":"stigg-4d471f88-9d4b0f71-c8e3-4a65-92d0-e7b6c3f15a28","#,
    r#""timestamp":"2026-03-18T11:42:09.015Z","context":{"library":{"name":"stigg-segment-filter","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#""}},"properties":"#,
);

/// After the event.
pub const TAIL: &str = "}";
