//! The plugin's configuration: JSON in, a checked [`Config`] out, or one line that names what is wrong.
//!
//! No value that may be a secret is ever part of a message.

use std::rc::Rc;

use base64ct::{Base64, Encoding};
use serde_json::{Map, Value, json};

pub use crate::fields::Error;
use crate::fields::{Field, Fields};
use crate::mapping::{Choices, Events, Mapping, Place};
use crate::name::{EventName, Style};
use crate::path::{Path, Pattern};
use crate::redact::{Listed, Redaction};
use crate::reply::Rejection;
use crate::track::Beside;
use crate::verify::{Secret, Verification};
use crate::{NAME, VERSION};

const WRITE_KEY: &str = "write_key";
const WEBHOOK_SECRET: &str = "webhook_secret";
const USER_ID: &str = "user_id";

/// Where the write key is read from unless the configuration says otherwise.
const WRITE_KEY_VARIABLE: &str = "SEGMENT_WRITE_KEY";

/// Where the webhook secret is read from unless the configuration says otherwise.
const WEBHOOK_SECRET_VARIABLE: &str = "STIGG_WEBHOOK_SECRET";

const STYLES: [(&str, Style); 3] =
    [("underscores", Style::Underscores), ("as_is", Style::AsIs), ("title_case", Style::TitleCase)];

const CALLS: [(&str, Beside); 2] = [("identify", Beside::Identify), ("group", Beside::Group)];

/// 512 KiB.
const MAX_BODY_BYTES: usize = 512 * 1024;

/// 32 KiB, Segment's own limit for a call
/// (<https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/#max-request-size>).
const MAX_EVENT_BYTES: usize = 32 * 1024;

/// Length of the write keys that Segment gives out.
const WRITE_KEY_CHARS: usize = 32;

/// What the filter works by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Hold the request's headers until its body is mapped.
    pub hold_request_headers: bool,
    /// What applies to which path.
    environments: Environments,
    /// What is legal but probably not meant, a line each.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Environments {
    /// The same for whatever path the host sends here.
    One(Rc<Environment>),
    /// One for each of these paths.
    ByPath(Vec<(String, Rc<Environment>)>),
}

/// What applies to the webhooks of one of Stigg's environments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Value of the `authorization` header to Segment; `None` where the gateway sets it.
    pub authorization: Option<Secret>,
    /// Who may send webhooks.
    pub verification: Verification,
    /// What becomes of an event.
    pub mapping: Mapping,
    /// Largest body taken, in bytes.
    pub max_body_bytes: usize,
    /// Largest request sent, in bytes.
    pub max_event_bytes: usize,
}

impl Environment {
    /// Refuses a body over the limit.
    pub fn check_body_size(&self, size: usize) -> Result<(), Rejection> {
        let limit = self.max_body_bytes;
        if size > limit { Err(Rejection::BodyTooLarge(limit)) } else { Ok(()) }
    }

    /// Refuses a request to Segment over the limit.
    pub fn check_event_size(&self, size: usize) -> Result<(), Rejection> {
        let limit = self.max_event_bytes;
        if size > limit { Err(Rejection::EventTooLarge { size, limit }) } else { Ok(()) }
    }
}

/// The field that tells environments apart.
const ENVIRONMENTS: &str = "environments";

/// The field that holds for all of them: the host knows only one.
const HOLD_REQUEST_HEADERS: &str = "hold_request_headers";

impl Config {
    /// Checks the configuration `json`; an empty one stands for all defaults. `env` looks up an environment variable.
    ///
    /// # Errors
    /// Says in one line which field or variable is wrong, and never what a secret is.
    pub fn parse(json: &[u8], env: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let mut top = Fields::new(object(json)?);
        let mut warnings = Vec::new();
        let hold_request_headers = top.take(HOLD_REQUEST_HEADERS).map_or(Ok(false), |field| field.flag())?;
        let environments = match top.take(ENVIRONMENTS) {
            None => Environments::One(Rc::new(environment(top, &env, &mut warnings)?)),
            Some(field) => {
                let nowhere = field.error("name at least one path");
                let by_path = field.members()?.into_iter().map(|(path, own)| {
                    let environment = environment_at(&path, own, &top, &env, &mut warnings)?;
                    Ok((path, Rc::new(environment)))
                });
                let by_path = by_path.collect::<Result<Vec<_>, _>>()?;
                if by_path.is_empty() {
                    return Err(nowhere);
                }
                Environments::ByPath(by_path)
            }
        };
        Ok(Config { hold_request_headers, environments, warnings })
    }

