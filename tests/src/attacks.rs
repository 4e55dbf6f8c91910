//! Attacks that no gateway may let through.

use anyhow::Result;

use crate::edge::*;

/// A smuggled request, which must never be served: it differs from the first.
const SMUGGLED: &str = "POST /webhooks/stigg HTTP/1.1\r\nhost: edge\r\nx-smuggled: 1\r\ncontent-length: 2\r\n\r\n{}";

/// Checks that Segment got exactly one call for [`EVENT`], or nothing.
fn assert_nothing_smuggled(edge: &Edge) {
    for call in edge.segment.calls() {
        assert_eq!((call.method.as_str(), call.path.as_str()), ("POST", "/v1/track"));
        assert!(call.body.ends_with(format!("\"properties\":{EVENT}}}").as_bytes()), "{call:?}");
        assert_eq!(call.header("content-length"), Some(call.body.len().to_string().as_str()));
    }
}

/// Sends requests whose end two servers might see in different places.
pub async fn cannot_be_smuggled_past(edge: &Edge) -> Result<()> {
    let length = EVENT.len();
    let chunked = format!("{length:x}\r\n{EVENT}\r\n0\r\n\r\n");
    let mut attempts = Vec::new();
    for (what, headers, body) in [
        ("two lengths", format!("content-length: {length}\r\ncontent-length: 5\r\n"), EVENT.to_owned()),
        (
            "the same length twice",
            format!("content-length: {length}\r\ncontent-length: {length}\r\n"),
            EVENT.to_owned(),
        ),
        ("a list of lengths", format!("content-length: {length}, {length}\r\n"), EVENT.to_owned()),
        ("length and chunks", format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n"), chunked.clone()),
        ("chunks and length", "transfer-encoding: chunked\r\ncontent-length: 4\r\n".into(), chunked.clone()),
        ("odd chunks", "transfer-encoding: xchunked\r\n".into(), chunked.clone()),
        ("chunks and more", "transfer-encoding: chunked, identity\r\n".into(), chunked.clone()),
        ("chunks twice", "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n".into(), chunked.clone()),
        ("a signed length", format!("content-length: +{length}\r\n"), EVENT.to_owned()),
        ("a hexadecimal length", format!("content-length: 0x{length:x}\r\n"), EVENT.to_owned()),
        ("a negative length", "content-length: -1\r\n".into(), EVENT.to_owned()),
        ("a space before the colon", format!("content-length : {length}\r\n"), EVENT.to_owned()),
        ("a bad chunk size", "transfer-encoding: chunked\r\n".into(), format!("zz\r\n{EVENT}\r\n0\r\n\r\n")),
        ("a header with NUL", format!("content-length: {length}\r\nx: a\0b\r\n"), EVENT.to_owned()),
    ] {
        let mut connection = edge.connect().await?;
        // The answer may come before everything is sent.
        let _ = connection.send(request("POST", &headers, &body) + SMUGGLED).await;
        attempts.push((what, connection));
    }
    for (what, mut connection) in attempts {
        let answers = connection.closed().await?;
        let rejected = ["HTTP/1.1 400 Bad Request\r\n", "HTTP/1.1 501 Not Implemented\r\n"];
        assert!(rejected.iter().any(|status| answers.starts_with(status)), "{what}: {answers}");
        assert_eq!(answers.matches("HTTP/1.1").count(), 1, "{what}: {answers}");
        assert_nothing_smuggled(edge);
    }
    // A body longer than announced is a second, malformed request, and not part of the first.
    let mut connection = edge.connect().await?;
    connection.send(post(EVENT) + "trailing garbage\r\n\r\n").await?;
    assert_eq!(connection.response().await?.status, 200);
    connection.closed().await?;
    assert_nothing_smuggled(edge);
    // The requests after the rewritten, longer one on the same upstream connection arrive whole.
    let mut connection = edge.connect().await?;
    for _ in 0..5 {
        connection.send(post(EVENT)).await?;
        assert_eq!(connection.response().await?.status, 200);
    }
    assert_nothing_smuggled(edge);
    Ok(())
}
