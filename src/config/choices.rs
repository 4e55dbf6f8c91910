//! The fields that make the mapping's [`Choices`].

use super::fields::{Error, Field, Fields, is_name};
use crate::envelope::{Also, CONTEXT, MESSAGE_ID_PREFIX};
use crate::event_name::{EventName, Style};
use crate::identity::{NAME, VERSION};
use crate::mapping::{Choices, EventTypes};
use crate::path::{Path, Step, is_number};
use crate::pattern::Pattern;
use crate::places::{KNOWN, Known, Place};
use crate::redact::{Listed, Redaction};

/// The field that names the source of Segment's.
pub const SOURCE: &str = "source";

/// The longest name of a source, in characters.
const SOURCE_MAX: usize = 32;

/// The field in it that puts the event under a key.
const UNDER: &str = "under";

/// What it is like to leave something out, for people.
const REMOVE: &str = r#"{"remove": ["customer.email"]}"#;

/// The field of what is left out of an event.
pub const PROPERTIES: &str = "properties";

const STYLES: [(&str, Style); 3] =
    [("underscores", Style::Underscores), ("as_is", Style::AsIs), ("title_case", Style::TitleCase)];

const ALSO: [(&str, Also); 2] = [("identify", Also::Identify), ("group", Also::Group)];

/// The fields as they are in the configuration.
pub struct MappingFields<'a> {
    user_id: Option<Field<'a>>,
    group_id: Option<Field<'a>>,
    timestamp: Option<Field<'a>>,
    event_name: Option<Field<'a>>,
    events: Option<Field<'a>>,
    common_properties: Option<Field<'a>>,
    properties: Option<Field<'a>>,
    context: Option<Field<'a>>,
    integrations: Option<Field<'a>>,
    also: Option<Field<'a>>,
    source: Option<Field<'a>>,
    too_large: Option<Field<'a>>,
}

impl<'a> MappingFields<'a> {
    /// Takes them. `common_properties` applies too.
    pub fn take(fields: &mut Fields<'a>, common_properties: Option<Field<'a>>) -> Self {
        MappingFields {
            user_id: fields.take("user_id"),
            group_id: fields.take("group_id"),
            timestamp: fields.take("timestamp"),
            event_name: fields.take("event_name"),
            events: fields.take("events"),
            common_properties,
            properties: fields.take(PROPERTIES),
            context: fields.take("context"),
            integrations: fields.take("integrations"),
            also: fields.take("also"),
            source: fields.take(SOURCE),
            too_large: fields.take("too_large"),
        }
    }

    /// Checks them. `source` names the source of Segment's if the field of that name does not.
    pub fn check(self, source: Option<String>, warnings: &mut Vec<String>) -> Result<Choices, Error> {
        let source = self.source.map(self::source).transpose()?.or(source);
        let also = self.also.map(also).transpose()?.unwrap_or_default();
        if !also.is_empty() {
            warnings.push(
                "also: the route must rewrite the path to /v1/batch; /v1/track takes a batch and drops it".into(),
            );
        }
        let under = self.properties.iter().chain(&self.common_properties).find_map(|field| under(field).transpose());
        let under = under.transpose()?;
        let properties = self.common_properties.iter().chain(&self.properties);
        let properties = properties.filter_map(|field| redaction(field, warnings).transpose());
        let properties = properties.collect::<Result<_, _>>()?;
        Ok(Choices {
            constants: constants(self.context, self.integrations, self.too_large.is_some(), self.group_id.is_some())?,
            user_id: match self.user_id {
                Some(field) => ids(&field, warnings)?,
                None => vec![Place { path: Path::keys(["customer", "id"]), events: None, traits: None }],
            },
            group_id: self.group_id.map(|field| ids(&field, warnings)).transpose()?,
            timestamp: match self.timestamp {
                Some(field) => places(&field, "timestamp", |_, _| Ok(None), warnings)?,
                None => vec![Place { path: Path::keys(["timestamp"]), events: None, traits: None }],
            },
            event_name: self.event_name.map(|field| event_name(field, warnings)).transpose()?.unwrap_or_default(),
            event_types: self.events.map(|field| event_types(field, warnings)).transpose()?.unwrap_or_default(),
            properties,
            also,
            under,
            too_large: self.too_large.map(|field| too_large(field, warnings)).transpose()?.unwrap_or_default(),
            message_id_prefix: match source {
                Some(source) => format!("{MESSAGE_ID_PREFIX}{source}-"),
                None => {
                    warnings.push(format!(
                        "{SOURCE}: it is not set, and the write key is not known here, so the ids of calls do not name \
                         the source; Segment drops a call if any other source has had one with its id"
                    ));
                    MESSAGE_ID_PREFIX.to_owned()
                }
            },
        })
    }
}

