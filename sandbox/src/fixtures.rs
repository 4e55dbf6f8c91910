//! The events in tests/fixtures: one of each type, as Stigg sends it.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

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
/// There is neither such a type nor such a file; the error names a type that is written alike.
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
            let alike = names.iter().map(|known| (distance(known, name), known)).min();
            let meant = alike.filter(|(distance, _)| 2 * distance <= name.len());
            let meant = meant.map(|(_, known)| format!("; did you mean {known}?")).unwrap_or_default();
            bail!("there is no event and no file `{name}`; `make explain EVENT=--list` lists the events{meant}")
        }
        read => read.with_context(|| format!("cannot read {}", file.display())),
    }
}

/// An event, and what it is called.
pub type Named = (String, Vec<u8>);

/// The events that a name stands for: as [`event`], or those in the files of a folder. A file may have one on each line.
///
/// # Errors
/// As those of [`event`], and a folder without an event.
pub fn events(name: &str) -> Result<Vec<Named>> {
    let folder = Path::new(name);
    if !folder.is_dir() {
        return Ok(in_lines(name, event(name)?));
    }
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {name}"))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    let mut events = Vec::new();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_event = [".json", ".jsonl", ".ndjson"].iter().any(|ending| name.ends_with(ending));
        // Beside an event, the call that it becomes.
        if is_event && !name.ends_with(".track.json") {
            let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            events.extend(in_lines(name.strip_suffix(".json").unwrap_or(&name), text));
        }
    }
    ensure!(!events.is_empty(), "there is no event in {name}: its name would end in .json or .jsonl");
    Ok(events)
}

/// The events in a text: one on each line, or the whole.
fn in_lines(name: &str, text: Vec<u8>) -> Vec<Named> {
    let lines = || text.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
    if lines().count() < 2 || !lines().all(|(_, line)| line.trim_ascii().starts_with(b"{")) {
        return vec![(name.to_owned(), text)];
    }
    lines().map(|(index, line)| (format!("{name}:{}", index + 1), line.to_vec())).collect()
}

/// How many letters must be put in, taken out or replaced to make one name of another.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<_> = other.chars().collect();
    let mut row: Vec<_> = (0..=other.len()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, of_other) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *of_other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
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
    fn the_name_that_is_meant_is_the_one_written_alike() {
        for (wrong, right) in [
            ("subscription_created", "subscription.created"),
            ("customer.update", "customer.updated"),
            ("entitlement.updated", "entitlements.updated"),
            ("plan created", "plan.created"),
        ] {
            let error = event(wrong).unwrap_err().to_string();
            assert!(error.ends_with(&format!("did you mean {right}?")), "{error}");
        }
        let error = event("of-my-own.json").unwrap_err().to_string();
        assert!(error.ends_with("`make explain EVENT=--list` lists the events"), "{error}");
    }

    #[test]
    fn a_text_has_one_event_or_one_on_each_line() {
        let count = |text: &str| in_lines("a", text.as_bytes().to_vec()).len();
        assert_eq!(["", "{}", "{\n}", "{}\n", "{}\n\n {}\r\n{", "no\n{}"].map(count), [1, 1, 1, 1, 3, 1]);
        assert_eq!(in_lines("a", b"{}\n\n{\"b\":1}\n".to_vec())[1], ("a:3".to_owned(), b"{\"b\":1}".to_vec()));
    }

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
