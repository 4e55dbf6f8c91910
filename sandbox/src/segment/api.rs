//! The checks that Segment makes before it answers. It checks neither the user id nor whether the write key exists.

use base64ct::{Base64, Encoding};
use hyper::header::AUTHORIZATION;
use hyper::{HeaderMap, Method};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::Call;

/// The largest size of a single call.
pub const MAX_CALL_BYTES: usize = 32 * 1024;

/// The largest size of a batch; each call in it is also limited to [`MAX_CALL_BYTES`].
pub const MAX_BATCH_BYTES: usize = 500 * 1024;

/// The stand-in rejects shorter write keys. Segment does not publish its own limit.
pub const SHORTEST_WRITE_KEY: usize = 4;

/// Why Segment rejects a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) status: u16,
    pub(super) message: &'static str,
}

impl Rejection {
    pub(super) fn body(self) -> String {
        json!({"success": false, "message": self.message}).to_string()
    }
}

const fn rejection<T>(status: u16, message: &'static str) -> Result<T, Rejection> {
    Err(Rejection { status, message })
}

/// The user name of Basic authentication: Segment expects the write key there.
pub(super) fn write_key(headers: &HeaderMap) -> Option<String> {
    let (scheme, credentials) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(Base64::decode_vec(credentials.trim()).ok()?).ok()?;
    let (write_key, _password) = decoded.split_once(':')?;
    Some(write_key.to_owned())
}

/// Checks whether Segment would answer 200.
pub(super) fn check(call: &Call) -> Result<(), Rejection> {
    let path = call.path.split('?').next().unwrap_or_default();
    let check_body = match (&call.method, path) {
        (&Method::POST, "/v1/track") => check_single,
        (&Method::POST, "/v1/batch") => check_batch,
        _ => return rejection(404, "not found"),
    };
    match call.write_key.as_deref() {
        None => rejection(401, "missing or unreadable write key"),
        Some(key) if key.len() < SHORTEST_WRITE_KEY => rejection(400, "invalid write key"),
        Some(_) => check_body(&call.body),
    }
}

fn check_single(body: &[u8]) -> Result<(), Rejection> {
    if body.len() > MAX_CALL_BYTES {
        return rejection(400, "call exceeds 32 KiB");
    }
    let is_object = body.trim_ascii_start().starts_with(b"{");
    // Without building a value, because benchmarks measure this too.
    if !is_object || serde_json::from_slice::<IgnoredAny>(body).is_err() {
        return rejection(400, "malformed JSON");
    }
    Ok(())
}

fn check_batch(body: &[u8]) -> Result<(), Rejection> {
    #[derive(Deserialize)]
    struct Batch {
        batch: Vec<Value>,
    }

    if body.len() > MAX_BATCH_BYTES {
        return rejection(400, "batch exceeds 500 KiB");
    }
    let Ok(Batch { batch }) = serde_json::from_slice(body) else {
        return rejection(400, "malformed JSON");
    };
    if batch.iter().any(|call| call.to_string().len() > MAX_CALL_BYTES) {
        return rejection(400, "a call in the batch exceeds 32 KiB");
    }
    Ok(())
}
