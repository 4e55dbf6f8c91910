//! One request on a host: the calls that the filter makes, their order, and the outcome if one fails.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use stigg_segment::config::{Config, Shell};
use stigg_segment::header_map::HeaderMap;
use stigg_segment::host::{Failed, Host};
use stigg_segment::metrics::Metric;
use stigg_segment::stream::{Action, Stream};

const EVENT: &str = r#"{"type":"customer.updated","messageId":"m","customer":{"id":"acme"}}"#;

/// A host that records every call, and fails at one of them.
#[derive(Default)]
struct Fake {
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
    calls: Vec<String>,
    fails_at: Option<&'static str>,
    fails_to_reply: bool,
    keeps_route: bool,
    sends_on: bool,
    filter_state: Option<&'static str>,
    now: Option<Duration>,
    counted: Vec<Metric>,
    logged: Vec<String>,
}

impl Fake {
    fn new(body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![(":method", "POST"), (":path", "/x?secret"), ("cookie", "c"), ("content-length", "9")];
        Fake { headers, body: body.into(), ..Fake::default() }
    }

    fn failing(at: &'static str) -> Self {
        Fake { fails_at: Some(at), ..Fake::new(EVENT) }
    }

    fn call(&mut self, call: impl Into<String>) -> Result<(), Failed> {
        let call = call.into();
        let fails = self.fails_at.is_some_and(|at| call.starts_with(at));
        self.calls.push(call);
        if fails { Err(Failed) } else { Ok(()) }
    }

    fn replies(&self) -> Vec<&str> {
        self.calls.iter().filter_map(|call| call.strip_prefix("reply ")).collect()
    }
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

impl Host for Fake {
    type Headers<'a> = HeaderMap;

    fn request_headers(&self) -> Result<HeaderMap, Failed> {
        if self.fails_at == Some("headers") {
            return Err(Failed);
        }
        Ok(self.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect())
    }

    fn set_request_header(&mut self, name: &[u8], value: &[u8]) -> Result<(), Failed> {
        self.call(format!("set {}: {}", text(name), text(value)))
    }

    fn remove_request_header(&mut self, name: &[u8]) -> Result<(), Failed> {
        self.call(format!("remove {}", text(name)))
    }

    fn remove_request_trailers(&mut self) -> Result<(), Failed> {
        self.call("remove trailers")
    }

    fn request_body(&self, size: usize) -> Result<Cow<'_, [u8]>, Failed> {
        assert_eq!(size, self.body.len());
        if self.fails_at == Some("body") { Err(Failed) } else { Ok(self.body.as_slice().into()) }
    }

    fn wrap_request_body(&mut self, head: &[u8], tail: &[u8]) -> Result<(), Failed> {
        self.call(format!("wrap {} … {}", text(head), text(tail)))
    }

    fn replace_request_body(&mut self, body: &[u8]) -> Result<(), Failed> {
        self.call(format!("replace {}", text(body)))
    }

    fn now(&self) -> Option<Duration> {
        self.now
    }

    fn filter_state(&self, _: &str) -> Option<Vec<u8>> {
        self.filter_state.map(|text| text.as_bytes().to_vec())
    }

    fn set_property(&mut self, name: &str, value: &[u8]) {
        let _ = self.call(format!("property {name}: {}", text(value)));
    }

    fn reroutes(&self) -> bool {
        !self.keeps_route
    }

    fn sends_on(&self) -> bool {
        self.sends_on
    }

    fn clear_route_cache(&mut self) {
        let _ = self.call("clear route cache");
    }

    fn reply(&mut self, status: u32, _: &[(&str, &str)], _: &[u8], details: &str) -> Result<(), Failed> {
        self.call(format!("reply {status} {details}"))?;
        if self.fails_to_reply { Err(Failed) } else { Ok(()) }
    }

    fn count(&mut self, metric: Metric) {
        self.counted.push(metric);
    }

