//! Updates of the configuration while webhooks come: each request ends on the configuration that it began with, and a
//! configuration that is replaced leaves nothing behind.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use anyhow::{Context, Result};
use sandbox::envoy::{Config, Envoy, LISTENER, Options, Shell};
use sandbox::segment::Segment;
use serde_json::{Value, json};
use tests::edge::*;
use tokio::task::JoinSet;

const UPDATED: &str = "listener_manager.lds.update_success";

/// A listener whose calls carry this number.
fn listener(shipped: &Config, number: usize) -> Result<Value> {
    // Long enough that one that stays in memory shows.
    let types: Vec<_> = (0..2_000).map(|n| format!("some.event.that.nobody.has.{number}.{n}")).collect();
    let config = shipped.clone().edit_plugin_configuration(|own| {
        own["context"] = json!({ "update": number });
        own["events"] = json!({ "deny": types });
    })?;
    config.get(&format!("/static_resources/listeners/{LISTENER}")).cloned()
}

/// Gives Envoy a listener, as a control plane would.
async fn update(edge: &Edge, file: &Path, shipped: &Config, number: usize) -> Result<()> {
    let before = edge.envoy.stat(UPDATED).await?;
    write(file, listener(shipped, number)?)?;
    edge.envoy.wait_for_stat(UPDATED, before + 1, PATIENCE).await?;
    Ok(())
}

/// Replaces the file by a rename, as Envoy requires.
fn write(file: &Path, mut listener: Value) -> Result<()> {
    listener["@type"] = json!("type.googleapis.com/envoy.config.listener.v3.Listener");
    let new = file.with_extension("new");
    fs::write(&new, json!({ "resources": [listener] }).to_string())?;
    Ok(fs::rename(new, file)?)
}

/// Envoy with two workers on listeners from a file.
async fn start(file: &Path) -> Result<(Edge, Config)> {
    let segment = Segment::start().await?;
    let shipped = Config::sandboxed_with(Shell::Native, &segment)?;
    write(file, listener(&shipped, 0)?)?;
    let config = shipped.clone().remove(&format!("/static_resources/listeners/{LISTENER}"))?.set(
        "/dynamic_resources/lds_config",
        json!({ "path_config_source": { "path": file }, "resource_api_version": "V3" }),
    )?;
    let drain = ["--drain-time-s", "1"].map(str::to_owned).to_vec();
    let options = Options { concurrency: 2, arguments: drain, ..options() };
    Ok((Edge { envoy: Envoy::start(config, options).await?, segment }, shipped))
}

#[tokio::test]
async fn a_request_ends_on_the_configuration_that_it_began_with() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("lds.json");
    let (edge, shipped) = start(&file).await?;
    let (begin, end) = EVENT.split_at(20);
    let mut under_way = edge.connect().await?;
    under_way.send(request("POST", &format!("content-length: {}\r\n", EVENT.len()), begin)).await?;
    edge.envoy.wait_for_stat("http.webhooks.downstream_rq_active", 1, PATIENCE).await?;
    update(&edge, &file, &shipped, 1).await?;
    assert_eq!(edge.send_event(EVENT).await?.status, 200);
    under_way.send(end).await?;
    assert_eq!(under_way.response().await?.status, 200);
    let updates: Vec<_> = edge.segment.calls().iter().map(|call| call.json()["context"]["update"].clone()).collect();
    assert_eq!(updates, [1, 0], "the second one began before the update");
    Ok(())
}

#[tokio::test]
async fn updates_under_load_lose_no_webhook_and_no_memory() -> Result<()> {
    const UPDATES: usize = 200;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("lds.json");
    let (edge, shipped) = start(&file).await?;
    let edge = Arc::new(edge);
    let (over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut senders = JoinSet::new();
    for _ in 0..4 {
        let (edge, over, sent) = (edge.clone(), over.clone(), sent.clone());
        senders.spawn(async move {
            while !over.load(Relaxed) {
                let reply = edge.send_event(EVENT).await?;
                anyhow::ensure!(reply.status == 200, "{reply:?}");
                sent.fetch_add(1, Relaxed);
            }
            anyhow::Ok(())
        });
    }
    let mut memory = Vec::new();
    for number in 1..=UPDATES {
        let before = sent.load(Relaxed);
        update(&edge, &file, &shipped, number).await?;
        eventually("webhooks come", async || Ok(sent.load(Relaxed) > before || senders.is_empty())).await?;
        if number % (UPDATES / 4) == 0 {
            eventually("old ones are gone", async || {
                Ok(edge.envoy.stat("listener_manager.total_filter_chains_draining").await? == 0)
            })
            .await?;
            memory.push(allocated(&edge).await?);
        }
    }
    over.store(true, Relaxed);
    for sender in senders.join_all().await {
        sender?;
    }
    println!("allocated after each quarter: {memory:?}; {} webhooks", sent.load(Relaxed));
    // A configuration of this test takes some 200 kB.
    let growth = memory[3].saturating_sub(memory[1]);
    assert!(growth < (UPDATES as u64 / 2) * 20_000, "{memory:?}");
    Ok(())
}

/// The bytes that Envoy and the module have allocated.
async fn allocated(edge: &Edge) -> Result<u64> {
    let memory: Value = serde_json::from_str(&edge.envoy.admin_get("/memory").await?)?;
    memory["allocated"].as_str().context("no figure")?.parse().context("not a number")
}
