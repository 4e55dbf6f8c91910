//! The alerting rules and the dashboard, in a real Prometheus.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, Result, ensure};
use sandbox::envoy::workspace_root;
use sandbox::process::Process;
use sandbox::segment::Behaviour;
use sandbox::stigg::Webhook;
use serde_json::Value;
use tempfile::TempDir;
use tests::edge::*;
use tests::manifests::each;
use tests::pages::read;
use tests::tools::{run, tool};

const ALERTS: &str = "deploy/alerts.yaml";
const UNIT_TESTS: &str = "tests/deploy/alerts.yaml";

fn yaml(file: &str) -> Result<Value> {
    serde_yaml_ng::from_str(&read(file)?).with_context(|| file.to_owned())
}

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

/// A running Prometheus. Dropping it ends it.
struct Prometheus {
    process: Process,
    address: SocketAddr,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts one that scrapes this Envoy every half second, and evaluates the alerting rules.
    async fn start(envoy: impl std::fmt::Display) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("prometheus.yml");
        let rules = workspace_root().join(ALERTS);
        std::fs::write(
            &config,
            format!(
                "global: {{ scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 1s }}\n\
                 rule_files: [ {} ]\n\
                 scrape_configs: [ {{ job_name: envoy, metrics_path: /stats/prometheus, static_configs: [ {{ targets: [ \"{envoy}\" ] }} ] }} ]\n",
                rules.display()
            ),
        )?;
        // It does not say which port the system chose for it.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = tool("prometheus")?;
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        Ok(Self { process: Process::spawn(command)?, address, _folder: folder })
    }

    /// What it answers on a path of its API.
    async fn get(&self, path: &str) -> Result<Value> {
        let reply =
            Webhook::new("").method("GET".parse()?).send(&format!("http://{}/api/v1/{path}", self.address)).await;
        let reply = reply.with_context(|| self.process.log().tail())?;
        ensure!(reply.status == 200, "{path}: {}", reply.text());
        Ok(reply.json()["data"].take())
    }

    /// The values that a query has now.
    async fn query(&self, query: &str) -> Result<Vec<f64>> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let data = self.get(&format!("query?query={encoded}")).await?;
        each(&data["result"]).map(|series| Ok(series["value"][1].as_str().context("no value")?.parse()?)).collect()
    }
}

/// Sends events that come out in every way, for ever.
async fn send_good_and_bad_events(edge: &Edge) -> Result<()> {
    loop {
        edge.segment.script([Behaviour::ResetBeforeAccept]);
        edge.segment.script([503, 400].map(Behaviour::status)); // sent again, and rejected
        edge.segment.script([503; 4].map(Behaviour::status)); // given up
        for event in [EVENT, EVENT, EVENT, CATALOG_EVENT, "{"] {
            edge.send_event(event).await?;
        }
        Webhook::new(EVENT).secret("wrong").send(&edge.envoy.url(PATH)).await?;
    }
}

#[tokio::test]
async fn every_expression_of_the_dashboard_has_a_value_while_events_come() -> Result<()> {
    let edge = Edge::start().await?;
    let prometheus = Prometheus::start(edge.envoy.admin()).await?;
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
