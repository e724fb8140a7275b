//! Giving the room of deleted ranges back at once.
//!
//! A range tombstone hides its rows, but they are read and rewritten until compactions have met the tombstone at every level.
//! Files that lie in the range whole can be dropped instead. Not at once, though: a file is gone for good, whereas
//! the tombstone is in memory until it is flushed, and a snapshot may still read what the tombstone hides. And not where a
//! row was written to the range since: it may lie in such a file.
//!
//! Dropping files syncs the manifest, so a store's flusher does it, beside whoever writes to the store.

use std::sync::{Mutex, MutexGuard, PoisonError};

use millstream::store::{Space, StoreBatch, StoreChange};

/// Ranges deleted by tombstones whose files can be dropped later.
#[derive(Debug, Default)]
pub(super) struct DeletedRanges {
    ranges: Mutex<Ranges>,
}

#[derive(Debug, Default)]
struct Ranges {
    waiting: Vec<DeletedRange>,
    /// Those whose files are being dropped: no row may get into such a file now.
    dropping: Vec<DeletedRange>,
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

impl DeletedRange {
    fn holds(&self, key: &[u8]) -> bool {
        (self.from.as_slice()..self.to.as_slice()).contains(&key)
    }
}

impl DeletedRanges {
    /// Before the batch is written: leaves the ranges that it writes rows to to compactions. False where files of such a range are being
    /// dropped, and it cannot be written now.
    pub(super) fn make_way_for(&self, batch: &StoreBatch) -> bool {
        let mut ranges = self.lock();
        // Commits write behind what has expired: one comparison for each row.
        let Some(end) = ranges.waiting.iter().chain(&ranges.dropping).map(|range| range.to.clone()).max() else { return true };
        for key in batch.iter().filter_map(written_row).filter(|key| *key < end.as_slice()) {
            if ranges.dropping.iter().any(|range| range.holds(key)) {
                return false;
            }
            ranges.waiting.retain(|range| !range.holds(key));
        }
        true
    }

    /// After the batch was written, up to `sequence`: notes the ranges that it deletes, but for those that it writes rows to afterwards. Says
    /// whether there are any.
    pub(super) fn note(&self, batch: &StoreBatch, sequence: u64) -> bool {
        let mut deleted: Vec<DeletedRange> = Vec::new();
        for change in batch.iter() {
            if let StoreChange::DeleteRange(Space::Rows, from, to) = change {
                deleted.push(DeletedRange { from: from.to_vec(), to: to.to_vec(), sequence });
            } else if let Some(key) = written_row(change) {
                deleted.retain(|range| !range.holds(key));
            }
        }
        let has_any = !deleted.is_empty();
        if has_any {
            self.lock().waiting.extend(deleted);
        }
        has_any
    }

    /// Whether no range waits.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    /// The sequence number of the last tombstone; 0 without any.
    pub(super) fn newest(&self) -> u64 {
        self.lock().waiting.iter().map(|range| range.sequence).max().unwrap_or(0)
    }

    /// Drops the files of the ranges whose tombstones were written up to `flushed` and are seen by a snapshot of `oldest_snapshot`.
    /// Meanwhile no row is written to them. After a failure they wait again.
    pub(super) fn drop_files<E>(
        &self,
        flushed: u64,
        oldest_snapshot: Option<u64>,
        mut drop_files_of: impl FnMut(&DeletedRange) -> Result<(), E>,
    ) -> Result<(), E> {
        let visible_to_all = oldest_snapshot.unwrap_or(u64::MAX);
        let mut ranges = self.lock();
        if !ranges.dropping.is_empty() {
            // Somebody else is at it.
            return Ok(());
        }
        let ready: Vec<_> =
            ranges.waiting.extract_if(.., |range| range.sequence <= flushed && range.sequence <= visible_to_all).collect();
        ranges.dropping.clone_from(&ready);
        drop(ranges);
        let dropped = ready.iter().try_for_each(&mut drop_files_of);
        let mut ranges = self.lock();
        ranges.dropping.clear();
        if dropped.is_err() {
            ranges.waiting.extend(ready);
        }
        dropped
    }

    fn lock(&self) -> MutexGuard<'_, Ranges> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn written_row(change: StoreChange<'_>) -> Option<&[u8]> {
    match change {
        StoreChange::Put(Space::Rows, key, _) => Some(key),
        _ => None,
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

    fn deleted(from: u8, to: u8, sequence: u64) -> DeletedRanges {
        let ranges = DeletedRanges::default();
        let mut batch = StoreBatch::new();
        batch.delete_range(Space::Rows, &[from], &[to]);
        assert!(ranges.note(&batch, sequence));
        ranges
    }

    fn put(key: &[u8]) -> StoreBatch {
        let mut batch = StoreBatch::new();
        batch.put(Space::Rows, key, b"row");
        batch
    }

    fn dropped(ranges: &DeletedRanges, flushed: u64, oldest_snapshot: Option<u64>) -> Vec<DeletedRange> {
        let mut dropped = Vec::new();
        let outcome: Result<(), ()> = ranges.drop_files(flushed, oldest_snapshot, |range| {
            dropped.push(range.clone());
            Ok(())
        });
        assert_eq!(outcome, Ok(()));
        dropped
    }

    #[test]
    fn a_range_waits_for_its_flush_and_for_older_snapshots() {
        let ranges = deleted(0, 1, 5);
        assert!(dropped(&ranges, 4, None).is_empty());
        assert!(dropped(&ranges, 9, Some(4)).is_empty());
        assert_eq!(dropped(&ranges, 5, Some(5)), [DeletedRange { from: vec![0], to: vec![1], sequence: 5 }]);
        assert!(ranges.is_empty());
    }

    #[test]
    fn a_range_written_to_is_forgotten() {
        let ranges = deleted(1, 3, 5);
        assert!(ranges.make_way_for(&put(&[0, 255])));
        assert!(ranges.make_way_for(&put(&[3])));
        assert_eq!(ranges.newest(), 5);
        assert!(ranges.make_way_for(&put(&[2, 7])));
        assert!(ranges.is_empty());
    }

    #[test]
    fn a_range_that_the_same_batch_writes_to_is_not_noted() {
        let ranges = DeletedRanges::default();
        let mut batch = StoreBatch::new();
        batch.delete_range(Space::Rows, &[1], &[3]);
        batch.put(Space::Rows, &[2], b"row");
        assert!(!ranges.note(&batch, 5));
        assert!(ranges.is_empty());
    }

    #[test]
    fn nothing_is_written_to_a_range_whose_files_are_being_dropped() {
        let ranges = deleted(1, 3, 5);
        let outcome: Result<(), ()> = ranges.drop_files(5, None, |_| {
            assert!(!ranges.make_way_for(&put(&[2])));
            assert!(ranges.make_way_for(&put(&[3])));
            Ok(())
        });
        assert_eq!(outcome, Ok(()));
        assert!(ranges.make_way_for(&put(&[2])));
    }
}
