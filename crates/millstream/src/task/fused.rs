//! The fused task: where the source is keyed by the grouping key already, one task counts and keeps.

use std::sync::Arc;

use super::TaskError;
use super::aggregate_state::AggregateState;
use super::grouping::{Intake, Partials};
use super::side_output::{RecordCounters, SideOutput};
use super::source::SourcePosition;
use super::stream_task::{CommittedTime, StreamTask};
use crate::broker::{CommittedOffset, Delivered, TransactionalProducer};
use crate::record::{Offset, Record, Timestamp, TopicPartition};
use crate::store::StateStore;
use crate::time::{SourceProgress, TimeWindows};

/// Reads one partition of a source topic straight into the window store of the same number.
pub(crate) struct FusedTask {
    windows: TimeWindows,
    partitions: u32,
    partials: Box<dyn Partials>,
    progress: SourceProgress,
    side: SideOutput,
    state: AggregateState,
    position: Offset,
    idle: bool,
    committed: SourcePosition,
    staged: Option<SourcePosition>,
}

impl FusedTask {
    pub(crate) fn new(
        windows: TimeWindows,
        partitions: u32,
        partials: Box<dyn Partials>,
        side: SideOutput,
        state: AggregateState,
        committed: SourcePosition,
    ) -> Self {
        let progress = committed.progress(windows);
        let (position, idle) = (committed.offset, committed.is_idle());
        Self { windows, partitions, partials, progress, side, state, position, idle, committed, staged: None }
    }
}

impl StreamTask for FusedTask {
    fn process(&mut self, records: &[Record<'_>], next: Offset) -> Result<(), TaskError> {
        let keyed_partitions = Some(self.partitions);
        let mut intake = Intake { progress: &mut self.progress, side: &mut self.side, keyed_partitions };
        self.partials.process(records, &mut intake)?;
        self.position = next;
        self.idle = false;
        Ok(())
    }

    fn wants_commit(&self) -> bool {
        self.position != self.committed.offset
            || self.idle != self.committed.is_idle()
            || self.progress.closed_through() != self.committed.closed_through()
            || self.state.wants_commit()
    }

    fn uncommitted_bytes(&self) -> usize {
        self.partials.bytes() + self.side.bytes()
    }

    fn stage(&mut self, producer: &mut dyn TransactionalProducer) -> Result<CommittedOffset, TaskError> {
        self.state.stage(&mut *self.partials, producer)?;
        self.side.send(producer)?;
        let mut staged = self.committed.advanced(self.position, &self.progress, self.idle);
        self.state.put_entries(&mut staged.metadata.entries);
        let commit = staged.to_commit();
        self.staged = Some(staged);
        Ok(commit)
    }

    fn committed(&mut self, delivered: &Delivered) -> (RecordCounters, Result<(), TaskError>) {
        if let Some(staged) = self.staged.take() {
            self.committed = staged;
        }
        (self.side.take_counters(), self.state.committed(delivered, self.committed.closed_through(), self.committed.offset))
    }

    fn rollback(&mut self) -> Offset {
        self.partials.clear();
        self.side.take_counters();
        self.staged = None;
        self.state.rollback();
        self.progress = self.committed.progress(self.windows);
        self.idle = self.committed.is_idle();
        self.position = self.committed.offset;
        self.position
    }

    fn settle(&mut self) -> Result<(), TaskError> {
        if self.state.is_unsettled() { self.state.settle() } else { Ok(()) }
    }

    fn unapplied_changes(&self) -> u64 {
        self.state.unapplied_changes()
    }

    fn derive(&mut self) -> Result<bool, TaskError> {
        self.state.rank()
    }

    fn take_trims(&mut self) -> Vec<(TopicPartition, Offset)> {
        self.state.take_trim().into_iter().collect()
    }

    fn committed_time(&self) -> CommittedTime {
        self.committed.time()
    }

    fn fall_idle(&mut self, closed_through: Option<Timestamp>) {
        self.idle = true;
        if let Some(closed_through) = closed_through {
            self.progress.raise_closed_through(closed_through);
        }
    }

    fn state_store(&self) -> Option<&Arc<dyn StateStore>> {
        Some(self.state.state_store())
    }

    fn position(&self) -> Offset {
        self.position
    }
}
