//! The alerting rules and the dashboard, in a real Prometheus.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::edge::*;
use tests::manifests::each;
use tests::pages::{read, yaml};
use tests::prometheus::{ALERTS, Prometheus, send_good_and_bad_events};
use tests::tools::run;

const UNIT_TESTS: &str = "tests/deploy/alerts.yaml";

#[test]
fn each_alert_fires_over_its_limit_and_is_quiet_below() -> Result<()> {
    run("promtool", ["check", "rules", "--lint-fatal", ALERTS])?;
    run("promtool", ["test", "rules", UNIT_TESTS])?;

    let rules = yaml(ALERTS)?;
    let alerts =
        each(&rules["groups"]).flat_map(|group| each(&group["rules"])).filter_map(|rule| rule["alert"].as_str());
    let alerts: BTreeSet<_> = alerts.collect();
    let (mut fire, mut quiet) = (BTreeSet::new(), BTreeSet::new());
    let unit_tests = yaml(UNIT_TESTS)?;
    for test in each(&unit_tests["tests"]) {
        let alert = test["name"].as_str().and_then(|name| name.split(' ').next()).context("a test without a name")?;
        let samples: Vec<_> = each(&test["promql_expr_test"]).flat_map(|query| each(&query["exp_samples"])).collect();
        let is_it =
            |sample: &&Value| sample["labels"].as_str().is_some_and(|labels| labels.contains(&format!("\"{alert}\"")));
        assert!(samples.iter().all(is_it), "{alert}: another alert fires");
        if samples.is_empty() {
            quiet.insert(alert)
        } else {
            fire.insert(alert)
        };
    }
    assert_eq!(fire, alerts, "the alerts that fire in {UNIT_TESTS}");
    assert_eq!(quiet, alerts, "the alerts that stay quiet in {UNIT_TESTS}");
    Ok(())
}

#[tokio::test]
async fn every_expression_of_the_dashboard_has_a_value_while_events_come() -> Result<()> {
    let edge = Edge::start().await?;
    let prometheus = Prometheus::start(edge.envoy.admin(), json!([])).await?;
    let dashboard: Value = serde_json::from_str(&read("deploy/dashboard.json")?)?;
    let targets = each(&dashboard["panels"]).flat_map(|panel| each(&panel["targets"]));
    let expressions: Vec<_> = targets.filter_map(|target| target["expr"].as_str()).collect();
    assert!(expressions.len() > 15, "{expressions:?}");

    let seen = async {
        for expression in expressions {
            // Nothing here keeps Envoy from connecting, or breaks the VM.
            let stays_0 = ["cx_connect_fail", "vm_reload"].iter().any(|name| expression.contains(name));
            let query = expression.replace("$__rate_interval", "4s");
            let has_values = async || {
                let values = prometheus.query(&query).await.unwrap_or_default();
                Ok(!values.is_empty()
                    && values.iter().all(|value| if stays_0 { *value == 0.0 } else { *value >= 0.0 })
                    && (stays_0 || values.iter().any(|value| *value > 0.0)))
            };
            eventually(expression, has_values).await?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        seen = seen => seen?,
        sent = send_good_and_bad_events(&edge) => sent?,
    }

    let data = prometheus.get("rules").await?;
    let rules: Vec<_> = each(&data["groups"]).flat_map(|group| each(&group["rules"])).collect();
    assert!(!rules.is_empty());
    for rule in rules {
        assert_eq!((&rule["health"], &rule["lastError"]), (&"ok".into(), &Value::Null), "{rule}");
    }
    Ok(())
}
