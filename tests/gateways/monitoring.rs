//! What docs/operations.md says about the alerts, the dashboard and the probes on the gateways, on their own metrics.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use sandbox::envoy::Shell;
use sandbox::segment::Behaviour;
use sandbox::stigg::Webhook;
use serde_json::Value;
use tests::edge::*;
use tests::manifests::each;
use tests::pages::{blocks, read, yaml};
use tests::prometheus::{ALERTS, Prometheus, send_good_and_bad_events};

use crate::differences::on_envoy_gateway;
use crate::istio::{self, shipped};

const PAGE: &str = "docs/operations.md";

/// The page's rules that rename the gateways' metrics.
fn renaming() -> Result<Value> {
    let blocks = blocks(PAGE)?;
    let rules = blocks.iter().filter(|block| block.kind == "yaml").find_map(|block| {
        let mut scrape: Value = serde_yaml_ng::from_str(&block.text).ok()?;
        scrape.get_mut("metric_relabel_configs").map(Value::take)
    });
    rules.context("the page renames nothing")
}

/// The names in the first column of the table that begins with this header.
fn listed(header: &str) -> Result<BTreeSet<String>> {
    let page = read(PAGE)?;
    let rows = page.lines().skip_while(|line| !line.starts_with(header)).skip(2);
    let cells = rows.map_while(|line| line.strip_prefix("| ")?.split(" |").next());
    Ok(cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect())
}

/// The series that an expression reads over a time.
fn series(expression: &str) -> Vec<&str> {
    let before = expression.split('[').collect::<Vec<_>>();
    let inner = before[..before.len() - 1].iter().filter_map(|before| before.rsplit('(').next());
    inner.filter_map(|series| series.split_inclusive('}').next()).collect()
}

/// Those alerts fire that depend on what Stigg and Segment do. All others but those that the page lists have their
/// metrics, and so has the dashboard. The dynamic module has no VM.
async fn the_alerts_work(edge: Edge, shell: Shell) -> Result<()> {
    let prometheus = Prometheus::start(edge.envoy.admin(), renaming()?).await?;
    let alerts = yaml(ALERTS)?;
    let rules: Vec<_> = each(&alerts["groups"]).flat_map(|group| each(&group["rules"])).collect();
    let expression = |rule: &Value| rule["expr"].as_str().map(str::to_owned).context("no expression");
    let fires = async |alert: &str| {
        let rule = rules.iter().find(|rule| rule["alert"] == alert).context(alert.to_owned())?;
        let now = expression(rule)?.replace("[5m]", "[4s]").replace("[15m]", "[4s]").replace("[15m:1m]", "[4s:1s]");
        eventually(alert, async || Ok(!prometheus.query(&now).await.unwrap_or_default().is_empty())).await
    };
    // Already the first answer of a class counts.
    assert_eq!(edge.send_event(EVENT).await?.status, 200);
    let completed = "count_over_time(envoy_cluster_upstream_rq_completed{envoy_cluster_name=\"segment\"}[1m]) > 3";
    let counted = async || Ok(!prometheus.query(completed).await.unwrap_or_default().is_empty());
    eventually("calls are counted", counted).await?;
    edge.segment.script([Behaviour::status(400)]);
    assert_eq!(edge.send_event(EVENT).await?.status, 400);
    fires("StiggSegmentRejectedBySegment").await?;
    let fire = async {
        for suffix in ["NotDelivered", "Unreachable", "Unauthorized", "Rejected"] {
            fires(&format!("StiggSegment{suffix}")).await?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        fire = fire => fire?,
        sent = send_good_and_bad_events(&edge) => sent?,
    }
    let mut without = BTreeSet::new();
    for rule in &rules {
        let mut there = false;
        for series in series(&expression(rule)?) {
            there |= !prometheus.query(&format!("count({series})")).await?.is_empty();
        }
        if !there {
            without.extend(rule["alert"].as_str().map(str::to_owned));
        }
    }
    let mut expected = listed("| alert that cannot fire |")?;
    expected.extend((shell == Shell::Native).then(|| "StiggSegmentFilterDown".to_owned()));
    assert_eq!(without, expected);
    let dashboard: Value = serde_json::from_str(&read("deploy/dashboard.json")?)?;
    let targets = each(&dashboard["panels"]).flat_map(|panel| each(&panel["targets"]));
    for expression in targets.filter_map(|target| target["expr"].as_str()) {
        let missing = expression.contains("rq_body_size") || shell == Shell::Native && expression.contains("vm_reload");
        for series in series(expression) {
            assert_eq!(prometheus.query(&format!("count({series})")).await?.is_empty(), missing, "{series}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_alerts_work_under_istio() -> Result<()> {
    the_alerts_work(istio::edge(&shipped()?).await?, Shell::Wasm).await
}

#[tokio::test]
async fn the_alerts_work_on_envoy_gateway() -> Result<()> {
    the_alerts_work(on_envoy_gateway(Shell::Wasm).await?, Shell::Wasm).await
}

#[tokio::test]
async fn the_alerts_work_on_envoy_gateway_with_the_dynamic_module() -> Result<()> {
    the_alerts_work(on_envoy_gateway(Shell::Native).await?, Shell::Native).await
}

#[tokio::test]
async fn health_is_not_where_it_is_on_envoy_yaml() -> Result<()> {
    let health = "GET /healthz HTTP/1.1\r\nhost: edge\r\n\r\n";
    assert_eq!(istio::edge(&shipped()?).await?.ask(health).await?.status, 405);
    let gateway = on_envoy_gateway(Shell::Wasm).await?;
    assert_eq!(gateway.ask(health).await?.status, 404);
    let ready = Webhook::new("").method("GET".parse()?).send("http://127.0.0.1:19003/ready").await?;
    assert_eq!(ready.status, 200);
    let template = "manifests/charts/istio-control/istio-discovery/files/gateway-injection-template.yaml";
    let template = read(&format!("target/tools/sources/istio/{template}"))?;
    assert!(template.contains("path: /healthz/ready\n        port: 15021\n"));
    Ok(())
}
