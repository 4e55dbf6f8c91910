//! Checks that hold for every configuration, valid or not.

use std::env::VarError;

use stigg_segment::config::Config;

use super::json::unit;

/// Panics if [`Config::parse`] panics, if a message has more than one line, or if a message depends on a secret. Returns
/// whether the configuration is valid.
pub fn check(json: &[u8]) -> bool {
    let shown = shown(json, 'k');
    for line in &shown {
        assert!(!line.contains(['\n', '\r']), "{line:?} is more than one line for {}", json.escape_ascii());
    }
    let others = with_other_secrets(json);
    let shown_of_others = self::shown(&others, 'q');
    assert_eq!(
        shown,
        shown_of_others,
        "a secret shows (left: {}, right: {})",
        json.escape_ascii(),
        others.escape_ascii()
    );
    Config::parse(json, |name| variable(name, 'k')).is_ok()
}

/// The first digits of the write key's hash name the source. They may show, and depend on the key.
fn without_hash(line: &str) -> String {
    let mut parts = line.split("stigg-");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |line, part| match part.split_at_checked(8) {
        Some((hash, rest)) if rest.starts_with('-') && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            line + "stigg-…" + rest
        }
        _ => line + "stigg-" + part,
    })
}

/// All messages and debug output for a configuration, line by line.
fn shown(json: &[u8], secret: char) -> Vec<String> {
    match Config::parse(json, |name| variable(name, secret)) {
        Ok(config) => {
            [format!("{config:?}")].into_iter().chain(config.warnings).map(|line| without_hash(&line)).collect()
        }
        Err(error) => vec![error.to_string(), format!("{error:?}")],
    }
}

/// An environment in which a variable's name decides its value, made of one letter.
fn variable(name: &str, secret: char) -> Result<String, VarError> {
    let secret = secret.to_string();
    // The letters of what is not a name differ where another secret is tried; its length does not.
    let first = if may_be_a_variable(name) { name.as_bytes().first() } else { b"UNECS".get(name.len() % 8) };
    match first {
        Some(b'U') => Err(VarError::NotPresent),
        Some(b'N') => Err(VarError::NotUnicode(secret.into())),
        Some(b'E') => Ok(" ".into()),
        Some(b'C') => Ok(format!("{secret}\u{1}")),
        Some(b'S') => Ok(secret.repeat(32)),
        _ => Ok(secret.repeat(7) + "\n"),
    }
}

/// The text with other letters and digits in every string that may be a secret. Strings that differ still differ. `json` need not be well-formed: up to
/// where it no longer is, this finds the strings, and further than that nothing reads.
fn with_other_secrets(json: &[u8]) -> Vec<u8> {
    let mut changed = json.to_vec();
    // For each open object its current key; for an array an empty key.
    let mut path: Vec<String> = Vec::new();
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        let end = if *byte == b'"' { string_end(json, at) } else { at + 1 };
        match byte {
            b'{' | b'[' => path.push(String::new()),
            b'}' | b']' => drop(path.pop()),
            b',' => path.iter_mut().last().into_iter().for_each(String::clear),
            b'"' => {
                let string = serde_json::from_slice::<String>(&json[at..end]).unwrap_or_default();
                let is_key = json[end..].trim_ascii_start().starts_with(b":");
                if is_key && let Some(key) = path.last_mut() {
                    key.clone_from(&string);
                }
                if may_be_secret(&path.iter().map(String::as_str).collect::<Vec<_>>(), is_key, &string) {
                    change_letters(&mut changed[at..end]);
                }
            }
            _ => {}
        }
        at = end;
    }
    changed
}

/// Whether a string at `path` must not be shown: everything in `write_key` and `webhook_secret`, except the names of the
/// secret's source.
fn may_be_secret(path: &[&str], is_key: bool, string: &str) -> bool {
    let settings = match path {
        ["environments", _, settings @ ..] => settings,
        settings => settings,
    };
    match settings {
        ["write_key" | "webhook_secret"] => !is_key && !["gateway", "unverified"].contains(&string),
        ["write_key" | "webhook_secret", _] if is_key => !["env", "value", "filter_state"].contains(&string),
        ["write_key" | "webhook_secret", "env" | "filter_state"] if is_key => false,
        ["write_key" | "webhook_secret", "filter_state"] => false,
        ["write_key" | "webhook_secret", "filter_state", ""] => false,
        ["write_key" | "webhook_secret", "env"] => !may_be_a_variable(string),
        ["write_key" | "webhook_secret", "env", ""] => !may_be_a_variable(string),
        ["write_key" | "webhook_secret", ..] => true,
        [key] if is_key => !key.starts_with('/') && !may_be_a_field(key),
        _ => false,
    }
}

/// Whether a string in a variable's place is its name: capitals, digits and underscores, in words of up to 16.
fn may_be_a_variable(name: &str) -> bool {
    name.split('_').all(|word| word.len() <= 16)
        && name.len() <= 64
        && name.starts_with(|c: char| c == '_' || c.is_ascii_uppercase())
        && name.chars().all(|c| c == '_' || c.is_ascii_digit() || c.is_ascii_uppercase())
}

/// Whether a key is a field's name, though a wrong one: small letters and underscores, in words of up to 16.
fn may_be_a_field(name: &str) -> bool {
    name.split('_').all(|word| word.len() <= 16)
        && name.len() <= 64
        && name.chars().all(|c| c == '_' || c.is_ascii_lowercase())
}

/// The position after the closing quote of the string that starts at `start`, or the end of the text.
fn string_end(json: &[u8], start: usize) -> usize {
    let mut end = start + 1;
    while json.get(end).is_some_and(|byte| *byte != b'"') {
        end += if json[end] == b'\\' { 2 } else { 1 };
    }
    (end + 1).min(json.len())
}

/// Leaves alone what is not a letter or a digit. An escaped letter is another escaped letter.
fn change_letters(string: &mut [u8]) {
    let mut at = 0;
    while let Some(byte) = string.get(at).copied() {
        let escaped = string.get(at..at + 6).and_then(|escape| unit(str::from_utf8(escape).ok()?));
        let code = escaped.and_then(|unit| u8::try_from(unit).ok());
        match (byte, code) {
            (b'\\', Some(code)) => string[at + 2..at + 6].copy_from_slice(format!("{:04x}", next(code)).as_bytes()),
            (b'\\', None) => {}
            _ => string[at] = next(byte),
        }
        at += match byte {
            b'\\' if string.get(at + 1) == Some(&b'u') => 6,
            b'\\' => 2,
            _ => 1,
        };
    }
}

/// The next letter or digit of the same kind.
fn next(byte: u8) -> u8 {
    match byte {
        b'z' => b'a',
        b'Z' => b'A',
        b'9' => b'0',
        b'0'..=b'8' | b'a'..=b'y' | b'A'..=b'Y' => byte + 1,
        other => other,
    }
}
