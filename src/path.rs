//! Paths into an event, such as `customer.id`, and patterns for its type, such as `customer.*`.

/// A path from the top of an event to one of its members, its steps separated by dots.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Path(Vec<String>);

impl Path {
    /// The path in `text`.
    ///
    /// # Errors
    /// Says what is wrong, as the rest of a sentence that starts with the text: a step is empty, or is [`ANY`].
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let path = Path::parse_with_any(text)?;
        if path.0.iter().any(|step| step == ANY) {
            Err("has a `*`, which stands for no single member")
        } else {
            Ok(path)
        }
    }

    /// The path in `text`, of which steps may be [`ANY`].
    ///
    /// # Errors
    /// Says what is wrong, as the rest of a sentence that starts with the text: a step is empty.
    pub fn parse_with_any(text: &str) -> Result<Self, &'static str> {
        if text.split('.').any(str::is_empty) {
            return Err("has an empty step");
        }
        Ok(Path(text.split('.').map(str::to_owned).collect()))
    }

    /// The path of a member at the top.
    pub fn member(key: &str) -> Self {
        Path(vec![key.to_owned()])
    }

    /// The path of a member that stands beside the one this path leads to.
    pub fn sibling(&self, name: &str) -> Self {
        let mut steps = self.0.clone();
        steps.pop();
        steps.push(name.to_owned());
        Path(steps)
    }

    /// The steps.
    pub fn steps(&self) -> &[String] {
        &self.0
    }
}

/// A step to every member of an object, or every element of an array.
pub const ANY: &str = "*";

/// What a type may look like: text in which each `*` stands for any text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// A pattern.
    pub fn new(text: &str) -> Self {
        Pattern(text.to_owned())
    }

    /// Whether `text` looks like it.
    pub fn matches(&self, text: &[u8]) -> bool {
        let mut parts = self.0.split('*').map(str::as_bytes);
        let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            // The first place is as good as any: what it leaves over is the longest rest.
            match (0..=rest.len()).find_map(|start| rest.get(start..)?.strip_prefix(part)) {
                Some(behind) => rest = behind,
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}
