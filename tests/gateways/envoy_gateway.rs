//! Envoy Gateway on deploy/envoy-gateway.yaml.

use anyhow::{Context, Result};
use sandbox::envoy::Shell;
use serde_json::json;
use tests::attacks::cannot_be_smuggled_past;
use tests::case_runner::hold_to;
use tests::cases::cases;
use tests::deployed::*;
use tests::edge::*;

use crate::changes::{Load, Webhook, send};
use crate::gateway::{Gateway, put_secrets, segment};
use crate::tls::secret;

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
    let process = gateway.run_and_watch().await?;
    let policy = gateway.manifests.the("EnvoyPatchPolicy")?;
    let mut others = gateway.manifests.0.iter().filter(|object| *object != policy);
    others.try_for_each(|object| gateway.apply(object))?;
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
    load.all_right(&segment)
}

/// Why no variant lets the gateway verify webhooks: without its policy, it would accept everyone.
#[tokio::test]
async fn a_gateway_that_verifies_webhooks_itself_is_open_without_its_policy() -> Result<()> {
    let mut gateway = Gateway::prepare(Shell::Wasm).await?;
    let policies = gateway.manifests.0.iter_mut().filter(|object| object["kind"] == "EnvoyExtensionPolicy");
    policies.for_each(|policy| policy["spec"]["wasm"][0]["config"]["webhook_secret"] = json!("unverified"));
    let keys =
        secret("stigg-segment", "keys", &[("current", SECRET.to_owned()), ("previous", PREVIOUS_SECRET.to_owned())]);
    let verifies = json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "SecurityPolicy",
        "metadata": { "name": "stigg-segment", "namespace": "stigg-segment" },
        "spec": {
            "targetRefs": gateway.manifests.the("EnvoyExtensionPolicy")?["spec"]["targetRefs"],
            "apiKeyAuth": {
                "credentialRefs": [{ "name": "keys" }],
                "extractFrom": [{ "headers": ["Stigg-Webhooks-Secret"] }],
                "sanitize": true,
            },
        },
    });
    let segment = segment().await?;
    let process = gateway.run_and_watch().await?;
    gateway.apply(&keys)?;
    gateway.apply(&verifies)?;
    gateway.manifests.0.iter().try_for_each(|object| gateway.apply(object))?;
    let proxy = gateway.proxy().await?;
    let takes = async |secret: &'static str| {
        let mut connection = Connection::open(proxy).await?;
        connection.send(post(EVENT).replace(SECRET, secret)).await?;
        anyhow::Ok(connection.response().await?.status)
    };
    for (sent, status) in [(SECRET, 200), (PREVIOUS_SECRET, 200), ("wrong", 401)] {
        let answered = async || Ok(takes(sent).await.is_ok_and(|answered| answered == status));
        eventually(sent, answered).await.with_context(|| process.log().tail())?;
    }
    segment.clear();
    gateway.delete(&verifies)?;
    eventually("it is open", async || Ok(takes("wrong").await? == 200)).await?;
    assert_eq!(segment.calls().len(), 1);
    Ok(())
}

/// Why no policy may allow headers with an underscore: without the filter, a stranger could choose the route to Segment.
#[tokio::test]
async fn only_a_policy_that_allows_it_lets_a_client_send_the_filters_header() -> Result<()> {
    let gateway = Gateway::prepare(Shell::Wasm).await?;
    let segment = segment().await?;
    let process = gateway.run_and_watch().await?;
    let mut others = gateway.manifests.0.iter().filter(|object| object["kind"] != "EnvoyExtensionPolicy");
    others.try_for_each(|object| gateway.apply(object))?;
    let proxy = gateway.proxy().await?;
    let is_answered = async |status| {
        let answered = async || Ok(send(proxy, &Webhook::Stranger).await.is_ok_and(|answered| answered == status));
        eventually("an answer", answered).await
    };
    is_answered(503).await.with_context(|| process.log().tail())?;
    // Envoy Gateway rejects such a request if no policy is there.
    let policy = gateway.manifests.the("ClientTrafficPolicy")?;
    gateway.delete(policy)?;
    is_answered(400).await?;
    assert_eq!(segment.connections(), 0);
    let mut allows = policy.clone();
    allows["spec"]["headers"]["withUnderscoresAction"] = json!("Allow");
    gateway.apply(&allows)?;
    is_answered(401).await?;
    let calls = segment.calls();
    assert!(!calls.is_empty() && calls.iter().all(|call| call.write_key.is_none() && !call.accepted), "{calls:?}");
    Ok(())
}
