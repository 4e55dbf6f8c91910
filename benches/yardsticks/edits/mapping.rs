//! What becomes of an event, whatever the event: the call for one that was mapped at the start.

use crate::reply::Reply;

#[allow(dead_code, reason = "what only people ask")]
#[path = "../../../src/mapping.rs"]
mod real;

pub use real::{Call, Choices, EventTypes, Place};

/// What decides on the call for the benchmark's events, less what does not.
const EVENT: &[u8] = br#"{
    "messageId": "9d4b0f71-c8e3-4a65-92d0-e7b6c3f15a28",
    "timestamp": "2026-03-18T11:42:09.015Z",
    "type": "entitlements.updated",
    "customer": { "id": "acme" }
}"#;

/// The call that every event becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    call: Result<Call, Reply>,
    kind: Vec<u8>,
}

impl Mapping {
    /// Maps the one event.
    pub fn new(choices: Choices) -> Self {
        let mut kind = Vec::new();
        let call = real::Mapping::new(choices).map(EVENT, |raw| kind.extend_from_slice(raw));
        Mapping { call, kind }
    }

    /// What became of that one.
    pub fn map(&self, _: &[u8], see_type: impl FnOnce(&[u8])) -> Result<Call, Reply> {
        see_type(&self.kind);
        self.call.clone()
    }
}
