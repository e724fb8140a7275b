//! The broker's storage on RocksDB.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use millstream::broker::BrokerError;
use millstream::broker::local::{LogChange, LogId, LogStorage, LogWrite, VisitBatch, VisitEntry};
use millstream::record::Offset;
use rocksdb::{ColumnFamily, ColumnFamilyDescriptor, DB, ErrorKind, ReadOptions, WaitForCompactOptions, WriteBatch};

use super::error::{broker_error, directory_error, opened_elsewhere, stalled, write_error};
use super::keys::{batch_key, last_offset};
use super::options::{LogOptions, sequential, synced};
use super::remains::refuse_remains;
use crate::durable;
use crate::lock::DirectoryLock;
use crate::memory::MemoryBudget;

/// The column family of the record batches. The entries lie in the default one.
pub(super) const BATCHES: &str = "batches";

/// How long a write that has to wait for flushes or compactions waits before it is tried again.
const STALL_CHECK_MICROS: u64 = 100_000;

/// How often it is tried before it is given up: for ten seconds, for everybody else who writes waits too.
const STALL_CHECKS: u32 = 100;

/// Record batches and entries in one RocksDB instance, whose write-ahead log is synced with every write.
pub struct RocksLog {
    rocksdb: DB,
    dir: PathBuf,
    // Given up when RocksDB is closed.
    _lock: DirectoryLock,
}

impl std::fmt::Debug for RocksLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksLog").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl RocksLog {
    /// Opens the log in `dir`, or creates it where there is none.
    ///
    /// # Errors
    /// [`millstream::broker::ErrorKind::Stop`] where another process has it open, the files cannot be read, or some of them are
    /// missing.
    pub fn open(dir: &Path, memory: &MemoryBudget) -> Result<Self, BrokerError> {
        durable::create_dir_all(dir).map_err(|error| directory_error(dir, "create the directory", &error))?;
        let lock = DirectoryLock::take(dir).map_err(|error| directory_error(dir, "lock the directory", &error))?;
        let lock = lock.ok_or_else(|| opened_elsewhere(dir))?;
        let options = LogOptions::new(memory);
        refuse_remains(dir, &options.instance)?;
        let families = [(BATCHES, options.batches), (rocksdb::DEFAULT_COLUMN_FAMILY_NAME, options.entries)];
        let families = families.map(|(name, options)| ColumnFamilyDescriptor::new(name, options));
        let opened = DB::open_cf_descriptors(&options.instance, dir, families);
        let rocksdb = opened.map_err(|error| broker_error(dir, "open the log", &error))?;
        Ok(Self { rocksdb, dir: dir.to_owned(), _lock: lock })
    }

    /// Bytes of all files of the log, what is not yet flushed among them.
    pub fn file_bytes(&self) -> u64 {
        let Ok(files) = std::fs::read_dir(&self.dir) else { return 0 };
        // A file that is gone by the time it is looked at holds nothing.
        files.flatten().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
    }

    fn batches(&self) -> &ColumnFamily {
        self.rocksdb.cf_handle(BATCHES).expect("the column family was opened with the instance")
    }

    fn error(&self, doing: &str, error: &rocksdb::Error) -> BrokerError {
        broker_error(&self.dir, doing, error)
    }

    /// Removes the files that hold nothing but what was dropped; the rest goes with compactions. Only a matter of space, so
    /// that a failure may wait for the next time.
    fn drop_files(&self, write: &LogWrite) {
        for change in &write.changes {
            if let LogChange::DropHead { log, from, to } = change {
                if to <= from {
                    continue;
                }
                // RocksDB takes the end in: the batch that is stored under `to` stays, so it must lie beyond.
                let (from, to) = (batch_key(*log, *from), batch_key(*log, Offset(to.0 - 1)));
                if let Err(error) = self.rocksdb.delete_file_in_range_cf(self.batches(), from, to) {
                    tracing::warn!(%error, dir = %self.dir.display(), "the broker could not drop files of deleted records");
                }
            }
        }
    }

    fn encode(&self, write: &LogWrite) -> WriteBatch {
        let mut batch = WriteBatch::default();
        let batches = self.batches();
        for change in &write.changes {
            match change {
                LogChange::PutBatch { log, last, bytes } => batch.put_cf(batches, batch_key(*log, *last), bytes),
                LogChange::RemoveBatches { log, from, to } | LogChange::DropHead { log, from, to } => {
                    batch.delete_range_cf(batches, batch_key(*log, *from), batch_key(*log, *to));
                }
                LogChange::PutEntry { key, value } => batch.put(key, value),
                LogChange::RemoveEntry { key } => batch.delete(key),
            }
        }
        batch
    }

    fn write_or_report(&self, write: &LogWrite) -> Result<(), BrokerError> {
        for _ in 0..STALL_CHECKS {
            match self.rocksdb.write_opt(self.encode(write), &synced()) {
                Ok(()) => return Ok(()),
                Err(stalled) if stalled.kind() == ErrorKind::Incomplete => self.wait_for_background_work()?,
                Err(error) => return Err(write_error(&self.dir, &error)),
            }
        }
        Err(stalled(&self.dir))
    }

    /// Waits until flushes and compactions are done, a short while at most.
    fn wait_for_background_work(&self) -> Result<(), BrokerError> {
        let mut options = WaitForCompactOptions::default();
        options.set_timeout(STALL_CHECK_MICROS);
        match self.rocksdb.wait_for_compact(&options) {
            Err(error) if error.kind() != ErrorKind::TimedOut => Err(self.error("flush or compact", &error)),
            _ => Ok(()),
        }
    }
}

