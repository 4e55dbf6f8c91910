//! A JSON reader that checks a document while it walks over it, and builds nothing.
//!
//! The grammar is [RFC 8259]. What a parser that builds values would refuse or change is legal here and stays as it is:
//! any depth of nesting, lone surrogates (`"\ud800"`), numbers beyond any double (`1e400`).

use std::borrow::Cow;
use std::fmt;

/// Where and why a text is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// Offset of the offending byte from the start of the text; its length where the text ends too early.
    pub at: usize,
    /// What the grammar allows there.
    pub expected: &'static str,
}

impl Malformed {
    /// Line and column of the offending byte in `text`, both counted from 1, the column in bytes.
    pub fn line_and_column(&self, text: &[u8]) -> (usize, usize) {
        let before = text.get(..self.at).unwrap_or(text);
        let lines = before.iter().filter(|&&b| b == b'\n').count();
        let column = before.iter().rev().take_while(|&&b| b != b'\n').count();
        (lines.saturating_add(1), column.saturating_add(1))
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {} at byte {}", self.expected, self.at)
    }
}

/// One value, borrowed from the text. An array or object is its whole text, checked but not taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as it is written.
    Number(&'a [u8]),
    /// A string.
    String(Str<'a>),
    /// An array.
    Array(&'a [u8]),
    /// An object.
    Object(&'a [u8]),
}

/// A string as it is written, without its quotes.
///
/// Well-formed: every `\` starts a legal escape. It is UTF-8 only once [`Reader::end`] has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Str<'a> {
    raw: &'a [u8],
    escaped: bool,
}

impl<'a> Str<'a> {
    /// The bytes between the quotes, escapes and all.
    pub fn raw(self) -> &'a [u8] {
        self.raw
    }

    /// Whether there is an escape in it.
    pub fn is_escaped(self) -> bool {
        self.escaped
    }

    /// Whether it decodes to the empty string.
    pub fn is_empty(self) -> bool {
        self.raw.is_empty()
    }

    /// What it decodes to, in UTF-8 generalised to lone surrogates ([WTF-8](https://simonsapin.github.io/wtf-8/)).
    pub fn decoded(self) -> Cow<'a, [u8]> {
        if self.escaped {
            self.pieces()
                .fold(Vec::with_capacity(self.raw.len()), |mut decoded, piece| {
                    decoded.extend_from_slice(piece.decoded.as_bytes());
                    decoded
                })
                .into()
        } else {
            self.raw.into()
        }
    }

    /// Whether it decodes to `other`.
    pub fn is(self, other: &str) -> bool {
        *self.decoded() == *other.as_bytes()
    }

    /// How many characters it decodes to. A pair of surrogates is one character, a lone one too.
    pub fn chars(self) -> usize {
        self.decoded().iter().filter(|&&b| b & 0xC0 != 0x80).count()
    }

    /// The string in pieces: each escape decoded, each byte between escapes for itself.
    pub fn pieces(self) -> impl Iterator<Item = Piece<'a>> {
        Pieces { rest: self.raw }
    }
}

/// A piece of a [`Str`].
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// As it is written.
    pub raw: &'a [u8],
    /// What it decodes to.
    pub decoded: Decoded,
}

/// Up to four bytes: one that stands for itself, or a character that was escaped.
#[derive(Debug, Clone, Copy)]
pub struct Decoded {
    bytes: [u8; 4],
    len: usize,
}

impl Decoded {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn byte(b: u8) -> Self {
        Decoded { bytes: [b, 0, 0, 0], len: 1 }
    }

    fn code_point(code: u32) -> Self {
        let mut bytes = [0; 4];
        let len = match char::from_u32(code) {
            Some(c) => c.encode_utf8(&mut bytes).len(),
            None => {
                let [.., b0] = (0xE0 | (code >> 12 & 0x0F)).to_be_bytes();
                let [.., b1] = (0x80 | (code >> 6 & 0x3F)).to_be_bytes();
                let [.., b2] = (0x80 | (code & 0x3F)).to_be_bytes();
                bytes = [b0, b1, b2, 0];
                3
            }
        };
        Decoded { bytes, len }
    }
}

