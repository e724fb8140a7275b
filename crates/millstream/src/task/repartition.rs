//! What travels on the repartition topic. Every record of ours carries the header [`HEADER`]; one without it was written by
//! Kafka Streams and is one event.
//!
//! **Partial aggregates**: no key, the timestamp is the largest event time among them. Those for one partition travel many in a record,
//! for a record costs more, on every side, than a partial aggregate does. Value: `u8 1 ‖ varint window size`, and for each
//! `varint key length ‖ key ‖ varint (window start / window size) ‖ varint (largest event time − window start) ‖ varint length ‖
//! aggregate (compact)`
//!
//! A **watermark**: no key. Value: `u8 2 ‖ varint source partition ‖ varint closed_through`. It says that no window ending at or
//! before closed_through changes any more from that source partition; it is cumulative, so sending one again does no harm.

use crate::record::{Partition, Timestamp};
use crate::varint;

/// The header's name. Its value is [`VERSION`].
pub(crate) const HEADER: &str = "mill";
/// The version of the layouts.
pub(crate) const VERSION: u8 = 1;

const PARTIALS: u8 = 1;
const WATERMARK: u8 = 2;

/// How large the value of a record grows: far below what brokers take, large enough that the record itself costs nothing.
const BLOCK_BYTES: usize = 64 << 10;

/// How much memory an empty block keeps for the next commit.
const KEPT_BYTES: usize = 1 << 10;

/// A value on the repartition topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    Partials(Partials<'a>),
    Watermark { source: Partition, closed_through: Timestamp },
}

/// The partial aggregates of a record, in order; none in place of one that cannot be read, and that is the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Partials<'a> {
    pub(crate) size_ms: i64,
    rest: &'a [u8],
}

/// The partial aggregate of one window for one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Partial<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) start: Timestamp,
    pub(crate) latest: Timestamp,
    /// The aggregate in its compact form.
    pub(crate) acc: &'a [u8],
}

impl<'a> Iterator for Partials<'a> {
    type Item = Option<Partial<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let partial = take_partial(self.size_ms, &mut self.rest);
        if partial.is_none() {
            self.rest = &[];
        }
        Some(partial)
    }
}

fn take_partial<'a>(size_ms: i64, bytes: &mut &'a [u8]) -> Option<Partial<'a>> {
    let key = take_bytes(bytes)?;
    let start = Timestamp(take_number(bytes)?.checked_mul(size_ms)?);
    let latest = Timestamp(start.0.checked_add(take_number(bytes)?)?);
    Some(Partial { key, start, latest, acc: take_bytes(bytes)? })
}

/// Partial aggregates on their way into one record.
#[derive(Debug, Default)]
pub(crate) struct Block {
    value: Vec<u8>,
    latest: Timestamp,
}

impl Block {
    /// Adds one; all of a block are of windows of that size.
    pub(crate) fn push(&mut self, size_ms: i64, partial: &Partial<'_>) {
        if self.value.is_empty() {
            self.value.push(PARTIALS);
            varint::put_unsigned(size_ms as u64, &mut self.value);
        }
        let into = &mut self.value;
        put_bytes(partial.key, into);
        varint::put_unsigned((partial.start.0 / size_ms) as u64, into);
        varint::put_unsigned((partial.latest.0 - partial.start.0) as u64, into);
        put_bytes(partial.acc, into);
        self.latest = self.latest.max(partial.latest);
    }

    /// Whether it is time to send it.
    pub(crate) fn is_full(&self) -> bool {
        self.value.len() >= BLOCK_BYTES
    }

    /// The record's value and timestamp; none where nothing was added.
    pub(crate) fn record(&self) -> Option<(&[u8], Timestamp)> {
        (!self.value.is_empty()).then_some((&self.value, self.latest))
    }

    pub(crate) fn clear(&mut self) {
        self.value.clear();
        self.latest = Timestamp::default();
    }

    /// The memory that it takes, empty or not.
    pub(crate) fn capacity(&self) -> usize {
        self.value.capacity()
    }

    /// Empties it, and gives back what only a large commit needs: there is a block for each pair of partitions.
    pub(crate) fn release(&mut self) {
        self.clear();
        self.value.shrink_to(KEPT_BYTES);
    }
}

pub(crate) fn encode_watermark(source: Partition, closed_through: Timestamp, into: &mut Vec<u8>) {
    into.push(WATERMARK);
    varint::put_unsigned(source.0.into(), into);
    varint::put_unsigned(closed_through.0 as u64, into);
}

/// Reads a value, or gives none where it is no such layout.
pub(crate) fn decode(mut bytes: &[u8]) -> Option<Message<'_>> {
    let bytes = &mut bytes;
    match take_byte(bytes)? {
        PARTIALS => {
            let size_ms = take_number(bytes).filter(|size_ms| *size_ms > 0)?;
            Some(Message::Partials(Partials { size_ms, rest: bytes }))
        }
        WATERMARK => {
            let source = Partition(u32::try_from(varint::take_unsigned(bytes)?).ok()?);
            let closed_through = Timestamp(take_number(bytes)?);
            bytes.is_empty().then_some(Message::Watermark { source, closed_through })
        }
        _ => None,
    }
}

