//! The entries beside the batches: what each key and value looks like. Integers are big-endian.
//!
//! ```text
//! "v"                                                   u8 version, 1 ‖ cluster id
//! "t" topic name                                        u32 number ‖ u32 partitions ‖ u8 compacted ‖ i64 retention ms or -1
//!                                                       ‖ i64 retention bytes or -1
//! "l" u32 topic ‖ u32 partition                         i64 start of the log
//! "s" u32 topic ‖ u32 partition ‖ i64 first offset      i64 next offset ‖ i64 bytes ‖ i64 largest timestamp ‖ u8 cleaned
//! "o" u32 topic ‖ u32 partition ‖ group                 i64 offset ‖ metadata
//! "k" idempotency key                                   i64 stored at, ms ‖ result
//! "x" u64 stored at, ms, + 2^63 ‖ idempotency key       nothing
//! ```

use std::time::Duration;

use super::super::{CommittedOffset, TopicSettings};
use super::log::Segment;
use super::storage::LogId;
use crate::record::{Offset, Partition, Timestamp};

/// The version of everything stored: entries and batches.
pub(super) const VERSION: u8 = 1;

/// Where the identity of the broker lies.
pub(super) const IDENTITY: &[u8] = b"v";

/// The range of keys with that first byte.
pub(super) fn family(tag: u8) -> ([u8; 1], [u8; 1]) {
    ([tag], [tag + 1])
}

pub(super) fn encode_identity(cluster_id: &str) -> Vec<u8> {
    [&[VERSION], cluster_id.as_bytes()].concat()
}

/// The version and the cluster id.
pub(super) fn decode_identity(value: &[u8]) -> Option<(u8, String)> {
    let (version, cluster_id) = value.split_first()?;
    Some((*version, String::from_utf8(cluster_id.to_vec()).ok()?))
}

pub(super) fn topic_key(topic: &str) -> Vec<u8> {
    [b"t", topic.as_bytes()].concat()
}

pub(super) fn encode_topic(number: u32, settings: &TopicSettings) -> Vec<u8> {
    let retention = settings.retention.map_or(-1, |retention| i64::try_from(retention.as_millis()).unwrap_or(i64::MAX));
    let bytes = settings.retention_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    let mut value = Vec::with_capacity(25);
    value.extend_from_slice(&number.to_be_bytes());
    value.extend_from_slice(&settings.partitions.to_be_bytes());
    value.push(settings.compacted.into());
    value.extend_from_slice(&retention.to_be_bytes());
    value.extend_from_slice(&bytes.to_be_bytes());
    value
}

pub(super) fn decode_topic(key: &[u8], value: &[u8]) -> Option<(String, u32, TopicSettings)> {
    let name = std::str::from_utf8(key.get(1..)?).ok()?.to_owned();
    let mut fields = Fields(value);
    let number = fields.u32()?;
    let partitions = fields.u32()?;
    let compacted = fields.u8()? != 0;
    let retention = u64::try_from(fields.i64()?).ok().map(Duration::from_millis);
    let retention_bytes = u64::try_from(fields.i64()?).ok();
    Some((name, number, TopicSettings { compacted, retention, retention_bytes, ..TopicSettings::kept_for_ever(partitions) }))
}

pub(super) fn log_key(log: LogId) -> Vec<u8> {
    tagged(b'l', log).to_vec()
}

pub(super) fn encode_log_start(start: Offset) -> Vec<u8> {
    start.0.to_be_bytes().to_vec()
}

pub(super) fn decode_log_start(key: &[u8], value: &[u8]) -> Option<(LogId, Offset)> {
    Some((untag(key)?.0, Offset(Fields(value).i64()?)))
}

pub(super) fn segment_key(log: LogId, first: Offset) -> Vec<u8> {
    [&tagged(b's', log)[..], &first.0.to_be_bytes()].concat()
}

pub(super) fn encode_segment(segment: &Segment) -> Vec<u8> {
    let fields = [segment.next.0, segment.bytes as i64, segment.max_timestamp.0];
    let mut value: Vec<u8> = fields.iter().flat_map(|field| field.to_be_bytes()).collect();
    value.push(segment.cleaned.into());
    value
}

pub(super) fn decode_segment(key: &[u8], value: &[u8]) -> Option<(LogId, Segment)> {
    let (log, rest) = untag(key)?;
    let first = Offset(Fields(rest).i64()?);
    let mut fields = Fields(value);
    let next = Offset(fields.i64()?);
    let bytes = u64::try_from(fields.i64()?).ok()?;
    let max_timestamp = Timestamp(fields.i64()?);
    let cleaned = fields.u8()? != 0;
    Some((log, Segment { first, next, bytes, max_timestamp, cleaned }))
}

pub(super) fn offset_key(group: &str, log: LogId) -> Vec<u8> {
    [&tagged(b'o', log)[..], group.as_bytes()].concat()
}

pub(super) fn encode_offset(committed: &CommittedOffset) -> Vec<u8> {
    [&committed.offset.0.to_be_bytes(), committed.metadata.as_bytes()].concat()
}

pub(super) fn decode_offset(key: &[u8], value: &[u8]) -> Option<(String, LogId, CommittedOffset)> {
    let (log, group) = untag(key)?;
    let mut fields = Fields(value);
    let offset = Offset(fields.i64()?);
    let metadata = String::from_utf8(fields.0.to_vec()).ok()?;
    Some((String::from_utf8(group.to_vec()).ok()?, log, CommittedOffset { offset, metadata }))
}

