//! The plugin's configuration: from JSON to a checked [`Config`], or to one line that names what is wrong.
//!
//! No message repeats a value, since it may be a secret in the wrong place.

mod choices;
mod fields;
mod secrets;

use std::sync::Arc;

use serde_json::{Map, Value};

pub use self::fields::Error;
use self::fields::{Field, Fields};
use self::secrets::Variables;
use crate::mapping::Mapping;
use crate::secret::Secret;
use crate::verify::Verification;

/// The default of `max_body_bytes`: 512 KiB.
const MAX_BODY_BYTES: usize = 512 * 1024;

/// The default of `max_call_bytes`: 32 KiB, Segment's own limit for a call
/// (<https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/#max-request-size>).
const MAX_CALL_BYTES: usize = 32 * 1024;

/// The field that tells environments apart.
const ENVIRONMENTS: &str = "environments";

/// The field that holds for all environments: the host has only one setting for them.
const HOLD_REQUEST_HEADERS: &str = "hold_request_headers";

/// Why a dynamic module has no such field.
const ALWAYS_HELD: &str = "a dynamic module always holds the request's headers; remove this field";

/// A checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Whether the request's headers are held until the body is mapped.
    pub hold_request_headers: bool,
    environments: Environments,
    /// What is legal but probably not meant, one line each.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Environments {
    /// One environment, for every path that the host sends here.
    One(Arc<Environment>),
    /// One environment for each of these paths.
    ByPath(Vec<(String, Arc<Environment>)>),
}

/// The settings for the webhooks of one of Stigg's environments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// The value of the `authorization` header to Segment; `None` if the gateway sets it.
    pub authorization: Option<Secret>,
    /// Who may send webhooks.
    pub verification: Verification,
    /// What becomes of an event.
    pub mapping: Mapping,
    /// The largest body that is taken, in bytes.
    pub max_body_bytes: usize,
    /// The largest request that is sent, in bytes.
    pub max_call_bytes: usize,
}

/// How the filter is loaded into Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shell {
    /// As a proxy-wasm plugin. The host may or may not let it hold the request's headers.
    Wasm,
    /// As a dynamic module, which always holds the request's headers.
    Native,
}

impl Config {
    /// Checks the configuration of a proxy-wasm plugin. An empty text stands for all defaults. `env` reads an environment
    /// variable.
    ///
    /// # Errors
    /// One line that names the wrong field or variable. It never repeats a secret.
    pub fn parse(json: &[u8], env: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        Config::parse_for(Shell::Wasm, json, env)
    }

    /// The same for any shell.
    ///
    /// # Errors
    /// As those of [`Config::parse`].
    pub fn parse_for(shell: Shell, json: &[u8], env: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let env = Variables { read: &env, shell };
        let mut top = Fields::new(object(json)?);
        let mut warnings = Vec::new();
        let hold_request_headers = match (shell, top.take(HOLD_REQUEST_HEADERS)) {
            (Shell::Wasm, field) => field.map_or(Ok(false), |field| field.flag())?,
            (Shell::Native, None) => true,
            (Shell::Native, Some(field)) => return Err(field.error(ALWAYS_HELD)),
        };
        let environments = match top.take(ENVIRONMENTS) {
            None => Environments::One(Arc::new(environment(top, &env, &mut warnings)?)),
            Some(field) => {
                let nowhere = field.error("name at least one path");
                let by_path = field.members()?.into_iter().map(|(path, own)| {
                    let environment = environment_at(&path, own, &top, &env, &mut warnings)?;
                    Ok((path, Arc::new(environment)))
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

    /// The environment for a request's path, without its query.
    pub fn environment(&self, path: &[u8]) -> Option<Arc<Environment>> {
        match &self.environments {
            Environments::One(environment) => Some(environment.clone()),
            Environments::ByPath(by_path) => {
                by_path.iter().find(|(own, _)| own.as_bytes() == path).map(|(_, environment)| environment.clone())
            }
        }
    }
}

/// The environment for one path. A field at the top holds for all environments, unless one of them sets it too.
fn environment_at(
    path: &str,
    own: Field,
    common: &Fields,
    env: &Variables<'_>,
    warnings: &mut Vec<String>,
) -> Result<Environment, Error> {
    if !path.starts_with('/') || path.contains(['?', '#', '*']) {
        return Err(own.error("expected a path that starts with `/`, without a query"));
    }
    let at_the_top = own.error(&match env.shell {
        Shell::Wasm => format!(
            "{HOLD_REQUEST_HEADERS} belongs beside {ENVIRONMENTS}: the host has only one setting for all of them"
        ),
        Shell::Native => format!("{HOLD_REQUEST_HEADERS}: {ALWAYS_HELD}"),
    });
    let own = own.object()?;
    if own.contains_key(HOLD_REQUEST_HEADERS) {
        return Err(at_the_top);
    }
    let within = format!("{ENVIRONMENTS}.{path}");
    let first_of_these = warnings.len();
    let environment = environment(common.overlaid(own), env, warnings).map_err(|error| error.within(&within))?;
    for warning in warnings.iter_mut().skip(first_of_these) {
        *warning = format!("{within}: {warning}");
    }
    Ok(environment)
}

fn environment(mut fields: Fields, env: &Variables<'_>, warnings: &mut Vec<String>) -> Result<Environment, Error> {
    let write_key = fields.take(secrets::WRITE_KEY);
    let webhook_secret = fields.take(secrets::WEBHOOK_SECRET);
    let max_body_bytes = fields.take("max_body_bytes");
    let max_call_bytes = fields.take("max_call_bytes");
    let choices = choices::Fields::take(&mut fields);
    // This comes first: a misspelt field leaves another one unset, and that one is not what is wrong.
    fields.end()?;
    let max_body_bytes = max_body_bytes.map_or(Ok(MAX_BODY_BYTES), |field| field.size())?;
    let max_call_bytes = max_call_bytes.map_or(Ok(MAX_CALL_BYTES), |field| field.size())?;
    if max_call_bytes > MAX_CALL_BYTES {
        warnings.push(format!("max_call_bytes: Segment rejects calls over {MAX_CALL_BYTES} bytes"));
    }
    Ok(Environment {
        mapping: Mapping::new(choices.check(warnings)?),
        authorization: secrets::authorization(write_key, env, warnings)?,
        verification: secrets::verification(webhook_secret, env, warnings)?,
        max_body_bytes,
        max_call_bytes,
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
        return Err(Error::new(
            "the configuration is not JSON text but a protobuf message: give it as a google.protobuf.StringValue",
        ));
    }
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(Error::new("the configuration: expected a JSON object"));
    }
    serde_json::from_slice(json).map_err(|error| Error::new(format!("the configuration: {error}")))
}