struct Pieces<'a> {
    rest: &'a [u8],
}

impl<'a> Pieces<'a> {
    fn take(&mut self, len: usize, decoded: Decoded) -> Option<Piece<'a>> {
        let (raw, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(Piece { raw, decoded })
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        match *self.rest {
            [] => None,
            [b'\\', b'u', ref hex @ ..] => {
                let first = utf16_unit(hex)?;
                let second = match hex.get(4..) {
                    Some([b'\\', b'u', hex @ ..]) if (0xD800..0xDC00).contains(&first) => utf16_unit(hex),
                    _ => None,
                };
                match second {
                    Some(low @ 0xDC00..0xE000) => {
                        let above_bmp = (first & 0x3FF) << 10 | (low & 0x3FF);
                        self.take(12, Decoded::code_point(above_bmp.wrapping_add(0x1_0000)))
                    }
                    _ => self.take(6, Decoded::code_point(first)),
                }
            }
            [b'\\', escape, ..] => {
                let decoded = match escape {
                    b'b' => 0x08,
                    b'f' => 0x0C,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    itself => itself,
                };
                self.take(2, Decoded::byte(decoded))
            }
            [b, ..] => self.take(1, Decoded::byte(b)),
        }
    }
}

/// The four hexadecimal digits of a `\u` escape.
fn utf16_unit(hex: &[u8]) -> Option<u32> {
    hex.first_chunk::<4>()?.iter().try_fold(0, |unit: u32, &b| Some(unit << 4 | char::from(b).to_digit(16)?))
}

/// Walks over a JSON text from its start to its end.
pub struct Reader<'a> {
    text: &'a [u8],
    rest: &'a [u8],
    /// All bytes seen in strings, or-ed: tells whether there is any UTF-8 to check.
    seen: u64,
}

/// What the grammar does not allow, and what is left of the text from there on.
struct Unexpected<'a> {
    rest: &'a [u8],
    expected: &'static str,
}

type Read<'a, T = &'a [u8]> = Result<T, Unexpected<'a>>;

const LOW_BITS: u64 = u64::from_ne_bytes([0x01; 8]);
const HIGH_BITS: u64 = u64::from_ne_bytes([0x80; 8]);
const A_FIRST_KEY: &str = "a `\"` that starts a key, or `}`";
const A_KEY: &str = "a `\"` that starts a key";
const MORE_OF_AN_OBJECT: &str = "`,` or `}`";
const MORE_OF_AN_ARRAY: &str = "`,` or `]`";

impl<'a> Reader<'a> {
    /// Starts before the first byte of `text`.
    pub fn new(text: &'a [u8]) -> Self {
        Reader { text, rest: text, seen: 0 }
    }

    /// Checks that nothing but white space is left, and that all that was read is valid UTF-8.
    pub fn end(self) -> Result<(), Malformed> {
        let rest = skip_space(self.rest);
        if !rest.is_empty() {
            return Err(self.malformed(Unexpected { rest, expected: "the end of the body" }));
        }
        if self.seen & HIGH_BITS != 0 {
            std::str::from_utf8(self.text).map_err(|e| Malformed { at: e.valid_up_to(), expected: "valid UTF-8" })?;
        }
        Ok(())
    }

    /// Whether an object comes next; if so, goes in, to its first [`member`](Self::member).
    pub fn enter_object(&mut self) -> bool {
        self.eat(b'{')
    }

