//! One request on a host: it asks the [`Filter`] what to do, and does it by the calls of a [`Host`].
//!
//! All shells share this file, so the order of the calls, and what happens if one fails, is the same everywhere.

use std::sync::Arc;

use crate::config::Config;
use crate::filter::{Filter, Step, ToSegment};
use crate::host::{Failed, Headers, Host};
use crate::mapping::Call;
use crate::metrics::Metric;
use crate::reply::{Rejection, Reply};

/// The property that tells the access log the event's type; `envoy.yaml` logs it.
const EVENT_TYPE: &str = "stigg_event";

/// The property of a request that has become a call. The route to Segment matches on it, so that nothing else has a
/// route there.
const MAPPED: (&str, &[u8]) = ("stigg_mapped", b"true");

/// Envoy's details of an answer that Segment gave.
const SEGMENTS: &[u8] = b"via_upstream";

/// Envoy's details of answers to calls that it did not send: over its rate limit, and without a write key.
const NOT_SENT: [&[u8]; 2] = [b"local_rate_limited", b"failed_to_inject_credential"];

/// Whether the host goes on with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It goes on.
    Continue,
    /// It holds what it has.
    Pause,
}

/// The state of one request.
#[derive(Debug)]
pub struct Stream {
    /// `None` if there was no configuration: then every request is rejected.
    filter: Option<Filter>,
    /// How much of the body has come, in bytes. The trailers callback has no other way to know.
    body_size: usize,
    /// Whether the host has been given a call to send.
    forwarded: bool,
}

impl Stream {
    /// Waits for a request's headers.
    pub fn new(config: Option<Arc<Config>>) -> Self {
        Stream { filter: config.map(Filter::new), body_size: 0, forwarded: false }
    }

    /// The request's headers have come. With `end_of_stream`, nothing follows them.
    pub fn on_request_headers(&mut self, host: &mut impl Host, end_of_stream: bool) -> Action {
        let step = match (&mut self.filter, host.request_headers()) {
            (Some(filter), Ok(headers)) => filter.headers(headers.pairs(), end_of_stream, |key| host.filter_state(key)),
            (Some(filter), Err(Failed)) => filter.reject(Rejection::Internal),
            (None, _) => Step::Reply(Rejection::Internal.into()),
        };
        self.perform(host, step)
    }

    /// More of the body has come: `size` bytes in all.
    pub fn on_request_body(&mut self, host: &mut impl Host, size: usize, end_of_stream: bool) -> Action {
        self.body_size = size;
        if end_of_stream {
            return self.complete(host);
        }
        let step = self.filter.as_mut().map_or(Step::Wait, |filter| filter.body_so_far(size));
        self.perform(host, step)
    }

    /// The request's trailers have come. The body callback has not been told the end then.
    pub fn on_request_trailers(&mut self, host: &mut impl Host) -> Action {
        let action = self.complete(host);
        if action == Action::Continue && host.remove_request_trailers().is_err() {
            return self.fail(host);
        }
        action
    }

    /// The response's headers have come. Only now it is known whether the call was sent, and who answers.
    pub fn on_response_headers(&mut self, host: &mut impl Host) {
        if !self.forwarded {
            return;
        }
        // A host without details has no rate limit after the filter.
        let details = host.response_details();
        let details = details.as_deref().unwrap_or(SEGMENTS);
        if NOT_SENT.contains(&details) {
            return;
        }
        host.count(Metric::Forwarded);
        if details == SEGMENTS
            && let Some(metric) = host.response_status().as_deref().and_then(Metric::of_segments)
        {
            host.count(metric);
        }
    }

    fn complete(&mut self, host: &mut impl Host) -> Action {
        let Some(filter) = &mut self.filter else { return Action::Pause };
        let size = self.body_size;
        let step = match filter.body_so_far(size) {
            Step::Wait if size == 0 => filter.complete(&[]),
            Step::Wait => match host.request_body(size) {
                Ok(body) => filter.complete(&body),
                Err(Failed) => filter.reject(Rejection::Internal),
            },
            over_the_limit => over_the_limit,
        };
        if let Some(event_type) = filter.event_type() {
            host.set_property(EVENT_TYPE, event_type);
        }
        host.record(Metric::BodyBytes, size);
        self.perform(host, step)
    }

    /// Does what the filter says. If the host fails, the request is rejected: nothing is sent on half rewritten.
    fn perform(&mut self, host: &mut impl Host, step: Step) -> Action {
        let done = match step {
            Step::Wait => return Action::Pause,
            Step::Reply(reply) => {
                answer(host, reply);
                return Action::Pause;
            }
            Step::SendHeaders(headers) => send_headers(host, &headers),
            Step::Forward(headers, call) => {
                self.forwarded = true;
                forward(host, headers.as_ref(), &call)
            }
        };
        match done {
            Ok(()) => Action::Continue,
            Err(Failed) => self.fail(host),
        }
    }

    /// Rejects the request with a 500, although it may have become a call, unless it has been answered.
    pub fn fail(&mut self, host: &mut impl Host) -> Action {
        self.forwarded = false;
        if let Some(Step::Reply(reply)) = self.filter.as_mut().map(|filter| filter.reject(Rejection::Internal)) {
            answer(host, reply);
        }
        Action::Pause
    }
}

fn answer(host: &mut impl Host, reply: Reply) {
    host.count(Metric::of(reply));
    // Envoy logs the details as `%RESPONSE_CODE_DETAILS%`.
    let details = ["stigg_segment_", reply.code()].concat();
    if host.reply(reply.status(), reply.headers(), &reply.body(), &details).is_err() {
        host.log_error(&format!("the host did not take the answer {} {}", reply.status(), reply.code()));
    }
}

fn send_headers(host: &mut impl Host, headers: &ToSegment) -> Result<(), Failed> {
    headers.changes().try_for_each(|(name, value)| match value {
        Some(value) => host.set_request_header(name, value),
        None => host.remove_request_header(name),
    })
}

fn forward(host: &mut impl Host, headers: Option<&ToSegment>, call: &Call) -> Result<(), Failed> {
    match &call.properties {
        // The event stays where it is.
        None => host.wrap_request_body(&call.head, &call.tail)?,
        Some(properties) => host.replace_request_body(&[&call.head, properties.as_slice(), &call.tail].concat())?,
    }
    host.set_property(MAPPED.0, MAPPED.1);
    if let Some(headers) = headers {
        send_headers(host, headers)?;
    }
    // The mark must be there when the host looks for the route again. Headers that are not held have changed before it.
    if headers.is_none() || !host.reroutes() {
        host.clear_route_cache();
    }
    Ok(())
}
