//! The differences between a call and what is expected of it.

use std::collections::BTreeSet;

use serde_json::Value;
use stigg_segment::path::{Path, Step};

/// Longer values are cut.
const WIDTH: usize = 200;

/// The member that holds the calls of a batch.
const BATCH: &str = "batch";

/// How a request's body differs in the named members, a line for each difference. What is expected of a call is expected
/// of the track call in a batch, unless it names the batch.
pub fn differences(expected: &[(Path, Value)], body: &Value) -> Vec<String> {
    let names_batch = expected.iter().any(|(path, _)| *path == Path::keys([BATCH]));
    let track = body.get(BATCH).and_then(|batch| batch.get(0)).filter(|_| !names_batch);
    let mut differences = Vec::new();
    compare_members(expected, track.unwrap_or(body), "", &mut differences);
    differences
}

fn compare_members(expected: &[(Path, Value)], call: &Value, place: &str, differences: &mut Vec<String>) {
    for (path, expected) in expected {
        let place = format!("{place}{path}");
        match (expected, member(call, path)) {
            // A member that is absent is as good as null to Segment.
            (Value::Null, None) => {}
            (Value::Array(expected), Some(Value::Array(calls))) if place == BATCH => {
                compare_batches(expected, calls, differences);
            }
            (expected, found) => compare(Some(expected), found, &place, differences),
        }
    }
}

/// Compares the calls of a batch, each in the members that are named.
fn compare_batches(expected: &[Value], calls: &[Value], differences: &mut Vec<String>) {
    if expected.len() != calls.len() {
        differences.push(format!("{BATCH}: expected {} calls, got {}", expected.len(), calls.len()));
    }
    for (index, (expected, call)) in expected.iter().zip(calls).enumerate() {
        let place = format!("{BATCH}[{index}]");
        let members = expected.as_object().map(|members| {
            let members = members.iter().map(|(key, value)| Some((Path::parse(key).ok()?, value.clone())));
            members.collect::<Option<Vec<_>>>()
        });
        match members.flatten() {
            Some(members) => compare_members(&members, call, &format!("{place}."), differences),
            None => differences.push(format!("{place}: what is expected of a call is an object whose keys are paths")),
        }
    }
}

/// Compares two whole values, down to what differs.
fn compare(expected: Option<&Value>, found: Option<&Value>, place: &str, differences: &mut Vec<String>) {
    match (expected, found) {
        (expected, found) if expected == found => {}
        (Some(Value::Object(expected)), Some(Value::Object(found))) => {
            for key in expected.keys().chain(found.keys()).collect::<BTreeSet<_>>() {
                compare(expected.get(key), found.get(key), &format!("{place}.{key}"), differences);
            }
        }
        (Some(Value::Array(expected)), Some(Value::Array(found))) => {
            for index in 0..expected.len().max(found.len()) {
                compare(expected.get(index), found.get(index), &format!("{place}[{index}]"), differences);
            }
        }
        (expected, found) => {
            differences.push(format!("{place}: expected {}, got {}", shown(expected), shown(found)));
        }
    }
}

fn member<'a>(value: &'a Value, path: &Path) -> Option<&'a Value> {
    path.steps().iter().try_fold(value, |value, step| match step {
        Step::Key(key) => value.get(key),
        Step::Any => None,
    })
}

fn shown(value: Option<&Value>) -> String {
    let Some(value) = value else { return "nothing".to_owned() };
    let text = value.to_string();
    match text.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(expected: &Value, body: &Value) -> Vec<String> {
        let members = expected.as_object().unwrap().iter();
        differences(&members.map(|(key, value)| (Path::parse(key).unwrap(), value.clone())).collect::<Vec<_>>(), body)
    }

    #[test]
    fn only_named_members_are_compared_and_each_difference_has_a_line() {
        let call = json!({ "event": "a", "userId": "x", "properties": { "a": [1, { "b": 2 }], "c": null, "d": 1.5 } });
        for same in [
            json!({}),
            json!({ "event": "a", "traits": null, "properties.c": null, "properties.a": [1, { "b": 2 }] }),
            json!({ "properties": { "a": [1, { "b": 2 }], "c": null, "d": 1.5 } }),
        ] {
            assert_eq!(of(&same, &call), [""; 0]);
        }
        let other = json!({ "userId": 7, "type": "track", "properties": { "a": [1, { "b": 3 }, 4], "c": null } });
        let expected = [
            "properties.a[1].b: expected 3, got 2",
            "properties.a[2]: expected 4, got nothing",
            "properties.d: expected nothing, got 1.5",
            r#"type: expected "track", got nothing"#,
            r#"userId: expected 7, got "x""#,
        ];
        assert_eq!(of(&other, &call), expected);
        let long = of(&json!({ "event": "x".repeat(1_000) }), &call);
        assert!(long[0].ends_with("…, got \"a\"") && long[0].len() < 250, "{long:?}");
    }

    #[test]
    fn of_a_batch_the_track_call_is_meant_or_each_call_is_named() {
        let body =
            json!({ "batch": [{ "type": "track", "event": "a" }, { "type": "group", "traits": { "name": "n" } }] });
        assert_eq!(of(&json!({ "event": "a" }), &body), [""; 0]);
        assert_eq!(
            of(&json!({ "batch": [{ "type": "track" }, { "traits.name": "n", "traits.email": null }] }), &body),
            [""; 0]
        );
        assert_eq!(
            of(&json!({ "batch": [{ "event": "b" }] }), &body),
            ["batch: expected 1 calls, got 2", r#"batch[0].event: expected "b", got "a""#]
        );
        assert_eq!(of(&json!({ "event": "b" }), &body), [r#"event: expected "b", got "a""#]);
        assert_eq!(of(&json!({ "batch": [7, {}] }), &body).len(), 1);
    }
}
