//! What is counted, and by which names.
//!
//! proxy-wasm knows no labels, so a metric's name carries them as `.label.value`; the `stats_tags` of `envoy.yaml` turn
//! them into labels for Prometheus.

use crate::reply::{Ignored, Rejection, Reply};

/// Something that is counted, or measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Webhooks that were sent on to Segment.
    Forwarded,
    /// Webhooks that were ignored for this reason.
    Ignored(&'static str),
    /// Webhooks that were rejected for this reason.
    Rejected(&'static str),
    /// Segment's answers by the first digit of their status, after Envoy's retries.
    SegmentAnswers(u8),
    /// The size of each body that was looked into, in bytes.
    BodyBytes,
}

impl From<Reply> for Metric {
    fn from(reply: Reply) -> Self {
        match reply {
            Reply::Ignored(_) => Metric::Ignored(reply.code()),
            Reply::Rejected(_) => Metric::Rejected(reply.code()),
        }
    }
}

/// How a metric adds up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Goes up by one each time.
    Counter,
    /// Keeps how often each range of values occurred.
    Histogram,
}

impl Metric {
    /// Every metric there is.
    pub fn all() -> impl Iterator<Item = Metric> {
        [Metric::Forwarded, Metric::BodyBytes]
            .into_iter()
            .chain(Ignored::CODES.iter().copied().map(Metric::Ignored))
            .chain(Rejection::CODES.iter().copied().map(Metric::Rejected))
            .chain((1..=5).map(Metric::SegmentAnswers))
    }

    /// What it is called, labels included.
    pub fn name(self) -> String {
        let rest = match self {
            Metric::Forwarded => "webhooks.outcome.forwarded",
            Metric::Ignored(code) => &format!("webhooks.outcome.ignored.reason.{code}"),
            Metric::Rejected(code) => &format!("webhooks.outcome.rejected.reason.{code}"),
            Metric::SegmentAnswers(class) => &format!("segment_answers.class.{class}xx"),
            Metric::BodyBytes => "body_bytes",
        };
        format!("stigg_segment.{rest}")
    }

    /// How it adds up.
    pub fn kind(self) -> Kind {
        match self {
            Metric::BodyBytes => Kind::Histogram,
            _ => Kind::Counter,
        }
    }
}

/// The numbers by which a host knows the metrics. One that it would not take is missing, and is not counted.
#[derive(Debug, Default)]
pub struct Registry(Vec<(Metric, u32)>);

impl Registry {
    /// Registers every metric with a host.
    pub fn new(mut define: impl FnMut(Kind, &str) -> Option<u32>) -> Self {
        Registry(Metric::all().filter_map(|metric| Some((metric, define(metric.kind(), &metric.name())?))).collect())
    }

    /// The host's number for a metric.
    pub fn id(&self, metric: Metric) -> Option<u32> {
        self.0.iter().find(|(known, _)| *known == metric).map(|(_, id)| *id)
    }
}
