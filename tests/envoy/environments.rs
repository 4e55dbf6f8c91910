//! Several of Stigg's environments behind one Envoy, each with its own secret, write key and choices, through sockets.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use sandbox::envoy::{Config, ROUTE, Shell};
use sandbox::stigg::{Reply, Webhook};
use serde_json::{Value, json};
use tests::edge::*;
use tests::on_both_shells;

on_both_shells! {
    each_has_its_own_secret_and_write_key
    each_sends_what_it_chose
    no_secret_of_an_environment_is_in_a_log
}

const PRODUCTION: &str = "/webhooks/production";
const STAGING: &str = "/webhooks/staging";

/// A route for each environment; that of staging sends batches.
fn routes(mut config: Config) -> Result<Config> {
    let shipped = config.get(ROUTE)?.clone();
    let route_to = |path: &str, endpoint: &str| {
        let mut route = shipped.clone();
        route["name"] = path.into();
        route["match"]["path"] = path.into();
        route["route"]["prefix_rewrite"] = endpoint.into();
        route
    };
    let (routes, _) = ROUTE.rsplit_once('/').unwrap();
    let routes = config.at(routes)?.as_array_mut().context("routes are a list")?;
    routes.splice(
        0..0,
        [route_to(PRODUCTION, "/v1/track"), route_to(STAGING, "/v1/batch"), route_to("/webhooks/other", "/v1/track")],
    );
    Ok(config)
}

async fn edge() -> Result<Edge> {
    Edge::start_with(|config| {
        routes(config)?.edit_plugin_configuration(|configuration| {
            configuration["events"] = json!({ "deny": ["*.deleted"] });
            configuration["environments"] = json!({
                PRODUCTION: {
                    "webhook_secret": { "value": "secret-of-production" },
                    "write_key": { "value": "key-of-production" },
                    "user_id": [{ "path": "customer.id" }, { "path": "id", "events": ["customer.*"] }, { "path": "customerId" }],
                    "event_name": { "style": "title_case", "prefix": "Stigg " },
                    "context": { "app": { "name": "billing" } },
                    "integrations": { "All": false },
                },
                STAGING: {
                    "webhook_secret": { "value": ["secret-of-staging", "former-secret-of-staging"] },
                    "write_key": { "value": "key-of-staging" },
                    "events": { "allow": ["customer.*"] },
                    "properties": { "remove": ["customer.email"] },
                    "also": ["identify", "group"],
                },
            });
        })
    })
    .await
}

async fn send(edge: &Edge, path: &str, secret: &str, body: &str) -> Result<Reply> {
    Webhook::new(body.to_owned()).secret(secret).send(&edge.envoy.url(path)).await
}

async fn each_has_its_own_secret_and_write_key() -> Result<()> {
    let edge = edge().await?;
    for (path, secret, status) in [
        (PRODUCTION, "secret-of-production", 200),
        (STAGING, "secret-of-staging", 200),
        (STAGING, "former-secret-of-staging", 200),
        (PRODUCTION, "secret-of-staging", 401),
        (STAGING, "secret-of-production", 401),
        (PRODUCTION, SECRET, 401),
    ] {
        assert_eq!(send(&edge, path, secret, EVENT).await?.status, status, "{path} with {secret}");
    }
    let keys: Vec<_> = edge.segment.calls().into_iter().map(|call| (call.path, call.write_key.unwrap())).collect();
    let expected =
        [("/v1/track", "key-of-production"), ("/v1/batch", "key-of-staging"), ("/v1/batch", "key-of-staging")];
    assert_eq!(keys, expected.map(|(path, key)| (path.to_owned(), key.to_owned())));
    let reply = send(&edge, "/webhooks/other?x", "secret-of-production", EVENT).await?;
    assert_eq!((reply.status, &reply.json()["code"]), (404, &json!("unknown_path")));
    Ok(())
}