    /// Goes to the next member of the object that was entered and returns its key, or leaves the object and returns
    /// `None` where there is no further one. `first` is true for the first call in an object. The caller reads the
    /// member's value before it asks for the next.
    pub fn member(&mut self, first: bool) -> Result<Option<Str<'a>>, Malformed> {
        if self.eat(b'}') {
            return Ok(None);
        }
        if !first && !self.eat(b',') {
            return Err(self.malformed(Unexpected { rest: self.rest, expected: MORE_OF_AN_OBJECT }));
        }
        let expected = if first { A_FIRST_KEY } else { A_KEY };
        self.read(|rest, seen| {
            let start = expect(rest, b'"', expected)?;
            let (key, rest) = string(start, seen)?;
            Ok((Some(key), expect(rest, b':', "`:`")?))
        })
    }

    /// Whether an array comes next; if so, goes in, to its first [`element`](Self::element).
    pub fn enter_array(&mut self) -> bool {
        self.eat(b'[')
    }

    /// Whether there is a further element in the array that was entered; if not, leaves it. `first` is true for the
    /// first call in an array. The caller reads the element before it asks for the next.
    pub fn element(&mut self, first: bool) -> Result<bool, Malformed> {
        if self.eat(b']') {
            return Ok(false);
        }
        if !first && !self.eat(b',') {
            return Err(self.malformed(Unexpected { rest: self.rest, expected: MORE_OF_AN_ARRAY }));
        }
        Ok(true)
    }

    /// Reads one value, whatever it is.
    pub fn value(&mut self) -> Result<Value<'a>, Malformed> {
        self.read(|rest, seen| {
            let start = skip_space(rest);
            Ok(match start {
                [b'"', inside @ ..] => {
                    let (text, rest) = string(inside, seen)?;
                    (Value::String(text), rest)
                }
                [b'{', ..] => {
                    let rest = skip_container(start, seen)?;
                    (Value::Object(between(start, rest)), rest)
                }
                [b'[', ..] => {
                    let rest = skip_container(start, seen)?;
                    (Value::Array(between(start, rest)), rest)
                }
                _ => {
                    let rest = skip_scalar(start)?;
                    let value = match start {
                        [b't', ..] => Value::Bool(true),
                        [b'f', ..] => Value::Bool(false),
                        [b'n', ..] => Value::Null,
                        _ => Value::Number(between(start, rest)),
                    };
                    (value, rest)
                }
            })
        })
    }

    /// What is left to read; with [`Reader::read_since`] it tells the text of what is read next.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// What is left to read from the next value on.
    pub fn at_value(&mut self) -> &'a [u8] {
        self.rest = skip_space(self.rest);
        self.rest
    }

    /// What has been read since `start` was left to read.
    pub fn read_since(&self, start: &'a [u8]) -> &'a [u8] {
        between(start, self.rest)
    }

    fn read<T>(&mut self, read: impl FnOnce(&'a [u8], &mut u64) -> Read<'a, (T, &'a [u8])>) -> Result<T, Malformed> {
        // In a local: a loop that keeps it in a register is worth a third of the time.
        let mut seen = self.seen;
        let (value, rest) = read(self.rest, &mut seen).map_err(|unexpected| self.malformed(unexpected))?;
        self.seen = seen;
        self.rest = rest;
        Ok(value)
    }

    fn eat(&mut self, byte: u8) -> bool {
        self.rest = skip_space(self.rest);
        match self.rest {
            [next, rest @ ..] if *next == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn malformed(&self, unexpected: Unexpected<'a>) -> Malformed {
        Malformed { at: between(self.text, unexpected.rest).len(), expected: unexpected.expected }
    }
}

/// The start of `from` that is no longer in `to`, a later rest of the same text.
fn between<'a>(from: &'a [u8], to: &'a [u8]) -> &'a [u8] {
    from.get(..from.len().saturating_sub(to.len())).unwrap_or_default()
}

fn unexpected<'a, T>(rest: &'a [u8], expected: &'static str) -> Read<'a, T> {
    Err(Unexpected { rest, expected })
}

/// Goes behind the array or object that comes next, without recursion, so that no depth exhausts the stack.
fn skip_container<'a>(mut rest: &'a [u8], seen: &mut u64) -> Read<'a> {
    let mut open = Nesting::default();
    'value: loop {
        rest = skip_space(rest);
        match rest {
            [b'"', inside @ ..] => rest = skip_string(inside, seen)?,
            [b'{', inside @ ..] => match skip_space(inside) {
                [b'}', behind @ ..] => rest = behind,
                inside => {
                    rest = skip_key(inside, A_FIRST_KEY, seen)?;
                    open.push(Container::Object);
                    continue;
                }
            },
            [b'[', inside @ ..] => match skip_space(inside) {
                [b']', behind @ ..] => rest = behind,
                inside => {
                    rest = inside;
                    open.push(Container::Array);
                    continue;
                }
            },
            _ => rest = skip_scalar(rest)?,
        }
        // A value is over: on to the next in its container, or out of all those that end here.
        while let Some(container) = open.innermost() {
            rest = skip_space(rest);
            match (container, rest) {
                (Container::Object, [b',', behind @ ..]) => {
                    rest = skip_key(behind, A_KEY, seen)?;
                    continue 'value;
                }
                (Container::Array, [b',', behind @ ..]) => {
                    rest = behind;
                    continue 'value;
                }
                (Container::Object, [b'}', behind @ ..]) | (Container::Array, [b']', behind @ ..]) => {
                    rest = behind;
                    open.pop();
                }
                (Container::Object, _) => return unexpected(rest, MORE_OF_AN_OBJECT),
                (Container::Array, _) => return unexpected(rest, MORE_OF_AN_ARRAY),
            }
        }
        return Ok(rest);
    }
}

#[inline]
fn skip_key<'a>(rest: &'a [u8], expected: &'static str, seen: &mut u64) -> Read<'a> {
    let inside = expect(rest, b'"', expected)?;
    expect(skip_string(inside, seen)?, b':', "`:`")
}

/// Goes behind `true`, `false`, `null` or a number.
fn skip_scalar(rest: &[u8]) -> Read<'_> {
    let literal = match rest {
        [b't', ..] => "true",
        [b'f', ..] => "false",
        [b'n', ..] => "null",
        [b'-' | b'0'..=b'9', ..] => return skip_number(rest),
        _ => return unexpected(rest, "a JSON value"),
    };
    rest.strip_prefix(literal.as_bytes()).map_or_else(|| unexpected(rest, "a JSON value"), Ok)
}

