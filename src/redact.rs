//! Leaving members out of an event, so that personal data need not leave; what remains keeps its bytes.

use crate::json::{Malformed, Reader, Value};
use crate::path::{ANY, Path};

/// What is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redaction {
    listed: Listed,
    root: Node,
}

/// What becomes of the members that paths are listed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// They are left out, and all else stays.
    Removed,
    /// They stay, and all else is left out.
    Kept,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Node {
    listed: bool,
    children: Vec<(String, Node)>,
}

/// What becomes of one value.
enum Fate<'n> {
    Stays,
    Goes,
    /// Stays if it is an object or array, without those of its members that go.
    InPart(Vec<&'n Node>),
}

impl Redaction {
    /// Removes, or keeps only, what these paths lead to.
    pub fn new(listed: Listed, paths: impl IntoIterator<Item = Path>) -> Self {
        let mut root = Node::default();
        for path in paths {
            let mut node = &mut root;
            for step in path.steps() {
                let known = node.children.iter().position(|(key, _)| key == step);
                let place = known.unwrap_or(node.children.len());
                if known.is_none() {
                    node.children.push((step.clone(), Node::default()));
                }
                match node.children.get_mut(place) {
                    Some((_, child)) => node = child,
                    None => break,
                }
            }
            node.listed = true;
        }
        Redaction { listed, root }
    }

    /// The event without what is left out. White space between members that both stay is kept too.
    ///
    /// # Errors
    /// Where the event is not JSON, which whoever has read it knows.
    pub fn apply(&self, event: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut redacted = Vec::with_capacity(event.len());
        self.write(&[&self.root], &mut Reader::new(event), &mut redacted)?;
        Ok(redacted)
    }

    /// The value that `path` leads to, `text`, without what is left out; `None` where it is left out itself.
    ///
    /// # Errors
    /// Where the value is not JSON.
    pub fn apply_at(&self, path: &Path, text: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
        let mut nodes = vec![&self.root];
        for step in path.steps() {
            match self.fate(&nodes, |key| key == step) {
                Fate::Stays => return Ok(Some(text.to_vec())),
                Fate::Goes => return Ok(None),
                Fate::InPart(deeper) => nodes = deeper,
            }
        }
        let mut redacted = Vec::with_capacity(text.len());
        let stays = self.write(&nodes, &mut Reader::new(text), &mut redacted)?;
        Ok(stays.then_some(redacted))
    }

    /// What becomes of the members that `is` says the name of, or of an array's elements, in a value that `nodes` lead to.
    fn fate<'n>(&self, nodes: &[&'n Node], is: impl Fn(&str) -> bool) -> Fate<'n> {
        let children = nodes.iter().flat_map(|node| &node.children);
        let deeper: Vec<_> = children.filter(|(key, _)| key == ANY || is(key)).map(|(_, node)| node).collect();
        match (self.listed, deeper.iter().any(|node| node.listed)) {
            (Listed::Removed, true) => Fate::Goes,
            (Listed::Kept, true) => Fate::Stays,
            (Listed::Removed, false) if deeper.is_empty() => Fate::Stays,
            (Listed::Kept, false) if deeper.is_empty() => Fate::Goes,
            _ => Fate::InPart(deeper),
        }
    }

    /// Copies the value that comes next as far as it stays; false, and nothing copied, where it does not: nothing of a
    /// value without members is kept for the sake of its members.
    fn write(&self, nodes: &[&Node], reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<bool, Malformed> {
        let start = reader.at_value();
        let is_object = reader.enter_object();
        if !is_object && !reader.enter_array() {
            reader.value()?;
            let stays = self.listed == Listed::Removed;
            if stays {
                out.extend_from_slice(reader.read_since(start));
            }
            return Ok(stays);
        }
        out.extend_from_slice(reader.read_since(start));
        let mut first = true;
        let mut first_that_stays = true;
        loop {
            let before = reader.position();
            let fate = if is_object {
                reader.member(first)?.map(|key| self.fate(nodes, |listed| key.is(listed)))
            } else {
                reader.element(first)?.then(|| self.fate(nodes, |_| false))
            };
            first = false;
            // What separates it from the one before, then its key.
            let lead = reader.read_since(before);
            let length = out.len();
            out.extend_from_slice(match lead.trim_ascii_start().strip_prefix(b",") {
                Some(lead) if first_that_stays => lead,
                _ => lead,
            });
            let stays = match fate {
                None => return Ok(true),
                Some(Fate::InPart(deeper)) => self.write(&deeper, reader, out)?,
                Some(Fate::Stays) => {
                    let value = reader.position();
                    reader.value()?;
                    out.extend_from_slice(reader.read_since(value));
                    true
                }
                Some(Fate::Goes) => {
                    reader.value()?;
                    false
                }
            };
            if stays {
                first_that_stays = false;
            } else {
                out.truncate(length);
            }
        }
    }
}

/// The text of a value as it stands in its document.
pub fn text<'a>(value: &Value<'a>) -> Option<std::borrow::Cow<'a, [u8]>> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => value.to_string().into_bytes().into(),
        Value::Number(text) | Value::Array(text) | Value::Object(text) => (*text).into(),
        Value::String(text) => [b"\"", text.raw(), b"\""].concat().into(),
    })
}
