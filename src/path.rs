//! Paths into an event, such as `customer.id`, and trees of them.

/// A path from the top of an event to one of its members. Dots separate its steps.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Path(Vec<String>);

impl Path {
    /// Reads a path.
    ///
    /// # Errors
    /// A step is empty or is [`ANY`]. The error completes a sentence that starts with the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let path = Path::parse_with_any(text)?;
        if path.0.iter().any(|step| step == ANY) { Err("has a `*`, which names no single member") } else { Ok(path) }
    }

    /// Reads a path whose steps may be [`ANY`].
    ///
    /// # Errors
    /// A step is empty. The error completes a sentence that starts with the text.
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

    /// The path of another member of the same object.
    pub fn sibling(&self, name: &str) -> Self {
        let mut steps = self.0.clone();
        steps.pop();
        steps.push(name.to_owned());
        Path(steps)
    }

    /// The steps, from the top.
    pub fn steps(&self) -> &[String] {
        &self.0
    }
}

/// The step that leads to every member of an object, or to every element of an array.
pub const ANY: &str = "*";

/// Paths as a tree, with a value for each path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree<T> {
    /// The value of the path that ends here.
    pub value: T,
    children: Vec<(String, Tree<T>)>,
}

impl<T: Default> Tree<T> {
    /// The value of `path`. What is missing of the path is added.
    pub fn at(&mut self, path: &Path) -> &mut T {
        let mut node = self;
        for step in path.steps() {
            let known = node.children.iter().position(|(key, _)| key == step);
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
    pub fn children(&self) -> impl Iterator<Item = (&str, &Tree<T>)> {
        self.children.iter().map(|(key, child)| (key.as_str(), child))
    }

    /// Whether no step leads on from here.
    #[inline]
    pub fn is_leaf(&self) -> bool {
        self.children.is_empty()
    }
}
