//! Checks that hold for every configuration, valid or not.

use stigg_segment::config::Config;

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

/// All messages and debug output for a configuration, line by line.
fn shown(json: &[u8], secret: char) -> Vec<String> {
    match Config::parse(json, |name| variable(name, secret)) {
        Ok(config) => [format!("{config:?}")].into_iter().chain(config.warnings).collect(),
        Err(error) => vec![error.to_string(), format!("{error:?}")],
    }
}

/// An environment in which a variable's name decides its value, made of one letter.
fn variable(name: &str, secret: char) -> Option<String> {
    let secret = secret.to_string();
    match name.as_bytes().first() {
        Some(b'U') => None,
        Some(b'E') => Some(" ".into()),
        Some(b'C') => Some(format!("{secret}\u{1}")),
        Some(b'S') => Some(secret.repeat(32)),
        _ => Some(secret.repeat(7) + "\n"),
    }
}

/// The text with other letters and digits in every string that may be a secret. `json` may be malformed: this finds the
/// strings up to the error, and the parser reads no further.
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
        ["write_key" | "webhook_secret", "env" | "filter_state"] => false,
        ["write_key" | "webhook_secret", "env" | "filter_state", ""] => false,
        ["write_key" | "webhook_secret", ..] => true,
        _ => false,
    }
}

/// The position after the closing quote of the string that starts at `start`, or the end of the text.
fn string_end(json: &[u8], start: usize) -> usize {
    let mut end = start + 1;
    while json.get(end).is_some_and(|byte| *byte != b'"') {
        end += if json[end] == b'\\' { 2 } else { 1 };
    }
    (end + 1).min(json.len())
}

/// Changes only letters and digits, and no escapes.
fn change_letters(string: &mut [u8]) {
    let mut at = 0;
    while let Some(byte) = string.get(at).copied() {
        if byte.is_ascii_alphanumeric() {
            string[at] = b'x';
        }
        at += match byte {
            b'\\' if string.get(at + 1) == Some(&b'u') => 6,
            b'\\' => 2,
            _ => 1,
        };
    }
}
