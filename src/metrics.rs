//! What is counted, under which names and labels.

use crate::reply::{Ignored, Rejection, Reply};

/// The table of metrics, all of them counters: name and labels of each. A label without a fixed value takes each value of
/// a list.
macro_rules! metrics {
    ($($(#[$doc:meta])* $metric:ident $(($label:ident in $values:expr))? = $name:literal [$($key:ident: $value:expr),*];)+) => {
        /// A metric.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Metric {
            $($(#[$doc])* $metric $((metrics!(@text $label)))?,)+
        }

        impl Metric {
            /// Every metric.
            pub fn all() -> Vec<Metric> {
                let mut all = Vec::new();
                $(metrics!(@each all $metric $($label in $values)?);)+
                all
            }

            /// Name without the prefix, and labels.
            fn row(self) -> (&'static str, Vec<(&'static str, &'static str)>) {
                match self {
                    $(Metric::$metric $(($label))? => ($name, vec![$((stringify!($key), $value)),*]),)+
                }
            }
        }
    };
    (@text $label:ident) => { &'static str };
    (@each $all:ident $metric:ident) => { $all.push(Metric::$metric) };
    (@each $all:ident $metric:ident $label:ident in $values:expr) => {
        $all.extend($values.iter().map(|value| Metric::$metric(value)))
    };
}

metrics! {
    /// Webhooks that became calls, which the host then sends on.
    Forwarded = "webhooks" [outcome: "forwarded"];
    /// Webhooks of which something left, because the call was too large.
    Trimmed = "trimmed_webhooks" [];
    /// Webhooks that were ignored, by reason.
    Ignored(reason in Ignored::CODES) = "webhooks" [outcome: "ignored", reason: reason];
    /// Webhooks that were rejected, by reason.
    Rejected(reason in Rejection::CODES) = "webhooks" [outcome: "rejected", reason: reason];
}

/// What every metric's name starts with.
const PREFIX: &str = "stigg_segment";

impl Metric {
    /// The metric for an answer of the filter's own.
    pub fn of(reply: Reply) -> Self {
        match reply {
            Reply::Ignored(_) => Metric::Ignored(reply.code()),
            Reply::Rejected(_) => Metric::Rejected(reply.code()),
        }
    }

    /// The name for a host with labels, in the form of Envoy's statistics.
    pub fn family(self) -> String {
        [PREFIX, self.row().0].join(".")
    }

    /// The labels for a host that has them, each with its value.
    pub fn labels(self) -> Vec<(&'static str, &'static str)> {
        self.row().1
    }

    /// The name for a host without labels, which has them in its name as `.label.value`. The `stats_tags` of
    /// `envoy.yaml` turn them into labels again.
    pub fn name(self) -> String {
        let labels = self.labels().into_iter().flat_map(|(label, value)| [".", label, ".", value]);
        self.family() + &labels.collect::<String>()
    }
}

/// What the host knows each metric by. A metric that the host did not take is missing and is not counted.
#[derive(Debug)]
pub struct Registry<Id>(Vec<(Metric, Id)>);

impl<Id> Default for Registry<Id> {
    fn default() -> Self {
        Registry(Vec::new())
    }
}

impl<Id> Registry<Id> {
    /// Defines every metric with a host.
    pub fn new(mut define: impl FnMut(Metric) -> Option<Id>) -> Self {
        Registry(Metric::all().into_iter().filter_map(|metric| Some((metric, define(metric)?))).collect())
    }

    /// What the host knows a metric by.
    pub fn id(&self, metric: Metric) -> Option<&Id> {
        self.0.iter().find(|(known, _)| *known == metric).map(|(_, id)| id)
    }
}
