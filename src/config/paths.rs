//! The paths of environments. Envoy normalizes a request's path before the filter compares it, so a path that is written
//! in another way would never match.

/// What Envoy encodes in a path if it comes as it is, or does not accept.
const ENCODED: &[u8] = b"\"<>\\^`{|}";

/// Checks that a request can have this path after Envoy has normalized it. The error says what to write instead.
pub fn check(path: &str) -> Result<(), &'static str> {
    if !path.starts_with('/') || path.contains(['?', '#', '*']) {
        return Err("expected a path that starts with `/`, without a query");
    }
    if path.contains("//") || path.split('/').any(|step| [".", ".."].contains(&step)) {
        return Err("no request has this path, since Envoy resolves `//`, `.` and `..`; write the path without them");
    }
    if path.bytes().any(|byte| !byte.is_ascii_graphic() || ENCODED.contains(&byte)) {
        return Err("no request has this path, since a character of it must be encoded; write it as %XX, such as %20");
    }
    match path.split('%').skip(1).filter_map(decoded).find_map(stays_not) {
        Some(wrong) => Err(wrong),
        None => Ok(()),
    }
}

/// The byte that two hexadecimal digits encode.
fn decoded(text: &str) -> Option<u8> {
    let digits = text.get(..2).filter(|digits| !digits.starts_with('+'))?; // Rust reads a sign as well
    u8::from_str_radix(digits, 16).ok()
}

/// Why an encoded byte does not stay encoded.
fn stays_not(byte: u8) -> Option<&'static str> {
    match byte {
        b'/' | b'\\' | 0 => Some("no request has this path, since Envoy rejects an encoded slash, backslash or NUL"),
        b'-' | b'.' | b'_' | b'~' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
            Some("no request has this path, since Envoy decodes a character of it; write the character itself")
        }
        _ => None,
    }
}
