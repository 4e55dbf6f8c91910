//! The envelope of Segment's calls: who, when, and which id. An event becomes a track call, and also an identify and a
//! group call if the configuration asks for them.
//!
//! This follows Stigg's Segment example (<https://docs.stigg.io/docs/example-segment-integration>) and Segment's rules for
//! calls (<https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/>).

use sha2::{Digest, Sha256};

use crate::json::Str;

/// The longest `messageId` that Segment takes, in characters.
const MESSAGE_ID_MAX: usize = 100;

/// Keeps Stigg's message ids apart from those of other senders. Segment drops a call whose id it has seen in the last day,
/// whichever source, of any workspace, took the earlier one.
pub const MESSAGE_ID_PREFIX: &str = "stigg-";

/// What an id that is derived from the event has before the hash.
const DERIVED: &str = "sha256-";

/// How many hexadecimal digits of a write key's hash name its source.
const SOURCE_DIGITS: usize = 8;

/// What all calls for one event share.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// The customer whom the event is about.
    pub user_id: Id<'a>,
    /// The group that the customer belongs to.
    pub group_id: Option<Id<'a>>,
    /// The id by which Segment de-duplicates.
    pub message_id: MessageId<'a>,
    /// When the event happened, an RFC 3339 date-time.
    pub timestamp: Option<Str<'a>>,
    /// Constant members, each with a comma before it. The first one is `context`.
    pub constants: &'a [u8],
}

/// How [`Envelope::constants`] start.
pub const CONTEXT: &[u8] = br#","context":{"#;

/// A `userId` or `groupId`. Segment drops one that is not a string, without an error, so a number is sent as a string of
/// its digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Id<'a> {
    /// A string.
    String(Str<'a>),
    /// A number, as it is written.
    Number(&'a [u8]),
}

/// A `messageId`. It is the same for every delivery of an event: otherwise a second delivery would be a second event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageId<'a> {
    /// What it starts with: [`MESSAGE_ID_PREFIX`], and the part that keeps two sources apart.
    pub prefix: &'a str,
    /// Stigg's own, if the event has one that is a string.
    pub stigg: Option<Str<'a>>,
    /// The event. Its SHA-256 takes the place of an id of Stigg's that is missing or too long.
    pub body: &'a [u8],
    /// The day of arrival, in days since 1970, if nothing in the event tells it from the same thing on another day.
    pub day: Option<u64>,
}

/// A call that is also sent, in a batch with the track call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Also {
    /// Tells Segment who the customer is.
    Identify,
    /// Tells Segment which group, or account, the customer belongs to, or is.
    Group,
}

impl Envelope<'_> {
    /// Writes a track call up to the value of `properties`. `name` writes the event's name. In a batch, the call names
    /// its type.
    ///
    /// `removed` are the paths of what left the event because of its size, as JSON texts with commas between.
    pub fn write_track(&self, in_batch: bool, name: impl FnOnce(&mut Vec<u8>), removed: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(if in_batch { br#"{"type":"track","event":""# } else { br#"{"event":""# });
        name(out);
        out.extend_from_slice(b"\",");
        self.write("", removed, out);
        out.extend_from_slice(br#","properties":"#);
    }

    /// Writes an identify or group call. `traits` is an object; `removed` as above. Without a group, the customer is one.
    pub fn write_also(&self, call: Also, traits: &[u8], removed: &[u8], out: &mut Vec<u8>) {
        let suffix = match call {
            Also::Identify => {
                out.extend_from_slice(br#"{"type":"identify","#);
                "-identify"
            }
            Also::Group => {
                out.extend_from_slice(br#"{"type":"group","groupId":""#);
                out.extend_from_slice(self.group_id.unwrap_or(self.user_id).text());
                out.extend_from_slice(b"\",");
                "-group"
            }
        };
        self.write(suffix, removed, out);
        out.extend_from_slice(br#","traits":"#);
        out.extend_from_slice(traits);
        out.push(b'}');
    }

    fn write(&self, message_id_suffix: &str, removed: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(br#""userId":""#);
        out.extend_from_slice(self.user_id.text());
        out.extend_from_slice(br#"","messageId":""#);
        self.message_id.write(message_id_suffix, out);
        if let Some(timestamp) = self.timestamp {
            out.extend_from_slice(br#"","timestamp":""#);
            out.extend_from_slice(timestamp.raw());
        }
        out.push(b'"');
        match self.constants.strip_prefix(CONTEXT) {
            Some(rest) if self.group_id.is_some() || !removed.is_empty() => {
                out.extend_from_slice(CONTEXT);
                if let Some(group_id) = self.group_id {
                    out.extend_from_slice(&[br#""groupId":""#, group_id.text(), b"\","].concat());
                }
                if !removed.is_empty() {
                    out.extend_from_slice(&[br#""removed":["#, removed, b"],"].concat());
                }
                out.extend_from_slice(rest);
            }
            _ => out.extend_from_slice(self.constants),
        }
    }
}

impl Also {
    /// What Segment calls it.
    pub fn name(self) -> &'static str {
        match self {
            Also::Identify => "identify",
            Also::Group => "group",
        }
    }
}

impl<'a> Id<'a> {
    fn text(self) -> &'a [u8] {
        match self {
            Id::String(id) => id.raw(),
            Id::Number(digits) => digits,
        }
    }
}

impl<'a> MessageId<'a> {
    /// Stigg's own id, if it fits with `suffix` after it.
    pub fn usable(self, suffix: &str) -> Option<Str<'a>> {
        self.stigg.filter(|id| !id.is_empty() && id.chars() <= self.room(suffix))
    }

    /// How many characters there are between the prefix and `suffix`.
    fn room(self, suffix: &str) -> usize {
        MESSAGE_ID_MAX.saturating_sub(self.prefix.len()).saturating_sub(suffix.len())
    }

    fn write(self, suffix: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(self.prefix.as_bytes());
        match self.usable(suffix) {
            Some(id) => out.extend_from_slice(id.raw()),
            None => {
                out.extend_from_slice(DERIVED.as_bytes());
                let mut hash = Sha256::new_with_prefix(self.body);
                if let Some(day) = self.day {
                    hash.update(format!("\n{day}"));
                }
                let digits = self.room(suffix).saturating_sub(DERIVED.len());
                out.extend(hex(&hash.finalize()).take(digits));
            }
        }
        out.extend_from_slice(suffix.as_bytes());
    }
}

/// The part of a `messageId` that names a source of Segment's: the first digits of the SHA-256 of its write key.
pub fn source_of(write_key: &str) -> String {
    hex(&Sha256::digest(write_key)).take(SOURCE_DIGITS).map(char::from).collect()
}

fn hex(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let digit = |digit: u8| b"0123456789abcdef".get(usize::from(digit)).copied().unwrap_or_default();
    bytes.iter().flat_map(move |byte| [digit(byte >> 4), digit(byte & 0x0F)])
}
