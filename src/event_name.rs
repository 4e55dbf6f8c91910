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

    /// The configuration's name for a type, if it has one.
    pub fn renamed(&self, kind: Str<'_>) -> Option<&[u8]> {
        self.renamed.iter().find(|(renamed, _)| kind.is(renamed)).map(|(_, name)| name.as_slice())
    }
}

/// Starts a word at each dot, underscore and capital, and starts each word with a capital.
fn title_case(kind: Str<'_>, out: &mut Vec<u8>) {
    let mut at_start = true;
    for piece in kind.pieces() {
        match *piece.decoded.as_bytes() {
            [b'.' | b'_'] => {
                if !at_start {
                    out.push(b' ');
                }
                at_start = true;
            }
            [letter] if letter.is_ascii_alphabetic() => {
                if letter.is_ascii_uppercase() && !at_start && !out.last().is_some_and(u8::is_ascii_uppercase) {
                    out.push(b' ');
                    at_start = true;
                }
                out.push(if at_start { letter.to_ascii_uppercase() } else { letter });
                at_start = false;
            }
            _ => {
                out.extend_from_slice(piece.raw);
                at_start = false;
            }
        }
    }
    if at_start && out.last() == Some(&b' ') {
        out.pop();
    }
}
