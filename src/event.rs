//! A Stigg event, as far as anybody wants to know, borrowed from the body of the webhook.
//!
//! Stigg's events are flat: `type`, and often `messageId` and `timestamp`, beside the entity's own fields, and on most
//! events about a customer a `customer` object (<https://docs.stigg.io/docs/webhooks>).

use crate::json::{Malformed, Reader, Str, Value};
use crate::path::Path;

/// The members of an event that are wanted, so that one pass over the body finds them all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    root: Node,
    count: usize,
}

/// A member that is wanted, or on the way to some that are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Node {
    key: String,
    slot: Option<Slot>,
    children: Vec<Node>,
}

/// Stands for a member that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(usize);

/// The members that were wanted, as an event has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a>(Vec<Option<Value<'a>>>);

/// Why a body holds no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// It is not a JSON text.
    Malformed(Malformed),
    /// It is JSON, but not an object.
    NotAnObject,
}

impl From<Malformed> for Unreadable {
    fn from(malformed: Malformed) -> Self {
        Unreadable::Malformed(malformed)
    }
}

impl Wanted {
    /// Wants the member that `path` leads to.
    pub fn want(&mut self, path: &Path) -> Slot {
        let mut node = &mut self.root;
        for step in path.steps() {
            let known = node.children.iter().position(|child| child.key == *step);
            let place = known.unwrap_or(node.children.len());
            if known.is_none() {
                node.children.push(Node { key: step.clone(), ..Node::default() });
            }
            match node.children.get_mut(place) {
                Some(child) => node = child,
                None => break,
            }
        }
        let count = &mut self.count;
        *node.slot.get_or_insert_with(|| {
            let slot = Slot(*count);
            *count = count.saturating_add(1);
            slot
        })
    }

    /// Reads the event in `body`, which must be one JSON object in UTF-8 with nothing but white space around it.
    pub fn read<'a>(&self, body: &'a [u8]) -> Result<Event<'a>, Unreadable> {
        let mut reader = Reader::new(body);
        let mut event = Event(vec![None; self.count]);
        let is_object = self.root.read_members(&mut reader, &mut event)?;
        if !is_object {
            reader.value()?;
        }
        reader.end()?;
        if is_object { Ok(event) } else { Err(Unreadable::NotAnObject) }
    }
}

impl Node {
    /// Reads the object that comes next; false, and nothing read, where none does.
    fn read_members<'a>(&self, reader: &mut Reader<'a>, event: &mut Event<'a>) -> Result<bool, Malformed> {
        if !reader.enter_object() {
            return Ok(false);
        }
        let mut first = true;
        while let Some(key) = reader.member(first)? {
            first = false;
            match self.child(key) {
                Some(child) => child.read(reader, event)?,
                None => {
                    reader.value()?;
                }
            }
        }
        Ok(true)
    }

    fn child(&self, key: Str<'_>) -> Option<&Node> {
        self.children.iter().find(|child| key.is(&child.key))
    }

    /// Reads the value that comes next. Of a key that occurs more than once the last one counts, as in JavaScript, and
    /// nothing of those before it.
    fn read<'a>(&self, reader: &mut Reader<'a>, event: &mut Event<'a>) -> Result<(), Malformed> {
        self.children.iter().for_each(|child| child.forget(event));
        let start = reader.at_value();
        let value = if !self.children.is_empty() && self.read_members(reader, event)? {
            Value::Object(reader.read_since(start))
        } else {
            reader.value()?
        };
        event.set(self.slot, Some(value));
        Ok(())
    }

    fn forget(&self, event: &mut Event<'_>) {
        event.set(self.slot, None);
        self.children.iter().for_each(|child| child.forget(event));
    }
}

impl<'a> Event<'a> {
    /// The member for this slot of those that were wanted; `None` where the event has none.
    pub fn get(&self, slot: Slot) -> Option<Value<'a>> {
        self.0.get(slot.0).copied().flatten()
    }

    fn set(&mut self, slot: Option<Slot>, value: Option<Value<'a>>) {
        if let Some(place) = slot.and_then(|slot| self.0.get_mut(slot.0)) {
            *place = value;
        }
    }
}
