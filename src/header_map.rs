//! The form in which proxy-wasm hands over a header map: the number of pairs, then the sizes of each key and value, then
//! each key and value with a zero byte after it
//! (<https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1#serialized-map>).

use crate::host::Headers;

/// A serialized header map.
#[derive(Debug)]
pub struct HeaderMap(pub Vec<u8>);

impl Headers for HeaderMap {
    fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        let (count, rest) = split_u32(&self.0).unwrap_or((0, &[]));
        let (mut sizes, mut data) = count
            .checked_mul(8)
            .and_then(|sizes| rest.split_at_checked(usize::try_from(sizes).ok()?))
            .unwrap_or_default();
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
}

impl<'a> FromIterator<(&'a [u8], &'a [u8])> for HeaderMap {
    fn from_iter<I: IntoIterator<Item = (&'a [u8], &'a [u8])>>(pairs: I) -> Self {
        // A size that no u32 holds cannot come from a 32-bit host.
        let u32_bytes = |size: usize| u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes();
        let (mut count, mut sizes, mut data) = (0_usize, Vec::new(), Vec::new());
        for (name, value) in pairs {
            count = count.saturating_add(1);
            for text in [name, value] {
                sizes.extend_from_slice(&u32_bytes(text.len()));
                data.extend_from_slice(text);
                data.push(0);
            }
        }
        HeaderMap([u32_bytes(count).as_slice(), &sizes, &data].concat())
    }
}

fn split_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*number), rest))
}

fn split_terminated(bytes: &[u8], size: u32) -> Option<(&[u8], &[u8])> {
    let (text, rest) = bytes.split_at_checked(usize::try_from(size).ok()?)?;
    Some((text, rest.strip_prefix(&[0])?))
}
