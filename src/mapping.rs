//! What becomes of an event: a call, or the reason why there is none.

use std::borrow::Cow;

use crate::envelope::{Also, Envelope, Id, MessageId};
use crate::event::{Event, Slot, Unreadable, Wanted};
use crate::event_name::{EventName, Style};
use crate::json::{Malformed, Reader, Str, Value};
use crate::path::Path;
use crate::pattern::Pattern;
use crate::places::{KNOWN, Place};
use crate::redact::{Listed, Redaction};
use crate::reply::{self, Elsewhere, Excess, Ignored, Names, Rejection, Reply};
use crate::rfc3339;

/// The choices of a configuration. The default is the mapping that Stigg publishes.
#[derive(Debug, Clone)]
pub struct Choices {
    /// Where to look for the customer's id, in this order.
    pub user_id: Vec<Place>,
    /// Where to look for the id of the customer's group, in this order; `None` if the customer is the group.
    pub group_id: Option<Vec<Place>>,
    /// Where to look for the time, in this order.
    pub timestamp: Vec<Place>,
    /// How events are named.
    pub event_name: EventName,
    /// Which types of event are sent.
    pub event_types: EventTypes,
    /// Which members are left out of the event: all of these apply.
    pub properties: Vec<Redaction>,
    /// Constant members of every call, as JSON, each with a comma before it.
    pub constants: Vec<u8>,
    /// The calls that are also sent.
    pub also: Vec<Also>,
    /// What every `messageId` starts with.
    pub message_id_prefix: String,
    /// What leaves a call that is too large, one after the other.
    pub too_large: Vec<Path>,
    /// The key in `properties` that the event comes under, between its quotes; `None` for the event in their place.
    pub under: Option<Vec<u8>>,
}

/// Which types of event are sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventTypes {
    /// If there is a list, only types that match one of these patterns are sent.
    pub allow: Option<Vec<Pattern>>,
    /// Types that match any of these patterns are not sent, even if they are allowed.
    pub deny: Vec<Pattern>,
}

/// The choices, ready to be applied to an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    wanted: Wanted,
    kind: Slot,
    message_id: Slot,
    /// The event's own `timestamp`, whether it is sent or not.
    own_timestamp: Slot,
    timestamp: Vec<CompiledPlace>,
    user_id: Vec<CompiledPlace>,
    group_id: Option<Vec<CompiledPlace>>,
    event_name: EventName,
    event_types: EventTypes,
    properties: Vec<Redaction>,
    constants: Vec<u8>,
    also: Vec<Also>,
    message_id_prefix: String,
    too_large: Vec<Removable>,
    /// The known places of a customer's id at which the configuration does not look. They are read only if it finds none.
    elsewhere: (Wanted, Vec<(&'static str, CompiledPlace)>),
    has_own_places: bool,
    under: Option<Vec<u8>>,
}

/// A path that leaves a call that is too large.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Removable {
    /// The path as a JSON text.
    json: Vec<u8>,
    redaction: Redaction,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct CompiledPlace {
    path: Path,
    slot: Slot,
    events: Option<Vec<Pattern>>,
    /// The members that are sent as traits: the JSON text of the name, path and slot of each.
    traits: Vec<(Vec<u8>, Path, Slot)>,
}

/// What is sent to Segment: `head`, the event, `tail`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What comes before the event.
    pub head: Vec<u8>,
    /// What takes the event's place; `None` for the event itself, untouched.
    pub properties: Option<Vec<u8>>,
    /// What comes after the event.
    pub tail: Cow<'static, [u8]>,
    /// Whether something left because the call was too large.
    pub trimmed: bool,
}

impl Call {
    /// The size of the whole in bytes, for an event of `event` bytes.
    pub fn size(&self, event: usize) -> usize {
        let properties = self.properties.as_ref().map_or(event, Vec::len);
        self.head.len().saturating_add(properties).saturating_add(self.tail.len())
    }
}

