//! What if one thing in `envoy.yaml` is missing or wrong? Each node is left out, and each value is changed, one at a
//! time. Envoy rejects such a configuration, or the gateway works, or it fails closed.
//!
//! `make test` looks at the filter, the routes, the health check and the secrets from files; `make test-omissions` at
//! everything, and at what the variants add.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use sandbox::envoy::{Config, Envoy, HTTP_CONNECTION_MANAGER, Options, ROUTE, VALIDATION_CONTEXT};
use sandbox::segment::Segment;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::edge::*;
use tests::openings::{Doors, ELSEWHERE, IMPOSTOR, OTHER_KEY, doors, impostors};

use crate::operations::{GLOBAL, SDS, etc_envoy, rendered, replace};

/// Set to look at everything.
const ALL: &str = "ALL_OMISSIONS";
/// How many Envoys run at once.
const AT_ONCE: usize = 2;
/// Until then every request has an answer. Envoy's own timeouts are shortened for it; `tests/rules/facts.rs` holds the
/// shipped ones below Stigg's 30 s, and `vm.rs` waits for one of them.
const BOUND: Duration = Duration::from_secs(8);

/// What is open without a field, or with another value, and cannot be closed; it is so with any write key and any address.
const KNOWN: [(&str, &str); 5] = [
    ("/stigg_to_segment/route/prefix_rewrite", ELSEWHERE),
    ("/stigg_to_segment/route/auto_host_rewrite", ELSEWHERE),
    ("/segment/transport_socket/typed_config/auto_host_sni", IMPOSTOR),
    ("/segment/transport_socket/typed_config/auto_sni_san_validation", IMPOSTOR),
    ("/secrets/typed_config/on_request_headers/1/format_string/text_format_source/inline_string", OTHER_KEY),
];

/// A variant of `envoy.yaml`.
#[derive(Clone, Copy)]
struct Variant {
    expressions: &'static [&'static str],
    /// Whether the file with the webhook's secret exists.
    has_secret: bool,
}

const SHIPPED: Variant = Variant { expressions: &[], has_secret: true };
const SECRETS_FROM_FILES: Variant = Variant { expressions: SDS, ..SHIPPED };
/// Nobody may be let in.
const WITHOUT_SECRET: Variant = Variant { has_secret: false, ..SECRETS_FROM_FILES };
/// Its service does not run.
const ONE_RATE_LIMIT: Variant = Variant { expressions: GLOBAL, ..SHIPPED };

impl Variant {
    fn etc(&self) -> Result<TempDir> {
        let etc = etc_envoy()?;
        let secrets = etc.path().join("secrets");
        replace(&secrets, "segment", WRITE_KEY)?;
        if self.has_secret {
            replace(&secrets, "stigg", SECRET)?;
        }
        Ok(etc)
    }

