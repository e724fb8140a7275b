//! A state store on one RocksDB instance.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millstream::store::{Space, StateStore, StoreBatch, StoreChange, StoreError, StoreErrorKind, StoreSnapshot};
use rocksdb::{ErrorKind, FlushOptions, ReadOptions, WaitForCompactOptions, WriteBatch, WriteOptions, properties};
use tracing::warn;

use super::database::{Database, SPACES};
use super::expiry::{DeletedRange, DeletedRanges, key_before};
use super::options::LEVEL0_FILES_TO_STOP;
use super::provider::Registration;
use super::snapshot::RocksSnapshot;
use crate::memory::MemoryBudget;

/// How long a call that has to wait for flushes or compactions waits before it looks again.
const STALL_CHECK_MICROS: u64 = 100_000;

/// How often it looks before it gives up: half a minute.
const STALL_CHECKS: u32 = 300;

/// Below this, flushing a store's memtable would make a tiny file and free nothing worth having.
const LEAST_MEMTABLE_TO_FLUSH: u64 = 1 << 20;

/// A [`StateStore`] on a RocksDB instance of its own, which closes when the store is dropped.
pub struct RocksStore {
    // Dropped first: nobody else may hold the database when it closes.
    _registration: Registration,
    inner: Arc<StoreInner>,
}

impl RocksStore {
    pub(super) fn new(inner: Arc<StoreInner>, registration: Registration) -> Self {
        Self { _registration: registration, inner }
    }
}

impl Drop for RocksStore {
    /// A store that is closed in order holds everything when it opens again. RocksDB flushes on closing too, but does not wait for
    /// a flush that it is in the middle of.
    fn drop(&mut self) {
        if let Err(e) = self.inner.flush() {
            warn!(error = %e, "a store was closed without its last writes, which its changelog holds");
        }
    }
}

impl StateStore for RocksStore {
    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.inner.database.multi_get(keys, &ReadOptions::default())
    }

    fn write(&self, batch: &StoreBatch) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.inner.keep_memory_bound()?;
        self.inner.forget_ranges_written_to(batch);
        self.inner.write_or_report(batch)?;
        self.inner.note_deleted_ranges(batch);
        self.inner.drop_deleted_files();
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.inner.flush()?;
        self.inner.drop_deleted_files();
        Ok(())
    }

    fn snapshot(&self) -> Box<dyn StoreSnapshot + '_> {
        Box::new(RocksSnapshot::new(&self.inner.database))
    }
}

/// What a store is made of, shared with the statistics of its provider.
pub(super) struct StoreInner {
    pub(super) database: Database,
    budget: MemoryBudget,
    write_options: WriteOptions,
    deleted_ranges: DeletedRanges,
    /// The sequence number up to which a flush was asked for.
    flush_requested: AtomicU64,
    /// The sequence number up to which everything is in files.
    flushed_through: AtomicU64,
    stalls: AtomicU64,
}

impl StoreInner {
    pub(super) fn new(database: Database, budget: MemoryBudget) -> Self {
        let mut write_options = WriteOptions::default();
        write_options.disable_wal(true);
        // RocksDB would wait for a flush that a full disk keeps from ending. The store waits instead, and sees why.
        write_options.set_no_slowdown(true);
        Self {
            database,
            budget,
            write_options,
            deleted_ranges: DeletedRanges::default(),
            flush_requested: AtomicU64::new(0),
            flushed_through: AtomicU64::new(0),
            stalls: AtomicU64::new(0),
        }
    }

    /// How often a call had to wait for flushes or compactions.
    pub(super) fn stalls(&self) -> u64 {
        self.stalls.load(Ordering::Relaxed)
    }

    fn write_or_report(&self, batch: &StoreBatch) -> Result<(), StoreError> {
        for _ in 0..STALL_CHECKS {
            match self.database.rocksdb().write_opt(self.encode(batch)?, &self.write_options) {
                Ok(()) => return Ok(()),
                Err(stalled) if stalled.kind() == ErrorKind::Incomplete => self.wait_for_background_work()?,
                Err(e) => return Err(self.database.error("write", &e)),
            }
        }
        Err(self.stalled())
    }

    fn encode(&self, batch: &StoreBatch) -> Result<WriteBatch, StoreError> {
        let mut encoded = WriteBatch::default();
        for change in batch.iter() {
            match change {
                StoreChange::Put(space, key, value) => encoded.put_cf(self.database.family(space)?, key, value),
                StoreChange::Delete(space, key) => encoded.delete_cf(self.database.family(space)?, key),
                StoreChange::DeleteRange(space, from, to) if from < to => {
                    encoded.delete_range_cf(self.database.family(space)?, from, to);
                }
                StoreChange::DeleteRange(..) => {}
            }
        }
        Ok(encoded)
    }

    /// Flushes this store where all stores together hold too much in memtables.
    fn keep_memory_bound(&self) -> Result<(), StoreError> {
        if !self.budget.memtables_must_be_flushed() {
            return Ok(());
        }
        if self.database.property_of_all(properties::CUR_SIZE_ALL_MEM_TABLES)? < LEAST_MEMTABLE_TO_FLUSH {
            return Ok(());
        }
        self.stalls.fetch_add(1, Ordering::Relaxed);
        self.flush()
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.refuse_while_stopped()?;
        self.wait_for_room_in_level0()?;
        let sequence = self.database.rocksdb().latest_sequence_number();
        self.flush_families(&FlushOptions::default())?;
        self.flush_requested.fetch_max(sequence, Ordering::AcqRel);
        self.flushed_through.fetch_max(sequence, Ordering::AcqRel);
        Ok(())
    }

