//! The paths, patterns and names of types in a configuration that match nothing in the events that it was tried with:
//! somebody may have misspelt them, and then what should not leave does.

use anyhow::Result;
use sandbox::say;
use serde_json::{Map, Value};
use stigg_segment::event::Wanted;
use stigg_segment::json;
use stigg_segment::path::Path;
use stigg_segment::pattern::Pattern;
use stigg_segment::redact::{Listed, Redaction};

/// All of them in a configuration.
#[derive(Debug)]
pub struct Selectors {
    found: Vec<Selector>,
    /// A number in `context` is too large for this reader.
    is_unreadable: bool,
}

#[derive(Debug)]
struct Selector {
    /// Where it is in the configuration.
    place: Place,
    /// It as it is written.
    text: String,
    finds: Finds,
    /// Whether an event was tried to which it applies.
    was_tried: bool,
    has_matched: bool,
}

#[derive(Debug, Clone)]
struct Place {
    /// The path of its environment; `None` if it is in what all environments have in common.
    environment: Option<String>,
    /// The environments that have their own value for the field that it is in.
    overridden_in: Vec<String>,
    shown: String,
}

#[derive(Debug)]
enum Finds {
    /// The members that this would remove.
    Members(Redaction),
    /// The types that match.
    Types(Pattern),
    /// This type.
    Type(String),
}

impl Selectors {
    /// Those of a configuration that the filter accepts.
    pub fn of(configuration: &[u8]) -> Self {
        let mut selectors = Vec::new();
        let configuration = serde_json::from_slice::<Map<String, Value>>(configuration);
        let is_unreadable = configuration.is_err();
        let configuration = configuration.unwrap_or_default();
        let environments = configuration.get("environments").and_then(Value::as_object);
        for (field, value) in configuration.iter().filter(|(field, _)| *field != "environments") {
            // What the common field leaves out never comes back.
            let has_own = |own: &Value| field != "properties" && own.get(field).is_some();
            let overridden_in = environments.into_iter().flatten().filter(|(_, own)| has_own(own));
            let overridden_in = overridden_in.map(|(path, _)| path.clone()).collect();
            let place = Place { environment: None, overridden_in, shown: field.clone() };
            collect(&place, field, value, &mut selectors);
        }
        for (path, own) in environments.into_iter().flatten() {
            for (field, value) in own.as_object().into_iter().flatten() {
                let shown = format!("environments.{path}.{field}");
                let place = Place { environment: Some(path.clone()), overridden_in: Vec::new(), shown };
                collect(&place, field, value, &mut selectors);
            }
        }
        Self { found: selectors, is_unreadable }
    }

    /// Tries them with an event that is sent to this path. An event that the filter cannot read has nothing to match.
    pub fn see(&mut self, path: &str, event: &[u8]) {
        let mut wanted = Wanted::default();
        let slot = wanted.want(&Path::keys(["type"]));
        let Ok(members) = wanted.read(event) else { return };
        let kind = match members.get(slot) {
            Some(json::Value::String(kind)) => kind.decoded().into_owned(),
            _ => Vec::new(),
        };
        for selector in self.found.iter_mut().filter(|selector| selector.place.applies_to(path)) {
            selector.was_tried = true;
            selector.has_matched |= match &selector.finds {
                // White space around the event is removed with any member.
                Finds::Members(all) => {
                    all.apply(event).is_ok_and(|rest| rest.trim_ascii().len() < event.trim_ascii().len())
                }
                Finds::Types(pattern) => pattern.matches(&kind),
                Finds::Type(name) => name.as_bytes() == kind,
            };
        }
    }

    /// Prints those that have matched nothing.
    pub fn say_unmatched(&self) -> Result<()> {
        if self.is_unreadable {
            say!("{:12}not known, because the configuration has a number that is too large", "unmatched");
        }
        for Selector { place, text, .. } in self.found.iter().filter(|one| one.was_tried && !one.has_matched) {
            say!("{:12}{}: {text}", "unmatched", place.shown);
        }
        Ok(())
    }
}

impl Place {
    fn inside(&self, step: &str) -> Self {
        Self { shown: format!("{}{step}", self.shown), ..self.clone() }
    }

    fn applies_to(&self, path: &str) -> bool {
        let path = path.split('?').next().unwrap_or_default();
        match &self.environment {
            Some(environment) => environment == path,
            None => !self.overridden_in.iter().any(|environment| environment == path),
        }
    }
}

impl Selector {
    fn new(place: Place, text: &str, finds: Finds) -> Self {
        Self { place, text: text.to_owned(), finds, was_tried: false, has_matched: false }
    }

    /// One that is a path.
    fn path(place: Place, text: &str) -> Option<Self> {
        let path = Path::parse_with_any(text).ok()?;
        Some(Self::new(place, text, Finds::Members(Redaction::new(Listed::Removed, [path]))))
    }
}

/// Collects those in the value of a field, whose name says what it has.
fn collect(place: &Place, field: &str, value: &Value, into: &mut Vec<Selector>) {
    match (field, value) {
        ("write_key" | "webhook_secret" | "context" | "integrations", _) => {}
        ("path" | "remove" | "keep_only", Value::String(text)) => into.extend(Selector::path(place.clone(), text)),
        ("allow" | "deny" | "events", Value::String(text)) => {
            into.push(Selector::new(place.clone(), text, Finds::Types(Pattern::new(text))));
        }
        ("traits", Value::Object(traits)) => {
            let traits = traits.iter().filter_map(|(name, path)| Some((name, path.as_str()?)));
            into.extend(traits.filter_map(|(name, path)| Selector::path(place.inside(&format!(".{name}")), path)));
        }
        ("rename", Value::Object(names)) => {
            into.extend(names.keys().map(|kind| Selector::new(place.clone(), kind, Finds::Type(kind.clone()))));
        }
        (_, Value::Array(list)) => {
            for (index, value) in list.iter().enumerate() {
                collect(&place.inside(&format!("[{index}]")), field, value, into);
            }
        }
        (_, Value::Object(fields)) => {
            for (field, value) in fields {
                collect(&place.inside(&format!(".{field}")), field, value, into);
            }
        }
        _ => {}
    }
}
