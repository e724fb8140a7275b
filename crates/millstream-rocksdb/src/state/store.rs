//! A state store on one RocksDB instance.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millstream::store::{Space, StateStore, StoreBatch, StoreChange, StoreError, StoreErrorKind, StoreSnapshot};
use rocksdb::{ErrorKind, FlushOptions, ReadOptions, WaitForCompactOptions, WriteBatch, WriteOptions, properties};
use tracing::warn;

use super::database::{Database, SPACES};
use super::expiry::{DeletedRanges, key_before};
use super::flusher::{Flusher, Requests};
use super::open_stores::Registration;
use super::options::LEVEL0_FILES_TO_STOP;
use super::snapshot::RocksSnapshot;
use crate::memory::MemoryBudget;

/// How long a call that has to wait for flushes or compactions waits before it looks again.
const STALL_CHECK: Duration = Duration::from_millis(100);

/// As [`STALL_CHECK`], where memtables of all stores hold too much: RocksDB tells nobody when it has flushed some.
const MEMORY_CHECK: Duration = Duration::from_millis(10);

/// How long a restore waits before it gives up.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A [`StateStore`] on a RocksDB instance of its own, which closes when the store is dropped.
pub struct RocksStore {
    // Dropped first: nobody else may hold the database when it closes.
    _registration: Registration,
    inner: Arc<StoreInner>,
    _flusher: Arc<Flusher>,
}

impl RocksStore {
    pub(super) fn new(registration: Registration, inner: Arc<StoreInner>, flusher: Arc<Flusher>) -> Self {
        Self { _registration: registration, inner, _flusher: flusher }
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
        match self.inner.write(batch, Writer::Counting)? {
            None => Ok(()),
            Some(stall) => Err(self.inner.stalled(stall)),
        }
    }

    fn write_waiting(&self, batch: &StoreBatch) -> Result<(), StoreError> {
        let began = Instant::now();
        while let Some(stall) = self.inner.write(batch, Writer::Restoring)? {
            if began.elapsed() >= LONGEST_WAIT {
                return Err(self.inner.stalled(stall));
            }
            self.inner.wait_out(stall)?;
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.inner.flush()?;
        if let Err(e) = self.inner.drop_deleted_files() {
            // Nothing that can be read has changed.
            warn!(error = %e, "the room of deleted rows is given back later");
        }
        Ok(())
    }

    fn snapshot(&self) -> Box<dyn StoreSnapshot + '_> {
        Box::new(RocksSnapshot::new(&self.inner.database))
    }
}

/// Who writes to a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    Counting,
    /// Leaves some of the room in memtables to those who count.
    Restoring,
}

/// Why a write would have to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stall {
    /// The memtables of all stores hold too much.
    Memory,
    /// This store's flushes or compactions do not keep up.
    Stopped,
    /// Files that the rows would get into are being dropped.
    Dropping,
}

/// What a store is made of, shared with the statistics of its provider and with the flusher.
pub(super) struct StoreInner {
    pub(super) database: Database,
    budget: MemoryBudget,
    requests: Arc<Requests>,
    write_options: WriteOptions,
    deleted_ranges: DeletedRanges,
    /// The sequence number up to which everything is in files, as far as was flushed here.
    flushed_through: AtomicU64,
    stalls: AtomicU64,
}

impl StoreInner {
    pub(super) fn new(database: Database, budget: MemoryBudget, requests: Arc<Requests>) -> Self {
        let mut write_options = WriteOptions::default();
        write_options.disable_wal(true);
        // RocksDB would wait, for a flush that a full disk keeps from ending too.
        write_options.set_no_slowdown(true);
        let (flushed_through, stalls) = Default::default();
        Self { database, budget, requests, write_options, deleted_ranges: DeletedRanges::default(), flushed_through, stalls }
    }

    /// How often a call had to wait for flushes or compactions, or was refused because of them.
    pub(super) fn stalls(&self) -> u64 {
        self.stalls.load(Ordering::Relaxed)
    }

    /// Writes without waiting for anything. Gives why it would have to wait, if it would: then nothing was written.
    fn write(&self, batch: &StoreBatch, writer: Writer) -> Result<Option<Stall>, StoreError> {
        if batch.is_empty() {
            return Ok(None);
        }
        if self.has_to_leave_room(writer)? {
            self.requests.ask_for_memory();
            return self.stall(Stall::Memory);
        }
        if !self.deleted_ranges.make_way_for(batch) {
            return self.stall(Stall::Dropping);
        }
        match self.database.rocksdb().write_opt(self.encode(batch)?, &self.write_options) {
            Ok(()) => {}
            Err(stopped) if stopped.kind() == ErrorKind::Incomplete => return self.stall(Stall::Stopped),
            Err(e) => return Err(self.database.error("write", &e)),
        }
        if self.deleted_ranges.note(batch, self.database.rocksdb().latest_sequence_number()) {
            self.requests.ask_for_expiry();
        }
        Ok(None)
    }

