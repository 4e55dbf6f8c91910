//! JSON as `serde_json` reads it, including documents that its [`Value`] cannot hold.

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Number, Value};

/// Deeper than the mapping reads, and less deep than `serde_json` reads.
const DEPTH: usize = 100;

/// The errors that `serde_json` reports for valid JSON that a [`Value`] cannot hold.
const LIMITS_OF_VALUE: [&str; 4] = [
    "recursion limit exceeded",
    "number out of range",
    // Lone surrogates, with one of two messages.
    "lone leading surrogate in hex escape",
    "unexpected end of hex escape",
];

/// Whether this is one JSON text in UTF-8. Without a value to build, `serde_json` has no limits.
pub fn is_well_formed(text: &[u8]) -> bool {
    str::from_utf8(text).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

/// A JSON text, rewritten so that a [`Value`] can hold it:
///
/// - Each number is the index of its [`literal`](Self::literal), because a [`Value`] keeps only the digits of a double.
/// - Arrays and objects deeper than [`DEPTH`] are empty.
/// - A character of a private use plane replaces each lone surrogate, because a Rust string cannot hold one. If a text has
///   that very character, the comparison is less strict, but never wrong.
#[derive(Default)]
pub struct Document {
    text: String,
    literals: Vec<String>,
    depth: usize,
    keys: usize,
}

impl Document {
    /// `None` if `text` is malformed.
    pub fn read(text: &[u8]) -> Option<Document> {
        if !is_well_formed(text) {
            return None;
        }
        let text = str::from_utf8(text).unwrap();
        if let Err(error) = serde_json::from_str::<Value>(text) {
            let error = error.to_string();
            assert!(LIMITS_OF_VALUE.iter().any(|limit| error.starts_with(limit)), "{error}: {text}");
        }
        Some(Document::rewrite(text))
    }

    fn rewrite(mut rest: &str) -> Document {
        let mut document = Document::default();
        let mut depth = 0;
        while let Some(next) = rest.chars().next() {
            let (token, behind) = rest.split_at(token_len(rest));
            rest = behind;
            let is_kept = match next {
                '[' | '{' => {
                    depth += 1;
                    document.depth = document.depth.max(depth);
                    depth <= DEPTH + 1
                }
                ']' | '}' => {
                    depth -= 1;
                    depth <= DEPTH
                }
                _ => depth <= DEPTH,
            };
            match next {
                _ if !is_kept => {}
                '"' => document.text += &without_lone_surrogates(token),
                '-' | '0'..='9' => {
                    document.text += &document.literals.len().to_string();
                    document.literals.push(token.to_owned());
                }
                _ => {
                    document.text += token;
                    document.keys += usize::from(next == ':');
                }
            }
        }
        document
    }

    /// The text as a value of this type.
    pub fn parse<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_str(&self.text)
    }

    /// The text as a [`Value`] with the literals of its numbers: each is a string that starts with a character of a private
    /// use plane.
    pub fn exact(&self) -> Value {
        fn write_out(value: &mut Value, document: &Document) {
            match value {
                Value::Number(number) => *value = format!("\u{f0000}{}", document.literal(number)).into(),
                Value::Array(elements) => elements.iter_mut().for_each(|value| write_out(value, document)),
                Value::Object(members) => members.values_mut().for_each(|value| write_out(value, document)),
                _ => {}
            }
        }
        let mut value = self.parse().unwrap();
        write_out(&mut value, self);
        value
    }

    /// Whether an object has a key more than once.
    pub fn repeats_a_key(&self) -> bool {
        fn members(value: &Value) -> usize {
            match value {
                Value::Array(elements) => elements.iter().map(members).sum(),
                Value::Object(object) => object.len() + object.values().map(members).sum::<usize>(),
                _ => 0,
            }
        }
        members(&self.parse().unwrap()) < self.keys
    }

    /// How deep arrays and objects are nested.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The digits of a number as they are written.
    pub fn literal(&self, number: &Number) -> &str {
        &self.literals[number.as_u64().unwrap() as usize]
    }
}

/// The length of the string or number at the start, or else of the first character.
fn token_len(text: &str) -> usize {
    match text.chars().next().unwrap() {
        '"' => {
            let mut end = 1;
            while !text[end..].starts_with('"') {
                end += if text[end..].starts_with('\\') { 2 } else { text[end..].chars().next().unwrap().len_utf8() };
            }
            end + 1
        }
        '-' | '0'..='9' => text.find(|c: char| !(c.is_ascii_digit() || "+-.eE".contains(c))).unwrap_or(text.len()),
        other => other.len_utf8(),
    }
}

fn without_lone_surrogates(string: &str) -> String {
    let (mut tamed, mut rest) = (String::new(), string);
    while let Some(next) = rest.chars().next() {
        let len = match (unit(rest), rest.get(6..).and_then(unit)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
            (Some(lone @ 0xD800..=0xDFFF), _) => {
                tamed.push(char::from_u32(0xF_0000 + lone).unwrap());
                rest = &rest[6..];
                continue;
            }
            (Some(_), _) => 6,
            (None, _) if next == '\\' => 2,
            (None, _) => next.len_utf8(),
        };
        tamed += &rest[..len];
        rest = &rest[len..];
    }
    tamed
}

/// The UTF-16 code unit of the `\u` escape at the start, if there is one.
pub(crate) fn unit(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4).filter(|digits| !digits.starts_with('+'))?; // Rust reads a sign as well
    u32::from_str_radix(digits, 16).ok()
}
