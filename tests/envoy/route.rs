//! Only a request that the filter has mapped has a route to Segment; without the filter every webhook is answered 503.

use anyhow::Result;
use sandbox::envoy::{Config, FILTER_MISSING, HTTP_CONNECTION_MANAGER, ROUTE};
use sandbox::stigg::{Reply, Webhook};
use serde_json::{Value, json};
use tests::edge::*;

const FILTER_NAME: &str = "stigg_segment";
const NOT_MAPPED: &str = "cluster.filter_missing.upstream_cx_none_healthy";

fn filter() -> String {
    format!("{HTTP_CONNECTION_MANAGER}/http_filters/{FILTER_NAME}")
}

/// What a client could send in the hope to look like the filter.
const FORGED: [(&str, &str); 5] = [
    ("stigg_mapped", "true"),
    ("wasm.stigg_mapped", "true"),
    ("stigg_segment_filter", "admitted"),
    ("user-agent", USER_AGENT),
    ("x-envoy-original-path", "/v1/track"),
];

pub fn is_filter_missing(reply: &Reply) -> bool {
    reply.status == 503
        && reply.header("content-type") == Some("application/json")
        && serde_json::from_slice::<Value>(&reply.body).is_ok_and(|body| body["code"] == "filter_missing")
}

/// No webhook reaches Segment, whatever is in it, and each is counted.
async fn is_closed(edge: &Edge, what: &str) -> Result<()> {
    let forged = FORGED.iter().fold(Webhook::new(EVENT), |webhook, (name, value)| webhook.header(name, value));
    let mut sent = 0;
    for webhook in [
        Webhook::new(EVENT),
        Webhook::new(EVENT).http2(),
        Webhook::new(EVENT).http2().trailer("x", "1"),
        Webhook::new(CATALOG_EVENT),
        Webhook::new("{"),
        Webhook::new(""),
        forged.clone(),
        forged.http2(),
    ] {
        let reply = edge.send(webhook.clone()).await?;
        sent += 1;
        assert!(is_filter_missing(&reply), "{what}: {webhook:?}: {reply:?}");
    }
    assert_eq!(edge.segment.connections(), 0, "{what}");
    assert_eq!(edge.envoy.stat(NOT_MAPPED).await?, sent, "{what}");
    Ok(())
}

pub type Change = fn(Config) -> Result<Config>;

/// The ways in which a configuration that has the route can lack the filter.
fn without_the_filter() -> [(&'static str, Change); 5] {
    /// Changes how a route switches the filter on, for both routes. Without this, Envoy rejects a route that switches on
    /// a filter which is not there.
    fn switches(config: Config, field: &str) -> Result<Config> {
        [ROUTE, FILTER_MISSING].iter().try_fold(config, |config, route| {
            config.set(&format!("{route}/typed_per_filter_config/{FILTER_NAME}/{field}"), json!(true))
        })
    }
    [
        ("left out", |config| switches(config, "is_optional")?.remove(&filter())),
        ("renamed", |config| {
            switches(config, "is_optional")?.set(&format!("{}/name", filter()), json!("stigg-segment"))
        }),
        ("disabled by the routes", |config| switches(config, "disabled")),
        ("switched on by the second route only", |config| {
            config.remove(&format!("{FILTER_MISSING}/typed_per_filter_config"))
        }),
        ("switched on by no route", |config| {
            config
                .remove(&format!("{ROUTE}/typed_per_filter_config"))?
                .remove(&format!("{FILTER_MISSING}/typed_per_filter_config"))
        }),
    ]
}

/// Sends batches, which `also` asks for.
pub fn batches(config: Config) -> Result<Config> {
    config
        .set(&format!("{ROUTE}/route/prefix_rewrite"), json!("/v1/batch"))?
        .edit_plugin_configuration(|configuration| configuration["also"] = json!(["identify"]))
}

#[tokio::test]
async fn without_the_filter_nothing_reaches_segment() -> Result<()> {
    for (what, change) in without_the_filter() {
        is_closed(&Edge::start_with(change).await?, what).await?;
    }
    Ok(())
}

/// The filter comes from a file, as a control plane would deliver it. Envoy rejects its configuration and has no other.
#[tokio::test]
async fn while_envoy_rejects_the_filters_configuration_nothing_reaches_segment() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("filter.json");
    let edge = Edge::start_with(|config| {
        let mut rejected = config.clone().plugin_configuration("{ not JSON")?.get(&filter())?["typed_config"].clone();
        let kind = rejected["@type"].take();
        rejected["@type"] = kind.clone();
        let resource = json!({
            "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            "name": FILTER_NAME,
            "typed_config": rejected,
        });
        std::fs::write(&file, json!({ "resources": [resource] }).to_string())?;
        config.remove(&format!("{}/typed_config", filter()))?.set(
            &format!("{}/config_discovery", filter()),
            json!({
                "config_source": { "path_config_source": { "path": file }, "resource_api_version": "V3" },
                "type_urls": [kind],
            }),
        )
    })
    .await?;
    let rejected = format!("extension_config_discovery.http_filter.{FILTER_NAME}.update_rejected");
    edge.envoy.wait_for_stat(&rejected, 1, PATIENCE).await?;
    for webhook in [Webhook::new(EVENT), Webhook::new(EVENT).http2(), Webhook::new("{")] {
        let reply = edge.send(webhook).await?;
        assert!(reply.status >= 500, "{reply:?}");
    }
    assert_eq!(edge.segment.connections(), 0);
    Ok(())
}

