//! Rows of "What differs" in docs/deployment.md, on what the gateways' own code makes of the manifests.
//! `the_page_says_what_the_gateways_make` in `tests/deploy` holds other rows to it.

use std::time::Duration;

use anyhow::{Context, Result};
use sandbox::envoy::{Config, Envoy, Shell};
use sandbox::segment::{Behaviour, Segment};
use sandbox::stigg::Webhook;
use sandbox::trapping;
use serde_json::Value;
use tests::edge::*;
use tests::tools::run;
use tests::translated::Translated;

use crate::data::{self, envoy_gateway};
use crate::gateway::{Gateway, answer, segment};
use crate::istio::{self, shipped, without};

pub async fn on_envoy_gateway(shell: Shell) -> Result<Edge> {
    Gateway::prepare(shell).await?.edge().await
}

/// The value of a metric with such labels.
fn metric(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let has = |line: &&str| line.starts_with(&format!("{name}{{")) && labels.iter().all(|label| line.contains(label));
    text.lines().find(has)?.rsplit_once(' ')?.1.parse().ok()
}

/// An Envoy on what a gateway makes, whose VM traps on a request with trailers.
async fn with_a_trap(made: Value) -> Result<Edge> {
    let segment = Segment::start().await?;
    let module = Config::shipped()?.module_file()?;
    let trapping = trapping::module(&module, "proxy_on_request_trailers")?;
    let config = Translated(made).config(Shell::Wasm, &segment)?.to_string();
    let trapped = config.replace(module.to_str().context("UTF-8")?, trapping.to_str().context("UTF-8")?);
    assert_ne!(trapped, config);
    let edge = Edge { envoy: Envoy::start(Config::from_yaml(&trapped)?, options()).await?, segment };
    assert_eq!(edge.send_event(EVENT).await?.status, 200);
    let trap = edge.send(Webhook::new(EVENT).http2().trailer("x", "1")).await;
    assert!(trap.map_or(true, |reply| reply.status == 503), "a request that traps the VM fails");
    Ok(edge)
}

#[tokio::test]
async fn istio_replaces_a_trapped_vm() -> Result<()> {
    let edge = with_a_trap(data::istio(&shipped()?)?).await?;
    eventually("the VM is replaced", async || Ok(edge.send_event(EVENT).await?.status == 200)).await?;
    assert_eq!(edge.segment.calls().len(), 2);
    Ok(())
}

