//! One RocksDB instance: how it is opened and read, and its errors.

use std::path::{Path, PathBuf};

use millstream::store::{Space, StoreError, StoreErrorKind};
use rocksdb::{CStrLike, ColumnFamily, ColumnFamilyDescriptor, DB, ReadOptions, properties};

use super::error::{corrupt, directory_error, store_error};
use super::options::StoreOptions;
use crate::durable;
use crate::endless::endless_record;
use crate::lock::DirectoryLock;

const ROWS: &str = "rows";
const META: &str = "meta";
const DERIVED: &str = "derived";

/// Every space has a column family.
pub(super) const SPACES: [Space; 3] = [Space::Rows, Space::Meta, Space::Derived];

/// RocksDB itself, and what every call on it needs.
pub(super) struct Database {
    rocksdb: DB,
    dir: PathBuf,
    // Given up when RocksDB is closed.
    _lock: DirectoryLock,
}

impl Database {
    /// Opens the instance in `dir`, or creates it where there is none.
    pub(super) fn open(dir: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        durable::create_dir_all(dir).map_err(|e| directory_error(dir, "create the directory", &e))?;
        let lock = lock(dir)?;
        refuse_remains(dir, options)?;
        let small = [META, DERIVED, rocksdb::DEFAULT_COLUMN_FAMILY_NAME].map(|name| (name, &options.small));
        let families = small.into_iter().chain([(ROWS, &options.rows)]);
        let families = families.map(|(name, options)| ColumnFamilyDescriptor::new(name, options.clone()));
        let rocksdb =
            DB::open_cf_descriptors(&options.rows, dir, families).map_err(|e| store_error(dir, "open the store", &e))?;
        Ok(Self { rocksdb, dir: dir.to_owned(), _lock: lock })
    }

    pub(super) fn rocksdb(&self) -> &DB {
        &self.rocksdb
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn family(&self, space: Space) -> Result<&ColumnFamily, StoreError> {
        let name = match space {
            Space::Rows => ROWS,
            Space::Meta => META,
            Space::Derived => DERIVED,
        };
        self.rocksdb.cf_handle(name).ok_or_else(|| corrupt(&self.dir, &format!("column family {name} is missing")))
    }

    pub(super) fn error(&self, doing: &str, error: &rocksdb::Error) -> StoreError {
        store_error(&self.dir, doing, error)
    }

    pub(super) fn multi_get(&self, keys: &[&[u8]], options: &ReadOptions) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let sorted = true;
        let found = self.rocksdb.batched_multi_get_cf_opt(self.family(Space::Rows)?, keys.iter().copied(), sorted, options);
        let values = found.into_iter().map(|value| value.map(|value| value.map(|bytes| bytes.to_vec())));
        values.collect::<Result<_, _>>().map_err(|e| self.error("read", &e))
    }

    pub(super) fn level0_files(&self, space: Space) -> Result<u16, StoreError> {
        let name = properties::num_files_at_level(0);
        let files = self.rocksdb.property_value_cf(self.family(space)?, name).map_err(|e| self.error("read a property", &e))?;
        Ok(files.and_then(|files| files.parse().ok()).unwrap_or(0))
    }

    /// A number that RocksDB keeps, over all spaces.
    pub(super) fn property_of_all(&self, name: impl CStrLike + Copy) -> Result<u64, StoreError> {
        SPACES.into_iter().map(|space| self.property(space, name)).sum()
    }

    /// A number that RocksDB keeps about a column family; 0 where it does not know.
    pub(super) fn property(&self, space: Space, name: impl CStrLike) -> Result<u64, StoreError> {
        let value = self.rocksdb.property_int_value_cf(self.family(space)?, name);
        Ok(value.map_err(|e| self.error("read a property", &e))?.unwrap_or(0))
    }
}

/// Takes the store's directory, so that what is looked at there, and removed, is nobody's.
pub(super) fn lock(dir: &Path) -> Result<DirectoryLock, StoreError> {
    let lock = DirectoryLock::take(dir).map_err(|e| directory_error(dir, "lock the directory", &e))?;
    lock.ok_or_else(|| {
        let message = format!("store in {}: another thread or process has it open, or is still closing it", dir.display());
        StoreError::new(StoreErrorKind::Retry, message)
    })
}

/// RocksDB would take a directory without `CURRENT`, or a manifest cut off before the column families, for an empty store,
/// and remove the files it does not know.
fn refuse_remains(dir: &Path, options: &StoreOptions) -> Result<(), StoreError> {
    let entries = std::fs::read_dir(dir).map_err(|e| directory_error(dir, "list the directory", &e))?;
    let mut has_data = false;
    let mut has_current = false;
    for entry in entries {
        let name = entry.map_err(|e| directory_error(dir, "list the directory", &e))?.file_name();
        has_current |= name == "CURRENT";
        has_data |= Path::new(&name).extension().is_some_and(|extension| extension == "sst");
    }
    if !has_data {
        return Ok(());
    }
    if !has_current {
        return Err(corrupt(dir, "CURRENT is missing"));
    }
    refuse_endless_manifest(dir)?;
    // What is derived may be missing: it is made again, and older stores do not have it.
    let families = DB::list_cf(&options.rows, dir).map_err(|e| store_error(dir, "read the manifest", &e))?;
    match [ROWS, META].into_iter().find(|name| !families.iter().any(|family| family == name)) {
        Some(missing) => Err(corrupt(dir, &format!("column family {missing} is missing"))),
        None => Ok(()),
    }
}

/// A manifest that RocksDB would read for ever. What else is wrong with it, or with its name, RocksDB says itself.
fn refuse_endless_manifest(dir: &Path) -> Result<(), StoreError> {
    let Ok(current) = std::fs::read_to_string(dir.join("CURRENT")) else { return Ok(()) };
    match endless_record(&dir.join(current.trim_end_matches('\n'))) {
        Ok(Some(at)) => Err(corrupt(dir, &format!("the manifest is damaged at byte {at}"))),
        Ok(None) | Err(_) => Ok(()),
    }
}
