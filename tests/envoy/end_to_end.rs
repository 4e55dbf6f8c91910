//! The whole way: a webhook enters a real Envoy that runs the shipped `envoy.yaml`, and leaves as a track call.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use sandbox::envoy::{self, Config};
use sandbox::segment::{Behaviour, Segment, Transport};
use sandbox::stigg::Webhook;
use serde_json::{Value, json};
use tests::edge::*;
use tests::fixtures::{Fixture, fixtures};

/// The body that Segment gets for an event.
fn call(event: &str, user_id: &str, message_id: &str, body: &str) -> String {
    let library = format!(r#"{{"name":"stigg-segment-filter","version":"{}"}}"#, env!("CARGO_PKG_VERSION"));
    format!(
        r#"{{"event":"{event}","userId":"{user_id}","messageId":"{message_id}","context":{{"library":{library}}},"properties":{body}}}"#
    )
}

fn expected_call() -> String {
    call("customer_payment_failed", "acme", &message_id("m-1"), EVENT)
}

/// The header names that reached Segment.
fn header_names(call: &sandbox::segment::Call) -> BTreeSet<&str> {
    call.headers.keys().map(|name| name.as_str()).collect()
}

#[tokio::test]
async fn an_event_about_a_customer_reaches_segment_as_a_track_call() -> Result<()> {
    for edge in Edge::start_both_ways().await? {
        for webhook in [Webhook::new(EVENT), Webhook::new(EVENT).http2()] {
            edge.segment.clear();
            let reply = edge.send(webhook).await?;
            assert_eq!((reply.status, reply.text().as_str()), (200, r#"{"success":true}"#));

            let calls = edge.segment.wait_for(1, PATIENCE).await?;
            assert_eq!(calls.len(), 1);
            let call = &calls[0];
            assert_eq!((call.method.as_str(), call.path.as_str()), ("POST", "/v1/track"));
            assert_eq!(call.body, expected_call());
            assert_eq!(call.write_key.as_deref(), Some(WRITE_KEY));
            assert_eq!(call.header("content-type"), Some("application/json"));
            assert_eq!(call.header("user-agent"), Some(USER_AGENT));
            assert_eq!(call.header("content-length"), Some(expected_call().len().to_string().as_str()));
            assert_eq!((call.sni.as_deref(), call.host.as_deref()), (Some("api.segment.io"), Some("api.segment.io")));
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_event_that_is_not_about_a_customer_opens_no_connection_to_segment() -> Result<()> {
    for edge in Edge::start_both_ways().await? {
        for webhook in [Webhook::new(CATALOG_EVENT), Webhook::new(CATALOG_EVENT).http2()] {
            let reply = edge.send(webhook).await?;
            assert_eq!((reply.status, reply.text().as_str()), (204, ""));
        }
        let mut chunked = edge.connect().await?;
        chunked.send(post_chunked(CATALOG_EVENT, 7)).await?;
        let response = chunked.response().await?;
        assert_eq!(response.status, 204);
        assert!(!response.head.contains("content-length") && !response.head.contains("transfer-encoding"));
        assert_eq!(edge.segment.connections(), 0);
    }
    Ok(())
}

#[tokio::test]
async fn only_what_segment_needs_reaches_it() -> Result<()> {
    for edge in Edge::start_both_ways().await? {
        let webhook = Webhook::new(EVENT)
            .header("cookie", "session=1")
            .header("authorization", "Basic aW5ib3VuZDo=")
            .header("proxy-authorization", "Basic aW5ib3VuZDo=")
            .header("x-forwarded-for", "203.0.113.7")
            .header("x-forwarded-host", "edge.example.com")
            .header("x-forwarded-proto", "https")
            .header("x-envoy-original-path", "/other")
            .header("x-envoy-upstream-rq-timeout-ms", "1")
            .header("x-envoy-retry-on", "5xx")
            .header("x-api-key", "k")
            .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
            .header("accept-encoding", "gzip")
            .header("user-agent", "Stigg");
        for webhook in [webhook.clone(), webhook.http2()] {
            edge.segment.clear();
            assert_eq!(edge.send(webhook).await?.status, 200);
            let calls = edge.segment.calls();
            let call = &calls[0];
            let mut names = header_names(call);
            names.remove("host"); // HTTP/1.1's :authority
            let expected = ["authorization", "content-length", "content-type", "user-agent", "x-request-id"];
            assert_eq!(names, BTreeSet::from(expected), "{:?}", call.headers);
            assert_eq!(call.write_key.as_deref(), Some(WRITE_KEY));
            assert_eq!(call.header("user-agent"), Some(USER_AGENT));
            assert_eq!(call.headers.get_all("authorization").iter().count(), 1);
        }
    }
    Ok(())
}

#[tokio::test]
async fn segments_answer_goes_back_unchanged() -> Result<()> {
    let edge = Edge::start().await?;
    let answer = Behaviour::Answer {
        status: 422,
        headers: vec![("x-segment-thing".into(), "1".into()), ("content-type".into(), "text/odd".into())],
        body: "as it is".into(),
        accept: false,
    };
    edge.segment.behave(answer);
    let reply = edge.send_event(EVENT).await?;
    assert_eq!((reply.status, reply.text().as_str()), (422, "as it is"));
    assert_eq!((reply.header("x-segment-thing"), reply.header("content-type")), (Some("1"), Some("text/odd")));
    Ok(())
}

#[tokio::test]
async fn a_webhook_without_a_valid_secret_is_rejected_before_its_body_is_read() -> Result<()> {
    for edge in Edge::start_seeing_headers_first().await? {
        for secret in [Some("wrong"), Some(""), Some(&SECRET[1..]), Some(&format!("{SECRET}x")), None] {
            for http2 in [false, true] {
                let mut webhook = Webhook::new(EVENT);
                if let Some(secret) = secret {
                    webhook = webhook.secret(secret);
                }
                let webhook = if http2 { webhook.http2() } else { webhook };
                let reply = webhook.send(&edge.envoy.url(PATH)).await?;
                assert_eq!((reply.status, &reply.json()["code"]), (401, &json!("unauthorized")), "{secret:?}");
                assert_eq!(reply.header("content-type"), Some("application/json"));
            }
        }
        // The answer comes before any of the body is sent.
        let mut stranger = edge.connect().await?;
        stranger.send(format!("POST {PATH} HTTP/1.1\r\nhost: edge\r\ncontent-length: 1000\r\n\r\n")).await?;
        assert_eq!(stranger.response().await?.status, 401);
        assert_eq!(edge.segment.connections(), 0);
    }
    Ok(())
}

#[tokio::test]
async fn while_a_secret_is_rotated_the_old_and_the_new_one_are_valid() -> Result<()> {
    let edge = Edge::start().await?;
    for secret in [SECRET, PREVIOUS_SECRET] {
        assert_eq!(Webhook::new(EVENT).secret(secret).send(&edge.envoy.url(PATH)).await?.status, 200);
    }
    Ok(())
}

#[tokio::test]
async fn of_several_secret_headers_each_must_be_valid() -> Result<()> {
    let edge = Edge::start().await?;
    for (first, second, status) in [(SECRET, "wrong", 401), ("wrong", SECRET, 401), (SECRET, PREVIOUS_SECRET, 200)] {
        let webhook = Webhook::new(EVENT).secret(first).secret(second);
        assert_eq!(webhook.send(&edge.envoy.url(PATH)).await?.status, status, "{first}, {second}");
    }
    Ok(())
}

#[tokio::test]
async fn an_event_that_cannot_be_mapped_is_rejected_with_a_code_and_a_sentence() -> Result<()> {
    for edge in Edge::start_both_ways().await? {
        for (body, code, sentence) in [
            (r#"{"type":"a","customer":{"id":"c"},}"#, "malformed_json", "at byte 34 (line 1, column 35)"),
            ("[]", "not_an_object", "as an object"),
            (r#"{"type":"a","customer":{"id":true}}"#, "invalid_customer_id", "customer's id"),
            (r#"{"type":7,"customer":{"id":"c"}}"#, "invalid_type", "name of the event"),
            ("", "empty_body", "send one Stigg event"),
        ] {
            for webhook in [Webhook::new(body), Webhook::new(body).http2()] {
                let reply = edge.send(webhook).await?;
                assert_eq!((reply.status, &reply.json()["code"]), (400, &json!(code)), "{body}");
                assert!(reply.json()["message"].as_str().unwrap().contains(sentence), "{}", reply.text());
                assert_eq!(reply.header("content-type"), Some("application/json"));
            }
        }
        assert_eq!(edge.segment.connections(), 0);
    }
    Ok(())
}

#[tokio::test]
async fn only_a_post_to_the_webhooks_path_is_served() -> Result<()> {
    let edge = Edge::start().await?;
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let reply = edge.send(Webhook::new(EVENT).method(method.parse()?)).await?;
        assert_eq!((reply.status, &reply.json()["code"]), (405, &json!("method_not_allowed")), "{method}");
        assert_eq!((reply.header("allow"), reply.header("content-type")), (Some("POST"), Some("application/json")));
    }
    for path in ["/", "/webhooks", "/webhooks/stigg/", "/webhooks/stigg2", "/v1/track"] {
        let reply = Webhook::new(EVENT).secret(SECRET).send(&edge.envoy.url(path)).await?;
        assert_eq!((reply.status, &reply.json()["code"]), (404, &json!("not_found")), "{path}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
    }
    // A query changes nothing.
    assert_eq!(Webhook::new(EVENT).secret(SECRET).send(&edge.envoy.url("/webhooks/stigg?x=1")).await?.status, 200);
    // The filter answers the same if no route has answered before.
    let edge = Edge::start_with(|config| config.remove(&format!("{}/match/headers", envoy::FILTER_MISSING))).await?;
    let reply = edge.send(Webhook::new(EVENT).method("PUT".parse()?)).await?;
    assert_eq!((reply.status, &reply.json()["code"]), (405, &json!("method_not_allowed")));
    assert_eq!(reply.header("allow"), Some("POST"));
    assert_eq!(edge.segment.requests_begun(), 0);
    Ok(())
}

#[tokio::test]
async fn a_body_or_a_call_over_its_limit_is_rejected() -> Result<()> {
    if rejects_large_bodies().await? {
        return Ok(());
    }
    let padded = |len: usize, id: &str| {
        let frame = format!(r#"{{"type":"a","messageId":"m","customer":{{"id":"{id}"}},"x":""}}"#);
        format!(r#"{}{}"}}"#, &frame[..frame.len() - 2], "x".repeat(len - frame.len()))
    };
    let envelope = call("a", "c", &message_id("m"), "").len();
    for edge in Edge::start_seeing_headers_first().await? {
        for (body, status, code) in [
            (padded(32 * 1024 - envelope, "c"), 200, Value::Null),
            (padded(32 * 1024 - envelope + 1, "c"), 413, json!("call_too_large")),
            (padded(512 * 1024, ""), 204, Value::Null),
            (padded(512 * 1024 + 1, ""), 413, json!("body_too_large")),
        ] {
            for webhook in [Webhook::new(body.clone()), Webhook::new(body.clone()).http2()] {
                let reply = edge.send(webhook).await?;
                assert_eq!((reply.status, &reply.json()["code"]), (status, &code), "{} bytes", body.len());
            }
            // Without a content-length that announces it.
            let mut chunked = edge.connect().await?;
            // The answer may come, and the connection close, while the body is still being sent.
            let _ = chunked.send(post_chunked(&body, 10_000)).await;
            assert_eq!(chunked.response().await?.status, status, "{} bytes", body.len());
        }
        let calls = edge.segment.calls();
        assert!(calls.iter().all(|call| call.body.len() == 32 * 1024 && call.status == Some(200)));
        assert_eq!(calls.len(), 3);
        // An announced length over the limit is rejected before the body.
        let mut connection = edge.connect().await?;
        connection.send(request("POST", "content-length: 99999999999\r\n", "")).await?;
        assert_eq!(connection.response().await?.status, 413);
    }
    Ok(())
}

#[tokio::test]
async fn a_content_encoding_other_than_identity_is_rejected() -> Result<()> {
    let edge = Edge::start().await?;
    for (encoding, status) in
        [("gzip", 415), ("br", 415), ("identity, gzip", 415), ("identity", 200), ("Identity", 200), ("", 200)]
    {
        let reply = edge.send(Webhook::new(EVENT).header("content-encoding", encoding)).await?;
        assert_eq!(reply.status, status, "{encoding}");
        if status == 415 {
            assert_eq!(reply.json()["code"], "unsupported_content_encoding");
        }
    }
    Ok(())
}

/// nginx sends HTTP/1.0 to what is behind it unless it is told otherwise, and some clients offer to upgrade to TLS.
#[tokio::test]
async fn http_1_0_and_an_offer_to_upgrade_are_served() -> Result<()> {
    for edge in Edge::start_both_ways().await? {
        let older = post(EVENT).replace("HTTP/1.1", "HTTP/1.0");
        let without_host = older.replace("host: edge\r\n", "");
        assert_ne!(older, without_host);
        let upgrade = request(
            "POST",
            &format!("content-length: {}\r\nconnection: upgrade\r\nupgrade: TLS/1.2\r\n", EVENT.len()),
            EVENT,
        );
        for request in [older.clone(), without_host, upgrade] {
            let mut connection = edge.connect().await?;
            connection.send(&request).await?;
            let response = connection.response().await?;
            assert_eq!(response.status, 200, "{request}\n{response:?}");
        }
        assert_eq!(edge.segment.calls().len(), 3);
        let mut connection = edge.connect().await?;
        connection.send(older.replace(SECRET, "wrong")).await?;
        assert_eq!(connection.response().await?.status, 401);
    }
    Ok(())
}

#[tokio::test]
async fn requests_on_one_connection_do_not_disturb_each_other() -> Result<()> {
    for edge in Edge::start_both_ways().await? {
        let mut connection = edge.connect().await?;
        let small = r#"{"type":"a","messageId":"1","customer":{"id":1}}"#;
        for _ in 0..3 {
            for (request, status) in
                [(post(EVENT), 200), (post(CATALOG_EVENT), 204), (post_chunked(small, 5), 200), (post(small), 200)]
            {
                connection.send(request).await?;
                assert_eq!(connection.response().await?.status, status);
            }
        }
        // Sent at once, answered in order. (After an answer that Envoy itself gives, it may close a pipelined connection.)
        connection.send([post(EVENT), post(small), post(CATALOG_EVENT)].concat()).await?;
        for status in [200, 200, 204] {
            assert_eq!(connection.response().await?.status, status);
        }
        let bodies: Vec<_> = edge.segment.calls().into_iter().map(|call| call.body).collect();
        let [customer, small] = [expected_call(), call("a", "1", &message_id("1"), small)];
        let each_round = [&customer, &small, &small].repeat(3);
        assert_eq!(bodies, [each_round, vec![&customer, &small]].concat());
    }
    Ok(())
}

#[tokio::test]
async fn a_request_may_come_in_any_way_that_http_allows() -> Result<()> {
    for edge in Edge::start_both_ways().await? {
        let expected = expected_call();
        let length = format!("content-length: {}\r\n", EVENT.len());
        // Byte by byte, and in one-byte chunks.
        let mut connection = edge.connect().await?;
        connection.trickle(post(EVENT)).await?;
        assert_eq!(connection.response().await?.status, 200);
        connection.send(post_chunked(EVENT, 1)).await?;
        assert_eq!(connection.response().await?.status, 200);
        // With header values that are not UTF-8.
        let mut odd = request("POST", &format!("{length}x-odd: ?\r\ncookie: ?\r\n"), EVENT).into_bytes();
        odd.iter_mut().take_while(|byte| **byte != b'{').filter(|byte| **byte == b'?').for_each(|byte| *byte = 0xFF);
        connection.send(odd).await?;
        assert_eq!(connection.response().await?.status, 200);
        // With `expect: 100-continue`.
        connection.send(request("POST", &format!("{length}expect: 100-continue\r\n"), "")).await?;
        let continued = connection.response().await?;
        assert_eq!(continued.status, 100, "{continued:?}");
        connection.send(EVENT).await?;
        assert_eq!(connection.response().await?.status, 200);
        // With trailers, which do not reach Segment.
        for webhook in [Webhook::new(EVENT), Webhook::new(EVENT).header("content-length", &EVENT.len().to_string())] {
            assert_eq!(edge.send(webhook.http2().trailer("stigg-webhooks-secret", SECRET)).await?.status, 200);
        }
        let calls = edge.segment.calls();
        assert_eq!(calls.len(), 6);
        for call in &calls {
            assert_eq!(call.body, expected);
            assert_eq!(call.header("content-length"), Some(expected.len().to_string().as_str()));
            assert_eq!(call.trailers, Default::default());
        }
        // A wrong secret that is not UTF-8 is just a wrong secret.
        let mut odd = post(EVENT).replace(SECRET, "?").into_bytes();
        odd.iter_mut().filter(|byte| **byte == b'?').for_each(|byte| *byte = 0xFF);
        connection.send(odd).await?;
        assert_eq!(connection.response().await?.status, 401);
        // Without a body, and with trailers only.
        let mut connection = edge.connect().await?;
        connection.send(request("POST", "", "")).await?;
        let response = connection.response().await?;
        assert_eq!((response.status, response.body.contains("empty_body")), (400, true));
        let reply = edge.send(Webhook::new("").http2().trailer("x", "1")).await?;
        assert_eq!((reply.status, &reply.json()["code"]), (400, &json!("empty_body")));
        // Unusable events that end with trailers.
        let reply = edge.send(Webhook::new(CATALOG_EVENT).http2().trailer("x", "1")).await?;
        assert_eq!(reply.status, 204);
        assert_eq!(edge.segment.calls().len(), calls.len());
    }
    Ok(())
}

#[tokio::test]
async fn several_workers_share_the_load() -> Result<()> {
    const WEBHOOKS: usize = 200;
    let options = sandbox::envoy::Options { concurrency: 3, ..options() };
    let edge = Edge::start_between(Segment::start().await?, Ok, options).await?;
    let edge = std::sync::Arc::new(edge);
    let mut sent = tokio::task::JoinSet::new();
    for n in 0..WEBHOOKS {
        let edge = edge.clone();
        sent.spawn(async move {
            let body = format!(r#"{{"type":"a.b","messageId":"{n}","customer":{{"id":"c{n}"}}}}"#);
            edge.send_event(body).await.unwrap().status
        });
    }
    assert!(sent.join_all().await.into_iter().all(|status| status == 200));
    let mut users: Vec<_> = edge.segment.calls().iter().map(|call| call.json()["userId"].to_string()).collect();
    users.sort();
    users.dedup();
    assert_eq!(users.len(), WEBHOOKS);
    Ok(())
}

#[tokio::test]
async fn no_secret_is_in_the_config_dump_or_the_log() -> Result<()> {
    let edge = Edge::start().await?;
    for webhook in [Webhook::new(EVENT), Webhook::new(CATALOG_EVENT), Webhook::new("{"), Webhook::new(EVENT).http2()] {
        edge.send(webhook).await?;
    }
    let rejected = Webhook::new(EVENT).secret("wrong").send(&edge.envoy.url(PATH)).await?;
    let dump = edge.envoy.admin_get("/config_dump").await?;
    assert!(dump.contains("stigg_segment"));
    let basic = "d2swMTIzNDU2Nzg5YWJjZGVmZ2hpamtsbW5vcHFyc3Q6"; // base64 of "<write key>:"
    for shown in [dump, edge.envoy.log(), rejected.text(), edge.envoy.admin_get("/stats").await?] {
        for secret in [WRITE_KEY, SECRET, PREVIOUS_SECRET, basic] {
            assert!(!shown.contains(secret), "{secret} shows in {shown}");
        }
    }
    assert_eq!(edge.segment.calls()[0].header("authorization"), Some(format!("Basic {basic}").as_str()));
    Ok(())
}

#[tokio::test]
async fn the_region_is_one_line() -> Result<()> {
    let shipped = Config::text(shell())?;
    let lines: Vec<_> = shipped.lines().filter(|line| line.contains("address: api.segment.io")).collect();
    assert_eq!(lines.len(), 1);
    let europe = shipped.replace("address: api.segment.io", "address: events.eu1.segmentapis.com");
    let segment = Segment::start().await?;
    // The traffic goes to the host in that line.
    assert!(Config::from_yaml(&europe)?.to_string().contains(r#""address": "events.eu1.segmentapis.com""#));
    let module = Config::shipped_with(shell())?.module_file()?;
    let config = Config::from_yaml(&europe)?.module(&module)?.on_loopback()?.upstream(&segment)?;
    let edge = Edge { envoy: envoy::Envoy::start(config, options()).await?, segment };
    assert_eq!(edge.send_event(EVENT).await?.status, 200);
    let europe = Some("events.eu1.segmentapis.com");
    let call = &edge.segment.calls()[0];
    assert_eq!((call.sni.as_deref(), call.host.as_deref()), (europe, europe));
    Ok(())
}

#[tokio::test]
async fn nothing_is_sent_to_a_server_that_cannot_prove_it_is_segment() -> Result<()> {
    // A certificate of the right authority for another name, and one of the other region's name.
    for name in ["api.example.com", "events.eu1.segmentapis.com"] {
        let impostor = sandbox::segment::Options { transport: Transport::tls_for([name]), ..Default::default() };
        let edge = Edge::start_between(Segment::start_with(impostor).await?, Ok, options()).await?;
        assert_eq!(edge.send_event(EVENT).await?.status, 503, "{name}");
        assert_eq!(edge.segment.requests_begun(), 0);
    }
    // The right name, signed by an unknown authority.
    let (known, stranger) = (Segment::start().await?, Segment::start().await?);
    let trust = known.ca_file().unwrap().to_owned();
    let path =
        format!("{}/transport_socket/typed_config/common_tls_context/validation_context", envoy::SEGMENT_CLUSTER);
    let distrust = |config: Config| config.set(&path, json!({ "trusted_ca": { "filename": trust } }));
    let edge = Edge::start_between(stranger, distrust, options()).await?;
    assert_eq!(edge.send_event(EVENT).await?.status, 503);
    assert_eq!(edge.segment.requests_begun(), 0);
    Ok(())
}

#[tokio::test]
async fn without_tls_to_segment_envoy_does_not_start() -> Result<()> {
    let segment = Segment::start().await?;
    let config = Config::shipped_with(shell())?.on_loopback()?.upstream(&segment)?;
    envoy::Envoy::start(config.clone(), options()).await?;
    let config = config.remove(&format!("{}/transport_socket", envoy::SEGMENT_CLUSTER))?;
    let error = envoy::Envoy::start(config, options()).await.err().context("it starts")?;
    assert!(format!("{error:#}").contains("before it was ready"), "{error:#}");
    Ok(())
}

#[tokio::test]
async fn the_gateway_can_check_the_secret_and_add_the_write_key() -> Result<()> {
    let edge = Edge::start_between(
        Segment::start().await?,
        |config| {
            config.edit_plugin_configuration(|own| {
                own["write_key"] = json!("gateway");
                own["webhook_secret"] = json!("unverified");
            })
        },
        envoy::Options::default(),
    )
    .await?;
    let reply = Webhook::new(EVENT).header("authorization", "Basic aW5ib3VuZDo=").send(&edge.envoy.url(PATH)).await?;
    // Segment rejects it, because nothing adds the credential here.
    assert_eq!(reply.status, 401);
    assert_eq!(edge.segment.calls()[0].header("authorization"), None);
    Ok(())
}

#[tokio::test]
async fn a_wrong_configuration_stops_envoy_with_a_line_that_names_the_field() -> Result<()> {
    let segment = Segment::start().await?;
    let shipped = Config::sandboxed_with(shell(), &segment)?;
    for (settings, line) in [
        (json!({ "wirte_key": 1 }).to_string(), "wirte_key: unknown field, expected one of"),
        (json!({ "max_body_bytes": 0 }).to_string(), "max_body_bytes: expected a number of bytes, at least 1"),
        (
            json!({ "write_key": { "env": "UNSET" } }).to_string(),
            "write_key: the environment variable UNSET is not set",
        ),
        ("no JSON".to_owned(), "the configuration: expected a JSON object"),
    ] {
        let opinion = envoy::validate(shipped.clone().plugin_configuration(&settings)?, options()).await?;
        assert!(!opinion.accepted, "{settings}");
        let lines = opinion.log.lines().filter(|logged| logged.contains(line)).count();
        assert_eq!(lines, 1, "{settings}: {}", opinion.log);
    }
    let no_environment = envoy::validate(shipped.clone(), envoy::Options::default()).await?;
    assert!(!no_environment.accepted);
    assert!(no_environment.log.contains("write_key: the environment variable SEGMENT_WRITE_KEY is not set"));
    // The shipped configuration is valid and logs nothing.
    let opinion = envoy::validate(shipped.clone(), options()).await?;
    // Envoy 1.38 and 1.39 warn that a module was built for 1.40.
    let mut lines = opinion.log.lines().filter(|line| !line.contains("ABI version"));
    let of_the_filter = ["[warning][wasm]", "[error][wasm]", "[warning][dynamic_modules]", "[error][dynamic_modules]"];
    let logs = lines.any(|line| of_the_filter.iter().any(|logger| line.contains(logger)));
    assert!(opinion.accepted && !logs, "{}", opinion.log);
    Ok(())
}

#[tokio::test]
async fn an_empty_configuration_is_logged() -> Result<()> {
    let options = envoy::Options::default().env("SEGMENT_WRITE_KEY", WRITE_KEY).env("STIGG_WEBHOOK_SECRET", SECRET);
    let opinion = envoy::validate(Config::shipped_with(shell())?.plugin_configuration("")?, options).await?;
    let logged = "the configuration is empty: the defaults apply";
    assert!(opinion.accepted && opinion.log.contains(logged), "{}", opinion.log);
    Ok(())
}

#[tokio::test]
async fn a_write_key_that_does_not_look_like_one_is_warned_about() -> Result<()> {
    let options = envoy::Options::default().env("SEGMENT_WRITE_KEY", "whoops").env("STIGG_WEBHOOK_SECRET", SECRET);
    let edge = Edge::start_between(Segment::start().await?, Ok, options).await?;
    let warning = edge.envoy.wait_for_log("write_key: this is not 32 letters and digits", PATIENCE).await?;
    assert!(warning.contains("[warning]") && !warning.contains("whoops"), "{warning}");
    Ok(())
}

#[tokio::test]
async fn every_documented_event_arrives_untouched() -> Result<()> {
    let edge = Edge::start().await?;
    for Fixture { name, event, track } in fixtures()? {
        edge.segment.clear();
        let reply = edge.send_event(&event).await?;
        if track.is_null() {
            assert_eq!((reply.status, edge.segment.calls().len()), (204, 0), "{name}");
            continue;
        }
        assert_eq!(reply.status, 200, "{name}");
        let call = &edge.segment.calls()[0];
        assert!(call.body.ends_with(format!("\"properties\":{event}}}").as_bytes()), "{name}");
        for key in ["event", "userId", "timestamp"] {
            assert_eq!(call.json()[key], track[key], "{name}: {key}");
        }
        if let Some(stiggs) = track["messageId"].as_str().and_then(|id| id.strip_prefix("stigg-")) {
            assert_eq!(call.json()["messageId"], message_id(stiggs), "{name}");
        }
    }
    Ok(())
}
