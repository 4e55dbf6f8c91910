//! The events of the benchmark, and their sizes.

use sandbox::synthetic;
use serde::{Deserialize, Serialize};

/// 1 KiB, in bytes.
pub const KIB: usize = 1024;

/// An event of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its size, in bytes.
    pub bytes: usize,
    /// Whether it is about a customer, and is sent to Segment.
    pub customer: bool,
}

impl Event {
    /// The body of the webhook.
    pub fn body(self) -> String {
        synthetic::event(self.bytes, self.customer.then_some("acme"))
    }
}

/// The events that all variants get.
pub const EVENTS: [Event; 5] = [
    Event { bytes: KIB / 2, customer: true },
    Event { bytes: 2 * KIB, customer: true },
    Event { bytes: 16 * KIB, customer: true },
    Event { bytes: 31 * KIB, customer: true },
    Event { bytes: 2 * KIB, customer: false },
];

/// Events that show how the cost grows.
pub const GROWTH: [Event; 3] = [
    Event { bytes: 4 * KIB, customer: true },
    Event { bytes: 8 * KIB, customer: true },
    Event { bytes: 24 * KIB, customer: true },
];

/// The size that most events have.
pub const TYPICAL: Event = EVENTS[1];
