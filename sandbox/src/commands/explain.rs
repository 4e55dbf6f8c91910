//! `sandbox explain`: what the filter does with events, and why, by the filter's own code.

use std::collections::BTreeMap;
use std::io::{IsTerminal, stdin};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::CommandFactory;
use sandbox::fixtures::{self, Named};
use sandbox::output::note;
use sandbox::say;
use stigg_segment::config::Environment;
use stigg_segment::envelope::MESSAGE_ID_PREFIX;
use stigg_segment::mapping::MAX_BATCH_BYTES;
use stigg_segment::places::KNOWN;
use stigg_segment::reply::{Ignored, Rejection, Reply};

use super::calls::{calls, shown, track};
use super::decision::explain_origins;
use super::difference::{Difference, Properties};
use super::pretty::pretty;
use super::rules::{Outcome, Rules};
use super::unmatched::Selectors;

/// What is explained.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Events of tests/fixtures, such as subscription.created, files with an event or with one on each line, folders of
    /// such files, or - for standard input
    #[arg(value_name = "EVENT")]
    events: Vec<String>,
    /// The filter's configuration, a JSON file; the variables that it names need not be set
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The path that the webhook is sent to, which chooses one of several environments
    #[arg(long)]
    path: Option<String>,
    /// List the events of tests/fixtures instead
    #[arg(long)]
    list: bool,
}

/// Prints it.
pub fn explain(options: &Options) -> Result<()> {
    if options.list {
        say!("{}", fixtures::names()?.join("\n"));
        return Ok(());
    }
    if options.events.is_empty() && stdin().is_terminal() {
        let mut command = crate::Command::command();
        command.build();
        let explain = command.find_subcommand_mut("explain").context("there is no such command")?;
        note(format_args!("{}", explain.render_help()));
        bail!("which event? Name one, such as subscription.created");
    }
    let rules = Rules::read(options.config.as_deref())?;
    let path = rules.path(options.path.as_deref(), "--path")?;
    let names = if options.events.is_empty() { &["-".to_owned()] } else { options.events.as_slice() };
    let mut events = Vec::new();
    for name in names {
        events.extend(fixtures::events(name)?);
    }
    rules.say_warnings()?;
    let mut selectors = Selectors::of(rules.text());
    for (_, event) in &events {
        selectors.see(path, event);
    }
    match events.as_slice() {
        [(_, event)] => explain_one(&rules, path, event, &selectors),
        events => explain_each(&rules, path, events, &selectors),
    }
}

fn explain_one(rules: &Rules, path: &str, event: &[u8], selectors: &Selectors) -> Result<()> {
    match rules.outcome(path, event)? {
        Outcome::Sent { body, environment } => {
            let source = source(&environment, rules.has_made_up_source(path));
            say_call(&body, &environment, &source, event)?;
            selectors.say_unmatched()?;
            say!("\n{}", pretty(&body));
        }
        Outcome::Answered(reply) => {
            say_reply(reply, rules, path, event.len())?;
            selectors.say_unmatched()?;
        }
    }
    Ok(())
}

/// Prints a line for each event, and a summary.
fn explain_each(rules: &Rules, path: &str, events: &[Named], selectors: &Selectors) -> Result<()> {
    let width = events.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    let mut counts = BTreeMap::new();
    for (name, event) in events {
        let (count, line) = match rules.outcome(path, event)? {
            Outcome::Sent { body, environment } => ("sent to Segment".to_owned(), sent(&body, &environment, event)?),
            Outcome::Answered(reply) => {
                let answer = format!("{} {}", reply.status(), reply.code());
                let line = match reply {
                    Reply::Ignored(_) => answer.clone(),
                    Reply::Rejected(_) => format!("{answer}: {}", reply.message()),
                };
                (answer, line)
            }
        };
        *counts.entry(count).or_insert(0) += 1;
        say!("{name:width$}  {line}");
    }
    say!("\n{:12}{} events", "summary", events.len());
    for (what, count) in counts {
        say!("{count:>12} {what}");
    }
    selectors.say_unmatched()
}

