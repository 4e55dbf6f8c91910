//! What an event is called in Segment.

use crate::json::Str;

/// How an event's type becomes its name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventName {
    /// How the type is written.
    pub style: Style,
    /// The text before it, escaped for JSON.
    pub prefix: Vec<u8>,
    /// Types that the configuration renames, each with its name, escaped for JSON. Prefix and style do not apply to it.
    pub renamed: Vec<(String, Vec<u8>)>,
}

/// How a type is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    /// `customer_payment_failed`: every dot becomes an underscore.
    #[default]
    Underscores,
    /// `customer.payment_failed`: the type as it is.
    AsIs,
    /// `Customer Payment Failed`, as Segment recommends
    /// (<https://segment.com/academy/collecting-data/naming-conventions-for-clean-data/>).
    TitleCase,
}

impl EventName {
    /// Writes the name of an event of this type, without quotes.
    pub fn write(&self, kind: Str<'_>, out: &mut Vec<u8>) {
        if let Some(name) = self.renamed(kind) {
            out.extend_from_slice(name);
            return;
        }
        out.extend_from_slice(&self.prefix);
        match self.style {
            Style::AsIs => out.extend_from_slice(kind.raw()),
            Style::Underscores if !kind.is_escaped() => {
                out.extend(kind.raw().iter().map(|byte| if *byte == b'.' { b'_' } else { *byte }));
            }
            Style::Underscores => {
                for piece in kind.pieces() {
                    out.extend_from_slice(if piece.decoded.as_bytes() == b"." { b"_" } else { piece.raw });
                }
            }
            Style::TitleCase => title_case(kind, out),
        }
    }

    /// Whether a type has a name. In title case, one without a word has none.
    pub fn names(&self, kind: Str<'_>) -> bool {
        let has_words = || kind.decoded().iter().any(|byte| !is_separator(*byte));
        self.style != Style::TitleCase || has_words() || self.renamed(kind).is_some()
    }

    /// The configuration's name for a type, if it has one.
    pub fn renamed(&self, kind: Str<'_>) -> Option<&[u8]> {
        let decoded = kind.decoded();
        self.renamed.iter().find(|(renamed, _)| renamed.as_bytes() == &*decoded).map(|(_, name)| name.as_slice())
    }
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b'.' | b'_')
}

/// Starts a word at each dot, underscore and capital, and starts each word with a capital.
fn title_case(kind: Str<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    let mut starts_word = true;
    let mut after_capital = false;
    for piece in kind.pieces() {
        let letter = match *piece.decoded.as_bytes() {
            [byte] if is_separator(byte) => {
                starts_word = true;
                continue;
            }
            [byte] if byte.is_ascii_alphabetic() => Some(byte),
            _ => None,
        };
        let is_capital = letter.is_some_and(|letter| letter.is_ascii_uppercase());
        starts_word |= is_capital && !after_capital;
        if starts_word && out.len() > start {
            out.push(b' ');
        }
        match letter {
            Some(letter) => out.push(if starts_word { letter.to_ascii_uppercase() } else { letter }),
            None => out.extend_from_slice(piece.raw),
        }
        starts_word = false;
        after_capital = is_capital;
    }
}