    fn flush_families(&self, options: &FlushOptions) -> Result<(), StoreError> {
        // All of them, or what is derived could be on disk without the rows that it was made of.
        let [rows, meta, derived] = SPACES.map(|space| self.database.family(space));
        let flushed = self.database.rocksdb().flush_cfs_opt(&[&rows?, &meta?, &derived?], options);
        flushed.map_err(|e| self.database.error("flush", &e))
    }

    /// After a flush that failed, RocksDB goes on by itself: it tries again until there is room. A flush asked for meanwhile fails
    /// too, but is queued all the same and holds the recovery up for a second. An empty write tells without doing harm.
    fn refuse_while_stopped(&self) -> Result<(), StoreError> {
        match self.database.rocksdb().write_opt(WriteBatch::default(), &self.write_options) {
            Err(e) if e.kind() != ErrorKind::Incomplete => Err(self.database.error("flush", &e)),
            _ => Ok(()),
        }
    }

    /// A flush that would stop writes waits for compactions, and on a full disk for ever.
    fn wait_for_room_in_level0(&self) -> Result<(), StoreError> {
        for _ in 0..STALL_CHECKS {
            let files = SPACES.into_iter().map(|space| self.database.level0_files(space)).collect::<Result<Vec<_>, _>>()?;
            if files.into_iter().all(|files| files + 1 < LEVEL0_FILES_TO_STOP) {
                return Ok(());
            }
            self.wait_for_background_work()?;
        }
        Err(self.stalled())
    }

    /// Waits until flushes and compactions are done, a short while at most.
    fn wait_for_background_work(&self) -> Result<(), StoreError> {
        self.stalls.fetch_add(1, Ordering::Relaxed);
        let mut options = WaitForCompactOptions::default();
        options.set_timeout(STALL_CHECK_MICROS);
        match self.database.rocksdb().wait_for_compact(&options) {
            Err(e) if e.kind() != ErrorKind::TimedOut => Err(self.database.error("flush or compact", &e)),
            _ => Ok(()),
        }
    }

    fn stalled(&self) -> StoreError {
        let message = format!("store in {}: flushes and compactions do not keep up", self.database.dir().display());
        StoreError::new(StoreErrorKind::Retry, message)
    }

    /// A file of a deleted range may hold rows that were written after the deletion.
    fn forget_ranges_written_to(&self, batch: &StoreBatch) {
        if self.deleted_ranges.is_empty() {
            return;
        }
        for change in batch.iter() {
            if let StoreChange::Put(Space::Rows, key, _) = change {
                self.deleted_ranges.forget(key);
            }
        }
    }

    fn note_deleted_ranges(&self, batch: &StoreBatch) {
        let sequence = self.database.rocksdb().latest_sequence_number();
        let mut noted = false;
        for change in batch.iter() {
            match change {
                StoreChange::DeleteRange(Space::Rows, from, to) => {
                    self.deleted_ranges.add(DeletedRange { from: from.to_vec(), to: to.to_vec(), sequence });
                    noted = true;
                }
                StoreChange::Put(Space::Rows, key, _) if noted => self.deleted_ranges.forget(key),
                _ => {}
            }
        }
    }

    /// Drops the files of deleted ranges as far as that can be done now. A failure changes nothing that can be read, so it is
    /// tried again after the next write or flush.
    fn drop_deleted_files(&self) {
        if self.deleted_ranges.is_empty() {
            return;
        }
        if let Err(e) = self.try_drop_deleted_files() {
            warn!(error = %e, "the room of deleted rows is given back later");
        }
    }

    fn try_drop_deleted_files(&self) -> Result<(), StoreError> {
        self.flush_tombstones_in_background()?;
        let oldest_snapshot = self.database.property(Space::Rows, c"rocksdb.oldest-snapshot-sequence")?;
        let oldest_snapshot = (oldest_snapshot > 0).then_some(oldest_snapshot);
        let rows = self.database.family(Space::Rows)?;
        for range in self.deleted_ranges.take(self.flushed_through.load(Ordering::Acquire), oldest_snapshot) {
            let Some(last) = key_before(&range.to).filter(|last| *last >= range.from) else { continue };
            let dropped = self.database.rocksdb().delete_file_in_range_cf(rows, &range.from, &last);
            dropped.map_err(|e| self.database.error("drop files", &e))?;
        }
        Ok(())
    }

    fn flush_tombstones_in_background(&self) -> Result<(), StoreError> {
        let newest = self.deleted_ranges.newest();
        if newest > self.flush_requested.load(Ordering::Acquire) {
            self.refuse_while_stopped()?;
            let sequence = self.database.rocksdb().latest_sequence_number();
            let mut options = FlushOptions::default();
            options.set_wait(false);
            self.flush_families(&options)?;
            self.flush_requested.fetch_max(sequence, Ordering::AcqRel);
        }
        if self.database.property_of_all(properties::NUM_IMMUTABLE_MEM_TABLE)? == 0 {
            self.flushed_through.fetch_max(self.flush_requested.load(Ordering::Acquire), Ordering::AcqRel);
        }
        Ok(())
    }
}
