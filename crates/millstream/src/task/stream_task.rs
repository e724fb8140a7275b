use std::sync::Arc;

use super::TaskError;
use super::side_output::RecordCounters;
use crate::broker::{CommittedOffset, Delivered, TransactionalProducer};
use crate::record::{Offset, Record, Timestamp, TopicPartition};
use crate::store::StateStore;

/// What a task is to the thread that owns it. Between two commits a task only collects; a commit goes `stage`, then the
/// broker's commit, then `committed` (or `rollback`, and all is as it was after the last commit).
pub(crate) trait StreamTask: Send {
    /// Processes records of the task's partition; `next` is the position after them.
    fn process(&mut self, records: &[Record<'_>], next: Offset) -> Result<(), TaskError>;

    /// Whether there is something to commit.
    fn wants_commit(&self) -> bool;

    /// Roughly the memory that uncommitted work takes.
    fn uncommitted_bytes(&self) -> usize;

    /// Sends everything that belongs to the transaction, and gives the position to commit with it.
    fn stage(&mut self, producer: &mut dyn TransactionalProducer) -> Result<CommittedOffset, TaskError>;

    /// The transaction has committed. Gives what became of the records in it.
    ///
    /// # Errors
    /// Where the store could not take its part: [`StreamTask::settle`] tries again.
    fn committed(&mut self, delivered: &Delivered) -> (RecordCounters, Result<(), TaskError>);

    /// The transaction has not committed: everything goes back to the last commit. Gives the position to read on from.
    fn rollback(&mut self) -> Offset;

    /// Applies what has committed to the store, if it is still to be applied.
    fn settle(&mut self) -> Result<(), TaskError> {
        Ok(())
    }

    /// Whether something that has committed is still to be applied to the store.
    fn is_unsettled(&self) -> bool {
        self.unapplied_changes() > 0
    }

    /// How many changes that have committed the store is behind.
    fn unapplied_changes(&self) -> u64 {
        0
    }

    /// Does a bounded piece of what is made of committed state and belongs to no commit; false where there is nothing to do for now.
    fn derive(&mut self) -> Result<bool, TaskError> {
        Ok(false)
    }

    /// Logs whose records before an offset are not needed any more.
    fn take_trims(&mut self) -> Vec<(TopicPartition, Offset)> {
        Vec::new()
    }

    /// Event time as committed.
    fn committed_time(&self) -> CommittedTime;

    /// The source partition is idle: it takes the closed_through of the others, if they have one. To be committed before the
    /// next record is processed.
    fn fall_idle(&mut self, _closed_through: Option<Timestamp>) {}

    /// The store it keeps, if it keeps one.
    fn state_store(&self) -> Option<&Arc<dyn StateStore>> {
        None
    }

    /// The position to read next.
    fn position(&self) -> Offset;
}

/// How far event time has come in a task, as committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CommittedTime {
    pub(crate) stream_time: Option<Timestamp>,
    /// Zero where nothing is closed.
    pub(crate) closed_through: i64,
}
