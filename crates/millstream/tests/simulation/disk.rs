//! The stores of one instance, on a disk that may be full and that loses the latest writes in a crash.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use millstream::record::Partition;
use millstream::runtime::Observer;
use millstream::store::memory::MemoryStore;
use millstream::store::{
    Space, StateStore, StoreBatch, StoreChange, StoreError, StoreErrorKind, StoreProvider, StoreSnapshot, VisitEntry,
};

use crate::audit::{RANKED, RESUMED};
use crate::faults::{CallFaults, StoreCall};
use crate::random::Random;

/// Behind every key that a store can have.
const AFTER_ALL_KEYS: &[u8] = &[0xff; 32];

/// The disk of one instance. Clones are the same disk.
#[derive(Clone)]
pub(crate) struct Disk {
    files: Arc<Mutex<BTreeMap<(String, Partition), SharedFiles>>>,
    is_full: Arc<AtomicBool>,
    faults: Arc<CallFaults>,
    identity: Arc<Mutex<Identity>>,
}

/// What a process leaves of itself for the next one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identity {
    /// How many processes there were.
    pub(crate) incarnation: u64,
    /// What the group called the last one.
    pub(crate) member: Option<String>,
}

type SharedFiles = Arc<Mutex<Files>>;

/// One store: what a crash leaves whatever happens, and the writes since.
#[derive(Default)]
struct Files {
    durable: MemoryStore,
    unflushed: Vec<StoreBatch>,
    live: MemoryStore,
    /// Whoever has the store open holds the other end.
    opened: Weak<()>,
}

impl Disk {
    pub(crate) fn new(faults: Arc<CallFaults>) -> Self {
        Self { files: Arc::default(), is_full: Arc::default(), faults, identity: Arc::default() }
    }

    /// Another process starts with what the last one has left.
    pub(crate) fn next_life(&self) -> Identity {
        let mut identity = lock(&self.identity);
        identity.incarnation += 1;
        identity.clone()
    }

    /// From now on there is no room, or there is again.
    pub(crate) fn set_full(&self, full: bool) {
        self.is_full.store(full, Ordering::SeqCst);
    }

    /// The machine crashes: of each store a part of what was not flushed is gone, the latest writes first.
    pub(crate) fn crash(&self, random: &mut Random) {
        for files in lock(&self.files).values() {
            let mut files = lock(files);
            let kept = random.index(files.unflushed.len() + 1);
            let Files { durable, unflushed, live, opened } = &mut *files;
            unflushed.drain(..).take(kept).for_each(|batch| durable.write(&batch).expect("memory takes every write"));
            *live = copy_of(durable);
            *opened = Weak::new();
        }
    }

    /// All stores are gone.
    pub(crate) fn erase(&self) {
        lock(&self.files).clear();
    }
}

impl Observer for Disk {
    fn joined(&self, member: &str) {
        if lock(&self.identity).member.replace(member.to_owned()).as_deref() == Some(member) {
            self.faults.trace().event(RESUMED, member);
        }
    }
}

impl StoreProvider for Disk {
    fn open(&self, store: &str, partition: Partition) -> Result<Arc<dyn StateStore>, StoreError> {
        self.faults.at_store(StoreCall::Open)?;
        let files = lock(&self.files).entry((store.to_owned(), partition)).or_default().clone();
        let (live, handle) = {
            let mut files = lock(&files);
            files.check_closed()?;
            let handle = Arc::new(());
            files.opened = Arc::downgrade(&handle);
            (files.live.clone(), handle)
        };
        Ok(Arc::new(DiskStore { live, files, _handle: handle, is_full: self.is_full.clone(), faults: self.faults.clone() }))
    }

    fn partitions(&self, store: &str) -> Result<Vec<Partition>, StoreError> {
        let mut partitions: Vec<_> =
            lock(&self.files).keys().filter(|(name, _)| name == store).map(|(_, number)| *number).collect();
        partitions.sort_unstable();
        Ok(partitions)
    }

    fn destroy(&self, store: &str, partition: Partition) -> Result<(), StoreError> {
        self.faults.at_store(StoreCall::Destroy)?;
        let (mut files, name) = (lock(&self.files), (store.to_owned(), partition));
        if let Some(found) = files.get(&name) {
            lock(found).check_closed()?;
            files.remove(&name);
        }
        Ok(())
    }
}

impl Files {
    fn check_closed(&self) -> Result<(), StoreError> {
        match self.opened.strong_count() {
            0 => Ok(()),
            _ => Err(StoreError::new(StoreErrorKind::Retry, "the store is still open")),
        }
    }
}

struct DiskStore {
    live: MemoryStore,
    _handle: Arc<()>,
    files: SharedFiles,
    is_full: Arc<AtomicBool>,
    faults: Arc<CallFaults>,
}

impl StateStore for DiskStore {
    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.faults.at_store(StoreCall::Read)?;
        self.live.multi_get(keys)
    }

    fn write(&self, batch: &StoreBatch) -> Result<(), StoreError> {
        self.faults.at_store(StoreCall::Write)?;
        if self.is_full.load(Ordering::SeqCst) {
            return Err(StoreError::new(StoreErrorKind::Retry, "the disk was told to be full"));
        }
        self.live.write(batch)?;
        let ranks = batch.iter().any(|change| matches!(change, StoreChange::Put(Space::Derived, ..)));
        if ranks {
            self.faults.trace().event(RANKED, "");
        }
        lock(&self.files).unflushed.push(copy_of_batch(batch));
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.faults.at_store(StoreCall::Flush)?;
        let mut files = lock(&self.files);
        let Files { durable, unflushed, .. } = &mut *files;
        unflushed.drain(..).try_for_each(|batch| durable.write(&batch))
    }

    fn snapshot(&self) -> Box<dyn StoreSnapshot + '_> {
        Box::new(DiskSnapshot { snapshot: self.live.snapshot(), faults: &self.faults })
    }
}

struct DiskSnapshot<'a> {
    snapshot: Box<dyn StoreSnapshot + 'a>,
    faults: &'a CallFaults,
}

impl StoreSnapshot for DiskSnapshot<'_> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.faults.at_store(StoreCall::Scan)?;
        self.snapshot.get(space, key)
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.faults.at_store(StoreCall::Scan)?;
        self.snapshot.multi_get(keys)
    }

    fn scan(&self, space: Space, from: &[u8], to: &[u8], visit: &mut VisitEntry<'_>) -> Result<(), StoreError> {
        self.faults.at_store(StoreCall::Scan)?;
        self.snapshot.scan(space, from, to, visit)
    }
}

fn copy_of(store: &MemoryStore) -> MemoryStore {
    let mut batch = StoreBatch::new();
    for space in [Space::Rows, Space::Meta, Space::Derived] {
        let copied = store.snapshot().scan(space, &[], AFTER_ALL_KEYS, &mut |key, value| {
            batch.put(space, key, value);
            std::ops::ControlFlow::Continue(())
        });
        copied.expect("memory can be read");
    }
    let copy = MemoryStore::new();
    copy.write(&batch).expect("memory takes every write");
    copy
}

fn copy_of_batch(batch: &StoreBatch) -> StoreBatch {
    let mut copy = StoreBatch::new();
    for change in batch.iter() {
        match change {
            StoreChange::Put(space, key, value) => copy.put(space, key, value),
            StoreChange::Delete(space, key) => copy.delete(space, key),
            StoreChange::DeleteRange(space, from, to) => copy.delete_range(space, from, to),
        }
    }
    copy
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
