//! Paths into an event, such as `customer.id`, and trees of them.

use std::fmt::{self, Write};

/// A path from the top of an event to one of its members. Dots separate its steps. A step in quotes is a key with a dot,
/// a `*` or spaces in it, such as `customer."a.b"`; `""` in it is one quote.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Path(Vec<Step>);

/// A step of a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// Leads to the member with this key.
    Key(String),
    /// Leads to every member of an object, or to every element of an array: a `*`.
    Any,
}

impl Step {
    /// Whether it leads to the member with the key that `is` matches.
    #[inline]
    pub fn leads_to(&self, is: impl FnOnce(&str) -> bool) -> bool {
        match self {
            Step::Key(key) => is(key),
            Step::Any => true,
        }
    }
}

impl Path {
    /// Reads a path.
    ///
    /// # Errors
    /// A step is not one, or is [`Step::Any`]. The error completes a sentence that starts with the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let path = Path::parse_with_any(text)?;
        if path.0.contains(&Step::Any) { Err("has a `*`, which names no single member") } else { Ok(path) }
    }

    /// Reads a path whose steps may be [`Step::Any`].
    ///
    /// # Errors
    /// A step is not one. The error completes a sentence that starts with the text.
    pub fn parse_with_any(text: &str) -> Result<Self, &'static str> {
        let mut steps = Vec::new();
        let mut rest = Some(text);
        while let Some(text) = rest {
            let (step, after) = text.strip_prefix('"').map_or_else(|| unquoted(text), quoted)?;
            steps.push(step);
            rest = after;
        }
        Ok(Path(steps))
    }

    /// The path of these keys.
    pub fn keys<const N: usize>(keys: [&str; N]) -> Self {
        Path::of(keys)
    }

    /// The path of any number of keys.
    pub fn of<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        Path(keys.into_iter().map(|key| Step::Key(key.to_owned())).collect())
    }

    /// The path of another member of the same object.
    pub fn sibling(&self, name: &str) -> Self {
        let mut steps = self.0.clone();
        steps.pop();
        steps.push(Step::Key(name.to_owned()));
        Path(steps)
    }

    /// Whether an object has its own id here. Metadata are free: an id in them belongs to something else.
    pub fn is_own_id(&self) -> bool {
        let is = |step: Option<&Step>, name| matches!(step, Some(Step::Key(key)) if key == name);
        let mut from_the_end = self.0.iter().rev();
        is(from_the_end.next(), "id") && !is(from_the_end.next(), "metadata")
    }

    /// The steps, from the top.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }
}

/// A step after its first quote, and what follows the dot after the step.
fn quoted(text: &str) -> Result<(Step, Option<&str>), &'static str> {
    let mut key = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"').ok_or("has a quote without an end")?;
        key.push_str(part);
        match (after.strip_prefix('"'), after.strip_prefix('.')) {
            (Some(more), _) => {
                key.push('"');
                rest = more;
            }
            (None, None) if !after.is_empty() => return Err("goes on after a step in quotes"),
            (None, after) => return Ok((Step::Key(key), after)),
        }
    }
}

/// A step without quotes, and what follows the dot after it.
fn unquoted(text: &str) -> Result<(Step, Option<&str>), &'static str> {
    let (step, after) = text.split_once('.').map_or((text, None), |(step, after)| (step, Some(after)));
    match wrong(step) {
        _ if step == "*" => Ok((Step::Any, after)),
        Some(wrong) => Err(wrong),
        None => Ok((Step::Key(step.to_owned()), after)),
    }
}

/// Why a key cannot be a step without quotes.
fn wrong(key: &str) -> Option<&'static str> {
    if key.is_empty() {
        Some("has an empty step")
    } else if key.trim() != key {
        Some("has a space before or after a step; put the step in quotes if its key has it")
    } else if key.contains('"') {
        Some("has a quote inside a step; put the whole step in quotes")
    } else if key.contains(['[', ']']) {
        Some(
            "has a `[` or `]` in it; write `.*` for the elements of an array, or put the step in quotes if its key has it",
        )
    } else if key == "$" {
        Some("has a step `$`; a path starts with the first key, such as customer.id")
    } else if key.starts_with('/') {
        Some(
            "has a step that starts with `/`; write dots, as in customer.id, or put the step in quotes if its key has it",
        )
    } else if key.contains('*') {
        Some("has a `*` inside a step, which only stands for a whole step; put the step in quotes if its key has it")
    } else {
        None
    }
}

/// Whether a key looks like an index of an array, which no step is.
pub fn is_number(key: &str) -> bool {
    let key = key.strip_prefix('-').unwrap_or(key);
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_digit())
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_char('.')?;
            }
            match step {
                Step::Any => f.write_char('*')?,
                Step::Key(key) if wrong(key).is_some() || key.contains('.') => {
                    write!(f, "\"{}\"", key.replace('"', "\"\""))?;
                }
                Step::Key(key) => f.write_str(key)?,
            }
        }
        Ok(())
    }
}

/// Paths as a tree, with a value for each path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree<T> {
    /// The value of the path that ends here.
    pub value: T,
    children: Vec<(Step, Tree<T>)>,
}

impl<T: Default> Tree<T> {
    /// The value of `path`. What is missing of the path is added.
    pub fn at(&mut self, path: &Path) -> &mut T {
        let mut node = self;
        for step in path.steps() {
            let known = node.children.iter().position(|(known, _)| known == step);
            let place = known.unwrap_or(node.children.len());
            if known.is_none() {
                node.children.push((step.clone(), Tree::default()));
            }
            match node.children.get_mut(place) {
                Some((_, child)) => node = child,
                None => break,
            }
        }
        &mut node.value
    }
}

impl<T> Tree<T> {
    /// The steps that lead on from here, each with its subtree.
    #[inline]
    pub fn children(&self) -> impl Iterator<Item = (&Step, &Tree<T>)> {
        self.children.iter().map(|(step, child)| (step, child))
    }

    /// Whether no step leads on from here.
    #[inline]
    pub fn is_leaf(&self) -> bool {
        self.children.is_empty()
    }
}
