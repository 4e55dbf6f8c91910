//! What is open in a gateway whose configuration lacks something: what gets to Segment, or is answered 2xx, and must not.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use sandbox::envoy::{self, Config, Envoy};
use sandbox::segment::{Behaviour, Call, HOSTS, Options, Segment, Transport};
use sandbox::stigg::Webhook;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::edge::*;

/// An event about a customer.
fn event(message_id: &str) -> String {
    format!(r#"{{"type":"customer.payment_failed","messageId":"{message_id}","customer":{{"id":"acme"}}}}"#)
}

/// The ids of the events that may be sent: Segment accepts the first one.
const TAKEN: &str = "taken";
const REJECTED: &str = "rejected";
/// The id of the one to another path.
const ASTRAY: &str = "astray";

/// Whether a call is for the event with this id, whatever the ids of calls begin with.
fn is_for(call: &Call, id: &str) -> bool {
    call.json()["messageId"]
        .as_str()
        .is_some_and(|whole| whole.starts_with("stigg-") && whole.ends_with(&format!("-{id}")))
}

/// Whether a call goes where Segment's API is.
pub fn is_addressed_to_segment(call: &Call) -> bool {
    call.method == "POST"
        && ["/v1/track", "/v1/batch"].contains(&call.path.as_str())
        && call.host.as_deref().is_some_and(|host| HOSTS.iter().any(|own| own.eq_ignore_ascii_case(host)))
}

/// What a gateway does.
#[derive(Debug, Default, PartialEq)]
pub struct Doors {
    /// Whether an event gets to Segment.
    pub works: bool,
    /// What is open; nothing if it works or fails closed.
    pub open: Vec<String>,
}

/// Asks a gateway what a sender could. Each request must have an answer within `bound`.
pub async fn doors(edge: &Edge, bound: Duration) -> Result<Doors> {
    edge.segment.behave_with(|call| if is_for(call, REJECTED) { Behaviour::status(400) } else { Behaviour::Accept });
    let half = event("half")[..40].to_owned();
    let large = event("large").replace("acme", &"x".repeat(600 * 1024));
    // Without a secret, Envoy fills in "-" for it.
    let cases = [
        ("an event", PATH, Some(SECRET), event(TAKEN)),
        ("a wrong secret", PATH, Some("wrong"), event("wrong-secret")),
        ("the secret `-`", PATH, Some("-"), event("dash")),
        ("no secret", PATH, None, event("no-secret")),
        ("half an event", PATH, Some(SECRET), half),
        ("an event that is not sent", PATH, Some(SECRET), CATALOG_EVENT.to_owned()),
        ("a large event", PATH, Some(SECRET), large),
        ("an event that Segment rejects", PATH, Some(SECRET), event(REJECTED)),
        ("an event to the health check", "/healthz", Some(SECRET), event(ASTRAY)),
    ];
    let mut asked = JoinSet::new();
    for (what, path, secret, body) in cases {
        let url = edge.envoy.url(path);
        let webhook = Webhook::new(body).header(MARK.0, MARK.1);
        let webhook = if let Some(secret) = secret { webhook.secret(secret) } else { webhook };
        asked.spawn(async move {
            let reply = tokio::time::timeout(bound, webhook.send(&url)).await;
            (what, reply.map(|reply| reply.ok().map(|reply| reply.status)))
        });
    }
    let statuses = asked.join_all().await;
    let works = edge.segment.accepted().iter().any(|call| is_for(call, TAKEN));
    let mut open = Vec::new();
    for (what, status) in statuses {
        match status {
            Err(_) => open.push(format!("{what}: no answer after {bound:?}")),
            Ok(Some(200)) if what == "an event" && works => {}
            Ok(Some(204)) if what == "an event that is not sent" => {}
            Ok(Some(status @ 200..=299)) => open.push(format!("{what}: answered {status}")),
            Ok(_) => {}
        }
    }
    let calls = edge.segment.calls();
    if edge.segment.requests_begun() != calls.len() {
        open.push(format!("{INCOMPLETE}: {} of {}", calls.len(), edge.segment.requests_begun()));
    }
    if edge.segment.unencrypted() > 0 {
        open.push(UNENCRYPTED.to_owned());
    }
    for call in calls {
        if !is_addressed_to_segment(&call) {
            open.push(format!("{ELSEWHERE}: {} {:?} {}", call.method, call.host, call.path));
        }
        if call.write_key.as_deref() != Some(WRITE_KEY) {
            open.push(format!("{OTHER_KEY}: {:?}", call.write_key));
        }
        let text = format!("{call:?}");
        let is_in_a_header = |secret: &str| format!("{:?}", call.headers).contains(secret);
        if !is_whole(&call) || text.contains(SECRET) || is_in_a_header(WRITE_KEY) {
            open.push(format!("Segment gets {}", text.chars().take(500).collect::<String>()));
        }
    }
    Ok(Doors { works, open })
}

/// What is open if servers get calls that cannot prove to be Segment: by an unknown authority, and under another name. `config`
/// is that of a gateway in front of one. It trusts the authority, if there is one, in place of the server's own.
pub async fn impostors(
    options: &envoy::Options,
    config: impl Fn(&Segment, Option<&Path>) -> Result<Config>,
) -> Result<Vec<String>> {
    let genuine = Segment::start().await?;
    let mut open = Vec::new();
    for (name, authority) in [(HOSTS[0], genuine.ca_file()), ("example.com", None)] {
        let impostor = Options { transport: Transport::tls_for([name]), ..Options::default() };
        let segment = Segment::start_with(impostor).await?;
        let envoy = Envoy::start(config(&segment, authority)?, options.clone()).await?;
        let edge = Edge { envoy, segment };
        edge.ask(post(EVENT)).await?;
        if edge.segment.requests_begun() > 0 {
            open.push(format!("{IMPOSTOR}: {name}"));
        }
    }
    Ok(open)
}

/// How an opening begins if a server gets calls that cannot prove to be Segment.
pub const IMPOSTOR: &str = "an impostor gets calls";
/// How an opening begins if a call goes to another path or host name.
pub const ELSEWHERE: &str = "a call goes elsewhere";
/// What an opening is if a call is not encrypted.
pub const UNENCRYPTED: &str = "a call is not encrypted";
/// How it begins if only the head of a request reaches Segment, which depends on when its body arrives.
pub const INCOMPLETE: &str = "complete requests to Segment";
/// How it begins if a call has another write key.
pub const OTHER_KEY: &str = "a call has another write key";

/// The header by which the filter marks an admitted event for the gateways' routes. Any sender can send it.
pub const MARK: (&str, &str) = ("stigg_segment_filter", "admitted");

/// Whether a call is a whole event that may be sent.
fn is_whole(call: &Call) -> bool {
    let body = call.json();
    let mapped = [TAKEN, REJECTED, ASTRAY].iter().find(|id| is_for(call, id));
    mapped.is_some_and(|id| {
        body["event"] == "customer_payment_failed"
            && body["userId"] == "acme"
            && body["properties"] == serde_json::from_str::<Value>(&event(id)).unwrap_or_default()
    })
}
