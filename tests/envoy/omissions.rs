//! What if one thing in `envoy.yaml` is missing or wrong? Each node is left out, and each value is changed, one at a
//! time. Envoy rejects such a configuration, or the gateway works, or it fails closed.
//!
//! `make test` looks at the filter, the routes and the health check; `make test-omissions` at everything.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use sandbox::envoy::{Config, Envoy, HTTP_CONNECTION_MANAGER, Options, ROUTE};
use sandbox::segment::{Behaviour, Segment};
use sandbox::stigg::Webhook;
use serde_json::{Value, json};
use tests::edge::*;

/// Set to look at everything.
const ALL: &str = "ALL_OMISSIONS";
/// How many Envoys run at once.
const AT_ONCE: usize = 2;
/// Until then every request has an answer. Envoy's own timeouts are shortened for it; `tests/rules/facts.rs` holds the
/// shipped ones below Stigg's 30 s, and `vm.rs` waits for one of them.
const BOUND: Duration = Duration::from_secs(8);

/// An event about a customer.
fn event(message_id: &str) -> String {
    format!(r#"{{"type":"customer.payment_failed","messageId":"{message_id}","customer":{{"id":"acme"}}}}"#)
}

const TAKEN: &str = "taken";
const NOT_TAKEN: &str = "not-taken";

/// The shipped configuration with short timeouts.
fn base(segment: &Segment) -> Result<Config> {
    Config::sandboxed(segment)?
        .set(&format!("{HTTP_CONNECTION_MANAGER}/stream_idle_timeout"), json!("3s"))?
        .set(&format!("{HTTP_CONNECTION_MANAGER}/request_timeout"), json!("2s"))?
        .set(&format!("{ROUTE}/route/timeout"), json!("2s"))
}

/// Whether a node is looked at.
fn is_looked_at(path: &str) -> bool {
    let Some((_, within)) = path.split_once("/envoy.filters.network.http_connection_manager/typed_config") else {
        return !path.starts_with("/admin") && looks_at_everything();
    };
    let is_one_of = |parts: &[&str]| parts.iter().any(|part| within.starts_with(part));
    // Without any HTTP filter Envoy never answers.
    let is_left_alone = within == "/http_filters" || is_one_of(&["/access_log", "/local_reply_config"]);
    let closes_the_way = is_one_of(&[
        "/http_filters/health_check",
        "/http_filters/stigg_segment",
        "/route_config/virtual_hosts/webhooks/routes/healthz",
        "/route_config/virtual_hosts/webhooks/routes/stigg_to_segment",
        "/route_config/virtual_hosts/webhooks/routes/filter_missing",
    ]);
    !is_left_alone && (closes_the_way || looks_at_everything())
}

fn looks_at_everything() -> bool {
    std::env::var_os(ALL).is_some()
}

/// The paths of everything in a value that is looked at.
fn paths(value: &Value, path: &str, found: &mut Vec<String>) {
    let mut add = |key: &str, inner: &Value| {
        let path = format!("{path}/{key}");
        if is_looked_at(&path) {
            found.push(path.clone());
        }
        paths(inner, &path, found);
    };
    match value {
        Value::Object(object) => object.iter().for_each(|(key, inner)| add(key, inner)),
        Value::Array(list) => {
            for (n, inner) in list.iter().enumerate() {
                add(inner["name"].as_str().unwrap_or(&n.to_string()), inner);
            }
        }
        _ => {}
    }
}

/// Wrong values in place of one.
fn wrong_values(right: &Value) -> Vec<Value> {
    let mut wrong = match right {
        Value::Bool(right) => vec![json!(!right)],
        Value::Number(right) => match right.as_u64() {
            Some(right) => vec![json!(0), json!(right.saturating_mul(1000))],
            None => vec![json!(0), json!(right.as_f64().unwrap_or_default() * 1000.0)],
        },
        Value::String(text) => {
            let swapped: String = text
                .chars()
                .map(|c| if c.is_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() })
                .collect();
            let mut wrong = vec![json!(format!("{text}x")), json!(swapped)];
            if let Some(seconds) = text.strip_suffix('s').and_then(|number| number.parse::<f64>().ok()) {
                wrong.extend([json!("0s"), json!(format!("{}s", seconds * 1000.0))]);
            }
            wrong
        }
        _ => vec![],
    };
    wrong.retain(|wrong| wrong != right);
    wrong
}

