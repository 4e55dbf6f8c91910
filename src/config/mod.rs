//! The plugin's configuration: from JSON to a checked [`Config`], or to one line that names what is wrong.
//!
//! A message repeats only what looks like a path or a name: any other value may be a secret in the wrong place.

mod choices;
mod fields;
mod paths;
mod secrets;

use std::env::VarError;
use std::sync::Arc;

pub use self::fields::Error;
use self::fields::{Field, Fields};
use self::secrets::Variables;
use crate::authorization::Authorization;
use crate::mapping::Mapping;
use crate::verify::Verification;

/// The default of `max_body_bytes`: 512 KiB.
const MAX_BODY_BYTES: usize = 512 * 1024;

/// The default of `max_call_bytes`: 32 KiB, Segment's own limit for a call
/// (<https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/#max-request-size>).
const MAX_CALL_BYTES: usize = 32 * 1024;

/// The largest size that can be configured, in bytes. It is far over what is of use, and the same on every platform.
const LARGEST_SIZE: usize = 1024 * 1024 * 1024;

/// The field that tells environments apart.
const ENVIRONMENTS: &str = "environments";

/// The field that holds for all environments: the host has only one setting for them.
const HOLD_REQUEST_HEADERS: &str = "hold_request_headers";

/// Why a dynamic module has no such field.
const ALWAYS_HELD: &str = "a dynamic module always holds the request's headers; leave this field out";

/// How the filter is loaded into Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shell {
    /// As a proxy-wasm plugin. The host may or may not let it hold the request's headers.
    Wasm,
    /// As a dynamic module, which always holds the request's headers.
    Native,
}

/// A checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How the filter is loaded. Only a dynamic module holds the request in gateways that match a header and not the
    /// filter state.
    pub shell: Shell,
    /// Whether the request's headers are held until the body is mapped.
    pub hold_request_headers: bool,
    environments: Environments,
    /// What is legal but probably not meant, one line each.
    pub warnings: Vec<String>,
    /// What an operator should know, one line each.
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Environments {
    /// One environment, for every path that the host sends here.
    One(Arc<Environment>),
    /// One environment for each of these paths.
    ByPath(Vec<(String, Arc<Environment>)>),
}

impl Environments {
    /// Each environment with its path.
    fn all(&self) -> impl Iterator<Item = (&str, &Environment)> {
        let (one, by_path) = match self {
            Environments::One(environment) => (Some(("every path", environment.as_ref())), [].as_slice()),
            Environments::ByPath(by_path) => (None, by_path.as_slice()),
        };
        one.into_iter().chain(by_path.iter().map(|(path, environment)| (path.as_str(), environment.as_ref())))
    }

    /// Warns of each group of environments in which an event that several of them get would have the same id.
    fn with_equal_ids(&self) -> Vec<String> {
        let mut by_prefix = std::collections::BTreeMap::<&str, Vec<&str>>::new();
        for (path, environment) in self.all() {
            by_prefix.entry(environment.mapping.message_id_prefix()).or_default().push(path);
        }
        let equal = by_prefix.values().filter(|paths| paths.len() > 1).map(|paths| {
            format!(
                "{ENVIRONMENTS}: the ids of calls start the same for {}; Segment drops a call whose id it has seen, so of \
                 an event that several of them get, only one call stays; give each its own {}",
                paths.join(" and "),
                choices::SOURCE
            )
        });
        equal.collect()
    }
}

/// The settings for the webhooks of one of Stigg's environments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Where the `authorization` header to Segment comes from.
    pub authorization: Authorization,
    /// Who may send webhooks.
    pub verification: Verification,
    /// What becomes of an event.
    pub mapping: Mapping,
    /// The largest body that is taken, in bytes.
    pub max_body_bytes: usize,
    /// The largest request that is sent, in bytes.
    pub max_call_bytes: usize,
}

impl Config {
    /// Checks the configuration that a host has announced to be of `size` bytes. `text` is what could be read of it. Only
    /// a size of 0 stands for all defaults. `env` reads an environment variable.
    ///
    /// # Errors
    /// One line that names the wrong field or variable. It never repeats a secret.
    pub fn load(
        shell: Shell,
        size: usize,
        text: Option<&[u8]>,
        env: impl Fn(&str) -> Result<String, VarError>,
    ) -> Result<Self, Error> {
        match text {
            _ if size == 0 => {
                let mut config = Config::parse_for(shell, b"", env)?;
                config
                    .warnings
                    .push("the configuration is empty: the defaults apply, and whole events are sent".into());
                Ok(config)
            }
            Some(text) if text.len() == size => Config::parse_for(shell, text, env),
            _ => Err(Error::new(format!("the configuration: its {size} bytes cannot be read"))),
        }
    }

    /// Checks the configuration of a proxy-wasm plugin. An empty text stands for all defaults. `env` reads an environment
    /// variable.
    ///
    /// # Errors
    /// As those of [`Config::load`].
    pub fn parse(json: &[u8], env: impl Fn(&str) -> Result<String, VarError>) -> Result<Self, Error> {
        Config::parse_for(Shell::Wasm, json, env)
    }