/// Where the parts of a call come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origins<'a> {
    /// The path at which the customer's id was found.
    pub user_id: &'a Path,
    /// Whether the id is a number there.
    pub user_id_is_number: bool,
    /// The path at which the group's id was found, if one of the places for it has an id; `None` without such places.
    pub group_id: Option<Option<&'a Path>>,
    /// Whether the configuration has a name for this very type.
    pub renamed: bool,
    /// How a type without such a name is written.
    pub style: Style,
    /// Whether the `messageId` is Stigg's, and not derived from the event.
    pub message_id_is_stiggs: bool,
    /// Whether the day of arrival is part of the `messageId`.
    pub message_id_has_the_day: bool,
    /// The path at which the time was found, or each path with the reason why it has none, for people.
    pub timestamp: Result<&'a Path, Vec<(&'a Path, &'static str)>>,
}

/// What a call is made from.
struct Found<'a> {
    event: Event<'a>,
    kind: Str<'a>,
    /// Where the customer's id is.
    customer: &'a CompiledPlace,
    /// Where the id of the customer's group is.
    group: Option<&'a CompiledPlace>,
    envelope: Envelope<'a>,
}

/// The members of a record that are sent as traits.
const TRAITS: [&str; 3] = ["name", "email", "metadata"];

/// Segment's limit of a batch, in bytes
/// (<https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/#batch>).
pub const MAX_BATCH_BYTES: usize = 500_000;

/// The field with the limit of a call.
const MAX_CALL_BYTES: &str = "max_call_bytes";

/// What follows the event in a track call.
const TRACK_TAIL: &[u8] = b"}";
/// The same if the event is under a key.
const TRACK_TAIL_UNDER: &[u8] = b"}}";
/// What encloses the calls of a batch.
const BATCH_HEAD: &[u8] = br#"{"batch":["#;
const BATCH_TAIL: &[u8] = b"]}";

impl Mapping {
    /// Prepares the choices.
    pub fn new(choices: Choices) -> Self {
        let mut wanted = Wanted::default();
        let mut top = |key| wanted.want(&Path::keys([key]));
        let kind = top("type");
        let message_id = top("messageId");
        let own_timestamp = top("timestamp");
        let mut compile = |places: Vec<Place>, has_traits| {
            places.into_iter().map(|place| CompiledPlace::new(place, has_traits, &mut wanted)).collect::<Vec<_>>()
        };
        let timestamp = compile(choices.timestamp, false);
        let is_looked_at =
            |place: &Place| choices.user_id.iter().any(|own| own.path == place.path && own.events.is_none());
        let mut wanted_elsewhere = Wanted::default();
        let elsewhere = KNOWN.iter().map(|known| (known.path, known.place())).filter(|(_, place)| !is_looked_at(place));
        let elsewhere =
            elsewhere.map(|(name, place)| (name, CompiledPlace::new(place, false, &mut wanted_elsewhere))).collect();
        let has_own_places =
            choices.user_id.iter().any(|place| KNOWN.iter().all(|known| known.place().path != place.path));
        let user_id = compile(choices.user_id, !choices.also.is_empty());
        let group_id = choices.group_id.map(|places| compile(places, choices.also.contains(&Also::Group)));
        Mapping {
            user_id,
            group_id,
            wanted,
            kind,
            message_id,
            own_timestamp,
            timestamp,
            event_name: choices.event_name,
            event_types: choices.event_types,
            properties: choices.properties,
            constants: choices.constants,
            also: choices.also,
            message_id_prefix: choices.message_id_prefix,
            too_large: choices.too_large.into_iter().map(Removable::new).collect(),
            elsewhere: (wanted_elsewhere, elsewhere),
            has_own_places,
            under: choices.under,
        }
    }

