//! The hooks on a fake Envoy that defines the calls of the ABI: every order in which Envoy may call them, a body in any
//! pieces, and hooks within calls. `cargo +nightly miri test --package stigg-segment-native` also checks all `unsafe`.

#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "a test on the other side of the ABI"
)]

use std::cell::{Cell, RefCell};
use std::ffi::c_void;

use crate::abi::hooks::*;
use crate::abi::{Bytes, Header};
use crate::{Filter, Request};

const EVENT: &[u8] = br#"{"type":"customer.updated","messageId":"m","customer":{"id":"acme"}}"#;
const CONTINUE: u32 = 0;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// What Envoy lends for as long as it promises.
fn lent<'a>(bytes: &[u8]) -> Bytes<'a> {
    Bytes::of(unsafe { std::slice::from_raw_parts(bytes.as_ptr(), bytes.len()) })
}

/// A stream of the fake Envoy.
#[derive(Default)]
struct Fake {
    /// By kind: headers, trailers.
    maps: RefCell<[Pairs; 2]>,
    /// By kind: received, buffered. What is received is there in the hook for the body only.
    body: RefCell<[Option<Vec<Vec<u8>>>; 2]>,
    /// Whether the received body is the buffered one.
    same: Cell<bool>,
    replies: RefCell<Vec<u32>>,
    properties: RefCell<Vec<Vec<u8>>>,
    routed_anew: Cell<usize>,
    /// The request that ends within the call that answers it.
    within_reply: Cell<Option<*const Request>>,
}

fn fake<'a>(stream: *mut c_void) -> &'a Fake {
    unsafe { &*stream.cast::<Fake>() }
}

