//! Monitoring: a counter for every outcome, labelled for Prometheus, and the access log. Neither can disturb a webhook.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result};
use sandbox::envoy::{Config, Envoy, FILTER_MISSING, HTTP_CONNECTION_MANAGER, ROUTE, SEGMENT_CLUSTER, Shell};
use sandbox::segment::{Behaviour, Segment};
use sandbox::stigg::Webhook;
use serde_json::{Value, json};
use stigg_segment::reply::{Ignored, Rejection};
use tests::edge::*;
use tests::guard::names_all;
use tests::pages::read;

/// The filter's counters in Prometheus' format, by name and labels.
async fn counters(envoy: &Envoy) -> Result<BTreeMap<String, u64>> {
    let text = envoy.admin_get("/stats/prometheus").await?;
    let samples = text.lines().filter(|line| line.starts_with("stigg_segment_"));
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

const TRIMMED: &str = "stigg_segment_trimmed_webhooks{}";
const FORWARDED: &str = r#"stigg_segment_webhooks{outcome="forwarded"}"#;

/// Sends a webhook, and returns the counters that went up by one.
async fn counted(edge: &Edge, webhook: Webhook) -> Result<BTreeSet<String>> {
    let before = counters(&edge.envoy).await?;
    webhook.send(&edge.envoy.url(PATH)).await?;
    let after = counters(&edge.envoy).await?;
    let was = |series: &str| before.get(series).copied().unwrap_or_default(); // a dynamic module's is missing before Envoy 1.39
    let up = after.into_iter().filter(|(series, value)| *value != was(series));
    Ok(up
        .inspect(|(series, value)| assert_eq!(*value, was(series) + 1, "{series}"))
        .map(|(series, _)| series)
        .collect())
}

#[tokio::test]
async fn every_outcome_is_counted_and_nothing_else_with_it() -> Result<()> {
    if counters_do_not_begin_at_0().await? {
        return Ok(());
    }
    let shipped = Edge::start().await?;
    let expected = [FORWARDED.to_owned()].into_iter();
    let expected = expected.chain(Ignored::CODES.iter().map(|code| ignored(code)));
    let expected = expected.chain(Rejection::CODES.iter().map(|code| rejected(code))).chain([TRIMMED.to_owned()]);
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
        (body(r#"{"type":"credits.granted","customerId":"c"}"#), "customer_elsewhere"),
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
    for (field, reason) in [("webhook_secret", "secret_unavailable"), ("write_key", "write_key_unavailable")] {
        let edge = Edge::start_with(|config| {
            config.edit_plugin_configuration(|own| own[field] = json!({ "filter_state": "nothing" }))
        })
        .await?;
        check(&edge, body(EVENT), reason).await?;
    }
    // As Istio sets it: Envoy handles neither itself.
    let edge = Edge::start_with(|config| {
        config
            .set(&format!("{HTTP_CONNECTION_MANAGER}/proxy_100_continue"), json!(true))?
            .set(&format!("{HTTP_CONNECTION_MANAGER}/upgrade_configs"), json!([{ "upgrade_type": "websocket" }]))
    })
    .await?;
    check(&edge, body(EVENT).header("expect", "100-Continue"), "expectation_failed").await?;
    let upgrade = body(EVENT).header("connection", "Upgrade").header("upgrade", "websocket");
    check(&edge, upgrade, "upgrade_not_supported").await?;
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
    names_all("the webhooks of this test", "outcome that is counted", seen, all);
    Ok(())
}

#[tokio::test]
async fn a_trimmed_webhook_is_counted_and_logged() -> Result<()> {
    let edge = Edge::start_with(|config| {
        config.edit_plugin_configuration(|own| {
            own["too_large"] = json!({ "remove": ["large"] });
            own["max_call_bytes"] = json!(1000);
        })
    })
    .await?;
    let event =
        |size| format!(r#"{{"type":"a","messageId":"m","customer":{{"id":"c"}},"large":"{}"}}"#, "x".repeat(size));
    for (size, trimmed) in [(100, false), (2000, true)] {
        let up = counted(&edge, Webhook::new(event(size)).secret(SECRET)).await?;
        let expected = [Some(FORWARDED), trimmed.then_some(TRIMMED)].into_iter().flatten().map(str::to_owned);
        assert_eq!(up, expected.collect(), "{size}");
        let line = edge
            .envoy
            .wait_for_line(
                |line| line.contains(r#""bytes_in":"#) && line.contains(&format!(":{}", event(size).len())),
                PATIENCE,
            )
            .await?;
        let logged: Value = serde_json::from_str(&line)?;
        assert_eq!(logged["trimmed"], if trimmed { json!("true") } else { Value::Null }, "{line}");
    }
    assert_eq!(edge.segment.calls()[1].json()["context"]["removed"], json!(["large"]));
    Ok(())
}

/// A counter of the cluster `segment`.
async fn of_cluster(edge: &Edge, counter: &str) -> Result<u64> {
    edge.envoy.stat(&format!("cluster.segment.{counter}")).await
}

/// Envoy's own counters have Segment's final answers. The alerts and the dashboard use them.
#[tokio::test]
async fn envoy_counts_segments_answers_by_class() -> Result<()> {
    if counters_do_not_begin_at_0().await? {
        return Ok(());
    }
    let edge = Edge::start_with(at_once).await?;
    for (status, class, attempts) in [(200, 2, 1), (302, 3, 1), (400, 4, 1), (501, 5, 1), (500, 5, 4)] {
        edge.segment.clear();
        edge.segment.behave(Behaviour::status(status));
        let counter = format!("upstream_rq_{class}xx");
        let before = (of_cluster(&edge, &counter).await?, of_cluster(&edge, "upstream_rq_completed").await?);
        let up = counted(&edge, Webhook::new(EVENT).secret(SECRET)).await?;
        assert_eq!(up, BTreeSet::from([FORWARDED.to_owned()]), "{status}");
        assert_eq!(edge.segment.calls().len(), attempts, "{status}");
        let after = (of_cluster(&edge, &counter).await?, of_cluster(&edge, "upstream_rq_completed").await?);
        assert_eq!(after, (before.0 + 1, before.1 + 1), "{status}: only the last answer counts");
    }
    Ok(())
}

/// Retries without a pause.
fn at_once(config: Config) -> Result<Config> {
    config.set(&format!("{ROUTE}/route/retry_policy/retry_back_off/base_interval"), json!("0.01s"))
}

/// The counters that the alert about a Segment without an answer adds up.
fn of_the_alert() -> Result<Vec<String>> {
    let alerts = read("deploy/alerts.yaml")?;
    let (_, rule) = alerts.split_once("alert: StiggSegmentUnreachable").context("the alert is gone")?;
    let expression = rule.lines().find(|line| line.trim().starts_with("expr: ")).context("no expression")?;
    let names = expression.split("increase(envoy_cluster_").skip(1).filter_map(|rest| rest.split_once('{'));
    let names: Vec<_> = names.map(|(name, _)| name.to_owned()).collect();
    anyhow::ensure!(names.len() > 3, "{expression}");
    Ok(names)
}

/// The same counter has a 503 for a Segment that gave no answer. Others tell the two apart.
#[tokio::test]
async fn envoy_tells_a_segment_that_cannot_be_reached_from_one_that_fails() -> Result<()> {
    for http1 in [false, true] {
        let edge = Edge::start_with(|config| {
            let config = at_once(config)?;
            let of_segment = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
            let options = format!("{SEGMENT_CLUSTER}/typed_extension_protocol_options/{of_segment}");
            match http1 {
                false => Ok(config), // HTTP/2, which the stand-in negotiates
                true => config
                    .remove(&format!("{options}/auto_config"))?
                    .set(&format!("{options}/explicit_http_config"), json!({ "http_protocol_options": {} })),
            }
        })
        .await?;
        let without_an_answer = async || {
            let mut sum = 0;
            for counter in of_the_alert()? {
                sum += of_cluster(&edge, &counter).await?;
            }
            Ok::<_, anyhow::Error>(sum)
        };
        edge.segment.behave(Behaviour::status(500));
        edge.send_event(EVENT).await?;
        assert_eq!((of_cluster(&edge, "upstream_rq_5xx").await?, without_an_answer().await?), (1, 0));
        // The connection is reset when the call has been sent.
        edge.segment.behave(Behaviour::ResetBeforeAccept);
        edge.send_event(EVENT).await?;
        assert_eq!(of_cluster(&edge, "upstream_rq_5xx").await?, 2);
        assert!(without_an_answer().await? > 0, "HTTP/1.1: {http1}");
    }
    Ok(())
}

#[tokio::test]
async fn the_time_that_the_alert_looks_at_includes_the_wait_before_a_retry() -> Result<()> {
    assert!(read("deploy/alerts.yaml")?.contains("rate(envoy_cluster_upstream_rq_time_bucket{"));
    let edge = Edge::start_with(|config| config.set("/stats_flush_interval", json!("0.05s"))).await?;
    edge.segment.script([Behaviour::too_many_requests(1)]);
    assert_eq!(edge.send_event(EVENT).await?.status, 200);
    let sum = async || {
        let text = edge.envoy.admin_get("/stats/prometheus").await?;
        let name = r#"envoy_cluster_upstream_rq_time_sum{envoy_cluster_name="segment"} "#;
        let sum = text.lines().find_map(|line| line.strip_prefix(name));
        Ok::<_, anyhow::Error>(sum.map_or(Ok(0.0), str::parse::<f64>)?)
    };
    eventually("the wait of 1 s is in it", async || Ok(sum().await? >= 1000.0)).await
}

#[tokio::test]
async fn a_webhook_over_the_rate_limit_is_not_counted_as_answered_by_segment() -> Result<()> {
    let one = json!({ "max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "60s" });
    let bucket = format!("{HTTP_CONNECTION_MANAGER}/http_filters/local_ratelimit/typed_config/token_bucket");
    let edge = Edge::start_with(|config| config.set(&bucket, one)).await?;
    for status in [200, 429] {
        assert_eq!(edge.send_event(EVENT).await?.status, status);
    }
    assert_eq!(edge.envoy.stat("webhooks.http_local_rate_limit.rate_limited").await?, 1);
    assert_eq!(of_cluster(&edge, "upstream_rq_completed").await?, 1);
    Ok(())
}

#[tokio::test]
async fn envoy_measures_the_sizes_of_calls() -> Result<()> {
    let edge = Edge::start_with(|config| config.set("/stats_flush_interval", json!("0.05s"))).await?;
    edge.send_event(EVENT).await?;
    edge.send_event(CATALOG_EVENT).await?;
    let size = edge.segment.calls()[0].body.len();
    let sizes = r#"envoy_cluster_upstream_rq_body_size_count{envoy_cluster_name="segment"} 1"#;
    eventually("the size of the only call", async || {
        Ok(edge.envoy.admin_get("/stats/prometheus").await?.contains(sizes))
    })
    .await?;
    let text = edge.envoy.admin_get("/stats/prometheus").await?;
    assert!(size < 512, "{size}");
    for le in ["512", "32768"] {
        let sample =
            format!(r#"envoy_cluster_upstream_rq_body_size_bucket{{envoy_cluster_name="segment",le="{le}"}} 1"#);
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

#[tokio::test]
async fn a_call_over_the_limit_of_those_under_way_is_counted() -> Result<()> {
    if is_too_old((1, 38), "metrics of calls over the limit of those under way").await? {
        return Ok(());
    }
    let most = format!("{SEGMENT_CLUSTER}/circuit_breakers/thresholds/0/max_requests");
    let edge = Edge::start_with(|config| config.set(&most, json!(1))).await?;
    edge.segment.behave(Behaviour::Accept.after(Duration::from_secs(2)));
    let mut under_way = edge.connect().await?;
    under_way.send(post(EVENT)).await?;
    eventually("a call is under way", async || Ok(edge.segment.requests_begun() == 1)).await?;
    assert_eq!(edge.send_event(EVENT).await?.status, 503);
    assert_eq!(edge.envoy.stat("cluster.segment.upstream_rq_active_overflow").await?, 1);
    assert_eq!(under_way.response().await?.status, 200);
    Ok(())
}