    fn log_warning(&mut self, message: &str) {
        self.logged.push(message.to_owned());
    }

    fn log_error(&mut self, message: &str) {
        self.logged.push(message.to_owned());
    }
}

fn stream(settings: &str) -> Stream {
    let settings = format!(r#"{{"webhook_secret":"unverified",{settings}}}"#);
    Stream::new(Some(Arc::new(Config::parse(settings.as_bytes(), |_| Ok("x".repeat(32))).unwrap())))
}

fn holding() -> Stream {
    stream(r#""hold_request_headers": true"#)
}

fn streaming() -> Stream {
    stream(r#""hold_request_headers": false"#)
}

/// Sends headers and the whole body; returns the filter's last action.
fn serve(mut stream: Stream, host: &mut Fake) -> Action {
    stream.on_request_headers(host, false);
    let size = host.body.len();
    stream.on_request_body(host, size, true)
}

/// Only the route for mapped events leads to Segment. The host looks for the route when a header changes after the mark.
#[test]
fn held_headers_change_when_the_call_is_complete_and_marked() {
    let mut host = Fake::new(EVENT);
    let mut stream = holding();
    assert_eq!(stream.on_request_headers(&mut host, false), Action::Pause);
    assert_eq!(host.calls, [""; 0]);
    assert_eq!(stream.on_request_body(&mut host, EVENT.len() / 2, false), Action::Pause);
    assert_eq!(host.calls, [""; 0]);
    assert_eq!(stream.on_request_body(&mut host, EVENT.len(), true), Action::Continue);
    let [logged, wrapped, after @ ..] = host.calls.as_slice() else { panic!("{:?}", host.calls) };
    assert_eq!(logged, "property stigg_event: customer.updated");
    assert!(wrapped.starts_with(r#"wrap {"event":"customer_updated","userId":"acme""#) && wrapped.ends_with("… }"));
    let length = wrapped.chars().count() - "wrap  … ".len() + 2 + EVENT.len();
    let agent = concat!("set user-agent: stigg-segment-filter/", env!("CARGO_PKG_VERSION"));
    let key = "set authorization: Basic eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg6";
    let length = format!("set content-length: {length}");
    let (kind, path) = ("set content-type: application/json", "set :path: /x");
    assert_eq!(after, ["property stigg_mapped: true", kind, agent, key, &length, path, "remove cookie"]);
    assert_eq!(host.counted, [Metric::Forwarded]);
}

/// No header changes after the mark, so the filter asks for the route itself.
#[test]
fn headers_that_are_not_held_change_at_once() {
    let mut host = Fake::new(EVENT);
    let mut stream = streaming();
    assert_eq!(stream.on_request_headers(&mut host, false), Action::Continue);
    assert!(host.calls.contains(&"remove cookie".to_owned()));
    assert!(host.calls.contains(&"set stigg_segment_filter: admitted".to_owned()));
    assert!(host.calls.contains(&"remove content-length".to_owned()), "the host frames the body: {:?}", host.calls);
    host.calls.clear();
    assert_eq!(stream.on_request_body(&mut host, EVENT.len(), true), Action::Continue);
    let [_, wrapped, after @ ..] = host.calls.as_slice() else { panic!("{:?}", host.calls) };
    assert!(wrapped.starts_with("wrap "));
    assert_eq!(after, ["property stigg_mapped: true", "clear route cache"]);
}

/// Nothing has held them. Envoy crashes if it loses the route of a request that it sends on.
#[test]
fn a_request_that_has_left_keeps_its_route() {
    let mut host = Fake { sends_on: true, ..Fake::new(EVENT) };
    assert_eq!(serve(streaming(), &mut host), Action::Continue);
    assert_eq!(host.calls.last().unwrap(), "property stigg_mapped: true");
}

#[test]
fn a_host_that_keeps_the_route_is_asked_to_find_it_again() {
    let mut host = Fake { keeps_route: true, ..Fake::new(EVENT) };
    assert_eq!(serve(holding(), &mut host), Action::Continue);
    assert_eq!(host.calls.last().unwrap(), "clear route cache");
}

/// Some gateways can match a route only on headers.
#[test]
fn a_dynamic_module_also_marks_a_mapped_request_with_a_header() {
    let settings = br#"{"webhook_secret":"unverified"}"#;
    let config = Config::load(Shell::Native, settings.len(), Some(settings), |_| Ok("x".repeat(32)));
    let mut host = Fake::new(EVENT);
    let mut stream = Stream::new(Some(Arc::new(config.unwrap())));
    assert_eq!(stream.on_request_headers(&mut host, false), Action::Pause);
    assert_eq!(host.calls, [""; 0]);
    assert_eq!(stream.on_request_body(&mut host, EVENT.len(), true), Action::Continue);
    assert!(host.calls.contains(&"set stigg_segment_filter: admitted".to_owned()), "{:?}", host.calls);
}

#[test]
fn a_redacted_event_takes_the_place_of_the_body() {
    let mut host = Fake::new(EVENT);
    assert_eq!(serve(stream(r#""properties": {"remove": ["messageId"]}"#), &mut host), Action::Continue);
    let replaced = host.calls.iter().find(|call| call.starts_with("replace ")).unwrap();
    assert!(!host.calls.iter().any(|call| call.starts_with("wrap ")), "{:?}", host.calls);
    assert!(replaced.ends_with(r#""properties":{"type":"customer.updated","customer":{"id":"acme"}}}"#), "{replaced}");
}

/// 64 bytes at most. Half a character would make the line in the access log invalid UTF-8, and half an escape would say
/// something else.
#[test]
fn a_long_type_is_logged_up_to_the_last_whole_character() {
    for (tail, logged) in [
        ("aaaa and more", "aaaa"),
        ("aa€ and more", "aa"),
        ("a€ and more", "a€"),
        ("😀 and more", "😀"),
        ("a😀 and more", "a"),
        (r"aaa\n and more", "aaa"),
        (r"aa\n and more", r"aa\n"),
        (r"\u00e9 and more", ""),
        (r"\ud83d\ude00 and more", ""),
    ] {
        let start = "x".repeat(60);
        let mut host = Fake::new(format!(r#"{{"type":"{start}{tail}","customer":{{"id":"acme"}}}}"#));
        serve(holding(), &mut host);
        assert_eq!(host.calls[0], format!("property stigg_event: {start}{logged}"), "{tail}");
    }
}

#[test]
fn trailers_end_a_body_and_do_not_reach_segment() {
    let mut host = Fake::new(EVENT);
    let mut stream = holding();
    stream.on_request_headers(&mut host, false);
    assert_eq!(stream.on_request_body(&mut host, EVENT.len(), false), Action::Pause);
    assert_eq!(stream.on_request_trailers(&mut host), Action::Continue);
    assert_eq!(host.calls.last().unwrap(), "remove trailers");
}

/// Both ways, it is in place before anything goes on, and a request without it goes nowhere.
#[test]
fn a_write_key_in_the_filter_state_is_read_with_the_headers() {
    for hold in [true, false] {
        let settings = format!(r#""hold_request_headers": {hold}, "write_key": {{"filter_state": "key"}}"#);
        let config = format!(r#"{{"webhook_secret":"unverified",{settings}}}"#);
        let config = Arc::new(Config::parse(config.as_bytes(), |_| Ok(String::new())).unwrap());
        let mut warnings = Vec::new();
        for (file, header) in [("one\n", "Basic b25lOg=="), ("two\n", "Basic dHdvOg==")] {
            let mut host = Fake { filter_state: Some(file), ..Fake::new(EVENT) };
            assert_eq!(serve(Stream::new(Some(config.clone())), &mut host), Action::Continue);
            assert!(host.calls.contains(&format!("set authorization: {header}")), "{:?}", host.calls);
            warnings.extend(host.logged);
        }
        assert!(warnings.len() == 1 && warnings[0].starts_with("write_key: "), "it is warned once: {warnings:?}");
        let mut host = Fake::new(EVENT);
        assert_eq!(serve(Stream::new(Some(config)), &mut host), Action::Pause);
        assert_eq!(host.calls, ["reply 503 stigg_segment_write_key_unavailable"]);
        assert_eq!(host.counted, [Metric::Rejected("write_key_unavailable")]);
    }
}

/// No half-rewritten request is forwarded, and nothing is counted twice.
#[test]
fn if_the_host_fails_the_request_is_answered_500() {
    for stream in [holding, streaming] {
        for at in ["headers", "set content-type", "set authorization", "remove cookie", "body", "wrap"] {
            let mut host = Fake::failing(at);
            assert_eq!(serve(stream(), &mut host), Action::Pause, "{at}");
            assert_eq!(host.replies(), ["500 stigg_segment_internal"], "{at}");
            assert_eq!(host.counted, [Metric::Rejected("internal")], "{at}");
        }
    }
    let mut host = Fake::failing("replace");
    assert_eq!(serve(stream(r#""properties": {"remove": ["x"]}"#), &mut host), Action::Pause);
    assert_eq!(host.replies(), ["500 stigg_segment_internal"]);

    let mut host = Fake::failing("remove trailers");
    let mut stream = holding();
    stream.on_request_headers(&mut host, false);
    stream.on_request_body(&mut host, EVENT.len(), false);
    assert_eq!(stream.on_request_trailers(&mut host), Action::Pause);
    assert_eq!(host.replies(), ["500 stigg_segment_internal"]);
    assert_eq!(host.counted, [Metric::Rejected("internal")]);
}

#[test]
fn a_property_that_the_host_does_not_take_does_no_harm() {
    assert_eq!(serve(holding(), &mut Fake::failing("property")), Action::Continue);
}

#[test]
fn an_answer_that_the_host_does_not_take_is_logged() {
    let mut host = Fake { fails_to_reply: true, ..Fake::new("{}") };
    assert_eq!(serve(holding(), &mut host), Action::Pause);
    assert_eq!(host.logged, ["the host did not take the answer 204 no_customer"]);
}

#[test]
fn without_a_configuration_every_request_is_rejected() {
    let mut host = Fake::new(EVENT);
    assert_eq!(serve(Stream::new(None), &mut host), Action::Pause);
    assert_eq!(host.replies(), ["500 stigg_segment_internal"]);
}

#[test]
fn a_request_is_answered_only_once() {
    let mut host = Fake { headers: vec![(":method", "GET"), (":path", "/")], ..Fake::new(EVENT) };
    let mut stream = holding();
    assert_eq!(stream.on_request_headers(&mut host, false), Action::Pause);
    assert_eq!(stream.on_request_body(&mut host, 1_000_000, false), Action::Pause);
    assert_eq!(stream.on_request_body(&mut host, EVENT.len(), true), Action::Pause);
    assert_eq!(stream.on_request_trailers(&mut host), Action::Pause);
    assert_eq!(host.replies(), ["405 stigg_segment_method_not_allowed"]);
    assert_eq!(host.counted.len(), 1);
}

#[test]
fn a_body_over_the_limit_is_rejected_unread() {
    let over = 600_000;
    let mut host = Fake::failing("body");
    let mut stream = holding();
    stream.on_request_headers(&mut host, false);
    assert_eq!(stream.on_request_body(&mut host, over, false), Action::Pause);
    assert_eq!(host.replies(), ["413 stigg_segment_body_too_large"]);
    let mut host = Fake::failing("body");
    let mut stream = holding();
    stream.on_request_headers(&mut host, false);
    assert_eq!(stream.on_request_body(&mut host, over, true), Action::Pause);
    assert_eq!(host.replies(), ["413 stigg_segment_body_too_large"]);
}
