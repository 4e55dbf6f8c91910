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
use sandbox::segment::{self, Behaviour, Segment, Transport};
use sandbox::stigg::Webhook;
use sandbox::yardstick::{Gateway, Variant};
use serde_json::Value;

#[tokio::test]
async fn holds_on_envoy_while_headers_are_held() -> Result<()> {
    hold_to_the_table(Variant::Shipped, |_| true).await
}

#[tokio::test]
async fn holds_on_envoy_while_a_buffer_filter_holds_all() -> Result<()> {
    hold_to_the_table(Variant::Buffered, |_| true).await
}

/// What the benchmark compares the filter with does the same job.
#[tokio::test]
async fn holds_on_envoy_with_a_lua_filter() -> Result<()> {
    hold_to_the_table(Variant::Lua, |_| true).await
}

/// It reads and writes the event anew: the table's other cases ask for more than a user of a function would.
#[tokio::test]
async fn holds_on_envoy_with_a_function_for_documented_events() -> Result<()> {
    hold_to_the_table(Variant::Node, |case| case.ends_with(".json") || case.starts_with("not about")).await
}

async fn hold_to_the_table(variant: Variant, applies: impl Fn(&str) -> bool) -> Result<()> {
    let options = ENVIRONMENT.iter().fold(Options::default(), |options, (name, value)| options.env(name, value));
    let transport = if variant == Variant::Node { Transport::Plain } else { Transport::default() };
    let segment = Segment::start_with(segment::Options { transport, ..Default::default() }).await?;
    let gateway = Gateway::start(variant, &segment, Ok, options, &[]).await?;
    let edge = Edge { envoy: gateway.envoy, segment };
    let mut failures = Vec::new();
    let refuses_large_bodies = variant != Variant::Buffered && edge::refuses_large_bodies().await?;
    let cases: Vec<_> = cases()?.into_iter().filter(|case| applies(&case.name)).collect();
    assert!(!cases.is_empty());
    for case in cases {
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
        let mut outcome = serve(&edge, &case.request).await;
        if let (Variant::Node, Ok(Outcome { call: Some(call), .. })) = (variant, &mut outcome) {
            spelt_as_it_came(call, &case.request.body.concat())?;
        }
        if let Err(error) = outcome.and_then(|outcome| case.check(&outcome)) {
            failures.push(format!("{}: {error:#}", case.name));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}\n{}", edge.envoy.log_tail());
    Ok(())
}

/// Where the properties are the event that came in, spelt anew, puts the spelling back. Node.js speaks HTTP/1.1 to
/// Segment, with the header of the connection.
fn spelt_as_it_came(call: &mut Call, event: &[u8]) -> Result<()> {
    let mut track: Value = serde_json::from_slice(&call.body)?;
    let properties = track.as_object_mut().and_then(|track| track.remove("properties")).context("no properties")?;
    if in_javascript(properties) == in_javascript(serde_json::from_slice(event)?) {
        let members = track.to_string();
        let members = members.strip_suffix('}').context("no object")?;
        call.body = [members.as_bytes(), br#","properties":"#, event, b"}"].concat();
        call.headers.retain(|(name, _)| !["connection", "content-length"].contains(&&**name));
    }
    Ok(())
}

/// A value with every number as a double.
fn in_javascript(value: Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().into(),
        Value::Array(list) => list.into_iter().map(in_javascript).collect(),
        Value::Object(members) => members.into_iter().map(|(key, value)| (key, in_javascript(value))).collect(),
        other => other,
    }
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
