//! The shell that proxy-wasm sees: the only file with host calls.
//!
//! The calls that a request makes go straight to the ABI: the SDK's wrappers panic on a status they do not know, which
//! would take the whole VM down with every request in it, where here one request is answered with a 500.

use std::rc::Rc;

use log::{error, warn};
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, BufferType, ContextType, MapType, MetricType};

use crate::config::Config;
use crate::filter::{Filter, Step, ToSegment};
use crate::headers;
use crate::metrics::{Kind, Metric, Registry};
use crate::reply::{Rejection, Reply};

#[allow(missing_docs, reason = "the SDK's macro writes the function that the host calls first")]
mod entry {
    proxy_wasm::main! {{
        proxy_wasm::set_log_level(proxy_wasm::types::LogLevel::Info);
        proxy_wasm::set_root_context(|_| Box::new(super::Root::default()));
    }}
}

#[derive(Default)]
struct Root {
    config: Option<Rc<Config>>,
    metrics: Rc<Registry>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        let json = get_buffer(BufferType::PluginConfiguration, size).unwrap_or_default();
        match Config::parse(&json, |name| std::env::var(name).ok()) {
            Ok(config) => {
                for warning in &config.warnings {
                    warn!("{warning}");
                }
                self.config = Some(Rc::new(config));
                self.metrics = Rc::new(Registry::new(define_metric));
                true
            }
            Err(error) => {
                error!("{error}");
                false
            }
        }
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream {
            filter: self.config.clone().map(Filter::new),
            metrics: self.metrics.clone(),
            body_size: 0,
            forwarded: false,
        }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// One request. Without a filter there was no configuration, and every request is refused.
struct Stream {
    filter: Option<Filter>,
    metrics: Rc<Registry>,
    /// What has come of the body. In the trailers callback nothing else tells.
    body_size: usize,
    /// Whether the answer that comes back is Segment's.
    forwarded: bool,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        let map = get_map(MapType::HttpRequestHeaders);
        self.step(|filter| match map {
            Some(map) => filter.headers(map, end_of_stream, |key| get_property(&["filter_state", key])),
            None => filter.reject(Rejection::Internal),
        })
    }

    fn on_http_request_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        self.body_size = body_size;
        if end_of_stream { self.complete() } else { self.step(|filter| filter.body_so_far(body_size)) }
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        // Where there are trailers the body callback never sees the end. Segment is sent none of them.
        match self.complete() {
            Action::Continue
                if set_map(MapType::HttpRequestTrailers, &headers::serialize(std::iter::empty())).is_none() =>
            {
                self.step(|filter| filter.reject(Rejection::Internal))
            }
            action => action,
        }
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        if self.forwarded
            && let Some([digit @ b'1'..=b'5', ..]) = get_header(MapType::HttpResponseHeaders, ":status").as_deref()
        {
            self.count(Metric::SegmentAnswers(digit & 0x0F));
        }
        Action::Continue
    }
}

impl Stream {
    fn complete(&mut self) -> Action {
        let size = self.body_size;
        let action = self.step(|filter| {
            if let refused @ Step::Reply(_) = filter.body_so_far(size) {
                return refused;
            }
            match size {
                0 => filter.complete(&[]),
                _ => match get_buffer(BufferType::HttpRequestBody, size) {
                    Some(body) => filter.complete(&body),
                    None => filter.reject(Rejection::Internal),
                },
            }
        });
        if let Some(histogram) = self.metrics.id(Metric::BodyBytes) {
            record(histogram, size);
        }
        if let Some(event_type) = self.filter.as_ref().and_then(Filter::event_type) {
            set_property(EVENT_TYPE, event_type);
        }
        action
    }

    /// Does what the filter says. Where the host does not let it, the request is refused, never sent on half rewritten.
    fn step(&mut self, next: impl FnOnce(&mut Filter) -> Step) -> Action {
        let step = match &mut self.filter {
            Some(filter) => next(filter),
            None => Step::Reply(Reply::Rejected(Rejection::Internal)),
        };
        let done = match step {
            Step::Wait => return Action::Pause,
            Step::Reply(reply) => {
                self.answer(reply);
                return Action::Pause;
            }
            Step::SendHeaders(headers) => change(&headers),
            Step::Forward(headers, call) => headers
                .map_or(Some(()), |headers| change(&headers))
                .and_then(|()| match call.properties {
                    // The event stays where it is.
                    None => set_body(0, 0, &call.head).and_then(|()| set_body(usize::MAX, 0, &call.tail)),
                    Some(properties) => {
                        set_body(0, usize::MAX, &[&call.head, properties.as_slice(), &call.tail].concat())
                    }
                })
                .map(|()| {
                    self.forwarded = true;
                    self.count(Metric::Forwarded);
                }),
        };
        match done {
            Some(()) => Action::Continue,
            None => {
                self.answer(Reply::Rejected(Rejection::Internal));
                Action::Pause
            }
        }
    }

    fn answer(&self, reply: Reply) {
        self.count(reply.into());
        send(reply);
    }

