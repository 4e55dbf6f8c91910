//! The header map as proxy-wasm hands it over, and the headers of the request to Segment.
//!
//! The map comes whole, in one host call, which makes what reaches Segment a list of what may, not a list of what somebody
//! remembered to remove. What changes goes back header by header, which costs Envoy less than to set the whole map. The
//! format is that of `proxy_get_header_map_pairs` in the
//! [proxy-wasm specification](https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1#serialized-map): the
//! number of pairs, the sizes of each key and value, then each key and value with a zero byte behind it.

use crate::USER_AGENT;
use crate::verify::Secret;

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

/// What makes the header map that came in that of the request to Segment: headers to set, and those without a value to
/// remove.
///
/// Without `authorization` the credential is somebody else's to add; without `content_length` the framing is.
pub fn to_segment<'a>(
    incoming: &'a [u8],
    authorization: Option<&'a Secret>,
    content_length: Option<&'a str>,
) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
    let own = [
        ("content-type", Some(b"application/json".as_slice())),
        ("user-agent", Some(USER_AGENT.as_bytes())),
        ("authorization", authorization.map(Secret::reveal)),
        ("content-length", content_length.map(str::as_bytes)),
    ];
    let own = own.map(|(name, value)| (name.as_bytes(), value));
    // What is right already is left alone: a call to the host costs more than to look.
    let is_right = move |name, value| pairs(incoming).filter(|(other, _)| *other == name).eq([(name, value)]);
    let set = own.into_iter().filter(move |(name, value)| value.is_some_and(|value| !is_right(*name, value)));
    let others = pairs(incoming).filter_map(move |(name, value)| match name {
        b":path" => Some((name, Some(path(value)))).filter(|(_, path)| *path != Some(value)),
        _ if stays(name) || own.iter().any(|(own, value)| *own == name && value.is_some()) => None,
        _ => Some((name, None)),
    });
    set.chain(others)
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
