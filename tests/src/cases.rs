//! What becomes of a request in any gateway that has the module in it: one table, which knows of no host.
//!
//! `envoy/portable.rs` holds a real Envoy to it, `second_host` a gateway on another implementation of proxy-wasm.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::fixtures::{Fixture, fixtures};

/// The environment that the module reads its secrets from.
pub const ENVIRONMENT: [(&str, &str); 3] = [
    ("SEGMENT_WRITE_KEY", WRITE_KEY),
    ("STIGG_WEBHOOK_SECRET", SECRET),
    ("STIGG_WEBHOOK_SECRET_PREVIOUS", PREVIOUS_SECRET),
];
/// The write key. As long as Segment's own.
pub const WRITE_KEY: &str = "wk0123456789abcdefghijklmnopqrst";
/// What that write key is in a header: base64 of `<write key>:`.
const AUTHORIZATION: &str = "Basic d2swMTIzNDU2Nzg5YWJjZGVmZ2hpamtsbW5vcHFyc3Q6";
/// The webhook's secret.
pub const SECRET: &str = "whsec-current-5f2c";
/// The secret before the last rotation.
pub const PREVIOUS_SECRET: &str = "whsec-previous-77aa";
const SECRET_HEADER: &str = "stigg-webhooks-secret";

/// Where webhooks are received.
pub const PATH: &str = "/webhooks/stigg";
/// What the stand-in for Segment says to whatever it gets.
pub const ANSWER: &str = r#"{"success":true}"#;

/// An event about a customer.
pub const EVENT: &str = r#"{"type":"customer.payment_failed", "messageId":"m-1","customer":{"id":"acme"}}"#;
/// An event that is not about a customer.
pub const CATALOG_EVENT: &str = r#"{"type":"plan.created","messageId":"m-2","id":"plan-pro"}"#;

/// The module's configuration.
pub fn configuration(hold_request_headers: bool) -> Value {
    json!({
        "webhook_secret": { "env": ["STIGG_WEBHOOK_SECRET", "STIGG_WEBHOOK_SECRET_PREVIOUS"] },
        "hold_request_headers": hold_request_headers,
    })
}

/// A request and what becomes of it.
#[derive(Debug)]
pub struct Case {
    /// What is special about it.
    pub name: String,
    /// What comes in.
    pub request: Request,
    /// The status of Segment's answer.
    pub segment_answers: u16,
    expected: Expected,
}

#[derive(Debug)]
enum Expected {
    /// A track call with these members, and Segment's answer to it.
    Call(Value),
    /// Nothing more: 204.
    Ignored,
    /// An answer with this status and code.
    Refused(u16, &'static str),
}

use Expected::{Call as Called, Ignored, Refused};

/// A request, in the pieces that a host hands to the module.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: &'static str,
    /// The headers in their order. A value need not be UTF-8.
    pub headers: Vec<(&'static str, Vec<u8>)>,
    /// The body piece by piece. Where there is none at all, the headers end the request; an empty one follows them.
    pub body: Vec<Vec<u8>>,
    /// What comes behind the body.
    pub trailers: Vec<(&'static str, &'static str)>,
}

/// What became of a request.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The status of the answer.
    pub status: u16,
    /// The headers of the answer.
    pub headers: Headers,
    /// The body of the answer.
    pub body: Vec<u8>,
    /// What reached Segment, if anything did.
    pub call: Option<Call>,
}

/// A request that reached Segment.
#[derive(Debug)]
pub struct Call {
    /// Its headers.
    pub headers: Headers,
    /// Its body.
    pub body: Vec<u8>,
    /// How many trailers it has.
    pub trailers: usize,
}

/// Headers as they came.
pub type Headers = Vec<(String, Vec<u8>)>;

impl Request {
    /// A webhook with the right secret, its body in one piece and announced.
    pub fn post(body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let headers = vec![
            (SECRET_HEADER, SECRET.into()),
            ("content-type", "application/json".into()),
            ("content-length", body.len().to_string().into()),
        ];
        Self { method: "POST", headers, body: vec![body], trailers: Vec::new() }
    }