/// What is open in this gateway; nothing if it works or fails closed. `None` if Envoy does not serve it.
async fn openings(change: impl FnOnce(Config) -> Result<Config>) -> Result<Option<Vec<String>>> {
    let segment = Segment::start().await?;
    segment.behave_with(|call| {
        let takes = call.json()["messageId"] != message_id(NOT_TAKEN);
        if takes { Behaviour::Accept } else { Behaviour::status(400) }
    });
    let options = Options { patience: Duration::from_secs(15), log_level: "off".to_owned(), ..options() };
    let config = change(base(&segment)?)?;
    let Ok(envoy) = Envoy::start(config, options).await else { return Ok(None) };

    let large = event("large").replace("acme", &"x".repeat(600 * 1024));
    let cases = [
        (PATH, Some(SECRET), event(TAKEN)),
        (PATH, Some("wrong"), event("wrong-secret")),
        (PATH, None, event("no-secret")),
        (PATH, Some(SECRET), event("half")[..40].to_owned()),
        (PATH, Some(SECRET), CATALOG_EVENT.to_owned()),
        (PATH, Some(SECRET), large),
        (PATH, Some(SECRET), event(NOT_TAKEN)),
        ("/healthz", Some(SECRET), event("to-the-health-check")),
    ];
    let mut asked = tokio::task::JoinSet::new();
    for (n, (path, secret, body)) in cases.into_iter().enumerate() {
        let url = envoy.url(path);
        let webhook = Webhook::new(body);
        let webhook = if let Some(secret) = secret { webhook.secret(secret) } else { webhook };
        asked.spawn(async move {
            let reply = tokio::time::timeout(BOUND, webhook.send(&url)).await;
            (n, reply.map(|reply| reply.ok().map(|reply| reply.status)))
        });
    }
    let mut open = Vec::new();
    let mut statuses = asked.join_all().await;
    statuses.sort_by_key(|(n, _)| *n);
    let is_taken = segment.accepted().iter().any(|call| call.json()["messageId"] == message_id(TAKEN));
    for (n, status) in statuses {
        match status {
            Err(_) => open.push(format!("request {n} has no answer after {BOUND:?}")),
            Ok(Some(status @ 200..=299)) if !(n == 0 && is_taken || n == 4 && status == 204) => {
                open.push(format!("request {n} is answered {status}"));
            }
            Ok(_) => {}
        }
    }
    let calls = segment.calls();
    if segment.requests_begun() != calls.len() {
        open.push(format!("{} requests to Segment, of which {} are complete", segment.requests_begun(), calls.len()));
    }
    for call in calls {
        let body = call.json();
        let mapped = [TAKEN, NOT_TAKEN].iter().find(|id| body["messageId"] == message_id(id));
        let is_call = mapped.is_some_and(|id| {
            body["event"] == "customer_payment_failed"
                && body["userId"] == "acme"
                && body["properties"] == serde_json::from_str::<Value>(&event(id)).unwrap_or_default()
        });
        let shows_secret =
            call.headers.values().any(|value| String::from_utf8_lossy(value.as_bytes()).contains(SECRET));
        if !is_call || shows_secret || call.write_key.as_deref() != Some(WRITE_KEY) {
            open.push(format!("Segment gets {call:.300?}"));
        }
    }
    Ok(Some(open))
}

type Change = Box<dyn FnOnce(Config) -> Result<Config> + Send>;

/// Tries each change to the configuration: what it is called, and the change.
async fn try_each(changes: Vec<(String, Change)>) -> Result<()> {
    assert_eq!(openings(Ok).await?, Some(vec![]), "as shipped");
    let total = changes.len();
    let changes = Arc::new(Mutex::new(changes.into_iter()));
    let results = Arc::new(Mutex::new((0, 0, Vec::new())));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let (changes, results) = (changes.clone(), results.clone());
        workers.spawn(async move {
            loop {
                let next = changes.lock().expect("nobody panics with it").next();
                let Some((what, change)) = next else { return anyhow::Ok(()) };
                let found = openings(change).await.with_context(|| what.clone())?;
                let mut results = results.lock().expect("nobody panics with it");
                results.1 += usize::from(found.is_some());
                results.0 += 1;
                if results.0 % 50 == 0 {
                    eprintln!("{} of {total}", results.0);
                }
                for open in found.into_iter().flatten() {
                    eprintln!("OPEN: {what}: {open}");
                    results.2.push(format!("{what}: {open}"));
                }
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    let (_, served, open) = std::mem::take(&mut *results.lock().expect("nobody panics with it"));
    eprintln!("{total} changes, of which Envoy serves {served}");
    assert!(served > total / 4, "Envoy serves {served} of {total}");
    assert!(open.is_empty(), "{}", open.join("\n"));
    Ok(())
}

fn looked_at(config: &Config) -> Result<Vec<String>> {
    let mut found = Vec::new();
    paths(config.get("")?, "", &mut found);
    assert!(found.iter().collect::<BTreeSet<_>>().len() == found.len() && found.len() > 80, "the nodes are gone");
    Ok(found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_left_out_the_gateway_fails_closed() -> Result<()> {
    let config = base(&Segment::start().await?)?;
    let mut changes: Vec<(String, Change)> = Vec::new();
    for path in looked_at(&config)? {
        changes.push((format!("without {path}"), Box::new(move |config| config.remove(&path))));
    }
    try_each(changes).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_value_is_wrong_the_gateway_fails_closed() -> Result<()> {
    let config = base(&Segment::start().await?)?;
    let mut changes: Vec<(String, Change)> = Vec::new();
    for path in looked_at(&config)? {
        for wrong in wrong_values(config.get(&path)?) {
            let (path, what) = (path.clone(), format!("{path} = {wrong}"));
            changes.push((what, Box::new(move |config| config.set(&path, wrong))));
        }
    }
    try_each(changes).await
}