    /// Makes the call for the event in `body`. `limit` is the largest call, in bytes. `see_type` is told the event's type, as
    /// it is written, as soon as it is known. `day` is asked for the day in UTC, in days since 1970, if the event has
    /// neither an id nor a time.
    ///
    /// # Errors
    /// The answer, if there is no call.
    pub fn map(
        &self,
        body: &[u8],
        limit: usize,
        see_type: impl FnOnce(&[u8]),
        day: impl FnOnce() -> Option<u64>,
    ) -> Result<Call, Reply> {
        let found = self.find(body, see_type, day)?;
        // What has already left the event is not what makes the call too large.
        let too_large = |left: &Call, call, size, limit, name| {
            let largest = largest_members(left.properties.as_deref().unwrap_or(body));
            Rejection::CallTooLarge(Excess { call, size, limit, name, largest })
        };
        let is_batch = !self.also.is_empty();
        let mut call = self.track(&found, body)?;
        let size = |call: &Call| call.size(body.len());
        if size(&call) > limit {
            call = self.trimmed(&found, body, call, limit)?;
            if size(&call) > limit {
                return Err(too_large(&call, "track", size(&call), limit, MAX_CALL_BYTES).into());
            }
        }
        if is_batch {
            call.head.splice(..0, BATCH_HEAD.iter().copied());
            let tail = call.tail.to_mut();
            for also in &self.also {
                let Some(place) = self.record(&found, *also) else { continue };
                let (own, trimmed) = self.beside(&found, *also, place, limit).ok_or(Rejection::Internal)?;
                if own.len() > limit {
                    return Err(too_large(&call, also.name(), own.len(), limit, MAX_CALL_BYTES).into());
                }
                tail.push(b',');
                tail.extend_from_slice(&own);
                call.trimmed |= trimmed;
            }
            tail.extend_from_slice(BATCH_TAIL);
            if size(&call) > MAX_BATCH_BYTES {
                return Err(too_large(&call, "whole batch", size(&call), MAX_BATCH_BYTES, "Segment's limit").into());
            }
        }
        Ok(call)
    }

    /// The track call alone, with whatever the configuration leaves in the event.
    fn track(&self, found: &Found<'_>, body: &[u8]) -> Result<Call, Rejection> {
        let properties = self.redacted(body).map_err(|_| Rejection::Internal)?;
        let head = self.track_head(found, &[]);
        let tail = if self.under.is_some() { TRACK_TAIL_UNDER } else { TRACK_TAIL };
        Ok(Call { head, properties, tail: Cow::Borrowed(tail), trimmed: false })
    }

    fn track_head(&self, found: &Found<'_>, removed: &[u8]) -> Vec<u8> {
        let mut head = Vec::with_capacity(512);
        let name = |out: &mut Vec<u8>| self.event_name.write(found.kind, out);
        found.envelope.write_track(!self.also.is_empty(), name, removed, &mut head);
        if let Some(key) = &self.under {
            head.extend_from_slice(&[br#"{""#, key.as_slice(), br#"":"#].concat());
        }
        head
    }

    /// The call without the paths of `too_large`, as many as it takes to fit.
    fn trimmed(&self, found: &Found<'_>, body: &[u8], mut call: Call, limit: usize) -> Result<Call, Rejection> {
        let mut removed = Vec::new();
        for removable in &self.too_large {
            let before = call.properties.as_deref().unwrap_or(body);
            let after = removable.redaction.apply(before).map_err(|_| Rejection::Internal)?;
            // White space around the event leaves it too, and is not what the path names.
            if after.trim_ascii().len() == before.trim_ascii().len() {
                continue;
            }
            removable.list(&mut removed);
            call = Call { head: self.track_head(found, &removed), properties: Some(after), trimmed: true, ..call };
            if call.size(body.len()) <= limit {
                break;
            }
        }
        Ok(call)
    }

    /// Where the id of whom an identify or group call is about is; `None` if there is no such call.
    fn record<'a>(&self, found: &Found<'a>, also: Also) -> Option<&'a CompiledPlace> {
        match also {
            Also::Group if self.group_id.is_some() => found.group,
            Also::Identify | Also::Group => Some(found.customer),
        }
    }

