//! Records every call and how it ended.

use std::ops::{Deref, DerefMut};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use anyhow::{Result, anyhow};
use bytes::Bytes;
use hyper::{HeaderMap, Method, Version};
use serde_json::Value;
use tokio::sync::{broadcast, watch};

use super::Recording;

/// One call as it arrived, and how it ended.
#[derive(Debug, Clone)]
pub struct Call {
    /// When it had arrived completely.
    pub arrived: SystemTime,
    /// The request's method.
    pub method: Method,
    /// The request's path, with the query if there is one.
    pub path: String,
    /// The requested host: HTTP/2's `:authority`, or HTTP/1.1's `Host`.
    pub host: Option<String>,
    /// The host name in the TLS handshake.
    pub sni: Option<String>,
    /// The protocol.
    pub version: Version,
    /// The request's headers.
    pub headers: HeaderMap,
    /// The request's body, byte for byte.
    pub body: Bytes,
    /// The trailers after the body.
    pub trailers: HeaderMap,
    /// The user name of Basic authentication; `None` if the header is missing or unreadable.
    pub write_key: Option<String>,
    /// The status of the answer; `None` if the connection was reset or the caller disconnected first.
    pub status: Option<u16>,
    /// Whether the event was accepted, answered or not.
    pub accepted: bool,
}

impl Call {
    /// The body read as JSON; null if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A request header as text; `None` if it is missing or not text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Every call so far. A call is recorded when it ends; the calls are sorted by arrival.
#[derive(Debug)]
pub(super) struct Ledger {
    recording: Recording,
    connections: AtomicUsize,
    unencrypted: AtomicUsize,
    requests_begun: AtomicUsize,
    accepted: AtomicUsize,
    arrived: AtomicUsize,
    entries: Mutex<Entries>,
    len: watch::Sender<usize>,
    ended: broadcast::Sender<Call>,
}

#[derive(Debug, Default)]
struct Entries {
    /// The calls, each with its number of arrival, sorted by it.
    calls: Vec<(usize, Call)>,
    /// Calls that arrived before this number were cleared.
    first: usize,
}

impl Ledger {
    pub(super) fn new(recording: Recording) -> Self {
        Self {
            recording,
            connections: AtomicUsize::new(0),
            unencrypted: AtomicUsize::new(0),
            requests_begun: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            arrived: AtomicUsize::new(0),
            entries: Mutex::default(),
            len: watch::Sender::new(0),
            ended: broadcast::Sender::new(1024),
        }
    }

    pub(super) fn connection_taken(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    pub(super) fn connection_is_unencrypted(&self) {
        self.unencrypted.fetch_add(1, Relaxed);
    }

    pub(super) fn request_begun(&self) {
        self.requests_begun.fetch_add(1, Relaxed);
    }

    /// Numbers a call on arrival. Dropping the returned value records the call.
    pub(super) fn arrival(&self, call: Call) -> Pending<'_> {
        Pending { ledger: self, turn: self.arrived.fetch_add(1, Relaxed), call: Some(call) }
    }

    fn enter(&self, turn: usize, call: Call) {
        let mut entries = self.entries.lock().unwrap();
        if turn < entries.first {
            return;
        }
        if call.accepted {
            self.accepted.fetch_add(1, Relaxed);
        }
        if self.recording == Recording::Off {
            return;
        }
        if self.ended.receiver_count() > 0 {
            // It fails if no receiver is left, which is fine.
            let _ = self.ended.send(call.clone());
        }
        let position = entries.calls.partition_point(|(other, _)| *other < turn);
        entries.calls.insert(position, (turn, call));
        self.len.send_replace(entries.calls.len());
    }

    pub(super) fn clear(&self) {
        let mut entries = self.entries.lock().unwrap();
        entries.calls.clear();
        entries.first = self.arrived.load(Relaxed);
        for counter in [&self.connections, &self.unencrypted, &self.requests_begun, &self.accepted] {
            counter.store(0, Relaxed);
        }
        self.len.send_replace(0);
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.entries.lock().unwrap().calls.iter().map(|(_, call)| call.clone()).collect()
    }

    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Relaxed)
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    pub(super) fn unencrypted(&self) -> usize {
        self.unencrypted.load(Relaxed)
    }

    pub(super) fn requests_begun(&self) -> usize {
        self.requests_begun.load(Relaxed)
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<Call> {
        self.ended.subscribe()
    }

    pub(super) async fn wait_for(&self, calls: usize, timeout: Duration) -> Result<Vec<Call>> {
        let mut len = self.len.subscribe();
        let enough = tokio::time::timeout(timeout, len.wait_for(|len| *len >= calls)).await.is_ok();
        let seen = self.calls();
        if enough { Ok(seen) } else { Err(anyhow!("{} of {calls} calls within {timeout:?}: {seen:#?}", seen.len())) }
    }
}

/// A call that has arrived and has not ended. Dropping it records the call in its current state, also if the caller has
/// disconnected and gets no answer.
pub(super) struct Pending<'a> {
    ledger: &'a Ledger,
    turn: usize,
    call: Option<Call>,
}

impl Deref for Pending<'_> {
    type Target = Call;

    fn deref(&self) -> &Call {
        self.call.as_ref().expect("only dropping takes it")
    }
}

impl DerefMut for Pending<'_> {
    fn deref_mut(&mut self) -> &mut Call {
        self.call.as_mut().expect("only dropping takes it")
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            self.ledger.enter(self.turn, call);
        }
    }
}
