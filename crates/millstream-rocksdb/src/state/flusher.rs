//! The thread that flushes stores, so that nobody who writes to one has to.
//!
//! It flushes the largest memtables where those of all stores together hold too much, and now and then the stores with deleted ranges,
//! whose files it drops. RocksDB flushes a memtable that is full by itself.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use millstream::store::StoreError;
use tracing::{debug, warn};

use super::open_stores::{OpenStores, StoreName};
use super::store::StoreInner;
use crate::memory::MemoryBudget;

/// How long a deleted range waits for others: in a backlog every commit expires something, and each flush makes small files.
const EXPIRY_PAUSE: Duration = Duration::from_secs(5);

/// How long it leaves memtables alone that it could not flush.
const MEMORY_PAUSE: Duration = Duration::from_millis(100);

/// The flusher of a provider's stores. It ends when it is dropped, once the flush that it is at has ended.
pub(super) struct Flusher {
    requests: Arc<Requests>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    pub(super) fn start(stores: Arc<OpenStores>, budget: MemoryBudget) -> std::io::Result<Self> {
        let requests = Arc::<Requests>::default();
        let work = Work { stores, budget, requests: requests.clone() };
        let thread = std::thread::Builder::new().name("store-flusher".to_owned()).spawn(move || work.run())?;
        Ok(Self { requests, thread: Some(thread) })
    }

    pub(super) fn requests(&self) -> &Arc<Requests> {
        &self.requests
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.requests.change(|wanted| wanted.is_closed = true);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            warn!("the thread that flushes stores has panicked");
        }
    }
}

/// What stores want of their flusher.
#[derive(Default)]
pub(super) struct Requests {
    wanted: Mutex<Wanted>,
    changed: Condvar,
    flushed: Condvar,
}

#[derive(Default)]
struct Wanted {
    memory: bool,
    /// When deleted ranges are looked after next; none where there are none.
    expiry_at: Option<Instant>,
    is_closed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Memory,
    Expiry,
}

impl Requests {
    /// Memtables hold too much.
    pub(super) fn ask_for_memory(&self) {
        self.change(|wanted| wanted.memory = true);
    }

    /// There are deleted ranges whose files can be dropped after a flush.
    pub(super) fn ask_for_expiry(&self) {
        self.change(|wanted| {
            wanted.expiry_at.get_or_insert_with(|| Instant::now() + EXPIRY_PAUSE);
        });
    }

    /// Waits until the flusher has flushed something, at most so long.
    pub(super) fn wait_for_flush(&self, most: Duration) {
        drop(self.flushed.wait_timeout(self.lock(), most));
    }

    /// Waits for the next request; none at the end.
    fn next(&self) -> Option<Request> {
        let mut wanted = self.lock();
        loop {
            if wanted.is_closed {
                return None;
            }
            if std::mem::take(&mut wanted.memory) {
                return Some(Request::Memory);
            }
            let pause = wanted.expiry_at.map(|at| at.saturating_duration_since(Instant::now()));
            wanted = match pause {
                Some(Duration::ZERO) => {
                    wanted.expiry_at = None;
                    return Some(Request::Expiry);
                }
                Some(pause) => self.changed.wait_timeout(wanted, pause).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(wanted).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Waits so long, or until the end.
    fn pause(&self, pause: Duration) {
        drop(self.changed.wait_timeout_while(self.lock(), pause, |wanted| !wanted.is_closed));
    }

    fn change(&self, change: impl FnOnce(&mut Wanted)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the thread has.
struct Work {
    stores: Arc<OpenStores>,
    budget: MemoryBudget,
    requests: Arc<Requests>,
}

impl Work {
    fn run(self) {
        while let Some(request) = self.requests.next() {
            match request {
                Request::Memory => self.free_memory(),
                Request::Expiry => self.drop_deleted_files(),
            }
        }
    }

    /// Flushes the largest memtables until there is room for restores again. Each store once: the next request begins anew.
    fn free_memory(&self) {
        let mut tried = BTreeSet::new();
        let mut has_flushed = false;
        while self.budget.memtables_are_scarce() {
            let Some(name) = self.largest_memtables(&tried) else { break };
            has_flushed |= self.stores.with(&name, |store| self.flush(store)).unwrap_or(false);
            tried.insert(name);
        }
        if !has_flushed && self.budget.memtables_are_scarce() {
            self.requests.pause(MEMORY_PAUSE);
        }
    }

    fn largest_memtables(&self, tried: &BTreeSet<StoreName>) -> Option<StoreName> {
        let stores = self.stores.lock();
        let untried = stores.iter().filter(|(name, _)| !tried.contains(*name));
        // A property fails only where a column family is gone, and then the store reports it on its next call.
        let sizes = untried.filter_map(|(name, store)| Some((store.flushable_bytes().ok()??, name)));
        sizes.max().map(|(_, name)| name.clone())
    }

    /// Flushes a store unless that would have to wait for anything but the disk: the others must not wait for this one.
    fn flush(&self, store: &StoreInner) -> bool {
        let flushed = store.flush_if_free();
        self.requests.flushed.notify_all();
        flushed.unwrap_or_else(|error| {
            debug!(%error, "a store cannot be flushed for now");
            false
        })
    }

    fn drop_deleted_files(&self) {
        let names: Vec<StoreName> = self.stores.lock().keys().cloned().collect();
        for name in names {
            let some_left = self.stores.with(&name, |store| {
                if let Err(error) = self.drop_deleted_files_of(store) {
                    warn!(%error, "the room of deleted rows is given back later");
                }
                store.has_deleted_ranges()
            });
            if some_left == Some(true) {
                self.requests.ask_for_expiry();
            }
        }
    }

    fn drop_deleted_files_of(&self, store: &StoreInner) -> Result<(), StoreError> {
        if store.deletions_are_unflushed() {
            self.flush(store);
        }
        store.drop_deleted_files()
    }
}
