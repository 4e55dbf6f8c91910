//! Envoy Gateway on deploy/envoy-gateway.yaml.

use anyhow::Result;
use sandbox::envoy::Shell;
use tests::case_runner::hold_to;
use tests::cases::cases;

use crate::gateway::Gateway;

async fn the_cases_hold(shell: Shell) -> Result<()> {
    let edge = Gateway::prepare(shell).await?.edge().await?;
    hold_to(cases()?, &edge, |_, outcome| {
        let call = outcome.call.iter_mut();
        call.for_each(|call| call.headers.retain(|(name, _)| name != "x-forwarded-host"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_cases_hold_with_the_wasm_module() -> Result<()> {
    the_cases_hold(Shell::Wasm).await
}

#[tokio::test]
async fn the_cases_hold_with_the_dynamic_module() -> Result<()> {
    the_cases_hold(Shell::Native).await
}