    /// An identify or group call about whose id is at `place`, and whether something left it because it was too large.
    fn beside(&self, found: &Found<'_>, also: Also, place: &CompiledPlace, limit: usize) -> Option<(Vec<u8>, bool)> {
        let mut removed = Vec::new();
        let write = |traits: &[u8], removed: &[u8]| {
            let mut call = Vec::new();
            found.envelope.write_also(also, traits, removed, &mut call);
            call
        };
        let mut traits = self.traits(place, &found.event, &[])?;
        let mut call = write(&traits, &removed);
        for count in 1..=self.too_large.len() {
            if call.len() <= limit {
                break;
            }
            let so_far = self.too_large.get(..count)?;
            let fewer = self.traits(place, &found.event, so_far)?;
            if fewer.len() < traits.len() {
                so_far.last()?.list(&mut removed);
                traits = fewer;
                call = write(&traits, &removed);
            }
        }
        Some((call, !removed.is_empty()))
    }

    /// Where the parts of the call for this event come from. Only people need to know.
    ///
    /// # Errors
    /// The answer, if there is no call.
    pub fn origins<'a>(&'a self, body: &'a [u8]) -> Result<Origins<'a>, Reply> {
        let Found { event, kind, customer, group, envelope } = self.find(body, |_| (), || Some(0))?;
        let decoded = kind.decoded();
        let no_time = |place: &'a CompiledPlace| {
            let why = match event.get(place.slot) {
                _ if !place.applies_to(Some(&decoded)) => "is not for events of this type",
                None => "is absent",
                Some(Value::Null) => "is null",
                Some(Value::String(_)) => "is not a time that Segment can read, such as 2026-03-01T08:15:30Z",
                Some(_) => "is not a text",
            };
            (&place.path, why)
        };
        let time = self.time(&event, Some(&decoded)).map(|(_, place)| &place.path);
        Ok(Origins {
            user_id: &customer.path,
            user_id_is_number: matches!(envelope.user_id, Id::Number(_)),
            group_id: self.group_id.as_ref().map(|_| group.map(|place| &place.path)),
            renamed: self.event_name.renamed(kind).is_some(),
            style: self.event_name.style,
            message_id_is_stiggs: envelope.message_id.usable("").is_some(),
            message_id_has_the_day: envelope.message_id.day.is_some(),
            timestamp: time.ok_or_else(|| self.timestamp.iter().map(no_time).collect()),
        })
    }

    /// The key in `properties` that the event comes under, as it is written in JSON.
    pub fn under(&self) -> Option<&[u8]> {
        self.under.as_deref()
    }

    /// What the ids of all calls start with.
    pub fn message_id_prefix(&self) -> &str {
        &self.message_id_prefix
    }

    /// Where a customer's id is looked for, in this order.
    pub fn user_id_paths(&self) -> impl Iterator<Item = &Path> {
        self.user_id.iter().map(|place| &place.path)
    }

    fn find<'a>(
        &'a self,
        body: &'a [u8],
        see_type: impl FnOnce(&[u8]),
        day: impl FnOnce() -> Option<u64>,
    ) -> Result<Found<'a>, Reply> {
        let event = self.wanted.read(body).map_err(|unreadable| match unreadable {
            Unreadable::Malformed(malformed) => {
                let (line, column) = malformed.line_and_column(body);
                Rejection::MalformedJson(reply::Position { malformed, line, column })
            }
            Unreadable::NotAnObject => Rejection::NotAnObject,
        })?;
        let string = |slot| match event.get(slot) {
            Some(Value::String(string)) => Some(string),
            _ => None,
        };
        let kind = string(self.kind).filter(|kind| !kind.is_empty());
        // Decoded once, however many patterns there are.
        let decoded = kind.map(Str::decoded);
        if let (Some(kind), Some(decoded)) = (kind, &decoded) {
            see_type(kind.raw());
            if !self.event_types.are_sent(decoded) {
                return Err(Ignored::EventNotAllowed.into());
            }
        }
        let Some((user_id, customer)) = first_id(&self.user_id, &event, decoded.as_deref())? else {
            return Err(self.without_customer(body, decoded.as_deref()).into());
        };
        let group = match &self.group_id {
            Some(places) => first_id(places, &event, decoded.as_deref())?,
            None => None,
        };
        let kind = kind.filter(|kind| self.event_name.names(*kind)).ok_or(Rejection::InvalidType)?;
        let is_absent = |slot| match event.get(slot) {
            Some(Value::String(text)) => text.is_empty(),
            value => matches!(value, None | Some(Value::Null)),
        };
        let is_like_an_earlier_one = is_absent(self.message_id) && is_absent(self.own_timestamp);
        let day = if is_like_an_earlier_one { day() } else { None };
        let envelope = Envelope {
            user_id,
            group_id: group.map(|(id, _)| id),
            message_id: MessageId { prefix: &self.message_id_prefix, stigg: string(self.message_id), body, day },
            timestamp: self.time(&event, decoded.as_deref()).map(|(time, _)| time),
            constants: &self.constants,
        };
        Ok(Found { event, kind, customer, group: group.map(|(_, place)| place), envelope })
    }

    /// The first date-time at the places for it.
    fn time<'a>(&self, event: &Event<'a>, kind: Option<&[u8]>) -> Option<(Str<'a>, &CompiledPlace)> {
        let mut places = self.timestamp.iter().filter(|place| place.applies_to(kind));
        places.find_map(|place| match event.get(place.slot) {
            Some(Value::String(time)) if rfc3339::is_date_time(&time.decoded()) => Some((time, place)),
            _ => None,
        })
    }

    /// Why an event without an id where the configuration looks is ignored.
    fn without_customer(&self, body: &[u8], kind: Option<&[u8]>) -> Ignored {
        let (wanted, places) = &self.elsewhere;
        let Ok(event) = wanted.read(body) else { return Ignored::NoCustomer };
        let mut places = places.iter().filter(|(_, place)| place.applies_to(kind));
        let has_id = |place: &CompiledPlace| matches!(id(event.get(place.slot)), Ok(Some(_)));
        match places.find(|(_, place)| has_id(place)) {
            Some((path, _)) => Ignored::CustomerElsewhere(Elsewhere { path, has_own_places: self.has_own_places }),
            None => Ignored::NoCustomer,
        }
    }

    /// The event without what is left out of it; `None` if nothing is.
    fn redacted(&self, body: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
        self.properties.iter().try_fold(None, |event: Option<Vec<u8>>, redaction| {
            redaction.apply(event.as_deref().unwrap_or(body)).map(Some)
        })
    }

    /// The traits of whom the id at `place` names, as an object, without the members that must not leave.
    fn traits(&self, place: &CompiledPlace, event: &Event<'_>, too_large: &[Removable]) -> Option<Vec<u8>> {
        let mut traits = vec![b'{'];
        for (name, path, slot) in &place.traits {
            let Some(text) = event.get(*slot).filter(|value| *value != Value::Null).map(|value| value.text()) else {
                continue;
            };
            let mut text = Some(text);
            for redaction in self.properties.iter().chain(too_large.iter().map(|removable| &removable.redaction)) {
                let Some(more) = text else { break };
                text = redaction.apply_at(path, &more).ok()?.map(Into::into);
            }
            if let Some(text) = text {
                if traits.len() > 1 {
                    traits.push(b',');
                }
                traits.extend_from_slice(&[name.as_slice(), b":", &text].concat());
            }
        }
        traits.push(b'}');
        Some(traits)
    }
}

