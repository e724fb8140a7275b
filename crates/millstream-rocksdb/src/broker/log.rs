//! The broker's storage on RocksDB.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use millstream::broker::BrokerError;
use millstream::broker::local::{LogChange, LogId, LogStorage, LogWrite, VisitBatch, VisitEntry};
use millstream::record::Offset;
use rocksdb::{ColumnFamily, ColumnFamilyDescriptor, DB, ReadOptions, WriteBatch};

use super::error::{broker_error, directory_error};
use super::keys::{batch_key, last_offset};
use super::options::{LogOptions, sequential, synced};
use crate::memory::MemoryBudget;

/// The column family of the record batches. The entries lie in the default one.
const BATCHES: &str = "batches";

/// Record batches and entries in one RocksDB instance, whose write-ahead log is synced with every write.
pub struct RocksLog {
    rocksdb: DB,
    dir: PathBuf,
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
    /// [`millstream::broker::ErrorKind::Stop`] where another process has it open or the files cannot be read.
    pub fn open(dir: &Path, memory: &MemoryBudget) -> Result<Self, BrokerError> {
        std::fs::create_dir_all(dir).map_err(|error| directory_error(dir, "create the directory", &error))?;
        let options = LogOptions::new(memory);
        let families = [(BATCHES, options.batches), (rocksdb::DEFAULT_COLUMN_FAMILY_NAME, options.entries)];
        let families = families.map(|(name, options)| ColumnFamilyDescriptor::new(name, options));
        let opened = DB::open_cf_descriptors(&options.instance, dir, families);
        let rocksdb = opened.map_err(|error| broker_error(dir, "open the log", &error))?;
        Ok(Self { rocksdb, dir: dir.to_owned() })
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
                let (from, to) = (batch_key(*log, *from), batch_key(*log, *to));
                if let Err(error) = self.rocksdb.delete_file_in_range_cf(self.batches(), from, to) {
                    tracing::warn!(%error, dir = %self.dir.display(), "the broker could not drop files of deleted records");
                }
            }
        }
    }
}

impl LogStorage for RocksLog {
    fn write(&self, write: &LogWrite) -> Result<(), BrokerError> {
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
        self.rocksdb.write_opt(batch, &synced()).map_err(|error| self.error("write", &error))?;
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
