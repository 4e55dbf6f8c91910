//! A configuration, and what the filter does with a webhook under it: by the filter's own code, without Envoy.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, bail};
use sandbox::say;
use sandbox::stigg::PATH;
use stigg_segment::config::{Config, Environment};
use stigg_segment::filter::{Filter, Step};
use stigg_segment::headers::without_query;
use stigg_segment::reply::Reply;
use stigg_segment::verify::{SECRET_HEADER, Verification};

use super::decision::{ANY_SECRET, has_made_up_source, parse};

/// A configuration. The secrets that it names are made up.
#[derive(Debug)]
pub struct Rules {
    text: Vec<u8>,
    config: Arc<Config>,
}

/// What becomes of a webhook.
#[derive(Debug)]
pub enum Outcome {
    /// This request is sent to Segment.
    Sent {
        /// Its body.
        body: String,
        /// The environment whose settings decided.
        environment: Arc<Environment>,
    },
    /// The filter answers itself.
    Answered(Reply),
}

impl Rules {
    /// Reads a file; without one, all defaults apply.
    ///
    /// # Errors
    /// It cannot be read or is wrong: one line that starts with the file's name.
    pub fn read(file: Option<&Path>) -> Result<Self> {
        let Some(file) = file else { return Self::parse(Vec::new()) };
        let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        Self::parse(text).with_context(|| file.display().to_string())
    }

    fn parse(text: Vec<u8>) -> Result<Self> {
        let config = Arc::new(parse(&text)?);
        Ok(Self { text, config })
    }

    /// The configuration as it is written.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Prints what is legal but probably not meant.
    pub fn say_warnings(&self) -> Result<()> {
        for warning in &self.config.warnings {
            say!("{:12}{warning}", "warning");
        }
        Ok(())
    }

    /// The paths of its environments, if it has any.
    pub fn paths(&self) -> Vec<&str> {
        self.config.paths().collect()
    }

    /// The path that a webhook is sent to, which chooses one of several environments.
    ///
    /// # Errors
    /// There are several, and none is chosen. `how` says how to choose one.
    pub fn path<'a>(&'a self, chosen: Option<&'a str>, how: &str) -> Result<&'a str> {
        match (chosen, self.paths().as_slice()) {
            (Some(path), _) => Ok(path),
            (None, []) => Ok(PATH),
            (None, [only]) => Ok(only),
            (None, several) => {
                bail!("the configuration has several environments; choose one with {how}: {}", several.join(", "))
            }
        }
    }

    /// The environment of a path.
    pub fn environment(&self, path: &str) -> Option<Arc<Environment>> {
        self.config.environment(without_query(path.as_bytes()))
    }

    /// Whether a made-up write key names the source in the ids of its calls.
    pub fn has_made_up_source(&self, path: &str) -> bool {
        has_made_up_source(&self.text, without_query(path.as_bytes()))
    }

    /// What becomes of a POST of this event to this path, by somebody who knows the secret.
    pub fn outcome(&self, path: &str, event: &[u8]) -> Result<Outcome> {
        let environment = self.environment(path);
        let secret = match environment.as_ref().map(|environment| &environment.verification) {
            Some(Verification::Secrets(secrets)) => secrets.first().map(|secret| secret.reveal().to_vec()),
            _ => None,
        };
        let secret = secret.unwrap_or_else(|| ANY_SECRET.into());
        let pairs: [(&[u8], &[u8]); 3] =
            [(b":method", b"POST"), (b":path", path.as_bytes()), (SECRET_HEADER.as_bytes(), &secret)];
        let mut filter = Filter::new(Arc::clone(&self.config));
        let step = match filter.headers(pairs.into_iter(), false, |_| Some(ANY_SECRET.into())) {
            Step::Reply(reply) => Step::Reply(reply),
            _ => filter.complete(event, || UNIX_EPOCH.elapsed().ok()),
        };
        match (step, environment) {
            (Step::Forward(_, call), Some(environment)) => {
                let properties = call.properties.as_deref().unwrap_or(event);
                let body = String::from_utf8([&call.head, properties, &call.tail].concat())?;
                Ok(Outcome::Sent { body, environment })
            }
            (Step::Reply(reply), _) => Ok(Outcome::Answered(reply)),
            (step, _) => bail!("the filter does not come to an end: {step:?}"),
        }
    }
}