#[tokio::test]
async fn a_call_goes_to_segment_held_by_the_filter_or_by_a_buffer() -> Result<()> {
    for (who, hold) in [("the filter", Ok as Change), ("a buffer", buffered)] {
        for (change, endpoint) in [(Ok as Change, "/v1/track"), (batches, "/v1/batch")] {
            let edge = Edge::start_with(|config| change(hold(config)?)).await?;
            for webhook in
                [Webhook::new(EVENT), Webhook::new(EVENT).http2(), Webhook::new(EVENT).http2().trailer("x", "1")]
            {
                assert_eq!(edge.send(webhook).await?.status, 200, "{endpoint}, held by {who}");
            }
            for (body, status) in [(CATALOG_EVENT, 204), ("{", 400)] {
                assert_eq!(edge.send_event(body).await?.status, status, "{endpoint}, held by {who}");
            }
            let calls = edge.segment.calls();
            assert!(calls.len() == 3 && calls.iter().all(|call| call.path == endpoint), "{calls:?}");
            // The mark for gateways that cannot match on filter state does not get there.
            assert!(calls.iter().all(|call| call.header("stigg_segment_filter").is_none()));
            assert_eq!(edge.envoy.stat(NOT_MAPPED).await?, 0);
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_environment_without_the_filter_is_closed_too() -> Result<()> {
    const PRODUCTION: &str = "/webhooks/production";
    let edge = Edge::start_with(|config| {
        let config = config.remove(&format!("{FILTER_MISSING}/typed_per_filter_config"))?;
        config.paths([(PRODUCTION, "/v1/batch")])
    })
    .await?;
    let reply = Webhook::new(EVENT).secret(SECRET).send(&edge.envoy.url(PRODUCTION)).await?;
    assert!(is_filter_missing(&reply), "{reply:?}");
    assert_eq!(edge.segment.connections(), 0);
    Ok(())
}

/// `/healthz` says that Envoy takes webhooks. It does not take one itself.
#[tokio::test]
async fn the_health_check_answers_probes_only() -> Result<()> {
    let edge = Edge::start().await?;
    let ask = async |method: &str| -> Result<u16> {
        Ok(Webhook::new(if method == "POST" { EVENT } else { "" })
            .secret(SECRET)
            .method(method.parse()?)
            .send(&edge.envoy.url("/healthz"))
            .await?
            .status)
    };
    for (method, status) in [("GET", 200), ("HEAD", 200), ("POST", 404), ("PUT", 404)] {
        assert_eq!(ask(method).await?, status, "{method}");
    }
    edge.envoy.admin_post("/healthcheck/fail").await?;
    assert_eq!((ask("GET").await?, ask("HEAD").await?, ask("POST").await?), (503, 503, 404));
    edge.envoy.admin_post("/healthcheck/ok").await?;
    assert_eq!(ask("GET").await?, 200);
    assert_eq!(edge.segment.connections(), 0);
    Ok(())
}
