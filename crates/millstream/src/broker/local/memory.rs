//! The broker's storage in memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::super::{BrokerError, ErrorKind};
use super::LocalBroker;
use super::storage::{LogChange, LogId, LogStorage, LogWrite, VisitBatch, VisitEntry};
use crate::clock::Clock;
use crate::record::Offset;

/// A broker in memory: for tests, the simulation and the topology test driver.
pub type MemoryBroker = LocalBroker<MemoryLog>;

impl MemoryBroker {
    /// An empty broker in memory.
    pub fn in_memory(clock: Arc<dyn Clock>) -> Self {
        Self::open(MemoryLog::new(), clock, "memory").expect("an empty log in memory opens")
    }
}

#[derive(Debug, Default)]
struct Content {
    batches: BTreeMap<(LogId, Offset), Arc<[u8]>>,
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A [`LogStorage`] on ordered maps. Clones share the content, so that a broker can be opened on it again.
#[derive(Debug, Clone, Default)]
pub struct MemoryLog {
    content: Arc<RwLock<Content>>,
    full: Arc<AtomicBool>,
}

impl MemoryLog {
    /// An empty storage.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on every write is refused as on a full disk, or accepted again.
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }
}

impl LogStorage for MemoryLog {
    fn write(&self, write: &LogWrite) -> Result<(), BrokerError> {
        if self.full.load(Ordering::SeqCst) {
            return Err(BrokerError::new(ErrorKind::Retry, "the log in memory was told to be full"));
        }
        let mut content = self.content.write().unwrap_or_else(PoisonError::into_inner);
        for change in &write.changes {
            match change {
                LogChange::PutBatch { log, last, bytes } => {
                    content.batches.insert((*log, *last), bytes.as_slice().into());
                }
                LogChange::RemoveBatches { log, from, to } | LogChange::DropHead { log, from, to } => {
                    let gone: Vec<_> = content.batches.range((*log, *from)..(*log, *to)).map(|(key, _)| *key).collect();
                    for key in gone {
                        content.batches.remove(&key);
                    }
                }
                LogChange::PutEntry { key, value } => {
                    content.entries.insert(key.clone(), value.clone());
                }
                LogChange::RemoveEntry { key } => {
                    content.entries.remove(key);
                }
            }
        }
        Ok(())
    }

    fn read(&self, log: LogId, from: Offset, visit: &mut VisitBatch<'_>) -> Result<(), BrokerError> {
        let content = self.content.read().unwrap_or_else(PoisonError::into_inner);
        for ((_, last), bytes) in content.batches.range((log, from)..=(log, Offset(i64::MAX))) {
            if visit(*last, bytes).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn entry(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BrokerError> {
        Ok(self.content.read().unwrap_or_else(PoisonError::into_inner).entries.get(key).cloned())
    }

    fn entries(&self, from: &[u8], to: &[u8], visit: &mut VisitEntry<'_>) -> Result<(), BrokerError> {
        let content = self.content.read().unwrap_or_else(PoisonError::into_inner);
        if from >= to {
            return Ok(());
        }
        for (key, value) in content.entries.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}
