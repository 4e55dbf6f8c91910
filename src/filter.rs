//! The rules for one request, step by step. The filter says what to do next and does nothing itself.
//!
//! The body is held until it is complete, by its last byte or by trailers. Then it is mapped, once.

use std::sync::Arc;
use std::time::Duration;

use crate::authorization::NoWriteKey;
use crate::config::{Config, Environment, Shell};
use crate::headers::{Changes, without_query};
use crate::json;
use crate::mapping::Call;
use crate::reply::{Limit, Rejection, Reply};
use crate::secret::Secret;
use crate::verify::{SECRET_HEADER, Verdict};

const SECONDS_PER_DAY: u64 = 86_400;

/// The longest `type` that is logged, in bytes. Stigg's longest has 40.
const EVENT_TYPE_MAX: usize = 64;

/// What the host does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Hold the request until more of it has come.
    Wait,
    /// Change the headers and send them on; hold the body.
    SendHeaders(ToSegment),
    /// Answer the request. It goes no further.
    Reply(Reply),
    /// Make the body the call and send the request on. If the headers are still held, change them first.
    Forward(Option<ToSegment>, Call),
}

/// What makes a webhook's headers those of the request to Segment.
#[derive(Debug, PartialEq, Eq)]
pub struct ToSegment {
    changes: Changes,
    /// `None` if the gateway sets the header.
    authorization: Option<Arc<Secret>>,
    content_length: Option<String>,
    /// Whether a header tells the gateway that the filter has admitted the request.
    admitted: bool,
}

impl ToSegment {
    /// The headers to set, each with its value, and the headers to remove, without one.
    pub fn changes(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.changes.list(self.authorization.as_deref(), self.content_length.as_deref(), self.admitted)
    }
}

/// The state of one request.
#[derive(Debug)]
pub struct Filter {
    config: Arc<Config>,
    /// The environment of the request's path, once the headers have come.
    environment: Option<Arc<Environment>>,
    /// The changes to the headers, while the headers are held.
    held: Option<ToSegment>,
    event_type: Option<Vec<u8>>,
    warning: Option<String>,
    replied: bool,
}

impl Filter {
    /// Waits for a request's headers.
    pub fn new(config: Arc<Config>) -> Self {
        Filter { config, environment: None, held: None, event_type: None, warning: None, replied: false }
    }

    /// The headers have come. With `end_of_stream`, nothing follows them. `filter_state` reads the host's filter state.
    pub fn headers<'a>(
        &mut self,
        headers: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
        end_of_stream: bool,
        filter_state: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Step {
        let (environment, authorization) = match self.check(headers.clone(), end_of_stream, filter_state) {
            Ok(checked) => checked,
            Err(rejection) => return self.reject(rejection),
        };
        self.environment = Some(environment);
        let changes = Changes::to(headers);
        let to_segment = ToSegment { changes, authorization, content_length: None, admitted: true };
        if self.config.hold_request_headers {
            self.held = Some(to_segment);
            Step::Wait
        } else {
            Step::SendHeaders(to_segment)
        }
    }

    /// `size` bytes of the body are held, and more may follow.
    pub fn body_so_far(&mut self, size: usize) -> Step {
        match self.environment.as_ref().map(|environment| check_body_size(environment, size)) {
            Some(Err(rejection)) => self.reject(rejection),
            _ => Step::Wait,
        }
    }

    /// The body is complete. `now` reads the host's clock: the time since 1970.
    pub fn complete(&mut self, body: &[u8], now: impl FnOnce() -> Option<Duration>) -> Step {
        if self.replied {
            return Step::Wait;
        }
        let Some(environment) = self.environment.clone() else { return self.reject(Rejection::Internal) };
        match self.map(&environment, body, now) {
            Ok(call) => {
                let content_length = Some(call.size(body.len()).to_string());
                let admitted = self.config.shell == Shell::Native;
                let held = self.held.take();
                Step::Forward(held.map(|held| ToSegment { content_length, admitted, ..held }), call)
            }
            Err(reply) => self.reply(reply),
        }
    }