impl Removable {
    fn new(path: Path) -> Self {
        Removable { json: json(&path.to_string()), redaction: Redaction::new(Listed::Removed, [path]) }
    }

    /// Adds the path to a list.
    fn list(&self, list: &mut Vec<u8>) {
        if !list.is_empty() {
            list.push(b',');
        }
        list.extend_from_slice(&self.json);
    }
}

/// A text in JSON.
fn json(text: &str) -> Vec<u8> {
    serde_json::to_vec(text).unwrap_or_default()
}

/// The largest members of what is left of an event.
fn largest_members(body: &[u8]) -> Names {
    const NAMED: usize = 3;
    let mut reader = Reader::new(body);
    let mut members = Vec::new();
    if reader.enter_object() {
        while let Ok(Some(key)) = reader.member(members.is_empty()) {
            let start = reader.position();
            if reader.value().is_err() {
                break;
            }
            members.push((reader.read_since(start).len(), key.raw()));
        }
    }
    members.sort_unstable_by(|one, other| other.cmp(one));
    let mut names = Names::default();
    members.iter().take(NAMED).for_each(|(_, name)| names.add(name));
    names
}

/// The first id at these places, and its place.
fn first_id<'p, 'a>(
    places: &'p [CompiledPlace],
    event: &Event<'a>,
    kind: Option<&[u8]>,
) -> Result<Option<(Id<'a>, &'p CompiledPlace)>, Rejection> {
    for place in places.iter().filter(|place| place.applies_to(kind)) {
        if let Some(id) = id(event.get(place.slot))? {
            return Ok(Some((id, place)));
        }
    }
    Ok(None)
}

