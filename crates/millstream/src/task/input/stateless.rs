//! Reading a source topic of which nothing is kept: records in, records out.

use std::sync::Arc;

use super::super::metadata::OffsetMetadata;
use super::super::processor::{Closed, CommittedTime, Entries, Input};
use super::super::{OutputBuffer, RecordCounters, SideOutput, TaskError};
use crate::broker::{CommittedOffset, TransactionalProducer};
use crate::record::{Offset, Record, Timestamp, TopicPartition};
use crate::serdes::Rejection;

/// A stateless chain that ends in a topic.
pub(crate) trait Transform: Send + Sync {
    /// Processes one batch: what comes out goes to `into`, a record that cannot be read to `reject`. Gives what became of the others.
    fn process(
        &self,
        records: &[Record<'_>],
        partitions: u32,
        into: &mut OutputBuffer,
        reject: &mut dyn FnMut(&Record<'_>, &Rejection),
    ) -> Passed;
}

/// How many records of a batch passed a stateless chain.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Passed {
    /// Those of which something came out.
    pub(crate) sent: u64,
    /// Those of which nothing did.
    pub(crate) filtered: u64,
}

/// Reads one partition of a source topic through a chain of operators.
pub(crate) struct StatelessInput {
    transform: Arc<dyn Transform>,
    output_partitions: u32,
    side: SideOutput,
    position: Offset,
    committed: Offset,
    metadata: OffsetMetadata,
}

impl StatelessInput {
    pub(crate) fn new(
        transform: Arc<dyn Transform>,
        output_partitions: u32,
        side: SideOutput,
        committed: Offset,
        metadata: OffsetMetadata,
    ) -> Self {
        Self { transform, output_partitions, side, position: committed, committed, metadata }
    }
}

impl Input<OutputBuffer> for StatelessInput {
    fn process(&mut self, records: &[Record<'_>], next: Offset, into: &mut OutputBuffer) -> Result<(), TaskError> {
        let side = &mut self.side;
        side.counters.read += records.len() as u64;
        let passed = self.transform.process(records, self.output_partitions, into, &mut |record, rejection| {
            side.dead_letter(record, rejection.reason());
        });
        side.counters.counted += passed.sent;
        side.counters.filtered += passed.filtered;
        self.position = next;
        Ok(())
    }

    fn has_moved(&self) -> bool {
        self.position != self.committed
    }

    fn side_bytes(&self) -> usize {
        self.side.bytes()
    }

    fn closed(&self) -> Closed {
        Closed { committed: Timestamp(0), working: Timestamp(0) }
    }

    fn stage(&mut self, _: &Entries, producer: &mut dyn TransactionalProducer) -> Result<CommittedOffset, TaskError> {
        self.side.send(producer)?;
        Ok(CommittedOffset { offset: self.position, metadata: self.metadata.encode() })
    }

    fn committed(&mut self) -> RecordCounters {
        self.committed = self.position;
        self.side.take_counters()
    }

    fn rollback(&mut self) {
        self.side.take_counters();
        self.position = self.committed;
    }

    fn committed_time(&self) -> CommittedTime {
        CommittedTime::default()
    }

    fn writes_to(&self, partition: &TopicPartition) -> bool {
        self.side.writes_to(partition)
    }

    fn position(&self) -> Offset {
        self.position
    }
}
