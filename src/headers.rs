//! The header map as proxy-wasm hands it over, and the headers of the request to Segment.
//!
//! The map comes and goes whole, in one host call each way: that is cheaper than a call for every header, and it makes
//! what reaches Segment a list of what may, not a list of what somebody remembered to remove. The format is that of
//! `proxy_get_header_map_pairs` in the
//! [proxy-wasm specification](https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1#serialized-map): the
//! number of pairs, the sizes of each key and value, then each key and value with a zero byte behind it.

use crate::verify::Secret;
use crate::{NAME, VERSION};

/// Of the request's own headers, these stay: what Envoy routes by (it finds no route without `x-forwarded-proto`, which
/// the route then removes), and the id that ties its log lines to the request.
fn stays(name: &[u8]) -> bool {
    name.starts_with(b":") || matches!(name, b"host" | b"x-forwarded-proto" | b"x-request-id")
}

/// The pairs of a serialized header map; none where it is not one.
pub fn pairs(map: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
    let (count, rest) = split_u32(map).unwrap_or((0, &[]));
    let (mut sizes, mut data) =
        count.checked_mul(8).and_then(|sizes| rest.split_at_checked(usize::try_from(sizes).ok()?)).unwrap_or_default();
    std::iter::from_fn(move || {
        let (key_size, rest) = split_u32(sizes)?;
        let (value_size, rest) = split_u32(rest)?;
        sizes = rest;
        let (key, rest) = split_terminated(data, key_size)?;
        let (value, rest) = split_terminated(rest, value_size)?;
        data = rest;
        Some((key, value))
    })
}

fn split_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*number), rest))
}

fn split_terminated(bytes: &[u8], size: u32) -> Option<(&[u8], &[u8])> {
    let (text, rest) = bytes.split_at_checked(usize::try_from(size).ok()?)?;
    Some((text, rest.strip_prefix(&[0])?))
}

/// The path of a request target, without the query: that may be anything, a secret too, and nobody here has a use for it.
pub fn path(target: &[u8]) -> &[u8] {
    target.split(|byte| *byte == b'?').next().unwrap_or_default()
}

/// The header map of the request to Segment, serialized, made from the one that came in.
///
/// Without `authorization` the credential is somebody else's to add; without `content_length` the framing is.
pub fn to_segment(incoming: &[u8], authorization: Option<&Secret>, content_length: Option<usize>) -> Vec<u8> {
    let user_agent = [NAME, "/", VERSION].concat();
    let content_length = content_length.map(|length| length.to_string());
    let own = [
        Some(("content-type", b"application/json".as_slice())),
        Some(("user-agent", user_agent.as_bytes())),
        authorization.map(|authorization| ("authorization", authorization.reveal())),
        content_length.as_ref().map(|length| ("content-length", length.as_bytes())),
    ];
    let stays = pairs(incoming)
        .filter(|(name, _)| stays(name))
        .map(|(name, value)| (name, if name == b":path" { path(value) } else { value }));
    let own = own.iter().flatten().map(|&(name, value)| (name.as_bytes(), value));
    serialize(stays.chain(own))
}

/// A serialized header map of these pairs.
pub fn serialize<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone) -> Vec<u8> {
    // Sizes that no u32 holds cannot come from a 32-bit host.
    let u32_bytes = |size: usize| u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes();
    let mut map = Vec::with_capacity(1024);
    map.extend_from_slice(&u32_bytes(pairs.clone().count()));
    for (name, value) in pairs.clone() {
        map.extend_from_slice(&u32_bytes(name.len()));
        map.extend_from_slice(&u32_bytes(value.len()));
    }
    for (name, value) in pairs {
        for text in [name, value] {
            map.extend_from_slice(text);
            map.push(0);
        }
    }
    map
}
