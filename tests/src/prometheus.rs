//! A real Prometheus, and events for it to count.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, Result, ensure};
use sandbox::envoy::workspace_root;
use sandbox::process::Process;
use sandbox::segment::Behaviour;
use sandbox::stigg::Webhook;
use serde_json::Value;
use tempfile::TempDir;

use crate::edge::*;
use crate::manifests::each;
use crate::tools::tool;

/// The alerting rules.
pub const ALERTS: &str = "deploy/alerts.yaml";

/// A running Prometheus. Dropping it ends it.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    address: SocketAddr,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts one that scrapes this Envoy every half second, renames its metrics by these rules, and evaluates the alerting
    /// rules.
    pub async fn start(envoy: impl std::fmt::Display, renaming: Value) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("prometheus.yml");
        let rules = workspace_root().join(ALERTS);
        std::fs::write(
            &config,
            format!(
                "global: {{ scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 1s }}\n\
                 rule_files: [ {} ]\n\
                 scrape_configs: [ {{ job_name: envoy, metrics_path: /stats/prometheus, static_configs: [ {{ targets: [ \"{envoy}\" ] }} ], metric_relabel_configs: {renaming} }} ]\n",
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
    pub async fn get(&self, path: &str) -> Result<Value> {
        let reply =
            Webhook::new("").method("GET".parse()?).send(&format!("http://{}/api/v1/{path}", self.address)).await;
        let reply = reply.with_context(|| self.process.log().tail())?;
        ensure!(reply.status == 200, "{path}: {}", reply.text());
        Ok(reply.json()["data"].take())
    }

    /// The values that a query has now.
    pub async fn query(&self, query: &str) -> Result<Vec<f64>> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let data = self.get(&format!("query?query={encoded}")).await?;
        each(&data["result"]).map(|series| Ok(series["value"][1].as_str().context("no value")?.parse()?)).collect()
    }
}

/// Sends events that come out in every way, for ever.
pub async fn send_good_and_bad_events(edge: &Edge) -> Result<()> {
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
