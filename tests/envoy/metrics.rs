//! Monitoring: a counter for every outcome, labelled for Prometheus, and the access log. Neither can disturb a webhook.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use sandbox::envoy::{Envoy, FILTER_MISSING, HTTP_CONNECTION_MANAGER, ROUTE, Shell};
use sandbox::segment::{Behaviour, Segment};
use sandbox::stigg::Webhook;
use serde_json::{Value, json};
use stigg_segment::reply::{Ignored, Rejection};
use tests::edge::*;

/// The filter's counters in Prometheus' format, by name and labels.
async fn counters(envoy: &Envoy) -> Result<BTreeMap<String, u64>> {
    let text = envoy.admin_get("/stats/prometheus").await?;
    let samples = text.lines().filter(|line| line.starts_with("stigg_segment_") && !line.contains("body_bytes"));
    samples
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            Ok((series.to_owned(), value.parse()?))
        })
        .collect()
}

fn ignored(reason: &str) -> String {
    format!(r#"stigg_segment_webhooks{{outcome="ignored",reason="{reason}"}}"#)
}

fn rejected(reason: &str) -> String {
    format!(r#"stigg_segment_webhooks{{outcome="rejected",reason="{reason}"}}"#)
}

const FORWARDED: &str = r#"stigg_segment_webhooks{outcome="forwarded"}"#;

fn answers(class: u8) -> String {
    format!(r#"stigg_segment_segment_answers{{class="{class}xx"}}"#)
}

/// Sends a webhook, and returns the counters that went up by one.
async fn counted(edge: &Edge, webhook: Webhook) -> Result<BTreeSet<String>> {
    let before = counters(&edge.envoy).await?;
    webhook.send(&edge.envoy.url(PATH)).await?;
    let after = counters(&edge.envoy).await?;
    let up = after.into_iter().filter(|(series, value)| *value != before[series]);
    Ok(up
        .inspect(|(series, value)| assert_eq!(*value, before[series] + 1, "{series}"))
        .map(|(series, _)| series)
        .collect())
}

#[tokio::test]
async fn every_outcome_is_counted_and_nothing_else_with_it() -> Result<()> {
    let shipped = Edge::start().await?;
    let expected = [FORWARDED.to_owned()].into_iter();
    let expected = expected.chain(Ignored::CODES.iter().map(|code| ignored(code)));
    let expected = expected.chain(Rejection::CODES.iter().map(|code| rejected(code))).chain((1..=5).map(answers));
    let at_start = counters(&shipped.envoy).await?;
    assert_eq!(at_start, expected.map(|series| (series, 0)).collect(), "all of them are there at once, at 0");

    let body = |body: &str| Webhook::new(body.to_owned()).secret(SECRET);
    let mut seen = BTreeSet::new();
    let mut check = async |edge: &Edge, webhook, reason: &str| -> Result<()> {
        let (ignored, rejected) = (ignored(reason), rejected(reason));
        let up = counted(edge, webhook).await?;
        assert!(up.len() == 1 && (up.contains(&ignored) || up.contains(&rejected)), "{reason} counts {up:?}");
        seen.extend(up);
        Ok(())
    };

    // This route accepts any method, so that the filter must reject it.
    let edge = Edge::start_with(|config| {
        config.remove(&format!("{FILTER_MISSING}/match/headers"))?.edit_plugin_configuration(|configuration| {
            configuration["events"] = json!({ "deny": ["denied"] });
            configuration["max_call_bytes"] = json!(10_000); // older Envoys reject larger calls than 32 KiB themselves
        })
    })
    .await?;
    let large = |size: usize| format!(r#"{{"type":"a","customer":{{"id":"c"}},"x":"{}"}}"#, "x".repeat(size));
    for (webhook, reason) in [
        (body(CATALOG_EVENT), "no_customer"),
        (body(r#"{"type":"denied","customer":{"id":"c"}}"#), "event_not_allowed"),
        (body(""), "empty_body"),
        (body("{"), "malformed_json"),
        (body("[]"), "not_an_object"),
        (body(r#"{"type":"a","customer":{"id":true}}"#), "invalid_customer_id"),
        (body(r#"{"customer":{"id":"c"}}"#), "invalid_type"),
        (body(EVENT).secret("wrong"), "unauthorized"),
        (body(EVENT).method("PUT".parse()?), "method_not_allowed"),
        (body(&large(20_000)), "call_too_large"),
        (body(&large(600_000)), "body_too_large"),
        (body(EVENT).header("content-encoding", "gzip"), "unsupported_content_encoding"),
    ] {
        check(&edge, webhook, reason).await?;
    }
    let edge = Edge::start_with(|config| {
        config.edit_plugin_configuration(|configuration| configuration["environments"] = json!({ "/elsewhere": {} }))
    })
    .await?;
    check(&edge, body(EVENT), "unknown_path").await?;
    let edge = Edge::start_with(|config| {
        config.edit_plugin_configuration(|configuration| {
            configuration["webhook_secret"] = json!({ "filter_state": "nothing" });
        })
    })
    .await?;
    check(&edge, body(EVENT), "secret_unavailable").await?;
    let mut all: BTreeSet<_> = at_start.into_keys().filter(|series| series.contains("reason=")).collect();
    match shell() {
        Shell::Wasm => {
            for call in ["proxy_replace_header_map_value", "proxy_remove_header_map_value", "proxy_set_buffer_bytes"] {
                check(&Edge::start_with(|config| without_calls(config, &[call])).await?, body(EVENT), "internal")
                    .await?;
            }
        }
        // No call is restricted there.
        Shell::Native => assert!(all.remove(&rejected("internal"))),
    }
    assert_eq!(seen, all, "each reason is shown here");
    Ok(())
}

#[tokio::test]
async fn segments_answers_are_counted_by_class() -> Result<()> {
    let edge = Edge::start().await?;
    for (status, class) in [(200, 2), (302, 3), (400, 4), (501, 5)] {
        edge.segment.behave(Behaviour::status(status));
        let up = counted(&edge, Webhook::new(EVENT).secret(SECRET)).await?;
        assert_eq!(up, BTreeSet::from([FORWARDED.to_owned(), answers(class)]), "{status}");
    }
    Ok(())
}

#[tokio::test]
async fn an_answer_of_envoys_own_is_not_counted_as_segments() -> Result<()> {
    let two = json!({ "max_tokens": 2, "tokens_per_fill": 2, "fill_interval": "60s" });
    let edge = Edge::start_with(|config| {
        config
            .set(&format!("{HTTP_CONNECTION_MANAGER}/http_filters/local_ratelimit/typed_config/token_bucket"), two)?
            .set(&format!("{ROUTE}/route/retry_policy/retry_back_off/base_interval"), json!("0.01s"))
    })
    .await?;
    let webhook = || Webhook::new(EVENT).secret(SECRET);
    edge.segment.behave(Behaviour::ResetBeforeAccept);
    assert_eq!(counted(&edge, webhook()).await?, BTreeSet::from([FORWARDED.to_owned()]), "Segment cannot be reached");
    edge.segment.behave(Behaviour::Accept);
    assert_eq!(counted(&edge, webhook()).await?, BTreeSet::from([FORWARDED.to_owned(), answers(2)]));
    assert_eq!(counted(&edge, webhook()).await?, BTreeSet::new(), "over the rate limit");
    assert_eq!(edge.envoy.stat("webhooks.http_local_rate_limit.rate_limited").await?, 1);
    Ok(())
}

#[tokio::test]
async fn the_sizes_of_bodies_are_measured() -> Result<()> {
    let edge = Edge::start_with(|config| config.set("/stats_flush_interval", json!("0.05s"))).await?;
    edge.send_event(EVENT).await?;
    edge.send_event(CATALOG_EVENT).await?;
    edge.send_event(format!(r#"{{"x":"{}"}}"#, "x".repeat(3000))).await?;
    let samples = async {
        loop {
            let text = edge.envoy.admin_get("/stats/prometheus").await?;
            if text.contains("stigg_segment_body_bytes_count{} 3\n") {
                return anyhow::Ok(text);
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let text = tokio::time::timeout(PATIENCE, samples).await??;
    for (le, count) in [("512", 2), ("2048", 2), ("4096", 3), ("+Inf", 3)] {
        let sample = format!("stigg_segment_body_bytes_bucket{{le=\"{le}\"}} {count}\n");
        assert!(text.contains(&sample), "{sample}");
    }
    Ok(())
}

#[tokio::test]
async fn each_webhook_has_a_line_in_the_access_log_without_secrets_or_customer_data() -> Result<()> {
    let mut options = options();
    options.arguments = ["--file-flush-interval-msec", "20"].map(str::to_owned).to_vec();
    let edge = Edge::start_between(Segment::start().await?, Ok, options).await?;
    edge.segment.script([Behaviour::status(503)]);
    for (body, secret) in [(EVENT, SECRET), (CATALOG_EVENT, SECRET), ("{", SECRET), (EVENT, "hunter2")] {
        let webhook = Webhook::new(body).secret(secret).header("user-agent", "hunter3").header("x-odd", "hunter4");
        webhook.send(&edge.envoy.url(&format!("{PATH}?key=hunter5"))).await?;
    }
    edge.envoy.wait_for_line(|line| line.contains("stigg_segment_unauthorized"), PATIENCE).await?;
    let log = edge.envoy.log();
    let lines: Vec<Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &Value| !line["outcome"].is_null())
        .collect();
    let told = |line: &Value| ["event_type", "status", "outcome", "attempts"].map(|field| line[field].clone());
    assert_eq!(
        lines.iter().map(told).collect::<Vec<_>>(),
        [
            [json!("customer.payment_failed"), json!(200), json!("via_upstream"), json!(2)],
            [json!("plan.created"), json!(204), json!("stigg_segment_no_customer"), json!(0)],
            [Value::Null, json!(400), json!("stigg_segment_malformed_json"), json!(0)],
            [Value::Null, json!(401), json!("stigg_segment_unauthorized"), json!(0)],
        ]
    );
    for line in &lines {
        assert_eq!(line["request_id"].as_str().map(str::len), Some(36), "{line}");
        assert!(line["time"].is_string() && line["duration_ms"].is_u64(), "{line}");
    }
    assert!(lines[0]["segment_ms"].is_u64() && lines[0]["received_ms"].is_u64(), "{}", lines[0]);
    for secret in [SECRET, WRITE_KEY, "hunter", "acme", "m-1"] {
        assert!(!log.contains(secret), "{secret} is in\n{log}");
    }
    Ok(())
}