#[tokio::test]
async fn envoy_gateway_does_not_replace_a_trapped_vm() -> Result<()> {
    let edge = with_a_trap(envoy_gateway(Gateway::prepare(Shell::Wasm).await?).await?).await?;
    // Istio's is back after a second.
    for _ in 0..30 {
        assert_eq!(edge.send_event(EVENT).await?.status, 503);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(edge.segment.calls().len(), 1);
    Ok(())
}

/// Envoy Gateway starts this when a pod stops.
#[test]
fn envoy_gateway_waits_for_open_connections_before_it_stops() -> Result<()> {
    let help = run("envoy-gateway", ["envoy", "shutdown", "--help"])?;
    for (option, default) in [("drain-timeout", "1m0s"), ("min-drain-duration", "10s")] {
        let line = help.lines().find(|line| line.trim().starts_with(&format!("--{option} "))).context(option)?;
        assert!(line.ends_with(&format!("(default {default})")), "{line}");
    }
    Ok(())
}

/// The metric for a webhook without the secret has this name and these labels.
async fn counts(edge: &Edge, name: &str, labels: &[&str]) -> Result<()> {
    assert_eq!(edge.ask(post(EVENT).replace(SECRET, "wrong")).await?.status, 401);
    let text = edge.envoy.admin_get("/stats/prometheus").await?;
    let own: Vec<_> =
        text.lines().filter(|line| line.contains("stigg_segment") && line.contains("unauthorized")).collect();
    assert_eq!(metric(&text, name, labels), Some(1.0), "{own:?}");
    Ok(())
}

#[tokio::test]
async fn the_filters_metrics_have_these_names() -> Result<()> {
    let in_the_name = "stigg_segment_webhooks_outcome_rejected_reason_unauthorized";
    let istio = istio::edge(&shipped()?).await?;
    counts(&istio, in_the_name, &[]).await?;
    // Envoy's own metrics have Istio's labels.
    assert_eq!(istio.send_event(EVENT).await?.status, 200);
    let text = istio.envoy.admin_get("/stats/prometheus").await?;
    let calls = ["cluster_name=\"outbound|443||api.segment.io\"", "response_code_class=\"2xx\""];
    assert_eq!(metric(&text, "envoy_cluster_upstream_rq", &calls), Some(1.0), "{text}");
    counts(&on_envoy_gateway(Shell::Wasm).await?, in_the_name, &[]).await?;
    let labels = ["outcome=\"rejected\"", "reason=\"unauthorized\""];
    counts(&on_envoy_gateway(Shell::Native).await?, "envoy_dynamicmodulescustom_stigg_segment_webhooks", &labels).await
}

/// Without the filter, only the answers by class count. The metric that the alert `StiggSegmentFilterMissing` reads is of a
/// cluster that the gateways do not have.
fn only_the_class_counts(text: &str, name: &str, labels: &[&str]) {
    assert_eq!(metric(text, name, labels), Some(3.0), "{text}");
    assert!(!text.contains("filter_missing"), "{text}");
}

#[tokio::test]
async fn the_alert_for_a_missing_filter_cannot_fire_under_istio() -> Result<()> {
    let edge = istio::edge(&without(&shipped()?, "WasmPlugin")).await?;
    for _ in 0..3 {
        assert_eq!(edge.ask(post(EVENT)).await?.status, 503);
    }
    let text = edge.envoy.admin_get("/stats/prometheus").await?;
    only_the_class_counts(&text, "envoy_http_downstream_rq", &["response_code_class=\"5xx\""]);
    Ok(())
}

#[tokio::test]
async fn the_alert_for_a_missing_filter_cannot_fire_on_envoy_gateway() -> Result<()> {
    let gateway = Gateway::prepare(Shell::Wasm).await?;
    let _segment = segment().await?;
    let mut others = gateway.manifests.0.iter().filter(|object| object["kind"] != "EnvoyExtensionPolicy");
    others.try_for_each(|object| gateway.apply(object))?;
    let process = gateway.run()?;
    let proxy = gateway.proxy().await?;
    let rejects = async || Ok(answer(proxy, EVENT).await == Some(503));
    eventually("the gateway takes webhooks", rejects).await.with_context(|| process.log().text())?;
    for _ in 1..3 {
        assert_eq!(answer(proxy, EVENT).await, Some(503));
    }
    let text = gateway.admin_get("/stats/prometheus").await?;
    let labels = ["envoy_response_code_class=\"5\"", "envoy_http_conn_manager_prefix=\"https-10443\""];
    only_the_class_counts(&text, "envoy_http_downstream_rq_xx", &labels);
    Ok(())
}

/// Segment's answers come so late that the last attempt has no time, and Envoy's own answers are plain text.
async fn own_answers_are_plain_text(edge: Edge) -> Result<()> {
    edge.segment.behave(Behaviour::status(500).after(Duration::from_secs(7)));
    let late = async {
        let mut stigg = edge.connect().await?;
        stigg.send(post(EVENT)).await?;
        stigg.response_within(Duration::from_secs(28)).await
    };
    let slow = async {
        let mut stigg = edge.connect().await?;
        let whole = post(EVENT);
        stigg.send(&whole[..whole.len() - 1]).await?;
        stigg.response().await
    };
    let (late, slow) = tokio::join!(late, slow);
    let Edge { envoy, segment } = edge;
    drop(segment);
    let mut stigg = Connection::open(envoy.addr(sandbox::envoy::LISTENER).context("no listener")?).await?;
    stigg.send(post(EVENT)).await?;
    for (response, status) in [(late?, 504), (slow?, 408), (stigg.response().await?, 503)] {
        assert_eq!(response.status, status, "{response:?}");
        assert!(response.head.contains("content-type: text/plain") && !response.body.contains('{'), "{response:?}");
    }
    Ok(())
}

#[tokio::test]
async fn answers_of_istios_envoy_are_plain_text() -> Result<()> {
    own_answers_are_plain_text(istio::edge(&shipped()?).await?).await
}

#[tokio::test]
async fn answers_of_envoy_gateways_envoy_are_plain_text() -> Result<()> {
    own_answers_are_plain_text(on_envoy_gateway(Shell::Wasm).await?).await
}
