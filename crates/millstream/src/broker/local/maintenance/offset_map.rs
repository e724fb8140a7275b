//! The last offset of each key in a stretch of a log, in bounded memory.

use std::collections::HashMap;

use crate::record::{Offset, Record};

/// What an entry takes beside its key, near enough.
const ENTRY_BYTES: usize = 64;

/// Keys and the offsets of their last records.
#[derive(Debug)]
pub(super) struct OffsetMap {
    last: HashMap<Box<[u8]>, Offset>,
    bytes: usize,
    limit: usize,
}

impl OffsetMap {
    /// An empty map that is full at about that many bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { last: HashMap::new(), bytes: 0, limit }
    }

    /// Notes a record; they come in order.
    pub(super) fn note(&mut self, record: &Record<'_>) {
        let Some(key) = record.key else { return };
        match self.last.get_mut(key) {
            Some(last) => *last = record.offset,
            None => {
                self.bytes += key.len() + ENTRY_BYTES;
                self.last.insert(key.into(), record.offset);
            }
        }
    }

    /// Whether no more should be noted.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= self.limit
    }

    /// Whether a later record of the same key is known.
    pub(super) fn supersedes(&self, record: &Record<'_>) -> bool {
        record.key.is_some_and(|key| self.last.get(key).is_some_and(|last| *last > record.offset))
    }
}
