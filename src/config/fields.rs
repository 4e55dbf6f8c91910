//! The reader of fields: it takes a JSON object field by field and names the place of what is wrong.

use std::fmt::{self, Write};

use serde_json::{Map, Value};

/// Why a configuration is rejected: one line that names the field or the variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A key can have a line feed in it, and the error is still one line.
        self.0
            .chars()
            .try_for_each(|c| if c.is_control() { write!(f, "{}", c.escape_default()) } else { f.write_char(c) })
    }
}

impl std::error::Error for Error {}

impl Error {
    /// An error with this text, which must not repeat a value.
    pub(super) fn new(text: impl Into<String>) -> Self {
        Error(text.into())
    }

    /// The same error in a part of the configuration.
    pub(super) fn within(self, path: &str) -> Self {
        Error([path, ": ", &self.0].concat())
    }
}

/// An object whose known fields are taken one by one. A field that is left at the end is unknown.
#[derive(Debug, Clone)]
pub struct Fields {
    at: String,
    object: Map<String, Value>,
    known: Vec<&'static str>,
}

impl Fields {
    /// The fields of the object at the top.
    pub fn new(object: Map<String, Value>) -> Self {
        Fields { at: String::new(), object, known: Vec::new() }
    }

    /// The same fields. `other` overrides those that it has too.
    pub fn overlaid(&self, other: Map<String, Value>) -> Self {
        let mut overlaid = self.clone();
        overlaid.object.extend(other);
        overlaid
    }

    /// The field of this name, if there is one.
    pub fn take(&mut self, name: &'static str) -> Option<Field> {
        self.known.push(name);
        let value = self.object.remove(name)?;
        Some(Field { at: if self.at.is_empty() { name.to_owned() } else { [&self.at, ".", name].concat() }, value })
    }

    /// Rejects a field that has not been taken.
    pub fn end(self) -> Result<(), Error> {
        let Some(unknown) = self.object.keys().next() else { return Ok(()) };
        let dot = if self.at.is_empty() { "" } else { "." };
        Err(Error([&self.at, dot, unknown, ": unknown field, expected one of ", &self.known.join(", ")].concat()))
    }
}

/// A value and its place.
#[derive(Debug, Clone)]
pub struct Field {
    at: String,
    value: Value,
}

impl Field {
    /// The field at the top with this name and value.
    pub fn new(name: &str, value: Value) -> Self {
        Field { at: name.to_owned(), value }
    }

    /// An error at this place.
    pub fn error(&self, wrong: &str) -> Error {
        Error([&self.at, ": ", wrong].concat())
    }

    /// The value, of any kind.
    pub fn into_value(self) -> Value {
        self.value
    }

    /// `true` or `false`.
    pub fn flag(&self) -> Result<bool, Error> {
        self.value.as_bool().ok_or_else(|| self.error("expected true or false"))
    }

    /// A size in bytes, at least 1.
    pub fn size(&self) -> Result<usize, Error> {
        let size = self.value.as_u64().and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
        size.ok_or_else(|| self.error("expected a number of bytes, at least 1"))
    }

    /// A text.
    pub fn text(&self) -> Result<&str, Error> {
        self.value.as_str().ok_or_else(|| self.error("expected a text"))
    }

    /// The meaning of one of these names.
    pub fn one_of<T: Copy>(&self, names: &[(&str, T)]) -> Result<T, Error> {
        let named = self.value.as_str().and_then(|text| names.iter().find(|(name, _)| *name == text));
        named.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let names: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
            self.error(&["expected one of ", &names.join(", ")].concat())
        })
    }

    /// The elements of a list.
    pub fn list(self) -> Result<Vec<Field>, Error> {
        let Value::Array(list) = self.value else { return Err(self.error("expected a list")) };
        let field = |(index, value)| Field { at: format!("{}[{index}]", self.at), value };
        Ok(list.into_iter().enumerate().map(field).collect())
    }

    /// The members of an object.
    pub fn object(self) -> Result<Map<String, Value>, Error> {
        match self.value {
            Value::Object(object) => Ok(object),
            _ => Err(self.error("expected an object")),
        }
    }

    /// The members of an object with any keys.
    pub fn members(self) -> Result<Vec<(String, Field)>, Error> {
        let at = self.at.clone();
        let field = |(key, value)| (String::clone(&key), Field { at: [&at, ".", &key].concat(), value });
        Ok(self.object()?.into_iter().map(field).collect())
    }

    /// The fields of an object.
    pub fn fields(self) -> Result<Fields, Error> {
        let at = self.at.clone();
        Ok(Fields { at, object: self.object()?, known: Vec::new() })
    }
}
