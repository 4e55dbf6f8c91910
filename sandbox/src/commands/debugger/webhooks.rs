//! Every webhook that Envoy took, from three sources: Envoy's access log says how it ended, Envoy's tap has both bodies,
//! the stand-in for Segment has the calls. The id that Envoy gave the request joins them.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sandbox::envoy::{Access, Exchange};
use sandbox::segment::Call;
use sandbox::stigg::{PATH, status_text};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::broadcast;

use crate::commands::decision::{decide, under};
use crate::commands::difference::{self, Difference, Properties, Row};
use crate::commands::endpoint::Running;
use crate::commands::pretty::pretty;

/// How many webhooks are remembered.
const REMEMBERED: usize = 1000;

/// What the access log says of an answer from Segment.
const BY_SEGMENT: &str = "via_upstream";

/// How many rows of one webhook are shown: more would only make the browser slow.
const ROWS: usize = 4000;

/// The last webhooks, in the order in which they were first seen.
#[derive(Debug)]
pub struct Webhooks {
    /// The filter's configuration.
    configuration: String,
    /// Whether it has several environments.
    has_environments: bool,
    known: Mutex<VecDeque<Webhook>>,
    changed: broadcast::Sender<Summary>,
}

/// The parts of one webhook that are known so far.
#[derive(Debug, Clone, Default)]
struct Webhook {
    id: String,
    access: Option<Access>,
    exchange: Option<Exchange>,
    calls: Vec<Call>,
}

/// A webhook in one line.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The id that Envoy gave the request, or one that starts with `none-` if Envoy gave none.
    id: String,
    time: String,
    event_type: Option<String>,
    /// The path that it was sent to, if that tells environments apart.
    environment: Option<String>,
    outcome: Outcome,
    reason: String,
    status: u16,
    status_text: &'static str,
    duration_ms: u64,
}

/// How a webhook ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// Segment accepted it.
    Forwarded,
    /// It was answered 2xx and not sent.
    Ignored,
    /// It was rejected.
    Rejected,
    /// It was sent, or should have been, and Segment did not accept it.
    Failed,
}

/// The details of a webhook.
#[derive(Debug, Serialize)]
pub struct Detail {
    #[serde(flatten)]
    summary: Summary,
    bytes: u64,
    attempts: u32,
    segment_ms: Option<u64>,
    /// The answer's body, for people.
    answer: String,
    /// Why there is no call, for people.
    sentence: Option<String>,
    /// The event, with the call beside it; `None` if the body was not read.
    rows: Option<Vec<Row>>,
    /// How many more rows there are.
    hidden: usize,
    /// Where the call was sent.
    path: Option<String>,
    properties: Option<Properties>,
}

impl Webhooks {
    /// An empty list, for this sandbox.
    pub fn new(running: &Running) -> Self {
        Self {
            configuration: running.configuration.clone(),
            has_environments: running.endpoints.len() > 1,
            known: Mutex::default(),
            changed: broadcast::Sender::new(REMEMBERED),
        }
    }

    /// Adds how a webhook ended.
    pub fn ended(&self, access: Access) {
        let id = access.request_id.clone().unwrap_or_else(|| format!("none-{:016x}", fastrand::u64(..)));
        self.learn(&id, |webhook| webhook.access = Some(access));
    }

    /// Adds the bodies of a request and its answer.
    pub fn said(&self, exchange: Exchange) {
        self.learn(&exchange.request_id.clone(), |webhook| webhook.exchange = Some(exchange));
    }

    /// Adds a call to Segment.
    pub fn sent(&self, call: Call) {
        if let Some(id) = call.header("x-request-id").map(str::to_owned) {
            self.learn(&id, |webhook| webhook.calls.push(call));
        }
    }

    /// All webhooks that have ended, and the changes from then on.
    pub fn watch(&self) -> (Vec<Summary>, broadcast::Receiver<Summary>) {
        let known = self.known();
        (known.iter().filter_map(|webhook| self.summary(webhook)).collect(), self.changed.subscribe())
    }

    /// The details of one webhook.
    pub fn detail(&self, id: &str) -> Option<Detail> {
        // A copy, because explaining it may take long and would block others.
        let webhook = self.known().iter().find(|webhook| webhook.id == id)?.clone();
        webhook.detail(self.summary(&webhook)?, &self.configuration)
    }

    /// The event of a webhook, byte for byte, if its body was seen, and the path that it was sent to.
    pub fn event(&self, id: &str) -> Option<(Vec<u8>, String)> {
        let known = self.known();
        let webhook = known.iter().find(|webhook| webhook.id == id)?;
        let body = webhook.exchange.as_ref()?.request.as_ref()?;
        Some((body.to_vec(), webhook.path().to_owned()))
    }

