//! An independent implementation of the mapping: `serde_json` reads the body, and the code follows the specification line by
//! line. Slow, and obviously right.
//!
//! `rules/differential.rs` and the fuzz targets compare the filter with it.

pub mod configuration;
pub mod documents;
mod json;
pub mod places;
mod redaction;
pub mod trimmed;

use std::env::VarError;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use stigg_segment::config::Config;
use stigg_segment::filter::{Filter, Step};
use stigg_segment::{identity, mapping};

use json::{Document, is_well_formed};
use redaction::{Listed, redacted};

/// The outcome of a body.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// A call with the whole body as its properties.
    Call(Box<Call>),
    /// A 204 with this reason: there is no customer, or the configuration does not look where it is.
    Ignored(&'static str),
    /// A 400 or 413 with this code.
    Rejected(&'static str),
}

/// A track call without its properties. Parsing fails if a key is missing, unknown or doubled.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Call {
    event: String,
    user_id: String,
    message_id: String,
    #[serde(default, deserialize_with = "unless_absent")]
    timestamp: Option<String>,
    context: Value,
    properties: (),
}

/// Serde's `Option` would accept a null too.
fn unless_absent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

/// Maps `body` both ways, panics unless they agree, and returns what they agree on.
pub fn compare(body: &[u8]) -> Outcome {
    let filtered = match filtered("{}", body) {
        Ok(call) => Outcome::Call(Box::new(read_call(&call, body))),
        Err(answer) => answer,
    };
    assert_eq!(filtered, expected(body), "(left: the filter, right: the reference) for {}", body.escape_ascii());
    filtered
}

/// Maps `body` both ways where members are left out of what is sent and other calls go beside the track call. Of two
/// lists the first is that of all environments, and the second that of one.
pub fn compare_redacted(body: &[u8]) {
    for lists in [
        [Listed::Remove(&["customer.email", "customer.metadata.*.a", "*.name", "x", "x.a", "*.*.*.id"])].as_slice(),
        &[Listed::Remove(&["*"])],
        &[Listed::KeepOnly(&["type", "customer.name", "customer.metadata.a", "*.*.id", "x.*.a"])],
        &[Listed::KeepOnly(&["customer.metadata.*", "x", "x.a"])],
        &[Listed::Remove(&["customer.name"]), Listed::Remove(&["customer.metadata", "*.email"])],
        &[Listed::Remove(&["customer.metadata.a"]), Listed::KeepOnly(&["customer.metadata", "type"])],
        &[Listed::KeepOnly(&["customer.*", "x"]), Listed::KeepOnly(&["*.name", "x.a", "customer.metadata.*"])],
    ] {
        let settings = Listed::settings(lists);
        let filtered = filtered(&settings, body);
        let expected = expected(body);
        let (Ok(sent), Outcome::Call(call)) = (&filtered, &expected) else {
            assert_eq!(filtered.unwrap_err(), expected, "{}", body.escape_ascii());
            continue;
        };
        let sent = [&sent.head, sent.properties.as_deref().unwrap(), &sent.tail].concat();
        assert!(is_well_formed(&sent), "this request is not JSON: {}", sent.escape_ascii());
        let event = Document::read(body).unwrap();
        // If a key occurs twice, each value is redacted separately, so with `keep_only` an earlier one may stay while the
        // last one goes. A `Value` has only the last.
        let is_ambiguous = lists.iter().any(|listed| matches!(listed, Listed::KeepOnly(_))) && event.repeats_a_key();
        // Values nested deeper are not in the same place in both documents.
        let is_deep = event.depth() > 90;
        if !is_ambiguous && !is_deep {
            assert_eq!(
                Document::read(&sent).unwrap().exact(),
                batch(call, &event, body, lists),
                "(left: the filter, right: the reference) under {} for {}",
                settings,
                body.escape_ascii()
            );
        }
    }
}

/// The event in a body, or the answer to a body that has none.
fn read(body: &[u8]) -> Result<(Document, Value), Outcome> {
    if body.is_empty() {
        return Err(Outcome::Rejected("empty_body"));
    }
    let document = Document::read(body).ok_or(Outcome::Rejected("malformed_json"))?;
    let event: Value = document.parse().unwrap();
    if event.is_object() { Ok((document, event)) } else { Err(Outcome::Rejected("not_an_object")) }
}

