//! The calls that a request to Segment carries. The filter's own reader reads them: other readers reject some of the
//! events that the filter forwards.

use std::borrow::Cow;

use stigg_segment::json::{Reader, Value};

/// Each call in a request's body: the elements of a batch, or the body itself.
pub fn calls(body: &[u8]) -> Vec<&[u8]> {
    match member(body, "batch") {
        Some(Value::Array(batch)) => elements(batch).unwrap_or_default(),
        _ => vec![body],
    }
}

/// The track call of a request, which is its only call or the first of a batch.
pub fn track(body: &[u8]) -> &[u8] {
    calls(body).first().copied().unwrap_or(body)
}

/// A member of a call as JSON, or `null`.
pub fn shown(call: &[u8], key: &str) -> String {
    let text = member(call, key).map_or(Cow::from(b"null"), Value::text);
    String::from_utf8_lossy(&text).into_owned()
}

/// A member of an object. The last one counts.
fn member<'a>(object: &'a [u8], key: &str) -> Option<Value<'a>> {
    let mut reader = Reader::new(object);
    let (mut found, mut first) = (None, reader.enter_object());
    if !first {
        return None;
    }
    while let Some(name) = reader.member(std::mem::take(&mut first)).ok()? {
        let value = reader.value().ok()?;
        if name.is(key) {
            found = Some(value);
        }
    }
    found
}

fn elements(array: &[u8]) -> Option<Vec<&[u8]>> {
    let mut reader = Reader::new(array);
    reader.enter_array();
    let mut elements = Vec::new();
    while reader.element(elements.is_empty()).ok()? {
        let start = reader.at_value();
        reader.value().ok()?;
        elements.push(reader.read_since(start));
    }
    Some(elements)
}
