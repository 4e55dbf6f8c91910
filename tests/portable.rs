//! The table of `cases` on a real Envoy, in each of the two ways to hold a request back. `second_host` holds another
//! implementation of proxy-wasm to the same table.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]

mod cases;
mod edge;

use anyhow::{Context, Result};
use cases::{ANSWER, Call, ENVIRONMENT, Headers, Outcome, PATH, Request, cases};
use edge::{Connection, Edge};
use sandbox::envoy::Options;
use sandbox::segment::{Behaviour, Segment};
use sandbox::stigg::Webhook;

#[tokio::test]
async fn holds_on_envoy_while_headers_are_held() -> Result<()> {
    hold_to_the_table(true).await
}

#[tokio::test]
async fn holds_on_envoy_while_a_buffer_filter_holds_all() -> Result<()> {
    hold_to_the_table(false).await
}

async fn hold_to_the_table(hold_request_headers: bool) -> Result<()> {
    let options = ENVIRONMENT.iter().fold(Options::default(), |options, (name, value)| options.env(name, value));
    let change = |config: sandbox::envoy::Config| config.hold_request_headers(hold_request_headers);
    let edge = Edge::start_between(Segment::start().await?, change, options).await?;
    let mut failures = Vec::new();
    let refuses_large_bodies = hold_request_headers && edge::refuses_large_bodies().await?;
    for case in cases()? {
        if refuses_large_bodies && (case.name.starts_with("the largest body") || case.name.starts_with("a larger body"))
        {
            continue;
        }
        edge.segment.clear();
        edge.segment.behave(Behaviour::Answer {
            status: case.segment_answers,
            headers: vec![("content-type".into(), "application/json".into())],
            body: ANSWER.into(),
            accept: case.segment_answers == 200,
        });
        let outcome = serve(&edge, &case.request).await;
        if let Err(error) = outcome.and_then(|outcome| case.check(&outcome)) {
            failures.push(format!("{}: {error:#}", case.name));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    Ok(())
}

/// Sends a request, and looks what became of it.
async fn serve(edge: &Edge, request: &Request) -> Result<Outcome> {
    let mut outcome = if request.has_trailers() {
        over_http2(edge, request).await?
    } else {
        over_http1(&mut edge.connect().await?, request).await?
    };
    outcome.call = edge.segment.calls().into_iter().next().map(|call| Call {
        headers: headers(&call.headers),
        body: call.body.into(),
        trailers: call.trailers.len(),
    });
    Ok(outcome)
}

/// As it is, each piece of the body for itself.
async fn over_http1(connection: &mut Connection, request: &Request) -> Result<Outcome> {
    let announced = request.headers.iter().any(|(name, _)| *name == "content-length");
    let chunked = !announced && !request.body.is_empty();
    let mut head = format!("{} {PATH} HTTP/1.1\r\nhost: edge\r\n", request.method).into_bytes();
    if chunked {
        head.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    for (name, value) in &request.headers {
        head.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    head.extend_from_slice(b"\r\n");
    connection.send(head).await?;
    // The answer may come, and the connection close, while the body is still being sent.
    let _ = async {
        for piece in request.body.iter().filter(|piece| !piece.is_empty()) {
            match chunked {
                true => {
                    let size = format!("{:x}\r\n", piece.len());
                    connection.send([size.as_bytes(), piece, b"\r\n"].concat()).await?;
                }
                false => connection.send(piece).await?,
            }
        }
        if chunked { connection.send("0\r\n\r\n").await } else { Ok(()) }
    }
    .await;
    let response = connection.response().await?;
    let headers = response.head.lines().filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).collect();
    Ok(Outcome { status: response.status, headers, body: response.body.into(), call: None })
}

/// The body in one piece, and the trailers that only HTTP/2 has without more ado.
async fn over_http2(edge: &Edge, request: &Request) -> Result<Outcome> {
    let mut webhook =
        Webhook::new(request.body.concat()).without_header("content-type").method(request.method.parse()?);
    for (name, value) in &request.headers {
        webhook = webhook.header(name, std::str::from_utf8(value).context("not UTF-8")?);
    }
    for (name, value) in &request.trailers {
        webhook = webhook.trailer(name, value);
    }
    let reply = webhook.http2().send(&edge.envoy.url(PATH)).await?;
    Ok(Outcome { status: reply.status, headers: headers(&reply.headers), body: reply.body.into(), call: None })
}

fn headers<'a>(map: impl IntoIterator<Item = (&'a (impl AsRef<str> + 'a), &'a (impl AsRef<[u8]> + 'a))>) -> Headers {
    map.into_iter().map(|(name, value)| (name.as_ref().to_owned(), value.as_ref().to_owned())).collect()
}
