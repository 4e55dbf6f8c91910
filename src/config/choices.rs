//! The fields that make the mapping's [`Choices`].

use serde_json::{Value, json};

use super::fields::{self, Error, Field};
use crate::envelope::Also;
use crate::event_name::{EventName, Style};
use crate::identity::{NAME, VERSION};
use crate::mapping::{Choices, EventTypes, Place};
use crate::path::Path;
use crate::pattern::Pattern;
use crate::redact::{Listed, Redaction};

const USER_ID: &str = "user_id";

const STYLES: [(&str, Style); 3] =
    [("underscores", Style::Underscores), ("as_is", Style::AsIs), ("title_case", Style::TitleCase)];

const ALSO: [(&str, Also); 2] = [("identify", Also::Identify), ("group", Also::Group)];

/// The fields as they are in the configuration.
pub struct MappingFields {
    user_id: Option<Field>,
    event_name: Option<Field>,
    events: Option<Field>,
    properties: Option<Field>,
    context: Option<Field>,
    integrations: Option<Field>,
    also: Option<Field>,
}

impl MappingFields {
    /// Takes them.
    pub fn take(fields: &mut fields::Fields) -> Self {
        MappingFields {
            user_id: fields.take(USER_ID),
            event_name: fields.take("event_name"),
            events: fields.take("events"),
            properties: fields.take("properties"),
            context: fields.take("context"),
            integrations: fields.take("integrations"),
            also: fields.take("also"),
        }
    }

    /// Checks them.
    pub fn check(self, warnings: &mut Vec<String>) -> Result<Choices, Error> {
        let also = self.also.map(also).transpose()?.unwrap_or_default();
        if !also.is_empty() {
            warnings.push(
                "also: the route must rewrite the path to /v1/batch; /v1/track takes a batch and drops it".into(),
            );
        }
        Ok(Choices {
            user_id: places(self.user_id.unwrap_or_else(|| Field::new(USER_ID, json!([{ "path": "customer.id" }]))))?,
            event_name: self.event_name.map(event_name).transpose()?.unwrap_or_default(),
            event_types: self.events.map(event_types).transpose()?.unwrap_or_default(),
            properties: self.properties.map(redaction).transpose()?.flatten(),
            constants: constants(self.context, self.integrations)?,
            also,
        })
    }
}

fn places(field: Field) -> Result<Vec<Place>, Error> {
    let nowhere = field.error("name at least one place");
    let places = field.list()?.into_iter().map(|place| {
        let pathless = place.error("name a path");
        let mut fields = place.fields()?;
        let path = path(&fields.take("path").ok_or(pathless)?, Path::parse)?;
        let events = fields.take("events").map(some_patterns).transpose()?;
        fields.end()?;
        Ok(Place { path, events })
    });
    let places = places.collect::<Result<Vec<_>, _>>()?;
    if places.is_empty() { Err(nowhere) } else { Ok(places) }
}

fn path(field: &Field, parse: fn(&str) -> Result<Path, &'static str>) -> Result<Path, Error> {
    let text = field.text()?;
    parse(text).map_err(|wrong| field.error(&format!("`{text}` {wrong}")))
}

fn patterns(field: Field) -> Result<Vec<Pattern>, Error> {
    let patterns = field.list()?.into_iter().map(|field| match field.text()? {
        "" => Err(field.error("an empty text matches no type")),
        text => Ok(Pattern::new(text)),
    });
    patterns.collect()
}

/// Patterns of which at least one must match.
fn some_patterns(field: Field) -> Result<Vec<Pattern>, Error> {
    let none = field.error("an empty list matches nothing; leave it out, or name a type");
    let patterns = patterns(field)?;
    if patterns.is_empty() { Err(none) } else { Ok(patterns) }
}

fn event_name(field: Field) -> Result<EventName, Error> {
    let mut fields = field.fields()?;
    let style = fields.take("style").map(|field| field.one_of(&STYLES)).transpose()?.unwrap_or_default();
    let prefix = fields.take("prefix").map(|field| field.text().map(escaped)).transpose()?.unwrap_or_default();
    let renamed = fields.take("rename").map(Field::members).transpose()?.unwrap_or_default();
    let renamed = renamed.into_iter().map(|(kind, name)| match name.text()? {
        "" => Err(name.error("the name is empty")),
        name => Ok((kind, escaped(name))),
    });
    let renamed = renamed.collect::<Result<_, _>>()?;
    fields.end()?;
    Ok(EventName { style, prefix, renamed })
}

/// The text as it is between the quotes of a JSON string.
fn escaped(text: &str) -> Vec<u8> {
    let quoted = Value::from(text).to_string();
    quoted.strip_prefix('"').and_then(|quoted| quoted.strip_suffix('"')).unwrap_or_default().into()
}

fn event_types(field: Field) -> Result<EventTypes, Error> {
    let mut fields = field.fields()?;
    let allow = fields.take("allow").map(some_patterns).transpose()?;
    let deny = fields.take("deny").map(patterns).transpose()?.unwrap_or_default();
    fields.end()?;
    Ok(EventTypes { allow, deny })
}

fn redaction(field: Field) -> Result<Option<Redaction>, Error> {
    let both = field.error("either remove or keep_only, not both");
    let mut fields = field.fields()?;
    let remove = fields.take("remove");
    let keep_only = fields.take("keep_only");
    fields.end()?;
    let (listed, list) = match (remove, keep_only) {
        (None, None) => return Ok(None),
        (Some(remove), None) => (Listed::Removed, remove),
        (None, Some(keep_only)) => (Listed::Kept, keep_only),
        (Some(_), Some(_)) => return Err(both),
    };
    let paths = list.list()?.into_iter().map(|field| path(&field, Path::parse_with_any));
    Ok(Some(Redaction::new(listed, paths.collect::<Result<Vec<_>, _>>()?)))
}

/// The constant members of every call, as JSON, each with a comma before it.
fn constants(context: Option<Field>, integrations: Option<Field>) -> Result<Vec<u8>, Error> {
    let mut members = serde_json::Map::new();
    let mut own = context.map(Field::object).transpose()?.unwrap_or_default();
    if own.insert("library".to_owned(), json!({ "name": NAME, "version": VERSION })).is_some() {
        return Err(Error::new("context.library: says which library sends the call; leave it out"));
    }
    members.insert("context".to_owned(), own.into());
    let integrations = integrations.map(Field::object).transpose()?.unwrap_or_default();
    if !integrations.is_empty() {
        members.insert("integrations".to_owned(), integrations.into());
    }
    let object = Value::Object(members).to_string();
    Ok([",", object.strip_prefix('{').and_then(|object| object.strip_suffix('}')).unwrap_or_default()].concat().into())
}

fn also(field: Field) -> Result<Vec<Also>, Error> {
    let mut also = Vec::new();
    for field in field.list()? {
        let call = field.one_of(&ALSO)?;
        if also.contains(&call) {
            return Err(field.error("this call is named twice"));
        }
        also.push(call);
    }
    Ok(also)
}
