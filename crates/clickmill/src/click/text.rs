//! Strings of JSON text: where they end, and what their escapes mean.

use std::borrow::Cow;

/// What stands between the quotes of a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Text<'t> {
    raw: &'t str,
    has_escapes: bool,
}

impl<'t> Text<'t> {
    /// The text between the quotes of a string that the scanner has passed.
    #[inline(always)]
    pub(super) fn new(raw: &'t str, has_escapes: bool) -> Self {
        Self { raw, has_escapes }
    }

    /// Whether it is a string at all: no escape names half of a surrogate pair.
    #[inline(always)]
    pub(super) fn is_unicode(self) -> bool {
        !self.has_escapes || unescape(self.raw).is_some()
    }

    /// Whether it is that string.
    #[inline(always)]
    pub(super) fn is(self, text: &str) -> bool {
        if self.has_escapes { unescape(self.raw).as_deref() == Some(text) } else { self.raw == text }
    }

    /// The string itself: borrowed unless it holds escapes. None where an escape names half of a surrogate pair.
    pub(super) fn unescape(self) -> Option<Cow<'t, str>> {
        if self.has_escapes { unescape(self.raw).map(Cow::Owned) } else { Some(Cow::Borrowed(self.raw)) }
    }
}

/// The offset of the first byte from `at` on that cannot stand for itself in a string (quote, backslash, control character), or the
/// end. Eight bytes at a time; the lowest set bit of each test is exact, and only that one is used.
#[inline(always)]
pub(super) fn end_of_plain(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let equal = |word: u64, byte: u8| {
        let difference = word ^ (ONES * u64::from(byte));
        difference.wrapping_sub(ONES) & !difference
    };
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let stops = (equal(word, b'"') | equal(word, b'\\') | control) & HIGH;
        if stops != 0 {
            return at + stops.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20)) {
        at += 1;
    }
    at
}

/// Resolves the escapes of a string whose grammar the scanner has checked.
fn unescape(raw: &str) -> Option<String> {
    let mut plain = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((before, escaped)) = rest.split_once('\\') {
        plain.push_str(before);
        let kind = escaped.chars().next()?;
        rest = &escaped[1..];
        plain.push(match kind {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let first = hex4(rest)?;
                rest = &rest[4..];
                if (0xd800..0xdc00).contains(&first) {
                    rest = rest.strip_prefix("\\u")?;
                    let second = hex4(rest).filter(|second| (0xdc00..0xe000).contains(second))?;
                    rest = &rest[4..];
                    char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))?
                } else {
                    char::from_u32(first)?
                }
            }
            itself => itself,
        });
    }
    plain.push_str(rest);
    Some(plain)
}

fn hex4(text: &str) -> Option<u32> {
    u32::from_str_radix(text.get(..4)?, 16).ok()
}