    fn count(&self, metric: Metric) {
        if let Some(counter) = self.metrics.id(metric) {
            // SAFETY: no memory changes hands. A host that does not count does no harm.
            let _ = unsafe { proxy_increment_metric(counter, 1) };
        }
    }
}

/// The name of the property that tells the access log the event's type; `envoy.yaml` logs it.
const EVENT_TYPE: &str = "stigg_event";

fn send(reply: Reply) {
    let headers = headers::serialize(reply.headers().iter().map(|&(name, value)| (name.as_bytes(), value)));
    let body = reply.body().unwrap_or_default();
    // For the access log: Envoy's `%RESPONSE_CODE_DETAILS%`.
    let details = ["stigg_segment_", reply.code()].concat();
    const NO_GRPC_STATUS: i32 = -1;
    // SAFETY: the host reads the three buffers, which outlive the call, and nothing else.
    let status = unsafe {
        proxy_send_local_response(
            reply.status(),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            NO_GRPC_STATUS,
        )
    };
    if status != OK {
        error!("the host refused the answer {} with status {status}", reply.status());
    }
}

fn get_map(map: MapType) -> Option<Vec<u8>> {
    let (mut data, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: the host writes one pointer and one size.
    let status = unsafe { proxy_get_header_map_pairs(map as u32, &mut data, &mut size) };
    take(status, data, size)
}

fn get_header(map: MapType, name: &str) -> Option<Vec<u8>> {
    let (mut data, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: the host reads the name, and writes one pointer and one size.
    let status = unsafe { proxy_get_header_map_value(map as u32, name.as_ptr(), name.len(), &mut data, &mut size) };
    take(status, data, size)
}

fn define_metric(kind: Kind, name: &str) -> Option<u32> {
    let kind = match kind {
        Kind::Counter => MetricType::Counter,
        Kind::Histogram => MetricType::Histogram,
    };
    let mut id = 0;
    // SAFETY: the host reads the name and writes one number.
    done(unsafe { proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &mut id) })?;
    Some(id)
}

fn record(histogram: u32, value: usize) {
    // SAFETY: no memory changes hands. A host that does not measure does no harm.
    let _ = unsafe { proxy_record_metric(histogram, value as u64) };
}

fn get_property(path: &[&str]) -> Option<Vec<u8>> {
    let path = path.join("\0");
    let (mut data, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: the host reads the path, and writes one pointer and one size.
    let status = unsafe { proxy_get_property(path.as_ptr(), path.len(), &mut data, &mut size) };
    take(status, data, size)
}

fn set_property(name: &str, value: &[u8]) {
    // SAFETY: the host reads the two slices. A host that keeps no properties does no harm.
    let _ = unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
}

/// Changes the request's headers.
fn change(headers: &ToSegment) -> Option<()> {
    let map = MapType::HttpRequestHeaders as u32;
    headers.changes().try_for_each(|(name, value)| {
        // SAFETY: the host reads the slices and nothing else.
        done(match value {
            Some(value) => unsafe {
                proxy_replace_header_map_value(map, name.as_ptr(), name.len(), value.as_ptr(), value.len())
            },
            None => unsafe { proxy_remove_header_map_value(map, name.as_ptr(), name.len()) },
        })
    })
}

fn set_map(map: MapType, serialized: &[u8]) -> Option<()> {
    // SAFETY: the host reads the slice and nothing else.
    done(unsafe { proxy_set_header_map_pairs(map as u32, serialized.as_ptr(), serialized.len()) })
}

fn get_buffer(buffer: BufferType, size: usize) -> Option<Vec<u8>> {
    let (mut data, mut got) = (std::ptr::null_mut(), 0);
    // SAFETY: the host writes one pointer and one size.
    let status = unsafe { proxy_get_buffer_bytes(buffer as u32, 0, size, &mut data, &mut got) };
    take(status, data, got)
}

/// Puts `data` in the place of `size` bytes of the request's body from `start` on; behind it where it is shorter.
fn set_body(start: usize, size: usize, data: &[u8]) -> Option<()> {
    // SAFETY: the host reads the slice and nothing else.
    done(unsafe { proxy_set_buffer_bytes(BufferType::HttpRequestBody as u32, start, size, data.as_ptr(), data.len()) })
}

const OK: u32 = 0;

fn done(status: u32) -> Option<()> {
    (status == OK).then_some(())
}

fn take(status: u32, data: *mut u8, size: usize) -> Option<Vec<u8>> {
    if status != OK || data.is_null() {
        return None;
    }
    // SAFETY: the host had `size` bytes allocated by the SDK's `proxy_on_memory_allocate`, which makes a boxed slice of
    // just that size with the global allocator, filled them, and gave them away.
    Some(unsafe { Vec::from_raw_parts(data, size, size) })
}

// https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1
#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> u32;
    fn proxy_set_header_map_pairs(map: u32, data: *const u8, size: usize) -> u32;
    fn proxy_get_buffer_bytes(buffer: u32, start: usize, max: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_buffer_bytes(buffer: u32, start: usize, size: usize, data: *const u8, data_size: usize) -> u32;
    fn proxy_get_property(path: *const u8, path_size: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, value_size: usize) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, by: i64) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
}
