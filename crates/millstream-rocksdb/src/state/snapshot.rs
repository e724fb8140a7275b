//! Reads of one moment's state.

use millstream::store::{Space, StoreError, StoreSnapshot, VisitEntry};
use rocksdb::{ReadOptions, Snapshot};

use super::database::Database;

/// A view of a store as it was at one moment. While it lives, RocksDB keeps what it shows.
pub(super) struct RocksSnapshot<'a> {
    database: &'a Database,
    snapshot: Snapshot<'a>,
}

impl<'a> RocksSnapshot<'a> {
    pub(super) fn new(database: &'a Database) -> Self {
        Self { database, snapshot: database.rocksdb().snapshot() }
    }

    fn read_options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        options
    }
}

impl StoreSnapshot for RocksSnapshot<'_> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.database.rocksdb().get_cf_opt(self.database.family(space)?, key, &self.read_options());
        found.map_err(|e| self.database.error("read", &e))
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.database.multi_get(keys, &self.read_options())
    }

    fn scan(&self, space: Space, from: &[u8], to: &[u8], visit: &mut VisitEntry<'_>) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        let mut options = self.read_options();
        options.set_iterate_upper_bound(to);
        let mut entries = self.database.rocksdb().raw_iterator_cf_opt(self.database.family(space)?, options);
        entries.seek(from);
        while let Some((key, value)) = entries.item() {
            if visit(key, value).is_break() {
                return Ok(());
            }
            entries.next();
        }
        entries.status().map_err(|e| self.database.error("read", &e))
    }
}