    /// Rejects the request, unless it has been answered.
    pub fn reject(&mut self, rejection: Rejection) -> Step {
        self.reply(rejection.into())
    }

    /// The event's `type` as it is written, for the access log. It is known once the body is complete. A type that is
    /// longer than any of Stigg's is cut between two characters.
    pub fn event_type(&self) -> Option<&[u8]> {
        self.event_type.as_deref()
    }

    /// What an operator should know about this request. It is there once.
    pub fn warning(&mut self) -> Option<String> {
        self.warning.take()
    }

    fn reply(&mut self, reply: Reply) -> Step {
        // A second answer on one stream hangs the client.
        if std::mem::replace(&mut self.replied, true) { Step::Wait } else { Step::Reply(reply) }
    }

    fn check<'a>(
        &mut self,
        headers: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
        end_of_stream: bool,
        filter_state: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<(Arc<Environment>, Option<Arc<Secret>>), Rejection> {
        let mut path = [].as_slice();
        let mut is_post = false;
        let mut is_encoded = false;
        let (mut is_upgrade, mut waits) = (false, false);
        let mut announced = 0;
        for (name, value) in headers.clone() {
            match name {
                b":path" => path = without_query(value),
                b":method" => is_post = value == b"POST",
                b"content-encoding" => is_encoded |= !names_no_coding(value.trim_ascii()),
                // A host that handles these itself removes them.
                b"upgrade" => is_upgrade = true,
                b"expect" => waits |= value.eq_ignore_ascii_case(b"100-continue"),
                // The host rejects a value that is not a number. One that does not parse is a number that is too large.
                b"content-length" => {
                    announced = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok()).unwrap_or(usize::MAX);
                }
                _ => {}
            }
        }
        let environment = self.config.environment(path).ok_or(Rejection::UnknownPath)?;
        if !is_post {
            return Err(Rejection::MethodNotAllowed);
        }
        let presented = headers.filter(|(name, _)| *name == SECRET_HEADER.as_bytes()).map(|(_, value)| value);
        match environment.verification.verdict(presented, &filter_state) {
            Verdict::Admitted => {}
            Verdict::Unauthorized => return Err(Rejection::Unauthorized),
            Verdict::NoSecret => return Err(Rejection::SecretUnavailable),
        }
        if is_upgrade {
            return Err(Rejection::UpgradeNotSupported);
        }
        if waits {
            return Err(Rejection::ExpectationFailed);
        }
        if is_encoded {
            return Err(Rejection::UnsupportedContentEncoding);
        }
        if end_of_stream {
            return Err(Rejection::EmptyBody);
        }
        check_body_size(&environment, announced)?;
        match environment.authorization.header(filter_state, &mut self.warning) {
            Ok(authorization) => Ok((environment, authorization)),
            Err(NoWriteKey) => Err(Rejection::WriteKeyUnavailable),
        }
    }

    fn map(
        &mut self,
        environment: &Environment,
        body: &[u8],
        now: impl FnOnce() -> Option<Duration>,
    ) -> Result<Call, Reply> {
        check_body_size(environment, body.len())?;
        if body.is_empty() {
            return Err(Rejection::EmptyBody.into());
        }
        let event_type = &mut self.event_type;
        let see_type = |kind: &[u8]| *event_type = Some(json::start(kind, EVENT_TYPE_MAX).to_vec());
        let day = || now()?.as_secs().checked_div(SECONDS_PER_DAY);
        environment.mapping.map(body, environment.max_call_bytes, see_type, day)
    }
}

/// An empty list of codings names none, like `identity`.
fn names_no_coding(codings: &[u8]) -> bool {
    codings.is_empty() || codings.eq_ignore_ascii_case(b"identity")
}

fn check_body_size(environment: &Environment, size: usize) -> Result<(), Rejection> {
    let limit = environment.max_body_bytes;
    if size > limit { Err(Rejection::BodyTooLarge(Limit(limit))) } else { Ok(()) }
}
