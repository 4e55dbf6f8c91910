//! The write key and the webhook secret: where the configuration says they are, and their values.

use std::env::VarError;

use super::Shell;
use super::fields::{Error, Field, is_name};
use crate::authorization::{Authorization, basic, wrong_shape};
use crate::envelope::source_of;
use crate::secret::Secret;
use crate::verify::Verification;

/// The field of the write key.
pub const WRITE_KEY: &str = "write_key";

/// The field of the webhook secret.
pub const WEBHOOK_SECRET: &str = "webhook_secret";

/// The variable that holds the write key by default.
const WRITE_KEY_VARIABLE: &str = "SEGMENT_WRITE_KEY";

/// The variables that hold the webhook secret by default. The second one is for a rotation.
const WEBHOOK_SECRET_VARIABLES: [&str; 2] = ["STIGG_WEBHOOK_SECRET", "STIGG_WEBHOOK_SECRET_PREVIOUS"];

/// Takes the place of a variable's name that may be a secret.
const HIDDEN: &str = "(not repeated: this does not look like a variable's name and may be a secret)";

/// The environment variables that the filter can read.
pub struct Variables<'a> {
    /// Reads one of them.
    pub read: &'a dyn Fn(&str) -> Result<String, VarError>,
    /// How the filter is loaded, and so what it takes to read one.
    pub shell: Shell,
}

/// Where the `authorization` header comes from, and the part of message ids that the write key makes, if it is known.
pub fn authorization(
    field: Option<Field<'_>>,
    env: &Variables<'_>,
    warnings: &mut Vec<String>,
) -> Result<(Authorization, Option<String>), Error> {
    let source = match field {
        None => Some(("env".to_owned(), WRITE_KEY_VARIABLE.to_owned())),
        Some(field) if field.as_text().as_deref() == Some("gateway") => return Ok((Authorization::Gateway, None)),
        Some(field) => single(&field).and_then(|(key, value)| Some((key, value.as_text()?))),
    };
    let write_key = match source.as_ref().map(|(key, text)| (key.as_str(), text)) {
        Some(("env", name)) => one_of_these(WRITE_KEY, std::slice::from_ref(name), env)?.concat(),
        Some(("value", key)) => inline(WRITE_KEY, key)?,
        Some(("filter_state", key)) if !key.is_empty() => {
            return Ok((Authorization::from_filter_state(key.clone()), None));
        }
        _ => {
            return Err(Error::new(format!(
                "{WRITE_KEY}: expected {{\"env\": \"VARIABLE\"}}, {{\"value\": \"...\"}}, {{\"filter_state\": \"KEY\"}}, or \
                 \"gateway\" where Envoy sets the credential"
            )));
        }
    };
    let write_key = sendable(WRITE_KEY, write_key)?;
    warnings.extend(wrong_shape(write_key.as_bytes()));
    Ok((Authorization::Header(basic(write_key.as_bytes())), Some(source_of(&write_key))))
}

/// Who may send webhooks.
pub fn verification(
    field: Option<Field<'_>>,
    env: &Variables<'_>,
    warnings: &mut Vec<String>,
) -> Result<Verification, Error> {
    let secrets = match field {
        None => one_of_these(WEBHOOK_SECRET, &WEBHOOK_SECRET_VARIABLES.map(str::to_owned), env)?,
        Some(field) if field.as_text().as_deref() == Some("unverified") => {
            warnings.push(format!("{WEBHOOK_SECRET}: \"unverified\" lets in everyone who reaches the listener"));
            return Ok(Verification::Unverified);
        }
        Some(field) => match source(&field) {
            Some(Source::FilterState(key)) => return Ok(Verification::FilterState(key)),
            Some(Source::Variables(names)) => one_of_these(WEBHOOK_SECRET, &names, env)?,
            Some(Source::Inline(secrets)) => {
                secrets.iter().map(|secret| inline(WEBHOOK_SECRET, secret)).collect::<Result<_, _>>()?
            }
            None => {
                return Err(Error::new(format!(
                    "{WEBHOOK_SECRET}: expected {{\"env\": \"VARIABLE\"}}, {{\"env\": [\"VARIABLE\", ...]}}, {{\"value\": \
                     \"...\"}}, {{\"value\": [\"...\", ...]}}, {{\"filter_state\": \"KEY\"}}, or \"unverified\" where \
                     something else verifies"
                )));
            }
        },
    };
    let secrets = secrets.into_iter().map(|secret| sendable(WEBHOOK_SECRET, secret).map(Secret::new));
    Ok(Verification::Secrets(secrets.collect::<Result<_, _>>()?))
}

/// Where the webhook secret is. No list is empty.
enum Source {
    FilterState(String),
    Variables(Vec<String>),
    Inline(Vec<String>),
}

fn source(field: &Field<'_>) -> Option<Source> {
    let (key, value) = single(field)?;
    let list = match value.as_text() {
        Some(key_of_state) if key == "filter_state" => {
            return Some(key_of_state).filter(|key| !key.is_empty()).map(Source::FilterState);
        }
        Some(one) => vec![one],
        None => value.list("[]").ok()?.iter().map(Field::as_text).collect::<Option<_>>()?,
    };
    match key.as_str() {
        _ if list.is_empty() => None,
        "env" => Some(Source::Variables(list)),
        "value" => Some(Source::Inline(list)),
        _ => None,
    }
}

/// The only member of an object.
fn single<'a>(field: &Field<'a>) -> Option<(String, Field<'a>)> {
    let mut members = field.members("{}").ok()?;
    members.pop().filter(|_| members.is_empty())
}

/// The values of the variables that are set. White space around a value is never part of a secret: one that was read
/// from a file often ends with a line feed.
fn one_of_these(field: &str, names: &[String], env: &Variables<'_>) -> Result<Vec<String>, Error> {
    let mut secrets = Vec::new();
    for name in names {
        match (env.read)(name) {
            Ok(value) if !value.trim().is_empty() => secrets.push(value.trim().to_owned()),
            Ok(_) | Err(VarError::NotPresent) => {}
            Err(VarError::NotUnicode(_)) => {
                return Err(Error::new(format!(
                    "{field}: the environment variable{} is set, but its value is not UTF-8",
                    shown(&[name])
                )));
            }
        }
    }
    if secrets.is_empty() {
        let (are_unset, one) = match names.len() {
            1 => ("the environment variable{} is not set", "it"),
            _ => ("none of the environment variables{} is set", "one"),
        };
        let are_unset = are_unset.replace("{}", &shown(&names.iter().collect::<Vec<_>>()));
        let visible = match env.shell {
            Shell::Wasm => format!(" and list {one} in vm_config.environment_variables.host_env_keys"),
            Shell::Native => String::new(),
        };
        return Err(Error::new(format!("{field}: {are_unset}; set {one} for Envoy{visible}")));
    }
    Ok(secrets)
}

/// The names of variables after a space, if they look like names: one of them can be a secret in the wrong place.
fn shown(names: &[&String]) -> String {
    let is_letter = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    let is_shown =
        |name: &str| !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && is_name(name, is_letter);
    let names = names.iter().map(|name| if is_shown(name) { name.as_str() } else { HIDDEN });
    format!(" {}", names.collect::<Vec<_>>().join(", "))
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
