//! Envoy Gateway on deploy/envoy-gateway.yaml.

use anyhow::{Context, Result};
use sandbox::envoy::Shell;
use serde_json::json;
use tests::attacks::cannot_be_smuggled_past;
use tests::case_runner::hold_to;
use tests::cases::cases;
use tests::deployed::*;
use tests::edge::*;

use crate::changes::Load;
use crate::gateway::{Gateway, put_secrets, segment};

async fn does_its_job(shell: Shell) -> Result<()> {
    let edge = Gateway::prepare(shell).await?.edge().await?;
    forwards_ignores_and_rejects(&edge, &["x-forwarded-host"]).await?;
    hold_to(cases()?, &edge, |_, outcome| {
        let call = outcome.call.iter_mut();
        call.for_each(|call| call.headers.retain(|(name, _)| name != "x-forwarded-host"));
        Ok(())
    })
    .await?;
    takes_large_bodies(&edge).await?;
    retries(&edge).await?;
    edge.segment.clear();
    cannot_be_smuggled_past(&edge).await?;
    bounds_a_slow_sender(&edge).await?;
    delivers_or_says_so_in_time(&edge).await?;
    // Envoy answers both itself.
    for (headers, status) in [
        ("expect: 100-continue\r\ncontent-length: 10\r\n", 100),
        ("connection: Upgrade\r\nupgrade: websocket\r\n", 403),
    ] {
        assert_eq!(edge.ask(request("POST", headers, "")).await?.status, status, "{headers}");
    }
    // The filter does not run for other paths.
    let elsewhere = edge.ask(post(EVENT).replace(PATH, "/elsewhere")).await?;
    assert_eq!((elsewhere.status, elsewhere.body.as_str()), (404, ""));
    Ok(())
}

#[tokio::test]
async fn the_gateway_does_its_job_with_the_wasm_module() -> Result<()> {
    does_its_job(Shell::Wasm).await
}

#[tokio::test]
async fn the_gateway_does_its_job_with_the_dynamic_module() -> Result<()> {
    does_its_job(Shell::Native).await
}

async fn takes_secrets_from_files(shell: Shell) -> Result<()> {
    let edge = Gateway::prepare_with_files(shell).await?.edge().await?;
    forwards_ignores_and_rejects(&edge, &["x-forwarded-host"]).await?;
    rotates_secrets(edge, put_secrets).await
}

#[tokio::test]
async fn a_change_of_the_secret_reaches_the_gateway_without_a_failed_request() -> Result<()> {
    takes_secrets_from_files(Shell::Wasm).await
}

#[tokio::test]
async fn a_change_of_the_secret_reaches_the_gateway_with_the_dynamic_module_too() -> Result<()> {
    takes_secrets_from_files(Shell::Native).await
}

#[tokio::test]
async fn without_what_reads_the_files_every_webhook_is_rejected() -> Result<()> {
    let gateway = Gateway::prepare_with_files(Shell::Wasm).await?;
    let segment = segment().await?;
    let process = gateway.run()?;
    process.log().line(|line| line.contains("Watching path added")).await; // it sees no change before
    let policy = gateway.manifests.the("EnvoyPatchPolicy")?;
    let others = gateway.manifests.0.iter().filter(|object| *object != policy);
    others.clone().try_for_each(|object| gateway.apply(object))?;
    let load = Load::start(gateway.proxy().await?);
    load.rejected(500).await.with_context(|| process.log().text())?;
    gateway.apply(policy)?;
    load.served().await?;
    let mut for_another = policy.clone();
    for_another["spec"]["jsonPatches"][0]["name"] = json!("stigg-segment/another/https");
    gateway.apply(&for_another)?;
    load.rejected(500).await?;
    gateway.apply(policy)?;
    load.served().await?;
    put_secrets(WRITE_KEY, &[])?;
    load.rejected(500).await?;
    load.check(&segment)
}
