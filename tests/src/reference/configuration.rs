//! What holds for every configuration, whatever is written in it.

use stigg_segment::config::Config;

/// Panics where [`Config::parse`] does, where it says more than one line at a time, and where what it says depends on a
/// secret. Returns whether the configuration is right.
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

/// Everything that a person may get to see of a configuration, line by line.
fn shown(json: &[u8], secret: char) -> Vec<String> {
    match Config::parse(json, |name| variable(name, secret)) {
        Ok(config) => [format!("{config:?}")].into_iter().chain(config.warnings).collect(),
        Err(error) => vec![error.to_string(), format!("{error:?}")],
    }
}

/// An environment in which the name of a variable says what it is set to, a secret of one letter in some way.
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

/// The text with other letters and digits in every string that may be a secret. `json` need not be well-formed: up to
/// where it no longer is, this finds the strings, and further than that nothing reads.
fn with_other_secrets(json: &[u8]) -> Vec<u8> {
    let mut changed = json.to_vec();
    // Of each object that is open the key that is its turn; of an array an empty one.
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

/// Whether a string at `path` is not to be shown: all that stands under `write_key` and `webhook_secret`, but for what
/// tells where the secret comes from.
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

/// Behind the quote that ends the string that starts at `start`, or where the text ends.
fn string_end(json: &[u8], start: usize) -> usize {
    let mut end = start + 1;
    while json.get(end).is_some_and(|byte| *byte != b'"') {
        end += if json[end] == b'\\' { 2 } else { 1 };
    }
    (end + 1).min(json.len())
}

/// Leaves alone what is not a letter or a digit, and escapes.
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
