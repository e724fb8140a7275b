//! The metadata string beside a committed offset, in Kafka Streams' own layout (`TopicPartitionMetadata`, `ProcessorMetadata`).
//!
//! Base64 of `u8 2 ‖ i64 stream time (−1 unknown) ‖ entries`, entries being nothing at all, or `i32 count` and for each
//! `i32 length ‖ UTF-8 name ‖ i64 value`. Names that we do not know are kept.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::record::Timestamp;

const MAGIC: u8 = 2;

/// The entry for how far is closed: end of the last window that is.
pub(crate) const CLOSED_THROUGH: &str = "clickmill.closed_through";

/// What a group's committed offset says beside the offset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OffsetMetadata {
    /// The partition's stream time; none where it is not known.
    pub stream_time: Option<Timestamp>,
    /// Named numbers. Ours begin with `clickmill.`.
    pub entries: BTreeMap<String, i64>,
}

/// The string is not such metadata.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the metadata of a committed offset is not in Kafka Streams' layout (version 2): {0:?}")]
pub struct InvalidMetadata(String);

impl OffsetMetadata {
    /// The string to commit.
    pub fn encode(&self) -> String {
        let mut bytes = vec![MAGIC];
        bytes.extend_from_slice(&self.stream_time.map_or(-1, |t| t.0).to_be_bytes());
        if !self.entries.is_empty() {
            bytes.extend_from_slice(&(self.entries.len() as i32).to_be_bytes());
            for (name, value) in &self.entries {
                bytes.extend_from_slice(&(name.len() as i32).to_be_bytes());
                bytes.extend_from_slice(name.as_bytes());
                bytes.extend_from_slice(&value.to_be_bytes());
            }
        }
        STANDARD.encode(bytes)
    }

    /// Reads a committed string; an empty one says nothing.
    ///
    /// # Errors
    /// Where the string is something else.
    pub fn decode(text: &str) -> Result<Self, InvalidMetadata> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let bytes = STANDARD.decode(text).map_err(|_| InvalidMetadata(text.to_owned()))?;
        Self::decode_bytes(&bytes).ok_or_else(|| InvalidMetadata(text.to_owned()))
    }

    fn decode_bytes(bytes: &[u8]) -> Option<Self> {
        let (&MAGIC, bytes) = bytes.split_first()? else { return None };
        let (stream_time, mut rest) = bytes.split_first_chunk::<8>()?;
        let stream_time = i64::from_be_bytes(*stream_time);
        let mut entries = BTreeMap::new();
        if !rest.is_empty() {
            let (count, tail) = rest.split_first_chunk::<4>()?;
            rest = tail;
            for _ in 0..i32::from_be_bytes(*count) {
                let (length, tail) = rest.split_first_chunk::<4>()?;
                let (name, tail) = tail.split_at_checked(usize::try_from(i32::from_be_bytes(*length)).ok()?)?;
                let (value, tail) = tail.split_first_chunk::<8>()?;
                entries.insert(std::str::from_utf8(name).ok()?.to_owned(), i64::from_be_bytes(*value));
                rest = tail;
            }
        }
        Some(Self { stream_time: (stream_time >= 0).then_some(Timestamp(stream_time)), entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_entries_the_bytes_are_those_of_kafka_streams() {
        let metadata = OffsetMetadata { stream_time: Some(Timestamp(1)), ..OffsetMetadata::default() };
        assert_eq!(metadata.encode(), STANDARD.encode([2, 0, 0, 0, 0, 0, 0, 0, 1]));
        assert_eq!(OffsetMetadata::decode(""), Ok(OffsetMetadata::default()));
        assert!(OffsetMetadata::decode("AQ==").is_err());
    }

    proptest! {
        #[test]
        fn metadata_round_trips(
            stream_time in prop::option::of(0i64..),
            entries in prop::collection::btree_map("[a-z.0-9]{0,20}", any::<i64>(), 0..6),
        ) {
            let metadata = OffsetMetadata { stream_time: stream_time.map(Timestamp), entries };
            prop_assert_eq!(OffsetMetadata::decode(&metadata.encode()), Ok(metadata));
        }

        #[test]
        fn random_text_never_panics(text in ".*", bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = OffsetMetadata::decode(&text);
            let _ = OffsetMetadata::decode(&STANDARD.encode(bytes));
        }
    }
}
