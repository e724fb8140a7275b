//! State of partitions that others count now. It is kept for a while, for they may come back, and then deleted: the changelog has it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use millstream::record::{Partition, Timestamp};
use millstream::store::{StoreError, StoreProvider};
use millstream_rocksdb::state::RocksStores;

use super::topology::STORE;

/// Since when the state of each partition has not been used.
#[derive(Debug, Default)]
pub(super) struct UnusedState {
    since: BTreeMap<Partition, Timestamp>,
}

impl UnusedState {
    /// Deletes what has not been used for `delay`, which makes room once for all. `used` are the partitions with a task here.
    ///
    /// # Errors
    /// What could not be listed or deleted, which is tried again with the next call. Where a task has just come and opened its store,
    /// that is no error but a state in use.
    pub(super) fn delete(
        &mut self,
        stores: &RocksStores,
        used: &BTreeSet<Partition>,
        now: Timestamp,
        delay: Duration,
    ) -> Result<(), StoreError> {
        let unused: BTreeSet<_> = stores.partitions(STORE)?.into_iter().filter(|partition| !used.contains(partition)).collect();
        self.since.retain(|partition, _| unused.contains(partition));
        for partition in unused {
            let since = *self.since.entry(partition).or_insert(now);
            if now.0.saturating_sub(since.0) >= i64::try_from(delay.as_millis()).unwrap_or(i64::MAX) {
                stores.destroy(STORE, partition)?;
                self.since.remove(&partition);
                tracing::info!(store = STORE, %partition, "state that was not used any more is deleted");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_rocksdb::memory::MemoryBudget;
    use millstream_rocksdb::state::RocksDbOptions;

    #[test]
    fn state_goes_when_it_was_not_used_for_the_delay_and_not_before() {
        let dir = tempfile::tempdir().expect("a directory");
        let stores = RocksStores::new(dir.path(), MemoryBudget::new(32 << 20), RocksDbOptions::default()).expect("options");
        for partition in [0, 1, 2] {
            stores.open(STORE, Partition(partition)).expect("opened");
        }
        let mut state = UnusedState::default();
        let mut left_at = |seconds: i64, used: &[u32]| {
            let used = used.iter().copied().map(Partition).collect();
            state.delete(&stores, &used, Timestamp(seconds * 1_000), Duration::from_secs(10)).expect("deleted");
            stores.partitions(STORE).expect("listed").into_iter().map(|partition| partition.0).collect::<Vec<_>>()
        };
        assert_eq!(left_at(0, &[0, 1]), [0, 1, 2]);
        assert_eq!(left_at(9, &[0]), [0, 1, 2]);
        assert_eq!(left_at(10, &[0, 1]), [0, 1], "partition 2 has not been used for ten seconds");
        assert_eq!(left_at(11, &[0]), [0, 1], "partition 1 was used a second ago");
        assert_eq!(left_at(20, &[0]), [0, 1]);
        assert_eq!(left_at(21, &[0]), [0]);
    }
}