fn take_byte(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}

/// A number that is not negative.
fn take_number(bytes: &mut &[u8]) -> Option<i64> {
    i64::try_from(varint::take_unsigned(bytes)?).ok()
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(varint::take_unsigned(bytes)?).ok()?;
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn put_bytes(bytes: &[u8], into: &mut Vec<u8>) {
    varint::put_unsigned(bytes.len() as u64, into);
    into.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(size_ms: i64, partials: &[Partial<'_>]) -> Vec<u8> {
        let mut block = Block::default();
        partials.iter().for_each(|partial| block.push(size_ms, partial));
        block.record().map(|(value, _)| value.to_vec()).unwrap_or_default()
    }

    #[test]
    fn the_layouts_stand() {
        let partial = |key, acc| Partial { key, start: Timestamp(300_000), latest: Timestamp(300_007), acc };
        let bytes = block(300_000, &[partial(b"ad", &[84]), partial(b"b", &[2])]);
        assert_eq!(bytes, [1, 0xe0, 0xa7, 0x12, 2, b'a', b'd', 1, 7, 1, 84, 1, b'b', 1, 7, 1, 2]);
        let mut bytes = Vec::new();
        encode_watermark(Partition(3), Timestamp(300_000), &mut bytes);
        assert_eq!(bytes, [2, 3, 0xe0, 0xa7, 0x12]);
    }

    #[test]
    fn a_block_has_the_largest_time_and_says_when_it_is_full() {
        let mut block = Block::default();
        assert_eq!(block.record(), None);
        let key = [7; 256];
        for latest in [20, 30, 10] {
            block.push(10, &Partial { key: &key, start: Timestamp(latest), latest: Timestamp(latest), acc: &[1] });
        }
        assert_eq!(block.record().map(|(_, latest)| latest), Some(Timestamp(30)));
        let more = (0..).take_while(|_| {
            block.push(10, &Partial { key: &key, start: Timestamp(0), latest: Timestamp(0), acc: &[1] });
            !block.is_full()
        });
        assert!((200..300).contains(&more.count()));
        block.clear();
        assert_eq!(block.record(), None);
    }

    #[test]
    fn a_block_gives_back_what_a_large_commit_needed() {
        let mut block = Block::default();
        while !block.is_full() {
            block.push(10, &Partial { key: &[7; 256], start: Timestamp(0), latest: Timestamp(0), acc: &[1] });
        }
        assert!(block.capacity() >= BLOCK_BYTES);
        block.release();
        assert!(block.capacity() <= KEPT_BYTES, "{}", block.capacity());
        assert_eq!(block.record(), None);
    }

    type Owned = (Vec<u8>, i64, i64, Vec<u8>);

    proptest! {
        #[test]
        fn messages_round_trip(
            size_ms in 1i64..1 << 30,
            partials in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..9), 0i64..1 << 30, 0i64..1 << 30, prop::collection::vec(any::<u8>(), 0..9)), 1..9,
            ),
            source in any::<u32>(), closed_through in 0i64..,
        ) {
            let partial = |(key, index, into_window, acc): &'_ Owned| -> (Vec<u8>, Timestamp, Timestamp, Vec<u8>) {
                (key.clone(), Timestamp(index * size_ms), Timestamp(index * size_ms + into_window % size_ms), acc.clone())
            };
            let owned: Vec<_> = partials.iter().map(partial).collect();
            let partials: Vec<_> =
                owned.iter().map(|(key, start, latest, acc)| Partial { key, start: *start, latest: *latest, acc }).collect();
            let bytes = block(size_ms, &partials);
            let Some(Message::Partials(found)) = decode(&bytes) else { panic!("a block") };
            prop_assert_eq!(found.size_ms, size_ms);
            prop_assert_eq!(found.collect::<Vec<_>>(), partials.into_iter().map(Some).collect::<Vec<_>>());

            let mut bytes = Vec::new();
            encode_watermark(Partition(source), Timestamp(closed_through), &mut bytes);
            let watermark = Message::Watermark { source: Partition(source), closed_through: Timestamp(closed_through) };
            prop_assert_eq!(decode(&bytes), Some(watermark));
        }

        #[test]
        fn random_bytes_never_panic_and_end(mut bytes in prop::collection::vec(any::<u8>(), 0..40), is_block in any::<bool>()) {
            if is_block {
                bytes.insert(0, PARTIALS);
            }
            if let Some(Message::Partials(partials)) = decode(&bytes) {
                let read: Vec<_> = partials.collect();
                prop_assert!(read.len() <= bytes.len());
                prop_assert!(read.iter().rev().skip(1).all(Option::is_some), "what cannot be read is the last");
            }
        }
    }
}
