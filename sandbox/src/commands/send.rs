//! `sandbox send`: events from the terminal, one as Stigg's "Send test event" sends it, or many at a rate.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use sandbox::fixtures;
use sandbox::say;
use sandbox::stigg::{PATH, Reply, status_text};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::decision::decide;
use super::endpoint::{self, Endpoint, Running};
use super::pretty::pretty;

/// How many webhooks may be under way at once.
const AT_ONCE: usize = 100;

/// The variable with the secret of an Envoy on the shipped envoy.yaml.
const SECRET_VARIABLE: &str = "STIGG_WEBHOOK_SECRET";

/// The events to send, and where to.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// An event of tests/fixtures, such as subscription.created, or a file
    event: String,
    /// How many; if more than one, each gets a different messageId
    #[arg(long, default_value = "1")]
    count: NonZeroU32,
    /// The environment to send to, by the path of its webhooks, if the running sandbox has several
    #[arg(long)]
    path: Option<String>,
    /// The messageId, to send an event again; by default, an event of tests/fixtures gets a new one
    #[arg(long, value_name = "ID")]
    message_id: Option<String>,
    /// How many a second; by default, as many as are answered
    #[arg(long)]
    rate: Option<NonZeroU32>,
    /// An endpoint URL to use instead of the running sandbox's
    #[arg(long)]
    url: Option<String>,
    /// A secret to use instead of the running sandbox's; STIGG_WEBHOOK_SECRET keeps it out of the list of processes
    #[arg(long)]
    secret: Option<String>,
    /// The file in which the running sandbox has written its URL and secret
    #[arg(long, value_name = "FILE", default_value_os_t = endpoint::default_file())]
    running_file: PathBuf,
}

/// Sends the events, and prints what Stigg would show.
///
/// # Errors
/// An answer was not 2xx: Stigg would count that event as not delivered.
pub async fn send(options: Options) -> Result<()> {
    let event = fixtures::event(&options.event)?;
    let receiver = receiver(&options)?;
    let is_fixture = fixtures::names()?.contains(&options.event);
    match (options.count.get(), &options.message_id) {
        (1, Some(id)) => send_one(&receiver, fixtures::with_id(&event, id), Some(id.clone())).await,
        // Segment drops an id that it has seen. A file is sent as it is.
        (1, None) if is_fixture => {
            let (event, id) = fixtures::with_new_id(&event);
            send_one(&receiver, event, Some(id)).await
        }
        (1, None) => send_one(&receiver, event, None).await,
        (_, Some(_)) => bail!("--message-id is for one event: several with the same id are one for Segment"),
        (count, None) => send_many(receiver, event, count, options.rate).await,
    }
}

/// Where events are sent.
struct Receiver {
    endpoint: Endpoint,
    /// The filter's configuration, if the sandbox runs it.
    configuration: Option<String>,
}

fn receiver(options: &Options) -> Result<Receiver> {
    let variable = std::env::var(SECRET_VARIABLE).ok().filter(|secret| !secret.is_empty());
    let own_secret = options.secret.clone();
    let elsewhere = |url: String, secret: String| {
        let path = options.path.clone().unwrap_or_else(|| PATH.to_owned());
        Receiver { endpoint: Endpoint { path, url, secret }, configuration: None }
    };
    if let Some(url) = options.url.clone() {
        ensure!(url.starts_with("http://"), "{url}: only http:// URLs are supported");
        let secret = own_secret.or(variable);
        return Ok(elsewhere(url, secret.with_context(|| format!("{SECRET_VARIABLE} is not set"))?));
    }
    if let Some(running) = Running::find(&options.running_file)? {
        let mut endpoint = running.choose(options.path.as_deref())?.clone();
        endpoint.secret = own_secret.unwrap_or(endpoint.secret);
        return Ok(Receiver { endpoint, configuration: Some(running.configuration) });
    }
    match variable {
        Some(secret) => {
            let path = options.path.as_deref().unwrap_or(PATH);
            Ok(elsewhere(format!("http://127.0.0.1:10000{path}"), own_secret.unwrap_or(secret)))
        }
        None => bail!("no sandbox is running: start one with `make run` in another terminal"),
    }
}

impl Receiver {
    async fn send(&self, event: Vec<u8>) -> Result<Reply> {
        self.endpoint.send(event).await.with_context(|| {
            format!("nothing takes webhooks at {}: is `make run` still running in another terminal?", self.endpoint.url)
        })
    }

    /// Why the filter answers an event 204, which has no body: the code, and a sentence.
    fn why_ignored(&self, reply: &Reply, event: &[u8]) -> Option<(&'static str, String)> {
        let configuration = self.configuration.as_ref().filter(|_| reply.status == 204)?;
        let reply = decide(configuration.as_bytes(), &self.endpoint.path, event)?.err()?;
        Some((reply.code(), reply.message().into_owned()))
    }