    /// It, with short timeouts.
    fn config(&self, etc: &TempDir, segment: &Segment) -> Result<Config> {
        rendered(&[self.expressions], etc)?
            .on_loopback()?
            .upstream(segment)?
            .set(&format!("{HTTP_CONNECTION_MANAGER}/stream_idle_timeout"), json!("3s"))?
            .set(&format!("{HTTP_CONNECTION_MANAGER}/request_timeout"), json!("2s"))?
            .set(&format!("{ROUTE}/route/timeout"), json!("2s"))
    }
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

/// Whether `make test` looks at a node that only a variant has: where the filter gets the secrets from.
fn is_looked_at_in_a_variant(path: &str) -> bool {
    path.contains("/http_filters/secrets") && !path.contains("/formatters/")
}

/// Everything in a value, with its path.
fn nodes(value: &Value, path: &str, found: &mut Vec<(String, Value)>) {
    let mut add = |key: &str, inner: &Value| {
        let path = format!("{path}/{key}");
        nodes(inner, &path, found);
        found.push((path, inner.clone()));
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

type Change = Box<dyn Fn(Config) -> Result<Config> + Send + Sync>;

/// What a variant does after a change, perhaps to TLS. `None` if Envoy does not serve it.
async fn doors_of(
    variant: Variant,
    concerns_tls: bool,
    change: impl Fn(Config) -> Result<Config>,
) -> Result<Option<Doors>> {
    let (etc, segment) = (variant.etc()?, Segment::start().await?);
    let config = change(variant.config(&etc, &segment)?)?;
    // Envoy waits 15 s for a secret that does not come.
    let options = Options { patience: Duration::from_secs(20), log_level: "off".to_owned(), ..options() };
    let Ok(envoy) = Envoy::start(config, options.clone()).await else { return Ok(None) };
    let mut found = doors(&Edge { envoy, segment }, BOUND).await?;
    if found.works && concerns_tls {
        let config = |impostor: &Segment, authority: Option<&Path>| {
            let config = variant.config(&etc, impostor)?;
            let trusted = format!("{VALIDATION_CONTEXT}/trusted_ca");
            change(match authority {
                Some(authority) => config.set(&trusted, json!({ "filename": authority }))?,
                None => config,
            })
        };
        found.open.extend(impostors(&options, config).await?);
    }
    Ok(Some(found))
}

/// Tries each change to a variant: what it is called, and the change.
async fn try_each(variant: Variant, changes: Vec<(String, Change)>) -> Result<()> {
    let shipped = Doors { works: variant.has_secret, open: vec![] };
    assert_eq!(doors_of(variant, true, Ok).await?, Some(shipped), "as shipped");
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
                let found = doors_of(variant, what.contains("/transport_socket"), change)
                    .await
                    .with_context(|| what.clone())?;
                let mut results = results.lock().expect("nobody panics with it");
                results.1 += usize::from(found.is_some());
                results.0 += 1;
                if results.0 % 50 == 0 {
                    eprintln!("{} of {total}", results.0);
                }
                let is_known =
                    |open: &String| KNOWN.iter().any(|(field, known)| what.contains(field) && open.starts_with(known));
                for open in found.unwrap_or_default().open.into_iter().filter(|open| !is_known(open)) {
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
    assert!(served > total / 5, "Envoy serves {served} of {total}");
    assert!(open.is_empty(), "{}", open.join("\n"));
    Ok(())
}

/// The nodes of a variant that are looked at, with their values: of the variants only what differs from what is shipped.
async fn looked_at(variant: Variant) -> Result<Vec<(String, Value)>> {
    let segment = Segment::start().await?;
    let nodes = |variant: Variant| {
        let mut found = Vec::new();
        nodes(variant.config(&variant.etc()?, &segment)?.get("")?, "", &mut found);
        anyhow::Ok(found)
    };
    let (shipped, mut found) = (nodes(SHIPPED)?, nodes(variant)?);
    if variant.expressions.is_empty() {
        found.retain(|(path, _)| is_looked_at(path));
    } else {
        let shipped: BTreeMap<_, _> = shipped.into_iter().collect();
        found.retain(|(path, value)| match shipped.get(path) {
            Some(same) if value == same || value.is_object() || value.is_array() => false,
            _ => looks_at_everything() || is_looked_at_in_a_variant(path),
        });
    }
    assert!(
        found.iter().map(|(path, _)| path).collect::<BTreeSet<_>>().len() == found.len() && found.len() > 10,
        "{found:?}"
    );
    Ok(found)
}

async fn fails_closed_whatever_is_left_out(variant: Variant) -> Result<()> {
    let mut changes: Vec<(String, Change)> = Vec::new();
    for (path, _) in looked_at(variant).await? {
        changes.push((format!("without {path}"), Box::new(move |config| config.remove(&path))));
    }
    try_each(variant, changes).await
}

async fn fails_closed_whatever_value_is_wrong(variant: Variant) -> Result<()> {
    let mut changes: Vec<(String, Change)> = Vec::new();
    for (path, value) in looked_at(variant).await? {
        for wrong in wrong_values(&value) {
            let (path, what) = (path.clone(), format!("{path} = {wrong}"));
            changes.push((what, Box::new(move |config| config.set(&path, wrong.clone()))));
        }
    }
    try_each(variant, changes).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_left_out_the_gateway_fails_closed() -> Result<()> {
    fails_closed_whatever_is_left_out(SHIPPED).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_value_is_wrong_the_gateway_fails_closed() -> Result<()> {
    fails_closed_whatever_value_is_wrong(SHIPPED).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_left_out_or_wrong_in_a_variant_the_gateway_fails_closed() -> Result<()> {
    let mut variants = vec![WITHOUT_SECRET, SECRETS_FROM_FILES, ONE_RATE_LIMIT];
    if !looks_at_everything() {
        variants.truncate(1);
    }
    if reads_no_secrets_from_files().await? {
        variants.retain(|variant| variant.expressions != SDS);
    }
    for variant in variants {
        fails_closed_whatever_is_left_out(variant).await?;
        if looks_at_everything() {
            fails_closed_whatever_value_is_wrong(variant).await?;
        }
    }
    Ok(())
}
