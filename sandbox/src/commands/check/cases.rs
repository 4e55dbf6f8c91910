//! The file of cases.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use sandbox::fixtures;
use serde::Deserialize;
use serde_json::{Map, Value};
use stigg_segment::json::{Malformed, Reader, Str};
use stigg_segment::path;

use crate::commands::rules::Rules;

/// An event, and what is expected of it.
#[derive(Debug)]
pub struct Case {
    /// What is special about it.
    pub name: String,
    /// The webhook's body.
    pub event: Vec<u8>,
    /// The path that it is sent to.
    pub path: String,
    /// The expected outcome.
    pub expected: Expected,
}

/// What the filter should do.
#[derive(Debug)]
pub enum Expected {
    /// Send a call with these members: the path to each, and its value.
    Call(Vec<(path::Path, Value)>),
    /// Answer with this status and reason.
    Answer(String),
}

/// A case as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Option<String>,
    event: Value,
    path: Option<String>,
    call: Option<Map<String, Value>>,
    answer: Option<String>,
}

/// Reads them.
///
/// # Errors
/// One of them is wrong, or there is none.
pub fn read(file: &Path, rules: &Rules) -> Result<Vec<Case>> {
    let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let shown = file.display();
    let is_json = file.extension().is_some_and(|extension| extension == "json");
    let cases: Vec<Written> = match is_json {
        true => serde_json::from_slice(&text).with_context(|| shown.to_string())?,
        false => serde_yaml_ng::from_slice(&text).with_context(|| shown.to_string())?,
    };
    // Of two members with one key, only the last would be expected.
    if !is_json {
        serde_yaml_ng::from_slice::<serde_yaml_ng::Value>(&text).with_context(|| shown.to_string())?;
    } else if let Ok(Some(key)) = repeated_key(&mut Reader::new(&text)) {
        bail!("{shown}: the key `{}` occurs twice", String::from_utf8_lossy(key.raw()));
    }
    ensure!(!cases.is_empty(), "{shown}: there is no case in it");
    let folder = file.parent().unwrap_or(Path::new(""));
    let cases = cases.into_iter().enumerate().map(|(index, case)| {
        let number = index + 1;
        case.checked(number, folder, rules).with_context(|| format!("{shown}: case {number}"))
    });
    cases.collect()
}

impl Written {
    fn checked(self, number: usize, folder: &Path, rules: &Rules) -> Result<Case> {
        let expected = match (self.call, self.answer) {
            (Some(call), None) => Expected::Call(members(call)?),
            (None, Some(answer)) => Expected::Answer(answer),
            _ => bail!("expected either `call`, such as {{event: plan_created}}, or `answer`, such as 204 no_customer"),
        };
        let (about, event) = match self.event {
            Value::String(text) if text.trim_start().starts_with('{') => (None, text.into_bytes()),
            Value::String(name) => {
                let event = event(&name, folder)?;
                (Some(name), event)
            }
            Value::Object(event) => (event.get("type").and_then(Value::as_str).map(str::to_owned), json(&event)?),
            _ => bail!("event: expected an event, or the name of one, such as subscription.created"),
        };
        let about = about.unwrap_or_else(|| "an event".to_owned());
        let name = self.name.unwrap_or_else(|| format!("case {number}: {about}")).replace(char::is_control, " ");
        let path = rules.path(self.path.as_deref(), "`path`")?.to_owned();
        Ok(Case { name, event, path, expected })
    }
}

/// A key that an object in the next value has twice. The text has been read, so it is not nested too deep.
fn repeated_key<'a>(reader: &mut Reader<'a>) -> Result<Option<Str<'a>>, Malformed> {
    let (mut keys, mut first) = (BTreeSet::new(), true);
    if reader.enter_object() {
        while let Some(key) = reader.member(std::mem::take(&mut first))? {
            let repeated = if keys.insert(key.decoded()) { repeated_key(reader)? } else { Some(key) };
            if repeated.is_some() {
                return Ok(repeated);
            }
        }
    } else if reader.enter_array() {
        while reader.element(std::mem::take(&mut first))? {
            if let Some(repeated) = repeated_key(reader)? {
                return Ok(Some(repeated));
            }
        }
    } else {
        reader.value()?;
    }
    Ok(None)
}

/// The event of this name in tests/fixtures, or in this file, which is looked for beside the cases.
fn event(name: &str, folder: &Path) -> Result<Vec<u8>> {
    let file = folder.join(name);
    if fixtures::names()?.iter().all(|known| known != name) && file.is_file() {
        return fs::read(&file).with_context(|| format!("cannot read {}", file.display()));
    }
    fixtures::event(name)
}

fn json(event: &Map<String, Value>) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(event)?)
}

fn members(call: Map<String, Value>) -> Result<Vec<(path::Path, Value)>> {
    let members = call.into_iter().map(|(key, value)| match path::Path::parse(&key) {
        Ok(path) => Ok((path, value)),
        Err(wrong) => bail!("call: `{key}` {wrong}"),
    });
    members.collect()
}
