//! A JSON reader that checks a text while it walks over it and builds nothing.
//!
//! The grammar is [RFC 8259](https://datatracker.ietf.org/doc/html/rfc8259). Parsers that build values reject or change
//! some of it. Here it stays as it is: any depth of nesting, lone surrogates (`"\ud800"`), numbers beyond any double
//! (`1e400`).

use std::borrow::Cow;
use std::fmt;

use wide::u8x64;

/// Why a text is not JSON, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// The offset of the offending byte. If the text ends too early, this is its length.
    pub at: usize,
    /// What the grammar allows at that place.
    pub expected: &'static str,
}

impl Malformed {
    /// Line and column of the offending byte in `text`. Both count from 1, and the column counts bytes.
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
    /// A number as it is written.
    Number(&'a [u8]),
    /// A string.
    String(Str<'a>),
    /// An array.
    Array(&'a [u8]),
    /// An object.
    Object(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The value's JSON text.
    pub fn text(self) -> Cow<'a, [u8]> {
        match self {
            Value::Null => b"null".into(),
            Value::Bool(true) => b"true".into(),
            Value::Bool(false) => b"false".into(),
            Value::Number(text) | Value::Array(text) | Value::Object(text) => text.into(),
            Value::String(text) => [b"\"", text.raw(), b"\""].concat().into(),
        }
    }
}

/// A string as it is written, without its quotes.
///
/// Every `\` starts a legal escape. Only [`Reader::end`] checks that the text is UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Str<'a> {
    raw: &'a [u8],
    escaped: bool,
}

impl<'a> Str<'a> {
    /// The bytes between the quotes, with their escapes.
    pub fn raw(self) -> &'a [u8] {
        self.raw
    }

    /// Whether it has an escape.
    pub fn is_escaped(self) -> bool {
        self.escaped
    }

    /// Whether it decodes to the empty string.
    pub fn is_empty(self) -> bool {
        self.raw.is_empty()
    }

    /// The decoded string, in UTF-8 that also allows lone surrogates ([WTF-8](https://simonsapin.github.io/wtf-8/)).
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

    /// The number of decoded characters. A pair of surrogates is one character, and so is a lone one.
    pub fn chars(self) -> usize {
        self.decoded().iter().filter(|&&b| b & 0xC0 != 0x80).count()
    }

    /// The string in pieces: each escape is one piece, and so is each byte between escapes.
    pub fn pieces(self) -> impl Iterator<Item = Piece<'a>> {
        Pieces { rest: self.raw }
    }
}

/// A piece of a [`Str`].
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// The piece as it is written.
    pub raw: &'a [u8],
    /// The decoded piece.
    pub decoded: Decoded,
}

/// Up to four bytes: a plain byte, or an escaped character.
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

/// The start of a string as it is written between its quotes, of at most `max` bytes. It ends before a character or an
/// escape, not inside one.
pub fn start(raw: &[u8], max: usize) -> &[u8] {
    if raw.len() <= max {
        return raw;
    }
    let (mut at, mut end) = (0_usize, 0);
    for piece in (Pieces { rest: raw }) {
        if at > max {
            break;
        }
        let continues_a_character = piece.raw.first().is_some_and(|b| b & 0xC0 == 0x80);
        if !continues_a_character {
            end = at;
        }
        at = at.saturating_add(piece.raw.len());
    }
    raw.get(..end).unwrap_or_default()
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

/// Walks over a JSON text from start to end.
#[derive(Debug)]
pub struct Reader<'a> {
    scanner: Scanner<'a>,
    at: usize,
}

const A_FIRST_KEY: &str = "a `\"` that starts a key, or `}`";
const A_KEY: &str = "a `\"` that starts a key";
const MORE_OF_AN_OBJECT: &str = "`,` or `}`";
const MORE_OF_AN_ARRAY: &str = "`,` or `]`";

impl<'a> Reader<'a> {
    /// Starts before the first byte of `text`.
    pub fn new(text: &'a [u8]) -> Self {
        let mut scanner = Scanner { text, window: Window::default(), has_non_ascii: false };
        scanner.look(0);
        Reader { scanner, at: 0 }
    }

