//! The filter's own configuration as `sandbox run` runs it: checked, with routes for each environment, and with made-up
//! secrets or the user's.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::iter::repeat_with;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use sandbox::envoy::{Config, PLUGIN, ROUTE, Shell};
use sandbox::stigg::PATH;
use serde_json::{Map, Value, json};

use super::decision::{ANY_SECRET, parse};

/// The variable that holds the write key by default.
const WRITE_KEY: &str = "SEGMENT_WRITE_KEY";

/// The fields that name secrets.
const SECRETS: [&str; 2] = ["write_key", "webhook_secret"];

/// The field that tells environments apart.
const ENVIRONMENTS: &str = "environments";

/// A configuration that the filter accepts.
#[derive(Debug)]
pub struct Own {
    /// The file that it is from.
    pub file: String,
    /// What is legal but probably not meant, one line each.
    pub warnings: Vec<String>,
    /// What else the filter says at its start, one line each.
    pub notes: Vec<String>,
    fields: Map<String, Value>,
    /// The environment variables that it reads.
    variables: BTreeSet<String>,
}

/// Where webhooks of one environment come in, and where their calls go.
#[derive(Debug)]
pub struct Place {
    /// The path of the webhooks.
    pub path: String,
    /// The path at Segment.
    pub endpoint: &'static str,
}

impl Own {
    /// Reads a file, or takes what `envoy.yaml` has.
    ///
    /// # Errors
    /// One line that names the file, and what is wrong.
    pub fn read(file: Option<&Path>, shipped: &Config) -> Result<Self> {
        let (file, text) = match file {
            Some(file) => {
                let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
                (file.display().to_string(), text)
            }
            None => ("envoy.yaml".to_owned(), shipped.own_configuration()?.into()),
        };
        let config = parse(&text).with_context(|| file.clone())?;
        let fields = match text.as_slice() {
            b"" => Map::new(),
            text => serde_json::from_slice(text).with_context(|| file.clone())?,
        };
        Ok(Self { file, warnings: config.warnings, notes: Vec::new(), fields, variables: BTreeSet::new() })
    }

    /// Whether a write key is set, so that it is meant for Segment itself.
    pub fn has_write_key(&self) -> bool {
        let named = self.environments().into_iter().filter_map(|(_, own)| match self.field(own, "write_key") {
            Some(field) => field["env"].as_str(),
            None => Some(WRITE_KEY),
        });
        let mut variables = named.chain([WRITE_KEY]);
        variables.any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
    }

    /// With the secrets in the variables that it names.
    ///
    /// # Errors
    /// One of them is not set, or `envoy.yaml` would have to supply it.
    pub fn with_secrets(mut self) -> Result<Self> {
        for (_, own) in self.environments() {
            for name in SECRETS {
                let Some(field) = self.field(own, name) else { continue };
                // Without the credential, Segment would answer 200, and drop the calls.
                ensure!(
                    *field != "gateway" && field.get("filter_state").is_none(),
                    "a write key is set, but {} cannot run with it: {name} comes from Envoy, and the envoy.yaml that \
                     runs here does not supply it; name a variable, or unset the write key",
                    self.file
                );
            }
        }
        let text = Value::from(self.fields.clone()).to_string();
        let variables = RefCell::new(BTreeSet::new());
        let config = stigg_segment::config::Config::parse(text.as_bytes(), |name| {
            variables.borrow_mut().insert(name.to_owned());
            std::env::var(name)
        });
        let config = config.map_err(anyhow::Error::from).with_context(|| {
            format!(
                "a write key is set, but {} cannot run with it; unset it to try the filter with made-up secrets and \
                 without Segment",
                self.file
            )
        })?;
        (self.warnings, self.notes, self.variables) = (config.warnings, config.notes, variables.into_inner());
        Ok(self)
    }

    /// With made-up secrets. Returns them as variables, and the webhook secret of each environment.
    pub fn with_made_up_secrets(mut self) -> (Self, Vec<(String, String)>, Vec<String>) {
        let (mut variables, mut webhook_secrets) = (Vec::new(), Vec::new());
        let mut make_up = |fields: &mut Map<String, Value>| {
            for field in SECRETS {
                let name = format!("SANDBOX_{}_{}", field.to_uppercase(), webhook_secrets.len());
                let secret: String = repeat_with(fastrand::alphanumeric).take(ANY_SECRET.len()).collect();
                fields.insert(field.to_owned(), json!({ "env": name }));
                variables.push((name, secret));
            }
            webhook_secrets.extend(variables.last().map(|(_, secret)| secret.clone()));
        };
        match self.fields.get_mut(ENVIRONMENTS).and_then(Value::as_object_mut) {
            None => make_up(&mut self.fields),
            Some(environments) => environments.values_mut().filter_map(Value::as_object_mut).for_each(make_up),
        }
        self.variables = variables.iter().map(|(name, _)| name.clone()).collect();
        (self, variables, webhook_secrets)
    }

    /// The places that it takes webhooks at.
    pub fn places(&self) -> Vec<Place> {
        let place = |(path, own): (&str, _)| {
            let also = self.field(own, "also").and_then(Value::as_array);
            // A batch if there is more than one call for each event.
            let endpoint = if also.is_some_and(|also| !also.is_empty()) { "/v1/batch" } else { "/v1/track" };
            Place { path: path.to_owned(), endpoint }
        };
        self.environments().into_iter().map(place).collect()
    }

    /// The configuration without what names secrets, for people.
    pub fn shown(&self) -> String {
        let mut shown = self.fields.clone();
        let remove = |fields: &mut Map<String, Value>| SECRETS.iter().for_each(|secret| drop(fields.remove(*secret)));
        remove(&mut shown);
        let environments = shown.get_mut(ENVIRONMENTS).and_then(Value::as_object_mut);
        environments.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut).for_each(remove);
        Value::from(shown).to_string()
    }

    /// Puts it into `envoy.yaml`, which says how the request's headers are held.
    pub fn put_into(&self, config: Config) -> Result<Config> {
        let mut fields = self.fields.clone();
        let config = match config.shell() {
            Shell::Wasm => {
                fields.insert("hold_request_headers".to_owned(), true.into());
                let keys = format!("{PLUGIN}/vm_config/environment_variables/host_env_keys");
                config.set(&keys, json!(self.variables))?
            }
            Shell::Native => {
                fields.remove("hold_request_headers");
                config
            }
        };
        let config = config.plugin_configuration(Value::from(fields))?;
        let places = self.places();
        match places.as_slice() {
            [place] if place.path == PATH => {
                config.set(&format!("{ROUTE}/route/prefix_rewrite"), place.endpoint.into())
            }
            places => config.paths(places.iter().map(|place| (place.path.as_str(), place.endpoint))),
        }
    }

    /// Each environment's path and own fields.
    fn environments(&self) -> Vec<(&str, Option<&Map<String, Value>>)> {
        match self.fields.get(ENVIRONMENTS).and_then(Value::as_object) {
            None => vec![(PATH, None)],
            Some(environments) => environments.iter().map(|(path, own)| (path.as_str(), own.as_object())).collect(),
        }
    }

    /// A field of an environment: its own, or the one at the top.
    fn field<'a>(&'a self, own: Option<&'a Map<String, Value>>, name: &str) -> Option<&'a Value> {
        own.and_then(|own| own.get(name)).or_else(|| self.fields.get(name))
    }
}
