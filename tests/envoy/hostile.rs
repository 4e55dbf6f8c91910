//! Attacks by strangers, and broken senders.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sandbox::envoy::{FILTER_MISSING, HTTP_CONNECTION_MANAGER, ROUTE, is_older_than};
use sandbox::stigg::Webhook;
use serde_json::json;
use tests::attacks::cannot_be_smuggled_past;
use tests::edge::*;
use tests::pages::read;

#[tokio::test]
async fn requests_cannot_be_smuggled_past_the_filter() -> Result<()> {
    for edge in Edge::start_both_ways().await? {
        cannot_be_smuggled_past(&edge).await?;
    }
    Ok(())
}

#[tokio::test]
async fn bodies_made_to_hurt_are_answered_and_nothing_else_suffers() -> Result<()> {
    if rejects_large_bodies().await? {
        return Ok(());
    }
    let edge = Edge::start_with(|config| {
        let config = config.edit_plugin_configuration(|plugin| {
            plugin["max_body_bytes"] = json!(2 * 1024 * 1024);
            plugin["max_call_bytes"] = json!(2 * 1024 * 1024);
        })?;
        [ROUTE, FILTER_MISSING].iter().try_fold(config, |config, route| {
            config.set(&format!("{route}/request_body_buffer_limit"), json!(4 * 1024 * 1024))
        })
    })
    .await?;
    let vms_before = vms(&edge.envoy).await?;
    // Segment would reject calls of this size; this test only checks that the filter sends them completely.
    edge.segment.behave(sandbox::segment::Behaviour::status(200));
    let event = |x: &str| format!(r#"{{"type":"a","messageId":"m","customer":{{"id":"c"}},"x":{x}}}"#);
    let deep = 100_000;
    for (what, body, status) in [
        ("nested arrays", event(&("[".repeat(deep) + &"]".repeat(deep))), 200),
        ("nested objects", event(&(r#"{"a":"#.repeat(deep) + "1" + &"}".repeat(deep))), 200),
        ("nested and never closed", event(&"[".repeat(deep)), 400),
        ("a long string", event(&format!("\"{}\"", "x".repeat(1 << 20))), 200),
        ("a long string of escapes", event(&format!("\"{}\"", r"\u0000".repeat(1 << 17))), 200),
        ("a long number", event(&"9".repeat(1 << 20)), 200),
        ("a long exponent", event(&format!("1e{}", "9".repeat(1 << 16))), 200),
        ("many keys", event(&format!("{{{}\"z\":0}}", r#""k":0,"#.repeat(100_000))), 200),
        ("a long key", event(&format!("{{\"{}\":0}}", "k".repeat(1 << 20))), 200),
        ("lone surrogates", event(r#""\ud800\ud800\udfff""#), 200),
        ("an escaped NUL", event(r#""\u0000""#), 200),
        ("a NUL byte in a string", event("\"\0\""), 400),
        ("a NUL byte at the end", event("0") + "\0", 400),
        ("a byte order mark", "\u{feff}".to_owned() + &event("0"), 400),
    ] {
        edge.segment.clear();
        let reply = edge.send(Webhook::new(body.clone())).await?;
        assert_eq!(reply.status, status, "{what}: {}", reply.text());
        match status {
            200 => assert!(edge.segment.calls()[0].body.ends_with(&[body.as_bytes(), b"}"].concat()), "{what}"),
            _ => {
                assert_eq!((edge.segment.calls().len(), &reply.json()["code"]), (0, &json!("malformed_json")), "{what}")
            }
        }
    }
    for invalid in [b"\xff".as_slice(), b"\xc3\x28", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80"] {
        let [before, behind] = ["{\"type\":\"a\",\"customer\":{\"id\":\"c\"},\"deep\":[{\"x\":\"", "\"}]}"];
        edge.segment.clear();
        let reply = edge.send(Webhook::new([before.as_bytes(), invalid, behind.as_bytes()].concat())).await?;
        assert_eq!((reply.status, edge.segment.calls().len()), (400, 0));
        assert!(reply.text().contains(&format!("valid UTF-8 at byte {}", before.len())), "{}", reply.text());
    }
    // The VM is still the first one: no request trapped it.
    assert_eq!(edge.send_event(EVENT).await?.status, 200);
    assert!(["panicked", "a panic at"].iter().all(|bug| !edge.envoy.log().contains(bug)), "{}", edge.envoy.log_tail());
    assert_eq!(vms(&edge.envoy).await?, vms_before);
    Ok(())
}

#[tokio::test]
async fn a_slow_sender_holds_nothing_for_ever() -> Result<()> {
    let edge = Edge::start().await?;
    let patience = Duration::from_secs(25); // Stigg's is 30 s
    // Returns the head of the answer; it is empty if the connection was closed without one.
    let drip = async |sent_at_once: usize| -> Result<(String, Duration)> {
        let mut connection = edge.connect().await?;
        let begin = Instant::now();
        let whole = post(EVENT);
        let (start, rest) = whole.split_at(sent_at_once);
        connection.send(start).await?;
        for byte in rest.bytes() {
            let sent = connection.send([byte]).await;
            if let Ok(response) = tokio::time::timeout(Duration::from_secs(1), connection.response()).await {
                let head = if sent.is_ok() { response.map(|response| response.head) } else { Ok(String::new()) };
                return Ok((head.unwrap_or_default(), begin.elapsed()));
            }
            assert!(begin.elapsed() < patience, "still held");
        }
        panic!("was not slow enough")
    };
    let (head, took) = drip(post(EVENT).len() - EVENT.len()).await?;
    assert!(head.starts_with("http/1.1 408") && took < patience, "{head} after {took:?}");
    let (head, took) = drip(10).await?;
    // Envoy 1.36 sometimes answers before it closes.
    let is_answered =
        head.starts_with("http/1.1 408") && tokio::task::spawn_blocking(|| is_older_than((1, 37))).await??;
    assert!((head.is_empty() || is_answered) && took < patience, "{head} after {took:?}");
    assert_eq!(edge.segment.connections(), 0);
    Ok(())
}

#[tokio::test]
async fn a_connection_that_never_sends_is_closed_long_before_one_that_is_kept_alive() -> Result<()> {
    let edge = Edge::start().await?;
    let begin = Instant::now();
    let mut kept_alive = edge.connect().await?;
    kept_alive.send(post(EVENT)).await?;
    assert_eq!(kept_alive.response().await?.status, 200);
    let mut silent = edge.connect().await?;
    let mut begun = edge.connect().await?;
    begun.send("POST /webhooks").await?;
    for connection in [&mut silent, &mut begun] {
        assert_eq!(connection.closed().await?, "");
        assert!(begin.elapsed() < Duration::from_secs(30), "idle_timeout is 75 s: {:?}", begin.elapsed());
    }
    kept_alive.send(post(EVENT)).await?;
    assert_eq!(kept_alive.response().await?.status, 200);
    Ok(())
}

/// Connections that only begin HTTP/2 count as idle. They lose their place when connections become scarce; each one that
/// is closed gives the others more time.
#[tokio::test]
async fn idle_connections_cannot_take_all_places() -> Result<()> {
    if is_too_old((1, 37), "idle connections that are closed sooner").await? {
        return Ok(());
    }
    const MOST: usize = 20;
    let edge = Edge::start_with(|config| config.set(MOST_CONNECTIONS, json!(MOST))).await?;
    let begin = Instant::now();
    let mut idle = Vec::new();
    for _ in 0..MOST - 2 {
        let mut connection = edge.connect().await?;
        connection.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
        idle.push(connection);
    }
    edge.envoy.wait_for_stat("http.webhooks.downstream_cx_idle_timeout", MOST as u64 / 5, PATIENCE).await?;
    assert!(begin.elapsed() < Duration::from_secs(30), "idle_timeout is 75 s: {:?}", begin.elapsed());
    assert_eq!(edge.send_event(EVENT).await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_with_it() -> Result<()> {
    for edge in Edge::start_both_ways().await? {
        let half = post(EVENT);
        for (n, end) in [half.len() - EVENT.len(), half.len() - EVENT.len() / 2, half.len() - 1].into_iter().enumerate()
        {
            let mut connection = edge.connect().await?;
            connection.send(&half.as_bytes()[..end]).await?;
            edge.envoy.wait_for_stat("http.webhooks.downstream_rq_total", n as u64 + 1, PATIENCE).await?;
            drop(connection);
        }
        let gone = "http.webhooks.downstream_cx_destroy_remote";
        edge.envoy.wait_for_stat(gone, 3, PATIENCE).await?;
        assert_eq!(edge.envoy.stat("http.webhooks.downstream_rq_active").await?, 0);
        assert_eq!(edge.segment.requests_begun(), 0);
        assert_eq!(edge.send_event(EVENT).await?.status, 200);
    }
    Ok(())
}

/// A status of a row in the table of answers on the page on operations, where the answer is Envoy's and not in JSON.
fn listed_without_json() -> Result<BTreeSet<u16>> {
    let page = read("docs/operations.md")?;
    let rows = page.lines().filter(|row| row.starts_with("| ") && row.contains("(Envoy's answer, not in JSON)"));
    rows.map(|row| row[2..].split([' ', ',']).next().unwrap().parse().with_context(|| row.to_owned())).collect()
}

#[tokio::test]
async fn what_envoy_rejects_by_itself_is_in_the_table_of_answers() -> Result<()> {
    let edge = Edge::start_with(|config| {
        let options = format!("{HTTP_CONNECTION_MANAGER}/http_protocol_options/accept_http_10");
        config
            .set(&options, json!(false))?
            .edit_plugin_configuration(|plugin| plugin["max_body_bytes"] = json!(2 << 20))
    })
    .await?;
    let length = format!("content-length: {}\r\n", EVENT.len());
    let with = |headers: &str| request("POST", &format!("{headers}{length}"), EVENT);
    let mut statuses = BTreeSet::new();
    for (what, request, status) in [
        ("HTTP/1.0 where it is not accepted", post(EVENT).replace("HTTP/1.1", "HTTP/1.0"), 426),
        ("an upgrade that Envoy does not know", with("connection: upgrade\r\nupgrade: websocket\r\n"), 403),
        ("too many headers", with(&(0..100).map(|n| format!("x-{n}: 1\r\n")).collect::<String>()), 431),
        ("no host", post(EVENT).replace("host: edge\r\n", ""), 400),
        ("a fragment", post(EVENT).replace(PATH, &format!("{PATH}#x")), 400),
        ("an escaped slash", post(EVENT).replace(PATH, "/webhooks%2fstigg"), 400),
        ("a length and chunks", with("transfer-encoding: chunked\r\n"), 400),
        ("an unknown encoding", request("POST", "transfer-encoding: xchunked\r\n", ""), 501),
        ("a body over Envoy's limit", post(&" ".repeat(3 << 19)), 413),
        ("gRPC", with("content-type: application/grpc\r\n").replace(SECRET, "wrong"), 200),
    ] {
        let mut connection = edge.connect().await?;
        // The answer may come before everything is sent.
        let _ = connection.send(request).await;
        let response = connection.response().await.context(what)?;
        assert_eq!(response.status, status, "{what}: {response:?}");
        assert!(!response.body.contains('{') && !response.head.contains("application/json"), "{what}: {response:?}");
        assert_eq!(response.head.contains("grpc-status: "), status == 200, "{what}: {response:?}");
        statuses.insert(status);
    }
    assert_eq!(edge.segment.connections(), 0);
    assert_eq!(statuses, listed_without_json()?);
    Ok(())
}

#[tokio::test]
async fn headers_over_the_limits_are_rejected() -> Result<()> {
    let edge = Edge::start().await?;
    for (what, headers) in [
        ("too many", (0..100).map(|n| format!("x-{n}: 1\r\n")).collect::<String>()),
        ("too large", format!("x: {}\r\n", "x".repeat(20_000))),
    ] {
        let mut connection = edge.connect().await?;
        let _ = connection.send(request("POST", &format!("{headers}content-length: {}\r\n", EVENT.len()), EVENT)).await;
        assert_eq!(connection.response().await?.status, 431, "{what}");
    }
    // A header with an underscore is dropped, but the event is forwarded.
    let reply = edge.send(Webhook::new(EVENT).header("x_underscore", "1").header("stigg_webhooks_secret", "x")).await?;
    assert_eq!(reply.status, 200);
    // Paths that another server might interpret differently.
    for path in ["/webhooks%2Fstigg", "/webhooks%5cstigg"] {
        assert_eq!(Webhook::new(EVENT).secret(SECRET).send(&edge.envoy.url(path)).await?.status, 400, "{path}");
    }
    for path in ["//webhooks/stigg", "/x/../webhooks/stigg"] {
        assert_eq!(Webhook::new(EVENT).secret(SECRET).send(&edge.envoy.url(path)).await?.status, 200, "{path}");
    }
    Ok(())
}
