//! The filter in an Envoy that serves another application, with the parts of `envoy.yaml` that
//! `deploy/existing-envoy.yaml` marks.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use sandbox::envoy::{Config, Envoy, HTTP_CONNECTION_MANAGER, validate};
use sandbox::segment::Segment;
use sandbox::stigg::Webhook;
use serde_json::{Value, json};
use tests::edge::*;
use tests::existing;

const GUARD: &str = "stigg_only_here";

/// The Envoy of the file with a change, and the other application.
async fn start(change: impl FnOnce(Config) -> Result<Config>) -> Result<(Edge, Segment)> {
    let segment = Segment::start().await?;
    let (config, shop) = existing::between(&segment).await?;
    Ok((Edge { envoy: Envoy::start(change(config)?, options()).await?, segment }, shop))
}

fn routes() -> String {
    format!("{HTTP_CONNECTION_MANAGER}/route_config/virtual_hosts/shop/routes")
}

#[tokio::test]
async fn the_envoy_of_the_example_was_complete_before_and_each_part_is_that_of_envoy_yaml() -> Result<()> {
    let opinion = validate(existing::before()?, options()).await?;
    assert!(opinion.accepted, "{}", opinion.log);

    let (example, shipped) = (existing::after()?, Config::shipped()?);
    let module = shipped.module_file()?;
    let example = example.module(&module)?;
    let filters = format!("{HTTP_CONNECTION_MANAGER}/http_filters");
    for part in [
        format!("{filters}/stigg_segment"),
        format!("{filters}/local_ratelimit"),
        "/static_resources/clusters/segment".to_owned(),
        "/static_resources/clusters/filter_missing".to_owned(),
        "/stats_config".to_owned(),
        format!("{HTTP_CONNECTION_MANAGER}/common_http_protocol_options/max_stream_duration"),
    ] {
        assert_eq!(example.get(&part)?, shipped.get(&part)?, "{part}");
    }
    for route in ["stigg_to_segment", "filter_missing", "method_not_allowed"] {
        let mut copied = example.get(&format!("{}/{route}", routes()))?.clone();
        let switches = copied["typed_per_filter_config"].as_object_mut().context("no filter")?;
        assert_eq!(switches.remove(GUARD).context("the guard is on")?["disabled"], true);
        if switches.is_empty() {
            copied.as_object_mut().context("no route")?.remove("typed_per_filter_config");
        }
        let of = format!("{HTTP_CONNECTION_MANAGER}/route_config/virtual_hosts/webhooks/routes/{route}");
        assert_eq!(&copied, shipped.get(&of)?, "{route}");
    }
    let mappers = format!("{HTTP_CONNECTION_MANAGER}/local_reply_config/mappers");
    assert!(shipped.get(&mappers)?.as_array().context("no list")?.contains(example.get(&format!("{mappers}/0"))?));
    Ok(())
}

/// Where the other application takes webhooks of Stigg's by itself.
const SHOPS_OWN: &str = "/shop/stigg";

/// A header that the virtual host adds to every request.
const OF_VIRTUAL_HOST: &str = "x-from";

/// A route to them without the guard, as the page says; and the header.
fn with_the_shops_own(config: Config) -> Result<Config> {
    let host = format!("{HTTP_CONNECTION_MANAGER}/route_config/virtual_hosts/shop");
    let header = json!([{ "header": { "key": OF_VIRTUAL_HOST, "value": "edge" } }]);
    let config = config.set(&format!("{host}/request_headers_to_add"), header)?;
    let mut list = config.get(&routes())?.as_array().context("no list")?.clone();
    let off = list.iter().find_map(|route| route["typed_per_filter_config"].get(GUARD)).context("the guard is on")?;
    let own = json!({
        "match": { "path": SHOPS_OWN },
        "typed_per_filter_config": { GUARD: off },
        "route": { "cluster": "shop" },
    });
    list.insert(0, own);
    config.set(&routes(), json!(list))
}