    /// Whether all stores together hold so much in memtables that this one may not write.
    fn has_to_leave_room(&self, writer: Writer) -> Result<bool, StoreError> {
        let is_short = match writer {
            Writer::Counting => self.budget.memtables_are_full(),
            Writer::Restoring => self.budget.memtables_are_scarce(),
        };
        // A store that has nothing in memory always may: where the others are empty as well, nobody can make room.
        Ok(is_short && !self.has_empty_memtables()?)
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

    /// A stall, unless it has a cause that RocksDB can tell, as a full disk.
    fn stall(&self, stall: Stall) -> Result<Option<Stall>, StoreError> {
        self.stalls.fetch_add(1, Ordering::Relaxed);
        self.wait_for_background_work(Duration::from_micros(1))?;
        Ok(Some(stall))
    }

    fn stalled(&self, stall: Stall) -> StoreError {
        let reason = match stall {
            Stall::Memory => "memtables hold as much as they may, flushes do not keep up",
            Stall::Stopped => "flushes and compactions do not keep up",
            Stall::Dropping => "files of the rows that it writes are being dropped",
        };
        StoreError::new(StoreErrorKind::Retry, format!("store in {}: cannot write now: {reason}", self.database.dir().display()))
    }

    fn wait_out(&self, stall: Stall) -> Result<(), StoreError> {
        match stall {
            Stall::Stopped => {
                self.wait_for_background_work(STALL_CHECK)?;
                // It is over at once where nothing is under way yet.
                self.requests.wait_for_flush(Duration::from_millis(1));
                Ok(())
            }
            Stall::Memory | Stall::Dropping => {
                self.requests.wait_for_flush(MEMORY_CHECK);
                Ok(())
            }
        }
    }

    /// Waits until flushes and compactions are done, a short while at most.
    fn wait_for_background_work(&self, most: Duration) -> Result<(), StoreError> {
        let mut options = WaitForCompactOptions::default();
        options.set_timeout(most.as_micros() as u64);
        match self.database.rocksdb().wait_for_compact(&options) {
            Err(e) if e.kind() != ErrorKind::TimedOut => Err(self.database.error("flush or compact", &e)),
            _ => Ok(()),
        }
    }

    /// Flushes, and waits for what has to come before.
    fn flush(&self) -> Result<(), StoreError> {
        self.refuse_while_stopped()?;
        self.wait_for_room_in_level0()?;
        self.flush_families()
    }

    /// Flushes if that has to wait for nothing but the disk, and says whether it did.
    pub(super) fn flush_if_free(&self) -> Result<bool, StoreError> {
        self.refuse_while_stopped()?;
        let is_free = self.database.property_of_all(properties::NUM_IMMUTABLE_MEM_TABLE)? == 0 && self.has_room_in_level0()?;
        if is_free {
            self.flush_families()?;
        }
        Ok(is_free)
    }

    fn flush_families(&self) -> Result<(), StoreError> {
        let sequence = self.database.rocksdb().latest_sequence_number();
        // All of them, or what is derived could be on disk without the rows that it was made of.
        let [rows, meta, derived] = SPACES.map(|space| self.database.family(space));
        let flushed = self.database.rocksdb().flush_cfs_opt(&[&rows?, &meta?, &derived?], &FlushOptions::default());
        flushed.map_err(|e| self.database.error("flush", &e))?;
        self.flushed_through.fetch_max(sequence, Ordering::AcqRel);
        Ok(())
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
        let began = Instant::now();
        while !self.has_room_in_level0()? {
            if began.elapsed() >= LONGEST_WAIT {
                return Err(self.stalled(Stall::Stopped));
            }
            self.stalls.fetch_add(1, Ordering::Relaxed);
            self.wait_for_background_work(STALL_CHECK)?;
        }
        Ok(())
    }

    fn has_room_in_level0(&self) -> Result<bool, StoreError> {
        let files = SPACES.into_iter().map(|space| self.database.level0_files(space)).collect::<Result<Vec<_>, _>>()?;
        Ok(files.into_iter().all(|files| files + 1 < LEVEL0_FILES_TO_STOP))
    }

    /// Bytes that a flush would free; none where it has nothing to write. An empty memtable takes memory too.
    pub(super) fn flushable_bytes(&self) -> Result<Option<u64>, StoreError> {
        if self.database.property_of_all(properties::NUM_ENTRIES_ACTIVE_MEM_TABLE)? == 0 {
            return Ok(None);
        }
        self.database.property_of_all(properties::CUR_SIZE_ACTIVE_MEM_TABLE).map(Some)
    }

    fn has_empty_memtables(&self) -> Result<bool, StoreError> {
        let is_being_flushed = self.database.property_of_all(properties::NUM_IMMUTABLE_MEM_TABLE)? > 0;
        Ok(!is_being_flushed && self.flushable_bytes()?.is_none())
    }

    /// Whether there are ranges whose files are still to be dropped.
    pub(super) fn has_deleted_ranges(&self) -> bool {
        !self.deleted_ranges.is_empty()
    }

    /// Whether a crash could lose a deletion whose files are to be dropped.
    pub(super) fn deletions_are_unflushed(&self) -> bool {
        self.deleted_ranges.newest() > self.flushed_through.load(Ordering::Acquire)
    }

    /// Drops the files of deleted ranges as far as that can be done now.
    pub(super) fn drop_deleted_files(&self) -> Result<(), StoreError> {
        if self.deleted_ranges.is_empty() {
            return Ok(());
        }
        let oldest_snapshot = self.database.property(Space::Rows, c"rocksdb.oldest-snapshot-sequence")?;
        let oldest_snapshot = (oldest_snapshot > 0).then_some(oldest_snapshot);
        let rows = self.database.family(Space::Rows)?;
        self.deleted_ranges.drop_files(self.flushed_through.load(Ordering::Acquire), oldest_snapshot, |range| {
            let Some(last) = key_before(&range.to).filter(|last| *last >= range.from) else { return Ok(()) };
            let dropped = self.database.rocksdb().delete_file_in_range_cf(rows, &range.from, &last);
            dropped.map_err(|e| self.database.error("drop files", &e))
        })
    }
}
