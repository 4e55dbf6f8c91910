//! Sends a webhook as Stigg does.

use std::future::ready;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use serde_json::Value;

use crate::http;

/// The header that proves a webhook's origin.
pub const SECRET_HEADER: &str = "stigg-webhooks-secret";
/// The path at which `envoy.yaml` receives webhooks.
pub const PATH: &str = "/webhooks/stigg";

/// A webhook to be sent.
#[derive(Debug, Clone)]
pub struct Webhook {
    method: Method,
    version: Version,
    headers: Vec<(String, String)>,
    body: Bytes,
    trailers: HeaderMap,
}

/// The receiver's answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Webhook {
    /// A webhook with this body over HTTP/1.1. It carries no secret yet.
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self {
            method: Method::POST,
            version: Version::HTTP_11,
            headers: vec![(CONTENT_TYPE.to_string(), "application/json".to_owned())],
            body: body.into(),
            trailers: HeaderMap::new(),
        }
    }

    /// A webhook with this event.
    pub fn event(event: &Value) -> Self {
        Self::new(event.to_string())
    }

    /// Adds the secret that proves the origin.
    pub fn secret(self, secret: &str) -> Self {
        self.header(SECRET_HEADER, secret)
    }

    /// Adds a header; earlier ones of the same name stay.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Removes every header of this name.
    pub fn without_header(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self
    }

    /// Ends the request with this trailer. Only HTTP/2 can do that without announcing it.
    pub fn trailer(mut self, name: &'static str, value: &'static str) -> Self {
        self.trailers.append(name, HeaderValue::from_static(value));
        self
    }

    /// Sends with another method than POST.
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// Sends over HTTP/2 without negotiating it.
    pub fn http2(mut self) -> Self {
        self.version = Version::HTTP_2;
        self
    }

    /// Sends it to a plain `http://` URL on a new connection.
    pub async fn send(self, url: &str) -> Result<Reply> {
        let uri: Uri = url.parse().with_context(|| format!("{url} is not a URL"))?;
        let authority = uri.authority().with_context(|| format!("{url} names no host"))?.clone();
        let addr = tokio::net::lookup_host((authority.host(), authority.port_u16().unwrap_or(80)))
            .await?
            .next()
            .with_context(|| format!("{authority} has no address"))?;

        let mut request = Request::builder().method(self.method).version(self.version);
        request = match self.version {
            Version::HTTP_2 => request.uri(uri),
            _ => request.uri(uri.path_and_query().map_or("/", |path| path.as_str())).header(HOST, authority.as_str()),
        };
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let trailers = (!self.trailers.is_empty()).then_some(Ok(self.trailers));
        let body = Full::new(self.body).with_trailers(ready(trailers));
        let (head, body) = http::send(addr, request.body(body)?).await?.into_parts();
        Ok(Reply { status: head.status.as_u16(), headers: head.headers, body })
    }
}

impl Reply {
    /// The body as text; invalid UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body read as JSON; null if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header as text; `None` if it is missing or not text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The status text that Stigg shows beside a status code. In the access log, 0 means that there was no answer.
pub fn status_text(status: u16) -> &'static str {
    match StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()) {
        Some(text) => text,
        None if status == 0 => "no answer",
        None => "",
    }
}
