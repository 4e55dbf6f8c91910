//! The least that a Wasm filter must do to hold, read and rewrite a request: it decides nothing, and puts the same text
//! around every body.

#![cfg(target_arch = "wasm32")]

#[allow(dead_code, reason = "the filter makes more calls")]
#[path = "../../../src/abi.rs"]
mod abi;
#[path = "../call.rs"]
mod call;

mod host {
    /// The host did not do what it was asked for.
    #[derive(Debug)]
    pub struct Failed;
}

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, BufferType, ContextType, MapType};

use crate::call::{HEAD, TAIL};
use crate::host::Failed;

#[allow(missing_docs, reason = "the SDK's macro writes the function that the host calls first")]
mod entry {
    proxy_wasm::main! {{
        proxy_wasm::set_root_context(|_| Box::new(super::Root));
    }}
}

struct Root;

impl Context for Root {}

impl RootContext for Root {
    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream;

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        std::hint::black_box(abi::get_map(MapType::HttpRequestHeaders).ok());
        Action::Pause
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if end_of_stream && rewrite(size).is_ok() { Action::Continue } else { Action::Pause }
    }
}

fn rewrite(size: usize) -> Result<(), Failed> {
    std::hint::black_box(abi::get_buffer(BufferType::HttpRequestBody, size)?);
    abi::set_buffer(BufferType::HttpRequestBody, 0, 0, HEAD.as_bytes())?;
    abi::set_buffer(BufferType::HttpRequestBody, usize::MAX, 0, TAIL.as_bytes())?;
    let length = (HEAD.len() + size + TAIL.len()).to_string();
    abi::set_value(MapType::HttpRequestHeaders, b"content-length", length.as_bytes())
}
