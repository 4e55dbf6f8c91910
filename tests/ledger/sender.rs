//! A sender that behaves like Stigg, on a faster clock.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use sandbox::stigg::Webhook;
use tests::edge::{Connection, PATH, SECRET, post, request};
use tokio::time::{sleep, timeout};

use super::event::{self, Event};

/// How many times faster the clock of this test runs.
pub const HASTE: u32 = 30;

/// How long Stigg waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(30).checked_div(HASTE).unwrap();
/// How often Stigg delivers again at once,
const RETRIES_AT_ONCE: usize = 3;
/// how often it does so later,
const RETRIES_LATER: usize = 3;
/// and how long it waits between these.
const PAUSE: Duration = Duration::from_secs(30).checked_div(HASTE).unwrap();
/// How often Stigg sends an event that always fails.
pub const ATTEMPTS: usize = 1 + RETRIES_AT_ONCE + RETRIES_LATER;

/// The result of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attempt {
    /// An answer with this status.
    Answered(u16),
    /// No connection, or one that ended before the answer.
    Broken,
    /// No answer in time.
    TimedOut,
}

impl Attempt {
    /// Whether Stigg counts the event as delivered.
    pub fn delivers(self) -> bool {
        matches!(self, Attempt::Answered(200..=299))
    }
}

/// Whether Stigg counts an event as delivered after these attempts; otherwise it shows it as failed.
pub fn delivered(attempts: &[Attempt]) -> bool {
    attempts.last().is_some_and(|attempt| attempt.delivers())
}

/// Sends one event at a time, on one connection until that ends.
pub struct Sender {
    receiver: SocketAddr,
    connection: Option<Connection>,
    /// Connections opened so far.
    pub connections: usize,
}

impl Sender {
    /// Sends to this address.
    pub fn new(receiver: SocketAddr) -> Self {
        Sender { receiver, connection: None, connections: 0 }
    }

    /// Delivers an event, or fails as often as Stigg tries. Only the last attempt can have delivered it.
    pub async fn deliver(&mut self, event: &Event) -> Vec<Attempt> {
        let mut attempts = Vec::with_capacity(1);
        for attempt in 0..ATTEMPTS {
            if attempt > RETRIES_AT_ONCE {
                sleep(PAUSE).await;
            }
            let outcome = self.attempt(event).await;
            attempts.push(outcome);
            if outcome.delivers() {
                break;
            }
        }
        attempts
    }

    async fn attempt(&mut self, event: &Event) -> Attempt {
        match timeout(TIMEOUT, self.send(event)).await {
            Ok(Ok(status)) => Attempt::Answered(status),
            Ok(Err(_)) => Attempt::Broken,
            Err(_) => Attempt::TimedOut,
        }
    }

    async fn send(&mut self, event: &Event) -> Result<u16> {
        let turn = event::shared(event.number) % 8;
        if turn == 1 {
            self.connections += 1;
            let webhook = Webhook::new(event.body.clone()).http2().secret(SECRET);
            return Ok(webhook.send(&format!("http://{}{}", self.receiver, event.path())).await?.status);
        }
        // Taken, so that it does not outlive an error or a timeout.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                self.connections += 1;
                Connection::open(self.receiver).await?
            }
        };
        let request = match turn {
            2 => post_in_chunks(&event.body),
            _ => post(&event.body),
        };
        connection.send(request.replacen(PATH, event.path(), 1)).await?;
        let response = connection.response().await?;
        if !response.head.contains("connection: close") {
            self.connection = Some(connection);
        }
        Ok(response.status)
    }
}

/// The POST of a body in chunks that end where its words do.
fn post_in_chunks(body: &str) -> String {
    let chunks: String = body
        .split_inclusive(' ')
        .map(|word| format!("{:x}\r\n{word}\r\n", word.len()))
        .chain(["0\r\n\r\n".to_owned()])
        .collect();
    request("POST", "transfer-encoding: chunked\r\n", &chunks)
}
