//! Work that nobody waits for, in bounded pieces: whoever runs the broker calls [`LocalBroker::maintain`] now and then.

mod compaction;
mod idempotency;
mod offset_map;
mod retention;
mod rewriter;

pub use idempotency::IDEMPOTENCY_KEPT_FOR;

use super::super::BrokerError;
use super::storage::{LogStorage, LogWrite};
use super::{LocalBroker, lock};
use compaction::Cleaner;

/// Maintenance under way.
#[derive(Debug, Default)]
pub(super) struct Maintenance {
    cleaner: Cleaner,
}

impl<S: LogStorage> LocalBroker<S> {
    /// Does one piece of the work that is due: removes expired idempotency keys, drops what retention allows to drop, and goes on
    /// with the compaction of a compacted topic. Gives whether there is more to do at once; else a second or so may pass.
    ///
    /// A piece reads and writes some 8 MiB at most. Commits wait for its write only, as for each other's.
    ///
    /// # Errors
    /// [`super::super::ErrorKind::Retry`] where there is no room; the work stays due. [`super::super::ErrorKind::Stop`] where a
    /// stored batch is corrupt.
    pub fn maintain(&self) -> Result<bool, BrokerError> {
        let mut maintenance = lock(&self.shared.maintenance);
        let more_keys = self.shared.expire_keys()?;
        self.shared.apply_retention();
        lock(&self.shared.writer).write(&self.shared.storage, LogWrite::default(), LogWrite::default())?;
        let more_cleaning = maintenance.cleaner.step(&self.shared)?;
        Ok(more_keys || more_cleaning)
    }
}
