//! Several of Stigg's environments on one Envoy, each with its own secret, write key and choices.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use sandbox::envoy::ROUTE;
use sandbox::stigg::{Reply, Webhook};
use serde_json::{Value, json};
use tests::edge::*;

const PRODUCTION: &str = "/webhooks/production";
const STAGING: &str = "/webhooks/staging";

async fn edge() -> Result<Edge> {
    Edge::start_with(|config| {
        let routed = config.paths([
            (PRODUCTION, "/v1/track"),
            (STAGING, "/v1/batch"), // staging sends batches
            ("/webhooks/other", "/v1/track"),
        ])?;
        routed.edit_plugin_configuration(|configuration| {
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
                    "source": "staging",
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

#[tokio::test]
async fn each_environment_has_its_own_secret_and_write_key() -> Result<()> {
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

/// Segment drops a call whose id it has seen, whichever source had it.
#[tokio::test]
async fn an_event_that_two_environments_get_is_two_calls() -> Result<()> {
    let edge = edge().await?;
    for (path, secret) in [(PRODUCTION, "secret-of-production"), (STAGING, "secret-of-staging")] {
        for _ in 0..2 {
            assert_eq!(send(&edge, path, secret, EVENT).await?.status, 200);
        }
    }
    let id = |call: &sandbox::segment::Call| match &call.json()["batch"][0]["messageId"] {
        Value::Null => call.json()["messageId"].to_string(),
        in_a_batch => in_a_batch.to_string(),
    };
    let ids: Vec<_> = edge.segment.calls().iter().map(id).collect();
    assert_eq!((&ids[0], &ids[2]), (&ids[1], &ids[3]), "each delivery has the same id");
    assert_ne!(ids[0], ids[2]);
    // The log names the parts.
    let log = edge.envoy.log();
    for part in [
        format!("{STAGING}: the ids of calls start with stigg-staging-"),
        format!("{PRODUCTION}: the ids of calls start with {}", &ids[0][1..16]),
    ] {
        assert!(log.contains(&part), "{part}: {log}");
    }
    Ok(())
}

#[tokio::test]
async fn each_environment_sends_the_events_it_chose() -> Result<()> {
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
        let expected = [("track", ""), ("identify", "-identify"), ("group", "-group")];
        let expected =
            expected.map(|(kind, suffix)| [json!(kind), json!(format!("stigg-staging-m{suffix}")), json!("acme")]);
        assert_eq!(told, expected.iter().map(|call| [&call[0], &call[1], &call[2]]).collect::<Vec<_>>());
        assert_eq!(batch[1]["traits"], json!({ "name": "Acme" }));
    }

    // An event that is not allowed is answered and counted, and nothing is sent.
    edge.segment.clear();
    let not_allowed = &own_stat("webhooks.outcome.ignored.reason.event_not_allowed");
    assert_eq!(edge.envoy.stat(not_allowed).await?, 0);
    assert_eq!(production(r#"{"type":"customer.deleted","id":"acme"}"#).await?.status, 204);
    assert_eq!(staging(r#"{"type":"plan.created","customer":{"id":"acme"}}"#).await?.status, 204);
    assert_eq!(edge.envoy.stat(not_allowed).await?, 2);
    assert_eq!(edge.segment.requests_begun(), 0);
    Ok(())
}

/// Everything that says where the parts of a call come from.
#[tokio::test]
async fn companies_people_times_and_keys_reach_segment_as_configured() -> Result<()> {
    let edge = Edge::start_with(|config| {
        config.paths([(PRODUCTION, "/v1/track"), (STAGING, "/v1/batch")])?.edit_plugin_configuration(|configuration| {
            configuration["environments"] = json!({
                PRODUCTION: { "user_id": "all", "timestamp": [{ "path": "timestamp" }, { "path": "effectiveAt" }] },
                STAGING: {
                    "user_id": [{ "path": "customer.metadata.userId", "traits": { "plan": "plan.name" } }],
                    "group_id": "all",
                    "also": ["group", "identify"],
                    "properties": { "under": "stigg" },
                    "source": "staging",
                },
            });
        })
    })
    .await?;
    let grant = r#"{"type":"credit_grant.created","customerId":"acme","effectiveAt":"2026-09-01T00:00+0200"}"#;
    assert_eq!(send(&edge, PRODUCTION, SECRET, grant).await?.status, 200);
    let call = edge.segment.calls()[0].json();
    assert_eq!((&call["userId"], &call["timestamp"]), (&json!("acme"), &json!("2026-09-01T00:00+0200")));

    edge.segment.clear();
    let event = r#"{"type":"a","messageId":"m","id":"s","plan":{"name":"Pro"},"customer":{"id":"acme","name":"Acme","metadata":{"userId":"u"}}}"#;
    for webhook in [Webhook::new(event), Webhook::new(event).http2()] {
        assert_eq!(webhook.secret(SECRET).send(&edge.envoy.url(STAGING)).await?.status, 200);
    }
    for batch in edge.segment.calls() {
        let batch = batch.json()["batch"].as_array().unwrap().clone();
        let kinds: Vec<_> = batch.iter().map(|call| call["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["track", "group", "identify"]);
        for call in &batch {
            assert_eq!((&call["userId"], &call["context"]["groupId"]), (&json!("u"), &json!("acme")), "{call}");
        }
        assert_eq!(batch[0]["properties"], json!({ "stigg": serde_json::from_str::<Value>(event)? }));
        let company = json!({ "name": "Acme", "metadata": { "userId": "u" } });
        assert_eq!((&batch[1]["groupId"], &batch[1]["traits"]), (&json!("acme"), &company));
        assert_eq!(batch[2]["traits"], json!({ "plan": "Pro" }));
    }

    // Without a person nothing is sent, and the reason says that there is a customer. Without a company the person is.
    edge.segment.clear();
    let elsewhere = &own_stat("webhooks.outcome.ignored.reason.customer_elsewhere");
    assert_eq!(edge.envoy.stat(elsewhere).await?, 0);
    assert_eq!(send(&edge, STAGING, SECRET, grant).await?.status, 204);
    assert_eq!((edge.envoy.stat(elsewhere).await?, edge.segment.requests_begun()), (1, 0));
    assert_eq!(send(&edge, STAGING, SECRET, &event.replace("acme", "")).await?.status, 200);
    let batch = edge.segment.calls()[0].json()["batch"].clone();
    let kinds: Vec<_> =
        batch.as_array().unwrap().iter().map(|call| [&call["type"], &call["context"]["groupId"]]).collect();
    assert_eq!(kinds, [[&json!("track"), &Value::Null], [&json!("identify"), &Value::Null]]);
    Ok(())
}

#[tokio::test]
async fn no_secret_of_an_environment_is_in_a_log() -> Result<()> {
    let edge = edge().await?;
    send(&edge, PRODUCTION, "secret-of-production", EVENT).await?;
    let reply = send(&edge, STAGING, "secret-of-production", EVENT).await?.text();
    let warnings = edge.envoy.wait_for_log("/webhooks/staging: write_key: this is not", PATIENCE).await?;
    let shown = [edge.envoy.log(), reply, warnings].concat();
    let secrets = BTreeSet::from(["secret-of-production", "secret-of-staging", "key-of-production", "key-of-staging"]);
    assert!(secrets.iter().all(|secret| !shown.contains(secret)), "{shown}");
    Ok(())
}

/// The path that Envoy makes of a request's path; `None` if it rejects the request.
async fn normalized(edge: &Edge, path: &str) -> Result<Option<String>> {
    let mut connection = edge.connect().await?;
    connection.send(format!("POST {path} HTTP/1.1\r\nhost: edge\r\ncontent-length: 0\r\n\r\n")).await?;
    let response = connection.response().await?;
    let echo = response.head.split("\r\n").find_map(|line| line.strip_prefix("x-path: ")).map(str::to_owned);
    assert_eq!(response.status, if echo.is_some() { 200 } else { 400 }, "{path}: {}", response.head);
    Ok(echo)
}

#[tokio::test]
async fn a_path_is_accepted_if_and_only_if_envoy_leaves_it_as_it_is() -> Result<()> {
    let edge = Edge::start_with(|mut config| {
        let (routes, _) = ROUTE.rsplit_once('/').unwrap();
        let echo = json!({
            "match": { "prefix": "/" },
            "direct_response": { "status": 200 },
            "response_headers_to_add": [{ "header": { "key": "x-path", "value": "%REQ(:path)%" } }],
        });
        config.at(routes)?.as_array_mut().context("routes are a list")?.insert(0, echo);
        Ok(config)
    })
    .await?;
    let mut paths: Vec<String> = [
        "/",
        "/a",
        "/a/",
        "/a/b",
        "//a",
        "/a//b",
        "/a//",
        "/./a",
        "/a/.",
        "/a/..",
        "/a/../b",
        "/a/.b",
        "/a/b.",
        "/a/..b",
        "/a/...",
        "/%2e/a",
        "/.%2E/a",
        "/a%20b",
        "/a%",
        "/a%2",
        "/a%zz",
        "/a%+0",
        "/a%00",
        "/a%0A",
        "/a%7f",
        "/%C3%A9",
        "/%ff",
        "/é",
        "/webhooks/stigg-2_b~c",
    ]
    .map(str::to_owned)
    .into();
    // A `?` starts the query, and a `*` is not for a path that is compared as a whole.
    for byte in (b' '..=b'~').filter(|byte| !b"?*".contains(byte)) {
        paths.push(format!("/a{}b", char::from(byte)));
        paths.push(format!("/a%{byte:02x}b"));
    }
    let (mut accepted, mut rejected) = (0, 0);
    for path in paths {
        let configuration = json!({
            "write_key": "gateway", "webhook_secret": "unverified", "environments": { &path: {} },
        });
        let parsed =
            stigg_segment::config::Config::parse(configuration.to_string().as_bytes(), |name| std::env::var(name));
        // The head is in lower case.
        let stays = normalized(&edge, &path).await?.as_deref() == Some(&path.to_lowercase());
        assert_eq!(parsed.is_ok(), stays, "{path}: {:?}", parsed.err());
        *if stays { &mut accepted } else { &mut rejected } += 1;
    }
    assert!(accepted > 50 && rejected > 50, "{accepted} accepted, {rejected} rejected");
    Ok(())
}
