//! The alerting rules and the dashboard, against the metrics of a running Envoy.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use anyhow::{Context, Result};
use promql_parser::parser::{self, Expr, LabelModifier, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};
use sandbox::envoy::{HTTP_CONNECTION_MANAGER, Shell, workspace_root};
use sandbox::segment::Behaviour;
use serde_json::{Value, json};
use tests::edge::*;

fn shipped(file: &str) -> Result<String> {
    std::fs::read_to_string(workspace_root().join(file)).with_context(|| file.to_owned())
}

fn alerts() -> Result<Vec<Value>> {
    let rules: Value = serde_yaml_ng::from_str(&shipped("deploy/alerts.yaml")?)?;
    let groups = rules["groups"].as_array().unwrap();
    Ok(groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).cloned().collect())
}

/// The metrics that a PromQL expression selects, and the labels by which it groups them.
#[derive(Default)]
struct Selected {
    selectors: Vec<VectorSelector>,
    labels: BTreeSet<String>,
}

impl ExprVisitor for Selected {
    type Error = Infallible;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, Infallible> {
        match expr {
            Expr::VectorSelector(selector) => self.selectors.push(selector.clone()),
            Expr::MatrixSelector(matrix) => self.selectors.push(matrix.vs.clone()),
            Expr::Aggregate(aggregate) => {
                if let Some(LabelModifier::Include(labels)) = &aggregate.modifier {
                    self.labels.extend(labels.labels.iter().cloned());
                }
            }
            _ => {}
        }
        Ok(true)
    }
}

#[tokio::test]
async fn every_expression_selects_metrics_that_envoy_has() -> Result<()> {
    if counters_do_not_begin_at_0().await? {
        return Ok(());
    }
    // The alerts and the dashboard work under any name of the connection manager.
    let edge =
        Edge::start_with(|config| config.set(&format!("{HTTP_CONNECTION_MANAGER}/stat_prefix"), json!("edge.eu")))
            .await?;
    for status in [200, 400, 501] {
        edge.segment.behave(Behaviour::status(status));
        edge.send_event(EVENT).await?;
    }
    let is_old = is_too_old((1, 38), "metrics of calls over the limit of those under way").await?;
    let text = edge.envoy.admin_get("/stats/prometheus").await?;
    // A name, and the labels of each of its series.
    let mut series: BTreeMap<&str, Vec<BTreeMap<&str, &str>>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (name, rest) = line.split_once('{').unwrap();
        let labels = rest.rsplit_once('}').unwrap().0.split(',').filter_map(|label| label.split_once('='));
        series.entry(name).or_default().push(labels.map(|(label, value)| (label, value.trim_matches('"'))).collect());
    }

    let dashboard: Value = serde_json::from_str(&shipped("deploy/dashboard.json")?)?;
    let targets = dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let targets = targets.map(|target| target["expr"].as_str().unwrap().replace("$__rate_interval", "5m"));
    let rules = alerts()?.into_iter().map(|rule| rule["expr"].as_str().unwrap().to_owned());
    let expressions: Vec<_> = targets.chain(rules).collect();
    assert!(expressions.len() > 20);
    for expression in expressions {
        let parsed = parser::parse(&expression).map_err(|error| anyhow::anyhow!("{expression}: {error}"))?;
        let mut selected = Selected::default();
        let Ok(_) = walk_expr(&mut selected, &parsed);
        assert!(!selected.selectors.is_empty(), "{expression}");
        for selector in selected.selectors {
            let name = selector.name.as_deref().unwrap();
            if shell() == Shell::Native && name.starts_with("envoy_wasm") {
                continue; // the dynamic module has no VM
            }
            if name == "envoy_cluster_ratelimit_over_limit" {
                continue; // comes with the rate limit service: `tests/gateways/scale.rs`
            }
            if name == "envoy_cluster_upstream_rq_active_overflow" && is_old {
                continue;
            }
            let known = series.get(name).with_context(|| format!("Envoy has no {name}: {expression}"))?;
            let chosen: Vec<_> = known
                .iter()
                .filter(|labels| {
                    let matchers = &selector.matchers.matchers;
                    matchers.iter().all(|matcher| matcher.is_match(labels.get(matcher.name.as_str()).unwrap_or(&"")))
                })
                .collect();
            assert!(!chosen.is_empty(), "nothing matches {selector} in {known:?}: {expression}");
            for label in &selected.labels {
                let has_it = chosen.iter().any(|labels| labels.contains_key(label.as_str()));
                assert!(has_it, "{name} has no label {label}: {expression}");
            }
        }
    }
    Ok(())
}
