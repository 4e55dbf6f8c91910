//! Gives every event the same call: that of one event, mapped at the start.

use crate::reply::Reply;

#[allow(dead_code, reason = "`origins` is only for `explain`")]
#[path = "../../../src/mapping.rs"]
mod real;

pub use real::{Call, Choices, EventTypes};

/// The parts of the benchmark's events that decide on the call.
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
    message_id_prefix: String,
}

impl Mapping {
    /// Maps the event.
    pub fn new(choices: Choices) -> Self {
        let mut kind = Vec::new();
        let message_id_prefix = choices.message_id_prefix.clone();
        let call = real::Mapping::new(choices).map(EVENT, usize::MAX, |raw| kind.extend_from_slice(raw), || None);
        Mapping { call, kind, message_id_prefix }
    }

    /// The benchmark's events are not under a key.
    pub fn under(&self) -> Option<&[u8]> {
        None
    }

    /// What the ids of all calls start with.
    pub fn message_id_prefix(&self) -> &str {
        &self.message_id_prefix
    }

    /// The call for the event that was mapped at the start.
    pub fn map(
        &self,
        _: &[u8],
        _: usize,
        see_type: impl FnOnce(&[u8]),
        _: impl FnOnce() -> Option<u64>,
    ) -> Result<Call, Reply> {
        see_type(&self.kind);
        self.call.clone()
    }
}
