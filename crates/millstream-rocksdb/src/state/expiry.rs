//! Giving the room of deleted ranges back at once.
//!
//! A range tombstone hides its rows, but they are read and rewritten until compactions have met the tombstone at every level.
//! Files that lie in the range whole can be dropped instead. Not at once, though: a file is gone for good, whereas
//! the tombstone is in memory until it is flushed, and a snapshot may still read what the tombstone hides. And not where a
//! row was written to the range since: it may lie in such a file.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Ranges deleted by tombstones whose files can be dropped later.
#[derive(Debug, Default)]
pub(super) struct DeletedRanges {
    waiting: Mutex<Vec<DeletedRange>>,
}

/// A range of rows that a tombstone hides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeletedRange {
    pub(super) from: Vec<u8>,
    /// Excluded.
    pub(super) to: Vec<u8>,
    /// Snapshots from this sequence number on see the tombstone.
    pub(super) sequence: u64,
}

impl DeletedRanges {
    pub(super) fn add(&self, range: DeletedRange) {
        self.lock().push(range);
    }

    /// Leaves the ranges that hold this key to compactions.
    pub(super) fn forget(&self, key: &[u8]) {
        self.lock().retain(|range| !(range.from.as_slice()..range.to.as_slice()).contains(&key));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// The sequence number of the last tombstone; 0 without any.
    pub(super) fn newest(&self) -> u64 {
        self.lock().iter().map(|range| range.sequence).max().unwrap_or(0)
    }

    /// Takes the ranges whose tombstones were written up to `flushed` and are seen by a snapshot of `oldest_snapshot`.
    pub(super) fn take(&self, flushed: u64, oldest_snapshot: Option<u64>) -> Vec<DeletedRange> {
        let visible_to_all = oldest_snapshot.unwrap_or(u64::MAX);
        self.lock().extract_if(.., |range| range.sequence <= flushed && range.sequence <= visible_to_all).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<DeletedRange>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key before `key` such that few keys lie between; none for the first of all keys. RocksDB drops files up to and including
/// the end of a range, ours exclude it.
pub(super) fn key_before(key: &[u8]) -> Option<Vec<u8>> {
    let (&last, start) = key.split_last()?;
    let mut before = start.to_vec();
    if last > 0 {
        before.push(last - 1);
        before.extend_from_slice(&[u8::MAX; 8]);
    }
    Some(before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_key_before_is_smaller(key in prop::collection::vec(any::<u8>(), 1..12)) {
            prop_assert!(key_before(&key).expect("not the first key") < key);
        }
    }

    #[test]
    fn a_range_waits_for_its_flush_and_for_older_snapshots() {
        let ranges = DeletedRanges::default();
        let range = DeletedRange { from: vec![0], to: vec![1], sequence: 5 };
        ranges.add(range.clone());
        assert!(ranges.take(4, None).is_empty());
        assert!(ranges.take(9, Some(4)).is_empty());
        assert_eq!(ranges.take(5, Some(5)), [range]);
        assert!(ranges.is_empty());
    }

    #[test]
    fn a_range_written_to_is_forgotten() {
        let ranges = DeletedRanges::default();
        ranges.add(DeletedRange { from: vec![1], to: vec![3], sequence: 5 });
        ranges.forget(&[0, 255]);
        ranges.forget(&[3]);
        assert_eq!(ranges.newest(), 5);
        ranges.forget(&[2, 7]);
        assert!(ranges.is_empty());
    }
}
