//! A state store in memory: for tests, the simulation and the topology test driver.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, Weak};

use super::{Space, StateStore, StoreBatch, StoreChange, StoreError, StoreErrorKind, StoreProvider, StoreSnapshot, VisitEntry};
use crate::record::Partition;

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Default, Clone)]
struct Spaces {
    rows: Entries,
    meta: Entries,
    derived: Entries,
}

impl Spaces {
    fn of(&self, space: Space) -> &Entries {
        match space {
            Space::Rows => &self.rows,
            Space::Meta => &self.meta,
            Space::Derived => &self.derived,
        }
    }

    fn of_mut(&mut self, space: Space) -> &mut Entries {
        match space {
            Space::Rows => &mut self.rows,
            Space::Meta => &mut self.meta,
            Space::Derived => &mut self.derived,
        }
    }
}

/// A [`StateStore`] on ordered maps. Clones share the same content. A snapshot holds writers up while it lives.
#[derive(Debug, Default, Clone)]
pub struct MemoryStore {
    spaces: Arc<RwLock<Spaces>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn read(&self) -> RwLockReadGuard<'_, Spaces> {
        self.spaces.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateStore for MemoryStore {
    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.snapshot().multi_get(keys)
    }

    fn write(&self, batch: &StoreBatch) -> Result<(), StoreError> {
        let mut spaces = self.spaces.write().unwrap_or_else(PoisonError::into_inner);
        for change in batch.iter() {
            match change {
                StoreChange::Put(space, key, value) => {
                    spaces.of_mut(space).insert(key.to_vec(), value.to_vec());
                }
                StoreChange::Delete(space, key) => {
                    spaces.of_mut(space).remove(key);
                }
                StoreChange::DeleteRange(space, from, to) => {
                    let entries = spaces.of_mut(space);
                    let mut tail = entries.split_off(from);
                    entries.append(&mut tail.split_off(to));
                }
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn snapshot(&self) -> Box<dyn StoreSnapshot + '_> {
        Box::new(MemorySnapshot(self.read()))
    }
}

#[derive(Debug)]
struct MemorySnapshot<'a>(RwLockReadGuard<'a, Spaces>);

impl StoreSnapshot for MemorySnapshot<'_> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.of(space).get(key).cloned())
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        Ok(keys.iter().map(|key| self.0.rows.get(*key).cloned()).collect())
    }

    fn scan(&self, space: Space, from: &[u8], to: &[u8], visit: &mut VisitEntry<'_>) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        let range = (Bound::Included(from), Bound::Excluded(to));
        for (key, value) in self.0.of(space).range::<[u8], _>(range) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Opens [`MemoryStore`]s and keeps their content, as a disk would, while the tasks that use them come and go.
#[derive(Debug, Default, Clone)]
pub struct MemoryStores {
    stores: Arc<RwLock<HashMap<(String, Partition), Kept>>>,
}

/// A store and, while it is open, the one that has it.
#[derive(Debug, Default)]
struct Kept {
    store: MemoryStore,
    opened: Weak<MemoryStore>,
}

impl Kept {
    fn check_closed(&self, name: &str, partition: Partition) -> Result<(), StoreError> {
        if self.opened.strong_count() == 0 {
            return Ok(());
        }
        Err(StoreError::new(StoreErrorKind::Retry, format!("store {name} is still open for partition {partition}")))
    }
}

impl MemoryStores {
    /// No stores yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl StoreProvider for MemoryStores {
    fn open(&self, store: &str, partition: Partition) -> Result<Arc<dyn StateStore>, StoreError> {
        let mut stores = self.stores.write().unwrap_or_else(PoisonError::into_inner);
        let kept = stores.entry((store.to_owned(), partition)).or_default();
        kept.check_closed(store, partition)?;
        let opened = Arc::new(kept.store.clone());
        kept.opened = Arc::downgrade(&opened);
        Ok(opened)
    }

    fn partitions(&self, store: &str) -> Result<Vec<Partition>, StoreError> {
        let stores = self.stores.read().unwrap_or_else(PoisonError::into_inner);
        let mut partitions: Vec<_> = stores.keys().filter(|(name, _)| name == store).map(|(_, partition)| *partition).collect();
        partitions.sort_unstable();
        Ok(partitions)
    }

    fn destroy(&self, store: &str, partition: Partition) -> Result<(), StoreError> {
        let (mut stores, name) = (self.stores.write().unwrap_or_else(PoisonError::into_inner), (store.to_owned(), partition));
        if let Some(kept) = stores.get(&name) {
            kept.check_closed(store, partition)?;
            stores.remove(&name);
        }
        Ok(())
    }
}