    /// What applies to requests for this path.
    pub fn environment(&self, path: &[u8]) -> Option<Rc<Environment>> {
        match &self.environments {
            Environments::One(environment) => Some(environment.clone()),
            Environments::ByPath(by_path) => {
                by_path.iter().find(|(own, _)| own.as_bytes() == path).map(|(_, environment)| environment.clone())
            }
        }
    }
}

/// The environment for a path: what stands beside `environments` holds for all of them, unless one says otherwise.
fn environment_at(
    path: &str,
    own: Field,
    common: &Fields,
    env: impl Fn(&str) -> Option<String>,
    warnings: &mut Vec<String>,
) -> Result<Environment, Error> {
    if !path.starts_with('/') || path.contains(['?', '#', '*']) {
        return Err(own.error("expected a path that starts with `/`, without a query"));
    }
    let beside =
        own.error(&format!("{HOLD_REQUEST_HEADERS} belongs beside {ENVIRONMENTS}: the host knows only one for all"));
    let own = own.object()?;
    if own.contains_key(HOLD_REQUEST_HEADERS) {
        return Err(beside);
    }
    let within = format!("{ENVIRONMENTS}.{path}");
    let first_of_these = warnings.len();
    let environment = environment(common.overlaid(own), env, warnings).map_err(|error| error.within(&within))?;
    for warning in warnings.iter_mut().skip(first_of_these) {
        *warning = format!("{within}: {warning}");
    }
    Ok(environment)
}

fn environment(
    mut fields: Fields,
    env: impl Fn(&str) -> Option<String>,
    warnings: &mut Vec<String>,
) -> Result<Environment, Error> {
    let mut take = |name| fields.take(name);
    let [write_key, webhook_secret] = [WRITE_KEY, WEBHOOK_SECRET].map(&mut take);
    let [max_body_bytes, max_event_bytes] = ["max_body_bytes", "max_event_bytes"].map(&mut take);
    let choices = [USER_ID, "event_name", "events", "properties", "context", "integrations", "also"].map(&mut take);
    // First, since a misspelt field leaves another unset, which is then not what is wrong.
    fields.end()?;
    let max_body_bytes = max_body_bytes.map_or(Ok(MAX_BODY_BYTES), |field| field.size())?;
    let max_event_bytes = max_event_bytes.map_or(Ok(MAX_EVENT_BYTES), |field| field.size())?;
    if max_event_bytes > MAX_EVENT_BYTES {
        warnings.push(format!("max_event_bytes: Segment refuses calls over {MAX_EVENT_BYTES} bytes"));
    }
    let [user_id, event_name, events, properties, context, integrations, also] = choices;
    let also = also.map(beside).transpose()?.unwrap_or_default();
    if !also.is_empty() {
        warnings
            .push("also: the route must rewrite the path to /v1/batch; /v1/track takes a batch and drops it".into());
    }
    Ok(Environment {
        authorization: authorization(write_key, &env, warnings)?,
        verification: verification(webhook_secret, &env, warnings)?,
        max_body_bytes,
        max_event_bytes,
        mapping: Mapping::new(Choices {
            user_id: places(user_id.unwrap_or_else(|| Field::new(USER_ID, json!([{ "path": "customer.id" }]))))?,
            event_name: event_name.map(naming).transpose()?.unwrap_or_default(),
            events: events.map(filtering).transpose()?.unwrap_or_default(),
            properties: properties.map(redaction).transpose()?.flatten(),
            constants: constants(context, integrations)?,
            also,
        }),
    })
}

