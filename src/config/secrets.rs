//! The write key and the webhook secret: where the configuration says they are, and their values.

use base64ct::{Base64, Encoding};
use serde_json::{Value, json};

use super::Shell;
use super::fields::{Error, Field};
use crate::secret::Secret;
use crate::verify::Verification;

/// The field of the write key.
pub const WRITE_KEY: &str = "write_key";

/// The field of the webhook secret.
pub const WEBHOOK_SECRET: &str = "webhook_secret";

/// The variable that holds the write key by default.
const WRITE_KEY_VARIABLE: &str = "SEGMENT_WRITE_KEY";

/// The variable that holds the webhook secret by default.
const WEBHOOK_SECRET_VARIABLE: &str = "STIGG_WEBHOOK_SECRET";

/// The length of Segment's write keys.
const WRITE_KEY_CHARS: usize = 32;

/// The environment variables that the filter can read.
pub struct Variables<'a> {
    /// Reads one of them.
    pub read: &'a dyn Fn(&str) -> Option<String>,
    /// How the filter comes to see them.
    pub shell: Shell,
}

impl Variables<'_> {
    /// The value of a variable, unless it is empty. White space around it is never part of a secret: one that was read
    /// from a file often ends with a line feed.
    fn get(&self, name: &str) -> Option<String> {
        (self.read)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn unset(&self, field: &str, names: &str) -> Error {
        let visible = match self.shell {
            Shell::Wasm => " and list it in vm_config.environment_variables.host_env_keys",
            Shell::Native => "",
        };
        Error::new(format!("{field}: the environment variable {names} is not set; set it for Envoy{visible}"))
    }
}

/// The `authorization` header; `None` if the gateway sets it.
pub fn authorization(
    field: Option<Field>,
    env: &Variables<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<Secret>, Error> {
    let source = field.map_or_else(|| json!({ "env": WRITE_KEY_VARIABLE }), Field::into_value);
    if source == "gateway" {
        return Ok(None);
    }
    let write_key = write_key(&source, env)?;
    if write_key.len() != WRITE_KEY_CHARS || !write_key.bytes().all(|b| b.is_ascii_alphanumeric()) {
        warnings.push(format!(
            "{WRITE_KEY}: this is not {WRITE_KEY_CHARS} letters and digits, as Segment's write keys are; Segment accepts \
             calls with a wrong key and drops them, so compare it with the source's Settings > API Keys"
        ));
    }
    // Basic authentication: the key is the user name, and the password is empty.
    Ok(Some(Secret::new(format!("Basic {}", Base64::encode_string(format!("{write_key}:").as_bytes())))))
}

fn write_key(source: &Value, env: &Variables<'_>) -> Result<String, Error> {
    match single(source) {
        Some(("env", Value::String(name))) => match env.get(name) {
            Some(key) => Ok(key),
            None => Err(env.unset(WRITE_KEY, name)),
        },
        Some(("value", Value::String(key))) => inline(WRITE_KEY, key),
        _ => Err(Error::new(format!(
            "{WRITE_KEY}: expected {{\"env\": \"VARIABLE\"}}, {{\"value\": \"...\"}}, or \"gateway\" where Envoy sets the \
             credential"
        ))),
    }
    .and_then(|key| sendable(WRITE_KEY, key))
}

/// Who may send webhooks.
pub fn verification(
    field: Option<Field>,
    env: &Variables<'_>,
    warnings: &mut Vec<String>,
) -> Result<Verification, Error> {
    let source = field.map_or_else(|| json!({ "env": WEBHOOK_SECRET_VARIABLE }), Field::into_value);
    if source == "unverified" {
        warnings.push(format!("{WEBHOOK_SECRET}: \"unverified\" lets in everyone who reaches the listener"));
        return Ok(Verification::Unverified);
    }
    let expected = || {
        Error::new(format!(
            "{WEBHOOK_SECRET}: expected {{\"env\": \"VARIABLE\"}}, {{\"env\": [\"VARIABLE\", ...]}}, {{\"value\": \
             \"...\"}}, {{\"value\": [\"...\", ...]}}, {{\"filter_state\": \"KEY\"}}, or \"unverified\" where something \
             else verifies"
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
        "env" => list.iter().filter_map(|name| env.get(name)).collect(),
        "value" => list.iter().map(|secret| inline(WEBHOOK_SECRET, secret)).collect::<Result<_, _>>()?,
        _ => return Err(expected()),
    };
    match (key, list.as_slice()) {
        (_, []) => Err(expected()),
        ("env", names) if secrets.is_empty() => Err(env.unset(WEBHOOK_SECRET, &names.join(", "))),
        _ => secrets
            .into_iter()
            .map(|secret| sendable(WEBHOOK_SECRET, secret).map(Secret::new))
            .collect::<Result<_, _>>()
            .map(Verification::Secrets),
    }
}

/// The only member of an object.
fn single(value: &Value) -> Option<(&str, &Value)> {
    let object = value.as_object().filter(|object| object.len() == 1)?;
    object.iter().next().map(|(key, value)| (key.as_str(), value))
}

fn inline(field: &str, value: &str) -> Result<String, Error> {
    match value.trim() {
        "" => Err(Error::new(format!("{field}: the value is empty"))),
        value => Ok(value.to_owned()),
    }
}

/// Checks that a header can carry the value: otherwise it could never match, or never arrive.
fn sendable(field: &str, value: String) -> Result<String, Error> {
    if value.chars().any(char::is_control) {
        return Err(Error::new(format!("{field}: the value has a control character in it, which no header can carry")));
    }
    Ok(value)
}
