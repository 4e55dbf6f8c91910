//! What becomes of an event: which calls, or why none.

use std::borrow::Cow;

use crate::event::{Event, Slot, Unreadable, Wanted};
use crate::json::{Str, Value};
use crate::name::{EventName, Style};
use crate::path::{Path, Pattern};
use crate::redact::{self, Redaction};
use crate::reply::{Ignored, Rejection, Reply};
use crate::rfc3339;
use crate::track::{Beside, Common, MessageId, UserId};

/// How events are mapped; the default is the mapping that Stigg publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    wanted: Wanted,
    kind: Slot,
    message_id: Slot,
    timestamp: Slot,
    user_id: Vec<CompiledPlace>,
    event_name: EventName,
    events: Events,
    properties: Option<Redaction>,
    constants: Vec<u8>,
    also: Vec<Beside>,
}

/// Where a customer's id may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The path to it.
    pub path: Path,
    /// The types of event that have it there; `None` for all.
    pub events: Option<Vec<Pattern>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct CompiledPlace {
    path: Path,
    slot: Slot,
    events: Option<Vec<Pattern>>,
    /// What stands beside the id, if it is sent as traits.
    traits: Vec<(&'static str, Path, Slot)>,
}

/// Which types of event are sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Events {
    /// Only these, if there is such a list.
    pub allow: Option<Vec<Pattern>>,
    /// None of these, even if allowed.
    pub deny: Vec<Pattern>,
}

/// The choices that make a [`Mapping`].
#[derive(Debug, Clone)]
pub struct Choices {
    /// Where to look for the customer's id, in this order.
    pub user_id: Vec<Place>,
    /// How events are named.
    pub event_name: EventName,
    /// Which are sent.
    pub events: Events,
    /// What is left out of the event.
    pub properties: Option<Redaction>,
    /// What every call carries besides, as JSON members, each with a comma before it.
    pub constants: Vec<u8>,
    /// What is sent beside the track call.
    pub also: Vec<Beside>,
}

/// What is sent to Segment: `head`, the event, `tail`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What stands before the event.
    pub head: Vec<u8>,
    /// What stands in the event's place; `None` where it is the event itself, untouched.
    pub properties: Option<Vec<u8>>,
    /// What stands behind it.
    pub tail: Cow<'static, [u8]>,
}

impl Call {
    /// The size of the whole, in bytes, for an event of `event` bytes.
    pub fn size(&self, event: usize) -> usize {
        let properties = self.properties.as_ref().map_or(event, Vec::len);
        self.head.len().saturating_add(properties).saturating_add(self.tail.len())
    }
}

/// Where the parts of a call come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origins<'a> {
    /// The place that had the customer's id.
    pub user_id: &'a Path,
    /// The id is a number there.
    pub user_id_is_number: bool,
    /// The configuration has a name for this very type.
    pub renamed: bool,
    /// How the type is written where it has not.
    pub style: Style,
    /// `messageId` is Stigg's own, and not made from the event.
    pub message_id_is_stiggs: bool,
    /// The event's `timestamp` is a date-time and is sent.
    pub has_timestamp: bool,
}

/// What a call is made from.
struct Found<'a> {
    event: Event<'a>,
    kind: Str<'a>,
    place: &'a CompiledPlace,
    common: Common<'a>,
}

/// What of a customer's record goes into the traits, beside the id.
const TRAITS: [&str; 3] = ["name", "email", "metadata"];

impl Mapping {
    /// The mapping that these choices make.
    pub fn new(choices: Choices) -> Self {
        let mut wanted = Wanted::default();
        let mut top = |key| wanted.want(&Path::member(key));
        let [kind, message_id, timestamp] = ["type", "messageId", "timestamp"].map(&mut top);
        let user_id = choices.user_id.into_iter().map(|place| {
            let has_record = !choices.also.is_empty() && place.path.steps().last().is_some_and(|step| step == "id");
            let beside = TRAITS.iter().filter(|_| has_record);
            CompiledPlace {
                slot: wanted.want(&place.path),
                traits: beside
                    .map(|name| {
                        let path = place.path.sibling(name);
                        let slot = wanted.want(&path);
                        (*name, path, slot)
                    })
                    .collect(),
                path: place.path,
                events: place.events,
            }
        });
        Mapping {
            user_id: user_id.collect(),
            wanted,
            kind,
            message_id,
            timestamp,
            event_name: choices.event_name,
            events: choices.events,
            properties: choices.properties,
            constants: choices.constants,
            also: choices.also,
        }
    }

    /// What becomes of the event in `body`: the call, or what to answer instead of sending one. `see_type` is told the
    /// event's type, as it is written, as soon as it is known.
    pub fn map(&self, body: &[u8], see_type: impl FnOnce(&[u8])) -> Result<Call, Reply> {
        let Found { event, kind, place, common } = self.find(body, see_type)?;
        let is_batch = !self.also.is_empty();
        let mut head = Vec::with_capacity(512);
        if is_batch {
            head.extend_from_slice(BATCH_HEAD);
        }
        common.write_track(is_batch, |out| self.event_name.write(kind, out), &mut head);
        let properties = self.properties.as_ref().map(|redaction| redaction.apply(body)).transpose();
        let properties = properties.map_err(|_| Rejection::Internal)?;
        let mut tail = Cow::Borrowed(TRACK_TAIL);
        if is_batch {
            let tail = tail.to_mut();
            let traits = self.traits(place, |slot| event.get(slot)).ok_or(Rejection::Internal)?;
            for call in &self.also {
                tail.push(b',');
                common.write_beside(*call, &traits, tail);
            }
            tail.extend_from_slice(BATCH_TAIL);
        }
        Ok(Call { head, properties, tail })
    }