    fn parse_for(shell: Shell, json: &[u8], env: impl Fn(&str) -> Result<String, VarError>) -> Result<Self, Error> {
        let env = Variables { read: &env, shell };
        let mut top = object(json)?;
        let mut warnings = Vec::new();
        let hold_request_headers = match (shell, top.take(HOLD_REQUEST_HEADERS)) {
            (Shell::Wasm, field) => field.map_or(Ok(false), |field| field.flag())?,
            (Shell::Native, None) => true,
            (Shell::Native, Some(field)) => return Err(field.error(ALWAYS_HELD)),
        };
        let environments = match top.take(ENVIRONMENTS) {
            None => Environments::One(Arc::new(environment(top, None, &env, &mut warnings)?)),
            Some(field) => {
                let mut of_each = Vec::new();
                let members = field.members(r#"{"/webhooks/stigg": {}}"#)?;
                let by_path = members.into_iter().enumerate().map(|(index, (path, own))| {
                    let mut of_this = Vec::new();
                    let environment = environment_at(index, &path, &own, &top, &env, &mut of_this)?;
                    of_each.push((path.clone(), of_this));
                    Ok((path, Arc::new(environment)))
                });
                let by_path = by_path.collect::<Result<Vec<_>, _>>()?;
                warnings.extend(once_each(&of_each));
                if by_path.is_empty() {
                    return Err(field.error("name at least one path"));
                }
                Environments::ByPath(by_path)
            }
        };
        warnings.extend(environments.with_equal_ids());
        let notes = environments.all().map(|(path, environment)| {
            let prefix = environment.mapping.message_id_prefix();
            fields::one_line(&format!("{path}: the ids of calls start with {prefix}"))
        });
        let notes = notes.collect();
        let warnings = warnings.iter().map(|warning| fields::one_line(warning)).collect();
        Ok(Config { shell, hold_request_headers, environments, warnings, notes })
    }

    /// The paths of the environments, if there are several.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        let by_path = match &self.environments {
            Environments::One(_) => [].as_slice(),
            Environments::ByPath(by_path) => by_path,
        };
        by_path.iter().map(|(path, _)| path.as_str())
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

/// The warnings of environments. Those with the same text are one: what they have in common is checked for each of them.
fn once_each(of_each: &[(String, Vec<String>)]) -> Vec<String> {
    let mut once: Vec<(String, &String)> = Vec::new();
    for (path, warning) in of_each.iter().flat_map(|(path, warnings)| warnings.iter().map(move |one| (path, one))) {
        match once.iter_mut().find(|(_, known)| *known == warning) {
            Some((places, _)) => places.push_str(&[", ", path].concat()),
            None => once.push(([ENVIRONMENTS, ".", path].concat(), warning)),
        }
    }
    once.into_iter().map(|(places, warning)| [&places, ": ", warning].concat()).collect()
}

/// The environment for one path. A field at the top holds for all environments, unless one of them sets it too. What is
/// left out of an event is different: nothing that the top leaves out comes back.
fn environment_at<'a>(
    index: usize,
    path: &str,
    own: &Field<'a>,
    common: &Fields<'a>,
    env: &Variables<'_>,
    warnings: &mut Vec<String>,
) -> Result<Environment, Error> {
    let place = if path.starts_with('/') { path.to_owned() } else { format!("#{}", index.saturating_add(1)) };
    let within = format!("{ENVIRONMENTS}.{place}");
    if let Err(wrong) = paths::check(path) {
        return Err(Error::new(wrong).within(&within));
    }
    let own = own.fields(r#"{"source": "main"}"#)?;
    if own.has(HOLD_REQUEST_HEADERS) {
        return Err(Error::new(match env.shell {
            Shell::Wasm => format!(
                "{within}: {HOLD_REQUEST_HEADERS} belongs beside {ENVIRONMENTS}: the host has only one setting for all of \
                 them"
            ),
            Shell::Native => format!("{within}.{HOLD_REQUEST_HEADERS}: {ALWAYS_HELD}"),
        }));
    }
    let common_properties = common.get(choices::PROPERTIES).filter(|_| own.has(choices::PROPERTIES));
    environment(common.overlaid(&own), common_properties, env, warnings).map_err(|error| error.within(&within))
}

fn environment<'a>(
    mut fields: Fields<'a>,
    common_properties: Option<Field<'a>>,
    env: &Variables<'_>,
    warnings: &mut Vec<String>,
) -> Result<Environment, Error> {
    let write_key = fields.take(secrets::WRITE_KEY);
    let webhook_secret = fields.take(secrets::WEBHOOK_SECRET);
    let max_body_bytes = fields.take("max_body_bytes");
    let max_call_bytes = fields.take("max_call_bytes");
    let choices = choices::MappingFields::take(&mut fields, common_properties);
    // This comes first: a misspelt field leaves another one unset, and that one is not what is wrong.
    fields.end()?;
    let max_body_bytes = max_body_bytes.map_or(Ok(MAX_BODY_BYTES), |field| field.size(LARGEST_SIZE))?;
    let max_call_bytes = max_call_bytes.map_or(Ok(MAX_CALL_BYTES), |field| field.size(LARGEST_SIZE))?;
    if max_call_bytes > MAX_CALL_BYTES {
        warnings.push(format!("max_call_bytes: Segment rejects calls over {MAX_CALL_BYTES} bytes"));
    }
    let (authorization, source) = secrets::authorization(write_key, env, warnings)?;
    Ok(Environment {
        mapping: Mapping::new(choices.check(source, warnings)?),
        authorization,
        verification: secrets::verification(webhook_secret, env, warnings)?,
        max_body_bytes,
        max_call_bytes,
    })
}

fn object(json: &[u8]) -> Result<Fields<'_>, Error> {
    if json.is_empty() {
        return Ok(Fields::none());
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
    fields::check(json, |name| [secrets::WRITE_KEY, secrets::WEBHOOK_SECRET].contains(&name))?;
    Fields::new(json)
}
