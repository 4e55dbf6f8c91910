//! A Stigg event, read from the body of a webhook: only the members that the configuration needs.
//!
//! Stigg's events are flat. `type`, and often `messageId` and `timestamp`, are at the top, beside the entity's own fields;
//! most events about a customer have a `customer` object (<https://docs.stigg.io/docs/webhooks>).

use crate::json::{Malformed, Reader, Value};
use crate::path::{Path, Tree};

/// The members that are read, so that one pass over the body finds them all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    tree: Tree<Option<Slot>>,
    count: usize,
}

/// The number of a wanted member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(usize);

/// The wanted members of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a>(Vec<Option<Value<'a>>>);

/// Why a body is not an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// The body is not JSON.
    Malformed(Malformed),
    /// The body is JSON, but not an object.
    NotAnObject,
}

impl From<Malformed> for Unreadable {
    fn from(malformed: Malformed) -> Self {
        Unreadable::Malformed(malformed)
    }
}

impl Wanted {
    /// Adds the member at `path`.
    pub fn want(&mut self, path: &Path) -> Slot {
        let count = &mut self.count;
        *self.tree.at(path).get_or_insert_with(|| {
            let slot = Slot(*count);
            *count = count.saturating_add(1);
            slot
        })
    }

    /// Reads the event in `body`.
    ///
    /// # Errors
    /// The body is not one JSON object in UTF-8. White space around the object is fine.
    pub fn read<'a>(&self, body: &'a [u8]) -> Result<Event<'a>, Unreadable> {
        let mut reader = Reader::new(body);
        let mut event = Event(vec![None; self.count]);
        let is_object = read_members(&self.tree, &mut reader, &mut event)?;
        if !is_object {
            reader.value()?;
        }
        reader.end()?;
        if is_object { Ok(event) } else { Err(Unreadable::NotAnObject) }
    }
}

/// Reads the next value if it is an object; otherwise reads nothing and returns false.
fn read_members<'a>(
    wanted: &Tree<Option<Slot>>,
    reader: &mut Reader<'a>,
    event: &mut Event<'a>,
) -> Result<bool, Malformed> {
    if !reader.enter_object() {
        return Ok(false);
    }
    let mut first = true;
    while let Some(key) = reader.member(first)? {
        first = false;
        match wanted.children().find(|(step, _)| step.leads_to(|step| key.is(step))) {
            Some((_, child)) => read(child, reader, event)?,
            None => {
                reader.value()?;
            }
        }
    }
    Ok(true)
}

/// Reads the next value. If a key occurs more than once, only its last value counts, as in JavaScript.
fn read<'a>(wanted: &Tree<Option<Slot>>, reader: &mut Reader<'a>, event: &mut Event<'a>) -> Result<(), Malformed> {
    wanted.children().for_each(|(_, child)| forget(child, event));
    let start = reader.at_value();
    let value = if !wanted.is_leaf() && read_members(wanted, reader, event)? {
        Value::Object(reader.read_since(start))
    } else {
        reader.value()?
    };
    event.set(wanted.value, Some(value));
    Ok(())
}

fn forget(wanted: &Tree<Option<Slot>>, event: &mut Event<'_>) {
    event.set(wanted.value, None);
    wanted.children().for_each(|(_, child)| forget(child, event));
}

impl<'a> Event<'a> {
    /// The wanted member, or `None` if the event does not have it.
    pub fn get(&self, slot: Slot) -> Option<Value<'a>> {
        self.0.get(slot.0).copied().flatten()
    }

    fn set(&mut self, slot: Option<Slot>, value: Option<Value<'a>>) {
        if let Some(place) = slot.and_then(|slot| self.0.get_mut(slot.0)) {
            *place = value;
        }
    }
}
