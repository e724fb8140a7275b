//! Writing to the storage, one at a time.

use std::collections::BTreeMap;

use super::super::{BrokerError, ErrorKind};
use super::entries;
use super::log::{Log, Segment};
use super::storage::{LogId, LogStorage, LogWrite};
use crate::record::Offset;

/// Who holds this is the only one that writes to the storage.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// What takes back a write that failed, or whose thread panicked: it may turn up after all.
    undo: Option<LogWrite>,
    /// Starts of logs that have moved and are not stored yet.
    starts: BTreeMap<LogId, Offset>,
    /// Segments that lie before their log's start, and are not removed from the storage yet.
    dropped: Vec<(LogId, Segment)>,
}

impl Writer {
    /// Takes back what an earlier failed write may have left behind. Before that nothing can be read for sure or written: a write of
    /// its own, so that it does not grow while the storage stays out of order, and done again as often as need be.
    pub(super) fn take_back(&mut self, storage: &impl LogStorage) -> Result<(), BrokerError> {
        if let Some(undo) = &self.undo {
            storage.write(undo).map_err(|error| match error.kind() {
                ErrorKind::OutcomeUnknown => BrokerError::new(ErrorKind::Retry, error.to_string()),
                _ => error,
            })?;
            self.undo = None;
        }
        Ok(())
    }

    /// Writes all of `write` or nothing, and with it what was put off (done again where it fails). `undo` takes `write` back. An
    /// error is the storage's.
    pub(super) fn write(&mut self, storage: &impl LogStorage, write: LogWrite, undo: LogWrite) -> Result<(), BrokerError> {
        self.take_back(storage)?;
        let write = self.with_put_off(write);
        if write.changes.is_empty() {
            return Ok(());
        }
        self.undo = Some(undo).filter(|undo| !undo.changes.is_empty());
        storage.write(&write)?;
        self.undo = None;
        self.starts.clear();
        self.dropped.clear();
        Ok(())
    }

    /// Moves the start of a log on, up to its last stable offset, and puts off storing it. Segments that lie before it go.
    pub(super) fn move_start(&mut self, log: &mut Log, before: Offset) {
        let start = before.min(log.last_stable());
        if start <= log.start {
            return;
        }
        log.start = start;
        self.starts.insert(log.id, start);
        let dropped = log.segments_before(start);
        self.dropped.extend(log.segments.drain(..dropped).map(|segment| (log.id, segment)));
    }

    fn with_put_off(&self, write: LogWrite) -> LogWrite {
        if self.starts.is_empty() {
            return write;
        }
        let mut all = LogWrite::default();
        for (log, start) in &self.starts {
            all.put_entry(entries::log_key(*log), entries::encode_log_start(*start));
        }
        for (log, segment) in &self.dropped {
            all.remove_entry(entries::segment_key(*log, segment.first));
            all.drop_head(*log, segment.first, segment.next);
        }
        all.changes.extend(write.changes);
        all
    }
}
