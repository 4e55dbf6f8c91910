//! Shared by the tests of the mapping: takes a webhook's body, and returns its outcome.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;
use stigg_segment::config::Config;
use stigg_segment::filter::{Filter, Step};

/// The time at which all bodies arrive: on day 20,000.
pub const NOW: Duration = Duration::from_secs(20_000 * 86_400 + 1);

/// The outcome of a body: the request to Segment, or the answer.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// The call that is sent.
    Call(Vec<u8>),
    /// The status and code of the answer.
    Answer(u32, &'static str),
}

/// The outcome of `body` under these settings, without a webhook secret.
pub fn map_with(settings: &str, body: &[u8]) -> Outcome {
    outcome(step(settings, body), body)
}

/// The same for a body that arrives now.
pub fn map_now(settings: &str, body: &[u8]) -> Outcome {
    outcome(step_at(settings, body, UNIX_EPOCH.elapsed().unwrap()), body)
}

fn outcome(step: Step, body: &[u8]) -> Outcome {
    match step {
        Step::Forward(_, call) => {
            let size = call.size(body.len());
            let sent = [&call.head, call.properties.as_deref().unwrap_or(body), &call.tail].concat();
            assert_eq!(size, sent.len());
            Outcome::Call(sent)
        }
        Step::Reply(reply) => Outcome::Answer(reply.status(), reply.code()),
        other => panic!("{other:?}"),
    }
}

/// The last step of a request with this body.
pub fn step(settings: &str, body: &[u8]) -> Step {
    step_at(settings, body, NOW)
}

fn step_at(settings: &str, body: &[u8], now: Duration) -> Step {
    let mut settings: Value = serde_json::from_str(settings).unwrap();
    settings["webhook_secret"] = "unverified".into();
    // Then ids do not depend on a key.
    settings.as_object_mut().unwrap().entry("write_key").or_insert_with(|| "gateway".into());
    let env = |name: &str| Ok(format!("value of {name}"));
    let config = Config::parse(settings.to_string().as_bytes(), env).unwrap_or_else(|error| panic!("{error}"));
    let mut filter = Filter::new(Arc::new(config));
    let head = [(b":method".as_slice(), b"POST".as_slice()), (b":path", b"/")];
    let step = filter.headers(head.into_iter(), false, |_| None);
    assert!(!matches!(step, Step::Reply(_)), "{step:?}");
    filter.complete(body, || Some(now))
}

/// The outcome of `body` by default.
pub fn map(body: impl AsRef<[u8]>) -> Outcome {
    map_with("{}", body.as_ref())
}

/// The request that `body` becomes under these settings, parsed.
pub fn call_with(settings: &str, body: impl AsRef<[u8]>) -> Value {
    match map_with(settings, body.as_ref()) {
        Outcome::Call(call) => serde_json::from_slice(&call).unwrap(),
        other => panic!("{} gave {other:?}", String::from_utf8_lossy(body.as_ref())),
    }
}

/// The request that `body` becomes by default, parsed.
pub fn call(body: impl AsRef<[u8]>) -> Value {
    call_with("{}", body)
}

/// A value with every number as JavaScript has it.
pub fn in_javascript(value: Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().into(),
        Value::Array(list) => list.into_iter().map(in_javascript).collect(),
        Value::Object(members) => members.into_iter().map(|(key, value)| (key, in_javascript(value))).collect(),
        other => other,
    }
}
