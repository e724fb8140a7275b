//! A storage out of order.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use millstream::broker::local::{LogId, LogStorage, LogWrite, MemoryLog, VisitBatch, VisitEntry};
use millstream::broker::{BrokerError, ErrorKind};
use millstream::record::{Offset, Partition};

/// A storage out of order: failed writes have taken place all the same, as those of a log file may that could not be synced, or
/// a bit of every batch is flipped when it is read, or single partitions cannot be read.
pub(crate) struct Doubtful {
    inner: MemoryLog,
    kind: ErrorKind,
    pub(crate) fails: AtomicUsize,
    pub(crate) flips: AtomicBool,
    /// What a read of these partitions brings: an error of that kind, or bytes that are no batch where there is none.
    pub(crate) unreadable: Mutex<BTreeMap<Partition, Option<ErrorKind>>>,
}

impl Doubtful {
    pub(crate) fn new(inner: MemoryLog) -> Self {
        Self::failing_with(ErrorKind::OutcomeUnknown, inner)
    }

    pub(crate) fn failing_with(kind: ErrorKind, inner: MemoryLog) -> Self {
        Self { inner, kind, fails: AtomicUsize::new(0), flips: AtomicBool::new(false), unreadable: Mutex::default() }
    }
}

impl LogStorage for Doubtful {
    fn write(&self, write: &LogWrite) -> Result<(), BrokerError> {
        self.inner.write(write)?;
        match self.fails.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => Err(BrokerError::new(self.kind, "perhaps")),
            Err(_) => Ok(()),
        }
    }

    fn read(&self, log: LogId, from: Offset, visit: &mut VisitBatch<'_>) -> Result<(), BrokerError> {
        match self.unreadable.lock().unwrap().get(&log.partition) {
            Some(Some(kind)) => return Err(BrokerError::new(*kind, "unreadable")),
            Some(None) => return self.inner.read(log, from, &mut |last, _| visit(last, b"no batch")),
            None => {}
        }
        let flips = self.flips.load(Ordering::SeqCst);
        self.inner.read(log, from, &mut |last, bytes| {
            let mut bytes = bytes.to_vec();
            let end = bytes.len() - 1;
            bytes[end] ^= u8::from(flips);
            visit(last, &bytes)
        })
    }

    fn entry(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BrokerError> {
        self.inner.entry(key)
    }

    fn entries(&self, from: &[u8], to: &[u8], visit: &mut VisitEntry<'_>) -> Result<(), BrokerError> {
        self.inner.entries(from, to, visit)
    }
}
