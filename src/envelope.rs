//! The envelope of Segment's calls: who, when, and which id. An event becomes a track call, and also an identify and a
//! group call if the configuration asks for them.
//!
//! This follows Stigg's Segment example (<https://docs.stigg.io/docs/example-segment-integration>) and Segment's rules for
//! calls (<https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/>).

use sha2::{Digest, Sha256};

use crate::json::Str;

/// The longest `messageId` that Segment takes, in characters.
const MESSAGE_ID_MAX: usize = 100;

/// Keeps Stigg's message ids apart from those of other senders: Segment de-duplicates across all of them.
const MESSAGE_ID_PREFIX: &str = "stigg-";

/// What all calls for one event share.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// The customer whom the event is about.
    pub user_id: UserId<'a>,
    /// The id by which Segment de-duplicates.
    pub message_id: MessageId<'a>,
    /// When the event happened, an RFC 3339 date-time.
    pub timestamp: Option<Str<'a>>,
    /// Constant members, each with a comma before it.
    pub constants: &'a [u8],
}

/// A `userId`. Segment drops one that is not a string, without an error, so a number is sent as a string of its digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserId<'a> {
    /// A string.
    String(Str<'a>),
    /// A number, as it is written.
    Number(&'a [u8]),
}

/// A `messageId`. It is the same for every delivery of an event: otherwise a second delivery would be a second event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageId<'a> {
    /// Stigg's own, if the event has one that is a string.
    pub stigg: Option<Str<'a>>,
    /// The event. Its SHA-256 takes the place of an id of Stigg's that is missing or too long.
    pub body: &'a [u8],
}

/// A call that is also sent, in a batch with the track call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Also {
    /// Tells Segment who the customer is.
    Identify,
    /// Tells Segment which group, or account, the customer is.
    Group,
}

impl Envelope<'_> {
    /// Writes a track call up to the value of `properties`. `name` writes the event's name. In a batch, the call names
    /// its type.
    pub fn write_track(&self, in_batch: bool, name: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
        out.extend_from_slice(if in_batch { br#"{"type":"track","event":""# } else { br#"{"event":""# });
        name(out);
        out.extend_from_slice(b"\",");
        self.write("", out);
        out.extend_from_slice(br#","properties":"#);
    }

    /// Writes an identify or group call. `traits` is an object.
    pub fn write_also(&self, call: Also, traits: &[u8], out: &mut Vec<u8>) {
        let suffix = match call {
            Also::Identify => {
                out.extend_from_slice(br#"{"type":"identify","#);
                "-identify"
            }
            Also::Group => {
                out.extend_from_slice(br#"{"type":"group","groupId":""#);
                out.extend_from_slice(self.user_id.text());
                out.extend_from_slice(b"\",");
                "-group"
            }
        };
        self.write(suffix, out);
        out.extend_from_slice(br#","traits":"#);
        out.extend_from_slice(traits);
        out.push(b'}');
    }

    fn write(&self, message_id_suffix: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(br#""userId":""#);
        out.extend_from_slice(self.user_id.text());
        out.extend_from_slice(br#"","messageId":""#);
        self.message_id.write(message_id_suffix, out);
        if let Some(timestamp) = self.timestamp {
            out.extend_from_slice(br#"","timestamp":""#);
            out.extend_from_slice(timestamp.raw());
        }
        out.push(b'"');
        out.extend_from_slice(self.constants);
    }
}

impl<'a> UserId<'a> {
    fn text(self) -> &'a [u8] {
        match self {
            UserId::String(id) => id.raw(),
            UserId::Number(digits) => digits,
        }
    }
}

impl<'a> MessageId<'a> {
    /// Stigg's own id, if it fits with `suffix` after it.
    pub fn usable(self, suffix: &str) -> Option<Str<'a>> {
        let room = MESSAGE_ID_MAX.saturating_sub(MESSAGE_ID_PREFIX.len()).saturating_sub(suffix.len());
        self.stigg.filter(|id| !id.is_empty() && id.chars() <= room)
    }

    fn write(self, suffix: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(MESSAGE_ID_PREFIX.as_bytes());
        match self.usable(suffix) {
            Some(id) => out.extend_from_slice(id.raw()),
            None => {
                out.extend_from_slice(b"sha256-");
                out.extend(Sha256::digest(self.body).iter().flat_map(|byte| [hex(byte >> 4), hex(byte & 0x0F)]));
            }
        }
        out.extend_from_slice(suffix.as_bytes());
    }
}

fn hex(digit: u8) -> u8 {
    b"0123456789abcdef".get(usize::from(digit)).copied().unwrap_or_default()
}
