//! What docs/operations.md says about the alerts, the dashboard and the probes on the gateways, on their own metrics.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use sandbox::envoy::Shell;
use sandbox::stigg::Webhook;
use serde_json::Value;
use tests::edge::*;
use tests::manifests::each;
use tests::pages::{blocks, read, yaml};
use tests::prometheus::{ALERTS, Prometheus, send_good_and_bad_events};

use crate::differences::{on_envoy_gateway, on_istio};
use crate::istio::shipped;

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

/// Those alerts fire that depend on what Stigg and Segment do. All others but those that the page lists, and these,
/// have their metrics.
async fn the_alerts_work(edge: Edge, others: &[&str]) -> Result<()> {
    let prometheus = Prometheus::start(edge.envoy.admin(), renaming()?).await?;
    let alerts = yaml(ALERTS)?;
    let rules: Vec<_> = each(&alerts["groups"]).flat_map(|group| each(&group["rules"])).collect();
    let expression = |rule: &Value| rule["expr"].as_str().map(str::to_owned).context("no expression");
    let fire = async {
        for suffix in ["NotDelivered", "Unreachable", "RejectedBySegment", "Unauthorized", "Rejected"] {
            let alert = format!("StiggSegment{suffix}");
            let rule = rules.iter().find(|rule| rule["alert"] == alert.as_str()).context(alert.clone())?;
            let now = expression(rule)?.replace("[5m]", "[4s]").replace("[15m]", "[4s]").replace("[15m:1m]", "[4s:1s]");
            eventually(&alert, async || Ok(!prometheus.query(&now).await.unwrap_or_default().is_empty())).await?;
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
    expected.extend(others.iter().map(|alert| (*alert).to_owned()));
    assert_eq!(without, expected);
    Ok(())
}

#[tokio::test]
async fn the_alerts_work_under_istio() -> Result<()> {
    the_alerts_work(on_istio(&shipped()?).await?, &[]).await
}

#[tokio::test]
async fn the_alerts_work_on_envoy_gateway() -> Result<()> {
    the_alerts_work(on_envoy_gateway(Shell::Wasm).await?, &[]).await
}

/// It has no VM.
#[tokio::test]
async fn the_alerts_work_on_envoy_gateway_with_the_dynamic_module() -> Result<()> {
    the_alerts_work(on_envoy_gateway(Shell::Native).await?, &["StiggSegmentFilterDown"]).await
}

#[tokio::test]
async fn health_is_not_where_it_is_on_envoy_yaml() -> Result<()> {
    let health = "GET /healthz HTTP/1.1\r\nhost: edge\r\n\r\n";
    assert_eq!(on_istio(&shipped()?).await?.ask(health).await?.status, 405);
    let gateway = on_envoy_gateway(Shell::Wasm).await?;
    assert_eq!(gateway.ask(health).await?.status, 404);
    let ready = Webhook::new("").method("GET".parse()?).send("http://127.0.0.1:19003/ready").await?;
    assert_eq!(ready.status, 200);
    let template = "manifests/charts/istio-control/istio-discovery/files/gateway-injection-template.yaml";
    let template = read(&format!("target/tools/sources/istio/{template}"))?;
    assert!(template.contains("path: /healthz/ready\n        port: 15021\n"));
    Ok(())
}
