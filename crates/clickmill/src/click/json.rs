//! A scanner of JSON text: finds the fields of an object where they stand, copies nothing, and accepts exactly RFC 8259.
//!
//! Every construct is checked, also in values that nobody asked for: text that another parser would refuse is refused. Nesting
//! costs no stack and is bounded by [`MAX_DEPTH`].

use super::text::{Text, end_of_plain};

/// How deep arrays and objects may nest.
pub(crate) const MAX_DEPTH: u32 = 128;

/// Why text is not JSON that we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JsonError {
    /// It breaks the grammar, or holds something else than what was asked for.
    Malformed,
    /// It nests deeper than [`MAX_DEPTH`].
    TooDeep,
}

/// A value where it stands in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'t> {
    /// `null`.
    Null,
    /// A number, as it is spelled.
    Number(&'t str),
    /// A string.
    String(Text<'t>),
    /// `true`, `false`, an array or an object.
    Other,
}

/// Visits the fields of the object that `text` is, in order; a name that comes twice is visited twice.
pub(crate) fn for_each_field<'t>(text: &'t str, mut visit: impl FnMut(Text<'t>, Value<'t>)) -> Result<(), JsonError> {
    let mut scanner = Scanner { text, at: 0 };
    scanner.expect(b'{')?;
    if !scanner.accept(b'}') {
        loop {
            let name = scanner.field_name()?;
            let value = scanner.value()?;
            visit(name, value);
            match scanner.token()? {
                b',' => {}
                b'}' => break,
                _ => return Err(JsonError::Malformed),
            }
        }
    }
    scanner.end()
}

/// The elements of the array that `text` is, each as it is spelled. None where `text` is JSON, but no array. Looks no further than the
/// first element beyond `at_most`, which is among those given.
pub(crate) fn array_elements(text: &str, at_most: usize) -> Result<Option<Vec<&str>>, JsonError> {
    let mut scanner = Scanner { text, at: 0 };
    if !scanner.accept(b'[') {
        scanner.value()?;
        return scanner.end().map(|()| None);
    }
    let mut elements = Vec::new();
    if !scanner.accept(b']') {
        loop {
            scanner.skip_space();
            let start = scanner.at;
            scanner.value()?;
            elements.push(&text[start..scanner.at]);
            if elements.len() > at_most {
                return Ok(Some(elements));
            }
            match scanner.token()? {
                b',' => {}
                b']' => break,
                _ => return Err(JsonError::Malformed),
            }
        }
    }
    scanner.end().map(|()| Some(elements))
}

struct Scanner<'t> {
    text: &'t str,
    /// The offset of the next byte. Always on a character boundary: it only ever stops after or before an ASCII byte.
    at: usize,
}

impl<'t> Scanner<'t> {
    #[inline(always)]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline(always)]
    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// The next byte that is not white space.
    #[inline(always)]
    fn token(&mut self) -> Result<u8, JsonError> {
        self.skip_space();
        let byte = self.peek().ok_or(JsonError::Malformed)?;
        self.at += 1;
        Ok(byte)
    }

    #[inline(always)]
    fn accept(&mut self, token: u8) -> bool {
        self.skip_space();
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }

    #[inline(always)]
    fn expect(&mut self, token: u8) -> Result<(), JsonError> {
        if self.accept(token) { Ok(()) } else { Err(JsonError::Malformed) }
    }

    fn end(&mut self) -> Result<(), JsonError> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { Err(JsonError::Malformed) }
    }

    /// A field's name and the colon after it.
    #[inline(always)]
    fn field_name(&mut self) -> Result<Text<'t>, JsonError> {
        self.expect(b'"')?;
        let name = self.string()?;
        if !name.is_unicode() {
            return Err(JsonError::Malformed);
        }
        self.expect(b':')?;
        Ok(name)
    }

    #[inline(always)]
    fn value(&mut self) -> Result<Value<'t>, JsonError> {
        self.skip_space();
        let start = self.at;
        match self.peek().ok_or(JsonError::Malformed)? {
            b'"' => {
                self.at += 1;
                self.string().map(Value::String)
            }
            b'-' | b'0'..=b'9' => {
                self.number()?;
                Ok(Value::Number(&self.text[start..self.at]))
            }
            b'n' => self.literal("null").map(|()| Value::Null),
            b't' => self.literal("true").map(|()| Value::Other),
            b'f' => self.literal("false").map(|()| Value::Other),
            b'{' | b'[' => self.container().map(|()| Value::Other),
            _ => Err(JsonError::Malformed),
        }
    }

    /// An array or an object, passed without recursion.
    #[inline(never)]
    fn container(&mut self) -> Result<(), JsonError> {
        let mut nesting = Nesting::default();
        loop {
            self.skip_space();
            match self.peek() {
                Some(b'{') => {
                    self.at += 1;
                    nesting.enter(true)?;
                    if !self.accept(b'}') {
                        self.field_name()?;
                        continue;
                    }
                    nesting.leave();
                }
                Some(b'[') => {
                    self.at += 1;
                    nesting.enter(false)?;
                    if !self.accept(b']') {
                        continue;
                    }
                    nesting.leave();
                }
                _ => {
                    self.value()?;
                }
            }
            // A value has ended here: leave what ends with it.
            loop {
                let Some(in_object) = nesting.in_object() else { return Ok(()) };
                match (self.token()?, in_object) {
                    (b',', true) => {
                        self.field_name()?;
                        break;
                    }
                    (b',', false) => break,
                    (b'}', true) | (b']', false) => nesting.leave(),
                    _ => return Err(JsonError::Malformed),
                }
            }
        }
    }

    fn literal(&mut self, literal: &str) -> Result<(), JsonError> {
        if !self.text.as_bytes()[self.at..].starts_with(literal.as_bytes()) {
            return Err(JsonError::Malformed);
        }
        self.at += literal.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), JsonError> {
        self.at += usize::from(self.peek() == Some(b'-'));
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(())
    }

    /// One digit or more.
    #[inline(always)]
    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(JsonError::Malformed) }
    }

    /// The rest of a string whose opening quote was just passed.
    #[inline(always)]
    fn string(&mut self) -> Result<Text<'t>, JsonError> {
        let start = self.at;
        let mut has_escapes = false;
        loop {
            self.at = end_of_plain(self.text.as_bytes(), self.at);
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    has_escapes = true;
                    self.escape()?;
                }
                _ => return Err(JsonError::Malformed),
            }
        }
        let raw = &self.text[start..self.at];
        self.at += 1;
        Ok(Text::new(raw, has_escapes))
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        let rest = &self.text.as_bytes()[self.at + 1..];
        match rest.first() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') if rest.len() >= 5 && rest[1..5].iter().all(u8::is_ascii_hexdigit) => self.at += 6,
            _ => return Err(JsonError::Malformed),
        }
        Ok(())
    }
}

/// Which of the containers around a place are objects: one bit each, the innermost lowest.
#[derive(Default)]
struct Nesting {
    objects: u128,
    depth: u32,
}

impl Nesting {
    fn enter(&mut self, object: bool) -> Result<(), JsonError> {
        if self.depth == MAX_DEPTH {
            return Err(JsonError::TooDeep);
        }
        self.depth += 1;
        self.objects = self.objects << 1 | u128::from(object);
        Ok(())
    }

    fn leave(&mut self) {
        self.depth -= 1;
        self.objects >>= 1;
    }

    /// Whether the innermost container is an object; none outside of all.
    fn in_object(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.objects & 1 == 1)
    }
}
