//! The stores of a provider that are open now.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use millstream::record::Partition;

use super::store::StoreInner;

/// A store's name, and its partition.
pub(super) type StoreName = (String, Partition);

pub(super) type OpenStoresByName = BTreeMap<StoreName, Arc<StoreInner>>;

/// The stores that are open now. Whoever reads them holds the lock, or [`OpenStores::with`] the store that it uses, so that a store which its
/// owner drops is closed then and there, and can be opened or removed at once.
#[derive(Default)]
pub(super) struct OpenStores {
    stores: Mutex<OpenStoresByName>,
    /// What the flusher is at.
    in_use: Mutex<Option<StoreName>>,
    released: Condvar,
}

impl OpenStores {
    pub(super) fn lock(&self) -> MutexGuard<'_, OpenStoresByName> {
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uses a store, if it is open. It is not closed meanwhile, and the lock is not held. One caller at a time: the flusher.
    pub(super) fn with<R>(&self, name: &StoreName, using: impl FnOnce(&StoreInner) -> R) -> Option<R> {
        let in_use = {
            let stores = self.lock();
            let store = stores.get(name)?.clone();
            *self.lock_in_use() = Some(name.clone());
            InUse { store: Some(store), open: self }
        };
        in_use.store.as_deref().map(using)
    }

    /// Adds a store that was just opened.
    pub(super) fn register(open: &Arc<Self>, name: StoreName, store: &Arc<StoreInner>) -> Registration {
        open.lock().insert(name.clone(), store.clone());
        Registration { name, open: open.clone() }
    }

    fn lock_in_use(&self) -> MutexGuard<'_, Option<StoreName>> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct InUse<'a> {
    store: Option<Arc<StoreInner>>,
    open: &'a OpenStores,
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        self.store = None;
        *self.open.lock_in_use() = None;
        self.open.released.notify_all();
    }
}

/// A store's place among the open ones. Dropped, nobody but its owner has the store.
pub(super) struct Registration {
    name: StoreName,
    open: Arc<OpenStores>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.open.lock().remove(&self.name);
        let is_in_use = |in_use: &mut Option<StoreName>| in_use.as_ref() == Some(&self.name);
        drop(self.open.released.wait_while(self.open.lock_in_use(), is_in_use));
    }
}
