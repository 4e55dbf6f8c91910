//! Where Stigg's events have the id of the customer whom they are about
//! (<https://docs.stigg.io/docs/webhooks>). Its published mapping looks at the first of these places only.

use crate::mapping::Place;
use crate::path::Path;
use crate::pattern::Pattern;

/// A place that some events have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The keys that lead to it.
    keys: &'static [&'static str],
    /// Only these types of event have a customer's id there; `None` if all that have something there do.
    pub events: Option<&'static str>,
    /// The path, for people.
    pub path: &'static str,
    /// The events that need it, for people.
    pub needed_by: &'static [&'static str],
}

/// All of them, in the order in which they are looked at.
pub const KNOWN: [Known; 4] = [
    Known { keys: &["customer", "id"], events: None, path: "customer.id", needed_by: &[] },
    Known {
        keys: &["customerId"],
        events: None,
        path: "customerId",
        needed_by: &["automatic_recharge.*", "credit_grant.*", "credits.*"],
    },
    Known {
        keys: &["input", "customerId"],
        events: None,
        path: "input.customerId",
        needed_by: &["subscription.create_failed"],
    },
    Known {
        keys: &["id"],
        events: Some("customer.*"),
        path: "id",
        needed_by: &["customer.created", "customer.updated", "customer.deleted"],
    },
];

impl Known {
    /// The place, as a configuration would name it.
    pub fn place(&self) -> Place {
        Place {
            path: Path::of(self.keys.iter().copied()),
            events: self.events.map(|pattern| vec![Pattern::new(pattern)]),
            traits: None,
        }
    }
}