/// The id that a value is, if it is one.
fn id(value: &Value, document: &Document) -> Result<Option<String>, Outcome> {
    match value {
        Value::Null | Value::Bool(false) => Ok(None),
        Value::String(id) if id.is_empty() => Ok(None),
        Value::Number(id) if is_zero(document.literal(id)) => Ok(None),
        Value::String(id) => Ok(Some(id.clone())),
        Value::Number(id) => Ok(Some(document.literal(id).to_owned())),
        Value::Bool(true) | Value::Array(_) | Value::Object(_) => Err(Outcome::Rejected("invalid_customer_id")),
    }
}

fn expected(body: &[u8]) -> Outcome {
    expected_from("", body)
}

/// The same if the ids of calls name this source.
fn expected_from(source: &str, body: &[u8]) -> Outcome {
    let (document, event) = match read(body) {
        Ok(read) => read,
        Err(answer) => return answer,
    };
    // Null if there is no such key, or no object.
    let user_id = match id(&event["customer"]["id"], &document) {
        Ok(Some(user_id)) => user_id,
        Ok(None) => return places::ignored(&event, &document),
        Err(answer) => return answer,
    };
    let Some(kind) = event["type"].as_str().filter(|kind| !kind.is_empty()) else {
        return Outcome::Rejected("invalid_type");
    };
    Outcome::Call(Box::new(Call {
        event: kind.replace('.', "_"),
        user_id,
        message_id: message_id_from(source, &event, body, ""),
        timestamp: event["timestamp"].as_str().filter(|text| is_date_time(text)).map(str::to_owned),
        context: json!({ "library": { "name": identity::NAME, "version": identity::VERSION } }),
        properties: (),
    }))
}

/// The time at which all bodies arrive: on day 20,000.
const NOW: Duration = Duration::from_secs(20_000 * 86_400);

/// Stigg's id, or one that depends only on the body, and on the day if the event has neither an id nor a time.
fn message_id(event: &Value, body: &[u8], suffix: &str) -> String {
    message_id_from("", event, body, suffix)
}

/// The same if it names this source.
fn message_id_from(source: &str, event: &Value, body: &[u8], suffix: &str) -> String {
    let prefix = if source.is_empty() { "stigg-".to_owned() } else { format!("stigg-{source}-") };
    let own = event["messageId"].as_str().filter(|id| !id.is_empty()).map(|id| format!("{prefix}{id}{suffix}"));
    match own {
        Some(id) if id.chars().count() <= 100 => id,
        _ => {
            let is_absent = |key: &str| event[key].is_null() || event[key] == "";
            let day = if is_absent("messageId") && is_absent("timestamp") { "\n20000" } else { "" };
            format!("{prefix}sha256-{:x}{suffix}", Sha256::digest([body, day.as_bytes()].concat()))
        }
    }
}

/// The three calls that go to Segment in one request.
fn batch(call: &Call, event: &Document, body: &[u8], lists: &[Listed]) -> Value {
    let value: Value = event.parse().unwrap();
    let common = |suffix| {
        let mut common = json!({
            "userId": call.user_id,
            "messageId": message_id(&value, body, suffix),
            "context": call.context,
        });
        if let Some(timestamp) = &call.timestamp {
            common["timestamp"] = timestamp.as_str().into();
        }
        common
    };
    let properties = lists.iter().fold(event.exact(), |event, listed| redacted(&event, listed));
    let mut traits = json!({});
    for name in ["name", "email", "metadata"] {
        if !properties["customer"][name].is_null() {
            traits[name] = properties["customer"][name].clone();
        }
    }
    let [mut track, mut identify, mut group] = ["", "-identify", "-group"].map(common);
    track["type"] = "track".into();
    track["event"] = call.event.as_str().into();
    track["properties"] = properties;
    identify["type"] = "identify".into();
    identify["traits"] = traits.clone();
    group["type"] = "group".into();
    group["groupId"] = call.user_id.as_str().into();
    group["traits"] = traits;
    json!({ "batch": [track, identify, group] })
}

/// Whether JavaScript reads a number as 0: all its digits are zeros, or it is no more than half of the least double.
fn is_zero(number: &str) -> bool {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.trim_start_matches('-').split_once('.').unwrap_or((mantissa, ""));
    let whole = whole.trim_start_matches('-');
    let digits = [whole, fraction].concat();
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() {
        return true;
    }
    // An exponent that no integer can hold is far away from the limit.
    let far = if exponent.starts_with('-') { i128::MIN / 2 } else { i128::MAX / 2 };
    let exponent: i128 = exponent.parse().unwrap_or(far);
    // The power of ten of the first digit.
    let power = exponent + (whole.len() as i128 - 1) - (digits.len() - significant.len()) as i128;
    // 2^-1075, the half of the least double; a number that has all these digits is not looked at more closely.
    power < -324 || (power == -324 && significant <= "2470328229206232720882843964341106861825299013071623822127928")
}