fn object(json: &[u8]) -> Result<Map<String, Value>, Error> {
    if json.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    // A protobuf Struct starts with the tag of its first field, which JSON reads as a line feed, and then a length.
    if let [b'\n', length, ..] = json
        && !length.is_ascii_whitespace()
        && *length != b'{'
    {
        return Err(Error(
            "the configuration is not JSON text but a protobuf message: give it as a google.protobuf.StringValue"
                .into(),
        ));
    }
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(Error("the configuration: expected a JSON object".into()));
    }
    serde_json::from_slice(json).map_err(|error| Error(format!("the configuration: {error}")))
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

/// Patterns of which one must match.
fn some_patterns(field: Field) -> Result<Vec<Pattern>, Error> {
    let none = field.error("an empty list matches nothing; leave it out, or name a type");
    let patterns = patterns(field)?;
    if patterns.is_empty() { Err(none) } else { Ok(patterns) }
}

fn naming(field: Field) -> Result<EventName, Error> {
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

/// What stands between the quotes of a JSON string.
fn escaped(text: &str) -> Vec<u8> {
    let quoted = Value::from(text).to_string();
    quoted.strip_prefix('"').and_then(|quoted| quoted.strip_suffix('"')).unwrap_or_default().into()
}

fn filtering(field: Field) -> Result<Events, Error> {
    let mut fields = field.fields()?;
    let allow = fields.take("allow").map(some_patterns).transpose()?;
    let deny = fields.take("deny").map(patterns).transpose()?.unwrap_or_default();
    fields.end()?;
    Ok(Events { allow, deny })
}

fn redaction(field: Field) -> Result<Option<Redaction>, Error> {
    let both = field.error("either remove or keep_only, not both");
    let mut fields = field.fields()?;
    let (listed, list) = match (fields.take("remove"), fields.take("keep_only")) {
        (None, None) => return fields.end().map(|()| None),
        (Some(remove), None) => (Listed::Removed, remove),
        (None, Some(keep)) => (Listed::Kept, keep),
        (Some(_), Some(_)) => return Err(both),
    };
    fields.end()?;
    let paths = list.list()?.into_iter().map(|field| path(&field, Path::parse_with_any));
    Ok(Some(Redaction::new(listed, paths.collect::<Result<Vec<_>, _>>()?)))
}

/// What every call carries besides who and when, as JSON members, each with a comma before it.
fn constants(context: Option<Field>, integrations: Option<Field>) -> Result<Vec<u8>, Error> {
    let mut members = serde_json::Map::new();
    let mut own = context.map(Field::object).transpose()?.unwrap_or_default();
    if own.insert("library".to_owned(), json!({ "name": NAME, "version": VERSION })).is_some() {
        return Err(Error("context.library: says which library sends the call; leave it out".into()));
    }
    members.insert("context".to_owned(), own.into());
    let integrations = integrations.map(Field::object).transpose()?.unwrap_or_default();
    if !integrations.is_empty() {
        members.insert("integrations".to_owned(), integrations.into());
    }
    let object = Value::Object(members).to_string();
    Ok([",", object.strip_prefix('{').and_then(|object| object.strip_suffix('}')).unwrap_or_default()].concat().into())
}

fn beside(field: Field) -> Result<Vec<Beside>, Error> {
    let mut calls = Vec::new();
    for field in field.list()? {
        let call = field.one_of(&CALLS)?;
        if calls.contains(&call) {
            return Err(field.error("this call is named twice"));
        }
        calls.push(call);
    }
    Ok(calls)
}

fn authorization(
    field: Option<Field>,
    env: impl Fn(&str) -> Option<String>,
    warnings: &mut Vec<String>,
) -> Result<Option<Secret>, Error> {
    let source = field.map_or_else(|| json!({ "env": WRITE_KEY_VARIABLE }), Field::into_value);
    if source == "gateway" {
        return Ok(None);
    }
    let write_key = write_key(&source, env)?;
    if write_key.len() != WRITE_KEY_CHARS || !write_key.bytes().all(|b| b.is_ascii_alphanumeric()) {
        warnings.push(format!(
            "write_key: this is not {WRITE_KEY_CHARS} letters and digits, as Segment's write keys are; Segment accepts \
             calls with a wrong key and drops them, so compare it with the source's Settings > API Keys"
        ));
    }
    // Basic authentication with the key for a user name and an empty password.
    Ok(Some(Secret::new(format!("Basic {}", Base64::encode_string(format!("{write_key}:").as_bytes())))))
}

fn write_key(source: &Value, env: impl Fn(&str) -> Option<String>) -> Result<String, Error> {
    let field = WRITE_KEY;
    match single(source) {
        Some(("env", Value::String(name))) => match set(&env, name) {
            Some(key) => Ok(key),
            None => Err(unset(field, name)),
        },
        Some(("value", Value::String(key))) => inline(field, key),
        _ => Err(Error(format!(
            "{field}: expected {{\"env\": \"VARIABLE\"}}, {{\"value\": \"...\"}}, or \"gateway\" where Envoy sets the credential"
        ))),
    }
    .and_then(|key| sendable(field, key))
}

fn verification(
    field: Option<Field>,
    env: impl Fn(&str) -> Option<String>,
    warnings: &mut Vec<String>,
) -> Result<Verification, Error> {
    let source = field.map_or_else(|| json!({ "env": WEBHOOK_SECRET_VARIABLE }), Field::into_value);
    let field = WEBHOOK_SECRET;
    if source == "unverified" {
        warnings.push(format!("{field}: \"unverified\" lets in whoever reaches the listener"));
        return Ok(Verification::Unverified);
    }
    let expected = || {
        Error(format!(
            "{field}: expected {{\"env\": \"VARIABLE\"}}, {{\"env\": [\"VARIABLE\", ...]}}, {{\"value\": \"...\"}}, {{\"value\": \
             [\"...\", ...]}}, {{\"filter_state\": \"KEY\"}}, or \"unverified\" where something else verifies"
        ))
    };
    let (key, list) = single(&source).ok_or_else(expected)?;
    if let ("filter_state", Value::String(key)) = (key, list)
        && !key.is_empty()
    {
        return Ok(Verification::FilterState(key.clone()));
    }
    let list = match list {
        Value::Array(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    let list = list.iter().map(Value::as_str).collect::<Option<Vec<_>>>().ok_or_else(expected)?;
    let secrets: Vec<String> = match key {
        "env" => list.iter().filter_map(|name| set(&env, name)).collect(),
        "value" => list.iter().map(|secret| inline(field, secret)).collect::<Result<_, _>>()?,
        _ => return Err(expected()),
    };
    match (key, list.as_slice()) {
        (_, []) => Err(expected()),
        ("env", names) if secrets.is_empty() => Err(unset(field, &names.join(", "))),
        _ => secrets
            .into_iter()
            .map(|secret| sendable(field, secret).map(Secret::new))
            .collect::<Result<_, _>>()
            .map(Verification::Secrets),
    }
}

/// The only member of an object.
fn single(value: &Value) -> Option<(&str, &Value)> {
    let object = value.as_object().filter(|object| object.len() == 1)?;
    object.iter().next().map(|(key, value)| (key.as_str(), value))
}

/// The value of an environment variable that is set to something. White space around it, such as the line feed that a
/// secret read from a file often ends with, is never part of a secret.
fn set(env: impl Fn(&str) -> Option<String>, name: &str) -> Option<String> {
    env(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn unset(field: &str, names: &str) -> Error {
    Error(format!(
        "{field}: the environment variable {names} is not set; set it for Envoy and list it in \
         vm_config.environment_variables.host_env_keys"
    ))
}

fn inline(field: &str, value: &str) -> Result<String, Error> {
    match value.trim() {
        "" => Err(Error(format!("{field}: the value is empty"))),
        value => Ok(value.to_owned()),
    }
}

/// Refuses what no header can carry: it could never match, or never arrive.
fn sendable(field: &str, value: String) -> Result<String, Error> {
    if value.chars().any(char::is_control) {
        return Err(Error(format!("{field}: the value has a control character in it, which no header can carry")));
    }
    Ok(value)
}
