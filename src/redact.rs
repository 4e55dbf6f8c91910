//! Leaving members out of an event, so that personal data need not leave. What stays keeps its bytes.

use crate::json::{Malformed, Reader};
use crate::path::{Path, Step, Tree};

/// Which members are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redaction {
    listed: Listed,
    /// True at the end of each listed path.
    paths: Tree<bool>,
}

/// What the listed paths mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// The listed members are left out.
    Removed,
    /// Only the listed members stay.
    Kept,
}

/// What becomes of one value.
enum Fate<'n> {
    Stays,
    Goes,
    /// An object or array stays, without those of its members that go. Any other value goes or stays as a whole.
    InPart(Vec<&'n Tree<bool>>),
}

impl Redaction {
    /// Removes these paths, or keeps only them.
    pub fn new(listed: Listed, paths: impl IntoIterator<Item = Path>) -> Self {
        let mut tree = Tree::default();
        for path in paths {
            *tree.at(&path) = true;
        }
        Redaction { listed, paths: tree }
    }

    /// The event without what is left out. White space between two members that stay is kept.
    ///
    /// # Errors
    /// The event is not JSON, which cannot happen after it has been read.
    pub fn apply(&self, event: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut redacted = Vec::with_capacity(event.len());
        self.write(&[&self.paths], &mut Reader::new(event), &mut redacted)?;
        Ok(redacted)
    }

    /// The value at `path`, whose JSON is `text`, without what is left out; `None` if the value itself is left out.
    ///
    /// # Errors
    /// The value is not JSON.
    pub fn apply_at(&self, path: &Path, text: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
        let mut nodes = vec![&self.paths];
        for step in path.steps() {
            match self.fate(&nodes, |key| matches!(step, Step::Key(step) if key == step)) {
                Fate::Stays => return Ok(Some(text.to_vec())),
                Fate::Goes => return Ok(None),
                Fate::InPart(deeper) => nodes = deeper,
            }
        }
        let mut redacted = Vec::with_capacity(text.len());
        let stays = self.write(&nodes, &mut Reader::new(text), &mut redacted)?;
        Ok(stays.then_some(redacted))
    }

    /// The fate of one member, whose key is matched by `is`, or of an array's elements, in a value at which `nodes` are.
    fn fate<'n>(&self, nodes: &[&'n Tree<bool>], is: impl Fn(&str) -> bool) -> Fate<'n> {
        let children = nodes.iter().flat_map(|node| node.children());
        let deeper: Vec<_> = children.filter(|(step, _)| step.leads_to(&is)).map(|(_, node)| node).collect();
        match (self.listed, deeper.iter().any(|node| node.value)) {
            (Listed::Removed, true) => Fate::Goes,
            (Listed::Kept, true) => Fate::Stays,
            (Listed::Removed, false) if deeper.is_empty() => Fate::Stays,
            (Listed::Kept, false) if deeper.is_empty() => Fate::Goes,
            _ => Fate::InPart(deeper),
        }
    }

    /// Copies what stays of the next value. Returns false, and copies nothing, if the value goes: of a value without
    /// members, nothing is kept for the sake of its members.
    fn write(&self, nodes: &[&Tree<bool>], reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<bool, Malformed> {
        let start = reader.position();
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
            // The separator, then the key.
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
