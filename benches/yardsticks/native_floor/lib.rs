//! The least that a dynamic module must do to hold, read and rewrite a request: it decides nothing, and puts the same text
//! around every body.

#[allow(dead_code, unsafe_code, reason = "the filter's own border to Envoy, which can do more")]
#[path = "../../../native/src/abi.rs"]
mod abi;
#[path = "../call.rs"]
mod call;

use std::hint::black_box;
use std::sync::Arc;

use stigg_segment::host::Failed;
use stigg_segment::stream::Action;

use crate::abi::{Configuring, Envoy, Map};
use crate::call::{HEAD, TAIL};

/// Takes any configuration.
struct Filter;

impl Filter {
    fn new(_: &Configuring, _: &[u8]) -> Option<Self> {
        Some(Filter)
    }
}

/// A request.
struct Request;

impl Request {
    fn new(_: Arc<Filter>) -> Self {
        Request
    }

    fn on_request_headers(&self, envoy: &mut Envoy, _: bool) -> Action {
        black_box(envoy.headers(Map::RequestHeaders).is_ok());
        Action::Pause
    }

    fn on_request_body(&self, envoy: &mut Envoy, end_of_stream: bool) -> Action {
        if end_of_stream && rewrite(envoy).is_ok() { Action::Continue } else { Action::Pause }
    }

    fn on_request_trailers(&self, _: &mut Envoy) -> Action {
        Action::Pause
    }
}

fn rewrite(envoy: &mut Envoy) -> Result<(), Failed> {
    let call = [HEAD.as_bytes(), &envoy.body(), TAIL.as_bytes()].concat();
    envoy.replace_body(&call)?;
    envoy.set_header(Map::RequestHeaders, b"content-length", Some(call.len().to_string().as_bytes()))
}
