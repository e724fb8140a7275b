//! The task of a pipeline without an aggregate: records in, records out.

use std::sync::Arc;

use super::TaskError;
use super::metadata::OffsetMetadata;
use super::side_output::{OutputBuffer, RecordCounters, SideOutput};
use super::stream_task::{CommittedTime, StreamTask};
use crate::broker::{CommittedOffset, Delivered, TransactionalProducer};
use crate::record::{Offset, Record};
use crate::topology::Transform;

/// Reads one partition of a source topic through a chain into another topic.
pub(crate) struct StatelessTask {
    transform: Arc<dyn Transform>,
    output_partitions: u32,
    output: OutputBuffer,
    side: SideOutput,
    position: Offset,
    committed: Offset,
    metadata: OffsetMetadata,
}

impl StatelessTask {
    pub(crate) fn new(
        transform: Arc<dyn Transform>,
        output_partitions: u32,
        side: SideOutput,
        committed: Offset,
        metadata: OffsetMetadata,
    ) -> Self {
        let output = OutputBuffer::default();
        Self { transform, output_partitions, output, side, position: committed, committed, metadata }
    }
}

impl StreamTask for StatelessTask {
    fn process(&mut self, records: &[Record<'_>], next: Offset) -> Result<(), TaskError> {
        let side = &mut self.side;
        side.counters.read += records.len() as u64;
        self.transform.process(records, self.output_partitions, &mut self.output, &mut |record, rejection| {
            side.dead_letter(record, rejection.reason());
        });
        self.position = next;
        Ok(())
    }

    fn wants_commit(&self) -> bool {
        self.position != self.committed
    }

    fn uncommitted_bytes(&self) -> usize {
        self.output.bytes() + self.side.bytes()
    }

    fn stage(&mut self, producer: &mut dyn TransactionalProducer) -> Result<CommittedOffset, TaskError> {
        self.output.send(producer)?;
        self.side.send(producer)?;
        Ok(CommittedOffset { offset: self.position, metadata: self.metadata.encode() })
    }

    fn committed(&mut self, _: &Delivered) -> (RecordCounters, Result<(), TaskError>) {
        self.output.clear();
        self.committed = self.position;
        (self.side.take_counters(), Ok(()))
    }

    fn rollback(&mut self) -> Offset {
        self.output.clear();
        self.side.take_counters();
        self.position = self.committed;
        self.committed
    }

    fn committed_time(&self) -> CommittedTime {
        CommittedTime::default()
    }

    fn position(&self) -> Offset {
        self.position
    }
}