    /// Checks that only white space is left, and that the text is valid UTF-8.
    pub fn end(self) -> Result<(), Malformed> {
        let Scanner { text, has_non_ascii, .. } = self.scanner;
        let at = self.scanner.skip_space(self.at);
        if at < text.len() {
            return Err(Malformed { at, expected: "the end of the body" });
        }
        if has_non_ascii {
            std::str::from_utf8(text).map_err(|e| Malformed { at: e.valid_up_to(), expected: "valid UTF-8" })?;
        }
        Ok(())
    }

    /// Enters the next value if it is an object, and tells whether it is. [`member`](Self::member) reads on.
    pub fn enter_object(&mut self) -> bool {
        self.eat(b'{')
    }

    /// Reads the key of the next member. After the last member, leaves the object and returns `None`. `first` is true
    /// for the first call in an object. The caller reads the member's value before the next call.
    pub fn member(&mut self, first: bool) -> Result<Option<Str<'a>>, Malformed> {
        if self.eat(b'}') {
            return Ok(None);
        }
        if !first && !self.eat(b',') {
            return Err(Malformed { at: self.at, expected: MORE_OF_AN_OBJECT });
        }
        let start = self.scanner.expect(self.at, b'"', if first { A_FIRST_KEY } else { A_KEY })?;
        let (key, end) = self.scanner.string(start)?;
        self.at = self.scanner.expect(end, b':', A_COLON)?;
        Ok(Some(key))
    }

    /// Enters the next value if it is an array, and tells whether it is. [`element`](Self::element) reads on.
    pub fn enter_array(&mut self) -> bool {
        self.eat(b'[')
    }

    /// Tells whether there is another element. After the last one, leaves the array. `first` is true for the first call
    /// in an array. The caller reads the element before the next call.
    pub fn element(&mut self, first: bool) -> Result<bool, Malformed> {
        if self.eat(b']') {
            return Ok(false);
        }
        if !first && !self.eat(b',') {
            return Err(Malformed { at: self.at, expected: MORE_OF_AN_ARRAY });
        }
        Ok(true)
    }

    /// Reads one value of any kind.
    pub fn value(&mut self) -> Result<Value<'a>, Malformed> {
        let start = self.at_value();
        let first = self.scanner.byte(start);
        if first == b'"' {
            let (string, end) = self.scanner.string(after(start))?;
            self.at = end;
            return Ok(Value::String(string));
        }
        self.at = match first {
            b'{' | b'[' => self.scanner.skip_container(start)?,
            _ => self.scanner.skip_scalar(start)?,
        };
        let text = self.read_since(start);
        Ok(match first {
            b'{' => Value::Object(text),
            b'[' => Value::Array(text),
            b't' => Value::Bool(true),
            b'f' => Value::Bool(false),
            b'n' => Value::Null,
            _ => Value::Number(text),
        })
    }

    /// The number of bytes that have been read. [`Reader::read_since`] takes it.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Reads the white space before the next value, and returns the position.
    pub fn at_value(&mut self) -> usize {
        self.at = self.scanner.skip_space(self.at);
        self.at
    }

    /// The text that has been read since a [`position`](Self::position).
    pub fn read_since(&self, start: usize) -> &'a [u8] {
        self.scanner.text.get(start..self.at).unwrap_or_default()
    }

    fn eat(&mut self, byte: u8) -> bool {
        self.at = self.scanner.skip_space(self.at);
        let is_next = self.scanner.byte(self.at) == byte;
        if is_next {
            self.at = after(self.at);
        }
        is_next
    }
}

const A_COLON: &str = "`:`";

/// The position after a byte of the text.
#[inline]
fn after(at: usize) -> usize {
    at.wrapping_add(1) // never wraps: there is a byte at `at`
}

/// Finds the end of what starts at a position, and checks it on the way.
///
/// The functions that every string needs are inlined: that halves the time.
#[derive(Debug)]
struct Scanner<'a> {
    text: &'a [u8],
    window: Window,
    /// Whether there is a byte outside ASCII, and so UTF-8 to check.
    has_non_ascii: bool,
}

