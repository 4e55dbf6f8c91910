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

use super::endpoint::{self, Endpoint};
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

fn receiver(options: &Options) -> Result<Endpoint> {
    let variable = std::env::var(SECRET_VARIABLE).ok().filter(|secret| !secret.is_empty());
    let own_secret = options.secret.clone();
    if let Some(url) = options.url.clone() {
        ensure!(url.starts_with("http://"), "{url}: only http:// URLs are supported");
        let secret = own_secret.or(variable);
        return Ok(Endpoint { url, secret: secret.with_context(|| format!("{SECRET_VARIABLE} is not set"))? });
    }
    let found = match Endpoint::find(&options.running_file)? {
        Some(running) => running,
        None => match variable {
            Some(secret) => Endpoint { url: format!("http://127.0.0.1:10000{PATH}"), secret },
            None => bail!("no sandbox is running: start one with `make run` in another terminal"),
        },
    };
    Ok(Endpoint { secret: own_secret.unwrap_or(found.secret), ..found })
}

async fn attempt(receiver: &Endpoint, event: Vec<u8>) -> Result<Reply> {
    receiver.send(event).await.with_context(|| {
        format!("nothing takes webhooks at {}: is `make run` still running in another terminal?", receiver.url)
    })
}

fn is_delivered(status: u16) -> bool {
    (200..300).contains(&status)
}

async fn send_one(receiver: &Endpoint, event: Vec<u8>, id: Option<String>) -> Result<()> {
    let start = Instant::now();
    let reply = attempt(receiver, event).await?;
    say!("{} {}   in {}", reply.status, status_text(reply.status), milliseconds(start.elapsed()));
    if !reply.body.is_empty() {
        say!("{}", pretty(&reply.text()));
    }
    if let Some(id) = id {
        say!("messageId {id}");
    }
    ensure!(is_delivered(reply.status), "not delivered: Stigg would send it again");
    Ok(())
}

async fn send_many(receiver: Endpoint, event: Vec<u8>, count: u32, rate: Option<NonZeroU32>) -> Result<()> {
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
            let reply = attempt(&receiver, event).await;
            drop(place);
            (reply, start.elapsed())
        });
        while let Some(sent) = sending.try_join_next() {
            let (reply, latency) = sent?;
            answers.add(reply, latency)?;
            progress.inc(1);
        }
    }
    while let Some(sent) = sending.join_next().await {
        let (reply, latency) = sent?;
        answers.add(reply, latency)?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    answers.summarize(start.elapsed())
}

/// The answers so far.
#[derive(Debug, Default)]
struct Answers {
    by_status: BTreeMap<u16, usize>,
    latencies: Vec<Duration>,
    errors: Vec<anyhow::Error>,
}

impl Answers {
    fn add(&mut self, reply: Result<Reply>, latency: Duration) -> Result<()> {
        match reply {
            Ok(reply) => {
                *self.by_status.entry(reply.status).or_default() += 1;
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
        for (status, count) in &self.by_status {
            say!("{count:>8}  {status} {}", status_text(*status));
        }
        if let Some(error) = self.errors.first() {
            say!("{:>8}  no answer, the first because {error:#}", self.errors.len());
        }
        self.latencies.sort_unstable();
        if let Some(max) = self.latencies.last() {
            let [p50, p90, p99] = [50, 90, 99].map(|percent| milliseconds(percentile(&self.latencies, percent)));
            say!("latency: p50 {p50}, p90 {p90}, p99 {p99}, max {}", milliseconds(*max));
        }
        let delivered: usize = self.by_status.iter().filter(|(status, _)| is_delivered(**status)).map(|(_, n)| n).sum();
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