/// The id that a value makes; `None` if the value is falsy in JavaScript's sense.
fn id(id: Option<Value<'_>>) -> Result<Option<Id<'_>>, Rejection> {
    match id {
        None | Some(Value::Null | Value::Bool(false)) => Ok(None),
        Some(Value::String(id)) if id.is_empty() => Ok(None),
        Some(Value::Number(id)) if is_zero(id) => Ok(None),
        Some(Value::String(id)) => Ok(Some(Id::String(id))),
        Some(Value::Number(id)) => Ok(Some(Id::Number(id))),
        Some(Value::Bool(true) | Value::Array(_) | Value::Object(_)) => Err(Rejection::InvalidCustomerId),
    }
}

/// Whether a number is 0 in JavaScript, however it is written: `-0.0e9` is, and so is `1e-400`.
fn is_zero(number: &[u8]) -> bool {
    std::str::from_utf8(number).is_ok_and(|number| number.parse() == Ok(0.0))
}

impl CompiledPlace {
    /// `has_traits` if the traits beside the id may be sent too.
    fn new(place: Place, has_traits: bool, wanted: &mut Wanted) -> Self {
        let Place { path, events, traits } = place;
        let traits = match traits {
            _ if !has_traits => Vec::new(),
            Some(traits) => traits,
            None if path.is_own_id() => TRAITS.iter().map(|name| ((*name).to_owned(), path.sibling(name))).collect(),
            None => Vec::new(),
        };
        let traits = traits.into_iter().map(|(name, path)| {
            let slot = wanted.want(&path);
            (json(&name), path, slot)
        });
        CompiledPlace { traits: traits.collect(), slot: wanted.want(&path), path, events }
    }

    fn applies_to(&self, kind: Option<&[u8]>) -> bool {
        match (&self.events, kind) {
            (None, _) => true,
            (Some(patterns), Some(kind)) => any_matches(patterns, kind),
            (Some(_), None) => false,
        }
    }
}

impl EventTypes {
    fn are_sent(&self, kind: &[u8]) -> bool {
        self.allow.as_ref().is_none_or(|allow| any_matches(allow, kind)) && !any_matches(&self.deny, kind)
    }
}

fn any_matches(patterns: &[Pattern], kind: &[u8]) -> bool {
    patterns.iter().any(|pattern| pattern.matches(kind))
}
