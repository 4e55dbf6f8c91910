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

/// The property that tells the access log that something left the event because the call was too large.
const TRIMMED: &str = "stigg_trimmed";

/// The property of a request that has become a call. The route to Segment matches on it, so that nothing else has a
/// route there.
const MAPPED: (&str, &[u8]) = ("stigg_mapped", b"true");

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
    /// Whether the headers are held, and the host has not gone on to the body.
    held: bool,
}

impl Stream {
    /// Waits for a request's headers.
    pub fn new(config: Option<Arc<Config>>) -> Self {
        Stream { filter: config.map(Filter::new), body_size: 0, held: false }
    }

    /// The request's headers have come. With `end_of_stream`, nothing follows them.
    pub fn on_request_headers(&mut self, host: &mut impl Host, end_of_stream: bool) -> Action {
        let step = match (&mut self.filter, host.request_headers()) {
            (Some(filter), Ok(headers)) => filter.headers(headers.pairs(), end_of_stream, |key| host.filter_state(key)),
            (Some(filter), Err(Failed)) => filter.reject(Rejection::Internal),
            (None, _) => Step::Reply(Rejection::Internal.into()),
        };
        if let Some(warning) = self.filter.as_mut().and_then(Filter::warning) {
            host.log_warning(&warning);
        }
        self.held = matches!(step, Step::Wait);
        self.perform(host, step)
    }

    /// More of the body has come: `size` bytes in all.
    pub fn on_request_body(&mut self, host: &mut impl Host, size: usize, end_of_stream: bool) -> Action {
        self.body_size = size;
        self.held = false;
        if end_of_stream {
            let action = self.complete(host);
            return counted(host, action);
        }
        let step = self.filter.as_mut().map_or(Step::Wait, |filter| filter.body_so_far(size));
        self.perform(host, step)
    }

    /// The request's trailers have come. The body callback has not been told the end then.
    pub fn on_request_trailers(&mut self, host: &mut impl Host) -> Action {
        self.held = false;
        let action = self.complete(host);
        if action == Action::Continue && host.remove_request_trailers().is_err() {
            return self.fail(host);
        }
        counted(host, action)
    }

    /// The request has ended. What to tell the operator, if the host did not go on to its body.
    pub fn on_end(&self) -> Option<&'static str> {
        self.held.then_some(
            "a webhook ended while its headers were held, and nothing of its body came; if this happens to every webhook, \
             set allow_on_headers_stop_iteration to true beside the plugin's configuration, as in envoy.yaml",
        )
    }

    fn complete(&mut self, host: &mut impl Host) -> Action {
        let Some(filter) = &mut self.filter else { return Action::Pause };
        let size = self.body_size;
        let step = match filter.body_so_far(size) {
            Step::Wait if size == 0 => filter.complete(&[], || None),
            Step::Wait => match host.request_body(size) {
                Ok(body) => filter.complete(&body, || host.now()),
                Err(Failed) => filter.reject(Rejection::Internal),
            },
            over_the_limit => over_the_limit,
        };
        if let Some(event_type) = filter.event_type() {
            host.set_property(EVENT_TYPE, event_type);
        }
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
            Step::Forward(headers, call) => forward(host, headers.as_ref(), &call),
        };
        match done {
            Ok(()) => Action::Continue,
            Err(Failed) => self.fail(host),
        }
    }

    /// Rejects the request with a 500, although it may have become a call, unless it has been answered.
    pub fn fail(&mut self, host: &mut impl Host) -> Action {
        if let Some(Step::Reply(reply)) = self.filter.as_mut().map(|filter| filter.reject(Rejection::Internal)) {
            answer(host, reply);
        }
        Action::Pause
    }
}

/// Counts the request if the host now sends it on.
fn counted(host: &mut impl Host, action: Action) -> Action {
    if action == Action::Continue {
        host.count(Metric::Forwarded);
    }
    action
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
    if call.trimmed {
        host.count(Metric::Trimmed);
        host.set_property(TRIMMED, b"true");
    }
    host.set_property(MAPPED.0, MAPPED.1);
    if let Some(headers) = headers {
        send_headers(host, headers)?;
    }
    // The mark must be there when the host looks for the route again. Headers that are not held have changed before it; if
    // nothing else holds the request either, it has left, and Envoy would crash for want of its route.
    if headers.is_none() && !host.sends_on() || !host.reroutes() {
        host.clear_route_cache();
    }
    Ok(())
}
