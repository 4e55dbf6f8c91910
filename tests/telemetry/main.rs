//! The variant of `envoy.yaml` that sends the access log and the metrics to an OpenTelemetry collector, with a real one.
//! `make test-telemetry` builds it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;

use anyhow::{Context, Result};
use sandbox::envoy::{Config, Envoy, HTTP_CONNECTION_MANAGER, Shell};
use sandbox::process::Process;
use sandbox::segment::{Behaviour, Options, Segment, Transport};
use sandbox::stigg::Webhook;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::edge::*;
use tests::manifests::{each, every};
use tests::tools::tool;

/// A running collector. Dropping it ends it.
struct Collector {
    process: Process,
    port: u16,
    /// It passes on what it receives to here, as JSON.
    sink: Segment,
    _folder: TempDir,
}

impl Collector {
    async fn start() -> Result<Self> {
        let sink = Segment::start_with(Options { transport: Transport::Plain, ..Options::default() }).await?;
        sink.behave(Behaviour::status(200));
        // It does not say which port the system chose for it.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let pipeline = json!({ "receivers": ["otlp"], "exporters": ["otlp_http"] });
        let config = json!({
            "receivers": { "otlp": { "protocols": { "grpc": { "endpoint": format!("127.0.0.1:{port}") } } } },
            "exporters": {
                "otlp_http": { "endpoint": format!("http://{}", sink.addr()), "encoding": "json", "compression": "none" },
            },
            "service": {
                "telemetry": { "metrics": { "level": "none" } },
                "pipelines": { "logs": pipeline, "metrics": pipeline },
            },
        });
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("config.json");
        std::fs::write(&file, config.to_string())?;
        let mut command = tool("otelcol")?;
        command.arg("--config").arg(file);
        Ok(Self { process: Process::spawn(command)?, port, sink, _folder: folder })
    }

    /// All it has received so far.
    fn received(&self) -> Vec<Value> {
        self.sink.calls().iter().map(|call| call.json()).collect()
    }
}

/// The attributes of a record or a data point, as text.
fn attributes(of: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value["stringValue"].as_str().unwrap_or_default().to_owned();
    each(&of["attributes"])
        .map(|pair| (pair["key"].as_str().unwrap_or_default().to_owned(), text(&pair["value"])))
        .collect()
}

/// Whether this Envoy does not start on the variant.
async fn has_no_exporters() -> Result<bool> {
    is_too_old((1, 37), "exporters to OpenTelemetry").await
}

fn variant() -> Result<Config> {
    Config::from_yaml(&Config::text(Shell::Wasm)?.replace("#otlp ", ""))
}

async fn start(collector: u16) -> Result<Edge> {
    let address = "/static_resources/clusters/telemetry/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address";
    let port = format!("{address}/socket_address/port_value");
    let segment = Segment::start().await?;
    let config = variant()?.on_loopback()?.upstream(&segment)?.set(&port, collector.into())?;
    Ok(Edge { envoy: Envoy::start(config, options()).await?, segment })
}

#[tokio::test]
async fn the_access_log_and_the_metrics_reach_a_collector_without_secrets_or_customer_data() -> Result<()> {
    if has_no_exporters().await? {
        return Ok(());
    }
    let collector = Collector::start().await?;
    let edge = start(collector.port).await?;
    assert_eq!(edge.send_event(EVENT).await?.status, 200);
    assert_eq!(edge.send_event(CATALOG_EVENT).await?.status, 204);
    let wrong = Webhook::new(EVENT).secret("hunter2").header("user-agent", "hunter3");
    assert_eq!(wrong.send(&edge.envoy.url(&format!("{PATH}?key=hunter5"))).await?.status, 401);

    let mut records = Vec::new();
    eventually("a record of each webhook", async || {
        records.clear();
        for received in collector.received() {
            let logs = every(&received, "logRecords").into_iter().flat_map(each);
            records.extend(logs.map(|log| (attributes(log), log["timeUnixNano"].is_string())));
        }
        Ok(records.len() >= 3)
    })
    .await
    .with_context(|| collector.process.log().tail())?;
    let log = variant()?;
    let fields = log.get(&format!("{HTTP_CONNECTION_MANAGER}/access_log/0/typed_config/log_format/json_format"))?;
    let fields: BTreeSet<_> = fields.as_object().context("no fields")?.keys().filter(|key| *key != "time").collect();
    let mut told = Vec::new();
    for (record, has_time) in &records {
        assert!(*has_time && record.keys().collect::<BTreeSet<_>>() == fields, "{record:?}");
        told.push(["status", "outcome", "event_type"].map(|key| record[key].as_str()));
    }
    told.sort_unstable();
    assert_eq!(
        told,
        [
            ["200", "via_upstream", "customer.payment_failed"],
            ["204", "stigg_segment_no_customer", "plan.created"],
            ["401", "stigg_segment_unauthorized", "-"],
        ]
    );

    let counted = [("forwarded", None), ("ignored", Some("no_customer")), ("rejected", Some("unauthorized"))];
    for (outcome, reason) in counted {
        eventually(outcome, async || {
            for received in collector.received() {
                for metric in every(&received, "metrics").into_iter().flat_map(each) {
                    let is_it = |point: &&Value| {
                        let attributes = attributes(point);
                        attributes.get("outcome").map(String::as_str) == Some(outcome)
                            && attributes.get("reason").map(String::as_str) == reason
                            && point["asInt"] == "1"
                    };
                    if metric["name"].as_str().is_some_and(|name| name.ends_with("stigg_segment.webhooks"))
                        && each(&metric["sum"]["dataPoints"]).any(|point| is_it(&point))
                    {
                        return Ok(true);
                    }
                }
            }
            Ok(false)
        })
        .await?;
    }

    let received = collector.received();
    let services = received.iter().flat_map(|received| every(received, "resource")).map(attributes);
    assert!(services.clone().count() > 1 && services.clone().all(|of| of["service.name"] == "stigg-segment"));
    let all = Value::from(received).to_string();
    for secret in [SECRET, WRITE_KEY, "hunter", "acme", "m-1"] {
        assert!(!all.contains(secret), "{secret} is in what the collector received");
    }
    Ok(())
}

#[tokio::test]
async fn webhooks_do_not_need_the_collector() -> Result<()> {
    if has_no_exporters().await? {
        return Ok(());
    }
    let nobody = TcpListener::bind("127.0.0.1:0")?; // accepts, and never answers
    let edge = start(nobody.local_addr()?.port()).await?;
    for _ in 0..20 {
        assert_eq!(edge.send_event(EVENT).await?.status, 200);
    }
    Ok(())
}