impl LogStorage for RocksLog {
    fn write(&self, write: &LogWrite) -> Result<(), BrokerError> {
        self.write_or_report(write)?;
        self.drop_files(write);
        Ok(())
    }

    fn read(&self, log: LogId, from: Offset, visit: &mut VisitBatch<'_>) -> Result<(), BrokerError> {
        let mut batches = self.rocksdb.raw_iterator_cf_opt(self.batches(), sequential(batch_key(log, Offset(i64::MAX))));
        batches.seek(batch_key(log, from));
        while let Some((key, bytes)) = batches.item() {
            let Some(last) = last_offset(key) else { break };
            if visit(last, bytes).is_break() {
                return Ok(());
            }
            batches.next();
        }
        batches.status().map_err(|error| self.error("read", &error))
    }

    fn entry(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BrokerError> {
        self.rocksdb.get(key).map_err(|error| self.error("read", &error))
    }

    fn entries(&self, from: &[u8], to: &[u8], visit: &mut VisitEntry<'_>) -> Result<(), BrokerError> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to);
        let mut entries = self.rocksdb.raw_iterator_opt(options);
        entries.seek(from);
        while let Some((key, value)) = entries.item() {
            if visit(key, value) == ControlFlow::Break(()) {
                return Ok(());
            }
            entries.next();
        }
        entries.status().map_err(|error| self.error("read", &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream::record::Partition;
    use rocksdb::properties;

    const LOG: LogId = LogId { topic: 1, partition: Partition(0) };

    fn put(log: &RocksLog, offsets: std::ops::RangeInclusive<i64>) {
        let batch = |last| LogChange::PutBatch { log: LOG, last: Offset(last), bytes: vec![7; 100] };
        log.write(&LogWrite { changes: offsets.map(batch).collect() }).expect("written");
    }

    /// Puts what is in memory into files of level 1, where files may be dropped.
    fn settle(log: &RocksLog) {
        log.rocksdb.flush_cf(log.batches()).expect("flushed");
        log.rocksdb.compact_range_cf(log.batches(), None::<&[u8]>, None::<&[u8]>);
    }

    fn files(log: &RocksLog) -> u64 {
        let level1 = log.rocksdb.property_int_value_cf(log.batches(), properties::LIVE_SST_FILES_SIZE);
        level1.expect("a property").expect("a number")
    }

    fn offsets(log: &RocksLog) -> Vec<i64> {
        let mut offsets = Vec::new();
        let mut visit = |last: Offset, _: &[u8]| {
            offsets.push(last.0);
            ControlFlow::Continue(())
        };
        log.read(LOG, Offset(0), &mut visit).expect("read");
        offsets
    }

    fn drop_head(log: &RocksLog, from: i64, to: i64) {
        let change = LogChange::DropHead { log: LOG, from: Offset(from), to: Offset(to) };
        log.write(&LogWrite { changes: vec![change] }).expect("written");
    }

    #[test]
    fn a_dropped_head_leaves_the_batch_at_its_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = RocksLog::open(dir.path(), &MemoryBudget::new(64 << 20)).expect("opened");
        put(&log, 0..=10);
        settle(&log);
        drop_head(&log, 0, 10);
        assert_eq!(offsets(&log), [10], "its file ends with the first batch that stays");
        drop_head(&log, 10, 10);
        assert_eq!(offsets(&log), [10], "nothing is between an offset and itself");
    }

    #[test]
    fn a_dropped_head_gives_its_files_back_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = RocksLog::open(dir.path(), &MemoryBudget::new(64 << 20)).expect("opened");
        put(&log, 0..=9);
        settle(&log);
        assert!(files(&log) > 0);
        drop_head(&log, 0, 10);
        assert_eq!((offsets(&log), files(&log)), (vec![], 0));
    }
}
