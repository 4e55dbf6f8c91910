//! What becomes of an event when Segment has a bad day: it is sent again as Segment's documentation says, and if that does
//! not help Stigg is told, and delivers it again.

use std::time::{Duration, Instant};

use anyhow::Result;
use sandbox::envoy::{Config, ROUTE};
use sandbox::segment::{Behaviour, Segment};
use serde_json::{Value, json};
use tests::edge::*;
use tests::on_both_shells;

on_both_shells! {
    what_segment_calls_retryable_is_sent_again
    what_is_permanent_goes_back_to_stigg_at_once_and_unchanged
    a_connection_that_breaks_is_no_reason_to_lose_an_event
    an_event_keeps_its_message_id_however_often_it_is_delivered
    segments_rate_limit_is_waited_for
    when_nothing_helps_stigg_is_told_and_delivers_again
    stigg_has_an_answer_before_it_gives_up
    retries_do_not_pile_up_on_a_segment_that_is_down
}

/// What Segment's documentation calls retryable, but for the other 5xx.
const RETRYABLE: [u16; 4] = [408, 410, 429, 460];
/// The 5xx that are not.
const PERMANENT_5XX: [u16; 3] = [501, 505, 511];

/// As shipped, but with the first pause before a retry cut short.
fn impatient(config: Config) -> Result<Config> {
    config.set(&format!("{ROUTE}/route/retry_policy/retry_back_off/base_interval"), json!("0.01s"))
}

fn message_ids(segment: &Segment) -> Vec<Value> {
    segment.calls().iter().map(|call| call.json()["messageId"].clone()).collect()
}

async fn what_segment_calls_retryable_is_sent_again() -> Result<()> {
    let edge = Edge::start_with(impatient).await?;
    for status in RETRYABLE.into_iter().chain((500..600).filter(|status| !PERMANENT_5XX.contains(status))) {
        edge.segment.clear();
        edge.segment.script([Behaviour::status(status)]);
        assert_eq!(edge.send_event(EVENT).await?.status, 200, "{status}");
        let calls = edge.segment.calls();
        assert_eq!(calls.iter().map(|call| call.status).collect::<Vec<_>>(), [Some(status), Some(200)]);
        assert_eq!(calls[0].body, calls[1].body);
        assert_eq!(calls[0].headers, calls[1].headers);
    }
    Ok(())
}

async fn what_is_permanent_goes_back_to_stigg_at_once_and_unchanged() -> Result<()> {
    let edge = Edge::start_with(impatient).await?;
    let permanent_4xx = (400..500).filter(|status| !RETRYABLE.contains(status));
    for status in permanent_4xx.chain(PERMANENT_5XX) {
        edge.segment.clear();
        edge.segment.behave(Behaviour::status(status).with_header("x-reason", "segment's own"));
        let reply = edge.send_event(EVENT).await?;
        assert_eq!((reply.status, reply.text().as_str()), (status, r#"{"success":false}"#));
        assert_eq!(reply.header("x-reason"), Some("segment's own"));
        assert_eq!(edge.segment.calls().len(), 1, "{status}");
    }
    Ok(())
}

async fn a_connection_that_breaks_is_no_reason_to_lose_an_event() -> Result<()> {
    let edge = Edge::start_with(impatient).await?;
    for broken in [Behaviour::ResetBeforeAccept, Behaviour::ResetAfterAccept] {
        edge.segment.clear();
        edge.segment.script([broken]);
        assert_eq!(edge.send_event(EVENT).await?.status, 200);
        // Whether the first one counted or not: Segment de-duplicates by the id.
        assert_eq!(message_ids(&edge.segment), ["stigg-m-1", "stigg-m-1"]);
    }
    Ok(())
}

async fn an_event_keeps_its_message_id_however_often_it_is_delivered() -> Result<()> {
    let edge = Edge::start_with(impatient).await?;
    for event in [EVENT, r#"{"type":"subscription.trial_converted","customer":{"id":"acme"}}"#] {
        edge.segment.clear();
        edge.segment.script([Behaviour::status(500), Behaviour::Accept, Behaviour::ResetAfterAccept]);
        for _ in 0..2 {
            assert_eq!(edge.send_event(event).await?.status, 200);
        }
        let ids = message_ids(&edge.segment);
        assert_eq!(ids.len(), 4);
        assert!(ids[0].is_string() && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }
    Ok(())
}

async fn segments_rate_limit_is_waited_for() -> Result<()> {
    let edge = Edge::start_with(impatient).await?;
    for header in ["retry-after", "x-ratelimit-reset"] {
        edge.segment.clear();
        edge.segment.script([Behaviour::status(429).with_header(header, "1")]);
        assert_eq!(edge.send_event(EVENT).await?.status, 200);
        let calls = edge.segment.calls();
        let pause = calls[1].arrived.duration_since(calls[0].arrived)?;
        assert!(pause >= Duration::from_millis(950), "{header}: {pause:?}");
    }
    Ok(())
}

async fn when_nothing_helps_stigg_is_told_and_delivers_again() -> Result<()> {
    let edge = Edge::start_with(impatient).await?;
    edge.segment.behave(Behaviour::status(500));
    assert_eq!(edge.send_event(EVENT).await?.status, 500);
    assert_eq!(edge.segment.calls().len(), 4, "once, and three retries");
    edge.segment.behave(Behaviour::ResetBeforeAccept);
    let reply = edge.send_event(EVENT).await?;
    assert_eq!((reply.status, &reply.json()["code"]), (503, &json!("unavailable")));
    // Nobody there at all.
    let Edge { envoy, segment } = edge;
    drop(segment);
    let reply = sandbox::stigg::Webhook::new(EVENT).secret(SECRET).send(&envoy.url(PATH)).await?;
    assert_eq!((reply.status, &reply.json()["code"]), (503, &json!("unavailable")));
    Ok(())
}

async fn stigg_has_an_answer_before_it_gives_up() -> Result<()> {
    const STIGG_GIVES_UP: Duration = Duration::from_secs(30);
    let edge = Edge::start().await?;
    edge.segment.behave(Behaviour::Accept.after(2 * STIGG_GIVES_UP));
    let begin = Instant::now();
    let reply = edge.send_event(EVENT).await?;
    let took = begin.elapsed();
    assert_eq!((reply.status, &reply.json()["code"]), (504, &json!("unavailable")));
    assert!(took < STIGG_GIVES_UP - Duration::from_secs(3), "{took:?}");
    assert!(edge.segment.calls().len() > 1, "one slow attempt must leave time for another");
    Ok(())
}

async fn retries_do_not_pile_up_on_a_segment_that_is_down() -> Result<()> {
    const WEBHOOKS: usize = 200;
    let edge = std::sync::Arc::new(Edge::start_with(impatient).await?);
    edge.segment.behave(Behaviour::status(503).after(Duration::from_millis(300)));
    let mut sent = tokio::task::JoinSet::new();
    for _ in 0..WEBHOOKS {
        let edge = edge.clone();
        sent.spawn(async move { edge.send_event(EVENT).await.unwrap().status });
    }
    assert!(sent.join_all().await.into_iter().all(|status| status == 503));
    assert!(edge.segment.calls().len() < 3 * WEBHOOKS, "{}", edge.segment.calls().len());
    assert!(edge.envoy.stat("cluster.segment.upstream_rq_retry_overflow").await? > 0);
    Ok(())
}
