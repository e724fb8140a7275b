//! Reading a source topic: records in, each in one window, late, or dead-lettered, by the event time of its own partition.

use super::super::grouping::{Intake, Partials};
use super::super::metadata::{CLOSED_THROUGH, OffsetMetadata};
use super::super::processor::{Closed, CommittedTime, Entries, Input};
use super::super::{RecordCounters, SideOutput, TaskError};
use crate::broker::{CommittedOffset, TransactionalProducer};
use crate::record::{Offset, Record, Timestamp, TopicPartition};
use crate::time::{SourceProgress, TimeWindows};

const JOINING: &str = "clickmill.joining";
const IDLE: &str = "clickmill.idle";

/// What a source partition has committed: position, stream time, closed_through.
#[derive(Debug, Clone)]
pub(crate) struct SourcePosition {
    pub(crate) offset: Offset,
    pub(crate) metadata: OffsetMetadata,
}

impl SourcePosition {
    pub(crate) fn closed_through(&self) -> Timestamp {
        Timestamp(self.metadata.entries.get(CLOSED_THROUGH).copied().unwrap_or(0))
    }

    /// Whether the partition is still waiting for the aggregate tasks to know of it.
    pub(crate) fn is_joining(&self) -> bool {
        self.metadata.entries.contains_key(JOINING)
    }

    /// Whether it was committed by this engine after every aggregate task knew of the partition. Kafka Streams, and whoever sets
    /// positions from outside, commit none that have.
    pub(crate) fn has_joined(&self) -> bool {
        self.metadata.entries.contains_key(CLOSED_THROUGH) && !self.is_joining()
    }

    pub(crate) fn progress(&self, windows: TimeWindows) -> SourceProgress {
        SourceProgress::new(windows, self.metadata.stream_time, self.closed_through())
    }

    /// Whether the partition was found idle.
    pub(crate) fn is_idle(&self) -> bool {
        self.metadata.entries.contains_key(IDLE)
    }

    /// The position after more was read.
    pub(crate) fn advanced(&self, offset: Offset, progress: &SourceProgress, idle: bool) -> Self {
        let mut metadata = OffsetMetadata { stream_time: progress.stream_time(), entries: self.metadata.entries.clone() };
        metadata.entries.insert(CLOSED_THROUGH.to_owned(), progress.closed_through().0);
        if idle {
            metadata.entries.insert(IDLE.to_owned(), 1);
        } else {
            metadata.entries.remove(IDLE);
        }
        Self { offset, metadata }
    }

    /// The first commit of a partition that no aggregate task has heard of.
    pub(crate) fn joining(offset: Offset) -> Self {
        Self { offset, metadata: OffsetMetadata::default() }.announcing()
    }

    /// This position while it waits for the aggregate tasks to know of the partition.
    pub(crate) fn announcing(mut self) -> Self {
        self.metadata.entries.insert(JOINING.to_owned(), 1);
        self
    }

    /// The first commit after every aggregate task knows of the partition.
    pub(crate) fn joined(&self, closed_through: Timestamp) -> Self {
        let mut joined = self.clone();
        joined.metadata.entries.remove(JOINING);
        joined.metadata.entries.insert(CLOSED_THROUGH.to_owned(), closed_through.0.max(self.closed_through().0));
        joined
    }

    pub(crate) fn time(&self) -> CommittedTime {
        CommittedTime { stream_time: self.metadata.stream_time, closed_through: self.closed_through().0 }
    }

    pub(crate) fn to_commit(&self) -> CommittedOffset {
        CommittedOffset { offset: self.offset, metadata: self.metadata.encode() }
    }
}

/// Reads one partition of a source topic.
pub(crate) struct SourceInput {
    windows: TimeWindows,
    /// Where the source is keyed by the grouping key already: how many partitions it has.
    keyed_partitions: Option<u32>,
    progress: SourceProgress,
    side: SideOutput,
    position: Offset,
    idle: bool,
    committed: SourcePosition,
    staged: Option<SourcePosition>,
}

impl SourceInput {
    /// Goes on after `committed`.
    pub(crate) fn new(windows: TimeWindows, keyed_partitions: Option<u32>, side: SideOutput, committed: SourcePosition) -> Self {
        let progress = committed.progress(windows);
        let (position, idle) = (committed.offset, committed.is_idle());
        Self { windows, keyed_partitions, progress, side, position, idle, committed, staged: None }
    }
}

impl Input<dyn Partials> for SourceInput {
    fn process(&mut self, records: &[Record<'_>], next: Offset, into: &mut (dyn Partials + 'static)) -> Result<(), TaskError> {
        let Self { progress, side, keyed_partitions, .. } = self;
        into.process(records, &mut Intake { progress, side, keyed_partitions: *keyed_partitions })?;
        self.position = next;
        self.idle = false;
        Ok(())
    }

    fn has_moved(&self) -> bool {
        self.position != self.committed.offset
            || self.idle != self.committed.is_idle()
            || self.progress.closed_through() != self.committed.closed_through()
    }

    fn side_bytes(&self) -> usize {
        self.side.bytes()
    }

    fn closed(&self) -> Closed {
        Closed { committed: self.committed.closed_through(), working: self.progress.closed_through() }
    }

    fn stage(&mut self, output: &Entries, producer: &mut dyn TransactionalProducer) -> Result<CommittedOffset, TaskError> {
        self.side.send(producer)?;
        let mut staged = self.committed.advanced(self.position, &self.progress, self.idle);
        staged.metadata.entries.extend(output.iter().map(|(name, value)| (name.clone(), *value)));
        let commit = staged.to_commit();
        self.staged = Some(staged);
        Ok(commit)
    }

    fn committed(&mut self) -> RecordCounters {
        if let Some(staged) = self.staged.take() {
            self.committed = staged;
        }
        self.side.take_counters()
    }

    fn rollback(&mut self) {
        self.side.take_counters();
        self.staged = None;
        self.progress = self.committed.progress(self.windows);
        self.idle = self.committed.is_idle();
        self.position = self.committed.offset;
    }

    fn committed_time(&self) -> CommittedTime {
        self.committed.time()
    }

    fn is_idle(&self) -> Option<bool> {
        Some(self.idle)
    }

    fn fall_idle(&mut self, closed_through: Option<Timestamp>) {
        self.idle = true;
        if let Some(closed_through) = closed_through {
            self.progress.raise_closed_through(closed_through);
        }
    }

    fn writes_to(&self, partition: &TopicPartition) -> bool {
        self.side.writes_to(partition)
    }

    fn position(&self) -> Offset {
        self.position
    }
}
