//! The plugin's configuration: JSON in, a checked [`Config`] out, or one line that names what is wrong.
//!
//! No value that may be a secret is ever part of a message.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use base64ct::{Base64, Encoding};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::mapping::{Choices, Events, Mapping, Place};
use crate::name::{EventName, Style};
use crate::path::{Path, Pattern};
use crate::redact::{Listed, Redaction};
use crate::reply::Rejection;
use crate::track::Beside;
use crate::verify::{Secret, Verification};
use crate::{NAME, VERSION};

/// Where the write key is read from unless the configuration says otherwise.
const WRITE_KEY_VARIABLE: &str = "SEGMENT_WRITE_KEY";

/// Where the webhook secret is read from unless the configuration says otherwise.
const WEBHOOK_SECRET_VARIABLE: &str = "STIGG_WEBHOOK_SECRET";

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
    max_body_bytes: usize,
    /// Largest request sent, in bytes.
    max_event_bytes: usize,
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

/// Why a configuration is refused, in one line that names the field or the variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// The configuration as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    write_key: Value,
    webhook_secret: Value,
    hold_request_headers: bool,
    max_body_bytes: usize,
    max_event_bytes: usize,
    user_id: Vec<PlaceSettings>,
    event_name: EventNameSettings,
    events: EventsSettings,
    properties: PropertiesSettings,
    context: Map<String, Value>,
    integrations: Map<String, Value>,
    also: Vec<Beside>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlaceSettings {
    path: String,
    events: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct EventNameSettings {
    style: Style,
    prefix: String,
    rename: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct EventsSettings {
    allow: Option<Vec<String>>,
    deny: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct PropertiesSettings {
    remove: Vec<String>,
    keep_only: Option<Vec<String>>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            write_key: json!({ "env": WRITE_KEY_VARIABLE }),
            webhook_secret: json!({ "env": WEBHOOK_SECRET_VARIABLE }),
            hold_request_headers: false,
            max_body_bytes: MAX_BODY_BYTES,
            max_event_bytes: MAX_EVENT_BYTES,
            user_id: vec![PlaceSettings { path: "customer.id".to_owned(), events: None }],
            event_name: EventNameSettings::default(),
            events: EventsSettings::default(),
            properties: PropertiesSettings::default(),
            context: Map::new(),
            integrations: Map::new(),
            also: Vec::new(),
        }
    }
}

/// The field that tells environments apart.
const ENVIRONMENTS: &str = "environments";

impl Config {
    /// Checks the configuration `json`; an empty one stands for all defaults. `env` looks up an environment variable.
    ///
    /// # Errors
    /// Says in one line which field or variable is wrong, and never what a secret is.
    pub fn parse(json: &[u8], env: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let mut top = object(json)?;
        let mut warnings = Vec::new();
        let Some(environments) = top.remove(ENVIRONMENTS) else {
            let settings = settings(top)?;
            let hold_request_headers = settings.hold_request_headers;
            let environments = Environments::One(Rc::new(settings.environment(&env, &mut warnings)?));
            return Ok(Config { hold_request_headers, environments, warnings });
        };
        let Value::Object(environments) = environments else {
            return Err(Error(format!("{ENVIRONMENTS}: expected an object with a path for each key")));
        };
        if environments.is_empty() {
            return Err(Error(format!("{ENVIRONMENTS}: name at least one path")));
        }
        let by_path = environments.into_iter().map(|(path, own)| {
            let environment = environment_at(&path, own, &top, &env, &mut warnings);
            environment.map(|environment| (path.clone(), Rc::new(environment))).map_err(|error| error.at(&path))
        });
        let by_path = by_path.collect::<Result<_, _>>()?;
        let hold_request_headers = settings(top)?.hold_request_headers;
        Ok(Config { hold_request_headers, environments: Environments::ByPath(by_path), warnings })
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

impl Error {
    fn at(self, path: &str) -> Self {
        Error(format!("{ENVIRONMENTS}.{path}: {}", self.0))
    }
}

/// The environment for a path: what stands beside `environments` holds for all of them, unless one says otherwise.
fn environment_at(
    path: &str,
    own: Value,
    common: &Map<String, Value>,
    env: impl Fn(&str) -> Option<String>,
    warnings: &mut Vec<String>,
) -> Result<Environment, Error> {
    if !path.starts_with('/') || path.contains(['?', '#', '*']) {
        return Err(Error("expected a path that starts with `/`, without a query".into()));
    }
    let Value::Object(own) = own else { return Err(Error("expected an object".into())) };
    let beside = "hold_request_headers";
    if own.contains_key(beside) {
        return Err(Error(format!("{beside}: belongs beside {ENVIRONMENTS}, the host knows only one for all")));
    }
    let first_of_these = warnings.len();
    let environment = settings(common.clone().into_iter().chain(own).collect())?.environment(env, warnings)?;
    for warning in warnings.iter_mut().skip(first_of_these) {
        *warning = format!("{ENVIRONMENTS}.{path}: {warning}");
    }
    Ok(environment)
}

impl Settings {
    fn environment(
        self,
        env: impl Fn(&str) -> Option<String>,
        warnings: &mut Vec<String>,
    ) -> Result<Environment, Error> {
        for (field, limit) in [("max_body_bytes", self.max_body_bytes), ("max_event_bytes", self.max_event_bytes)] {
            if limit == 0 {
                return Err(Error(format!("{field}: must be at least 1")));
            }
        }
        if self.max_event_bytes > MAX_EVENT_BYTES {
            warnings.push(format!("max_event_bytes: Segment refuses calls over {MAX_EVENT_BYTES} bytes"));
        }
        Ok(Environment {
            authorization: authorization(&self.write_key, &env, warnings)?,
            verification: verification(&self.webhook_secret, &env, warnings)?,
            max_body_bytes: self.max_body_bytes,
            max_event_bytes: self.max_event_bytes,
            mapping: Mapping::new(Choices {
                user_id: places(self.user_id)?,
                event_name: event_name(self.event_name)?,
                events: events(self.events)?,
                properties: properties(self.properties)?,
                constants: constants(self.context, self.integrations)?,
                also: also(self.also)?,
            }),
        })
    }
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

fn settings(object: Map<String, Value>) -> Result<Settings, Error> {
    // Serde would take a list of an object's values for the object.
    for field in ["event_name", "events", "properties"] {
        if object.get(field).is_some_and(|value| !value.is_object()) {
            return Err(Error(format!("{field}: expected an object")));
        }
    }
    let places = object.get("user_id").and_then(Value::as_array);
    if let Some(index) = places.and_then(|list| list.iter().position(|place| !place.is_object())) {
        return Err(Error(format!("user_id[{index}]: expected an object with a path, and maybe events")));
    }
    serde_path_to_error::deserialize(Value::Object(object)).map_err(|error| match error.path().to_string().as_str() {
        "." | "?" => Error(format!("the configuration: {}", error.inner())),
        path => Error(format!("{path}: {}", error.inner())),
    })
}

fn places(settings: Vec<PlaceSettings>) -> Result<Vec<Place>, Error> {
    if settings.is_empty() {
        return Err(Error("user_id: name at least one place".into()));
    }
    let place = |(index, place): (usize, PlaceSettings)| {
        let field = format!("user_id[{index}]");
        let path =
            Path::parse(&place.path).map_err(|wrong| Error(format!("{field}.path: `{}` {wrong}", place.path)))?;
        let events = place.events.map(|list| patterns(&format!("{field}.events"), list)).transpose()?;
        Ok(Place { path, events })
    };
    settings.into_iter().enumerate().map(place).collect()
}

fn patterns(field: &str, list: Vec<String>) -> Result<Vec<Pattern>, Error> {
    if list.is_empty() {
        return Err(Error(format!("{field}: an empty list matches nothing; leave it out, or name a type")));
    }
    let pattern = |text: &String| match text.as_str() {
        "" => Err(Error(format!("{field}: an empty text matches no type"))),
        text => Ok(Pattern::new(text)),
    };
    list.iter().map(pattern).collect()
}

fn event_name(settings: EventNameSettings) -> Result<EventName, Error> {
    let field = "event_name.rename";
    let renamed = settings.rename.into_iter().map(|(kind, name)| match name.as_str() {
        "" => Err(Error(format!("{field}.{kind}: the name is empty"))),
        name => Ok((kind, escaped(name))),
    });
    Ok(EventName {
        style: settings.style,
        prefix: escaped(&settings.prefix),
        renamed: renamed.collect::<Result<_, _>>()?,
    })
}

/// What stands between the quotes of a JSON string.
fn escaped(text: &str) -> Vec<u8> {
    let quoted = Value::from(text).to_string();
    quoted.strip_prefix('"').and_then(|quoted| quoted.strip_suffix('"')).unwrap_or_default().into()
}

fn events(settings: EventsSettings) -> Result<Events, Error> {
    let deny = if settings.deny.is_empty() { Vec::new() } else { patterns("events.deny", settings.deny)? };
    Ok(Events { allow: settings.allow.map(|list| patterns("events.allow", list)).transpose()?, deny })
}

fn properties(settings: PropertiesSettings) -> Result<Option<Redaction>, Error> {
    let (field, listed, list) = match (settings.remove, settings.keep_only) {
        (remove, None) if remove.is_empty() => return Ok(None),
        (remove, None) => ("remove", Listed::Removed, remove),
        (remove, Some(keep)) if remove.is_empty() => ("keep_only", Listed::Kept, keep),
        _ => return Err(Error("properties: either remove or keep_only, not both".into())),
    };
    let path = |text: String| {
        Path::parse_with_any(&text).map_err(|wrong| Error(format!("properties.{field}: `{text}` {wrong}")))
    };
    let paths = list.into_iter().map(path).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(Redaction::new(listed, paths)))
}

/// What every call carries besides who and when, as JSON members, each with a comma before it.
fn constants(mut context: Map<String, Value>, integrations: Map<String, Value>) -> Result<Vec<u8>, Error> {
    let library = json!({ "name": NAME, "version": VERSION });
    if context.insert("library".to_owned(), library).is_some() {
        return Err(Error("context.library: says which library sends the call; leave it out".into()));
    }
    let mut members = format!(",\"context\":{}", Value::Object(context));
    if !integrations.is_empty() {
        members += &format!(",\"integrations\":{}", Value::Object(integrations));
    }
    Ok(members.into_bytes())
}

fn also(calls: Vec<Beside>) -> Result<Vec<Beside>, Error> {
    match calls.as_slice() {
        [one, other] if one == other => Err(Error("also: names a call twice".into())),
        [] | [_] | [_, _] => Ok(calls),
        _ => Err(Error("also: names a call twice".into())),
    }
}

fn authorization(
    source: &Value,
    env: impl Fn(&str) -> Option<String>,
    warnings: &mut Vec<String>,
) -> Result<Option<Secret>, Error> {
    if source == "gateway" {
        return Ok(None);
    }
    let write_key = write_key(source, env)?;
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
    let field = "write_key";
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
    source: &Value,
    env: impl Fn(&str) -> Option<String>,
    warnings: &mut Vec<String>,
) -> Result<Verification, Error> {
    let field = "webhook_secret";
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
    let (key, list) = single(source).ok_or_else(expected)?;
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
