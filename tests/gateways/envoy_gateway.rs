//! Envoy Gateway on deploy/envoy-gateway.yaml.

use anyhow::Result;
use sandbox::envoy::Shell;
use tests::attacks::cannot_be_smuggled_past;
use tests::case_runner::hold_to;
use tests::cases::cases;
use tests::deployed::*;
use tests::edge::*;

use crate::gateway::Gateway;

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