fn skip_number(rest: &[u8]) -> Read<'_> {
    let rest = match rest.strip_prefix(b"-").unwrap_or(rest) {
        [b'0', rest @ ..] => rest,
        rest => skip_digits(rest)?,
    };
    let rest = match rest {
        [b'.', rest @ ..] => skip_digits(rest)?,
        rest => rest,
    };
    match rest {
        [b'e' | b'E', b'+' | b'-', rest @ ..] | [b'e' | b'E', rest @ ..] => skip_digits(rest),
        rest => Ok(rest),
    }
}

fn skip_digits(mut rest: &[u8]) -> Read<'_> {
    let [b'0'..=b'9', ..] = rest else { return unexpected(rest, "a digit") };
    while let [b'0'..=b'9', tail @ ..] = rest {
        rest = tail;
    }
    Ok(rest)
}

/// Reads a string from behind its opening quote to behind its closing one.
#[inline]
fn string<'a>(start: &'a [u8], seen: &mut u64) -> Read<'a, (Str<'a>, &'a [u8])> {
    let mut rest = skip_plain(start, seen);
    let mut escaped = false;
    loop {
        match rest {
            [b'"', behind @ ..] => return Ok((Str { raw: between(start, rest), escaped }, behind)),
            _ => {
                rest = skip_plain(skip_escape(rest)?, seen);
                escaped = true;
            }
        }
    }
}

