//! What travels on the repartition topic. Every record of ours carries the header [`HEADER`]; one without it was written by
//! Kafka Streams and is one event.
//!
//! A **partial aggregate**: the record's key is the grouping key, its timestamp the largest event time. Value:
//! `u8 1 ‖ varint window start ‖ varint window size ‖ varint (largest event time − window start) ‖ aggregate (compact)`
//!
//! A **watermark**: no key. Value: `u8 2 ‖ varint source partition ‖ varint closed_through`. It says that no window ending at or
//! before closed_through changes any more from that source partition; it is cumulative, so sending one again does no harm.

use crate::record::{Partition, Timestamp};
use crate::varint;

/// The header's name. Its value is [`VERSION`].
pub(crate) const HEADER: &str = "mill";
/// The version of the layouts.
pub(crate) const VERSION: u8 = 1;

const PARTIAL: u8 = 1;
const WATERMARK: u8 = 2;

/// A value on the repartition topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    Partial(Partial<'a>),
    Watermark { source: Partition, closed_through: Timestamp },
}

/// The partial aggregate of one window for the record's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Partial<'a> {
    pub(crate) start: Timestamp,
    pub(crate) size_ms: i64,
    pub(crate) latest: Timestamp,
    /// The aggregate in its compact form.
    pub(crate) acc: &'a [u8],
}

/// Appends everything of a partial aggregate but the aggregate itself, which goes right behind.
pub(crate) fn encode_partial_head(start: Timestamp, size_ms: i64, latest: Timestamp, into: &mut Vec<u8>) {
    into.push(PARTIAL);
    varint::put_unsigned(start.0 as u64, into);
    varint::put_unsigned(size_ms as u64, into);
    varint::put_unsigned((latest.0 - start.0) as u64, into);
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
        PARTIAL => {
            let start = take_time(bytes)?;
            let size_ms = i64::try_from(varint::take_unsigned(bytes)?).ok()?;
            let into_window = i64::try_from(varint::take_unsigned(bytes)?).ok()?;
            let latest = Timestamp(start.0.checked_add(into_window)?);
            Some(Message::Partial(Partial { start, size_ms, latest, acc: bytes }))
        }
        WATERMARK => {
            let source = Partition(u32::try_from(varint::take_unsigned(bytes)?).ok()?);
            let closed_through = take_time(bytes)?;
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

fn take_time(bytes: &mut &[u8]) -> Option<Timestamp> {
    Some(Timestamp(i64::try_from(varint::take_unsigned(bytes)?).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_layouts_stand() {
        let mut bytes = Vec::new();
        encode_partial_head(Timestamp(300_000), 300_000, Timestamp(300_007), &mut bytes);
        bytes.push(84);
        assert_eq!(bytes, [1, 0xe0, 0xa7, 0x12, 0xe0, 0xa7, 0x12, 7, 84]);
        bytes.clear();
        encode_watermark(Partition(3), Timestamp(300_000), &mut bytes);
        assert_eq!(bytes, [2, 3, 0xe0, 0xa7, 0x12]);
    }

    proptest! {
        #[test]
        fn messages_round_trip(
            start in 0i64..1 << 50, size_ms in 1i64..1 << 40, into_window in 0i64..1 << 40,
            acc in prop::collection::vec(any::<u8>(), 0..12), source in any::<u32>(),
        ) {
            let mut bytes = Vec::new();
            encode_partial_head(Timestamp(start), size_ms, Timestamp(start + into_window), &mut bytes);
            bytes.extend_from_slice(&acc);
            let partial = Partial { start: Timestamp(start), size_ms, latest: Timestamp(start + into_window), acc: &acc };
            prop_assert_eq!(decode(&bytes), Some(Message::Partial(partial)));

            let mut bytes = Vec::new();
            encode_watermark(Partition(source), Timestamp(start), &mut bytes);
            let watermark = Message::Watermark { source: Partition(source), closed_through: Timestamp(start) };
            prop_assert_eq!(decode(&bytes), Some(watermark));
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode(&bytes);
        }
    }
}
