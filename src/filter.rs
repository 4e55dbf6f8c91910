//! One webhook on its way through the filter: what to do at each step, without doing it.
//!
//! The body is held back until it is complete, by its last byte or by trailers; then it is mapped, once.

use std::rc::Rc;

use crate::config::{Config, Environment};
use crate::headers;
use crate::mapping::Call;
use crate::reply::{Rejection, Reply};
use crate::verify::{SECRET_HEADER, Verdict};

/// Stigg's longest type has 36 bytes.
const EVENT_TYPE_MAX: usize = 64;

/// What the host is to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Hold the request and come back with more of it.
    Wait,
    /// Change the header map, send the headers on, and come back with the body.
    SendHeaders(ToSegment),
    /// Answer the request; it goes no further.
    Reply(Reply),
    /// Change the header map where it is still to be, make the body the call, and send the request on.
    Forward(Option<ToSegment>, Call),
}

/// A request's header map on its way to Segment.
#[derive(Debug, PartialEq, Eq)]
pub struct ToSegment {
    incoming: Vec<u8>,
    environment: Rc<Environment>,
    content_length: Option<String>,
}

impl ToSegment {
    /// What changes: headers to set, and those without a value to remove.
    pub fn changes(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let authorization = self.environment.authorization.as_ref();
        headers::to_segment(&self.incoming, authorization, self.content_length.as_deref())
    }
}

/// The state of one request.
#[derive(Debug)]
pub struct Filter {
    config: Rc<Config>,
    /// What applies to the request's path; nothing until the headers have come.
    environment: Option<Rc<Environment>>,
    /// The header map as it came in, where it is held until the size of the call is known.
    held: Option<Vec<u8>>,
    event_type: Option<Vec<u8>>,
    replied: bool,
}

impl Filter {
    /// Waits for a request's headers.
    pub fn new(config: Rc<Config>) -> Self {
        Filter { config, environment: None, held: None, event_type: None, replied: false }
    }

    /// The headers have come, as a serialized map; with `end_of_stream` nothing follows them. `filter_state` looks up
    /// the host's filter state.
    pub fn headers(
        &mut self,
        map: Vec<u8>,
        end_of_stream: bool,
        filter_state: impl FnOnce(&str) -> Option<Vec<u8>>,
    ) -> Step {
        let environment = match self.check_headers(&map, end_of_stream, filter_state) {
            Ok(environment) => environment,
            Err(rejection) => return self.reject(rejection),
        };
        self.environment = Some(environment.clone());
        if self.config.hold_request_headers {
            self.held = Some(map);
            Step::Wait
        } else {
            Step::SendHeaders(ToSegment { incoming: map, environment, content_length: None })
        }
    }

    /// `size` bytes of the body have come in all, and are held; it is not over.
    pub fn body_so_far(&mut self, size: usize) -> Step {
        match self.environment.as_ref().map(|environment| environment.check_body_size(size)) {
            Some(Err(rejection)) => self.reject(rejection),
            _ => Step::Wait,
        }
    }

    /// The body is complete.
    pub fn complete(&mut self, body: &[u8]) -> Step {
        if self.replied {
            return Step::Wait;
        }
        let Some(environment) = self.environment.clone() else { return self.reject(Rejection::Internal) };
        match self.map(&environment, body) {
            Ok(call) => {
                let content_length = Some(call.size(body.len()).to_string());
                let held = self.held.take();
                Step::Forward(held.map(|incoming| ToSegment { incoming, environment, content_length }), call)
            }
            Err(reply) => self.reply(reply),
        }
    }

    /// Refuses the request, unless it has been answered.
    pub fn reject(&mut self, rejection: Rejection) -> Step {
        self.reply(rejection.into())
    }

    /// The event's `type` as it is written, for the access log: known once the body is complete, and cut short where it
    /// is longer than any type.
    pub fn event_type(&self) -> Option<&[u8]> {
        self.event_type.as_deref()
    }

    fn reply(&mut self, reply: Reply) -> Step {
        // A second answer on one stream hangs the client.
        if std::mem::replace(&mut self.replied, true) { Step::Wait } else { Step::Reply(reply) }
    }

    fn check_headers(
        &self,
        map: &[u8],
        end_of_stream: bool,
        filter_state: impl FnOnce(&str) -> Option<Vec<u8>>,
    ) -> Result<Rc<Environment>, Rejection> {
        let mut path = [].as_slice();
        let mut is_post = false;
        let mut is_encoded = false;
        let mut announced = 0;
        for (name, value) in headers::pairs(map) {
            match name {
                b":path" => path = headers::path(value),
                b":method" => is_post = value == b"POST",
                b"content-encoding" => is_encoded |= !value.trim_ascii().eq_ignore_ascii_case(b"identity"),
                // The host has refused what is no number, so one that does not parse is too large.
                b"content-length" => {
                    announced = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok()).unwrap_or(usize::MAX);
                }
                _ => {}
            }
        }
        let environment = self.config.environment(path).ok_or(Rejection::UnknownPath)?;
        if !is_post {
            return Err(Rejection::Method);
        }
        let presented =
            headers::pairs(map).filter(|(name, _)| *name == SECRET_HEADER.as_bytes()).map(|(_, value)| value);
        match environment.verification.verdict(presented, filter_state) {
            Verdict::Admitted => {}
            Verdict::Refused => return Err(Rejection::Unauthorized),
            Verdict::NoSecret => return Err(Rejection::NoSecret),
        }
        if is_encoded {
            return Err(Rejection::ContentEncoding);
        }
        if end_of_stream {
            return Err(Rejection::Empty);
        }
        environment.check_body_size(announced)?;
        Ok(environment)
    }

    fn map(&mut self, environment: &Environment, body: &[u8]) -> Result<Call, Reply> {
        environment.check_body_size(body.len())?;
        if body.is_empty() {
            return Err(Rejection::Empty.into());
        }
        let event_type = &mut self.event_type;
        let call = environment.mapping.map(body, |kind| {
            *event_type = Some(kind.iter().copied().take(EVENT_TYPE_MAX).collect());
        })?;
        environment.check_event_size(call.size(body.len()))?;
        Ok(call)
    }
}
