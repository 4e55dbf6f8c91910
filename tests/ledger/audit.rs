//! Compares the answers that the sender got with the calls that Segment has.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};

use super::event::{self, About, Envelope, Event};
use super::sender::{ATTEMPTS, Attempt};

/// A call that arrived at Segment.
pub struct Arrival {
    /// The track call.
    pub body: Vec<u8>,
    /// The write key of the source that it is for.
    pub write_key: Option<String>,
    /// Whether Segment accepted it.
    pub kept: bool,
}

/// A finding of the audit. Each except the last names an event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// The sender was told that it was delivered, and Segment does not have it.
    Lost(usize),
    /// Segment has it more than once, even without duplicates.
    Doubled(usize),
    /// Segment treats it as a duplicate of another event.
    Swallowed(usize),
    /// Its `properties` are not the bytes that were sent.
    PropertiesAltered(usize),
    /// The rest of the call is not what the event maps to.
    EnvelopeAltered(usize),
    /// It reached Segment and should not have.
    Uninvited(usize),
    /// The sender got this status, which does not fit the event.
    Misanswered(usize, u16),
    /// The sender neither delivered it nor saw each attempt fail.
    Unreported(usize),
    /// A call that belongs to no event.
    Unknown(String),
}

/// The result of the audit.
pub struct Books {
    /// The numbers of the events that Segment has after removing duplicates by `messageId`.
    pub kept: BTreeSet<usize>,
    /// The findings.
    pub findings: BTreeSet<Finding>,
}

/// Audits all events (in the order of their numbers), the sender's attempts (by the event's number) and the calls that
/// arrived.
pub fn audit(events: &[Event], told: &BTreeMap<usize, Vec<Attempt>>, arrivals: &[Arrival]) -> Books {
    let mut findings = BTreeSet::new();

    // As Segment does: the first call with a `messageId` counts, whichever source it is for, and a call without one is
    // unique.
    let mut first_with_id = HashMap::new();
    let mut kept = BTreeSet::new();
    for (turn, arrival) in arrivals.iter().enumerate() {
        let call: Value = serde_json::from_slice(&arrival.body).unwrap_or_default();
        let Some(event) =
            event::number(&arrival.body, arrival.write_key.as_deref()).and_then(|number| events.get(number))
        else {
            findings.insert(Finding::Unknown(String::from_utf8_lossy(&arrival.body).into_owned()));
            continue;
        };
        let number = event.number;
        match &event.about {
            About::Customer(envelope) => findings.extend(compare(event, envelope, &arrival.body, call.clone())),
            About::NoCustomer | About::Unusable => _ = findings.insert(Finding::Uninvited(number)),
        }
        if arrival.kept {
            let id = call["messageId"].as_str().map_or_else(|| Err(turn), |id| Ok(id.to_owned()));
            let first = *first_with_id.entry(id).or_insert_with(|| {
                if !kept.insert(number) {
                    findings.insert(Finding::Doubled(number));
                }
                number
            });
            if first != number {
                findings.insert(Finding::Swallowed(number));
            }
        }
    }

    for Event { number, about, .. } in events {
        let number = *number;
        let attempts = told.get(&number).map_or(&[][..], Vec::as_slice);
        let finding = match (attempts.last(), about) {
            (Some(Attempt::Answered(200)), About::Customer(_)) if kept.contains(&number) => continue,
            (Some(Attempt::Answered(200)), About::Customer(_)) => Finding::Lost(number),
            (Some(Attempt::Answered(204)), About::NoCustomer) => continue,
            (Some(Attempt::Answered(status @ 200..=299)), _) => Finding::Misanswered(number, *status),
            _ if attempts.len() == ATTEMPTS => continue,
            _ => Finding::Unreported(number),
        };
        findings.insert(finding);
    }
    Books { kept, findings }
}

fn compare(event: &Event, expected: &Envelope, body: &[u8], mut call: Value) -> Option<Finding> {
    let properties = format!("\"properties\":{}}}", event.body);
    if !body.ends_with(properties.as_bytes()) {
        return Some(Finding::PropertiesAltered(event.number));
    }
    let mut envelope = json!({
        "event": expected.event,
        "userId": expected.user_id,
        "messageId": null,
        "context": {"library": {"name": "stigg-segment-filter", "version": env!("CARGO_PKG_VERSION")}},
        "properties": null,
    });
    if !expected.timestamp.is_null() {
        envelope["timestamp"] = expected.timestamp.clone();
    }
    call["properties"] = Value::Null;
    let id = call["messageId"].take();
    if !expected.message_ids.iter().any(|expected| id == *expected) {
        return Some(Finding::EnvelopeAltered(event.number));
    }
    (call != envelope).then_some(Finding::EnvelopeAltered(event.number))
}