/// The name of a source, as a part of message ids.
fn source(field: Field<'_>) -> Result<String, Error> {
    let name = field.text()?;
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if (1..=SOURCE_MAX).contains(&name.len()) && name.chars().all(is_part) {
        Ok(name)
    } else {
        Err(field.error(&format!("expected 1 to {SOURCE_MAX} letters, digits, `-` or `_`")))
    }
}

/// The places of the id of a customer or a group.
fn ids(field: &Field<'_>, warnings: &mut Vec<String>) -> Result<Vec<Place>, Error> {
    if let Some(text) = field.as_text() {
        let all = || KNOWN.iter().map(Known::place).collect();
        return if text == "all" {
            Ok(all())
        } else {
            Err(field.error(r#"expected "all" or a list: [{"path": "customer.id"}]"#))
        };
    }
    let traits = |place: &mut Fields<'_>, warnings: &mut Vec<String>| {
        place.take("traits").map(|field| traits(&field, warnings)).transpose()
    };
    places(field, "customer.id", traits, warnings)
}

/// The names of traits, and the paths to their values.
fn traits(field: &Field<'_>, warnings: &mut Vec<String>) -> Result<Vec<(String, Path)>, Error> {
    let traits = field
        .members(r#"{"email": "customer.email"}"#)?
        .into_iter()
        .map(|(name, field)| Ok((name, path(&field, Path::parse, warnings)?)));
    traits.collect()
}

/// A list of places. `example` is the path of one. `traits` takes what a place says about traits.
fn places(
    field: &Field<'_>,
    example: &str,
    traits: impl Fn(&mut Fields<'_>, &mut Vec<String>) -> Result<Option<Vec<(String, Path)>>, Error>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Place>, Error> {
    let example = format!(r#"[{{"path": "{example}"}}]"#);
    let places = field.list(&example)?.into_iter().map(|place| {
        let not_objects = |_| field.error(&format!("expected a list of objects, such as {example}"));
        let mut fields = place.fields("").map_err(not_objects)?;
        let path = path(&fields.take("path").ok_or_else(|| place.error("name a path"))?, Path::parse, warnings)?;
        let events = fields.take("events").map(|field| some_patterns(field, warnings)).transpose()?;
        let traits = traits(&mut fields, warnings)?;
        fields.end()?;
        Ok(Place { path, events, traits })
    });
    let places = places.collect::<Result<Vec<_>, _>>()?;
    if places.is_empty() { Err(field.error("name at least one place")) } else { Ok(places) }
}

fn path(
    field: &Field<'_>,
    parse: fn(&str) -> Result<Path, &'static str>,
    warnings: &mut Vec<String>,
) -> Result<Path, Error> {
    let text = field.text()?;
    let path = parse(&text).map_err(|wrong| field.error(&format!("`{text}` {wrong}")))?;
    if let [Step::Key(first), _, ..] = path.steps()
        && first == "properties"
        && !text.starts_with('"')
    {
        return Err(field.error(&format!(
            "`{text}` starts in Segment's call; a path starts in Stigg's event, such as customer.email"
        )));
    }
    if let [Step::Key(first), _, ..] = path.steps()
        && ["context", "traits"].contains(&first.as_str())
        && !text.starts_with('"')
    {
        warnings.push(format!(
            "{}: `{text}` looks like a place in Segment's call; a path starts in Stigg's event, such as customer.email",
            field.place()
        ));
    }
    let mut numbers = path.steps().iter().filter_map(|step| match step {
        Step::Key(key) if is_number(key) => {
            let all = path.steps().iter().filter(|other| *other == step).count();
            Some(key).filter(|key| text.matches(&format!("\"{key}\"")).count() < all)
        }
        _ => None,
    });
    if let Some(number) = numbers.next() {
        warnings.push(format!(
            "{}: the step {number} of `{text}` is a member's name and matches no element of an array; write * for all \
             elements, or \"{number}\" in quotes for the member",
            field.place()
        ));
    }
    Ok(path)
}

fn patterns(field: Field<'_>, warnings: &mut Vec<String>) -> Result<Vec<Pattern>, Error> {
    let patterns = field.list(r#"["customer.*"]"#)?.into_iter().map(|field| match field.text()?.as_str() {
        "" => Err(field.error("an empty text matches no type")),
        text => {
            check_type(field.place(), text, &text.replace('*', "."), warnings);
            Ok(Pattern::new(text))
        }
    });
    patterns.collect()
}

/// Warns of a text that stands for no type of Stigg's: each of them has a dot and no space, and begins with a small letter.
/// The text is repeated only if it looks like a name.
fn check_type(place: &str, text: &str, kind: &str, warnings: &mut Vec<String>) {
    let is_odd = |letter: char| letter == '*' || letter.is_whitespace();
    if !kind.contains('.') || kind.contains(is_odd) || kind.starts_with(|first: char| first.is_ascii_uppercase()) {
        let shown = if is_name(text, u8::is_ascii_lowercase) { format!("`{text}`") } else { "this".to_owned() };
        warnings.push(format!(
            "{place}: {shown} is not written as Stigg's types are, such as subscription.created, and matches no event"
        ));
    }
}

/// Patterns of which at least one must match.
fn some_patterns(field: Field<'_>, warnings: &mut Vec<String>) -> Result<Vec<Pattern>, Error> {
    let none = field.error("an empty list matches nothing; leave it out, or name a type");
    let patterns = patterns(field, warnings)?;
    if patterns.is_empty() { Err(none) } else { Ok(patterns) }
}

fn event_name(field: Field<'_>, warnings: &mut Vec<String>) -> Result<EventName, Error> {
    let mut fields = field.fields(r#"{"style": "title_case"}"#)?;
    let style = fields.take("style").map(|field| field.one_of(&STYLES)).transpose()?.unwrap_or_default();
    let prefix = fields.take("prefix").map(|field| field.escaped_text()).transpose()?.unwrap_or_default().to_vec();
    let rename = fields.take("rename");
    let renamed = rename.iter().map(|field| field.members(r#"{"customer.updated": "Customer Changed"}"#));
    let renamed = renamed.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().map(|(kind, name)| {
        check_type(rename.as_ref().map_or("", Field::place), &kind, &kind, warnings);
        match name.escaped_text()? {
            b"" => Err(name.error("the name is empty")),
            name => Ok((kind, name.to_vec())),
        }
    });
    let renamed = renamed.collect::<Result<_, _>>()?;
    fields.end()?;
    Ok(EventName { style, prefix, renamed })
}

fn event_types(field: Field<'_>, warnings: &mut Vec<String>) -> Result<EventTypes, Error> {
    let mut fields = field.fields(r#"{"deny": ["plan.*"]}"#)?;
    let allow = fields.take("allow").map(|field| some_patterns(field, warnings)).transpose()?;
    let deny = fields.take("deny").map(|field| patterns(field, warnings)).transpose()?.unwrap_or_default();
    fields.end()?;
    Ok(EventTypes { allow, deny })
}

/// The key that the event comes under, as it is written.
fn under(properties: &Field<'_>) -> Result<Option<Vec<u8>>, Error> {
    let key = properties.fields(REMOVE)?.take(UNDER);
    let key = key.map(|key| match key.escaped_text()? {
        b"" => Err(key.error("the key is empty")),
        text => Ok(text.to_vec()),
    });
    key.transpose()
}

fn redaction(field: &Field<'_>, warnings: &mut Vec<String>) -> Result<Option<Redaction>, Error> {
    let mut fields = field.fields(REMOVE)?;
    let remove = fields.take("remove");
    let keep_only = fields.take("keep_only");
    let _ = fields.take(UNDER); // which leaves nothing out
    fields.end()?;
    let (listed, list) = match (remove, keep_only) {
        (None, None) => return Ok(None),
        (Some(remove), None) => (Listed::Removed, remove),
        (None, Some(keep_only)) => (Listed::Kept, keep_only),
        (Some(_), Some(_)) => return Err(field.error("either remove or keep_only, not both")),
    };
    let paths =
        list.list(r#"["customer.email"]"#)?.into_iter().map(|field| path(&field, Path::parse_with_any, warnings));
    let paths = paths.collect::<Result<Vec<_>, _>>()?;
    if listed == Listed::Kept && paths.is_empty() {
        return Err(list.error("an empty list keeps nothing of an event; leave it out, or name a path"));
    }
    Ok(Some(Redaction::new(listed, paths)))
}

fn too_large(field: Field<'_>, warnings: &mut Vec<String>) -> Result<Vec<Path>, Error> {
    let mut fields = field.fields(r#"{"remove": ["entitlements"]}"#)?;
    let remove = fields.take("remove").ok_or_else(|| field.error("name the paths to remove"))?;
    fields.end()?;
    remove.list(r#"["entitlements"]"#)?.into_iter().map(|field| path(&field, Path::parse_with_any, warnings)).collect()
}

/// The constant members of every call, as JSON, each with a comma before it. `trims` if calls can name what was removed,
/// `groups` if they can name a group.
fn constants(
    context: Option<Field<'_>>,
    integrations: Option<Field<'_>>,
    trims: bool,
    groups: bool,
) -> Result<Vec<u8>, Error> {
    let mut constants = CONTEXT.to_vec();
    constants.extend_from_slice(format!(r#""library":{{"name":"{NAME}","version":"{VERSION}"}}"#).as_bytes());
    if let Some(context) = context {
        let own = context.inner_text()?;
        for (key, _) in context.members("{}")? {
            match key.as_str() {
                "library" => {
                    return Err(Error::new("context.library: says which library sends the call; leave it out"));
                }
                "removed" if trims => {
                    return Err(Error::new(
                        "context.removed: says what too_large has removed; leave one of the two out",
                    ));
                }
                "groupId" if groups => {
                    return Err(Error::new("context.groupId: says what group_id has found; leave one of the two out"));
                }
                _ => {}
            }
        }
        if !own.is_empty() {
            constants.extend_from_slice(&[b",", own].concat());
        }
    }
    constants.push(b'}');
    let integrations = integrations.map(|field| field.inner_text()).transpose()?.unwrap_or_default();
    if !integrations.is_empty() {
        constants.extend_from_slice(&[br#","integrations":{"#, integrations, b"}"].concat());
    }
    Ok(constants)
}

fn also(field: Field<'_>) -> Result<Vec<Also>, Error> {
    let mut also = Vec::new();
    for field in field.list(r#"["group"]"#)? {
        let call = field.one_of(&ALSO)?;
        if also.contains(&call) {
            return Err(field.error("this call is named twice"));
        }
        also.push(call);
    }
    Ok(also)
}