macro_rules! calls {
    ($($name:ident($($argument:ident: $kind:ty),*) $(-> $result:ty)? $body:block)+) => {
        $(#[unsafe(no_mangle)] extern "C" fn $name($($argument: $kind),*) $(-> $result)? $body)+
    };
}

calls! {
    envoy_dynamic_module_callback_log(_level: u32, line: Bytes<'_>) {
        assert!(std::str::from_utf8(line.get()).is_ok());
    }
    envoy_dynamic_module_callback_http_filter_config_define_counter(
        _config: *mut c_void, _name: Bytes<'_>, _labels: *const Bytes<'_>, _count: usize, id: *mut usize
    ) -> u32 {
        unsafe { *id = 7 };
        0
    }
    envoy_dynamic_module_callback_http_filter_increment_counter(
        _stream: *mut c_void, id: usize, values: *const Bytes<'_>, count: usize, by: u64
    ) -> u32 {
        assert_eq!((id, by), (7, 1));
        let values = unsafe { std::slice::from_raw_parts(values, count) };
        assert!(values.iter().all(|value| !value.get().is_empty()));
        0
    }
    envoy_dynamic_module_callback_http_get_headers_size(stream: *mut c_void, map: u32) -> usize {
        fake(stream).maps.borrow()[map as usize].len()
    }
    envoy_dynamic_module_callback_http_get_headers(stream: *mut c_void, map: u32, headers: *mut Header<'_>) -> bool {
        for (n, (name, value)) in fake(stream).maps.borrow()[map as usize].iter().enumerate() {
            unsafe { *headers.add(n) = Header { name: lent(name), value: lent(value) } };
        }
        true
    }
    envoy_dynamic_module_callback_http_set_header(stream: *mut c_void, map: u32, name: Bytes<'_>, value: Bytes<'_>) -> bool {
        let map = &mut fake(stream).maps.borrow_mut()[map as usize];
        map.retain(|(own, _)| own != name.get());
        if !value.get().is_empty() {
            map.push((name.get().into(), value.get().into()));
        }
        true
    }
    envoy_dynamic_module_callback_http_received_buffered_request_body(stream: *mut c_void) -> bool {
        fake(stream).same.get()
    }
    envoy_dynamic_module_callback_http_get_body_size(stream: *mut c_void, part: u32) -> usize {
        fake(stream).body.borrow()[part as usize].iter().flatten().map(Vec::len).sum()
    }
    envoy_dynamic_module_callback_http_get_body_chunks_size(stream: *mut c_void, part: u32) -> usize {
        fake(stream).body.borrow()[part as usize].iter().flatten().count()
    }
    envoy_dynamic_module_callback_http_get_body_chunks(stream: *mut c_void, part: u32, chunks: *mut Bytes<'_>) -> bool {
        for (n, chunk) in fake(stream).body.borrow()[part as usize].iter().flatten().enumerate() {
            unsafe { *chunks.add(n) = lent(chunk) };
        }
        true
    }
    envoy_dynamic_module_callback_http_drain_body(stream: *mut c_void, part: u32, _size: usize) -> bool {
        fake(stream).body.borrow_mut()[part as usize].as_mut().map(Vec::clear).is_some()
    }
    envoy_dynamic_module_callback_http_append_body(stream: *mut c_void, part: u32, data: Bytes<'_>) -> bool {
        fake(stream).body.borrow_mut()[part as usize].as_mut().map(|body| body.push(data.get().into())).is_some()
    }
    envoy_dynamic_module_callback_http_get_filter_state_bytes(
        _stream: *mut c_void, _key: Bytes<'_>, _value: *mut Bytes<'_>
    ) -> bool {
        false
    }
    envoy_dynamic_module_callback_http_set_filter_state_bytes(stream: *mut c_void, key: Bytes<'_>, _value: Bytes<'_>) -> bool {
        fake(stream).properties.borrow_mut().push(key.get().into());
        true
    }
    envoy_dynamic_module_callback_http_clear_route_cache(stream: *mut c_void) {
        fake(stream).routed_anew.update(|times| times + 1);
    }
    envoy_dynamic_module_callback_http_send_response(
        stream: *mut c_void, status: u32, headers: *const Header<'_>, count: usize, body: Bytes<'_>, details: Bytes<'_>
    ) {
        let headers = unsafe { std::slice::from_raw_parts(headers, count) };
        assert!(headers.iter().all(|header| !header.name.get().is_empty() && !header.value.get().is_empty()));
        assert_eq!(body.get().is_empty(), status == 204);
        assert!(details.get().starts_with(b"stigg_segment_"));
        fake(stream).replies.borrow_mut().push(status);
        if let Some(request) = fake(stream).within_reply.take() {
            envoy_dynamic_module_on_http_filter_destroy(request);
        }
    }
}

/// A configuration, for as long as the value.
struct Configured(*const Filter);

impl Configured {
    fn new() -> Self {
        assert!(!envoy_dynamic_module_on_program_init().is_null());
        let json = br#"{"webhook_secret": "unverified", "write_key": "gateway"}"#;
        let filter = envoy_dynamic_module_on_http_filter_config_new(std::ptr::null_mut(), Bytes::NONE, Bytes::of(json));
        assert!(!filter.is_null());
        Configured(filter)
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        envoy_dynamic_module_on_http_filter_config_destroy(self.0);
    }
}

/// A hook of a request.
#[derive(Debug, Clone)]
enum Hook {
    Headers { end: bool },
    Body { chunks: Vec<Vec<u8>>, end: bool },
    Trailers,
}

/// A client of the fake Envoy, with one request.
struct Client {
    fake: Box<Fake>,
    request: *const Request,
}

impl Client {
    fn new(filter: &Configured) -> Self {
        let fake = Box::<Fake>::default();
        let pair = |(name, value): (&str, &str)| (name.into(), value.into());
        let request = [(":method", "POST"), (":path", "/webhooks/stigg"), ("cookie", "c")].map(pair);
        *fake.maps.borrow_mut() = [request.into(), vec![pair(("x-trailer", "1"))]];
        let stream = std::ptr::from_ref(&*fake).cast_mut().cast();
        let request = envoy_dynamic_module_on_http_filter_new(filter.0, stream);
        assert!(!request.is_null());
        Client { fake, request }
    }

    /// Calls a hook, and does with the body what Envoy does then.
    fn call(&self, hook: &Hook) -> u32 {
        let stream = std::ptr::from_ref(&*self.fake).cast_mut().cast();
        match hook {
            Hook::Headers { end } => envoy_dynamic_module_on_http_filter_request_headers(stream, self.request, *end),
            Hook::Body { chunks, end } => {
                self.fake.body.borrow_mut()[0] = Some(chunks.clone());
                let status = envoy_dynamic_module_on_http_filter_request_body(stream, self.request, *end);
                let mut body = self.fake.body.borrow_mut();
                let received = body[0].take().unwrap();
                body[1].get_or_insert_default().extend(received);
                status
            }
            Hook::Trailers => envoy_dynamic_module_on_http_filter_request_trailers(stream, self.request),
        }
    }

    fn body(&self) -> Vec<u8> {
        self.fake.body.borrow()[1].iter().flatten().flatten().copied().collect()
    }

    fn end(self) -> Box<Fake> {
        envoy_dynamic_module_on_http_filter_destroy(self.request);
        self.fake
    }
}

fn body(pieces: &[&[u8]], end: bool) -> Hook {
    Hook::Body { chunks: pieces.iter().map(|piece| piece.to_vec()).collect(), end }
}

/// Every way in which a client can send the event: in one piece, in two hooks, in two chunks of one hook; with an empty
/// last hook, and with trailers.
fn requests() -> Vec<Vec<Hook>> {
    let headers = Hook::Headers { end: false };
    let (begin, rest) = EVENT.split_at(20);
    vec![
        vec![headers.clone(), body(&[EVENT], true)],
        vec![headers.clone(), body(&[begin], false), body(&[rest], true)],
        vec![headers.clone(), body(&[begin, rest], true)],
        vec![headers.clone(), body(&[b"", begin, b"", rest], false), body(&[], true)],
        vec![headers.clone(), body(&[EVENT], false), Hook::Trailers],
        vec![headers, body(&[begin], false), body(&[rest], false), Hook::Trailers],
    ]
}

fn assert_is_call(body: &[u8]) {
    let text = String::from_utf8_lossy(body);
    assert!(text.starts_with(r#"{"event":"customer_updated","userId":"acme""#), "{text}");
    assert!(body.ends_with(&[br#""properties":"#, EVENT, b"}"].concat()), "{text}");
}

#[test]
fn the_event_becomes_a_call_in_whatever_pieces_it_comes() {
    let filter = Configured::new();
    for hooks in requests() {
        let request = Client::new(&filter);
        let statuses: Vec<_> = hooks.iter().map(|hook| request.call(hook)).collect();
        let (last, before) = statuses.split_last().unwrap();
        assert!(*last == CONTINUE && before.iter().all(|status| *status != CONTINUE), "{hooks:?}: {statuses:?}");
        assert_is_call(&request.body());
        let fake = request.end();
        assert_eq!((fake.replies.borrow().len(), fake.routed_anew.get()), (0, 1));
        assert!(fake.properties.borrow().contains(&b"wasm.stigg_mapped".to_vec()));
        assert!(fake.maps.borrow()[0].iter().all(|(name, _)| name != b"cookie"));
        assert_eq!(fake.maps.borrow()[1].is_empty(), matches!(hooks.last(), Some(Hook::Trailers)));
    }
}

/// A filter before this one has held the body, so that what is received is what is buffered.
#[test]
fn a_body_that_is_both_received_and_buffered_is_read_once() {
    let filter = Configured::new();
    let request = Client::new(&filter);
    request.call(&Hook::Headers { end: false });
    request.fake.same.set(true);
    request.fake.body.borrow_mut()[1] = Some(vec![EVENT.to_vec()]);
    let stream = std::ptr::from_ref(&*request.fake).cast_mut().cast();
    request.fake.body.borrow_mut()[0] = Some(vec![EVENT.to_vec()]);
    let status = envoy_dynamic_module_on_http_filter_request_body(stream, request.request, true);
    assert_eq!(status, CONTINUE);
    assert_is_call(&request.fake.body.borrow()[0].iter().flatten().flatten().copied().collect::<Vec<_>>());
    request.end();
}

/// A stream can end between any two hooks: the client leaves, or Envoy or another filter answers.
#[test]
fn a_request_can_end_at_any_time() {
    let filter = Configured::new();
    for hooks in requests().into_iter().chain([vec![Hook::Headers { end: true }], vec![]]) {
        for ends_after in 0..=hooks.len() {
            let request = Client::new(&filter);
            for hook in hooks.iter().take(ends_after) {
                request.call(hook);
            }
            request.end();
        }
    }
}

/// The answer can end the stream at once.
#[test]
fn a_request_that_ends_within_the_call_that_answers_it_does_no_harm() {
    let filter = Configured::new();
    for hooks in [
        vec![Hook::Headers { end: true }],
        vec![Hook::Headers { end: false }, body(&[b"{"], true)],
        vec![Hook::Headers { end: false }, body(&[b"[]"], false), Hook::Trailers],
    ] {
        let request = Client::new(&filter);
        request.fake.within_reply.set(Some(request.request));
        for hook in &hooks {
            assert_ne!(request.call(hook), CONTINUE);
        }
        assert_eq!(*request.fake.replies.borrow(), [400]);
    }
}

/// A request may outlive the configuration that it began with.
#[test]
fn a_configuration_is_there_until_its_last_request_has_ended() {
    let filter = Configured::new();
    let request = Client::new(&filter);
    request.call(&Hook::Headers { end: false });
    drop(filter);
    assert_eq!(request.call(&body(&[EVENT], true)), CONTINUE);
    request.end();
}

#[test]
fn a_wrong_configuration_is_rejected() {
    for json in [&br#"{"hold_request_headers": true}"#[..], b"no JSON", b"\xff"] {
        let filter = envoy_dynamic_module_on_http_filter_config_new(std::ptr::null_mut(), Bytes::NONE, Bytes::of(json));
        assert!(filter.is_null());
    }
}