/// Whether `text` is a date-time as in RFC 3339, section 5.6: `full-date "T" full-time`. The seconds and the colon of the
/// offset may be left out.
fn is_date_time(text: &str) -> bool {
    let is_time = |text: &str| {
        let Some(end) = text.find(['Z', 'z', '+', '-']) else { return false };
        let (time, offset) = text.split_at(end);
        if is_clock(time, [23, 59]) {
            return is_offset(offset);
        }
        let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
        is_clock(time, [23, 59, 60])
            && !fraction.is_empty()
            && fraction.chars().all(|c| c.is_ascii_digit())
            && is_offset(offset)
    };
    text.split_once(['T', 't']).is_some_and(|(date, time)| is_date(date) && is_time(time))
}

/// Whether `text` is numbers of two digits with colons between, none over its maximum.
fn is_clock<const N: usize>(text: &str, maxima: [u32; N]) -> bool {
    let numbers: Vec<_> = text.split(':').map(|digits| number(digits, 2)).collect();
    numbers.len() == N && numbers.iter().zip(maxima).all(|(number, max)| number.is_some_and(|number| number <= max))
}

fn is_offset(text: &str) -> bool {
    let is_it = |offset: &str| match offset.split_at_checked(2) {
        Some((hours, minutes)) if !minutes.contains(':') => is_clock(&format!("{hours}:{minutes}"), [23, 59]),
        _ => is_clock(offset, [23, 59]),
    };
    matches!(text, "Z" | "z") || text.strip_prefix(['+', '-']).is_some_and(is_it)
}

fn is_date(text: &str) -> bool {
    let [year, month, day] = text.split('-').collect::<Vec<_>>()[..] else { return false };
    let (Some(year), Some(month), Some(day)) = (number(year, 4), number(month, 2), number(day, 2)) else {
        return false;
    };
    let is_leap_year = if year % 100 == 0 { year % 400 == 0 } else { year % 4 == 0 };
    let february = if is_leap_year { 29 } else { 28 };
    let days = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    (1..=12).contains(&month) && (1..=days[month as usize - 1]).contains(&day)
}

fn number(text: &str, digits: usize) -> Option<u32> {
    (text.len() == digits && text.chars().all(|c| c.is_ascii_digit())).then(|| text.parse().unwrap())
}

/// The filter's outcome for `body`.
fn filtered(settings: &str, body: &[u8]) -> Result<mapping::Call, Outcome> {
    let mut settings: Value = serde_json::from_str(settings).unwrap();
    settings["webhook_secret"] = "unverified".into();
    settings["write_key"] = "gateway".into();
    // Of sizes, the reference checks only a call's, and only where there is something to remove.
    settings["max_body_bytes"] = 1_000_000_000.into();
    settings.as_object_mut().unwrap().entry("max_call_bytes").or_insert(1_000_000_000.into());
    let mut filter =
        Filter::new(Arc::new(Config::parse(settings.to_string().as_bytes(), |_| Err(VarError::NotPresent)).unwrap()));
    let head = [(b":method".as_slice(), b"POST".as_slice()), (b":path", b"/")];
    assert!(matches!(filter.headers(head.into_iter(), false, |_| None), Step::SendHeaders(_)));
    match filter.complete(body, || Some(NOW)) {
        Step::Forward(None, call) => Ok(call),
        Step::Reply(reply) if reply.status() == 204 => Err(Outcome::Ignored(reply.code())),
        Step::Reply(reply) if [400, 413].contains(&reply.status()) => Err(Outcome::Rejected(reply.code())),
        step => panic!("{step:?}"),
    }
}

/// Parses the call that has the whole `body` as its properties.
fn read_call(call: &mapping::Call, body: &[u8]) -> Call {
    assert_eq!(call.properties, None);
    let whole = [&call.head, body, &call.tail].concat();
    assert!(is_well_formed(&whole), "this call is not JSON: {}", whole.escape_ascii());
    assert!(whole.ends_with(&[body, b"}"].concat()), "this call does not end in its body: {}", whole.escape_ascii());
    // With null in place of the body, the properties must be null: so the body is their whole value.
    Document::read(&[&call.head, b"null".as_slice(), &call.tail].concat()).unwrap().parse().unwrap()
}