    /// The same in pieces of this size, the size of the whole not announced.
    fn in_pieces(mut self, size: usize) -> Self {
        self.body = self.body.concat().chunks(size).map(<[u8]>::to_vec).collect();
        self.without("content-length")
    }

    fn header(mut self, name: &'static str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self
    }

    fn secrets(self, secrets: &[&[u8]]) -> Self {
        let request = self.without(SECRET_HEADER);
        secrets.iter().fold(request, |request, &secret| request.header(SECRET_HEADER, secret))
    }

    fn trailer(mut self, name: &'static str, value: &'static str) -> Self {
        self.trailers.push((name, value));
        self
    }

    /// Whether something comes behind the body.
    pub fn has_trailers(&self) -> bool {
        !self.trailers.is_empty()
    }
}

/// The table.
pub fn cases() -> Result<Vec<Case>> {
    let called = || Called(json!({"event": "customer_payment_failed", "userId": "acme", "messageId": "stigg-m-1"}));
    let customer = || Request::post(EVENT);
    let catalog = || Request::post(CATALOG_EVENT);
    let empty = || Request { body: vec![vec![]], ..Request::post("").without("content-length") };
    let mut cases: Vec<Case> = [
        // How a body may come.
        ("in one piece", customer(), called()),
        ("byte by byte", customer().in_pieces(1), called()),
        ("announced, and byte by byte", Request { headers: customer().headers, ..customer().in_pieces(1) }, called()),
        ("not announced", customer().in_pieces(1000), called()),
        ("its end after the last byte", Request { body: vec![EVENT.into(), vec![]], ..customer() }, called()),
        ("with trailers", customer().trailer("x-checksum", "1").trailer(SECRET_HEADER, SECRET), called()),
        ("in pieces, with trailers", customer().in_pieces(7).trailer("x-checksum", "1"), called()),
        // What is ignored.
        ("not about a customer", catalog(), Ignored),
        ("not about a customer, in pieces", catalog().in_pieces(7), Ignored),
        ("not about a customer, with trailers", catalog().trailer("x-checksum", "1"), Ignored),
        // Who is let in.
        ("the previous secret", customer().secrets(&[PREVIOUS_SECRET.as_bytes()]), called()),
        ("two valid secrets", customer().secrets(&[SECRET.as_bytes(), PREVIOUS_SECRET.as_bytes()]), called()),
        ("no secret", customer().secrets(&[]), Refused(401, "unauthorized")),
        ("an empty secret", customer().secrets(&[b""]), Refused(401, "unauthorized")),
        ("a wrong secret", customer().secrets(&[b"whsec-current-5f2d"]), Refused(401, "unauthorized")),
        ("a secret cut short", customer().secrets(&[b"whsec-current-5f2"]), Refused(401, "unauthorized")),
        ("a secret that is not UTF-8", customer().secrets(&[b"\xFF"]), Refused(401, "unauthorized")),
        ("a wrong secret first", customer().secrets(&[b"x", SECRET.as_bytes()]), Refused(401, "unauthorized")),
        ("a wrong secret last", customer().secrets(&[SECRET.as_bytes(), b"x"]), Refused(401, "unauthorized")),
        ("a stranger, with trailers", customer().secrets(&[]).trailer("x", "1"), Refused(401, "unauthorized")),
        // What is in the headers.
        ("headers that are not UTF-8", customer().header("x-odd", b"\xFF").header("cookie", b"\xFF"), called()),
        ("headers that are no concern of Segment's", curious(customer()), called()),
        ("no encoding", customer().header("content-encoding", "Identity"), called()),
        ("gzip", customer().header("content-encoding", "gzip"), Refused(415, "unsupported_content_encoding")),
        ("GET", Request { method: "GET", ..customer() }, Refused(405, "method_not_allowed")),
        ("PUT", Request { method: "PUT", ..customer().in_pieces(7) }, Refused(405, "method_not_allowed")),
        // What cannot be mapped.
        ("no body", Request { body: vec![], ..Request::post("") }, Refused(400, "empty_body")),
        ("an empty body", empty(), Refused(400, "empty_body")),
        ("trailers only", Request { body: vec![], ..empty() }.trailer("x", "1"), Refused(400, "empty_body")),
        ("an empty body, with trailers", empty().trailer("x", "1"), Refused(400, "empty_body")),
        ("not JSON", Request::post(r#"{"type":"a","customer":{"id":"c"},}"#), Refused(400, "malformed_json")),
        ("cut short", Request::post(&EVENT[..20]).in_pieces(3), Refused(400, "malformed_json")),
        ("not UTF-8", Request::post(b"{\"type\":\"\xFF\"}"), Refused(400, "malformed_json")),
        ("not JSON, with trailers", Request::post("{").trailer("x", "1"), Refused(400, "malformed_json")),
        ("an array", Request::post("[]"), Refused(400, "not_an_object")),
        ("no type", Request::post(r#"{"customer":{"id":"c"}}"#), Refused(400, "invalid_type")),
        ("an odd customer", Request::post(r#"{"type":"a","customer":{"id":[]}}"#), Refused(400, "invalid_customer_id")),
        // What is too large.
        ("the largest body", Request::post(padded(BODY_MAX, "")), Ignored),
        ("the largest body, in pieces", Request::post(padded(BODY_MAX, "")).in_pieces(10_000), Ignored),
        ("a larger body", Request::post(padded(BODY_MAX + 1, "")), Refused(413, "body_too_large")),
        (
            "a larger body, in pieces",
            Request::post(padded(BODY_MAX + 1, "")).in_pieces(10_000),
            Refused(413, "body_too_large"),
        ),
        (
            "a larger body, with trailers",
            Request::post(padded(BODY_MAX + 1, "")).in_pieces(100_000).trailer("x", "1"),
            Refused(413, "body_too_large"),
        ),
        ("a larger call", Request::post(padded(CALL_MAX, "c")), Refused(413, "call_too_large")),
        (
            "a larger call, with trailers",
            Request::post(padded(CALL_MAX, "c")).in_pieces(10_000).trailer("x", "1"),
            Refused(413, "call_too_large"),
        ),
        (
            "a large call",
            Request::post(padded(CALL_MAX - 500, "c")).in_pieces(1000),
            Called(json!({"event": "a", "userId": "c", "messageId": "stigg-m"})),
        ),
    ]
    .into_iter()
    .map(|(name, request, expected)| Case { name: name.to_owned(), request, segment_answers: 200, expected })
    .collect();
    for status in [400, 422] {
        let name = format!("Segment answers {status}");
        cases.push(Case { name, request: customer(), segment_answers: status, expected: called() });
    }
    cases.extend(documented_events()?);
    Ok(cases)
}

/// `max_body_bytes`, unless it is configured.
const BODY_MAX: usize = 512 * 1024;
/// `max_call_bytes`, unless it is configured.
const CALL_MAX: usize = 32 * 1024;

/// An event of just this size.
fn padded(size: usize, customer: &str) -> String {
    let (head, tail) = (format!(r#"{{"type":"a","messageId":"m","customer":{{"id":"{customer}"}},"x":""#), r#""}"#);
    format!("{head}{}{tail}", "x".repeat(size - head.len() - tail.len()))
}

/// A request with all that a proxy or a sender may have added.
fn curious(request: Request) -> Request {
    [
        ("cookie", "session=1"),
        ("authorization", "Basic aW5ib3VuZDo="),
        ("proxy-authorization", "Basic aW5ib3VuZDo="),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-host", "edge.example.com"),
        ("x-api-key", "k"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("accept-encoding", "gzip"),
        ("user-agent", "Stigg"),
    ]
    .into_iter()
    .fold(request, |request, (name, value)| request.header(name, value))
}

/// Every event that Stigg documents, and what `rules/mapping.rs` says it becomes.
fn documented_events() -> Result<Vec<Case>> {
    let case = |fixture: Fixture| Case {
        name: format!("{}.json", fixture.name),
        request: Request::post(fixture.event),
        segment_answers: 200,
        expected: if fixture.track.is_null() { Ignored } else { Called(fixture.track) },
    };
    Ok(fixtures()?.into_iter().map(case).collect())
}

/// The beginning of a body, for a message.
fn shown(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().take(300).collect()
}

impl Case {
    /// Whether its body is one that Envoy before 1.37 does not take.
    pub fn is_large(&self) -> bool {
        ["the largest body", "a larger body"].iter().any(|large| self.name.starts_with(large))
    }

    /// Whether that is what should have become of it.
    pub fn check(&self, outcome: &Outcome) -> Result<()> {
        let body = shown(&outcome.body);
        match (&self.expected, &outcome.call) {
            (Called(expected), Some(call)) => {
                ensure!(outcome.status == self.segment_answers, "answered {} {body}", outcome.status);
                ensure!(body == ANSWER, "Segment's answer became {body}");
                call.check(expected, &self.request.body.concat())
            }
            (Called(_), None) => anyhow::bail!("nothing reached Segment; answered {} {body}", outcome.status),
            (_, Some(call)) => anyhow::bail!("this reached Segment: {}", shown(&call.body)),
            (Ignored, None) => {
                ensure!(outcome.status == 204 && body.is_empty(), "answered {} {body}", outcome.status);
                Ok(())
            }
            (Refused(status, code), None) => {
                let said: Value = serde_json::from_slice(&outcome.body).with_context(|| format!("answered {body}"))?;
                ensure!(
                    (outcome.status, &said["code"]) == (*status, &json!(code)),
                    "answered {} {body}",
                    outcome.status
                );
                ensure!(said["message"].as_str().is_some_and(|message| message.ends_with('.')), "answered {body}");
                let allow = (*status == 405).then_some("post");
                for (name, value) in [("content-type", Some("application/json")), ("allow", allow)] {
                    let said = outcome.header(name);
                    ensure!(said.as_deref() == value, "{name} is {said:?}");
                }
                Ok(())
            }
        }
    }
}

impl Outcome {
    /// A header of the answer, in lower case.
    fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(other, _)| other == name)?;
        Some(String::from_utf8_lossy(value).to_lowercase())
    }
}

impl Call {
    /// Whether it has these members (without a `messageId`, one that was derived), `properties` as they came, and the
    /// headers that Segment needs and no other.
    fn check(&self, expected: &Value, properties: &[u8]) -> Result<()> {
        let body = shown(&self.body);
        let track: Value = serde_json::from_slice(&self.body).with_context(|| format!("called with {body}"))?;
        for member in ["event", "userId", "messageId", "timestamp"] {
            let as_expected = match &expected[member] {
                Value::Null if member == "messageId" => {
                    track[member].as_str().is_some_and(|id| id.starts_with("stigg-sha256-"))
                }
                value => track[member] == *value,
            };
            ensure!(as_expected, "{member} is {} in {body}", track[member]);
        }
        let tail = [br#""properties":"#, properties, b"}"].concat();
        ensure!(self.body.ends_with(&tail), "the properties are not what came in: {body}");

        let of_the_host =
            |name: &str| name.starts_with(':') || ["host", "x-forwarded-proto", "x-request-id"].contains(&name);
        let mut headers = BTreeMap::new();
        for (name, value) in self.headers.iter().filter(|(name, _)| !of_the_host(name)) {
            let value = std::str::from_utf8(value)?;
            ensure!(headers.insert(&**name, value).is_none(), "{name} is there twice: {:?}", self.headers);
        }
        let length = headers.remove("content-length").map(str::parse::<usize>).transpose()?;
        ensure!(length.is_none_or(|length| self.body.len() == length), "{length:?} announced for {body}");
        let user_agent = headers.remove("user-agent").context("no user-agent")?;
        ensure!(user_agent.starts_with("stigg-segment-filter/"), "the user-agent is {user_agent}");
        let expected = [("authorization", AUTHORIZATION), ("content-type", "application/json")];
        ensure!(headers == BTreeMap::from(expected), "{headers:?}");
        ensure!(self.trailers == 0, "{} trailers", self.trailers);
        Ok(())
    }
}