/// A call in one line.
fn sent(body: &str, environment: &Environment, event: &[u8]) -> Result<String> {
    let track = track(body.as_bytes());
    let [name, user] = ["event", "userId"].map(|field| shown(track, field));
    let also: Vec<_> = calls(body.as_bytes()).iter().skip(1).map(|call| kind(call)).collect();
    let also = if also.is_empty() { String::new() } else { format!(", with {}", also.join(" and ")) };
    let without = match difference(body, environment, event)?.properties {
        Properties::Without(paths) if !paths.is_empty() => format!(", without {}", paths.join(", ")),
        _ => String::new(),
    };
    Ok(format!("sent as {name} of {user}{also}{without}"))
}

fn difference(body: &str, environment: &Environment, event: &[u8]) -> Result<Difference> {
    let event = std::str::from_utf8(event)?;
    Difference::between(event, body, under(environment).as_deref()).context("the call is not JSON")
}

/// What a call of a batch is.
fn kind(call: &[u8]) -> String {
    shown(call, "type").replace('"', "")
}

fn say_reply(reply: Reply, rules: &Rules, path: &str, size: usize) -> Result<()> {
    let what = match reply {
        Reply::Ignored(_) => "ignored",
        Reply::Rejected(_) => "rejected",
    };
    say!("{:12}{what}: {} {}", "decision", reply.status(), reply.code());
    say!("{:12}{}", "", reply.message());
    if reply == Rejection::UnknownPath.into() {
        say!("{:12}The environments are {}.", "", rules.paths().join(", "));
    }
    let Some(environment) = rules.environment(path) else { return Ok(()) };
    if reply == Ignored::NoCustomer.into() {
        let looked_at: Vec<_> = environment.mapping.user_id_paths().map(ToString::to_string).collect();
        say!("{:12}user_id looks at {}.", "", looked_at.join(", "));
        let others = KNOWN.iter().filter(|known| !looked_at.iter().any(|path| path == known.path));
        let others = others.map(|known| match known.events {
            Some(events) => format!("{} ({events} only)", known.path),
            None => known.path.to_owned(),
        });
        let others = others.collect::<Vec<_>>().join(", ");
        if !others.is_empty() {
            say!("{:12}Other events of Stigg's have one at {others}; this one has none there.", "");
        }
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

fn say_call(body: &str, environment: &Environment, source: &str, event: &[u8]) -> Result<()> {
    let origins = environment.mapping.origins(event).map_err(|reply| anyhow::anyhow!("{}", reply.code()))?;
    let track = track(body.as_bytes());
    let calls = calls(body.as_bytes());

    let what = match calls.as_slice() {
        [_] => "a track call".to_owned(),
        batch => format!("a batch: {}", batch.iter().map(|call| kind(call)).collect::<Vec<_>>().join(", ")),
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
    match difference(body, environment, event)?.properties {
        Properties::Without(paths) if paths.is_empty() => {
            say!("{:12}the event, byte for byte, without the white space around it", "properties");
        }
        Properties::Without(paths) => say!("{:12}the event without {}", "properties", paths.join(", ")),
        _ => say!("{:12}the event, byte for byte", "properties"),
    }
    for call in &calls {
        let which = if calls.len() > 1 { format!("the {} call", kind(call)) } else { "this call".to_owned() };
        let context: serde_json::Value = serde_json::from_str(&shown(call, "context")).unwrap_or_default();
        let removed: Vec<_> =
            context["removed"].as_array().into_iter().flatten().filter_map(|path| path.as_str()).collect();
        if !removed.is_empty() {
            say!("{:12}{} left {which}, which was over its limit (too_large)", "", removed.join(", "));
        }
    }
    say!("{:12}{} bytes, of at most {}", "body", event.len(), environment.max_body_bytes);
    for call in &calls {
        let name = if calls.len() > 1 { kind(call) } else { "call".to_owned() };
        say!("{name:12}{} bytes, of at most {}", call.len(), environment.max_call_bytes);
    }
    if calls.len() > 1 {
        say!("{:12}{} bytes, of at most {MAX_BATCH_BYTES}", "batch", body.len());
    }
    Ok(())
}
