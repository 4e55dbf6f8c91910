//! What the stand-in does with a call: as Segment does, or one of Segment's bad days.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Call;

/// What the stand-in does with a call once it has read it whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// Checks the call and answers as Segment does; the event is kept if the answer is 200.
    #[default]
    Accept,
    /// Answers this, whatever the call.
    Answer {
        /// The status code.
        status: u16,
        /// Headers of the answer, besides its length.
        headers: Vec<(String, String)>,
        /// The answer's body.
        body: String,
        /// Whether the event is kept nevertheless.
        accept: bool,
    },
    /// Waits first. A caller that leaves meanwhile leaves behind a call without a status whose event is not kept.
    Delay(Duration, Box<Behaviour>),
    /// Loses the event and resets the TCP connection instead of answering.
    ResetBeforeAccept,
    /// Keeps the event and resets the TCP connection instead of answering, so that the caller cannot know.
    ResetAfterAccept,
}

impl Behaviour {
    /// Answers with this status, and keeps the event if it is a 2xx.
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

    /// Does the same, later.
    pub fn after(self, delay: Duration) -> Self {
        Self::Delay(delay, Box::new(self))
    }

    /// Adds a header to an answer. Other behaviours have none to add it to and stay as they are.
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.push((name.into(), value.into()));
        }
        self
    }
}

type Decide = dyn Fn(&Call) -> Behaviour + Send + Sync;

/// Which behaviour is whose turn.
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
        // Decided outside the lock: a test's closure may take its time, or panic.
        let decide = Arc::clone(&self.default.lock().unwrap());
        decide(call)
    }
}
