//! Opening and removing state stores.

use std::fs::DirEntry;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use millstream::record::Partition;
use millstream::store::{StateStore, StoreError, StoreErrorKind, StoreProvider};
use rocksdb::{DB, Options};

use super::database::{Database, lock};
use super::error::{directory_error, store_error};
use super::flusher::Flusher;
use super::open_stores::OpenStores;
use super::options::{InvalidOption, RocksDbConfigSetter, RocksDbOptions, StoreOptions, shared_options};
use super::statistics::{StoreStatistics, statistics};
use super::store::{RocksStore, StoreInner};
use crate::memory::MemoryBudget;

/// Opens [`RocksStore`]s under one directory and one memory budget.
pub struct RocksStores {
    dir: PathBuf,
    budget: MemoryBudget,
    options: RocksDbOptions,
    setter: Option<Box<dyn RocksDbConfigSetter>>,
    shared: Options,
    open: Arc<OpenStores>,
    /// Started with the first store; the last of provider and stores ends it.
    flusher: Mutex<Option<Arc<Flusher>>>,
}

impl RocksStores {
    /// Stores in `<dir>/<store>/<partition>`. Nothing is opened or created yet.
    ///
    /// # Errors
    /// The first option that cannot be used, with its name.
    pub fn new(dir: impl Into<PathBuf>, budget: MemoryBudget, options: RocksDbOptions) -> Result<Self, InvalidOption> {
        options.validate()?;
        let (dir, shared, open) = (dir.into(), shared_options(), Arc::default());
        Ok(Self { dir, budget, options, setter: None, shared, open, flusher: Mutex::default() })
    }

    /// Lets `setter` see and change the options of each store before it opens.
    pub fn with_config_setter(self, setter: impl RocksDbConfigSetter) -> Self {
        Self { setter: Some(Box::new(setter)), ..self }
    }

    /// What RocksDB says of the stores that are open now, and of the memory that they share.
    pub fn statistics(&self) -> StoreStatistics {
        statistics(&self.shared, &self.budget, &self.open.lock())
    }

    fn path(&self, store: &str, partition: Partition) -> Result<PathBuf, StoreError> {
        let is_name = !store.is_empty() && store.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if !is_name || store == "." || store == ".." {
            let message = format!("`{store}` cannot be a store's name: use letters, digits, `.`, `_` and `-`");
            return Err(StoreError::new(StoreErrorKind::Stop, message));
        }
        Ok(self.dir.join(store).join(partition.to_string()))
    }

    fn flusher(&self) -> Result<Arc<Flusher>, StoreError> {
        let mut flusher = self.flusher.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flusher) = &*flusher {
            return Ok(flusher.clone());
        }
        let started = Flusher::start(self.open.clone(), self.budget.clone());
        let started =
            started.map_err(|e| StoreError::new(StoreErrorKind::Retry, format!("the thread that flushes stores: {e}")))?;
        Ok(flusher.insert(Arc::new(started)).clone())
    }

    fn options_of(&self, store: &str) -> Result<StoreOptions, StoreError> {
        let mut options = self.options.clone();
        if let Some(setter) = &self.setter {
            setter.set_config(store, &mut options);
        }
        let built = options.build(&self.budget, self.shared.clone());
        built.map_err(|e| StoreError::new(StoreErrorKind::Stop, format!("store {store}: {e}")))
    }
}

impl StoreProvider for RocksStores {
    /// # Errors
    /// [`StoreErrorKind::Corrupt`] where what lies there is damaged, [`StoreErrorKind::Retry`] where there is no room or somebody
    /// else, another thread or process, still has the store open.
    fn open(&self, store: &str, partition: Partition) -> Result<Arc<dyn StateStore>, StoreError> {
        let dir = self.path(store, partition)?;
        let database = Database::open(&dir, &self.options_of(store)?)?;
        let flusher = self.flusher()?;
        let inner = Arc::new(StoreInner::new(database, self.budget.clone(), flusher.requests().clone()));
        let registration = OpenStores::register(&self.open, (store.to_owned(), partition), &inner);
        Ok(Arc::new(RocksStore::new(registration, inner, flusher)))
    }

    /// # Errors
    /// Where the directory cannot be read.
    fn partitions(&self, store: &str) -> Result<Vec<Partition>, StoreError> {
        let dir = self.dir.join(store);
        let failed = |error| directory_error(&dir, "list the stores", &error);
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries.collect::<Result<Vec<_>, _>>().map_err(failed)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        let number = |entry: &DirEntry| entry.file_name().to_str()?.parse().ok().map(Partition);
        let mut partitions: Vec<_> = entries.iter().filter_map(number).collect();
        partitions.sort_unstable();
        Ok(partitions)
    }

    fn destroy(&self, store: &str, partition: Partition) -> Result<(), StoreError> {
        let dir = self.path(store, partition)?;
        if !dir.exists() {
            return Ok(());
        }
        // An open store is refused. What RocksDB does not know goes with the directory.
        let _lock = lock(&dir)?;
        DB::destroy(&Options::default(), &dir).map_err(|e| store_error(&dir, "remove the store", &e))?;
        remove_all(&dir).map_err(|e| directory_error(&dir, "remove the directory", &e))
    }
}

fn remove_all(dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
