//! What the broker needs of the storage beneath it.

use std::ops::ControlFlow;

use super::super::BrokerError;
use crate::record::{Offset, Partition};

/// One partition's log within the storage: the topic's number and the partition's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// The number that the topic was given when it was created; never used twice.
    pub topic: u32,
    /// The partition.
    pub partition: Partition,
}

/// One change in a [`LogWrite`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogChange {
    /// Stores a record batch (see `batch`) under the last offset that it stands for.
    PutBatch {
        /// The log.
        log: LogId,
        /// The batch's last offset.
        last: Offset,
        /// The batch.
        bytes: Vec<u8>,
    },
    /// Removes the batches whose last offset is in `from <= last < to`.
    RemoveBatches {
        /// The log.
        log: LogId,
        /// The smallest last offset of a batch to remove.
        from: Offset,
        /// The last offset from which on batches stay.
        to: Offset,
    },
    /// Removes the batches whose last offset is in `from <= last < to`, at the head of a log: nothing will be stored there
    /// again, so that the storage may drop what holds them whole.
    DropHead {
        /// The log.
        log: LogId,
        /// The smallest last offset of a batch to remove.
        from: Offset,
        /// The last offset from which on batches stay.
        to: Offset,
    },
    /// Sets an entry.
    PutEntry {
        /// The entry's key.
        key: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// Removes an entry, if it is there.
    RemoveEntry {
        /// The entry's key.
        key: Vec<u8>,
    },
}

/// Changes that take effect together, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogWrite {
    /// The changes.
    pub changes: Vec<LogChange>,
}

impl LogWrite {
    pub(super) fn put_batch(&mut self, log: LogId, last: Offset, bytes: Vec<u8>) {
        self.changes.push(LogChange::PutBatch { log, last, bytes });
    }

    pub(super) fn remove_batches(&mut self, log: LogId, from: Offset, to: Offset) {
        self.changes.push(LogChange::RemoveBatches { log, from, to });
    }

    pub(super) fn drop_head(&mut self, log: LogId, from: Offset, to: Offset) {
        self.changes.push(LogChange::DropHead { log, from, to });
    }

    pub(super) fn put_entry(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.changes.push(LogChange::PutEntry { key, value });
    }

    pub(super) fn remove_entry(&mut self, key: Vec<u8>) {
        self.changes.push(LogChange::RemoveEntry { key });
    }
}

/// Visits a batch: its last offset and its bytes.
pub type VisitBatch<'a> = dyn FnMut(Offset, &[u8]) -> ControlFlow<()> + 'a;

/// Visits an entry: its key and its value.
pub type VisitEntry<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Record batches of many logs, ordered by last offset within each, and beside them small entries ordered by key.
///
/// The broker calls [`LogStorage::write`] from one thread at a time, and the rest from any.
pub trait LogStorage: Send + Sync + 'static {
    /// Applies all changes, durably, or none.
    ///
    /// # Errors
    /// [`super::super::ErrorKind::Retry`] where there is no room or the storage is out of order for now, and the changes are surely
    /// not stored. After any other kind they may still turn up when the process has died (all of them): whoever goes on first
    /// undoes them in the next write. [`super::super::ErrorKind::OutcomeUnknown`] where it will go on by itself, and
    /// [`super::super::ErrorKind::Stop`] where it will not.
    fn write(&self, write: &LogWrite) -> Result<(), BrokerError>;

    /// Visits the batches of a log whose last offset is at or after `from`, in order, until the visitor breaks.
    fn read(&self, log: LogId, from: Offset, visit: &mut VisitBatch<'_>) -> Result<(), BrokerError>;

    /// The value of an entry.
    fn entry(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BrokerError>;

    /// Visits the entries with `from <= key < to` in order until the visitor breaks.
    fn entries(&self, from: &[u8], to: &[u8], visit: &mut VisitEntry<'_>) -> Result<(), BrokerError>;
}
