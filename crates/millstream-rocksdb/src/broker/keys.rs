//! The keys of record batches: `u32 topic ‖ u32 partition ‖ i64 last offset`, big-endian, so that a log is one range in offset
//! order and the batch that holds an offset is the first at or after it.

use millstream::broker::local::LogId;
use millstream::record::Offset;

const LAST_AT: usize = 8;

/// The key of the batch of that log whose last offset that is. A negative offset counts as 0.
pub(super) fn batch_key(log: LogId, last: Offset) -> [u8; 16] {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&log.topic.to_be_bytes());
    key[4..LAST_AT].copy_from_slice(&log.partition.0.to_be_bytes());
    key[LAST_AT..].copy_from_slice(&last.0.max(0).to_be_bytes());
    key
}

/// The last offset in a key, or none where it is not a key of ours.
pub(super) fn last_offset(key: &[u8]) -> Option<Offset> {
    let last: [u8; 8] = key.get(LAST_AT..)?.try_into().ok()?;
    Some(Offset(i64::from_be_bytes(last)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream::record::Partition;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_sort_as_logs_and_offsets_do(a in any::<(u32, u32)>(), b in any::<(u32, u32)>(), x in 0..i64::MAX, y in 0..i64::MAX) {
            let log = |(topic, partition)| LogId { topic, partition: Partition(partition) };
            let ((first, second), (x, y)) = ((log(a), log(b)), (Offset(x), Offset(y)));
            prop_assert_eq!(batch_key(first, x).cmp(&batch_key(second, y)), (first, x).cmp(&(second, y)));
            prop_assert_eq!(batch_key(first, x).cmp(&batch_key(first, y)), x.cmp(&y));
            prop_assert_eq!(last_offset(&batch_key(first, x)), Some(x));
        }
    }
}
