//! What the filter asks of the gateway that it runs in. A shell answers each question with one call of its ABI, and
//! decides nothing.

use std::borrow::Cow;
use std::time::Duration;

use crate::metrics::Metric;

/// The host did not do what it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed;

/// A gateway, as one request sees it.
pub trait Host {
    /// The request's headers as the host hands them over.
    type Headers<'a>: Headers
    where
        Self: 'a;

    /// The request's headers.
    fn request_headers(&self) -> Result<Self::Headers<'_>, Failed>;

    /// Sets a header of the request to one value.
    fn set_request_header(&mut self, name: &[u8], value: &[u8]) -> Result<(), Failed>;

    /// Removes every header of the request with this name.
    fn remove_request_header(&mut self, name: &[u8]) -> Result<(), Failed>;

    /// Removes the request's trailers.
    fn remove_request_trailers(&mut self) -> Result<(), Failed>;

    /// The `size` bytes of the request's body that are held.
    fn request_body(&self, size: usize) -> Result<Cow<'_, [u8]>, Failed>;

    /// Puts `head` before the held body, and `tail` after it.
    fn wrap_request_body(&mut self, head: &[u8], tail: &[u8]) -> Result<(), Failed>;

    /// Puts `body` in place of the held one.
    fn replace_request_body(&mut self, body: &[u8]) -> Result<(), Failed>;

    /// The time since 1970, in UTC.
    fn now(&self) -> Option<Duration>;

    /// A value of the gateway's filter state.
    fn filter_state(&self, key: &str) -> Option<Vec<u8>>;

    /// Tells the gateway something about the request. Envoy has it in its filter state as `wasm.<name>`, for its access
    /// log and its routes.
    fn set_property(&mut self, name: &str, value: &[u8]);

    /// Whether the gateway looks for the request's route again by itself when a header has changed.
    fn reroutes(&self) -> bool;

    /// Whether the gateway already sends the request on, so that it must not look for a route again.
    fn sends_on(&self) -> bool;

    /// Lets the gateway look for the request's route again.
    fn clear_route_cache(&mut self);

    /// Answers the request; it goes no further. `details` is for the access log.
    fn reply(&mut self, status: u32, headers: &[(&str, &str)], body: &[u8], details: &str) -> Result<(), Failed>;

    /// Adds one to a counter.
    fn count(&mut self, metric: Metric);

    /// Writes a warning into the gateway's log.
    fn log_warning(&mut self, message: &str);

    /// Writes an error into the gateway's log.
    fn log_error(&mut self, message: &str);
}

/// Headers that a host has handed over.
pub trait Headers {
    /// Name and value of each, in their order. A value need not be UTF-8.
    fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone;
}