    fn summary(&self, webhook: &Webhook) -> Option<Summary> {
        let environment = self.has_environments.then(|| webhook.environment()).flatten();
        Some(Summary { environment: environment.map(str::to_owned), ..webhook.summary()? })
    }

    fn learn(&self, id: &str, learn: impl FnOnce(&mut Webhook)) {
        let mut known = self.known();
        // From the end: most updates are about the newest webhooks.
        let position = known.iter().rposition(|webhook| webhook.id == id).unwrap_or_else(|| {
            if known.len() == REMEMBERED {
                known.pop_front();
            }
            known.push_back(Webhook { id: id.to_owned(), ..Webhook::default() });
            known.len() - 1
        });
        learn(&mut known[position]);
        if let Some(summary) = self.summary(&known[position]) {
            let _ = self.changed.send(summary); // it fails if nobody is watching
        }
    }

    fn known(&self) -> MutexGuard<'_, VecDeque<Webhook>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Webhook {
    /// The path of its environment. The sandbox names an environment's routes after its path.
    fn environment(&self) -> Option<&str> {
        self.access.as_ref()?.route.as_deref().filter(|route| route.starts_with('/'))
    }

    fn path(&self) -> &str {
        self.environment().unwrap_or(PATH)
    }

    fn summary(&self) -> Option<Summary> {
        let access = self.access.as_ref()?;
        let detail = access.outcome.as_deref().unwrap_or_default();
        let by_filter = detail.strip_prefix("stigg_segment_");
        let outcome = match access.status {
            200..300 if by_filter.is_some() => Outcome::Ignored,
            200..300 => Outcome::Forwarded,
            400..500 if detail != BY_SEGMENT => Outcome::Rejected,
            _ => Outcome::Failed,
        };
        Some(Summary {
            id: self.id.clone(),
            time: access.time.clone(),
            event_type: access.event_type.clone(),
            environment: None,
            outcome,
            reason: by_filter.map_or_else(|| self.reason_of_envoy(access, detail), str::to_owned),
            status: access.status,
            status_text: status_text(access.status),
            duration_ms: access.duration_ms,
        })
    }

    /// Why it was answered so, if not by the filter: in the words of `envoy.yaml`, where it has some.
    fn reason_of_envoy(&self, access: &Access, detail: &str) -> String {
        if detail == BY_SEGMENT {
            return "Segment's answer".to_owned();
        }
        // Each route with an answer is named after the code in the answer.
        let route = access.route.as_ref().filter(|_| detail == "direct_response");
        let answer = self.exchange.as_ref().and_then(|exchange| exchange.response.as_ref());
        let code = || serde_json::from_slice::<Value>(answer?).ok()?["code"].as_str().map(str::to_owned);
        route.cloned().or_else(code).unwrap_or_else(|| detail.to_owned())
    }

    fn detail(&self, summary: Summary, configuration: &str) -> Option<Detail> {
        let access = self.access.as_ref()?;
        let event = self.exchange.as_ref().and_then(|exchange| exchange.request.as_ref()).map(text);
        // With several attempts, the last one decided.
        let call = self.calls.last();
        let call_text = call.map(|call| text(&call.body));
        let decision = event.as_ref().and_then(|event| decide(configuration.as_bytes(), self.path(), event.as_bytes()));
        let under = under(configuration.as_bytes(), self.path());
        let compared = event.as_deref().zip(call_text.as_deref());
        let (mut rows, properties) =
            match compared.and_then(|(event, call)| Difference::between(event, call, under.as_deref())) {
                Some(mut difference) => {
                    for (field, origin) in decision.iter().flatten().flatten() {
                        difference.explain(field, origin.clone());
                    }
                    (Some(difference.rows), Some(difference.properties))
                }
                None => (event.map(|event| difference::event_alone(&event)), None),
            };
        let hidden = rows.as_ref().map_or(0, |rows| rows.len().saturating_sub(ROWS));
        rows.iter_mut().for_each(|rows| rows.truncate(ROWS));
        // The answer to a rejected webhook says why.
        let ignored = decision.and_then(Result::err).filter(|_| summary.outcome == Outcome::Ignored);
        let answer = self.exchange.as_ref().and_then(|exchange| exchange.response.as_ref());
        Some(Detail {
            bytes: access.bytes_in,
            attempts: access.attempts,
            segment_ms: access.segment_ms,
            answer: answer.map(|body| pretty(&text(body))).unwrap_or_default(),
            sentence: ignored.map(|reply| reply.message().into_owned()),
            rows,
            hidden,
            path: call.map(|call| call.path.clone()),
            properties,
            summary,
        })
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