async fn each_sends_what_it_chose() -> Result<()> {
    let edge = edge().await?;
    let production = async |body: &str| send(&edge, PRODUCTION, "secret-of-production", body).await;
    let staging = async |body: &str| send(&edge, STAGING, "secret-of-staging", body).await;
    let body = r#"{"type":"customer.updated","messageId":"m","id":"acme","email":"a@example.com"}"#;
    assert_eq!(production(body).await?.status, 200);
    assert_eq!(production(r#"{"type":"credits.granted","messageId":"n","customerId":"flat"}"#).await?.status, 200);
    let calls: Vec<Value> = edge.segment.calls().iter().map(|call| call.json()).collect();
    let named: Vec<_> = calls.iter().map(|call| [&call["event"], &call["userId"]]).collect();
    assert_eq!(
        named,
        [[&json!("Stigg Customer Updated"), &json!("acme")], [&json!("Stigg Credits Granted"), &json!("flat")]]
    );
    assert_eq!(
        (&calls[0]["context"]["app"]["name"], &calls[0]["integrations"]),
        (&json!("billing"), &json!({ "All": false }))
    );
    assert_eq!(calls[0]["properties"], serde_json::from_str::<Value>(body)?);

    edge.segment.clear();
    let body = r#"{"type":"customer.payment_failed","messageId":"m","customer":{"id":"acme","name":"Acme","email":"a@example.com"}}"#;
    for webhook in [Webhook::new(body), Webhook::new(body).http2()] {
        let reply = webhook.secret("secret-of-staging").send(&edge.envoy.url(STAGING)).await?;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    for call in edge.segment.calls() {
        assert!(!String::from_utf8_lossy(&call.body).contains("a@example.com"), "{call:?}");
        assert!(call.header("content-length").is_none_or(|length| length == call.body.len().to_string()));
        let batch = call.json()["batch"].as_array().unwrap().clone();
        let told: Vec<_> = batch.iter().map(|call| [&call["type"], &call["messageId"], &call["userId"]]).collect();
        let expected = [("track", "stigg-m"), ("identify", "stigg-m-identify"), ("group", "stigg-m-group")];
        let expected = expected.map(|(kind, id)| [json!(kind), json!(id), json!("acme")]);
        assert_eq!(told, expected.iter().map(|call| [&call[0], &call[1], &call[2]]).collect::<Vec<_>>());
        assert_eq!(batch[1]["traits"], json!({ "name": "Acme" }));
    }

    // What is not allowed is answered and counted, and nothing is sent.
    edge.segment.clear();
    let prefix = match shell() {
        Shell::Wasm => "wasmcustom",
        Shell::Native => "dynamicmodulescustom",
    };
    let not_allowed = format!("{prefix}.stigg_segment.webhooks.outcome.ignored.reason.event_not_allowed");
    assert_eq!(edge.envoy.stat(&not_allowed).await?, 0);
    assert_eq!(production(r#"{"type":"customer.deleted","id":"acme"}"#).await?.status, 204);
    assert_eq!(staging(r#"{"type":"plan.created","customer":{"id":"acme"}}"#).await?.status, 204);
    assert_eq!(edge.envoy.stat(&not_allowed).await?, 2);
    assert_eq!(edge.segment.requests_begun(), 0);
    Ok(())
}

async fn no_secret_of_an_environment_is_in_a_log() -> Result<()> {
    let edge = edge().await?;
    send(&edge, PRODUCTION, "secret-of-production", EVENT).await?;
    let reply = send(&edge, STAGING, "secret-of-production", EVENT).await?.text();
    let warnings = edge.envoy.wait_for_log("environments./webhooks/staging: write_key: this is not", PATIENCE).await?;
    let shown = [edge.envoy.log(), reply, warnings].concat();
    let secrets = BTreeSet::from(["secret-of-production", "secret-of-staging", "key-of-production", "key-of-staging"]);
    assert!(secrets.iter().all(|secret| !shown.contains(secret)), "{shown}");
    Ok(())
}
