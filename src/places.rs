//! Places in an event, and those where Stigg's events have the id of the customer whom they are about
//! (<https://docs.stigg.io/docs/webhooks>). Stigg's published mapping looks at the first of these only.

use crate::path::Path;
use crate::pattern::Pattern;

/// A place where an id or a time can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The path to it.
    pub path: Path,
    /// The types of event that have it there; `None` for all types.
    pub events: Option<Vec<Pattern>>,
    /// The traits of whom the id names: each name, and the path to its value. `None` for the members beside an object's
    /// own id.
    pub traits: Option<Vec<(String, Path)>>,
}

/// A place that some of Stigg's events have.
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

/// All that are known, in the order in which they are looked at.
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