    /// Where the parts of the call for this event come from, for people: nothing of this is needed to make it.
    pub fn origins<'a>(&'a self, body: &'a [u8]) -> Result<Origins<'a>, Reply> {
        let Found { kind, place, common, .. } = self.find(body, |_| ())?;
        Ok(Origins {
            user_id: &place.path,
            user_id_is_number: matches!(common.user_id, UserId::Number(_)),
            renamed: self.event_name.renamed(kind).is_some(),
            style: self.event_name.style,
            message_id_is_stiggs: common.message_id.usable("").is_some(),
            has_timestamp: common.timestamp.is_some(),
        })
    }

    /// Where customers' ids are looked for, in this order.
    pub fn user_id_paths(&self) -> impl Iterator<Item = &Path> {
        self.user_id.iter().map(|place| &place.path)
    }

    fn find<'a>(&'a self, body: &'a [u8], see_type: impl FnOnce(&[u8])) -> Result<Found<'a>, Reply> {
        let event = self.wanted.read(body).map_err(|unreadable| match unreadable {
            Unreadable::Malformed(error) => Rejection::Malformed { error, position: error.line_and_column(body) },
            Unreadable::NotAnObject => Rejection::NotAnObject,
        })?;
        let string = |slot| match event.get(slot) {
            Some(Value::String(string)) => Some(string),
            _ => None,
        };
        let kind = string(self.kind);
        if let Some(kind) = kind {
            see_type(kind.raw());
            if !self.events.let_through(kind) {
                return Err(Ignored::EventNotAllowed.into());
            }
        }
        let mut found = None;
        for place in self.user_id.iter().filter(|place| place.applies_to(kind)) {
            if let Some(user_id) = user_id(event.get(place.slot))? {
                found = Some((user_id, place));
                break;
            }
        }
        let Some((user_id, place)) = found else { return Err(Ignored::NoCustomer.into()) };
        let kind = kind.filter(|kind| !kind.is_empty()).ok_or(Rejection::Type)?;
        let common = Common {
            user_id,
            message_id: MessageId { stigg: string(self.message_id), body },
            timestamp: string(self.timestamp).filter(|timestamp| rfc3339::is_date_time(&timestamp.decoded())),
            constants: &self.constants,
        };
        Ok(Found { event, kind, place, common })
    }

    /// The object of traits that the event has for the customer whose id is at `place`, less what must not leave.
    fn traits<'a>(&self, place: &CompiledPlace, get: impl Fn(Slot) -> Option<Value<'a>>) -> Option<Vec<u8>> {
        let mut traits = vec![b'{'];
        for (name, path, slot) in &place.traits {
            let Some(text) = get(*slot).as_ref().and_then(redact::text) else { continue };
            let text = match &self.properties {
                Some(redaction) => redaction.apply_at(path, &text).ok()?.map(Into::into),
                None => Some(text),
            };
            if let Some(text) = text {
                if traits.len() > 1 {
                    traits.push(b',');
                }
                traits.extend_from_slice(&[b"\"", name.as_bytes(), b"\":", &text].concat());
            }
        }
        traits.push(b'}');
        Some(traits)
    }
}

/// Behind the event in a track call.
const TRACK_TAIL: &[u8] = b"}";
/// Around the calls of a batch.
const BATCH_HEAD: &[u8] = br#"{"batch":["#;
const BATCH_TAIL: &[u8] = b"]}";

/// The user id that a customer's id makes; `None` where it is falsy in JavaScript's sense.
fn user_id(id: Option<Value<'_>>) -> Result<Option<UserId<'_>>, Rejection> {
    match id {
        None | Some(Value::Null | Value::Bool(false)) => Ok(None),
        Some(Value::String(id)) if id.is_empty() => Ok(None),
        Some(Value::Number(id)) if is_zero(id) => Ok(None),
        Some(Value::String(id)) => Ok(Some(UserId::String(id))),
        Some(Value::Number(id)) => Ok(Some(UserId::Number(id))),
        Some(Value::Bool(true) | Value::Array(_) | Value::Object(_)) => Err(Rejection::CustomerId),
    }
}

/// Whether a number is 0, however it is written: `-0.0e9` is.
fn is_zero(number: &[u8]) -> bool {
    number.iter().take_while(|b| !b.eq_ignore_ascii_case(&b'e')).all(|b| !matches!(b, b'1'..=b'9'))
}

impl CompiledPlace {
    fn applies_to(&self, kind: Option<Str<'_>>) -> bool {
        match (&self.events, kind) {
            (None, _) => true,
            (Some(patterns), Some(kind)) => any_matches(patterns, kind),
            (Some(_), None) => false,
        }
    }
}

impl Events {
    fn let_through(&self, kind: Str<'_>) -> bool {
        self.allow.as_ref().is_none_or(|allow| any_matches(allow, kind)) && !any_matches(&self.deny, kind)
    }
}

fn any_matches(patterns: &[Pattern], kind: Str<'_>) -> bool {
    patterns.iter().any(|pattern| pattern.matches(&kind.decoded()))
}
