//! `sandbox explain`: what the filter does with an event, and why, by the filter's own code.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};
use sandbox::fixtures;
use sandbox::say;
use sandbox::stigg::PATH;
use stigg_segment::config::{Config, Environment};
use stigg_segment::envelope::MESSAGE_ID_PREFIX;
use stigg_segment::filter::{Filter, Step};
use stigg_segment::headers::without_query;
use stigg_segment::mapping::Call;
use stigg_segment::reply::{Ignored, Reply};
use stigg_segment::verify::{SECRET_HEADER, Verification};

use super::calls::{calls, shown};
use super::decision::{ANY_SECRET, explain_origins, has_made_up_source, parse};
use super::difference::{Difference, Properties};
use super::pretty::pretty;

/// What is explained.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// An event of tests/fixtures, such as subscription.created, or a file; standard input if it is -
    #[arg(default_value = "-")]
    event: String,
    /// The filter's configuration, a JSON file; the variables that it names need not be set
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The path that the webhook is sent to, which chooses one of several environments
    #[arg(long, default_value = PATH)]
    path: String,
}

/// Prints it.
pub fn explain(options: &Options) -> Result<()> {
    let event = fixtures::event(&options.event)?;
    let configuration = match &options.config {
        Some(file) => fs::read(file).with_context(|| format!("cannot read {}", file.display()))?,
        None => Vec::new(),
    };
    let config = parse(&configuration)?;
    for warning in &config.warnings {
        say!("{:12}{warning}", "warning");
    }
    let path = without_query(options.path.as_bytes());
    let environment = config.environment(path);
    let step = step(config, environment.as_deref(), &options.path, &event);
    match (step, &environment) {
        (Step::Forward(_, call), Some(environment)) => {
            let source = source(environment, has_made_up_source(&configuration, path));
            show_call(&call, environment, &source, &event)
        }
        (Step::Reply(reply), environment) => show_reply(reply, environment.as_deref(), event.len()),
        (step, _) => anyhow::bail!("the filter does not come to an end: {step:?}"),
    }
}

/// What the filter does in the end with a POST of this event by somebody who knows the secret.
fn step(config: Config, environment: Option<&Environment>, path: &str, event: &[u8]) -> Step {
    let secret = match environment.map(|environment| &environment.verification) {
        Some(Verification::Secrets(secrets)) => secrets.first().map(|secret| secret.reveal().to_vec()),
        _ => None,
    };
    let secret = secret.unwrap_or_else(|| ANY_SECRET.into());
    let pairs: [(&[u8], &[u8]); 3] =
        [(b":method", b"POST"), (b":path", path.as_bytes()), (SECRET_HEADER.as_bytes(), &secret)];
    let mut filter = Filter::new(Arc::new(config));
    match filter.headers(pairs.into_iter(), false, |_| Some(ANY_SECRET.into())) {
        Step::Reply(reply) => Step::Reply(reply),
        _ => filter.complete(event, || UNIX_EPOCH.elapsed().ok()),
    }
}

fn show_reply(reply: Reply, environment: Option<&Environment>, size: usize) -> Result<()> {
    let what = match reply {
        Reply::Ignored(_) => "ignored",
        Reply::Rejected(_) => "rejected",
    };
    say!("{:12}{what}: {} {}", "decision", reply.status(), reply.code());
    say!("{:12}{}", "", reply.message());
    let Some(environment) = environment else { return Ok(()) };
    if reply == Ignored::NoCustomer.into() {
        let places: Vec<_> = environment.mapping.user_id_paths().map(ToString::to_string).collect();
        say!("{:12}A customer's id would be at {}.", "", places.join(" or "));
    }
    say!("{:12}{size} bytes, of at most {}", "body", environment.max_body_bytes);
    Ok(())
}

/// The key that the event comes under, as it is written in JSON.
fn under(environment: &Environment) -> Option<String> {
    environment.mapping.under().map(|key| String::from_utf8_lossy(key).into_owned())
}

/// The part of message ids that names the source of Segment's.
fn source(environment: &Environment, is_made_up: bool) -> String {
    let prefix = environment.mapping.message_id_prefix();
    match prefix.strip_prefix(MESSAGE_ID_PREFIX).and_then(|part| part.strip_suffix('-')) {
        None => "none: it is not set, and the write key is not known".to_owned(),
        Some(part) if is_made_up => {
            format!("{part}, of a made-up write key: the filter logs at start which one it uses")
        }
        Some(part) => part.to_owned(),
    }
}

fn show_call(call: &Call, environment: &Environment, source: &str, event: &[u8]) -> Result<()> {
    let origins = environment.mapping.origins(event).map_err(|reply| anyhow::anyhow!("{}", reply.code()))?;
    let properties = call.properties.as_deref().unwrap_or(event);
    let body = String::from_utf8([&call.head, properties, &call.tail].concat())?;
    let calls = calls(body.as_bytes());
    let track = *calls.first().context("an empty batch")?;

    let what = match calls.as_slice() {
        [_] => "a track call".to_owned(),
        batch => {
            let kinds: Vec<_> = batch.iter().map(|call| shown(call, "type").replace('"', "")).collect();
            format!("a batch: {}", kinds.join(", "))
        }
    };
    say!("{:12}sent to Segment as {what}", "decision");
    let context_of_track = shown(track, "context");
    for (field, origin) in explain_origins(&origins) {
        let part_of_call = if field == "groupId" { context_of_track.as_bytes() } else { track };
        match shown(part_of_call, field).as_str() {
            "null" => say!("{field:12}left out: {origin}"),
            value => say!("{field:12}{value}, {origin}"),
        }
    }
    say!("{:12}{source}", "source");
    let difference = Difference::between(std::str::from_utf8(event)?, &body, under(environment).as_deref())
        .context("the call is not JSON")?;
    match difference.properties {
        Properties::Without(paths) => say!("{:12}the event without {}", "properties", paths.join(", ")),
        _ => say!("{:12}the event, byte for byte", "properties"),
    }
    for call in &calls {
        let context: serde_json::Value = serde_json::from_str(&shown(call, "context")).unwrap_or_default();
        let removed: Vec<_> =
            context["removed"].as_array().into_iter().flatten().filter_map(|path| path.as_str()).collect();
        if !removed.is_empty() {
            say!("{:12}{} left this call, which was over its limit (too_large)", "", removed.join(", "));
        }
    }
    say!("{:12}{} bytes, of at most {}", "body", event.len(), environment.max_body_bytes);
    say!("{:12}{} bytes, of at most {}", "call", body.len(), environment.max_call_bytes);
    say!("\n{}", pretty(&body));
    Ok(())
}
