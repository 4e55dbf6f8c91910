//! Runs the [`cases`](crate::cases) on a gateway, through sockets.

use anyhow::{Context, Result};
use sandbox::envoy::Options;
use sandbox::segment::Behaviour;
use sandbox::stigg::Webhook;

use crate::cases::{ANSWER, Call, Case, ENVIRONMENT, Headers, Outcome, PATH, Request};
use crate::edge::{Connection, Edge};

/// The environment that the cases assume.
pub fn options() -> Options {
    ENVIRONMENT.iter().fold(Options::default(), |options, (name, value)| options.env(name, value))
}

/// Runs the cases, and panics if an outcome differs. `read` may change the outcome of a request before the comparison.
pub async fn hold_to(cases: Vec<Case>, edge: &Edge, read: impl Fn(&Request, &mut Outcome) -> Result<()>) -> Result<()> {
    let mut failures = Vec::new();
    assert!(!cases.is_empty());
    for case in cases {
        edge.segment.clear();
        edge.segment.behave(Behaviour::Answer {
            status: case.segment_answers,
            headers: vec![("content-type".into(), "application/json".into())],
            body: ANSWER.into(),
            accept: case.segment_answers == 200,
        });
        let outcome = serve(edge, &case.request).await.and_then(|mut outcome| {
            read(&case.request, &mut outcome)?;
            Ok(outcome)
        });
        if let Err(error) = outcome.and_then(|outcome| case.check(&outcome)) {
            failures.push(format!("{}: {error:#}", case.name));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}\n{}", edge.envoy.log_tail());
    Ok(())
}

/// Sends a request, and returns its outcome.
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

/// Sends it unchanged, each piece of the body separately.
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

/// Sends the body in one piece, and trailers, which only HTTP/2 sends without announcing them.
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
