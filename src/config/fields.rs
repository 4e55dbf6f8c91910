//! The reader of fields: it takes a JSON object field by field and names the place of what is wrong.
//!
//! It reads with the filter's own JSON reader, so that constants keep their bytes and no key can occur twice.

use std::collections::BTreeSet;
use std::fmt;

use crate::json::{Malformed, Reader, Str, Value};

/// Why a configuration is rejected: one line that names the field or the variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.0))
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

/// The text in one line of a log: a key or a path can have a line feed in it.
pub(super) fn one_line(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
        if c.is_control() {
            line.extend(c.escape_default())
        } else {
            line.push(c)
        }
        line
    })
}

/// Whether a text is a name in these letters, and may be repeated. The words of a name are short, and a secret is not.
pub(super) fn is_name(text: &str, is_letter: fn(&u8) -> bool) -> bool {
    text.len() <= 64 && text.split('_').all(|word| word.len() <= 16 && word.as_bytes().iter().all(is_letter))
}

/// The key number `index` of an object, as it may be repeated: a secret can be in the place of a key.
fn shown(key: &str, index: usize) -> String {
    let is_path = key.starts_with('/');
    if is_path || is_name(key, u8::is_ascii_lowercase) {
        key.to_owned()
    } else {
        format!("#{}", index.saturating_add(1))
    }
}

/// The place of a member.
fn inside(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { [at, ".", key].concat() }
}

/// How deep arrays and objects may be nested: the check is recursive, and the stack has an end.
const DEPTH: usize = 100;

/// Checks a whole text: it is JSON, no object has a key twice, and every string is a text. `is_secret` tells fields in
/// which no key is repeated.
pub(super) fn check(text: &[u8], is_secret: fn(&str) -> bool) -> Result<(), Error> {
    let mut whole = Reader::new(text);
    let checked = whole.value().and_then(|_| whole.end()).map_err(Problem::from);
    let checked = checked.and_then(|()| check_value(&mut Reader::new(text), "", is_secret, DEPTH));
    checked.map_err(|Problem { place, at, what }| {
        let (line, column) = Malformed { at, expected: "" }.line_and_column(text);
        let place = if place.is_empty() { "the configuration" } else { &place };
        Error(format!("{place}: {what} at line {line} column {column}"))
    })
}

/// What is wrong, and where.
struct Problem {
    place: String,
    at: usize,
    what: String,
}

impl From<Malformed> for Problem {
    fn from(Malformed { at, expected }: Malformed) -> Self {
        Problem { place: String::new(), at, what: format!("expected {expected}") }
    }
}

fn check_value(reader: &mut Reader<'_>, place: &str, is_secret: fn(&str) -> bool, depth: usize) -> Result<(), Problem> {
    let at = reader.at_value();
    let problem = |at, what: &str| Problem { place: place.to_owned(), at, what: what.to_owned() };
    let Some(deeper) = depth.checked_sub(1) else { return Err(problem(at, "nested too deep")) };
    let lone = "half of a surrogate pair, which is not a text,";
    if reader.enter_object() {
        let mut keys = BTreeSet::new();
        while let Some(key) = reader.member(keys.is_empty())? {
            let at = reader.position();
            let key = text(key).ok_or_else(|| problem(at, lone))?;
            let hidden = place.rsplit('.').next().is_some_and(is_secret);
            let inner = if hidden { place.to_owned() } else { inside(place, &shown(&key, keys.len())) };
            if !keys.insert(key) {
                return Err(Problem { place: inner, at, what: "the same key a second time".to_owned() });
            }
            check_value(reader, &inner, is_secret, deeper)?;
        }
    } else if reader.enter_array() {
        let mut index: usize = 0;
        while reader.element(index == 0)? {
            check_value(reader, place, is_secret, deeper)?;
            index = index.saturating_add(1);
        }
    } else if let Value::String(string) = reader.value()? {
        text(string).ok_or_else(|| problem(at, lone))?;
    }
    Ok(())
}

/// The decoded string; `None` if it is not a text, because of a lone surrogate.
fn text(string: Str<'_>) -> Option<String> {
    String::from_utf8(string.decoded().into_owned()).ok()
}