    /// The code in an answer, or behind it.
    fn why(&self, reply: &Reply, event: &[u8]) -> Option<String> {
        let code = reply.json()["code"].as_str().map(str::to_owned);
        code.or_else(|| self.why_ignored(reply, event).map(|(code, _)| code.to_owned()))
    }
}

fn is_delivered(status: u16) -> bool {
    (200..300).contains(&status)
}

async fn send_one(receiver: &Receiver, event: Vec<u8>, id: Option<String>) -> Result<()> {
    let start = Instant::now();
    let reply = receiver.send(event.clone()).await?;
    say!("{} {}   in {}", reply.status, status_text(reply.status), milliseconds(start.elapsed()));
    if !reply.body.is_empty() {
        say!("{}", pretty(&reply.text()));
    } else if let Some((code, message)) = receiver.why_ignored(&reply, &event) {
        say!("{code}: {message}");
    } else if reply.status == 204 {
        say!("Envoy's access log says why, as `outcome`.");
    }
    if let Some(id) = id {
        say!("messageId {id}");
    }
    ensure!(is_delivered(reply.status), "not delivered: Stigg would send it again");
    Ok(())
}

async fn send_many(receiver: Receiver, event: Vec<u8>, count: u32, rate: Option<NonZeroU32>) -> Result<()> {
    let (receiver, places) = (Arc::new(receiver), Arc::new(Semaphore::new(AT_ONCE)));
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len}  {eta} left")?;
    let progress = ProgressBar::new(count.into()).with_style(style);
    let start = Instant::now();
    let mut sending = JoinSet::new();
    let mut answers = Answers::default();
    for number in 0..count {
        let due = rate.map(|rate| start + Duration::from_secs(1) * number / rate.get());
        if let Some(due) = due {
            sleep_until(due).await;
        }
        let place = Arc::clone(&places).acquire_owned().await?;
        let (receiver, event) = (Arc::clone(&receiver), fixtures::with_new_id(&event).0);
        // The time that a webhook waits for its turn counts as latency.
        let start = due.unwrap_or_else(Instant::now);
        sending.spawn(async move {
            let reply = receiver.send(event.clone()).await;
            drop(place);
            let latency = start.elapsed();
            let why = reply.as_ref().ok().and_then(|reply| receiver.why(reply, &event));
            (reply, why, latency)
        });
        while let Some(sent) = sending.try_join_next() {
            let (reply, why, latency) = sent?;
            answers.add(reply, why, latency)?;
            progress.inc(1);
        }
    }
    while let Some(sent) = sending.join_next().await {
        let (reply, why, latency) = sent?;
        answers.add(reply, why, latency)?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    answers.summarize(start.elapsed())
}

/// The answers so far.
#[derive(Debug, Default)]
struct Answers {
    /// How many had this status and code.
    by_status: BTreeMap<(u16, String), usize>,
    latencies: Vec<Duration>,
    errors: Vec<anyhow::Error>,
}

impl Answers {
    fn add(&mut self, reply: Result<Reply>, why: Option<String>, latency: Duration) -> Result<()> {
        match reply {
            Ok(reply) => {
                *self.by_status.entry((reply.status, why.unwrap_or_default())).or_default() += 1;
                self.latencies.push(latency);
            }
            // Nothing listens there: every other request would fail as well.
            Err(error) if self.latencies.is_empty() => return Err(error),
            Err(error) => self.errors.push(error),
        }
        Ok(())
    }

    fn summarize(mut self, took: Duration) -> Result<()> {
        let sent = self.latencies.len() + self.errors.len();
        say!("{sent} webhooks in {:.1} s, {:.0} a second", took.as_secs_f64(), sent as f64 / took.as_secs_f64());
        for ((status, why), count) in &self.by_status {
            say!("{}", format!("{count:>8}  {status} {}  {why}", status_text(*status)).trim_end());
        }
        if let Some(error) = self.errors.first() {
            say!("{:>8}  no answer, the first because {error:#}", self.errors.len());
        }
        self.latencies.sort_unstable();
        if let Some(max) = self.latencies.last() {
            let [p50, p90, p99] = [50, 90, 99].map(|percent| milliseconds(percentile(&self.latencies, percent)));
            say!("latency: p50 {p50}, p90 {p90}, p99 {p99}, max {}", milliseconds(*max));
        }
        let delivered: usize =
            self.by_status.iter().filter(|((status, _), _)| is_delivered(*status)).map(|(_, n)| n).sum();
        ensure!(delivered == sent, "{} not delivered: Stigg would send them again", sent - delivered);
        Ok(())
    }
}

/// The smallest of the sorted values such that at least this share of them is not larger.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<_> = (1..=10).map(Duration::from_secs).collect();
        let seconds = |percent| percentile(&values, percent).as_secs();
        assert_eq!([50, 90, 99, 100].map(seconds), [5, 9, 10, 10]);
        assert_eq!(percentile(&values[..1], 50), values[0]);
    }
}
