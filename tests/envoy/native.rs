//! The dynamic module in Envoy's process: what becomes of the webhooks when it panics.

use anyhow::Result;
use sandbox::envoy::{Shell, workspace_root};
use sandbox::segment::Behaviour;
use sandbox::stigg::Webhook;
use serde_json::json;
use tests::edge::*;

const INTERNAL: &str = r#"stigg_segment_webhooks{outcome="rejected",reason="internal"}"#;

#[tokio::test]
async fn a_panic_is_answered_500_and_nothing_else_suffers() -> Result<()> {
    on(Shell::Native, async {
        // `make panicking` builds it.
        let panicking = workspace_root().join("target/panicking/native/libstigg_segment_native.so");
        let edge = Edge::start_with(|config| config.module(&panicking)).await?;
        let (begin, end) = EVENT.split_at(20);
        let mut under_way = edge.connect().await?;
        under_way.send(request("POST", &format!("content-length: {}\r\n", EVENT.len()), begin)).await?;

        let panics_in = |hook| Webhook::new(EVENT).header("x-panic", hook).http2().trailer("x", "1");
        for (n, hook) in (1..).zip(["request_headers", "request_body", "request_trailers"]) {
            let reply = edge.send(panics_in(hook)).await?;
            assert_eq!((reply.status, &reply.json()["code"]), (500, &json!("internal")), "{hook}");
            assert!(!reply.text().contains("asked"), "{}", reply.text());
            let logged = async || Ok(edge.envoy.log().matches("please report it: a panic at native/src/").count() == n);
            eventually("the panic is logged", logged).await?;
            assert!(edge.envoy.admin_get("/stats/prometheus").await?.contains(&format!("{INTERNAL} {n}\n")), "{hook}");
            assert_eq!(edge.segment.requests_begun(), n - 1, "what panics in {hook} is not sent");
            assert_eq!(edge.send_event(EVENT).await?.status, 200, "after a panic in {hook}");
        }
        // Segment has accepted the event, so Stigg is told that.
        edge.segment.script([Behaviour::status(200).with_header("x-panic", "response_headers")]);
        assert_eq!(edge.send_event(EVENT).await?.status, 200);
        under_way.send(end).await?;
        assert_eq!(under_way.response().await?.status, 200);
        assert!(!edge.envoy.log().contains("asked for"), "the message of a panic can contain anything");
        Ok(())
    })
    .await
}
