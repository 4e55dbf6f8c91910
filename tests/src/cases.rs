//! The cases: requests with their outcomes on any gateway that runs the module, in one table.
//!
//! `envoy/cases_on_envoy.rs` runs it on a real Envoy, `second_host` on another implementation of proxy-wasm.

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
/// That write key in a header: base64 of `<write key>:`.
const AUTHORIZATION: &str = "Basic d2swMTIzNDU2Nzg5YWJjZGVmZ2hpamtsbW5vcHFyc3Q6";
/// The webhook's secret.
pub const SECRET: &str = "whsec-current-5f2c";
/// The secret before the last rotation.
pub const PREVIOUS_SECRET: &str = "whsec-previous-77aa";
const SECRET_HEADER: &str = "stigg-webhooks-secret";

/// Where webhooks are received.
pub const PATH: &str = "/webhooks/stigg";
/// The stand-in's answer to everything.
pub const ANSWER: &str = r#"{"success":true}"#;

/// An event about a customer.
pub const EVENT: &str = r#"{"type":"customer.payment_failed", "messageId":"m-1","customer":{"id":"acme"}}"#;
/// An event that is not about a customer.
pub const CATALOG_EVENT: &str = r#"{"type":"plan.created","messageId":"m-2","id":"plan-pro"}"#;

/// The name of the source that the filter derives from the write key: `printf %s "$WRITE_KEY" | sha256sum`.
pub const KEYS_SOURCE: &str = "4d471f88";

/// The `messageId` of calls for an event with this id: between the two, it names the source by its write key.
pub fn message_id(stiggs: &str) -> String {
    format!("stigg-{KEYS_SOURCE}-{stiggs}")
}

/// The module's configuration.
pub fn configuration(hold_request_headers: bool) -> Value {
    json!({
        "webhook_secret": { "env": ["STIGG_WEBHOOK_SECRET", "STIGG_WEBHOOK_SECRET_PREVIOUS"] },
        "hold_request_headers": hold_request_headers,
    })
}

/// A request and its expected outcome.
#[derive(Debug)]
pub struct Case {
    /// What is special about it.
    pub name: String,
    /// The request.
    pub request: Request,
    /// The status of Segment's answer.
    pub segment_answers: u16,
    expected: Expected,
}

#[derive(Debug)]
enum Expected {
    /// A track call with these members, and Segment's answer to it.
    Call(Value),
    /// A 204, and no call.
    Ignored,
    /// An answer with this status and code.
    Rejected(u16, &'static str),
}

use Expected::{Call as Called, Ignored, Rejected};

/// A request, in the pieces that a host passes to the module.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: &'static str,
    /// The headers in their order. A value need not be UTF-8.
    pub headers: Vec<(&'static str, Vec<u8>)>,
    /// The body, piece by piece. Without any piece, the headers end the request; an empty piece follows the headers.
    pub body: Vec<Vec<u8>>,
    /// The trailers after the body.
    pub trailers: Vec<(&'static str, &'static str)>,
}

/// The outcome of a request.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The status of the answer.
    pub status: u16,
    /// The headers of the answer.
    pub headers: Headers,
    /// The body of the answer.
    pub body: Vec<u8>,
    /// The call that reached Segment, if any.
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

/// Headers, unchanged.
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

    /// Whether trailers follow the body.
    pub fn has_trailers(&self) -> bool {
        !self.trailers.is_empty()
    }
}

