//! Which topic a position is one of, and which changelog holds what was counted up to it. A topic that was deleted and made again has the name of
//! the one before and other records: a position in one says nothing about the other.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::broker::TopicDescription;

const INPUT: [&str; 2] = ["clickmill.topic_id_hi", "clickmill.topic_id_lo"];
const CHANGELOG: [&str; 2] = ["clickmill.changelog_id_hi", "clickmill.changelog_id_lo"];

/// A topic's id as it stands beside a position: two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicIdentity {
    high: i64,
    low: i64,
}

impl TopicIdentity {
    /// Of Kafka's ids (a UUID in base64) the two halves, of any other text two hashes.
    pub fn of(topic: &TopicDescription) -> Self {
        let standard = topic.id.replace('-', "+").replace('_', "/");
        let bytes = STANDARD_NO_PAD.decode(standard.trim_end_matches('=')).ok().filter(|bytes| bytes.len() == 16);
        let [high, low] = match bytes {
            Some(bytes) => {
                [&bytes[..8], &bytes[8..]].map(|half| half.iter().fold(0, |number, byte| (number << 8) | i64::from(*byte)))
            }
            None => [hash(&topic.id, 0), hash(&topic.id, 1)],
        };
        Self { high, low }
    }

    /// The one of the input that stands among those entries; none where a position does not say.
    pub fn from_entries(entries: &BTreeMap<String, i64>) -> Option<Self> {
        Self::under(INPUT, entries)
    }

    /// As [`TopicIdentity::from_entries`], of the changelog.
    pub(crate) fn changelog_from_entries(entries: &BTreeMap<String, i64>) -> Option<Self> {
        Self::under(CHANGELOG, entries)
    }

    fn under([high, low]: [&str; 2], entries: &BTreeMap<String, i64>) -> Option<Self> {
        Some(Self { high: *entries.get(high)?, low: *entries.get(low)? })
    }

    /// As it stands in a store: both numbers, big-endian.
    pub(crate) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.high.to_be_bytes());
        bytes[8..].copy_from_slice(&self.low.to_be_bytes());
        bytes
    }

    /// Puts it in place of the one of the input that stands there.
    pub fn put_entries(self, entries: &mut BTreeMap<String, i64>) {
        self.put_under(INPUT, entries);
    }

    /// As [`TopicIdentity::put_entries`], of the changelog.
    pub(crate) fn put_changelog_entries(self, entries: &mut BTreeMap<String, i64>) {
        self.put_under(CHANGELOG, entries);
    }

    fn put_under(self, [high, low]: [&str; 2], entries: &mut BTreeMap<String, i64>) {
        entries.insert(high.to_owned(), self.high);
        entries.insert(low.to_owned(), self.low);
    }
}

/// FNV-1a, from a beginning of its own for each number: it stands beside positions, so it may never change.
fn hash(text: &str, number: u8) -> i64 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    text.bytes().fold(mix(0xcbf2_9ce4_8422_2325, number), mix) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(id: &str) -> TopicIdentity {
        TopicIdentity::of(&TopicDescription { id: id.to_owned(), partitions: 1 })
    }

    #[test]
    fn the_id_of_a_kafka_topic_is_its_uuid() {
        let expected = TopicIdentity { high: 0x0001_0203_0405_0607, low: -0x0101_0101_0101_0102 };
        assert_eq!(identity("AAECAwQFBgf-_v7-_v7-_g"), expected);
        assert_eq!(identity("AAECAwQFBgf+/v7+/v7+/g=="), expected);
    }

    #[test]
    fn other_ids_are_told_apart_and_stand_as_they_are() {
        let (first, second) = (identity("cluster-0"), identity("cluster-1"));
        assert_ne!(first, second);
        assert_eq!(
            (first.high, first.low),
            (-0x4d54_401f_2595_bd9e, -0x1193_6360_a8c9_7f6d),
            "the numbers of a text never change"
        );
        let mut entries = BTreeMap::new();
        assert_eq!(TopicIdentity::from_entries(&entries), None);
        first.put_entries(&mut entries);
        second.put_entries(&mut entries);
        assert_eq!(TopicIdentity::from_entries(&entries), Some(second));
        assert_eq!(TopicIdentity::changelog_from_entries(&entries), None);
        first.put_changelog_entries(&mut entries);
        assert_eq!(TopicIdentity::changelog_from_entries(&entries), Some(first));
        assert_eq!(TopicIdentity::from_entries(&entries), Some(second));
    }
}