type Scanned<T = usize> = Result<T, Malformed>;

fn malformed<T>(at: usize, expected: &'static str) -> Scanned<T> {
    Err(Malformed { at, expected })
}

impl<'a> Scanner<'a> {
    /// The byte at a position. At the end of the text it is 0, which the grammar allows nowhere.
    #[inline(always)]
    fn byte(&self, at: usize) -> u8 {
        self.text.get(at).copied().unwrap_or(0)
    }

    /// Skips white space.
    #[inline(always)]
    fn skip_space(&self, mut at: usize) -> usize {
        while matches!(self.byte(at), b' ' | b'\n' | b'\r' | b'\t') {
            at = after(at);
        }
        at
    }

    /// Skips white space and this byte.
    #[inline(always)]
    fn expect(&self, at: usize, byte: u8, expected: &'static str) -> Scanned {
        let at = self.skip_space(at);
        if self.byte(at) == byte { Ok(after(at)) } else { malformed(at, expected) }
    }

    /// Skips an array or object, without recursion, so that no depth exhausts the stack.
    fn skip_container(&mut self, mut at: usize) -> Scanned {
        let mut open = Nesting::default();
        'value: loop {
            at = self.skip_space(at);
            match self.byte(at) {
                b'"' => at = self.skip_string(after(at))?,
                b'{' => {
                    let inside = self.skip_space(after(at));
                    if self.byte(inside) != b'}' {
                        at = self.skip_key(inside, A_FIRST_KEY)?;
                        open.push(Container::Object);
                        continue;
                    }
                    at = after(inside);
                }
                b'[' => {
                    let inside = self.skip_space(after(at));
                    if self.byte(inside) != b']' {
                        at = inside;
                        open.push(Container::Array);
                        continue;
                    }
                    at = after(inside);
                }
                _ => at = self.skip_scalar(at)?,
            }
            // A value has ended: go on with the next one of its container, or leave all containers that end here.
            while let Some(container) = open.innermost() {
                at = self.skip_space(at);
                match (container, self.byte(at)) {
                    (Container::Object, b',') => {
                        at = self.skip_key(after(at), A_KEY)?;
                        continue 'value;
                    }
                    (Container::Array, b',') => {
                        at = after(at);
                        continue 'value;
                    }
                    (Container::Object, b'}') | (Container::Array, b']') => {
                        at = after(at);
                        open.pop();
                    }
                    (Container::Object, _) => return malformed(at, MORE_OF_AN_OBJECT),
                    (Container::Array, _) => return malformed(at, MORE_OF_AN_ARRAY),
                }
            }
            return Ok(at);
        }
    }

    #[inline(always)]
    fn skip_key(&mut self, at: usize, expected: &'static str) -> Scanned {
        let start = self.expect(at, b'"', expected)?;
        let end = self.skip_string(start)?;
        self.expect(end, b':', A_COLON)
    }

    /// Reads a string. `start` is after the opening quote, and the returned position is after the closing one.
    #[inline(always)]
    fn string(&mut self, start: usize) -> Scanned<(Str<'a>, usize)> {
        let plain = self.plain_end(start);
        let end = self.string_end(plain)?;
        let raw = self.text.get(start..end).unwrap_or_default();
        Ok((Str { raw, escaped: plain != end }, after(end)))
    }

    #[inline(always)]
    fn skip_string(&mut self, start: usize) -> Scanned {
        let plain = self.plain_end(start);
        self.string_end(plain).map(after)
    }

    /// The position of the closing quote. The string has no escape before `plain`.
    #[inline(always)]
    fn string_end(&mut self, plain: usize) -> Scanned {
        if self.byte(plain) == b'"' { Ok(plain) } else { self.escaped_string_end(plain) }
    }

    #[cold]
    fn escaped_string_end(&mut self, mut at: usize) -> Scanned {
        while self.byte(at) != b'"' {
            at = self.skip_escape(at)?;
            at = self.plain_end(at);
        }
        Ok(at)
    }

    /// Skips an escape in a string.
    fn skip_escape(&self, at: usize) -> Scanned {
        let length = match self.text.get(at..).unwrap_or_default() {
            [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'\\', b'u', hex @ ..] if utf16_unit(hex).is_some() => 6,
            [b'\\', b'u', ..] => return malformed(at.wrapping_add(2), "four hexadecimal digits"),
            [b'\\', ..] => return malformed(after(at), "an escape: one of \" \\ / b f n r t u"),
            [] => return malformed(at, "a `\"` that ends the string"),
            [..] => return malformed(at, "an escape for a control character"),
        };
        Ok(at.wrapping_add(length))
    }

    /// The position of the next quote, backslash or control character, or the end of the text.
    #[inline(always)]
    fn plain_end(&mut self, mut at: usize) -> usize {
        loop {
            let offset = at.wrapping_sub(self.window.start);
            if offset >= Window::SIZE {
                self.look(at);
                continue;
            }
            let ends = self.window.ends >> offset;
            if ends != 0 {
                return at.wrapping_add(ends.trailing_zeros() as usize);
            }
            at = self.window.start.wrapping_add(Window::SIZE);
        }
    }

    /// Moves the window to a position.
    fn look(&mut self, at: usize) {
        let text = self.text.get(at..).unwrap_or_default();
        let bytes = u8x64::from(match text.first_chunk() {
            Some(bytes) => *bytes,
            None => {
                let mut padded = [0; Window::SIZE];
                padded.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
                padded
            }
        });
        let is_control = bytes.min(u8x64::splat(0x1F)).simd_eq(bytes);
        let ends = bytes.simd_eq(u8x64::splat(b'"')) | bytes.simd_eq(u8x64::splat(b'\\')) | is_control;
        self.window = Window { start: at, ends: ends.to_bitmask() };
        // The highest bit of a byte is its sign.
        self.has_non_ascii |= bytes.to_bitmask() != 0;
    }

    /// Skips `true`, `false`, `null` or a number.
    #[inline(always)]
    fn skip_scalar(&self, at: usize) -> Scanned {
        match self.byte(at) {
            b't' => self.skip_literal(at, *b"true"),
            b'n' => self.skip_literal(at, *b"null"),
            b'f' => self.skip_literal(at, *b"false"),
            b'-' | b'0'..=b'9' => self.skip_number(at),
            _ => malformed(at, "a JSON value"),
        }
    }

    #[inline(always)]
    fn skip_literal<const LENGTH: usize>(&self, at: usize, literal: [u8; LENGTH]) -> Scanned {
        let is_there = self.text.get(at..).and_then(|text| text.first_chunk()) == Some(&literal);
        if is_there { Ok(at.wrapping_add(LENGTH)) } else { malformed(at, "a JSON value") }
    }

    #[inline(always)]
    fn skip_number(&self, mut at: usize) -> Scanned {
        if self.byte(at) == b'-' {
            at = after(at);
        }
        at = if self.byte(at) == b'0' { after(at) } else { self.skip_digits(at)? };
        if self.byte(at) == b'.' {
            at = self.skip_digits(after(at))?;
        }
        if matches!(self.byte(at), b'e' | b'E') {
            at = after(at);
            if matches!(self.byte(at), b'+' | b'-') {
                at = after(at);
            }
            at = self.skip_digits(at)?;
        }
        Ok(at)
    }

    #[inline(always)]
    fn skip_digits(&self, mut at: usize) -> Scanned {
        if !self.byte(at).is_ascii_digit() {
            return malformed(at, "a digit");
        }
        while self.byte(at).is_ascii_digit() {
            at = after(at);
        }
        Ok(at)
    }
}

/// The part of the text that was looked at last. Most strings end in it, so most are read without looking again.
#[derive(Debug, Default)]
struct Window {
    start: usize,
    /// A bit for each byte, the lowest for the first: whether the byte ends a run of plain bytes in a string.
    ends: u64,
}

impl Window {
    const SIZE: usize = 64;
}

#[derive(Clone, Copy)]
enum Container {
    Array,
    Object,
}

/// The open containers, one bit each: a body of nothing but brackets takes an eighth of its size.
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