#[tokio::test]
async fn an_envoy_that_serves_another_application_takes_webhooks_too() -> Result<()> {
    let (edge, shop) = start(with_the_shops_own).await?;
    let large = format!(r#"{{"type":"plan.created","x":"{}"}}"#, "x".repeat(500 * 1024));
    let get = Webhook::new("").method("GET".parse()?);
    for (webhook, status, code) in [
        (Webhook::new(CATALOG_EVENT).secret(SECRET), 204, None),
        (Webhook::new(large).secret(SECRET), 204, None),
        (Webhook::new(EVENT).secret("wrong"), 401, Some("unauthorized")),
        (Webhook::new("{").secret(SECRET), 400, Some("malformed_json")),
        (get.clone().secret(SECRET), 405, Some("method_not_allowed")),
    ] {
        let reply = webhook.send(&edge.envoy.url(PATH)).await?;
        assert_eq!((reply.status, reply.json()["code"].as_str()), (status, code), "{reply:?}");
    }
    assert_eq!(edge.segment.connections(), 0);
    for secret in [SECRET, PREVIOUS_SECRET] {
        assert_eq!(Webhook::new(EVENT).secret(secret).send(&edge.envoy.url(PATH)).await?.status, 200);
    }
    let calls = edge.segment.calls();
    assert!(calls.len() == 2 && calls.iter().all(|call| call.path == "/v1/track"), "{calls:?}");
    // Without `suppress_envoy_headers`, Envoy adds three of its own.
    let names: BTreeSet<_> = calls[0].headers.keys().map(|name| name.as_str()).filter(|name| *name != "host").collect();
    let own = ["authorization", "content-length", "content-type", "user-agent", "x-request-id"];
    let of_envoy = ["x-envoy-expected-rq-timeout-ms", "x-envoy-original-host", "x-envoy-original-path"];
    assert_eq!(names, own.into_iter().chain(of_envoy).chain([OF_VIRTUAL_HOST]).collect());
    assert_eq!(shop.calls().len(), 0);

    // The other application is served as before, except that it does not get Stigg's secret.
    assert_eq!(get.clone().send(&edge.envoy.url("/")).await?.status, 200);
    assert_eq!(Webhook::new("{}").send(&edge.envoy.url("/webhooks/stripe")).await?.status, 200);
    assert_eq!(Webhook::new(EVENT).secret(SECRET).send(&edge.envoy.url("/webhooks/stigg/")).await?.status, 403);
    assert_eq!(shop.calls().len(), 2);
    assert_eq!(Webhook::new(EVENT).secret("its own").send(&edge.envoy.url(SHOPS_OWN)).await?.status, 200);
    assert_eq!(shop.calls().len(), 3);
    Ok(())
}

#[tokio::test]
async fn a_webhook_that_would_get_to_another_route_is_rejected() -> Result<()> {
    let at_the_end = |config: Config| {
        let mut list = config.get(&routes())?.as_array().context("no list")?.clone();
        let before_it = list.iter().position(|route| route["route"]["cluster"] == "shop").context("no route")?;
        list.rotate_left(before_it);
        config.set(&routes(), json!(list))
    };
    let (edge, shop) = start(at_the_end).await?;
    assert_eq!(edge.send_event(EVENT).await?.status, 403);
    assert_eq!((edge.segment.connections(), shop.connections()), (0, 0));

    // It is the guard that does this.
    let (edge, shop) = start(|config| at_the_end(without(GUARD, config)?)).await?;
    assert_eq!(edge.send_event(EVENT).await?.status, 200);
    assert_eq!((edge.segment.connections(), shop.calls().len()), (0, 1));
    Ok(())
}

/// Leaves out an HTTP filter. Envoy rejects a route that switches on or off a filter which is not there.
fn without(filter: &str, config: Config) -> Result<Config> {
    let mut config = config.remove(&format!("{HTTP_CONNECTION_MANAGER}/http_filters/{filter}"))?;
    for route in config.at(&routes())?.as_array_mut().context("no list")? {
        if let Some(switches) = route.get_mut("typed_per_filter_config").and_then(Value::as_object_mut) {
            switches.remove(filter);
        }
    }
    Ok(config)
}

#[tokio::test]
async fn without_the_filter_the_other_application_does_not_get_the_webhook() -> Result<()> {
    let (edge, shop) = start(|config| without("stigg_segment", config)).await?;
    let reply = edge.send_event(EVENT).await?;
    assert_eq!((reply.status, &reply.json()["code"]), (503, &json!("filter_missing")));
    assert_eq!((edge.segment.connections(), shop.connections()), (0, 0));
    Ok(())
}
