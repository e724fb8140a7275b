//! What a task does with records between two commits and what it sends with one: an [`Input`] that reads, and an [`Output`] that
//! keeps what was read of it until a commit. The kinds of tasks are compositions of the two:
//!
//! | kind | input | output |
//! |---|---|---|
//! | source | [`super::input::SourceInput`] | [`super::output::Shuffle`] |
//! | aggregate | [`super::input::PartialsInput`] | [`super::output::WindowedState`] |
//! | fused | [`super::input::SourceInput`] | [`super::output::WindowedState`] |
//! | stateless | [`super::input::StatelessInput`] | [`super::output::Forward`] |

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use super::{RecordCounters, TaskError};
use crate::broker::{CommittedOffset, Delivered, TransactionalProducer};
use crate::record::{Offset, Record, Timestamp, TopicPartition};
use crate::store::StateStore;
use crate::store::window_store::WindowStore;

/// Named numbers beside a committed offset ([`super::metadata::OffsetMetadata`]).
pub(crate) type Entries = BTreeMap<String, i64>;

/// What a running task is to the thread that has it. Between two commits it only collects. A commit goes `prepare`, then `stage` within
/// the transaction, then the broker's commit, then `committed` and `settle`; or `rollback`, and all is as it was after the last commit.
pub(crate) trait Processor: Send {
    /// Processes records of the task's input; `next` is the position after them.
    fn process(&mut self, records: &[Record<'_>], next: Offset) -> Result<(), TaskError>;

    /// Whether there is something to commit.
    fn wants_commit(&self) -> bool;

    /// Roughly the memory that uncommitted work takes.
    fn uncommitted_bytes(&self) -> usize;

    /// Reads what the next transaction changes, before it begins: a transaction may be open for seconds only. Nothing may be processed
    /// until it has ended.
    fn prepare(&mut self) -> Result<(), TaskError>;

    /// Sends everything that belongs to the transaction, and gives the position to commit with it.
    fn stage(&mut self, producer: &mut dyn TransactionalProducer) -> Result<CommittedOffset, TaskError>;

    /// The transaction has committed. Gives what became of the records in it. [`Processor::settle`] comes next.
    fn committed(&mut self, delivered: &Delivered) -> RecordCounters;

    /// The transaction has not committed: everything goes back to the last commit. Gives the position to read on from.
    fn rollback(&mut self) -> Offset;

    /// Lets the store take what has committed, where it has not yet.
    fn settle(&mut self) -> Result<(), TaskError>;

    /// How many changes that have committed the store is behind.
    fn unapplied_changes(&self) -> u64;

    /// Does a bounded piece of what is made of committed state and belongs to no commit; false where there is nothing to do for now.
    fn derive(&mut self) -> Result<bool, TaskError>;

    /// Logs whose records before an offset are not needed any more.
    fn take_trims(&mut self) -> Vec<Trim>;

    /// Event time as committed.
    fn committed_time(&self) -> CommittedTime;

    /// Whether its input is one that can fall idle, and has.
    fn is_idle(&self) -> Option<bool>;

    /// The source partition is idle: it takes the closed_through of the others, if they have one. To be committed before the
    /// next record is processed.
    fn fall_idle(&mut self, closed_through: Option<Timestamp>);

    /// Whether a transaction of this task may write to that partition.
    fn writes_to(&self, partition: &TopicPartition) -> bool;

    /// The store it keeps, if it keeps one.
    fn state_store(&self) -> Option<&Arc<dyn StateStore>>;

    /// The store itself, with what has committed and was taken; everything else is forgotten.
    fn into_store(self: Box<Self>) -> Option<WindowStore>;

    /// The position to read next.
    fn position(&self) -> Offset;
}

/// Reads the records of one partition into what an output keeps.
pub(crate) trait Input<Kept: ?Sized>: Send {
    /// Reads records; `next` is the position after them.
    fn process(&mut self, records: &[Record<'_>], next: Offset, into: &mut Kept) -> Result<(), TaskError>;

    /// Whether there is something to commit.
    fn has_moved(&self) -> bool;

    /// Roughly the memory that records take which are sent beside the output's.
    fn side_bytes(&self) -> usize;

    /// How far is closed: as committed, and as it will be with the next commit.
    fn closed(&self) -> Closed;

    /// Sends what goes beside the output, and gives the position to commit, `output`'s entries with it.
    fn stage(&mut self, output: &Entries, producer: &mut dyn TransactionalProducer) -> Result<CommittedOffset, TaskError>;

    /// What was staged last has committed.
    fn committed(&mut self) -> RecordCounters;

    /// Back to the last commit.
    fn rollback(&mut self);

    /// As [`Processor::committed_time`].
    fn committed_time(&self) -> CommittedTime;

    /// As [`Processor::is_idle`].
    fn is_idle(&self) -> Option<bool> {
        None
    }

    /// As [`Processor::fall_idle`].
    fn fall_idle(&mut self, _closed_through: Option<Timestamp>) {}

    /// Whether it may send to that partition, beside the output.
    fn writes_to(&self, partition: &TopicPartition) -> bool;

    /// Before which offset of its own topic nothing is needed once it is committed, where that topic is there for this task alone.
    fn consumed(&self) -> Option<Trim> {
        None
    }

    /// The position to read next.
    fn position(&self) -> Offset;
}

/// Keeps what an input has read, until a commit sends it on.
pub(crate) trait Output: Send {
    /// What is kept between commits.
    type Kept: ?Sized;

    /// What is kept.
    fn kept(&mut self) -> &mut Self::Kept;

    /// Roughly the memory that it takes.
    fn bytes(&self) -> usize;

    /// Whether there is something to send that no record has brought.
    fn wants_commit(&self) -> bool {
        false
    }

    /// As [`Processor::prepare`].
    fn prepare(&mut self) -> Result<(), TaskError> {
        Ok(())
    }

    /// Sends what is kept, and what follows from how far the input is closed.
    fn send(&mut self, closed: Closed, producer: &mut dyn TransactionalProducer) -> Result<(), TaskError>;

    /// What is to stand beside the offset committed with what was sent.
    fn entries(&self) -> Entries {
        Entries::new()
    }

    /// What was sent last has committed, with the input at this position and closed so far.
    fn committed(&mut self, delivered: &Delivered, closed_through: Timestamp, input: Offset);

    /// Forgets what is kept and what was sent.
    fn rollback(&mut self);

    /// As [`Processor::settle`].
    fn settle(&mut self) -> Result<(), TaskError> {
        Ok(())
    }

    /// As [`Processor::unapplied_changes`].
    fn unapplied_changes(&self) -> u64 {
        0
    }

    /// As [`Processor::derive`].
    fn derive(&mut self) -> Result<bool, TaskError> {
        Ok(false)
    }

    /// Logs whose records before an offset are not needed any more.
    fn take_trim(&mut self) -> Option<Trim> {
        None
    }

    /// Whether it may send to that partition.
    fn writes_to(&self, partition: &TopicPartition) -> bool;

    /// As [`Processor::state_store`].
    fn state_store(&self) -> Option<&Arc<dyn StateStore>> {
        None
    }

    /// As [`Processor::into_store`].
    fn into_store(self) -> Option<WindowStore>;
}

/// How far a task's input is closed: no window that ends at or before it changes any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) committed: Timestamp,
    pub(crate) working: Timestamp,
}

/// How far event time has come in a task, as committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CommittedTime {
    pub(crate) stream_time: Option<Timestamp>,
    /// Zero where nothing is closed.
    pub(crate) closed_through: i64,
}

/// Records that nobody needs any more.
#[derive(Clone)]
pub(crate) struct Trim {
    pub(crate) log: TopicPartition,
    /// The first offset that is needed.
    pub(crate) before: Offset,
    /// What has to be flushed first: what it holds now stands for the records that go. Where it has been closed, another will say what
    /// is not needed.
    pub(crate) flush: Option<Weak<dyn StateStore>>,
}

/// An input and an output: a kind of task.
pub(crate) struct Composed<I, O> {
    pub(crate) input: I,
    pub(crate) output: O,
}

impl<I: Input<O::Kept>, O: Output> Processor for Composed<I, O> {
    fn process(&mut self, records: &[Record<'_>], next: Offset) -> Result<(), TaskError> {
        self.input.process(records, next, self.output.kept())
    }

    fn wants_commit(&self) -> bool {
        self.input.has_moved() || self.output.wants_commit()
    }

    fn uncommitted_bytes(&self) -> usize {
        self.output.bytes() + self.input.side_bytes()
    }

    fn prepare(&mut self) -> Result<(), TaskError> {
        self.output.prepare()
    }

    fn stage(&mut self, producer: &mut dyn TransactionalProducer) -> Result<CommittedOffset, TaskError> {
        self.output.send(self.input.closed(), producer)?;
        self.input.stage(&self.output.entries(), producer)
    }

    fn committed(&mut self, delivered: &Delivered) -> RecordCounters {
        let counters = self.input.committed();
        self.output.committed(delivered, self.input.closed().committed, self.input.position());
        counters
    }

    fn rollback(&mut self) -> Offset {
        self.output.rollback();
        self.input.rollback();
        self.input.position()
    }

    fn settle(&mut self) -> Result<(), TaskError> {
        self.output.settle()
    }

    fn unapplied_changes(&self) -> u64 {
        self.output.unapplied_changes()
    }

    fn derive(&mut self) -> Result<bool, TaskError> {
        self.output.derive()
    }

    fn take_trims(&mut self) -> Vec<Trim> {
        self.output.take_trim().into_iter().chain(self.input.consumed()).collect()
    }

    fn committed_time(&self) -> CommittedTime {
        self.input.committed_time()
    }

    fn is_idle(&self) -> Option<bool> {
        self.input.is_idle()
    }

    fn fall_idle(&mut self, closed_through: Option<Timestamp>) {
        self.input.fall_idle(closed_through);
    }

    fn writes_to(&self, partition: &TopicPartition) -> bool {
        self.output.writes_to(partition) || self.input.writes_to(partition)
    }

    fn state_store(&self) -> Option<&Arc<dyn StateStore>> {
        self.output.state_store()
    }

    fn into_store(self: Box<Self>) -> Option<WindowStore> {
        self.output.into_store()
    }

    fn position(&self) -> Offset {
        self.input.position()
    }
}
