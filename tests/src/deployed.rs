//! What every deployment does, whichever gateway runs it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sandbox::segment::Behaviour;
use sandbox::stigg::Webhook;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::edge::*;

/// Bodies can be about as large as the filter's limit.
pub async fn takes_large_bodies(edge: &Edge) -> Result<()> {
    let event = format!(r#"{{"type":"plan.created","x":"{}"}}"#, "x".repeat(500 * 1024));
    for request in [post(&event), post_chunked(&event, 10_000)] {
        assert_eq!(edge.ask(request).await?.status, 204);
    }
    Ok(())
}

/// What is true of every deployment: who may send, what is sent, and that nothing else reaches Segment.
pub async fn forwards_ignores_and_rejects(edge: &Edge, besides: &[&str]) -> Result<()> {
    for request in [post(CATALOG_EVENT), post_chunked(CATALOG_EVENT, 7)] {
        assert_eq!(edge.ask(request).await?.status, 204);
    }
    for (request, status, code) in [
        (post(EVENT).replace(SECRET, "wrong"), 401, "unauthorized"),
        (post("{"), 400, "malformed_json"),
        (request("GET", "", ""), 405, "method_not_allowed"),
    ] {
        let rejected = edge.ask(request).await?;
        assert!(rejected.status == status && rejected.body.contains(code), "{rejected:?}");
    }
    assert_eq!(edge.segment.connections(), 0);

    for secret in [SECRET, PREVIOUS_SECRET] {
        edge.segment.clear();
        let reply = edge.ask(post(EVENT).replace(SECRET, secret)).await?;
        assert_eq!((reply.status, reply.body.as_str()), (200, r#"{"success":true}"#));
        let call = &edge.segment.wait_for(1, PATIENCE).await?[0];
        assert_eq!((call.method.as_str(), call.path.as_str()), ("POST", "/v1/track"));
        assert_eq!((call.sni.as_deref(), call.host.as_deref()), (Some("api.segment.io"), Some("api.segment.io")));
        assert_eq!(call.write_key.as_deref(), Some(WRITE_KEY));
        assert_eq!(call.json()["properties"], serde_json::from_str::<Value>(EVENT)?);
        let mut expected =
            BTreeSet::from(["authorization", "content-length", "content-type", "user-agent", "x-request-id"]);
        expected.extend(besides);
        let names: BTreeSet<_> = call.headers.keys().map(|name| name.as_str()).filter(|name| *name != "host").collect();
        assert_eq!(names, expected);
    }
    Ok(())
}

/// Envoy retries retryable answers, and no others.
pub async fn retries(edge: &Edge) -> Result<()> {
    for (status, calls) in [(503, 2), (429, 2), (400, 1)] {
        edge.segment.clear();
        edge.segment.script([Behaviour::Answer { status, headers: vec![], body: String::new(), accept: false }]);
        let reply = edge.ask(post(EVENT)).await?;
        assert_eq!(reply.status, if calls == 1 { status } else { 200 });
        assert_eq!(edge.segment.calls().len(), calls, "{status}");
    }
    Ok(())
}

/// An event survives a broken connection, and has an answer while Stigg still waits for it.
pub async fn delivers_or_says_so_in_time(edge: &Edge) -> Result<()> {
    for broken in [Behaviour::ResetBeforeAccept, Behaviour::ResetAfterAccept] {
        edge.segment.clear();
        edge.segment.script([broken]);
        assert_eq!(edge.ask(post(EVENT)).await?.status, 200);
        let ids: Vec<_> = edge.segment.calls().iter().map(|call| call.json()["messageId"].clone()).collect();
        assert_eq!(ids, [message_id("m-1"), message_id("m-1")]);
    }
    edge.segment.clear();
    edge.segment.behave(Behaviour::status(500));
    assert_eq!(edge.ask(post(EVENT)).await?.status, 500);
    assert_eq!(edge.segment.calls().len(), 4, "once, and three retries");
    edge.segment.behave(Behaviour::Accept.after(Duration::from_secs(60)));
    let begin = Instant::now();
    let mut stigg = edge.connect().await?;
    stigg.send(post(EVENT)).await?;
    assert_eq!(stigg.response_within(Duration::from_secs(28)).await?.status, 504);
    assert!(begin.elapsed() > Duration::from_secs(20), "{:?}", begin.elapsed());
    edge.segment.behave(Behaviour::Accept);
    Ok(())
}

/// Where nothing holds a request until its event is mapped, and its route does not wait for that, its head leaves at once. Its
/// event arrives, and Envoy does not crash.
pub async fn events_arrive_that_nothing_holds(edge: &Edge) -> Result<()> {
    let whole = post_chunked(EVENT, 7);
    let (head, body) = whole.split_at(whole.find("\r\n\r\n").context("a head")? + 4);
    // There is no connection to Segment yet.
    assert_eq!(edge.ask(whole.clone()).await?.status, 200);
    for begun in 2..=3 {
        let mut stigg = edge.connect().await?;
        stigg.send(head).await?;
        eventually("the head leaves", async || Ok(edge.segment.requests_begun() == begun)).await?;
        stigg.send(body).await?;
        assert_eq!(stigg.response().await?.status, 200);
    }
    assert_eq!(edge.segment.accepted_count(), 3);
    Ok(())
}

/// A sender that never ends its request has an answer.
pub async fn bounds_a_slow_sender(edge: &Edge) -> Result<()> {
    let begin = Instant::now();
    let mut slow = edge.connect().await?;
    let whole = post(EVENT);
    slow.send(&whole[..whole.len() - 1]).await?;
    assert_eq!(slow.response().await?.status, 408);
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    Ok(())
}

/// Both secrets change under load, without a failed request. `change` replaces the write key and the valid webhook secrets, of
/// which the newest comes first; before, there are [`WRITE_KEY`] and [`SECRET`].
pub async fn rotates_secrets(edge: Edge, change: impl Fn(&str, &[&str]) -> Result<()>) -> Result<()> {
    const NEW_SECRET: &str = "whsec-next-91c0";
    const NEW_KEY: &str = "wkABCDEFGHIJKLMNOPQRSTUVWXYZ0123";
    let edge = Arc::new(edge);
    let send = async |edge: &Edge, secret| {
        anyhow::Ok(Webhook::new(EVENT).secret(secret).send(&edge.envoy.url(PATH)).await?.status)
    };
    for (secret, status) in [(SECRET, 200), (NEW_SECRET, 401), ("", 401), ("-", 401)] {
        assert_eq!(send(&edge, secret).await?, status, "{secret}");
    }
    let (uses_new, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: JoinHandle<Result<()>> = tokio::spawn({
        let (edge, uses_new, answered) = (edge.clone(), uses_new.clone(), answered.clone());
        async move {
            loop {
                let secret = if uses_new.load(Relaxed) { NEW_SECRET } else { SECRET };
                let status = send(&edge, secret).await?;
                ensure!(status == 200, "{status} after {} answers", answered.load(Relaxed));
                answered.fetch_add(1, Relaxed);
            }
        }
    });
    let some_more = async || {
        let enough = answered.load(Relaxed) + 50;
        eventually("50 more answers", async || Ok(answered.load(Relaxed) >= enough || load.is_finished())).await
    };
    some_more().await?;
    change(WRITE_KEY, &[NEW_SECRET, SECRET])?;
    eventually("the new secret is valid", async || Ok(send(&edge, NEW_SECRET).await? == 200)).await?;
    some_more().await?;
    uses_new.store(true, Relaxed); // Stigg uses it from now on
    some_more().await?;
    change(NEW_KEY, &[NEW_SECRET])?;
    let last_key = || edge.segment.calls().last().and_then(|call| call.write_key.clone());
    let new_key = async || Ok(last_key().as_deref() == Some(NEW_KEY) || load.is_finished());
    eventually("the new write key is used", new_key).await?;
    eventually("the old secret is rejected", async || Ok(send(&edge, SECRET).await? == 401)).await?;
    some_more().await?;
    assert!(!load.is_finished(), "a request failed: {:?}", load.await);
    load.abort();
    for call in edge.segment.calls() {
        assert!(call.write_key.as_deref().is_some_and(|key| [WRITE_KEY, NEW_KEY].contains(&key)), "{call:?}");
    }
    let dump = edge.envoy.admin_get("/config_dump").await?;
    for secret in [SECRET, NEW_SECRET, WRITE_KEY, NEW_KEY, "d2tBQkNE"] {
        assert!(!dump.contains(secret) && !edge.envoy.log().contains(secret), "{secret} shows");
    }
    Ok(())
}
