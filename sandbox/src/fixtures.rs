//! The events in tests/fixtures: one of each type, as Stigg sends it.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use stigg_segment::json::Reader;

use crate::workspace_root;

fn folder() -> PathBuf {
    workspace_root().join("tests/fixtures")
}

/// Their types, sorted.
pub fn names() -> Result<Vec<String>> {
    let folder = folder();
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let file = entry?.file_name();
        let name = file.to_str().and_then(|file| file.strip_suffix(".json"));
        names.extend(name.filter(|name| !name.ends_with(".track")).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// The event of this type, or in this file, or on standard input if it is `-`.
///
/// # Errors
/// There is neither such a type nor such a file; the error lists the types.
pub fn event(name: &str) -> Result<Vec<u8>> {
    if name == "-" {
        let mut event = Vec::new();
        std::io::stdin().read_to_end(&mut event)?;
        return Ok(event);
    }
    let names = names()?;
    let file = match names.iter().any(|known| known == name) {
        true => folder().join(format!("{name}.json")),
        false => PathBuf::from(name),
    };
    match fs::read(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("there is no event and no file `{name}`; the events are:\n  {}", names.join("\n  "))
        }
        read => read.with_context(|| format!("cannot read {}", file.display())),
    }
}

/// The event as a new one, and its id: Segment drops an id that it has seen.
pub fn with_new_id(event: &[u8]) -> (Vec<u8>, String) {
    let id = format!("{:032x}", fastrand::u128(..));
    (with_id(event, &id), id)
}

/// The event with another `messageId`. The rest keeps its bytes. What is not an object stays as it is.
pub fn with_id(event: &[u8], id: &str) -> Vec<u8> {
    replaced(event, id).unwrap_or_else(|| event.to_vec())
}

fn replaced(event: &[u8], id: &str) -> Option<Vec<u8>> {
    const KEY: &str = "messageId";
    let id = serde_json::to_string(id).ok()?;
    let mut reader = Reader::new(event);
    reader.enter_object().then_some(())?;
    let begin = reader.position();
    let (mut first, mut values) = (true, Vec::new());
    while let Some(key) = reader.member(first).ok()? {
        first = false;
        let start = reader.at_value();
        reader.value().ok()?;
        if key.is(KEY) {
            values.push(start..reader.position());
        }
    }
    reader.end().ok()?;
    if values.is_empty() {
        let separator = if first { "" } else { "," };
        return Some([&event[..begin], format!("\"{KEY}\":{id}{separator}").as_bytes(), &event[begin..]].concat());
    }
    let (mut new, mut copied) = (Vec::new(), 0);
    for value in values {
        new.extend_from_slice(&event[copied..value.start]);
        new.extend_from_slice(id.as_bytes());
        copied = value.end;
    }
    new.extend_from_slice(&event[copied..]);
    Some(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_id_is_replaced_in_its_place_or_added() {
        let with_id = |event: &str| String::from_utf8(with_id(event.as_bytes(), "m")).unwrap();
        let replaced = r#"{"messageId":"m", "b":{"messageId": 2}}"#;
        assert_eq!(with_id(r#"{"messageId":1, "b":{"messageId": 2}}"#), replaced);
        assert_eq!(with_id("{ }"), r#"{"messageId":"m" }"#);
        assert_eq!(with_id("{\n1.50}"), "{\n1.50}");
        assert_eq!(with_id(r#"{"a":1.50}"#), r#"{"messageId":"m","a":1.50}"#);
        assert_eq!(with_id("[]"), "[]");
    }
}
