//! Records and their coordinates: topic, partition, offset, timestamp, headers.

use std::fmt;
use std::sync::Arc;

/// The number of a partition within its topic, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub u32);

/// The place of a record in its partition, from 0. A *position* is the offset of the next record to read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub i64);

/// Milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Offset {
    /// The first offset of a partition from which nothing was deleted.
    pub const ZERO: Offset = Offset(0);

    /// The offset after this one.
    pub fn next(self) -> Offset {
        Offset(self.0 + 1)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A topic's name, cheap to clone.
pub type Topic = Arc<str>;

/// One partition of one topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Topic,
    /// The partition's number.
    pub partition: Partition,
}

impl TopicPartition {
    /// The given partition of the given topic.
    pub fn new(topic: impl Into<Topic>, partition: Partition) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// A record as it lies in a log, borrowed from the batch that it was fetched with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The key, if the record has one.
    pub key: Option<&'a [u8]>,
    /// The value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The record's own timestamp (for a click: the time of its arrival).
    pub timestamp: Timestamp,
    /// Where the record lies; meaningless in a record that is yet to be sent.
    pub offset: Offset,
    /// The record's headers.
    pub headers: Headers<'a>,
}

impl<'a> Record<'a> {
    /// A record to be sent, without headers.
    pub fn new(key: Option<&'a [u8]>, value: Option<&'a [u8]>, timestamp: Timestamp) -> Self {
        Self { key, value, timestamp, offset: Offset::ZERO, headers: Headers::EMPTY }
    }

    /// The same record with the given headers.
    pub fn with_headers(self, headers: Headers<'a>) -> Self {
        Self { headers, ..self }
    }
}

/// Headers in their encoded form, read one by one when somebody asks: a record without headers costs nothing.
///
/// Layout, repeated for each header: `u16 name length ‖ name ‖ u32 value length ‖ value`, big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers<'a>(&'a [u8]);

impl<'a> Headers<'a> {
    /// No headers.
    pub const EMPTY: Headers<'static> = Headers(&[]);

    /// Headers in the form that [`HeadersBuf::as_headers`] gave, or none if `bytes` is not whole.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = split_header(rest)?.2;
        }
        Some(Self(bytes))
    }

    /// The encoded form.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// The value of the first header of that name.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.iter().find(|(n, _)| *n == name.as_bytes()).map(|(_, value)| value)
    }

    /// All headers in order, as (name, value).
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (name, value, tail) = split_header(rest)?;
            rest = tail;
            Some((name, value))
        })
    }
}

fn split_header(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name_length, rest) = bytes.split_first_chunk::<2>()?;
    let (name, rest) = rest.split_at_checked(u16::from_be_bytes(*name_length).into())?;
    let (value_length, rest) = rest.split_first_chunk::<4>()?;
    let (value, rest) = rest.split_at_checked(u32::from_be_bytes(*value_length).try_into().ok()?)?;
    Some((name, value, rest))
}

/// Headers being built.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeadersBuf(Vec<u8>);

impl HeadersBuf {
    /// No headers yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one header. A name is cut after 65,535 bytes.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        let name = &name.as_bytes()[..name.len().min(u16::MAX.into())];
        self.0.extend_from_slice(&(name.len() as u16).to_be_bytes());
        self.0.extend_from_slice(name);
        self.0.extend_from_slice(&(value.len() as u32).to_be_bytes());
        self.0.extend_from_slice(value);
    }

    /// Removes all headers and keeps the memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The headers, borrowed.
    pub fn as_headers(&self) -> Headers<'_> {
        Headers(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn headers_round_trip(pairs in prop::collection::vec(("[a-z.]{0,12}", prop::collection::vec(any::<u8>(), 0..20)), 0..6)) {
            let mut buf = HeadersBuf::new();
            for (name, value) in &pairs {
                buf.push(name, value);
            }
            let decoded = Headers::decode(buf.as_headers().as_bytes()).expect("whole");
            let read: Vec<_> = decoded.iter().map(|(n, v)| (String::from_utf8_lossy(n).into_owned(), v.to_vec())).collect();
            prop_assert_eq!(read, pairs);
        }

        #[test]
        fn any_bytes_decode_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some(headers) = Headers::decode(&bytes) {
                prop_assert_eq!(headers.iter().map(|(n, v)| n.len() + v.len() + 6).sum::<usize>(), bytes.len());
            }
        }
    }
}
