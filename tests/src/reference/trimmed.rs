//! Calls that lose parts because they are too large.

use serde_json::{Value, json};

use super::json::{Document, is_well_formed};
use super::redaction::{Listed, redacted};
use super::{Outcome, expected_from, filtered};

/// What leaves, one after the other. Ids and the time are read before.
const PATHS: &[&str] = &["missing.*.a", "customer.metadata", "x", "*.id", "messageId", "timestamp", "*"];

/// The source that ids name.
const SOURCE: &str = "eu-1_a";

/// Maps `body` both ways with each limit at which another path leaves, and with one byte less.
pub fn compare_trimmed(body: &[u8]) {
    let unlimited = json!({ "source": SOURCE });
    let (whole, call) = match (filtered(&unlimited.to_string(), body), expected_from(SOURCE, body)) {
        (Ok(whole), Outcome::Call(call)) => (whole.size(body.len()), call),
        (filtered, expected) => {
            assert_eq!(filtered.unwrap_err(), expected, "{}", body.escape_ascii());
            return;
        }
    };
    let event = Document::read(body).unwrap();
    // A `Value` has only the last of the members with one key, and no values that are nested too deep.
    if event.repeats_a_key() || event.depth() > 90 {
        return;
    }
    // The call without the first paths, as a value and in bytes.
    let mut stages = vec![(call.with(event.exact(), &[]), whole)];
    let (mut rest, mut removed) = (event.exact(), Vec::new());
    for count in 1..=PATHS.len() {
        let less = redacted(&rest, &Listed::Remove(&PATHS[..count]));
        if less == rest {
            continue;
        }
        rest = less;
        removed.push(PATHS[count - 1]);
        let list = format!(r#""removed":{},"#, json!(removed));
        stages.push((call.with(rest.clone(), &removed), size_without(&PATHS[..count], body) + list.len()));
    }
    let sizes: Vec<usize> = stages.iter().map(|(_, size)| *size).collect();
    for limit in sizes.iter().flat_map(|size| [*size, size - 1]) {
        let settings = json!({ "source": SOURCE, "too_large": { "remove": PATHS }, "max_call_bytes": limit });
        let sent = filtered(&settings.to_string(), body).map(|call| {
            let sent = [&call.head, call.properties.as_deref().unwrap_or(body), &call.tail].concat();
            assert!(is_well_formed(&sent), "this call is not JSON: {}", sent.escape_ascii());
            (Document::read(&sent).unwrap().exact(), sent.len(), call.trimmed)
        });
        let first_that_fits = stages.iter().position(|(_, size)| *size <= limit);
        let expected = match first_that_fits {
            Some(stage) => Ok((stages[stage].0.clone(), stages[stage].1, stage > 0)),
            None => Err(Outcome::Rejected("call_too_large")),
        };
        assert_eq!(
            sent,
            expected,
            "(left: the filter, right: the reference) with at most {limit} bytes for {}",
            body.escape_ascii()
        );
    }
}

/// How large a call without these paths is that does not list them: as if `properties` left them out.
fn size_without(paths: &[&str], body: &[u8]) -> usize {
    let settings = json!({ "source": SOURCE, "properties": { "remove": paths } });
    filtered(&settings.to_string(), body).unwrap().size(body.len())
}

impl super::Call {
    /// The call with these properties, from which these paths have left.
    fn with(&self, properties: Value, removed: &[&str]) -> Value {
        let mut call = json!({
            "event": self.event,
            "userId": self.user_id,
            "messageId": self.message_id,
            "context": self.context,
            "properties": properties,
        });
        if let Some(timestamp) = &self.timestamp {
            call["timestamp"] = timestamp.as_str().into();
        }
        if !removed.is_empty() {
            call["context"]["removed"] = json!(removed);
        }
        call
    }
}