pub(super) fn idempotency_key(key: &[u8]) -> Vec<u8> {
    [b"k", key].concat()
}

pub(super) fn encode_result(stored_at: Timestamp, result: &[u8]) -> Vec<u8> {
    [&stored_at.0.to_be_bytes(), result].concat()
}

/// The result stored with an idempotency key.
pub(super) fn decode_result(value: &[u8]) -> Option<&[u8]> {
    value.get(8..)
}

pub(super) fn expiry_key(stored_at: Timestamp, key: &[u8]) -> Vec<u8> {
    [b"x", &sortable(stored_at)[..], key].concat()
}

/// The idempotency key of an expiry entry.
pub(super) fn decode_expiry(key: &[u8]) -> Option<&[u8]> {
    key.get(9..)
}

/// A timestamp whose bytes sort as it does, also before 1970.
fn sortable(timestamp: Timestamp) -> [u8; 8] {
    ((timestamp.0 as u64) ^ (1 << 63)).to_be_bytes()
}

fn tagged(tag: u8, log: LogId) -> [u8; 9] {
    let mut key = [tag; 9];
    key[1..5].copy_from_slice(&log.topic.to_be_bytes());
    key[5..].copy_from_slice(&log.partition.0.to_be_bytes());
    key
}

fn untag(key: &[u8]) -> Option<(LogId, &[u8])> {
    let mut fields = Fields(key.get(1..)?);
    let log = LogId { topic: fields.u32()?, partition: Partition(fields.u32()?) };
    Some((log, fields.0))
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entries_round_trip(
            topic in any::<u32>(), partition in any::<u32>(), name in "[a-z.]{1,20}", metadata in ".{0,20}",
            numbers in prop::array::uniform4(0..i64::MAX), flag in any::<bool>(),
            retention in prop::option::of(0..i64::MAX as u64), bytes in prop::option::of(0..i64::MAX as u64),
        ) {
            let log = LogId { topic, partition: Partition(partition) };
            let retention = retention.map(Duration::from_millis);
            let settings = TopicSettings { compacted: flag, retention, retention_bytes: bytes, ..TopicSettings::kept_for_ever(partition) };
            let value = encode_topic(topic, &settings);
            prop_assert_eq!(decode_topic(&topic_key(&name), &value), Some((name.clone(), topic, settings)));
            let start = Offset(numbers[0]);
            prop_assert_eq!(decode_log_start(&log_key(log), &encode_log_start(start)), Some((log, start)));
            let segment = Segment {
                first: start, next: Offset(numbers[1]), bytes: numbers[2] as u64, max_timestamp: Timestamp(-numbers[3]), cleaned: flag,
            };
            prop_assert_eq!(decode_segment(&segment_key(log, start), &encode_segment(&segment)), Some((log, segment)));
            let offset = CommittedOffset { offset: start, metadata };
            prop_assert_eq!(decode_offset(&offset_key(&name, log), &encode_offset(&offset)), Some((name.clone(), log, offset)));
            let stored_at = Timestamp(numbers[1]);
            let (result, expiry) = (encode_result(stored_at, name.as_bytes()), expiry_key(stored_at, name.as_bytes()));
            prop_assert_eq!(decode_result(&result), Some(name.as_bytes()));
            prop_assert_eq!(decode_expiry(&expiry), Some(name.as_bytes()));
            prop_assert_eq!(decode_identity(&encode_identity(&name)), Some((VERSION, name)));
        }

        #[test]
        fn expiry_entries_sort_by_time(a in any::<i64>(), b in any::<i64>()) {
            prop_assert_eq!(expiry_key(Timestamp(a), b"x").cmp(&expiry_key(Timestamp(b), b"x")), a.cmp(&b));
        }

        #[test]
        fn any_bytes_decode_without_panic(key in prop::collection::vec(any::<u8>(), 0..40), value in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = (decode_topic(&key, &value), decode_log_start(&key, &value), decode_segment(&key, &value));
            let _ = (decode_offset(&key, &value), decode_result(&value), decode_expiry(&key), decode_identity(&value));
        }
    }

    #[test]
    fn the_layout_stands() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let log = LogId { topic: 3, partition: Partition(7) };
        let settings = TopicSettings { retention: Some(Duration::from_secs(1)), ..TopicSettings::compacted(8) };
        let segment = Segment { first: Offset(5), next: Offset(9), bytes: 256, max_timestamp: Timestamp(1000), cleaned: true };
        let committed = CommittedOffset { offset: Offset(6), metadata: "m".to_owned() };
        let expected = [
            (encode_identity("id"), "016964"),
            (topic_key("t"), "7474"),
            (encode_topic(3, &settings), "00000003000000080100000000000003e8ffffffffffffffff"),
            (log_key(log), "6c0000000300000007"),
            (encode_log_start(Offset(2)), "0000000000000002"),
            (segment_key(log, segment.first), "7300000003000000070000000000000005"),
            (encode_segment(&segment), "0000000000000009000000000000010000000000000003e801"),
            (offset_key("g", log), "6f000000030000000767"),
            (encode_offset(&committed), "00000000000000066d"),
            (idempotency_key(b"key"), "6b6b6579"),
            (encode_result(Timestamp(1000), b"r"), "00000000000003e872"),
            (expiry_key(Timestamp(1000), b"key"), "7880000000000003e86b6579"),
        ];
        for (bytes, layout) in expected {
            assert_eq!(hex(&bytes), layout);
        }
    }
}