/// An object whose known fields are taken one by one. A field that is left at the end is unknown.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    at: String,
    members: Vec<(String, Option<Value<'a>>)>,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// The fields of the object at the top.
    pub fn new(object: &'a [u8]) -> Result<Self, Error> {
        let value = Reader::new(object).value().map_err(|malformed| Error(malformed.to_string()))?;
        Field { at: String::new(), value }.fields("{}")
    }

    /// No fields at the top.
    pub fn none() -> Self {
        Fields { at: String::new(), members: Vec::new(), known: Vec::new() }
    }

    /// The same fields. `other` overrides those that it has too.
    pub fn overlaid(&self, other: &Fields<'a>) -> Self {
        let mut overlaid = self.clone();
        overlaid.members.retain(|(key, _)| !other.has(key));
        overlaid.members.extend(other.members.iter().cloned());
        overlaid
    }

    /// Whether it has a field of this name.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The field of this name, if there is one. It is not taken.
    pub fn get(&self, name: &str) -> Option<Field<'a>> {
        let value = self.members.iter().find(|(key, _)| key == name)?.1?;
        Some(Field { at: inside(&self.at, name), value })
    }

    /// The field of this name, if there is one.
    pub fn take(&mut self, name: &'static str) -> Option<Field<'a>> {
        self.known.push(name);
        let field = self.get(name)?;
        self.members.iter_mut().filter(|(key, _)| key == name).for_each(|(_, value)| *value = None);
        Some(field)
    }

    /// Rejects a field that has not been taken.
    pub fn end(self) -> Result<(), Error> {
        let mut members = self.members.iter().enumerate();
        let Some((index, (unknown, _))) = members.find(|(_, (_, value))| value.is_some()) else { return Ok(()) };
        let shown = shown(unknown, index);
        let hidden = if shown == *unknown { "" } else { " (its name may be a secret and is not repeated)" };
        let place = inside(&self.at, &shown);
        Err(Error([&place, ": unknown field", hidden, ", expected one of ", &self.known.join(", ")].concat()))
    }
}

/// A value and its place.
#[derive(Debug, Clone)]
pub struct Field<'a> {
    at: String,
    value: Value<'a>,
}

impl<'a> Field<'a> {
    /// An error at this place.
    pub fn error(&self, wrong: &str) -> Error {
        Error([&self.at, ": ", wrong].concat())
    }

    /// Where it is.
    pub fn place(&self) -> &str {
        &self.at
    }

    /// `true` or `false`.
    pub fn flag(&self) -> Result<bool, Error> {
        match self.value {
            Value::Bool(flag) => Ok(flag),
            _ => Err(self.error("expected true or false")),
        }
    }

    /// A size in bytes, at least 1 and at most `largest`.
    pub fn size(&self, largest: usize) -> Result<usize, Error> {
        let digits = match self.value {
            Value::Number(digits) if digits != b"0" && digits.iter().all(u8::is_ascii_digit) => digits,
            _ => return Err(self.error("expected a number of bytes, at least 1")),
        };
        let size = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        let size = size.filter(|size| *size <= largest);
        size.ok_or_else(|| self.error(&format!("expected a number of bytes, at most {largest}")))
    }

    /// A text, if it is one.
    pub fn as_text(&self) -> Option<String> {
        match self.value {
            Value::String(string) => text(string),
            _ => None,
        }
    }

    /// A text.
    pub fn text(&self) -> Result<String, Error> {
        self.as_text().ok_or_else(|| self.error("expected a text"))
    }

    /// A text as it is between the quotes of a JSON string.
    pub fn escaped_text(&self) -> Result<&'a [u8], Error> {
        match self.value {
            Value::String(string) => Ok(string.raw()),
            _ => Err(self.error("expected a text")),
        }
    }

    /// The meaning of one of these names.
    pub fn one_of<T: Copy>(&self, names: &[(&str, T)]) -> Result<T, Error> {
        let named = self.as_text().and_then(|text| names.iter().find(|(name, _)| *name == text));
        named.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let names: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
            self.error(&["expected one of ", &names.join(", ")].concat())
        })
    }

    /// The elements of a list. If it is none, the error shows this example.
    pub fn list(&self, example: &str) -> Result<Vec<Field<'a>>, Error> {
        let wrong = || self.error(&["expected a list, such as ", example].concat());
        let Value::Array(list) = self.value else { return Err(wrong()) };
        let mut reader = Reader::new(list);
        let mut elements = Vec::new();
        reader.enter_array();
        while reader.element(elements.is_empty()).map_err(|_| wrong())? {
            let value = reader.value().map_err(|_| wrong())?;
            elements.push(Field { at: format!("{}[{}]", self.at, elements.len()), value });
        }
        Ok(elements)
    }

    /// The members of an object with any keys. If it is none, the error shows this example.
    pub fn members(&self, example: &str) -> Result<Vec<(String, Field<'a>)>, Error> {
        let wrong = || self.error(&["expected an object, such as ", example].concat());
        let Value::Object(object) = self.value else { return Err(wrong()) };
        let mut reader = Reader::new(object);
        let mut members = Vec::new();
        reader.enter_object();
        while let Some(key) = reader.member(members.is_empty()).map_err(|_| wrong())? {
            let value = reader.value().map_err(|_| wrong())?;
            let key = text(key).ok_or_else(wrong)?;
            members.push((key.clone(), Field { at: inside(&self.at, &key), value }));
        }
        Ok(members)
    }

    /// The text of an object's members, without the braces.
    pub fn inner_text(&self) -> Result<&'a [u8], Error> {
        let inner = match self.value {
            Value::Object(object) => object.strip_prefix(b"{").and_then(|object| object.strip_suffix(b"}")),
            _ => None,
        };
        inner.map(<[u8]>::trim_ascii).ok_or_else(|| self.error("expected an object"))
    }

    /// The fields of an object. If it is none, the error shows this example.
    pub fn fields(&self, example: &str) -> Result<Fields<'a>, Error> {
        let members = self.members(example)?.into_iter().map(|(key, field)| (key, Some(field.value)));
        Ok(Fields { at: self.at.clone(), members: members.collect(), known: Vec::new() })
    }
}
