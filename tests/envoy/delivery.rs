//! Delivery while Segment fails: Envoy retries as Segment's documentation says, and if that fails, Stigg is told and delivers
//! the event again.

use std::time::{Duration, Instant};

use anyhow::Result;
use sandbox::envoy::{Config, ROUTE};
use sandbox::segment::{Behaviour, Segment};
use serde_json::{Value, json};
use tests::edge::*;

/// The statuses that Segment's documentation calls retryable, except 5xx.
const RETRYABLE: [u16; 4] = [408, 410, 429, 460];
/// The 5xx statuses that are not retryable.
const PERMANENT_5XX: [u16; 3] = [501, 505, 511];

/// As shipped, except that the pause before the first retry is short.
fn impatient(config: Config) -> Result<Config> {
    config.set(&format!("{ROUTE}/route/retry_policy/retry_back_off/base_interval"), json!("0.01s"))
}

fn message_ids(segment: &Segment) -> Vec<Value> {
    segment.calls().iter().map(|call| call.json()["messageId"].clone()).collect()
}

#[tokio::test]
async fn retryable_answers_are_retried() -> Result<()> {
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

#[tokio::test]
async fn permanent_answers_go_back_to_stigg_at_once_and_unchanged() -> Result<()> {
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

#[tokio::test]
async fn an_event_survives_a_broken_connection() -> Result<()> {
    let edge = Edge::start_with(impatient).await?;
    for broken in [Behaviour::ResetBeforeAccept, Behaviour::ResetAfterAccept] {
        edge.segment.clear();
        edge.segment.script([broken]);
        assert_eq!(edge.send_event(EVENT).await?.status, 200);
        // It does not matter whether the first one was accepted: Segment removes duplicates by the id.
        assert_eq!(message_ids(&edge.segment), [message_id("m-1"), message_id("m-1")]);
    }
    Ok(())
}

#[tokio::test]
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

/// As the page on rotation says: `source` takes the part that the old key made.
#[tokio::test]
async fn an_event_keeps_its_message_id_while_the_write_key_is_rotated() -> Result<()> {
    let old = Edge::start().await?;
    old.send_event(EVENT).await?;
    let line = old.envoy.wait_for_log("the ids of calls start with stigg-", PATIENCE).await?;
    let (_, part) = line.split_once("start with stigg-").unwrap();
    let part = part.split('-').next().unwrap();
    let rotated = |config: Config| {
        config.edit_plugin_configuration(|own| {
            own["write_key"] = json!({ "value": "abcdefghijklmnopqrstuvwxyz012345" });
            own["source"] = json!(part);
        })
    };
    let new = Edge::start_with(rotated).await?;
    new.send_event(EVENT).await?;
    assert_eq!(message_ids(&old.segment), message_ids(&new.segment));
    assert_ne!(old.segment.calls()[0].write_key, new.segment.calls()[0].write_key);
    Ok(())
}

#[tokio::test]
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

#[tokio::test]
async fn a_wait_that_does_not_fit_is_passed_on_to_stigg_at_once() -> Result<()> {
    let edge = Edge::start_with(impatient).await?;
    let date = "Wed, 21 Oct 2026 07:28:00 GMT";
    let waits = [("retry-after", "60"), ("retry-after", "12"), ("retry-after", date), ("x-ratelimit-reset", "60")];
    for (status, (header, wait)) in [429, 503, 500].into_iter().flat_map(|status| waits.map(|wait| (status, wait))) {
        edge.segment.clear();
        edge.segment.behave(Behaviour::status(status).with_header(header, wait));
        let reply = edge.send_event(EVENT).await?;
        assert_eq!((reply.status, reply.header(header)), (status, Some(wait)));
        assert_eq!(reply.text(), r#"{"success":false}"#);
        assert_eq!(reply.header("x-stigg-segment-answer"), None);
        assert_eq!(edge.segment.calls().len(), 1, "{status} {header}: {wait}");
    }
    // It would have fitted, if the answer had not been so slow.
    for (slow, wait) in [(3_100, "9"), (600, "11")] {
        edge.segment.clear();
        let late = Behaviour::status(429).with_header("retry-after", wait).after(Duration::from_millis(slow));
        edge.segment.behave(late);
        assert_eq!(edge.send_event(EVENT).await?.status, 429);
        assert_eq!(edge.segment.calls().len(), 1, "{wait} s after {slow} ms");
    }
    // Both: the one that counts is Retry-After.
    edge.segment.clear();
    edge.segment.behave(Behaviour::status(429).with_header("x-ratelimit-reset", "1").with_header("retry-after", "60"));
    assert_eq!(edge.send_event(EVENT).await?.status, 429);
    assert_eq!(edge.segment.calls().len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_long_wait_is_waited_for_once_and_a_short_one_before_each_retry() -> Result<()> {
    let edge = Edge::start_with(impatient).await?;
    for (status, header, wait, attempts) in
        [(429, "retry-after", "10", 2), (503, "x-ratelimit-reset", "9", 2), (429, "retry-after", "1", 4)]
    {
        edge.segment.clear();
        edge.segment.behave(Behaviour::status(status).with_header(header, wait));
        let reply = edge.send_event(EVENT).await?;
        assert_eq!((reply.status, reply.header(header)), (status, Some(wait)), "Segment's own answer, not a timeout");
        let calls = edge.segment.calls();
        assert_eq!(calls.len(), attempts, "{status} {header}: {wait}");
        for pair in calls.windows(2) {
            let pause = pair[1].arrived.duration_since(pair[0].arrived)?;
            assert!(pause >= Duration::from_secs(wait.parse()?) - Duration::from_millis(50), "{wait}: {pause:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn when_retries_fail_stigg_is_told_and_delivers_again() -> Result<()> {
    let edge = Edge::start_with(impatient).await?;
    edge.segment.behave(Behaviour::status(500));
    assert_eq!(edge.send_event(EVENT).await?.status, 500);
    assert_eq!(edge.segment.calls().len(), 4, "once, and three retries");
    edge.segment.behave(Behaviour::ResetBeforeAccept);
    let reply = edge.send_event(EVENT).await?;
    assert_eq!((reply.status, &reply.json()["code"]), (503, &json!("unavailable")));
    // Nothing listens at Segment's address.
    let Edge { envoy, segment } = edge;
    drop(segment);
    let reply = sandbox::stigg::Webhook::new(EVENT).secret(SECRET).send(&envoy.url(PATH)).await?;
    assert_eq!((reply.status, &reply.json()["code"]), (503, &json!("unavailable")));
    Ok(())
}

const STIGG_GIVES_UP: Duration = Duration::from_secs(30);

#[tokio::test]
async fn stigg_has_an_answer_before_it_gives_up() -> Result<()> {
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

#[tokio::test]
async fn an_answer_of_segment_does_not_give_way_to_a_timeout() -> Result<()> {
    let slow = async |millis, attempts| {
        let edge = Edge::start().await?;
        edge.segment.behave(Behaviour::status(500).after(Duration::from_millis(millis)));
        let reply = edge.send_event(EVENT).await?;
        assert_eq!((reply.status, reply.text().as_str()), (500, r#"{"success":false}"#), "after {millis} ms");
        assert_eq!(edge.segment.calls().len(), attempts, "after {millis} ms");
        anyhow::Ok(())
    };
    tokio::try_join!(slow(4_000, 4), slow(6_200, 3), slow(7_600, 2))?;
    Ok(())
}

/// Stigg counts from the moment at which it begins to send.
#[tokio::test]
async fn a_slow_webhook_has_an_answer_before_stigg_gives_up() -> Result<()> {
    let slow = async |edge: Edge| {
        edge.segment.behave(Behaviour::Accept.after(2 * STIGG_GIVES_UP));
        let webhook = post(EVENT);
        let (start, end) = webhook.split_at(webhook.len() - 1);
        let begin = Instant::now();
        let mut stigg = edge.connect().await?;
        stigg.send(start).await?;
        tokio::time::sleep(Duration::from_secs(9)).await; // request_timeout is 10 s
        stigg.send(end).await?;
        let answer = stigg.response().await?;
        assert_eq!(answer.status, 504);
        assert!(answer.body.contains(r#""code":"unavailable""#), "{answer:?}");
        assert!(begin.elapsed() < STIGG_GIVES_UP - Duration::from_secs(1), "{:?}", begin.elapsed());
        anyhow::Ok(())
    };
    let [held, buffered] = Edge::start_both_ways().await?;
    tokio::try_join!(slow(held), slow(buffered))?;
    Ok(())
}

#[tokio::test]
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
