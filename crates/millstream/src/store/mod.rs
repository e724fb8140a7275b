//! State beside the code that uses it: the trait a storage engine implements, and the window store built on it.

pub(crate) mod best;
pub mod memory;
pub(crate) mod ranking;
pub(crate) mod row;
pub(crate) mod window_store;

pub use window_store::{FORMAT, StoreIdentity, WindowTotals};

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::kept::Kept;
use crate::record::Partition;

/// The key spaces of a state store. What a write puts into several becomes visible, and durable, together; and what was written
/// earlier is durable before what was written later, whichever space it went to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Space {
    /// The rows of the store, in key order.
    Rows,
    /// What is known about the rows: identity, position, totals of each window.
    Meta,
    /// What was made of the rows and can be made again: rankings of final windows.
    Derived,
}

/// An ordered map from bytes to bytes with atomic writes and consistent reads, on whatever storage.
///
/// A store survives the process but not necessarily its last moments: after a crash it holds the state as of *some* earlier
/// write, whole. The changelog replays what came after.
pub trait StateStore: Send + Sync + 'static {
    /// The values of those rows, in the order asked. The keys come in ascending order.
    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError>;

    /// Applies the batch: all of it, or on an error nothing. Waits for nothing: a thread that counts calls it.
    ///
    /// # Errors
    /// [`StoreErrorKind::Retry`] where it would have to wait.
    fn write(&self, batch: &StoreBatch) -> Result<(), StoreError>;

    /// As [`StateStore::write`], and waits for room, as a restore does, which is faster than what a store can put on its disk. By default
    /// the same, for stores that always have room.
    ///
    /// # Errors
    /// [`StoreErrorKind::Retry`] where it waited in vain.
    fn write_waiting(&self, batch: &StoreBatch) -> Result<(), StoreError> {
        self.write(batch)
    }

    /// Makes everything written so far survive a crash of the machine. Waits for the disk.
    fn flush(&self) -> Result<(), StoreError>;

    /// A view of the store as it is now.
    fn snapshot(&self) -> Box<dyn StoreSnapshot + '_>;
}

/// Is shown an entry's key and value, and says whether to go on.
pub type VisitEntry<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Reads of one moment's state.
pub trait StoreSnapshot {
    /// The value of a key.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// The values of those rows, in the order asked. The keys come in ascending order.
    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError>;

    /// Visits the entries with `from <= key < to` in key order until the visitor breaks.
    fn scan(&self, space: Space, from: &[u8], to: &[u8], visit: &mut VisitEntry<'_>) -> Result<(), StoreError>;
}

/// One change in a [`StoreBatch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreChange<'a> {
    /// Sets a key's value.
    Put(Space, &'a [u8], &'a [u8]),
    /// Removes a key.
    Delete(Space, &'a [u8]),
    /// Removes all keys with `from <= key < to`.
    DeleteRange(Space, &'a [u8], &'a [u8]),
}

/// Changes that take effect together, in order. Holds its keys and values in one buffer, which [`StoreBatch::clear`] keeps unless it
/// was a peak.
#[derive(Debug, Default)]
pub struct StoreBatch {
    bytes: Vec<u8>,
    changes: Vec<(Op, Space, usize, usize)>,
    kept: Kept,
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Put,
    Delete,
    DeleteRange,
}

impl StoreBatch {
    /// No changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key's value.
    pub fn put(&mut self, space: Space, key: &[u8], value: &[u8]) {
        self.push(Op::Put, space, key, value);
    }

    /// Removes a key.
    pub fn delete(&mut self, space: Space, key: &[u8]) {
        self.push(Op::Delete, space, key, &[]);
    }

    /// Removes all keys with `from <= key < to`.
    pub fn delete_range(&mut self, space: Space, from: &[u8], to: &[u8]) {
        self.push(Op::DeleteRange, space, from, to);
    }

    /// The changes in order.
    pub fn iter(&self) -> impl Iterator<Item = StoreChange<'_>> {
        let mut start = 0;
        self.changes.iter().map(move |&(op, space, middle, end)| {
            let (first, second) = (&self.bytes[start..middle], &self.bytes[middle..end]);
            start = end;
            match op {
                Op::Put => StoreChange::Put(space, first, second),
                Op::Delete => StoreChange::Delete(space, first),
                Op::DeleteRange => StoreChange::DeleteRange(space, first, second),
            }
        })
    }

    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Forgets the changes, and keeps the memory that the next ones usually need.
    pub fn clear(&mut self) {
        let in_use = self.bytes.len() + self.changes.len() * size_of::<(Op, Space, usize, usize)>();
        if self.kept.gives_back(in_use, self.held()) {
            *self = Self { kept: self.kept, ..Self::default() };
            return;
        }
        self.bytes.clear();
        self.changes.clear();
    }

    /// The memory that it holds, in use or not.
    pub(crate) fn held(&self) -> usize {
        self.bytes.capacity() + self.changes.capacity() * size_of::<(Op, Space, usize, usize)>()
    }

    /// Where the batch ends now, for [`StoreBatch::truncate`].
    pub(crate) fn mark(&self) -> (usize, usize) {
        (self.bytes.len(), self.changes.len())
    }

    /// Takes back what was added since the mark.
    pub(crate) fn truncate(&mut self, (bytes, changes): (usize, usize)) {
        self.bytes.truncate(bytes);
        self.changes.truncate(changes);
    }

    fn push(&mut self, op: Op, space: Space, first: &[u8], second: &[u8]) {
        self.bytes.extend_from_slice(first);
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(second);
        self.changes.push((op, space, middle, self.bytes.len()));
    }
}

/// Opens the state stores of tasks, and removes those that are to be built anew.
pub trait StoreProvider: Send + Sync + 'static {
    /// Opens the store of that name for that partition, empty where there is none yet.
    ///
    /// # Errors
    /// [`StoreErrorKind::Corrupt`] where what lies there cannot be read. [`StoreErrorKind::Retry`] while somebody still has it open:
    /// a thread that has lost its task to another and does not know it yet, or a query.
    fn open(&self, store: &str, partition: Partition) -> Result<Arc<dyn StateStore>, StoreError>;

    /// The partitions for which there is a store of that name, ascending.
    ///
    /// # Errors
    /// Where that cannot be found out.
    fn partitions(&self, store: &str) -> Result<Vec<Partition>, StoreError>;

    /// Removes the store of that name for that partition with all it holds.
    ///
    /// # Errors
    /// [`StoreErrorKind::Retry`] while somebody still has it open.
    fn destroy(&self, store: &str, partition: Partition) -> Result<(), StoreError>;
}

/// What the caller of a store must do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// There is no room, or the storage is out of order for now; the store holds what it held, and the same call may
    /// succeed later.
    Retry,
    /// What is stored is not what was written: destroy the store and rebuild it from the changelog.
    Corrupt,
    /// Going on would be wrong or useless; an operator has to look.
    Stop,
}

/// An error of a state store: a kind to act on, and a message for people.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    kind: StoreErrorKind,
    message: String,
}

impl StoreError {
    /// An error of that kind. The message names the store, the reason and the way out.
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What the caller must do.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_gives_back_what_a_peak_needed() {
        let mut batch = StoreBatch::new();
        let mut filled = |rows: usize| {
            (0..rows).for_each(|_| batch.put(Space::Rows, b"key", &[7; 100]));
            batch.clear();
            batch.bytes.capacity()
        };
        assert!(filled(100) >= 100 * 103);
        assert_eq!(filled(10_000), 0);
    }
}