/// The table.
pub fn cases() -> Result<Vec<Case>> {
    let called =
        || Called(json!({"event": "customer_payment_failed", "userId": "acme", "messageId": message_id("m-1")}));
    let customer = || Request::post(EVENT);
    let catalog = || Request::post(CATALOG_EVENT);
    let empty = || Request { body: vec![vec![]], ..Request::post("").without("content-length") };
    let mut cases: Vec<Case> = [
        // Ways to send a body.
        ("in one piece", customer(), called()),
        ("byte by byte", customer().in_pieces(1), called()),
        ("announced, and byte by byte", Request { headers: customer().headers, ..customer().in_pieces(1) }, called()),
        ("not announced", customer().in_pieces(1000), called()),
        ("its end after the last byte", Request { body: vec![EVENT.into(), vec![]], ..customer() }, called()),
        ("with trailers", customer().trailer("x-checksum", "1").trailer(SECRET_HEADER, SECRET), called()),
        ("in pieces, with trailers", customer().in_pieces(7).trailer("x-checksum", "1"), called()),
        // Ignored events.
        ("not about a customer", catalog(), Ignored),
        ("not about a customer, in pieces", catalog().in_pieces(7), Ignored),
        ("not about a customer, with trailers", catalog().trailer("x-checksum", "1"), Ignored),
        // Secrets.
        ("the previous secret", customer().secrets(&[PREVIOUS_SECRET.as_bytes()]), called()),
        ("two valid secrets", customer().secrets(&[SECRET.as_bytes(), PREVIOUS_SECRET.as_bytes()]), called()),
        ("no secret", customer().secrets(&[]), Rejected(401, "unauthorized")),
        ("an empty secret", customer().secrets(&[b""]), Rejected(401, "unauthorized")),
        ("a wrong secret", customer().secrets(&[b"whsec-current-5f2d"]), Rejected(401, "unauthorized")),
        ("a secret cut short", customer().secrets(&[b"whsec-current-5f2"]), Rejected(401, "unauthorized")),
        ("a secret that is not UTF-8", customer().secrets(&[b"\xFF"]), Rejected(401, "unauthorized")),
        ("a wrong secret first", customer().secrets(&[b"x", SECRET.as_bytes()]), Rejected(401, "unauthorized")),
        ("a wrong secret last", customer().secrets(&[SECRET.as_bytes(), b"x"]), Rejected(401, "unauthorized")),
        ("a stranger, with trailers", customer().secrets(&[]).trailer("x", "1"), Rejected(401, "unauthorized")),
        // Headers and methods.
        ("headers that are not UTF-8", customer().header("x-odd", b"\xFF").header("cookie", b"\xFF"), called()),
        ("headers that are no concern of Segment's", curious(customer()), called()),
        ("no encoding", customer().header("content-encoding", "Identity"), called()),
        ("gzip", customer().header("content-encoding", "gzip"), Rejected(415, "unsupported_content_encoding")),
        ("GET", Request { method: "GET", ..customer() }, Rejected(405, "method_not_allowed")),
        ("PUT", Request { method: "PUT", ..customer().in_pieces(7) }, Rejected(405, "method_not_allowed")),
        // Bodies that cannot be mapped.
        ("no body", Request { body: vec![], ..Request::post("") }, Rejected(400, "empty_body")),
        ("an empty body", empty(), Rejected(400, "empty_body")),
        ("trailers only", Request { body: vec![], ..empty() }.trailer("x", "1"), Rejected(400, "empty_body")),
        ("an empty body, with trailers", empty().trailer("x", "1"), Rejected(400, "empty_body")),
        ("not JSON", Request::post(r#"{"type":"a","customer":{"id":"c"},}"#), Rejected(400, "malformed_json")),
        ("cut short", Request::post(&EVENT[..20]).in_pieces(3), Rejected(400, "malformed_json")),
        ("not UTF-8", Request::post(b"{\"type\":\"\xFF\"}"), Rejected(400, "malformed_json")),
        ("not JSON, with trailers", Request::post("{").trailer("x", "1"), Rejected(400, "malformed_json")),
        ("an array", Request::post("[]"), Rejected(400, "not_an_object")),
        ("no type", Request::post(r#"{"customer":{"id":"c"}}"#), Rejected(400, "invalid_type")),
        (
            "an odd customer",
            Request::post(r#"{"type":"a","customer":{"id":[]}}"#),
            Rejected(400, "invalid_customer_id"),
        ),
        // Sizes.
        ("the largest body", Request::post(padded(BODY_MAX, "")), Ignored),
        ("the largest body, in pieces", Request::post(padded(BODY_MAX, "")).in_pieces(10_000), Ignored),
        ("a larger body", Request::post(padded(BODY_MAX + 1, "")), Rejected(413, "body_too_large")),
        (
            "a larger body, in pieces",
            Request::post(padded(BODY_MAX + 1, "")).in_pieces(10_000),
            Rejected(413, "body_too_large"),
        ),
        (
            "a larger body, with trailers",
            Request::post(padded(BODY_MAX + 1, "")).in_pieces(100_000).trailer("x", "1"),
            Rejected(413, "body_too_large"),
        ),
        ("a larger call", Request::post(padded(CALL_MAX, "c")), Rejected(413, "call_too_large")),
        (
            "a larger call, with trailers",
            Request::post(padded(CALL_MAX, "c")).in_pieces(10_000).trailer("x", "1"),
            Rejected(413, "call_too_large"),
        ),
        (
            "a large call",
            Request::post(padded(CALL_MAX - 500, "c")).in_pieces(1000),
            Called(json!({"event": "a", "userId": "c", "messageId": message_id("m")})),
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

/// An event of exactly this size.
fn padded(size: usize, customer: &str) -> String {
    let (head, tail) = (format!(r#"{{"type":"a","messageId":"m","customer":{{"id":"{customer}"}},"x":""#), r#""}"#);
    format!("{head}{}{tail}", "x".repeat(size - head.len() - tail.len()))
}

/// A request with every header that a proxy or a sender may have added.
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

/// Every event that Stigg documents, with its call from `tests/fixtures`.
fn documented_events() -> Result<Vec<Case>> {
    let case = |mut fixture: Fixture| {
        // The fixtures' calls are without a source.
        if let Some(id) = fixture.track["messageId"].as_str().and_then(|id| id.strip_prefix("stigg-")) {
            fixture.track["messageId"] = message_id(id).into();
        }
        Case {
            name: format!("{}.json", fixture.name),
            request: Request::post(fixture.event),
            segment_answers: 200,
            expected: if fixture.track.is_null() { Ignored } else { Called(fixture.track) },
        }
    };
    Ok(fixtures()?.into_iter().map(case).collect())
}

/// The beginning of a body, for a message.
fn shown(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().take(300).collect()
}

impl Case {
    /// Whether Envoy before 1.37 rejects its body.
    pub fn is_large(&self) -> bool {
        ["the largest body", "a larger body"].iter().any(|large| self.name.starts_with(large))
    }

    /// Checks an outcome.
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
            (Rejected(status, code), None) => {
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
    /// Checks that the call has these members (without a `messageId`, a derived one), the event as its `properties`, and
    /// exactly the headers that Segment needs.
    fn check(&self, expected: &Value, properties: &[u8]) -> Result<()> {
        let body = shown(&self.body);
        let track: Value = serde_json::from_slice(&self.body).with_context(|| format!("called with {body}"))?;
        for member in ["event", "userId", "messageId", "timestamp"] {
            let as_expected = match &expected[member] {
                Value::Null if member == "messageId" => {
                    track[member].as_str().is_some_and(|id| id.starts_with(&message_id("sha256-")))
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
