//! The dynamic module in Envoy's process: what happens to webhooks when it panics.

use anyhow::Result;
use sandbox::stigg::Webhook;
use serde_json::json;
use tests::edge::*;

const INTERNAL: &str = r#"stigg_segment_webhooks{outcome="rejected",reason="internal"}"#;

#[tokio::test]
async fn a_panic_is_answered_500_and_harms_no_other_request() -> Result<()> {
    let edge = Edge::start_with(|config| config.module(&panicking_module())).await?;
    let (begin, end) = EVENT.split_at(20);
    let mut under_way = edge.connect().await?;
    under_way.send(request("POST", &format!("content-length: {}\r\n", EVENT.len()), begin)).await?;

    let panics_in = |hook| Webhook::new(EVENT).header("x-panic", hook).http2().trailer("x", "1");
    for (n, hook) in (1..).zip(["request_headers", "request_body", "request_trailers"]) {
        let reply = edge.send(panics_in(hook)).await?;
        assert_eq!((reply.status, &reply.json()["code"]), (500, &json!("internal")), "{hook}");
        assert!(!reply.text().contains("asked"), "{}", reply.text());
        let is_logged = || edge.envoy.log().matches("this is a bug, please report it: a panic at ").count() == n;
        eventually("one line for each panic", async || Ok(is_logged())).await?;
        assert!(edge.envoy.admin_get("/stats/prometheus").await?.contains(&format!("{INTERNAL} {n}\n")), "{hook}");
        assert_eq!(edge.segment.requests_begun(), n - 1, "nothing is sent after a panic in {hook}");
        assert_eq!(edge.send_event(EVENT).await?.status, 200, "after a panic in {hook}");
    }
    under_way.send(end).await?;
    assert_eq!(under_way.response().await?.status, 200);
    assert!(!edge.envoy.log().contains("asked for"), "the message of a panic can contain anything");
    Ok(())
}
