//! Watches the traffic through Envoy with Envoy's
//! [tap filter](https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/tap_filter).

use anyhow::{Context, Result, bail, ensure};
use base64ct::{Base64, Encoding};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::{Method, Request};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::ADMIN_HOST;
use crate::http::{self, Addr, Connection};

/// The name that the filter and its only listener agree on.
const CONFIG_ID: &str = "webhooks";

/// More than any body that the filter takes.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// The filter; it does nothing until somebody listens.
pub(super) fn filter() -> Value {
    json!({
        "name": "tap",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.tap.v3.Tap",
            "common_config": { "admin_config": { "config_id": CONFIG_ID } },
        },
    })
}

/// One request and its response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// The id that Envoy gave the request.
    pub request_id: String,
    /// The request's body, byte for byte; `None` if the request was answered before its body arrived.
    pub request: Option<Bytes>,
    /// The response's body, if it has one.
    pub response: Option<Bytes>,
}

/// The exchanges, in the order in which they end. Dropping it ends the watching.
#[derive(Debug)]
pub struct Tap {
    _connection: Connection,
    body: Incoming,
    read: Vec<u8>,
}

impl Tap {
    pub(super) async fn open(admin: Addr) -> Result<Self> {
        let wanted = json!({
            "config_id": CONFIG_ID,
            "tap_config": {
                "match": { "any_match": true },
                "output_config": {
                    "max_buffered_rx_bytes": MAX_BODY_BYTES,
                    "max_buffered_tx_bytes": MAX_BODY_BYTES,
                    "sinks": [{ "format": "JSON_BODY_AS_BYTES", "streaming_admin": {} }],
                },
            },
        });
        let request = Request::builder()
            .method(Method::POST)
            .uri("/tap")
            .header(HOST, ADMIN_HOST)
            .body(Full::new(Bytes::from(wanted.to_string())))?;
        let (connection, response) = http::open(admin, request).await?;
        let status = response.status();
        ensure!(status.is_success(), "Envoy's admin interface answers {status} to /tap");
        Ok(Self { _connection: connection, body: response.into_body(), read: Vec::new() })
    }

    /// Waits for the next exchange to end. Dropping the future half-way loses nothing.
    ///
    /// # Errors
    /// Envoy ends the watching, or its report cannot be read.
    pub async fn next(&mut self) -> Result<Exchange> {
        loop {
            let mut traces = serde_json::Deserializer::from_slice(&self.read).into_iter::<Trace>();
            match traces.next() {
                Some(Ok(trace)) => {
                    self.read.drain(..traces.byte_offset());
                    if let Some(exchange) = trace.exchange() {
                        return Ok(exchange);
                    }
                    continue;
                }
                Some(Err(error)) if !error.is_eof() => {
                    return Err(error).context("cannot read the report of Envoy's tap");
                }
                _ => {}
            }
            let Some(frame) = self.body.frame().await else { bail!("Envoy has ended the tap") };
            if let Ok(data) = frame?.into_data() {
                self.read.extend_from_slice(&data);
            }
        }
    }
}

#[derive(Deserialize)]
struct Trace {
    http_buffered_trace: Buffered,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Buffered {
    request: Message,
    response: Message,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Message {
    headers: Vec<Header>,
    body: Option<Body>,
}

#[derive(Deserialize)]
struct Header {
    key: String,
    value: String,
}

#[derive(Deserialize)]
struct Body {
    #[serde(deserialize_with = "base64")]
    as_bytes: Bytes,
}

fn base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let text = String::deserialize(deserializer)?;
    Base64::decode_vec(&text).map(Into::into).map_err(serde::de::Error::custom)
}

impl Trace {
    /// Leaves out the headers, because the webhook's secret is among them. `None` if Envoy rejected the request for its
    /// headers.
    fn exchange(self) -> Option<Exchange> {
        let Buffered { request, response } = self.http_buffered_trace;
        let id = request.headers.into_iter().find(|header| header.key == "x-request-id");
        Some(Exchange {
            request_id: id?.value,
            request: request.body.map(|body| body.as_bytes),
            response: response.body.map(|body| body.as_bytes),
        })
    }
}
