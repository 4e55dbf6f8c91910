//! The launcher, on a real Envoy with the shipped configuration. These tests do not need the filter and remove it.

use std::time::Duration;

use anyhow::Result;
use sandbox::envoy::{self, Config, Envoy, Options};
use sandbox::segment::{self, Behaviour, Segment, Transport};
use sandbox::stigg::{PATH, Reply, Webhook};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(10);

/// Removes the retries as well, so that one request is one attempt.
fn without_filter(segment: &Segment) -> Result<Config> {
    Config::sandboxed(segment)?.without_filter()?.set(&format!("{}/route/retry_policy", envoy::ROUTE), Value::Null)
}

async fn start(segment: &Segment) -> Result<Envoy> {
    Envoy::start(without_filter(segment)?, Options::default()).await
}

async fn send(envoy: &Envoy) -> Result<Reply> {
    let call = Webhook::event(&json!({"event": "e"})).header("authorization", "Basic d3JpdGUta2V5Og==");
    call.send(&envoy.url(PATH)).await
}

fn exists(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn envoy_reaches_the_stand_in_under_segments_name() -> Result<()> {
    let segment = Segment::start().await?;
    let envoy = start(&segment).await?;

    let reply = send(&envoy).await?;

    assert_eq!((reply.status, reply.json()), (200, json!({"success": true})));
    let calls = segment.wait_for(1, PATIENCE).await?;
    assert_eq!(calls[0].path, "/v1/track");
    assert_eq!(calls[0].host.as_deref(), Some("api.segment.io"));
    assert_eq!(calls[0].sni.as_deref(), Some("api.segment.io"));
    assert_eq!(calls[0].write_key.as_deref(), Some("write-key"));
    assert_eq!((calls[0].status, calls[0].accepted), (Some(200), true));
    Ok(())
}

#[tokio::test]
async fn envoy_trusts_no_other_name() -> Result<()> {
    let transport = Transport::tls_for(["segment.example"]);
    let segment = Segment::start_with(segment::Options { transport, ..Default::default() }).await?;
    let envoy = start(&segment).await?;
    assert_eq!(send(&envoy).await?.status, 503);
    assert_eq!(segment.requests_begun(), 0);
    assert_eq!(envoy.stat("cluster.segment.ssl.fail_verify_san").await?, 1);
    Ok(())
}

#[tokio::test]
async fn without_tls() -> Result<()> {
    let segment = Segment::start_with(segment::Options { transport: Transport::Plain, ..Default::default() }).await?;
    let envoy = start(&segment).await?;
    assert_eq!(send(&envoy).await?.status, 200);
    assert_eq!(segment.calls()[0].host.as_deref(), Some("api.segment.io"));
    Ok(())
}

#[tokio::test]
async fn envoy_sees_resets() -> Result<()> {
    let segment = Segment::start().await?;
    let envoy = start(&segment).await?;
    segment.script([Behaviour::ResetAfterAccept]);
    assert_eq!(send(&envoy).await?.status, 503);
    assert_eq!(send(&envoy).await?.status, 200);
    assert_eq!((segment.accepted_count(), segment.connections()), (2, 2));
    Ok(())
}

#[tokio::test]
async fn the_admin_interface() -> Result<()> {
    let segment = Segment::start().await?;
    let envoy = start(&segment).await?;
    assert_eq!(envoy.admin_get("/ready").await?, "LIVE\n");
    assert!(envoy.admin_get("/nothing").await.is_err());
    assert_eq!(envoy.stat("cluster.segment.upstream_rq_200").await?, 0);
    send(&envoy).await?;
    assert_eq!(envoy.wait_for_stat("cluster.segment.upstream_rq_200", 1, PATIENCE).await?, 1);
    envoy.admin_post("/logging?level=debug").await?;
    envoy.wait_for_log("[debug]", PATIENCE).await?;
    assert!(envoy.log().contains("starting main dispatch loop"));
    Ok(())
}

#[tokio::test]
async fn dropping_it_leaves_no_process_behind() -> Result<()> {
    let segment = Segment::start().await?;
    let envoy = start(&segment).await?;
    let pid = envoy.pid();
    assert!(exists(pid));
    drop(envoy);
    assert!(!exists(pid));
    Ok(())
}

#[tokio::test]
async fn stopping_it_is_a_good_end_and_killing_it_is_not() -> Result<()> {
    let segment = Segment::start().await?;
    let envoy = start(&segment).await?;
    assert!(envoy.stop().await?.success());

    let envoy = start(&segment).await?;
    envoy.kill()?;
    assert!(!envoy.exited().await.success());
    envoy.kill()?; // again: it is gone, and no other process is hit
    Ok(())
}

/// A thread that ends, for example one of a pool, must not end Envoy.
#[tokio::test]
async fn it_does_not_depend_on_the_thread_that_started_it() -> Result<()> {
    let segment = Segment::start().await?;
    let config = without_filter(&segment)?;
    let runtime = tokio::runtime::Handle::current();
    let starting = std::thread::spawn(move || runtime.block_on(Envoy::start(config, Options::default())));
    let envoy = tokio::task::spawn_blocking(|| starting.join().expect("no panic")).await??;
    assert_eq!(send(&envoy).await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn a_rejected_configuration_fails_with_envoys_words() -> Result<()> {
    let segment = Segment::start().await?;
    let rejected = without_filter(&segment)?.set("/static_resources/clusters/segment/nonsense", json!(1))?;

    let validation = envoy::validate(rejected.clone(), Options::default()).await?;
    assert!(!validation.accepted);
    assert!(validation.log.contains("nonsense"), "{}", validation.log);

    let error = Envoy::start(rejected, Options::default()).await.unwrap_err().to_string();
    assert!(error.contains("nonsense"), "{error}");

    assert!(envoy::validate(without_filter(&segment)?, Options::default()).await?.accepted);
    Ok(())
}

#[tokio::test]
async fn envoy_gets_only_the_environment_it_is_given() -> Result<()> {
    let segment = Segment::start().await?;
    let options = Options::default().env("A_VARIABLE", "and its value");
    let envoy = Envoy::start(without_filter(&segment)?, options).await?;
    let environment = std::fs::read_to_string(format!("/proc/{}/environ", envoy.pid()))?;
    let has = |name| environment.split_terminator('\0').any(|entry| entry.split('=').next() == Some(name));
    assert!(environment.contains("A_VARIABLE=and its value"));
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some() && !has("CARGO_MANIFEST_DIR"));
    Ok(())
}
