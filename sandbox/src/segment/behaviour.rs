//! How the stand-in treats a call: as Segment does, or as Segment does when it fails.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Call;

/// How the stand-in treats a call after reading it completely.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// Checks the call and answers as Segment does; the event is accepted if the answer is 200.
    #[default]
    Accept,
    /// Gives the same answer to every call.
    Answer {
        /// The status code.
        status: u16,
        /// Headers of the answer, besides its length.
        headers: Vec<(String, String)>,
        /// The answer's body.
        body: String,
        /// Whether the event is accepted.
        accept: bool,
    },
    /// Waits first. If the caller disconnects meanwhile, the call has no status and its event is not accepted.
    Delay(Duration, Box<Behaviour>),
    /// Drops the event and resets the TCP connection instead of answering.
    ResetBeforeAccept,
    /// Accepts the event and resets the TCP connection instead of answering, so that the caller cannot know.
    ResetAfterAccept,
}

impl Behaviour {
    /// Answers with this status, and accepts the event if it is a 2xx.
    pub fn status(status: u16) -> Self {
        let accept = (200..300).contains(&status);
        Self::Answer { status, headers: Vec::new(), body: format!(r#"{{"success":{accept}}}"#), accept }
    }

    /// Answers 429 as Segment does above its rate limit: both headers are in seconds.
    pub fn too_many_requests(retry_after_secs: u64) -> Self {
        Self::status(429)
            .with_header("retry-after", retry_after_secs.to_string())
            .with_header("x-ratelimit-reset", retry_after_secs.to_string())
    }

    /// Does the same after a delay.
    pub fn after(self, delay: Duration) -> Self {
        Self::Delay(delay, Box::new(self))
    }

    /// Adds a header to an answer. Behaviours that do not answer stay unchanged.
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.push((name.into(), value.into()));
        }
        self
    }
}

type Decide = dyn Fn(&Call) -> Behaviour + Send + Sync;

/// Which behaviour each call gets.
pub(super) struct Plan {
    script: Mutex<VecDeque<Behaviour>>,
    default: Mutex<Arc<Decide>>,
}

impl Default for Plan {
    fn default() -> Self {
        Self { script: Mutex::default(), default: Mutex::new(Arc::new(|_| Behaviour::Accept)) }
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("script", &self.script).finish_non_exhaustive()
    }
}

impl Plan {
    pub(super) fn set_default(&self, decide: Box<Decide>) {
        *self.default.lock().unwrap() = Arc::from(decide);
    }

    pub(super) fn extend_script(&self, behaviours: impl IntoIterator<Item = Behaviour>) {
        self.script.lock().unwrap().extend(behaviours);
    }

    pub(super) fn next(&self, call: &Call) -> Behaviour {
        if let Some(behaviour) = self.script.lock().unwrap().pop_front() {
            return behaviour;
        }
        // Decided outside the lock, because a test's closure may take long, or panic.
        let decide = Arc::clone(&self.default.lock().unwrap());
        decide(call)
    }
}