#[inline]
fn skip_string<'a>(start: &'a [u8], seen: &mut u64) -> Read<'a> {
    match skip_plain(start, seen) {
        [b'"', behind @ ..] => Ok(behind),
        _ => string(start, seen).map(|(_, behind)| behind),
    }
}

/// Goes behind the escape that comes next in a string.
#[cold]
fn skip_escape(rest: &[u8]) -> Read<'_> {
    match rest {
        [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', rest @ ..] => Ok(rest),
        [b'\\', b'u', rest @ ..] => match utf16_unit(rest) {
            Some(_) => Ok(rest.get(4..).unwrap_or_default()),
            None => unexpected(rest, "four hexadecimal digits"),
        },
        [b'\\', rest @ ..] => unexpected(rest, "an escape: one of \" \\ / b f n r t u"),
        [] => unexpected(rest, "a `\"` that ends the string"),
        [..] => unexpected(rest, "an escape for a control character"),
    }
}

/// Goes to the next byte of a string that is a quote, a backslash or a control character, or to the end.
///
/// Eight bytes at a time. Each term has the high bit of every byte that matches; a byte behind a match may show a match
/// that is none, the first is always one (<https://graphics.stanford.edu/~seander/bithacks.html#ZeroInWord>).
#[inline]
fn skip_plain<'a>(mut rest: &'a [u8], seen: &mut u64) -> &'a [u8] {
    while let Some((chunk, tail)) = rest.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let quote = word ^ u64::from_ne_bytes([b'"'; 8]);
        let backslash = word ^ u64::from_ne_bytes([b'\\'; 8]);
        let control = word.wrapping_sub(u64::from_ne_bytes([0x20; 8]));
        let special =
            (quote.wrapping_sub(LOW_BITS) & !quote | backslash.wrapping_sub(LOW_BITS) & !backslash | control & !word)
                & HIGH_BITS;
        *seen |= word;
        if special != 0 {
            return rest.get(special.trailing_zeros() as usize / 8..).unwrap_or_default();
        }
        rest = tail;
    }
    while let [byte, tail @ ..] = rest {
        if matches!(byte, b'"' | b'\\' | ..0x20) {
            break;
        }
        *seen |= u64::from(*byte);
        rest = tail;
    }
    rest
}

/// Goes behind the white space that comes next.
#[inline]
fn skip_space(mut rest: &[u8]) -> &[u8] {
    while let [b' ' | b'\n' | b'\r' | b'\t', tail @ ..] = rest {
        rest = tail;
    }
    rest
}

/// Goes behind white space and this byte.
#[inline]
fn expect<'a>(rest: &'a [u8], byte: u8, expected: &'static str) -> Read<'a> {
    match skip_space(rest) {
        [next, rest @ ..] if *next == byte => Ok(rest),
        rest => unexpected(rest, expected),
    }
}

#[derive(Clone, Copy)]
enum Container {
    Array,
    Object,
}

/// The containers that are open, one bit each, so that a body of nothing but brackets costs an eighth of its size.
#[derive(Default)]
struct Nesting {
    outer: Vec<u64>,
    inner: u64,
    in_inner: u32,
}

impl Nesting {
    fn push(&mut self, container: Container) {
        if self.in_inner == u64::BITS {
            self.outer.push(self.inner);
            self.in_inner = 0;
        }
        self.inner = self.inner << 1 | matches!(container, Container::Object) as u64;
        self.in_inner = self.in_inner.saturating_add(1);
    }

    fn pop(&mut self) {
        self.inner >>= 1;
        self.in_inner = self.in_inner.saturating_sub(1);
        if self.in_inner == 0
            && let Some(outer) = self.outer.pop()
        {
            self.inner = outer;
            self.in_inner = u64::BITS;
        }
    }

    fn innermost(&self) -> Option<Container> {
        match (self.in_inner, self.inner & 1) {
            (0, _) => None,
            (_, 0) => Some(Container::Array),
            _ => Some(Container::Object),
        }
    }
}
